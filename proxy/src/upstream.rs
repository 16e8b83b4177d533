//! Connections to endpoints.
//!
//! Below HTTP's routing and the proxy's state: this module knows addresses, requests and responses, and nothing of Services,
//! policies or callers. [`h1`] and [`h2`] exchange one request for one response; [`pool`] keeps what can carry another.
//!
//! A connection is used again only if its last request was written to its end, its response read to its end, and neither
//! asked to close or to leave HTTP.

mod body;
mod error;
mod h1;
mod h2;
mod length;
mod link;
mod pool;
mod tls;
mod upgraded;
mod upload;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{Method, StatusCode, request, response};
use parking_lot::Mutex;

#[cfg(feature = "instructions")]
pub(crate) use self::h1::instructions;
#[doc(hidden)]
pub use self::h1::pieces::{Response, read_response};
pub(crate) use self::{
    body::{BodyError, ResponseBody},
    error::{Failure, ProtocolError},
    h1::ResponseLimits,
    pool::Pools,
    tls::Tls,
    upgraded::Upgraded,
    upload::Upload,
};
use crate::{
    clock::Clock,
    connect::{ConnectError, Connector},
    fields::AddedFields,
};

/// A request without its body.
pub(crate) struct OutboundRequest<'a> {
    /// Method, target and fields as the endpoint's protocol wants them, without framing.
    pub(crate) head: &'a request::Parts,
    /// Fields that are sent behind those of the head.
    pub(crate) added: &'a AddedFields,
    /// It asks to leave HTTP.
    pub(crate) upgrade: bool,
}

/// What an endpoint answered.
pub(crate) struct Answer {
    /// Status and fields, without those that belong to the connection's framing. Boxed, because it is passed on by several
    /// functions, each of which would copy it.
    pub(crate) head: Box<response::Parts>,
    /// What follows.
    pub(crate) then: ResponseRest,
}

/// What follows the head of a response.
pub(crate) enum ResponseRest {
    /// A body.
    Body(ResponseBody),
    /// The endpoint agreed to leave HTTP.
    Upgraded(Upgraded),
}

/// Whether a response has no body, whatever its fields say (RFC 9112 section 6.3).
fn has_no_body(status: StatusCode, method: &Method) -> bool {
    *method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

/// What one worker needs to reach endpoints.
pub(crate) struct WorkerUpstream {
    /// Its place among the workers, and in every peer's pools.
    index: usize,
    /// How many workers there are.
    workers: usize,
    clock: Clock,
    connector: Connector,
    limits: ResponseLimits,
    /// Peers to which it holds unused connections.
    pooled: Mutex<Vec<Arc<Peer>>>,
}

impl WorkerUpstream {
    /// Worker `index` of so many `workers`. Nothing is connected yet.
    pub(crate) fn new(
        (index, workers): (usize, usize),
        clock: Clock,
        connector: Connector,
        limits: ResponseLimits,
    ) -> Arc<Self> {
        Arc::new(Self { index, workers, clock, connector, limits, pooled: Mutex::default() })
    }

    /// How connections are made.
    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Closes connections that were unused for too long.
    pub(crate) fn sweep(&self) {
        self.pooled.lock().retain(|peer| peer.pools.expire(self));
    }
}

/// One address and port that connections are made to.
pub(crate) struct Peer {
    address: SocketAddr,
    pools: Pools,
    retired: AtomicBool,
    tls: tls::PeerTls,
}

impl Peer {
    /// A peer to which nothing is connected yet.
    pub(crate) fn new(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            address,
            pools: Pools::default(),
            retired: AtomicBool::new(false),
            tls: tls::PeerTls::default(),
        })
    }

    /// No connection to it is kept.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Closes the connections that are unused, and keeps none from now on.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.pools.clear();
    }

    /// Connections that are kept for further requests: unused ones of HTTP/1.1, and all of HTTP/2.
    pub(crate) fn kept(&self) -> (usize, usize) {
        self.pools.kept()
    }

    /// Connections to it are kept again.
    pub(crate) fn reinstate(&self) {
        self.retired.store(false, Ordering::Release);
    }
}

/// How a connection is found for an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// An unused one if there is one.
    Allowed,
    /// A new one: the last one that was reused had been closed by the endpoint.
    Refused,
}

/// How a connection for an attempt is made, or found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dial<'a> {
    /// Longest time to make one.
    pub(crate) within: std::time::Duration,
    /// Whom the endpoint has to be; `None` without TLS.
    pub(crate) tls: Option<&'a Arc<Tls>>,
    /// Whether one that was used before will do.
    pub(crate) reuse: Reuse,
}

/// Sends one request over HTTP/1.1. `upload` is read only once a connection is there.
pub(crate) async fn exchange_h1<U: Upload>(
    local: &Arc<WorkerUpstream>,
    peer: &Arc<Peer>,
    dial: Dial<'_>,
    ask: &OutboundRequest<'_>,
    upload: Option<U>,
) -> Result<Answer, Failure> {
    let pooled = if dial.reuse == Reuse::Allowed { peer.pools.take(local, dial.tls) } else { None };
    let connection = match pooled {
        Some(connection) => connection,
        // Boxed to keep the future of the usual way small.
        None => Box::pin(pool::connect_h1(local, peer, dial)).await?,
    };
    h1::exchange(connection, pool::PoolSlot::new(peer, local), ask, upload, &local.limits).await
}

/// Sends one request over HTTP/2.
pub(crate) async fn exchange_h2<U: Upload>(
    local: &Arc<WorkerUpstream>,
    peer: &Arc<Peer>,
    dial: Dial<'_>,
    ask: &OutboundRequest<'_>,
    upload: Option<U>,
) -> Result<Answer, Failure> {
    let stream = match pool::free_h2(local, peer, dial) {
        Some(stream) => stream,
        // Boxed to keep the future of the usual way small.
        None => Box::pin(pool::stream_h2(local, peer, dial)).await?,
    };
    h2::exchange(stream, ask, upload, &local.limits).await
}

/// Whether the endpoint chooses HTTP/2 over TLS where it is offered (RFC 7301). Where that is not known, a connection is made
/// and kept for the request.
pub(crate) async fn chooses_http2(
    local: &Arc<WorkerUpstream>,
    peer: &Arc<Peer>,
    dial: Dial<'_>,
) -> Result<bool, ConnectError> {
    if let Some(http2) = known_choice(peer, dial) {
        return Ok(http2);
    }
    match pool::stream_h2(local, peer, dial).await {
        Ok(_) => Ok(true),
        Err(ConnectError::OtherProtocol { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is known of [`chooses_http2`]. Without TLS, nothing is.
pub(crate) fn known_choice(peer: &Peer, dial: Dial<'_>) -> Option<bool> {
    peer.tls.chosen(dial.tls?)
}
