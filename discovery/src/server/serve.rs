//! Accepts connections: TCP, with or without TLS, and pipes within the process.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::StreamExt;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use super::Server;
use crate::{
    AcceptFailures, ConnectionTable,
    auth::{Authenticate, NoAuthentication},
    io::{InProcess, Io},
};

/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Longest time from the end of the handshake until the peer has authenticated.
const AUTHENTICATION: Duration = Duration::from_secs(10);
/// How often a subscriber is asked whether it is alive ...
const KEEPALIVE: Duration = Duration::from_secs(1);
/// ... and how long it has to say so. A proxy that hangs is left out of answers after both, and a packet that was lost is
/// repeated within the second.
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(2);
/// Longest wait, at the end, for subscribers to take their leave.
const GOODBYE: Duration = Duration::from_secs(2);
/// Streams on one connection. A subscriber needs one.
const STREAMS: u32 = 16;

impl Server {
    /// Serves subscribers that connect to `listener`, until [`Server::shutdown`].
    ///
    /// # Errors
    /// When `auth` admits anybody and `listener` can be reached from elsewhere than this machine, or when the
    /// listener fails for good.
    pub async fn listen(
        &self,
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        auth: Arc<dyn Authenticate>,
    ) -> io::Result<()> {
        let address = listener.local_addr()?;
        auth.may_listen(address, tls.is_some()).map_err(|why| io::Error::new(io::ErrorKind::PermissionDenied, why))?;
        let (sender, receiver) = mpsc::channel(16);
        let accepting = accept(listener, tls, self.shared.unauthenticated.clone(), sender);
        let too_long = async {
            self.shared.ending.cancelled().await;
            tokio::time::sleep(GOODBYE).await;
        };
        tokio::select! {
            ended = accepting => ended,
            ended = self.serve(ReceiverStream::new(receiver), auth) => ended,
            () = too_long => Ok(()),
        }
    }

    /// A way to this server for subscribers of the same process, over a pipe but otherwise the same. It ends with
    /// [`Server::shutdown`]. Must be called within a runtime.
    pub fn in_process(&self) -> InProcess {
        let (way, connections) = InProcess::new();
        let server = self.clone();
        tokio::spawn(async move {
            if let Err(error) =
                server.serve(ReceiverStream::new(connections), Arc::new(NoAuthentication::loopback())).await
            {
                tracing::warn!(%error, "serving within the process ended");
            }
        });
        way
    }

    async fn serve(
        &self,
        connections: impl futures_util::Stream<Item = Io> + Send + 'static,
        auth: Arc<dyn Authenticate>,
    ) -> io::Result<()> {
        let ending = self.shared.ending.clone();
        tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(2 << 20)
            .initial_connection_window_size(4 << 20)
            .serve_with_incoming_shutdown(
                self.service(auth),
                connections.map(Ok::<_, io::Error>),
                ending.cancelled_owned(),
            )
            .await
            .map_err(io::Error::other)
    }
}

/// Accepts at once whoever connects; handshakes run side by side, and who does not authenticate makes room.
async fn accept(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    unauthenticated: ConnectionTable,
    connections: mpsc::Sender<Io>,
) -> io::Result<()> {
    let tls = tls.map(TlsAcceptor::from);
    let mut failures = AcceptFailures::new("subscribers");
    loop {
        unauthenticated.room().await;
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if passing(&error) => continue,
            Err(error) => {
                // Out of descriptors, most likely: others may be closed meanwhile.
                failures.log(&error);
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let slot = unauthenticated.add(peer.ip());
        let (tls, connections) = (tls.clone(), connections.clone());
        tokio::spawn(async move {
            let greeted = tokio::select! {
                greeted = tokio::time::timeout(HANDSHAKE, greet(stream, peer, tls)) => greeted,
                () = slot.close().cancelled() => {
                    return tracing::debug!(%peer, "connection closed during its TLS handshake: too many of them");
                }
            };
            match greeted {
                Ok(Ok(io)) => {
                    // The server is ending when nobody takes it.
                    let _ = connections.send(io.on_probation(slot, AUTHENTICATION)).await;
                }
                Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
            }
        });
    }
}

async fn greet(stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>) -> io::Result<Io> {
    stream.set_nodelay(true)?;
    Ok(match tls {
        None => Io::tcp(stream, peer),
        Some(tls) => Io::server_tls(tls.accept(stream).await?, peer),
    })
}

/// Errors that concern the one connection that was to be accepted.
fn passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
