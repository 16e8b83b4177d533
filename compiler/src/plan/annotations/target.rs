//! Other Services that requests are sent to: where nothing else is usable, or beside.

use std::fmt;

use maesh_config::{
    ServiceName,
    model::Protocol,
    policy::{Hedge, Percent, ServiceRef},
};

use super::{About, Annotation, BadValue, Scope, Side};

const SERVICE: &str = "SERVICE, SERVICE.NAMESPACE, or either with :PORT";
const MIRROR: &str = "a Service such as shadow.test:8080, or that and a share such as shadow.test:8080 10%";
const HEDGE: &str = "a time such as 50ms, or p50 to p99";

/// A Service as an annotation names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) service: String,
    /// `None`: that of the Service with the annotation.
    pub(crate) namespace: Option<String>,
    /// `None`: the number of the port with the annotation.
    pub(crate) port: Option<u16>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.service)?;
        self.namespace.iter().try_for_each(|namespace| write!(f, ".{namespace}"))?;
        self.port.iter().try_for_each(|port| write!(f, ":{port}"))
    }
}

impl Target {
    /// Reads `service[.namespace][:port]`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let port = match port {
            Some(port) => Some(port.parse().ok().filter(|number: &u16| digits(port) && *number > 0)?),
            None => None,
        };
        let (service, namespace) = name.split_once('.').map_or((name, None), |(name, space)| (name, Some(space)));
        let names = std::iter::once(service).chain(namespace).all(is_label);
        names.then(|| Self { service: service.into(), namespace: namespace.map(Into::into), port })
    }

    /// What it is for a port of `service` with this number.
    pub(crate) fn seen_from(&self, service: &ServiceName, number: u16) -> ServiceRef {
        let namespace = self.namespace.as_deref().unwrap_or(&service.namespace);
        ServiceRef { service: ServiceName::new(namespace, self.service.as_str()), port: self.port.unwrap_or(number) }
    }
}

/// A name as Kubernetes gives them to Services and Namespaces (RFC 1123).
fn is_label(text: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| is_char(byte) || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn shown(to: Option<&ServiceRef>) -> String {
    to.map_or_else(|| "none".into(), |to| format!("{}.{}:{}", to.service.name, to.service.namespace, to.port))
}

/// Where requests go while no endpoint can be used.
pub(crate) static FALLBACK: Annotation<Target> = Annotation {
    about: About {
        name: "fallback",
        side: Side::Backend,
        on_namespace: false,
        protocols: &[Protocol::Http, Protocol::Tcp],
        values: SERVICE,
        default: "none",
        purpose: "The Service that gets the requests while none of the Service's own endpoints can be used or connected to. \
                  Without a namespace it is of the same one; without a port it is the port of the same number. The \
                  fallback of a fallback is not used.",
        example: "web-static.shop:8080",
    },
    scope: Scope::Port(|port| shown(port.policy.fallback.as_ref())),
    parse: |text| Target::parse(text).ok_or(BadValue::expected(SERVICE)),
    unsupported: |_| None,
};

/// Where copies of requests go.
pub(crate) static MIRROR_TO: Annotation<(Target, Percent)> = Annotation {
    about: About {
        name: "mirror",
        side: Side::Called,
        on_namespace: false,
        protocols: &[Protocol::Http],
        values: MIRROR,
        default: "none",
        purpose: "The Service that gets a copy of the requests, or of a share of them. What it answers is dropped, and the \
                  caller never waits for it. Bodies above 64 KiB are not copied.",
        example: "web-next.shop 10%",
    },
    scope: Scope::Port(|port| match &port.called.mirror {
        Some(mirror) => format!("{} {}", shown(Some(&mirror.to)), mirror.share),
        None => "none".into(),
    }),
    parse: |text| mirror(text).ok_or(BadValue::expected(MIRROR)),
    unsupported: |_| None,
};

fn mirror(text: &str) -> Option<(Target, Percent)> {
    match text.split_once(char::is_whitespace) {
        Some((to, share)) => Some((Target::parse(to)?, share.trim().parse().ok()?)),
        None => Some((Target::parse(text)?, Percent::ALL)),
    }
}

/// When a second try begins.
pub(crate) static HEDGE_AFTER: Annotation<Hedge> = Annotation {
    about: About {
        name: "hedge-after",
        side: Side::Called,
        on_namespace: false,
        protocols: &[Protocol::Http],
        values: HEDGE,
        default: "none",
        purpose: "When no response has begun after this time, the request is sent to a second endpoint as well, and the \
                  response that begins first is used. `p95`: after the time in which 95 of 100 recent responses began. \
                  Only for idempotent methods, and within `retry-budget`.",
        example: "p95",
    },
    scope: Scope::Port(|port| port.called.hedge.map_or_else(|| "none".into(), |hedge| hedge.to_string())),
    parse: |text| text.parse().map_err(|_| BadValue::expected(HEDGE)),
    unsupported: |_| None,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let own = ServiceName::new("shop", "web");
        for (text, want) in [
            ("api", Some("shop/api:80")),
            ("api.test", Some("test/api:80")),
            ("api.test:8080", Some("test/api:8080")),
            ("api:1", Some("shop/api:1")),
            ("", None),
            ("api:", None),
            ("api:0", None),
            ("api:65536", None),
            ("api:+1", None),
            ("api.", None),
            (".test", None),
            ("api.test.svc", None),
            ("API", None),
            ("-a", None),
        ] {
            let seen = Target::parse(text).map(|target| target.seen_from(&own, 80));
            assert_eq!(seen.map(|to| format!("{}:{}", to.service, to.port)).as_deref(), want, "{text:?}");
        }
    }

    #[test]
    fn mirrors() {
        for (text, want) in [
            ("api", Some("100%")),
            ("api.test:8080 10%", Some("10%")),
            ("api  0.5%", Some("0.5%")),
            ("api 10", None),
            ("api 10% x", None),
            ("10%", None),
        ] {
            assert_eq!(mirror(text).map(|(_, share)| share.to_string()).as_deref(), want, "{text:?}");
        }
    }
}
