//! How many requests may be in flight to one backend port: in all, and of one caller.

use std::sync::Arc;

use crate::{
    balance::{BackendPort, InFlight, Share},
    http::caller::Caller,
    reason::Reason,
};

/// Takes a place among the caller's own requests to the backend.
pub(in crate::http) fn of_caller(caller: &Caller, backend: &BackendPort) -> Result<Share, Reason> {
    let limit = backend.upstreams.load().policy.concurrency;
    caller.last_share.enter(&backend.shares, caller.address, limit).ok_or(Reason::Overloaded)
}

/// Takes a place among all requests to the backend.
pub(in crate::http) fn of_all(backend: &Arc<BackendPort>) -> Result<InFlight, Reason> {
    InFlight::enter(backend, backend.upstreams.load().policy.concurrency).ok_or(Reason::Overloaded)
}
