//! `maesh dev`: controller, dns and proxy in one process, from ordinary manifests, live.
//!
//! The three talk over the same discovery stream as in a cluster, through a pipe, so what is tried here is what runs
//! there. A change is announced only when dns and proxy have put it in force.

mod over_limit;
mod pending;
pub mod print;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use maesh_compiler::{
    compile::{Addressing, Compiler, Range, TableEntry},
    diagnostic::{Diagnostic, Reason, Severity},
};
use maesh_config::{Kind, NodeName, Zone};
use maesh_controller::{
    serve::{Controller, Published, State},
    source::manifests::{Manifests, STANDARD_INPUT},
};
use maesh_discovery::{
    Connect, InProcess, Server, Store, Subscribed, Subscriber, SubscriberConfig, Timing, Token,
    update::{Identity, Role},
};
use maesh_dns::{Caller, Dns, StreamLimits};
use maesh_proxy::Proxy;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};

use self::{
    over_limit::{OverLimit, is_over_limit},
    pending::Pending,
    print::{Entry, Printer},
};
use crate::{
    admin::{self, Admin, ApiReaders, HostCheck},
    args::{DemoArgs, DevArgs, DevListenArgs, MeshArgs, Output, TelemetryArgs},
    explain::views,
    get,
    logs::LogLevel,
    mesh, open_files,
    signals::Signals,
    status,
    version::VERSION,
};

/// Node of the one proxy, and of all its callers.
const NODE: &str = "local";
/// After how long it is said what a start is at, and how often again.
const FIRST_PROGRESS: Duration = Duration::from_secs(2);
const PROGRESS: Duration = Duration::from_secs(5);
/// How long dns goes on answering once the end has begun.
const LAMEDUCK: Duration = Duration::ZERO;
/// The roles of this process that apply what is compiled.
const ROLES: usize = 2;

/// What `maesh dev` is started with.
pub struct Options {
    /// Files and folders of manifests.
    pub paths: Vec<PathBuf>,
    /// Addresses and limits.
    pub listen: DevListenArgs,
    /// How Services are meshed.
    pub mesh: MeshArgs,
    /// What is told of single requests.
    pub telemetry: Option<TelemetryArgs>,
}

impl Options {
    /// Those of the demo, on its own folder.
    pub fn of_demo(args: &DemoArgs, folder: &Path) -> Self {
        Self { paths: vec![folder.to_owned()], listen: args.listen.clone(), mesh: MeshArgs::default(), telemetry: None }
    }
}

/// Runs until a signal.
pub async fn run(args: DevArgs, log_level: LogLevel) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install()?;
    let printer = Printer(args.output);
    let drain = args.listen.drain_timeout;
    let DevArgs { paths, listen, mesh, telemetry, output: _ } = args;
    let mut dev = Dev::start(Options { paths, listen, mesh, telemetry: Some(telemetry) }, log_level).await?;
    let code = tokio::select! {
        ready = dev.ready(printer) => {
            ready?;
            follow(&mut dev, &mut signals, printer).await
        }
        code = signals.first() => code,
    };
    signals.end_at_next();
    dev.stop(drain).await;
    Ok(code)
}

/// Announces what changes until a signal.
pub async fn follow(dev: &mut Dev, signals: &mut Signals, printer: Printer) -> ExitCode {
    tokio::select! {
        () = dev.announce(printer) => ExitCode::FAILURE,
        code = signals.first() => code,
    }
}

/// A whole mesh in this process.
pub struct Dev {
    zone: Zone,
    dns_address: SocketAddr,
    admin_address: SocketAddr,
    dns: Dns,
    proxy: Proxy,
    state: Arc<State>,
    published: mpsc::UnboundedReceiver<Published>,
    subscribers: watch::Receiver<Arc<Vec<Subscriber>>>,
    acknowledgements: watch::Receiver<()>,
    pending: Pending,
    /// The address that HTTP Services share.
    shared: IpAddr,
    /// The ports that do not fit into the open files, as people were told.
    over_limit: OverLimit,
    /// That may have changed since.
    over_limit_changed: bool,
    /// How much of what was published was taken in.
    taken: u64,
    draining: Arc<AtomicBool>,
    // Dropped last: what delivers and compiles.
    _controller: Controller,
    manifests: Manifests,
    _server: Server,
}

