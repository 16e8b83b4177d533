//! What callers send: received from a listener's socket, and handed to its flow, or to a new one.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use maesh_config::model::Protocol;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::oneshot,
};

use super::{
    batch::{BATCH, connect, register},
    flow::{Flow, FlowParts, SendError},
    table::{Avoided, FlowKey, FlowTable, Found},
    with_batch,
};
use crate::{
    balance::{self, Affinity, FAILURE},
    loops::StreamOrigin,
    reason::Reason,
    routes::RouteFacts,
    state::{
        AdmittedStream, BackendPort, Endpoint, InFlight, Listening, Port, PortLookup, ServiceEntry, Shared, Target,
        find_port,
    },
    worker::{Worker, Workers},
};

/// How often one datagram is tried: an endpoint that cannot be reached is noticed with what was sent there before.
const TRIES: usize = 3;

/// Most datagrams of one listener that wait until it is known which node their callers are on.
const HELD: usize = 64;

/// A socket that receives datagrams, and for which local addresses it is there.
pub(crate) struct DatagramSocket {
    pub(crate) socket: OwnedFd,
    /// Datagrams to other addresses are left out; empty where the socket is bound to what it serves.
    pub(crate) only: Arc<[IpAddr]>,
}

/// Ends a listener: at once when it is dropped, and when it is sent, with its last flow.
pub(crate) type Stop = oneshot::Sender<()>;

/// Starts serving `socket` on the worker at place `first`.
pub(crate) fn start(workers: &Workers, first: usize, socket: DatagramSocket, listening: Arc<Listening>) -> Stop {
    let (stop, stopped) = oneshot::channel();
    let DatagramSocket { socket, only } = socket;
    let worker = workers.nth(first).clone();
    let handle = worker.handle().clone();
    let port = DatagramPort {
        worker,
        only,
        listening,
        flows: FlowTable::default(),
        held: AtomicUsize::new(0),
        ending: AtomicBool::new(false),
        closed: AtomicBool::new(false),
    };
    handle.spawn(Arc::new(port).run(Arc::new(socket), stopped));
    stop
}

/// A listener for datagrams.
pub(super) struct DatagramPort {
    pub(super) worker: Arc<Worker>,
    /// See [`DatagramSocket::only`].
    only: Arc<[IpAddr]>,
    listening: Arc<Listening>,
    pub(super) flows: FlowTable,
    /// Datagrams that wait.
    held: AtomicUsize,
    /// No new flow is opened.
    ending: AtomicBool,
    /// Its socket is closed.
    closed: AtomicBool,
}

/// Where new flows lead.
struct Destination {
    called: Arc<ServiceEntry>,
    number: u16,
    port: Result<Arc<Port>, Reason>,
}

/// Why there is no flow for a datagram.
enum NoFlow {
    Refused(Reason),
    /// It depends on the caller's node, which is not known yet.
    CallerUnknown,
}

impl From<Reason> for NoFlow {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

impl DatagramPort {
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.worker.shared
    }

    async fn run(self: Arc<Self>, socket: Arc<OwnedFd>, mut stopped: oneshot::Receiver<()>) {
        let _accepting = self.shared().acceptors.clone();
        match register(socket) {
            Ok(socket) => self.serve(&socket, &mut stopped).await,
            Err(error) => tracing::error!(%error, "a bound listener cannot be used"),
        }
        // The socket is closed here, whatever the flows are doing, so that its port can be bound again.
        self.closed.store(true, Ordering::Release);
        self.flows.wake_all();
    }

