//! Carries out what the [`Graph`] says: the only place that writes what requests read.
//!
//! A request takes no lock that is held here for longer than a moment: tables are replaced shard by shard, and everything
//! else is a snapshot.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use maesh_config::{
    Kind, ServiceName,
    model::{BackendPolicy, Endpoint as EndpointFacts, Listener, Mesh, Name, Workload},
};
use maesh_discovery::update::{Interest, Rejected, Update};

use super::{
    ActiveService, Destination, Endpoint, Locality, MeshFacts, MirrorTarget, NameFacts, Port, ServiceEntry, Shared,
    WantedResource, WeightedRoute, directory_name,
    graph::{BackendId, Effect, Event, Graph, PublishedPort, PublishedRoute},
    refused::RefusedListeners,
    runtime::Runtime,
};
use crate::{access::AccessFacts, loops::Dialable, routes::RouteIndex};

/// How long an acknowledgement waits for requests in flight on endpoints that it retires. They are never cut; but whoever
/// stops an endpoint as soon as it left should not meet requests that were about to be answered.
const SETTLE: Duration = Duration::from_millis(50);

/// What opens and closes ports.
pub(crate) trait Ports {
    /// Opens a listener, or changes what an open one serves. A failure leaves things as they were.
    fn open(&mut self, listener: &Listener) -> Result<(), NotOpened>;
    /// Closes a listener. One that is not open is ignored.
    fn close(&mut self, id: &str);
    /// The addresses that are listened on, if they changed since the last call.
    fn take_changed(&mut self) -> Option<HashSet<SocketAddr>>;
}

/// A listener could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotOpened {
    /// Why, and what to do, for people.
    pub(crate) message: String,
    /// What stands in the way may pass by itself.
    pub(crate) try_again: bool,
}

/// Applies updates of the configuration, and what the data path asks for.
pub(crate) struct Apply {
    shared: Arc<Shared>,
    interest: Interest,
    graph: Graph,
    names: HashMap<ServiceName, Arc<ServiceEntry>>,
    runtime: Arc<Runtime>,
    /// Listeners that wait for another try to open them.
    refused: RefusedListeners,
    /// Endpoints that left with requests in flight, since the last acknowledgement.
    leaving: Vec<Arc<Endpoint>>,
}

/// Changes of the tables of one batch: each shard is copied once for all of them.
#[derive(Default)]
struct Tables {
    by_name: Vec<(Box<str>, Option<Arc<ServiceEntry>>)>,
    by_address: Vec<(IpAddr, Option<Arc<ServiceEntry>>)>,
    workloads: Vec<Arc<Workload>>,
    workloads_gone: Vec<Arc<str>>,
}

impl Apply {
    /// Nothing is in force yet.
    pub(crate) fn new(shared: Arc<Shared>, interest: Interest) -> Self {
        let config = &shared.config;
        let place = Locality { node: config.node.clone(), zone: config.zone.clone() };
        // A zone that was given is not asked for.
        let node = config.node_address.filter(|_| place.zone.is_none()).map(Workload::resource_name_of);
        let dialable = Dialable::new(&config.shared, config.loopback_endpoints);
        let graph = Graph::new(place, node, dialable);
        let runtime = shared.runtime.clone();
        Self {
            shared,
            interest,
            graph,
            names: HashMap::new(),
            runtime,
            refused: RefusedListeners::default(),
            leaving: Vec::new(),
        }
    }

    /// Puts one update in force and acknowledges it.
    pub(crate) fn update(&mut self, update: Update, ports: &mut impl Ports) {
        let Update { kind, upserts, removed, complete, ack } = update;
        let set = upserts.into_iter().map(Event::Set);
        let gone = removed.into_iter().map(|name| Event::Removed(kind, name));
        // Listeners are opened before others are closed, so a port that changes its owner stays open. All else that goes
        // must not take away what is new.
        let events: Vec<Event> =
            if kind == Kind::Listener { set.chain(gone).collect() } else { gone.chain(set).collect() };
        events.into_iter().for_each(|event| self.graph.handle(event));
        if complete {
            self.graph.handle(Event::Complete(kind));
        }
        let rejected = self.carry_out(ports);
        let telemetry = &self.shared.telemetry;
        telemetry.revision.inc();
        self.shared.updated.store(self.shared.clock.seconds(), Ordering::Relaxed);
        #[allow(clippy::cast_possible_wrap)]
        telemetry.services.set(self.graph.held() as i64);
        let leaving = std::mem::take(&mut self.leaving);
        if leaving.is_empty() {
            ack.answer(rejected);
        } else {
            tokio::spawn(async move {
                settle(&leaving).await;
                ack.answer(rejected);
            });
        }
    }

