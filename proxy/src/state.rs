//! The configuration in force: written by one task, read by every request.
//!
//! Reading takes no lock: tables are cut into shards behind [`ArcSwap`], and a Service, once found, is a handle whose
//! parts are snapshots of their own. So a pod that moves replaces the endpoints of one port and nothing else, however
//! many names there are.

mod access;
mod admitted;
mod apply;
mod claims;
mod demand;
mod denied;
mod graph;
mod listening;
mod refused;
mod runtime;
mod shard;
mod workloads;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderValue;
use maesh_config::{
    NodeName, ServiceName,
    model::{AccessControl, AccessSource, CalledPolicy, NamePort, Protocol},
    policy::Percent,
    rule::Rule,
};
use maesh_discovery::{AcceptFailures, LogLimit};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc};

pub(crate) use self::{
    admitted::AdmittedStream,
    apply::{Apply, NotOpened, Ports},
    claims::Claims,
    demand::{PortLookup, fetch, find_port, ready_port},
    denied::Denial,
    listening::{Facts, Listening},
    runtime::Runtime,
};
use self::{shard::Sharded, workloads::Workloads};
pub(crate) use crate::balance::{BackendPort, Endpoint, InFlight, Locality};
use crate::{
    admission::Admission,
    buffers::Buffers,
    clock::Clock,
    config::Config,
    loops::OwnEnds,
    policy::CalledRuntime,
    reason::Reason,
    routes::{RouteFacts, RouteIndex},
    telemetry::{AccessLog, PortTelemetry, Telemetry, Tracer},
};

/// Everything that workers share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) telemetry: Telemetry,
    /// What holds for the whole mesh.
    pub(crate) mesh: ArcSwap<MeshFacts>,
    /// Services by what callers write.
    pub(crate) directory: Directory,
    /// Workloads by address.
    pub(crate) workloads: Workloads,
    /// Every name and listener has arrived at least once.
    pub(crate) complete: AtomicBool,
    /// How far a drain has come; see [`Phase`].
    phase: AtomicU8,
    /// Number of Services with an HTTP port that will soon be served in another way.
    leaving: Arc<AtomicUsize>,
    /// Connections of callers that are open.
    pub(crate) admission: Admission,
    /// Bounds what is logged of connections that are not accepted or not carried.
    pub(crate) logs: ConnectionLogs,
    /// Bytes held for callers.
    pub(crate) buffers: Arc<Buffers>,
    /// Each task that accepts connections holds one of these.
    pub(crate) acceptors: Arc<()>,
    /// Local ends of opaque streams, to notice streams that lead back to this proxy.
    pub(crate) own_ends: OwnEnds,
    /// The same of flows of datagrams.
    pub(crate) own_flow_ends: OwnEnds,
    /// The access log, where it is on.
    pub(crate) access_log: Option<AccessLog>,
    /// What makes spans, where traces are on.
    pub(crate) tracer: Option<Tracer>,
    /// What is learnt, by port.
    pub(crate) runtime: Arc<Runtime>,
    /// When the last update was put in force, in seconds since the proxy started.
    pub(crate) updated: AtomicU64,
    /// What [`MeshFacts::access_control`] says, where it can be read without a snapshot.
    access_control: AtomicU8,
    /// Coarse time at which access control was last seen not to deny.
    controlled_since: AtomicU32,
    /// Room for what a dry run looks at later.
    tried_out: Arc<Semaphore>,
    /// How often grants or identities have changed.
    access_version: AtomicU64,
    /// When the stream to the controller was lost, in seconds since the proxy started; `u64::MAX` while it is up.
    controller_lost: AtomicU64,
    wanted: mpsc::UnboundedSender<WantedResource>,
}

/// Bounds what is logged of connections that are not accepted or not carried.
pub(crate) struct ConnectionLogs {
    /// The system refuses to accept.
    pub(crate) accept_failures: Mutex<AcceptFailures>,
    /// A caller has all connections that it may have.
    pub(crate) refused: Mutex<LogLimit>,
    /// A stream led back to the mesh.
    pub(crate) loops: Mutex<LogLimit>,
    /// Access control denies something, or would: to a ServiceAccount, or an address that is nobody's, at a Service.
    pub(crate) denied: Mutex<denied::DenialLog>,
}

