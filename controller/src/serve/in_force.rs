//! What is in force, as far as lists and the status show it: counted as it is published, so that nobody who asks has to
//! wait for the compiler.

use std::collections::{BTreeMap, BTreeSet};

use maesh_config::{
    Change, Key, Kind, Resource, ServiceName,
    model::{AccessControl, Endpoints, Protocol, Service},
};

/// What is kept of the resources.
#[derive(Debug, Default)]
pub(super) struct InForce {
    /// Switches of the whole mesh; `None` until they are published.
    pub(super) switches: Option<Switches>,
    /// Endpoints by Service and port.
    endpoints: BTreeMap<ServiceName, Box<[PortCounts]>>,
    /// Services that have a route.
    pub(super) routed: BTreeSet<ServiceName>,
}

/// Switches of the whole mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    /// What becomes of a caller that nobody admits.
    pub access_control: AccessControl,
    /// Every name answers the plain addresses.
    pub bypass: bool,
}

/// How many endpoints a port has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortCounts {
    number: u16,
    protocol: Protocol,
    /// Those that accept new work.
    pub ready: u32,
    /// All of them.
    pub all: u32,
}

impl InForce {
    /// Takes in a change that is in force.
    pub(super) fn apply(&mut self, change: &Change) {
        change.upserts.iter().for_each(|resource| self.put(resource));
        change.removed.iter().for_each(|key| self.remove(key));
    }

    /// The endpoints of a port; `None` where nothing was said of it.
    pub(super) fn endpoints(&self, service: &ServiceName, number: u16, protocol: Protocol) -> Option<PortCounts> {
        let ports = self.endpoints.get(service)?;
        ports.iter().find(|port| (port.number, port.protocol) == (number, protocol)).copied()
    }

    fn put(&mut self, resource: &Resource) {
        match resource {
            Resource::Mesh(mesh) => {
                self.switches = Some(Switches { access_control: mesh.access_control, bypass: mesh.bypass });
            }
            Resource::Service(service) if is_routed(service) => {
                self.routed.insert(service.name.clone());
            }
            Resource::Service(service) => {
                self.routed.remove(&service.name);
            }
            Resource::Endpoints(endpoints) => {
                self.endpoints.insert(endpoints.service.clone(), counts(endpoints));
            }
            Resource::Name(_) | Resource::Listener(_) | Resource::Workload(_) | Resource::Proxy(_) => {}
        }
    }

    fn remove(&mut self, key: &Key) {
        let Ok(name) = key.name.parse::<ServiceName>() else { return };
        match key.kind {
            Kind::Service => drop(self.routed.remove(&name)),
            Kind::Endpoints => drop(self.endpoints.remove(&name)),
            _ => {}
        }
    }
}

/// Whether one of its ports has a route. One that is about to go counts no longer.
fn is_routed(service: &Service) -> bool {
    service.ports.iter().any(|port| !port.leaving && !port.routes.is_empty())
}

fn counts(endpoints: &Endpoints) -> Box<[PortCounts]> {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let of_port = |port: &maesh_config::model::PortEndpoints| PortCounts {
        number: port.number,
        protocol: port.protocol,
        ready: count(port.endpoints.iter().filter(|endpoint| endpoint.ready).count()),
        all: count(port.endpoints.len()),
    };
    endpoints.ports.iter().map(of_port).collect()
}

#[cfg(test)]
mod tests {
    use maesh_config::model::{Endpoint, PortEndpoints};

    use super::*;

    fn endpoints(ready: &[bool]) -> Resource {
        let endpoint = |(number, ready): (u16, &bool)| Endpoint {
            address: ([10, 0, 0, 1], number).into(),
            ready: *ready,
            serving: true,
            terminating: false,
            node: None,
            account: None,
            hints: None,
        };
        let endpoints = (1..).zip(ready).map(endpoint).collect();
        let port = PortEndpoints { number: 80, protocol: Protocol::Http, endpoints, access: Vec::new(), open: false };
        Resource::Endpoints(Endpoints { service: ServiceName::new("shop", "web"), ports: vec![port] })
    }

    #[test]
    fn endpoints_are_counted_until_they_are_gone() {
        let mut in_force = InForce::default();
        let web = ServiceName::new("shop", "web");
        let seen =
            |in_force: &InForce| in_force.endpoints(&web, 80, Protocol::Http).map(|counts| (counts.ready, counts.all));
        assert_eq!(seen(&in_force), None);
        for ready in [&[true, false, true][..], &[false]] {
            in_force.apply(&Change { upserts: vec![endpoints(ready)], removed: vec![] });
            let want = (ready.iter().filter(|ready| **ready).count() as u32, ready.len() as u32);
            assert_eq!(seen(&in_force), Some(want), "{ready:?}");
        }
        assert_eq!(in_force.endpoints(&web, 80, Protocol::Tcp), None);
        let gone = Change { upserts: vec![], removed: vec![Key::of_service(Kind::Endpoints, &web)] };
        in_force.apply(&gone);
        assert_eq!(seen(&in_force), None);
    }
}
