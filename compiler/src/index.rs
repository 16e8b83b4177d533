//! The objects in force, and what they say, by key.
//!
//! The index says which facts change with an object. It does not know who reads them.

mod config_maps;
mod smi;
mod targets;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ahash::{AHashMap, AHashSet};
use ipnet::IpNet;
use maesh_config::ServiceName;

use self::{config_maps::ConfigMaps, smi::SmiObjects};
pub(crate) use self::{config_maps::FoundConfigMap, targets::MOST_TARGETS};
use crate::{
    event::Event,
    facts::Fact,
    kinds::{EndpointSlice, Labels, Meta, Namespace, Node, Object, ObjectId, ObjectKind, Pod, Service},
};

/// Namespace and name of a pod or slice.
pub(crate) type Id = ServiceName;

/// Namespace and name of the Service of the cluster's DNS.
pub(crate) const CLUSTER_DNS: (&str, &str) = ("kube-system", "kube-dns");

/// Is told which facts change.
type Changed<'a> = &'a mut dyn FnMut(Fact);

/// The objects.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) services: AHashMap<ServiceName, Arc<Service>>,
    pub(crate) namespaces: AHashMap<Arc<str>, Namespace>,
    slices: AHashMap<Id, Arc<EndpointSlice>>,
    slices_of: AHashMap<ServiceName, BTreeMap<Arc<str>, Arc<EndpointSlice>>>,
    pods: AHashMap<Arc<str>, AHashMap<Arc<str>, Arc<Pod>>>,
    services_in: AHashMap<Arc<str>, AHashSet<Arc<str>>>,
    nodes: AHashMap<Arc<str>, Node>,
    accounts: AHashSet<Id>,
    pods_at: AHashMap<IpAddr, Vec<Id>>,
    nodes_at: AHashMap<IpAddr, Vec<Arc<str>>>,
    nodes_of_range: AHashMap<IpNet, Vec<Arc<str>>>,
    pub(crate) selects_pods: bool,
    pub(crate) config_maps: ConfigMaps,
    pub(crate) smi: SmiObjects,
}

impl Index {
    /// An empty index. `selects_pods`: endpoints of a Service without slices are the pods it selects. `on_demand`: a
    /// ConfigMap is delivered once a Service names it.
    pub(crate) fn new(selects_pods: bool, on_demand: bool) -> Self {
        Self { selects_pods, config_maps: ConfigMaps::new(on_demand), ..Self::default() }
    }

    /// Takes in one event, and says which facts changed; some may be said twice.
    pub(crate) fn take(&mut self, event: Event, mut changed: impl FnMut(Fact)) {
        match event {
            Event::Apply(object) => self.apply(object, &mut changed),
            Event::Delete(id) => self.delete(&id, &mut changed),
            Event::Unreadable(id, why) => self.unreadable(&id, why, &mut changed),
            Event::Reset(kind, objects) => self.reset(kind, objects, &mut changed),
            Event::Synced(_) | Event::Problems(_) | Event::Reached(..) => {}
        }
    }

    /// How many objects of `kind` there are.
    pub(crate) fn count(&self, kind: ObjectKind) -> usize {
        match kind {
            ObjectKind::Namespace => self.namespaces.len(),
            ObjectKind::Node => self.nodes.len(),
            ObjectKind::ServiceAccount => self.accounts.len(),
            ObjectKind::Pod => self.pods.values().map(|pods| pods.len()).sum(),
            ObjectKind::Service => self.services.len(),
            ObjectKind::EndpointSlice => self.slices.len(),
            ObjectKind::ConfigMap => self.config_maps.count(),
            kind => self.smi.count(kind),
        }
    }

