//! The EndpointSlices of an address that lists a few proxies of each zone: a function of the address and of the pods.
//!
//! Each address takes others, by rendezvous hashing over its number and the pod's uid, so that all proxies carry about
//! as much, and a pod that comes or goes changes only those addresses that get or had it.

use std::{cmp::Reverse, collections::BTreeMap};

use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use maesh_compiler::{kinds::OWN_ADDRESS, own_address::Ports};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{object, proxies::Proxy};

/// Label that says who writes a slice.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// What it says in ours.
pub(super) const OURS: &str = "maesh-controller";
/// What it says in those of the cluster's controller, which follow a Service's selector.
pub(super) const CLUSTERS: &str = "endpointslice-controller.k8s.io";
/// Label that names the Service.
pub(super) const SERVICE: &str = "kubernetes.io/service-name";
/// Proxies of each zone: large enough to survive two failures.
const OF_EACH_ZONE: usize = 3;

/// An address whose slices are wanted.
pub(super) struct WantedSlices<'a> {
    pub(super) number: u32,
    /// The Service's name and uid.
    pub(super) name: &'a str,
    pub(super) uid: &'a str,
    pub(super) ports: &'a Ports,
}

/// A proxy's address of one family.
type ProxyAddress<'a> = (&'a Proxy, String);

/// The proxies that addresses choose from, by family and zone.
pub(super) struct Candidates<'a> {
    namespace: &'a str,
    /// The cluster knows hints for nodes.
    node_hints: bool,
    families: Vec<(Family, Vec<Vec<ProxyAddress<'a>>>)>,
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

impl Family {
    /// The slice's type, and the end of its name.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::V4 => ("IPv4", "v4"),
            Self::V6 => ("IPv6", "v6"),
        }
    }
}

impl<'a> Candidates<'a> {
    /// Of `proxies` those that are ready. Where not one is, those that serve while they leave, or all, listed as what they
    /// are: not ready. Then kube-proxy uses the leaving ones, or refuses connections at once, and names answer the plain
    /// addresses, as with a selector. Slices that still said `ready` would make callers wait for nobody, and deleted
    /// ones would all have to be made anew a moment later.
    ///
    /// Nodes without a zone count as one zone together, unless others have one: then callers there use the proxies of
    /// all zones, and a node that got its zone late does not rewrite every slice twice.
    pub(super) fn new(proxies: &'a [Proxy], namespace: &'a str, node_hints: bool) -> Self {
        let families = [Family::V4, Family::V6].map(|family| (family, by_zone(proxies, family)));
        Self { namespace, node_hints, families: families.into_iter().filter(|(_, zones)| !zones.is_empty()).collect() }
    }

    /// The slices of one address. One a family, with all ports: spread over several, a port would move from one slice
    /// to the next when others come before it, and be in neither for a moment.
    pub(super) fn slices(&self, of: &WantedSlices<'_>) -> Vec<EndpointSlice> {
        self.families.iter().map(|(family, zones)| self.slice(of, *family, zones)).collect()
    }

    fn slice(&self, of: &WantedSlices<'_>, family: Family, zones: &[Vec<ProxyAddress<'_>>]) -> EndpointSlice {
        let (address_type, suffix) = family.names();
        let labels = [(SERVICE, of.name), (MANAGED_BY, OURS), (OWN_ADDRESS, "true")];
        let owner = OwnerReference {
            api_version: "v1".into(),
            kind: "Service".into(),
            name: of.name.into(),
            uid: of.uid.into(),
            ..OwnerReference::default()
        };
        let chosen = zones.iter().flat_map(|zone| chosen(of.number, zone));
        EndpointSlice {
            metadata: ObjectMeta {
                name: Some(format!("{}-{suffix}", of.name)),
                labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            address_type: address_type.into(),
            endpoints: Some(chosen.map(|candidate| self.endpoint(candidate)).collect()),
            ports: Some(ports(of.ports)),
        }
    }

    fn endpoint(&self, (proxy, address): &ProxyAddress<'_>) -> Endpoint {
        let zone_hint = |zone: &String| vec![ForZone { name: zone.clone() }];
        let node_hint = |node: &String| vec![ForNode { name: node.clone() }];
        // Either every chosen one has a zone or none has, so kube-proxy never has to do without for the lack of one.
        let hints = proxy.zone.as_ref().filter(|_| proxy.is_ready()).map(|zone| EndpointHints {
            for_zones: Some(zone_hint(zone)),
            for_nodes: proxy.node.as_ref().filter(|_| self.node_hints).map(node_hint),
        });
        Endpoint {
            addresses: vec![address.clone()],
            conditions: Some(EndpointConditions {
                ready: Some(proxy.is_ready()),
                serving: Some(proxy.serving),
                terminating: Some(proxy.leaving),
            }),
            hints,
            node_name: proxy.node.clone(),
            zone: proxy.zone.clone(),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".into()),
                namespace: Some(self.namespace.to_owned()),
                name: Some(proxy.name.clone()),
                uid: Some(proxy.uid.clone()),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        }
    }
}

