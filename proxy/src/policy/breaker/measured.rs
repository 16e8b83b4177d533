//! What a breaker measures: statuses and latencies of the last ten seconds.

use maesh_config::policy::breaker::Metric;

use crate::policy::{histogram::Histogram, window::SECONDS};

/// One second, or the sum of several.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    second: u32,
    /// Responses by status, sorted.
    statuses: Vec<(u16, u32)>,
    latencies: Histogram,
}

/// The last ten seconds: at most one entry for each last digit of a second, so none for a port without a breaker.
#[derive(Debug, Default)]
pub(super) struct Measured(Vec<Counts>);

impl Measured {
    /// Notes a response.
    pub(super) fn note(&mut self, second: u32, status: u16, millis: f64) {
        let of_second = || Counts { second, ..Counts::default() };
        let counts = match self.0.iter().position(|counts| counts.second % SECONDS == second % SECONDS) {
            Some(at) => {
                if self.0[at].second != second {
                    self.0[at] = of_second();
                }
                &mut self.0[at]
            }
            None => self.0.push_mut(of_second()),
        };
        counts.count(status, 1);
        counts.latencies.add(millis);
    }

    /// All of the last ten seconds.
    pub(super) fn sum(&self, second: u32) -> Counts {
        let mut sum = Counts::default();
        for counts in self.0.iter().filter(|counts| second.wrapping_sub(counts.second) < SECONDS) {
            counts.statuses.iter().for_each(|(status, count)| sum.count(*status, *count));
            sum.latencies.add_all(&counts.latencies);
        }
        sum
    }
}

impl Counts {
    fn count(&mut self, status: u16, by: u32) {
        match self.statuses.binary_search_by_key(&status, |(status, _)| *status) {
            Ok(at) => self.statuses[at].1 = self.statuses[at].1.saturating_add(by),
            Err(at) => self.statuses.insert(at, (status, by)),
        }
    }

    /// How many responses there were.
    pub(super) fn requests(&self) -> u32 {
        self.between(0, u16::MAX)
    }

    fn between(&self, from: u16, to: u16) -> u32 {
        let counted = self.statuses.iter().filter(|(status, _)| (from..to).contains(status));
        counted.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// The value of a metric; 0 where there is nothing to measure.
    pub(super) fn value(&self, metric: Metric) -> f64 {
        let ratio = |part: u32, of: u32| if of == 0 { 0.0 } else { f64::from(part) / f64::from(of) };
        match metric {
            Metric::LatencyAtQuantileMs(quantile) => self.latencies.quantile(quantile.get()),
            // As in Traefik: whoever answers so.
            Metric::NetworkErrorRatio => {
                ratio(self.between(502, 503).saturating_add(self.between(504, 505)), self.requests())
            }
            Metric::ResponseCodeRatio { from, to, of_from, of_to } => {
                ratio(self.between(from, to), self.between(of_from, of_to))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use maesh_config::policy::breaker::Expression;

    use super::*;

    fn metric(text: &str) -> Metric {
        match format!("{text} > 0").parse() {
            Ok(Expression::Is(threshold)) => threshold.metric,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn metrics_are_of_the_last_ten_seconds() {
        let mut measured = Measured::default();
        // Long ago, and in the slot of a second that is counted.
        (0..50).for_each(|_| measured.note(91, 500, 1.0));
        for second in 101..=103 {
            (0..6).for_each(|_| measured.note(second, 200, 10.0));
            (0..2).for_each(|_| measured.note(second, 502, 10.0));
            (0..1).for_each(|_| measured.note(second, 404, 10.0));
            (0..1).for_each(|_| measured.note(second, 504, 500.0));
        }
        let recent = measured.sum(105);
        assert_eq!(recent.requests(), 30);
        for (text, want) in [
            ("NetworkErrorRatio()", 0.3),
            ("ResponseCodeRatio(500, 600, 0, 600)", 0.3),
            ("ResponseCodeRatio(400, 500, 0, 600)", 0.1),
            ("ResponseCodeRatio(500, 600, 200, 300)", 0.5),
            ("ResponseCodeRatio(500, 600, 300, 400)", 0.0),
        ] {
            assert!((recent.value(metric(text)) - want).abs() < 1e-9, "{text}: {}", recent.value(metric(text)));
        }
        assert_eq!(measured.sum(113).requests(), 0);
    }
}
