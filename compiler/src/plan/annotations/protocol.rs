//! What a port carries, and what its endpoints are spoken to in.

use maesh_config::model::{Protocol, Scheme};

use super::{About, Annotation, BadValue, Scope, Side};

const PROTOCOLS: &str = "http, tcp or udp";
const SCHEMES: &str = "http, https or h2c";

/// What a port carries.
pub(crate) static TRAFFIC_TYPE: Annotation<Protocol> = Annotation {
    about: About {
        name: "traffic-type",
        side: Side::Called,
        on_namespace: true,
        protocols: &[Protocol::Http, Protocol::Tcp, Protocol::Udp],
        values: PROTOCOLS,
        default: "what appProtocol or the mesh's default says",
        purpose: "What a port carries. `udp` is for ports whose protocol is UDP, and they carry nothing else.",
        example: "tcp",
    },
    scope: Scope::Port(|port| port.protocol.to_string()),
    parse: |text| match text {
        "http" => Ok(Protocol::Http),
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(BadValue::expected(PROTOCOLS)),
    },
    unsupported: |_| None,
};

/// What endpoints are spoken to in.
pub(crate) static SCHEME: Annotation<Scheme> = Annotation {
    about: About {
        name: "scheme",
        side: Side::Backend,
        on_namespace: false,
        protocols: &[Protocol::Http],
        values: SCHEMES,
        default: "http, or h2c where appProtocol says so",
        purpose: "What endpoints of an HTTP port are spoken to in: HTTP/1.1 (`http`), HTTP/2 without TLS (`h2c`), or TLS \
                  (`https`), where each endpoint chooses HTTP/2 or HTTP/1.1 by ALPN and its certificate is verified: \
                  see `tls-server-name` and `tls-ca`.",
        example: "h2c",
    },
    scope: Scope::Port(|port| port.policy.scheme.to_string()),
    parse: |text| match text {
        "http" => Ok(Scheme::Http),
        "https" => Ok(Scheme::Https),
        "h2c" => Ok(Scheme::H2c),
        _ => Err(BadValue::expected(SCHEMES)),
    },
    unsupported: |_| None,
};
