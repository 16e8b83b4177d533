//! What is learnt of an endpoint's answers.
//!
//! A *peak* average: a slow answer counts at once, fast ones bring it down over seconds, so an endpoint that stalls loses
//! its traffic immediately and regains it slowly. A failure counts as a slow answer, or an endpoint that fails at once
//! would look like the fastest.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Latency noted for an attempt that failed.
pub(crate) const FAILURE: Duration = Duration::from_secs(1);

/// Time in which what was learnt of an endpoint loses two thirds of its weight.
const DECAY_MILLIS: f32 = 10_000.0;

/// Latency assumed of an endpoint that never answered: low, so that it is tried; not zero, so that two of them share.
const UNKNOWN_MICROS: f32 = 1_000.0;

/// The latency of one endpoint: milliseconds of the last answer (high half) and the average in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Latency(AtomicU64);

impl Latency {
    /// The average in microseconds, at `now` (milliseconds of a clock that wraps).
    pub(crate) fn micros(&self, now: u32) -> f32 {
        let packed = self.0.load(Ordering::Relaxed);
        if packed == 0 {
            return UNKNOWN_MICROS;
        }
        let (at, average) = unpack(packed);
        average * decay(now.wrapping_sub(at))
    }

    /// Takes note of an answer after `took`.
    pub(crate) fn record(&self, now: u32, took: Duration) {
        let micros = took.as_secs_f32() * 1e6;
        let packed = self.0.load(Ordering::Relaxed);
        let average = if packed == 0 {
            micros
        } else {
            let (at, average) = unpack(packed);
            // What was measured counts more the longer nothing was.
            let weight = decay(now.wrapping_sub(at)).min(0.95);
            if micros > average { micros } else { average * weight + micros * (1.0 - weight) }
        };
        // Two workers may overwrite each other here; either value is a fair average.
        self.0.store(u64::from(now) << 32 | u64::from(average.max(1.0).to_bits()), Ordering::Relaxed);
    }
}

#[allow(clippy::cast_possible_truncation)]
fn unpack(packed: u64) -> (u32, f32) {
    ((packed >> 32) as u32, f32::from_bits(packed as u32))
}

#[allow(clippy::cast_precision_loss)]
fn decay(elapsed: u32) -> f32 {
    // Another worker's clock may be a moment ahead.
    if !(64..=u32::MAX / 2).contains(&elapsed) {
        return 1.0;
    }
    (-(elapsed as f32) / DECAY_MILLIS).exp()
}
