//! Traces: which requests are recorded, the context that they carry, and the spans that are made of them.
//!
//! A request that is not recorded costs a look at its fields: what it carries is passed on as it came. One that is makes a
//! server span, and a client span for each attempt at an endpoint, which the endpoint is told as its parent. Spans go into
//! a bounded queue ([`export`]); while that is full they are dropped and counted.

mod context;
mod export;
mod otlp;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, StatusCode, request};
use maesh_config::policy::Percent;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;

use self::context::{Forms, Incoming};
pub(crate) use self::export::Exporting;
use super::MethodLabel;
use crate::config::TraceSettings;

/// Spans that wait to be exported. One has at most about 1.5 kB.
const WAITING: usize = 2048;

/// Longest texts in a span, in bytes.
const PATH: usize = 512;
const STATE: usize = 512;

/// A span that has ended.
#[derive(Debug)]
pub(crate) struct Span {
    trace_id: u128,
    id: u64,
    parent: Option<u64>,
    state: Box<str>,
    kind: SpanKind,
    name: &'static str,
    began: SystemTime,
    ended: SystemTime,
    failed: bool,
    attributes: Vec<(&'static str, Value)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpanKind {
    /// A request, as its caller sees it.
    Server,
    /// An attempt at an endpoint.
    Client,
}

/// The value of an attribute.
#[derive(Debug)]
pub(crate) enum Value {
    Text(Box<str>),
    Word(&'static str),
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// A request that is recorded.
#[derive(Debug)]
pub(crate) struct RequestTrace {
    trace_id: u128,
    /// Its server span.
    span: u64,
    /// The span of the caller, if it said one.
    parent: Option<u64>,
    state: Box<str>,
    /// Fields in which the context is passed on.
    forms: Forms,
    /// The identifier of the trace came with 64 bits.
    is_short: bool,
    /// The caller asked for it to be recorded whatever anybody thinks (B3).
    is_debug: bool,
    method: MethodLabel,
    path: Box<str>,
    attempts: AtomicU32,
}

impl RequestTrace {
    /// The identifier of its trace.
    pub(crate) fn id(&self) -> u128 {
        self.trace_id
    }

    /// Its path, without the query.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The server span, in the fields that are passed on.
    pub(crate) fn write(&self, fields: &mut HeaderMap) {
        context::write(self, fields, self.span, self.parent);
    }
}

/// What makes spans of requests.
pub(crate) struct Tracer {
    queue: mpsc::Sender<Span>,
    dropped: Counter,
    sample: Percent,
    forms: Forms,
}

impl Tracer {
    /// A tracer, and what exports its spans; nothing is connected yet.
    pub(crate) fn new(
        settings: &TraceSettings,
        node: Option<&str>,
        exported: Counter,
        counts: [Counter; 2],
    ) -> (Self, Exporting) {
        let (queue, spans) = mpsc::channel(WAITING);
        let [dropped, failed] = counts;
        let exporting = Exporting::new(spans, settings, node, exported, failed);
        (Self { queue, dropped, sample: settings.sample, forms: Forms::of(&settings.propagation) }, exporting)
    }

    /// Whether a request with this head is recorded: if its caller's part of the trace is, or where the caller does not say,
    /// if it is one of the share that is sampled. `draw` makes uniformly random numbers.
    pub(crate) fn begin(&self, head: &request::Parts, mut draw: impl FnMut() -> u64) -> Option<Arc<RequestTrace>> {
        let incoming = context::read(&head.headers);
        let sampled = incoming.as_ref().and_then(|incoming| incoming.sampled);
        if !sampled.unwrap_or_else(|| self.sample.takes(draw())) {
            return None;
        }
        let Incoming { ids, forms, is_short, is_debug, .. } = incoming.unwrap_or_default();
        let mut drawn = || draw().max(1);
        let (trace_id, parent) = match ids {
            Some((trace_id, parent)) => (trace_id, Some(parent)),
            None => (u128::from(drawn()) << 64 | u128::from(drawn()), None),
        };
        let state = head.headers.get("tracestate").and_then(|state| state.to_str().ok()).unwrap_or_default();
        Some(Arc::new(RequestTrace {
            trace_id,
            span: drawn(),
            parent,
            state: if ids.is_some() { cut(state, STATE) } else { Box::default() },
            forms: if forms.is_empty() { self.forms } else { forms },
            is_short,
            is_debug,
            method: MethodLabel::from(&head.method),
            path: cut(head.uri.path(), PATH),
            attempts: AtomicU32::new(0),
        }))
    }

    /// The server span of a request that has ended.
    pub(crate) fn request(
        &self,
        trace: &RequestTrace,
        (began, took): (SystemTime, Duration),
        failed: bool,
        attributes: Vec<(&'static str, Value)>,
    ) {
        self.end(Span {
            trace_id: trace.trace_id,
            id: trace.span,
            parent: trace.parent,
            state: trace.state.clone(),
            kind: SpanKind::Server,
            name: name(trace.method),
            began,
            ended: began + took,
            failed,
            attributes,
        });
    }

    /// The span of an attempt at `endpoint`, over TLS or not, that begins now; `draw` is uniformly random.
    pub(crate) fn attempt<'a>(
        &'a self,
        trace: &'a RequestTrace,
        endpoint: SocketAddr,
        tls: bool,
        draw: u64,
    ) -> AttemptSpan<'a> {
        let ordinal = trace.attempts.fetch_add(1, Ordering::Relaxed);
        AttemptSpan {
            tracer: self,
            trace,
            endpoint,
            tls,
            ordinal,
            id: draw.max(1),
            began: SystemTime::now(),
            end: None,
        }
    }

    fn end(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.dropped.inc();
        }
    }
}

/// An attempt under way. Its span ends with it, also where it is given up.
pub(crate) struct AttemptSpan<'a> {
    tracer: &'a Tracer,
    trace: &'a RequestTrace,
    endpoint: SocketAddr,
    /// Over TLS.
    tls: bool,
    /// Attempts of the same request before it.
    ordinal: u32,
    id: u64,
    began: SystemTime,
    end: Option<Result<StatusCode, &'static str>>,
}

