//! Services, pods, nodes, namespaces.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use serde_json::Value;

use super::{
    BadField, Door, Meta, OLD_PREFIX, OWN_ADDRESS, OWN_PORTS, Object, ObjectKind, PREFIX, Registration,
    read::{self, Fields},
};

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
    fn of(value: &Value) -> Self {
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
    pub(super) fn of(text: Option<&str>) -> Self {
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
    /// Number or name of the pods' port; the number when absent.
    pub target: Option<Number>,
    /// Its transport.
    pub transport: Transport,
    /// `appProtocol`
    pub app_protocol: Option<Arc<str>>,
}

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
        read: |meta, value, door| Self::read(meta, value, door).map(Object::Service),
    };

    fn read(meta: Meta, value: &Value, door: &Door) -> Result<Self, BadField> {
        let spec = read::part(value, &"spec")?;
        let mut addresses = spec.texts("clusterIPs")?;
        if addresses.is_empty() {
            addresses.extend(spec.text("clusterIP")?);
        }
        let affinity = match spec.text("sessionAffinity")? {
            Some("ClientIP") => Some(affinity_timeout(&spec)?),
            _ => None,
        };
        let intern = |text: &str| door.interner.get(text);
        let selector = match door.selects_pods || &*meta.namespace == "kube-system" {
            true => spec.pairs("selector", |_| true, |key, value| (intern(key), intern(value)))?,
            false => Box::default(),
        };
        let ports = spec.list("ports")?.iter().enumerate().map(|(i, port)| ServicePort::read(i, port, door));
        Ok(Self {
            annotations: annotations(value, door)?,
            own_ports: own_ports(value),
            external_name: spec.text("type")? == Some("ExternalName"),
            headless: addresses.first() == Some(&"None"),
            cluster_ips: addresses.into_iter().filter_map(read::address).collect(),
            ports: ports.collect::<Result<_, _>>()?,
            selector,
            affinity,
            local_only: spec.text("internalTrafficPolicy")? == Some("Local"),
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
    fn read(index: usize, value: &Value, door: &Door) -> Result<Self, BadField> {
        let path = format!("spec.ports[{index}]");
        let fields = Fields::of(value, &path)?;
        let number = fields.get("port").map(Number::of);
        let intern = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(|text| door.interner.get(text));
        Ok(Self {
            name: intern(fields.text("name")?),
            number: number.ok_or_else(|| BadField::new(fields.path("port"), "is missing"))?,
            target: fields.get("targetPort").map(Number::of),
            transport: Transport::of(fields.text("protocol")?),
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

impl Pod {
    pub(super) const REGISTRATION: Registration = Registration {
        kind: ObjectKind::Pod,
        group: "",
        name: "Pod",
        plural: "pods",
        versions: &["v1"],
        namespaced: true,
        always_served: true,
        read: |meta, value, door| Self::read(meta, value, door).map(Object::Pod),
    };

    fn read(meta: Meta, value: &Value, door: &Door) -> Result<Self, BadField> {
        let metadata = read::part(value, &"metadata")?;
        let spec = read::part(value, &"spec")?;
        let status = read::part(value, &"status")?;
        let intern = |text: &str| door.interner.get(text);

        let mut addresses: Vec<IpAddr> = status.text("podIP")?.and_then(read::address).into_iter().collect();
        for entry in status.list("podIPs")? {
            addresses.extend(entry.get("ip").and_then(Value::as_str).and_then(read::address));
        }
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
            ports: if door.selects_pods { container_ports(&spec, door)? } else { Box::default() },
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

fn container_ports(spec: &Fields<'_>, door: &Door) -> Result<Box<[ContainerPort]>, BadField> {
    let mut all = Vec::new();
    // An init container with `restartPolicy: Always` is a sidecar: its ports count, as they do in Kubernetes.
    let sidecar = |container: &&Value| container.get("restartPolicy").and_then(Value::as_str) == Some("Always");
    let inits = spec.list("initContainers")?.iter().filter(sidecar);
    for container in spec.list("containers")?.iter().chain(inits) {
        let Some(Value::Array(ports)) = container.get("ports") else { continue };
        for port in ports {
            let name = port.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
            let number = port.get("containerPort").and_then(|number| Number::of(number).port());
            if let (Some(name), Some(number)) = (name, number) {
                let transport = Transport::of(port.get("protocol").and_then(Value::as_str));
                all.push(ContainerPort { name: door.interner.get(name), number, transport });
            }
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
        read: |meta, value, door| Self::read(meta, value, door).map(Object::Node),
    };

    fn read(meta: Meta, value: &Value, door: &Door) -> Result<Self, BadField> {
        let spec = read::part(value, &"spec")?;
        let status = read::part(value, &"status")?;
        let zone = value.pointer("/metadata/labels").and_then(|labels| labels.get(NODE_ZONE)?.as_str());
        let mut ranges = spec.texts("podCIDRs")?;
        if ranges.is_empty() {
            ranges.extend(spec.text("podCIDR")?);
        }
        let internal = |entry: &Value| match entry.get("type").and_then(Value::as_str) {
            Some("InternalIP") => entry.get("address").and_then(Value::as_str).and_then(read::address),
            _ => None,
        };
        Ok(Self {
            addresses: status.list("addresses")?.iter().filter_map(internal).collect(),
            pod_ranges: ranges.iter().filter_map(|range| Some(range.parse::<IpNet>().ok()?.trunc())).collect(),
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
        read: |meta, value, door| Self::read(meta, value, door).map(Object::Namespace),
    };

    fn read(meta: Meta, value: &Value, door: &Door) -> Result<Self, BadField> {
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
    read: |meta, _, _| Ok(Object::ServiceAccount(meta)),
};

/// What an own address of the mesh says: long, and different each time, so nothing for the table of shared strings.
fn own_ports(value: &Value) -> Option<Box<str>> {
    value.pointer("/metadata/labels")?.get(OWN_ADDRESS)?;
    value.pointer("/metadata/annotations")?.get(OWN_PORTS)?.as_str().map(Into::into)
}

fn annotations(value: &Value, door: &Door) -> Result<Annotations, BadField> {
    let own = own_ports(value).is_some();
    let ours = |key: &str| (key.starts_with(PREFIX) || key.starts_with(OLD_PREFIX)) && !(own && key == OWN_PORTS);
    let metadata = read::part(value, &"metadata")?;
    metadata.pairs("annotations", ours, |key, value| (door.interner.get(key), door.interner.get(value)))
}
