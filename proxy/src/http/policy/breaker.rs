//! The circuit breaker of a backend port.

use std::time::{Duration, Instant};

use http::StatusCode;

use crate::{balance::BackendPort, reason::Reason, state::Shared, worker::Worker};

/// Lets a request through, or refuses it while the breaker is open. Returns when it began.
pub(in crate::http) fn enter(backend: &BackendPort, worker: &Worker) -> Result<Instant, Reason> {
    if !backend.breaker.lets_through(worker.shared.clock.coarse(), worker.draw()) {
        return Err(Reason::CircuitOpen);
    }
    Ok(Instant::now())
}

/// Notes how a request that was let through ended: the status of its response, or of ours in its place.
pub(in crate::http) fn leave(backend: &BackendPort, shared: &Shared, status: StatusCode, took: Duration) {
    let upstreams = backend.upstreams.load();
    let Some(expression) = &upstreams.policy.breaker else { return };
    let millis = took.as_secs_f64() * 1000.0;
    if let Some(state) = backend.breaker.note(expression, shared.clock.coarse(), status.as_u16(), millis) {
        tracing::info!(service = %backend.service, ?state, %expression, "circuit breaker opened");
    }
}
