//! What units of compilation read, and the view through which they read it.
//!
//! The view notes every read, also of what is not there: an absent Namespace is a fact like a present one. What is kept
//! besides the objects (addresses that were given out, what proxies listen on) is read by functions that take the view and
//! note the fact themselves.

use std::{cell::RefCell, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use maesh_config::{
    ServiceName,
    model::{Account, ListenerId},
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    index::{CLUSTER_DNS, FoundConfigMap, Id, Index, selects},
    kinds::{EndpointSlice, HttpRouteGroup, Namespace, Node, Pod, PortRoute, Service, TrafficSplit, TrafficTarget},
};

/// Something that units read, and that may change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fact {
    // Of objects.
    Service(ServiceName),
    /// All Services of a namespace.
    ServicesOf(Arc<str>),
    Namespace(Arc<str>),
    /// All slices of a Service.
    Slices(ServiceName),
    Slice(Id),
    ConfigMap(Id),
    /// All TrafficSplits of a Service.
    Splits(ServiceName),
    Split(Id),
    RouteGroup(Id),
    TcpRoute(Id),
    UdpRoute(Id),
    Target(Id),
    /// The TrafficTargets for a ServiceAccount that count.
    Targets(Account),
    Pod(Id),
    /// All pods of a namespace.
    PodsOf(Arc<str>),
    /// Pods of a namespace that have this label.
    Labelled(Arc<str>, (Arc<str>, Arc<str>)),
    /// The pods and nodes that an address belongs to.
    Address(IpAddr),
    /// The nodes that a range belongs to.
    Range(IpNet),

    // Of what was compiled from them.
    /// What a Service needs of the ports of its namespace.
    Needs(Arc<str>),
    /// Whether a Service needs more ports than its namespace may have.
    OverLimit(ServiceName),
    /// What a Service means by itself.
    Draft(ServiceName),
    /// What it means within the limits.
    Plan(ServiceName),
    /// Whether addresses of this class are the mesh's own.
    MeshAddress(u16),
    /// The Services that need own addresses.
    Owning,
    /// The Services that share port numbers.
    Sharing,
    /// The own address of a Service in a range.
    OwnAddress(ServiceName),
    /// What own addresses of a cluster say of a Service.
    Placement(ServiceName),
    /// Whether Services need more ports than the proxies have.
    PoolExhausted,
    /// Where the port number of the shared address listens.
    MovedPort(u16),
    /// Who needs a listener.
    Listener(ListenerId),
    /// Where a Service is listened for.
    Listens(ServiceName),
    /// The ready endpoints of a Service without a ClusterIP.
    Ready(ServiceName),

    // Of the proxies and the switches.
    /// The connected proxies.
    Proxies,
    /// Which proxies have a listener, and which failed to open it.
    Bound(ListenerId),
    /// Whether some proxy takes new work.
    AnyoneReady,
    /// Whether proxies had the time to come back.
    Settled,
    /// The global switch.
    Bypass,
}

/// Classes of addresses. One address that becomes the mesh's own concerns one class of them: an edge per address would
/// take more memory than it saves work.
const CLASSES: u64 = 4096;

impl Fact {
    /// Whether `address` is one of the mesh's own.
    pub(crate) fn mesh_address(address: IpAddr) -> Self {
        let hash = match address.to_canonical() {
            IpAddr::V4(address) => xxh3_64(&address.octets()),
            IpAddr::V6(address) => xxh3_64(&address.octets()),
        };
        Self::MeshAddress((hash % CLASSES) as u16)
    }
}

/// Reads facts and notes which.
#[derive(Debug)]
pub(crate) struct View<'a> {
    index: &'a Index,
    reads: RefCell<Vec<Fact>>,
}

impl<'a> View<'a> {
    pub(crate) fn new(index: &'a Index) -> Self {
        Self { index, reads: RefCell::default() }
    }

    /// Notes that `fact` was read.
    pub(crate) fn note(&self, fact: Fact) {
        self.reads.borrow_mut().push(fact);
    }

    /// Everything that was read.
    pub(crate) fn into_reads(self) -> Vec<Fact> {
        self.reads.into_inner()
    }