fn by_zone(proxies: &[Proxy], family: Family) -> Vec<Vec<ProxyAddress<'_>>> {
    let v6 = matches!(family, Family::V6);
    let mut from: Vec<ProxyAddress<'_>> =
        proxies.iter().filter_map(|proxy| Some((proxy, proxy.address(v6)?.to_string()))).collect();
    let better: [fn(&Proxy) -> bool; 3] = [Proxy::is_ready, |proxy| proxy.serving, |proxy| proxy.zone.is_some()];
    for better in better {
        if from.iter().any(|(proxy, _)| better(proxy)) {
            from.retain(|(proxy, _)| better(proxy));
        }
    }
    let mut zones = BTreeMap::<_, Vec<_>>::new();
    for candidate in from {
        zones.entry(candidate.0.zone.as_deref()).or_default().push(candidate);
    }
    zones.into_values().collect()
}

/// The proxies of one zone that address `number` takes.
fn chosen<'a, 'b>(number: u32, zone: &'b [ProxyAddress<'a>]) -> impl Iterator<Item = &'b ProxyAddress<'a>> {
    let mut best: Vec<_> = Vec::with_capacity(OF_EACH_ZONE + 1);
    for candidate in zone {
        let uid = &candidate.0.uid;
        best.push((Reverse(xxh3_64_with_seed(uid.as_bytes(), number.into())), uid, candidate));
        best.sort_unstable_by_key(|(score, uid, _)| (*score, *uid));
        best.truncate(OF_EACH_ZONE);
    }
    best.into_iter().map(|(_, _, candidate)| candidate)
}

/// Named as the Service's ports, by which kube-proxy matches them.
fn ports(ports: &Ports) -> Vec<EndpointPort> {
    let port = |port: k8s_openapi::api::core::v1::ServicePort| EndpointPort {
        name: port.name,
        port: port.target_port.and_then(object::port_number),
        protocol: port.protocol,
        app_protocol: None,
    };
    object::service_ports(ports).into_iter().map(port).collect()
}

/// What decides whether a slice is as it was wanted: what [`Candidates::slices`] sets, without what the server or others
/// add. Hints for nodes follow from the nodes, and a server may be told to drop them.
pub(super) fn essence(mut slice: EndpointSlice) -> EndpointSlice {
    for hints in slice.endpoints.iter_mut().flatten().filter_map(|endpoint| endpoint.hints.as_mut()) {
        hints.for_nodes = None;
    }
    let ObjectMeta { name, labels, owner_references, .. } = std::mem::take(&mut slice.metadata);
    let labels = labels.map(|mut labels| {
        labels.retain(|key, _| [SERVICE, MANAGED_BY, OWN_ADDRESS].contains(&key.as_str()));
        labels
    });
    slice.metadata = ObjectMeta { name, labels, owner_references, ..ObjectMeta::default() };
    slice
}

/// The Service that a slice belongs to.
pub(super) fn service(metadata: &ObjectMeta) -> Option<&str> {
    metadata.labels.as_ref()?.get(SERVICE).map(String::as_str)
}

/// Whether `theirs` lead, ready, wherever `ours` do for one of `ports`: then ours are no longer needed.
pub(super) fn covered<'a>(
    ours: impl Iterator<Item = &'a EndpointSlice>,
    theirs: &[EndpointSlice],
    ports: &Ports,
) -> bool {
    let wanted: Vec<_> = self::ports(ports).into_iter().filter_map(|port| port.name).collect();
    let leads = |slice: &EndpointSlice, name: &String| {
        let ready = |endpoint: &Endpoint| endpoint.conditions.as_ref().is_none_or(|now| now.ready.unwrap_or(true));
        slice.endpoints.iter().flatten().any(ready)
            && slice.ports.iter().flatten().any(|port| port.name.as_ref() == Some(name))
    };
    let instead = |ours: &EndpointSlice, name: &String| {
        theirs.iter().any(|theirs| theirs.address_type == ours.address_type && leads(theirs, name))
    };
    let mut ours = ours;
    ours.all(|ours| wanted.iter().all(|name| !leads(ours, name) || instead(ours, name)))
}

#[cfg(test)]
mod tests;
