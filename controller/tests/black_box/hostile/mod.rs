//! API servers that fall silent, refuse, lag behind or send what cannot be read.

mod lagging;
mod peer;
mod refused;
mod silence;
mod stale;

use std::time::Duration;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `wait` yields; a panic that says `what` if that takes too long.
async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}
