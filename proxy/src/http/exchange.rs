//! The record of one request: who asked what of whom, how it went, and what it still holds.
//!
//! An exchange begins with the head of a request and ends with the last byte of its response, or of the stream that it
//! was upgraded to. While it lives it is a request in flight. Its end is the one place where the request is counted.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, request};
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep_until};

use super::{answer::AnswerForm, body::Body, caller::Caller};
use crate::{
    admission::ExchangePermit,
    balance::Share,
    clock::Clock,
    reason::Reason,
    state::{AdmittedStream, BackendPort, Counts, InFlight, Port},
    telemetry::{AccessRecord, EndedRequest, MethodLabel, RequestDetails, RequestRecord, RequestTrace, SpanValue},
    upstream::BodyError,
};

/// One request and its response.
pub(crate) struct Exchange {
    pub(crate) caller: Arc<Caller>,
    method: MethodLabel,
    began: Instant,
    /// The form of an answer that the mesh makes by itself.
    pub(crate) form: AnswerForm,
    /// When bytes moved last.
    pub(crate) activity: Arc<Activity>,
    /// Port of the Service that was called, once it is known.
    pub(crate) port: Option<Arc<Port>>,
    /// Where the request was sent.
    pub(crate) backend: Option<Arc<BackendPort>>,
    /// How many times it was tried until an endpoint answered; 0 when none did.
    pub(crate) attempts: u32,
    /// Status that the caller was given; 499 when it was gone before.
    pub(crate) status: StatusCode,
    /// Why the mesh answered by itself, if it did.
    pub(crate) reason: Option<Reason>,
    /// What a response of gRPC ended with.
    pub(crate) grpc_status: Option<u16>,
    /// Bytes of the response's body, or of the upgraded stream, that the caller was given.
    pub(crate) sent: u64,
    /// Bytes of the upgraded stream that the caller sent.
    pub(crate) received: u64,
    /// When all of the response was here, where it came at once.
    pub(crate) complete: Option<Instant>,
    /// When the response has to have ended.
    pub(crate) end: Option<tokio::time::Instant>,
    /// What it was admitted with, where it may be cut for that.
    pub(crate) admitted: Option<Box<AdmittedStream>>,
    /// Its place among the caller's requests to the backend.
    pub(crate) share: Option<Share>,
    /// What its caller is charged for it, where the charge for the caller's connection does not cover it.
    pub(crate) permit: Option<ExchangePermit>,
    /// Its place among all requests to the backend and the endpoint.
    pub(crate) in_flight: Option<InFlight>,
    /// What it said of itself, where it is logged or recorded.
    pub(crate) details: Option<Box<RequestDetails>>,
}

impl Exchange {
    /// A request of `caller` whose head has just arrived.
    pub(crate) fn begin(
        caller: &Arc<Caller>,
        method: &http::Method,
        form: AnswerForm,
        activity: Arc<Activity>,
    ) -> Box<Self> {
        caller.request_began();
        caller.shared.telemetry.in_flight.inc();
        activity.begin();
        Box::new(Self {
            caller: caller.clone(),
            method: MethodLabel::from(method),
            began: Instant::now(),
            form,
            activity,
            port: None,
            backend: None,
            attempts: 0,
            status: gone(),
            reason: None,
            grpc_status: None,
            sent: 0,
            received: 0,
            complete: None,
            end: None,
            admitted: None,
            share: None,
            permit: None,
            in_flight: None,
            details: None,
        })
    }

    /// The caller of this request is to come back on a new connection, by a new answer of the DNS.
    pub(crate) fn sends_caller_away(&self) -> bool {
        self.is_misplaced() || self.port.as_ref().is_some_and(|port| port.leaving)
    }

    /// It was for a port that does not exist. Its caller may have connected while the port did.
    pub(crate) fn is_misplaced(&self) -> bool {
        self.reason == Some(Reason::NoRoute)
    }

    /// It is a call of gRPC, whose outcome is in the trailers.
    pub(crate) fn is_grpc(&self) -> bool {
        self.form == AnswerForm::Grpc
    }

    /// Keeps what the head says, where the request is logged or recorded. Then its server span takes the place of the caller's
    /// in the fields that are passed on.
    pub(crate) fn note_details(&mut self, head: &mut request::Parts) {
        let shared = &self.caller.shared;
        if shared.access_log.is_none() && shared.tracer.is_none() {
            return;
        }
        let worker = &self.caller.worker;
        let logged = shared.access_log.as_ref().is_some_and(|log| log.takes(worker.draw()));
        let trace = shared.tracer.as_ref().and_then(|tracer| tracer.begin(head, || worker.draw()));
        if !logged && trace.is_none() {
            return;
        }
        if let Some(trace) = &trace {
            trace.write(&mut head.headers);
        }
        self.details = Some(RequestDetails::of(head, logged, trace));
    }

    /// Its trace, where it is recorded.
    pub(crate) fn trace(&self) -> Option<Arc<RequestTrace>> {
        self.details.as_ref()?.trace.clone()
    }

