//! A breaker as its documentation describes it: it keeps everything it was told, and counts anew each time.

use maesh_config::policy::breaker::Metric;

use super::evaluate::evaluate;
use crate::policy::breaker::{BreakerState, Transitions};

/// As the breaker has them, in milliseconds: how often the condition is looked at, how long a breaker stays open, and how
/// long it takes to let everything through again.
const EVERY: u32 = 100;
const OPEN: u32 = 10_000;
const RECOVERY: u32 = 10_000;
/// Fewer responses than this say nothing.
const LEAST: usize = 10;
/// Seconds that are looked back on.
const SECONDS: u32 = 10;

#[derive(Default)]
pub(super) struct Model {
    state: BreakerState,
    transitions: Transitions,
    /// Second, status and time of each response.
    responses: Vec<(u32, u16, f64)>,
    evaluated: u32,
}

/// Whether `then` has come; the clock wraps.
fn is_past(then: u32, now: u32) -> bool {
    now.wrapping_sub(then) <= u32::MAX / 2
}

impl Model {
    fn advance(&mut self, now: u32) {
        if let BreakerState::Open { until } = self.state
            && is_past(until, now)
        {
            self.state = BreakerState::Recovering { since: until };
            self.transitions.recovering += 1;
        }
        if let BreakerState::Recovering { since } = self.state
            && is_past(since.wrapping_add(RECOVERY), now)
        {
            self.state = BreakerState::Closed;
            self.transitions.closed += 1;
        }
    }

    pub(super) fn lets_through(&mut self, now: u32, draw: u64) -> bool {
        self.advance(now);
        match self.state {
            BreakerState::Closed => true,
            BreakerState::Open { .. } => false,
            BreakerState::Recovering { since } => draw % u64::from(RECOVERY) < u64::from(now.wrapping_sub(since)),
        }
    }

    pub(super) fn seen(&mut self, now: u32) -> (BreakerState, Transitions) {
        self.advance(now);
        (self.state, self.transitions)
    }

    pub(super) fn note(&mut self, text: &str, now: u32, status: u16, millis: f64) -> Option<BreakerState> {
        self.advance(now);
        if matches!(self.state, BreakerState::Open { .. }) {
            return None;
        }
        self.responses.push((now / 1000, status, millis));
        if now.wrapping_sub(self.evaluated) < EVERY {
            return None;
        }
        self.evaluated = now;
        self.responses.retain(|(second, ..)| (now / 1000).wrapping_sub(*second) < SECONDS);
        if self.responses.len() < LEAST || !evaluate(text, &|metric| self.value(metric)) {
            return None;
        }
        self.responses.clear();
        self.state = BreakerState::Open { until: now.wrapping_add(OPEN) };
        self.transitions.open += 1;
        Some(self.state)
    }

    fn value(&self, metric: Metric) -> f64 {
        let count = |is_it: &dyn Fn(u16) -> bool| self.responses.iter().filter(|(_, status, _)| is_it(*status)).count();
        let ratio = |part: usize, of: usize| if of == 0 { 0.0 } else { part as f64 / of as f64 };
        match metric {
            Metric::NetworkErrorRatio => ratio(count(&|status| matches!(status, 502 | 504)), self.responses.len()),
            Metric::ResponseCodeRatio { from, to, of_from, of_to } => ratio(
                count(&|status| (from..to).contains(&status)),
                count(&|status| (of_from..of_to).contains(&status)),
            ),
            Metric::LatencyAtQuantileMs(quantile) => self.latency(quantile.get()),
        }
    }

    /// The time within which this share of the responses began, rounded up as the breaker counts times: eight steps for each
    /// doubling from a microsecond on.
    fn latency(&self, percent: f64) -> f64 {
        let mut steps: Vec<i32> = self.responses.iter().map(|(.., millis)| step(*millis)).collect();
        steps.sort_unstable();
        let wanted = (steps.len() as f64 * percent / 100.0).ceil().max(1.0);
        let millis = 2_f64.powf(f64::from(steps[wanted as usize - 1] + 1) / 8.0) / 1000.0;
        let within = self.responses.iter().filter(|(.., it)| !(*it > millis && millis < 1e7)).count();
        assert!(within as f64 >= wanted, "{percent} percent within {millis}");
        millis
    }
}

/// The last of 36 doublings has everything above it.
fn step(millis: f64) -> i32 {
    let micros = (millis * 1000.0).max(1.0);
    ((micros.log2() * 8.0) as i32).min(8 * 36 - 1)
}
