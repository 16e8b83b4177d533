//! How a connection ends, so that its caller can read what it was sent.
//!
//! Closing a socket on which bytes arrive makes the system reset the connection, and throw away what it has not sent yet. Callers
//! of HTTP/1.1 may still send the rest of an upload, those of HTTP/2 the WINDOW_UPDATEs for their last response.

use std::{future::poll_fn, time::Duration};

use bytes::BytesMut;
use tokio::time::{Instant, timeout_at};

use super::CallerIo;

/// How long what a caller still sends is discarded before its connection is closed: since its last byte, and in all.
const LINGER_SILENCE: Duration = Duration::from_secs(2);
const LINGER: Duration = Duration::from_secs(30);

/// Bytes that are discarded at most.
const LINGER_BYTES: u64 = 64 << 20;

/// Room for what is discarded: at first, since most callers send nothing more, and once it was filled.
const LITTLE: usize = 512;
const MUCH: usize = 16 * 1024;

/// Ends this side, and reads and discards what the caller still sends, so that the caller can read its response.
pub(super) async fn linger(io: CallerIo) {
    let socket = io.socket();
    drop(io);
    let end = Instant::now() + LINGER;
    let (mut scratch, mut discarded, mut is_ended) = (BytesMut::with_capacity(LITTLE), 0, false);
    while discarded < LINGER_BYTES {
        let deadline = end.min(Instant::now() + LINGER_SILENCE);
        let read = poll_fn(|cx| {
            // The rest of the response is written first. Reading goes on meanwhile: some callers read only once they
            // have sent everything.
            is_ended = is_ended || socket.poll_end(cx).is_ready();
            if scratch.len() == scratch.capacity() {
                scratch.reserve(MUCH);
            }
            scratch.clear();
            socket.poll_read_into(cx, &mut scratch)
        });
        match timeout_at(deadline, read).await {
            Ok(Ok(read @ 1..)) => discarded += read as u64,
            _ => return,
        }
    }
}
