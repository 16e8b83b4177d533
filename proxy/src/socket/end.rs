//! Whether the peer has ended its side, for those who do not read.

use std::{
    future::Future,
    io,
    pin::pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
};

use rustix::{
    io::ioctl_fionread,
    net::{RecvFlags, recv},
};
use tokio::io::Interest;

use super::{Socket, SocketInner};

/// A view of a socket that does not keep it open.
pub(crate) struct PeerEnd(Weak<SocketInner>);

impl Socket {
    /// A view of whether the peer has ended its side.
    pub(crate) fn peer_end(&self) -> PeerEnd {
        PeerEnd(Arc::downgrade(&self.0))
    }
}

impl PeerEnd {
    /// Whether the peer has ended its side, as far as the event loop has seen. What it sent before may not have been
    /// read.
    pub(crate) fn is_seen(&self) -> bool {
        let Some(socket) = self.0.upgrade() else { return false };
        let ready = pin!(socket.stream.ready(Interest::READABLE));
        let mut nobody = Context::from_waker(Waker::noop());
        matches!(ready.poll(&mut nobody), Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    /// How many bytes the peer sent that nobody has read.
    ///
    /// # Errors
    /// When the socket is gone.
    pub(crate) fn unread(&self) -> io::Result<u64> {
        let socket = self.0.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        Ok(ioctl_fionread(&socket.stream)?)
    }

    /// The next `most` bytes that nobody has read, or as many as there are. They stay unread.
    ///
    /// # Errors
    /// When the socket is gone.
    pub(crate) fn peek(&self, most: usize) -> io::Result<Vec<u8>> {
        let socket = self.0.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        let mut bytes = vec![0; most];
        let (length, _) = recv(&socket.stream, bytes.as_mut_slice(), RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
        bytes.truncate(length);
        Ok(bytes)
    }
}