impl AttemptSpan<'_> {
    /// This span, in the fields that the endpoint is sent.
    pub(crate) fn write(&self, fields: &mut HeaderMap) {
        context::write(self.trace, fields, self.id, Some(self.trace.span));
    }

    /// How the attempt ended: the status of a response, or the code of a reason.
    pub(crate) fn ended(mut self, end: Result<StatusCode, &'static str>) {
        self.end = Some(end);
    }
}

impl Drop for AttemptSpan<'_> {
    fn drop(&mut self) {
        let Self { trace, endpoint, .. } = *self;
        let address = endpoint.ip().to_canonical().to_string();
        let scheme = if self.tls { "https" } else { "http" };
        let mut attributes = vec![
            ("http.request.method", Value::Word(trace.method.text())),
            ("url.full", format!("{scheme}://{endpoint}{}", trace.path).into()),
            ("server.address", (&*address).into()),
            ("server.port", u64::from(endpoint.port()).into()),
            ("network.peer.address", address.into()),
            ("network.peer.port", u64::from(endpoint.port()).into()),
        ];
        if self.ordinal > 0 {
            attributes.push(("http.request.resend_count", u64::from(self.ordinal).into()));
        }
        let failed = match self.end {
            Some(Ok(status)) => {
                attributes.push(("http.response.status_code", u64::from(status.as_u16()).into()));
                let failed = status.is_client_error() || status.is_server_error();
                if failed {
                    attributes.push(("error.type", status.as_str().into()));
                }
                failed
            }
            end => {
                attributes.push(("error.type", Value::Word(end.and_then(Result::err).unwrap_or("cancelled"))));
                true
            }
        };
        self.tracer.end(Span {
            trace_id: trace.trace_id,
            id: self.id,
            parent: Some(trace.span),
            state: trace.state.clone(),
            kind: SpanKind::Client,
            name: name(trace.method),
            began: self.began,
            ended: SystemTime::now(),
            failed,
            attributes,
        });
    }
}

/// The name of a span of HTTP: the method, because paths are too many.
fn name(method: MethodLabel) -> &'static str {
    match method.text() {
        "_OTHER" => "HTTP",
        method => method,
    }
}

/// The beginning of `text`, of at most so many bytes.
fn cut(text: &str, most: usize) -> Box<str> {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].into()
}

/// A field that is there once; two would have to be chosen from.
fn single<'a>(fields: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a str> {
    let mut values = fields.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { HeaderValue::to_str(value).ok() }
}

#[cfg(test)]
mod tests;
