//! Reads an expression; a mistake is told with its column and what was expected there.

use std::str::FromStr;

use super::{Comparison, Expression, Metric, Number, Threshold};
use crate::logic::{Logic, Mistake, Scanner};

/// Longest expression, in bytes.
const LONGEST: usize = 1024;

/// Where a text stops being an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: expected {expected}")]
pub struct BadExpression {
    /// The place, counted in characters from 1.
    pub column: usize,
    /// What should be there.
    pub expected: &'static str,
}

impl From<Mistake> for BadExpression {
    fn from(Mistake { column, expected }: Mistake) -> Self {
        Self { column, expected }
    }
}

impl FromStr for Expression {
    type Err = BadExpression;

    fn from_str(text: &str) -> Result<Self, BadExpression> {
        if text.len() > LONGEST {
            return Err(BadExpression { column: LONGEST + 1, expected: "the end: at most 1024 bytes are read" });
        }
        let mut scanner = Scanner::new(text);
        let expression = scanner.logic(&mut |scanner| threshold(scanner).map(Logic::Is))?;
        if scanner.rest().is_empty() { Ok(expression) } else { Err(scanner.expected("&&, || or the end").into()) }
    }
}

fn threshold(scanner: &mut Scanner<'_>) -> Result<Threshold, Mistake> {
    let metric = metric(scanner)?;
    let comparison = Comparison::ALL.into_iter().find(|(_, text)| scanner.take(text)).map(|(comparison, _)| comparison);
    let comparison = comparison.ok_or_else(|| scanner.expected("one of > >= < <= == !="))?;
    Ok(Threshold { metric, comparison, number: number(scanner)? })
}

fn metric(scanner: &mut Scanner<'_>) -> Result<Metric, Mistake> {
    if scanner.take("LatencyAtQuantileMS") {
        scanner.expect("(")?;
        let too_high = scanner.expected("a quantile from 0 to 100");
        let quantile = number(scanner)?;
        if quantile.get() > 100.0 {
            return Err(too_high);
        }
        scanner.expect(")")?;
        return Ok(Metric::LatencyAtQuantileMs(quantile));
    }
    if scanner.take("NetworkErrorRatio") {
        scanner.expect("(")?;
        scanner.expect(")")?;
        return Ok(Metric::NetworkErrorRatio);
    }
    if scanner.take("ResponseCodeRatio") {
        scanner.expect("(")?;
        let from = code(scanner)?;
        scanner.expect(",")?;
        let to = code(scanner)?;
        scanner.expect(",")?;
        let of_from = code(scanner)?;
        scanner.expect(",")?;
        let of_to = code(scanner)?;
        scanner.expect(")")?;
        return Ok(Metric::ResponseCodeRatio { from, to, of_from, of_to });
    }
    Err(scanner.expected("LatencyAtQuantileMS(50.0), NetworkErrorRatio() or ResponseCodeRatio(500, 600, 0, 600)"))
}

fn number(scanner: &mut Scanner<'_>) -> Result<Number, Mistake> {
    let rest = scanner.rest();
    let length = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let number = rest[..length].parse().ok().and_then(Number::new);
    let number = number.ok_or_else(|| scanner.expected("a number such as 0.25"))?;
    scanner.skip(length);
    Ok(number)
}

fn code(scanner: &mut Scanner<'_>) -> Result<u16, Mistake> {
    let rest = scanner.rest();
    let length = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let code = rest[..length].parse().ok().filter(|code| *code <= 1_000);
    let code = code.ok_or_else(|| scanner.expected("a status from 0 to 1000"))?;
    scanner.skip(length);
    Ok(code)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn expressions_are_read_as_they_are_written() {
        for (text, want) in [
            ("LatencyAtQuantileMS(50.0) > 100", "LatencyAtQuantileMS(50) > 100"),
            (" NetworkErrorRatio()>0.30 ", "NetworkErrorRatio() > 0.3"),
            ("ResponseCodeRatio(500,600,0,600)>0.25", "ResponseCodeRatio(500, 600, 0, 600) > 0.25"),
            (
                "NetworkErrorRatio() > 1 || NetworkErrorRatio() > 2 && NetworkErrorRatio() > 3",
                "NetworkErrorRatio() > 1 || (NetworkErrorRatio() > 2 && NetworkErrorRatio() > 3)",
            ),
            (
                "!(NetworkErrorRatio() > 1 || NetworkErrorRatio() > 2)",
                "!(NetworkErrorRatio() > 1 || NetworkErrorRatio() > 2)",
            ),
            ("((NetworkErrorRatio() > 1))", "NetworkErrorRatio() > 1"),
        ] {
            assert_eq!(text.parse::<Expression>().map(|it| it.to_string()), Ok(want.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn mistakes_have_their_column() {
        for (text, column, expected) in [
            ("", 1, "LatencyAtQuantileMS(50.0), NetworkErrorRatio() or ResponseCodeRatio(500, 600, 0, 600)"),
            ("NetworkErrorRatio", 18, "("),
            ("NetworkErrorRatio() 5", 21, "one of > >= < <= == !="),
            ("NetworkErrorRatio() > x", 23, "a number such as 0.25"),
            ("NetworkErrorRatio() > 1.2.3", 23, "a number such as 0.25"),
            ("NetworkErrorRatio() > -1", 23, "a number such as 0.25"),
            ("NetworkErrorRatio() > 1 | NetworkErrorRatio() > 1", 25, "&&, || or the end"),
            ("LatencyAtQuantileMS(101) > 1", 21, "a quantile from 0 to 100"),
            ("ResponseCodeRatio(500, 600, 0) > 1", 30, ","),
            ("ResponseCodeRatio(5000, 600, 0, 600) > 1", 19, "a status from 0 to 1000"),
            ("(NetworkErrorRatio() > 1", 25, "&&, || or )"),
        ] {
            let want = BadExpression { column, expected };
            assert_eq!(text.parse::<Expression>(), Err(want), "{text:?}");
        }
        let deep = format!("{}NetworkErrorRatio() > 1{}", "(".repeat(17), ")".repeat(17));
        assert_eq!(deep.parse::<Expression>().map_err(|error| error.column), Err(17));
        let long = format!("NetworkErrorRatio() > 1{}", " ".repeat(1024));
        assert!(long.parse::<Expression>().is_err());
    }

    proptest! {
        #[test]
        fn texts_survive(expression in super::super::arbitrary()) {
            // Joined parts of the same kind are one list once they are read again, so texts are compared.
            let text = expression.to_string();
            if text.len() <= LONGEST {
                prop_assert_eq!(text.parse::<Expression>().map(|it| it.to_string()), Ok(text));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}") {
            let _ = text.parse::<Expression>();
        }
    }
}
