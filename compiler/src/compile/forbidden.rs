//! Addresses that are left out of endpoints, whatever an EndpointSlice says.
//!
//! Who may write a slice decides where proxies dial. The mesh's own addresses would make a circle; unspecified,
//! link-local, multicast and loopback ones lead to the proxy itself or to its node; and an operator may deny ranges, such
//! as that of the API server.

use std::net::IpAddr;

use ahash::AHashSet;
use ipnet::IpNet;
use maesh_config::undialable;

use super::{Addressing, Compiler, Config, ConnectedProxy};
use crate::{index::Index, kinds::EndpointSlice};

/// Which addresses are left out.
#[derive(Debug)]
pub(crate) struct Forbidden {
    /// Loopback is an ordinary address: the objects are manifests of this machine, as for `maesh dev`.
    loopback: bool,
    /// The range of own addresses.
    range: Option<IpNet>,
    /// Ranges that the settings deny.
    denied: Vec<IpNet>,
    /// Addresses of the mesh's proxies, pods and Services.
    mesh: AHashSet<IpAddr>,
    /// The same with those that a node has as well, which are not forbidden: it has other pods, too.
    shared_with_nodes: AHashSet<IpAddr>,
}

impl Forbidden {
    pub(super) fn new(config: &Config) -> Self {
        let range = match &config.addressing {
            Addressing::Range(range) => Some(range.net()),
            Addressing::Cluster => None,
        };
        let denied = config.denied_endpoints.clone();
        let loopback = range.is_some() || config.selects_pods;
        Self { loopback, range, denied, mesh: AHashSet::new(), shared_with_nodes: AHashSet::new() }
    }

    /// What is wrong with `address` as an endpoint; `None` if nothing is.
    pub(crate) fn why(&self, address: IpAddr) -> Option<&'static str> {
        let address = address.to_canonical();
        let class = undialable(address, self.loopback);
        class.or_else(|| {
            let of_mesh = self.mesh.contains(&address) || self.range.is_some_and(|range| range.contains(&address));
            let denied = || self.denied.iter().any(|net| net.contains(&address));
            if of_mesh { Some("of the mesh itself") } else { denied().then_some("in a denied range") }
        })
    }

    /// The endpoints of `slice` that are left out: how many, and the first one with what is wrong with it.
    pub(crate) fn in_slice(&self, slice: &EndpointSlice) -> Option<(usize, IpAddr, &'static str)> {
        let mut bad = slice.endpoints.iter().filter_map(|it| Some((it.address, self.why(it.address)?)));
        let (address, why) = bad.next()?;
        Some((1 + bad.count(), address, why))
    }
}

impl Compiler {
    /// Takes in which addresses are the mesh's own, and returns those of which that changed. `concerned` says whether
    /// anything happened by which it can.
    pub(super) fn learn_mesh_addresses(&mut self, concerned: bool) -> AHashSet<IpAddr> {
        if !concerned && !self.proxies_changed {
            return AHashSet::new();
        }
        let all = mesh_addresses(&self.index, &self.config.mesh_namespace, &self.proxies);
        let of_a_node = |address: &IpAddr| self.index.nodes_at(address).next().is_some();
        let (with_nodes, now): (Vec<_>, Vec<_>) = all.into_iter().partition(of_a_node);
        let now = AHashSet::from_iter(now);
        let changed = self.forbidden.mesh.symmetric_difference(&now).copied().collect();
        self.forbidden.mesh = now;
        self.forbidden.shared_with_nodes = AHashSet::from_iter(with_nodes);
        changed
    }

    /// Whether `address` is, or was, one of the mesh's pods.
    pub(super) fn is_of_mesh(&self, address: &IpAddr) -> bool {
        let is_it = || self.index.pods_at(address).any(|pod| pod.meta.namespace == self.config.mesh_namespace);
        let address = address.to_canonical();
        self.forbidden.mesh.contains(&address) || self.forbidden.shared_with_nodes.contains(&address) || is_it()
    }
}

/// Addresses of the proxies that are connected, and of the pods and Services of the mesh's namespace.
fn mesh_addresses(index: &Index, namespace: &str, proxies: &[ConnectedProxy]) -> AHashSet<IpAddr> {
    let pods = index.pods_in(namespace).filter(|pod| !pod.host_network && !pod.ended);
    let of_pods = pods.flat_map(|pod| pod.addresses.iter().copied());
    let of_services = index.services_in(namespace).flat_map(|service| service.cluster_ips.iter().copied());
    let of_proxies = proxies.iter().flat_map(|proxy| proxy.addresses.iter().copied());
    of_pods.chain(of_services).chain(of_proxies).map(|address| address.to_canonical()).collect()
}