    /// Slices of a Service, by name.
    pub(crate) fn slices_of<'a>(
        &'a self,
        service: &ServiceName,
    ) -> impl Iterator<Item = &'a Arc<EndpointSlice>> + Clone + use<'a> {
        self.slices_of.get(service).into_iter().flat_map(BTreeMap::values)
    }

    /// A slice by its identity.
    pub(crate) fn slice(&self, id: &Id) -> Option<&Arc<EndpointSlice>> {
        self.slices.get(id)
    }

    /// The pods of a namespace.
    pub(crate) fn pods_in<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Arc<Pod>> + use<'a> {
        self.pods.get(namespace).into_iter().flat_map(|pods| pods.values())
    }

    /// The Services of a namespace.
    pub(crate) fn services_in<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Arc<Service>> + use<'a> {
        let names = self.services_in.get_key_value(namespace);
        let all = names.into_iter().flat_map(|(namespace, names)| names.iter().map(move |name| (namespace, name)));
        all.filter_map(|(namespace, name)| self.services.get(&ServiceName::new(namespace.clone(), name.clone())))
    }

    /// The pods that are the endpoints of `service` because nothing else is: sorted by name.
    pub(crate) fn selected_pods(&self, service: &Service) -> Vec<Arc<Pod>> {
        if !self.selects_pods || service.selector.is_empty() {
            return Vec::new();
        }
        let pods = self.pods.get(&service.meta.namespace).into_iter().flat_map(|pods| pods.values());
        let mut selected: Vec<_> = pods.filter(|pod| selects(&service.selector, &pod.labels)).cloned().collect();
        selected.sort_unstable_by(|a, b| a.meta.name.cmp(&b.meta.name));
        selected
    }

    /// A pod by its namespace and name.
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        self.pods.get(namespace)?.get(name).map(|pod| &**pod)
    }

    /// The pods of this name, in one namespace or in all.
    pub(crate) fn pods_named<'a>(&'a self, namespace: Option<&'a str>, name: &'a str) -> impl Iterator<Item = &'a Pod> {
        let in_question = self.pods.iter().filter(move |(here, _)| namespace.is_none_or(|wanted| ***here == *wanted));
        in_question.filter_map(move |(_, pods)| pods.get(name).map(|pod| &**pod))
    }

    /// Every range that nodes give their pods' addresses from.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = IpNet> {
        self.nodes_of_range.keys().copied()
    }

    /// Pods that say an address is theirs.
    pub(crate) fn pods_at<'a>(&'a self, address: &IpAddr) -> impl Iterator<Item = &'a Arc<Pod>> + use<'a> {
        let ids = self.pods_at.get(address).into_iter().flatten();
        ids.filter_map(|id| self.pods.get(&id.namespace)?.get(&id.name))
    }

    /// Nodes that say an address is theirs.
    pub(crate) fn nodes_at<'a>(&'a self, address: &IpAddr) -> impl Iterator<Item = &'a Node> + use<'a> {
        self.nodes_at.get(address).into_iter().flatten().filter_map(|name| self.nodes.get(name))
    }

    /// Nodes that say a range is theirs.
    pub(crate) fn nodes_of_range<'a>(&'a self, range: &IpNet) -> impl Iterator<Item = &'a Node> + use<'a> {
        self.nodes_of_range.get(range).into_iter().flatten().filter_map(|name| self.nodes.get(name))
    }

    fn apply(&mut self, object: Object, changed: Changed<'_>) {
        match object {
            Object::Namespace(namespace) => {
                let name = namespace.meta.name.clone();
                if self.namespaces.get(&name) != Some(&namespace) {
                    self.namespaces.insert(name.clone(), namespace);
                    changed(Fact::Namespace(name));
                }
            }
            Object::Node(node) => {
                let name = node.meta.name.clone();
                if self.nodes.get(&name) != Some(&node) {
                    self.forget_node(&name, changed);
                    self.learn_node(node, changed);
                }
            }
            Object::ServiceAccount(meta) => {
                self.accounts.insert(Id::new(meta.namespace, meta.name));
            }
            Object::Pod(pod) => {
                let old = self.pods.get(&pod.meta.namespace).and_then(|pods| pods.get(&pod.meta.name));
                if old.is_none_or(|old| **old != pod) {
                    self.forget_pod(&pod.meta.namespace.clone(), &pod.meta.name.clone(), changed);
                    self.learn_pod(pod, changed);
                }
            }
            Object::Service(service) => {
                let name = ServiceName::new(service.meta.namespace.clone(), service.meta.name.clone());
                let old = self.services.get(&name);
                if old.is_none_or(|old| **old != service) {
                    self.config_maps.note_service(old.map(|old| &**old), Some(&service));
                    self.services_in.entry(name.namespace.clone()).or_default().insert(name.name.clone());
                    self.services.insert(name.clone(), Arc::new(service));
                    service_changed(name, changed);
                }
            }
            Object::EndpointSlice(slice) => {
                let id = Id::new(slice.meta.namespace.clone(), slice.meta.name.clone());
                if self.slices.get(&id).is_none_or(|old| **old != slice) {
                    self.forget_slice(&id, changed);
                    self.learn_slice(id, slice, changed);
                }
            }
            Object::ConfigMap(map) => {
                let id = Id::new(map.meta.namespace.clone(), map.meta.name.clone());
                self.config_maps.set(id, Some(Ok(Arc::new(map))), changed);
            }
            Object::HttpRouteGroup(group) => self.smi.set_group(id_of(&group.meta), Some(group), changed),
            Object::TrafficSplit(split) => self.smi.set_split(id_of(&split.meta), Some(split), changed),
            Object::TcpRoute(route) => self.smi.set_tcp_route(id_of(&route.meta), Some(route), changed),
            Object::UdpRoute(route) => self.smi.set_udp_route(id_of(&route.meta), Some(route), changed),
            Object::TrafficTarget(target) => self.smi.set_target(id_of(&target.meta), Some(target), changed),
        }
    }

    fn delete(&mut self, id: &ObjectId, changed: Changed<'_>) {
        let name = || Id::new(id.namespace.clone(), id.name.clone());
        match id.kind {
            ObjectKind::Namespace => {
                if self.namespaces.remove(&id.name).is_some() {
                    changed(Fact::Namespace(id.name.clone()));
                }
            }
            ObjectKind::Node => self.forget_node(&id.name, changed),
            ObjectKind::ServiceAccount => {
                self.accounts.remove(&name());
            }
            ObjectKind::Pod => self.forget_pod(&id.namespace, &id.name, changed),
            ObjectKind::Service => {
                if let Some(old) = self.services.remove(&name()) {
                    self.config_maps.note_service(Some(&old), None);
                    if let Some(names) = self.services_in.get_mut(&id.namespace) {
                        names.remove(&id.name);
                        if names.is_empty() {
                            self.services_in.remove(&id.namespace);
                        }
                    }
                    service_changed(name(), changed);
                }
            }
            ObjectKind::EndpointSlice => self.forget_slice(&name(), changed),
            ObjectKind::ConfigMap => self.config_maps.set(name(), None, changed),
            ObjectKind::HttpRouteGroup => self.smi.set_group(name(), None, changed),
            ObjectKind::TrafficSplit => self.smi.set_split(name(), None, changed),
            ObjectKind::TcpRoute => self.smi.set_tcp_route(name(), None, changed),
            ObjectKind::UdpRoute => self.smi.set_udp_route(name(), None, changed),
            ObjectKind::TrafficTarget => self.smi.set_target(name(), None, changed),
        }
    }

    fn unreadable(&mut self, id: &ObjectId, why: Arc<str>, changed: Changed<'_>) {
        // Others are there or not.
        if id.kind == ObjectKind::ConfigMap {
            self.config_maps.set(Id::new(id.namespace.clone(), id.name.clone()), Some(Err(why)), changed);
        }
    }

    fn reset(&mut self, kind: ObjectKind, objects: Vec<Object>, changed: Changed<'_>) {
        let mut gone: AHashSet<ObjectId> = self.ids(kind).collect();
        for object in objects.into_iter().filter(|object| object.kind() == kind) {
            gone.remove(&object.id());
            self.apply(object, changed);
        }
        for id in gone {
            self.delete(&id, changed);
        }
    }

    fn ids(&self, kind: ObjectKind) -> Box<dyn Iterator<Item = ObjectId> + '_> {
        let of = move |id: &Id| ObjectId::new(kind, id.namespace.clone(), id.name.clone());
        let bare = move |name: &Arc<str>| ObjectId::new(kind, "", name.clone());
        match kind {
            ObjectKind::Namespace => Box::new(self.namespaces.keys().map(bare)),
            ObjectKind::Node => Box::new(self.nodes.keys().map(bare)),
            ObjectKind::ServiceAccount => Box::new(self.accounts.iter().map(of)),
            ObjectKind::Service => Box::new(self.services.keys().map(of)),
            ObjectKind::EndpointSlice => Box::new(self.slices.keys().map(of)),
            ObjectKind::ConfigMap => Box::new(self.config_maps.ids().map(of)),
            ObjectKind::Pod => Box::new(self.pods.iter().flat_map(move |(namespace, pods)| {
                pods.keys().map(move |name| ObjectId::new(kind, namespace.clone(), name.clone()))
            })),
            kind => Box::new(self.smi.ids(kind).into_iter().map(of)),
        }
    }

    fn learn_node(&mut self, node: Node, changed: Changed<'_>) {
        let name = &node.meta.name;
        for address in &node.addresses {
            self.nodes_at.entry(*address).or_default().push(name.clone());
            changed(Fact::Address(*address));
        }
        for range in &node.pod_ranges {
            self.nodes_of_range.entry(*range).or_default().push(name.clone());
            changed(Fact::Range(*range));
        }
        self.nodes.insert(name.clone(), node);
    }

    fn forget_node(&mut self, name: &Arc<str>, changed: Changed<'_>) {
        let Some(node) = self.nodes.remove(name) else { return };
        for address in &node.addresses {
            remove_from(&mut self.nodes_at, address, name);
            changed(Fact::Address(*address));
        }
        for range in &node.pod_ranges {
            remove_from(&mut self.nodes_of_range, range, name);
            changed(Fact::Range(*range));
        }
    }

    fn learn_pod(&mut self, pod: Pod, changed: Changed<'_>) {
        let id = Id::new(pod.meta.namespace.clone(), pod.meta.name.clone());
        for address in &pod.addresses {
            self.pods_at.entry(*address).or_default().push(id.clone());
        }
        pod_changed(&pod, changed);
        self.pods.entry(id.namespace).or_default().insert(id.name, Arc::new(pod));
    }

    fn forget_pod(&mut self, namespace: &Arc<str>, name: &Arc<str>, changed: Changed<'_>) {
        let Some(pods) = self.pods.get_mut(namespace) else { return };
        let Some(pod) = pods.remove(name) else { return };
        if pods.is_empty() {
            self.pods.remove(namespace);
        }
        let id = Id::new(namespace.clone(), name.clone());
        for address in &pod.addresses {
            remove_from(&mut self.pods_at, address, &id);
        }
        pod_changed(&pod, changed);
    }

    fn learn_slice(&mut self, id: Id, slice: EndpointSlice, changed: Changed<'_>) {
        let slice = Arc::new(slice);
        if let Some(service) = &slice.service {
            let service = ServiceName::new(id.namespace.clone(), service.clone());
            self.slices_of.entry(service.clone()).or_default().insert(id.name.clone(), slice.clone());
            changed(Fact::Slices(service));
        }
        changed(Fact::Slice(id.clone()));
        self.slices.insert(id, slice);
    }

    fn forget_slice(&mut self, id: &Id, changed: Changed<'_>) {
        let Some(slice) = self.slices.remove(id) else { return };
        changed(Fact::Slice(id.clone()));
        if let Some(service) = &slice.service {
            let service = ServiceName::new(id.namespace.clone(), service.clone());
            if let Some(slices) = self.slices_of.get_mut(&service) {
                slices.remove(&id.name);
                if slices.is_empty() {
                    self.slices_of.remove(&service);
                }
            }
            changed(Fact::Slices(service));
        }
    }
}