impl Dev {
    /// Takes the ports and starts every role. Must be called within a runtime.
    ///
    /// # Errors
    /// When a port is taken, a path does not exist, or a flag asks for the impossible; the message says what to do.
    pub async fn start(options: Options, log_level: LogLevel) -> anyhow::Result<Self> {
        let Options { paths, listen, mesh: mesh_args, telemetry } = options;
        let range = Range::new(listen.address_range).context("--address-range")?;
        mesh::is_local(&range)?;
        let mut config = mesh::compiler_config(&mesh_args, Addressing::Range(range))?;
        config.first_bindable_port = mesh::first_bindable_port();
        config.selects_pods = true;
        let zone = config.zones.first().cloned().context("--zone: name at least one zone")?;
        for path in paths.iter().filter(|path| **path != Path::new(STANDARD_INPUT)) {
            std::fs::metadata(path).with_context(|| {
                format!("cannot read {}; give files or folders of manifests that exist", path.display())
            })?;
        }
        let admin_listener = admin::bind(listen.admin)?;

        let store = Arc::new(Store::new());
        let server = Server::new(store.clone(), open_files::discovery());
        let way = server.in_process();
        let proxy = start_proxy(&listen, telemetry.as_ref(), range, way.clone()).await?;
        let registry = proxy.registry();
        let dns = start_dns(&listen, way, &mut registry.lock())?;

        config.own_listeners = dns.addresses().to_vec();
        config.own_listeners.push(admin_listener.local_addr().context("the address of the admin endpoint")?);
        let compiler = Compiler::new(config);
        let (manifests, batches) = Manifests::start(paths, compiler.door()).context("watching the manifests")?;
        let (connected, sink) = (mesh::connected_proxies(&server), mesh::StoreSink { store, replica: "dev".into() });
        let started = Controller::start(compiler, batches, connected, Duration::ZERO, sink);
        let (controller, published) = started.context("starting the compiler")?;
        let state = controller.state();
        mesh::warn_of_missing_namespaces(mesh_args.watch_namespace, &state, None);
        status::register(&mut registry.lock(), &state, &server);

        let draining = Arc::new(AtomicBool::new(false));
        let mut admin = Admin::new(registry, log_level, ApiReaders::new(&listen.api.api_from));
        admin.host_check = HostCheck::Always;
        admin.check("draining", not_draining(draining.clone()));
        admin.check("dns", status::ready(dns.ready(), "not everything was delivered to it yet"));
        admin.check("proxy", status::ready(proxy.ready(), "not everything was delivered to it yet"));
        admin.views = status::controller_views(&state, &server, &zone);
        // Here callers ask us themselves, without the cluster's DNS between.
        admin.queries = views::all(controller.asker(), dns.snapshots(), Caller::Direct, proxy.explainer());
        admin.queries.extend(get::views::all(state.clone(), controller.asker(), zone.clone()));
        let admin_address = admin.serve(admin_listener)?;
        let dns_address = dns.addresses().first().copied().context("dns has no address")?;
        Ok(Self {
            zone,
            dns_address,
            admin_address,
            dns,
            proxy,
            state,
            published,
            subscribers: server.subscribers(),
            acknowledgements: server.acknowledgements(),
            pending: Pending::default(),
            shared: range.shared(),
            over_limit: OverLimit::default(),
            over_limit_changed: false,
            taken: 0,
            draining,
            _controller: controller,
            manifests,
            _server: server,
        })
    }

    /// Where DNS answers.
    pub fn dns(&self) -> SocketAddr {
        self.dns_address
    }

    /// Where health, metrics and status are.
    pub fn admin(&self) -> SocketAddr {
        self.admin_address
    }

    /// Waits until everything in the manifests is served, prints the table and returns it.
    ///
    /// # Errors
    /// When a listener's port is taken.
    pub async fn ready(&mut self, printer: Printer) -> anyhow::Result<Vec<Entry>> {
        let (mut dns_ready, mut proxy_ready) = (self.dns.ready(), self.proxy.ready());
        let mut progress = tokio::time::interval_at(tokio::time::Instant::now() + FIRST_PROGRESS, PROGRESS);
        loop {
            let roles_are_ready = *dns_ready.borrow_and_update() && *proxy_ready.borrow_and_update();
            if roles_are_ready && self.everything_is_served() {
                break;
            }
            tokio::select! {
                published = self.published.recv() => self.take(published.context("the compiler ended")?, printer, true)?,
                _ = self.subscribers.changed() => {}
                _ = self.acknowledgements.changed() => {}
                _ = dns_ready.changed() => {}
                _ = proxy_ready.changed() => {}
                _ = progress.tick() => self.tell_progress(),
            }
        }
        self.pending = Pending::default();
        self.tell_over_limit(printer);
        let entries: Vec<Entry> = self.state.table().iter().map(|entry| self.entry(entry)).collect();
        printer.ready(&self.dns_address.to_string(), &self.admin_address.to_string(), &entries);
        Ok(entries)
    }

