//! Which configuration is in force: a state machine that knows no socket, no clock and no task.
//!
//! [`Event`]s go in: a resource arrived or is gone, a caller used a Service, nobody used one for long. [`Effect`]s come
//! out, in the order in which they have to be carried out; `apply` does that. The same resources lead to the same state
//! in whatever order they arrive.
//!
//! The configuration of a Service is held while callers use it, or while one that they use sends to it. A Service takes
//! effect only when the Service and the endpoints of every backend it sends to are here or known absent. Until then the
//! version before stays in force. Endpoints take effect at once.

mod service;
mod shared;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use maesh_config::{
    Kind, Resource, ServiceName,
    model::{
        self, BackendPolicy, CalledPolicy, Endpoints, Listener, Mesh, Name, Protocol, Route, Service, Transport,
        Workload,
    },
    policy::ServiceRef,
    rule::Rule,
};
use smallvec::smallvec;

use self::{
    service::{Backend, Fetched, GraphService, port_of},
    shared::SharedValues,
};
use super::{Destination, Locality};
use crate::{access::AccessFacts, loops::Dialable};

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A resource arrived, new or changed.
    Set(Arc<Resource>),
    /// The resource of this kind and name is gone, or was asked for and does not exist.
    Removed(Kind, Arc<str>),
    /// Every resource of this kind has arrived at least once.
    Complete(Kind),
    /// A caller used this Service for the first time.
    Used(ServiceName),
    /// No caller used this Service for the idle time.
    Idle(ServiceName),
    /// The proxy listens on these addresses. None of them is dialled.
    Listening(HashSet<SocketAddr>),
}

/// What has to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Put what holds for the whole mesh in force.
    Mesh(Arc<Mesh>),
    /// Callers can name this Service; or its name says something new.
    Name(Arc<Name>),
    /// Callers cannot name this Service any more.
    NameGone(ServiceName),
    /// Note what is at an address.
    Workload(Arc<Workload>),
    /// Nothing is at the address of this name.
    WorkloadGone(Arc<str>),
    /// Open a listener, or change what an open one serves.
    Open(Arc<Listener>),
    /// Close the listener with this identity, if it could be opened.
    Close(Arc<str>),
    /// Put a policy and endpoints in force on a backend port. Its run-time state stays.
    SetBackend {
        id: BackendId,
        policy: Arc<BackendPolicy>,
        endpoints: Vec<model::Endpoint>,
        /// Who may reach them, where access control is on.
        access: AccessFacts,
    },
    /// Nothing sends to this backend port any more. Its run-time state goes.
    DropBackend(BackendId),
    /// Put the ports of a Service in force.
    Publish(ServiceName, Arc<[PublishedPort]>),
    /// A Service that callers asked for does not exist.
    Absent(ServiceName),
    /// Take the ports of a Service out of force. The next use asks for it again.
    Release(ServiceName),
    /// Ask the controller for a resource.
    Subscribe(Kind, Arc<str>),
    /// Tell the controller that a resource is needed no longer.
    Unsubscribe(Kind, Arc<str>),
    /// All names and listeners are here.
    Ready,
}

/// A port of a Service as a backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BackendId {
    pub(crate) service: ServiceName,
    pub(crate) port: u16,
    pub(crate) transport: Transport,
}

/// One port of a Service, with its backends resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublishedPort {
    pub(crate) number: u16,
    pub(crate) protocol: Protocol,
    pub(crate) leaving: bool,
    /// Its routes, in order of precedence.
    pub(crate) routes: Vec<PublishedRoute>,
    /// The Service's own endpoints.
    pub(crate) own: BackendId,
    /// Requests that no route takes are refused: a policy of the port is not understood.
    pub(crate) own_refuses: bool,
    /// Policies for every request to the port.
    pub(crate) called: Arc<CalledPolicy>,
    /// Where copies of requests go, if that exists.
    pub(crate) mirror: Option<BackendId>,
    /// Backends that have a fallback that exists, and what it is.
    pub(crate) fallbacks: Vec<(BackendId, BackendId)>,
}