impl Default for ConnectionLogs {
    fn default() -> Self {
        let accept_failures = Mutex::new(AcceptFailures::new("callers"));
        Self { accept_failures, refused: Mutex::default(), loops: Mutex::default(), denied: Mutex::default() }
    }
}

/// A resource that the data path needs and does not have.
pub(crate) enum WantedResource {
    /// A Service that was called for the first time.
    Service(Arc<ServiceEntry>),
    /// What is at the address of a caller.
    Workload(IpAddr),
}

/// How far a drain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// It takes new work.
    Serving = 0,
    /// Not ready any more, but still taking what arrives.
    Leaving = 1,
    /// Connections are asked to end.
    Closing = 2,
}

impl Shared {
    /// Empty state, and the receiver of what the data path needs.
    pub(crate) fn new(
        config: Config,
        telemetry: Telemetry,
        (access_log, tracer): (Option<AccessLog>, Option<Tracer>),
        admission: Admission,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<WantedResource>) {
        let (wanted, wanted_here) = mpsc::unbounded_channel();
        let shared = Self {
            buffers: Buffers::new(
                config.limits.buffered,
                config.limits.buffered_per_caller,
                telemetry.buffered.clone(),
            ),
            admission,
            acceptors: Arc::default(),
            logs: ConnectionLogs::default(),
            own_ends: OwnEnds::new(&config.shared),
            own_flow_ends: OwnEnds::new(&config.shared),
            access_log,
            tracer,
            runtime: Arc::default(),
            updated: AtomicU64::new(0),
            access_control: AtomicU8::new(AccessControl::Off as u8),
            controlled_since: AtomicU32::new(0),
            tried_out: Arc::new(Semaphore::new(denied::MOST_WAITING)),
            access_version: AtomicU64::new(0),
            controller_lost: AtomicU64::new(0),
            config,
            clock: Clock::new(),
            telemetry,
            mesh: ArcSwap::from_pointee(MeshFacts::default()),
            directory: Directory::default(),
            workloads: Workloads::default(),
            complete: AtomicBool::new(false),
            phase: AtomicU8::new(Phase::Serving as u8),
            leaving: Arc::default(),
            wanted,
        };
        (Arc::new(shared), wanted_here)
    }

    /// Why a name is not found: there is none, or not all names have arrived yet.
    pub(crate) fn unknown(&self) -> Reason {
        if self.complete.load(Ordering::Acquire) { Reason::UnknownHost } else { Reason::NotSynced }
    }

    /// Notes that `caller` connects, so that what is at its address is known when something depends on it.
    pub(crate) fn request_workload(&self, caller: IpAddr) {
        if self.workloads.note_use(caller, self.clock.coarse()) {
            // A closed channel means that the proxy is ending.
            let _ = self.wanted.send(WantedResource::Workload(caller));
        }
    }

    /// Waits, for as long as for a Service at its first use, until what is at the address of `caller` is known.
    pub(crate) async fn wait_for_workload(&self, caller: IpAddr) {
        if self.workloads.at(caller).is_none() {
            self.request_workload(caller);
            self.workloads.settled(caller, &self.clock, self.config.first_use).await;
        }
    }

    /// The node that `caller` runs on, or of a caller that is not known, the proxy's own.
    pub(crate) fn node_of(&self, caller: IpAddr) -> Option<NodeName> {
        let workload = self.workloads.at(caller);
        workload.and_then(|workload| workload.node.clone()).or_else(|| self.config.node.clone())
    }

    /// How far a drain has come.
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Serving,
            1 => Phase::Leaving,
            _ => Phase::Closing,
        }
    }

    /// Whether any HTTP port will soon be served in another way.
    pub(crate) fn has_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed) > 0
    }

    /// Whether connections are still accepted.
    pub(crate) fn is_accepting(&self) -> bool {
        Arc::strong_count(&self.acceptors) > 1
    }

    /// Goes on to `phase`.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
    }
}