    /// When its head arrived.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Reads the outcome of gRPC from a head or trailers.
    fn note_grpc_status(&mut self, fields: &HeaderMap) {
        if self.is_grpc()
            && let Some(status) = fields.get("grpc-status")
        {
            self.grpc_status = status.to_str().ok().and_then(|status| status.parse().ok());
        }
    }

    /// Notes the head that the caller is given.
    pub(crate) fn answered(&mut self, status: StatusCode, fields: &HeaderMap) {
        self.status = status;
        self.note_grpc_status(fields);
    }
}

/// Status noted for a caller that was gone before it was given any, as nginx notes it.
fn gone() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT)
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.caller.answer_ended();
        self.caller.shared.telemetry.in_flight.dec();
        let took = self.complete.unwrap_or_else(Instant::now).saturating_duration_since(self.began);
        tracing::trace!(
            caller = %self.caller.address,
            backend = self.backend.as_ref().map(|backend| tracing::field::display(&backend.service)),
            attempts = self.attempts,
            status = self.status.as_u16(),
            reason = self.reason.map(Reason::code),
            grpc_status = self.grpc_status,
            sent = self.sent,
            received = self.received,
            ?took,
            "exchange ended"
        );
        match (&self.port, self.reason) {
            (Some(port), reason) => {
                if let Counts::Http(counts) = &port.counts {
                    counts.record(&EndedRequest {
                        http2: self.caller.http2,
                        method: self.method,
                        status: self.status,
                        reason,
                        took,
                        received: self.received + self.activity.received(),
                        sent: self.sent,
                    });
                }
            }
            (None, Some(reason)) => self.caller.shared.telemetry.refused(reason),
            (None, None) => {}
        }
        if let Some(details) = self.details.take() {
            self.report(details, took);
        }
    }
}

impl Exchange {
    /// Writes the request into the access log, and its span, as far as they are wanted.
    #[cold]
    fn report(&self, details: Box<RequestDetails>, took: Duration) {
        let shared = &self.caller.shared;
        let began = SystemTime::now().checked_sub(self.began.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
        if let (Some(tracer), Some(trace)) = (&shared.tracer, &details.trace) {
            tracer.request(trace, (began, took), self.has_failed(), self.attributes(&details, trace));
            if let Some(Counts::Http(counts)) = self.port.as_ref().map(|port| &port.counts) {
                counts.record_traced(trace, took, began + took);
            }
        }
        let Some(log) = shared.access_log.as_ref().filter(|_| details.logged) else { return };
        log.log(AccessRecord {
            caller: self.caller.address,
            called: self.port.as_ref().map(|port| (port.own.service.clone(), port.number)),
            backend: self.backend.as_ref().map(|backend| backend.service.clone()),
            endpoint: self.in_flight.as_ref().and_then(InFlight::endpoint),
            reason: self.reason,
            received: self.received + self.activity.received(),
            sent: self.sent,
            began,
            took,
            request: Some(RequestRecord {
                details,
                http2: self.caller.http2,
                status: self.status,
                grpc_status: self.grpc_status,
                attempts: self.attempts,
            }),
        });
    }

    /// What its span says: the semantic conventions of OpenTelemetry for servers of HTTP, and what only a mesh knows.
    fn attributes(&self, details: &RequestDetails, trace: &RequestTrace) -> Vec<(&'static str, SpanValue)> {
        let mut attributes: Vec<(&'static str, SpanValue)> = vec![
            ("http.request.method", SpanValue::Word(self.method.text())),
            ("url.scheme", SpanValue::Word("http")),
            ("url.path", trace.path().into()),
            ("network.protocol.version", SpanValue::Word(if self.caller.http2 { "2" } else { "1.1" })),
            ("client.address", self.caller.address.to_string().into()),
            ("http.response.status_code", u64::from(self.status.as_u16()).into()),
            ("http.request.body.size", self.activity.received().into()),
            ("http.response.body.size", self.sent.into()),
        ];
        if self.method.text() == "_OTHER" {
            attributes.push(("http.request.method_original", (&*details.method).into()));
        }
        if !details.host.is_empty() {
            attributes.push(("server.address", host_of(&details.host).into()));
        }
        if !details.user_agent.is_empty() {
            attributes.push(("user_agent.original", (&*details.user_agent).into()));
        }
        if let Some(port) = &self.port {
            attributes.push(("server.port", u64::from(port.number).into()));
            attributes.push(("maesh.service", port.own.service.to_string().into()));
        }
        if let Some(backend) = &self.backend {
            attributes.push(("maesh.backend", backend.service.to_string().into()));
        }
        if let Some(status) = self.grpc_status {
            attributes.push(("rpc.grpc.status_code", u64::from(status).into()));
        }
        attributes.extend(self.reason.map(|reason| ("maesh.reason", SpanValue::Word(reason.code()))));
        if self.has_failed() {
            let status = || self.status.as_str().into();
            attributes.push(("error.type", self.reason.map_or_else(status, |reason| SpanValue::Word(reason.code()))));
        }
        attributes
    }

    /// Whether the server's side failed: an answer below 500 is the caller's fault, unless it was cut off.
    fn has_failed(&self) -> bool {
        self.status.is_server_error() || (self.reason.is_some() && !self.status.is_client_error())
    }
}

/// A `Host` without its port.
fn host_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// When bytes of an exchange moved last, and how long they may rest.
///
/// A response may take as long as it takes to begin. Once it has begun, or while an upload is under way, silence in both
/// directions has a limit.
#[derive(Debug)]
pub(crate) struct Activity {
    clock: Clock,
    last: AtomicU32,
    /// Milliseconds; 0 while there is no limit.
    limit: AtomicU32,
    /// The caller has not sent all of its request yet, as far as anybody has read.
    uploading: AtomicBool,
    /// What is left of the request is not read: its reader has gone.
    unread: AtomicBool,
    /// Bytes of the request's body.
    received: AtomicU64,
}

impl Activity {
    /// Nothing has moved yet.
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        let last = AtomicU32::new(clock.coarse());
        Arc::new(Self {
            clock,
            last,
            limit: AtomicU32::new(0),
            uploading: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            received: AtomicU64::new(0),
        })
    }

