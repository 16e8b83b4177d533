//! The body of a response on its way to a caller of HTTP/1.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};

use crate::http::{
    caller::Caller,
    charge::{self, ChargedPiece, ConnectionCharge},
    exchange::Recorded,
};

/// A response's body. It differs from what the endpoint sends in how it fails.
pub(super) struct CallerBody {
    body: Recorded,
    caller: Arc<Caller>,
    /// What was read from the endpoint and not asked for yet.
    held: Option<Box<ConnectionCharge>>,
    /// The end of the connection is what ends the body.
    by_closing: bool,
    failed: Option<<Recorded as Body>::Error>,
}

impl CallerBody {
    /// The body of a response to `caller`; `by_closing`: the end of the connection is what ends it.
    pub(super) fn new(body: Recorded, caller: &Arc<Caller>, by_closing: bool) -> Self {
        if by_closing {
            caller.set_unfinished(!body.is_end_stream());
        }
        Self { body, caller: caller.clone(), held: None, by_closing, failed: None }
    }

    fn note_end(&self) {
        if self.by_closing && self.body.is_end_stream() {
            self.caller.set_unfinished(false);
        }
    }
}

impl Body for CallerBody {
    type Data = ChargedPiece;
    type Error = <Recorded as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<ChargedPiece>, Self::Error>>> {
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
                if self.by_closing {
                    self.caller.set_unfinished(false);
                }
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                self.note_end();
                let this = &mut *self;
                charge::hold(&mut this.held, &this.caller, this.body.buffered());
                Poll::Ready(Some(Ok(frame.map_data(|data| charge::charged(data, &this.caller)))))
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
