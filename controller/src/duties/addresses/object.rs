//! An own address as a Service, and back.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};
use kube::core::PartialObjectMeta;
use maesh_compiler::{
    kinds::{OWN_ADDRESS, OWN_PORTS},
    own_address::{Addresses, Entry, Ports, number, read_ports, write_ports},
};
use maesh_config::model::Transport;

/// Labels of pods.
pub(super) type Selector = BTreeMap<String, String>;

/// Kubernetes 1.x from which on `PreferSameNode` is known without asking for it.
pub(super) const PREFER_SAME_NODE: u32 = 34;

/// `trafficDistribution` of own addresses.
const SAME_NODE: &str = "PreferSameNode";

/// Whether an object is somebody else's.
pub(super) fn is_foreign(there: PartialObjectMeta<Service>) -> bool {
    !there.metadata.labels.is_some_and(|labels| labels.contains_key(OWN_ADDRESS))
}

/// Labels of an address's Service. The last one is for `Endpoints`, which get it from here: Kubernetes would make slices
/// of them once the selector is gone, and these would list the proxies of that day for ever.
const LABELS: [(&str, &str); 3] = [
    (OWN_ADDRESS, "true"),
    ("app.kubernetes.io/managed-by", "maesh-controller"),
    ("endpointslice.kubernetes.io/skip-mirror", "true"),
];

/// An address as a Service, without what the server fills in. Without a `selector`, nobody but us writes its slices.
pub(super) fn service(
    name: &str,
    ports: &Ports,
    selector: Option<&Selector>,
    owner: Option<&OwnerReference>,
    prefer_same_node: bool,
) -> Service {
    let labels = LABELS.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    Service {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels),
            owner_references: owner.map(|owner| vec![owner.clone()]),
            annotations: Some([(OWN_PORTS.to_owned(), write_ports(ports))].into()),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            ip_family_policy: Some("PreferDualStack".into()),
            selector: selector.cloned(),
            ports: Some(service_ports(ports)),
            traffic_distribution: prefer_same_node.then(|| SAME_NODE.into()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

pub(super) fn service_ports(ports: &Ports) -> Vec<ServicePort> {
    let port = |((number, transport), entry): (&(u16, Transport), &Entry)| ServicePort {
        name: Some(format!("p{}", entry.listen)),
        port: (*number).into(),
        protocol: Some(if *transport == Transport::Udp { "UDP" } else { "TCP" }.into()),
        target_port: Some(IntOrString::Int(entry.listen.into())),
        ..ServicePort::default()
    };
    ports.iter().map(port).collect()
}

/// What decides whether a Service is as it is wanted, and which one it is.
pub(super) fn essence(mut service: Service) -> Service {
    let ObjectMeta { name, uid, labels, annotations, .. } = std::mem::take(&mut service.metadata);
    service.metadata = ObjectMeta { name, uid, labels, annotations, ..ObjectMeta::default() };
    service.status = None;
    service
}

/// The number in a target port.
pub(super) fn port_number(port: IntOrString) -> Option<i32> {
    match port {
        IntOrString::Int(number) => Some(number),
        IntOrString::String(_) => None,
    }
}

/// The selector of a Service, if it has one.
pub(super) fn selector(there: &Service) -> Option<&Selector> {
    there.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// Whether a Service holds exactly these ports and this selector, and prefers the caller's node where the cluster knows
/// how.
pub(super) fn says(there: &Service, ports: &Ports, selector: Option<&Selector>, prefer_same_node: bool) -> bool {
    let distribution = there.spec.as_ref().and_then(|spec| spec.traffic_distribution.as_deref());
    // Without the means, what somebody else says there is not ours.
    if prefer_same_node && distribution != Some(SAME_NODE) {
        return false;
    }
    let label = |(key, value): (&str, &str)| there.metadata.labels.as_ref()?.get(key).filter(|there| *there == value);
    let leads = self::selector(there) == selector && LABELS.into_iter().all(|pair| label(pair).is_some());
    let served = there.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let mut served: Vec<_> = served.map(|port| (port.port, port.protocol.clone(), port.target_port.clone())).collect();
    let wanted = service_ports(ports);
    let mut wanted: Vec<_> = wanted.into_iter().map(|port| (port.port, port.protocol, port.target_port)).collect();
    let order = |a: &(i32, Option<String>, Option<IntOrString>), b: &(i32, Option<String>, Option<IntOrString>)| {
        (a.0, &a.1).cmp(&(b.0, &b.1))
    };
    served.sort_by(order);
    wanted.sort_by(order);
    leads && read(there).as_ref() == Some(ports) && served == wanted
}

/// What Services of ours hold; one that cannot be read holds nothing.
pub(super) fn addresses<'a>(there: impl Iterator<Item = &'a Service>) -> Addresses {
    let number = |service: &Service| number(service.metadata.name.as_deref()?);
    there.filter_map(|service| Some((number(service)?, read(service)?))).collect()
}

fn read(service: &Service) -> Option<Ports> {
    read_ports(service.metadata.annotations.as_ref()?.get(OWN_PORTS)?)
}
