//! How fast own addresses are written: each write is work for kube-proxy on every node.

use tokio::time::{Duration, Instant};

/// Writes that may happen at once after a time of rest, as a share of those of a second.
const BURST_SECONDS: u32 = 2;

/// A bucket of permits that fills evenly.
#[derive(Debug)]
pub(super) struct Pace {
    every: Duration,
    /// When the bucket would be full again.
    full_at: Instant,
}

impl Pace {
    /// `per_second` writes, twice as many after a rest. `now` is any moment of before.
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self { every: Duration::from_secs(1) / per_second.max(1), full_at: now }
    }

    /// Takes a permit, or says when there will be one.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let burst = Duration::from_secs(1) * BURST_SECONDS;
        let full_at = self.full_at.max(now) + self.every;
        if full_at > now + burst {
            return Err(full_at - burst);
        }
        self.full_at = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_evenly() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut pace = Pace::new(10, start);
        let taken = (0..100).filter(|_| pace.take(start).is_ok()).count();
        assert_eq!(taken, 20, "those of two seconds at once");
        assert_eq!(pace.take(start), Err(at(100)));
        assert_eq!(pace.take(at(100)), Ok(()));
        assert_eq!(pace.take(at(100)), Err(at(200)));
        let taken = (0..100).filter(|_| pace.take(at(60_000)).is_ok()).count();
        assert_eq!(taken, 20, "rest is not saved up for ever");
    }
}
