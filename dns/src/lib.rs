//! Answers the mesh zones.
//!
//! A caller asks the cluster's DNS for `web.shop.maesh`, that asks us, and the answer is the address of the node proxy
//! nearest to the caller. What is known comes through the discovery stream into immutable snapshots; answering is one
//! pure function over a snapshot, called in line by threads for UDP and tasks for TCP and TLS. It goes on with what it last
//! knew while the controller is away, and leaves out proxies that it finds dead by itself.

mod answer;
#[cfg(test)]
mod fixture;
mod intern;
mod listen;
mod locality;
mod metrics;
mod probe;
mod proxies;
mod rotation;
mod sharded;
mod snapshot;
mod state;
mod zone;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

pub use answer::{Action, BadQuestion, Caller, Explanation, Located, ProxySeen, Rule, Transport, answer, explain};
use arc_swap::ArcSwap;
pub use listen::{BindError, StreamLimits, tls::Tls};
use listen::{session::Answering, tcp, tls, udp};
use maesh_config::Kind;
use maesh_discovery::{
    ConnectionTable,
    update::{Connected, Update, Updates},
};
use metrics::Metrics;
pub use probe::{Probe, ProbeKind};
use prometheus_client::registry::Registry;
pub use snapshot::Snapshot;
use socket2::Socket;
use state::State;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use zone::Addresses;

/// The kinds of resources that a responder needs, all of each.
pub const KINDS: [Kind; 4] = [Kind::Mesh, Kind::Proxy, Kind::Workload, Kind::Name];

/// How the responder runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens, with UDP and TCP; port 0 finds one that is free for both. `[::]` takes IPv6 only: for both
    /// families, name both wildcards.
    pub listen: Vec<SocketAddr>,
    /// Addresses of `ns.dns.ZONE`, where callers reach us: the Service's. None: those of `listen` that are not
    /// wildcards.
    pub name_server: Vec<IpAddr>,
    /// Threads that answer UDP on each address.
    pub threads: NonZeroUsize,
    /// Limits of TCP connections.
    pub tcp: StreamLimits,
    /// DNS over TLS, if any.
    pub tls: Option<Tls>,
    /// Limits of TLS connections, which hold more memory than others.
    pub tls_limits: StreamLimits,
    /// How proxies are probed while the stream is down.
    pub probe: Probe,
    /// How long to go on answering after [`Dns::stop`], while callers learn that we leave.
    pub lameduck: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 53))],
            name_server: Vec::new(),
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN).min(MOST_THREADS),
            tcp: StreamLimits::of(1024),
            tls: None,
            tls_limits: StreamLimits::of(256),
            probe: Probe::default(),
            lameduck: Duration::from_secs(8),
        }
    }
}

/// Threads by default at most: four carry far more than the cluster's DNS passes on.
const MOST_THREADS: NonZeroUsize = NonZeroUsize::new(4).expect("four is not zero");

/// Why the responder cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// No address to listen on was given.
    #[error("DNS has no address to listen on; give at least one")]
    NoAddress,
    /// The system refuses a thread or a listener.
    #[error("starting to answer DNS: {0}")]
    System(#[from] io::Error),
}

/// A running responder. Dropping it ends it at once; [`Dns::stop`] does so gracefully.
#[derive(Debug)]
pub struct Dns {
    addresses: Vec<SocketAddr>,
    tls_addresses: Vec<SocketAddr>,
    ready: watch::Receiver<bool>,
    lameduck: Duration,
    leaving: Arc<watch::Sender<bool>>,
    udp: Vec<udp::UdpServer>,
    stopping: CancellationToken,
    tasks: TaskTracker,
    snapshot: Arc<ArcSwap<Snapshot>>,
}

