//! `maesh dns`

use std::{num::NonZeroUsize, process::ExitCode, sync::Arc};

use maesh_discovery::{Subscribed, update::Role};
use maesh_dns::{Caller, Config, Probe, ProbeHow, StartError};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use crate::{
    admin::{self, Admin},
    args::DnsArgs,
    explain::views,
    logs::LogLevel,
    signals::Signals,
    status,
};

/// Answers until a signal; then for the lameduck time.
pub async fn run(args: DnsArgs, log_level: LogLevel) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install()?;
    let listener = admin::bind(args.admin)?;
    let subscribed = super::subscribe(&args.subscribe, Role::Dns, Vec::new(), &maesh_dns::KINDS, &[])?;
    let Subscribed { updates, connected, status: stream, task, .. } = subscribed;
    let mut registry = Registry::default();
    let defaults = Config::default();
    let config = Config {
        listen: args.listen,
        name_server: args.ns_address,
        threads: NonZeroUsize::new(args.threads).unwrap_or(defaults.threads),
        lameduck: args.lameduck,
        probe: Probe {
            how: args.probe_port.map_or(defaults.probe.how, |port| ProbeHow::Ready { port }),
            ..defaults.probe
        },
        ..defaults
    };
    let dns = maesh_dns::start(config, updates, connected.clone(), &mut registry).map_err(|error| match error {
        StartError::Bind(bind) => admin::taken(bind.address, "--listen", &bind.source),
        other => other.into(),
    })?;
    let mut admin = Admin::new(Arc::new(Mutex::new(registry)), log_level);
    admin.check("synced", status::ready(dns.ready(), "not everything was delivered yet, or this process is ending"));
    admin.views.insert("status", status::stream_view(stream, connected));
    admin.queries.insert("explain/dns", views::dns(dns.snapshots(), Caller::Behind));
    let admin = admin.serve(listener)?;
    tracing::info!(listen = ?dns.addresses(), %admin, "answering");
    let code = signals.first().await;
    signals.end_at_next();
    tracing::info!("leaving");
    dns.stop().await;
    // Its last act is to write the state file.
    let _ = task.await;
    Ok(code)
}
