//! One try of a request on one endpoint.
//!
//! An attempt borrows the head and reads the body through a reader of its own, so it can be made again, or twice at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{StatusCode, request, uri::Scheme};

use super::{
    body::replay::ReplayReader,
    policy::retry::{counts_against_endpoint, reason},
    shape::shape,
};
use crate::{
    balance::FAILURE,
    connect::{ConnectError, TlsFailure},
    fields::AddedFields,
    policy::BackendEvent,
    reason::Reason,
    state::{BackendPort, Endpoint},
    telemetry::{AttemptSpan, RequestTrace},
    upstream::{self, Answer, Dial, Failure, OutboundRequest},
    worker::Worker,
};

/// What every attempt of a request has in common.
pub(super) struct Attempts<'a> {
    pub(super) worker: &'a Arc<Worker>,
    pub(super) head: &'a request::Parts,
    /// Fields that are sent besides those of the head.
    pub(super) added: &'a AddedFields,
    /// The protocol towards the endpoint is HTTP/2, and `head` has its form. Over TLS an endpoint may choose it all the same.
    pub(super) http2: bool,
    /// The request asks to leave HTTP.
    pub(super) upgrade: bool,
    /// Whose endpoints are tried.
    pub(super) backend: &'a BackendPort,
    /// How long one may take until its response begins.
    pub(super) timeout: Option<Duration>,
    /// The trace that it belongs to, where it is recorded.
    pub(super) trace: Option<&'a RequestTrace>,
}