    /// A request begins.
    fn begin(&self) {
        self.limit.store(0, Ordering::Relaxed);
        self.uploading.store(false, Ordering::Relaxed);
        self.unread.store(false, Ordering::Relaxed);
        self.received.store(0, Ordering::Relaxed);
        self.touch();
    }

    /// Bytes moved.
    pub(crate) fn touch(&self) {
        self.last.store(self.clock.coarse(), Ordering::Relaxed);
    }

    /// The caller sent so many bytes of its body.
    pub(crate) fn receive(&self, bytes: usize) {
        // Only the task that reads the body writes here.
        self.received.store(self.received() + bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of the body that the caller has sent.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// From now on silence has this limit.
    pub(crate) fn limit(&self, limit: Option<Duration>) {
        self.touch();
        let limit = limit.map_or(0, |limit| u32::try_from(limit.as_millis()).unwrap_or(u32::MAX / 4).max(1));
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// The caller's body is, or is no longer, under way.
    pub(crate) fn set_uploading(&self, uploading: bool) {
        self.uploading.store(uploading, Ordering::Relaxed);
    }

    /// The caller has not sent all of its request yet, as far as anybody has read.
    pub(crate) fn is_uploading(&self) -> bool {
        self.uploading.load(Ordering::Relaxed)
    }

    /// Nobody reads what is left of the request.
    pub(crate) fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Whether nobody reads what is left of the request.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// How long no byte has moved.
    pub(crate) fn quiet(&self) -> Duration {
        self.clock.since(self.last.load(Ordering::Relaxed))
    }

    /// How long it may still be silent; `None` without a limit.
    pub(crate) fn left(&self) -> Option<Duration> {
        let limit = self.limit.load(Ordering::Relaxed);
        if limit == 0 {
            return None;
        }
        let limit = Duration::from_millis(u64::from(limit));
        Some(limit.saturating_sub(self.quiet()))
    }
}

/// The body of a response, and the exchange that ends with it.
pub(crate) struct Recorded {
    body: Body,
    exchange: Option<Box<Exchange>>,
    /// Elapses when the response has to have ended.
    end: Option<Pin<Box<Sleep>>>,
    /// Over when the caller is admitted no more.
    revoked: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Recorded {
    /// `exchange` ends with `body`.
    pub(crate) fn new(body: Body, mut exchange: Box<Exchange>) -> Self {
        let end = exchange.end.map(|end| Box::pin(sleep_until(end)));
        let revoked = exchange.admitted.take().map(|admitted| Box::pin(admitted.revoked()) as Pin<Box<_>>);
        Self { body, exchange: Some(exchange), end, revoked }
    }

    /// Bytes that were read from the endpoint and not asked for yet.
    pub(crate) fn buffered(&self) -> usize {
        self.body.buffered()
    }

    /// No body, for a response whose exchange the tunnel has.
    pub(crate) fn nothing() -> Self {
        Self { body: Body::empty(), exchange: None, end: None, revoked: None }
    }
}

impl http_body::Body for Recorded {
    type Data = Bytes;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Some(end) = &mut this.end
            && end.as_mut().poll(cx).is_ready()
        {
            if let Some(exchange) = &mut this.exchange {
                exchange.reason = Some(Reason::RequestTimeout);
            }
            return Poll::Ready(Some(Err(BodyError::TimedOut)));
        }
        if let Some(revoked) = &mut this.revoked
            && revoked.as_mut().poll(cx).is_ready()
        {
            this.revoked = None;
            if let Some(exchange) = &mut this.exchange {
                exchange.reason = Some(Reason::Denied);
            }
            return Poll::Ready(Some(Err(BodyError::Denied)));
        }
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(exchange) = &mut this.exchange
        {
            exchange.activity.touch();
            match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => exchange.sent += data.len() as u64,
                (None, Some(trailers)) => exchange.note_grpc_status(trailers),
                (None, None) => {}
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
