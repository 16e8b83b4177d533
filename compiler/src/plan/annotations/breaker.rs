//! When requests are no longer passed on.

use std::time::Duration;

use maesh_config::{
    model::Protocol,
    policy::{Queue, breaker::Expression},
};

use super::{About, Annotation, BadValue, Scope, Side};

const EXPRESSION: &str = "an expression such as NetworkErrorRatio() > 0.3";
const CONCURRENCY: &str = "a number of requests from 1 to 1000000, or that and how many may wait: 100 or 100,50";

/// How long a request waits for a place.
const WAIT: Duration = Duration::from_secs(1);

/// When the circuit breaker opens.
pub(crate) static BREAKER: Annotation<Expression> = Annotation {
    about: About {
        name: "circuit-breaker-expression",
        side: Side::Backend,
        on_namespace: false,
        protocols: &[Protocol::Http],
        values: EXPRESSION,
        default: "none",
        purpose: "While it holds over the last ten seconds, requests are answered 503 `circuit_open` for ten seconds; then a \
                  growing share is let through over ten more. `LatencyAtQuantileMS(50.0)`, `NetworkErrorRatio()` and \
                  `ResponseCodeRatio(500, 600, 0, 600)` are compared with a number and joined by `&&` and `||`.",
        example: "ResponseCodeRatio(500, 600, 0, 600) > 0.25 || NetworkErrorRatio() > 0.3",
    },
    scope: Scope::Port(|port| port.policy.breaker.as_ref().map_or_else(|| "none".into(), Expression::to_string)),
    parse: |text| {
        text.parse().map_err(|error: maesh_config::policy::breaker::BadExpression| {
            BadValue::expected(EXPRESSION).with(error.to_string())
        })
    },
    unsupported: |_| None,
};

/// Requests in flight, and a queue for them.
pub(crate) static CONCURRENCY_OF_A_PORT: Annotation<(u32, Option<Queue>)> = Annotation {
    about: About {
        name: "concurrency",
        side: Side::Backend,
        on_namespace: false,
        protocols: &[Protocol::Http],
        values: CONCURRENCY,
        default: "1024",
        purpose: "How many requests to the Service each proxy has in flight at most, and how many more may wait for a place, for \
                  a second at most. Further ones are answered 503 `overloaded`. One caller has at most three quarters of them.",
        example: "100,50",
    },
    scope: Scope::Port(|port| match port.policy.queue {
        Some(queue) => format!("{},{}", port.policy.concurrency, queue.length),
        None => port.policy.concurrency.to_string(),
    }),
    parse: |text| concurrency(text).ok_or(BadValue::expected(CONCURRENCY)),
    unsupported: |_| None,
};

fn concurrency(text: &str) -> Option<(u32, Option<Queue>)> {
    let number = |text: &str, least: u32| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| digits && (least..=1_000_000).contains(number))
    };
    let (limit, queue) = text.split_once(',').map_or((text, None), |(limit, queue)| (limit, Some(queue)));
    let length = queue.map_or(Some(0), |queue| number(queue.trim(), 0))?;
    Some((number(limit.trim(), 1)?, (length > 0).then_some(Queue { length, wait: WAIT })))
}
