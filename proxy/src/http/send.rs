//! Sending a request to a backend: pick an endpoint, borrow a connection, exchange, and where it fails for reasons of
//! the connection, once more elsewhere.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request, Response, Uri, Version, header, response, uri};
use http_body::Body as _;
use hyper::body::Incoming;
use maesh_config::{
    NodeName,
    model::{Balance, Scheme},
};
use smallvec::SmallVec;
use tokio::net::TcpStream;

use super::{
    balance::{self, Load},
    body::{Body, Upload},
    caller::Caller,
    pool,
    retry::{Again, AttemptError, Tries, is_of_stream},
    upstream::{H1, H2Stream, Home},
};
use crate::{
    connect::connect,
    listener::Worker,
    reason::Reason,
    state::{BackendPort, Candidate, Endpoint, InFlight, Shared, Upstreams},
};

/// Latency noted for an attempt that failed: whatever it was, others are the better choice for a while.
const PENALTY: Duration = Duration::from_secs(1);

/// An answer, and what its body depends on.
pub(crate) struct Sent {
    pub(crate) head: response::Parts,
    pub(crate) body: Body,
    pub(crate) in_flight: InFlight,
    /// When all of the answer was here, where it came at once.
    pub(crate) whole: Option<Instant>,
    /// The connection, when the endpoint agreed to speak another protocol on it.
    pub(crate) switched: Option<Switched>,
}

/// A connection that left HTTP.
pub(crate) enum Switched {
    /// A connection of HTTP/1.1, all of it.
    Connection(Box<H1>),
    /// A stream of HTTP/2.
    Stream(Box<Response<Incoming>>),
}

/// A request on its way.
pub(crate) struct Outgoing {
    pub(crate) request: Request<Upload>,
    /// The protocol towards the endpoint.
    pub(crate) http2: bool,
    /// It asks for another protocol.
    pub(crate) upgrade: bool,
}

/// The protocol to speak to this backend's endpoints: what its policy says; gRPC cannot do without HTTP/2.
pub(crate) fn speaks_http2(backend: &BackendPort, grpc: bool) -> Result<bool, Reason> {
    match backend.upstreams.load().policy.scheme {
        Scheme::H2c => Ok(true),
        Scheme::Http => Ok(grpc),
        // TLS towards endpoints is not served by this version.
        Scheme::Https => Err(Reason::UpstreamProtocol),
    }
}

/// Sends `outgoing` to an endpoint of `backend`.
pub(crate) async fn send(
    caller: &Arc<Caller>,
    backend: &Arc<BackendPort>,
    mut outgoing: Box<Outgoing>,
) -> Result<Sent, Reason> {
    let worker = &caller.worker;
    let shared = &worker.shared;
    let mut in_flight =
        InFlight::enter(backend, backend.upstreams.load().policy.concurrency).ok_or(Reason::Overloaded)?;
    let idempotent = is_idempotent(outgoing.request.method());
    let mut tries = Tries::new();
    let mut avoided: SmallVec<[Arc<Endpoint>; 2]> = SmallVec::new();
    shape(&mut outgoing)?;
    loop {
        // Loaded anew for each attempt: an endpoint may have left since the last one.
        let (endpoint, timeout) = {
            let upstreams = backend.upstreams.load();
            let now = shared.clock.coarse();
            let picked = pick(&upstreams, shared, caller.address, &avoided, now, worker.draw());
            (picked.ok_or(Reason::NoEndpoints)?, upstreams.policy.connect_timeout)
        };
        in_flight.on(endpoint.clone());
        let attempt = if outgoing.http2 {
            // Boxed, as is what opens a connection: the rare ways must not make the usual one's future large.
            Box::pin(attempt_h2(caller, &endpoint, timeout, outgoing)).await
        } else {
            attempt_h1(caller, &endpoint, timeout, outgoing, idempotent).await
        };
        let failed = match attempt {
            Ok(Answer { head, body, whole, switched }) => return Ok(Sent { head, body, in_flight, whole, switched }),
            Err(failed) => failed,
        };
        let Failed { error, request } = failed;
        tracing::debug!(service = %backend.service, endpoint = %endpoint.address, %error, "attempt failed");
        if !matches!(error, AttemptError::Upload) {
            balance::answered(&endpoint.latency, shared.clock.coarse(), PENALTY);
        }
        let again = tries.again(&error, Again { idempotent, in_hand: request.is_some() });
        let Some(request) = request.filter(|_| again) else { return Err(error.reason()) };
        match error {
            AttemptError::Connect(_) => {
                shared.telemetry.retries_connect.inc();
                avoided.push(endpoint);
            }
            _ => {
                shared.telemetry.retries_closed.inc();
            }
        }
        outgoing = request;
    }
}

