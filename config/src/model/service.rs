use std::{fmt, sync::Arc, time::Duration};

use serde::Serialize;

use super::Protocol;
use crate::ServiceName;

/// Routes and policies of one Service. Takes effect in a proxy once the endpoints of all its backends are there or
/// known absent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Service {
    /// The Service.
    pub name: ServiceName,
    /// Its meshed ports, sorted by number, then protocol.
    pub ports: Vec<ServicePort>,
}

impl Service {
    /// Every Service that a route of this one sends to, itself included, sorted and once each.
    pub fn backends(&self) -> Vec<ServiceName> {
        let routed = self.ports.iter().flat_map(|port| &port.routes).flat_map(|route| &route.backends);
        let mut all: Vec<_> = routed.map(|backend| backend.service.clone()).collect();
        all.push(self.name.clone());
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// One meshed port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ServicePort {
    /// The Service's port number.
    pub number: u16,
    /// The port's name, if it has one.
    pub name: Option<Arc<str>>,
    /// What it carries.
    pub protocol: Protocol,
    /// It is served in this way for callers who remember an answer of before, and not for much longer.
    pub leaving: bool,
    /// Routes in order of precedence; what none matches goes to the Service itself.
    pub routes: Vec<Route>,
    /// Policies that hold when this port is chosen as a backend.
    pub backend: BackendPolicy,
}

/// Where matching requests go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Route {
    /// Weighted backends; a share of the traffic each.
    pub backends: Vec<Backend>,
    /// A newer version says something of this route that must not be ignored, and that this version does not know: the
    /// number of the field. Requests are refused. Never set by the compiler, and not written to the wire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_understood: Option<u32>,
}

/// A port of a Service that a route sends to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Backend {
    /// The Service.
    pub service: ServiceName,
    /// Its port number.
    pub port: u16,
    /// Share of the traffic, relative to its siblings; 0 is never chosen.
    pub weight: u32,
}

/// How a chosen backend port is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct BackendPolicy {
    /// The protocol towards its endpoints.
    pub scheme: Scheme,
    /// How one of its endpoints is picked.
    pub balance: Balance,
    /// Only endpoints on the caller's node (`internalTrafficPolicy: Local`).
    pub local_only: bool,
    /// Longest time to establish a connection to an endpoint.
    pub connect_timeout: Duration,
    /// Longest silence on a stream (both directions), `None` for no limit.
    pub idle_timeout: Option<Duration>,
    /// Requests in flight for this port per proxy.
    pub concurrency: u32,
    /// As for a route: requests that would go to this port are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_understood: Option<u32>,
}

/// The protocol spoken to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// HTTP/1.1
    Http,
    /// HTTP over TLS.
    Https,
    /// HTTP/2 with prior knowledge.
    H2c,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
        })
    }
}

/// How an endpoint is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Balance {
    /// Power of two choices by peak EWMA.
    P2c,
    /// The same endpoint for the same caller address (`sessionAffinity: ClientIP`), forgotten after this idle time.
    SourceHash {
        /// Idle time after which a caller may go elsewhere.
        timeout: Duration,
    },
}
