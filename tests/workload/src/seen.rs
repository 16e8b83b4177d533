//! What a pod says of itself and of its caller. Who it is comes from the environment: POD, NAMESPACE, NODE.

use std::env;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The part of every answer that all protocols have.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) pod: String,
    pub(crate) namespace: String,
    pub(crate) node: String,
    /// Address that the connection or datagram came from.
    pub(crate) source: String,
}

/// What is seen of a caller at `from`.
pub(crate) fn seen(from: SocketAddr) -> Seen {
    let named = |name: &str| env::var(name).unwrap_or_default();
    Seen {
        pod: named("POD"),
        namespace: named("NAMESPACE"),
        node: named("NODE"),
        source: from.ip().to_canonical().to_string(),
    }
}
