//! The objects in force, and which parts of the configuration depend on them.
//!
//! Every change marks exactly what has to be compiled again. The index decides nothing.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ahash::{AHashMap, AHashSet};
use ipnet::IpNet;
use maesh_config::ServiceName;

use crate::{
    event::Event,
    kinds::{EndpointSlice, Labels, Namespace, Node, Object, ObjectId, ObjectKind, Pod, Service},
};

/// Namespace and name of a pod or slice.
type Id = ServiceName;

/// What has to be compiled again.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// Services of which everything may have changed.
    pub(crate) services: AHashSet<ServiceName>,
    /// Services whose endpoints may have changed.
    pub(crate) endpoints: AHashSet<ServiceName>,
    /// Addresses whose owner may have changed.
    pub(crate) addresses: AHashSet<IpAddr>,
    /// Ranges whose node may have changed.
    pub(crate) ranges: AHashSet<IpNet>,
    /// Namespaces whose annotations may have changed.
    pub(crate) namespaces: AHashSet<Arc<str>>,
    /// Slices that may be odd.
    pub(crate) slices: AHashSet<Id>,
}

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
    selects_pods: bool,
    pub(crate) dirty: Dirty,
}

impl Index {
    /// An empty index. `selects_pods`: endpoints of a Service without slices are the pods it selects.
    pub(crate) fn new(selects_pods: bool) -> Self {
        Self { selects_pods, ..Self::default() }
    }

    /// Takes in one event.
    pub(crate) fn take(&mut self, event: Event) {
        match event {
            Event::Apply(object) => self.apply(object),
            Event::Delete(id) => self.delete(&id),
            Event::Reset(kind, objects) => self.reset(kind, objects),
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
        }
    }

    /// Slices of a Service, by name.
    pub(crate) fn slices_of(&self, service: &ServiceName) -> impl Iterator<Item = &Arc<EndpointSlice>> + Clone {
        self.slices_of.get(service).into_iter().flat_map(BTreeMap::values)
    }

    /// A slice by its identity.
    pub(crate) fn slice(&self, id: &Id) -> Option<&Arc<EndpointSlice>> {
        self.slices.get(id)
    }

    /// Identities of the slices of a Service.
    pub(crate) fn ids_of_slices(&self, service: &ServiceName) -> Vec<Id> {
        let names = self.slices_of.get(service).into_iter().flat_map(BTreeMap::keys);
        names.map(|name| Id::new(service.namespace.clone(), name.clone())).collect()
    }

    /// Slices that have one of these addresses, and their Services. Looks at all of them: for what changes seldom.
    pub(crate) fn slices_at(&self, addresses: &AHashSet<IpAddr>) -> Vec<(Id, Option<ServiceName>)> {
        if addresses.is_empty() {
            return Vec::new();
        }
        let has =
            |slice: &EndpointSlice| slice.endpoints.iter().any(|it| addresses.contains(&it.address.to_canonical()));
        let service = |id: &Id, slice: &EndpointSlice| {
            slice.service.as_ref().map(|service| ServiceName::new(id.namespace.clone(), service.clone()))
        };
        let found = self.slices.iter().filter(|(_, slice)| has(slice));
        found.map(|(id, slice)| (id.clone(), service(id, slice))).collect()
    }

    /// Services that select a pod with one of these addresses. Looks at all pods: for what changes seldom.
    pub(crate) fn services_selecting_at(&self, addresses: &AHashSet<IpAddr>) -> Vec<ServiceName> {
        if !self.selects_pods || addresses.is_empty() {
            return Vec::new();
        }
        let has = |pod: &&Arc<Pod>| pod.addresses.iter().any(|it| addresses.contains(&it.to_canonical()));
        self.pods
            .values()
            .flat_map(|pods| pods.values())
            .filter(has)
            .flat_map(|pod| self.services_selecting(pod))
            .collect()
    }

    /// The pods of a namespace.
    pub(crate) fn pods_in(&self, namespace: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.get(namespace).into_iter().flat_map(|pods| pods.values())
    }

