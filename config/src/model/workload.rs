use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::Serialize;

use crate::NodeName;

/// What is known of an address or a range of addresses: who it belongs to and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Workload {
    /// One address (a full-length prefix), or the pod range of a node.
    pub address: IpNet,
    /// What the address belongs to.
    pub kind: WorkloadKind,
    /// Namespace of the pod; `None` for nodes and ranges.
    pub namespace: Option<Arc<str>>,
    /// Name of the pod, or of the node.
    pub name: Arc<str>,
    /// ServiceAccount of the pod; `None` for nodes, ranges and pods of the host's network.
    pub service_account: Option<Arc<str>>,
    /// Node it runs on.
    pub node: Option<NodeName>,
    /// Zone of that node; only said of a node's own address, because whoever is on a node can ask for that.
    pub zone: Option<Arc<str>>,
}

/// What an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadKind {
    /// A pod with an address of its own.
    Pod,
    /// A pod of the cluster's DNS that serves callers of every node: its place says nothing of theirs.
    Resolver,
    /// A node's own address.
    Node,
    /// The range from which a node's pods get their addresses; says nothing of who they are.
    PodRange,
}

impl Workload {
    /// Name of its resource: the address alone, or the prefix of a range.
    pub fn resource_name(&self) -> Arc<str> {
        match self.kind {
            WorkloadKind::PodRange => self.address.to_string().into(),
            _ => Self::resource_name_of(self.address.addr()),
        }
    }

    /// Name of the resource that describes exactly `address`.
    pub fn resource_name_of(address: IpAddr) -> Arc<str> {
        address.to_canonical().to_string().into()
    }
}
