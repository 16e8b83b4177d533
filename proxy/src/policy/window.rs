//! A count over the last ten seconds.

use std::sync::atomic::{AtomicU64, Ordering};

/// Seconds that are counted.
pub(super) const SECONDS: u32 = 10;

/// How many times something happened in the last ten seconds: a counter for each second, with the second it is of.
#[derive(Debug, Default)]
pub(super) struct Window([AtomicU64; SECONDS as usize]);

impl Window {
    /// Counts one, in this second.
    pub(super) fn add(&self, second: u32) {
        let slot = &self.0[(second % SECONDS) as usize];
        let mut seen = slot.load(Ordering::Relaxed);
        loop {
            let (of, count) = unpack(seen);
            let next = if of == second { pack(second, count.saturating_add(1)) } else { pack(second, 1) };
            match slot.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
    }

    /// How many there were in this second and the nine before it.
    pub(super) fn sum(&self, second: u32) -> u32 {
        let counts = self.0.iter().map(|slot| unpack(slot.load(Ordering::Relaxed)));
        let recent = counts.filter(|(of, _)| second.wrapping_sub(*of) < SECONDS);
        recent.fold(0, |sum, (_, count)| sum.saturating_add(count))
    }
}

fn pack(second: u32, count: u32) -> u64 {
    u64::from(second) << 32 | u64::from(count)
}

#[allow(clippy::cast_possible_truncation)]
fn unpack(packed: u64) -> (u32, u32) {
    ((packed >> 32) as u32, packed as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_are_counted() {
        let window = Window::default();
        for second in 100..105 {
            window.add(second);
            window.add(second);
        }
        for (second, want) in [(104, 10), (109, 10), (110, 8), (113, 2), (114, 0), (u32::MAX, 0)] {
            assert_eq!(window.sum(second), want, "{second}");
        }
        window.add(110);
        assert_eq!(window.sum(110), 9, "the slot of a second long ago begins anew");
    }

    #[test]
    fn nothing_was_counted_at_the_start() {
        assert_eq!(Window::default().sum(0), 0);
        assert_eq!(Window::default().sum(5), 0);
    }
}
