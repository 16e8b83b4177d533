//! How many requests may be in flight to one backend port: in all, and of one caller; and how many may wait for a place.

use std::sync::Arc;

use maesh_config::policy::{BackendPolicy, Queue};
use tokio::time::timeout;

use crate::{
    balance::{BackendPort, InFlight, Share},
    http::caller::Caller,
    policy::BackendEvent,
    reason::Reason,
};

/// Takes a place among the caller's own requests to the backend.
pub(in crate::http) fn of_caller(caller: &Caller, backend: &BackendPort) -> Result<Share, Reason> {
    let policy = &backend.upstreams.load().policy;
    // Those that wait are its requests too.
    let limit = policy.concurrency.saturating_add(policy.queue.map_or(0, |queue| queue.length));
    let share = caller.last_share.enter(&backend.shares, caller.address, limit);
    share.ok_or_else(|| refused(backend, BackendEvent::CallerFull))
}

/// How many requests there may be, and how many may wait.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Limits {
    concurrency: u32,
    queue: Option<Queue>,
}

impl Limits {
    /// Those of this policy.
    pub(in crate::http) fn of(policy: &BackendPolicy) -> Self {
        Self { concurrency: policy.concurrency, queue: policy.queue }
    }
}

/// Takes a place among all requests to the backend. Waits for one if the policy allows it.
pub(in crate::http) async fn of_all(backend: &Arc<BackendPort>, limits: Limits) -> Result<InFlight, Reason> {
    let Limits { concurrency: limit, queue } = limits;
    // Whoever waits already comes first.
    if (queue.is_none() || !backend.queue.is_waiting())
        && let Some(place) = InFlight::enter(backend, limit)
    {
        return Ok(place);
    }
    let waiting = queue.and_then(|queue| Some((backend.queue.enter(queue.length)?, queue.wait)));
    let Some((waiting, longest)) = waiting else {
        return Err(refused(backend, if queue.is_some() { BackendEvent::QueueFull } else { BackendEvent::Full }));
    };
    // Boxed to keep the future of requests that need not wait small.
    let place = Box::pin(timeout(longest, async {
        loop {
            waiting.turn().await;
            if let Some(place) = InFlight::enter(backend, limit) {
                return place;
            }
        }
    }));
    place.await.map_err(|_| refused(backend, BackendEvent::WaitedTooLong))
}

fn refused(backend: &BackendPort, event: BackendEvent) -> Reason {
    backend.counts.add(event);
    Reason::Overloaded
}
