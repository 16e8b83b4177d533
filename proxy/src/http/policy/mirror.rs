//! Mirroring: a copy of a request is sent to another Service, and its response is dropped.
//!
//! The caller never waits for it: the copy has a task of its own. Copies of one port have a limit, above which they are left
//! out.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{request, uri};
use http_body::Body as _;
use tokio::time::timeout;

use crate::{
    balance::{self, Affinity, InFlight},
    fields::AddedFields,
    http::{
        attempt::Attempts,
        body::{Body, Replay, replay::KEPT},
        caller::Caller,
        forward::{admitted, needs_http2, try_out},
        shape::shape,
    },
    policy::{CalledEvent, CalledRuntime},
    reason::Reason,
    state::{MirrorTarget, Port},
    upstream::{Dial, ResponseRest, Reuse},
};

/// Copies of one port that may be under way.
const MOST: u32 = 64;
/// Bytes of its response that are read.
const READ: usize = 64 * 1024;
/// How long one may take.
const TIME: Duration = Duration::from_secs(30);

/// One copy under way; over when dropped.
struct Copying(Arc<CalledRuntime>);

impl Copying {
    fn begin(runtime: &Arc<CalledRuntime>) -> Option<Self> {
        if runtime.mirrored.fetch_add(1, Ordering::Relaxed) >= MOST {
            runtime.mirrored.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self(runtime.clone()))
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.0.mirrored.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends a copy of the request, if it is one of those that are copied. Head and fields are those with which the request leaves.
pub(in crate::http) fn send(
    caller: &Arc<Caller>,
    port: &Port,
    mirror: &MirrorTarget,
    (head, added): (&request::Parts, &AddedFields),
    upload: Option<&Replay>,
    grpc: bool,
) {
    if !mirror.share.takes(caller.worker.draw()) {
        return;
    }
    let reader = upload.map(Replay::follower);
    let is_large = reader.as_ref().is_some_and(|reader| reader.size_hint().lower() > KEPT as u64);
    // A copy takes a connection more than the caller's own allows for.
    let begin = || Some((Copying::begin(&port.runtime)?, caller.extra_connection()?));
    let Some(copying) = begin().filter(|_| !is_large) else {
        port.runtime.count(CalledEvent::MirrorLeftOut);
        return;
    };
    try_out(caller, port, &mirror.backend, head);
    let (caller, mirror, mut head, added) = (caller.clone(), mirror.clone(), head.clone(), added.clone());
    tokio::spawn(async move {
        let sent = timeout(TIME, copy(&caller, &copying.0.0, &mirror, (&mut head, &added), reader, grpc)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!(service = %mirror.backend.service, ?sent, "a copy of a request was not answered");
        }
        drop(copying);
    });
}

/// Sends the copy to one endpoint, once, and reads its response to the end. It counts as sent if there is an endpoint that it may go
/// to.
async fn copy(
    caller: &Arc<Caller>,
    runtime: &CalledRuntime,
    mirror: &MirrorTarget,
    (head, added): (&mut request::Parts, &AddedFields),
    upload: Option<crate::http::body::replay::ReplayReader>,
    grpc: bool,
) -> Result<(), Reason> {
    let (worker, backend) = (&caller.worker, &mirror.backend);
    let shared = &worker.shared;
    let http2 = needs_http2(&backend.upstreams.load().policy, grpc);
    let mut place = || -> Result<_, Reason> {
        shape(head, http2.then_some(&uri::Scheme::HTTP))?;
        let upstreams = backend.upstreams.load();
        let mut in_flight = InFlight::enter(backend, upstreams.policy.concurrency).ok_or(Reason::Overloaded)?;
        let affinity = Affinity::of_request(&upstreams.policy.balance, caller.address, &head.headers, added);
        let node = || shared.node_of(caller.address);
        let (now, draw) = (shared.clock.coarse(), worker.draw());
        let admitted = admitted(caller, &upstreams, head)?;
        let picked = balance::pick(&upstreams, caller.address, affinity, node, (&[], &admitted), now, draw);
        let endpoint = picked.ok_or(Reason::NoEndpoints)?;
        in_flight.on(endpoint.clone());
        Ok((in_flight, endpoint, upstreams.policy.connect_timeout, upstreams.tls.clone()))
    };
    let placed = place();
    runtime.count(if placed.is_ok() { CalledEvent::Mirrored } else { CalledEvent::MirrorLeftOut });
    let (_in_flight, endpoint, within, tls) = placed?;
    let attempts = Attempts { worker, head, added, http2, upgrade: false, backend, timeout: None, trace: None };
    let dial = Dial { within, tls: tls.as_ref(), reuse: Reuse::Allowed };
    let answer = attempts.make(&endpoint, dial, upload).await;
    if let ResponseRest::Body(body) = answer.map_err(|failure| super::retry::reason(&failure))?.then {
        let mut body = Body::of(body);
        // A short one is read to its end, so that its connection can be used again.
        let mut read = 0;
        while let Some(Ok(frame)) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
            read += frame.data_ref().map_or(0, bytes::Bytes::len);
            if read > READ {
                break;
            }
        }
    }
    Ok(())
}
