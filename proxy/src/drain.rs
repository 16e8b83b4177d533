//! Draining: ending the proxy without failing a request.
//!
//! First the proxy is no longer ready, but still accepts connections, because clients cache its address. Then every
//! connection is asked to end in the way of its protocol: `Connection: close` with the next response, GOAWAY, close code
//! 1001. Requests in flight may finish. Connections that are left when the timeout has passed are cut.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, interval, sleep},
};

use crate::{
    state::{Phase, Shared},
    worker::Workers,
};

/// A connection that was idle for this long is assumed not to begin a request at this moment.
const QUIET: Duration = Duration::from_secs(1);

/// How often open connections are counted.
const LOOK: Duration = Duration::from_millis(20);

/// Leaves readiness, and waits until clients have forgotten the address.
pub(crate) async fn leave(
    shared: &Shared,
    report: &watch::Sender<bool>,
    ready: &watch::Sender<bool>,
    horizon: Duration,
) {
    shared.enter(Phase::Leaving);
    report.send_replace(false);
    ready.send_replace(false);
    sleep(horizon).await;
}

/// Asks every connection to end, and waits for them; at most `timeout`. Returns how many were left.
pub(crate) async fn close(
    shared: &Arc<Shared>,
    workers: &Workers,
    closing: &watch::Sender<bool>,
    timeout: Duration,
) -> usize {
    shared.enter(Phase::Closing);
    closing.send_replace(true);
    let deadline = Instant::now() + timeout;
    let mut look = interval(LOOK);
    while (shared.is_accepting() || shared.admission.connections() > 0) && Instant::now() < deadline {
        look.tick().await;
        workers.iter().for_each(|worker| worker.end_idle(QUIET));
    }
    shared.admission.connections()
}
