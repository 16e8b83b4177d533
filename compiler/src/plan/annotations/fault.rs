//! Faults made on purpose.

use jiff::Timestamp;
use maesh_config::{
    model::Protocol,
    policy::{FaultAbort, FaultDelay},
};

use super::{About, Annotation, BadValue, Scope, Side};
use crate::plan::service::Port;

const DELAY: &str = "a time, or a time and a share, such as 200ms 5%";
const ABORT: &str = "a status from 400 to 599, or that and a share, such as 503 5%";
const UNTIL: &str = "a time such as 2030-01-31T12:00:00Z";

fn shown(port: &Port, value: fn(&maesh_config::policy::Fault) -> Option<String>) -> String {
    port.called.fault.as_ref().and_then(value).unwrap_or_else(|| "none".into())
}

/// Requests that wait.
pub(crate) static FAULT_DELAY: Annotation<FaultDelay> = Annotation {
    about: About {
        name: "fault-delay",
        side: Side::Called,
        on_namespace: false,
        protocols: &[Protocol::Http],
        values: DELAY,
        default: "none",
        purpose: "A share of the requests waits so long before it is passed on, to see how callers bear it. It has an effect \
                  together with `fault-until`.",
        example: "200ms 5%",
    },
    scope: Scope::Port(|port| shown(port, |fault| fault.delay.map(|delay| delay.to_string()))),
    parse: |text| text.parse().map_err(|_| BadValue::expected(DELAY)),
    unsupported: |_| None,
};

/// Requests that are refused.
pub(crate) static FAULT_ABORT: Annotation<FaultAbort> = Annotation {
    about: About {
        name: "fault-abort",
        side: Side::Called,
        on_namespace: false,
        protocols: &[Protocol::Http],
        values: ABORT,
        default: "none",
        purpose: "A share of the requests is answered with this status and reason `fault_injected` instead of being passed on. \
                  It has an effect together with `fault-until`.",
        example: "503 5%",
    },
    scope: Scope::Port(|port| shown(port, |fault| fault.abort.map(|abort| abort.to_string()))),
    parse: |text| text.parse().map_err(|_| BadValue::expected(ABORT)),
    unsupported: |_| None,
};

/// When faults end.
pub(crate) static FAULT_UNTIL: Annotation<Timestamp> = Annotation {
    about: About {
        name: "fault-until",
        side: Side::Called,
        on_namespace: false,
        protocols: &[Protocol::Http],
        values: UNTIL,
        default: "none: faults have no effect without it",
        purpose: "When `fault-delay` and `fault-abort` end (RFC 3339), by the clock of each proxy's node.",
        example: "2030-01-31T12:00:00Z",
    },
    scope: Scope::Port(|port| shown(port, |fault| Some(fault.until.to_string()))),
    parse: |text| match text.parse::<Timestamp>() {
        Ok(time) if time.as_second() > 0 => Ok(time),
        _ => Err(BadValue::expected(UNTIL)),
    },
    unsupported: |_| None,
};
