//! A connection, or a stream of HTTP/2, that left HTTP: bytes both ways.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use hyper_util::rt::TokioIo;
use maesh_http2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{h2::StreamGuard, link::Link};
use crate::socket::DisconnectWatch;

/// The endpoint's side of an exchange that left HTTP.
pub(crate) struct Upgraded(Transport);

enum Transport {
    /// A connection of HTTP/1.1, and what the endpoint already said on it.
    Socket(TokioIo<Link>, Bytes),
    /// A stream of HTTP/2.
    Stream(Box<UpgradedStream>),
}

struct UpgradedStream {
    send: SendStream,
    recv: RecvStream,
    /// What was received and not read yet.
    received: Bytes,
    guard: StreamGuard,
}

impl Upgraded {
    pub(super) fn of_socket(socket: Link, first: Bytes) -> Self {
        Self(Transport::Socket(TokioIo::new(socket), first))
    }

    pub(super) fn of_stream(send: SendStream, recv: RecvStream, guard: StreamGuard) -> Self {
        Self(Transport::Stream(Box::new(UpgradedStream { send, recv, received: Bytes::new(), guard })))
    }
}

impl Upgraded {
    /// To be told when the connection breaks, where it is one.
    pub(crate) fn broken(&self) -> Option<DisconnectWatch> {
        match &self.0 {
            Transport::Socket(socket, _) => Some(socket.inner().broken()),
            Transport::Stream(_) => None,
        }
    }

    /// Lets the endpoint see that the caller's side ended with a reset (RFC 8441 section 5).
    pub(crate) fn reset(&mut self) {
        match &mut self.0 {
            Transport::Socket(socket, _) => socket.inner().reset_on_close(),
            Transport::Stream(stream) => stream.send.reset(Reason::CANCEL),
        }
    }

    /// Ready once the endpoint has reset the stream, whether or not anybody reads from it.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Transport::Socket(..) => Poll::Pending,
            Transport::Stream(stream) => stream.send.poll_reset(cx).map(drop),
        }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Transport::Socket(socket, first) if first.is_empty() => Pin::new(socket).poll_read(cx, buf),
            Transport::Socket(_, first) => {
                give(first, buf);
                Poll::Ready(Ok(()))
            }
            Transport::Stream(stream) => stream.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Transport::Socket(socket, _) => Pin::new(socket).poll_write(cx, bytes),
            Transport::Stream(stream) => stream.poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Transport::Socket(socket, _) => Pin::new(socket).poll_flush(cx),
            Transport::Stream(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Transport::Socket(socket, _) => Pin::new(socket).poll_shutdown(cx),
            Transport::Stream(stream) => {
                // It fails only where the stream is over.
                let _ = stream.send.end();
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl UpgradedStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.received.is_empty() {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => self.received = data,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let given = give(&mut self.received, buf);
        // Only what was taken makes room for more.
        self.recv.release(given);
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let length = ready!(self.send.poll_write(cx, bytes)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.guard.frames().sent(length);
        Poll::Ready(Ok(length))
    }
}

fn give(from: &mut Bytes, buf: &mut ReadBuf<'_>) -> usize {
    let length = from.len().min(buf.remaining());
    buf.put_slice(&from[..length]);
    from.advance(length);
    length
}
