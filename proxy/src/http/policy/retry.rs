//! Whether a failed attempt may be made again.
//!
//! Without any policy, a request is tried once more after failures that say nothing about it: no connection was made;
//! HTTP/2 says that the endpoint did not look at it; or the request is idempotent, and its connection was closed by the
//! endpoint because it had waited unused, or because the endpoint was just removed. A request of which nothing was sent
//! was not tried at all.

use crate::{reason::Reason, upstream::Failure};

/// Times that a request is made again of which nothing was sent. Such a failure costs no try, so this only ends a loop.
const UNSENT: u8 = 8;

/// The reason that the caller is told when nothing more is tried.
pub(in crate::http) fn reason(failure: &Failure) -> Reason {
    match failure {
        Failure::Connect(error) => error.reason(),
        Failure::Unsent | Failure::Refused(_) | Failure::Closed { .. } => Reason::UpstreamReset,
        Failure::Protocol(_) => Reason::UpstreamProtocol,
        Failure::Upload => Reason::BadRequest,
    }
}

/// Whether a failure says something about its endpoint. One that closes a connection because nobody uses it does nothing
/// wrong. `gone`: the endpoint has left its Service.
pub(in crate::http) fn counts_against_endpoint(failure: &Failure, gone: bool) -> bool {
    match failure {
        Failure::Connect(_) | Failure::Protocol(_) => true,
        Failure::Closed { reused, .. } => !reused && !gone,
        Failure::Unsent | Failure::Refused(_) | Failure::Upload => false,
    }
}

/// What may be said of a request when it failed.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Request {
    /// Doing it twice does what doing it once does (RFC 9110 section 9.2.2).
    pub(in crate::http) idempotent: bool,
    /// All of its body is still here.
    pub(in crate::http) replayable: bool,
    /// The endpoint has left its Service meanwhile.
    pub(in crate::http) gone: bool,
}

/// How a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum RetryKind {
    /// On another endpoint, if there is one.
    Elsewhere,
    /// On a connection that is new.
    Anew,
}

/// Tries that are left for one request.
#[derive(Debug)]
pub(in crate::http) struct RetriesLeft {
    connects: u8,
    closed: u8,
    unsent: u8,
}

impl RetriesLeft {
    /// What every request has.
    pub(in crate::http) fn new() -> Self {
        Self { connects: 1, closed: 1, unsent: UNSENT }
    }

    /// Whether and how to try again after `failure`; uses up a try.
    pub(in crate::http) fn again(&mut self, failure: &Failure, request: Request) -> Option<RetryKind> {
        let (left, again) = match failure {
            Failure::Connect(_) => (&mut self.connects, RetryKind::Elsewhere),
            Failure::Unsent => (&mut self.unsent, RetryKind::Anew),
            Failure::Refused(_) => (&mut self.closed, RetryKind::Anew),
            Failure::Closed { reused, .. } if (*reused || request.gone) && request.idempotent => {
                (&mut self.closed, RetryKind::Anew)
            }
            Failure::Closed { .. } | Failure::Protocol(_) | Failure::Upload => return None,
        };
        *left = left.checked_sub(1).filter(|_| request.replayable)?;
        Some(again)
    }
}

#[cfg(test)]
mod tests {
    use std::{io, net::SocketAddr, sync::Arc};

    use super::*;
    use crate::{connect::ConnectError, upstream::ProtocolError};

    fn connect() -> Failure {
        let to = SocketAddr::from(([10, 0, 0, 1], 80));
        ConnectError::Failed { to, source: Arc::new(io::ErrorKind::ConnectionRefused.into()) }.into()
    }

    fn closed(reused: bool) -> Failure {
        Failure::Closed { source: Box::new(io::Error::from(io::ErrorKind::ConnectionReset)), reused }
    }

    #[test]
    fn what_is_tried_again() {
        use RetryKind::{Anew, Elsewhere};
        let plain = Request { idempotent: false, replayable: true, gone: false };
        let idempotent = Request { idempotent: true, ..plain };
        let refused = || Failure::Refused(h2::Reason::REFUSED_STREAM.into());
        for (case, failure, request, want) in [
            ("no connection", connect(), plain, &[Some(Elsewhere), None][..]),
            ("no connection, and the body is gone", connect(), Request { replayable: false, ..plain }, &[None]),
            ("nothing was sent", Failure::Unsent, plain, &[Some(Anew), Some(Anew), Some(Anew)]),
            ("refused by HTTP/2", refused(), plain, &[Some(Anew), None]),
            ("closed while unused", closed(true), idempotent, &[Some(Anew), None]),
            ("closed while unused, not idempotent", closed(true), plain, &[None]),
            ("closed though new", closed(false), idempotent, &[None]),
            ("closed by one that left", closed(false), Request { gone: true, ..idempotent }, &[Some(Anew)]),
            ("not HTTP", Failure::Protocol(ProtocolError::Head), idempotent, &[None]),
            ("the caller's fault", Failure::Upload, idempotent, &[None]),
        ] {
            let mut tries = RetriesLeft::new();
            for want in want {
                assert_eq!(tries.again(&failure, request), *want, "{case}");
            }
        }
    }

    #[test]
    fn an_idle_connection_that_closes_says_nothing_about_its_endpoint() {
        for (case, failure, gone, want) in [
            ("no connection", connect(), false, true),
            ("closed while unused", closed(true), false, false),
            ("closed though new", closed(false), false, true),
            ("closed by one that left", closed(false), true, false),
            ("nothing was sent", Failure::Unsent, false, false),
            ("not HTTP", Failure::Protocol(ProtocolError::Chunk), false, true),
            ("the caller's fault", Failure::Upload, false, false),
        ] {
            assert_eq!(counts_against_endpoint(&failure, gone), want, "{case}");
        }
    }
}
