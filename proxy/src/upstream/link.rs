//! A connection to an endpoint, with TLS or without.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::BytesMut;
use hyper::rt::{Read, ReadBufCursor, Write};

use super::tls::{Tls, TlsSocket, is_same};
use crate::socket::{DisconnectWatch, Socket};

/// A connection to an endpoint. A copy lets one task read while another one writes; no more than one of each.
#[derive(Clone)]
pub(crate) enum Link {
    /// Without TLS.
    Plain(Socket),
    /// With TLS, and verified.
    Tls(TlsSocket),
}

impl Link {
    /// Whether it is as `tls` asks: verified for just this identity, or without TLS.
    pub(super) fn is_of(&self, tls: Option<&Arc<Tls>>) -> bool {
        is_same(self.identity(), tls)
    }

    /// Whose certificate was verified; `None` without TLS.
    pub(super) fn identity(&self) -> Option<&Arc<Tls>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(socket) => Some(socket.identity()),
        }
    }

    /// Over TLS, the endpoint has chosen HTTP/2. Without TLS, nothing says what it speaks.
    pub(super) fn may_carry_http2(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(socket) => socket.chose_http2(),
        }
    }

    fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.socket(),
        }
    }

    /// See [`Socket::release_buffer`].
    pub(super) fn release_buffer(&self) {
        self.socket().release_buffer();
    }

    /// See [`Socket::broken`].
    pub(super) fn broken(&self) -> DisconnectWatch {
        self.socket().broken()
    }

    /// See [`Socket::sent`]; with TLS, bytes of records.
    pub(super) fn sent(&self) -> u64 {
        self.socket().sent()
    }

    /// See [`Socket::close`].
    pub(super) fn close(&self) {
        self.socket().close();
    }

    /// See [`Socket::reset_on_close`].
    pub(super) fn reset_on_close(&self) {
        self.socket().reset_on_close();
    }

    /// See [`Socket::has_unsent`].
    pub(super) fn has_unsent(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.has_unsent(),
            Self::Tls(tls) => tls.has_unsent(),
        }
    }

    /// See [`Socket::is_dead`].
    pub(super) fn is_dead(&self, ask_kernel: bool) -> bool {
        match self {
            Self::Plain(socket) => socket.is_dead(ask_kernel),
            Self::Tls(tls) => tls.is_dead(ask_kernel),
        }
    }

    /// See [`Socket::poll_read_into`]; with TLS, up to a record more.
    pub(super) fn poll_read_into(&self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => socket.poll_read_into(cx, buffer),
            Self::Tls(tls) => tls.poll_read_into(cx, buffer),
        }
    }

    /// See [`Socket::poll_fill`].
    pub(super) fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBufCursor<'_>,
        look: impl FnMut(&[u8]) -> usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => socket.poll_fill(cx, buf, look),
            Self::Tls(tls) => tls.poll_fill(cx, buf, look),
        }
    }

    /// See [`Socket::poll_write_parts`].
    pub(super) fn poll_write_parts(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => socket.poll_write_parts(cx, parts),
            Self::Tls(tls) => tls.poll_write_parts(cx, parts),
        }
    }

    /// See [`Socket::poll_flushed`].
    pub(super) fn poll_flushed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => socket.poll_flushed(cx),
            Self::Tls(tls) => tls.poll_flushed(cx),
        }
    }

    /// See [`Socket::poll_drained`].
    pub(super) fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => socket.poll_drained(cx),
            Self::Tls(tls) => tls.poll_drained(cx),
        }
    }
}

impl Read for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.poll_fill(cx, &mut buf, <[u8]>::len).map_ok(drop)
    }
}

impl Write for Link {
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
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(tls) => tls.poll_end(cx),
        }
    }
}