/// What holds for the whole mesh, in the form that routing needs.
#[derive(Debug, Default)]
pub(crate) struct MeshFacts {
    /// `.maesh`, `.traefik.mesh`
    pub(crate) zones: Vec<Box<str>>,
    /// `.svc.cluster.local`
    pub(crate) cluster: Box<str>,
    /// Where it denies, nothing may be sent around the policies.
    pub(crate) access_control: AccessControl,
    /// Callers that are no pods, and who they count as there.
    pub(crate) access_sources: Vec<AccessSource>,
}

/// Services by what callers write.
#[derive(Default)]
pub(crate) struct Directory {
    /// By `service.namespace`.
    by_name: Sharded<Box<str>, Arc<ServiceEntry>>,
    /// By ClusterIP.
    by_address: Sharded<IpAddr, Arc<ServiceEntry>>,
}

impl Directory {
    /// The Service `service.namespace` (lower case).
    pub(crate) fn named(&self, name: &str) -> Option<Arc<ServiceEntry>> {
        self.by_name.get(name)
    }

    /// The Service with this ClusterIP.
    pub(crate) fn at(&self, address: IpAddr) -> Option<Arc<ServiceEntry>> {
        self.by_address.get(&address)
    }

    /// The Service of this name.
    pub(crate) fn service(&self, name: &ServiceName) -> Option<Arc<ServiceEntry>> {
        self.named(&directory_name(name))
    }
}

/// The name under which the directory has a Service: `service.namespace`.
pub(crate) fn directory_name(service: &ServiceName) -> Box<str> {
    format!("{}.{}", service.name, service.namespace).into_boxed_str()
}

/// A Service that callers can name; lives as long as its name.
pub(crate) struct ServiceEntry {
    /// Its name.
    pub(crate) name: ServiceName,
    /// What its name says.
    pub(crate) facts: ArcSwap<NameFacts>,
    /// Its routes and policies in force, once they are here.
    pub(crate) serving: ArcSwapOption<ActiveService>,
    /// Coarse time of its last use.
    used: AtomicU32,
    /// It has been asked for; the time is in `wanted_at`.
    wanted: AtomicBool,
    wanted_at: AtomicU64,
    /// Notified when its configuration has arrived or is known to be absent.
    arrived: Notify,
    /// Its configuration was asked for and does not exist.
    absent: AtomicBool,
    /// Backends at the ClusterIPs, used while its configuration cannot be had.
    plain: Mutex<Vec<(u16, Protocol, Arc<Port>)>>,
}

/// What a name says of its Service.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct NameFacts {
    /// The ClusterIPs; nothing for headless Services.
    pub(crate) cluster_ips: Vec<IpAddr>,
    /// It has no ClusterIP.
    pub(crate) headless: bool,
    /// Its meshed ports.
    pub(crate) ports: Vec<NamePort>,
}

/// Routes and policies of one Service, in force.
pub(crate) struct ActiveService {
    /// Its ports, by number and protocol.
    pub(crate) ports: Vec<Arc<Port>>,
    /// Counts this Service while one of its HTTP ports will soon be served in another way. It is not a part of the port,
    /// because a stream that began on a port can keep it alive for days.
    _leaving: Option<Leaving>,
}

impl ActiveService {
    /// These ports; counted in `leaving` if one of them will soon be served in another way.
    fn new(ports: Vec<Arc<Port>>, leaving: &Arc<AtomicUsize>) -> Self {
        let leaves = ports.iter().any(|port| port.leaving && port.protocol == Protocol::Http);
        Self { ports, _leaving: leaves.then(|| Leaving::new(leaving)) }
    }

