//! The body of a request, as its caller sends it.

use hyper::body::Incoming;

use super::Replay;

/// The body of a request on its way to an endpoint.
pub(crate) struct Upload(Option<Incoming>);

impl Upload {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self(None)
    }

    /// The body that a caller sends.
    pub(crate) fn new(body: Incoming) -> Self {
        Self((!http_body::Body::is_end_stream(&body)).then_some(body))
    }

    /// The body in a form that several attempts can read; `None` when there is none.
    pub(crate) fn replay(self) -> Option<Replay> {
        self.0.map(Replay::new)
    }
}