    /// Announces changes as they come into force; ends only if the compiler does.
    pub async fn announce(&mut self, printer: Printer) {
        loop {
            tokio::select! {
                published = self.published.recv() => {
                    let Some(published) = published else { return };
                    if self.take(published, printer, false).is_err() {
                        return;
                    }
                }
                changed = self.subscribers.changed() => if changed.is_err() { return },
                changed = self.acknowledgements.changed() => if changed.is_err() { return },
            }
            self.tell_over_limit(printer);
            let subscribers = self.subscribers.borrow_and_update().clone();
            let all_here = subscribers.len() == ROLES;
            let (changed, removed) = self.pending.take(|revision| all_here && mesh::in_force(&subscribers, revision));
            if !(changed.is_empty() && removed.is_empty()) {
                let changed: Vec<_> = changed.iter().map(|entry| status::entry(entry, &self.zone)).collect();
                let removed: Vec<_> = removed.iter().map(|service| service.in_zone(&self.zone)).collect();
                printer.changed(&changed, &removed);
            }
        }
    }

    /// Drains: what is in flight may finish for `longest`.
    pub async fn stop(self, longest: Duration) {
        self.draining.store(true, Ordering::Release);
        let both = async { tokio::join!(self.proxy.drain(), self.dns.stop()) };
        if tokio::time::timeout(longest + Duration::from_secs(1), both).await.is_err() {
            tracing::warn!("what was in flight did not finish in time");
        }
    }

    /// What takes so long, on standard error.
    fn tell_progress(&self) {
        let (read, found) = self.manifests.progress();
        if read < found || found == 0 {
            tracing::info!(read, found, "reading manifests");
        } else {
            let services = self.state.table().len();
            tracing::info!(files = found, services, "the manifests are read; waiting until everything is served");
        }
    }

    /// A Service as people are told of it.
    fn entry(&self, entry: &TableEntry) -> Entry {
        let mut shown = status::entry(entry, &self.zone);
        if entry.address == Some(self.shared) && self.over_limit.has(&entry.service) {
            let answer = maesh_dns::explain(&self.dns.snapshots().now(), &shown.name, Caller::Anybody).ok();
            shown.address = answer.and_then(|answer| answer.addresses.first().map(ToString::to_string));
        }
        shown
    }

    /// The ports that do not fit into the open files, now.
    fn ports_over_limit(&self) -> OverLimit {
        OverLimit::of(&self.state.diagnostics(), &self.state.table(), self.shared)
    }

    /// Warns of ports that do not fit into the open files, where that is news.
    fn tell_over_limit(&mut self, printer: Printer) {
        if !std::mem::take(&mut self.over_limit_changed) {
            return;
        }
        let (now, open_files) = (self.ports_over_limit(), open_files::limit());
        if printer.0 == Output::Json {
            now.of_each(&self.over_limit, open_files).for_each(|found| diagnose(printer, &found));
        }
        if !now.is_empty() && now != self.over_limit {
            diagnose(printer, &now.summary(open_files));
        }
        self.over_limit = now;
    }

    fn everything_is_served(&mut self) -> bool {
        let subscribers = self.subscribers.borrow_and_update().clone();
        *self.state.synced().borrow()
            // What is still on its way would be announced as a change of what `ready` says.
            && self.state.counts().published == self.taken
            && subscribers.len() == ROLES
            && self.state.counts().ready_proxies > 0
            && mesh::in_force(&subscribers, self.pending.revision())
            && self.is_settled()
    }

    /// Whether nothing that can be served is waited for.
    fn is_settled(&self) -> bool {
        let (table, mut over_limit) = (self.state.table(), None);
        // What does not fit is looked at only where something is waited for.
        table
            .iter()
            .all(|entry| entry.settled || over_limit.get_or_insert_with(|| self.ports_over_limit()).has(&entry.service))
    }

