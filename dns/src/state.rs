//! Turns the discovery stream into snapshots.
//!
//! One task owns the tables, applies every update that is waiting, publishes one snapshot, and only then says that they
//! are in force. Whatever the stream does, the last good state keeps being served.

mod keeper;

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
pub(crate) use keeper::UpdateTask;
use maesh_config::{
    Kind, NodeName, Resource, ServiceName,
    model::{Mesh, Name, Proxy, Workload, WorkloadKind},
};
use maesh_discovery::update::{Rejected, Update};

use crate::{
    intern::Interner,
    locality::{AddressNode, AddressNodes},
    proxies::{Proxies, Target},
    snapshot::{ProxyRecord, Snapshot},
    zone::{self, Addresses, NameAnswer, ZoneContent, ZoneEntry},
};

/// The kinds without which nothing can be answered.
const NEEDED: [Kind; 4] = [Kind::Mesh, Kind::Name, Kind::Workload, Kind::Proxy];

/// A proxy of the stream, with the numbers of its node and its set of ports.
#[derive(Debug)]
pub(crate) struct KnownProxy {
    /// What the stream says.
    pub(crate) proxy: Arc<Proxy>,
    target: Target,
}

impl KnownProxy {
    fn member(&self, dead: &HashSet<Arc<str>>) -> ProxyRecord {
        ProxyRecord { proxy: self.proxy.clone(), target: self.target.clone(), dead: dead.contains(&self.proxy.id) }
    }
}

/// The tables behind the snapshots.
#[derive(Debug)]
pub(crate) struct State {
    published: Arc<ArcSwap<Snapshot>>,
    content: ZoneContent,
    places: AddressNodes,
    mesh: Option<Mesh>,
    nodes: Interner<NodeName>,
    /// Sets of ports that names need.
    sets: Interner<Arc<[u16]>>,
    /// Sets of ports that proxies listen on.
    classes: Interner<Arc<[u16]>>,
    proxies: BTreeMap<Arc<str>, KnownProxy>,
    /// Nodes on which our own probes reach no proxy, or reached none not long ago; sorted, and their numbers held.
    stranded: Arc<[u32]>,
    /// Proxies that our own probes do not reach.
    dead: HashSet<Arc<str>>,
    /// Those that were ready when last any was.
    last_ready: Arc<[Target]>,
    complete: HashSet<Kind>,
    /// Proxies must be worked out again.
    stale: bool,
    current: Arc<Proxies>,
    members: Arc<[ProxyRecord]>,
}

impl State {
    /// Empty tables that will be published to `published`.
    pub(crate) fn new(published: Arc<ArcSwap<Snapshot>>) -> Self {
        Self {
            published,
            content: ZoneContent::default(),
            places: AddressNodes::default(),
            mesh: None,
            nodes: Interner::default(),
            sets: Interner::default(),
            classes: Interner::default(),
            proxies: BTreeMap::new(),
            stranded: Arc::default(),
            dead: HashSet::new(),
            last_ready: Arc::default(),
            complete: HashSet::new(),
            stale: true,
            current: Arc::default(),
            members: Arc::default(),
        }
    }

    /// Applies one update to the tables; returns what cannot be applied. Nothing is seen of it before
    /// [`State::publish`].
    pub(crate) fn apply(&mut self, update: &Update) -> Vec<Rejected> {
        let mut rejected = Vec::new();
        for resource in &update.upserts {
            if let Err(message) = self.upsert(resource) {
                rejected.push(Rejected { name: resource.key().name, message });
            }
        }
        for name in &update.removed {
            self.remove(update.kind, name);
        }
        if update.complete {
            self.complete.insert(update.kind);
        }
        rejected
    }

    /// Sets which proxies our own probes do not reach; whether that changes anything. With `still`, nodes stay stranded
    /// that are: their kube-proxies have not had the time yet to hear of an outage before.
    pub(crate) fn set_dead(&mut self, dead: HashSet<Arc<str>>, still: bool) -> bool {
        let changed = self.dead != dead;
        self.stale |= changed;
        self.dead = dead;
        let mut stranded = self.without_a_proxy();
        if still {
            stranded.extend_from_slice(&self.stranded);
        }
        changed | self.set_stranded(stranded)
    }

    /// Forgets which proxies our own probes did not reach, because the stream has had the time to say what holds now;
    /// whether that changes anything.
    pub(crate) fn forget_dead(&mut self) -> bool {
        self.stale |= !self.dead.is_empty();
        self.dead = HashSet::new();
        self.stale
    }

