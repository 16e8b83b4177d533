//! Outlier ejection: an endpoint that fails several times in a row gets no requests for a while.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// How long the first ejection lasts, in milliseconds. Each further one lasts so much longer.
const BASE: u32 = 10_000;
/// The longest ejection.
const LONGEST: u32 = 300_000;

/// What is learnt of one endpoint's failures.
#[derive(Debug, Default)]
pub(crate) struct Ejection {
    /// Failures since the last success.
    failures: AtomicU32,
    /// Ejections since it was last well for as long as it had been ejected.
    times: AtomicU32,
    /// When the last ejection ends (milliseconds of a clock that wraps); 0 before the first.
    until: AtomicU32,
}

impl Ejection {
    /// It answered, at `now`.
    pub(crate) fn succeeded(&self, now: u32) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        let times = self.times.load(Ordering::Relaxed);
        if times != 0 && is_past(self.until.load(Ordering::Relaxed).wrapping_add(length(times)), now) {
            self.times.store(0, Ordering::Relaxed);
        }
    }

    /// It failed. Whether it has done so `limit` times in a row, and is not ejected; 0 is no limit.
    pub(crate) fn failed(&self, limit: u32, now: u32) -> bool {
        limit != 0 && self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= limit && !self.is_ejected(now)
    }

    /// Ejects it from `now` on. Returns when that ends.
    pub(crate) fn eject(&self, now: u32) -> u32 {
        let times = self.times.load(Ordering::Relaxed).saturating_add(1);
        let until = now.wrapping_add(length(times)).max(1);
        self.times.store(times, Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
        self.until.store(until, Ordering::Relaxed);
        until
    }

    /// Whether it gets no requests at `now`.
    pub(crate) fn is_ejected(&self, now: u32) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != 0 && !is_past(until, now)
    }
}

fn length(times: u32) -> u32 {
    times.saturating_mul(BASE).min(LONGEST)
}

/// Whether `then` is not after `now`, on a clock that wraps.
fn is_past(then: u32, now: u32) -> bool {
    now.wrapping_sub(then) <= u32::MAX / 2
}

/// When the last ejection of any endpoint of a port ends: while that is past, nothing needs to look at each of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct EjectedUntil(Arc<AtomicU32>);

impl EjectedUntil {
    /// An endpoint is ejected until then.
    pub(crate) fn note(&self, until: u32) {
        self.0.store(until, Ordering::Relaxed);
    }

    /// Whether any endpoint may be ejected at `now`.
    pub(crate) fn is_any(&self, now: u32) -> bool {
        let until = self.0.load(Ordering::Relaxed);
        // An earlier ejection may end later than the last one.
        until != 0 && !is_past(until.wrapping_add(LONGEST), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_eject() {
        let it = Ejection::default();
        assert!(!it.failed(2, 1_000));
        it.succeeded(1_000);
        assert!(!it.failed(2, 1_000), "a success in between");
        assert!(it.failed(2, 1_000));
        assert!(!it.is_ejected(1_000), "whoever asked decides");
        assert_eq!(it.eject(1_000), 11_000);
        assert!(it.is_ejected(1_000) && it.is_ejected(10_999) && !it.is_ejected(11_000));
        assert!(!it.failed(0, 11_000), "no limit");
    }

    #[test]
    fn an_ejection_lasts_longer_each_time_until_the_endpoint_is_well() {
        let it = Ejection::default();
        let mut now = 1_000;
        for (case, want) in [("first", 10_000), ("second", 20_000), ("third", 30_000)] {
            let until = it.eject(now);
            assert_eq!(until - now, want, "{case}");
            now = until + 100;
            it.succeeded(now);
        }
        now += 30_000;
        it.succeeded(now);
        assert_eq!(it.eject(now) - now, 10_000, "it was well for long");
        let often = Ejection::default();
        for _ in 0..100 {
            let _ = often.eject(1_000);
        }
        assert!(often.is_ejected(300_999) && !often.is_ejected(301_000));
    }

    #[test]
    fn the_clock_may_wrap() {
        let it = Ejection::default();
        let now = u32::MAX - 5_000;
        it.eject(now);
        assert!(it.is_ejected(u32::MAX) && it.is_ejected(4_000) && !it.is_ejected(6_000));
    }
}
