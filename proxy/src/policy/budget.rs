//! How much retries may add to the load of a Service: a share of the requests, or a rate, whichever is more.

use std::sync::atomic::{AtomicU64, Ordering};

use maesh_config::policy::RetryBudget;

use super::window::{SECONDS, Window};

/// Requests and retries of the last ten seconds.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    requests: Window,
    retries: Window,
    /// Retries that were not made because of it.
    refused: AtomicU64,
}

impl Budget {
    /// Counts a request, at `now` (milliseconds of a clock that wraps).
    pub(crate) fn request(&self, now: u32) {
        self.requests.add(now / 1000);
    }

    /// Whether one more retry may be made; counts it if so. Two workers may both take the last one.
    pub(crate) fn take(&self, budget: RetryBudget, now: u32) -> bool {
        let second = now / 1000;
        let share = u64::from(self.requests.sum(second)) * u64::from(budget.percent) / 100;
        let allowed = share.max(u64::from(budget.per_second) * u64::from(SECONDS));
        let may = u64::from(self.retries.sum(second)) < allowed;
        if may {
            self.retries.add(second);
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        may
    }

    /// Retries that were not made because of it.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_of_share_and_rate_is_allowed() {
        for (case, requests, percent, per_second, want) in [
            ("a share", 100, 20, 0, 20),
            ("a rate, while there are few requests", 1, 20, 3, 30),
            ("the larger one", 1_000, 20, 1, 200),
            ("none", 100, 0, 0, 0),
        ] {
            let (budget, policy) = (Budget::default(), RetryBudget { percent, per_second });
            (0..requests).for_each(|_| budget.request(5_000));
            assert_eq!((0..2_000).filter(|_| budget.take(policy, 6_000)).count(), want, "{case}");
            let later = (0..2_000).filter(|_| budget.take(policy, 30_000)).count();
            assert_eq!(later, per_second as usize * 10, "{case}: what was long ago counts no more");
            assert_eq!(budget.refused(), 4_000 - want as u64 - u64::from(per_second) * 10, "{case}");
        }
    }
}
