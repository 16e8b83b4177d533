//! How many questions are answered: each takes a little of the compiler's time, and any pod may ask. No clock.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Questions of one caller: so many at once, then one in each of these times.
const CALLER: (u32, Duration) = (10, Duration::from_millis(200));
/// Questions of all callers, likewise.
const ALL: (u32, Duration) = (50, Duration::from_millis(40));
/// Callers that are remembered. A full bucket need not be, so this many have just asked.
const CALLERS: usize = 1024;

/// Who has asked how much.
#[derive(Debug, Default)]
pub(super) struct Quota {
    callers: HashMap<IpAddr, QuestionBucket>,
    all: QuestionBucket,
}

/// Permits as the time when all would be there again.
#[derive(Clone, Copy, Debug, Default)]
struct QuestionBucket {
    full_at: Option<Instant>,
}

impl QuestionBucket {
    /// The bucket without one permit; `None` if there is none.
    fn taken(self, (burst, period): (u32, Duration), now: Instant) -> Option<Self> {
        let full_at = self.full_at.unwrap_or(now).max(now) + period;
        (full_at <= now + period * burst).then_some(Self { full_at: Some(full_at) })
    }

    fn is_full(self, now: Instant) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }
}

impl Quota {
    /// Whether `caller` may ask once more at `now`, which counts as asked.
    pub(super) fn take(&mut self, caller: IpAddr, now: Instant) -> bool {
        if self.callers.len() >= CALLERS {
            self.callers.retain(|_, bucket| !bucket.is_full(now));
        }
        let of_caller = self.callers.get(&caller).copied();
        if of_caller.is_none() && self.callers.len() >= CALLERS {
            return false;
        }
        let (Some(of_caller), Some(all)) = (of_caller.unwrap_or_default().taken(CALLER, now), self.all.taken(ALL, now))
        else {
            return false;
        };
        self.callers.insert(caller, of_caller);
        self.all = all;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_leaves_questions_to_others() {
        let (start, mut quota) = (Instant::now(), Quota::default());
        let at = |millis| start + Duration::from_millis(millis);
        let mut asked = |caller: u8, times: usize, now: Instant| {
            (0..times).filter(|_| quota.take([10, 0, 0, caller].into(), now)).count()
        };
        for (case, caller, times, millis, want) in [
            ("one caller at once", 1, 1000, 0, 10),
            ("another beside it", 2, 1, 0, 1),
            ("the first a second later", 1, 1000, 1000, 5),
            ("after a long rest no more than at once", 1, 1000, 100_000, 10),
        ] {
            assert_eq!(asked(caller, times, at(millis)), want, "{case}");
        }
        let together: usize = (0..=255).map(|caller| asked(caller, 10, at(200_000))).sum();
        assert_eq!(together, 50, "all callers together");
    }

    #[test]
    fn callers_are_remembered_for_as_long_as_it_matters() {
        let (start, mut quota) = (Instant::now(), Quota::default());
        for n in 0..100_000_u32 {
            quota.take(std::net::Ipv4Addr::from_bits(n).into(), start + Duration::from_millis(u64::from(n) * 50));
        }
        assert!(quota.callers.len() <= CALLERS, "{}", quota.callers.len());
    }
}
