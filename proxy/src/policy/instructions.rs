//! What policies learn of each request, for [`crate::instructions`].

use std::hint::black_box;

use maesh_config::policy::breaker::Expression;

use super::{Breaker, Limiter, Rate};
use crate::instructions::{Part, Step, draw};

/// The parts.
pub(crate) const PARTS: &[Part] = &[
    Part { name: "rate limit: new key in a full table", prepare: crowded },
    Part { name: "circuit breaker: one statistic", prepare: || breaking("NetworkErrorRatio() > 0.5") },
    Part {
        name: "circuit breaker: three statistics",
        prepare: || {
            breaking(
                "LatencyAtQuantileMS(95.0) > 500 || NetworkErrorRatio() > 0.5 || ResponseCodeRatio(500, 600, 0, 600) > 0.25",
            )
        },
    },
];

/// One more key than there is room for, while no bucket is full again.
fn crowded() -> Step {
    let (limiter, rate, now) = (Limiter::default(), Rate { average: 1, burst: 1_000_000 }, 1_000_000_000);
    let key = |step: u64| u128::from(draw(step)) << 64 | u128::from(step);
    let mut step = 0;
    // Room for each of these in every part of the table, so that all parts are full.
    while step < 80_000 {
        step += 1;
        limiter.take(key(step), rate, now).expect("a large burst");
    }
    Box::new(move |counted| {
        step += 1;
        counted(&mut || assert!(black_box(limiter.take(key(step), rate, now)).is_ok()));
    })
}

/// What a closed breaker takes of a request, on the way there and back, at a thousand requests a second.
fn breaking(expression: &str) -> Step {
    let expression: Expression = expression.parse().expect("an expression");
    let breaker = Breaker::default();
    let mut now = 20_000;
    Box::new(move |counted| {
        now += 1;
        let draw = draw(now.into());
        let (status, millis) = (if draw.is_multiple_of(16) { 404 } else { 200 }, (draw % 64) as f64 / 4.0);
        counted(&mut || {
            assert!(breaker.lets_through(now, draw));
            assert!(black_box(breaker.note(&expression, now, status, millis)).is_none());
        });
    })
}
