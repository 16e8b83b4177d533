//! How long responses took: counts in buckets that grow with the time they stand for.

/// Buckets: eight for each doubling from a microsecond on, so that a value is right to an eighth; up to 19 hours.
const BUCKETS: usize = 8 * 36;

/// Counts by time.
#[derive(Clone, Debug)]
pub(super) struct Histogram(Box<[u32; BUCKETS]>);

impl Default for Histogram {
    fn default() -> Self {
        Self(Box::new([0; BUCKETS]))
    }
}

impl Histogram {
    /// Counts one.
    pub(super) fn add(&mut self, millis: f64) {
        let count = &mut self.0[bucket_of(millis)];
        *count = count.saturating_add(1);
    }

    /// Counts all of another one.
    pub(super) fn add_all(&mut self, other: &Self) {
        for (sum, count) in self.0.iter_mut().zip(&*other.0) {
            *sum = sum.saturating_add(*count);
        }
    }

    /// How many were counted.
    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|count| u64::from(*count)).sum()
    }

    /// Within how many milliseconds this share was, in percent; 0 if there is none.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn quantile(&self, percent: f64) -> f64 {
        let wanted = (self.count() as f64 * percent / 100.0).ceil().max(1.0);
        let mut seen = 0.0;
        for (bucket, count) in self.0.iter().enumerate() {
            seen += f64::from(*count);
            if seen >= wanted {
                return millis_of(bucket);
            }
        }
        0.0
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn bucket_of(millis: f64) -> usize {
    let micros = (millis * 1000.0).max(1.0);
    ((micros.log2() * 8.0) as usize).min(BUCKETS - 1)
}

/// The upper bound of a bucket.
#[allow(clippy::cast_precision_loss)]
fn millis_of(bucket: usize) -> f64 {
    2_f64.powf((bucket + 1) as f64 / 8.0) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_an_eighth() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(50.0).to_bits(), 0);
        (1..=100).for_each(|i| histogram.add(f64::from(i)));
        for percent in [1.0, 50.0, 90.0, 99.0, 100.0] {
            let got = histogram.quantile(percent);
            assert!(got >= percent && got <= percent * 1.2, "{percent}: {got}");
        }
        for extreme in [0.0, 1e-9, 1e12, f64::INFINITY, f64::NAN] {
            histogram.add(extreme);
        }
        assert_eq!(histogram.count(), 105);
    }
}