    /// Whether `address` is that of an endpoint to which one of its ports leads.
    pub(crate) fn leads_to(&self, address: IpAddr) -> bool {
        let has = |backend: &BackendPort| backend.upstreams.load().has_endpoint_at(address);
        self.ports.iter().any(|port| {
            let mut routed = port.routes.iter().flat_map(WeightedRoute::backends);
            has(&port.own) || routed.any(|(_, to)| to.backend().is_some_and(|backend| has(backend)))
        })
    }

    /// Whether a request or stream is in flight on any of its ports.
    pub(crate) fn is_busy(&self) -> bool {
        self.ports.iter().flat_map(|port| port.backends()).any(|backend| backend.is_busy())
    }

    /// Its port of this number and protocol.
    pub(crate) fn port(&self, number: u16, protocol: Protocol) -> Option<&Arc<Port>> {
        self.ports.iter().find(|port| port.number == number && port.protocol == protocol)
    }
}

/// One port of a Service that is called.
pub(crate) struct Port {
    /// Its number.
    pub(crate) number: u16,
    /// What it carries.
    pub(crate) protocol: Protocol,
    /// It will soon be served in another way (another protocol or address). Callers are asked to come back on a new
    /// connection, after a new DNS answer.
    pub(crate) leaving: bool,
    /// Where requests go, in order of precedence; what none matches goes to `own`.
    pub(crate) routes: Vec<WeightedRoute>,
    /// What they ask of requests; `None` where none asks anything.
    pub(crate) rules: Option<RouteIndex>,
    /// The Service's own endpoints.
    pub(crate) own: Arc<BackendPort>,
    /// Requests that no route takes are refused: a policy of the port is not understood.
    pub(crate) own_refuses: bool,
    /// Policies for every request to it.
    pub(crate) called: Arc<CalledPolicy>,
    /// What is learnt of those requests.
    pub(crate) runtime: Arc<CalledRuntime>,
    /// Where copies of them go.
    pub(crate) mirror: Option<MirrorTarget>,
    /// Backends that have a fallback, and what it is.
    pub(crate) fallbacks: Vec<(Arc<BackendPort>, Arc<BackendPort>)>,
    /// `X-Forwarded-Port`.
    pub(crate) number_text: HeaderValue,
    /// What is counted for it.
    pub(crate) counts: Counts,
}

/// Where copies of requests go.
#[derive(Clone)]
pub(crate) struct MirrorTarget {
    /// The port of the Service that gets them.
    pub(crate) backend: Arc<BackendPort>,
    /// Share of the requests that are copied.
    pub(crate) share: Percent,
}

/// Adds one to a count until it is dropped.
struct Leaving(Arc<AtomicUsize>);

impl Leaving {
    fn new(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(all.clone())
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counters of a port, by what it carries.
pub(crate) enum Counts {
    /// Requests.
    Http(Arc<PortTelemetry>),
    /// Streams, which are counted one by one.
    Stream,
}

/// Weighted backends of one route.
pub(crate) struct WeightedRoute {
    /// What a request or connection has to be, for people.
    pub(crate) rule: Option<Rule>,
    /// Sum of all weights.
    total: u64,
    /// Each backend with its weight.
    backends: Vec<(u32, Destination<Arc<BackendPort>>)>,
}

/// A backend of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination<B> {
    /// A port of a Service.
    Backend(B),
    /// It does not exist.
    Missing,
    /// A newer controller says something of the route, or of the backend, that this version does not know and must not
    /// ignore.
    NotUnderstood,
}

impl<B> Destination<B> {
    /// The backend, if requests can be sent there.
    pub(crate) fn backend(&self) -> Option<&B> {
        match self {
            Self::Backend(backend) => Some(backend),
            Self::Missing | Self::NotUnderstood => None,
        }
    }
}

/// Where a request goes.
pub(crate) enum Target<'a> {
    /// A port of a Service.
    Backend(&'a Arc<BackendPort>),
    /// A backend that does not exist.
    Missing,
    /// A route or backend with a policy that this version does not know.
    NotUnderstood,
    /// All weights are 0.
    Nowhere,
}

impl Port {
    /// Where requests for `backend` go while none of its endpoints can be used.
    pub(crate) fn fallback_of(&self, backend: &Arc<BackendPort>) -> Option<&Arc<BackendPort>> {
        self.fallbacks.iter().find(|(of, _)| Arc::ptr_eq(of, backend)).map(|(_, fallback)| fallback)
    }

