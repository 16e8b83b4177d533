//! Which endpoint a request goes to, and which ones are left out.

use maesh_config::{model::Protocol, policy::Balance};

use super::{About, Annotation, BadValue, Scope, Side};

const BALANCES: &str =
    "p2c, round-robin, least-request, hash:source, hash:header:NAME, hash:cookie:NAME, sticky or sticky:COOKIE";
const FAILURES: &str = "a whole number from 0 to 1000";
const SHARE: &str = "a share from 0% to 100%, in whole percent";

/// How an endpoint is picked.
pub(crate) static BALANCE: Annotation<Balance> = Annotation {
    about: About {
        name: "balance",
        side: Side::Backend,
        on_namespace: true,
        protocols: &[Protocol::Http, Protocol::Tcp, Protocol::Udp],
        values: BALANCES,
        default: "p2c, or hash:source where sessionAffinity is ClientIP",
        purpose: "How an endpoint is picked. `p2c`: of two drawn at random, the one that promises to answer sooner. \
                  `hash`: the same endpoint for the same caller, field or cookie, also while others come and go. \
                  `sticky`: the endpoint that a cookie of the mesh names. Ports that are not HTTP know `p2c`, \
                  `round-robin`, `least-request` and `hash:source`.",
        example: "hash:header:x-user",
    },
    scope: Scope::Port(|port| port.policy.balance.to_string()),
    parse: |text| text.parse().map_err(|_| BadValue::expected(BALANCES)),
    unsupported: |_| None,
};

/// Failures after which an endpoint is ejected.
pub(crate) static EJECT: Annotation<u32> = Annotation {
    about: About {
        name: "eject",
        side: Side::Backend,
        on_namespace: true,
        protocols: &[Protocol::Http, Protocol::Tcp, Protocol::Udp],
        values: FAILURES,
        default: "5",
        purpose: "After how many failures in a row an endpoint gets no requests for a while: 10 s times the number of \
                  ejections, at most 5 minutes. Failures are answers from 500 on, connections that cannot be made or are \
                  reset, tries that time out, and datagrams of UDP that cannot be delivered. 0: never.",
        example: "3",
    },
    scope: Scope::Port(|port| port.policy.eject.failures.to_string()),
    parse: |text| match text.parse() {
        Ok(failures @ 0..=1_000) if !text.starts_with('+') => Ok(failures),
        _ => Err(BadValue::expected(FAILURES)),
    },
    unsupported: |_| None,
};

/// Most endpoints that are ejected.
pub(crate) static EJECT_MAX: Annotation<u32> = Annotation {
    about: About {
        name: "eject-max",
        side: Side::Backend,
        on_namespace: true,
        protocols: &[Protocol::Http, Protocol::Tcp, Protocol::Udp],
        values: SHARE,
        default: "50%",
        purpose: "Which share of the endpoints may be left out at the same time. When all would be, none is.",
        example: "30%",
    },
    scope: Scope::Port(|port| format!("{}%", port.policy.eject.most_percent)),
    parse: |text| match text.strip_suffix('%').map(str::parse) {
        Some(Ok(percent @ 0..=100)) if !text.starts_with('+') => Ok(percent),
        _ => Err(BadValue::expected(SHARE)),
    },
    unsupported: |_| None,
};
