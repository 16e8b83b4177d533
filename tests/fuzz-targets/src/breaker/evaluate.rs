//! The value of an expression's text, without the parser of the product: for texts that are expressions.

use maesh_config::policy::breaker::{Metric, Number};

/// Whether it holds, where `measure` gives the value of a metric.
pub(super) fn evaluate(text: &str, measure: &dyn Fn(Metric) -> f64) -> bool {
    let mut evaluator = Evaluator { rest: text, measure };
    let holds = evaluator.any();
    assert_eq!(evaluator.rest.trim_start(), "", "all of it was read");
    holds
}

/// A sign, and when it holds between two numbers.
type Comparison = (&'static str, fn(f64, f64) -> bool);

struct Evaluator<'a> {
    rest: &'a str,
    measure: &'a dyn Fn(Metric) -> f64,
}

impl Evaluator<'_> {
    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn any(&mut self) -> bool {
        let mut holds = self.all();
        while self.take("||") {
            holds |= self.all();
        }
        holds
    }

    fn all(&mut self) -> bool {
        let mut holds = self.one();
        while self.take("&&") {
            holds &= self.one();
        }
        holds
    }

    fn one(&mut self) -> bool {
        if self.take("!") {
            return !self.one();
        }
        if self.take("(") {
            let holds = self.any();
            assert!(self.take(")"));
            return holds;
        }
        let metric = self.metric();
        let value = (self.measure)(metric);
        let comparisons: [Comparison; 6] = [
            (">=", |left, right| left >= right),
            ("<=", |left, right| left <= right),
            ("==", |left, right| left.partial_cmp(&right).is_some_and(std::cmp::Ordering::is_eq)),
            ("!=", |left, right| !left.partial_cmp(&right).is_some_and(std::cmp::Ordering::is_eq)),
            (">", |left, right| left > right),
            ("<", |left, right| left < right),
        ];
        let comparison = comparisons.iter().find(|(sign, _)| self.take(sign));
        let (_, holds) = comparison.expect("a comparison");
        holds(value, self.number())
    }

    fn metric(&mut self) -> Metric {
        let (name, rest) = self.rest.trim_start().split_once('(').expect("a metric");
        self.rest = rest;
        let metric = match name.trim_end() {
            "NetworkErrorRatio" => Metric::NetworkErrorRatio,
            "LatencyAtQuantileMS" => Metric::LatencyAtQuantileMs(Number::new(self.number()).expect("a number")),
            "ResponseCodeRatio" => {
                let codes = [(); 4].map(|()| {
                    let code = self.number();
                    let _ = self.take(",");
                    // A whole number up to a thousand.
                    code as u16
                });
                let [from, to, of_from, of_to] = codes;
                Metric::ResponseCodeRatio { from, to, of_from, of_to }
            }
            other => panic!("{other} is no metric"),
        };
        assert!(self.take(")"));
        metric
    }

    fn number(&mut self) -> f64 {
        let rest = self.rest.trim_start();
        let length = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        self.rest = &rest[length..];
        rest[..length].parse().expect("a number")
    }
}
