//! Rate limits: what passes is what a bucket for each key lets through, never more than that in any window, and keys that
//! are too many share what there is.
//!
//! The first six bytes are the rate; then three for each step.

use std::{collections::HashMap, time::Duration};

use crate::policy::limiter::{Limiter, Rate, TooMany};

/// Parts of the table, and keys in a part, as the limiter has them.
const SHARDS: usize = 16;
const KEYS: usize = 4096;

/// Keys of one part at once: more than there is room for.
const CROWD: u64 = 4_200;

/// Passes of a key that are looked back at.
const LOOK_BACK: usize = 64;

pub(crate) fn run(bytes: &[u8]) {
    let Some((&[a, b, c, d, e, f], steps)) = bytes.split_first_chunk() else { return };
    let rate = Rate {
        average: (u32::from_le_bytes([a, b, c, d]) % 1_000_000_000).max(1),
        burst: u32::from(u16::from_le_bytes([e, f])).max(1),
    };
    let mut run = Run::new(rate);
    for &[step, first, second] in steps.as_chunks().0 {
        match step % 4 {
            0 => run.take(first),
            // From nanoseconds to minutes.
            1 => run.now += u64::from(u16::from_be_bytes([first, second])) << ((step >> 2) % 24),
            2 => (0..second % 32).for_each(|_| run.take(first)),
            // Seldom, because it takes long.
            _ if second == 0xff => run.crowd(usize::from(first) % SHARDS),
            _ => run.take(first),
        }
    }
}

/// The bucket of a key, without any bound.
#[derive(Default)]
struct Bucket {
    /// When it will be full again.
    full_at: u128,
    /// When the last requests passed.
    passed: Vec<u64>,
    /// The limiter may count it together with others.
    shared: bool,
}

struct Run {
    limiter: Limiter,
    rate: Rate,
    now: u64,
    buckets: HashMap<u128, Bucket>,
    /// Parts that had more keys than there is room for.
    crowded: [bool; SHARDS],
    crowds: u64,
}

impl Run {
    fn new(rate: Rate) -> Self {
        let (limiter, buckets) = (Limiter::default(), HashMap::new());
        Self { limiter, rate, now: 0, buckets, crowded: [false; SHARDS], crowds: 0 }
    }

    /// The time that one request takes of a bucket.
    fn each(&self) -> u64 {
        (1_000_000_000 / u64::from(self.rate.average)).max(1)
    }

    /// One request with one of 256 keys.
    fn take(&mut self, key: u8) {
        let part = usize::from(key) % SHARDS;
        let key = (part as u128) << 64 | (u128::from(key) + 1);
        let each = self.each();
        let (room, now) = (u128::from(each) * u128::from(self.rate.burst), u128::from(self.now));
        let bucket = self.buckets.entry(key).or_default();
        let is_known = !bucket.shared && bucket.full_at > now;
        bucket.shared = self.crowded[part] && !is_known;
        let then = bucket.full_at.max(now) + u128::from(each);
        let early = then.saturating_sub(now + room);
        let taken = self.limiter.take(key, self.rate, self.now);
        if bucket.shared {
            // Of a bucket that others use as well.
            return;
        }
        if early > 0 {
            let retry_after = Duration::from_nanos(u64::try_from(early).expect("less than the bucket holds"));
            assert_eq!(taken, Err(TooMany { retry_after }));
            return;
        }
        assert_eq!(taken, Ok(()), "key {key:x} at {now}");
        bucket.full_at = then;
        bucket.passed.push(self.now);
        let recent = &bucket.passed[bucket.passed.len().saturating_sub(LOOK_BACK)..];
        for (at, since) in recent.iter().enumerate() {
            let passed = (recent.len() - at) as u64;
            let allowed = u64::from(self.rate.burst) + (self.now - since) / each;
            assert!(passed <= allowed, "{passed} since {since}, and {allowed} are allowed");
        }
    }

    /// One request each with more new keys of one part than there is room for.
    fn crowd(&mut self, part: usize) {
        if self.crowds == 2 {
            return;
        }
        self.crowds += 1;
        let first = self.crowds << 32;
        let of = |number: u64| (part as u128) << 64 | u128::from(first + number);
        let passed = (0..CROWD).filter(|number| self.limiter.take(of(*number), self.rate, self.now).is_ok()).count();
        let burst = usize::try_from(self.rate.burst).unwrap_or(usize::MAX);
        assert!(passed <= KEYS + burst, "{passed} buckets of one part");
        if !self.crowded[part] {
            let known = self.buckets.keys().filter(|key| (**key >> 64) as usize == part).count();
            assert!(passed >= KEYS - known, "{passed} of those that there is room for");
        }
        self.crowded[part] = true;
    }
}