    async fn serve(self: &Arc<Self>, socket: &AsyncFd<Arc<OwnedFd>>, stopped: &mut oneshot::Receiver<()>) {
        loop {
            let ready = tokio::select! {
                biased;
                ended = &mut *stopped, if !self.is_ending() => match ended {
                    Ok(()) => {
                        self.ending.store(true, Ordering::Release);
                        self.flows.wake_all();
                        continue;
                    }
                    Err(_) => return,
                },
                () = self.flows.emptied(), if self.is_ending() => return,
                ready = socket.ready(Interest::READABLE) => ready,
            };
            // An error means that the event loop is ending.
            let Ok(mut ready) = ready else { return };
            let to = if self.is_ending() { None } else { self.destination().await };
            if self.receive(socket.get_ref(), to.as_ref()) {
                tokio::task::yield_now().await;
            } else {
                ready.clear_ready();
            }
        }
    }

    /// Where new flows lead; waits for the configuration of a Service that is used for the first time. What callers send
    /// meanwhile waits in the socket.
    async fn destination(&self) -> Option<Destination> {
        let shared = self.shared();
        let (called, number) = {
            let facts = self.listening.facts.load();
            let (service, number) = facts.owner.as_ref()?;
            (shared.directory.named(service)?, *number)
        };
        let port = match find_port(shared, &called, number, Protocol::Udp).await {
            PortLookup::Port(port) => Ok(port),
            PortLookup::NoPort => Err(Reason::NoRoute),
            PortLookup::Absent => Err(Reason::UnknownHost),
            PortLookup::NotSynced => Err(Reason::NotSynced),
        };
        Some(Destination { called, number, port })
    }

