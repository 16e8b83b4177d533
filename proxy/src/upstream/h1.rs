//! HTTP/1.1 to an endpoint.
//!
//! [`head`], [`decoder`], [`chunked`] and [`request`] are pure: bytes in, values out. [`connection`] moves bytes between them and a
//! socket, [`writer`] sends a request while its response may already be arriving, [`reader`] reads a response's body.
//!
//! A connection has no task of its own: whoever awaits the response drives it, and then the body of the response does.
//! That saves two wake-ups and a hand-over for each request. Only when a response begins before its request has been
//! sent to its end does the rest of the upload get a task, because then both directions must go on whether or not the
//! caller reads.

mod chunked;
mod connection;
mod decoder;
mod head;
#[cfg(feature = "instructions")]
pub(crate) mod instructions;
pub(crate) mod pieces;
mod reader;
mod request;
#[cfg(test)]
mod tests;
mod writer;

pub(super) use connection::PooledConnection;
pub(crate) use head::ResponseLimits;
pub(super) use {connection::exchange, reader::H1Body};
