//! Sending a request to a backend: pick an endpoint, make an attempt, and where it fails for reasons of the connection, make
//! another one.

use std::{sync::Arc, time::Instant};

use http::{HeaderValue, Uri, Version, header, request, response, uri};
use maesh_config::model::Scheme;
use smallvec::SmallVec;

use super::{
    attempt::Attempts,
    body::{Body, Replay},
    caller::Caller,
    charge::ConnectionCharge,
    policy::{
        concurrency,
        retry::{self, RetriesLeft, RetryKind},
    },
    request::ProxiedRequest,
};
use crate::{
    balance::{self, FAILURE},
    reason::Reason,
    state::{BackendPort, Endpoint, InFlight},
    upstream::{Answer, Failure, ResponseRest, Reuse, Upgraded},
};

/// A response, and what its body depends on.
pub(crate) struct ForwardedResponse {
    pub(crate) head: response::Parts,
    pub(crate) body: Body,
    pub(crate) in_flight: InFlight,
    /// How many times it was tried.
    pub(crate) attempts: u32,
    /// When all of the response was here, where it came at once.
    pub(crate) whole: Option<Instant>,
    /// The endpoint's side, when it agreed to speak another protocol.
    pub(crate) switched: Option<Upgraded>,
}

/// How a request is spoken to its endpoint.
pub(crate) struct ToEndpoint {
    /// Over HTTP/2.
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

/// Counts what is kept of an upload. In HTTP/2 its stream counts it.
fn charge(caller: &Arc<Caller>) -> Option<ConnectionCharge> {
    (!caller.http2).then(|| ConnectionCharge::new(caller))
}

/// Sends `request` to an endpoint of `backend`.
pub(crate) async fn send(
    caller: &Arc<Caller>,
    backend: &Arc<BackendPort>,
    mut request: Box<ProxiedRequest>,
    to: ToEndpoint,
) -> Result<ForwardedResponse, Reason> {
    let worker = &caller.worker;
    let shared = &worker.shared;
    let mut in_flight = concurrency::of_all(backend)?;
    let ToEndpoint { http2, upgrade } = to;
    shape(&mut request.head, http2)?;
    // What an extended CONNECT sends belongs to the other protocol.
    let body = if http2 && upgrade { None } else { request.take_body() };
    let (upload, head) = (body.map(|body| Replay::new(body, charge(caller))), &request.head);
    let attempts = Attempts { worker, head, http2, upgrade };
    let mut tries = RetriesLeft::new();
    let mut avoided: SmallVec<[Arc<Endpoint>; 2]> = SmallVec::new();
    let mut reuse = Reuse::Allowed;
    let mut made = 0;
    loop {
        made += 1;
        // Loaded anew for each attempt: an endpoint may have left since the last one.
        let (endpoint, timeout) = {
            let upstreams = backend.upstreams.load();
            let now = shared.clock.coarse();
            let picked = balance::pick(
                &upstreams,
                caller.address,
                || shared.node_of(caller.address),
                &avoided,
                now,
                worker.draw(),
            );
            (picked.ok_or(Reason::NoEndpoints)?, upstreams.policy.connect_timeout)
        };
        in_flight.on(endpoint.clone());
        let reader = upload.as_ref().map(Replay::reader);
        let failure = match attempts.make(&endpoint, timeout, reuse, reader).await {
            Ok(answer) => {
                if let Some(upload) = &upload {
                    upload.release();
                }
                return Ok(sent(answer, in_flight, made));
            }
            Err(failure) => failure,
        };
        tracing::debug!(service = %backend.service, endpoint = %endpoint.address, %failure, "attempt failed");
        let gone = endpoint.is_gone();
        if retry::counts_against_endpoint(&failure, gone) {
            endpoint.latency.record(shared.clock.coarse(), FAILURE);
        }
        let replayable = upload.as_ref().is_none_or(Replay::is_whole);
        let replay = retry::Request { idempotent: head.method.is_idempotent(), replayable, gone };
        match tries.again(&failure, replay) {
            None => return Err(retry::reason(&failure)),
            Some(RetryKind::Elsewhere) => avoided.push(endpoint),
            Some(RetryKind::Anew) => reuse = Reuse::Refused,
        }
        match failure {
            Failure::Connect(_) => shared.telemetry.retries_connect.inc(),
            _ => shared.telemetry.retries_closed.inc(),
        };
    }
}

fn sent(answer: Answer, in_flight: InFlight, attempts: u32) -> ForwardedResponse {
    let Answer { head, then } = answer;
    match then {
        ResponseRest::Body(body) => {
            let whole = body.is_whole().then(Instant::now);
            ForwardedResponse { head, body: Body::of(body), in_flight, attempts, whole, switched: None }
        }
        ResponseRest::Upgraded(upgraded) => {
            ForwardedResponse { head, body: Body::empty(), in_flight, attempts, whole: None, switched: Some(upgraded) }
        }
    }
}

/// Gives the head the form that the protocol towards the endpoint wants. `Host` keeps its text.
fn shape(head: &mut request::Parts, http2: bool) -> Result<(), Reason> {
    if http2 {
        let host = head.headers.remove(header::HOST);
        head.version = Version::HTTP_2;
        let says_authority = |host: &HeaderValue| head.uri.authority().is_some_and(|said| host == said.as_str());
        let has_form = head.uri.scheme() == Some(&uri::Scheme::HTTP) && head.uri.path_and_query().is_some();
        if has_form && host.as_ref().is_some_and(says_authority) {
            return Ok(());
        }
        let authority = match (&host, head.uri.authority()) {
            (Some(host), _) => uri::Authority::try_from(host.as_bytes()).map_err(|_| Reason::BadRequest)?,
            (None, Some(authority)) => authority.clone(),
            (None, None) => uri::Authority::from_static("localhost"),
        };
        let mut parts = target_of(&head.uri);
        parts.scheme = Some(uri::Scheme::HTTP);
        parts.authority = Some(authority);
        head.uri = Uri::from_parts(parts).map_err(|_| Reason::BadRequest)?;
        return Ok(());
    }
    head.version = Version::HTTP_11;
    if head.uri.scheme().is_some() || head.uri.authority().is_some() {
        head.uri = Uri::from_parts(target_of(&head.uri)).map_err(|_| Reason::BadRequest)?;
    }
    if !head.headers.contains_key(header::HOST) {
        head.headers.insert(header::HOST, HeaderValue::from_static(""));
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
