//! Rounds in which contenders take turns.

use anyhow::{Context, Result};
use clap::Args;

/// How long a bench goes on.
#[derive(Args, Debug, Clone)]
pub(crate) struct Rounds {
    /// Rounds; in each, every contender runs once
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Seconds that one contender is measured in one round
    #[arg(long, default_value_t = 5)]
    pub(crate) seconds: u64,
}

/// One of the programs that are compared: a name, and how to measure it once.
pub(crate) struct Contender<'a> {
    /// As it stands in the table, with its version.
    pub(crate) name: String,
    /// Measures once; the values stand in the order of the table's metrics.
    pub(crate) run: Box<dyn FnMut() -> Result<Vec<f64>> + 'a>,
}

/// What was measured of one contender: for each round its values.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    /// The contender's name.
    pub(crate) name: String,
    /// One entry a round.
    pub(crate) rounds: Vec<Vec<f64>>,
}

impl Series {
    /// Least, median and greatest of the metric at `index`; `None` when nothing was measured.
    pub(crate) fn spread(&self, index: usize) -> Option<(f64, f64, f64)> {
        let mut values: Vec<f64> = self.rounds.iter().filter_map(|round| round.get(index).copied()).collect();
        values.sort_by(f64::total_cmp);
        let (first, last) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some((first, median, last))
    }

    /// The median of this series' metric divided by that of `reference`, taken round by round: what both shared in a
    /// round (a busy neighbour, a warm processor) cancels out.
    pub(crate) fn ratio(&self, reference: &Self, index: usize) -> Option<f64> {
        let ratios = self.rounds.iter().zip(&reference.rounds).filter_map(|(own, other)| {
            let other = *other.get(index)?;
            (other != 0.0).then(|| own.get(index).map(|own| vec![own / other])).flatten()
        });
        Self { name: String::new(), rounds: ratios.collect() }.spread(0).map(|(_, median, _)| median)
    }
}

/// Measures every contender once a round, in an order that is turned around from round to round.
pub(crate) fn alternate(rounds: usize, contenders: &mut [Contender<'_>]) -> Result<Vec<Series>> {
    let mut series: Vec<Series> =
        contenders.iter().map(|contender| Series { name: contender.name.clone(), rounds: Vec::new() }).collect();
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let contender = &mut contenders[index];
            let values = (contender.run)().with_context(|| format!("round {}: {}", round + 1, contender.name))?;
            let shown: Vec<String> = values.iter().map(|value| format!("{value:.2}")).collect();
            eprintln!("round {}/{rounds} {}: {}", round + 1, contender.name, shown.join(" "));
            series[index].rounds.push(values);
        }
    }
    Ok(series)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn series(values: &[f64]) -> Series {
        Series { name: "x".into(), rounds: values.iter().map(|value| vec![*value]).collect() }
    }

    #[test]
    fn medians_and_spreads() {
        for (case, values, want) in [
            ("nothing measured", &[][..], None),
            ("one round", &[3.0][..], Some((3.0, 3.0, 3.0))),
            ("odd, not sorted", &[9.0, 1.0, 4.0], Some((1.0, 4.0, 9.0))),
            ("even: between the middle two", &[4.0, 1.0, 2.0, 9.0], Some((1.0, 3.0, 9.0))),
        ] {
            assert_eq!(series(values).spread(0), want, "{case}");
        }
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        // The machine was half as fast in the second and third round; the ratio stays 2.
        assert_eq!(series(&[2.0, 4.0, 4.0]).ratio(&series(&[1.0, 2.0, 2.0]), 0), Some(2.0));
        assert_eq!(series(&[2.0]).ratio(&series(&[0.0]), 0), None);
    }

    #[test]
    fn the_order_turns_around() {
        let order = RefCell::new(String::new());
        let mut contenders = ["a", "b"].map(|name| Contender {
            name: name.to_owned(),
            run: Box::new(|| {
                order.borrow_mut().push_str(name);
                Ok(vec![1.0])
            }),
        });
        alternate(3, &mut contenders).unwrap();
        drop(contenders);
        assert_eq!(order.into_inner(), "abbaab");
    }
}
