//! Circuit breakers: the condition under which requests are no longer passed on, as Traefik writes it.
//!
//! ```text
//! expression = all { "||" all }
//! all        = one { "&&" one }
//! one        = "!" one | "(" expression ")" | metric comparison number
//! metric     = "LatencyAtQuantileMS(" number ")" | "NetworkErrorRatio()"
//!            | "ResponseCodeRatio(" code "," code "," code "," code ")"
//! comparison = ">" | ">=" | "<" | "<=" | "==" | "!="
//! ```

mod parse;

use std::fmt;

pub use self::parse::BadExpression;
use crate::Logic;

/// When a circuit breaker opens.
pub type Expression = Logic<Threshold>;

/// A metric compared with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Threshold {
    /// What is compared.
    pub metric: Metric,
    /// How.
    pub comparison: Comparison,
    /// With what.
    pub number: Number,
}

/// What is measured, over the last ten seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// The time, in milliseconds, within which this share of responses began: 0 to 100 percent.
    LatencyAtQuantileMs(Number),
    /// Share of requests for which no connection could be made, or that were not answered: 0 to 1.
    NetworkErrorRatio,
    /// How many responses have a status from `from` to below `to`, for each one with a status from `of_from` to below `of_to`.
    ResponseCodeRatio {
        /// First status that counts.
        from: u16,
        /// First status above those.
        to: u16,
        /// First status of those that they are compared with.
        of_from: u16,
        /// First status above those.
        of_to: u16,
    },
}

/// How a metric is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `==`
    Equal,
    /// `!=`
    Unequal,
}

/// A number that is finite and not negative.
#[derive(Clone, Copy, Debug)]
pub struct Number(f64);

impl Number {
    /// This number; `None` if it is negative or no number.
    pub fn new(value: f64) -> Option<Self> {
        // Negative zero would be equal to zero and have other bits.
        (value.is_finite() && value >= 0.0).then_some(Self(value.abs()))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Number {}

impl std::hash::Hash for Number {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Comparison {
    const ALL: [(Self, &str); 6] = [
        // Those of two characters first: a parser takes the first that fits.
        (Self::AtLeast, ">="),
        (Self::AtMost, "<="),
        (Self::Equal, "=="),
        (Self::Unequal, "!="),
        (Self::Above, ">"),
        (Self::Below, "<"),
    ];

    /// Whether `left` compares so with `right`.
    #[allow(clippy::float_cmp)]
    pub fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Above => left > right,
            Self::AtLeast => left >= right,
            Self::Below => left < right,
            Self::AtMost => left <= right,
            Self::Equal => left == right,
            Self::Unequal => left != right,
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Self::ALL.iter().find(|(comparison, _)| comparison == self).map_or("", |(_, text)| text);
        f.write_str(text)
    }
}

impl Expression {
    /// Whether the breaker opens; `measure` gives the value of a metric.
    pub fn opens(&self, measure: &impl Fn(Metric) -> f64) -> bool {
        self.holds(&|it: &Threshold| it.comparison.holds(measure(it.metric), it.number.get()))
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LatencyAtQuantileMs(quantile) => write!(f, "LatencyAtQuantileMS({quantile})"),
            Self::NetworkErrorRatio => f.write_str("NetworkErrorRatio()"),
            Self::ResponseCodeRatio { from, to, of_from, of_to } => {
                write!(f, "ResponseCodeRatio({from}, {to}, {of_from}, {of_to})")
            }
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.metric, self.comparison, self.number)
    }
}

#[cfg(test)]
pub(crate) fn arbitrary() -> impl proptest::strategy::Strategy<Value = Expression> {
    use proptest::prelude::*;
    let number = || (0..100_000_u32).prop_map(|number| Number(f64::from(number) / 8.0));
    let metric = prop_oneof![
        (0..=800_u32).prop_map(|eighths| Metric::LatencyAtQuantileMs(Number(f64::from(eighths) / 8.0))),
        Just(Metric::NetworkErrorRatio),
        (0..600_u16, 0..600_u16, 0..600_u16, 0..600_u16)
            .prop_map(|(from, to, of_from, of_to)| Metric::ResponseCodeRatio { from, to, of_from, of_to }),
    ];
    let comparison = prop::sample::select(Comparison::ALL.map(|(comparison, _)| comparison).to_vec());
    let threshold = (metric, comparison, number()).prop_map(|(metric, comparison, number)| Threshold {
        metric,
        comparison,
        number,
    });
    crate::logic::arbitrary(threshold)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_holds_as_its_parts_do() {
        let measure = |metric: Metric| match metric {
            Metric::LatencyAtQuantileMs(_) => 120.0,
            Metric::NetworkErrorRatio => 0.5,
            Metric::ResponseCodeRatio { .. } => 0.0,
        };
        for (text, want) in [
            ("LatencyAtQuantileMS(50.0) > 100", true),
            ("LatencyAtQuantileMS(50.0) > 120", false),
            ("LatencyAtQuantileMS(50.0) >= 120", true),
            ("NetworkErrorRatio() < 0.5", false),
            ("NetworkErrorRatio() <= 0.5", true),
            ("NetworkErrorRatio() == 0.5", true),
            ("NetworkErrorRatio() != 0.5", false),
            ("!(NetworkErrorRatio() > 0.3)", false),
            ("ResponseCodeRatio(500, 600, 0, 600) > 0.25 || NetworkErrorRatio() > 0.3", true),
            ("ResponseCodeRatio(500, 600, 0, 600) > 0.25 && NetworkErrorRatio() > 0.3", false),
        ] {
            let expression: Expression = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(expression.opens(&measure), want, "{text}");
        }
    }
}
