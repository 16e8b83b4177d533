use std::sync::Arc;

use serde::Serialize;

use super::Protocol;
use crate::{
    ServiceName,
    policy::{BackendPolicy, CalledPolicy, ServiceRef},
    rule::Rule,
};

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
    /// Every Service that a route or a policy of this one sends to, itself included, sorted and once each.
    pub fn backends(&self) -> Vec<ServiceName> {
        let routed = self.ports.iter().flat_map(|port| &port.routes).flat_map(|route| &route.backends);
        let referred = self.ports.iter().flat_map(ServicePort::refers_to);
        let mut all: Vec<_> =
            routed.map(|backend| &backend.service).chain(referred.map(|to| &to.service)).cloned().collect();
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
    /// Policies for every request to this port.
    pub called: Arc<CalledPolicy>,
    /// Policies that hold when this port is chosen as a backend.
    pub backend: Arc<BackendPolicy>,
}

impl ServicePort {
    /// Ports of other Services that its policies send requests to.
    pub fn refers_to(&self) -> impl Iterator<Item = &ServiceRef> {
        self.called.refers_to().chain(&self.backend.fallback)
    }
}

/// Where matching requests go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Route {
    /// What a request or connection has to be; `None` is any.
    pub rule: Option<Rule>,
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
