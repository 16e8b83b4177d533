//! The body of a request, as its caller sends it.

use super::Replay;
use crate::http::server::RequestBody;

/// The body of a request on its way to an endpoint.
pub(crate) struct Upload(Option<RequestBody>);

impl Upload {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self(None)
    }

    /// The body that a caller sends.
    pub(crate) fn new(body: RequestBody) -> Self {
        Self((!http_body::Body::is_end_stream(&body)).then_some(body))
    }

    /// The body in a form that several attempts can read; `None` when there is none.
    pub(crate) fn replay(self) -> Option<Replay> {
        self.0.map(Replay::new)
    }
}
