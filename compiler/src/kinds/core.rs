//! Services, pods, nodes, namespaces.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use serde_json::Value;

use super::{
    BadField, Meta, Names, OLD_PREFIX, OWN_ADDRESS, OWN_PORTS, Object, ObjectKind, PREFIX, ReadContext, Registration,
    read::{self, BadValues, Fields},
};
use crate::diagnostic::Reason;

/// Annotations under the mesh's prefixes, sorted by key.
pub type Annotations = Box<[(Arc<str>, Arc<str>)]>;
/// Labels, sorted by key.
pub type Labels = Box<[(Arc<str>, Arc<str>)]>;

/// A number, or what stands in its place: the name of a port, or something that is neither.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Number {
    /// A whole number, not checked further.
    Int(i64),
    /// A text.
    Text(Arc<str>),
}

impl Number {
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text.as_str().into()),
            other => other.as_i64().map_or_else(|| Self::Text(other.to_string().into()), Self::Int),
        }
    }

    /// The number, if it can be a port's.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Int(number) => u16::try_from(*number).ok().filter(|number| *number > 0),
            Self::Text(_) => None,
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// The transport of a port, as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP, also when absent.
    Tcp,
    /// UDP.
    Udp,
    /// Anything else: SCTP, or newer than us.
    Other(Arc<str>),
}

impl Transport {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, BadField> {
        Ok(Self::of(fields.one_of("protocol", &["TCP", "UDP", "SCTP"])?))
    }

    fn of(text: Option<&str>) -> Self {
        match text {
            None | Some("" | "TCP") => Self::Tcp,
            Some("UDP") => Self::Udp,
            Some(other) => Self::Other(other.into()),
        }
    }
}

/// What is kept of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Metadata.
    pub meta: Meta,
    /// Annotations of the mesh's.
    pub annotations: Annotations,
    /// Of an own address that the mesh made: whose its ports are, as written.
    pub own_ports: Option<Box<str>>,
    /// Its type is ExternalName: a DNS alias that the mesh leaves alone.
    pub external_name: bool,
    /// Its ClusterIPs, of both families.
    pub cluster_ips: Box<[IpAddr]>,
    /// `clusterIP: None`: headless on purpose.
    pub headless: bool,
    /// Its ports, in the order written.
    pub ports: Box<[ServicePort]>,
    /// Which pods it selects.
    pub selector: Labels,
    /// `sessionAffinity: ClientIP`, with its timeout.
    pub affinity: Option<Duration>,
    /// `internalTrafficPolicy: Local`
    pub local_only: bool,
    /// `publishNotReadyAddresses`
    pub publish_not_ready: bool,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name.
    pub name: Option<Arc<str>>,
    /// Its number, as written.
    pub number: Number,
    /// Its place in the list as written.
    pub index: u32,
    /// Number or name of the pods' port; the number when absent.
    pub target: Option<Number>,
    /// Its transport.
    pub transport: Transport,
    /// `appProtocol`
    pub app_protocol: Option<Arc<str>>,
}

/// The types of Services.
const SERVICE_TYPES: [&str; 4] = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
/// Kubernetes' default for `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: u64 = 10_800;

impl Service {
    pub(super) const REGISTRATION: Registration = Registration {
        kind: ObjectKind::Service,
        group: "",
        name: "Service",
        plural: "services",
        versions: &["v1"],
        namespaced: true,
        always_served: true,
        names: Names::Label,
        read: |meta, value, door, bad| Self::read(meta, value, door, bad).map(Object::Service),
    };

