//! How long responses took: counts in buckets that grow with the time they stand for.

/// Buckets: eight for each doubling from a microsecond on, so that a value is right to an eighth; up to 19 hours.
const BUCKETS: usize = 8 * 36;

/// Counts by time. Takes memory once something is counted: most ports have no policy that counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram(Option<Box<[u32; BUCKETS]>>);

impl Histogram {
    /// Counts one.
    pub(super) fn add(&mut self, millis: f64) {
        let count = &mut self.buckets()[bucket_of(millis)];
        *count = count.saturating_add(1);
    }

    /// Counts all of another one.
    pub(super) fn add_all(&mut self, other: &Self) {
        let Some(other) = &other.0 else { return };
        for (sum, count) in self.buckets().iter_mut().zip(&**other) {
            *sum = sum.saturating_add(*count);
        }
    }

    fn buckets(&mut self) -> &mut [u32; BUCKETS] {
        self.0.get_or_insert_with(|| Box::new([0; BUCKETS]))
    }

    /// How many were counted.
    pub(super) fn count(&self) -> u64 {
        self.0.iter().flat_map(|buckets| buckets.iter()).map(|count| u64::from(*count)).sum()
    }

    /// Within how many milliseconds this share was, in percent; 0 if there is none.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn quantile(&self, percent: f64) -> f64 {
        let wanted = (self.count() as f64 * percent / 100.0).ceil().max(1.0);
        let mut seen = 0.0;
        for (bucket, count) in self.0.iter().flat_map(|buckets| buckets.iter()).enumerate() {
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
