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
    /// The time that the request may take is over.
    #[error("the time of the request is over")]
    TimedOut,
    /// The caller is admitted no more.
    #[error("access control admits the caller no more")]
    Denied,
    /// The stream or the connection of HTTP/2 failed.
    #[error("the stream ended: {0}")]
    Http2(maesh_http2::Error),
}

/// The body of a response.
pub(crate) struct ResponseBody(ResponseSource);

enum ResponseSource {
    Empty,
    Full(Bytes),
    H1(Box<h1::H1Body>),
    H2(Box<h2::H2Body>),
}

impl ResponseBody {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self(ResponseSource::Empty)
    }

    /// A body that is here.
    pub(crate) fn full(data: Bytes) -> Self {
        Self(if data.is_empty() { ResponseSource::Empty } else { ResponseSource::Full(data) })
    }

    pub(super) fn h1(body: h1::H1Body) -> Self {
        Self(ResponseSource::H1(Box::new(body)))
    }

    pub(super) fn h2(body: h2::H2Body) -> Self {
        Self(ResponseSource::H2(Box::new(body)))
    }

    /// All of it is here.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.0, ResponseSource::Empty | ResponseSource::Full(_))
    }

    /// Bytes that were read from the endpoint and not asked for yet, as far as they are not in a window of HTTP/2.
    pub(crate) fn buffered(&self) -> usize {
        match &self.0 {
            ResponseSource::H1(body) => body.buffered(),
            ResponseSource::Empty | ResponseSource::Full(_) | ResponseSource::H2(_) => 0,
        }
    }

    /// See [`http_body::Body::poll_frame`].
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            ResponseSource::Empty => Poll::Ready(None),
            ResponseSource::Full(data) => {
                let data = std::mem::take(data);
                self.0 = ResponseSource::Empty;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            ResponseSource::H1(body) => body.poll_frame(cx),
            ResponseSource::H2(body) => body.poll_frame(cx),
        }
    }

    /// See [`http_body::Body::is_end_stream`].
    pub(crate) fn is_end_stream(&self) -> bool {
        match &self.0 {
            ResponseSource::Empty => true,
            ResponseSource::Full(_) => false,
            ResponseSource::H1(body) => body.is_end_stream(),
            ResponseSource::H2(body) => body.is_end_stream(),
        }
    }

    /// See [`http_body::Body::size_hint`].
    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.0 {
            ResponseSource::Empty => SizeHint::with_exact(0),
            ResponseSource::Full(data) => SizeHint::with_exact(data.len() as u64),
            ResponseSource::H1(body) => body.size_hint(),
            ResponseSource::H2(_) => SizeHint::default(),
        }
    }
}
