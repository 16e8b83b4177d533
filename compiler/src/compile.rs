//! From objects to configuration: pure, deterministic, incremental.
//!
//! The result depends on the objects and on what was said of proxies, never on the order in which either came. One
//! changed EndpointSlice compiles one resource again, a pod one workload, a Namespace its Services.

mod address;
mod config;
pub mod explain;
mod forbidden;
mod listener;
mod output;
mod places;
mod proxy;
mod tell;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

pub use address::{Addressing, Range, RangeTooSmall};
use ahash::{AHashMap, AHashSet};
pub use config::{Config, PORTS_PER_NAMESPACE};
pub(crate) use forbidden::Forbidden;
use maesh_config::{
    ServiceName,
    model::{Endpoints, ListenerId, Mesh, Protocol, Resource},
};
pub use output::{Output, TableEntry, TablePort};
pub use proxy::ConnectedProxy;

use self::{
    address::SharedPorts,
    listener::{Listeners, OwnListener},
    output::Outbox,
    places::{Places, Standing},
    proxy::Bound,
};
use crate::{
    diagnostic::{Diagnostic, Reason},
    event::Event,
    index::{Dirty, Index},
    kinds::{Door, EndpointSlice, ObjectKind},
    own_address,
    plan::{
        annotations, endpoints,
        port_limit::PortLimit,
        service::{self, Age, Former, Plan},
        workload,
    },
};

/// What is kept of a compiled Service.
#[derive(Debug)]
struct Compiled {
    plan: Plan,
    /// Since when it is in the mesh.
    since: Instant,
    own: Option<IpAddr>,
    /// Where it stands in a cluster, with all of its ports.
    standing: Option<Standing>,
    /// What was left within the horizon: ports that carried another protocol, listeners of the shared address.
    former: Vec<Former>,
    left: Vec<(OwnListener, Instant)>,
    /// Listeners without which its name must not answer them.
    needs: Vec<ListenerId>,
    /// Listening ports, in the order of the plan's ports.
    listens: Vec<Option<u16>>,
    /// Addresses of ready endpoints, kept for Services without a ClusterIP.
    ready: Vec<IpAddr>,
}

impl Compiled {
    fn new(plan: Plan, since: Instant) -> Self {
        Self {
            plan,
            since,
            own: None,
            standing: None,
            former: Vec::new(),
            left: Vec::new(),
            needs: Vec::new(),
            listens: Vec::new(),
            ready: Vec::new(),
        }
    }
}

/// A Service with its plan, and what is wrong with it.
type Planned = (ServiceName, Option<Plan>, Vec<Diagnostic>);

/// The compiler and everything it knows.
#[derive(Debug)]
pub struct Compiler {
    config: Config,
    index: Index,
    services: AHashMap<ServiceName, Compiled>,
    /// Services that need an own address, oldest first.
    owning: BTreeSet<Age>,
    owning_changed: bool,
    /// They need more ports than the proxies have for them.
    pool_exhausted: bool,
    /// Ports of the proxies, by the namespaces that take them.
    port_limit: PortLimit,
    /// Addresses that are no endpoint.
    forbidden: Forbidden,
    /// Services whose name answers the address that is the same for everybody.
    together: BTreeSet<ServiceName>,
    /// Where Services stand on own addresses of a cluster.
    places: Places,
    /// When what is said of a Service changes although nothing happens.
    timers: BTreeSet<(Instant, ServiceName)>,
    shared: SharedPorts,
    shared_changed: bool,
    listeners: Listeners,
    proxies: Vec<ConnectedProxy>,
    /// Where they are reached: a pod whose address is among these may be one of them.
    proxies_at: AHashSet<IpAddr>,
    bound: Bound,
    /// The proxies as they were last said to be.
    said_proxies: AHashMap<Arc<str>, ConnectedProxy>,
    /// Proxies are only told of once those that were there before had the time to come back.
    settled: bool,
    /// Names that are not told before it is settled.
    unsure: AHashSet<ServiceName>,
    proxies_changed: bool,
    bypass_changed: bool,
    synced: AHashSet<ObjectKind>,
    out: Outbox,
}

