//! Circuit breakers: while a condition on the last ten seconds holds, nothing is sent for a while; then a growing share is.

mod measured;

use maesh_config::policy::breaker::Expression;
use parking_lot::Mutex;

use self::measured::Measured;

/// How often the condition is evaluated at most, in milliseconds.
const EVERY: u32 = 100;
/// How long an open breaker stays open.
const OPEN: u32 = 10_000;
/// How long it takes until everything is let through again.
const RECOVERY: u32 = 10_000;
/// Fewer requests than this say nothing.
const LEAST: u32 = 10;

/// A breaker of one backend port. It outlives a change of its expression.
#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: BreakerState,
    measured: Measured,
    evaluated: u32,
    transitions: Transitions,
}

/// How often a breaker went over to each of its states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transitions {
    pub(crate) open: u64,
    pub(crate) recovering: u64,
    pub(crate) closed: u64,
}

/// What a breaker does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum BreakerState {
    /// It lets everything through.
    #[default]
    Closed,
    /// It lets nothing through until then (milliseconds of a clock that wraps).
    Open {
        /// When it begins to recover.
        until: u32,
    },
    /// It lets a growing share through.
    Recovering {
        /// When it began to.
        since: u32,
    },
}

impl Breaker {
    /// Whether a request may pass at `now`; `draw` is uniformly random.
    pub(crate) fn lets_through(&self, now: u32, draw: u64) -> bool {
        let mut inner = self.0.lock();
        inner.advance(now);
        match inner.state {
            BreakerState::Closed => true,
            BreakerState::Open { .. } => false,
            BreakerState::Recovering { since } => draw % u64::from(RECOVERY) < u64::from(now.wrapping_sub(since)),
        }
    }

    /// Notes a response with this status, or one of ours in its place, that began after `millis`. Returns the new state where
    /// it changed.
    pub(crate) fn note(&self, expression: &Expression, now: u32, status: u16, millis: f64) -> Option<BreakerState> {
        let mut inner = self.0.lock();
        inner.advance(now);
        let inner = &mut *inner;
        // What was sent before it opened says nothing of the time after.
        if matches!(inner.state, BreakerState::Open { .. }) {
            return None;
        }
        inner.measured.note(now / 1000, status, millis);
        if now.wrapping_sub(inner.evaluated) < EVERY {
            return None;
        }
        inner.evaluated = now;
        let recent = inner.measured.sum(now / 1000);
        if recent.requests() < LEAST || !expression.opens(&|metric| recent.value(metric)) {
            return None;
        }
        inner.measured = Measured::default();
        inner.state = BreakerState::Open { until: now.wrapping_add(OPEN) };
        inner.transitions.open += 1;
        Some(inner.state)
    }

    /// What it does at `now`, and how often that has changed.
    pub(crate) fn seen(&self, now: u32) -> (BreakerState, Transitions) {
        let mut inner = self.0.lock();
        inner.advance(now);
        (inner.state, inner.transitions)
    }
}

impl Inner {
    /// What time alone changes.
    fn advance(&mut self, now: u32) {
        let is_past = |then: u32| now.wrapping_sub(then) <= u32::MAX / 2;
        if let BreakerState::Open { until } = self.state
            && is_past(until)
        {
            self.state = BreakerState::Recovering { since: until };
            self.transitions.recovering += 1;
        }
        if let BreakerState::Recovering { since } = self.state
            && is_past(since.wrapping_add(RECOVERY))
        {
            self.state = BreakerState::Closed;
            self.transitions.closed += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(text: &str) -> Expression {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn it_opens_recovers_and_closes() {
        let (breaker, expression) = (Breaker::default(), expression("ResponseCodeRatio(500, 600, 0, 600) > 0.25"));
        let mut now = 5_000;
        for _ in 0..9 {
            now += 100;
            assert_eq!(breaker.note(&expression, now, 503, 1.0), None, "too few to say anything");
        }
        now += 100;
        let opened = now;
        assert_eq!(breaker.note(&expression, now, 503, 1.0), Some(BreakerState::Open { until: now + OPEN }));
        assert!(!breaker.lets_through(now, 0) && !breaker.lets_through(now + 9_999, 0));
        now += OPEN + RECOVERY / 2;
        assert_eq!(breaker.seen(now).0, BreakerState::Recovering { since: opened + OPEN });
        let through = (0..10_000).filter(|draw| breaker.lets_through(now, *draw)).count();
        assert_eq!(through, 5_000, "half of them, half way");
        now += RECOVERY / 2;
        assert_eq!(breaker.seen(now).0, BreakerState::Closed);
        assert!(breaker.lets_through(now, 9_999));
        assert_eq!(breaker.seen(now).1, Transitions { open: 1, recovering: 1, closed: 1 });
    }

    #[test]
    fn it_opens_again_if_it_is_no_better() {
        let (breaker, expression) = (Breaker::default(), expression("NetworkErrorRatio() > 0.5"));
        let opens = |from: u32| (0..100).find(|i| breaker.note(&expression, from + i * 100, 502, 1.0).is_some());
        assert_eq!(opens(1_000), Some(9));
        // While it recovers, what was before the opening counts no more.
        assert_eq!(opens(1_900 + OPEN + 100), Some(9));
    }

    #[test]
    fn it_is_evaluated_ten_times_a_second_at_most() {
        let (breaker, expression) = (Breaker::default(), expression("NetworkErrorRatio() > 0.5"));
        assert_eq!(breaker.note(&expression, 1_000, 200, 1.0), None);
        let opened = (0..1_000).find(|_| breaker.note(&expression, 1_099, 502, 1.0).is_some());
        assert_eq!(opened, None);
        assert!(breaker.note(&expression, 1_100, 502, 1.0).is_some());
    }
}
