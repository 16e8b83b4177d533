//! HTTP/2 (RFC 9113) without I/O.

mod hpack;

#[doc(hidden)]
pub use hpack::HeaderCompression;