struct Answer {
    head: response::Parts,
    body: Body,
    whole: Option<Instant>,
    switched: Option<Switched>,
}

impl Answer {
    /// An answer of which all is here, since `at`.
    fn whole(head: response::Parts, body: Body, at: Instant) -> Self {
        Self { head, body, whole: Some(at), switched: None }
    }

    /// An answer whose body is still to come.
    fn begun(head: response::Parts, body: Body) -> Self {
        Self { head, body, whole: None, switched: None }
    }

    /// The endpoint agreed to leave HTTP.
    fn switched(head: response::Parts, to: Switched) -> Self {
        Self { head, body: Body::empty(), whole: None, switched: Some(to) }
    }
}

struct Failed {
    error: AttemptError,
    /// The request, where it is still in hand.
    request: Option<Box<Outgoing>>,
}

async fn attempt_h1(
    caller: &Arc<Caller>,
    endpoint: &Arc<Endpoint>,
    timeout: Duration,
    outgoing: Box<Outgoing>,
    idempotent: bool,
) -> Result<Answer, Failed> {
    let worker = &caller.worker;
    let mut connection = match endpoint.pools.take(worker.index).await {
        Some(connection) => connection,
        None => match Box::pin(pool::h1_new(&worker.shared, endpoint.address, timeout)).await {
            Ok(connection) => connection,
            Err(error) => return Err(Failed { error: error.into(), request: Some(outgoing) }),
        },
    };
    let Outgoing { request, upgrade, http2 } = *outgoing;
    let progress = request.body().progress();
    // Only where it may be needed: the request can be made again and has no body.
    let replay = (idempotent && progress.is_none()).then(|| copy_of(&request));
    let began = Instant::now();
    let answer = connection.exchange(request).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(failed) => {
            if progress.is_some_and(|progress| progress.has_failed()) {
                return Err(Failed { error: AttemptError::Upload, request: None });
            }
            let stale = connection.reused || endpoint.is_gone();
            let mut failed = *failed;
            let returned = failed.take_message();
            let error = AttemptError::of(failed.into_error(), returned.is_some(), stale);
            let request = returned.or(replay).map(|request| Box::new(Outgoing { request, http2, upgrade }));
            return Err(Failed { error, request });
        }
    };
    let shared = &worker.shared;
    let now = Instant::now();
    balance::answered(&endpoint.latency, shared.clock.coarse(), now.saturating_duration_since(began));
    let (head, mut incoming) = answer.into_parts();
    if head.status == http::StatusCode::SWITCHING_PROTOCOLS {
        // Whoever agrees before it was sent the whole request would read the rest of it as the new protocol.
        if !upgrade || progress.is_some_and(|progress| !progress.is_done()) {
            return Err(Failed { error: AttemptError::Switched, request: None });
        }
        return Ok(Answer::switched(head, Switched::Connection(connection)));
    }
    if upgrade {
        // Whether the endpoint still reads HTTP on it cannot be known.
        connection.never_reuse();
    }
    if progress.is_some_and(|progress| !progress.is_done() || connection.has_unsent()) {
        connection.detach();
        return Ok(Answer::begun(head, Body::stream(incoming)));
    }
    let home = Home::new(endpoint.clone(), worker.clone());
    // Most answers are here with their head, whole: then the connection is free before the caller has read anything.
    if incoming.is_end_stream() {
        settle(connection, &home);
        return Ok(Answer::whole(head, Body::empty(), now));
    }
    let mut nobody = Context::from_waker(Waker::noop());
    if incoming.size_hint().exact().is_some()
        && let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut incoming).poll_frame(&mut nobody)
    {
        let data = frame.into_data().unwrap_or_default();
        if incoming.is_end_stream() {
            settle(connection, &home);
            return Ok(Answer::whole(head, Body::full(data), now));
        }
        return Ok(Answer::begun(head, Body::driven(incoming, connection, home).after(data)));
    }
    Ok(Answer::begun(head, Body::driven(incoming, connection, home)))
}

