//! The way of a request, in one function: each step is one call, in the order in which they act.
//!
//! A step that refuses returns a [`LocalAnswer`]. A new policy is a file of its own and a line in [`run`].

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Response, Version, header, request};
use maesh_config::model::Protocol;
use tokio::time::{Instant, timeout_at};

use super::{
    answer::LocalAnswer,
    body::Body,
    caller::Caller,
    check::check,
    exchange::Exchange,
    forward::{self, ForwardedResponse, Spoken},
    headers::{self, Forwarded},
    hops,
    policy::{concurrency, deadline, fault, rate_limit},
    request::ProxiedRequest,
    route,
    upgrade::{self, Tunnel, UpgradeRequest},
};
use crate::{
    access::AskedRequest,
    fields::Sought,
    policy::CalledEvent,
    reason::Reason,
    routes::{self, ReadFacts, RouteFacts},
    state::{BackendPort, Port, PortLookup, Target, find_port, ready_port},
};

/// What a request may have that belongs to its connection.
const OF_A_CONNECTION: [Sought; 5] =
    [Sought::Connection, Sought::Te, Sought::TransferEncoding, Sought::Upgrade, Sought::HopByHop];

/// What came back for a request that was forwarded.
pub(crate) struct Answered {
    pub(crate) response: Response<Body>,
    /// The endpoint agreed to leave HTTP: its side of the stream.
    pub(crate) tunnel: Option<Tunnel>,
}

/// Carries `request` from its head to the head of its response. What is learnt on the way is noted in `exchange`.
pub(crate) async fn run(exchange: &mut Exchange, mut request: Box<ProxiedRequest>) -> Result<Answered, LocalAnswer> {
    let caller = exchange.caller.clone();
    exchange.note_details(&mut request.head);
    let host = check(&caller, &mut request)?;
    let port = find(&caller, host.as_ref()).await?;
    exchange.port = Some(port.clone());
    if caller.shared.controls_access() && !caller.is_identified() {
        // Boxed: it happens once on most connections.
        Box::pin(caller.identify()).await?;
    }
    let backend = route(&caller, &port, host.as_ref(), &request.head)?;
    exchange.backend = Some(backend.clone());
    let limit = deadline::of_request(&port.called, &request.head.headers, request.present);
    if limit.is_some_and(|limit| limit.is_zero()) {
        return Err(Reason::RequestTimeout.into());
    }
    let end = limit.map(|limit| Instant::now() + limit);
    if let Some(rate) = &port.called.rate_limit {
        let now = caller.shared.clock.nanos();
        rate_limit::check(&port.runtime.limiter, rate, caller.address, &request.head.headers, now)?;
    }
    if let Some(fault) = &port.called.fault {
        let worker = &caller.worker;
        let injected = fault::draw(fault, SystemTime::now(), [worker.draw(), worker.draw()]);
        if let Some(delay) = injected.delay {
            port.runtime.count(CalledEvent::Delayed);
            Box::pin(tokio::time::sleep(delay)).await;
        }
        if let Some(abort) = injected.abort {
            port.runtime.count(CalledEvent::Aborted);
            return Err(abort);
        }
    }
    exchange.share = Some(concurrency::of_caller(&caller, backend)?);
    let host = host.as_ref();
    match end {
        None => forward(exchange, &caller, &port, backend, host, limit, request).await,
        // Boxed to keep the future of requests without a limit small.
        Some(end) => {
            let forwarded = Box::pin(forward(exchange, &caller, &port, backend, host, limit, request));
            let answered = timeout_at(end, forwarded).await.unwrap_or(Err(Reason::RequestTimeout.into()));
            // Our own answer is never cut off.
            exchange.end = answered.is_ok().then_some(end);
            answered
        }
    }
}

/// The port of the Service that the request is for.
async fn find(caller: &Caller, host: Option<&HeaderValue>) -> Result<Arc<Port>, Reason> {
    let shared = &caller.shared;
    // A name of one label depends on the caller's namespace.
    if host.is_some_and(|host| !host.as_bytes().contains(&b'.')) {
        Box::pin(shared.wait_for_workload(caller.address)).await;
    }
    let (called, number) = {
        let facts = caller.listening.facts.load();
        route::named(shared, &facts, host.map(HeaderValue::as_bytes), caller.address)?
    };
    let found = match ready_port(shared, &called, number, Protocol::Http) {
        Some(found) => found,
        // Boxed to keep the future of every other request small.
        None => Box::pin(find_port(shared, &called, number, Protocol::Http)).await,
    };
    match found {
        PortLookup::Port(port) => Ok(port),
        PortLookup::NoPort => Err(Reason::NoRoute),
        PortLookup::Absent => Err(Reason::UnknownHost),
        PortLookup::NotSynced => Err(Reason::NotSynced),
    }
}

