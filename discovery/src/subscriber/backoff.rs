//! Pauses between tries.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Pauses that double up to a limit, each drawn between its half and its whole, so that a thousand subscribers do not
/// come back at once.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, next: first }
    }

    /// After success the next pause is the first one again.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }

    pub(super) fn pause(&mut self, rng: &mut impl Rng) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.last);
        whole.mul_f64(rng.random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_begin_anew() {
        let (first, last) = (Duration::from_millis(50), Duration::from_secs(2));
        let mut backoff = Backoff::new(first, last);
        let rng = &mut rand::rng();
        for whole in [50, 100, 200, 400, 800, 1600, 2000, 2000] {
            let pause = backoff.pause(rng).as_millis();
            assert!((whole / 2..=whole).contains(&pause), "{pause} of {whole}");
        }
        backoff.reset();
        assert!(backoff.pause(rng) <= first);
    }
}
