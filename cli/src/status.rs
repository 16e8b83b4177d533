//! What the admin endpoint shows of each role: readiness, the status API, the controller's metrics.

use std::{collections::BTreeMap, sync::Arc};

use maesh_compiler::{
    compile::{TableEntry, TablePort},
    diagnostic::{Diagnostic, Severity},
    kinds::ObjectKind,
};
use maesh_config::Zone;
use maesh_controller::{
    leader::Leadership,
    serve::State,
    source::kubernetes::{WatchStatus, Watches},
};
use maesh_discovery::{Server, Subscriber, SubscriberStatus};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{
        counter::ConstCounter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    admin::{ReadinessCheck, View},
    dev::print::{Entry, Port},
    version::VERSION,
};

/// A check that follows a role's own readiness.
pub fn ready(ready: watch::Receiver<bool>, otherwise: &'static str) -> ReadinessCheck {
    Box::new(move || if *ready.borrow() { Ok(()) } else { Err(otherwise.into()) })
}

/// A Service as the table and the status API show it.
pub fn entry(entry: &TableEntry, zone: &Zone) -> Entry {
    let port = |port: &TablePort| Port {
        name: port.name.as_deref().map(str::to_owned),
        port: port.port,
        listen: port.listen,
        protocol: port.protocol.to_string(),
    };
    Entry {
        name: entry.service.in_zone(zone),
        address: entry.address.map(|address| address.to_string()),
        ports: entry.ports.iter().map(port).collect(),
        bypass: entry.bypass,
    }
}

/// The status API of a controller.
pub fn controller_views(state: &Arc<State>, server: &Server, zone: &Zone) -> BTreeMap<&'static str, View> {
    let mut views = BTreeMap::<&'static str, View>::new();
    let (services, zone) = (state.clone(), zone.clone());
    let all = move || services.table().iter().map(|one| entry(one, &zone)).collect::<Vec<_>>();
    views.insert("services", Box::new(move || json!({ "services": all() })));
    let diagnostics = state.clone();
    let severity = |found: &Diagnostic| json!({ "severity": found.severity, "diagnostic": found });
    let all = move || diagnostics.diagnostics().iter().map(severity).collect::<Vec<_>>();
    views.insert("diagnostics", Box::new(move || json!({ "diagnostics": all() })));
    let subscribers = server.subscribers();
    let all = move || subscribers.borrow().iter().map(subscriber).collect::<Vec<_>>();
    views.insert("subscribers", Box::new(move || json!({ "subscribers": all() })));
    let counts = state.clone();
    views.insert("status", Box::new(move || status(&counts)));
    views
}

/// How the watches of the Kubernetes API are.
pub fn watches_view(watches: Watches) -> View {
    Box::new(move || {
        let states = watches.states();
        let one = |(kind, watch): (&ObjectKind, &WatchStatus)| {
            json!({
                "kind": kind.as_str(),
                "synced": watch.synced,
                "lastSuccess": watch.last_success.map(|at| at.to_string()),
                "lists": watch.lists,
                "badObjects": watch.bad_objects,
                "error": watch.error,
            })
        };
        json!({ "watches": states.iter().map(one).collect::<Vec<_>>() })
    })
}

/// Whether this replica writes to the cluster.
pub fn leader_view(leadership: Leadership) -> View {
    Box::new(move || json!({ "leads": leadership.may_write() }))
}

/// How the stanza in the cluster's DNS does, where this replica keeps it.
pub fn stanza_view(status: watch::Receiver<maesh_controller::duties::stanza::Status>) -> View {
    Box::new(move || json!(*status.borrow()))
}

/// How a subscriber's stream is.
pub fn stream_view(status: Arc<SubscriberStatus>, connected: watch::Receiver<bool>) -> View {
    Box::new(move || {
        json!({
            "version": VERSION,
            "connected": *connected.borrow(),
            "connects": status.connects(),
            "failures": status.failures(),
            "updates": status.updates(),
            "rejected": status.rejected(),
            "resources": status.resources(),
            "lastError": status.last_error(),
        })
    })
}