/// Starts a responder in the current tokio runtime, which knows nothing yet and takes what it shall know from
/// `updates`; `connected` says whether these are current. Its metrics are added to `registry`.
///
/// # Errors
/// See [`StartError`].
pub fn start(
    config: Config,
    updates: Updates,
    connected: Connected,
    registry: &mut Registry,
) -> Result<Dns, StartError> {
    if config.listen.is_empty() {
        return Err(StartError::NoAddress);
    }
    let bound = config.listen.iter().map(|address| listen::bind(*address)).collect::<Result<Vec<_>, _>>()?;
    let addresses: Vec<_> = bound.iter().map(|bound| bound.address).collect();
    let name_server = if config.name_server.is_empty() {
        addresses.iter().map(SocketAddr::ip).filter(|address| !address.is_unspecified()).collect()
    } else {
        config.name_server
    };
    let empty = Snapshot::empty(Instant::now(), Arc::new(Addresses::new(&name_server)));
    let snapshot = Arc::new(ArcSwap::from_pointee(empty));
    let metrics = Metrics::new(snapshot.clone(), registry);
    let (leaving, tasks) = (Arc::new(watch::channel(false).0), TaskTracker::new());
    let stopping = CancellationToken::new();
    let answering = Arc::new(Answering { snapshot: snapshot.clone(), counters: metrics.writer().into() });
    let server = |limits: StreamLimits| tcp::StreamServer {
        answering: answering.clone(),
        limits,
        table: ConnectionTable::new(limits.connections),
        tls: None,
        metrics: metrics.clone(),
        stopping: stopping.clone(),
        tasks: tasks.clone(),
    };
    let streams = Arc::new(server(config.tcp));
    let mut udp = Vec::new();
    for bound in bound {
        let listener = tokio::net::TcpListener::from_std(bound.tcp)?;
        tasks.spawn(streams.clone().accept(listener));
        udp.push(udp::UdpServer::start(bound.udp, bound.address, config.threads.get(), &snapshot, &metrics)?);
    }
    let mut tls_addresses = Vec::new();
    if let Some(tls) = config.tls {
        let sockets = tls.listen.iter().map(|address| listen::bind_tls(*address)).collect::<Result<Vec<_>, _>>()?;
        let address = |(socket, asked): (&Socket, &SocketAddr)| {
            socket.local_addr().ok().and_then(|bound| bound.as_socket()).unwrap_or(*asked)
        };
        metrics.expect_certificate();
        tls_addresses = sockets.iter().zip(&tls.listen).map(address).collect();
        tasks.spawn(serve_tls(tls, sockets, server(config.tls_limits)));
    }
    let (ready_sender, ready) = watch::channel(false);
    let keeper = state::UpdateTask {
        state: State::new(snapshot.clone()),
        updates,
        connected,
        probe: config.probe,
        metrics,
        ready: ready_sender,
        leaving: leaving.subscribe(),
    };
    tasks.spawn(keeper.run(stopping.clone()));
    Ok(Dns { addresses, tls_addresses, ready, lameduck: config.lameduck, leaving, udp, stopping, tasks, snapshot })
}

/// Answers DNS over TLS on `sockets`, which are bound, from the moment when there is a certificate.
async fn serve_tls(config: Tls, sockets: Vec<Socket>, server: tcp::StreamServer) {
    let stopping = server.stopping.clone();
    let serve = async {
        let certificate = tls::certificate(&config.files, config.look).await;
        server.metrics.set_certificate(certificate.clone());
        let server = Arc::new(tcp::StreamServer { tls: Some(certificate.config()), ..server });
        let accept = |listener| drop(server.tasks.spawn(server.clone().accept(listener)));
        let listen = tls::listen(sockets, config.look, accept);
        tokio::join!(listen, config.files.keep_current(&certificate, config.look));
    };
    tokio::select! {
        () = serve => {}
        () = stopping.cancelled() => {}
    }
}

/// What is known once `updates` are applied, by a responder at the addresses `name_server`: for tools that ask
/// [`answer()`] without a listener.
pub fn snapshot_of(updates: impl IntoIterator<Item = Update>, name_server: &[IpAddr]) -> Arc<Snapshot> {
    let now = Instant::now();
    let empty = Snapshot::empty(now, Arc::new(Addresses::new(name_server)));
    let published = Arc::new(ArcSwap::from_pointee(empty));
    let mut state = State::new(published.clone());
    for update in updates {
        let rejected = state.apply(&update);
        update.ack.answer(rejected);
    }
    state.publish(now);
    published.load_full()
}

/// The snapshots of a responder, as they come.
#[derive(Clone, Debug)]
pub struct Snapshots(Arc<ArcSwap<Snapshot>>);

impl Snapshots {
    /// The present one.
    pub fn now(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }
}

impl Dns {
    /// Where it listens, in the order of the configuration, with UDP and TCP.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where it listens for DNS over TLS, in the order of the configuration.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        &self.tls_addresses
    }

    /// Whether everything was delivered once and it is not leaving.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// What it knows, now and later, for whoever asks [`explain()`].
    pub fn snapshots(&self) -> Snapshots {
        Snapshots(self.snapshot.clone())
    }

    /// Number of changes published so far; the serial of the zones.
    pub fn revision(&self) -> u32 {
        self.snapshot.load().revision
    }

    /// Leaves readiness, goes on answering for the lameduck time, then ends.
    pub async fn stop(mut self) {
        self.leaving.send_replace(true);
        tokio::time::sleep(self.lameduck).await;
        self.stopping.cancel();
        let udp = std::mem::take(&mut self.udp);
        // Threads are joined; they end within a moment.
        let _ = tokio::task::spawn_blocking(move || drop(udp)).await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

#[cfg(test)]
mod tests;
