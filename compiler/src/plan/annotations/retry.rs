//! How requests are tried again.

use maesh_config::{
    model::Protocol,
    policy::{MOST_ATTEMPTS, RetryBudget, RetryCondition, RetryOn},
};

use super::{About, Annotation, BadValue, Scope, Side};

const ATTEMPTS: &str = "a whole number from 1 to 10";
const CONDITIONS: &str = "a list, separated by commas, of connect-failure, reset, gateway-error, 5xx, a status from 400 to 599, \
                          cancelled, deadline-exceeded, internal, resource-exhausted, unavailable and any-method";
const BUDGET: &str = "a share of the requests such as 20%, or a share and a rate such as 20%,10/s";

/// Tries of a request, the first one included.
pub(crate) static ATTEMPTS_OF_A_REQUEST: Annotation<u32> = Annotation {
    about: About {
        name: "retry-attempts",
        side: Side::Called,
        on_namespace: true,
        protocols: &[Protocol::Http],
        values: ATTEMPTS,
        default: "1",
        purpose: "How many times a request is tried in all. 1 is no retry; even then, a request whose connection could not be \
                  made is tried once more on another endpoint.",
        example: "3",
    },
    scope: Scope::Port(|port| port.called.retry.attempts.to_string()),
    parse: |text| match text.parse() {
        Ok(attempts @ 1..=MOST_ATTEMPTS) if !text.starts_with('+') => Ok(attempts),
        _ => Err(BadValue::expected(ATTEMPTS)),
    },
    unsupported: |_| None,
};

/// Outcomes after which a request is tried again.
pub(crate) static RETRY_ON: Annotation<RetryOn> = Annotation {
    about: About {
        name: "retry-on",
        side: Side::Called,
        on_namespace: true,
        protocols: &[Protocol::Http],
        values: CONDITIONS,
        default: "connect-failure",
        purpose: "After which outcomes a request is tried again, as often as `retry-attempts` says. `gateway-error` is a 502, \
                  503 or 504, also where the mesh would answer so itself. The names of statuses are those of gRPC. Only \
                  idempotent methods are tried again, unless `any-method` is in the list; a call of gRPC is tried again \
                  after the statuses of gRPC in the list, whatever its method. It has an effect together with \
                  `retry-attempts`.",
        example: "reset,gateway-error",
    },
    scope: Scope::Port(|port| port.called.retry.on.to_string()),
    parse: |text| text.parse().map_err(|_| unknown_condition(text)),
    unsupported: |_| None,
};

/// Names the first word of the list that is no condition.
fn unknown_condition(text: &str) -> BadValue {
    let bad = BadValue::expected(CONDITIONS);
    match text.split(',').map(str::trim).find(|word| word.parse::<RetryCondition>().is_err()) {
        Some("") => bad.with("it has an empty part".to_owned()),
        Some(word) => bad.with(format!("{:?} is none of them", word.chars().take(40).collect::<String>())),
        None => bad,
    }
}

/// What all retries may add.
pub(crate) static RETRY_BUDGET: Annotation<RetryBudget> = Annotation {
    about: About {
        name: "retry-budget",
        side: Side::Called,
        on_namespace: true,
        protocols: &[Protocol::Http],
        values: BUDGET,
        default: "20%,10/s",
        purpose: "How many retries a proxy makes at most, over ten seconds: a share of the requests, or the rate if that is \
                  more; `0%` is no retry. Above it, the failure is passed on, so that retries do not multiply the load of a Service that fails.",
        example: "20%,10/s",
    },
    scope: Scope::Port(|port| port.called.retry.budget.to_string()),
    parse: |text| text.parse().map_err(|_| BadValue::expected(BUDGET)),
    unsupported: |_| None,
};