fn status(state: &State) -> Value {
    let (counts, switches, diagnostics) = (state.counts(), state.switches(), state.diagnostics());
    let errors = diagnostics.iter().filter(|found| found.severity == Severity::Error).count();
    let objects: BTreeMap<&str, usize> = counts.objects.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    json!({
        "version": VERSION,
        "synced": *state.synced().borrow(),
        "objects": objects,
        "revision": counts.revision,
        "secondsSinceChange": counts.changed_at.map(|at| at.elapsed().as_secs_f64()),
        "compilations": counts.compilations,
        "lastCompilationSeconds": counts.last_compilation.as_secs_f64(),
        "connectedProxies": counts.connected_proxies,
        "readyProxies": counts.ready_proxies,
        "services": state.count_services(),
        "accessControl": switches.map(|switches| switches.access_control.to_string()),
        "bypass": switches.map(|switches| switches.bypass),
        "diagnostics": diagnostics.len(),
        "errors": errors,
        "warnings": diagnostics.len() - errors,
    })
}

fn subscriber(subscriber: &Subscriber) -> Value {
    let identity = &subscriber.identity;
    let rejected =
        subscriber.rejected.iter().map(|(key, why)| json!({ "kind": key.kind, "name": key.name, "why": why }));
    json!({
        "id": identity.id,
        "role": format!("{:?}", identity.role).to_lowercase(),
        "node": identity.node,
        "addresses": identity.addresses,
        "version": identity.version,
        "ready": subscriber.ready,
        "elsewhere": subscriber.elsewhere,
        "acknowledged": subscriber.acknowledged(),
        "listening": subscriber.listening.len(),
        "failed": *subscriber.failed,
        "rejected": rejected.collect::<Vec<_>>(),
    })
}

/// Adds the controller's metrics; they are read when they are asked for.
pub fn register(registry: &mut Registry, state: &Arc<State>, server: &Server) {
    registry.register_collector(Box::new(ControllerMetrics { state: state.clone(), server: server.clone() }));
}

#[derive(Debug)]
struct ControllerMetrics {
    state: Arc<State>,
    server: Server,
}

impl Collector for ControllerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = self.state.counts();
        let objects = Family::<[(&str, &str); 1], Gauge>::default();
        for (kind, count) in &counts.objects {
            objects.get_or_create(&[("kind", kind.as_str())]).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        let metric = encoder.encode_descriptor(
            "maesh_controller_objects",
            "Kubernetes objects that the controller has read, by kind",
            None,
            objects.metric_type(),
        )?;
        objects.encode(metric)?;
        let streams = self.server.counters();
        for (name, help, value) in [
            (
                "maesh_controller_compilations",
                "How often changed objects were compiled into configuration",
                counts.compilations,
            ),
            ("maesh_controller_changed_resources", "Changed resources of the configuration", counts.changed_resources),
            ("maesh_controller_streams", "Discovery streams opened", streams.streams()),
            (
                "maesh_controller_streams_refused",
                "Discovery streams refused, for instance for lack of a valid token",
                streams.refused(),
            ),
            (
                "maesh_controller_streams_dropped",
                "Discovery streams closed because the subscriber read too slowly",
                streams.dropped(),
            ),
            (
                "maesh_controller_connections_crowded_out",
                "Connections closed before their peer authenticated, to make room for others",
                self.server.crowded_out(),
            ),
            ("maesh_controller_pushes", "Configuration messages sent to dns and proxies", streams.pushes()),
            ("maesh_controller_pushed_bytes", "Bytes of configuration sent to dns and proxies", streams.bytes()),
            (
                "maesh_controller_nacks",
                "Configuration messages that dns or a proxy rejected, in whole or in part",
                streams.nacks(),
            ),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let as_gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        for (name, help, value) in [
            ("maesh_controller_services", "Services in the mesh", as_gauge(self.state.count_services())),
            (
                "maesh_controller_diagnostics",
                "Mistakes found in your objects; /api/diagnostics lists them",
                as_gauge(self.state.diagnostics().len()),
            ),
            (
                "maesh_controller_proxies_connected",
                "Proxies connected to the controller",
                as_gauge(counts.connected_proxies),
            ),
            (
                "maesh_controller_proxies_ready",
                "Connected proxies that accept new connections",
                as_gauge(counts.ready_proxies),
            ),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let gauge = ConstGauge::new(counts.compiling.as_secs_f64());
        let help = "Total time spent compiling configuration";
        gauge.encode(encoder.encode_descriptor(
            "maesh_controller_compiling_seconds",
            help,
            None,
            gauge.metric_type(),
        )?)
    }
}
