//! `maesh dns`

use std::{num::NonZeroUsize, process::ExitCode, sync::Arc, time::Duration};

use maesh_discovery::{Subscribed, tls::CertificateFiles, update::Role};
use maesh_dns::{Caller, Config, Probe, ProbeKind, StartError, StreamLimits, Tls};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use crate::{
    admin::{self, Admin, ApiReaders},
    args::DnsArgs,
    explain::views,
    logs::LogLevel,
    open_files,
    signals::Signals,
    status,
};

/// How often the files of the certificate are looked at.
const CERTIFICATE: Duration = Duration::from_secs(10);

/// Answers until a signal; then for the lameduck time.
pub async fn run(args: DnsArgs, log_level: LogLevel) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install()?;
    let listener = admin::bind(args.admin)?;
    let subscribed = super::subscribe(&args.subscribe, Role::Dns, Vec::new(), &maesh_dns::KINDS, &[])?;
    let Subscribed { updates, connected, status: stream, task, .. } = subscribed;
    let mut registry = Registry::default();
    let defaults = Config::default();
    let files = args.tls_certificate.zip(args.tls_certificate_key);
    let tls = files.filter(|_| !args.tls_listen.is_empty()).map(|(chain, key)| Tls {
        listen: args.tls_listen,
        files: CertificateFiles { chain, key },
        look: CERTIFICATE,
    });
    let (over_tcp, over_tls) = open_files::dns(defaults.tcp.connections.all, defaults.tls_limits.connections.all);
    let config = Config {
        listen: args.listen,
        tls,
        tcp: StreamLimits::of(over_tcp),
        tls_limits: StreamLimits::of(over_tls),
        name_server: args.ns_address,
        threads: NonZeroUsize::new(args.threads).unwrap_or(defaults.threads),
        lameduck: args.lameduck,
        probe: Probe {
            how: args.probe_port.map_or(defaults.probe.how, |port| ProbeKind::Ready { port }),
            ..defaults.probe
        },
    };
    let dns = maesh_dns::start(config, updates, connected.clone(), &mut registry).map_err(|error| match error {
        StartError::Bind(bind) => {
            let flag = if bind.transport == "TLS" { "--tls-listen" } else { "--listen" };
            admin::taken(bind.address, flag, &bind.source)
        }
        other => other.into(),
    })?;
    let mut admin = Admin::new(Arc::new(Mutex::new(registry)), log_level, ApiReaders::new(&args.api.api_from));
    admin.check("synced", status::ready(dns.ready(), "not everything was delivered yet, or this process is ending"));
    admin.views.insert("status", status::stream_view(stream, connected));
    admin.queries.insert("explain/dns", views::dns(dns.snapshots(), Caller::Behind));
    let admin = admin.serve(listener)?;
    tracing::info!(listen = ?dns.addresses(), tls = ?dns.tls_addresses(), %admin, "answering");
    let code = signals.first().await;
    signals.end_at_next();
    tracing::info!("leaving");
    dns.stop().await;
    // Its last act is to write the state file.
    let _ = task.await;
    Ok(code)
}