    fn read(meta: Meta, value: &Value, door: &ReadContext, bad: &mut BadValues) -> Result<Self, BadField> {
        let spec = read::part(value, &"spec")?;
        let texts = spec.texts("clusterIPs")?.into_iter().enumerate();
        let mut addresses: Vec<_> = texts.map(|(i, text)| (format!("spec.clusterIPs[{i}]"), text)).collect();
        if addresses.is_empty() {
            addresses.extend(spec.text("clusterIP")?.map(|text| ("spec.clusterIP".to_owned(), text)));
        }
        let headless = addresses.first().is_some_and(|(_, text)| *text == "None");
        addresses.retain(|(_, text)| !matches!(*text, "None" | ""));
        let affinity = match bad.one_of(&spec, "sessionAffinity", &["None", "ClientIP"]) {
            Some("ClientIP") => Some(affinity_timeout(&spec)?),
            _ => None,
        };
        let intern = |text: &str| door.interner.get(text);
        let selector = match door.selects_pods || &*meta.namespace == "kube-system" {
            true => spec.pairs("selector", |_| true, |key, value| (intern(key), intern(value)))?,
            false => Box::default(),
        };
        let mut ports = Vec::new();
        for (index, port) in spec.list("ports")?.iter().enumerate() {
            let read = ServicePort::read(index, port, door, bad);
            ports.extend(bad.keep(read, "the port is left out"));
        }
        Ok(Self {
            annotations: annotations(value, door)?,
            own_ports: own_ports(value),
            external_name: bad.one_of(&spec, "type", &SERVICE_TYPES) == Some("ExternalName"),
            headless,
            cluster_ips: bad.addresses(addresses).into_boxed_slice(),
            ports: ports.into_boxed_slice(),
            selector,
            affinity,
            local_only: bad.one_of(&spec, "internalTrafficPolicy", &["Cluster", "Local"]) == Some("Local"),
            publish_not_ready: spec.flag("publishNotReadyAddresses")?.unwrap_or(false),
            meta,
        })
    }
}

fn affinity_timeout(spec: &Fields<'_>) -> Result<Duration, BadField> {
    let mut seconds = None;
    let path = "spec.sessionAffinityConfig";
    if let Some(config) = spec.get("sessionAffinityConfig") {
        let below = "spec.sessionAffinityConfig.clientIP";
        if let Some(client_ip) = Fields::of(config, &path)?.get("clientIP") {
            seconds = Fields::of(client_ip, &below)?.number("timeoutSeconds")?;
        }
    }
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    Ok(Duration::from_secs(seconds.unwrap_or(AFFINITY_SECONDS)))
}

impl ServicePort {
    fn read(index: usize, value: &Value, door: &ReadContext, bad: &mut BadValues) -> Result<Self, BadField> {
        let path = format!("spec.ports[{index}]");
        let fields = Fields::of(value, &path)?;
        let number = fields.get("port").map(Number::of);
        let intern = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(|text| door.interner.get(text));
        let name = fields.text("name")?.filter(|name| !name.is_empty());
        if let Some(name) = name {
            Names::Label.check(fields.path("name"), name)?;
        }
        let target = fields.get("targetPort").map(Number::of);
        if let Some(Number::Int(target)) = target
            && !(0..=65535).contains(&target)
        {
            let want = "a number from 1 to 65535, or the name of a port";
            let wrong = BadField::text(fields.path("targetPort"), &target.to_string(), want);
            let wrong = BadField { reason: Reason::InvalidPort, ..wrong };
            bad.push(wrong.instead("the port leads to no pod by it", "nothing"));
        }
        Ok(Self {
            name: intern(name),
            number: number.ok_or_else(|| BadField::new(fields.path("port"), "is missing"))?,
            index: u32::try_from(index).unwrap_or(u32::MAX),
            target,
            transport: Transport::read(&fields)?,
            app_protocol: intern(fields.text("appProtocol")?),
        })
    }
}

/// What is kept of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Metadata.
    pub meta: Meta,
    /// Labels, where something selects by them.
    pub labels: Labels,
    /// Its addresses, of both families.
    pub addresses: Box<[IpAddr]>,
    /// The node it runs on.
    pub node: Option<Arc<str>>,
    /// The ServiceAccount it runs as.
    pub service_account: Arc<str>,
    /// It shares the node's addresses.
    pub host_network: bool,
    /// It ran to its end and will not run again.
    pub ended: bool,
    /// Its ready condition; true when there are no conditions at all.
    pub ready: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// It belongs to a ReplicaSet: it serves from wherever it was put.
    pub of_replica_set: bool,
    /// It carries the label of the cluster's DNS.
    pub labelled_dns: bool,
    /// Named ports of its containers, where something selects pods.
    pub ports: Box<[ContainerPort]>,
}

/// A named port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// Its name.
    pub name: Arc<str>,
    /// Its number.
    pub number: u16,
    /// Its transport.
    pub transport: Transport,
}

impl ContainerPort {
    /// A port with a name; one without says nothing.
    fn read(fields: &Fields<'_>, door: &ReadContext) -> Result<Option<Self>, BadField> {
        let Some(name) = fields.text("name")?.filter(|name| !name.is_empty()) else { return Ok(None) };
        let Some(number) = fields.port("containerPort")? else { return Ok(None) };
        Ok(Some(Self { name: door.interner.get(name), number, transport: Transport::read(fields)? }))
    }
}

