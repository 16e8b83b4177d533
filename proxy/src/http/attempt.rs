//! One try of a request on one endpoint.
//!
//! An attempt borrows the head and reads the body through a reader of its own, so it can be made again, or twice at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{StatusCode, request};

use super::body::replay::ReplayReader;
use crate::{
    balance::FAILURE,
    state::Endpoint,
    upstream::{self, Answer, Failure, OutboundRequest, Reuse},
    worker::Worker,
};

/// What every attempt of a request has in common.
pub(super) struct Attempts<'a> {
    pub(super) worker: &'a Arc<Worker>,
    pub(super) head: &'a request::Parts,
    /// The protocol towards the endpoint is HTTP/2.
    pub(super) http2: bool,
    /// The request asks to leave HTTP.
    pub(super) upgrade: bool,
}

impl Attempts<'_> {
    /// Makes one attempt, and notes for the balancer how the endpoint answered.
    pub(super) async fn make(
        &self,
        endpoint: &Endpoint,
        connect_timeout: Duration,
        reuse: Reuse,
        upload: Option<ReplayReader>,
    ) -> Result<Answer, Failure> {
        let (local, ask) = (&self.worker.upstream, OutboundRequest { head: self.head, upgrade: self.upgrade });
        let began = Instant::now();
        let answer = if self.http2 {
            upstream::exchange_h2(local, &endpoint.peer, connect_timeout, &ask, upload).await?
        } else {
            upstream::exchange_h1(local, &endpoint.peer, connect_timeout, reuse, &ask, upload).await?
        };
        let took = began.elapsed();
        let took = if is_failure(answer.head.status) { took.max(FAILURE) } else { took };
        endpoint.latency.record(self.worker.shared.clock.coarse(), took);
        Ok(answer)
    }
}

/// Whether a response counts as a failure of its endpoint: an endpoint that refuses at once must not look fast.
fn is_failure(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}