/// The same request, which has no body.
fn copy_of(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Sends a connection home whose answer was read to its end.
fn settle(mut connection: Box<H1>, home: &Home) {
    if !connection.is_ready() {
        // It has not noticed yet that the exchange is over.
        connection.drive(&mut Context::from_waker(Waker::noop()));
    }
    home.take_back(connection);
}

async fn attempt_h2(
    caller: &Arc<Caller>,
    endpoint: &Arc<Endpoint>,
    timeout: Duration,
    outgoing: Box<Outgoing>,
) -> Result<Answer, Failed> {
    let worker = &caller.worker;
    let mut stream: H2Stream = match pool::h2(worker, endpoint, timeout).await {
        Ok(stream) => stream,
        Err(error) => return Err(Failed { error: error.into(), request: Some(outgoing) }),
    };
    let Outgoing { request, upgrade, http2 } = *outgoing;
    let progress = request.body().progress();
    let replay = progress.is_none().then(|| {
        let mut copy = copy_of(&request);
        *copy.extensions_mut() = request.extensions().clone();
        copy
    });
    let began = Instant::now();
    match stream.exchange(request).await {
        Ok(answer) => {
            balance::answered(&endpoint.latency, worker.shared.clock.coarse(), began.elapsed());
            if upgrade && answer.status().is_success() {
                let mut head = Response::new(()).into_parts().0;
                head.status = answer.status();
                head.headers = answer.headers().clone();
                return Ok(Answer::switched(head, Switched::Stream(Box::new(answer))));
            }
            let (head, incoming) = answer.into_parts();
            Ok(Answer::begun(head, Body::stream(incoming).on(stream)))
        }
        Err(failed) => {
            if progress.is_some_and(|progress| progress.has_failed()) {
                return Err(Failed { error: AttemptError::Upload, request: None });
            }
            let stale = stream.reused || endpoint.is_gone();
            let mut failed = *failed;
            let returned = failed.take_message();
            if !is_of_stream(failed.error()) {
                stream.spend_connection();
            }
            let error = AttemptError::of(failed.into_error(), returned.is_some(), stale);
            let request = returned.or(replay).map(|request| Box::new(Outgoing { request, http2, upgrade }));
            Err(Failed { error, request })
        }
    }
}

/// Gives the head the form that the protocol towards the endpoint wants. `Host` keeps its text.
fn shape(outgoing: &mut Outgoing) -> Result<(), Reason> {
    let http2 = outgoing.http2;
    let request = &mut outgoing.request;
    if http2 {
        let host = request.headers_mut().remove(header::HOST);
        let authority = match (&host, request.uri().authority()) {
            (Some(host), _) => uri::Authority::try_from(host.as_bytes()).map_err(|_| Reason::BadRequest)?,
            (None, Some(authority)) => authority.clone(),
            (None, None) => uri::Authority::from_static("localhost"),
        };
        let mut parts = target_of(request.uri());
        parts.scheme = Some(uri::Scheme::HTTP);
        parts.authority = Some(authority);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Reason::BadRequest)?;
        *request.version_mut() = Version::HTTP_2;
        return Ok(());
    }
    *request.version_mut() = Version::HTTP_11;
    if request.uri().scheme().is_some() || request.uri().authority().is_some() {
        *request.uri_mut() = Uri::from_parts(target_of(request.uri())).map_err(|_| Reason::BadRequest)?;
    }
    if !request.headers().contains_key(header::HOST) {
        request.headers_mut().insert(header::HOST, HeaderValue::from_static(""));
    }
    Ok(())
}

/// Path and query alone.
fn target_of(uri: &Uri) -> uri::Parts {
    let mut parts = uri::Parts::default();
    let path = uri.path_and_query().cloned();
    parts.path_and_query = Some(path.unwrap_or_else(|| uri::PathAndQuery::from_static("/")));
    parts
}

/// Whether doing it twice does what doing it once does.
fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent()
}

impl Load for Candidate {
    #[allow(clippy::cast_precision_loss)]
    fn cost(&self, now: u32) -> f32 {
        let in_flight = self.endpoint.in_flight.load(Ordering::Relaxed);
        balance::latency(&self.endpoint.latency, now) * (in_flight + 1) as f32
    }
}

