//! Rate limits: a bucket for each key, in bounded memory.
//!
//! The bucket is the generic cell rate algorithm (ITU-T I.371): of each key only the time is kept at which its bucket will be
//! full again. A bucket that is full again is the same as none, so it is forgotten when room is needed.

use std::{collections::HashMap, sync::OnceLock, time::Duration};

use parking_lot::Mutex;

/// Parts of the table, each with a lock of its own.
const SHARDS: usize = 16;
/// Keys in a part. All of them: 65,536, about 2 MiB.
const KEYS: usize = 4096;
/// The bucket of every key for which there is no room.
const CROWDED: u128 = 0;

/// How long to wait until buckets that are full again are looked for once more, in nanoseconds: a table that is full of others
/// is not searched for every request.
const SWEEP: u64 = 100_000_000;

/// Buckets by key. Takes memory with the first request: most ports have no limit.
#[derive(Debug, Default)]
pub(crate) struct Limiter(OnceLock<Box<[Mutex<Shard>; SHARDS]>>);

#[derive(Debug, Default)]
struct Shard {
    /// When the bucket of a key will be full again, in nanoseconds of a clock of the process.
    full_at: HashMap<u128, u64, ahash::RandomState>,
    /// When room was made last.
    swept: u64,
}

/// How much is allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Requests a second over time; at least 1.
    pub(crate) average: u32,
    /// Requests that may come at once; at least 1.
    pub(crate) burst: u32,
}

/// A request that is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany {
    /// When the next one would be let through.
    pub(crate) retry_after: Duration,
}

impl Limiter {
    /// Takes a request with this key out of its bucket, at `now` (nanoseconds of a clock of the process).
    ///
    /// # Errors
    /// When the bucket is empty.
    #[allow(clippy::cast_possible_truncation)]
    pub(crate) fn take(&self, key: u128, rate: Rate, now: u64) -> Result<(), TooMany> {
        let mut shard = self.0.get_or_init(Box::default)[(key >> 64) as usize % SHARDS].lock();
        let key = if shard.full_at.contains_key(&key) || shard.has_room(now) { key } else { CROWDED };
        let full_at = shard.full_at.entry(key).or_insert(now);
        let each = 1_000_000_000 / u64::from(rate.average.max(1));
        let then = (*full_at).max(now).saturating_add(each.max(1));
        let whole = each.max(1).saturating_mul(u64::from(rate.burst.max(1)));
        let early = then.saturating_sub(now).saturating_sub(whole);
        if early > 0 {
            return Err(TooMany { retry_after: Duration::from_nanos(early) });
        }
        *full_at = then;
        Ok(())
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.get().map_or(0, |shards| shards.iter().map(|shard| shard.lock().full_at.len()).sum())
    }
}

impl Shard {
    /// Whether there is room for one more key, or can be made.
    fn has_room(&mut self, now: u64) -> bool {
        if self.full_at.len() >= KEYS && now.saturating_sub(self.swept) >= SWEEP {
            self.swept = now;
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        self.full_at.len() < KEYS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_then_the_average() {
        for (case, average, burst, want_at_once) in [("one", 1, 1, 1), ("a burst", 10, 50, 50), ("fast", 1_000, 10, 10)]
        {
            let (limiter, rate) = (Limiter::default(), Rate { average, burst });
            let at = |now: u64| (0..1_000).take_while(|_| limiter.take(7, rate, now).is_ok()).count();
            assert_eq!(at(SECOND), want_at_once, "{case}: at once");
            assert_eq!(at(SECOND), 0, "{case}: then none");
            let later = (average as usize).min(burst as usize);
            assert_eq!(at(2 * SECOND), later, "{case}: a second later");
            assert_eq!(at(1_000 * SECOND), want_at_once, "{case}: after a long pause");
        }
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let (limiter, rate) = (Limiter::default(), Rate { average: 2, burst: 1 });
        assert_eq!(limiter.take(7, rate, SECOND), Ok(()));
        let Err(TooMany { retry_after }) = limiter.take(7, rate, SECOND) else { panic!("one too many") };
        assert_eq!(retry_after, Duration::from_millis(500));
        assert_eq!(limiter.take(7, rate, SECOND + 500_000_000), Ok(()));
    }

    #[test]
    fn keys_have_buckets_of_their_own_in_bounded_memory() {
        let (limiter, rate) = (Limiter::default(), Rate { average: 1, burst: 1 });
        let key = |i: u128| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let passed = (0..200_000).filter(|i| limiter.take(key(*i), rate, SECOND).is_ok()).count();
        assert!(limiter.len() <= SHARDS * (KEYS + 1), "{}", limiter.len());
        assert!((60_000..66_000).contains(&passed), "those without a bucket share one: {passed}");
        assert_eq!(limiter.take(key(1_000_000), rate, 3 * SECOND), Ok(()), "buckets that are full again make room");
    }
}
