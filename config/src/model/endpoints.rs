use std::{net::SocketAddr, sync::Arc};

use serde::Serialize;

use super::Protocol;
use crate::{NodeName, ServiceName};

/// Endpoints of one Service, for all of its meshed ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Endpoints {
    /// The Service.
    pub service: ServiceName,
    /// By port, sorted by number, then protocol.
    pub ports: Vec<PortEndpoints>,
}

/// Endpoints behind one port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct PortEndpoints {
    /// The Service's port number.
    pub number: u16,
    /// What it carries.
    pub protocol: Protocol,
    /// Sorted by address, each address once.
    pub endpoints: Vec<Endpoint>,
}

/// One address and target port, with the conditions of its EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Endpoint {
    /// Address and target port.
    pub address: SocketAddr,
    /// Accepts new work and is not going away (or the Service publishes addresses that are not ready).
    pub ready: bool,
    /// Still answers, although it may be going away: used while no endpoint is ready.
    pub serving: bool,
    /// Its pod is being deleted.
    pub terminating: bool,
    /// Node it runs on.
    pub node: Option<NodeName>,
    /// Zones whose callers should use it, by the slice's hints; empty for everybody. Sorted.
    pub for_zones: Vec<Arc<str>>,
    /// Nodes whose callers should use it, by the slice's hints; empty for everybody. Sorted.
    pub for_nodes: Vec<NodeName>,
}
