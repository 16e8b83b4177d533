//! Reads an expression; a mistake is told with its column and what was expected there.

use std::str::FromStr;

use super::{Comparison, Expression, Metric, Number};

/// Longest expression, in bytes.
const LONGEST: usize = 1024;
/// How deep parentheses and `!` may be nested.
const DEEPEST: u32 = 16;

/// Where a text stops being an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: expected {expected}")]
pub struct BadExpression {
    /// The place, counted in characters from 1.
    pub column: usize,
    /// What should be there.
    pub expected: &'static str,
}

impl FromStr for Expression {
    type Err = BadExpression;

    fn from_str(text: &str) -> Result<Self, BadExpression> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        if text.len() > LONGEST {
            return Err(BadExpression { column: LONGEST + 1, expected: "the end: at most 1024 bytes are read" });
        }
        let expression = parser.any()?;
        if parser.rest().is_empty() { Ok(expression) } else { Err(parser.bad("&&, || or the end")) }
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Bytes that are read.
    at: usize,
    depth: u32,
}

impl<'a> Parser<'a> {
    /// What is left, without blanks in front.
    fn rest(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let trimmed = rest.trim_start();
        self.at += rest.len() - trimmed.len();
        trimmed
    }

    fn bad(&self, expected: &'static str) -> BadExpression {
        BadExpression { column: self.text[..self.at].chars().count() + 1, expected }
    }

    fn take(&mut self, token: &str) -> bool {
        let there = self.rest().starts_with(token);
        if there {
            self.at += token.len();
        }
        there
    }

    fn expect(&mut self, token: &'static str) -> Result<(), BadExpression> {
        if self.take(token) { Ok(()) } else { Err(self.bad(token)) }
    }

    fn any(&mut self) -> Result<Expression, BadExpression> {
        let parts = self.list("||", Self::all)?;
        Ok(one_or(parts, Expression::Any))
    }

    fn all(&mut self) -> Result<Expression, BadExpression> {
        let parts = self.list("&&", Self::one)?;
        Ok(one_or(parts, Expression::All))
    }

    fn list(
        &mut self,
        between: &str,
        part: fn(&mut Self) -> Result<Expression, BadExpression>,
    ) -> Result<Vec<Expression>, BadExpression> {
        let mut parts = vec![part(self)?];
        while self.take(between) {
            parts.push(part(self)?);
        }
        Ok(parts)
    }

    fn one(&mut self) -> Result<Expression, BadExpression> {
        let opens = matches!(self.rest().as_bytes(), [b'(', ..] | [b'!', ..]);
        if !opens {
            return self.compare();
        }
        if self.depth == DEEPEST {
            return Err(self.bad("fewer than 17 nested parentheses"));
        }
        self.depth += 1;
        let expression = if self.take("!") {
            Expression::Not(Box::new(self.one()?))
        } else {
            self.expect("(")?;
            let inner = self.any()?;
            self.expect(")")?;
            inner
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn compare(&mut self) -> Result<Expression, BadExpression> {
        let metric = self.metric()?;
        self.rest();
        let comparison =
            Comparison::ALL.into_iter().find(|(_, text)| self.take(text)).map(|(comparison, _)| comparison);
        let comparison = comparison.ok_or_else(|| self.bad("one of > >= < <= == !="))?;
        Ok(Expression::Compare(metric, comparison, self.number()?))
    }

    fn metric(&mut self) -> Result<Metric, BadExpression> {
        if self.take("LatencyAtQuantileMS") {
            self.expect("(")?;
            self.rest();
            let before = self.at;
            let quantile = self.number()?;
            if quantile.get() > 100.0 {
                self.at = before;
                return Err(self.bad("a quantile from 0 to 100"));
            }
            self.expect(")")?;
            return Ok(Metric::LatencyAtQuantileMs(quantile));
        }
        if self.take("NetworkErrorRatio") {
            self.expect("(")?;
            self.expect(")")?;
            return Ok(Metric::NetworkErrorRatio);
        }
        if self.take("ResponseCodeRatio") {
            self.expect("(")?;
            let from = self.code()?;
            self.expect(",")?;
            let to = self.code()?;
            self.expect(",")?;
            let of_from = self.code()?;
            self.expect(",")?;
            let of_to = self.code()?;
            self.expect(")")?;
            return Ok(Metric::ResponseCodeRatio { from, to, of_from, of_to });
        }
        Err(self.bad("LatencyAtQuantileMS(50.0), NetworkErrorRatio() or ResponseCodeRatio(500, 600, 0, 600)"))
    }

    fn number(&mut self) -> Result<Number, BadExpression> {
        let rest = self.rest();
        let length = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number =
            rest[..length].parse().ok().and_then(Number::new).ok_or_else(|| self.bad("a number such as 0.25"))?;
        self.at += length;
        Ok(number)
    }

    fn code(&mut self) -> Result<u16, BadExpression> {
        let rest = self.rest();
        let length = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let code = rest[..length].parse().ok().filter(|code| *code <= 1_000);
        let code = code.ok_or_else(|| self.bad("a status from 0 to 1000"))?;
        self.at += length;
        Ok(code)
    }
}

fn one_or(mut parts: Vec<Expression>, join: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            join(parts)
        }
        None => join(parts),
    }
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
            ("(NetworkErrorRatio() > 1", 25, ")"),
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