fn id_of(meta: &Meta) -> Id {
    Id::new(meta.namespace.clone(), meta.name.clone())
}

fn service_changed(name: ServiceName, changed: Changed<'_>) {
    changed(Fact::ServicesOf(name.namespace.clone()));
    changed(Fact::Service(name));
}

fn pod_changed(pod: &Pod, changed: Changed<'_>) {
    let Meta { namespace, name, .. } = &pod.meta;
    pod.addresses.iter().for_each(|address| changed(Fact::Address(*address)));
    pod.labels.iter().for_each(|label| changed(Fact::Labelled(namespace.clone(), label.clone())));
    changed(Fact::Pod(Id::new(namespace.clone(), name.clone())));
    changed(Fact::PodsOf(namespace.clone()));
}

/// Whether `labels` has every pair of `selector`; an empty selector selects nothing.
pub(crate) fn selects(selector: &Labels, labels: &Labels) -> bool {
    !selector.is_empty() && selector.iter().all(|pair| labels.binary_search(pair).is_ok())
}

fn remove_from<K: std::hash::Hash + Eq, V: PartialEq>(map: &mut AHashMap<K, Vec<V>>, key: &K, value: &V) {
    if let Some(values) = map.get_mut(key) {
        values.retain(|other| other != value);
        if values.is_empty() {
            map.remove(key);
        }
    }
}
