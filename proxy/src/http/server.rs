//! Serving a caller's connection: every request passes the pipeline, and gets exactly one answer.

use std::{convert::Infallible, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Version, header};
use hyper::{
    body::Incoming,
    ext::Protocol as Extended,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use maesh_config::model::Protocol;
use tokio::net::TcpStream;

use super::{
    answer,
    body::{Body, Counted, Ending, Upload},
    caller::Caller,
    headers::{self, Forwarded},
    hops, route,
    send::{self, Outgoing, Sent},
    upgrade,
    wire::CallerIo,
};
use crate::{
    reason::Reason,
    state::{Found, InFlight, Phase, Port, Target, find_port, ready_port},
    telemetry::MethodLabel,
};

/// Serves HTTP on a connection of which `first` was already read, until it ends.
pub(crate) async fn serve(stream: TcpStream, first: Bytes, caller: Arc<Caller>) {
    let id = caller.worker.enlist(&caller);
    let io = CallerIo::new(stream, first, caller.clone());
    if caller.http2 {
        serve_http2(io, &caller).await;
    } else {
        serve_http1(io, &caller).await;
    }
    caller.worker.discharge(id);
}

async fn serve_http1(io: CallerIo, caller: &Arc<Caller>) {
    let limits = &caller.shared.config.limits;
    let mut builder = http1::Builder::new();
    builder.max_headers(limits.fields).max_header_size(limits.head).max_buf_size(limits.head.max(8192));
    let service = service_fn(|request| handle(caller.clone(), request));
    let connection = builder.serve_connection(io, service).with_upgrades();
    if let Err(error) = connection.await {
        tracing::trace!(caller = %caller.address, %error, "connection ended");
    }
}

async fn serve_http2(io: CallerIo, caller: &Arc<Caller>) {
    let limits = &caller.shared.config.limits;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    // Heads a little above the limit are let in, so that they can be answered with a reason.
    let head = u32::try_from(limits.head.saturating_mul(2)).unwrap_or(u32::MAX);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_pending_accept_reset_streams(32)
        .max_header_list_size(head)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(std::time::Duration::from_secs(30))
        .keep_alive_timeout(std::time::Duration::from_secs(20))
        .enable_connect_protocol();
    let service = service_fn(|request| handle(caller.clone(), request));
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    let mut closing = caller.worker.closing();
    let told = async move {
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => {}
            () = caller.is_sent_away() => {}
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(caller = %caller.address, %error, "connection ended");
    }
}

async fn handle(caller: Arc<Caller>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    caller.request_began();
    let began = Instant::now();
    let method = MethodLabel::from(request.method());
    let grpc = answer::is_grpc(request.headers());
    let mut known = None;
    let (response, in_flight, whole, reason) = match pipeline(&caller, request, grpc, &mut known).await {
        Ok(Passed { response, in_flight, whole }) => (response, Some(in_flight), whole, None),
        Err(reason) => (answer::refuse(reason, grpc), None, None, Some(reason)),
    };
    let (mut head, body) = response.into_parts();
    // Its next request is to come by a new answer of the DNS. A port that is not there may have been when it connected.
    let leaves = reason == Some(Reason::NoRoute) || known.as_ref().is_some_and(|port| port.leaving);
    if caller.http2 {
        if leaves {
            caller.send_away();
        }
    } else {
        let ends = leaves || reason.is_some_and(ends_connection) || caller.shared.phase() == Phase::Closing;
        if ends && head.status != http::StatusCode::SWITCHING_PROTOCOLS {
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
    let request = match known {
        Some(port) => Some(Counted { port, method, status: head.status, reason, began, whole, in_flight }),
        None => {
            if let Some(reason) = reason {
                caller.shared.telemetry.refused(reason);
            }
            None
        }
    };
    Ok(Response::from_parts(head, body.ends(Ending { caller, request })))
}

/// After a request that could be read in two ways, nothing on its connection can be trusted.
fn ends_connection(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BadRequest
            | Reason::HeadersTooLarge
            | Reason::UriTooLong
            | Reason::NotImplemented
            | Reason::VersionNotSupported
            | Reason::MethodNotAllowed
    )
}

/// What came back for a request that passed.
struct Passed {
    response: Response<Body>,
    in_flight: InFlight,
    /// When all of the answer was here, where it came at once.
    whole: Option<Instant>,
}

/// The way of a request: what it says, where it goes, whether it may, who gets it, what comes back. `known` is set as
/// soon as the Service is known, for the counters.
async fn pipeline(
    caller: &Arc<Caller>,
    mut request: Request<Incoming>,
    grpc: bool,
    known: &mut Option<Arc<Port>>,
) -> Result<Passed, Reason> {
    let host = check(caller, &mut request)?;
    let port = find(caller, host.as_ref()).await?;
    let port = &*known.insert(port);
    // Policies of the Service that was called: each one call here, in the order of their modules.
    let backend = match port.target(caller.worker.draw()) {
        Target::Backend(backend) => backend,
        Target::Missing => return Err(Reason::BadBackend),
        Target::Nowhere => return Err(Reason::NoEndpoints),
    };
    let http2 = send::speaks_http2(backend, grpc)?;
    if backend.upstreams.load().policy.local_only {
        Box::pin(caller.shared.know(caller.address)).await;
    }
    // HTTP/1.1 takes a connection to the endpoint for each exchange, and the caller's HTTP/2 connection may have many.
    let permit = match caller.http2 && !http2 {
        true => Some(caller.permit.exchange().ok_or(Reason::Overloaded)?),
        false => None,
    };
    hops::count(request.headers_mut())?;
    let handover = upgrade::prepare(&mut request, http2, caller.http2);
    headers::strip_hop_by_hop(request.headers_mut(), http2);
    let forwarded = Forwarded {
        caller: &caller.address_text,
        trusted: caller.trusted,
        websocket: handover.as_ref().is_some_and(upgrade::Handover::is_websocket),
        host: host.as_ref(),
        port: &port.number_text,
    };
    headers::forward(request.headers_mut(), &forwarded);
    // Whoever reads the body is told to go on; the endpoint need not be asked.
    request.headers_mut().remove(header::EXPECT);
    let mut outgoing = Box::new(Outgoing { request: request.map(Upload::new), http2, upgrade: handover.is_some() });
    if let Some(handover) = &handover {
        handover.apply(&mut outgoing);
    }
    let Sent { head, body, mut in_flight, whole, switched } = send::send(caller, backend, outgoing).await?;
    in_flight.permit = permit;
    let mut response = Response::from_parts(head, body);
    *response.version_mut() = Version::HTTP_11;
    if let Some(switched) = switched {
        let Some(handover) = handover else { return Err(Reason::UpstreamProtocol) };
        let idle = backend.upstreams.load().policy.idle_timeout;
        let response = upgrade::hand_over(caller, handover, response, switched, idle)?;
        return Ok(Passed { response, in_flight, whole });
    }
    headers::strip_hop_by_hop(response.headers_mut(), false);
    Ok(Passed { response, in_flight, whole })
}

/// Refuses what is malformed or too large, and returns the name in `Host`, which the request keeps.
fn check(caller: &Caller, request: &mut Request<Incoming>) -> Result<Option<HeaderValue>, Reason> {
    let limits = &caller.shared.config.limits;
    let extended = request.extensions().get::<Extended>().is_some();
    if *request.method() == Method::CONNECT && !extended {
        return Err(Reason::MethodNotAllowed);
    }
    if request.version() == Version::HTTP_2 {
        check_http2_size(request, limits)?;
    }
    if request.uri().path_and_query().is_some_and(|target| target.as_str().len() > limits.target) {
        return Err(Reason::UriTooLong);
    }
    if let Some(coding) = request.headers().get(header::TRANSFER_ENCODING) {
        if request.headers().get_all(header::TRANSFER_ENCODING).iter().count() > 1 {
            return Err(Reason::BadRequest);
        }
        if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Reason::NotImplemented);
        }
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().cloned();
    if hosts.next().is_some() {
        return Err(Reason::BadRequest);
    }
    // The target's own authority comes first (RFC 9112 section 3.2.2, RFC 9113 section 8.3.1).
    if let Some(authority) = request.uri().authority() {
        let value = HeaderValue::from_str(authority.as_str()).map_err(|_| Reason::BadRequest)?;
        if host.as_ref() != Some(&value) {
            request.headers_mut().insert(header::HOST, value.clone());
        }
        return Ok(Some(value));
    }
    if host.is_none() && request.version() == Version::HTTP_11 {
        return Err(Reason::BadRequest);
    }
    Ok(host)
}

fn check_http2_size(request: &Request<Incoming>, limits: &crate::Limits) -> Result<(), Reason> {
    let fields = request.headers();
    // As RFC 9113 section 6.5.2 counts them.
    let size: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    if fields.len() > limits.fields || size > limits.head { Err(Reason::HeadersTooLarge) } else { Ok(()) }
}

/// The port of the Service that the request is for.
async fn find(caller: &Caller, host: Option<&HeaderValue>) -> Result<Arc<Port>, Reason> {
    let shared = &caller.shared;
    // A name of one label depends on the caller's namespace.
    if host.is_some_and(|host| !host.as_bytes().contains(&b'.')) {
        Box::pin(shared.know(caller.address)).await;
    }
    let (called, number) = {
        let facts = caller.listening.facts.load();
        route::named(shared, &facts, host.map(HeaderValue::as_bytes), caller.address)?
    };
    let found = match ready_port(shared, &called, number, Protocol::Http) {
        Some(found) => found,
        // Boxed: a first use must not make every request's future large.
        None => Box::pin(find_port(shared, &called, number, Protocol::Http)).await,
    };
    match found {
        Found::Port(port) => Ok(port),
        Found::NoPort => Err(Reason::NoRoute),
        Found::Absent => Err(Reason::UnknownHost),
        Found::NotSynced => Err(Reason::NotSynced),
    }
}
