use std::{net::SocketAddr, sync::Arc};

use serde::Serialize;

use super::{AccountAccess, Protocol};
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
    /// Who may reach them, by the ServiceAccount that they belong to; sorted by that. Nobody else, where access control is on;
    /// empty where it is off.
    pub access: Vec<AccountAccess>,
    /// They were compiled while access control is off, so `access` says nothing. Who turns it on tells that in another message
    /// than the grants: a proxy that hears of it first denies nobody for want of what is on its way.
    pub open: bool,
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
    /// Place in `access` of the ServiceAccount that it belongs to; `None` where no pod has its address, or access control is
    /// off.
    pub account: Option<u16>,
    /// Whose callers should use it, if the slice says so.
    pub hints: Option<Box<EndpointHints>>,
}

/// Whose callers should use an endpoint, as its EndpointSlice hints. One of the lists has an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct EndpointHints {
    /// Those in these zones; empty for everybody. Sorted.
    pub zones: Vec<Arc<str>>,
    /// Those on these nodes; empty for everybody. Sorted.
    pub nodes: Vec<NodeName>,
}

impl EndpointHints {
    /// Hints to these zones and nodes; `None` if there are neither.
    pub fn new(zones: Vec<Arc<str>>, nodes: Vec<NodeName>) -> Option<Box<Self>> {
        (!zones.is_empty() || !nodes.is_empty()).then(|| Box::new(Self { zones, nodes }))
    }
}

impl Endpoint {
    /// Zones whose callers should use it; empty for everybody.
    pub fn for_zones(&self) -> &[Arc<str>] {
        self.hints.as_ref().map_or(&[], |hints| &hints.zones)
    }

    /// Nodes whose callers should use it; empty for everybody.
    pub fn for_nodes(&self) -> &[NodeName] {
        self.hints.as_ref().map_or(&[], |hints| &hints.nodes)
    }
}