    fn take(&mut self, published: Published, printer: Printer, starting: bool) -> anyhow::Result<()> {
        let Published { revision, mut output } = published;
        self.over_limit_changed |= output.found.iter().chain(&output.cleared).any(is_over_limit);
        output.found.retain(|found| !is_over_limit(found));
        if let Some(taken) = output.found.iter().find(|found| starting && found.reason == Reason::ListenFailed) {
            bail!("{}\n{}", taken.message, mesh::CANNOT_LISTEN);
        }
        // As somebody reads who goes through the files.
        output.found.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        for found in &output.found {
            diagnose(printer, found);
        }
        self.taken += 1;
        self.pending.add(revision, output.services, output.removed);
        Ok(())
    }
}

fn diagnose(printer: Printer, found: &Diagnostic) {
    let severity = match found.severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let fields = serde_json::to_value(found).unwrap_or_default();
    // The place stands before it: no need to name the file again.
    let of_file = format!("{}: ", found.object);
    let message = if &*found.object.kind == "File" { found.message.strip_prefix(&of_file) } else { None };
    printer.diagnostic(severity, fields, message.unwrap_or(&found.message));
}

fn not_draining(draining: Arc<AtomicBool>) -> admin::ReadinessCheck {
    Box::new(move || if draining.load(Ordering::Acquire) { Err("this process is ending".into()) } else { Ok(()) })
}

fn subscribe(role: Role, way: InProcess, addresses: Vec<IpAddr>, wildcard: &[Kind], on_demand: &[Kind]) -> Subscribed {
    // One for each: the newer of two subscribers of one name takes the place of the other.
    let id = match role {
        Role::Dns => "dns",
        // Messages have the role before it: "proxy maesh-dev".
        Role::Proxy => "maesh-dev",
    };
    maesh_discovery::start(SubscriberConfig {
        identity: Identity {
            role,
            id: id.into(),
            node: Some(NodeName::from(NODE)),
            addresses,
            version: VERSION.into(),
        },
        wildcard: wildcard.to_vec(),
        on_demand: on_demand.to_vec(),
        connect: Connect::InProcess(way),
        token: Token::None,
        state: None,
        timing: Timing::default(),
    })
}

fn start_dns(listen: &DevListenArgs, way: InProcess, registry: &mut Registry) -> anyhow::Result<Dns> {
    let subscribed = subscribe(Role::Dns, way, vec![], &maesh_dns::KINDS, &[]);
    let defaults = maesh_dns::Config::default();
    let tcp = StreamLimits::of(open_files::dns_beside_proxy(defaults.tcp.connections.all));
    let config = maesh_dns::Config { listen: vec![listen.dns], lameduck: LAMEDUCK, tcp, ..defaults };
    maesh_dns::start(config, subscribed.updates, subscribed.connected, registry).map_err(|error| match error {
        maesh_dns::StartError::Bind(bind) => admin::taken(listen.dns, "--dns", &bind.source),
        other => other.into(),
    })
}

async fn start_proxy(
    listen: &DevListenArgs,
    telemetry: Option<&TelemetryArgs>,
    range: Range,
    way: InProcess,
) -> anyhow::Result<Proxy> {
    let shared = vec![range.shared()];
    let subscribed =
        subscribe(Role::Proxy, way, shared.clone(), &maesh_proxy::WILDCARD_KINDS, &maesh_proxy::ON_DEMAND_KINDS);
    let defaults = maesh_proxy::Config::default();
    let dns = open_files::dns_beside_proxy(maesh_dns::Config::default().tcp.connections.all);
    let limits = maesh_proxy::Limits { other_files: open_files::admin().all + dns, ..defaults.limits };
    let config = maesh_proxy::Config {
        shared,
        limits,
        loopback_endpoints: true,
        // They are diagnostics of the Services, or the end of this process.
        warn_of_listeners: false,
        node: Some(NodeName::from(NODE)),
        linger: Duration::ZERO,
        // The manifests name all pods there are.
        identity_hold: Duration::ZERO,
        drain_horizon: Duration::ZERO,
        drain_timeout: listen.drain_timeout,
        access_log: telemetry.and_then(TelemetryArgs::access_log),
        traces: telemetry.and_then(TelemetryArgs::traces),
        ..defaults
    };
    let Subscribed { updates, interest, report, connected, .. } = subscribed;
    Ok(maesh_proxy::start(config, updates, interest, report, connected).await?)
}
