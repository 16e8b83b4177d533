//! The body of a response on its way to a caller of HTTP/1.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::http::{caller::Caller, exchange::Recorded};

/// A response's body. It differs from what the endpoint sends in how it fails.
pub(super) struct CallerBody {
    body: Recorded,
    /// The caller, where the end of its connection is what ends the body.
    by_closing: Option<Arc<Caller>>,
    failed: Option<<Recorded as Body>::Error>,
}

impl CallerBody {
    /// The body of a response; of one that ends with the connection where there is a caller `by_closing`.
    pub(super) fn new(body: Recorded, by_closing: Option<Arc<Caller>>) -> Self {
        if let Some(caller) = &by_closing {
            caller.set_unfinished(!body.is_end_stream());
        }
        Self { body, by_closing, failed: None }
    }

    fn note_end(&self) {
        if let Some(caller) = &self.by_closing
            && self.body.is_end_stream()
        {
            caller.set_unfinished(false);
        }
    }
}

impl Body for CallerBody {
    type Data = Bytes;
    type Error = <Recorded as Body>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Err(error)) => {
                // hyper drops what it has not written yet when a body fails, so it is let write first.
                tracing::debug!(%error, "a response broke off");
                self.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => {
                if let Some(caller) = &self.by_closing {
                    caller.set_unfinished(false);
                }
                Poll::Ready(None)
            }
            frame => {
                self.note_end();
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.failed.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