impl Load for &Candidate {
    fn cost(&self, now: u32) -> f32 {
        Candidate::cost(self, now)
    }
}

/// Connects to an endpoint of `backend` for an opaque stream; a connect failure is tried once more elsewhere.
pub(crate) async fn dial(
    worker: &Arc<Worker>,
    caller: IpAddr,
    backend: &Arc<BackendPort>,
) -> Option<(TcpStream, InFlight)> {
    let shared = &worker.shared;
    let mut in_flight = InFlight::enter(backend, u32::MAX)?;
    let mut avoided: SmallVec<[Arc<Endpoint>; 2]> = SmallVec::new();
    loop {
        let (endpoint, timeout) = {
            let upstreams = backend.upstreams.load();
            let picked = pick(&upstreams, shared, caller, &avoided, shared.clock.coarse(), worker.draw());
            (picked?, upstreams.policy.connect_timeout)
        };
        in_flight.on(endpoint.clone());
        let began = Instant::now();
        match connect(shared, endpoint.address, timeout).await {
            Ok(stream) => {
                balance::answered(&endpoint.latency, shared.clock.coarse(), began.elapsed());
                return Some((stream, in_flight));
            }
            Err(error) => {
                tracing::debug!(service = %backend.service, %error, "attempt failed");
                balance::answered(&endpoint.latency, shared.clock.coarse(), PENALTY);
                if !avoided.is_empty() {
                    return None;
                }
                shared.telemetry.retries_connect.inc();
                avoided.push(endpoint);
            }
        }
    }
}

/// Picks an endpoint, not one of `avoided` if there is another. Hints are a preference: once all that they are for failed,
/// another is picked all the same; `local_only` is none.
fn pick(
    upstreams: &Upstreams,
    shared: &Shared,
    caller: IpAddr,
    avoided: &[Arc<Endpoint>],
    now: u32,
    draw: u64,
) -> Option<Arc<Endpoint>> {
    let balance = upstreams.policy.balance;
    if avoided.is_empty() && !upstreams.hinted && !upstreams.policy.local_only {
        return among(&upstreams.usable, balance, caller, now, draw);
    }
    let mut fitting = meant_for(upstreams, shared, caller);
    let is_avoided = |candidate: &Candidate| avoided.iter().any(|avoided| Arc::ptr_eq(avoided, &candidate.endpoint));
    if !upstreams.policy.local_only && fitting.iter().all(|candidate| is_avoided(candidate)) {
        fitting = upstreams.usable.iter().collect();
    }
    if fitting.iter().any(|candidate| !is_avoided(candidate)) {
        fitting.retain(|candidate| !is_avoided(candidate));
    }
    among(&fitting, balance, caller, now, draw)
}

/// Those of the usable endpoints that are meant for this caller.
pub(crate) fn meant_for<'a>(
    upstreams: &'a Upstreams,
    shared: &Shared,
    caller: IpAddr,
) -> SmallVec<[&'a Candidate; 16]> {
    let node = || -> Option<NodeName> {
        let workload = shared.workloads.at(caller);
        workload.and_then(|workload| workload.node.clone()).or_else(|| shared.config.node.clone())
    };
    let mut fitting: SmallVec<[&Candidate; 16]> = upstreams.usable.iter().collect();
    if upstreams.policy.local_only {
        // Where the caller runs is unknown only for callers that are no pods; they get any endpoint.
        if let Some(node) = node() {
            fitting.retain(|candidate| candidate.node.as_ref() == Some(&node));
        }
    } else if upstreams.hinted {
        fitting.retain(|candidate| candidate.near);
    }
    fitting
}

fn among<T: Load + AsRef<Candidate>>(
    items: &[T],
    balance: Balance,
    caller: IpAddr,
    now: u32,
    draw: u64,
) -> Option<Arc<Endpoint>> {
    let picked = match balance {
        Balance::P2c => balance::cheaper_of_two(items, now, draw),
        Balance::SourceHash { .. } => balance::by_source(items, caller, |item| item.as_ref().endpoint.address),
    };
    picked.map(|item| item.as_ref().endpoint.clone())
}

impl AsRef<Self> for Candidate {
    fn as_ref(&self) -> &Self {
        self
    }
}
