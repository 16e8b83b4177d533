//! The caller's side of a tunnel: a whole connection of HTTP/1.1, or one stream of HTTP/2.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use hyper_util::rt::TokioIo;
use maesh_http2::{Reason, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    http::server::{CallerIo, Received, StreamEntry},
    socket::DisconnectWatch,
};

/// The caller's side of a tunnel.
pub(crate) enum CallerSide {
    /// A connection, and what was already read from it.
    Connection(Box<TokioIo<CallerIo>>, Bytes),
    /// A stream.
    Stream(Box<StreamSide>),
}

/// A stream of HTTP/2 that carries bytes.
pub(crate) struct StreamSide {
    send: SendStream,
    received: Received,
    /// What was received and not read yet.
    unread: Bytes,
    slot: Arc<StreamEntry>,
}

impl CallerSide {
    /// A connection from which `unread` was already read.
    pub(crate) fn connection(io: TokioIo<CallerIo>, unread: Bytes) -> Self {
        Self::Connection(Box::new(io), unread)
    }

    /// A stream.
    pub(crate) fn stream(stream: StreamSide) -> Self {
        Self::Stream(Box::new(stream))
    }

    /// To be told when the connection breaks, where it is one.
    pub(super) fn broken(&self) -> Option<DisconnectWatch> {
        match self {
            Self::Connection(io, _) => Some(io.inner().broken()),
            Self::Stream(_) => None,
        }
    }

    /// Lets the caller see that the endpoint's side ended with a reset (RFC 8441 section 5).
    pub(super) fn reset(&mut self) {
        match self {
            Self::Connection(io, _) => io.inner().socket().reset_on_close(),
            Self::Stream(stream) => stream.send.reset(Reason::CANCEL),
        }
    }

    /// Ready once the caller's stream was reset, or is given up, whether or not anybody reads from it.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self::Stream(stream) = self else { return Poll::Pending };
        if stream.slot.poll_given_up(cx).is_ready() {
            stream.send.reset(Reason::ENHANCE_YOUR_CALM);
            return Poll::Ready(());
        }
        stream.send.poll_reset(cx).map(|_| ())
    }
}

impl StreamSide {
    pub(crate) fn new(send: SendStream, received: Received, slot: Arc<StreamEntry>) -> Self {
        Self { send, received, unread: Bytes::new(), slot }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.received.poll_read(cx)) {
                Some(Ok(data)) => self.unread = data,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        give(&mut self.unread, buf);
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let length = ready!(self.send.poll_write(cx, bytes)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.received.was_sent(length);
        Poll::Ready(Ok(length))
    }
}

impl AsyncRead for CallerSide {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Connection(io, unread) if unread.is_empty() => Pin::new(io).poll_read(cx, buf),
            Self::Connection(_, unread) => {
                give(unread, buf);
                Poll::Ready(Ok(()))
            }
            Self::Stream(stream) => stream.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for CallerSide {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Connection(io, _) => Pin::new(io).poll_write(cx, bytes),
            Self::Stream(stream) => stream.poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Connection(io, _) => Pin::new(io).poll_flush(cx),
            Self::Stream(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Connection(io, _) => Pin::new(io).poll_shutdown(cx),
            Self::Stream(stream) => {
                // It fails only where the stream is over.
                let _ = stream.send.end();
                Poll::Ready(Ok(()))
            }
        }
    }
}

fn give(from: &mut Bytes, buf: &mut ReadBuf<'_>) {
    let length = from.len().min(buf.remaining());
    buf.put_slice(&from[..length]);
    from.advance(length);
}
