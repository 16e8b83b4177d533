//! DNS over TLS (RFC 7858).
//!
//! The port is bound at the start and listened on once there is a certificate that can be used. Until then, and whatever
//! happens to the certificate later, UDP and TCP are answered. Handshakes use what the files held last that could be used.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use maesh_discovery::tls::{CertificateFiles, ServerTls};
use rustls::ServerConfig;
use socket2::Socket;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::BACKLOG;

/// Bytes of answers that wait encrypted for a slow reader.
const ENCRYPTED: usize = 16 << 10;
/// How long the end of a connection may take to be sent.
const CLOSE: Duration = Duration::from_secs(1);

/// DNS over TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Where it listens; port 0 finds a free one.
    pub listen: Vec<SocketAddr>,
    /// The certificate and its key.
    pub files: CertificateFiles,
    /// How often the files are looked at.
    pub look: Duration,
}

/// Completes the handshake within `time`.
pub(crate) async fn handshake(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    time: Duration,
) -> io::Result<Box<TlsStream<TcpStream>>> {
    let accept =
        TlsAcceptor::from(config).accept_with(stream, |connection| connection.set_buffer_limit(Some(ENCRYPTED)));
    match timeout(time, accept).await {
        Ok(stream) => Ok(Box::new(stream?)),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long")),
    }
}

/// Tells the peer that nothing more comes.
pub(crate) async fn close(stream: &mut TlsStream<TcpStream>) {
    // A peer that does not take it learns of the end by the connection's.
    let _ = timeout(CLOSE, stream.shutdown()).await;
}

/// Waits for a certificate that can be used, looking every `look`.
pub(crate) async fn certificate(files: &CertificateFiles, look: Duration) -> ServerTls {
    let mut warned = None;
    loop {
        match files.load_for_dns() {
            Ok(tls) => return tls,
            Err(error) => {
                let text = error.to_string();
                if warned.as_ref() != Some(&text) {
                    tracing::warn!(
                        error = text,
                        "no certificate for DNS over TLS, whose port stays closed; UDP and TCP are answered; looking again \
                         every {look:?}"
                    );
                    warned = Some(text);
                }
            }
        }
        tokio::time::sleep(look).await;
    }
}

/// Listens on a socket that is bound.
pub(crate) fn listener(socket: &Socket) -> io::Result<TcpListener> {
    let socket = socket.try_clone()?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
