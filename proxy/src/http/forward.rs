//! Sending a request to a backend: the backend's policies let it through, an endpoint is picked, an attempt is made, and
//! another one after it, or beside it, as far as that is safe and the policies allow it. A mirror gets a copy first. While none
//! of the endpoints can be used, the request goes to the backend's fallback.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use http::{HeaderValue, request, response, uri};
use maesh_config::{model::Scheme, policy::BackendPolicy};
use smallvec::SmallVec;

use super::{
    attempt::Attempts,
    body::{Body, Replay},
    caller::Caller,
    charge::ConnectionCharge,
    policy::{
        breaker, concurrency, hedge, mirror,
        retry::{self, Outcome, RetriesLeft, RetryKind},
    },
    request::ProxiedRequest,
    shape::shape,
};
use crate::{
    access::{Admitted, AskedRequest},
    admission::ExchangePermit,
    balance::{self, Affinity, Upstreams},
    fields::AddedFields,
    policy::CalledEvent,
    reason::Reason,
    state::{AdmittedStream, BackendPort, Denial, Endpoint, InFlight, Port},
    telemetry::RequestTrace,
    upstream::{Answer, Dial, Failure, ResponseRest, Reuse, Tls, Upgraded},
};

/// A response, and what its body depends on.
pub(crate) struct ForwardedResponse {
    pub(crate) head: Box<response::Parts>,
    pub(crate) body: Body,
    /// Where it comes from: the backend, or its fallback.
    pub(crate) backend: Arc<BackendPort>,
    pub(crate) in_flight: InFlight,
    /// What the connection to the endpoint is charged to the caller, where that is not a part of the caller's own.
    pub(crate) permit: Option<ExchangePermit>,
    /// How many times it was tried.
    pub(crate) attempts: u32,
    /// When all of the response was here, where it came at once.
    pub(crate) whole: Option<Instant>,
    /// The endpoint's side, when it agreed to speak another protocol.
    pub(crate) switched: Option<Upgraded>,
    /// The cookie that keeps the caller at the endpoint, where it has none.
    pub(crate) cookie: Option<HeaderValue>,
    /// What it was admitted with, where access control is on and it goes on.
    pub(crate) admitted: Option<Box<AdmittedStream>>,
}

/// Whether the endpoints of a backend are spoken to over HTTP/2: where its policy says so, and for gRPC, which cannot do without.
/// Over TLS an endpoint may choose HTTP/2 all the same.
pub(crate) fn needs_http2(policy: &BackendPolicy, grpc: bool) -> bool {
    grpc || policy.scheme == Scheme::H2c
}

/// How a request is spoken to an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spoken {
    pub(crate) http2: bool,
    /// It asks for another protocol.
    pub(crate) upgrade: bool,
    pub(crate) grpc: bool,
}

/// Counts what is kept of an upload. In HTTP/2 its stream counts it.
fn charge(caller: &Arc<Caller>) -> Option<ConnectionCharge> {
    (!caller.http2).then(|| ConnectionCharge::new(caller))
}

/// Sends `request`, which was for `port`, to an endpoint of `backend`, or of its fallback.
pub(crate) async fn send(
    caller: &Arc<Caller>,
    port: &Port,
    backend: &Arc<BackendPort>,
    mut request: Box<ProxiedRequest>,
    spoken: Spoken,
    trace: Option<&RequestTrace>,
) -> Result<ForwardedResponse, Reason> {
    let Spoken { http2, upgrade, grpc } = spoken;
    // What an extended CONNECT sends belongs to the other protocol.
    let body = if http2 && upgrade { None } else { request.take_body() };
    let upload = body.map(|body| Replay::new(body, charge(caller), Some(caller.bytes().clone())));
    let ProxiedRequest { head, added, .. } = &mut *request;
    let added = &*added;
    // A stream that leaves HTTP is not copied.
    if let Some(mirror) = port.mirror.as_ref().filter(|_| !upgrade) {
        mirror::send(caller, port, mirror, (head, added), upload.as_ref(), grpc);
    }
    let forwarding = Forwarding { caller, port, backend, added, upload: upload.as_ref(), spoken, trace };
    let reason = match forwarding.send(head).await {
        Ok(sent) => return Ok(sent),
        Err(reason) => reason,
    };
    let Some(fallback) = port.fallback_of(backend).filter(|_| reason.is_unreachable()) else {
        return Err(reason);
    };
    let to_http2 = needs_http2(&fallback.upstreams.load().policy, grpc);
    if upload.as_ref().is_some_and(|upload| !upload.is_whole()) || (upgrade && to_http2 != http2) {
        return Err(reason);
    }
    let upload = upload.as_ref();
    upload.inspect(|upload| upload.restart());
    let spoken = Spoken { http2: to_http2, ..spoken };
    try_out(caller, port, fallback, head);
    let forwarding = Forwarding { caller, port, backend: fallback, added, upload, spoken, trace };
    // Boxed to keep the future of the usual way small. Who may not go there hears why it had to.
    Box::pin(forwarding.send(head)).await.map_err(|other| if other == Reason::Denied { reason } else { other })
}

