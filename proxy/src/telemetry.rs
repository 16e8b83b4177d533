//! What the proxy counts, from the first request on.
//!
//! Labels are looked up once per port and combination of method, status and reason; after that a request costs a few
//! atomic additions. Nothing a caller writes becomes a label unbounded: unknown methods are `_OTHER`.

mod access_log;
mod details;
mod durations;
mod port;
mod trace;
mod udp;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
};

use arc_swap::ArcSwap;
use maesh_config::{ServiceName, model::Transport};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

pub(crate) use self::{
    access_log::{AccessLog, AccessRecord, RequestRecord},
    details::{METHOD, PATH, RequestDetails, bounded},
    port::{EndedRequest, MethodLabel, PortTelemetry, StreamTelemetry},
    trace::{AttemptSpan, RequestTrace, Tracer, Value as SpanValue},
    udp::{FlowEnd, FlowTelemetry, UdpTelemetry},
};
use self::{
    durations::Durations,
    port::{PortLabels, RequestLabels, StreamRefusedLabels, TracedDurations, traced_durations},
};
use crate::reason::Reason;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ProtocolLabels {
    protocol: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// TLS handshakes with endpoints that failed, by what was wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsFailures(Family<ReasonLabels, Counter>);

impl TlsFailures {
    /// Counts one; `reason` is one of a few words.
    pub(crate) fn count(&self, reason: &'static str) {
        self.0.get_or_create(&ReasonLabels { reason }).inc();
    }
}

/// All metric families of a proxy, and those without labels resolved.
pub(crate) struct Telemetry {
    requests: Family<RequestLabels, Counter>,
    durations: Family<PortLabels, Durations>,
    traced: Family<PortLabels, TracedDurations>,
    received: Family<PortLabels, Counter>,
    sent: Family<PortLabels, Counter>,
    refused: Family<ReasonLabels, Counter>,
    would_deny: Family<ServiceLabels, Counter>,
    tcp_connections: Family<PortLabels, Counter>,
    tcp_refused: Family<StreamRefusedLabels, Counter>,
    tcp_received: Family<PortLabels, Counter>,
    tcp_sent: Family<PortLabels, Counter>,
    /// Of datagrams.
    pub(crate) udp: UdpTelemetry,
    /// Counters of ports that are there, so that a change of configuration goes on with them.
    ports: Mutex<HashMap<ServiceName, PortsTelemetry>>,
    /// Connections of callers that have not said yet what they speak.
    pub(crate) open_unknown: Gauge,
    /// Connections of callers that are open, by protocol.
    pub(crate) open_http: Gauge,
    /// Opaque streams that are open.
    pub(crate) open_tcp: Gauge,
    /// Requests that have begun and whose response, or upgraded stream, has not ended.
    pub(crate) in_flight: Gauge,
    /// Bytes held for callers, and for endpoints that do not take an upload.
    pub(crate) buffered: Gauge<u64, AtomicU64>,
    /// Lines of the access log.
    pub(crate) log_written: Counter,
    pub(crate) log_dropped: Counter,
    /// Spans of traces.
    pub(crate) spans_exported: Counter,
    pub(crate) spans_dropped: Counter,
    pub(crate) spans_failed: Counter,
    /// Connections made to endpoints.
    pub(crate) connects: Counter,
    /// Connections to endpoints that failed.
    pub(crate) connects_failed: Counter,
    /// TLS handshakes with endpoints that failed.
    pub(crate) tls_failures: TlsFailures,
    /// Opaque streams that led back to this proxy, and were ended.
    pub(crate) loops: Counter,
    /// Requests and streams sent to the plain address, because the Service's configuration could not be had.
    pub(crate) plain_fallback: Counter,
    /// Updates applied, which is the local revision of the configuration.
    pub(crate) revision: Gauge,
    /// Services whose configuration is held.
    pub(crate) services: Gauge,
    /// Listeners that are open.
    pub(crate) listeners: Gauge,
    /// Listeners that could not be opened and are tried again.
    pub(crate) listeners_refused: Gauge,
    /// Listening sockets of which a keeper has copies.
    pub(crate) kept: Gauge,
}

impl Telemetry {
    /// Creates all families and registers them.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let open: Family<ProtocolLabels, Gauge> = Family::default();
        let connects: Family<OutcomeLabels, Counter> = Family::default();
        let mesh = registry.sub_registry_with_prefix("maesh");
        let log: Family<OutcomeLabels, Counter> = Family::default();
        let spans: Family<OutcomeLabels, Counter> = Family::default();
        let telemetry = Self {
            udp: UdpTelemetry::new(mesh),
            requests: Family::default(),
            durations: Family::default(),
            traced: traced_durations(),
            received: Family::default(),
            sent: Family::default(),
            refused: Family::default(),
            would_deny: Family::default(),
            tcp_connections: Family::default(),
            tcp_refused: Family::default(),
            tcp_received: Family::default(),
            tcp_sent: Family::default(),
            ports: Mutex::default(),
            open_unknown: open.get_or_create_owned(&ProtocolLabels { protocol: "unknown" }),
            open_http: open.get_or_create_owned(&ProtocolLabels { protocol: "http" }),
            open_tcp: open.get_or_create_owned(&ProtocolLabels { protocol: "tcp" }),
            in_flight: Gauge::default(),
            buffered: Gauge::default(),
            log_written: log.get_or_create_owned(&OutcomeLabels { outcome: "written" }),
            log_dropped: log.get_or_create_owned(&OutcomeLabels { outcome: "dropped" }),
            spans_exported: spans.get_or_create_owned(&OutcomeLabels { outcome: "exported" }),
            spans_dropped: spans.get_or_create_owned(&OutcomeLabels { outcome: "queue_full" }),
            spans_failed: spans.get_or_create_owned(&OutcomeLabels { outcome: "failed" }),
            connects: connects.get_or_create_owned(&OutcomeLabels { outcome: "ok" }),
            connects_failed: connects.get_or_create_owned(&OutcomeLabels { outcome: "failed" }),
            tls_failures: TlsFailures::default(),
            loops: Counter::default(),
            plain_fallback: Counter::default(),
            revision: Gauge::default(),
            services: Gauge::default(),
            listeners: Gauge::default(),
            listeners_refused: Gauge::default(),
            kept: Gauge::default(),
        };
        mesh.register(
            "http_requests",
            "HTTP requests, by the Service called; counted when the response has ended",
            telemetry.requests.clone(),
        );
        mesh.register(
            "http_request_duration_seconds",
            "Time from the head of a request to the last byte of its response",
            telemetry.durations.clone(),
        );
        mesh.register(
            "http_traced_request_duration_seconds",
            "Durations, as above, of the requests that are recorded in traces; each bucket names a trace in its exemplar",
            telemetry.traced.clone(),
        );
        mesh.register(
            "http_request_body_bytes",
            "Bytes that callers sent after the heads of their requests: bodies, and what they sent on upgraded streams",
            telemetry.received.clone(),
        );
        mesh.register(
            "http_response_body_bytes",
            "Bytes that callers were sent after the heads of responses: bodies, and what they were sent on upgraded streams",
            telemetry.sent.clone(),
        );
        mesh.register(
            "http_refused",
            "Requests answered by the proxy itself because no Service could be determined, and connections closed because of a limit",
            telemetry.refused.clone(),
        );
        mesh.register("tcp_connections", "TCP connections carried to an endpoint", telemetry.tcp_connections.clone());
        mesh.register(
            "tcp_refused",
            "TCP connections reset by the proxy before any data was carried, by the Service called and the reason",
            telemetry.tcp_refused.clone(),
        );
        mesh.register(
            "tcp_received_bytes",
            "Bytes carried over TCP from callers to endpoints",
            telemetry.tcp_received.clone(),
        );
        mesh.register("tcp_sent_bytes", "Bytes carried over TCP from endpoints to callers", telemetry.tcp_sent.clone());
        mesh.register(
            "proxy_connections_open",
            "Open connections of callers, by protocol; `unknown` until the first bytes show which it is",
            open,
        );
        mesh.register(
            "http_requests_in_flight",
            "HTTP requests whose response, or upgraded stream, has not ended",
            telemetry.in_flight.clone(),
        );
        mesh.register(
            "proxy_buffered_bytes",
            "Bytes held for callers: heads that are not complete, uploads that no endpoint reads, responses that no caller reads",
            telemetry.buffered.clone(),
        );
        mesh.register("proxy_upstream_connects", "Attempts to connect to endpoints, by outcome", connects);
        mesh.register(
            "proxy_tls_failures",
            "TLS handshakes with endpoints that failed, by what was wrong; the requests were not sent",
            telemetry.tls_failures.0.clone(),
        );
        mesh.register(
            "proxy_access_log_lines",
            "Lines of the access log, by outcome: written, or dropped because they came faster than they could be written",
            log,
        );
        mesh.register(
            "proxy_spans",
            "Spans of traces, by outcome: exported, or dropped because they came faster than they could be sent (queue_full), or because the receiver was away or refused them (failed)",
            spans,
        );
        mesh.register(
            "proxy_plain_fallback",
            "Requests and TCP connections sent to the ClusterIP, without policies, because the configuration of the Service had not arrived",
            telemetry.plain_fallback.clone(),
        );
        mesh.register(
            "proxy_loops",
            "TCP connections closed because they led back to the proxy itself",
            telemetry.loops.clone(),
        );
        mesh.register(
            "proxy_access_dry_run_denials",
            "Requests, connections and flows that access control would deny if it were no dry run, by the Service that was called",
            telemetry.would_deny.clone(),
        );
        mesh.register("proxy_config_updates", "Number of configuration updates applied", telemetry.revision.clone());
        mesh.register("proxy_services", "Services whose configuration this proxy has", telemetry.services.clone());
        mesh.register("proxy_listeners", "Open listeners", telemetry.listeners.clone());
        mesh.register(
            "proxy_listeners_refused",
            "Listeners that could not be opened, for instance because another process has the port, and are tried again",
            telemetry.listeners_refused.clone(),
        );
        mesh.register(
            "proxy_sockets_kept",
            "Listening sockets of which the keeper container holds a copy",
            telemetry.kept.clone(),
        );
        telemetry
    }

    /// Counts an answer that was given before any Service was known.
    pub(crate) fn refused(&self, reason: Reason) {
        self.refused.get_or_create(&ReasonLabels { reason: reason.code() }).inc();
    }

    /// Counts what access control would deny.
    pub(crate) fn would_deny(&self, service: &ServiceName) {
        self.would_deny.get_or_create(&ServiceLabels::of(service)).inc();
    }

    /// Drops the series of a Service that is gone.
    pub(crate) fn forget(&self, service: &ServiceName) {
        self.retain_ports(service, |_, _| false);
        self.would_deny.remove(&ServiceLabels::of(service));
    }

    /// The counters of one HTTP port of a Service: the same ones until [`Telemetry::retain_ports`] drops them.
    pub(crate) fn port(&self, service: &ServiceName, port: u16) -> Arc<PortTelemetry> {
        let mut ports = self.ports.lock();
        let of_service = ports.entry(service.clone()).or_default();
        let made = of_service.http.entry(port).or_insert_with(|| {
            let labels = PortLabels::new(service, port);
            Arc::new(PortTelemetry {
                requests: self.requests.clone(),
                durations: self.durations.get_or_create_owned(&labels),
                traced: self.traced.clone(),
                received: self.received.get_or_create_owned(&labels),
                sent: self.sent.get_or_create_owned(&labels),
                labels,
                known: ArcSwap::from_pointee(Vec::new()),
                registered: Mutex::new(Some(Vec::new())),
            })
        });
        made.clone()
    }

    /// The counters of opaque streams to one port of a Service.
    pub(crate) fn stream(&self, service: &ServiceName, port: u16) -> Arc<StreamTelemetry> {
        let mut ports = self.ports.lock();
        let of_service = ports.entry(service.clone()).or_default();
        let made = of_service.streams.entry(port).or_insert_with(|| {
            let labels = PortLabels::new(service, port);
            Arc::new(StreamTelemetry {
                of: (service.clone(), port),
                refused: Mutex::new(Some(HashMap::new())),
                family: self.tcp_refused.clone(),
                connections: self.tcp_connections.get_or_create_owned(&labels),
                received: self.tcp_received.get_or_create_owned(&labels),
                sent: self.tcp_sent.get_or_create_owned(&labels),
            })
        });
        made.clone()
    }

    /// Drops the series of those ports of a Service that it has no longer. What is still in flight on them is counted
    /// nowhere.
    pub(crate) fn retain_ports(&self, service: &ServiceName, stays: impl Fn(u16, Transport) -> bool) {
        self.udp.retain(service, |port| stays(port, Transport::Udp));
        let stays = |port| stays(port, Transport::Tcp);
        let mut ports = self.ports.lock();
        let Some(of_service) = ports.get_mut(service) else { return };
        for (_, gone) in of_service.http.extract_if(|port, _| !stays(*port)) {
            gone.unregister();
            self.durations.remove(&gone.labels);
            self.traced.remove(&gone.labels);
            self.received.remove(&gone.labels);
            self.sent.remove(&gone.labels);
        }
        for (port, gone) in of_service.streams.extract_if(|port, _| !stays(*port)) {
            gone.unregister();
            let labels = PortLabels::new(service, port);
            for family in [&self.tcp_connections, &self.tcp_received, &self.tcp_sent] {
                family.remove(&labels);
            }
        }
        if of_service.http.is_empty() && of_service.streams.is_empty() {
            ports.remove(service);
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ServiceLabels {
    service: String,
    namespace: String,
}

impl ServiceLabels {
    fn of(service: &ServiceName) -> Self {
        Self { service: service.name.to_string(), namespace: service.namespace.to_string() }
    }
}

/// Counters of one Service, by port.
#[derive(Default)]
struct PortsTelemetry {
    http: HashMap<u16, Arc<PortTelemetry>>,
    streams: HashMap<u16, Arc<StreamTelemetry>>,
}
