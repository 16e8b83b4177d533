//! How long things may take.

use std::time::Duration;

use maesh_config::{
    duration::{self, Written},
    model::Protocol,
};

use super::{About, Annotation, BadValue, Scope, Side};

const TIME: &str = "a time such as 500ms, 5s or 1m30s";
const TIME_OR_OFF: &str = "a time such as 500ms, 5s or 1m30s, or 0s for no limit";

fn limit(text: &str) -> Result<Duration, BadValue> {
    duration::parse(text).map_err(|_| BadValue::expected(TIME_OR_OFF))
}

fn shown(limit: Option<Duration>) -> String {
    Written(limit.unwrap_or_default()).to_string()
}

/// Longest time of a request.
pub(crate) static REQUEST: Annotation<Duration> = Annotation {
    about: About {
        name: "timeout-request",
        side: Side::Called,
        on_namespace: true,
        protocols: &[Protocol::Http],
        values: TIME_OR_OFF,
        default: "0s",
        purpose: "How long a request may take, from its head to the end of its response, all tries together. Then the caller \
                  is answered 504 `request_timeout`, or its response is cut off if it has begun.",
        example: "10s",
    },
    scope: Scope::Port(|port| shown(port.called.request_timeout)),
    parse: limit,
    unsupported: |_| None,
};

/// Longest time until one try is answered.
pub(crate) static TRY: Annotation<Duration> = Annotation {
    about: About {
        name: "timeout-try",
        side: Side::Called,
        on_namespace: true,
        protocols: &[Protocol::Http],
        values: TIME_OR_OFF,
        default: "0s",
        purpose: "How long one try may take until its response begins, the time to send the request included. Then it is given up, and made again if `retry-on` says \
                  so; otherwise the caller is answered 504 `try_timeout`.",
        example: "2s",
    },
    scope: Scope::Port(|port| shown(port.called.try_timeout)),
    parse: limit,
    unsupported: |_| None,
};

/// Longest time to establish a connection.
pub(crate) static CONNECT: Annotation<Duration> = Annotation {
    about: About {
        name: "timeout-connect",
        side: Side::Backend,
        on_namespace: true,
        protocols: &[Protocol::Http, Protocol::Tcp],
        values: TIME,
        default: "5s",
        purpose: "How long it may take to connect to an endpoint. Then another one is tried.",
        example: "1s",
    },
    scope: Scope::Port(|port| shown(Some(port.policy.connect_timeout))),
    parse: |text| match duration::parse(text) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err(BadValue::expected(TIME)),
    },
    unsupported: |_| None,
};

/// Longest silence.
pub(crate) static IDLE: Annotation<Duration> = Annotation {
    about: About {
        name: "timeout-idle",
        side: Side::Backend,
        on_namespace: true,
        protocols: &[Protocol::Http, Protocol::Tcp, Protocol::Udp],
        values: TIME_OR_OFF,
        default: "1h, for UDP 60s",
        purpose: "How long a stream may be silent in both directions: a TCP connection, a UDP flow, or a request or response \
                  whose body has begun. Then it is ended.",
        example: "10m",
    },
    scope: Scope::Port(|port| shown(port.policy.idle_timeout)),
    parse: limit,
    unsupported: |_| None,
};
