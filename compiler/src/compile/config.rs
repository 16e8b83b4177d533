//! What the compiler is told at start.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use maesh_config::{
    ServiceName, Zone,
    model::{AccessControl, AccessSource, Protocol},
};

use super::Addressing;
use crate::own_address::POOL;

/// Ports of the proxies that the Services of one namespace may take by default: an eighteenth of those that there are for
/// own addresses.
pub const PORTS_PER_NAMESPACE: usize = 1_000;

/// What the compiler is told at start.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Zones answered; the first one is the mesh's own.
    pub zones: Vec<Zone>,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// What a TCP port carries when nothing says so.
    pub default_protocol: Protocol,
    /// Mesh only Services that carry an annotation of the mesh's.
    pub require_annotation: bool,
    /// Mesh only Services in these namespaces; empty for all.
    pub watched_namespaces: Vec<Arc<str>>,
    /// Leave the Services in these namespaces alone, besides the mesh's own: kube-system.
    pub ignored_namespaces: Vec<Arc<str>>,
    /// Leave these Services alone.
    pub ignored_services: Vec<ServiceName>,
    /// Where names lead.
    pub addressing: Addressing,
    /// In a cluster, names of Services that share an address answer one address for everybody, the Service
    /// `maesh-shared`, unless an annotation says otherwise: addressing mode `service`.
    pub one_address: bool,
    /// The mesh's own namespace: never meshed, and where own addresses of a cluster are Services.
    pub mesh_namespace: Arc<str>,
    /// How long callers may remember an answer: what a Service leaves, a protocol or the shared address, serves on for
    /// that long. Zero where nobody remembers.
    pub horizon: Duration,
    /// How long the EndpointSlices of an own address must have led to a ready proxy before its name answers it.
    pub own_settle: Duration,
    /// Ports below cannot be bound; 0 or 1 when all can.
    pub first_bindable_port: u16,
    /// Most ports of the proxies that the Services of one namespace may take.
    pub ports_per_namespace: usize,
    /// Ranges of addresses that are no endpoint of any Service.
    pub denied_endpoints: Vec<IpNet>,
    /// Where the process of the mesh listens itself, where all of it is one: no endpoint of any Service.
    pub own_listeners: Vec<SocketAddr>,
    /// Ports that the proxy itself needs on its shared address.
    pub reserved_ports: Vec<u16>,
    /// A Service without EndpointSlices has the pods it selects as endpoints: no control plane writes slices.
    pub selects_pods: bool,
    /// ConfigMaps are read once a Service names them, and are unknown until then; else all there are have been read.
    pub config_maps_on_demand: bool,
    /// Without any ready proxy, names answer the plain addresses.
    pub fail_to_plain: bool,
    /// The global switch: every name answers the plain addresses.
    pub bypass: bool,
    /// What becomes of a caller that no TrafficTarget admits.
    pub access_control: AccessControl,
    /// Callers that are no pods, and who they count as there.
    pub access_sources: Vec<AccessSource>,
    /// The Service whose endpoints are the replicas of this controller.
    pub replicas: Option<ServiceName>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            zones: ["maesh", "traefik.mesh"].iter().filter_map(|zone| zone.parse().ok()).collect(),
            cluster_domain: "cluster.local".into(),
            default_protocol: Protocol::Http,
            require_annotation: false,
            watched_namespaces: Vec::new(),
            ignored_namespaces: vec!["kube-system".into()],
            ignored_services: vec![ServiceName::new("default", "kubernetes")],
            addressing: Addressing::Cluster,
            one_address: false,
            mesh_namespace: "maesh".into(),
            horizon: Duration::ZERO,
            own_settle: Duration::ZERO,
            first_bindable_port: 0,
            ports_per_namespace: PORTS_PER_NAMESPACE,
            denied_endpoints: Vec::new(),
            own_listeners: Vec::new(),
            reserved_ports: Vec::new(),
            selects_pods: false,
            config_maps_on_demand: false,
            fail_to_plain: true,
            bypass: false,
            access_control: AccessControl::Off,
            access_sources: Vec::new(),
            replicas: None,
        }
    }
}

impl Config {
    /// What the name of a Service answers that no proxy serves, in words.
    pub(crate) fn unserved(&self) -> &'static str {
        match self.fail_to_plain && !self.access_control.denies() {
            true => "its ClusterIP or endpoint addresses",
            false => "nothing",
        }
    }

    /// Whether a port is one of the proxies' own on the shared address.
    pub(crate) fn reserves(&self, port: u16) -> bool {
        self.reserved_ports.contains(&port) || (self.addressing == Addressing::Cluster && POOL.contains(&port))
    }

    pub(crate) fn ignores(&self, namespace: &str, name: &str) -> bool {
        *self.mesh_namespace == *namespace
            || self.ignored_namespaces.iter().any(|ignored| **ignored == *namespace)
            || self.ignored_services.iter().any(|s| *s.namespace == *namespace && *s.name == *name)
            || !(self.watched_namespaces.is_empty() || self.watched_namespaces.iter().any(|w| **w == *namespace))
    }
}
