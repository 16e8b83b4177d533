//! Addresses that are left out of endpoints, whatever an EndpointSlice says.
//!
//! Who may write a slice decides where proxies dial. The mesh's own addresses would make a circle; unspecified,
//! link-local, multicast and loopback ones lead to the proxy itself or to its node; an operator may deny ranges, such as
//! that of the API server; and pods of another namespace are not a Service's to give away, unless their Namespace allows it.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ahash::AHashSet;
use ipnet::IpNet;
use maesh_config::undialable;

use super::{annotations::foreign::AllowedNamespaces, workload};
use crate::{
    compile::{Addressing, Config, ConnectedProxy},
    facts::{Fact, View},
    kinds::{EndpointSlice, PREFIX, SliceEndpoint},
    step::Step,
};

/// Why an address is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// No pod can be there: it is an address of this class, such as `link-local`.
    OfClass(&'static str),
    /// The mesh itself is there, or the settings deny it: what address it is.
    Undialable(&'static str),
    /// A pod of another namespace has it.
    Foreign {
        /// The pod's namespace.
        owner: Arc<str>,
        /// That of the Service.
        service: Arc<str>,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // On the machine of a developer, that is where the endpoints are.
            Self::OfClass(class @ "loopback") => write!(
                f,
                "it is a {class} address, to which proxies in a cluster do not connect. Give the addresses of pods. \
                 `maesh dev` connects to such endpoints: for it alone, this is right."
            ),
            Self::OfClass(class) => {
                let article = if class.starts_with('u') { "an" } else { "a" };
                write!(
                    f,
                    "it is {article} {class} address, to which proxies do not connect. Give the addresses of pods."
                )
            }
            Self::Undialable(what) => {
                write!(f, "it is an address {what}, to which proxies do not connect. Give the addresses of pods.")
            }
            Self::Foreign { owner, service } => write!(
                f,
                "it is an address of a pod in namespace {owner}. Give the addresses of pods in namespace {service}, or \
                 annotate namespace {owner} with {PREFIX}endpoints-for: {service}."
            ),
        }
    }
}

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

    /// What is wrong with `address` and `port` as an endpoint of a Service of this namespace; `None` if nothing is.
    pub(crate) fn why(&self, address: IpAddr, port: u16, service: &Arc<str>, view: &View<'_>) -> Option<Why> {
        let address = address.to_canonical();
        if self.listens(address, port) {
            return Some(Why::Undialable("of this maesh dev itself"));
        }
        if let Some(class) = undialable(address, self.loopback) {
            return Some(Why::OfClass(class));
        }
        view.note(Fact::mesh_address(address));
        if self.mesh.contains(&address) || self.range.is_some_and(|range| range.contains(&address)) {
            return Some(Why::Undialable("of the mesh itself"));
        }
        if self.denied.iter().any(|net| net.contains(&address)) {
            return Some(Why::Undialable("in a denied range"));
        }
        // Manifests of one machine may give pods of several namespaces one address, and so do pods that come and go: one of them is
        // enough, whichever of them was heard of first.
        let mut first: Option<&Arc<str>> = None;
        for owner in workload::alive_at(view, address).map(|pod| &pod.meta.namespace) {
            let allows = || view.namespace(owner).is_some_and(|owner| AllowedNamespaces::allow(owner, service));
            if owner == service || allows() {
                return None;
            }
            first = Some(first.map_or(owner, |first| first.min(owner)));
        }
        first.map(|owner| Why::Foreign { owner: owner.clone(), service: service.clone() })
    }

    /// Whether this process listens there. One that listens on all addresses has all of loopback.
    fn listens(&self, address: IpAddr, port: u16) -> bool {
        let is_it = |own: IpAddr| own == address || (own.is_unspecified() && address.is_loopback());
        self.listeners.iter().any(|own| own.port() == port && is_it(own.ip().to_canonical()))
    }

    /// The endpoints of `slice` that are left out: how many, and the first one with what is wrong with it.
    pub(crate) fn in_slice(&self, slice: &EndpointSlice, view: &View<'_>) -> Option<(usize, String, Why)> {
        let service = &slice.meta.namespace;
        let bad = |it: &SliceEndpoint| {
            if let Some(why) = self.why(it.address, 0, service, view) {
                return Some((it.address.to_string(), why));
            }
            let port = slice.ports.iter().find(|port| self.listens(it.address.to_canonical(), port.number))?;
            let at = SocketAddr::new(it.address, port.number);
            Some((at.to_string(), self.why(it.address, port.number, service, view)?))
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
