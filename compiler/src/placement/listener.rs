//! The listeners that proxies need: one for each port number on the shared address, one for each port of an own one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ahash::AHashMap;
use maesh_config::{
    ServiceName,
    model::{Bind, Listener, ListenerId, Protocol, Transport},
};

use super::places::Listen;
use crate::plan::service::Port;

/// A listener that one Service needs, alone or with others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OwnListener {
    pub(crate) id: ListenerId,
    bind: Option<IpAddr>,
    port: u16,
    pub(crate) transport: Transport,
    pub(crate) owner: Option<(ServiceName, u16)>,
    http: bool,
}

impl OwnListener {
    /// On an address that is the Service's alone.
    pub(crate) fn own(address: IpAddr, listen: u16, service: &ServiceName, port: &Port) -> Self {
        let transport = port.protocol.transport();
        Self {
            id: ListenerId::new(Bind::Address(address), listen, transport),
            bind: Some(address),
            port: listen,
            transport,
            owner: Some((service.clone(), port.number)),
            http: port.protocol == Protocol::Http,
        }
    }

    /// On a port of the proxies that leads to port `of.number` of `service` alone.
    pub(crate) fn pooled(of: Listen, service: &ServiceName, http: bool) -> Self {
        Self {
            id: ListenerId::owned(of.listen, of.transport, service, of.number),
            bind: None,
            port: of.listen,
            transport: of.transport,
            owner: Some((service.clone(), of.number)),
            http,
        }
    }

    /// It is on the shared address, where others may be too.
    pub(crate) fn is_shared(&self) -> bool {
        self.bind.is_none() && self.owner.is_none()
    }

    /// On the shared address.
    pub(crate) fn shared(listen: u16, port: &Port) -> Self {
        Self {
            id: ListenerId::new(Bind::Shared, listen, Transport::Tcp),
            bind: None,
            port: listen,
            transport: Transport::Tcp,
            owner: None,
            http: port.protocol == Protocol::Http,
        }
    }
}

/// Who needs a listener, and for what.
#[derive(Debug)]
struct ListenerUsers {
    bind: Bind,
    port: u16,
    transport: Transport,
    /// By Service: what it owns here, and whether it needs HTTP and TLS.
    by: BTreeMap<ServiceName, ListenerUse>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ListenerUse {
    owner: Option<u16>,
    http: bool,
    tls: bool,
}

/// All listeners.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    wanted: BTreeMap<ListenerId, ListenerUsers>,
    of: AHashMap<ServiceName, Vec<OwnListener>>,
}

impl Listeners {
    /// Replaces the listeners that `service` needs. Returns those that it needs or needed, if that changed.
    pub(crate) fn set(&mut self, service: &ServiceName, mut listeners: Vec<OwnListener>) -> BTreeSet<ListenerId> {
        listeners.sort_unstable();
        let old = self.of.remove(service).unwrap_or_default();
        let mut changed = BTreeSet::new();
        if old != listeners {
            for listener in &old {
                self.drop(service, listener);
            }
            for listener in &listeners {
                self.add(service, listener);
            }
            changed.extend(old.iter().chain(&listeners).map(|listener| listener.id.clone()));
        }
        if !listeners.is_empty() {
            self.of.insert(service.clone(), listeners);
        }
        changed
    }

    /// The listeners that `service` needs.
    pub(crate) fn of(&self, service: &ServiceName) -> impl Iterator<Item = &OwnListener> {
        self.of.get(service).into_iter().flatten()
    }

    /// Whether a proxy that opened or failed to open `tried` has all of them behind it.
    pub(crate) fn all_tried(&self, tried: impl Fn(&ListenerId) -> bool) -> bool {
        self.wanted.keys().all(tried)
    }

    /// A listener, with the Services that own it; `None` if nobody needs it.
    pub(crate) fn get(&self, id: &ListenerId) -> Option<(Listener, Vec<ServiceName>)> {
        let wanted = self.wanted.get(id)?;
        // On a shared port the many Services are not named: it is theirs together.
        let is_owned = wanted.by.values().any(|needs| needs.owner.is_some());
        let owners = if is_owned { wanted.by.keys().cloned().collect() } else { Vec::new() };
        Some((wanted.listener(id.clone()), owners))
    }

    fn add(&mut self, service: &ServiceName, listener: &OwnListener) {
        let wanted = self.wanted.entry(listener.id.clone()).or_insert_with(|| ListenerUsers {
            bind: listener.bind.map_or(Bind::Shared, Bind::Address),
            port: listener.port,
            transport: listener.transport,
            by: BTreeMap::new(),
        });
        let needs = wanted.by.entry(service.clone()).or_default();
        needs.owner = needs.owner.or_else(|| listener.owner.as_ref().map(|owner| owner.1));
        needs.http |= listener.http;
        needs.tls |= listener.owner.is_none() && !listener.http;
    }

    fn drop(&mut self, service: &ServiceName, listener: &OwnListener) {
        if let Some(wanted) = self.wanted.get_mut(&listener.id) {
            wanted.by.remove(service);
            if wanted.by.is_empty() {
                self.wanted.remove(&listener.id);
            }
        }
    }
}

impl ListenerUsers {
    fn listener(&self, id: ListenerId) -> Listener {
        let owner = self.by.iter().find_map(|(service, needs)| Some((service.clone(), needs.owner?)));
        Listener {
            id,
            bind: self.bind,
            port: self.port,
            transport: self.transport,
            owner,
            http: self.by.values().any(|needs| needs.http),
            tls: self.by.values().any(|needs| needs.tls),
            hosts: Vec::new(),
            sni: Vec::new(),
        }
    }
}
