//! The histogram of durations: without a lock, with classic buckets that fit a proxy, and native ones.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NativeHistogram, NativeHistogramBuckets, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

use self::native::{NativeBuckets, NativeSnapshot};

mod native;

/// Upper bounds of the classic buckets, in microseconds.
const BUCKETS: [u64; 15] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

/// How often the buckets are read for one exposition.
const READS: usize = 100;

/// Upper bounds of the classic buckets, in seconds.
pub(super) fn bounds() -> impl Iterator<Item = f64> {
    BUCKETS.iter().map(|micros| seconds(*micros))
}

/// A histogram without a lock.
#[derive(Clone, Debug, Default)]
pub(super) struct Durations(Arc<DurationsInner>);

#[derive(Debug, Default)]
struct DurationsInner {
    micros: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len() + 1],
    /// Made with the first request: most Services are never called through a given proxy.
    native: OnceLock<Box<NativeBuckets>>,
}

impl Durations {
    #[allow(clippy::cast_possible_truncation)]
    /// Counts one.
    pub(super) fn observe(&self, took: Duration) {
        let micros = took.as_micros() as u64;
        let bucket = BUCKETS.iter().position(|bound| micros <= *bound).unwrap_or(BUCKETS.len());
        self.0.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.native.get_or_init(Box::default).count(took.as_secs_f64());
        self.0.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl DurationsInner {
    /// What both kinds of buckets hold. A request is counted in one of them before the other, so they are read until they
    /// agree; readers refuse native buckets whose sum is another than the count.
    fn read(&self) -> (Vec<u64>, Option<NativeSnapshot>) {
        for _ in 0..READS {
            let classic = self.classic();
            let native = self.native.get().map(|native| native.snapshot()).unwrap_or_default();
            if native.count == classic.iter().sum() {
                return (classic, Some(native));
            }
        }
        (self.classic(), None)
    }

    fn classic(&self) -> Vec<u64> {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect()
    }
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (counts, native) = self.0.read();
        let count = counts.iter().sum();
        let buckets: Vec<(f64, u64)> = bounds().chain([f64::INFINITY]).zip(counts).collect();
        let sum = seconds(self.0.micros.load(Ordering::Relaxed));
        let Some(native) = native else { return encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None) };
        let native = NativeHistogram {
            schema: native::SCHEMA,
            zero_threshold: native::ZERO_THRESHOLD,
            zero_count: native.zero,
            negative: NativeHistogramBuckets { spans: &[], deltas: &[] },
            positive: NativeHistogramBuckets { spans: &native.spans, deltas: &native.deltas },
            created: None,
        };
        encoder.encode_histogram_with_native::<NoLabelSet>(sum, count, &buckets, None, native)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl TypedMetric for Durations {
    const TYPE: MetricType = MetricType::Histogram;
}

#[allow(clippy::cast_precision_loss)]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
