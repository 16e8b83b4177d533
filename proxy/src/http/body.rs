//! Bodies, both ways.

pub(crate) mod replay;

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

pub(crate) use self::replay::Replay;
use crate::upstream::{BodyError, ResponseBody};

/// The body of a response.
pub(crate) struct Body {
    source: ResponseBody,
}

impl Body {
    /// A body that an endpoint sends.
    pub(crate) fn of(source: ResponseBody) -> Self {
        Self { source }
    }

    /// No body.
    pub(crate) fn empty() -> Self {
        Self::of(ResponseBody::empty())
    }

    /// Bytes that were read from the endpoint and not asked for yet.
    pub(crate) fn buffered(&self) -> usize {
        self.source.buffered()
    }

    /// A body of known bytes.
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self::of(ResponseBody::full(bytes))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.source.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}