/// Says so in a dry run where the request would not get to this backend, a mirror or fallback.
pub(super) fn try_out(caller: &Caller, port: &Port, further: &Arc<BackendPort>, head: &request::Parts) {
    if !caller.shared.controls_access() {
        return;
    }
    let account = caller.account();
    let request = AskedRequest::of(head);
    caller.shared.try_out(Denial {
        called: &port.own.service,
        backend: further,
        caller: caller.address,
        account: account.as_ref(),
        request: Some(request),
    });
}

/// The endpoints that a request may be sent to, in the form in which it leaves the proxy.
pub(super) fn admitted(caller: &Caller, upstreams: &Upstreams, head: &request::Parts) -> Result<Admitted, Reason> {
    caller.shared.reachable(upstreams, || caller.account(), Some(AskedRequest::of(head)))
}

/// A request on its way to the endpoints of one backend.
struct Forwarding<'a> {
    caller: &'a Arc<Caller>,
    /// The port that was called.
    port: &'a Port,
    backend: &'a Arc<BackendPort>,
    /// Fields with which it leaves besides those of its head.
    added: &'a AddedFields,
    upload: Option<&'a Replay>,
    spoken: Spoken,
    /// Its trace, where it is recorded.
    trace: Option<&'a RequestTrace>,
}

/// An endpoint that was picked, and the cookie that keeps the caller there.
struct Picked {
    endpoint: Arc<Endpoint>,
    timeout: Duration,
    /// Whom it has to be.
    tls: Option<Arc<Tls>>,
    cookie: Option<HeaderValue>,
}

