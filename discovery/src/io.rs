//! What a discovery stream runs over: TCP, TLS, or a pipe within the process.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
    sync::mpsc,
};

/// Bytes that a pipe holds.
const PIPE: usize = 256 << 10;

trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A connection of any sort.
pub(super) struct Io {
    inner: Box<dyn Bytes>,
    peer: Peer,
}

/// Where a connection comes from; `None` within the process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) address: Option<SocketAddr>,
}

impl Io {
    pub(super) fn tcp(stream: TcpStream, peer: SocketAddr) -> Self {
        Self { inner: Box::new(stream), peer: Peer { address: Some(peer) } }
    }

    pub(super) fn server_tls(stream: tokio_rustls::server::TlsStream<TcpStream>, peer: SocketAddr) -> Self {
        Self { inner: Box::new(stream), peer: Peer { address: Some(peer) } }
    }

    pub(super) fn client_tls(stream: tokio_rustls::client::TlsStream<TcpStream>, peer: SocketAddr) -> Self {
        Self { inner: Box::new(stream), peer: Peer { address: Some(peer) } }
    }

    fn pipe(stream: DuplexStream) -> Self {
        Self { inner: Box::new(stream), peer: Peer { address: None } }
    }
}

impl tonic::transport::server::Connected for Io {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
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
