//! The body of a response, whatever protocol it comes by.

use std::{
    io,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{ProtocolError, h1, h2};

/// Why the body of a response ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The socket failed.
    #[error("reading the response: {0}")]
    Io(io::Error),
    /// The endpoint closed the connection within the body.
    #[error("the endpoint closed the connection within the response")]
    Truncated,
    /// The endpoint sent what is not a valid body.
    #[error("the response is not valid: {0}")]
    Protocol(ProtocolError),
    /// The stream or the connection of HTTP/2 failed.
    #[error("the stream ended: {0}")]
    Http2(::h2::Error),
}

/// The body of a response.
pub(crate) struct ResponseBody(Source);

enum Source {
    Empty,
    Full(Bytes),
    H1(Box<h1::Body>),
    H2(Box<h2::Body>),
}

impl ResponseBody {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self(Source::Empty)
    }

    /// A body that is here.
    pub(crate) fn full(data: Bytes) -> Self {
        Self(if data.is_empty() { Source::Empty } else { Source::Full(data) })
    }

    pub(super) fn h1(body: h1::Body) -> Self {
        Self(Source::H1(Box::new(body)))
    }

    pub(super) fn h2(body: h2::Body) -> Self {
        Self(Source::H2(Box::new(body)))
    }

    /// All of it is here.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.0, Source::Empty | Source::Full(_))
    }

    /// See [`http_body::Body::poll_frame`].
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Source::Empty => Poll::Ready(None),
            Source::Full(data) => {
                let data = std::mem::take(data);
                self.0 = Source::Empty;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Source::H1(body) => body.poll_frame(cx),
            Source::H2(body) => body.poll_frame(cx),
        }
    }

    /// See [`http_body::Body::is_end_stream`].
    pub(crate) fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Empty => true,
            Source::Full(_) => false,
            Source::H1(body) => body.is_end_stream(),
            Source::H2(body) => body.is_end_stream(),
        }
    }

    /// See [`http_body::Body::size_hint`].
    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Empty => SizeHint::with_exact(0),
            Source::Full(data) => SizeHint::with_exact(data.len() as u64),
            Source::H1(body) => body.size_hint(),
            Source::H2(_) => SizeHint::default(),
        }
    }
}