/// The backend that the request is sent to. The caller has to be admitted to every one that it might be.
fn route<'a>(
    caller: &Caller,
    port: &'a Port,
    host: Option<&HeaderValue>,
    head: &request::Parts,
) -> Result<&'a Arc<BackendPort>, Reason> {
    let route = port.route(|| route_facts(host, head, caller.address));
    if caller.shared.controls_access() {
        let account = caller.account();
        let request = AskedRequest::new(host, head);
        caller.shared.admits(&port.own.service, (port, route), (caller.address, account.as_ref()), Some(request))?;
    }
    match port.pick(route, caller.worker.draw()) {
        Target::Backend(backend) => Ok(backend),
        Target::Missing => Err(Reason::BadBackend),
        Target::NotUnderstood => Err(Reason::UnsupportedPolicy),
        Target::Nowhere => Err(Reason::NoEndpoints),
    }
}

/// A request of `caller`, as rules see it; `host` is what [`check`] found.
pub(crate) fn route_facts<'a>(
    host: Option<&'a HeaderValue>,
    head: &'a request::Parts,
    caller: IpAddr,
) -> RouteFacts<'a> {
    RouteFacts {
        sent_host: host.map(HeaderValue::as_bytes),
        sent_path: head.uri.path(),
        query: head.uri.query(),
        method: routes::method(head),
        fields: &head.headers,
        caller,
        every_line: false,
        read: ReadFacts::default(),
    }
}

/// Gives the request the form in which it leaves the proxy, sends it, and gives the response the form in which it does.
async fn forward(
    exchange: &mut Exchange,
    caller: &Arc<Caller>,
    port: &Port,
    backend: &Arc<BackendPort>,
    host: Option<&HeaderValue>,
    limit: Option<Duration>,
    mut request: Box<ProxiedRequest>,
) -> Result<Answered, LocalAnswer> {
    let (http2, idle) = {
        let policy = &backend.upstreams.load().policy;
        (forward::needs_http2(policy, exchange.is_grpc()), policy.idle_timeout)
    };
    let wanted = prepare(&mut request, caller, port, host, http2)?;
    let ProxiedRequest { head, present, .. } = &mut *request;
    deadline::pass_on(&port.called, limit, exchange.is_grpc(), &mut head.headers, *present);
    if exchange.activity.is_uploading() {
        exchange.activity.limit(idle);
    }
    let trace = exchange.trace();
    let as_what = Spoken { http2, upgrade: wanted.is_some(), grpc: exchange.is_grpc() };
    let ForwardedResponse { head, body, backend, in_flight, permit, attempts, whole, switched, cookie, admitted } =
        forward::send(caller, port, backend, request, as_what, trace.as_deref()).await?;
    exchange.backend = Some(backend);
    exchange.permit = permit;
    exchange.in_flight = Some(in_flight);
    exchange.attempts = attempts;
    exchange.complete = whole;
    exchange.admitted = admitted;
    exchange.activity.limit(idle);
    let mut response = Response::from_parts(*head, body);
    *response.version_mut() = Version::HTTP_11;
    let chosen = response.headers().get(header::UPGRADE).cloned();
    headers::strip_hop_by_hop(response.headers_mut(), false);
    if let Some(cookie) = cookie {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    let tunnel = match (switched, wanted) {
        // To the caller any success would say that the endpoint has switched (RFC 8441 section 5).
        (None, Some(wanted)) if wanted.is_extended() && response.status().is_success() => {
            return Err(Reason::UpstreamProtocol.into());
        }
        (None, _) => None,
        (Some(switched), Some(wanted)) => Some(wanted.agreed(&mut response, chosen, switched, idle)?),
        (Some(_), None) => return Err(Reason::UpstreamProtocol.into()),
    };
    Ok(Answered { response, tunnel })
}

/// Gives the request the fields with which it leaves the proxy. Returns the caller's wish to leave HTTP, if it has one.
fn prepare(
    request: &mut ProxiedRequest,
    caller: &Caller,
    port: &Port,
    host: Option<&HeaderValue>,
    http2: bool,
) -> Result<Option<UpgradeRequest>, Reason> {
    let present = request.present;
    hops::count(&mut request.head.headers, present, &mut request.added)?;
    let wanted = upgrade::wanted(request, http2, caller.http2)?;
    let fields = &mut request.head.headers;
    if present.has_any(&OF_A_CONNECTION) {
        headers::strip_hop_by_hop(fields, http2);
    }
    let forwarded = Forwarded {
        caller: &caller.address_text,
        trusted: caller.trusted,
        websocket: wanted.as_ref().is_some_and(UpgradeRequest::is_websocket),
        host,
        port: &port.number_text,
    };
    headers::forward(fields, present, &forwarded, &mut request.added);
    // Whoever reads the body is told to go on; the endpoint need not be asked.
    if present.has(Sought::Expect) {
        fields.remove(header::EXPECT);
    }
    if let Some(wanted) = &wanted {
        wanted.apply(request, http2);
    }
    Ok(wanted)
}
