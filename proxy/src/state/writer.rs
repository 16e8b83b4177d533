//! The one task that writes: applies the discovery stream, and asks for what callers use.
//!
//! A Service takes effect only when the Service and the endpoints of every backend it sends to are here or known
//! absent; until then the version before goes on serving. Endpoints take effect at once.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use maesh_config::{
    Kind, Resource, ServiceName,
    model::{Endpoints, Mesh, Name, PortEndpoints, Protocol, Service, ServicePort, Workload},
};
use maesh_discovery::update::{Interest, Rejected, Update};

use super::{
    BackendPort, Called, Endpoint, MeshFacts, NameFacts, Place, Port, Serving, Shared, Wanted, Weighted, demand,
    directory_name,
};
use crate::{listener::Listeners, loops::Dialable};

/// How long an acknowledgement waits for requests in flight on endpoints that it retires. They are never cut; but who
/// stops an endpoint as soon as it left should not meet requests that were a moment from their answer.
const SETTLE: Duration = Duration::from_millis(50);

/// One resource that was asked for.
enum Fetched<T> {
    /// No answer yet.
    Awaited,
    /// There is none.
    Absent,
    /// Its newest version.
    Here(Arc<T>),
}

impl<T> Fetched<T> {
    fn get(&self) -> Option<&Arc<T>> {
        match self {
            Self::Here(value) => Some(value),
            Self::Awaited | Self::Absent => None,
        }
    }

    fn known(&self) -> bool {
        !matches!(self, Self::Awaited)
    }
}

/// A Service whose configuration is held, because callers use it or because a used one sends to it.
struct Held {
    called: bool,
    senders: HashSet<ServiceName>,
    service: Fetched<Service>,
    endpoints: Fetched<Endpoints>,
    backends: HashMap<u16, Arc<BackendPort>>,
    /// What its version in force sends to.
    sends_to: Vec<ServiceName>,
    /// A newer version than the one in force is here.
    pending: bool,
}

impl Held {
    fn new() -> Self {
        Self {
            called: false,
            senders: HashSet::new(),
            service: Fetched::Awaited,
            endpoints: Fetched::Awaited,
            backends: HashMap::new(),
            sends_to: Vec::new(),
            pending: false,
        }
    }
}

/// Applies updates and demands.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    interest: Interest,
    listeners: Listeners,
    place: Place,
    /// The node's own workload, where that is asked for its zone.
    node: Option<Arc<str>>,
    names: HashMap<Arc<str>, Arc<Called>>,
    held: HashMap<ServiceName, Held>,
    complete: HashSet<Kind>,
    leaving: Vec<Arc<Endpoint>>,
}

impl Writer {
    /// A writer that has seen nothing.
    pub(crate) fn new(shared: Arc<Shared>, interest: Interest, listeners: Listeners) -> Self {
        let config = &shared.config;
        let place = Place { node: config.node.clone(), zone: config.zone.clone() };
        // A zone that was given is not asked for.
        let node = config.node_address.filter(|_| place.zone.is_none()).map(Workload::resource_name_of);
        if let Some(node) = &node {
            interest.subscribe(Kind::Workload, node.clone());
        }
        Self {
            place,
            node,
            shared,
            interest,
            listeners,
            names: HashMap::new(),
            held: HashMap::new(),
            complete: HashSet::new(),
            leaving: Vec::new(),
        }
    }

    /// The listeners it opens and closes.
    pub(crate) fn listeners(&mut self) -> &mut Listeners {
        &mut self.listeners
    }

