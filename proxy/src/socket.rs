//! A socket whose small writes wait until the worker has nothing else to do.
//!
//! A worker is woken for many sockets at once and serves one after the other. Writing at once, each of them takes the
//! processor from our code to the kernel's and back, and wakes its peer by itself. Instead what is to be written is
//! put aside, and one task, queued behind all those that are ready, sends everything in a row: the same system calls,
//! for about a third less of the kernel's time. A worker that serves a single request writes no later than before.
//!
//! On a thread without an [`outbox`] nothing is put aside.

mod end;
mod fill;
mod outbox;
#[cfg(test)]
mod tests;

use std::{
    io::{self, IoSlice},
    net::Shutdown,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::BytesMut;
use hyper::rt::{Read, ReadBufCursor, Write};
use parking_lot::Mutex;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

pub(crate) use end::PeerEnd;
pub(crate) use outbox::run as run_outbox;

/// Most bytes of one socket that wait. What is larger gains nothing by waiting.
const WAITING: usize = 16 * 1024;

/// A connected socket. A copy of the handle lets one task read while another one writes; no more than one of each.
#[derive(Clone)]
pub(crate) struct Socket(Arc<SocketInner>);

struct SocketInner {
    stream: TcpStream,
    out: Mutex<Out>,
}

/// What is to be written.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    /// The outbox will send it; until then it counts as sent.
    listed: bool,
    /// To be told when the outbox could not send everything.
    owner: Option<Waker>,
    failed: Option<io::Error>,
    /// Bytes that the kernel has taken.
    sent: u64,
}

/// Waits for the end of a connection that nobody reads from.
pub(crate) struct DisconnectWatch(Arc<SocketInner>);

impl DisconnectWatch {
    /// Until the peer has reset the connection, or the system has given it up.
    pub(crate) async fn wait(&self) {
        // An error means that the event loop is ending, and the connection with it.
        let _ = self.0.stream.ready(Interest::ERROR).await;
    }
}

impl Socket {
    /// Takes a socket over.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(SocketInner { stream, out: Mutex::default() }))
    }

    /// Frees the buffer for small writes, if nothing is in it.
    pub(crate) fn release_buffer(&self) {
        let mut out = self.0.out.lock();
        if out.bytes.is_empty() {
            out.bytes = Vec::new();
        }
    }

    /// A view of whether the connection is broken.
    pub(crate) fn broken(&self) -> DisconnectWatch {
        DisconnectWatch(self.0.clone())
    }

    /// Bytes that the kernel has taken so far.
    pub(crate) fn sent(&self) -> u64 {
        self.0.out.lock().sent
    }

    /// Bytes that were written are neither with the kernel nor with the outbox.
    pub(crate) fn has_unsent(&self) -> bool {
        let out = self.0.out.lock();
        !out.listed && !out.bytes.is_empty()
    }

    /// Whether an idle connection can no longer be used: the peer closed or reset it, or sent bytes without a request.
    ///
    /// What the event loop has seen is always looked at; `ask_kernel` costs a system call and also finds what arrived
    /// since the loop last looked.
    pub(crate) fn is_dead(&self, ask_kernel: bool) -> bool {
        if self.0.out.lock().failed.is_some() {
            return true;
        }
        let stream = &self.0.stream;
        let mut nobody = Context::from_waker(Waker::noop());
        let readable = stream.poll_read_ready(&mut nobody).is_ready();
        if !readable && !ask_kernel {
            return false;
        }
        let peeked = if readable { stream.try_io(Interest::READABLE, || peek(stream)) } else { peek(stream) };
        !is_nothing(&peeked)
    }

    /// Whether the kernel has bytes that nobody has read, or the end of the connection, also where the event loop has not seen
    /// it yet.
    pub(crate) fn has_arrived(&self) -> bool {
        !is_nothing(&peek(&self.0.stream))
    }

    /// Ready once bytes have arrived that nobody has read, or the connection has ended.
    pub(crate) fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<()> {
        let stream = &self.0.stream;
        loop {
            if ready!(stream.poll_read_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            // What the event loop has seen may have been read since.
            if !is_nothing(&stream.try_io(Interest::READABLE, || peek(stream))) {
                return Poll::Ready(());
            }
        }
    }

    /// Closes both directions, whoever else holds the socket.
    pub(crate) fn close(&self) {
        // It fails only where the peer closed it before.
        let _ = SockRef::from(&self.0.stream).shutdown(Shutdown::Both);
    }

    /// Makes its close a reset, so that the peer sees an error and not an end.
    pub(crate) fn reset_on_close(&self) {
        // Where it fails, the socket is gone already.
        let _ = SockRef::from(&self.0.stream).set_linger(Some(Duration::ZERO));
    }

    /// Appends to `buffer` what has arrived, at most as much as it has room for; 0 at the end.
    pub(crate) fn poll_read_into(&self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        self.poll_receive(cx, |stream| fill::append(stream, buffer))
    }

    /// Reads once with `receive`, which says how much it read and whether that left room.
    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        mut receive: impl FnMut(&TcpStream) -> io::Result<(usize, bool)>,
    ) -> Poll<io::Result<usize>> {
        let stream = &self.0.stream;
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let mut read = None;
            let outcome = stream.try_io(Interest::READABLE, || {
                let (length, room) = receive(stream)?;
                read = Some(length);
                // The read emptied the socket. This error makes it unreadable until more bytes come.
                if length > 0 && room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (outcome, read) {
                (_, Some(length)) => return Poll::Ready(Ok(length)),
                (Err(error), None)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                (Err(error), None) => return Poll::Ready(Err(error)),
                (Ok(()), None) => {}
            }
        }
    }

    /// Writes `parts`, or puts them aside for the outbox, as much as fits.
    pub(crate) fn poll_write_parts(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.queue(cx, parts) {
            Some(length) => Poll::Ready(Ok(length)),
            None => self.poll_through(cx, parts),
        }
    }

    /// Everything written has reached the kernel, or will by the outbox.
    pub(crate) fn poll_flushed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.out.lock().listed {
            return Poll::Ready(Ok(()));
        }
        self.poll_drained(cx)
    }

    /// Ends the sending direction, after everything written.
    pub(crate) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drained(cx))?;
        Poll::Ready(SockRef::from(&self.0.stream).shutdown(Shutdown::Write))
    }

    /// Writes what waits, then `bytes`, as much of them as the socket takes.
    fn poll_through(&self, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_drained(cx))?;
        let stream = &self.0.stream;
        loop {
            match stream.try_write_vectored(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(stream.poll_write_ready(cx))?,
                Ok(length) => {
                    self.0.out.lock().sent += length as u64;
                    return Poll::Ready(Ok(length));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Writes what waits, whether or not the outbox would. Ready once everything written has reached the kernel.
    pub(crate) fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            {
                let mut out = self.0.out.lock();
                if let Some(error) = out.failed.take() {
                    return Poll::Ready(Err(error));
                }
                if out.bytes.is_empty() || out.send(&self.0.stream)? {
                    return Poll::Ready(Ok(()));
                }
            }
            ready!(self.0.stream.poll_write_ready(cx))?;
        }
    }

    /// Queues `bytes` for the outbox. `None` where that gains nothing, or where earlier bytes could not be sent.
    fn queue(&self, cx: &Context<'_>, bytes: &[IoSlice<'_>]) -> Option<usize> {
        let length = bytes.iter().map(|part| part.len()).sum::<usize>();
        if !outbox::is_open() {
            return None;
        }
        let mut out = self.0.out.lock();
        let stuck = !out.listed && !out.bytes.is_empty();
        if stuck || out.failed.is_some() || out.bytes.len() + length > WAITING {
            return None;
        }
        bytes.iter().for_each(|part| out.bytes.extend_from_slice(part));
        if !std::mem::replace(&mut out.listed, true) {
            out.owner = Some(cx.waker().clone());
            drop(out);
            outbox::list(&self.0);
        }
        Some(length)
    }
}