impl Compiler {
    /// A compiler that knows nothing yet.
    pub fn new(config: Config) -> Self {
        let mut this = Self {
            index: Index::new(config.selects_pods),
            services: AHashMap::new(),
            owning: BTreeSet::new(),
            // That nobody needs one is news too.
            owning_changed: true,
            pool_exhausted: false,
            port_limit: PortLimit::default(),
            forbidden: Forbidden::new(&config),
            together: BTreeSet::new(),
            places: Places::default(),
            timers: BTreeSet::new(),
            shared: SharedPorts::default(),
            shared_changed: false,
            listeners: Listeners::default(),
            proxies: Vec::new(),
            proxies_at: AHashSet::new(),
            bound: Bound::default(),
            said_proxies: AHashMap::new(),
            settled: false,
            unsure: AHashSet::new(),
            proxies_changed: false,
            bypass_changed: false,
            synced: AHashSet::new(),
            out: Outbox::default(),
            config,
        };
        this.out.put(Resource::Mesh(this.mesh()));
        this
    }

    /// What a source must keep of objects for this compiler.
    pub fn door(&self) -> Door {
        Door { selects_pods: self.config.selects_pods, ..Door::default() }
    }

    /// Takes in an event; its effects are in the next [`Self::compile`].
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Synced(kind) => {
                self.synced.insert(kind);
            }
            Event::Problems(problems) => self.out.diagnose("source", problems),
            Event::Reached(..) => {}
            event => self.index.take(event),
        }
    }

    /// Whether everything of `kind` was delivered once.
    pub fn is_synced(&self, kind: ObjectKind) -> bool {
        self.synced.contains(&kind)
    }

    /// How many objects of `kind` are known.
    pub fn count(&self, kind: ObjectKind) -> usize {
        self.index.count(kind)
    }

    /// Tells which proxies there are and what they listen on.
    pub fn proxies(&mut self, mut proxies: Vec<ConnectedProxy>) {
        proxies.sort_by(|a, b| a.id.cmp(&b.id));
        proxies.dedup_by(|b, a| a.id == b.id);
        if self.proxies != proxies {
            self.proxies_at = proxies.iter().flat_map(|proxy| proxy.addresses.iter().copied()).collect();
            self.proxies = proxies;
            self.proxies_changed = true;
        }
    }

    /// How many proxies are connected, and how many of them take new work.
    pub fn count_proxies(&self) -> (usize, usize) {
        (self.proxies.len(), self.proxies.iter().filter(|proxy| self.takes_work(proxy)).count())
    }

    /// Whether callers may be sent to a proxy: it says so on its stream, and the kubelet does not say otherwise of its
    /// pod. A proxy that hangs says nothing, and the kubelet notices within seconds.
    fn takes_work(&self, proxy: &ConnectedProxy) -> bool {
        let pod = self.index.pod(&self.config.mesh_namespace, &proxy.id);
        proxy.ready && pod.is_none_or(|pod| pod.ready && !pod.ended)
    }

    /// Turns the global switch: with it on, every name answers the plain addresses.
    pub fn bypass(&mut self, bypass: bool) {
        self.bypass_changed |= std::mem::replace(&mut self.config.bypass, bypass) != bypass;
    }

    /// From now on, a proxy that is not connected is not there.
    pub fn settle(&mut self) {
        self.settled = true;
        self.proxies_changed = true;
    }

    /// Whether the list of proxies is published.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// When to compile again although nothing happens.
    pub fn due(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Compiles what changed since the last time, or by time alone; `now` never goes back.
    pub fn compile(&mut self, now: Instant) -> Output {
        let Dirty { services, mut endpoints, addresses, ranges, namespaces, mut slices } =
            std::mem::take(&mut self.index.dirty);
        let mut names: AHashSet<ServiceName> = AHashSet::new();
        let mut retell: AHashSet<ServiceName> = AHashSet::new();

        self.place_own(services.iter().chain(&endpoints), now, &mut names);
        let of_mesh = |name: &ServiceName| name.namespace == self.config.mesh_namespace;
        let concerned = services.iter().any(of_mesh) || addresses.iter().any(|address| self.is_of_mesh(address));
        let changed = self.learn_mesh_addresses(concerned);
        for (id, service) in self.index.slices_at(&changed) {
            slices.insert(id);
            endpoints.extend(service);
        }
        endpoints.extend(self.index.services_selecting_at(&changed));
        for (name, plan, found) in self.plan(services) {
            // Whether a slice is worth a word depends on its Service.
            slices.extend(self.index.ids_of_slices(&name));
            self.replan(&name, plan, found, now);
            names.insert(name.clone());
            retell.insert(name);
        }
        for name in self.elapsed(now) {
            self.outlive(&name, now);
            names.insert(name);
        }
        self.place(&mut names);
        for name in &names {
            self.listen(name, now);
        }
        if self.config.replicas.as_ref().is_some_and(|service| endpoints.contains(service)) {
            self.out.put(Resource::Mesh(self.mesh()));
        }
        retell.extend(endpoints);
        for name in &retell {
            if self.gather(name) {
                names.insert(name.clone());
            }
        }
        self.proxies_changed |= addresses.iter().any(|address| self.proxies_at.contains(address));
        if std::mem::take(&mut self.proxies_changed) {
            self.tell_proxies(&mut names);
        }
        self.tell_listeners();
        if std::mem::take(&mut self.bypass_changed) {
            self.out.put(Resource::Mesh(self.mesh()));
            names.extend(self.services.keys().cloned());
        }
        for name in &names {
            self.tell_name(name, now);
        }
        for address in addresses {
            let key = maesh_config::model::Workload::resource_name_of(address);
            let workload = workload::of_address(&self.index, address);
            self.out.set(maesh_config::Kind::Workload, &key, workload.map(Resource::Workload));
        }
        for range in ranges {
            let workload = workload::of_range(&self.index, range);
            self.out.set(maesh_config::Kind::Workload, &range.to_string(), workload.map(Resource::Workload));
        }
        for namespace in namespaces {
            let found = self.index.namespaces.get(&namespace);
            let found = found.filter(|_| !self.config.ignores(&namespace, ""));
            let found = found.map(|found| annotations::check_namespace(&found.meta, &found.annotations));
            self.out.diagnose(&format!("namespace/{namespace}"), found.unwrap_or_default());
        }
        for slice in slices {
            let found = self.index.slice(&slice).map(|slice| self.check_slice(slice)).unwrap_or_default();
            self.out.diagnose(&format!("slice/{slice}"), found);
        }
        self.out.take()
    }

    /// Takes in what is news of own addresses of a cluster.
    fn place_own<'a>(
        &mut self,
        changed: impl Iterator<Item = &'a ServiceName>,
        now: Instant,
        names: &mut AHashSet<ServiceName>,
    ) {
        if self.config.addressing != Addressing::Cluster {
            return;
        }
        for name in changed.filter(|name| name.namespace == self.config.mesh_namespace) {
            if let Some(number) = own_address::number(&name.name) {
                names.extend(self.places.given(number, self.index.services.get(name).map(Arc::as_ref)));
                names.extend(self.places.sliced(number, self.index.slices_of(name).map(Arc::as_ref), now));
            }
        }
        if names.remove(&own_address::everybody()) {
            names.extend(self.together.iter().cloned());
        }
    }

    /// Services of which time alone changes something.
    fn elapsed(&mut self, now: Instant) -> Vec<ServiceName> {
        let mut elapsed = Vec::new();
        while let Some((at, name)) = self.timers.pop_first() {
            if at > now {
                self.timers.insert((at, name));
                break;
            }
            elapsed.push(name);
        }
        elapsed
    }

    /// Drops the ports of a Service that carried another protocol, where nobody can remember that any more.
    fn outlive(&mut self, name: &ServiceName, now: Instant) {
        let Some(compiled) = self.services.get_mut(name) else { return };
        let before = compiled.former.len();
        compiled.former.retain(|former| former.until > now);
        if compiled.former.len() != before {
            let resource = compiled.plan.resource(&compiled.former);
            self.out.set(maesh_config::Kind::Service, &name.to_string(), Some(Resource::Service(resource)));
        }
    }

    /// Plans `services` again, and those that for it have more ports than there is room for, or have room again.
    fn plan(&mut self, services: AHashSet<ServiceName>) -> Vec<Planned> {
        let mut planned = AHashMap::new();
        let mut namespaces = AHashSet::new();
        for name in services {
            let (plan, found) = self.plan_alone(&name);
            if self.port_limit.note(&name, plan.as_ref()) {
                namespaces.insert(name.namespace.clone());
            }
            planned.insert(name, (plan, found));
        }
        for namespace in namespaces {
            for name in self.port_limit.settle(&namespace, self.config.ports_per_namespace) {
                if !planned.contains_key(&name) {
                    let plan = self.plan_alone(&name);
                    planned.insert(name, plan);
                }
            }
        }
        let limited = planned.into_iter().map(|(name, (plan, mut found))| {
            let plan =
                plan.map(|plan| if self.port_limit.is_over(&name) { self.too_many(plan, &mut found) } else { plan });
            (name, plan, found)
        });
        limited.collect()
    }

    /// What a Service means by itself and its Namespace alone.
    fn plan_alone(&self, name: &ServiceName) -> (Option<Plan>, Vec<Diagnostic>) {
        let Some(service) = self.index.services.get(name) else { return (None, Vec::new()) };
        let namespace = self.index.namespaces.get(&name.namespace).map(|namespace| &namespace.annotations);
        service::plan(service, namespace, &self.config)
    }

    /// The plan of a Service whose ports are too many for its namespace: without any.
    fn too_many(&self, plan: Plan, found: &mut Vec<Diagnostic>) -> Plan {
        if let Some(service) = self.index.services.get(plan.name()) {
            let (ports, namespace, limit) = (plan.ports.len(), &plan.name().namespace, self.config.ports_per_namespace);
            let text = format!(
                "the Services of namespace {namespace} need more than {limit} ports of the proxies. Older Services come \
                 first, and there is no room for the {ports} of this one: its name answers its plain address. Bypass \
                 Services that need no mesh, or raise --ports-per-namespace."
            );
            let bad = Diagnostic::of(Reason::TooManyPorts, "Service", &service.meta, "spec.ports", text);
            found.push(bad.value(ports.to_string()).using("its plain address"));
        }
        Plan { ports: Vec::new(), own: false, one_address: false, ..plan }
    }

    /// What is odd about a slice.
    fn check_slice(&self, slice: &EndpointSlice) -> Vec<Diagnostic> {
        let namespace = &slice.meta.namespace;
        let service = slice.service.as_ref().map(|service| ServiceName::new(namespace.clone(), service.clone()));
        let meshed = service.is_some_and(|service| self.services.contains_key(&service));
        endpoints::check(slice, meshed.then_some(&self.forbidden))
    }

    /// Takes over a new plan of a Service, and notes what that changes for the others.
    fn replan(&mut self, name: &ServiceName, plan: Option<Plan>, mut found: Vec<Diagnostic>, now: Instant) {
        found.sort_unstable();
        found.dedup();
        self.out.diagnose(&format!("service/{name}"), found);
        let old = self.services.remove(name);
        let needs = |plan: Option<&Plan>| plan.filter(|plan| plan.own).map(|plan| plan.age.clone());
        let (owned, owns) = (needs(old.as_ref().map(|old| &old.plan)), needs(plan.as_ref()));
        let wants = |plan: &Plan| (plan.own || plan.one_address).then(|| (plan.own, places::want(plan)));
        match plan.as_ref().is_some_and(|plan| plan.one_address) {
            true => self.together.insert(name.clone()),
            false => self.together.remove(name),
        };
        self.owning_changed |= old.as_ref().and_then(|old| wants(&old.plan)) != plan.as_ref().and_then(wants);
        if owned != owns {
            self.owning_changed = true;
            owned.map(|age| self.owning.remove(&age));
            owns.map(|age| self.owning.insert(age));
        }
        let ports = |plan: &Plan| (plan.age.clone(), plan.ports.iter().map(|port| port.number).collect::<Vec<_>>());
        let shares = |plan: Option<&Plan>| plan.filter(|plan| !plan.own).map(ports);
        if shares(old.as_ref().map(|old| &old.plan)) != shares(plan.as_ref()) {
            self.shared_changed = true;
            if let Some(old) = old.as_ref().filter(|old| !old.plan.own) {
                self.shared.remove(&old.plan);
            }
            if let Some(plan) = plan.as_ref().filter(|plan| !plan.own) {
                self.shared.add(plan);
            }
        }
        if let Some(plan) = plan {
            let mut compiled = Compiled::new(plan, old.as_ref().map_or(now, |old| old.since));
            if let Some(old) = old {
                compiled.own = old.own.filter(|_| compiled.plan.own);
                compiled.left = old.left;
                compiled.ready = old.ready;
                if !self.config.horizon.is_zero() {
                    let until = now + self.config.horizon;
                    compiled.former = service::former(&old.plan, &old.former, &compiled.plan, until);
                    compiled.former.retain(|former| former.until > now);
                    self.timers.extend(compiled.former.iter().map(|former| (former.until, name.clone())));
                }
            }
            let resource = compiled.plan.resource(&compiled.former);
            self.out.set(maesh_config::Kind::Service, &name.to_string(), Some(Resource::Service(resource)));
            self.services.insert(name.clone(), compiled);
        } else {
            self.out.set(maesh_config::Kind::Service, &name.to_string(), None);
        }
    }

    /// Gives out own addresses and listening ports again, where the set of Services that share them changed.
    fn place(&mut self, names: &mut AHashSet<ServiceName>) {
        if std::mem::take(&mut self.owning_changed) {
            match &self.config.addressing {
                Addressing::Range(range) => Self::give(range, &self.owning, &mut self.services, names),
                Addressing::Cluster => {
                    let plan = |name: &ServiceName| self.services.get(name).map(|compiled| &compiled.plan);
                    let own: Vec<_> = self.owning.iter().filter_map(|age| plan(&age.name)).map(places::want).collect();
                    let exhausted = own.iter().map(|want| want.ports.len()).sum::<usize>() > own_address::POOL.len();
                    if std::mem::replace(&mut self.pool_exhausted, exhausted) || exhausted {
                        names.extend(own.iter().map(|want| want.service.clone()));
                    }
                    let together = self.together.iter().filter_map(plan).flat_map(|plan| &plan.ports);
                    let shared = together.map(|port| port.number).collect();
                    self.out.want(own_address::Wants { own, shared });
                }
            }
        }
        if std::mem::take(&mut self.shared_changed) {
            names.extend(self.shared.settle(self.config.first_bindable_port));
        }
    }

    /// Gives out own addresses of a range.
    fn give(
        range: &Range,
        owning: &BTreeSet<Age>,
        services: &mut AHashMap<ServiceName, Compiled>,
        names: &mut AHashSet<ServiceName>,
    ) {
        let mut given = address::own_addresses(range, owning.iter());
        for age in owning {
            let address = given.remove(&age.name);
            if let Some(compiled) = services.get_mut(&age.name)
                && compiled.own != address
            {
                compiled.own = address;
                names.insert(age.name.clone());
            }
        }
    }

    /// Settles on which ports a Service is listened for.
    fn listen(&mut self, name: &ServiceName, now: Instant) {
        let first_bindable = self.config.first_bindable_port;
        let Some(compiled) = self.services.get_mut(name) else {
            self.listeners.set(name, Vec::new());
            self.out.diagnose(&format!("place/{name}"), Vec::new());
            return;
        };
        let plan = &compiled.plan;
        let mut found = Vec::new();
        let service = self.index.services.get(name);
        let mut say = |reason, field: &str, value: &str, text: String| {
            if let Some(service) = service {
                let bad = Diagnostic::of(reason, "Service", &service.meta, field, text).using("its plain address");
                found.push(if value.is_empty() { bad } else { bad.value(value) });
            }
        };
        let in_cluster = self.config.addressing == Addressing::Cluster;
        if in_cluster && plan.own && self.pool_exhausted && self.places.standing(plan).is_none() {
            let text = "Services need more ports on own addresses than the proxies have for them (33000-49999), and this \
                        one has none; its name answers the plain address. Bypass Services that need no mesh, or set \
                        traffic-type to http where it is HTTP.";
            say(Reason::AddressRangeExhausted, "spec.ports", "", text.into());
        }
        let exhausted = plan.own && compiled.own.is_none() && !in_cluster;
        if exhausted {
            let text = "no own address is left in the range; its name answers the plain address. Choose a wider \
                        --address-range.";
            say(Reason::AddressRangeExhausted, "spec.ports", "", text.into());
        }
        compiled.standing = self.places.standing(plan);
        compiled.listens = match plan.own {
            // Its address has its own port numbers, whatever the proxies' behind them are.
            true if self.config.addressing == Addressing::Cluster => {
                plan.ports.iter().map(|port| Some(port.number)).collect()
            }
            true => address::own_listens(plan, first_bindable),
            false => self.shared.listens(plan, first_bindable),
        };
        for (port, _) in plan.ports.iter().zip(&compiled.listens).filter(|(_, listen)| listen.is_none()) {
            let number = port.number;
            let text = format!(
                "port {number} cannot be bound here and no port is free in its place; its name answers the plain \
                 address. Lower net.ipv4.ip_unprivileged_port_start, or change the port."
            );
            say(Reason::ListenPortExhausted, "spec.ports", &number.to_string(), text);
        }
        let listened = plan.ports.iter().zip(&compiled.listens).filter_map(|(port, listen)| Some((port, (*listen)?)));
        let mut wanted: Vec<_> = match (plan.own, compiled.own) {
            (true, None) => Vec::new(),
            (true, Some(address)) => {
                listened.map(|(port, listen)| OwnListener::own(address, listen, name, port)).collect()
            }
            (false, _) => listened.map(|(port, listen)| OwnListener::shared(listen, port)).collect(),
        };
        compiled.needs = wanted.iter().map(|listener| listener.id.clone()).collect();
        let stands = compiled.standing.as_ref();
        for of in self.places.listens(name) {
            let listener = OwnListener::pooled(of, name, carries(&compiled.plan, &compiled.former, of));
            if compiled.plan.own && stands.is_some_and(|standing| standing.has(of)) {
                compiled.needs.push(listener.id.clone());
            }
            wanted.push(listener);
        }
        let until = now + self.config.horizon;
        let leaves = |old: &&OwnListener| old.is_shared() && !wanted.contains(old);
        let known = |old: &OwnListener| compiled.left.iter().any(|(left, _)| left == old);
        let leaving: Vec<_> =
            self.listeners.of(name).filter(leaves).filter(|old| !known(old)).map(|old| (old.clone(), until)).collect();
        compiled.left.retain(|(left, until)| *until > now && !wanted.contains(left));
        if !self.config.horizon.is_zero() {
            self.timers.extend(leaving.iter().map(|(_, until)| (*until, name.clone())));
            compiled.left.extend(leaving);
        }
        wanted.extend(compiled.left.iter().map(|(left, _)| left.clone()));
        self.listeners.set(name, wanted);
        self.out.diagnose(&format!("place/{name}"), found);
    }

    /// Compiles the endpoints of a Service. Returns whether its name has to be told again.
    fn gather(&mut self, name: &ServiceName) -> bool {
        let key = name.to_string();
        let Some(compiled) = self.services.get_mut(name) else {
            self.out.set(maesh_config::Kind::Endpoints, &key, None);
            return false;
        };
        let endpoints = endpoints_of(&self.index, &compiled.plan, &self.forbidden);
        let mut renamed = false;
        if compiled.plan.cluster_ips.is_empty() {
            let ready = match compiled.plan.ports.is_empty() {
                true => endpoints::ready_of_all(&self.index, &compiled.plan),
                false => endpoints::ready_addresses(&endpoints),
            };
            renamed = ready != compiled.ready;
            compiled.ready = ready;
        }
        self.out.set(maesh_config::Kind::Endpoints, &key, Some(Resource::Endpoints(endpoints)));
        renamed
    }

    fn mesh(&self) -> Mesh {
        Mesh {
            zones: self.config.zones.clone(),
            cluster_domain: self.config.cluster_domain.clone(),
            fail_to_plain: self.config.fail_to_plain && !self.config.access_control,
            bypass: self.config.bypass,
            access_control: self.config.access_control,
            controllers: self.config.replicas.as_ref().map(|service| self.replicas(service)).unwrap_or_default(),
        }
    }

    /// Where the replicas of this controller serve, the ones that are still starting among them.
    fn replicas(&self, service: &ServiceName) -> Vec<SocketAddr> {
        let mut all: Vec<SocketAddr> = Vec::new();
        for slice in self.index.slices_of(service) {
            let port = slice.ports.first().map_or(0, |port| port.number);
            let there = slice.endpoints.iter().filter(|endpoint| !endpoint.terminating && port != 0);
            all.extend(there.map(|endpoint| SocketAddr::new(endpoint.address, port)));
        }
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Whether a port of the proxies that leads to a Service alone carries HTTP: as it did, where that is not long ago.
fn carries(plan: &Plan, former: &[Former], of: places::Listen) -> bool {
    let is_it = |port: &&service::Port| port.number == of.number && port.protocol.transport() == of.transport;
    let now = plan.ports.iter().find(is_it);
    let was = former.iter().map(|former| &former.port).find(is_it).filter(|_| !plan.own);
    was.or(now).is_some_and(|port| port.protocol == Protocol::Http)
}

fn endpoints_of(index: &Index, plan: &Plan, forbidden: &Forbidden) -> Endpoints {
    if index.slices_of(plan.name()).next().is_some() {
        return endpoints::from_slices(plan, index.slices_of(plan.name()), forbidden);
    }
    let service = index.services.get(plan.name());
    let pods = service.map(|service| index.selected_pods(service)).unwrap_or_default();
    endpoints::from_pods(plan, &pods, forbidden)
}

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
