//! The listeners that proxies need: one for each port number on the shared address, one for each port of an own one.

use std::{collections::BTreeMap, net::IpAddr};

use ahash::{AHashMap, AHashSet};
use maesh_config::{
    ServiceName,
    model::{Bind, Listener, ListenerId, Protocol, Transport},
};

use super::places::Listen;
use crate::plan::service::Port;

/// A listener that one Service needs, alone or with others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OwnListener {
    pub(super) id: ListenerId,
    bind: Option<IpAddr>,
    port: u16,
    pub(super) transport: Transport,
    pub(super) owner: Option<(ServiceName, u16)>,
    http: bool,
}

impl OwnListener {
    /// On an address that is the Service's alone.
    pub(super) fn own(address: IpAddr, listen: u16, service: &ServiceName, port: &Port) -> Self {
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
    pub(super) fn pooled(of: Listen, service: &ServiceName, http: bool) -> Self {
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
    pub(super) fn is_shared(&self) -> bool {
        self.bind.is_none() && self.owner.is_none()
    }

    /// On the shared address.
    pub(super) fn shared(listen: u16, port: &Port) -> Self {
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
struct Wanted {
    bind: Bind,
    port: u16,
    transport: Transport,
    /// By Service: what it owns here, and whether it needs HTTP and TLS.
    by: BTreeMap<ServiceName, Needs>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Needs {
    owner: Option<u16>,
    http: bool,
    tls: bool,
}

/// All listeners.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    wanted: BTreeMap<ListenerId, Wanted>,
    of: AHashMap<ServiceName, Vec<OwnListener>>,
    changed: AHashSet<ListenerId>,
}

impl Listeners {
    /// Replaces the listeners that `service` needs.
    pub(super) fn set(&mut self, service: &ServiceName, mut listeners: Vec<OwnListener>) {
        listeners.sort_unstable();
        let old = self.of.remove(service).unwrap_or_default();
        if old != listeners {
            for listener in &old {
                self.drop(service, listener);
            }
            for listener in &listeners {
                self.add(service, listener);
            }
        }
        if !listeners.is_empty() {
            self.of.insert(service.clone(), listeners);
        }
    }

    /// The listeners that `service` needs.
    pub(super) fn of(&self, service: &ServiceName) -> impl Iterator<Item = &OwnListener> {
        self.of.get(service).into_iter().flatten()
    }

    /// Whether a proxy that opened or failed to open `tried` has all of them behind it.
    pub(super) fn all_tried(&self, tried: impl Fn(&ListenerId) -> bool) -> bool {
        self.wanted.keys().all(tried)
    }

    /// The Services that need a listener.
    pub(super) fn needed_by(&self, id: &ListenerId) -> impl Iterator<Item = &ServiceName> {
        self.wanted.get(id).into_iter().flat_map(|wanted| wanted.by.keys())
    }

    /// Listeners that changed since the last call, with the Services that need them; `None` for those gone.
    pub(super) fn changes(&mut self) -> Vec<(ListenerId, Option<Listener>, Vec<ServiceName>)> {
        let changed = std::mem::take(&mut self.changed);
        let now = |id: ListenerId| {
            let wanted = self.wanted.get(&id);
            // On a shared port the many Services are not named: it is theirs together.
            let is_owned = |wanted: &&Wanted| wanted.by.values().any(|needs| needs.owner.is_some());
            let owners = wanted.filter(is_owned).map_or_else(Vec::new, |wanted| wanted.by.keys().cloned().collect());
            let listener = wanted.map(|wanted| wanted.listener(id.clone()));
            (id, listener, owners)
        };
        changed.into_iter().map(now).collect()
    }

    fn add(&mut self, service: &ServiceName, listener: &OwnListener) {
        let wanted = self.wanted.entry(listener.id.clone()).or_insert_with(|| Wanted {
            bind: listener.bind.map_or(Bind::Shared, Bind::Address),
            port: listener.port,
            transport: listener.transport,
            by: BTreeMap::new(),
        });
        let needs = wanted.by.entry(service.clone()).or_default();
        needs.owner = needs.owner.or_else(|| listener.owner.as_ref().map(|owner| owner.1));
        needs.http |= listener.http;
        needs.tls |= listener.owner.is_none() && !listener.http;
        self.changed.insert(listener.id.clone());
    }

    fn drop(&mut self, service: &ServiceName, listener: &OwnListener) {
        if let Some(wanted) = self.wanted.get_mut(&listener.id) {
            wanted.by.remove(service);
            if wanted.by.is_empty() {
                self.wanted.remove(&listener.id);
            }
        }
        self.changed.insert(listener.id.clone());
    }
}

impl Wanted {
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
