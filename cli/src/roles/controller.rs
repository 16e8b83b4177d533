//! `maesh controller`

mod addressing;
mod duties;
mod findings;
mod trust;

use std::{collections::BTreeSet, process::ExitCode, sync::Arc};

use anyhow::{Context as _, bail};
use maesh_compiler::compile::{Addressing, Compiler, Range};
use maesh_config::ServiceName;
use maesh_controller::{
    serve::Controller,
    source::{kubernetes, manifests::Manifests},
};
use maesh_discovery::{Server, Store};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::watch};

use self::{duties::Duties, trust::Trust};
use crate::{
    admin::{self, Admin, ApiReaders},
    args::ControllerArgs,
    explain::views,
    get,
    logs::LogLevel,
    mesh, open_files,
    signals::Signals,
    status,
};

/// Watches, compiles and serves until a signal.
pub async fn run(args: ControllerArgs, log_level: LogLevel) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install()?;
    let addressing = match args.address_range {
        Some(range) => Addressing::Range(Range::new(range).context("--address-range")?),
        None => Addressing::Cluster,
    };
    let mut config = mesh::compiler_config(&args.mesh, addressing)?;
    config.horizon = args.horizon;
    config.own_settle = args.own.own_settle;
    config.selects_pods = !args.manifests.is_empty();
    config.config_maps_on_demand = args.manifests.is_empty();
    config.replicas = args.service.as_deref().map(|service| ServiceName::new(args.mesh.namespace.as_str(), service));
    let zone = config.zones.first().cloned().context("--zone: name at least one zone")?;
    let admin_listener = admin::bind(args.admin)?;
    let listener =
        TcpListener::bind(args.listen).await.map_err(|error| admin::taken(args.listen, "--listen", &error))?;

    let client = match args.manifests.is_empty() {
        true => Some(kubernetes::client(args.kubeconfig.as_deref(), args.context.as_deref()).await?),
        false => None,
    };
    config.one_address = match (args.own.one_address(), &client) {
        (Some(one_address), _) => one_address,
        // Manifests say nothing of a cluster's DNS.
        (None, None) => false,
        (None, Some(client)) => tokio::select! {
            found = addressing::one_address(client.clone()) => found?,
            code = signals.first() => return Ok(code),
        },
    };
    let asked_about_namespaces = client.clone();
    let store = Arc::new(Store::new());
    let server = Server::new(store.clone(), open_files::discovery());
    let compiler = Compiler::new(config);
    let (ask_for_config_maps, config_maps) = watch::channel(BTreeSet::new());
    let mut watches = None;
    let mut manifests = None;
    let mut duties = None;
    let mut trust = Trust::default();
    let batches = if let Some(client) = client {
        let options = kubernetes::Options { config_maps, ..kubernetes::Options::default() };
        let (batches, states) = kubernetes::start(&client, &options, &compiler.door());
        let refusing = store.clone();
        let refuse = move |why| refusing.set_refusing(why);
        tokio::spawn(kubernetes::follow_staleness(states.clone(), kubernetes::Freshness::default(), refuse));
        watches = Some(states);
        if !args.read_only {
            duties = Some((Duties::start(client.clone(), &args.mesh.namespace, &args.lease, &args.id), client.clone()));
        }
        trust.in_cluster(&args, &client, duties.as_mut().map(|(duties, _)| duties));
        batches
    } else {
        let started = Manifests::start(args.manifests.clone(), compiler.door()).context("watching the manifests")?;
        manifests = Some(started.0);
        started.1
    };
    let (connected, sink) =
        (mesh::connected_proxies(&server), mesh::StoreSink { store, replica: args.id.as_str().into() });
    let started = Controller::start(compiler, batches, connected, args.proxy_settle, sink);
    let (controller, published) = started.context("starting the compiler")?;
    controller.forward_config_maps(ask_for_config_maps);
    let state = controller.state();
    mesh::warn_of_missing_namespaces(args.mesh.watch_namespace.clone(), &state, asked_about_namespaces);
    let (duties, recorder) = duties.map(|(duties, client)| duties.with_all(&args, &client, &controller)).unzip();
    tokio::spawn(findings::report(published, recorder));

    let mut registry = Registry::default();
    status::register(&mut registry, &state, &server);
    let mut admin = Admin::new(Arc::new(Mutex::new(registry)), log_level, ApiReaders::new(&args.api.api_from));
    admin.check("synced", status::ready(state.synced(), "not every kind of object was read once"));
    admin.views = status::controller_views(&state, &server, &zone);
    if let Some(certified) = trust.certified() {
        admin.check("certificate", status::ready(certified, "there is no certificate to serve dns and proxies with"));
    }
    if let Some(watches) = watches {
        admin.views.insert("watches", status::watches_view(watches));
    }
    admin.queries.insert(views::CONTROLLER, views::controller(controller.asker()));
    admin.queries.insert(views::ACCESS, views::access(controller.asker()));
    admin.queries.extend(get::views::all(state.clone(), controller.asker(), zone.clone()));
    if let Some(duties) = &duties {
        admin.views.insert("leader", status::leader_view(duties.leadership()));
        admin.views.insert("stanza", status::stanza_view(duties.stanza()));
    }
    let admin = admin.serve(admin_listener)?;
    tracing::info!(listen = %args.listen, %admin, "serving");
    let code = tokio::select! {
        code = signals.first() => code,
        ended = trust.serve(&args, &server, listener) => {
            ended?;
            bail!("the discovery listener ended");
        }
    };
    signals.end_at_next();
    server.shutdown();
    if let Some(duties) = duties {
        duties.stop().await;
    }
    drop((controller, manifests));
    Ok(code)
}
