//! From objects to configuration: pure, deterministic, incremental.
//!
//! The result depends on the objects and on what was said of proxies, never on the order in which either came. Units of
//! compilation read facts, and the graph knows which: a changed fact runs the units that read it, and what these change
//! runs others, until nothing is left to run. One changed EndpointSlice compiles one resource again, a pod one workload, a
//! Namespace its Services.

mod config;
pub mod explain;
pub mod matrix;
pub mod routes;
mod unit;

use std::{collections::BTreeSet, net::SocketAddr, time::Instant};

use ahash::AHashSet;
pub use config::{Config, PORTS_PER_NAMESPACE};
use maesh_config::{
    Kind, ServiceName,
    model::{Mesh, Resource, Workload},
};

use self::unit::Unit;
use crate::{
    diagnostic::{Diagnostic, Reason},
    event::Event,
    facts::{Fact, View},
    graph::Graph,
    index::Index,
    kinds::{ObjectKind, ReadContext, Service},
    placement::{Placement, listener::LostClaim},
    plan::{Plans, access, annotations, splits, workload},
    publication::{Outbox, Publication},
    step::{Step, Timers},
};
pub use crate::{
    placement::address::{Addressing, BadRange, Range},
    publication::{Output, TableEntry, TablePort, proxy::ConnectedProxy},
};

/// The compiler and everything it knows.
#[derive(Debug)]
pub struct Compiler {
    config: Config,
    index: Index,
    graph: Graph<Fact, Unit>,
    plans: Plans,
    placement: Placement,
    publication: Publication,
    timers: Timers,
    out: Outbox,
    synced: AHashSet<ObjectKind>,
}

impl Compiler {
    /// A compiler that knows nothing yet.
    pub fn new(config: Config) -> Self {
        let mut graph = Graph::new();
        // These are there before any object is.
        for unit in [Unit::Mesh, Unit::MeshAddresses, Unit::OwnAddresses, Unit::Proxies] {
            graph.mark(unit);
        }
        Self {
            index: Index::new(config.selects_pods, config.config_maps_on_demand),
            graph,
            plans: Plans::new(&config),
            placement: Placement::default(),
            publication: Publication::default(),
            timers: Timers::default(),
            out: Outbox::default(),
            synced: AHashSet::new(),
            config,
        }
    }

    /// What a source must keep of objects for this compiler.
    pub fn door(&self) -> ReadContext {
        ReadContext { selects_pods: self.config.selects_pods, ..ReadContext::default() }
    }