/// A route, with its backends resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublishedRoute {
    /// What a request or connection has to be.
    pub(crate) rule: Option<Rule>,
    /// Each backend with its weight.
    pub(crate) backends: Vec<(u32, Destination<BackendId>)>,
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Graph {
    place: Locality,
    /// Name of the node's own workload, where that is asked for its zone.
    node: Option<Arc<str>>,
    dialable: Dialable,
    names: HashSet<ServiceName>,
    services: HashMap<ServiceName, GraphService>,
    listeners: HashSet<Arc<str>>,
    complete: HashSet<Kind>,
    shared: SharedValues,
    effects: Vec<Effect>,
}

impl Graph {
    /// A graph that has seen nothing. `node` is the workload from which the proxy's zone is learnt, if it is not given.
    pub(crate) fn new(place: Locality, node: Option<Arc<str>>, dialable: Dialable) -> Self {
        let effects = node.iter().map(|node| Effect::Subscribe(Kind::Workload, node.clone())).collect();
        Self {
            place,
            node,
            dialable,
            names: HashSet::new(),
            services: HashMap::new(),
            listeners: HashSet::new(),
            complete: HashSet::new(),
            shared: SharedValues::default(),
            effects,
        }
    }

    /// Takes note of what happened.
    pub(crate) fn handle(&mut self, event: Event) {
        match event {
            Event::Set(resource) => self.set(&resource),
            Event::Removed(kind, name) => self.removed(kind, name),
            Event::Complete(kind) => {
                self.complete.insert(kind);
                if crate::WILDCARD_KINDS.iter().all(|kind| self.complete.contains(kind)) {
                    self.effects.push(Effect::Ready);
                }
            }
            Event::Used(name) if self.names.contains(&name) => {
                self.hold(&name).used = true;
                self.update(&name);
            }
            // Its name went while the event was on its way.
            Event::Used(_) => {}
            Event::Idle(name) => self.stop_using(&name),
            Event::Listening(addresses) => {
                self.dialable.listening = addresses;
                self.refresh_all();
            }
        }
    }

    /// What has to be done since the last call.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Where the proxy is.
    pub(crate) fn place(&self) -> &Locality {
        &self.place
    }

    /// Whether this is the workload of the proxy's own node, which stays asked for.
    pub(crate) fn is_own_node(&self, name: &Arc<str>) -> bool {
        self.node.as_ref() == Some(name)
    }

    /// How many Services' configuration is held.
    pub(crate) fn held(&self) -> usize {
        self.services.len()
    }

    /// Services held because callers use them.
    pub(crate) fn used(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.iter().filter(|(_, entry)| entry.used).map(|(name, _)| name)
    }

    /// Whether callers can name this Service, or its name may still arrive.
    pub(crate) fn can_be_named(&self, name: &ServiceName) -> bool {
        self.names.contains(name) || !self.complete.contains(&Kind::Name)
    }

    fn set(&mut self, resource: &Resource) {
        match resource {
            Resource::Mesh(mesh) => self.effects.push(Effect::Mesh(Arc::new(mesh.clone()))),
            Resource::Name(name) => {
                self.effects.push(Effect::Name(Arc::new(name.clone())));
                // Its configuration may be here already, kept over a restart.
                if self.names.insert(name.service.clone()) {
                    self.update(&name.service);
                }
            }
            Resource::Listener(listener) => {
                self.listeners.insert(listener.id.0.clone());
                self.effects.push(Effect::Open(Arc::new(listener.clone())));
            }
            Resource::Service(service) => {
                self.set_service(&service.name, Fetched::Here(Arc::new(self.shared.service(service))));
            }
            Resource::Endpoints(endpoints) => {
                self.set_endpoints(&endpoints.service, Fetched::Here(Arc::new(self.shared.endpoints(endpoints))));
            }
            Resource::Workload(workload) => self.set_workload(workload),
            // A proxy does not need to know where other proxies are.
            Resource::Proxy(_) => {}
        }
    }

