//! API servers that fall silent, refuse, lag behind or send what cannot be read.

mod lagging;
mod peer;
mod refused;
mod silence;
mod stale;

use crate::support::PATIENCE;

/// What `wait` yields; a panic that says `what` if that takes too long.
async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}