impl Pod {
    pub(super) const REGISTRATION: Registration = Registration {
        kind: ObjectKind::Pod,
        group: "",
        name: "Pod",
        plural: "pods",
        versions: &["v1"],
        namespaced: true,
        always_served: true,
        names: Names::Subdomain,
        read: |meta, value, door, bad| Self::read(meta, value, door, bad).map(Object::Pod),
    };

    fn read(meta: Meta, value: &Value, door: &ReadContext, bad: &mut BadValues) -> Result<Self, BadField> {
        let metadata = read::part(value, &"metadata")?;
        let spec = read::part(value, &"spec")?;
        let status = read::part(value, &"status")?;
        let intern = |text: &str| door.interner.get(text);

        let mut written = vec![("status.podIP".to_owned(), status.text("podIP")?.unwrap_or(""))];
        for (i, entry) in status.list("podIPs")?.iter().enumerate() {
            let read = read::text_in(entry, &format!("status.podIPs[{i}]"), "ip");
            written.extend(bad.keep(read, "it is left out"));
        }
        written.retain(|(_, text)| !text.is_empty());
        let mut addresses = bad.addresses(written);
        addresses.sort_unstable();
        addresses.dedup();

        let keep = door.selects_pods || &*meta.namespace == "kube-system";
        let labels = match keep {
            true => metadata.pairs("labels", |_| true, |key, value| (intern(key), intern(value)))?,
            false => Box::default(),
        };
        let label = |name: &str| value.pointer("/metadata/labels")?.get(name)?.as_str();
        let service_account = match spec.text("serviceAccountName")? {
            Some(name) if !name.is_empty() => Some(name),
            _ => spec.text("serviceAccount")?.filter(|name| !name.is_empty()),
        };
        Ok(Self {
            labelled_dns: label("k8s-app") == Some("kube-dns"),
            labels,
            addresses: addresses.into_boxed_slice(),
            node: spec.text("nodeName")?.filter(|node| !node.is_empty()).map(intern),
            service_account: intern(service_account.unwrap_or("default")),
            host_network: spec.flag("hostNetwork")?.unwrap_or(false),
            ended: matches!(status.text("phase")?, Some("Succeeded" | "Failed")),
            ready: ready(status.list("conditions")?),
            deleting: metadata.get("deletionTimestamp").is_some(),
            of_replica_set: owners(&metadata)?.any(|kind| kind == "ReplicaSet"),
            ports: if door.selects_pods { container_ports(&spec, door, bad)? } else { Box::default() },
            meta,
        })
    }
}

fn owners<'a>(metadata: &Fields<'a>) -> Result<impl Iterator<Item = &'a str>, BadField> {
    Ok(metadata.list("ownerReferences")?.iter().filter_map(|owner| owner.get("kind")?.as_str()))
}

fn ready(conditions: &[Value]) -> bool {
    let is_ready = |condition: &&Value| condition.get("type").and_then(Value::as_str) == Some("Ready");
    match conditions.iter().find(is_ready) {
        Some(condition) => condition.get("status").and_then(Value::as_str) == Some("True"),
        None => conditions.is_empty(),
    }
}

fn container_ports(
    spec: &Fields<'_>,
    door: &ReadContext,
    bad: &mut BadValues,
) -> Result<Box<[ContainerPort]>, BadField> {
    let mut all = Vec::new();
    // An init container with `restartPolicy: Always` is a sidecar: its ports count, as they do in Kubernetes.
    let sidecar = |container: &&Value| container.get("restartPolicy").and_then(Value::as_str) == Some("Always");
    let inits = spec.list("initContainers")?.iter().filter(sidecar);
    for container in spec.list("containers")?.iter().chain(inits) {
        let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
        let Some(Value::Array(ports)) = container.get("ports") else { continue };
        for (i, port) in ports.iter().enumerate() {
            let path = format!("spec.containers[{name}].ports[{i}]");
            let read = Fields::of(port, &path).and_then(|fields| ContainerPort::read(&fields, door));
            all.extend(bad.keep(read, "the port is left out").flatten());
        }
    }
    Ok(all.into_boxed_slice())
}

/// Where a node says its zone.
pub const NODE_ZONE: &str = "topology.kubernetes.io/zone";

