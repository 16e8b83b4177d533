//! What is counted for each port of a Service that is called.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use http::{Method, StatusCode};
use maesh_config::ServiceName;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, exemplar::HistogramWithExemplars, family::Family},
};

use super::{
    durations::{Durations, bounds},
    trace::RequestTrace,
};
use crate::reason::Reason;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct RequestLabels {
    service: String,
    namespace: String,
    port: u16,
    protocol: &'static str,
    method: &'static str,
    code: u16,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct PortLabels {
    pub(super) service: String,
    pub(super) namespace: String,
    pub(super) port: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct StreamRefusedLabels {
    pub(super) service: String,
    pub(super) namespace: String,
    pub(super) port: u16,
    pub(super) reason: &'static str,
}

impl PortLabels {
    /// Of this port.
    pub(super) fn new(service: &ServiceName, port: u16) -> Self {
        Self { service: service.name.to_string(), namespace: service.namespace.to_string(), port }
    }
}

/// Counters of the opaque streams to one port.
pub(crate) struct StreamTelemetry {
    pub(super) of: (ServiceName, u16),
    pub(super) family: Family<StreamRefusedLabels, Counter>,
    /// Those that were refused, by reason; `None` once the port is gone.
    pub(super) refused: Mutex<Option<HashMap<Reason, Counter>>>,
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
    pub(super) fn unregister(&self) {
        for reason in self.refused.lock().take().unwrap_or_default().into_keys() {
            self.family.remove(&self.labels(reason));
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndedRequest {
    /// The caller spoke HTTP/2.
    pub(crate) http2: bool,
    /// Its method.
    pub(crate) method: MethodLabel,
    /// What the caller was given.
    pub(crate) status: StatusCode,
    /// Why the mesh answered by itself, if it did.
    pub(crate) reason: Option<Reason>,
    /// Time from its head to the end of the response.
    pub(crate) took: Duration,
    /// Bytes that the caller sent after the head.
    pub(crate) received: u64,
    /// Bytes that the caller was given after the head.
    pub(crate) sent: u64,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct TraceLabel {
    trace_id: String,
}

/// A histogram whose buckets name the trace of the last request that was counted there, as an exemplar.
pub(super) type TracedDurations = HistogramWithExemplars<TraceLabel>;

/// The durations of recorded requests, by port.
pub(super) fn traced_durations() -> Family<PortLabels, TracedDurations> {
    Family::new_with_constructor(|| HistogramWithExemplars::new(bounds()))
}

/// The requests of a port that are counted together.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestSeries {
    http2: bool,
    method: MethodLabel,
    status: StatusCode,
    reason: Option<Reason>,
}

/// Counters of one HTTP port of a Service.
pub(crate) struct PortTelemetry {
    pub(super) requests: Family<RequestLabels, Counter>,
    pub(super) labels: PortLabels,
    pub(super) durations: Durations,
    /// Durations of requests that are recorded in traces.
    pub(super) traced: Family<PortLabels, TracedDurations>,
    /// Bytes of the bodies of requests, and of responses.
    pub(super) received: Counter,
    pub(super) sent: Counter,
    pub(super) known: ArcSwap<Vec<(u64, Counter)>>,
    /// The series in `known`; `None` once the port is gone, and its series with it: what is still in flight must not bring
    /// them back.
    pub(super) registered: Mutex<Option<Vec<RequestSeries>>>,
}

impl PortTelemetry {
    /// Counts one request that has ended.
    pub(crate) fn record(&self, ended: &EndedRequest) {
        let EndedRequest { http2, method, status, reason, took, received, sent } = *ended;
        self.durations.observe(took);
        if received > 0 {
            self.received.inc_by(received);
        }
        if sent > 0 {
            self.sent.inc_by(sent);
        }
        let key = u64::from(http2) << 63
            | u64::from(method.0) << 32
            | u64::from(status.as_u16()) << 8
            | reason.map_or(0xff, |reason| reason as u64);
        let known = self.known.load();
        match known.iter().find(|(of, _)| *of == key) {
            Some((_, counter)) => counter.inc(),
            None => self.add(key, RequestSeries { http2, method, status, reason }).inc(),
        };
    }

    /// Counts one request that is recorded in a trace, once it has ended at `ended`.
    #[cold]
    pub(crate) fn record_traced(&self, trace: &RequestTrace, took: Duration, ended: SystemTime) {
        // Held, or the series of a port that is gone could come back.
        let registered = self.registered.lock();
        if registered.is_some() {
            let trace = TraceLabel { trace_id: format!("{:032x}", trace.id()) };
            self.traced.get_or_create(&self.labels).observe(took.as_secs_f64(), Some(trace), Some(ended));
        }
    }

    fn request_labels(&self, series: RequestSeries) -> RequestLabels {
        let RequestSeries { http2, method, status, reason } = series;
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
    fn add(&self, key: u64, series: RequestSeries) -> Counter {
        let mut registered = self.registered.lock();
        let Some(registered) = registered.as_mut() else { return Counter::default() };
        let counter = self.requests.get_or_create_owned(&self.request_labels(series));
        let mut known = Vec::clone(&self.known.load());
        if !known.iter().any(|(of, _)| *of == key) {
            known.push((key, counter.clone()));
            self.known.store(Arc::new(known));
            registered.push(series);
        }
        counter
    }

    /// Removes all of its series.
    pub(super) fn unregister(&self) {
        for series in self.registered.lock().take().unwrap_or_default() {
            self.requests.remove(&self.request_labels(series));
        }
    }
}

/// A method as a label: one of the known ones, or `_OTHER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MethodLabel(u8);

const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "_OTHER"];

impl MethodLabel {
    /// As it is written.
    pub(crate) fn text(self) -> &'static str {
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
