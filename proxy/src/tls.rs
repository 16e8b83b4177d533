//! What can be known of a TLS stream without taking part in it.
//!
//! TLS is never terminated here: on a port that several Services share, the server name that the caller sends in the
//! clear decides to which of them its stream goes, untouched.

pub mod sni;

use std::io;

use bytes::BytesMut;
use sni::Hello;
use tokio::io::{AsyncRead, AsyncReadExt};

/// How a caller opens a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// TLS for this server name: lower case, no trailing dot.
    Named(Box<str>),
    /// TLS without a name that could be used.
    Unnamed,
    /// Something else.
    NotTls,
    /// It ended before this could be told.
    Ended,
}

/// Reads from `caller` until it is known whether it opens a TLS stream, and for which name. What was read is in `first`:
/// at most [`sni::LONGEST`] bytes and one read more. Waits for as long as the caller does; put a timeout around it.
/// `fits` says whether so many bytes may be held; if not, the connection counts as ended.
///
/// # Errors
/// The socket's own, a reset above all.
pub async fn read_opening(
    caller: &mut (impl AsyncRead + Unpin),
    first: &mut BytesMut,
    mut fits: impl FnMut(usize) -> bool,
) -> io::Result<Opening> {
    loop {
        let ended = caller.read_buf(first).await? == 0;
        match sni::read(first) {
            Hello::Named(name) => return Ok(Opening::Named(name)),
            Hello::Unnamed => return Ok(Opening::Unnamed),
            Hello::NotTls => return Ok(Opening::NotTls),
            Hello::Incomplete if ended || !fits(first.len()) => return Ok(Opening::Ended),
            // A hello that does not fit gets room for the longest one at once.
            Hello::Incomplete if first.len() == first.capacity() => first.reserve(sni::LONGEST),
            Hello::Incomplete => {}
        }
    }
}

#[cfg(test)]
mod tests;
