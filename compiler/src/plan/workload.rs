//! Whose address it is.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use maesh_config::{
    NodeName,
    model::{Workload, WorkloadKind},
};

use crate::{
    facts::View,
    kinds::{Node, Pod},
};

/// What is known of one address. The pod that was created last has it, if several say so: addresses are used again.
pub(crate) fn of_address(view: &View<'_>, address: IpAddr) -> Option<Workload> {
    if let Some(pod) = newest_at(view, address) {
        return Some(of_pod(view, pod, address));
    }
    first(view.nodes_at(address)).map(|node| of_node(node, address.into(), WorkloadKind::Node))
}

/// The pods that have an address and share it with no node.
pub(crate) fn alive_at<'a>(view: &View<'a>, address: IpAddr) -> impl Iterator<Item = &'a Arc<Pod>> + use<'a> {
    view.pods_at(address).filter(|pod| !pod.ended && !pod.host_network)
}

fn newest_at<'a>(view: &View<'a>, address: IpAddr) -> Option<&'a Arc<Pod>> {
    alive_at(view, address).max_by(|a, b| {
        let key = |pod: &Pod| (pod.meta.created, pod.meta.namespace.clone(), pod.meta.name.clone());
        key(a).cmp(&key(b))
    })
}

/// What is known of a range of pod addresses.
pub(crate) fn of_range(view: &View<'_>, range: IpNet) -> Option<Workload> {
    first(view.nodes_of_range(range)).map(|node| of_node(node, range, WorkloadKind::PodRange))
}

fn first<'a>(nodes: impl Iterator<Item = &'a Node>) -> Option<&'a Node> {
    nodes.min_by(|a, b| a.meta.name.cmp(&b.meta.name))
}

fn of_pod(view: &View<'_>, pod: &Pod, address: IpAddr) -> Workload {
    let resolves_for_all = pod.of_replica_set && (pod.labelled_dns || view.serves_cluster_dns(pod));
    Workload {
        address: address.into(),
        kind: if resolves_for_all { WorkloadKind::Resolver } else { WorkloadKind::Pod },
        namespace: Some(pod.meta.namespace.clone()),
        name: pod.meta.name.clone(),
        service_account: Some(pod.service_account.clone()),
        node: pod.node.clone().map(NodeName),
        zone: None,
    }
}

fn of_node(node: &Node, address: IpNet, kind: WorkloadKind) -> Workload {
    Workload {
        address,
        kind,
        namespace: None,
        name: node.meta.name.clone(),
        service_account: None,
        node: Some(NodeName(node.meta.name.clone())),
        zone: node.zone.clone().filter(|_| kind == WorkloadKind::Node),
    }
}
