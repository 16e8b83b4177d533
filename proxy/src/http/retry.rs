//! Whether a failed attempt may be made again elsewhere.
//!
//! Two failures say nothing about the request: no connection was made, and a connection that had waited unused, or
//! whose endpoint was just removed, turned out to be closing. Each is tried again once, as long as the endpoint cannot
//! have acted on the request, or acting twice is harmless.

use hyper::Error;

use crate::{connect::ConnectError, reason::Reason};

/// Why one attempt at an endpoint did not yield an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    /// Nothing was sent.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection ended before the answer began.
    #[error("the connection ended before the answer began: {error}")]
    Closed {
        /// What was seen.
        error: Error,
        /// The endpoint cannot have acted on the request.
        unseen: bool,
        /// The connection had waited unused, or its endpoint has left meanwhile.
        stale: bool,
    },
    /// The endpoint answered what is not HTTP.
    #[error("the answer is not valid: {0}")]
    Protocol(Error),
    /// The endpoint switched protocols unasked, or before it had the whole request.
    #[error("the endpoint switched protocols unasked, or before the request was sent to its end")]
    Switched,
    /// The caller's own bytes were at fault.
    #[error("the body of the request is malformed or ended early")]
    Upload,
}

impl AttemptError {
    /// The reason that the caller is told when nothing more is tried.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Connect(error) => error.reason(),
            Self::Closed { .. } => Reason::UpstreamReset,
            Self::Protocol(_) | Self::Switched => Reason::UpstreamProtocol,
            Self::Upload => Reason::BadRequest,
        }
    }

    /// Reads an error of an attempt. `returned`: the request came back as it was; `stale` as in [`Self::Closed`].
    pub(crate) fn of(error: Error, returned: bool, stale: bool) -> Self {
        if error.is_parse() {
            return Self::Protocol(error);
        }
        let (unseen, protocol) = http2_verdict(&error);
        if protocol {
            return Self::Protocol(error);
        }
        // A stream that was refused is refused for this moment only, whatever the connection's age.
        Self::Closed { error, unseen: returned || unseen, stale: stale || unseen }
    }
}

/// Whether a failure concerns one stream, and not the connection of HTTP/2 below it.
pub(crate) fn is_of_stream(error: &Error) -> bool {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.filter_map(|cause| cause.downcast_ref::<h2::Error>()).any(h2::Error::is_reset)
}

/// What HTTP/2 says of a failure: the request was not processed; or the endpoint broke the protocol.
fn http2_verdict(error: &Error) -> (bool, bool) {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            let reason = error.reason();
            let refused = error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM);
            // Streams above the last one of a GOAWAY fail with it; those below go on.
            let gone = error.is_go_away() && error.is_remote() && reason == Some(h2::Reason::NO_ERROR);
            let broken = matches!(
                reason,
                Some(h2::Reason::PROTOCOL_ERROR | h2::Reason::FRAME_SIZE_ERROR | h2::Reason::COMPRESSION_ERROR)
            );
            return (refused || gone, broken && !error.is_remote());
        }
        source = cause.source();
    }
    (false, false)
}

/// Tries that are left for one request.
#[derive(Debug)]
pub(crate) struct Tries {
    connects: u8,
    stale: u8,
}

/// What may be said of a request when it failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Again {
    /// Doing it twice does what doing it once does (RFC 9110 section 9.2.2).
    pub(crate) idempotent: bool,
    /// The request is still, or again, in hand with all of its body.
    pub(crate) in_hand: bool,
}

impl Tries {
    /// What every request has.
    pub(crate) fn new() -> Self {
        Self { connects: 1, stale: 2 }
    }

    /// Whether to try again after `error`; uses up a try.
    pub(crate) fn again(&mut self, error: &AttemptError, request: Again) -> bool {
        let left = match error {
            AttemptError::Connect(_) => &mut self.connects,
            AttemptError::Closed { unseen, stale: true, .. } if *unseen || request.idempotent => &mut self.stale,
            AttemptError::Closed { .. } | AttemptError::Protocol(_) | AttemptError::Switched | AttemptError::Upload => {
                return false;
            }
        };
        if !request.in_hand || *left == 0 {
            return false;
        }
        *left -= 1;
        true
    }
}