    /// Gets what the data path needs and does not have.
    pub(crate) fn demand(&mut self, wanted: &WantedResource, ports: &mut impl Ports) {
        match wanted {
            WantedResource::Service(called) => {
                self.graph.handle(Event::Used(called.name.clone()));
                self.carry_out(ports);
            }
            WantedResource::Workload(address) => {
                self.interest.subscribe(Kind::Workload, Workload::resource_name_of(*address));
            }
        }
    }

    /// Tries to open the listeners again that are due. The controller is asked for those that are open now once more, and
    /// hears of them when they are acknowledged. Whether there are any.
    pub(crate) fn retry_listeners(&mut self, now: Instant, ports: &mut impl Ports) -> bool {
        let mut opened = false;
        for listener in self.refused.due(now) {
            if self.open(&listener, ports).is_ok() {
                opened = true;
                self.interest.again(Kind::Listener, listener.id.0.clone());
            }
        }
        if opened {
            self.carry_out(ports);
        }
        opened
    }

    /// Opens a listener, or notes that it is to be tried again.
    fn open(&mut self, listener: &Arc<Listener>, ports: &mut impl Ports) -> Result<(), String> {
        let id = &listener.id.0;
        let opened = ports.open(listener);
        match &opened {
            Ok(()) if self.refused.remove(id) => tracing::info!(listener = %id, "listener opened after all"),
            Ok(()) => {}
            Err(NotOpened { message, try_again: true }) => {
                let is_news = self.refused.insert(listener.clone(), message, Instant::now());
                if is_news && self.shared.config.warn_of_listeners {
                    tracing::warn!(listener = %id, error = %message, "listener not opened; trying again");
                }
            }
            Err(NotOpened { message, try_again: false }) => {
                self.refused.remove(id);
                tracing::warn!(listener = %id, error = %message, "listener not opened");
            }
        }
        self.count_refused();
        opened.map_err(|error| error.message)
    }

    fn count_refused(&self) {
        #[allow(clippy::cast_possible_wrap)]
        self.shared.telemetry.listeners_refused.set(self.refused.len() as i64);
    }

    /// Unsubscribes from Services and callers that were not used for the idle time. While no controller answers, nothing is let go
    /// of: it could not be asked for again.
    pub(crate) fn release_idle(&mut self, ports: &mut impl Ports) {
        if self.shared.is_cut_off() {
            return;
        }
        self.release_callers();
        let (shared, names) = (&self.shared, &self.names);
        let idle = |name: &&ServiceName| match names.get(*name) {
            Some(called) => {
                let is_old = shared.clock.since(called.used()) > shared.config.idle_service;
                let is_busy = is_old && called.is_busy();
                if is_busy {
                    called.touch(shared);
                }
                is_old && !is_busy
            }
            None => !self.graph.can_be_named(name),
        };
        let idle: Vec<ServiceName> = self.graph.used().filter(idle).cloned().collect();
        idle.into_iter().for_each(|name| self.graph.handle(Event::Idle(name)));
        self.carry_out(ports);
    }

    /// Lets go of callers that have not connected for the idle time and have nothing open. That of the proxy's own node stays
    /// asked for, so it stays known.
    fn release_callers(&mut self) {
        let shared = &self.shared;
        let is_used = |address: IpAddr| {
            shared.admission.is_calling(address) || self.graph.is_own_node(&Workload::resource_name_of(address))
        };
        let unused = shared.workloads.expire(&shared.clock, shared.config.idle_service, is_used);
        if !unused.is_empty() {
            // Nobody tells any more when their pods end.
            shared.access_changed();
        }
        for address in unused {
            self.interest.unsubscribe(Kind::Workload, Workload::resource_name_of(address));
        }
    }

