//! The units of compilation, and which facts they are born of.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use maesh_config::{ServiceName, model::ListenerId};

use super::{Addressing, Config};
use crate::{facts::Fact, index::Id, own_address};

/// Something that is compiled by itself. They run in this order, so that each runs once for most changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Unit {
    /// What an own address of a cluster says.
    OwnAddress(u32),
    /// Which addresses are the mesh's own.
    MeshAddresses,
    /// What a Service means by itself.
    Draft(ServiceName),
    /// Who has too many ports in a namespace.
    Limit(Arc<str>),
    /// What a Service means.
    Plan(ServiceName),
    /// Who gets which own address.
    OwnAddresses,
    /// Where port numbers of the shared address listen.
    SharedPorts,
    /// What a Service was and is no longer.
    Expiry(ServiceName),
    /// The listeners that a Service needs.
    Listeners(ServiceName),
    Endpoints(ServiceName),
    Proxies,
    Listener(ListenerId),
    Name(ServiceName),
    Mesh,
    Workload(IpAddr),
    Range(IpNet),
    /// What is wrong with a Namespace.
    Namespace(Arc<str>),
    /// What is odd about a slice.
    Slice(Id),
    /// What is wrong with a TrafficSplit by itself.
    Split(Id),
    /// What is wrong with a TrafficTarget.
    Target(Id),
}

impl Unit {
    /// The units that are named after `fact`. They run when it changes, whether or not they ever ran, and their reading it
    /// takes no edge in the graph.
    pub(super) fn of(fact: &Fact, config: &Config) -> Vec<Self> {
        let own_address = |name: &ServiceName| {
            let ours = config.addressing == Addressing::Cluster && name.namespace == config.mesh_namespace;
            own_address::number(&name.name).filter(|_| ours).map(Self::OwnAddress)
        };
        match fact {
            Fact::Service(name) => own_address(name).into_iter().chain([Self::Draft(name.clone())]).collect(),
            Fact::Slices(name) => own_address(name).into_iter().chain([Self::Endpoints(name.clone())]).collect(),
            Fact::Namespace(name) => vec![Self::Namespace(name.clone())],
            Fact::Slice(id) => vec![Self::Slice(id.clone())],
            Fact::Split(id) => vec![Self::Split(id.clone())],
            Fact::Target(id) => vec![Self::Target(id.clone())],
            Fact::Address(address) => vec![Self::Workload(*address)],
            Fact::Range(range) => vec![Self::Range(*range)],
            Fact::Needs(namespace) => vec![Self::Limit(namespace.clone())],
            Fact::OverLimit(name) => vec![Self::Draft(name.clone())],
            Fact::Draft(name) => vec![Self::Plan(name.clone())],
            Fact::Plan(name) => {
                vec![Self::Listeners(name.clone()), Self::Endpoints(name.clone()), Self::Name(name.clone())]
            }
            Fact::Owning => vec![Self::OwnAddresses],
            Fact::Sharing => vec![Self::SharedPorts],
            Fact::OwnAddress(name) => vec![Self::Listeners(name.clone())],
            Fact::Placement(name) if *name == own_address::everybody() => Vec::new(),
            Fact::Placement(name) => vec![Self::Listeners(name.clone()), Self::Name(name.clone())],
            Fact::Listener(id) => vec![Self::Listener(id.clone())],
            Fact::Listens(name) | Fact::Ready(name) => vec![Self::Name(name.clone())],
            Fact::Proxies => vec![Self::MeshAddresses, Self::Proxies],
            Fact::ServicesOf(_)
            | Fact::Pod(_)
            | Fact::ConfigMap(_)
            | Fact::Splits(_)
            | Fact::RouteGroup(_)
            | Fact::TcpRoute(_)
            | Fact::UdpRoute(_)
            | Fact::Targets(_)
            | Fact::PodsOf(_)
            | Fact::Labelled(..)
            | Fact::MeshAddress(_)
            | Fact::PoolExhausted
            | Fact::MovedPort(_)
            | Fact::Bound(_)
            | Fact::AnyoneReady
            | Fact::Settled
            | Fact::Bypass => Vec::new(),
        }
    }
}
