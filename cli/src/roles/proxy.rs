//! `maesh proxy`

use std::process::ExitCode;

use maesh_config::NodeName;
use maesh_discovery::{Subscribed, update::Role};
use maesh_proxy::Config;

use crate::{
    admin::{self, Admin, ApiReaders},
    args::ProxyArgs,
    explain::views,
    logs::LogLevel,
    open_files,
    signals::Signals,
    status,
};

/// Carries requests until a signal; then drains.
pub async fn run(args: ProxyArgs, log_level: LogLevel) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install()?;
    let listener = admin::bind(args.admin)?;
    let (all, some) = (&maesh_proxy::WILDCARD_KINDS, &maesh_proxy::ON_DEMAND_KINDS);
    let subscribed = super::subscribe(&args.subscribe, Role::Proxy, args.address.clone(), all, some)?;
    let Subscribed { updates, interest, report, connected, status: stream, task } = subscribed;
    let mut defaults = Config::default();
    // Who may not have been told that a port leaves is told well before it is gone.
    defaults.limits.keep_alive_leaving = defaults.limits.keep_alive_leaving.min(args.drain_horizon / 2);
    let limits = &mut defaults.limits;
    limits.connections = args.max_connections.unwrap_or(limits.connections);
    limits.other_files = open_files::admin().all;
    limits.connections_per_caller = args.max_connections_per_caller.unwrap_or(limits.connections_per_caller);
    // A proxy that is reached on loopback is of this machine alone, as are its endpoints.
    let loopback_endpoints = args.address.iter().any(std::net::IpAddr::is_loopback);
    let config = Config {
        loopback_endpoints,
        shared: args.address,
        keeper: args.keeper,
        workers: if args.threads == 0 { defaults.workers } else { args.threads },
        node: args.subscribe.node.as_deref().map(NodeName::from),
        node_address: args.node_address,
        zone: args.zone.as_deref().map(Into::into),
        drain_horizon: args.drain_horizon,
        drain_timeout: args.drain_timeout,
        access_log: args.telemetry.access_log(),
        traces: args.telemetry.traces(),
        ..defaults
    };
    let proxy = maesh_proxy::start(config, updates, interest, report, connected.clone()).await?;
    let mut admin = Admin::new(proxy.registry(), log_level, ApiReaders::new(&args.api.api_from));
    admin.check("synced", status::ready(proxy.ready(), "not everything was delivered yet, or this process is ending"));
    admin.views.insert("status", status::stream_view(stream, connected));
    admin.queries.insert("explain/proxy", views::proxy(proxy.explainer()));
    let admin = admin.serve(listener)?;
    tracing::info!(%admin, "carrying requests");
    let code = signals.first().await;
    signals.end_at_next();
    tracing::info!("draining");
    let cut = proxy.drain().await;
    if cut > 0 {
        tracing::warn!(connections = cut, "cut what did not end in time");
    }
    // Its last act is to write the state file.
    let _ = task.await;
    Ok(code)
}
