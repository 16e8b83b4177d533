//! When what happens: the phases of a run, which endpoints and callers follow.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a run is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Before what is shown.
    pub(super) warm_up: Duration,
    /// What is shown.
    pub(super) length: Duration,
}

/// What goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is wrong.
    Calm,
    /// One of three endpoints fails often.
    OneFails,
    /// All endpoints fail.
    AllFail,
    /// Endpoints are slow, and one caller asks far too much.
    Crowd,
    /// There is no controller.
    NoController,
}

/// The phases in their order, each with the share of the time at which it begins.
const PHASES: [(f64, Phase); 8] = [
    (0.15, Phase::OneFails),
    (0.30, Phase::Calm),
    (0.42, Phase::AllFail),
    (0.50, Phase::Calm),
    (0.64, Phase::Crowd),
    (0.74, Phase::Calm),
    (0.86, Phase::NoController),
    (0.92, Phase::Calm),
];

impl Phase {
    /// The one at this share of the time that is shown.
    fn at(share: f64) -> Self {
        PHASES.iter().rev().find(|(begin, _)| share >= *begin).map_or(Self::Calm, |(_, phase)| *phase)
    }
}

/// The clock of a run.
#[derive(Debug)]
pub(super) struct Stage {
    times: Times,
    began: Instant,
    is_over: Mutex<bool>,
    over: Condvar,
}

impl Stage {
    /// Begins now.
    pub(super) fn new(times: Times) -> Self {
        Self { times, began: Instant::now(), is_over: Mutex::new(false), over: Condvar::new() }
    }

    /// What goes on now.
    pub(super) fn phase(&self) -> Phase {
        let shown = self.began.elapsed().saturating_sub(self.times.warm_up);
        Phase::at(shown.as_secs_f64() / self.times.length.as_secs_f64())
    }

    /// The time that is left.
    pub(super) fn left(&self) -> Duration {
        (self.times.warm_up + self.times.length).saturating_sub(self.began.elapsed())
    }

    /// How often Prometheus scrapes.
    pub(super) fn scrapes_every(&self) -> Duration {
        (self.times.length / 100).clamp(Duration::from_secs(1), Duration::from_secs(5))
    }

    /// Ends all pauses.
    pub(super) fn end(&self) {
        *self.is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.over.notify_all();
    }

    /// Waits so long; at once says no when the run is over.
    pub(super) fn pause(&self, length: Duration) -> bool {
        let is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.over.wait_timeout_while(is_over, length, |is_over| !*is_over);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A number that looks random, the same for the same `number`.
pub(super) fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_each_other() {
        for (share, want) in [
            (0.0, Phase::Calm),
            (0.2, Phase::OneFails),
            (0.35, Phase::Calm),
            (0.45, Phase::AllFail),
            (1.5, Phase::Calm),
        ] {
            assert_eq!(Phase::at(share), want, "{share}");
        }
    }

    #[test]
    fn a_pause_ends_with_the_run() {
        let stage = Stage::new(Times { warm_up: Duration::ZERO, length: Duration::from_secs(1) });
        assert!(stage.pause(Duration::ZERO));
        stage.end();
        assert!(!stage.pause(Duration::from_secs(3600)));
    }
}
