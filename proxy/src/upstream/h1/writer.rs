//! Sending a request, while its response may already be arriving.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};

use super::{
    chunked,
    request::{RequestFraming, head},
};
use crate::upstream::{
    OutboundRequest,
    link::Link,
    upload::{StuckTimer, Upload, discard},
};

/// Why a request could not be sent to its end.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The caller's body is malformed or ended early.
    Upload,
    /// The endpoint takes no more. It may have answered before.
    Socket(io::Error),
}

/// A request on its way to a socket. Holds one piece of the body at a time.
pub(super) struct Writer<U> {
    upload: Option<U>,
    framing: RequestFraming,
    /// Bytes that the framing still allows.
    left: u64,
    /// The head, or what precedes the data.
    prefix: Vec<u8>,
    /// How much of `prefix` was written.
    written: usize,
    data: Bytes,
    /// What follows the data.
    suffix: &'static [u8],
    /// Bytes that were sent.
    sent: u64,
}

impl<U: Upload> Writer<U> {
    /// A request of which nothing was sent.
    pub(super) fn new(ask: &OutboundRequest<'_>, upload: Option<U>) -> Self {
        let framing =
            upload.as_ref().map_or(RequestFraming::Empty, |upload| RequestFraming::of(upload.size_hint().exact()));
        let mut prefix = Vec::new();
        head(ask.head, ask.added, framing, &mut prefix);
        let left = if let RequestFraming::Length(length) = framing { length } else { 0 };
        Self { upload, framing, left, prefix, written: 0, data: Bytes::new(), suffix: b"", sent: 0 }
    }

    /// Sends what can be sent. Ready once the socket, or the outbox, has everything; may be polled again then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, socket: &Link) -> Poll<Result<(), WriteError>> {
        loop {
            let mut waits = false;
            if self.data.is_empty() && self.suffix.is_empty() && self.upload.is_some() {
                // Before anything is written, so that a head and a body that is here leave with one system call.
                match self.pull(cx) {
                    Poll::Ready(pulled) => pulled?,
                    Poll::Pending => waits = true,
                }
            }
            if self.has_remaining() {
                ready!(self.poll_write(cx, socket)).map_err(WriteError::Socket)?;
            } else if waits {
                // What was put aside may have got stuck.
                ready!(socket.poll_flushed(cx)).map_err(WriteError::Socket)?;
                return Poll::Pending;
            } else if self.upload.is_none() {
                return socket.poll_flushed(cx).map_err(WriteError::Socket);
            }
        }
    }

    /// Everything was handed to the socket.
    pub(super) fn is_done(&self) -> bool {
        self.upload.is_none() && !self.has_remaining()
    }

    /// Goes on until everything is sent, whatever becomes of the response; or until the caller is gone, or nothing moves.
    /// What the endpoint no longer takes is read and dropped.
    pub(super) async fn finish(mut self, socket: Link, mut stuck: StuckTimer) {
        let sent = std::future::poll_fn(|cx| {
            if let Poll::Ready(sent) = self.poll(cx, &socket) {
                return Poll::Ready(sent);
            }
            if self.upload.as_mut().is_some_and(|upload| upload.poll_gone(cx).is_ready()) {
                return Poll::Ready(Err(WriteError::Upload));
            }
            ready!(stuck.poll(cx, self.sent));
            socket.close();
            Poll::Ready(Err(WriteError::Socket(io::ErrorKind::TimedOut.into())))
        });
        match sent.await {
            // What the outbox could not send would stay, because nobody else asks. An error shows to whoever reads the response.
            Ok(()) => drop(std::future::poll_fn(|cx| socket.poll_drained(cx)).await),
            Err(WriteError::Upload) => socket.close(),
            Err(WriteError::Socket(_)) => self.discard().await,
        }
    }

    /// Reads the rest of the upload and drops it.
    pub(super) async fn discard(self) {
        if let Some(upload) = self.upload {
            discard(upload).await;
        }
    }

    /// Takes the next piece of the body.
    fn pull(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        let Some(upload) = &mut self.upload else { return Poll::Ready(Ok(())) };
        let frame = match ready!(Pin::new(&mut *upload).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return Poll::Ready(Err(WriteError::Upload)),
            None => return Poll::Ready(self.end(None)),
        };
        let ended = upload.is_end_stream();
        match frame.into_data() {
            Ok(data) => self.take(data)?,
            Err(frame) => return Poll::Ready(self.end(frame.into_trailers().ok().as_ref())),
        }
        // Known early where there is a length, and then the connection is free earlier.
        if ended && self.framing != RequestFraming::Chunked {
            return Poll::Ready(self.end(None));
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, data: Bytes) -> Result<(), WriteError> {
        self.recycle();
        if self.framing == RequestFraming::Chunked {
            if !data.is_empty() {
                chunked::size_line(data.len(), &mut self.prefix);
                self.suffix = b"\r\n";
            }
        } else {
            // Never more than was announced: it would be read as the next request.
            self.left = self.left.checked_sub(data.len() as u64).ok_or(WriteError::Upload)?;
        }
        self.data = data;
        Ok(())
    }

    fn end(&mut self, trailers: Option<&http::HeaderMap>) -> Result<(), WriteError> {
        self.upload = None;
        match self.framing {
            RequestFraming::Chunked => {
                self.recycle();
                chunked::end(trailers, &mut self.prefix);
            }
            RequestFraming::Length(_) if self.left > 0 => return Err(WriteError::Upload),
            RequestFraming::Length(_) | RequestFraming::Empty => {}
        }
        Ok(())
    }

    /// Makes room in `prefix` once it was written.
    fn recycle(&mut self) {
        if self.written == self.prefix.len() {
            self.prefix.clear();
            self.written = 0;
        }
    }

    fn has_remaining(&self) -> bool {
        self.written < self.prefix.len() || !self.data.is_empty() || !self.suffix.is_empty()
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, socket: &Link) -> Poll<io::Result<()>> {
        let prefix = &self.prefix[self.written..];
        let parts = [IoSlice::new(prefix), IoSlice::new(&self.data), IoSlice::new(self.suffix)];
        let mut sent = ready!(socket.poll_write_parts(cx, &parts))?;
        self.sent += sent as u64;
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_prefix = sent.min(prefix.len());
        self.written += of_prefix;
        sent -= of_prefix;
        let of_data = sent.min(self.data.len());
        self.data.advance(of_data);
        self.suffix = &self.suffix[sent - of_data..];
        Poll::Ready(Ok(()))
    }
}
