//! Ending without anybody noticing.
//!
//! First the proxy says that it takes no new work, and goes on taking it: names may still lead here for a while. Then
//! every connection is asked to end as its protocol does: `Connection: close` with the next answer, GOAWAY, close code
//! 1001. What is in flight may finish; what does not in time is cut.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, interval, sleep},
};

use crate::{
    state::{Phase, Shared},
    worker::Workers,
};

/// A connection that was idle for this long will not begin a request just now.
const QUIET: Duration = Duration::from_secs(1);

/// How often it is looked whether all connections have ended.
const LOOK: Duration = Duration::from_millis(20);

/// Says that no new work is taken, and waits until nobody is sent here any more.
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
    while shared.admission.connections() > 0 && Instant::now() < deadline {
        look.tick().await;
        workers.iter().for_each(|worker| worker.end_idle(QUIET));
    }
    shared.admission.connections()
}
