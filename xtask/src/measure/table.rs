//! Tables in Markdown, as they stand in `docs/performance.md`.

use std::fmt::Write as _;
use std::fs;

use super::rounds::Series;

/// A column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metric {
    /// Its heading, with the unit.
    pub(crate) name: &'static str,
    /// Digits after the point.
    pub(crate) digits: usize,
}

/// A table of `series`: for each metric the median, the least and the greatest value, and the ratio to the series
/// named `reference` (the median of the ratios of each round).
pub(crate) fn table(metrics: &[Metric], series: &[Series], reference: &str) -> String {
    let reference = series.iter().find(|series| series.name == reference);
    let mut text = String::from("| |");
    for metric in metrics {
        let _ = write!(text, " {} |", metric.name);
        if let Some(reference) = reference {
            let _ = write!(text, " of {} |", reference.name);
        }
    }
    text.push_str("\n|---|");
    let columns = metrics.len() * if reference.is_some() { 2 } else { 1 };
    text.push_str(&"---:|".repeat(columns));
    text.push('\n');
    for row in series {
        let _ = write!(text, "| {} |", row.name);
        for (index, Metric { digits, .. }) in metrics.iter().enumerate() {
            match row.spread(index) {
                Some((least, median, most)) => {
                    let _ = write!(text, " {median:.digits$} ({least:.digits$} to {most:.digits$}) |");
                }
                None => text.push_str(" not measured |"),
            }
            if let Some(reference) = reference {
                match row.ratio(reference, index) {
                    Some(ratio) => {
                        let _ = write!(text, " {ratio:.2} |");
                    }
                    None => text.push_str(" |"),
                }
            }
        }
        text.push('\n');
    }
    text
}

/// One line about the machine: processor, its count, kernel.
pub(crate) fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()))
        .unwrap_or("unknown processor");
    let count = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {count} cores, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_medians_spreads_and_ratios() {
        let series = [
            Series { name: "ours".into(), rounds: vec![vec![1.0, 30.0], vec![3.0, 10.0], vec![2.0, 20.0]] },
            Series { name: "theirs".into(), rounds: vec![vec![2.0, 10.0], vec![6.0, 10.0], vec![4.0, 10.0]] },
        ];
        let metrics = [Metric { name: "CPU (µs)", digits: 1 }, Metric { name: "req/s", digits: 0 }];
        assert_eq!(
            table(&metrics, &series, "theirs"),
            "| | CPU (µs) | of theirs | req/s | of theirs |\n\
             |---|---:|---:|---:|---:|\n\
             | ours | 2.0 (1.0 to 3.0) | 0.50 | 20 (10 to 30) | 2.00 |\n\
             | theirs | 4.0 (2.0 to 6.0) | 1.00 | 10 (10 to 10) | 1.00 |\n"
        );
    }
}
