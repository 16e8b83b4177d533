//! Expressions of circuit breakers: read, written and read again they mean the same, and a breaker opens exactly when they
//! hold for what it was told.
//!
//! The first line is the expression; then two bytes say when it begins, and four are one step.

mod evaluate;
mod model;

use maesh_config::policy::breaker::{BadExpression, Expression, Metric};

use self::{evaluate::evaluate, model::Model};
use crate::policy::breaker::Breaker;

/// Longest expression, in bytes, and how deep one may be nested, as the parser has them.
const LONGEST: usize = 1024;
const DEEPEST: usize = 16;

pub(crate) fn run(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let text = crate::text(&bytes[..end]);
    match text.parse::<Expression>() {
        Ok(expression) => {
            assert!(text.len() <= LONGEST && depth(&expression) <= 2 * DEEPEST + 2);
            survives(text, &expression);
            steps(text, &expression, bytes.get(end + 1..).unwrap_or_default());
        }
        Err(BadExpression { column, .. }) => {
            assert!((1..=(text.chars().count() + 1).min(LONGEST + 1)).contains(&column), "column {column}");
        }
    }
}

/// The text of an expression is one that means the same.
fn survives(text: &str, expression: &Expression) {
    let written = expression.to_string();
    let again = match written.parse::<Expression>() {
        Ok(again) => again,
        // What is written has blanks and parentheses that the text need not have had.
        Err(_) if !is_within_bounds(&written) => return,
        Err(error) => panic!("{written}: {error}"),
    };
    assert_eq!(again.to_string(), written);
    for seed in 0..4 {
        let measure = |metric: Metric| measured(&metric.to_string(), seed);
        let holds = expression.opens(&measure);
        assert_eq!(holds, again.opens(&measure), "{written}");
        assert_eq!(holds, evaluate(text, &measure), "{text}");
        assert_eq!(holds, evaluate(&written, &measure), "{written}");
    }
    // No value makes it panic.
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0] {
        expression.opens(&|_| value);
    }
}

/// Some value: often one that is in expressions.
fn measured(metric: &str, seed: u8) -> f64 {
    let hash = metric.bytes().fold(u32::from(seed), |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    [0.0, 0.25, 0.3, 0.5, 1.0, 50.0, 100.0, 1e9][(hash >> 13) as usize % 8]
}

fn depth(expression: &Expression) -> usize {
    match expression {
        Expression::Any(parts) | Expression::All(parts) => 1 + parts.iter().map(depth).max().unwrap_or(0),
        Expression::Not(part) => 1 + depth(part),
        Expression::Is(_) => 1,
    }
}

/// Whether an expression that is written like this can be read, as long and as deeply nested as it is.
pub(crate) fn is_within_bounds(text: &str) -> bool {
    text.len() <= LONGEST && nesting(text) <= DEEPEST
}

/// How deep a text is nested, by its parentheses and the signs of negation before each.
fn nesting(text: &str) -> usize {
    let (mut open, mut deepest): (Vec<usize>, usize) = (vec![0], 0);
    let mut negations = 0;
    for c in text.chars() {
        let around = open.last().copied().unwrap_or(0);
        match c {
            '!' => negations += 1,
            '(' => open.push(around + negations + 1),
            ')' => drop(open.pop()),
            ' ' => {}
            _ => negations = 0,
        }
        deepest = deepest.max(open.last().copied().unwrap_or(0) + negations);
    }
    deepest
}

/// What happens to a breaker, beside a plain model of it.
fn steps(text: &str, expression: &Expression, steps: &[u8]) {
    let Some((begin, steps)) = steps.split_first_chunk() else { return };
    let (breaker, mut model) = (Breaker::default(), Model::default());
    let begin = u32::from(u16::from_be_bytes(*begin)) << 16;
    let mut passed = 0_u32;
    for &[step, a, b, c] in steps.as_chunks().0 {
        let now = begin.wrapping_add(passed);
        let number = u32::from_be_bytes([0, a, b, c]);
        match step % 8 {
            // Up to seconds. The clock may wrap, but not come to the same time again.
            0 | 1 => passed = passed.saturating_add(number & 0xfff),
            2 => passed = passed.saturating_add(number),
            3 => {
                let passes = breaker.lets_through(now, number.into());
                assert_eq!(passes, model.lets_through(now, number.into()), "at {now}");
            }
            _ => {
                let status = [200, 302, 404, 429, 500, 502, 503, 504, 599, 999][usize::from(a) % 10];
                let millis = if step & 0x80 == 0 { f64::from(number & 0xffff) / 8.0 } else { extreme(b) };
                let noted = breaker.note(expression, now, status, millis);
                assert_eq!(noted, model.note(text, now, status, millis), "{text}: {status} after {millis} at {now}");
            }
        }
        let now = begin.wrapping_add(passed);
        assert_eq!(breaker.seen(now), model.seen(now), "at {now}");
    }
}

/// A time that no request takes.
fn extreme(which: u8) -> f64 {
    [0.0, -1.0, 1e-9, 1e12, f64::MAX, f64::INFINITY, f64::NAN, f64::MIN_POSITIVE][usize::from(which) % 8]
}