    fn removed(&mut self, kind: Kind, name: Arc<str>) {
        match kind {
            Kind::Listener => {
                if self.listeners.remove(&name) {
                    self.effects.push(Effect::Close(name));
                }
            }
            Kind::Workload => self.effects.push(Effect::WorkloadGone(name)),
            Kind::Name | Kind::Service | Kind::Endpoints => {
                let Ok(name) = name.parse::<ServiceName>() else { return };
                match kind {
                    Kind::Service => self.set_service(&name, Fetched::Absent),
                    Kind::Endpoints => self.set_endpoints(&name, Fetched::Absent),
                    _ => self.remove_name(&name),
                }
            }
            // What holds for the whole mesh stays until there is something else.
            Kind::Mesh | Kind::Proxy => {}
        }
    }

    fn remove_name(&mut self, name: &ServiceName) {
        if self.names.remove(name) {
            self.effects.push(Effect::NameGone(name.clone()));
            self.stop_using(name);
        }
    }

    fn set_service(&mut self, name: &ServiceName, service: Fetched<Service>) {
        self.hold_received(name).service = service;
        self.refresh(name);
        self.update_with_senders(name);
    }

    fn set_endpoints(&mut self, name: &ServiceName, endpoints: Fetched<Endpoints>) {
        let entry = self.hold_received(name);
        let awaited = !entry.endpoints.is_known();
        entry.endpoints = endpoints;
        self.refresh(name);
        if awaited {
            self.update_with_senders(name);
        }
    }

    fn set_workload(&mut self, workload: &Workload) {
        self.effects.push(Effect::Workload(Arc::new(workload.clone())));
        // A node of which an older controller says no zone has not moved.
        let Some(zone) = &workload.zone else { return };
        if self.node.as_ref().is_some_and(|node| *node == workload.resource_name())
            && self.place.zone.as_ref() != Some(zone)
        {
            self.place.zone = Some(zone.clone());
            self.refresh_all();
        }
    }

    /// The entry of a Service of which something was received. One that was not asked for was kept over a restart: it
    /// will not be sent again, so it is held like one in use until nobody used it for the idle time.
    fn hold_received(&mut self, name: &ServiceName) -> &mut GraphService {
        let kept = !self.services.contains_key(name);
        let entry = self.hold(name);
        entry.used |= kept;
        entry
    }

    /// The entry of a Service. Asks for it if it is new.
    fn hold(&mut self, name: &ServiceName) -> &mut GraphService {
        let effects = &mut self.effects;
        self.services.entry(name.clone()).or_insert_with(|| {
            let key: Arc<str> = name.to_string().into();
            effects.push(Effect::Subscribe(Kind::Service, key.clone()));
            effects.push(Effect::Subscribe(Kind::Endpoints, key));
            GraphService::default()
        })
    }

    /// Callers do not use this Service any more. It stays while others send to it.
    fn stop_using(&mut self, name: &ServiceName) {
        let Some(entry) = self.services.get_mut(name).filter(|entry| entry.used) else { return };
        entry.used = false;
        self.effects.push(Effect::Release(name.clone()));
        self.put_in_force(name, None);
        self.link(name);
        self.drop_unused(name);
    }

    fn drop_unused(&mut self, name: &ServiceName) {
        if self.services.get(name).is_some_and(|entry| !entry.used && entry.senders.is_empty()) {
            self.services.remove(name);
            let key: Arc<str> = name.to_string().into();
            self.effects.push(Effect::Unsubscribe(Kind::Service, key.clone()));
            self.effects.push(Effect::Unsubscribe(Kind::Endpoints, key));
        }
    }

