//! What a discovery stream runs over: TCP, TLS, or a pipe within the process.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
    sync::mpsc,
};

use super::ConnectionSlot;

/// Bytes that a pipe holds.
const PIPE: usize = 256 << 10;

trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A connection of any sort.
pub(super) struct Io {
    inner: Box<dyn Bytes>,
    peer: Peer,
    /// Ends a server's connection whose peer does not authenticate.
    probation: Option<Probation>,
}

/// Where a connection comes from.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Its address; `None` within the process.
    pub(super) address: Option<SocketAddr>,
    slot: Option<Unauthenticated>,
}

/// The slot of a connection whose peer has not authenticated yet.
type Unauthenticated = Arc<Mutex<Option<ConnectionSlot>>>;

struct Probation {
    slot: Unauthenticated,
    /// Ready when the time is up or the slot is needed.
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Peer {
    /// The peer has authenticated: from now on its connection lasts until one of the two ends it.
    pub(super) fn authenticated(&self) {
        if let Some(slot) = &self.slot {
            slot.lock().take();
        }
    }
}

impl Io {
    fn new(inner: impl Bytes + 'static, address: Option<SocketAddr>) -> Self {
        Self { inner: Box::new(inner), peer: Peer { address, slot: None }, probation: None }
    }

    pub(super) fn tcp(stream: TcpStream, peer: SocketAddr) -> Self {
        Self::new(stream, Some(peer))
    }

    pub(super) fn server_tls(stream: tokio_rustls::server::TlsStream<TcpStream>, peer: SocketAddr) -> Self {
        Self::new(stream, Some(peer))
    }

    pub(super) fn client_tls(stream: tokio_rustls::client::TlsStream<TcpStream>, peer: SocketAddr) -> Self {
        Self::new(stream, Some(peer))
    }

    fn pipe(stream: DuplexStream) -> Self {
        Self::new(stream, None)
    }

    /// Ends the connection after `limit`, or when its slot is needed, unless the peer authenticates before.
    pub(super) fn on_probation(mut self, slot: ConnectionSlot, limit: Duration) -> Self {
        let close = slot.close().clone();
        let over = Box::pin(async move {
            let _ = tokio::time::timeout(limit, close.cancelled()).await;
        });
        let slot = Arc::new(Mutex::new(Some(slot)));
        self.peer.slot = Some(slot.clone());
        self.probation = Some(Probation { slot, over });
        self
    }
}

impl tonic::transport::server::Connected for Io {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(probation) = &mut self.probation {
            if probation.slot.lock().is_none() {
                self.probation = None;
            } else if probation.over.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The way to a server of the same process; see [`super::Server::in_process`].
#[derive(Clone, Debug)]
pub struct InProcess(pub(super) mpsc::Sender<Io>);

impl InProcess {
    pub(super) fn new() -> (Self, mpsc::Receiver<Io>) {
        let (sender, receiver) = mpsc::channel(16);
        (Self(sender), receiver)
    }

    pub(super) async fn connect(&self) -> io::Result<Io> {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let gone = |_| io::Error::new(io::ErrorKind::ConnectionRefused, "the controller of this process has ended");
        self.0.send(Io::pipe(theirs)).await.map_err(gone)?;
        Ok(Io::pipe(ours))
    }
}