    /// Puts one update in force and answers it.
    pub(crate) async fn apply(&mut self, update: Update) {
        let Update { kind, upserts, removed, complete, ack } = update;
        let rejected = match kind {
            Kind::Mesh => self.apply_mesh(&upserts),
            Kind::Name => self.apply_names(&upserts, &removed),
            Kind::Listener => self.apply_listeners(&upserts, &removed),
            Kind::Service => self.apply_services(&upserts, &removed),
            Kind::Endpoints => self.apply_endpoints(&upserts, &removed),
            Kind::Workload => self.apply_workloads(&upserts, &removed),
            // Where other proxies are is no concern of a proxy.
            Kind::Proxy => Vec::new(),
        };
        if complete {
            self.complete.insert(kind);
            if [Kind::Mesh, Kind::Name, Kind::Listener].iter().all(|kind| self.complete.contains(kind)) {
                self.shared.complete.store(true, Ordering::Release);
            }
        }
        self.shared.telemetry.revision.inc();
        #[allow(clippy::cast_possible_wrap)]
        self.shared.telemetry.services.set(self.held.len() as i64);
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

    fn apply_mesh(&mut self, upserts: &[Arc<Resource>]) -> Vec<Rejected> {
        for resource in upserts {
            let Resource::Mesh(mesh) = &**resource else { continue };
            self.shared.mesh.store(Arc::new(MeshFacts::from(mesh)));
        }
        Vec::new()
    }

    fn apply_names(&mut self, upserts: &[Arc<Resource>], removed: &[Arc<str>]) -> Vec<Rejected> {
        let mut by_name = Vec::new();
        let mut by_address = Vec::new();
        let mut new = Vec::new();
        for name in removed {
            let Some(called) = self.names.remove(name) else { continue };
            by_name.push((directory_name(&called.name), None));
            by_address.extend(called.facts.load().cluster_ips.iter().map(|ip| (*ip, None)));
            self.let_go(&called.name);
            called.release();
            called.arrived(true);
            self.shared.telemetry.retain_ports(&called.name, |_| false);
        }
        for resource in upserts {
            let Resource::Name(name) = &**resource else { continue };
            let facts = NameFacts::from(name);
            let key: Arc<str> = name.service.to_string().into();
            let called = match self.names.get(&key) {
                Some(called) => {
                    let old = called.facts.swap(Arc::new(facts));
                    called.plain.lock().clear();
                    let facts = called.facts.load();
                    by_address.extend(
                        old.cluster_ips.iter().filter(|ip| !facts.cluster_ips.contains(ip)).map(|ip| (*ip, None)),
                    );
                    called.clone()
                }
                None => {
                    let called = Arc::new(Called::new(name.service.clone(), facts));
                    by_name.push((directory_name(&name.service), Some(called.clone())));
                    self.names.insert(key, called.clone());
                    new.push(name.service.clone());
                    called
                }
            };
            by_address.extend(called.facts.load().cluster_ips.iter().map(|ip| (*ip, Some(called.clone()))));
        }
        self.shared.directory.by_name.apply(by_name);
        // An address that moved between two Services: what is gone must not take away what is new.
        by_address.sort_by_key(|(_, called)| called.is_some());
        self.shared.directory.by_address.apply(by_address);
        // Kept over a restart, with the configuration before the name.
        for name in &new {
            self.activate(name);
        }
        Vec::new()
    }

    fn apply_listeners(&mut self, upserts: &[Arc<Resource>], removed: &[Arc<str>]) -> Vec<Rejected> {
        // Opened before others are closed: a port that changes its owner stays open.
        let mut rejected = Vec::new();
        for resource in upserts {
            let Resource::Listener(listener) = &**resource else { continue };
            if let Err(error) = self.listeners.open(listener) {
                tracing::warn!(listener = %listener.id, %error, "listener not opened");
                rejected.push(Rejected { name: listener.id.0.clone(), message: error.to_string() });
            }
        }
        for id in removed {
            self.listeners.close(id);
        }
        // What the proxy listens on is no endpoint of anybody.
        if self.listeners.take_changed() {
            self.refresh_all();
        }
        rejected
    }

    fn apply_services(&mut self, upserts: &[Arc<Resource>], removed: &[Arc<str>]) -> Vec<Rejected> {
        let mut touched = Vec::new();
        for name in removed.iter().filter_map(|name| name.parse::<ServiceName>().ok()) {
            let held = self.told(&name);
            held.service = Fetched::Absent;
            held.pending = true;
            touched.push(name);
        }
        for resource in upserts {
            let Resource::Service(service) = &**resource else { continue };
            let held = self.told(&service.name);
            held.service = Fetched::Here(Arc::new(service.clone()));
            held.pending = true;
            touched.push(service.name.clone());
        }
        for name in &touched {
            self.refresh_backends(name);
            self.fetch_backends(name);
            self.activate(name);
        }
        Vec::new()
    }

    fn apply_endpoints(&mut self, upserts: &[Arc<Resource>], removed: &[Arc<str>]) -> Vec<Rejected> {
        let mut touched = Vec::new();
        for name in removed.iter().filter_map(|name| name.parse::<ServiceName>().ok()) {
            self.told(&name).endpoints = Fetched::Absent;
            touched.push(name);
        }
        for resource in upserts {
            let Resource::Endpoints(endpoints) = &**resource else { continue };
            self.told(&endpoints.service).endpoints = Fetched::Here(Arc::new(endpoints.clone()));
            touched.push(endpoints.service.clone());
        }
        for name in &touched {
            self.refresh_backends(name);
            self.activate(name);
        }
        Vec::new()
    }

    fn apply_workloads(&mut self, upserts: &[Arc<Resource>], removed: &[Arc<str>]) -> Vec<Rejected> {
        let workload = |resource: &Arc<Resource>| match &**resource {
            Resource::Workload(workload) => Some(workload.clone()),
            _ => None,
        };
        let upserts: Vec<Workload> = upserts.iter().filter_map(workload).collect();
        self.shared.workloads.apply(&upserts, removed, self.shared.clock.coarse());
        let is_node = |workload: &&Workload| self.node.as_ref().is_some_and(|node| *node == workload.resource_name());
        // A node that is gone, or of which an older controller says no zone, has not moved.
        if let Some(zone) = upserts.iter().rfind(is_node).and_then(|node| node.zone.clone()) {
            self.move_to(zone);
        }
        Vec::new()
    }

    /// The proxy is in this zone.
    fn move_to(&mut self, zone: Arc<str>) {
        if self.place.zone.replace(zone.clone()).is_some_and(|before| before == zone) {
            return;
        }
        self.refresh_all();
    }

    fn refresh_all(&mut self) {
        let held: Vec<ServiceName> = self.held.keys().cloned().collect();
        held.iter().for_each(|name| self.refresh_backends(name));
    }

    /// The data path needs what it does not have.
    pub(crate) fn demand(&mut self, wanted: &Wanted) {
        match wanted {
            Wanted::Service(called) => self.demand_service(called),
            Wanted::Workload(address) => {
                self.interest.subscribe(Kind::Workload, Workload::resource_name_of(*address));
            }
        }
    }

    /// A caller used this Service for the first time.
    fn demand_service(&mut self, called: &Arc<Called>) {
        self.hold(&called.name).called = true;
        self.fetch_backends(&called.name);
        self.activate(&called.name);
    }

    /// Unsubscribes from Services and callers that were not used for the idle time.
    pub(crate) fn release_idle(&mut self) {
        self.release_callers();
        self.release_services();
    }

    fn release_callers(&mut self) {
        let shared = &self.shared;
        for address in shared.workloads.expire(&shared.clock, shared.config.idle_service) {
            let name = Workload::resource_name_of(address);
            if self.node.as_ref() != Some(&name) {
                self.interest.unsubscribe(Kind::Workload, name);
            }
        }
    }

    fn release_services(&mut self) {
        let shared = &self.shared;
        let idle = |called: &Called| shared.clock.since(called.used()) > shared.config.idle_service;
        let of = |name: &ServiceName| self.names.get(name.to_string().as_str()).cloned();
        let called = self.held.iter().filter(|(_, held)| held.called).map(|(name, _)| (name.clone(), of(name)));
        // Nobody can call what has no name, once all of them are here.
        let nameless = self.complete.contains(&Kind::Name);
        let unused: Vec<_> = called.filter(|(_, called)| called.as_ref().map_or(nameless, |it| idle(it))).collect();
        for (name, called) in unused {
            if let Some(called) = called {
                called.release();
            }
            self.let_go(&name);
        }
    }

    /// A Service that there is news of. What was not asked for was kept over a restart: it will not be sent again, so it
    /// is held like one in use, until nobody used it for the idle time.
    fn told(&mut self, name: &ServiceName) -> &mut Held {
        let kept = !self.held.contains_key(name);
        let held = self.hold(name);
        held.called |= kept;
        held
    }

    /// Starts holding a Service, and asks for it if it is new.
    fn hold(&mut self, name: &ServiceName) -> &mut Held {
        let interest = &self.interest;
        self.held.entry(name.clone()).or_insert_with(|| {
            let key: Arc<str> = name.to_string().into();
            interest.subscribe(Kind::Service, key.clone());
            interest.subscribe(Kind::Endpoints, key);
            Held::new()
        })
    }

    /// Callers do not use this Service any more: it stays only while others send to it.
    fn let_go(&mut self, name: &ServiceName) {
        let Some(held) = self.held.get_mut(name) else { return };
        held.called = false;
        held.pending = true;
        let backends = std::mem::take(&mut held.sends_to);
        let newest = held.service.get().map(|service| service.backends()).unwrap_or_default();
        for backend in backends.iter().chain(&newest) {
            if let Some(held) = self.held.get_mut(backend) {
                held.senders.remove(name);
            }
            self.drop_unused(backend);
        }
        self.drop_unused(name);
    }

    fn drop_unused(&mut self, name: &ServiceName) {
        let unused = |held: &Held| !held.called && held.senders.iter().all(|sender| sender == name);
        if !self.held.get(name).is_some_and(unused) {
            return;
        }
        if let Some(held) = self.held.remove(name) {
            let key: Arc<str> = name.to_string().into();
            self.interest.unsubscribe(Kind::Service, key.clone());
            self.interest.unsubscribe(Kind::Endpoints, key);
            for backend in held.backends.values() {
                backend.retire();
            }
        }
    }

    /// Asks for every backend that the newest version of a called Service sends to.
    fn fetch_backends(&mut self, name: &ServiceName) {
        let Some(held) = self.held.get(name).filter(|held| held.called) else { return };
        let Some(service) = held.service.get() else { return };
        for backend in service.backends() {
            self.hold(&backend).senders.insert(name.clone());
        }
    }

    /// Puts the newest policy and endpoints of this Service's backend ports in force.
    fn refresh_backends(&mut self, name: &ServiceName) {
        let Some(held) = self.held.get(name) else { return };
        for (number, backend) in &held.backends {
            let leaving = refresh(held, *number, backend, &self.place, &self.shared, self.listeners.dialable());
            self.leaving.extend(leaving);
        }
    }

    /// Puts the newest version of `name`, and of what sends to it, in force where everything it needs is here.
    fn activate(&mut self, name: &ServiceName) {
        let Some(held) = self.held.get(name) else { return };
        let mut ready: Vec<ServiceName> = held.senders.iter().filter(|sender| *sender != name).cloned().collect();
        ready.push(name.clone());
        for name in ready {
            let waiting = |held: &Held| held.called && held.pending;
            if self.held.get(&name).is_some_and(waiting) {
                self.activate_one(&name);
            }
        }
    }

    fn activate_one(&mut self, name: &ServiceName) {
        let (Some(called), Some(held)) = (self.names.get(name.to_string().as_str()).cloned(), self.held.get(name))
        else {
            return;
        };
        let service = match &held.service {
            Fetched::Awaited => return,
            Fetched::Absent => {
                called.serving.store(None);
                called.arrived(true);
                return;
            }
            Fetched::Here(service) => service.clone(),
        };
        let backends = service.backends();
        let known = |backend: &ServiceName| {
            self.held.get(backend).is_some_and(|held| held.service.known() && held.endpoints.known())
        };
        if !backends.iter().all(known) {
            return;
        }
        let mut ports = Vec::with_capacity(service.ports.len());
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            let mut routes = Vec::with_capacity(port.routes.len());
            for route in &port.routes {
                let backends = route.backends.iter();
                routes
                    .push(Weighted::new(backends.map(|to| (to.weight, self.backend(&to.service, to.port))).collect()));
            }
            let Some(own) = self.backend(name, port.number) else { continue };
            let mut made = Port::new(&self.shared, name, port.number, port.protocol, routes, own);
            made.leaving = port.leaving;
            ports.push(Arc::new(made));
        }
        self.shared.telemetry.retain_ports(name, |number| ports.iter().any(|port| port.number == number));
        called.serving.store(Some(Arc::new(Serving::new(ports, &self.shared.leaving))));
        called.arrived(false);
        let Some(held) = self.held.get_mut(name) else { return };
        held.pending = false;
        let old = std::mem::replace(&mut held.sends_to, backends);
        let now = held.sends_to.clone();
        for gone in old.iter().filter(|old| !now.contains(old)) {
            if let Some(held) = self.held.get_mut(gone) {
                held.senders.remove(name);
            }
            self.drop_unused(gone);
        }
    }