    /// Carries out effects until there are none; returns the resources that could not be put in force.
    fn carry_out(&mut self, ports: &mut impl Ports) -> Vec<Rejected> {
        let mut rejected = Vec::new();
        loop {
            if let Some(listening) = ports.take_changed() {
                self.graph.handle(Event::Listening(listening));
            }
            let effects = self.graph.take_effects();
            if effects.is_empty() {
                return rejected;
            }
            let mut tables = Tables::default();
            for effect in effects {
                match effect {
                    Effect::Open(listener) => {
                        if let Err(message) = self.open(&listener, ports) {
                            rejected.push(Rejected { name: listener.id.0.clone(), message });
                        }
                    }
                    Effect::Close(id) => {
                        ports.close(&id);
                        self.refused.remove(&id);
                        self.count_refused();
                    }
                    effect => self.carry_out_one(effect, &mut tables),
                }
            }
            self.replace_tables(tables);
        }
    }

    fn carry_out_one(&mut self, effect: Effect, tables: &mut Tables) {
        match effect {
            Effect::Mesh(mesh) => {
                self.shared.set_mesh(MeshFacts::from(&*mesh));
            }
            Effect::Name(name) => self.set_name(&name, tables),
            Effect::NameGone(name) => self.remove_name(&name, tables),
            Effect::Workload(workload) => tables.workloads.push(workload),
            Effect::WorkloadGone(name) => tables.workloads_gone.push(name),
            Effect::SetBackend { id, policy, endpoints, access } => {
                self.set_backend(&id, policy, (&endpoints, &access));
            }
            Effect::DropBackend(id) => self.runtime.remove(&id),
            Effect::Publish(name, ports) => self.publish(&name, &ports),
            Effect::Absent(name) => {
                self.runtime.retain_called(&name, |_| false);
                if let Some(called) = self.names.get(&name) {
                    called.serving.store(None);
                    called.arrived(true);
                }
            }
            Effect::Release(name) => {
                self.runtime.retain_called(&name, |_| false);
                if let Some(called) = self.names.get(&name) {
                    called.release();
                }
            }
            Effect::Subscribe(kind, name) => self.interest.subscribe(kind, name),
            Effect::Unsubscribe(kind, name) => self.interest.unsubscribe(kind, name),
            Effect::Ready => self.shared.complete.store(true, Ordering::Release),
            // Ports are opened and closed by the caller of this function.
            Effect::Open(_) | Effect::Close(_) => {}
        }
    }

    fn set_name(&mut self, name: &Name, tables: &mut Tables) {
        let facts = NameFacts::from(name);
        let called = match self.names.get(&name.service) {
            Some(called) => {
                let old = called.facts.swap(Arc::new(facts));
                called.plain.lock().clear();
                let facts = called.facts.load();
                let gone = old.cluster_ips.iter().filter(|ip| !facts.cluster_ips.contains(ip));
                tables.by_address.extend(gone.map(|ip| (*ip, None)));
                called.clone()
            }
            None => {
                let called = Arc::new(ServiceEntry::new(name.service.clone(), facts));
                tables.by_name.push((directory_name(&name.service), Some(called.clone())));
                self.names.insert(name.service.clone(), called.clone());
                called
            }
        };
        let ips = &called.facts.load().cluster_ips;
        tables.by_address.extend(ips.iter().map(|ip| (*ip, Some(called.clone()))));
    }

    fn remove_name(&mut self, name: &ServiceName, tables: &mut Tables) {
        let Some(called) = self.names.remove(name) else { return };
        tables.by_name.push((directory_name(name), None));
        tables.by_address.extend(called.facts.load().cluster_ips.iter().map(|ip| (*ip, None)));
        called.release();
        called.arrived(true);
        self.shared.telemetry.forget(name);
    }

    fn replace_tables(&self, mut tables: Tables) {
        self.shared.directory.by_name.apply(tables.by_name);
        // An address that moved between two Services: what is gone must not take away what is new.
        tables.by_address.sort_by_key(|(_, called)| called.is_some());
        self.shared.directory.by_address.apply(tables.by_address);
        if !tables.workloads.is_empty() || !tables.workloads_gone.is_empty() {
            let now = self.shared.clock.coarse();
            self.shared.workloads.apply(&tables.workloads, &tables.workloads_gone, now);
            self.shared.access_changed();
        }
    }

