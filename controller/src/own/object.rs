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
use maesh_config::{ServiceName, model::Transport};
use serde::{Deserialize, Serialize};

use super::{Addresses, Entry, Ports, SHARED};
use crate::kinds::{OWN_ADDRESS, OWN_PORTS};

/// Labels of pods.
pub(super) type Selector = BTreeMap<String, String>;

const PREFIX: &str = "maesh-own-";
/// Name of the one that names of addressing mode `service` share.
const SHARED_NAME: &str = "maesh-shared";
/// Kubernetes 1.x from which on `PreferSameNode` is known without asking for it.
pub(super) const PREFER_SAME_NODE: u32 = 34;

/// `trafficDistribution` of own addresses.
const SAME_NODE: &str = "PreferSameNode";

/// A port as the annotation has it.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    service: String,
    port: u16,
    udp: bool,
    listen: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leaving: Option<u64>,
}

/// Whether an object is somebody else's.
pub(super) fn is_foreign(there: PartialObjectMeta<Service>) -> bool {
    !there.metadata.labels.is_some_and(|labels| labels.contains_key(OWN_ADDRESS))
}

/// The name of an address's Service.
pub(super) fn name(number: u32) -> String {
    if number == SHARED {
        return SHARED_NAME.to_owned();
    }
    format!("{PREFIX}{number}")
}

/// The number of the own address that a Service of this name is.
pub(crate) fn number(name: &str) -> Option<u32> {
    if name == SHARED_NAME {
        return Some(SHARED);
    }
    let number: u32 = name.strip_prefix(PREFIX)?.parse().ok()?;
    // `maesh-own-07` is somebody else's.
    (self::name(number) == name).then_some(number)
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
            annotations: Some([(OWN_PORTS.to_owned(), write(ports))].into()),
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

fn write(ports: &Ports) -> String {
    let written = |((port, transport), entry): (&(u16, Transport), &Entry)| Written {
        service: entry.service.to_string(),
        port: *port,
        udp: *transport == Transport::Udp,
        listen: entry.listen,
        leaving: entry.leaving,
    };
    let written: Vec<_> = ports.iter().map(written).collect();
    // Numbers and strings always have a form in JSON.
    serde_json::to_string(&written).unwrap_or_default()
}

fn read(service: &Service) -> Option<Ports> {
    read_ports(service.metadata.annotations.as_ref()?.get(OWN_PORTS)?)
}

/// Whose each port is, as [`write()`] wrote it.
pub(crate) fn read_ports(text: &str) -> Option<Ports> {
    let written: Vec<Written> = serde_json::from_str(text).ok()?;
    let entry = |written: Written| {
        let (namespace, name) = written.service.split_once('/')?;
        let transport = if written.udp { Transport::Udp } else { Transport::Tcp };
        let entry =
            Entry { service: ServiceName::new(namespace, name), listen: written.listen, leaving: written.leaving };
        Some(((written.port, transport), entry))
    };
    written.into_iter().map(entry).collect()
}
