//! The body of a request of HTTP/2, and the place of its stream among those of its connection.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Frame, SizeHint};
use maesh_http2::{Error, RecvStream, WindowMeter};
use parking_lot::Mutex;

use super::Http2Session;
use crate::http::{body::replay, server::body::CallerStream};

/// A stream, as its connection sees it.
#[derive(Default)]
pub(crate) struct StreamEntry {
    /// The window of its upload, for as long as somebody may read that.
    window: Mutex<Option<WindowMeter>>,
    /// Bytes that were read and are kept, in case that another attempt needs them.
    kept: AtomicUsize,
    /// A response has begun: no other attempt is made.
    answered: AtomicBool,
    /// Its response waits for the caller.
    stuck: AtomicBool,
    /// It is to be reset.
    given_up: AtomicBool,
    /// Who resets it.
    waker: AtomicWaker,
}

impl StreamEntry {
    /// A stream whose upload has this window.
    pub(super) fn new(window: Option<WindowMeter>) -> Arc<Self> {
        Arc::new(Self { window: Mutex::new(window), ..Self::default() })
    }

    /// Bytes of the upload that are held: received and not read, or kept for another attempt.
    pub(super) fn held(&self) -> usize {
        let unread = self.window.lock().as_ref().map_or(0, WindowMeter::held);
        unread + self.kept.load(Ordering::Relaxed)
    }

    /// So many bytes were read; returns how many of those that were held no longer are.
    fn was_read(&self, bytes: usize) -> usize {
        if self.answered.load(Ordering::Relaxed) {
            return bytes;
        }
        let kept = self.kept.load(Ordering::Relaxed);
        if kept + bytes > replay::KEPT {
            // Too much to be kept, so that nothing is any more.
            self.answered.store(true, Ordering::Relaxed);
            self.kept.store(0, Ordering::Relaxed);
            return kept + bytes;
        }
        self.kept.store(kept + bytes, Ordering::Relaxed);
        0
    }

    /// A response has begun; returns how many bytes are no longer kept.
    pub(super) fn answered(&self) -> usize {
        self.answered.store(true, Ordering::Relaxed);
        self.kept.swap(0, Ordering::Relaxed)
    }

    /// The response waits for the caller, or no longer does.
    pub(super) fn set_stuck(&self, stuck: bool) {
        self.stuck.store(stuck, Ordering::Relaxed);
    }

    /// Whether the response waits for the caller.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    /// Resets the stream, because it holds too much.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
        self.waker.wake();
    }

    /// The stream is to be reset, or was.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Ready once the stream is to be reset.
    pub(crate) fn poll_given_up(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.is_given_up() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Nobody reads the upload any more.
    fn close(&self) {
        *self.window.lock() = None;
    }
}

/// What a caller sends on a stream.
pub(crate) struct Received {
    stream: RecvStream,
    connection: Arc<Http2Session>,
    slot: Arc<StreamEntry>,
    length: Option<u64>,
    /// Bytes given on for which the caller may not send others yet.
    unreleased: usize,
    data_ended: bool,
}

impl Received {
    pub(super) fn new(
        stream: RecvStream,
        connection: Arc<Http2Session>,
        slot: Arc<StreamEntry>,
        length: Option<u64>,
    ) -> Self {
        Self { stream, connection, slot, length, unreleased: 0, data_ended: false }
    }

    /// Whoever read the last piece has room for another: only now may the caller send it.
    fn release(&mut self) {
        if self.unreleased > 0 {
            let read = std::mem::take(&mut self.unreleased);
            self.stream.release(read);
            self.connection.was_given_on(self.slot.was_read(read));
        }
    }

    /// Bytes that are no body were sent on the stream.
    pub(crate) fn was_sent(&self, bytes: usize) {
        self.connection.caller.frames.sent(bytes);
    }

    /// The stream itself, for what is no body.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        self.release();
        let data = ready!(self.stream.poll_data(cx));
        if let Some(Ok(data)) = &data {
            self.unreleased = data.len();
        }
        Poll::Ready(data)
    }
}

impl CallerStream for Received {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_failed(cx)
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.release();
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.unreleased = data.len();
                    self.length = self.length.map(|length| length.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_at_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let held = self.slot.held();
        self.slot.close();
        self.connection.was_given_on(held.saturating_sub(self.slot.held()));
    }
}
