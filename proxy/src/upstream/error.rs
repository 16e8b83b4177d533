//! Why an attempt at an endpoint yielded no response.

use std::io;

use crate::connect::ConnectError;

/// Why one attempt yielded no response. Each variant says whether the endpoint may have acted on the request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No connection was made: nothing was sent.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection had ended before any byte of the request was sent.
    #[error("the connection had ended before the request was sent")]
    Unsent,
    /// HTTP/2 says that the endpoint did not look at the request.
    #[error("the endpoint refused the stream: {0}")]
    Refused(maesh_http2::Error),
    /// The connection or stream ended before the response began. The endpoint may have seen the request.
    #[error("the connection ended before the response began: {source}")]
    Closed {
        /// What was seen.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// The connection had carried a request before: the endpoint may have closed it for being idle.
        reused: bool,
    },
    /// The endpoint answered what is not valid HTTP.
    #[error("the response is not valid: {0}")]
    Protocol(ProtocolError),
    /// No response began in the time that one try may take. The endpoint may be at work on the request.
    #[error("no response began in time")]
    TimedOut,
    /// The caller's own body was malformed or ended early.
    #[error("the body of the request is malformed or ended early")]
    Upload,
}

impl Failure {
    /// The connection ended with an error of the socket.
    pub(super) fn closed(error: io::Error, reused: bool) -> Self {
        Self::Closed { source: Box::new(error), reused }
    }
}

impl From<ProtocolError> for Failure {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

/// What is wrong with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    /// Status line or fields cannot be parsed.
    #[error("malformed head")]
    Head,
    /// The head is larger than the limit.
    #[error("head too large")]
    HeadTooLarge,
    /// The head has more fields than the limit.
    #[error("too many fields")]
    TooManyFields,
    /// Content-Length is malformed, or there are several different ones.
    #[error("malformed or contradictory Content-Length")]
    ContentLength,
    /// A transfer coding other than chunked.
    #[error("unknown transfer coding")]
    TransferCoding,
    /// A chunk cannot be parsed.
    #[error("malformed chunk")]
    Chunk,
    /// Chunk extensions are larger than the limit.
    #[error("chunk extensions too large")]
    ChunkExtensions,
    /// Trailers cannot be parsed, or are larger than the limit.
    #[error("malformed or too large trailers")]
    Trailers,
    /// More interim responses than anybody needs.
    #[error("too many interim responses")]
    Interim,
    /// 101 although nobody asked to leave HTTP, or before the request was sent to its end.
    #[error("switched protocols unasked, or before the request was sent to its end")]
    Unasked,
    /// 101 in HTTP/1.0, or without saying for what.
    #[error("switched protocols in HTTP/1.0, or without Upgrade")]
    Upgrade,
    /// WebSocket over HTTP/2, which the endpoint has not said to allow (RFC 8441 section 3).
    #[error("the endpoint does not allow extended CONNECT, which WebSocket over HTTP/2 needs")]
    NoExtendedConnect,
    /// A frame or a head that HTTP/2 does not allow.
    #[error("HTTP/2 protocol error")]
    Http2,
}