    /// The number of the route that takes a request or connection; `None` where none does, so that the Service itself has it.
    /// `facts` is called where a route asks for them.
    pub(crate) fn route_number<'f>(&self, facts: impl FnOnce() -> RouteFacts<'f>) -> Option<usize> {
        match &self.rules {
            None => (!self.routes.is_empty()).then_some(0),
            Some(rules) => rules.find(&facts()),
        }
    }

    /// That route.
    pub(crate) fn route<'f>(&self, facts: impl FnOnce() -> RouteFacts<'f>) -> Option<&WeightedRoute> {
        self.route_number(facts).and_then(|number| self.routes.get(number))
    }

    /// Picks a backend of `route` by weight, or the Service itself; `draw` is a uniformly random number.
    pub(crate) fn pick<'a>(&'a self, route: Option<&'a WeightedRoute>, draw: u64) -> Target<'a> {
        match route {
            Some(route) => route.pick(draw),
            None if self.own_refuses => Target::NotUnderstood,
            None => Target::Backend(&self.own),
        }
    }

    /// The backend at which a caller is denied what `route` takes. It has to be admitted to every backend that may get it. A
    /// backend without pods is nobody's: it is denied to those who are `admit`ted to nothing else of this port.
    pub(crate) fn denied_at<'a>(
        &'a self,
        route: Option<&'a WeightedRoute>,
        admits: impl Fn(&BackendPort) -> Option<bool>,
    ) -> Option<&'a Arc<BackendPort>> {
        let (mut empty, mut is_admitted) = (None, false);
        for backend in self.leaves(route) {
            match admits(backend) {
                Some(false) => return Some(backend),
                Some(true) => is_admitted = true,
                None => empty = Some(backend),
            }
        }
        empty.filter(|_| !is_admitted && !self.backends().any(|backend| admits(backend) == Some(true)))
    }

    /// Every backend of the port, fallbacks among them.
    pub(crate) fn backends(&self) -> impl Iterator<Item = &Arc<BackendPort>> {
        let routed = self.routes.iter().flat_map(WeightedRoute::backends).filter_map(|(_, to)| to.backend());
        std::iter::once(&self.own).chain(routed).chain(self.fallbacks.iter().map(|(_, to)| to))
    }

    /// Every backend that may get something by `route`, or the Service itself.
    fn leaves<'a>(&'a self, route: Option<&'a WeightedRoute>) -> impl Iterator<Item = &'a Arc<BackendPort>> {
        let own = route.is_none().then_some(&self.own);
        let routed = route.into_iter().flat_map(WeightedRoute::backends).filter(|(weight, _)| *weight > 0);
        own.into_iter().chain(routed.filter_map(|(_, to)| to.backend()))
    }
}

impl WeightedRoute {
    /// Each backend with its weight.
    pub(crate) fn backends(&self) -> &[(u32, Destination<Arc<BackendPort>>)] {
        &self.backends
    }

    fn new(rule: Option<Rule>, backends: Vec<(u32, Destination<Arc<BackendPort>>)>) -> Self {
        Self { rule, total: backends.iter().map(|(weight, _)| u64::from(*weight)).sum(), backends }
    }

    fn pick(&self, draw: u64) -> Target<'_> {
        if self.total == 0 {
            return Target::Nowhere;
        }
        let mut left = draw % self.total;
        for (weight, backend) in &self.backends {
            if left < u64::from(*weight) {
                return match backend {
                    Destination::Backend(backend) => Target::Backend(backend),
                    Destination::Missing => Target::Missing,
                    Destination::NotUnderstood => Target::NotUnderstood,
                };
            }
            left -= u64::from(*weight);
        }
        Target::Nowhere
    }
}
