//! Patience with others who write the same text.

use std::time::Duration;

use tokio::time::Instant;

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(300);
/// After this long without a write, the next one is the first again.
const CALM: Duration = Duration::from_secs(600);

/// When the next write may be.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    last: Option<Instant>,
    first: Duration,
    pause: Duration,
}

impl Backoff {
    /// The pause after the first write is `first`; it doubles with each.
    pub(super) fn new(first: Duration) -> Self {
        Self { last: None, first, pause: first }
    }

    /// Whether a write may be now.
    pub(super) fn may(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.duration_since(last) >= self.pause)
    }

    /// A write is about to be.
    pub(super) fn wrote(&mut self, now: Instant) {
        let calm = self.last.is_none_or(|last| now.duration_since(last) >= CALM);
        self.pause = if calm { self.first } else { (self.pause * 2).min(LONGEST) };
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_write_is_at_once_and_the_next_ever_later() {
        let start = Instant::now();
        let mut backoff = Backoff::new(Duration::from_secs(10));
        let mut now = start;
        let mut writes = Vec::new();
        // Somebody undoes every write at once.
        while now < start + Duration::from_secs(1300) {
            if backoff.may(now) {
                backoff.wrote(now);
                writes.push(now.duration_since(start).as_secs());
            }
            now += Duration::from_secs(1);
        }
        assert_eq!(writes, [0, 10, 30, 70, 150, 310, 610, 910, 1210]);
        now += Duration::from_secs(600);
        assert!(backoff.may(now));
        backoff.wrote(now);
        assert!(!backoff.may(now + Duration::from_secs(9)) && backoff.may(now + Duration::from_secs(10)));
    }
}
