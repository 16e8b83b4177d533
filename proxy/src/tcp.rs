//! Opaque streams: bytes carried between a caller and an endpoint, unread.
//!
//! Picking the endpoint, dialling it and counting are done by the listener; here is only the carrying, because it is
//! what a bulk stream pays for. It must never invent an end: a half-close on one side is a half-close on the other, a
//! reset a reset.

use std::{io, time::Duration};

use bytes::Bytes;
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// How a relayed stream went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// Bytes carried from the caller to the endpoint.
    pub to_endpoint: u64,
    /// Bytes carried from the endpoint to the caller.
    pub to_caller: u64,
    /// Why it ended.
    pub end: End,
}

/// Why a relayed stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides said that they are done.
    Closed,
    /// The caller reset the connection; so was the endpoint's.
    CallerReset,
    /// The endpoint reset the connection; so was the caller's.
    EndpointReset,
    /// Both directions were silent for the idle time.
    Idle,
}

/// Carries bytes both ways until both sides are done, one of them resets, or both are silent for `idle`.
///
/// `first_bytes` were already read from the caller and go to the endpoint first. Dropping the future closes both
/// sockets.
pub async fn relay(
    mut caller: TcpStream,
    first_bytes: Bytes,
    mut endpoint: TcpStream,
    idle: Option<Duration>,
) -> Relayed {
    let carried = async {
        endpoint.write_all(&first_bytes).await?;
        tokio::io::copy_bidirectional(&mut caller, &mut endpoint).await
    };
    let limit = idle.unwrap_or(Duration::MAX);
    let (counts, end) = match tokio::time::timeout(limit, carried).await {
        Ok(Ok(counts)) => (counts, End::Closed),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => ((0, 0), End::CallerReset),
        Ok(Err(_)) => ((0, 0), End::EndpointReset),
        Err(_) => ((0, 0), End::Idle),
    };
    Relayed { to_endpoint: counts.0 + first_bytes.len() as u64, to_caller: counts.1, end }
}