    /// Takes in an event; its effects are in the next [`Self::compile`].
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Synced(kind) => {
                self.synced.insert(kind);
            }
            Event::Problems(problems) => self.out.diagnose("source", problems),
            Event::Reached(..) => {}
            event => {
                let (graph, config) = (&mut self.graph, &self.config);
                self.index.take(event, |fact| mark(graph, config, &fact));
            }
        }
    }

    /// Whether everything of `kind` was delivered once.
    pub fn is_synced(&self, kind: ObjectKind) -> bool {
        match kind {
            ObjectKind::ConfigMap if self.config.config_maps_on_demand => self.index.config_maps.are_known(),
            kind => self.synced.contains(&kind),
        }
    }

    /// The ConfigMaps that Services name, as namespace and name, if these are others than the last time.
    pub fn take_wanted_config_maps(&mut self) -> Option<BTreeSet<ServiceName>> {
        self.index.config_maps.take_wanted()
    }

    /// How many objects of `kind` are known.
    pub fn count(&self, kind: ObjectKind) -> usize {
        self.index.count(kind)
    }

    /// Tells which proxies there are and what they listen on.
    pub fn proxies(&mut self, proxies: Vec<ConnectedProxy>) {
        if self.publication.set_proxies(proxies) {
            self.changed(&Fact::Proxies);
        }
    }

    /// How many proxies are connected, and how many of them take new work.
    pub fn count_proxies(&self) -> (usize, usize) {
        let proxies = self.publication.proxies();
        let pod = |proxy: &ConnectedProxy| self.index.pod(&self.config.mesh_namespace, &proxy.id);
        (proxies.len(), proxies.iter().filter(|proxy| proxy.takes_work(pod(proxy))).count())
    }

    /// Turns the global switch: with it on, every name answers the plain addresses.
    pub fn bypass(&mut self, bypass: bool) {
        if std::mem::replace(&mut self.config.bypass, bypass) != bypass {
            self.changed(&Fact::Bypass);
        }
    }

    /// The list of proxies is complete: from now on, a proxy that is not connected counts as gone.
    pub fn complete_proxies(&mut self) {
        self.publication.complete_proxies();
        self.changed(&Fact::Settled);
    }

    /// Whether the list of proxies is published.
    pub fn has_complete_proxies(&self) -> bool {
        self.publication.has_complete_proxies(&View::new(&self.index))
    }

    /// When to compile again although nothing happens.
    pub fn due(&self) -> Option<Instant> {
        self.timers.due()
    }

    /// Compiles what changed since the last time, or by time alone; `now` never goes back.
    pub fn compile(&mut self, now: Instant) -> Output {
        for name in self.timers.elapsed(now) {
            self.graph.mark(Unit::Expiry(name.clone()));
            self.graph.mark(Unit::Listeners(name.clone()));
            self.graph.mark(Unit::Name(name));
        }
        while let Some(unit) = self.graph.pop() {
            self.run(&unit, now);
        }
        self.out.take()
    }

    fn changed(&mut self, fact: &Fact) {
        mark(&mut self.graph, &self.config, fact);
    }

    /// Runs one unit, records what it reads, and marks who reads what it changed. Returns how many facts it read.
    fn run(&mut self, unit: &Unit, now: Instant) -> usize {
        let Self { config, index, graph, plans, placement, publication, timers, out, .. } = self;
        let mut step = Step { view: View::new(index), config, now, out, timers, changed: Vec::new() };
        match unit {
            Unit::OwnAddress(number) => placement.learn(*number, &mut step),
            Unit::MeshAddresses => plans.forbidden.learn(publication.proxies(), &mut step),
            Unit::Draft(name) => plans.draft(name, &mut step),
            Unit::Limit(namespace) => plans.limit(namespace, &mut step),
            Unit::Plan(name) => {
                if let Some(old) = plans.adopt(name, &mut step) {
                    placement.replan(name, old.as_ref(), plans.get(name), &mut step);
                    publication.replan(name, old.as_ref(), plans.get(name), &mut step);
                }
            }
            Unit::OwnAddresses => placement.give_own_addresses(plans, &mut step),
            Unit::SharedPorts => placement.move_ports(&mut step),
            Unit::Expiry(name) => publication.expire(name, plans.get(name), &mut step),
            Unit::Listeners(name) => placement.listen(name, plans.get(name), publication.former(name), &mut step),
            Unit::Endpoints(name) => publication.endpoints(name, plans, &mut step),
            Unit::Proxies => publication.publish_proxies(&placement.listeners, &mut step),
            Unit::Listener(id) => {
                let (listener, owners, lost) = match placement.listeners.get(id) {
                    Some((listener, owners, lost)) => (Some(listener), owners, lost),
                    None => (None, Vec::new(), Vec::new()),
                };
                if step.out.set(Kind::Listener, &id.0, listener.map(Resource::Listener)) {
                    step.out.touch(owners);
                }
                let lost = lost.iter().filter_map(|lost| claim_is_lost(lost, &step)).collect();
                step.out.diagnose(&format!("claims/{id}"), lost);
            }
            Unit::Name(name) => publication.name(name, plans.get(name), placement, &mut step),
            Unit::Mesh => {
                let mesh = mesh(&step);
                step.out.put(Resource::Mesh(mesh));
            }
            Unit::Workload(address) => {
                let workload = workload::of_address(&step.view, *address);
                let key = Workload::resource_name_of(*address);
                step.out.set(Kind::Workload, &key, workload.map(Resource::Workload));
            }
            Unit::Range(range) => {
                let workload = workload::of_range(&step.view, *range);
                step.out.set(Kind::Workload, &range.to_string(), workload.map(Resource::Workload));
            }
            Unit::Namespace(name) => {
                let found = step.view.namespace(name).filter(|_| !config.ignores(name, ""));
                let found = found.map(|found| annotations::check_namespace(&found.meta, &found.annotations));
                step.out.diagnose(&format!("namespace/{name}"), found.unwrap_or_default());
            }
            Unit::Slice(id) => {
                let found = step.view.slice(id).map(|slice| plans.check_slice(slice, &step)).unwrap_or_default();
                step.out.diagnose(&format!("slice/{id}"), found);
            }
            Unit::Target(id) => {
                let found = step.view.target(id).map(|target| access::check(target, &step)).unwrap_or_default();
                step.out.diagnose(&format!("target/{id}"), found);
            }
            Unit::Split(id) => {
                let found = step.view.split(id).and_then(|split| splits::check_root(split, &step));
                step.out.diagnose(&format!("split/{id}"), Vec::from_iter(found));
            }
        }
        let Step { view, changed, .. } = step;
        let is_own = |fact: &Fact| Unit::of(fact, config).contains(unit);
        let reads = view.into_reads();
        let read = reads.len();
        graph.record(unit, reads.into_iter().filter(|fact| !is_own(fact)));
        changed.iter().for_each(|fact| mark(graph, config, fact));
        read
    }
}