    /// Forgets on which nodes, because their kube-proxies have had the time to hear what holds now: those stay whose
    /// proxies are dead at this moment. Whether that changes anything.
    pub(crate) fn forget_stranded(&mut self) -> bool {
        let stranded = self.without_a_proxy();
        self.set_stranded(stranded)
    }

    /// These nodes are stranded, and no others. A number that is held is not given to a new node.
    fn set_stranded(&mut self, mut nodes: Vec<u32>) -> bool {
        nodes.sort_unstable();
        nodes.dedup();
        nodes.iter().for_each(|node| self.nodes.hold(*node));
        let before = std::mem::replace(&mut self.stranded, nodes.into());
        before.iter().for_each(|node| self.nodes.release(*node));
        before != self.stranded
    }

    /// Nodes whose ready proxies are all dead.
    fn without_a_proxy(&self) -> Vec<u32> {
        let ready = || self.proxies.values().filter(|known| known.proxy.ready);
        let (dead, alive): (Vec<_>, Vec<_>) = ready().partition(|known| self.dead.contains(&known.proxy.id));
        let mut nodes: Vec<u32> = dead.iter().map(|known| known.target.node).collect();
        nodes.retain(|node| alive.iter().all(|known| known.target.node != *node));
        nodes
    }

    /// The proxies of the stream.
    pub(crate) fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        self.proxies.values().map(|known| &*known.proxy)
    }

    /// Makes everything applied so far visible to queries from `now` on.
    pub(crate) fn publish(&mut self, now: Instant) {
        if std::mem::take(&mut self.stale) {
            self.current = Arc::new(self.compute_proxies());
            self.members = self.proxies.values().map(|known| known.member(&self.dead)).collect();
        }
        let before = self.published.load();
        let (bypass, plain_allowed) = self
            .mesh
            .as_ref()
            .map_or((false, false), |mesh| (mesh.bypass, mesh.fail_to_plain && !mesh.access_control.denies()));
        self.published.store(Arc::new(Snapshot {
            synced: self.synced(),
            revision: before.revision.wrapping_add(1),
            made: now,
            content: self.content.clone(),
            places: self.places.clone(),
            proxies: self.current.clone(),
            members: self.members.clone(),
            name_server: before.name_server.clone(),
            bypass,
            plain_allowed,
            plain_everywhere: plain_allowed && self.current.collapsed(),
            stranded: if plain_allowed { self.stranded.clone() } else { Arc::default() },
        }));
    }

    /// Everything needed has been delivered in full once.
    pub(crate) fn synced(&self) -> bool {
        self.mesh.is_some() && NEEDED.iter().all(|kind| self.complete.contains(kind))
    }

    fn compute_proxies(&mut self) -> Proxies {
        let ready = |known: &&KnownProxy| known.proxy.ready && !self.dead.contains(&known.proxy.id);
        let ready: Vec<Target> = self.proxies.values().filter(ready).map(|known| known.target.clone()).collect();
        let last = if !ready.is_empty() {
            self.last_ready = ready.as_slice().into();
            Arc::default()
        } else if !self.last_ready.is_empty() {
            self.last_ready.clone()
        } else {
            self.proxies.values().map(|known| known.target.clone()).collect()
        };
        let classes: Vec<_> = self.classes.iter().map(|(number, ports)| (number, &**ports)).collect();
        let sets = self.sets.iter().map(|(number, ports)| (number, &**ports));
        Proxies::new(ready, self.proxies.len(), last, sets, &classes)
    }

    fn upsert(&mut self, resource: &Resource) -> Result<(), String> {
        match resource {
            Resource::Mesh(mesh) => self.set_mesh(mesh),
            Resource::Name(name) => self.set_name(name).map_err(|bad| bad.to_string()),
            Resource::Workload(workload) => self.set_workload(workload),
            Resource::Proxy(proxy) => {
                self.set_proxy(proxy);
                Ok(())
            }
            // Not for us; a stream that delivers it does no harm.
            Resource::Listener(_) | Resource::Service(_) | Resource::Endpoints(_) => Ok(()),
        }
    }

    fn remove(&mut self, kind: Kind, name: &Arc<str>) {
        match kind {
            Kind::Name => {
                if let Ok(service) = name.parse() {
                    self.remove_name(&service);
                }
            }
            Kind::Workload => self.remove_workload(name),
            Kind::Proxy => self.remove_proxy(name),
            // Without its settings the mesh keeps those it had.
            Kind::Mesh | Kind::Listener | Kind::Service | Kind::Endpoints => {}
        }
    }

    fn set_mesh(&mut self, mesh: &Mesh) -> Result<(), String> {
        if mesh.zones.is_empty() {
            return Err("the mesh has no zone to answer for; keeping the zones it had".to_owned());
        }
        let mut zones: Vec<_> = mesh.zones.iter().map(zone::wire_of).collect();
        zones.sort_by_key(|zone| std::cmp::Reverse(zone.len()));
        self.content.zones = zones.into();
        self.mesh = Some(mesh.clone());
        Ok(())
    }

    fn set_name(&mut self, name: &Name) -> Result<(), zone::BadName> {
        let (key, namespace) = zone::key(&name.service)?;
        let ports = zone::listen_ports(name);
        self.stale |= !self.sets.contains(&ports);
        let set = self.sets.acquire(&ports);
        let entry = ZoneEntry::new(name, set);
        if !matches!(entry.how, NameAnswer::Node(_)) {
            self.sets.release(set);
        }
        let old = self.content.services.insert(key, Arc::new(entry));
        match old.as_deref() {
            Some(ZoneEntry { how: NameAnswer::Node(set), .. }) => self.sets.release(*set),
            Some(_) => {}
            None => {
                let count = self.content.namespaces.get(&*namespace).copied().unwrap_or(0);
                self.content.namespaces.insert(namespace, count + 1);
            }
        }
        Ok(())
    }

    fn remove_name(&mut self, service: &ServiceName) {
        let Ok((key, namespace)) = zone::key(service) else { return };
        let Some(old) = self.content.services.remove(&*key) else { return };
        if let NameAnswer::Node(set) = old.how {
            self.sets.release(set);
        }
        match self.content.namespaces.get(&*namespace).copied() {
            Some(count) if count > 1 => {
                self.content.namespaces.insert(namespace, count - 1);
            }
            _ => {
                self.content.namespaces.remove(&*namespace);
            }
        }
    }

    fn set_workload(&mut self, workload: &Workload) -> Result<(), String> {
        let node = match (&workload.node, workload.kind) {
            (Some(node), _) => Some(node.clone()),
            (None, WorkloadKind::Node) => Some(NodeName(workload.name.clone())),
            (None, _) => None,
        };
        if workload.kind == WorkloadKind::PodRange {
            let Some(node) = node else {
                return Err(format!(
                    "the range {} names no node; callers from it are of unknown node",
                    workload.address
                ));
            };
            let number = self.nodes.acquire(&node);
            if let Some(old) = self.places.set_range(workload.address, number) {
                self.nodes.release(old);
            }
            return Ok(());
        }
        let place = match (workload.kind, node) {
            (WorkloadKind::Resolver, _) => AddressNode::RESOLVER,
            (_, Some(node)) => AddressNode::node(self.nodes.acquire(&node)),
            (_, None) => AddressNode::NOWHERE,
        };
        if let Some(old) = self.places.set(workload.address.addr(), place).and_then(AddressNode::on) {
            self.nodes.release(old);
        }
        Ok(())
    }

    fn remove_workload(&mut self, name: &str) {
        let old = if let Ok(address) = name.parse::<IpAddr>() {
            self.places.unset(address).and_then(AddressNode::on)
        } else if let Ok(range) = name.parse::<IpNet>() {
            self.places.unset_range(range)
        } else {
            None
        };
        if let Some(node) = old {
            self.nodes.release(node);
        }
    }

    fn set_proxy(&mut self, proxy: &Proxy) {
        // What is said of it now is newer than what our probes found.
        self.dead.remove(&proxy.id);
        let addresses = Addresses::new(&proxy.addresses);
        let mut listening = proxy.listening.clone();
        listening.sort_unstable();
        let target = Target {
            node: self.nodes.acquire(&proxy.node),
            class: self.classes.acquire(&listening.into()),
            v4: addresses.v4.first().copied(),
            v6: addresses.v6.first().copied(),
        };
        let old = self.proxies.insert(proxy.id.clone(), KnownProxy { proxy: Arc::new(proxy.clone()), target });
        self.release_proxy(old);
    }

    fn remove_proxy(&mut self, id: &str) {
        let old = self.proxies.remove(id);
        self.release_proxy(old);
    }

    fn release_proxy(&mut self, old: Option<KnownProxy>) {
        if let Some(KnownProxy { target, .. }) = old {
            self.nodes.release(target.node);
            self.classes.release(target.class);
        }
        self.stale = true;
    }
}

#[cfg(test)]
mod tests;
