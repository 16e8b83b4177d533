//! Addresses that are left out of endpoints, whatever an EndpointSlice says.
//!
//! Who may write a slice decides where proxies dial. The mesh's own addresses would make a circle; unspecified,
//! link-local, multicast and loopback ones lead to the proxy itself or to its node; and an operator may deny ranges, such
//! as that of the API server.

use std::net::{IpAddr, SocketAddr};

use ahash::AHashSet;
use ipnet::IpNet;
use maesh_config::undialable;

use crate::{
    compile::{Addressing, Config, ConnectedProxy},
    facts::{Fact, View},
    kinds::{EndpointSlice, SliceEndpoint},
    step::Step,
};

/// Which addresses are left out.
#[derive(Debug)]
pub(crate) struct Forbidden {
    /// Loopback is an ordinary address: the objects are manifests of this machine, as for `maesh dev`.
    loopback: bool,
    /// The range of own addresses.
    range: Option<IpNet>,
    /// Ranges that the settings deny.
    denied: Vec<IpNet>,
    /// Where this process listens itself.
    listeners: Vec<SocketAddr>,
    /// Addresses of the mesh's proxies, pods and Services, but for those of nodes.
    mesh: AHashSet<IpAddr>,
}

impl Forbidden {
    pub(crate) fn new(config: &Config) -> Self {
        let range = match &config.addressing {
            Addressing::Range(range) => Some(range.net()),
            Addressing::Cluster => None,
        };
        let denied = config.denied_endpoints.clone();
        let loopback = range.is_some() || config.selects_pods;
        let listeners = config.own_listeners.clone();
        Self { loopback, range, denied, listeners, mesh: AHashSet::new() }
    }

    /// What is wrong with `address` and `port` as an endpoint; `None` if nothing is.
    pub(crate) fn why(&self, address: IpAddr, port: u16, view: &View<'_>) -> Option<&'static str> {
        let address = address.to_canonical();
        if self.listens(address, port) {
            return Some("of this maesh dev itself");
        }
        let class = undialable(address, self.loopback);
        class.or_else(|| {
            view.note(Fact::mesh_address(address));
            let of_mesh = self.mesh.contains(&address) || self.range.is_some_and(|range| range.contains(&address));
            let denied = || self.denied.iter().any(|net| net.contains(&address));
            if of_mesh { Some("of the mesh itself") } else { denied().then_some("in a denied range") }
        })
    }

    /// Whether this process listens there. One that listens on all addresses has all of loopback.
    fn listens(&self, address: IpAddr, port: u16) -> bool {
        let is_it = |own: IpAddr| own == address || (own.is_unspecified() && address.is_loopback());
        self.listeners.iter().any(|own| own.port() == port && is_it(own.ip().to_canonical()))
    }

    /// The endpoints of `slice` that are left out: how many, and the first one with what is wrong with it.
    pub(crate) fn in_slice(&self, slice: &EndpointSlice, view: &View<'_>) -> Option<(usize, String, &'static str)> {
        let bad = |it: &SliceEndpoint| {
            if let Some(why) = self.why(it.address, 0, view) {
                return Some((it.address.to_string(), why));
            }
            let port = slice.ports.iter().find(|port| self.listens(it.address.to_canonical(), port.number))?;
            let at = SocketAddr::new(it.address, port.number);
            Some((at.to_string(), self.why(it.address, port.number, view)?))
        };
        let mut bad = slice.endpoints.iter().filter_map(bad);
        let (endpoint, why) = bad.next()?;
        Some((1 + bad.count(), endpoint, why))
    }

    /// Learns which addresses are the mesh's own.
    pub(crate) fn learn(&mut self, proxies: &[ConnectedProxy], step: &mut Step<'_>) {
        let now = mesh_addresses(proxies, step);
        for address in self.mesh.symmetric_difference(&now) {
            step.changed(Fact::mesh_address(*address));
        }
        self.mesh = now;
    }
}

/// Addresses of the proxies that are connected, and of the pods and Services of the mesh's namespace.
fn mesh_addresses(proxies: &[ConnectedProxy], step: &Step<'_>) -> AHashSet<IpAddr> {
    let namespace = &step.config.mesh_namespace;
    let pods = step.view.pods_of(namespace).filter(|pod| !pod.host_network && !pod.ended);
    let of_pods = pods.flat_map(|pod| pod.addresses.iter().copied());
    let of_services = step.view.services_of(namespace).flat_map(|service| service.cluster_ips.iter().copied());
    let of_proxies = proxies.iter().flat_map(|proxy| proxy.addresses.iter().copied());
    let all = of_pods.chain(of_services).chain(of_proxies).map(|address| address.to_canonical());
    // A node has other pods, too.
    all.filter(|address| step.view.nodes_at(*address).next().is_none()).collect()
}
