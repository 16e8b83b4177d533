//! How many requests are passed on.

use maesh_config::{model::Protocol, policy::RateLimitBy};

use super::{About, Annotation, BadValue, Scope, Side};
use crate::plan::service::Port;

const REQUESTS: &str = "a whole number from 1 to 1000000000";
const BY: &str = "source, service or header:NAME";

fn requests(text: &str) -> Result<u32, BadValue> {
    match text.parse() {
        Ok(requests @ 1..=1_000_000_000) if !text.starts_with('+') => Ok(requests),
        _ => Err(BadValue::expected(REQUESTS)),
    }
}

fn shown(port: &Port, value: fn(&maesh_config::policy::RateLimit) -> String) -> String {
    port.called.rate_limit.as_ref().map_or_else(|| "no limit".into(), value)
}

/// Requests a second.
pub(crate) static AVERAGE: Annotation<u32> = Annotation {
    about: About {
        name: "ratelimit-average",
        side: Side::Called,
        on_namespace: false,
        protocols: &[Protocol::Http],
        values: REQUESTS,
        default: "no limit",
        purpose: "How many requests a second each proxy passes on, over time. Further ones are answered 429 `rate_limited` \
                  with `Retry-After`. Proxies do not count together.",
        example: "100",
    },
    scope: Scope::Port(|port| shown(port, |limit| limit.average.to_string())),
    parse: requests,
    unsupported: |_| None,
};

/// Requests at once.
pub(crate) static BURST: Annotation<u32> = Annotation {
    about: About {
        name: "ratelimit-burst",
        side: Side::Called,
        on_namespace: false,
        protocols: &[Protocol::Http],
        values: REQUESTS,
        default: "what ratelimit-average is",
        purpose: "How many requests may come at once after a pause. It has an effect together with `ratelimit-average`.",
        example: "200",
    },
    scope: Scope::Port(|port| shown(port, |limit| limit.burst.to_string())),
    parse: requests,
    unsupported: |_| None,
};

/// What is counted together.
pub(crate) static COUNTED_BY: Annotation<RateLimitBy> = Annotation {
    about: About {
        name: "ratelimit-by",
        side: Side::Called,
        on_namespace: false,
        protocols: &[Protocol::Http],
        values: BY,
        default: "source",
        purpose: "Which requests are counted together: those of each caller's address, all of them, or those with the same \
                  value of a header field.",
        example: "header:x-api-key",
    },
    scope: Scope::Port(|port| shown(port, |limit| limit.by.to_string())),
    parse: |text| text.parse().map_err(|_| BadValue::expected(BY)),
    unsupported: |_| None,
};
