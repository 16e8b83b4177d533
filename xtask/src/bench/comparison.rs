//! What the benches that compare programs have in common: who takes turns, the table, and how ours does beside others.

use anyhow::Result;

use crate::measure::{Contender, Metric, Rounds, Series, alternate, machine, table};

/// A table: its columns, and how often each row is measured.
pub(crate) struct Comparison<'a> {
    pub(crate) metrics: &'a [Metric],
    pub(crate) rounds: &'a Rounds,
    /// A word in the name of the row that the ratios in the table refer to.
    pub(crate) reference: &'a str,
}

impl Comparison<'_> {
    /// Measures every one of `rows` once a round, and prints the table.
    pub(crate) fn print<T>(
        &self,
        rows: &[T],
        name: impl Fn(&T) -> &str,
        measure: impl Fn(&T) -> Result<Vec<f64>>,
    ) -> Result<Vec<Series>> {
        let measure = &measure;
        let contender = |row| Contender { name: name(row).to_owned(), run: Box::new(move || measure(row)) };
        let mut contenders: Vec<Contender<'_>> = rows.iter().map(contender).collect();
        let series = alternate(self.rounds.rounds, &mut contenders)?;
        let reference = series.iter().find(|row| row.name.contains(self.reference)).map_or("", |row| &row.name);
        println!("{}", table(self.metrics, &series, reference));
        Ok(series)
    }

    /// The end of the line below the table: how long was measured, and where.
    /// `parts` is before the seconds: how often a round measures for them, such as `twice `.
    pub(crate) fn conditions(&self, parts: &str) -> String {
        format!("{} rounds of {parts}{} s; {}", self.rounds.rounds, self.rounds.seconds, machine())
    }
}

/// One line: the metric at `index`, called `what`, of the first row (ours) divided by that of each other one.
pub(crate) fn ratios(what: &str, series: &[Series], index: usize) -> String {
    let Some((ours, others)) = series.split_first() else { return String::new() };
    let ratio = |other: &Series| Some(format!("{:.2} of {}", ours.ratio(other, index)?, other.name));
    let all: Vec<String> = others.iter().filter_map(ratio).collect();
    if all.is_empty() { String::new() } else { format!("{what}, {}: {}.\n", ours.name, all.join(", ")) }
}

/// The metric at `index` of the first row, if that is ours, divided by that of the row whose name begins with `other`.
pub(crate) fn ratio_to(other: &str, series: &[Series], index: usize) -> Option<f64> {
    let ours = ours(series)?;
    ours.ratio(series.iter().find(|row| row.name.starts_with(other))?, index)
}

/// Our row.
pub(crate) fn ours(series: &[Series]) -> Option<&Series> {
    series.iter().find(|row| row.name == "maesh")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, value: f64) -> Series {
        Series { name: name.into(), rounds: vec![vec![value]] }
    }

    #[test]
    fn ours_is_compared_with_every_other() {
        let all = [series("maesh", 1.0), series("haproxy 2.6.12", 2.0), series("envoy 1.40.0", 4.0)];
        assert_eq!(ratios("CPU", &all, 0), "CPU, maesh: 0.50 of haproxy 2.6.12, 0.25 of envoy 1.40.0.\n");
        assert_eq!(ratio_to("envoy", &all, 0), Some(0.25));
        assert_eq!(ratio_to("nginx", &all, 0), None);
    }

    #[test]
    fn without_another_or_without_ours_there_is_no_ratio() {
        assert_eq!(ratios("CPU", &[series("maesh", 1.0)], 0), "");
        assert_eq!(ratio_to("envoy", &[series("haproxy 2", 1.0), series("envoy 1", 2.0)], 0), None);
    }
}
