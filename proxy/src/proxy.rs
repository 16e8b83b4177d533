//! Wiring: what runs, and the handle by which it is watched and ended.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use maesh_discovery::update::{Connected, Interest, Report, Updates};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::interval,
};

use crate::{
    admission::{Admission, Budget, TooFewFiles},
    clock::Ticking,
    config::{Config, Limits},
    drain,
    explain::Explainer,
    listener::{Listeners, Opened},
    metrics::StateMetrics,
    sockets::Sockets,
    state::{Apply, Phase, Shared, WantedResource},
    tcp,
    telemetry::{AccessLog, Telemetry, Tracer},
    worker::Workers,
};

/// Most open files that are planned with, whatever the limit: tables are sized by it.
const MOST_OPEN_FILES: usize = 1 << 20;

/// How often unused Services, listeners that have lingered long enough, and listeners to be tried again are looked for.
const RELEASE: Duration = Duration::from_secs(1);

/// Why a proxy could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A thread or its event loop could not be created.
    #[error("starting threads: {0}")]
    Workers(#[source] io::Error),
    /// The process may not open enough files.
    #[error(transparent)]
    OpenFiles(#[from] TooFewFiles),
    /// The access log cannot be written.
    #[error("access log {path}: {source}. Create its folder, or choose another file with --access-log-file", path = .path.display())]
    AccessLog {
        /// Its file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The keeper does not give the sockets that it has.
    #[error("the keeper at {path} does not give its sockets: {source}. End it, and start again", path = .path.display())]
    Keeper {
        /// Its socket.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// One listener that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// Its identity.
    pub listener: Arc<str>,
    /// The addresses it is bound to.
    pub addresses: Vec<SocketAddr>,
}

/// What a proxy is doing, for the status page.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// It takes new work.
    pub ready: bool,
    /// The stream to the controller is up.
    pub connected: bool,
    /// Open listeners.
    pub listeners: Vec<Bound>,
    /// Connections of callers.
    pub connections: usize,
    /// Services whose configuration is held.
    pub services: i64,
    /// Updates applied since the start.
    pub updates: i64,
}

/// A running proxy. Dropping it cuts everything; [`Proxy::drain`] ends it gently.
pub struct Proxy {
    shared: Arc<Shared>,
    workers: Workers,
    registry: Arc<Mutex<Registry>>,
    opened: Arc<ArcSwap<Vec<Opened>>>,
    report: Arc<Report>,
    ready: Arc<watch::Sender<bool>>,
    closing: watch::Sender<bool>,
    connected: Connected,
    stop_accepting: Option<oneshot::Sender<()>>,
    writer: JoinHandle<()>,
    watch: JoinHandle<()>,
    exporter: Option<Exporter>,
    _clock: Ticking,
}

/// Starts a proxy that is configured by `updates`. It opens ports as they name them, and is ready once all names and
/// listeners have arrived.
///
/// # Errors
/// When a thread or an event loop cannot be created.
pub async fn start(
    config: Config,
    updates: Updates,
    interest: Interest,
    report: Report,
    connected: Connected,
) -> Result<Proxy, StartError> {
    let mut registry = Registry::default();
    let telemetry = Telemetry::new(&mut registry);
    let config = Config { workers: config.workers.max(1), ..config };
    let count = config.workers;
    let admission = admission(&config)?;
    let access_log = access_log(&config, &telemetry)?;
    let (tracer, exporter) = tracer(&config, &telemetry).unzip();
    let (shared, wanted) = Shared::new(config, telemetry, (access_log, tracer), admission);
    let state = StateMetrics::new(shared.clone(), connected.clone());
    registry.sub_registry_with_prefix("maesh").register_collector(Box::new(state));
    let clock = shared.clock.start().map_err(StartError::Workers)?;
    let (closing, closing_seen) = watch::channel(false);
    let workers = Workers::start(&shared, count, &closing_seen).map_err(StartError::Workers)?;
    let sockets = sockets(&shared).await?;
    let listeners = Listeners::new(shared.clone(), workers.clone(), sockets);
    let apply = Apply::new(shared.clone(), interest);
    let opened = Arc::new(ArcSwap::from_pointee(Vec::new()));
    let (report, ready) = (Arc::new(report), Arc::new(watch::Sender::new(false)));
    let (stop_accepting, accepting) = oneshot::channel();
    let run = UpdateTask {
        shared: shared.clone(),
        apply,
        listeners,
        opened: opened.clone(),
        report: report.clone(),
        ready: ready.clone(),
    };
    let writer = tokio::spawn(run.run(updates, wanted, accepting));
    let watch = tokio::spawn(watch_controller(shared.clone(), connected.clone()));
    let registry = Arc::new(Mutex::new(registry));
    Ok(Proxy {
        shared,
        workers,
        registry,
        opened,
        report,
        ready,
        closing,
        connected,
        stop_accepting: Some(stop_accepting),
        writer,
        watch,
        exporter,
        _clock: clock,
    })
}

/// Notes when the controller stops to answer, and when it does again.
async fn watch_controller(shared: Arc<Shared>, mut connected: Connected) {
    loop {
        shared.controller_answers(*connected.borrow_and_update());
        if connected.changed().await.is_err() {
            return;
        }
    }
}

/// Divides the descriptors that the process may have, and says how.
fn admission(config: &Config) -> Result<Admission, StartError> {
    let open_files = getrlimit(Resource::Nofile).current.and_then(|most| usize::try_from(most).ok());
    let open_files = open_files.unwrap_or(usize::MAX).min(MOST_OPEN_FILES);
    let limits = &config.limits;
    let budget = Budget::new(open_files, config.workers, limits)?;
    let (connections, per_caller) = (budget.connections(0), budget.connections_per_caller(0));
    tracing::info!(open_files, connections, per_caller, "limits of connections");
    let defaults = Limits::default();
    for (what, set, default, fits) in [
        ("connections", limits.connections, defaults.connections, connections),
        ("connections of one caller", limits.connections_per_caller, defaults.connections_per_caller, per_caller),
    ] {
        if set != default && set > fits {
            tracing::warn!(
                "{what}: {set} do not fit into {open_files} open files; using {fits}. Raise the limit of open files (`ulimit -n`), or ask for fewer"
            );
        }
    }
    tcp::limit_pipes(budget.pipes_per_worker);
    Ok(Admission::new(budget))
}

fn access_log(config: &Config, telemetry: &Telemetry) -> Result<Option<AccessLog>, StartError> {
    let Some(settings) = &config.access_log else { return Ok(None) };
    let started = AccessLog::start(settings, telemetry.log_written.clone(), telemetry.log_dropped.clone());
    let path = || settings.file.clone().unwrap_or_else(|| "standard output".into());
    started.map(Some).map_err(|source| StartError::AccessLog { path: path(), source })
}

/// The task that sends spans away, and what tells it that the proxy ends.
struct Exporter {
    task: JoinHandle<()>,
    ending: watch::Sender<bool>,
}

fn tracer(config: &Config, telemetry: &Telemetry) -> Option<(Tracer, Exporter)> {
    let settings = config.traces.as_ref()?;
    let counts = [telemetry.spans_dropped.clone(), telemetry.spans_failed.clone()];
    let node = config.node.as_ref().map(ToString::to_string);
    let (tracer, exporting) = Tracer::new(settings, node.as_deref(), telemetry.spans_exported.clone(), counts);
    let (ending, ends) = watch::channel(false);
    Some((tracer, Exporter { task: tokio::spawn(exporting.run(ends)), ending }))
}

/// Where listening sockets come from.
async fn sockets(shared: &Shared) -> Result<Sockets, StartError> {
    let Some(path) = shared.config.keeper.clone() else { return Ok(Sockets::alone()) };
    let (keeper, kept) = (path.clone(), shared.telemetry.kept.clone());
    let sockets = tokio::task::spawn_blocking(move || Sockets::with_keeper(&keeper, kept)).await;
    sockets.map_err(io::Error::other).flatten().map_err(|source| StartError::Keeper { path, source })
}

impl Proxy {
    /// Turns true once the proxy takes work, and false when it begins to leave.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Its metrics; families of others may be added.
    pub fn registry(&self) -> Arc<Mutex<Registry>> {
        self.registry.clone()
    }

    /// The listeners that are open now.
    pub fn bound(&self) -> Vec<Bound> {
        let bound = |open: &Opened| Bound { listener: open.id.clone(), addresses: open.addresses.clone() };
        self.opened.load().iter().map(bound).collect()
    }

    /// Says what it would do with a request, for as long as it runs.
    pub fn explainer(&self) -> Explainer {
        Explainer::new(self.shared.clone(), self.opened.clone())
    }

    /// What it is doing.
    pub fn status(&self) -> Status {
        Status {
            ready: *self.ready.borrow(),
            connected: *self.connected.borrow(),
            listeners: self.bound(),
            connections: self.shared.admission.connections(),
            services: self.shared.telemetry.services.get(),
            updates: self.shared.telemetry.revision.get(),
        }
    }

    /// Drains: leaves readiness, still accepts connections for the drain window, then asks every connection to end and
    /// waits for requests in flight. Returns how many connections had to be cut.
    pub async fn drain(mut self) -> usize {
        let horizon = self.shared.config.drain_horizon;
        drain::leave(&self.shared, &self.report, &self.ready, horizon).await;
        if let Some(stop) = self.stop_accepting.take() {
            // The writer closes the listeners; it lives until this handle is dropped.
            let _ = stop.send(());
        }
        let timeout = self.shared.config.drain_timeout;
        let cut = drain::close(&self.shared, &self.workers, &self.closing, timeout).await;
        if let Some(exporter) = &mut self.exporter {
            exporter.ending.send_replace(true);
            // What is lost at the end is no reason to fail.
            let _ = (&mut exporter.task).await;
        }
        if self.shared.access_log.is_some() {
            let shared = self.shared.clone();
            // A failure means that the runtime is ending.
            let _ = tokio::task::spawn_blocking(move || shared.access_log.as_ref().map(AccessLog::flush)).await;
        }
        cut
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.writer.abort();
        self.watch.abort();
        if let Some(exporter) = &self.exporter {
            exporter.task.abort();
        }
    }
}

/// What the writing task owns.
struct UpdateTask {
    shared: Arc<Shared>,
    apply: Apply,
    listeners: Listeners,
    opened: Arc<ArcSwap<Vec<Opened>>>,
    report: Arc<Report>,
    ready: Arc<watch::Sender<bool>>,
}

impl UpdateTask {
    async fn run(
        mut self,
        mut updates: Updates,
        mut wanted: mpsc::UnboundedReceiver<WantedResource>,
        mut accepting: oneshot::Receiver<()>,
    ) {
        let mut release = interval(RELEASE);
        let (mut more, mut open) = (true, true);
        loop {
            tokio::select! {
                update = updates.recv(), if more => match update {
                    Some(update) => {
                        self.apply.update(update, &mut self.listeners);
                        if open {
                            self.publish();
                        }
                    }
                    // The sender has ended. The configuration in force stays.
                    None => more = false,
                },
                Some(wanted) = wanted.recv() => self.apply.demand(&wanted, &mut self.listeners),
                now = release.tick() => {
                    self.shared.admission.lingering().expire(now.into_std());
                    self.listeners.expire(now.into_std());
                    self.apply.release_idle(&mut self.listeners);
                    if open && self.apply.retry_listeners(now.into_std(), &mut self.listeners) {
                        self.publish();
                    }
                }
                _ = &mut accepting, if open => {
                    open = false;
                    self.listeners.close_all();
                    self.opened.store(Arc::default());
                }
            }
        }
    }

    /// Publishes which listeners are open, and readiness.
    fn publish(&mut self) {
        let complete = self.shared.complete.load(std::sync::atomic::Ordering::Acquire);
        if complete {
            self.listeners.completed();
        }
        self.opened.store(Arc::new(self.listeners.opened()));
        if complete && self.shared.phase() == Phase::Serving && !*self.ready.borrow() {
            self.ready.send_replace(true);
            self.report.send_replace(true);
        }
    }
}