    fn set_backend(&mut self, id: &BackendId, policy: Arc<BackendPolicy>, endpoints: (&[EndpointFacts], &AccessFacts)) {
        let backend = self.runtime.of(id, &policy);
        let now = self.shared.clock.coarse();
        self.leaving.extend(backend.replace(policy, endpoints, self.graph.place(), now));
        // Also endpoints alone: whose they are may be another one's.
        self.shared.access_changed();
    }

    fn publish(&mut self, name: &ServiceName, published: &[PublishedPort]) {
        let Some(called) = self.names.get(name) else { return };
        let mut ports = Vec::with_capacity(published.len());
        for port in published {
            let find = |id: &BackendId| self.runtime.get(id);
            let Some(own) = find(&port.own) else { continue };
            let destination = |to: &Destination<BackendId>| match to {
                Destination::Backend(id) => find(id).map_or(Destination::Missing, Destination::Backend),
                Destination::Missing => Destination::Missing,
                Destination::NotUnderstood => Destination::NotUnderstood,
            };
            let weighted = |route: &PublishedRoute| {
                let backends = route.backends.iter().map(|(weight, to)| (*weight, destination(to))).collect();
                WeightedRoute::new(route.rule.clone(), backends)
            };
            let mut routes: Vec<_> = port.routes.iter().map(weighted).collect();
            let rules = index(port, &mut routes);
            let mut made = Port::new(&self.shared, name, port.number, port.protocol, routes, own);
            made.rules = rules;
            made.leaving = port.leaving;
            made.own_refuses = port.own_refuses;
            made.called = port.called.clone();
            made.mirror = port.called.mirror.as_ref().and_then(|mirror| {
                let backend = port.mirror.as_ref().and_then(&find)?;
                Some(MirrorTarget { backend, share: mirror.share })
            });
            let pair = |(of, to): &(BackendId, BackendId)| Some((find(of)?, find(to)?));
            made.fallbacks = port.fallbacks.iter().filter_map(pair).collect();
            made.runtime = self.runtime.of_called(name, port.number);
            ports.push(Arc::new(made));
        }
        self.runtime.retain_called(name, |number| ports.iter().any(|port| port.number == number));
        self.shared.telemetry.retain_ports(name, |number, transport| {
            ports.iter().any(|port| port.number == number && port.protocol.transport() == transport)
        });
        called.serving.store(Some(Arc::new(ActiveService::new(ports, &self.shared.leaving))));
        called.arrived(false);
    }
}

/// The rules of a port, ready to be tried; `None` where no route has one. Requests for a rule that cannot be tried are refused,
/// and so are those for the routes behind it, which may be meant for it.
fn index(port: &PublishedPort, routes: &mut [WeightedRoute]) -> Option<RouteIndex> {
    if port.routes.iter().all(|route| route.rule.is_none()) {
        return None;
    }
    let mut rules: Vec<_> = port.routes.iter().map(|route| route.rule.as_ref()).collect();
    loop {
        match RouteIndex::new(rules.iter().copied()) {
            Ok(index) => return Some(index),
            Err(bad) => {
                rules[bad] = None;
                routes[bad] = WeightedRoute::new(None, vec![(1, Destination::NotUnderstood)]);
            }
        }
    }
}

/// Waits, for at most [`SETTLE`], until nothing is in flight on endpoints that left.
async fn settle(leaving: &[Arc<Endpoint>]) {
    let deadline = tokio::time::Instant::now() + SETTLE;
    let busy = || leaving.iter().any(|endpoint| endpoint.in_flight.load(Ordering::Relaxed) > 0);
    let mut step = tokio::time::interval(Duration::from_millis(1));
    while busy() && tokio::time::Instant::now() < deadline {
        step.tick().await;
    }
}

impl From<&Mesh> for MeshFacts {
    fn from(mesh: &Mesh) -> Self {
        Self {
            zones: mesh.zones.iter().map(|zone| format!(".{zone}").into_boxed_str()).collect(),
            cluster: format!(".svc.{}", mesh.cluster_domain.trim_end_matches('.').to_ascii_lowercase()).into(),
            access_control: mesh.access_control,
            access_sources: mesh.access_sources.clone(),
        }
    }
}

impl From<&Name> for NameFacts {
    fn from(name: &Name) -> Self {
        let cluster_ips = if name.headless { Vec::new() } else { name.plain.clone() };
        Self { cluster_ips, headless: name.headless, ports: name.ports.clone() }
    }
}

#[cfg(test)]
mod tests;
