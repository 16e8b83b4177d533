//! The objects that the mesh reads, reduced to what it needs of them.
//!
//! Objects are cut down at the door: a cluster of 10,000 Services must fit into little memory, so nothing keeps managed
//! fields, foreign annotations or labels that nobody looks at, and strings that repeat are shared. Reading is tolerant:
//! fields newer than us are skipped, and a value that cannot be
//! used is named and left out, alone.

mod configmap;
mod core;
mod endpointslice;
mod read;
mod smi;

use std::{fmt, sync::Arc};

pub use self::{
    configmap::{BadCa, CA_KEY, ConfigMap},
    core::{
        Annotations, ContainerPort, Labels, NODE_ZONE, Namespace, Node, Number, Pod, Service, ServicePort, Transport,
    },
    endpointslice::{EndpointSlice, SliceEndpoint, SlicePort},
    read::{BadField, BadValues, Names},
    smi::{HttpRouteGroup, HttpRouteMatch, PortRoute, RuleKind, SplitBackend, TargetRule, TrafficSplit, TrafficTarget},
};
use jiff::Timestamp;
use maesh_config::intern::Interner;
use serde_json::Value;

/// Prefix of the mesh's annotations.
pub const PREFIX: &str = "maesh.containo.us/";
/// The prefix of Traefik Mesh, read where ours is absent.
pub const OLD_PREFIX: &str = "mesh.traefik.io/";
/// Label of the Services that are own addresses.
pub const OWN_ADDRESS: &str = "maesh.containo.us/own-address";
/// Annotation on these: whose each port is.
pub const OWN_PORTS: &str = "maesh.containo.us/own-ports";

/// The kinds that are read. What is said of each is its [`Registration`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// A namespace: defaults for its Services.
    Namespace,
    /// A node: its addresses and its range of pod addresses.
    Node,
    /// A ServiceAccount: an identity.
    ServiceAccount,
    /// A pod: whose address it is.
    Pod,
    /// A Service.
    Service,
    /// A part of a Service's endpoints.
    EndpointSlice,
    /// Certificate authorities, where a Service names it.
    ConfigMap,
    /// What requests can be, of SMI.
    HttpRouteGroup,
    /// Shares of a Service's traffic, of SMI.
    TrafficSplit,
    /// Ports of TCP, of SMI.
    TcpRoute,
    /// Ports of UDP, of SMI.
    UdpRoute,
    /// Who may call whom, of SMI.
    TrafficTarget,
}

/// What is said once of a kind. Group and name together identify it: two groups may have kinds of one name.
///
/// Which facts its objects yield is said where the index takes them in.
#[derive(Clone, Copy, Debug)]
pub struct Registration {
    /// The kind as which its objects are taken in.
    pub kind: ObjectKind,
    /// Its API group; empty for the core group.
    pub group: &'static str,
    /// Its name in a manifest.
    pub name: &'static str,
    /// Its name in paths of the API.
    pub plural: &'static str,
    /// The versions that can be read, the best one first. At least one.
    pub versions: &'static [&'static str],
    /// Whether its objects live in a namespace.
    pub namespaced: bool,
    /// Whether every cluster serves it. Another one may be absent, appear, and vanish at any time.
    pub always_served: bool,
    /// Which names its objects can have.
    pub names: Names,
    /// Reads an object whose metadata is good, and notes the values in it that cannot be used.
    pub read: fn(Meta, &Value, &ReadContext, &mut BadValues) -> Result<Object, BadField>,
}

impl Registration {
    /// Reads an object of this kind from its JSON form. `metadata.namespace` is `default` when absent. With it come the
    /// values that cannot be used: each is left out, and the rest of the object stands.
    ///
    /// # Errors
    /// The first field that has the wrong type, or is missing although nothing works without it.
    pub fn read(&self, value: &Value, door: &ReadContext) -> Result<(Object, Vec<BadField>), BadField> {
        let mut bad = BadValues::default();
        let object = (self.read)(read::meta(self, value, door)?, value, door, &mut bad)?;
        Ok((object, bad.into_named()))
    }
}

impl ObjectKind {
    /// Every kind, in the order in which manifests are best applied.
    pub const ALL: [Self; 12] = [
        Self::Namespace,
        Self::Node,
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::HttpRouteGroup,
        Self::TcpRoute,
        Self::UdpRoute,
        Self::TrafficSplit,
        Self::TrafficTarget,
    ];