    /// Holds exactly the Services that `name` sends to, by its newest version or the one in force.
    fn link(&mut self, name: &ServiceName) {
        let Some(entry) = self.services.get(name) else { return };
        let mut wanted = entry.sends_to(name);
        // A fallback of a backend is of the Service that sends there, too.
        let fallbacks: Vec<_> =
            wanted.iter().filter_map(|to| self.services.get(to)).flat_map(GraphService::fallbacks).collect();
        wanted.extend(fallbacks.into_iter().filter(|to| to != name));
        let gone: Vec<_> = entry.linked.difference(&wanted).cloned().collect();
        for service in wanted.difference(&entry.linked.clone()) {
            self.hold(service).senders.insert(name.clone());
        }
        if let Some(entry) = self.services.get_mut(name) {
            entry.linked = wanted;
        }
        for service in gone {
            if let Some(entry) = self.services.get_mut(&service) {
                entry.senders.remove(name);
            }
            self.drop_unused(&service);
        }
    }

    /// Something of this Service changed that others may depend on.
    fn update_with_senders(&mut self, name: &ServiceName) {
        let senders = self.services.get(name).map(|entry| entry.senders.clone()).unwrap_or_default();
        self.update(name);
        senders.iter().for_each(|sender| self.update(sender));
    }

    /// Puts the newest version of a Service in force if everything it needs is here.
    fn update(&mut self, name: &ServiceName) {
        self.link(name);
        let Some(entry) = self.services.get(name).filter(|entry| entry.used && self.names.contains(name)) else {
            return;
        };
        match &entry.service {
            Fetched::Awaited => {}
            Fetched::Absent => {
                self.effects.push(Effect::Absent(name.clone()));
                self.put_in_force(name, None);
            }
            Fetched::Here(service) => {
                let Some(ports) = self.resolve(&service.clone()) else { return };
                if self.services.get(name).is_some_and(|entry| entry.in_force.as_deref() != Some(&*ports)) {
                    self.put_in_force(name, Some(ports.into()));
                }
            }
        }
        self.link(name);
    }

    /// The ports of a Service with their backends; `None` while something that it needs is not here.
    fn resolve(&self, service: &Service) -> Option<Vec<PublishedPort>> {
        let known = |it: &ServiceName| self.services.get(it).is_some_and(GraphService::is_known);
        let backends = service.backends();
        let mut fallbacks = backends.iter().filter_map(|it| self.services.get(it)).flat_map(GraphService::fallbacks);
        if !backends.iter().all(known) || !fallbacks.all(|it| known(&it)) {
            return None;
        }
        let find = |service: &ServiceName, port: u16, transport| match self
            .services
            .get(service)
            .and_then(|entry| entry.port(port, transport))
        {
            None => Destination::Missing,
            Some(found) if found.backend.not_understood.is_some() => Destination::NotUnderstood,
            Some(_) => Destination::Backend(BackendId { service: service.clone(), port, transport }),
        };
        let route = |route: &Route, transport| {
            let to = |to: &model::Backend| match route.not_understood {
                Some(_) => Destination::NotUnderstood,
                None => find(&to.service, to.port, transport),
            };
            let backends = route.backends.iter().map(|it| (it.weight, to(it))).collect();
            PublishedRoute { rule: route.rule.clone(), backends }
        };
        let refer = |to: &ServiceRef, transport| find(&to.service, to.port, transport).backend().cloned();
        let fallback = |of: BackendId| {
            let port = self.services.get(&of.service)?.port(of.port, of.transport)?;
            let to = refer(port.backend.fallback.as_ref()?, of.transport)?;
            Some((of, to))
        };
        let published = service.ports.iter().map(|port| {
            let transport = port.protocol.transport();
            let routes: Vec<PublishedRoute> = port.routes.iter().map(|it| route(it, transport)).collect();
            let own = BackendId { service: service.name.clone(), port: port.number, transport };
            let routed = routes.iter().flat_map(|it| &it.backends).filter_map(|(_, to)| to.backend().cloned());
            let fallbacks = BTreeSet::from_iter(routed.chain([own.clone()])).into_iter().filter_map(fallback).collect();
            PublishedPort {
                number: port.number,
                protocol: port.protocol,
                leaving: port.leaving,
                routes,
                own,
                mirror: port.called.mirror.as_ref().and_then(|mirror| refer(&mirror.to, transport)),
                fallbacks,
                own_refuses: port.backend.not_understood.is_some() || port.called.not_understood.is_some(),
                called: port.called.clone(),
            }
        });
        Some(published.collect())
    }

