//! How long recent responses took to begin.

use std::time::Duration;

use parking_lot::Mutex;

use super::histogram::Histogram;

/// Seconds after which a generation of times is replaced: what counts is from the last ten to twenty seconds.
const GENERATION: u32 = 10;
/// Fewer responses than this say nothing.
const LEAST: u64 = 20;

/// The times of two generations.
#[derive(Debug, Default)]
pub(crate) struct RecentLatency(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    number: u32,
    current: Histogram,
    before: Histogram,
}

impl RecentLatency {
    /// Notes how long a response took to begin, at `now` (milliseconds of a clock that wraps).
    pub(crate) fn note(&self, took: Duration, now: u32) {
        let mut generations = self.0.lock();
        generations.advance(now);
        generations.current.add(took.as_secs_f64() * 1000.0);
    }

    /// Within how long this share of them began, in percent; `None` while there are too few.
    pub(crate) fn quantile(&self, percent: u32, now: u32) -> Option<Duration> {
        let mut generations = self.0.lock();
        generations.advance(now);
        let mut all = generations.before.clone();
        all.add_all(&generations.current);
        drop(generations);
        (all.count() >= LEAST).then(|| Duration::from_secs_f64(all.quantile(percent.into()) / 1000.0))
    }
}

impl Generations {
    fn advance(&mut self, now: u32) {
        let number = now / 1000 / GENERATION;
        match number.wrapping_sub(self.number) {
            0 => return,
            1 => self.before = std::mem::take(&mut self.current),
            _ => (self.before, self.current) = Default::default(),
        }
        self.number = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_times_count() {
        let recent = RecentLatency::default();
        (1..20).for_each(|i| recent.note(Duration::from_millis(i), 25_000));
        assert_eq!(recent.quantile(50, 25_000), None, "too few");
        recent.note(Duration::from_millis(20), 26_000);
        for (percent, least, most) in [(50, 10, 12), (95, 19, 23)] {
            let got = recent.quantile(percent, 39_000).expect("enough");
            assert!((Duration::from_millis(least)..=Duration::from_millis(most)).contains(&got), "{percent}: {got:?}");
        }
        assert_eq!(recent.quantile(50, 40_000), None, "they are old");
    }
}