impl Attempts<'_> {
    /// Makes one attempt, and notes for the balancer and for ejection how the endpoint answered.
    pub(super) async fn make(
        &self,
        endpoint: &Endpoint,
        dial: Dial<'_>,
        upload: Option<ReplayReader>,
    ) -> Result<Answer, Failure> {
        match (self.trace, &self.worker.shared.tracer) {
            (Some(trace), Some(tracer)) => {
                let span = tracer.attempt(trace, endpoint.address, dial.tls.is_some(), self.worker.draw());
                // Boxed to keep the future of requests that are not recorded small.
                Box::pin(self.make_recorded(span, endpoint, dial, upload)).await
            }
            _ => self.make_one(endpoint, dial, upload).await,
        }
    }

    /// The same with a span, which the endpoint is told.
    async fn make_recorded(
        &self,
        span: AttemptSpan<'_>,
        endpoint: &Endpoint,
        dial: Dial<'_>,
        upload: Option<ReplayReader>,
    ) -> Result<Answer, Failure> {
        let mut head = self.head.clone();
        span.write(&mut head.headers);
        let result = Attempts { head: &head, ..*self }.make_one(endpoint, dial, upload).await;
        span.ended(result.as_ref().map(|answer| answer.head.status).map_err(|failure| reason(failure).code()));
        result
    }

    async fn make_one(
        &self,
        endpoint: &Endpoint,
        dial: Dial<'_>,
        upload: Option<ReplayReader>,
    ) -> Result<Answer, Failure> {
        let began = Instant::now();
        // A future that is moved before it is awaited takes its size twice, so each way makes its own.
        let result = match self.timeout {
            None if self.http2 && dial.tls.is_none() => {
                let ask = OutboundRequest { head: self.head, added: self.added, upgrade: self.upgrade };
                upstream::exchange_h2(&self.worker.upstream, &endpoint.peer, dial, &ask, upload).await
            }
            None => self.send(endpoint, dial, upload).await,
            Some(limit) => {
                let sent = Box::pin(self.send(endpoint, dial, upload));
                tokio::time::timeout(limit, sent).await.unwrap_or(Err(Failure::TimedOut))
            }
        };
        self.note(endpoint, &result, began.elapsed());
        result
    }

    async fn send(&self, endpoint: &Endpoint, dial: Dial<'_>, upload: Option<ReplayReader>) -> Result<Answer, Failure> {
        if dial.tls.is_some() {
            // Boxed to keep the future of requests without TLS small.
            return Box::pin(self.send_tls(endpoint, dial, upload)).await;
        }
        let (local, ask) =
            (&self.worker.upstream, OutboundRequest { head: self.head, added: self.added, upgrade: self.upgrade });
        if self.http2 {
            upstream::exchange_h2(local, &endpoint.peer, dial, &ask, upload).await
        } else {
            upstream::exchange_h1(local, &endpoint.peer, dial, &ask, upload).await
        }
    }

    /// Over TLS, the endpoint chooses the protocol. gRPC cannot do without HTTP/2, and whoever leaves HTTP does so from HTTP/1.1.
    async fn send_tls(
        &self,
        endpoint: &Endpoint,
        dial: Dial<'_>,
        upload: Option<ReplayReader>,
    ) -> Result<Answer, Failure> {
        let local = &self.worker.upstream;
        if self.http2 && upstream::known_choice(&endpoint.peer, dial) == Some(false) {
            return Err(ConnectError::OtherProtocol { to: endpoint.address, wanted: "HTTP/2" }.into());
        }
        let http2 = self.http2 || (!self.upgrade && upstream::chooses_http2(local, &endpoint.peer, dial).await?);
        if http2 {
            let mut head = self.head.clone();
            // A `Host` that is no authority can be sent over HTTP/1.1 alone.
            if shape(&mut head, Some(&Scheme::HTTPS)).is_ok() {
                let ask = OutboundRequest { head: &head, added: self.added, upgrade: self.upgrade };
                return upstream::exchange_h2(local, &endpoint.peer, dial, &ask, upload).await;
            }
        }
        let ask = OutboundRequest { head: self.head, added: self.added, upgrade: self.upgrade };
        upstream::exchange_h1(local, &endpoint.peer, dial, &ask, upload).await
    }

    fn note(&self, endpoint: &Endpoint, result: &Result<Answer, Failure>, took: Duration) {
        let shared = &self.worker.shared;
        if let Err(Failure::Connect(ConnectError::Tls { failure, .. })) = result {
            self.note_tls(endpoint, failure);
        }
        match result {
            Ok(answer) => self.backend.counts.add(BackendEvent::answered(answer.head.status)),
            // Nothing was tried, or it was the caller that failed.
            Err(Failure::Unsent | Failure::Refused(_) | Failure::Upload) => {}
            Err(_) => self.backend.counts.add(BackendEvent::Failed),
        }
        let now = shared.clock.coarse();
        let is_error = match result {
            Ok(answer) => {
                let status = answer.head.status;
                endpoint.latency.record(now, if is_failure(status) { took.max(FAILURE) } else { took });
                status.is_server_error()
            }
            Err(failure) if counts_against_endpoint(failure, endpoint.is_gone()) => {
                endpoint.latency.record(now, FAILURE);
                true
            }
            Err(_) => return,
        };
        if !is_error {
            endpoint.ejection.succeeded(now);
        } else if self.backend.failed(endpoint, now) {
            let last_failure = match result {
                Ok(answer) => format!("it answered {}", answer.head.status.as_u16()),
                Err(failure) => failure.to_string(),
            };
            tracing::info!(service = %self.backend.service, endpoint = %endpoint.address, last_failure, "endpoint ejected");
        }
    }
}

impl Attempts<'_> {
    /// Says why an endpoint could not be verified, once for each reason.
    #[cold]
    fn note_tls(&self, endpoint: &Endpoint, failure: &TlsFailure) {
        if !endpoint.peer.note_tls_failure(failure) {
            return;
        }
        let tls = self.backend.upstreams.load().tls.clone();
        let name = tls.as_ref().map_or("", |tls| &tls.asked().server_name);
        tracing::warn!(
            service = %self.backend.service,
            endpoint = %endpoint.address,
            server_name = name,
            reason = failure.code(),
            "endpoint not used: {}; requests sent to it are answered {}",
            failure.advice(name),
            Reason::ConnectFailed.code(),
        );
    }
}

/// Whether a response counts as a failure of its endpoint: an endpoint that refuses at once must not look fast.
fn is_failure(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}
