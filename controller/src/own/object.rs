//! An own address as a Service, and back.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::core::PartialObjectMeta;
use maesh_config::{ServiceName, model::Transport};
use serde::{Deserialize, Serialize};

use super::{Addresses, Entry, Placed, Placements, Ports};

/// What marks our Services.
pub(super) const LABEL: &str = "maesh.containo.us/own-address=true";
const LABEL_KEY: &str = "maesh.containo.us/own-address";
/// Says whose each port is.
const PORTS: &str = "maesh.containo.us/own-ports";
const PREFIX: &str = "maesh-own-";
/// Kubernetes 1.x from which on `PreferSameNode` is known without asking for it.
pub(super) const PREFER_SAME_NODE: u32 = 34;

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
    !there.metadata.labels.is_some_and(|labels| labels.contains_key(LABEL_KEY))
}

/// The name of an address's Service.
pub(super) fn name(number: u32) -> String {
    format!("{PREFIX}{number}")
}

/// An address as a Service, without what the server fills in.
pub(super) fn service(
    name: &str,
    ports: &Ports,
    selector: &BTreeMap<String, String>,
    prefer_same_node: bool,
) -> Service {
    let port = |((number, transport), entry): (&(u16, Transport), &Entry)| ServicePort {
        name: Some(format!("p{}", entry.listen)),
        port: (*number).into(),
        protocol: Some(if *transport == Transport::Udp { "UDP" } else { "TCP" }.into()),
        target_port: Some(IntOrString::Int(entry.listen.into())),
        ..ServicePort::default()
    };
    let labels = [(LABEL_KEY, "true"), ("app.kubernetes.io/managed-by", "maesh-controller")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    Service {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels),
            annotations: Some([(PORTS.to_owned(), write(ports))].into()),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            ip_family_policy: Some("PreferDualStack".into()),
            selector: Some(selector.clone()),
            ports: Some(ports.iter().map(port).collect()),
            traffic_distribution: prefer_same_node.then(|| "PreferSameNode".into()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Whether a Service holds exactly these ports.
pub(super) fn says(there: &Service, ports: &Ports) -> bool {
    let served = there.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let mut served: Vec<_> = served.map(|port| (port.port, port.protocol.clone(), port.target_port.clone())).collect();
    let wanted = service("", ports, &BTreeMap::new(), false).spec.and_then(|spec| spec.ports).unwrap_or_default();
    let mut wanted: Vec<_> = wanted.into_iter().map(|port| (port.port, port.protocol, port.target_port)).collect();
    let order = |a: &(i32, Option<String>, Option<IntOrString>), b: &(i32, Option<String>, Option<IntOrString>)| {
        (a.0, &a.1).cmp(&(b.0, &b.1))
    };
    served.sort_by(order);
    wanted.sort_by(order);
    read(there).as_ref() == Some(ports) && served == wanted
}

/// What Services of ours hold; one that cannot be read holds nothing.
pub(super) fn addresses(there: &[Service]) -> Addresses {
    let number = |service: &Service| service.metadata.name.as_deref()?.strip_prefix(PREFIX)?.parse().ok();
    there.iter().filter_map(|service| Some((number(service)?, read(service)?))).collect()
}

/// Where users' Services stand.
pub(super) fn placements<'a>(there: impl Iterator<Item = &'a Service>) -> Placements {
    let mut placements = Placements::new();
    for service in there {
        let mut addresses: Vec<IpAddr> = service
            .spec
            .iter()
            .flat_map(|spec| spec.cluster_ips.iter().flatten())
            .filter_map(|address| address.parse().ok())
            .collect();
        addresses.sort_unstable();
        for (port, entry) in read(service).unwrap_or_default() {
            if entry.leaving.is_none() && !addresses.is_empty() {
                let new = || Placed { addresses: addresses.clone(), ports: BTreeMap::new() };
                let placed = placements.entry(entry.service).or_insert_with(new);
                placed.ports.insert(port, entry.listen);
            }
        }
    }
    placements
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
    let text = service.metadata.annotations.as_ref()?.get(PORTS)?;
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