    /// What is said of the kind.
    pub fn registration(self) -> &'static Registration {
        match self {
            Self::Namespace => &Namespace::REGISTRATION,
            Self::Node => &Node::REGISTRATION,
            Self::ServiceAccount => &core::SERVICE_ACCOUNT,
            Self::Pod => &Pod::REGISTRATION,
            Self::Service => &Service::REGISTRATION,
            Self::EndpointSlice => &EndpointSlice::REGISTRATION,
            Self::ConfigMap => &ConfigMap::REGISTRATION,
            Self::HttpRouteGroup => &HttpRouteGroup::REGISTRATION,
            Self::TrafficSplit => &TrafficSplit::REGISTRATION,
            Self::TcpRoute => &smi::TCP_ROUTE,
            Self::UdpRoute => &smi::UDP_ROUTE,
            Self::TrafficTarget => &TrafficTarget::REGISTRATION,
        }
    }

    /// The kind's name in a manifest.
    pub fn as_str(self) -> &'static str {
        self.registration().name
    }

    /// The kind written as `kind` in the API group of `api_version`.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let is_it = |this: &Self| (this.registration().group, this.registration().name) == (group, kind);
        Self::ALL.into_iter().find(is_it)
    }

    /// Its API group; empty for the core group.
    pub fn group(self) -> &'static str {
        self.registration().group
    }

    /// Whether objects of this kind live in a namespace.
    pub fn namespaced(self) -> bool {
        self.registration().namespaced
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Identifies an object.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    /// Kind.
    pub kind: ObjectKind,
    /// Namespace; empty for kinds without.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectId {
    /// An identity from its parts.
    pub fn new(kind: ObjectKind, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where an object is written, for those that come from manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Path of the file, as it was found.
    pub file: Arc<str>,
    /// Where the object begins.
    pub place: Place,
    /// Where those of its fields begin that a diagnostic may be about, by path.
    pub fields: Vec<(Box<str>, Place)>,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Character in the line, from 1.
    pub column: u32,
}

impl Origin {
    /// Where `field` begins, or the nearest thing around it that is known.
    pub fn place_of(&self, field: &str) -> Place {
        let around =
            |known: &str| field.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        let best = self.fields.iter().filter(|(known, _)| around(known)).max_by_key(|(known, _)| known.len());
        best.map_or(self.place, |(_, place)| *place)
    }
}

/// What is kept of an object's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Namespace; empty for kinds without.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// When it was created; absent counts as oldest.
    pub created: Option<Timestamp>,
    /// Where it is written.
    pub origin: Option<Arc<Origin>>,
}

/// An object, in compact form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// [`Namespace`]
    Namespace(Namespace),
    /// [`Node`]
    Node(Node),
    /// Only that it exists.
    ServiceAccount(Meta),
    /// [`Pod`]
    Pod(Pod),
    /// [`Service`]
    Service(Service),
    /// [`EndpointSlice`]
    EndpointSlice(EndpointSlice),
    /// [`ConfigMap`]
    ConfigMap(ConfigMap),
    /// [`HttpRouteGroup`]
    HttpRouteGroup(HttpRouteGroup),
    /// [`TrafficSplit`]
    TrafficSplit(TrafficSplit),
    /// A [`PortRoute`] for TCP.
    TcpRoute(PortRoute),
    /// A [`PortRoute`] for UDP.
    UdpRoute(PortRoute),
    /// [`TrafficTarget`]
    TrafficTarget(TrafficTarget),
}

/// What is kept of objects that come in.
#[derive(Clone, Debug, Default)]
pub struct ReadContext {
    /// Shares strings that repeat.
    pub interner: Arc<Interner<str>>,
    /// Keep what is needed to select pods by labels: only where no control plane writes EndpointSlices.
    pub selects_pods: bool,
}

impl Object {
    /// As [`Registration::read`], without what is wrong inside the object.
    ///
    /// # Errors
    /// The first field that has the wrong type, or is missing although nothing works without it.
    pub fn read(kind: ObjectKind, value: &Value, door: &ReadContext) -> Result<Self, BadField> {
        kind.registration().read(value, door).map(|(object, _)| object)
    }

    /// Kind of this object.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Namespace(_) => ObjectKind::Namespace,
            Self::Node(_) => ObjectKind::Node,
            Self::ServiceAccount(_) => ObjectKind::ServiceAccount,
            Self::Pod(_) => ObjectKind::Pod,
            Self::Service(_) => ObjectKind::Service,
            Self::EndpointSlice(_) => ObjectKind::EndpointSlice,
            Self::ConfigMap(_) => ObjectKind::ConfigMap,
            Self::HttpRouteGroup(_) => ObjectKind::HttpRouteGroup,
            Self::TrafficSplit(_) => ObjectKind::TrafficSplit,
            Self::TcpRoute(_) => ObjectKind::TcpRoute,
            Self::UdpRoute(_) => ObjectKind::UdpRoute,
            Self::TrafficTarget(_) => ObjectKind::TrafficTarget,
        }
    }

    /// Its metadata.
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Namespace(Namespace { meta, .. })
            | Self::Node(Node { meta, .. })
            | Self::ServiceAccount(meta)
            | Self::Pod(Pod { meta, .. })
            | Self::Service(Service { meta, .. })
            | Self::EndpointSlice(EndpointSlice { meta, .. })
            | Self::ConfigMap(ConfigMap { meta, .. })
            | Self::HttpRouteGroup(HttpRouteGroup { meta, .. })
            | Self::TrafficSplit(TrafficSplit { meta, .. })
            | Self::TcpRoute(PortRoute { meta, .. })
            | Self::UdpRoute(PortRoute { meta, .. })
            | Self::TrafficTarget(TrafficTarget { meta, .. }) => meta,
        }
    }

    /// Its metadata, to be changed.
    pub fn meta_mut(&mut self) -> &mut Meta {
        match self {
            Self::Namespace(Namespace { meta, .. })
            | Self::Node(Node { meta, .. })
            | Self::ServiceAccount(meta)
            | Self::Pod(Pod { meta, .. })
            | Self::Service(Service { meta, .. })
            | Self::EndpointSlice(EndpointSlice { meta, .. })
            | Self::ConfigMap(ConfigMap { meta, .. })
            | Self::HttpRouteGroup(HttpRouteGroup { meta, .. })
            | Self::TrafficSplit(TrafficSplit { meta, .. })
            | Self::TcpRoute(PortRoute { meta, .. })
            | Self::UdpRoute(PortRoute { meta, .. })
            | Self::TrafficTarget(TrafficTarget { meta, .. }) => meta,
        }
    }

    /// Its identity.
    pub fn id(&self) -> ObjectId {
        let meta = self.meta();
        ObjectId { kind: self.kind(), namespace: meta.namespace.clone(), name: meta.name.clone() }
    }
}
