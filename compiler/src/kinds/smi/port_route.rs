//! TCPRoutes and UDPRoutes: ports.

use serde_json::Value;

use super::{only, spec};
use crate::kinds::{
    BadField, Meta, Names, Object, ObjectKind, ReadContext, Registration,
    read::{BadValues, Fields},
};

/// Ports of one route that are read.
const MOST_PORTS: usize = 1_024;

/// What is kept of a TCPRoute or UDPRoute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRoute {
    /// Metadata.
    pub meta: Meta,
    /// Ports of pods or Services; `None` for all.
    pub ports: Option<Box<[u16]>>,
}

/// TCPRoute of SMI. The Gateway API has another kind of this name.
pub(in crate::kinds) const TCP_ROUTE: Registration = Registration {
    kind: ObjectKind::TcpRoute,
    group: "specs.smi-spec.io",
    name: "TCPRoute",
    plural: "tcproutes",
    versions: &["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"],
    namespaced: true,
    always_served: false,
    names: Names::Subdomain,
    read: |meta, value, door, bad| PortRoute::read(meta, value, door, bad).map(Object::TcpRoute),
};

/// UDPRoute of SMI.
pub(in crate::kinds) const UDP_ROUTE: Registration = Registration {
    kind: ObjectKind::UdpRoute,
    group: "specs.smi-spec.io",
    name: "UDPRoute",
    plural: "udproutes",
    versions: &["v1alpha4"],
    namespaced: true,
    always_served: false,
    names: Names::Subdomain,
    read: |meta, value, door, bad| PortRoute::read(meta, value, door, bad).map(Object::UdpRoute),
};

impl PortRoute {
    fn read(meta: Meta, value: &Value, _: &ReadContext, bad: &mut BadValues) -> Result<Self, BadField> {
        let spec = spec(value)?;
        only(value, &spec, &["matches"])?;
        spec.not_empty("matches")?;
        let path = spec.path("matches");
        let matches = match spec.get("matches") {
            Some(Value::Array(list)) => list.iter().collect(),
            Some(one) => vec![one],
            None => Vec::new(),
        };
        let mut ports = None;
        for one in matches {
            let fields = Fields::of(one, &path)?;
            fields.only(&["name", "ports"])?;
            fields.not_empty("ports")?;
            let listed = fields.list("ports")?;
            if listed.is_empty() {
                continue;
            }
            let ports: &mut Vec<u16> = ports.get_or_insert_with(Vec::new);
            if ports.len() + listed.len() > MOST_PORTS {
                let many = BadField::new(fields.path("ports"), format!("has {} entries", ports.len() + listed.len()));
                bad.push(many.instead("the first 1024 are read", "the first 1024"));
            }
            let listed = &listed[..listed.len().min(MOST_PORTS - ports.len().min(MOST_PORTS))];
            for (index, port) in listed.iter().enumerate() {
                let number = port.as_i64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
                let wrong =
                    || BadField::wrong(format!("{}[{index}]", fields.path("ports")), port, "a number from 1 to 65535");
                ports.extend(bad.keep(number.ok_or_else(wrong), "the port is left out"));
            }
        }
        Ok(Self { meta, ports: ports.map(Vec::into_boxed_slice) })
    }

    /// Whether it is about a port of which this holds.
    pub fn has(&self, is_port: impl Fn(u16) -> bool) -> bool {
        self.ports.as_ref().is_none_or(|listed| listed.iter().any(|port| is_port(*port)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_listed_or_all() {
        for (spec, want) in [
            (json!({}), None),
            (json!({"matches": {"name": "x"}}), None),
            (json!({"matches": {"name": "x", "ports": [80, 90]}}), Some(&[80, 90][..])),
            (json!({"matches": [{"ports": [80]}, {"ports": [90]}]}), Some(&[80, 90])),
            (json!({"matches": {"ports": ["80", 90, 0]}}), Some(&[90])),
            (json!({"matches": {"ports": ["none"]}}), Some(&[])),
        ] {
            let value = json!({"metadata": {"name": "t"}, "spec": spec});
            let read = TCP_ROUTE.read(&value, &ReadContext::default()).expect("a route");
            let (Object::TcpRoute(route), _) = read else { panic!("another kind") };
            assert_eq!(route.ports.as_deref(), want, "{value}");
        }
    }

    #[test]
    fn a_blank_list_of_ports_is_not_all_of_them() {
        for spec in [
            json!({"matches": {"ports": []}}),
            json!({"matches": {"ports": null}}),
            json!({"matches": [{"ports": [80]}, {"ports": []}]}),
            json!({"matches": []}),
            json!({"matches": null}),
        ] {
            let value = json!({"metadata": {"name": "t"}, "spec": spec});
            let bad = TCP_ROUTE.read(&value, &ReadContext::default()).expect_err("no route");
            assert!(bad.to_string().contains("is empty; the object is left out"), "{value}: {bad}");
        }
    }

    #[test]
    fn so_many_ports_are_read_and_never_all() {
        let value = json!({"metadata": {"name": "t"}, "spec": {"matches": [{"ports": vec![80; 1000]}, {"ports": vec![90; 100]}]}});
        let read = TCP_ROUTE.read(&value, &ReadContext::default()).expect("a route");
        let (Object::TcpRoute(route), bad) = read else { panic!("another kind") };
        assert_eq!((route.ports.map(|ports| ports.len()), bad.len()), (Some(MOST_PORTS), 1), "{bad:?}");
    }
}
