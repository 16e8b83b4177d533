//! The bytes of a connection, in which the frames that the endpoint sends are followed.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBufCursor, Write};

use crate::{
    clock::Clock,
    http2::{FrameBounds, FrameBudget},
    upstream::link::Link,
};

/// A connection, of which the frames are followed. It fails once the endpoint has sent too many frames that do no work.
pub(super) struct EndpointIo {
    link: Link,
    frames: FrameBounds,
    budget: Arc<FrameBudget>,
    clock: Clock,
}

impl EndpointIo {
    /// A connection on which nothing was said.
    pub(super) fn new(link: Link, budget: Arc<FrameBudget>, clock: Clock) -> Self {
        Self { link, frames: FrameBounds::of_endpoint(), budget, clock }
    }
}

impl Read for EndpointIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let Self { link, frames, budget, clock } = &mut *self;
        ready!(link.poll_fill(cx, &mut buf, |bytes| {
            frames.pass(bytes);
            bytes.len()
        }))?;
        budget.received(frames.take_counts(), clock.coarse());
        if budget.is_exhausted() {
            return Poll::Ready(Err(io::Error::other("the endpoint sends too many HTTP/2 frames that do no work")));
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for EndpointIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.link).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.link).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_shutdown(cx)
    }
}
