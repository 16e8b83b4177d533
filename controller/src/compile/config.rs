//! What the compiler is told at start.

use std::sync::Arc;

use maesh_config::{ServiceName, Zone, model::Protocol};

use super::Addressing;

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
    /// Leave the Services in these namespaces alone: kube-system, the mesh's own.
    pub ignored_namespaces: Vec<Arc<str>>,
    /// Leave these Services alone.
    pub ignored_services: Vec<ServiceName>,
    /// Where names lead.
    pub addressing: Addressing,
    /// Ports below cannot be bound; 0 or 1 when all can.
    pub first_bindable_port: u16,
    /// Ports that the proxy itself needs on its shared address.
    pub reserved_ports: Vec<u16>,
    /// A Service without EndpointSlices has the pods it selects as endpoints: no control plane writes slices.
    pub selects_pods: bool,
    /// Without any ready proxy, names answer the plain addresses.
    pub fail_to_plain: bool,
    /// The global switch: every name answers the plain addresses.
    pub bypass: bool,
    /// Access control is enforced.
    pub access_control: bool,
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
            first_bindable_port: 0,
            reserved_ports: Vec::new(),
            selects_pods: false,
            fail_to_plain: true,
            bypass: false,
            access_control: false,
            replicas: None,
        }
    }
}

impl Config {
    pub(super) fn ignores(&self, namespace: &str, name: &str) -> bool {
        self.ignored_namespaces.iter().any(|ignored| **ignored == *namespace)
            || self.ignored_services.iter().any(|s| *s.namespace == *namespace && *s.name == *name)
            || !(self.watched_namespaces.is_empty() || self.watched_namespaces.iter().any(|w| **w == *namespace))
    }
}