    pub(crate) fn service(&self, name: &ServiceName) -> Option<&'a Arc<Service>> {
        self.note(Fact::Service(name.clone()));
        self.index.services.get(name)
    }

    pub(crate) fn services_of(&self, namespace: &Arc<str>) -> impl Iterator<Item = &'a Arc<Service>> {
        self.note(Fact::ServicesOf(namespace.clone()));
        self.index.services_in(namespace)
    }

    pub(crate) fn namespace(&self, name: &Arc<str>) -> Option<&'a Namespace> {
        self.note(Fact::Namespace(name.clone()));
        self.index.namespaces.get(name)
    }

    /// Slices of a Service, by name.
    pub(crate) fn slices_of(
        &self,
        service: &ServiceName,
    ) -> impl Iterator<Item = &'a Arc<EndpointSlice>> + Clone + use<'a> {
        self.note(Fact::Slices(service.clone()));
        self.index.slices_of(service)
    }

    pub(crate) fn slice(&self, id: &Id) -> Option<&'a Arc<EndpointSlice>> {
        self.note(Fact::Slice(id.clone()));
        self.index.slice(id)
    }

    /// A ConfigMap that a Service names.
    pub(crate) fn config_map(&self, id: &Id) -> FoundConfigMap<'a> {
        self.note(Fact::ConfigMap(id.clone()));
        self.index.config_maps.get(id)
    }

    /// The TrafficSplits of a Service, by name.
    pub(crate) fn splits_of(&self, service: &ServiceName) -> impl Iterator<Item = &'a Arc<TrafficSplit>> + use<'a> {
        self.note(Fact::Splits(service.clone()));
        self.index.smi.splits_of(service)
    }

    pub(crate) fn split(&self, id: &Id) -> Option<&'a Arc<TrafficSplit>> {
        self.note(Fact::Split(id.clone()));
        self.index.smi.split(id)
    }

    pub(crate) fn route_group(&self, id: &Id) -> Option<&'a Arc<HttpRouteGroup>> {
        self.note(Fact::RouteGroup(id.clone()));
        self.index.smi.group(id)
    }

    pub(crate) fn tcp_route(&self, id: &Id) -> Option<&'a Arc<PortRoute>> {
        self.note(Fact::TcpRoute(id.clone()));
        self.index.smi.tcp_route(id)
    }

    pub(crate) fn udp_route(&self, id: &Id) -> Option<&'a Arc<PortRoute>> {
        self.note(Fact::UdpRoute(id.clone()));
        self.index.smi.udp_route(id)
    }

    pub(crate) fn target(&self, id: &Id) -> Option<&'a Arc<TrafficTarget>> {
        self.note(Fact::Target(id.clone()));
        self.index.smi.target(id)
    }

    /// Whether its ServiceAccount has so many older targets that this one does not count. Known with the target itself.
    pub(crate) fn is_beyond(&self, target: &TrafficTarget) -> bool {
        self.index.smi.is_beyond(target)
    }

    /// The TrafficTargets for a ServiceAccount that count, the oldest first.
    pub(crate) fn targets_of(&self, account: &Account) -> impl Iterator<Item = &'a Arc<TrafficTarget>> + use<'a> {
        self.note(Fact::Targets(account.clone()));
        self.index.smi.targets_of(account)
    }

    pub(crate) fn pod(&self, id: Id) -> Option<&'a Pod> {
        let pod = self.index.pod(&id.namespace, &id.name);
        self.note(Fact::Pod(id));
        pod
    }

    pub(crate) fn pods_of(&self, namespace: &Arc<str>) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.note(Fact::PodsOf(namespace.clone()));
        self.index.pods_in(namespace)
    }

    /// The pods that are the endpoints of a Service because nothing else is: sorted by name.
    pub(crate) fn selected_pods(&self, service: &ServiceName) -> Vec<Arc<Pod>> {
        if !self.index.selects_pods {
            return Vec::new();
        }
        let Some(service) = self.service(service) else { return Vec::new() };
        // Pods that it selects have each of its labels, so the first one is enough to hear of them.
        if let Some(label) = service.selector.first() {
            self.note(Fact::Labelled(service.meta.namespace.clone(), label.clone()));
        }
        self.index.selected_pods(service)
    }

    /// Pods that say an address is theirs.
    pub(crate) fn pods_at(&self, address: IpAddr) -> impl Iterator<Item = &'a Arc<Pod>> + use<'a> {
        self.note(Fact::Address(address));
        self.index.pods_at(&address)
    }

    /// Nodes that say an address is theirs.
    pub(crate) fn nodes_at(&self, address: IpAddr) -> impl Iterator<Item = &'a Node> {
        self.note(Fact::Address(address));
        self.index.nodes_at(&address)
    }

    /// Nodes that say a range is theirs.
    pub(crate) fn nodes_of_range(&self, range: IpNet) -> impl Iterator<Item = &'a Node> {
        self.note(Fact::Range(range));
        self.index.nodes_of_range(&range)
    }

    /// Whether a pod of kube-system is of the cluster's DNS by the selector of its Service.
    pub(crate) fn serves_cluster_dns(&self, pod: &Pod) -> bool {
        let (namespace, name) = CLUSTER_DNS;
        let is_it = || self.service(&ServiceName::new(namespace, name));
        &*pod.meta.namespace == namespace && is_it().is_some_and(|dns| selects(&dns.selector, &pod.labels))
    }
}
