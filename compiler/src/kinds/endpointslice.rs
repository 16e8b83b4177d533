//! EndpointSlices: the bulk of what a large cluster has, so the most compact of all.

use std::{net::IpAddr, sync::Arc};

use serde_json::Value;

use super::{
    BadField, Door, Meta, Object, ObjectKind, Registration, Transport,
    read::{self, Fields},
};

/// The label that names the Service a slice belongs to.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

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
    /// Endpoints left out: their address is not one, or (second) they have further addresses that nothing uses.
    pub odd: (u32, u32),
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the Service's port; empty where that has none.
    pub name: Arc<str>,
    /// Number at the endpoints; 0 if the slice does not say.
    pub number: u16,
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
        read: |meta, value, door| Self::read(meta, value, door).map(Object::EndpointSlice),
    };

    fn read(meta: Meta, value: &Value, door: &Door) -> Result<Self, BadField> {
        let root = Fields::of(value, &"")?;
        let service = value.pointer("/metadata/labels").and_then(|labels| labels.get(SERVICE_LABEL)?.as_str());
        let mut ports = Vec::new();
        for (i, port) in root.list("ports")?.iter().enumerate() {
            let path = format!("ports[{i}]");
            let fields = Fields::of(port, &path)?;
            ports.push(SlicePort {
                name: door.interner.get(fields.text("name")?.unwrap_or("")),
                number: fields.number("port")?.and_then(|number| u16::try_from(number).ok()).unwrap_or(0),
                transport: Transport::of(fields.text("protocol")?),
            });
        }
        let mut endpoints = Vec::new();
        let mut odd = (0, 0);
        let with_addresses = root.text("addressType")? != Some("FQDN");
        let listed = if with_addresses { root.list("endpoints")? } else { &[] };
        for (i, endpoint) in listed.iter().enumerate() {
            let path = format!("endpoints[{i}]");
            let fields = Fields::of(endpoint, &path)?;
            let addresses = fields.texts("addresses")?;
            let Some(address) = addresses.first().and_then(|text| read::address(text)) else {
                odd.0 += 1;
                continue;
            };
            odd.1 += u32::from(addresses.len() > 1);
            endpoints.push(SliceEndpoint::read(address, endpoint, &fields, door)?);
        }
        Ok(Self {
            service: service.map(|service| door.interner.get(service)),
            ports: ports.into_boxed_slice(),
            endpoints: endpoints.into_boxed_slice(),
            odd,
            meta,
        })
    }
}

impl SliceEndpoint {
    fn read(address: IpAddr, value: &Value, fields: &Fields<'_>, door: &Door) -> Result<Self, BadField> {
        let path = fields.path("conditions");
        let conditions = Fields::of(fields.get("conditions").unwrap_or(&Value::Null), &path)?;
        let ready = conditions.flag("ready")?.unwrap_or(true);
        Ok(Self {
            address,
            ready,
            serving: conditions.flag("serving")?.unwrap_or(ready),
            terminating: conditions.flag("terminating")?.unwrap_or(false),
            node: fields.text("nodeName")?.filter(|node| !node.is_empty()).map(|node| door.interner.get(node)),
            hints: hints(value, door),
        })
    }
}

fn hints(endpoint: &Value, door: &Door) -> Option<Box<Hints>> {
    let hints = endpoint.get("hints")?;
    let names = |key: &str| {
        let entries = hints.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let name = |entry: &Value| Some(door.interner.get(entry.get("name")?.as_str()?));
        let mut names: Vec<Arc<str>> = entries.iter().filter_map(name).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let hints = Hints { zones: names("forZones"), nodes: names("forNodes") };
    (!hints.zones.is_empty() || !hints.nodes.is_empty()).then(|| Box::new(hints))
}