/// Looks for a byte that nobody has read, and leaves it there: 0 bytes at the end of the connection.
fn peek(stream: &TcpStream) -> io::Result<usize> {
    let mut byte = [0; 1];
    Ok(recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT)?.1)
}

/// Whether a look found that nothing has arrived, and the connection goes on.
fn is_nothing(peeked: &io::Result<usize>) -> bool {
    matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

impl SocketInner {
    /// The outbox's part. What cannot be sent is left to the owner, who is told.
    fn send_waiting(&self) {
        let mut out = self.out.lock();
        out.listed = false;
        let owner = out.owner.take();
        if out.bytes.is_empty() {
            return;
        }
        let sent = out.send(&self.stream).unwrap_or_else(|error| {
            out.failed = Some(error);
            false
        });
        drop(out);
        if let Some(owner) = owner.filter(|_| !sent) {
            owner.wake();
        }
    }
}

impl Out {
    /// Sends as much as the socket takes; says whether that was everything.
    fn send(&mut self, stream: &TcpStream) -> io::Result<bool> {
        let sent = stream.try_io(Interest::WRITABLE, || Ok(send(stream, &self.bytes, SendFlags::NOSIGNAL)?));
        if let Ok(sent) = &sent {
            self.sent += *sent as u64;
        }
        match sent {
            Ok(sent) if sent == self.bytes.len() => {
                self.bytes.clear();
                Ok(true)
            }
            Ok(sent) => {
                self.bytes.drain(..sent);
                Ok(false)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Socket {
    /// Reads into `buf` what has arrived, as much of it as `look` lets in; returns how much arrived, 0 at the end.
    pub(crate) fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBufCursor<'_>,
        mut look: impl FnMut(&[u8]) -> usize,
    ) -> Poll<io::Result<usize>> {
        self.poll_receive(cx, |stream| fill::receive(stream, buf, &mut look))
    }
}

impl Read for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.poll_fill(cx, &mut buf, <[u8]>::len).map_ok(drop)
    }
}

impl Write for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_parts(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_parts(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flushed(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end(cx)
    }
}
