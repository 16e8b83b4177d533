//! A TLS session over a socket, with the same ways to read and write as [`Socket`] has.
//!
//! One task may read while another one writes: both hold the session for a moment only, and never while they wait.
//!
//! An end without `close_notify` is an error, and never an end: whoever cuts a connection could else make a part of a response
//! look like all of it.

use std::{
    io::{self, BufRead as _, IoSlice, Write as _},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use bytes::{Buf as _, BytesMut};
use hyper::rt::{ReadBuf, ReadBufCursor};
use parking_lot::Mutex;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, pki_types::ServerName};
use tokio::net::TcpStream;

use super::{HTTP2, Offer, Tls, sessions::Sessions};
use crate::socket::Socket;

/// Encrypted bytes that are read at once.
const READ: usize = 16 * 1024;

/// Encrypted bytes that may wait for the socket.
const WAITING: usize = 32 * 1024;

/// A verified TLS session. Copies share it.
#[derive(Clone)]
pub(crate) struct TlsSocket(Arc<TlsSocketInner>);

struct TlsSocketInner {
    socket: Socket,
    session: Mutex<Session>,
    /// Whose certificate was verified.
    tls: Arc<Tls>,
}

struct Session {
    tls: ClientConnection,
    /// What was decrypted and nobody has read.
    unread: BytesMut,
}

impl TlsSocket {
    /// Makes the handshake. `sessions` hears if a certificate was verified for it.
    ///
    /// # Errors
    /// The socket's, or that of `rustls` in one of `std::io`.
    pub(super) async fn connect(
        stream: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        offer: Offer,
        tls: &Arc<Tls>,
        sessions: &Sessions,
    ) -> io::Result<Self> {
        let mut connection =
            ClientConnection::new_with_alpn(config, name, offer.protocols()).map_err(io::Error::other)?;
        connection.set_buffer_limit(Some(WAITING));
        let session = Mutex::new(Session { tls: connection, unread: BytesMut::new() });
        let this = Self(Arc::new(TlsSocketInner { socket: Socket::new(stream), session, tls: tls.clone() }));
        std::future::poll_fn(|cx| this.poll_handshake(cx)).await?;
        if this.0.session.lock().tls.handshake_kind() != Some(HandshakeKind::Resumed) {
            sessions.verified(Instant::now());
        }
        Ok(this)
    }

    fn poll_handshake(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Session { tls, unread } = &mut *self.0.session.lock();
        loop {
            ready!(self.0.socket.poll_send(tls, cx))?;
            ready!(self.0.socket.poll_flushed(cx))?;
            if !tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if !ready!(self.0.socket.poll_receive_tls(tls, cx, unread))? {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Whose certificate was verified.
    pub(crate) fn identity(&self) -> &Arc<Tls> {
        &self.0.tls
    }

    /// The endpoint has chosen HTTP/2.
    pub(crate) fn chose_http2(&self) -> bool {
        self.0.session.lock().tls.alpn_protocol() == Some(HTTP2)
    }

    /// The socket below.
    pub(crate) fn socket(&self) -> &Socket {
        &self.0.socket
    }

    /// Bytes that were written are neither with the kernel nor with the outbox.
    pub(crate) fn has_unsent(&self) -> bool {
        self.0.session.lock().tls.wants_write() || self.0.socket.has_unsent()
    }

    /// As [`Socket::is_dead`]. Bytes that only belong to TLS, such as tickets, are read.
    pub(crate) fn is_dead(&self, ask_kernel: bool) -> bool {
        let Session { tls, unread } = &mut *self.0.session.lock();
        if !unread.is_empty() {
            return true;
        }
        let mut nobody = Context::from_waker(Waker::noop());
        while self.0.socket.is_dead(ask_kernel) {
            match self.0.socket.poll_receive_tls(tls, &mut nobody, unread) {
                Poll::Ready(Ok(true)) if unread.is_empty() => {}
                // An end, an error, or an answer without a question; or the event loop has not seen what it is.
                _ => return true,
            }
        }
        false
    }

    /// Appends to `buffer` what has arrived: about as much as it has room for, or what was decrypted at once; 0 at the end.
    pub(crate) fn poll_read_into(&self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        let Session { tls, unread } = &mut *self.0.session.lock();
        if !unread.is_empty() {
            buffer.extend_from_slice(unread);
            return Poll::Ready(Ok(std::mem::take(unread).len()));
        }
        let before = buffer.len();
        loop {
            let open = ready!(self.0.socket.poll_receive_tls(tls, cx, buffer))?;
            if buffer.len() > before || !open {
                return Poll::Ready(Ok(buffer.len() - before));
            }
        }
    }

    /// As [`Socket::poll_fill`], with what was decrypted.
    pub(crate) fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBufCursor<'_>,
        mut look: impl FnMut(&[u8]) -> usize,
    ) -> Poll<io::Result<usize>> {
        let Session { tls, unread } = &mut *self.0.session.lock();
        while unread.is_empty() {
            if !ready!(self.0.socket.poll_receive_tls(tls, cx, unread))? && unread.is_empty() {
                return Poll::Ready(Ok(0));
            }
        }
        let arrived = unread.len().min(buf.remaining());
        let length = look(&unread[..arrived]);
        buf.put_slice(&unread[..length]);
        unread.advance(length);
        if unread.is_empty() {
            *unread = BytesMut::new();
        }
        Poll::Ready(Ok(arrived))
    }

    /// Encrypts and writes `parts`, as much as fits.
    pub(crate) fn poll_write_parts(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Session { tls, .. } = &mut *self.0.session.lock();
        ready!(self.0.socket.poll_send(tls, cx))?;
        let length = tls.writer().write_vectored(parts)?;
        match self.0.socket.poll_send(tls, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // What the socket does not take waits; flushing goes on with it.
            _ => Poll::Ready(Ok(length)),
        }
    }

    /// Everything written has reached the kernel, or will by the outbox.
    pub(crate) fn poll_flushed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.socket.poll_send(&mut self.0.session.lock().tls, cx))?;
        self.0.socket.poll_flushed(cx)
    }