/// What is said of a Service whose name is another one's.
fn claim_is_lost(lost: &LostClaim, step: &Step<'_>) -> Option<Diagnostic> {
    let service = step.view.service(&lost.by)?;
    let (key, line) = written_at(service, &lost.host)?;
    let text = format!(
        "annotation {key}, line {line}: the older Service {} has the host {} on the same port, so requests for it go there. \
         Choose another host, or take it out of the other Service's rules.",
        lost.has, lost.host
    );
    let field = annotations::field(key);
    let bad = Diagnostic::of(Reason::InvalidAnnotation, "Service", &service.meta, &field, text);
    Some(bad.value(&lost.host).using("the older claim"))
}

/// The annotation `routes` of a Service that names this host, and the line in it.
fn written_at<'a>(service: &'a Service, host: &str) -> Option<(&'a str, usize)> {
    let mut routes = service.annotations.iter().filter(|(key, _)| key.ends_with("routes"));
    routes.find_map(|(key, text)| {
        let mut lines = text.lines().map(|line| line.trim_start().to_ascii_lowercase());
        Some((&**key, 1 + lines.position(|line| !line.starts_with('#') && line.contains(host))?))
    })
}

/// Marks the units that are named after `fact` or read it.
fn mark(graph: &mut Graph<Fact, Unit>, config: &Config, fact: &Fact) {
    graph.changed(fact);
    Unit::of(fact, config).into_iter().for_each(|unit| graph.mark(unit));
}

/// What holds for the whole mesh.
fn mesh(step: &Step<'_>) -> Mesh {
    let config = step.config;
    Mesh {
        zones: config.zones.clone(),
        cluster_domain: config.cluster_domain.clone(),
        fail_to_plain: config.fail_to_plain && !config.access_control.denies(),
        bypass: step.bypass(),
        access_control: config.access_control,
        access_sources: config.access_sources.clone(),
        controllers: config.replicas.as_ref().map(|service| replicas(service, &step.view)).unwrap_or_default(),
    }
}

/// Where the replicas of this controller serve, the ones that are still starting among them.
fn replicas(service: &ServiceName, view: &View<'_>) -> Vec<SocketAddr> {
    let mut all: Vec<SocketAddr> = Vec::new();
    for slice in view.slices_of(service) {
        let port = slice.ports.first().map_or(0, |port| port.number);
        let there = slice.endpoints.iter().filter(|endpoint| !endpoint.terminating && port != 0);
        all.extend(there.map(|endpoint| SocketAddr::new(endpoint.address, port)));
    }
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
