//! HTTP/2 (RFC 9113) without I/O, for a proxy: both sides, with prior knowledge or after ALPN.
//!
//! [`Session`] is a connection: whoever owns the socket gives it the bytes that arrive and writes the bytes that it has.
//! [`RecvStream`] and [`SendStream`] are the two halves of a stream, which tasks of their own may hold; [`Sender`] opens streams
//! of a client. Nothing here reads a clock, and nothing sleeps.
//!
//! What is bounded here: the bytes that a peer may send before they are read (windows), heads, header blocks that never end,
//! the compression table, streams, resets of streams that nobody has seen yet, bytes that wait to be written. What is not:
//! frames that do no work, such as PING and empty DATA. Whoever reads the socket counts those.
//!
//! Left out on purpose: server push, priorities, and frames larger than 16 KiB.

mod connection;
mod error;
mod frame;
mod handles;
mod head;
mod hpack;
mod output;
mod parser;
mod settings;
mod stream;
mod streams;
mod window;

// For the fuzzer.
#[doc(hidden)]
pub use self::hpack::HeaderCompression;
pub use self::{
    connection::Next,
    error::{Error, Initiator, Reason},
    frame::PREFACE,
    handles::{RecvStream, SendStream, Sender, Session, WindowMeter},
    head::{MoreField, Protocol},
    settings::Config,
};
