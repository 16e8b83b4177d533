//! Sending a request's body on a stream, while the response may already be arriving.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use maesh_http2::{Reason, SendStream};

use crate::{
    http2::FrameBudget,
    upstream::upload::{StuckTimer, Upload, discard},
};

/// A body on its way. Holds one piece of it at a time.
pub(super) struct Uploading<U> {
    send: SendStream,
    upload: U,
    data: Bytes,
    frames: Arc<FrameBudget>,
    /// Bytes that were sent.
    sent: u64,
    /// The endpoint takes no more of it.
    refused: bool,
}

impl<U: Upload> Uploading<U> {
    /// A body of which nothing was sent. `frames`: those of its connection.
    pub(super) fn new(send: SendStream, upload: U, frames: Arc<FrameBudget>) -> Self {
        Self { send, upload, data: Bytes::new(), frames, sent: 0, refused: false }
    }

    /// Sends what can be sent. Ready once everything was handed on, or with an error where the caller's body failed. An
    /// endpoint that takes no more may have answered before, so that is no error, and it is never ready then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        while !self.refused {
            if !self.data.is_empty() {
                match ready!(self.send.poll_send(cx, &mut self.data, false)) {
                    Ok(sent) => {
                        self.sent += sent as u64;
                        self.frames.sent(sent);
                    }
                    Err(_) => self.refused = true,
                }
                continue;
            }
            let Poll::Ready(frame) = Pin::new(&mut self.upload).poll_frame(cx) else {
                // While there is nothing to send, nothing else tells that the endpoint wants no more.
                self.refused = self.send.poll_reset(cx).is_ready();
                if self.refused {
                    break;
                }
                return Poll::Pending;
            };
            match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
                Some(Ok(Ok(data))) => self.data = data,
                Some(Ok(Err(frame))) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        // It fails only where the stream is over.
                        let _ = self.send.send_trailers(&trailers);
                    }
                    return Poll::Ready(Ok(()));
                }
                Some(Err(_)) => {
                    self.send.reset(Reason::CANCEL);
                    return Poll::Ready(Err(()));
                }
                None => {
                    let _ = self.send.end();
                    return Poll::Ready(Ok(()));
                }
            }
        }
        Poll::Pending
    }

    /// Goes on until everything is sent, whatever becomes of the response; or until the caller is gone, or nothing moves.
    /// What the endpoint no longer takes is read and dropped, within bounds, because a caller may not read the response
    /// before everything is sent.
    pub(super) async fn finish(mut self, mut stuck: StuckTimer) {
        std::future::poll_fn(|cx| {
            if self.poll(cx).is_ready() || self.refused {
                return Poll::Ready(());
            }
            if self.upload.poll_gone(cx).is_ready() {
                self.send.reset(Reason::CANCEL);
                return Poll::Ready(());
            }
            ready!(stuck.poll(cx, self.sent));
            self.send.reset(Reason::CANCEL);
            self.refused = true;
            Poll::Ready(())
        })
        .await;
        if self.refused {
            discard(self.upload).await;
        }
    }
}
