//! Connecting an opaque stream to an endpoint.

use std::{net::IpAddr, sync::Arc, time::Instant};

use smallvec::SmallVec;
use tokio::net::TcpStream;

use crate::{
    balance::{self, Affinity, FAILURE},
    policy::{CalledEvent, CalledRuntime},
    reason::Reason,
    state::{BackendPort, Endpoint, InFlight},
    worker::Worker,
};

/// Connects to an endpoint of `backend` for an opaque stream to a port with the state `called`; a connect failure is tried once more elsewhere.
///
/// # Errors
/// Why there is no connection.
pub(crate) async fn dial(
    worker: &Arc<Worker>,
    caller: IpAddr,
    called: &CalledRuntime,
    backend: &Arc<BackendPort>,
) -> Result<(TcpStream, InFlight), Reason> {
    let shared = &worker.shared;
    let mut in_flight = InFlight::enter(backend, u32::MAX).ok_or(Reason::Overloaded)?;
    let mut avoided: SmallVec<[Arc<Endpoint>; 2]> = SmallVec::new();
    loop {
        let (endpoint, timeout) = {
            let upstreams = backend.upstreams.load();
            let admitted = shared.reachable(&upstreams, || shared.account_of(caller), None)?;
            let picked = balance::pick(
                &upstreams,
                caller,
                Affinity::of_caller(&upstreams.policy.balance, caller),
                || shared.node_of(caller),
                (&avoided, &admitted),
                shared.clock.coarse(),
                worker.draw(),
            );
            (picked.ok_or(Reason::NoEndpoints)?, upstreams.policy.connect_timeout)
        };
        in_flight.on(endpoint.clone());
        let began = Instant::now();
        match worker.upstream.connector().connect(endpoint.address, timeout).await {
            Ok(stream) => {
                let now = shared.clock.coarse();
                endpoint.latency.record(now, began.elapsed());
                endpoint.ejection.succeeded(now);
                return Ok((stream, in_flight));
            }
            Err(error) => {
                tracing::debug!(service = %backend.service, %error, "connecting an opaque stream failed");
                let now = shared.clock.coarse();
                endpoint.latency.record(now, FAILURE);
                backend.failed(&endpoint, now);
                if !avoided.is_empty() {
                    return Err(error.reason());
                }
                called.count(CalledEvent::RetriedConnect);
                avoided.push(endpoint);
            }
        }
    }
}
