//! Which endpoint a request goes to.
//!
//! Of two drawn at random, the one that promises to answer sooner: its latency, times the requests it already has. The
//! latency is a *peak* average: a slow answer counts at once, fast ones bring it down over seconds, so an endpoint that
//! stalls loses its traffic immediately and regains it slowly. Pure: chance and time are arguments.

use std::{
    hash::Hash,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Time in which what was learnt of an endpoint loses two thirds of its weight.
const DECAY_MILLIS: f32 = 10_000.0;

/// Latency assumed of an endpoint that never answered: low, so that it is tried; not zero, so that two of them share.
const UNKNOWN_MICROS: f32 = 1_000.0;

/// What an endpoint looks like to the balancer.
pub(crate) trait Load {
    /// Cost of sending one more request to it at `now` (milliseconds of a clock that wraps).
    fn cost(&self, now: u32) -> f32;
}

/// Picks the cheaper of two that `draw` (uniformly random) selects, which may be the same; `None` when there is none.
pub(crate) fn cheaper_of_two<T: Load>(items: &[T], now: u32, draw: u64) -> Option<&T> {
    match items {
        [] => None,
        [only] => Some(only),
        _ => {
            let len = items.len() as u64;
            let first = ((draw >> 32) * len) >> 32;
            // With replacement: now and then both draws are the same one, so that even the dearest is asked sometimes,
            // and a cheap one among two does not keep all of a slow caller's requests for itself.
            let second = ((draw & 0xffff_ffff) * len) >> 32;
            let (a, b) = (&items[index(first)], &items[index(second)]);
            Some(if b.cost(now) < a.cost(now) { b } else { a })
        }
    }
}

/// Picks the same item for the same caller while the items stay, and moves as few callers as possible when they do
/// not: the item whose hash together with the caller's address is highest.
pub(crate) fn by_source<T, K: Hash>(items: &[T], caller: IpAddr, key: impl Fn(&T) -> K) -> Option<&T> {
    // Fixed keys: every worker, and every proxy, must come to the same answer.
    let state = ahash::RandomState::with_seeds(1, 2, 3, 4);
    items.iter().max_by_key(|item| state.hash_one((caller, key(item))))
}

/// Latency of an endpoint: milliseconds of the last answer (high half) and a peak average in microseconds.
pub(crate) fn latency(cell: &AtomicU64, now: u32) -> f32 {
    let packed = cell.load(Ordering::Relaxed);
    if packed == 0 {
        return UNKNOWN_MICROS;
    }
    let (at, average) = unpack(packed);
    average * decay(now.wrapping_sub(at))
}

/// Takes note of an answer after `took`.
pub(crate) fn answered(cell: &AtomicU64, now: u32, took: Duration) {
    let micros = took.as_secs_f32() * 1e6;
    let packed = cell.load(Ordering::Relaxed);
    let average = if packed == 0 {
        micros
    } else {
        let (at, average) = unpack(packed);
        // What was measured counts more the longer nothing was.
        let weight = decay(now.wrapping_sub(at)).min(0.95);
        if micros > average { micros } else { average * weight + micros * (1.0 - weight) }
    };
    // Two workers may overwrite each other here; either value is a fair average.
    cell.store(u64::from(now) << 32 | u64::from(average.max(1.0).to_bits()), Ordering::Relaxed);
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

#[allow(clippy::cast_possible_truncation)]
fn index(of: u64) -> usize {
    of as usize
}

#[cfg(test)]
mod tests;