    /// Replaces what is in force of a Service. New backends are there before it, old ones go after it.
    fn put_in_force(&mut self, name: &ServiceName, ports: Option<Arc<[PublishedPort]>>) {
        let Some(entry) = self.services.get_mut(name) else { return };
        let old = std::mem::replace(&mut entry.in_force, ports.clone());
        let (old, new) = (backends_of(old.as_deref()), backends_of(ports.as_deref()));
        for id in new.difference(&old) {
            self.use_backend(id, name);
        }
        if let Some(ports) = ports {
            self.effects.push(Effect::Publish(name.clone(), ports));
        }
        for id in old.difference(&new) {
            let Some(entry) = self.services.get_mut(&id.service) else { continue };
            let Some(backend) = entry.backends.get_mut(&(id.port, id.transport)) else { continue };
            backend.users.retain(|user| user != name);
            if backend.users.is_empty() {
                entry.backends.remove(&(id.port, id.transport));
                self.effects.push(Effect::DropBackend(id.clone()));
            }
        }
    }

    fn use_backend(&mut self, id: &BackendId, user: &ServiceName) {
        let Some(entry) = self.services.get_mut(&id.service) else { return };
        if let Some(backend) = entry.backends.get_mut(&(id.port, id.transport)) {
            if !backend.users.contains(user) {
                backend.users.push(user.clone());
            }
            return;
        }
        let Some(port) = entry.port(id.port, id.transport) else { return };
        let policy = port.backend.clone();
        let backend = Backend { policy, users: smallvec![user.clone()] };
        entry.backends.insert((id.port, id.transport), Box::new(backend));
        if let Some(effect) = self.set_backend(id) {
            self.effects.push(effect);
        }
    }

    fn refresh_all(&mut self) {
        let all: Vec<ServiceName> = self.services.keys().cloned().collect();
        all.iter().for_each(|name| self.refresh(name));
    }

    /// Puts the newest policy and endpoints in force on the backend ports of a Service.
    fn refresh(&mut self, name: &ServiceName) {
        let Some(entry) = self.services.get_mut(name) else { return };
        let newest = entry.service.get().cloned();
        for ((number, transport), backend) in &mut entry.backends {
            // A port that the newest version does not have is in use by the version before, with its last policy.
            if let Some(port) = newest.as_ref().and_then(|service| port_of(service, *number, *transport)) {
                backend.policy = port.backend.clone();
            }
        }
        let id = |(port, transport): &(u16, Transport)| BackendId {
            service: name.clone(),
            port: *port,
            transport: *transport,
        };
        let ids: Vec<_> = entry.backends.keys().map(id).collect();
        let effects: Vec<_> = ids.iter().filter_map(|id| self.set_backend(id)).collect();
        self.effects.extend(effects);
    }

    fn set_backend(&self, id: &BackendId) -> Option<Effect> {
        let entry = self.services.get(&id.service)?;
        let policy = entry.backends.get(&(id.port, id.transport))?.policy.clone();
        let (mut endpoints, access) = entry.endpoints_of(id.port, id.transport);
        endpoints.retain(|endpoint| self.dialable.allows(endpoint.address));
        Some(Effect::SetBackend { id: id.clone(), policy, endpoints, access })
    }
}

/// Every backend port that these ports send to.
fn backends_of(ports: Option<&[PublishedPort]>) -> BTreeSet<BackendId> {
    let ports = ports.unwrap_or_default();
    let routes = ports.iter().flat_map(|port| &port.routes);
    let routed = routes.flat_map(|it| &it.backends).filter_map(|(_, to)| to.backend().cloned());
    let referred =
        ports.iter().flat_map(|port| port.mirror.iter().chain(port.fallbacks.iter().map(|(_, to)| to))).cloned();
    routed.chain(ports.iter().map(|port| port.own.clone())).chain(referred).collect()
}

#[cfg(test)]
mod tests;
