//! Requests that wait for a place among those in flight.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tokio::sync::Notify;

/// Who waits at one backend port.
#[derive(Debug, Default)]
pub(crate) struct WaitingRequests {
    count: AtomicU32,
    /// Wakes the one that has waited longest.
    free: Notify,
}

/// One request that waits; over when dropped.
pub(crate) struct WaitingRequest(Arc<WaitingRequests>);

impl WaitingRequests {
    /// Waits too, unless `most` wait already.
    pub(crate) fn enter(self: &Arc<Self>, most: u32) -> Option<WaitingRequest> {
        if self.count.fetch_add(1, Ordering::AcqRel) >= most {
            self.count.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(WaitingRequest(self.clone()))
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether any request waits.
    pub(crate) fn is_waiting(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// A place is free.
    pub(crate) fn wake_one(&self) {
        if self.count.load(Ordering::Acquire) > 0 {
            self.free.notify_one();
        }
    }
}

impl WaitingRequest {
    /// Waits until a place may be free.
    pub(crate) async fn turn(&self) {
        self.0.free.notified().await;
    }
}

impl Drop for WaitingRequest {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
    }
}