    /// The backend port of a held Service; `None` when it has no such port.
    fn backend(&mut self, service: &ServiceName, number: u16) -> Option<Arc<BackendPort>> {
        let held = self.held.get_mut(service)?;
        if let Some(backend) = held.backends.get(&number) {
            return Some(backend.clone());
        }
        stream_port(held.service.get()?, number)?;
        let backend = Arc::new(BackendPort::new(service.clone(), demand::plain_policy()));
        refresh(held, number, &backend, &self.place, &self.shared, self.listeners.dialable());
        held.backends.insert(number, backend.clone());
        Some(backend)
    }
}

/// Puts the newest policy and endpoints in force; returns endpoints that left with requests in flight.
fn refresh(
    held: &Held,
    number: u16,
    backend: &BackendPort,
    place: &Place,
    shared: &Shared,
    dialable: &Dialable,
) -> Vec<Arc<Endpoint>> {
    let policy = held
        .service
        .get()
        .and_then(|service| stream_port(service, number))
        .map_or_else(|| backend.upstreams.load().policy.clone(), |port| port.backend.clone());
    let of_port = |endpoints: &Arc<Endpoints>| {
        let is_it = |port: &&PortEndpoints| port.number == number && port.protocol != Protocol::Udp;
        endpoints.ports.iter().find(is_it).map(|port| port.endpoints.clone())
    };
    let mut endpoints = held.endpoints.get().and_then(of_port).unwrap_or_default();
    endpoints.retain(|endpoint| dialable.allows(endpoint.address));
    backend.replace(policy, &endpoints, place, shared.config.workers).into_vec()
}

fn stream_port(service: &Service, number: u16) -> Option<&ServicePort> {
    service.ports.iter().find(|port| port.number == number && port.protocol != Protocol::Udp)
}

/// Waits, not for long, until nothing is in flight on endpoints that left.
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
        }
    }
}

impl From<&Name> for NameFacts {
    fn from(name: &Name) -> Self {
        let cluster_ips = if name.headless { Vec::new() } else { name.plain.clone() };
        Self { cluster_ips, headless: name.headless, ports: name.ports.clone() }
    }
}
