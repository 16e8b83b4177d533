//! HTTP/1.1 from callers.
//!
//! A caller may end its side once it has sent its request, and gets its response all the same. A connection that this
//! side ends is closed in two steps: whoever still sends while it should read would lose the response to a reset, so what
//! it sends is read and discarded for a while first. A response that broke off ends the connection at once, and with a
//! reset where an end would look like the end of the body.

mod download;
mod framing;

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Poll, ready},
};

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;

use self::download::CallerBody;
pub(super) use self::framing::RequestTracker;
use super::{CallerIo, RequestBody, linger::linger};
use crate::{
    fields::{Present, Sought},
    http::{
        answer::AnswerForm,
        caller::Caller,
        exchange::{Exchange, Recorded},
        pipeline,
        request::ProxiedRequest,
        upgrade::{CallerSide, Tunnel},
    },
    reason::Reason,
    state::Phase,
};

/// Where a request leaves the tunnel that its connection turns into.
type TunnelSlot = Arc<Mutex<Option<(Tunnel, Box<Exchange>)>>>;

/// Serves a connection until it ends.
///
/// The parser keeps two buffers of 8 KiB for as long as there is one. A connection that has been idle for a while
/// ([`Limits::park_after`](crate::Limits)) has none until its caller sends something.
pub(super) async fn serve(mut io: CallerIo, caller: &Arc<Caller>) {
    while let Some(mut idle) = serve_requests(io, caller).await {
        idle.release_buffers();
        arrival(&idle, caller).await;
        caller.unpark();
        io = idle;
    }
}

/// Waits until the caller sends something or goes, or the connection is to end. The parser finds out which.
async fn arrival(io: &CallerIo, caller: &Caller) {
    let broken = io.broken();
    let mut broken = pin!(broken.wait());
    poll_fn(|cx| match caller.is_ended() || caller.is_dismissed() || broken.as_mut().poll(cx).is_ready() {
        true => Poll::Ready(()),
        false => io.poll_arrived(cx),
    })
    .await;
}

/// How it ended that requests were read from a connection.
enum Ended {
    /// Nothing more is to be written.
    Abruptly,
    /// The caller or this side wanted no more, or the connection leaves HTTP.
    InOrder,
    /// It has been idle for a while.
    Idle,
}

/// Serves requests until the connection ends, or has been idle for a while; then it is returned.
async fn serve_requests(io: CallerIo, caller: &Arc<Caller>) -> Option<CallerIo> {
    let limits = &caller.shared.config.limits;
    let broken = io.broken();
    let mut broken = pin!(broken.wait());
    let socket = io.socket();
    let mut builder = http1::Builder::new();
    builder
        .half_close(true)
        .max_headers(limits.fields)
        .max_header_size(limits.head)
        .max_buf_size(limits.head.max(8192));
    let slot = TunnelSlot::default();
    let service = service_fn(|request: Request<Incoming>| {
        let present = Present::of(request.headers());
        let form = AnswerForm::of(request.headers(), present);
        let exchange = Exchange::begin(caller, request.method(), form, caller.activity.clone());
        let has_length = request.body().size_hint().upper().is_some();
        let (head, body) = request.into_parts();
        let body = RequestBody::h1(body, caller);
        respond(caller, exchange, slot.clone(), has_length, ProxiedRequest::new(head, present, body))
    });
    let mut connection = builder.serve_connection(io, service);
    let mut is_shut = false;
    let ended = poll_fn(|cx| {
        if caller.is_ended() || broken.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(Ended::Abruptly));
        }
        match Pin::new(&mut connection).poll(cx) {
            // The event loop may not have seen yet that a request has come. It wakes this task then.
            Poll::Pending if caller.takes_dismissal() && !socket.has_arrived() => {
                return Poll::Ready(Ok(Ended::Abruptly));
            }
            Poll::Pending if caller.is_to_park() => return Poll::Ready(Ok(Ended::Idle)),
            polled => ready!(polled)?,
        }
        // After an upgrade that was refused, hyper returns once before it has written everything.
        if slot.lock().is_none() && !std::mem::replace(&mut is_shut, true) {
            ready!(Pin::new(&mut connection).poll(cx))?;
        }
        Poll::Ready(Ok::<_, hyper::Error>(Ended::InOrder))
    })
    .await;
    let parts = connection.into_parts();
    let (io, unread) = (parts.io, parts.read_buf);
    let tunnel = slot.lock().take();
    match (ended, tunnel) {
        // An earlier response of which a part was not written is incomplete: nothing may follow it.
        (Ok(Ended::InOrder), Some((tunnel, exchange))) if !io.has_unsent() => {
            tunnel.carry(CallerSide::connection(TokioIo::new(io), unread), exchange).await;
        }
        (Ok(Ended::Idle), None) if unread.is_empty() => return Some(io),
        (Ok(Ended::InOrder | Ended::Idle), None) | (Err(_), None) if !io.is_at_end() && !caller.is_unfinished() => {
            linger(io).await;
        }
        _ => {}
    }
    None
}

/// Takes one request through the pipeline. `has_length`: it says how long its body is.
async fn respond(
    caller: &Arc<Caller>,
    mut exchange: Box<Exchange>,
    slot: TunnelSlot,
    has_length: bool,
    request: Box<ProxiedRequest>,
) -> Result<Response<CallerBody>, Infallible> {
    let waits = request.present.has(Sought::Expect);
    let knows_chunks = request.head.version == Version::HTTP_11;
    let (response, tunnel) = match pipeline::run(&mut exchange, request).await {
        Ok(answered) => (answered.response, answered.tunnel),
        Err(local) => {
            exchange.reason = Some(local.reason);
            (local.into_response(exchange.form), None)
        }
    };
    let (mut head, body) = response.into_parts();
    exchange.answered(head.status, &head.headers);
    if let Some(tunnel) = tunnel {
        debug_assert_eq!(head.status, StatusCode::SWITCHING_PROTOCOLS);
        exchange.caller.upgraded();
        *slot.lock() = Some((tunnel, exchange));
        return Ok(Response::from_parts(head, CallerBody::new(Recorded::nothing(), caller, false)));
    }
    // hyper closes the connection where it cannot read the rest of the upload at once.
    let early = exchange.reason.is_some()
        && exchange.activity.is_uploading()
        && (waits || !has_length || exchange.caller.is_uploading());
    if early
        || exchange.sends_caller_away()
        || exchange.reason.is_some_and(ends_connection)
        || exchange.caller.shared.phase() == Phase::Closing
    {
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let by_closing = !knows_chunks && body.size_hint().exact().is_none();
    Ok(Response::from_parts(head, CallerBody::new(Recorded::new(body, exchange), caller, by_closing)))
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