/// What is kept of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Metadata.
    pub meta: Meta,
    /// Its internal addresses.
    pub addresses: Box<[IpAddr]>,
    /// The ranges from which its pods get their addresses.
    pub pod_ranges: Box<[IpNet]>,
    /// Its zone.
    pub zone: Option<Arc<str>>,
}

impl Node {
    pub(super) const REGISTRATION: Registration = Registration {
        kind: ObjectKind::Node,
        group: "",
        name: "Node",
        plural: "nodes",
        versions: &["v1"],
        namespaced: false,
        always_served: true,
        names: Names::Subdomain,
        read: |meta, value, door, bad| Self::read(meta, value, door, bad).map(Object::Node),
    };

    fn read(meta: Meta, value: &Value, door: &ReadContext, bad: &mut BadValues) -> Result<Self, BadField> {
        let spec = read::part(value, &"spec")?;
        let status = read::part(value, &"status")?;
        let zone = value.pointer("/metadata/labels").and_then(|labels| labels.get(NODE_ZONE)?.as_str());
        let texts = spec.texts("podCIDRs")?.into_iter().enumerate();
        let mut written: Vec<_> = texts.map(|(i, text)| (format!("spec.podCIDRs[{i}]"), text)).collect();
        if written.is_empty() {
            written.extend(spec.text("podCIDR")?.map(|text| ("spec.podCIDR".to_owned(), text)));
        }
        let mut pod_ranges = Vec::new();
        for (path, text) in written.into_iter().filter(|(_, text)| !text.is_empty()) {
            match text.parse::<IpNet>() {
                Ok(range) => pod_ranges.push(range.trunc()),
                Err(_) => {
                    let wrong = BadField::text(path, text, "a range of addresses such as 10.244.1.0/24");
                    let wrong = BadField { reason: Reason::InvalidAddress, ..wrong };
                    bad.push(wrong.instead("it is left out", "nothing"));
                }
            }
        }
        let mut internal = Vec::new();
        for (i, entry) in status.list("addresses")?.iter().enumerate() {
            if entry.get("type").and_then(Value::as_str) == Some("InternalIP") {
                let read = read::text_in(entry, &format!("status.addresses[{i}]"), "address");
                internal.extend(bad.keep(read, "it is left out"));
            }
        }
        Ok(Self {
            addresses: bad.addresses(internal).into_boxed_slice(),
            pod_ranges: pod_ranges.into_boxed_slice(),
            zone: zone.filter(|zone| !zone.is_empty()).map(|zone| door.interner.get(zone)),
            meta,
        })
    }
}

/// What is kept of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Metadata.
    pub meta: Meta,
    /// Annotations of the mesh's: defaults for its Services.
    pub annotations: Annotations,
}

impl Namespace {
    pub(super) const REGISTRATION: Registration = Registration {
        kind: ObjectKind::Namespace,
        group: "",
        name: "Namespace",
        plural: "namespaces",
        versions: &["v1"],
        namespaced: false,
        always_served: true,
        names: Names::Label,
        read: |meta, value, door, bad| Self::read(meta, value, door, bad).map(Object::Namespace),
    };

    fn read(meta: Meta, value: &Value, door: &ReadContext, _: &mut BadValues) -> Result<Self, BadField> {
        Ok(Self { meta, annotations: annotations(value, door)? })
    }
}

/// Nothing is read of a ServiceAccount but that it is there.
pub(super) const SERVICE_ACCOUNT: Registration = Registration {
    kind: ObjectKind::ServiceAccount,
    group: "",
    name: "ServiceAccount",
    plural: "serviceaccounts",
    versions: &["v1"],
    namespaced: true,
    always_served: true,
    names: Names::Subdomain,
    read: |meta, _, _, _| Ok(Object::ServiceAccount(meta)),
};

/// What an own address of the mesh says: long, and different each time, so nothing for the table of shared strings.
fn own_ports(value: &Value) -> Option<Box<str>> {
    value.pointer("/metadata/labels")?.get(OWN_ADDRESS)?;
    value.pointer("/metadata/annotations")?.get(OWN_PORTS)?.as_str().map(Into::into)
}

fn annotations(value: &Value, door: &ReadContext) -> Result<Annotations, BadField> {
    let own = own_ports(value).is_some();
    let ours = |key: &str| (key.starts_with(PREFIX) || key.starts_with(OLD_PREFIX)) && !(own && key == OWN_PORTS);
    let metadata = read::part(value, &"metadata")?;
    metadata.pairs("annotations", ours, |key, value| (door.interner.get(key), door.interner.get(value)))
}