impl Forwarding<'_> {
    async fn send(&self, head: &mut request::Parts) -> Result<ForwardedResponse, Reason> {
        let shared = &self.caller.shared;
        // HTTP/1.1 takes a connection to the endpoint for each exchange, and the caller's HTTP/2 connection may have many.
        let permit = match self.caller.http2 && !self.spoken.http2 {
            true => Some(self.caller.permit.exchange().ok_or(Reason::Overloaded)?),
            false => None,
        };
        let (limits, affinity, local_only, has_breaker) = {
            let policy = &self.backend.upstreams.load().policy;
            let affinity = Affinity::of_request(&policy.balance, self.caller.address, &head.headers, self.added);
            (concurrency::Limits::of(policy), affinity, policy.local_only, policy.breaker.is_some())
        };
        let in_flight = concurrency::of_all(self.backend, limits).await?;
        if local_only {
            Box::pin(shared.wait_for_workload(self.caller.address)).await;
        }
        shape(head, self.spoken.http2.then_some(&uri::Scheme::HTTP))?;
        let began = if has_breaker { Some(breaker::enter(self.backend, &self.caller.worker)?) } else { None };
        let sent = self.while_admitted(head, affinity, in_flight, permit).await;
        if let Some(began) = began {
            let status = sent.as_ref().map_or_else(|reason| reason.status(), |sent| sent.head.status);
            breaker::leave(self.backend, shared, status, began.elapsed());
        }
        sent
    }

    /// Tries endpoints, for no longer than the caller is admitted.
    async fn while_admitted(
        &self,
        head: &request::Parts,
        affinity: Affinity,
        in_flight: InFlight,
        permit: Option<ExchangePermit>,
    ) -> Result<ForwardedResponse, Reason> {
        let controls_access = self.caller.shared.controls_access();
        let identity = &self.caller.identity;
        let revoked = controls_access.then(|| identity.revoked(identity.change(), || self.is_admitted(head)));
        let mut revoked = pin!(revoked);
        let mut trying = pin!(self.try_endpoints(head, affinity, in_flight, permit));
        let sent = poll_fn(|cx| match (trying.as_mut().poll(cx), revoked.as_mut().as_pin_mut()) {
            (Poll::Pending, Some(revoked)) => revoked.poll(cx).map(|()| Err(Reason::Denied)),
            (sent, _) => sent,
        });
        let mut sent = sent.await?;
        // What is complete has nothing left to be cut.
        if controls_access && sent.whole.is_none() {
            sent.admitted = self.admitted_stream(head, &sent.in_flight);
        }
        Ok(sent)
    }

    fn is_admitted(&self, head: &request::Parts) -> bool {
        admitted(self.caller, &self.backend.upstreams.load(), head).is_ok()
    }

    /// What a stream was admitted with that has begun and goes on.
    fn admitted_stream(&self, head: &request::Parts, in_flight: &InFlight) -> Option<Box<AdmittedStream>> {
        Some(Box::new(AdmittedStream {
            shared: self.caller.shared.clone(),
            caller: self.caller.address,
            backend: self.backend.clone(),
            endpoint: in_flight.endpoint()?,
            request: Some(Box::new(head.clone())),
        }))
    }

    async fn try_endpoints(
        &self,
        head: &request::Parts,
        affinity: Affinity,
        mut in_flight: InFlight,
        permit: Option<ExchangePermit>,
    ) -> Result<ForwardedResponse, Reason> {
        let (worker, called) = (&self.caller.worker, &self.port.called);
        let (shared, runtime) = (&worker.shared, &self.port.runtime);
        let attempts = Attempts {
            worker,
            head,
            added: self.added,
            http2: self.spoken.http2,
            upgrade: self.spoken.upgrade,
            backend: self.backend,
            timeout: called.try_timeout,
            trace: self.trace,
        };
        if called.retry.attempts > 1 || called.hedge.is_some() {
            runtime.budget.request(shared.clock.coarse());
        }
        let mut tries = RetriesLeft::new(&called.retry, &runtime.budget);
        let mut avoided: SmallVec<[Arc<Endpoint>; 2]> = SmallVec::new();
        let mut reuse = Reuse::Allowed;
        let mut made = 0;
        loop {
            made += 1;
            let Picked { endpoint, timeout, tls, cookie } = self.pick(head, affinity, &avoided)?;
            in_flight.on(endpoint.clone());
            let hedged = match &called.hedge {
                Some(hedge) if head.method.is_idempotent() && !self.spoken.upgrade => {
                    hedge::delay(hedge, runtime, shared.clock.coarse())
                }
                _ => None,
            };
            let began = called.hedge.map(|_| Instant::now());
            let reader = self.upload.map(Replay::reader);
            let dial = Dial { within: timeout, tls: tls.as_ref(), reuse };
            let result = match hedged {
                None => attempts.make(&endpoint, dial, reader).await,
                Some(after) => {
                    avoided.push(endpoint.clone());
                    // Boxed to keep the future of requests without hedging small.
                    let first = Box::pin(attempts.make(&endpoint, dial, reader));
                    Box::pin(self.hedged(first, after, &attempts, &mut in_flight, &avoided, &mut made)).await
                }
            };
            if let (Some(began), Ok(_)) = (began, &result) {
                runtime.latency.note(began.elapsed(), shared.clock.coarse());
            }
            if let Err(failure) = &result {
                tracing::debug!(service = %self.backend.service, endpoint = %endpoint.address, %failure, "attempt failed");
            }
            if result.is_ok() && !tries.follow_responses() {
                return self.ended(result, in_flight, permit, made, cookie);
            }
            let outcome = result.as_ref().map_or_else(Outcome::Failure, |answer| Outcome::Response(&answer.head));
            let request = retry::Request {
                idempotent: head.method.is_idempotent(),
                grpc: self.spoken.grpc,
                replayable: self.upload.is_none_or(Replay::is_whole),
                gone: endpoint.is_gone(),
                caller_may_be_gone: self.caller.has_ended_its_side(),
            };
            let Some(again) = tries.again(outcome, request, shared.clock.coarse(), worker.draw()) else {
                return self.ended(result, in_flight, permit, made, cookie);
            };
            if let Some(upload) = self.upload {
                upload.restart();
            }
            match again {
                RetryKind::Anew => {
                    runtime.count(CalledEvent::RetriedClosed);
                    reuse = Reuse::Refused;
                }
                RetryKind::Elsewhere => {
                    runtime.count(CalledEvent::RetriedConnect);
                    avoided.push(endpoint);
                }
                RetryKind::Policy(pause) => {
                    runtime.count(CalledEvent::RetriedPolicy);
                    avoided.push(endpoint);
                    // The response that is not used goes before the pause: its connection is free meanwhile.
                    drop(result);
                    Box::pin(tokio::time::sleep(pause)).await;
                }
            }
        }
    }

    /// Picks an endpoint that is none of `avoided`, if there is another. The endpoints are loaded anew for each attempt: one may
    /// have left since the last one.
    fn pick(&self, head: &request::Parts, affinity: Affinity, avoided: &[Arc<Endpoint>]) -> Result<Picked, Reason> {
        let (shared, address) = (&self.caller.shared, self.caller.address);
        let upstreams = self.backend.upstreams.load();
        let (now, draw) = (shared.clock.coarse(), self.caller.worker.draw());
        let admitted = admitted(self.caller, &upstreams, head)?;
        let node = || shared.node_of(address);
        let picked = balance::pick(&upstreams, address, affinity, node, (avoided, &admitted), now, draw);
        let endpoint = picked.ok_or(Reason::NoEndpoints)?;
        let cookie = affinity.cookie(&upstreams.policy.balance, endpoint.address);
        let tls = upstreams.tls.clone();
        Ok(Picked { endpoint, timeout: upstreams.policy.connect_timeout, tls, cookie })
    }

    /// Makes a second attempt beside `first` if that has no response after `after`. The endpoint of the first is in `avoided`.
    async fn hedged(
        &self,
        first: impl Future<Output = Result<Answer, Failure>>,
        after: Duration,
        attempts: &Attempts<'_>,
        in_flight: &mut InFlight,
        avoided: &[Arc<Endpoint>],
        made: &mut u32,
    ) -> Result<Answer, Failure> {
        let shared = &self.caller.shared;
        let second = || {
            let replayable = self.upload.is_none_or(Replay::is_whole) && !self.caller.has_ended_its_side();
            let budget = self.port.called.retry.budget;
            let Picked { endpoint, timeout, tls, .. } = self.pick(attempts.head, Affinity::None, avoided).ok()?;
            if !replayable || avoided.iter().any(|avoided| Arc::ptr_eq(avoided, &endpoint)) {
                return None;
            }
            // It takes a connection more than the caller's own allows for, and a place more at the backend.
            let permit = self.caller.extra_connection()?;
            let held = (in_flight.beside(endpoint.clone())?, permit);
            if !self.port.runtime.budget.take(budget, shared.clock.coarse()) {
                return None;
            }
            self.port.runtime.count(CalledEvent::Hedged);
            let reader = self.upload.map(Replay::reader);
            Some(async move {
                let dial = Dial { within: timeout, tls: tls.as_ref(), reuse: Reuse::Allowed };
                let result = attempts.make(&endpoint, dial, reader).await;
                (result, held)
            })
        };
        let (result, held) = hedge::race(first, after, second).await;
        if let Some((second, _)) = held {
            *made += 1;
            self.port.runtime.count(CalledEvent::HedgeWon);
            in_flight.take_over(second);
        }
        result
    }

    /// The end of the last attempt, as the pipeline wants it.
    fn ended(
        &self,
        result: Result<Answer, Failure>,
        in_flight: InFlight,
        permit: Option<ExchangePermit>,
        attempts: u32,
        cookie: Option<HeaderValue>,
    ) -> Result<ForwardedResponse, Reason> {
        let Answer { head, then } = result.map_err(|failure| retry::reason(&failure))?;
        if let Some(upload) = self.upload {
            upload.release();
        }
        let (body, whole, switched) = match then {
            ResponseRest::Body(body) => {
                let whole = body.is_whole().then(Instant::now);
                (Body::of(body), whole, None)
            }
            ResponseRest::Upgraded(upgraded) => (Body::empty(), None, Some(upgraded)),
        };
        let backend = self.backend.clone();
        let admitted = None;
        Ok(ForwardedResponse { head, body, backend, in_flight, permit, attempts, whole, switched, cookie, admitted })
    }
}
