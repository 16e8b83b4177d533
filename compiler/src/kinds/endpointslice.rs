//! EndpointSlices: the bulk of what a large cluster has, so the most compact of all.

use std::{net::IpAddr, sync::Arc};

use serde_json::Value;

use super::{
    BadField, Meta, Names, Object, ObjectKind, ReadContext, Registration, Transport,
    read::{self, BadValues, Fields},
};
use crate::diagnostic::Reason;

/// The label that names the Service a slice belongs to.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// The label that names who writes a slice, and what it says where that is the control plane.
const MANAGED_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROL_PLANE: &str = "endpointslice-controller.k8s.io";

/// What is kept of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Metadata.
    pub meta: Meta,
    /// Name of the Service it belongs to, in the same namespace; `None` if it belongs to none.
    pub service: Option<Arc<str>>,
    /// Ports of its endpoints.
    pub ports: Box<[SlicePort]>,
    /// Its endpoints.
    pub endpoints: Box<[SliceEndpoint]>,
    /// The control plane writes it.
    pub managed: bool,
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the Service's port; empty where that has none.
    pub name: Arc<str>,
    /// Number at the endpoints; 0 if the slice does not say.
    pub number: u16,
    /// Its place in the list as written.
    pub index: u16,
    /// Transport.
    pub transport: Transport,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address; further ones mean nothing, to kube-proxy too.
    pub address: IpAddr,
    /// `conditions.ready`; absent is true.
    pub ready: bool,
    /// `conditions.serving`; absent is as `ready`.
    pub serving: bool,
    /// `conditions.terminating`
    pub terminating: bool,
    /// Node it runs on.
    pub node: Option<Arc<str>>,
    /// Zones and nodes by the hints; most endpoints have none.
    pub hints: Option<Box<Hints>>,
}

/// Which callers should use an endpoint. Sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hints {
    /// Those in these zones.
    pub zones: Vec<Arc<str>>,
    /// Those on these nodes.
    pub nodes: Vec<Arc<str>>,
}

impl EndpointSlice {
    pub(super) const REGISTRATION: Registration = Registration {
        kind: ObjectKind::EndpointSlice,
        group: "discovery.k8s.io",
        name: "EndpointSlice",
        plural: "endpointslices",
        versions: &["v1"],
        namespaced: true,
        always_served: true,
        names: Names::Subdomain,
        read: |meta, value, door, bad| Self::read(meta, value, door, bad).map(Object::EndpointSlice),
    };

    fn read(meta: Meta, value: &Value, door: &ReadContext, bad: &mut BadValues) -> Result<Self, BadField> {
        let root = Fields::of(value, &"")?;
        let label = |name: &str| value.pointer("/metadata/labels")?.get(name)?.as_str();
        let mut ports = Vec::new();
        for (index, port) in root.list("ports")?.iter().enumerate() {
            let read = SlicePort::read(index, port, door);
            ports.extend(bad.keep(read, "nothing is sent there"));
        }
        let family = bad.one_of(&root, "addressType", &["IPv4", "IPv6", "FQDN"]);
        let mut listed = root.list("endpoints")?;
        if family == Some("FQDN") && !listed.is_empty() {
            let fqdn = BadField::text("addressType", "FQDN", "IPv4 or IPv6");
            bad.push(fqdn.instead("its endpoints are not used, as kube-proxy does not use them", "nothing"));
            listed = &[];
        }
        let mut endpoints = Vec::with_capacity(listed.len());
        for (index, endpoint) in listed.iter().enumerate() {
            let read = SliceEndpoint::read(index, endpoint, family, door, bad);
            endpoints.extend(bad.keep(read, "the endpoint is left out"));
        }
        Ok(Self {
            service: label(SERVICE_LABEL).map(|service| door.interner.get(service)),
            managed: label(MANAGED_LABEL) == Some(CONTROL_PLANE),
            ports: ports.into_boxed_slice(),
            endpoints: endpoints.into_boxed_slice(),
            meta,
        })
    }
}

impl SlicePort {
    fn read(index: usize, value: &Value, door: &ReadContext) -> Result<Self, BadField> {
        let path = format!("ports[{index}]");
        let fields = Fields::of(value, &path)?;
        Ok(Self {
            name: door.interner.get(fields.text("name")?.unwrap_or("")),
            number: fields.port("port")?.unwrap_or(0),
            index: u16::try_from(index).unwrap_or(u16::MAX),
            transport: Transport::read(&fields)?,
        })
    }
}

impl SliceEndpoint {
    fn read(
        index: usize,
        value: &Value,
        family: Option<&str>,
        door: &ReadContext,
        bad: &mut BadValues,
    ) -> Result<Self, BadField> {
        let path = format!("endpoints[{index}]");
        let fields = Fields::of(value, &path)?;
        let address = first_address(&fields, family, bad)?;
        let path = fields.path("conditions");
        let conditions = Fields::of(fields.get("conditions").unwrap_or(&Value::Null), &path)?;
        let ready = conditions.flag("ready")?.unwrap_or(true);
        let path = fields.path("hints");
        let hints =
            Fields::of(fields.get("hints").unwrap_or(&Value::Null), &path).and_then(|fields| hints(&fields, door));
        Ok(Self {
            address,
            ready,
            serving: conditions.flag("serving")?.unwrap_or(ready),
            terminating: conditions.flag("terminating")?.unwrap_or(false),
            node: fields.text("nodeName")?.filter(|node| !node.is_empty()).map(|node| door.interner.get(node)),
            hints: bad.keep(hints, "the hints of the endpoint are not used").flatten(),
        })
    }
}

/// The address of an endpoint: the first one, as for kube-proxy.
fn first_address(fields: &Fields<'_>, family: Option<&str>, bad: &mut BadValues) -> Result<IpAddr, BadField> {
    let addresses = fields.texts("addresses")?;
    let Some(text) = addresses.first() else {
        let fix = "Give it one IP address.".into();
        return Err(BadField { fix, ..BadField::new(fields.path("addresses"), "is missing or empty") });
    };
    let path = fields.path("addresses[0]");
    let address = read::address(text).ok_or_else(|| BadField::address(&path, text))?;
    if let Some(family) = family.filter(|family| (*family == "IPv4") != address.is_ipv4()) {
        let problem = format!("is {text:?}, but addressType is {family}");
        let fix = "Put it into a slice of its own family.".into();
        let value = Some((*text).to_owned());
        return Err(BadField { reason: Reason::InvalidAddress, value, fix, ..BadField::new(path, problem) });
    }
    if addresses.len() > 1 {
        let fix = "Write one endpoint for each address.".into();
        let several = BadField::new(fields.path("addresses"), format!("has {} addresses", addresses.len()));
        let several = several.instead("the first one is used, as kube-proxy does", "the first");
        bad.push(BadField { reason: Reason::InvalidAddress, fix, ..several });
    }
    Ok(address)
}

fn hints(hints: &Fields<'_>, door: &ReadContext) -> Result<Option<Box<Hints>>, BadField> {
    let names = |key: &str| {
        let mut names: Vec<Arc<str>> = Vec::new();
        for (index, entry) in hints.list(key)?.iter().enumerate() {
            let path = format!("{}[{index}]", hints.path(key));
            names.extend(Fields::of(entry, &path)?.text("name")?.map(|name| door.interner.get(name)));
        }
        names.sort_unstable();
        names.dedup();
        Ok::<_, BadField>(names)
    };
    let hints = Hints { zones: names("forZones")?, nodes: names("forNodes")? };
    Ok((!hints.zones.is_empty() || !hints.nodes.is_empty()).then(|| Box::new(hints)))
}