    /// The Services of a namespace.
    pub(crate) fn services_in(&self, namespace: &str) -> impl Iterator<Item = &Arc<Service>> {
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
    pub(crate) fn pods_at(&self, address: &IpAddr) -> impl Iterator<Item = &Arc<Pod>> {
        let ids = self.pods_at.get(address).into_iter().flatten();
        ids.filter_map(|id| self.pods.get(&id.namespace)?.get(&id.name))
    }

    /// Nodes that say an address is theirs.
    pub(crate) fn nodes_at(&self, address: &IpAddr) -> impl Iterator<Item = &Node> {
        self.nodes_at.get(address).into_iter().flatten().filter_map(|name| self.nodes.get(name))
    }

    /// Nodes that say a range is theirs.
    pub(crate) fn nodes_of_range(&self, range: &IpNet) -> impl Iterator<Item = &Node> {
        self.nodes_of_range.get(range).into_iter().flatten().filter_map(|name| self.nodes.get(name))
    }

    /// Whether a pod of kube-system is of the cluster's DNS by the selector of its Service.
    pub(crate) fn serves_cluster_dns(&self, pod: &Pod) -> bool {
        let dns = self.services.get(&cluster_dns());
        &*pod.meta.namespace == "kube-system"
            && dns.is_some_and(|dns| !dns.selector.is_empty() && selects(&dns.selector, &pod.labels))
    }

    fn apply(&mut self, object: Object) {
        match object {
            Object::Namespace(namespace) => {
                let name = namespace.meta.name.clone();
                if self.namespaces.get(&name) != Some(&namespace) {
                    self.namespaces.insert(name.clone(), namespace);
                    self.namespace_changed(&name);
                }
            }
            Object::Node(node) => {
                let name = node.meta.name.clone();
                if self.nodes.get(&name) != Some(&node) {
                    self.forget_node(&name);
                    self.learn_node(node);
                }
            }
            Object::ServiceAccount(meta) => {
                self.accounts.insert(Id::new(meta.namespace, meta.name));
            }
            Object::Pod(pod) => {
                let old = self.pods.get(&pod.meta.namespace).and_then(|pods| pods.get(&pod.meta.name));
                if old.is_none_or(|old| **old != pod) {
                    self.forget_pod(&pod.meta.namespace.clone(), &pod.meta.name.clone());
                    self.learn_pod(pod);
                }
            }
            Object::Service(service) => {
                let name = ServiceName::new(service.meta.namespace.clone(), service.meta.name.clone());
                if self.services.get(&name).is_none_or(|old| **old != service) {
                    self.services_in.entry(name.namespace.clone()).or_default().insert(name.name.clone());
                    self.services.insert(name.clone(), Arc::new(service));
                    self.service_changed(name);
                }
            }
            Object::EndpointSlice(slice) => {
                let id = Id::new(slice.meta.namespace.clone(), slice.meta.name.clone());
                if self.slices.get(&id).is_none_or(|old| **old != slice) {
                    self.forget_slice(&id);
                    self.learn_slice(id, slice);
                }
            }
        }
    }

    fn delete(&mut self, id: &ObjectId) {
        let name = || Id::new(id.namespace.clone(), id.name.clone());
        match id.kind {
            ObjectKind::Namespace => {
                if self.namespaces.remove(&id.name).is_some() {
                    self.namespace_changed(&id.name);
                }
            }
            ObjectKind::Node => self.forget_node(&id.name),
            ObjectKind::ServiceAccount => {
                self.accounts.remove(&name());
            }
            ObjectKind::Pod => self.forget_pod(&id.namespace, &id.name),
            ObjectKind::Service => {
                if self.services.remove(&name()).is_some() {
                    if let Some(names) = self.services_in.get_mut(&id.namespace) {
                        names.remove(&id.name);
                        if names.is_empty() {
                            self.services_in.remove(&id.namespace);
                        }
                    }
                    self.service_changed(name());
                }
            }
            ObjectKind::EndpointSlice => self.forget_slice(&name()),
        }
    }

    fn reset(&mut self, kind: ObjectKind, objects: Vec<Object>) {
        let mut gone: AHashSet<ObjectId> = self.ids(kind).collect();
        for object in objects.into_iter().filter(|object| object.kind() == kind) {
            gone.remove(&object.id());
            self.apply(object);
        }
        for id in gone {
            self.delete(&id);
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
            ObjectKind::Pod => Box::new(self.pods.iter().flat_map(move |(namespace, pods)| {
                pods.keys().map(move |name| ObjectId::new(kind, namespace.clone(), name.clone()))
            })),
        }
    }

    fn namespace_changed(&mut self, name: &Arc<str>) {
        for service in self.services_in.get(name).into_iter().flatten() {
            self.dirty.services.insert(ServiceName::new(name.clone(), service.clone()));
        }
        self.dirty.namespaces.insert(name.clone());
    }

    fn service_changed(&mut self, name: ServiceName) {
        if name == cluster_dns() {
            let pods = self.pods.get("kube-system").into_iter().flat_map(|pods| pods.values());
            self.dirty.addresses.extend(pods.flat_map(|pod| pod.addresses.iter().copied()));
        }
        self.dirty.services.insert(name);
    }

    fn learn_node(&mut self, node: Node) {
        let name = &node.meta.name;
        for address in &node.addresses {
            self.nodes_at.entry(*address).or_default().push(name.clone());
            self.dirty.addresses.insert(*address);
        }
        for range in &node.pod_ranges {
            self.nodes_of_range.entry(*range).or_default().push(name.clone());
            self.dirty.ranges.insert(*range);
        }
        self.nodes.insert(name.clone(), node);
    }

    fn forget_node(&mut self, name: &Arc<str>) {
        let Some(node) = self.nodes.remove(name) else { return };
        for address in &node.addresses {
            remove_from(&mut self.nodes_at, address, name);
            self.dirty.addresses.insert(*address);
        }
        for range in &node.pod_ranges {
            remove_from(&mut self.nodes_of_range, range, name);
            self.dirty.ranges.insert(*range);
        }
    }

    fn learn_pod(&mut self, pod: Pod) {
        let id = Id::new(pod.meta.namespace.clone(), pod.meta.name.clone());
        for address in &pod.addresses {
            self.pods_at.entry(*address).or_default().push(id.clone());
            self.dirty.addresses.insert(*address);
        }
        self.mark_selecting(&pod);
        self.pods.entry(id.namespace).or_default().insert(id.name, Arc::new(pod));
    }

    fn forget_pod(&mut self, namespace: &Arc<str>, name: &Arc<str>) {
        let Some(pods) = self.pods.get_mut(namespace) else { return };
        let Some(pod) = pods.remove(name) else { return };
        if pods.is_empty() {
            self.pods.remove(namespace);
        }
        let id = Id::new(namespace.clone(), name.clone());
        for address in &pod.addresses {
            remove_from(&mut self.pods_at, address, &id);
            self.dirty.addresses.insert(*address);
        }
        self.mark_selecting(&pod);
    }

    fn mark_selecting(&mut self, pod: &Pod) {
        let selecting = self.services_selecting(pod);
        self.dirty.endpoints.extend(selecting);
    }

    /// Services of which a pod is an endpoint where they have no slice.
    fn services_selecting(&self, pod: &Pod) -> Vec<ServiceName> {
        if !self.selects_pods {
            return Vec::new();
        }
        let names = self.services_in.get(&pod.meta.namespace).into_iter().flatten();
        let names = names.map(|name| ServiceName::new(pod.meta.namespace.clone(), name.clone()));
        let has = |name: &ServiceName| self.services.get(name).is_some_and(|it| selects(&it.selector, &pod.labels));
        names.filter(has).collect()
    }

    fn learn_slice(&mut self, id: Id, slice: EndpointSlice) {
        let slice = Arc::new(slice);
        if let Some(service) = &slice.service {
            let service = ServiceName::new(id.namespace.clone(), service.clone());
            self.slices_of.entry(service.clone()).or_default().insert(id.name.clone(), slice.clone());
            self.dirty.endpoints.insert(service);
        }
        self.dirty.slices.insert(id.clone());
        self.slices.insert(id, slice);
    }

    fn forget_slice(&mut self, id: &Id) {
        let Some(slice) = self.slices.remove(id) else { return };
        self.dirty.slices.insert(id.clone());
        if let Some(service) = &slice.service {
            let service = ServiceName::new(id.namespace.clone(), service.clone());
            if let Some(slices) = self.slices_of.get_mut(&service) {
                slices.remove(&id.name);
                if slices.is_empty() {
                    self.slices_of.remove(&service);
                }
            }
            self.dirty.endpoints.insert(service);
        }
    }
}

fn cluster_dns() -> ServiceName {
    ServiceName::new("kube-system", "kube-dns")
}

/// Whether `labels` has every pair of `selector`; an empty selector selects nothing.
fn selects(selector: &Labels, labels: &Labels) -> bool {
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
