//! What the graph holds of one Service.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use maesh_config::{
    ServiceName,
    model::{self, BackendPolicy, Endpoints, PortEndpoints, Service, ServicePort, Transport},
};
use smallvec::SmallVec;

use super::PublishedPort;
use crate::access::AccessFacts;

/// One resource that was asked for.
#[derive(Debug)]
pub(super) enum Fetched<T> {
    /// No answer yet.
    Awaited,
    /// There is none.
    Absent,
    /// Its newest version.
    Here(Arc<T>),
}

impl<T> Fetched<T> {
    pub(super) fn get(&self) -> Option<&Arc<T>> {
        match self {
            Self::Here(value) => Some(value),
            Self::Awaited | Self::Absent => None,
        }
    }

    pub(super) fn is_known(&self) -> bool {
        !matches!(self, Self::Awaited)
    }
}

/// A Service whose configuration is held.
#[derive(Debug)]
pub(super) struct GraphService {
    /// Callers use it.
    pub(super) used: bool,
    /// Other Services that callers use and that send to it.
    pub(super) senders: HashSet<ServiceName>,
    pub(super) service: Fetched<Service>,
    pub(super) endpoints: Fetched<Endpoints>,
    /// Services in whose `senders` it is.
    pub(super) linked: BTreeSet<ServiceName>,
    /// Its ports in force.
    pub(super) in_force: Option<Arc<[PublishedPort]>>,
    /// Its ports that versions in force send to. Boxed: there is mostly one, and a node of the map has room for eleven.
    pub(super) backends: BTreeMap<(u16, Transport), Box<Backend>>,
}

/// A port that versions in force send to.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) policy: Arc<BackendPolicy>,
    /// The Services whose version in force does.
    pub(super) users: SmallVec<[ServiceName; 1]>,
}

impl Default for GraphService {
    fn default() -> Self {
        Self {
            used: false,
            senders: HashSet::new(),
            service: Fetched::Awaited,
            endpoints: Fetched::Awaited,
            linked: BTreeSet::new(),
            in_force: None,
            backends: BTreeMap::new(),
        }
    }
}

impl GraphService {
    /// The Service and its endpoints are here or known absent.
    pub(super) fn is_known(&self) -> bool {
        self.service.is_known() && self.endpoints.is_known()
    }

    /// Other Services that the newest version, or the one in force, of this one (`own`) sends to. None while no caller
    /// uses it.
    pub(super) fn sends_to(&self, own: &ServiceName) -> BTreeSet<ServiceName> {
        if !self.used {
            return BTreeSet::new();
        }
        let newest = self.service.get().map(|service| service.backends()).unwrap_or_default();
        let in_force = super::backends_of(self.in_force.as_deref()).into_iter().map(|id| id.service);
        newest.into_iter().chain(in_force).filter(|service| service != own).collect()
    }

    /// The Services that its ports fall back to.
    pub(super) fn fallbacks(&self) -> Vec<ServiceName> {
        let ports = self.service.get().into_iter().flat_map(|service| &service.ports);
        ports.filter_map(|port| port.backend.fallback.as_ref()).map(|to| to.service.clone()).collect()
    }

    /// Its port of this number and transport.
    pub(super) fn port(&self, number: u16, transport: Transport) -> Option<&ServicePort> {
        port_of(self.service.get()?, number, transport)
    }

    /// The endpoints of its port of this number and transport, and who may reach them.
    pub(super) fn endpoints_of(&self, number: u16, transport: Transport) -> (Vec<model::Endpoint>, AccessFacts) {
        let mut ports = self.endpoints.get().into_iter().flat_map(|endpoints| &endpoints.ports);
        let found = ports.find(|port| port.number == number && port.protocol.transport() == transport);
        let access = |port: &PortEndpoints| AccessFacts { accounts: port.access.clone(), open: port.open };
        found.map(|port| (port.endpoints.clone(), access(port))).unwrap_or_default()
    }
}

pub(super) fn port_of(service: &Service, number: u16, transport: Transport) -> Option<&ServicePort> {
    service.ports.iter().find(|port| port.number == number && port.protocol.transport() == transport)
}
