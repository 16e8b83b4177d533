//! The listeners that proxies need: one for each port number on the shared address, one for each port of an own one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ahash::AHashMap;
use maesh_config::{
    ServiceName,
    model::{Bind, Claim, Listener, ListenerId, Protocol, Transport},
};

use super::places::Listen;
use crate::plan::service::{Age, Port};

/// A listener that one Service needs, alone or with others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OwnListener {
    pub(crate) id: ListenerId,
    bind: Option<IpAddr>,
    port: u16,
    pub(crate) transport: Transport,
    pub(crate) owner: Option<(ServiceName, u16)>,
    http: bool,
    /// Its routes ask for the server name of TLS.
    names: bool,
    /// Names that the Service's rules claim here, and how old it is: the oldest one has them.
    claims: Option<(Age, Vec<Arc<str>>)>,
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
            names: port.asks_server_names(),
            claims: None,
        }
    }

    /// On a port of the proxies that leads to port `of.number` of `service` alone.
    pub(crate) fn pooled(of: Listen, service: &ServiceName, http: bool, names: bool) -> Self {
        Self {
            id: ListenerId::owned(of.listen, of.transport, service, of.number),
            bind: None,
            port: of.listen,
            transport: of.transport,
            owner: Some((service.clone(), of.number)),
            http,
            names: names && !http,
            claims: None,
        }
    }

    /// It is on the shared address, where others may be too.
    pub(crate) fn is_shared(&self) -> bool {
        self.bind.is_none() && self.owner.is_none()
    }

    /// Whether both are the same listener for the same use, whatever they claim there.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        (&self.id, &self.owner, self.http) == (&other.id, &other.owner, other.http)
    }

    /// The same without claims: a Service that leaves has none.
    pub(crate) fn without_claims(&self) -> Self {
        Self { claims: None, ..self.clone() }
    }

    /// On the shared address; `age` is that of the Service.
    pub(crate) fn shared(listen: u16, port: &Port, age: &Age) -> Self {
        Self {
            id: ListenerId::new(Bind::Shared, listen, Transport::Tcp),
            bind: None,
            port: listen,
            transport: Transport::Tcp,
            owner: None,
            http: port.protocol == Protocol::Http,
            names: false,
            claims: (!port.claims.is_empty()).then(|| (age.clone(), port.claims.clone())),
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
    /// Names of its rules here, of HTTP and of TLS.
    hosts: Vec<Arc<str>>,
    sni: Vec<Arc<str>>,
    age: Option<Age>,
}

/// A name that a Service claims and another one has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LostClaim {
    pub(crate) host: Arc<str>,
    pub(crate) by: ServiceName,
    pub(crate) has: ServiceName,
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

    /// The Service whose rules claim this host, or this server name of TLS.
    pub(crate) fn claimed_by(&self, host: &str) -> Option<&ServiceName> {
        let users = self.wanted.values().flat_map(|wanted| &wanted.by);
        let says = |needs: &ListenerUse| needs.hosts.iter().chain(&needs.sni).any(|claimed| **claimed == *host);
        let claiming = users.filter(|(_, needs)| says(needs));
        claiming.min_by(|(_, a), (_, b)| a.age.cmp(&b.age)).map(|(service, _)| service)
    }

    /// Whether a proxy that opened or failed to open `tried` has all of them behind it.
    pub(crate) fn all_tried(&self, tried: impl Fn(&ListenerId) -> bool) -> bool {
        self.wanted.keys().all(tried)
    }

    /// A listener, with the Services that own it; `None` if nobody needs it.
    pub(crate) fn get(&self, id: &ListenerId) -> Option<(Listener, Vec<ServiceName>, Vec<LostClaim>)> {
        let wanted = self.wanted.get(id)?;
        // On a shared port the many Services are not named: it is theirs together.
        let is_owned = wanted.by.values().any(|needs| needs.owner.is_some());
        let owners = if is_owned { wanted.by.keys().cloned().collect() } else { Vec::new() };
        let (listener, lost) = wanted.listener(id.clone());
        Some((listener, owners, lost))
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
        needs.tls |= (listener.owner.is_none() && !listener.http) || listener.names;
        if let Some((age, names)) = &listener.claims {
            needs.age = Some(age.clone());
            let claims = if listener.http { &mut needs.hosts } else { &mut needs.sni };
            claims.extend_from_slice(names);
        }
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
    fn listener(&self, id: ListenerId) -> (Listener, Vec<LostClaim>) {
        let (hosts, mut lost) = self.claims(|needs| &needs.hosts);
        let (sni, more) = self.claims(|needs| &needs.sni);
        lost.extend(more);
        let owner = self.by.iter().find_map(|(service, needs)| Some((service.clone(), needs.owner?)));
        let listener = Listener {
            id,
            bind: self.bind,
            port: self.port,
            transport: self.transport,
            owner,
            http: self.by.values().any(|needs| needs.http),
            tls: self.by.values().any(|needs| needs.tls),
            hosts,
            sni,
        };
        (listener, lost)
    }

    /// Who has which name: the oldest Service that claims it.
    fn claims(&self, names: impl Fn(&ListenerUse) -> &[Arc<str>]) -> (Vec<Claim>, Vec<LostClaim>) {
        let mut by_age: Vec<_> = self.by.iter().filter(|(_, needs)| needs.age.is_some()).collect();
        by_age.sort_by(|(_, a), (_, b)| a.age.cmp(&b.age));
        let (mut taken, mut lost) = (BTreeMap::<Arc<str>, ServiceName>::new(), Vec::new());
        for (service, needs) in by_age {
            for host in names(needs) {
                let has = taken.entry(host.clone()).or_insert_with(|| service.clone());
                if has != service {
                    lost.push(LostClaim { host: host.clone(), by: service.clone(), has: has.clone() });
                }
            }
        }
        (taken.into_iter().map(|(host, service)| Claim { host, service }).collect(), lost)
    }
}
