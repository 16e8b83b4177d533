//! A listening socket that others may hold too, with one descriptor among all of them.
//!
//! Tokio's own listener wants a socket for itself alone, which costs a second descriptor where a keeper has to be given
//! the same one; and it registers each connection where it was accepted, not where it is served.
#![allow(unsafe_code)]

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
};

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::{Interest, unix::AsyncFd};

/// A listening socket on an event loop.
pub(super) struct AsyncListener(AsyncFd<Arc<TcpListener>>);

impl AsyncListener {
    /// Registers `socket`, which does not block, on the event loop of this task.
    pub(super) fn new(socket: Arc<TcpListener>) -> io::Result<Self> {
        // SAFETY: the descriptor belongs to the TcpListener, which lives as long as the AsyncFd that has a reference to it,
        // and nothing takes it out of there.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// The next connection; it does not block, and is not registered anywhere.
    pub(super) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.async_io(Interest::READABLE, accept).await
    }

    /// A connection that waits already. An error of the kind `WouldBlock`: there is none.
    pub(super) fn accept_waiting(&self) -> io::Result<(TcpStream, SocketAddr)> {
        accept(self.0.get_ref())
    }
}

fn accept(listener: &Arc<TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    // A caller that is gone already may have no address any more.
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok((stream.into(), peer.ok_or(io::ErrorKind::ConnectionAborted)?))
}