    /// Everything written has reached the kernel.
    pub(crate) fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.socket.poll_send(&mut self.0.session.lock().tls, cx))?;
        self.0.socket.poll_drained(cx)
    }

    /// Ends the sending direction, after everything written, with a `close_notify`.
    pub(crate) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        {
            let Session { tls, .. } = &mut *self.0.session.lock();
            // Only the first one has an effect.
            tls.send_close_notify();
            ready!(self.0.socket.poll_send(tls, cx))?;
        }
        self.0.socket.poll_end(cx)
    }
}

impl Drop for TlsSocketInner {
    fn drop(&mut self) {
        let tls = &mut self.session.get_mut().tls;
        // Whoever reads it learns that nothing was cut off. Where the socket does not take it at once, it goes without.
        tls.send_close_notify();
        let _ = self.socket.poll_send(tls, &mut Context::from_waker(Waker::noop()));
    }
}

/// What a session needs of its socket.
impl Socket {
    /// Hands over what `tls` has encrypted. Ready once that is everything.
    fn poll_send(&self, tls: &mut ClientConnection, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while tls.wants_write() {
            match tls.write_tls(&mut Outgoing { socket: self, cx }) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, and appends to `out` what of it can be decrypted. `false` after a `close_notify`.
    fn poll_receive_tls(
        &self,
        tls: &mut ClientConnection,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
    ) -> Poll<io::Result<bool>> {
        // An earlier read may have ended in an error after what it gave.
        tls.process_new_packets().map_err(invalid)?;
        if !drain(tls, out)? {
            return Poll::Ready(Ok(false));
        }
        let mut encrypted = [0; READ];
        let mut room = ReadBuf::new(&mut encrypted);
        ready!(self.poll_fill(cx, &mut room.unfilled(), <[u8]>::len))?;
        let before = out.len();
        let mut received = room.filled();
        if received.is_empty() {
            // It notes the end.
            tls.read_tls(&mut io::empty())?;
        }
        loop {
            let outcome = match decrypt(tls, &mut received, out) {
                Err(_) if out.len() > before => return Poll::Ready(Ok(true)),
                outcome => outcome?,
            };
            if !outcome || received.is_empty() {
                return Poll::Ready(Ok(outcome));
            }
        }
    }
}

/// Decrypts some of `received` into `out`. `false` after a `close_notify`.
fn decrypt(tls: &mut ClientConnection, received: &mut &[u8], out: &mut BytesMut) -> io::Result<bool> {
    if !received.is_empty() && tls.read_tls(received)? == 0 {
        // What follows a close_notify is nothing.
        *received = &[];
    }
    let processed = tls.process_new_packets();
    // What came before something that cannot be decrypted is still good.
    let open = drain(tls, out);
    processed.map_err(invalid)?;
    open
}

/// Moves what was decrypted to `out`. `false` after a `close_notify`.
fn drain(tls: &mut ClientConnection, out: &mut BytesMut) -> io::Result<bool> {
    let mut reader = tls.reader();
    loop {
        let length = match reader.fill_buf() {
            Ok([]) => return Ok(false),
            Ok(bytes) => {
                out.extend_from_slice(bytes);
                bytes.len()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        };
        reader.consume(length);
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A socket as `rustls` writes to it.
struct Outgoing<'a, 'c> {
    socket: &'a Socket,
    cx: &'a mut Context<'c>,
}

impl io::Write for Outgoing<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.socket.poll_write_parts(self.cx, parts) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
