//! The model: seven kinds of small resources that change independently of each other.
//!
//! A resource names everything it depends on, never contains it: a pod that moves changes one [`Endpoints`] and one
//! [`Workload`], and no route. Lists are kept sorted by the compiler, so equal configuration has equal bytes.

mod access;
mod endpoints;
mod listener;
mod listener_set;
mod mesh;
mod names;
mod proxy;
mod service;
mod workload;

use std::{fmt, sync::Arc};

pub use access::{Account, AccountAccess, Grant};
pub use endpoints::{Endpoint, EndpointHints, Endpoints, PortEndpoints};
pub use listener::{Bind, Claim, Listener, ListenerId};
pub use listener_set::ListenerSet;
pub use mesh::{AccessControl, AccessSource, Mesh};
pub use names::{Answer, Name, NamePort};
pub use proxy::Proxy;
use serde::Serialize;
pub use service::{Backend, Route, Service, ServicePort};
pub use workload::{Workload, WorkloadKind};

use crate::ServiceName;
pub use crate::policy::{BackendPolicy, Balance, CalledPolicy, Scheme};

/// What a meshed port carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1, HTTP/2, gRPC, WebSocket: routed by what the request says.
    Http,
    /// An opaque stream of bytes.
    Tcp,
    /// Datagrams, kept together by the caller's address.
    Udp,
}

impl Protocol {
    /// The transport below it.
    pub fn transport(self) -> Transport {
        match self {
            Self::Http | Self::Tcp => Transport::Tcp,
            Self::Udp => Transport::Udp,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// The transport protocol of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

/// The kinds of resources, each a type of the discovery stream with its own subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// [`Mesh`]: one resource, what holds for everybody.
    Mesh,
    /// [`Name`]
    Name,
    /// [`Listener`]
    Listener,
    /// [`Service`]
    Service,
    /// [`Endpoints`]
    Endpoints,
    /// [`Workload`]
    Workload,
    /// [`Proxy`]
    Proxy,
}

impl Kind {
    /// Every kind, in the order in which a subscriber should apply them.
    pub const ALL: [Self; 7] =
        [Self::Mesh, Self::Proxy, Self::Workload, Self::Endpoints, Self::Service, Self::Listener, Self::Name];
}

/// Identifies a resource: kind and name. The name's form depends on the kind; see [`Resource::key`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Key {
    /// Kind of the resource.
    pub kind: Kind,
    /// Its name, unique within the kind.
    pub name: Arc<str>,
}

impl Key {
    /// The key of a resource that belongs to one Service: its [`Name`], [`Service`] or [`Endpoints`].
    pub fn of_service(kind: Kind, service: &ServiceName) -> Self {
        Self { kind, name: service.to_string().into() }
    }
}

/// One unit of the discovery stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// What holds for everybody.
    Mesh(Mesh),
    /// DNS facts of one Service.
    Name(Name),
    /// One port on which proxies listen.
    Listener(Listener),
    /// Routes and policies of one Service.
    Service(Service),
    /// Endpoints of one Service.
    Endpoints(Endpoints),
    /// What is known of an address.
    Workload(Workload),
    /// One node proxy.
    Proxy(Proxy),
}

impl Resource {
    /// Kind and name: `mesh`; `namespace/name` for name, service, endpoints; the listener's id; the workload's
    /// address or prefix; the proxy's id.
    pub fn key(&self) -> Key {
        let name: Arc<str> = match self {
            Self::Mesh(_) => "mesh".into(),
            Self::Name(name) => name.service.to_string().into(),
            Self::Listener(listener) => listener.id.0.clone(),
            Self::Service(service) => service.name.to_string().into(),
            Self::Endpoints(endpoints) => endpoints.service.to_string().into(),
            Self::Workload(workload) => workload.resource_name(),
            Self::Proxy(proxy) => proxy.id.clone(),
        };
        Key { kind: self.kind(), name }
    }

    /// Kind of this resource.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Mesh(_) => Kind::Mesh,
            Self::Name(_) => Kind::Name,
            Self::Listener(_) => Kind::Listener,
            Self::Service(_) => Kind::Service,
            Self::Endpoints(_) => Kind::Endpoints,
            Self::Workload(_) => Kind::Workload,
            Self::Proxy(_) => Kind::Proxy,
        }
    }
}

/// A difference between two compiled states, as the compiler hands it to the discovery server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Resources that are new or differ.
    pub upserts: Vec<Resource>,
    /// Resources that are gone.
    pub removed: Vec<Key>,
}

impl Change {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removed.is_empty()
    }
}
