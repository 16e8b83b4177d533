//! The native buckets of a histogram of Prometheus: four for each doubling, so each is 19 % wider than the one below it.
//!
//! <https://prometheus.io/docs/specs/native_histograms/>: bucket `i` of schema 2 holds what is above `2^((i-1)/4)` and at
//! most `2^(i/4)`, in seconds.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets for each doubling, as a power of two.
pub(super) const SCHEMA: i32 = 2;

const PER_DOUBLING: i32 = 1 << SCHEMA;

/// Everything up to 2^-14 s, which is 61 µs, is in one bucket.
pub(super) const ZERO_THRESHOLD: f64 = 1.0 / 16_384.0;

const LOWEST: i32 = -14 * PER_DOUBLING + 1;

/// The last bucket ends with 2^12 s, which is 68 minutes, and has all that took longer too.
const HIGHEST: i32 = 12 * PER_DOUBLING;

const BUCKETS: usize = (HIGHEST - LOWEST + 1) as usize;

/// `2^(-1)`, `2^(-3/4)`, `2^(-2/4)` and `2^(-1/4)`.
const PARTS: [f64; PER_DOUBLING as usize] =
    [0.5, 0.594_603_557_501_360_5, std::f64::consts::FRAC_1_SQRT_2, 0.840_896_415_253_714_6];

/// Counters of all buckets.
#[derive(Debug)]
pub(super) struct NativeBuckets {
    zero: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for NativeBuckets {
    fn default() -> Self {
        Self { zero: AtomicU64::new(0), buckets: [const { AtomicU64::new(0) }; BUCKETS] }
    }
}

/// What the buckets held at one moment, in the form of the exposition.
#[derive(Debug, Default)]
pub(super) struct NativeSnapshot {
    pub(super) zero: u64,
    /// Runs of buckets that hold something: how many empty ones are before it, and how many it has. The first begins at
    /// bucket 0, and may lie before it.
    pub(super) spans: Vec<(i32, u32)>,
    /// What each of those buckets holds more than the one before it.
    pub(super) deltas: Vec<i64>,
    /// All that was counted.
    pub(super) count: u64,
}

impl NativeBuckets {
    /// Counts one that took so many seconds.
    pub(super) fn count(&self, seconds: f64) {
        let counter = if seconds > ZERO_THRESHOLD { self.bucket(seconds) } else { &self.zero };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn bucket(&self, seconds: f64) -> &AtomicU64 {
        let at = usize::try_from(index(seconds).min(HIGHEST) - LOWEST).unwrap_or(0);
        &self.buckets[at.min(BUCKETS - 1)]
    }

    /// What they hold now.
    pub(super) fn snapshot(&self) -> NativeSnapshot {
        let zero = self.zero.load(Ordering::Relaxed);
        let mut snapshot = NativeSnapshot { zero, count: zero, ..NativeSnapshot::default() };
        let (mut next, mut last) = (0, 0);
        for (index, counter) in (LOWEST..).zip(&self.buckets) {
            let count = counter.load(Ordering::Relaxed);
            if count == 0 {
                continue;
            }
            match snapshot.spans.last_mut() {
                Some((_, length)) if index == next => *length += 1,
                _ => snapshot.spans.push((index - next, 1)),
            }
            snapshot.deltas.push(count.cast_signed() - last);
            snapshot.count += count;
            (next, last) = (index + 1, count.cast_signed());
        }
        snapshot
    }
}

/// The bucket of a positive number.
fn index(value: f64) -> i32 {
    let (part, exponent) = in_parts(value);
    let above = PARTS.iter().filter(|bound| part > **bound).count();
    (exponent - 1) * PER_DOUBLING + i32::try_from(above).unwrap_or(0)
}

/// A positive number as `part * 2^exponent`, where `part` is at least 0.5 and below 1.
#[allow(clippy::cast_possible_truncation)]
fn in_parts(value: f64) -> (f64, i32) {
    const FRACTION: u64 = (1 << 52) - 1;
    const HALF: u64 = 1022 << 52;
    let bits = value.to_bits();
    (f64::from_bits(bits & FRACTION | HALF), (bits >> 52) as i32 - 1022)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Upper bound of a bucket.
    fn bound(index: i32) -> f64 {
        (f64::from(index) / f64::from(PER_DOUBLING)).exp2()
    }

    /// Counts by bucket, as a reader makes them of spans and deltas.
    fn expand(snapshot: &NativeSnapshot) -> Vec<(i32, i64)> {
        let (mut index, mut count, mut deltas) = (0, 0, snapshot.deltas.iter());
        let mut counts = Vec::new();
        for (offset, length) in &snapshot.spans {
            index += offset;
            for _ in 0..*length {
                count += deltas.next().expect("a delta for each bucket");
                counts.push((index, count));
                index += 1;
            }
        }
        assert_eq!(deltas.next(), None);
        counts
    }

    #[test]
    fn bounds_belong_to_the_bucket_below() {
        for (value, expected) in [(1.0, 0), (2.0, 4), (0.5, -4), (1.000_001, 1), (1.5, 3), (0.25, -8), (4096.0, 48)] {
            assert_eq!(index(value), expected, "{value}");
        }
    }

    #[test]
    fn the_shortest_and_the_longest_are_counted() {
        let buckets = NativeBuckets::default();
        for seconds in [0.0, ZERO_THRESHOLD, ZERO_THRESHOLD * 1.01, 4096.0, 1e9] {
            buckets.count(seconds);
        }
        let snapshot = buckets.snapshot();
        assert_eq!((snapshot.zero, snapshot.count), (2, 5));
        assert_eq!(expand(&snapshot), [(LOWEST, 1), (HIGHEST, 2)]);
    }

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket(micros in 62_u64..4_000_000_000) {
            #[allow(clippy::cast_precision_loss)]
            let value = micros as f64 / 1e6;
            let index = index(value);
            prop_assert!(bound(index - 1) * (1.0 - 1e-12) < value && value <= bound(index) * (1.0 + 1e-12));
        }

        #[test]
        fn a_reader_finds_what_was_counted(all in prop::collection::vec(1_u64..10_000_000_000, 0..200)) {
            let buckets = NativeBuckets::default();
            let mut expected = std::collections::BTreeMap::new();
            let mut zero = 0;
            for micros in &all {
                #[allow(clippy::cast_precision_loss)]
                let value = *micros as f64 / 1e6;
                buckets.count(value);
                if value <= ZERO_THRESHOLD {
                    zero += 1;
                } else {
                    *expected.entry(index(value).min(HIGHEST)).or_insert(0_i64) += 1;
                }
            }
            let snapshot = buckets.snapshot();
            prop_assert_eq!(snapshot.zero, zero);
            prop_assert_eq!(snapshot.count, all.len() as u64);
            prop_assert_eq!(expand(&snapshot), expected.into_iter().collect::<Vec<_>>());
        }
    }
}