    /// Receives once, and passes on what came. Whether there may be more.
    fn receive(self: &Arc<Self>, socket: &Arc<OwnedFd>, to: Option<&Destination>) -> bool {
        with_batch(|batch| {
            let count = match batch.receive(socket.as_fd(), BATCH) {
                Ok(count) => count,
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::debug!(%error, "receiving datagrams");
                    }
                    return false;
                }
            };
            for datagram in (0..count).map(|at| batch.datagram(at)) {
                let Some(caller) = datagram.from else { continue };
                let is_served = |at: IpAddr| self.only.contains(&at.to_canonical());
                if self.only.is_empty() || datagram.to.is_some_and(is_served) {
                    self.carry(FlowKey { caller, to: datagram.to }, datagram.bytes, socket, to, false);
                }
            }
            count == BATCH
        })
    }

    /// Hands a datagram to its flow, or drops it. `waited`: what there is to know of the caller is known.
    fn carry(
        self: &Arc<Self>,
        key: FlowKey,
        bytes: &[u8],
        socket: &Arc<OwnedFd>,
        to: Option<&Destination>,
        waited: bool,
    ) {
        for _ in 0..TRIES {
            let flow = match self.flows.find(&key) {
                Found::Open(flow) if to.is_none_or(|to| flow.serves(&to.called, to.number)) => Ok(flow),
                Found::Open(flow) => {
                    flow.end_moved();
                    Err(Avoided::new())
                }
                Found::New(avoided) => Err(avoided),
            };
            let flow = match (flow, to) {
                (Ok(flow), _) => flow,
                // The proxy is ending.
                (Err(_), None) => return,
                (Err(avoided), Some(to)) => match self.open(key, avoided, to, socket, waited) {
                    Ok(flow) => flow,
                    Err(NoFlow::Refused(reason)) => return self.count_dropped(to, reason),
                    Err(NoFlow::CallerUnknown) => return self.hold(key, bytes, socket, to),
                },
            };
            match flow.send(bytes, self.shared().clock.coarse()) {
                Ok(()) => return,
                Err(SendError::Refused) => flow.end_refused(self),
                Err(SendError::Full) => return flow.dropped(Reason::Overloaded),
                Err(SendError::TooLarge) => return flow.dropped(Reason::BadRequest),
            }
        }
        if let Some(to) = to {
            self.count_dropped(to, Reason::ConnectFailed);
        }
    }

    /// Counts a datagram that was dropped.
    fn count_dropped(&self, to: &Destination, reason: Reason) {
        self.shared().telemetry.udp.port(&to.called.name, to.number).dropped(reason);
    }

    /// Keeps a datagram until it is known what is at its caller's address.
    fn hold(self: &Arc<Self>, key: FlowKey, bytes: &[u8], socket: &Arc<OwnedFd>, to: &Destination) {
        let caller = key.caller.ip().to_canonical();
        let buffers = &self.shared().buffers;
        let mut charge = buffers.of(caller).charge();
        charge.set(bytes.len());
        if !self.shared().workloads.has_room_for_sender(caller) {
            self.log_dropped(to, caller, "so many addresses sent datagrams that the proxy cannot ask whose this one is. Look for a pod that forges its source");
            return self.count_dropped(to, Reason::Overloaded);
        }
        if self.held.fetch_add(1, Ordering::Relaxed) >= HELD || buffers.excess_of(caller) > 0 {
            self.held.fetch_sub(1, Ordering::Relaxed);
            return self.count_dropped(to, Reason::NotSynced);
        }
        let (this, bytes, socket) = (self.clone(), bytes.to_vec(), Arc::downgrade(socket));
        tokio::spawn(async move {
            let _charge = charge;
            let shared = this.shared();
            if shared.controls_access() {
                // What it comes to is asked again below.
                let _ = shared.identify(caller).await;
            } else {
                shared.wait_for_workload(caller).await;
            }
            let to = this.destination().await;
            this.held.fetch_sub(1, Ordering::Relaxed);
            if let Some(socket) = socket.upgrade() {
                this.carry(key, &bytes, &socket, to.as_ref(), true);
            }
        });
    }

    /// Opens a flow to an endpoint, which is none of `avoided` if there is another.
    fn open(
        self: &Arc<Self>,
        key: FlowKey,
        avoided: Avoided,
        to: &Destination,
        socket: &Arc<OwnedFd>,
        waited: bool,
    ) -> Result<Arc<Flow>, NoFlow> {
        let shared = self.shared();
        let caller = key.caller.ip().to_canonical();
        let port = to.port.as_ref().map_err(|reason| *reason)?;
        let route = port.route(|| RouteFacts::of_connection("", caller));
        if shared.controls_access() {
            if !waited && shared.workloads.at(caller).is_none() {
                return Err(NoFlow::CallerUnknown);
            }
            shared.identified(caller)?;
            shared.admits(&to.called.name, (port, route), (caller, shared.account_of(caller).as_ref()), None)?;
        }
        let backend = match port.pick(route, self.worker.draw()) {
            Target::Backend(backend) => backend,
            Target::NotUnderstood => return Err(Reason::UnsupportedPolicy.into()),
            Target::Missing => return Err(Reason::BadBackend.into()),
            Target::Nowhere => return Err(Reason::NoEndpoints.into()),
        };
        if !waited && backend.upstreams.load().policy.local_only && shared.workloads.at(caller).is_none() {
            return Err(NoFlow::CallerUnknown);
        }
        let looped = || {
            shared.telemetry.loops.inc();
            Reason::LoopDetected
        };
        let arrived = shared.own_flow_ends.note(StreamOrigin::Arrived, key.caller).map_err(|_| looped())?;
        // Nobody gives up a flow for one that leads nowhere.
        let endpoint = self.pick(caller, backend, &avoided).ok_or(Reason::NoEndpoints)?;
        let Some((permit, _)) = shared.admission.flow(caller, shared.clock.coarse()) else {
            self.log_overloaded(to, caller);
            return Err(Reason::Overloaded.into());
        };
        let (endpoint, upstream, avoided) = self.connect(caller, backend, endpoint, avoided)?;
        let begins = shared.own_flow_ends.any().then(|| socket2::SockRef::from(&upstream).local_addr().ok()).flatten();
        let opened = match begins.and_then(|begins| begins.as_socket()) {
            Some(begins) => shared.own_flow_ends.note(StreamOrigin::Opened, begins).map_err(|_| looped())?,
            None => None,
        };
        let mut in_flight = InFlight::enter(backend, u32::MAX).ok_or(Reason::Overloaded)?;
        in_flight.on(endpoint.clone());
        let counts = shared.telemetry.udp.port(&to.called.name, to.number);
        counts.flows.inc();
        let flow = Arc::new(Flow::new(FlowParts {
            key,
            upstream: register(upstream).map_err(|_| Reason::Overloaded)?,
            called: to.called.clone(),
            number: to.number,
            backend: backend.clone(),
            admitted: shared.controls_access().then(|| AdmittedStream {
                shared: shared.clone(),
                caller,
                backend: backend.clone(),
                endpoint: endpoint.address,
                request: None,
            }),
            endpoint,
            avoided,
            permit,
            counts,
            _held: (in_flight, [arrived, opened]),
        }));
        self.flows.insert(key, flow.clone());
        tokio::spawn(flow.clone().run(self.clone(), Arc::downgrade(socket)));
        Ok(flow)
    }

    fn pick(&self, caller: IpAddr, backend: &BackendPort, avoided: &[Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
        let (shared, upstreams) = (self.shared(), backend.upstreams.load());
        balance::pick(
            &upstreams,
            caller,
            Affinity::of_caller(&upstreams.policy.balance, caller),
            || shared.node_of(caller),
            (avoided, &shared.admitted(&upstreams, || shared.account_of(caller), None)),
            shared.clock.coarse(),
            self.worker.draw(),
        )
    }

    /// A socket to `endpoint`, or to another one if the system knows no way to it.
    fn connect(
        &self,
        caller: IpAddr,
        backend: &BackendPort,
        mut endpoint: Arc<Endpoint>,
        mut avoided: Avoided,
    ) -> Result<(Arc<Endpoint>, OwnedFd, Avoided), Reason> {
        let shared = self.shared();
        for _ in 0..TRIES {
            match connect(endpoint.address, shared.config.outgoing_ports.as_ref()) {
                Ok(socket) if shared.admission.has_descriptors(socket.as_raw_fd()) => {
                    return Ok((endpoint, socket, avoided));
                }
                Ok(_) => return Err(Reason::Overloaded),
                Err(error) if is_shortage(&error) => {
                    tracing::debug!(%error, "no socket for another flow");
                    return Err(Reason::Overloaded);
                }
                Err(_) => self.count_failure(backend, &endpoint),
            }
            avoided.push(endpoint);
            endpoint = self.pick(caller, backend, &avoided).ok_or(Reason::NoEndpoints)?;
        }
        Err(Reason::ConnectFailed)
    }

    /// Counts against an endpoint that it cannot be reached.
    pub(super) fn count_failure(&self, backend: &BackendPort, endpoint: &Endpoint) {
        let now = self.shared().clock.coarse();
        endpoint.latency.record(now, FAILURE);
        backend.failed(endpoint, now);
        tracing::debug!(service = %backend.service, endpoint = %endpoint.address, "datagrams do not reach the endpoint");
    }

    /// Says that datagrams are dropped because of a limit.
    fn log_overloaded(&self, to: &Destination, caller: IpAddr) {
        self.log_dropped(
            to,
            caller,
            "all UDP flows that the proxy may have are in use, or the caller has as many open files as it may have; see \
             maesh_udp_flows_open. Look for a caller that sends from many ports, or raise the limit of open files",
        );
    }

    /// Logs a datagram that was dropped, but for those of which there are too many to log each.
    fn log_dropped(&self, to: &Destination, caller: IpAddr, why: &str) {
        if let Some(left_out) = self.shared().logs.refused.lock().note(Instant::now()) {
            tracing::warn!(service = %to.called.name, %caller, left_out, "datagram dropped: {why}");
        }
    }
}

/// The system has no descriptor, no memory or no local port left.
fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN))
}
