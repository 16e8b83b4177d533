//! What the proxy counts, from the first request on.
//!
//! Labels are looked up once per port and combination of method, status and reason; after that a request costs a few
//! atomic additions. Nothing a caller writes becomes a label unbounded: unknown methods are `_OTHER`.

mod udp;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{Method, StatusCode};
use maesh_config::{ServiceName, model::Transport};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

pub(crate) use self::udp::{FlowEnd, FlowTelemetry, UdpTelemetry};
use crate::reason::Reason;

/// Upper bounds of the durations histogram, in microseconds.
const BUCKETS: [u64; 15] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    service: String,
    namespace: String,
    port: u16,
    protocol: &'static str,
    method: &'static str,
    code: u16,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PortLabels {
    service: String,
    namespace: String,
    port: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StreamRefusedLabels {
    service: String,
    namespace: String,
    port: u16,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ProtocolLabels {
    protocol: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// All metric families of a proxy, and those without labels resolved.
pub(crate) struct Telemetry {
    requests: Family<RequestLabels, Counter>,
    durations: Family<PortLabels, Durations>,
    refused: Family<ReasonLabels, Counter>,
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
    /// Requests tried again because no connection was made.
    pub(crate) retries_connect: Counter,
    /// Requests tried again because a connection ended before the response began.
    pub(crate) retries_closed: Counter,
    /// Requests tried again because the policy of the Service says so.
    pub(crate) retries_policy: Counter,
    /// Second attempts made while the first one was slow.
    pub(crate) hedges: Counter,
    /// Copies of requests that were sent, and that were left out.
    pub(crate) mirrored: Counter,
    pub(crate) mirror_dropped: Counter,
    /// Circuit breakers that opened.
    pub(crate) breakers_opened: Counter,
    /// Endpoints ejected.
    pub(crate) ejections: Counter,
    /// Connections made to endpoints.
    pub(crate) connects: Counter,
    /// Connections to endpoints that failed.
    pub(crate) connects_failed: Counter,
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
        let retries: Family<CauseLabels, Counter> = Family::default();
        let connects: Family<OutcomeLabels, Counter> = Family::default();
        let copies: Family<OutcomeLabels, Counter> = Family::default();
        let mesh = registry.sub_registry_with_prefix("maesh");
        let telemetry = Self {
            udp: UdpTelemetry::new(mesh),
            requests: Family::default(),
            durations: Family::default(),
            refused: Family::default(),
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
            retries_connect: retries.get_or_create_owned(&CauseLabels { cause: "connect" }),
            retries_closed: retries.get_or_create_owned(&CauseLabels { cause: "closed" }),
            retries_policy: retries.get_or_create_owned(&CauseLabels { cause: "policy" }),
            hedges: Counter::default(),
            mirrored: copies.get_or_create_owned(&OutcomeLabels { outcome: "sent" }),
            mirror_dropped: copies.get_or_create_owned(&OutcomeLabels { outcome: "left_out" }),
            breakers_opened: Counter::default(),
            ejections: Counter::default(),
            connects: connects.get_or_create_owned(&OutcomeLabels { outcome: "ok" }),
            connects_failed: connects.get_or_create_owned(&OutcomeLabels { outcome: "failed" }),
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
        mesh.register("proxy_retries", "Requests sent again, by cause: the connection was not made (connect), or ended before the response began (closed), or an annotation of the Service asks for it (policy)", retries);
        mesh.register(
            "proxy_hedges",
            "Second attempts that were made because the first one was slow",
            telemetry.hedges.clone(),
        );
        mesh.register(
            "proxy_mirrored",
            "Copies of requests for the annotation mirror, by outcome: `sent`, or `left_out` because too many were under way or the body was too large",
            copies,
        );
        mesh.register(
            "proxy_breakers_opened",
            "Times that a circuit breaker opened",
            telemetry.breakers_opened.clone(),
        );
        mesh.register(
            "proxy_ejections",
            "Endpoints left out for a while because they failed several times in a row",
            telemetry.ejections.clone(),
        );
        mesh.register("proxy_upstream_connects", "Attempts to connect to endpoints, by outcome", connects);
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

    /// The counters of one HTTP port of a Service: the same ones until [`Telemetry::retain_ports`] drops them.
    pub(crate) fn port(&self, service: &ServiceName, port: u16) -> Arc<PortTelemetry> {
        let mut ports = self.ports.lock();
        let of_service = ports.entry(service.clone()).or_default();
        let made = of_service.http.entry(port).or_insert_with(|| {
            let labels = PortLabels::new(service, port);
            Arc::new(PortTelemetry {
                requests: self.requests.clone(),
                durations: self.durations.get_or_create_owned(&labels),
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

impl PortLabels {
    fn new(service: &ServiceName, port: u16) -> Self {
        Self { service: service.name.to_string(), namespace: service.namespace.to_string(), port }
    }
}

/// Counters of one Service, by port.
#[derive(Default)]
struct PortsTelemetry {
    http: HashMap<u16, Arc<PortTelemetry>>,
    streams: HashMap<u16, Arc<StreamTelemetry>>,
}

/// Counters of the opaque streams to one port.
pub(crate) struct StreamTelemetry {
    of: (ServiceName, u16),
    family: Family<StreamRefusedLabels, Counter>,
    /// Those that were refused, by reason; `None` once the port is gone.
    refused: Mutex<Option<HashMap<Reason, Counter>>>,
    /// Streams carried.
    pub(crate) connections: Counter,
    /// Bytes from callers.
    pub(crate) received: Counter,
    /// Bytes to callers.
    pub(crate) sent: Counter,
}

impl StreamTelemetry {
    /// Counts a stream that was reset before it was carried.
    pub(crate) fn refused(&self, reason: Reason) {
        if let Some(refused) = self.refused.lock().as_mut() {
            refused.entry(reason).or_insert_with(|| self.family.get_or_create_owned(&self.labels(reason))).inc();
        }
    }

    fn labels(&self, reason: Reason) -> StreamRefusedLabels {
        let (service, port) = &self.of;
        let (service, namespace) = (service.name.to_string(), service.namespace.to_string());
        StreamRefusedLabels { service, namespace, port: *port, reason: reason.code() }
    }

    /// Removes the series of refused streams.
    fn unregister(&self) {
        for reason in self.refused.lock().take().unwrap_or_default().into_keys() {
            self.family.remove(&self.labels(reason));
        }
    }
}

/// Counters of one HTTP port of a Service.
pub(crate) struct PortTelemetry {
    requests: Family<RequestLabels, Counter>,
    labels: PortLabels,
    durations: Durations,
    known: ArcSwap<Vec<(u64, Counter)>>,
    /// Labels of the series in `known`; `None` once the port is gone, and its series with it: what is still in flight must
    /// not bring them back.
    registered: Mutex<Option<Vec<RequestLabels>>>,
}

impl PortTelemetry {
    /// Counts one answer and the time it took. `http2` says which protocol the caller spoke.
    pub(crate) fn record(
        &self,
        http2: bool,
        method: MethodLabel,
        status: StatusCode,
        reason: Option<Reason>,
        took: Duration,
    ) {
        self.durations.observe(took);
        let key = u64::from(http2) << 63
            | u64::from(method.0) << 32
            | u64::from(status.as_u16()) << 8
            | reason.map_or(0xff, |reason| reason as u64);
        let known = self.known.load();
        match known.iter().find(|(of, _)| *of == key) {
            Some((_, counter)) => counter.inc(),
            None => self.add(key, self.request_labels(http2, method, status, reason)).inc(),
        };
    }

    fn request_labels(
        &self,
        http2: bool,
        method: MethodLabel,
        status: StatusCode,
        reason: Option<Reason>,
    ) -> RequestLabels {
        RequestLabels {
            service: self.labels.service.clone(),
            namespace: self.labels.namespace.clone(),
            port: self.labels.port,
            protocol: if http2 { "http2" } else { "http1" },
            method: method.text(),
            code: status.as_u16(),
            reason: reason.map_or("", Reason::code),
        }
    }

    #[cold]
    fn add(&self, key: u64, labels: RequestLabels) -> Counter {
        let mut registered = self.registered.lock();
        let Some(registered) = registered.as_mut() else { return Counter::default() };
        let counter = self.requests.get_or_create_owned(&labels);
        let mut known = Vec::clone(&self.known.load());
        if !known.iter().any(|(of, _)| *of == key) {
            known.push((key, counter.clone()));
            self.known.store(Arc::new(known));
            registered.push(labels);
        }
        counter
    }

    /// Removes all of its series.
    fn unregister(&self) {
        for labels in self.registered.lock().take().unwrap_or_default() {
            self.requests.remove(&labels);
        }
    }
}

/// A method as a label: one of the known ones, or `_OTHER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MethodLabel(u8);

const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "_OTHER"];

impl MethodLabel {
    fn text(self) -> &'static str {
        METHODS[usize::from(self.0)]
    }
}

impl From<&Method> for MethodLabel {
    fn from(method: &Method) -> Self {
        Self(match *method {
            Method::GET => 0,
            Method::HEAD => 1,
            Method::POST => 2,
            Method::PUT => 3,
            Method::DELETE => 4,
            Method::OPTIONS => 5,
            Method::PATCH => 6,
            Method::TRACE => 7,
            Method::CONNECT => 8,
            _ => 9,
        })
    }
}

/// A histogram without a lock.
#[derive(Clone, Debug, Default)]
struct Durations(Arc<DurationsInner>);

#[derive(Debug, Default)]
struct DurationsInner {
    micros: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len() + 1],
}

impl Durations {
    #[allow(clippy::cast_possible_truncation)]
    fn observe(&self, took: Duration) {
        let micros = took.as_micros() as u64;
        let bucket = BUCKETS.iter().position(|bound| micros <= *bound).unwrap_or(BUCKETS.len());
        self.0.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl EncodeMetric for Durations {
    #[allow(clippy::cast_precision_loss)]
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bounds = BUCKETS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::MAX]);
        let counts = self.0.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.0.micros.load(Ordering::Relaxed) as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl prometheus_client::metrics::TypedMetric for Durations {
    const TYPE: MetricType = MetricType::Histogram;
}
