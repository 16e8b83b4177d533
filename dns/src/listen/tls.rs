//! DNS over TLS (RFC 7858).
//!
//! The port is bound at the start and listened on once there is a certificate that can be used. Until then, and whatever
//! happens to the certificate later, UDP and TCP are answered. Handshakes use what the files held last that could be used,
//! also when it has expired: clients that do not verify it still get answers.

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
                        "no certificate for DNS over TLS: its port stays closed until both files can be used; UDP and TCP are \
                         answered; the files are read again every {look:?}"
                    );
                    warned = Some(text);
                }
            }
        }
        tokio::time::sleep(look).await;
    }
}

/// Listens on each of `sockets`, which are bound, and gives it to `accept`. A port that another process listens on is tried
/// again every `look`.
pub(crate) async fn listen(mut sockets: Vec<Socket>, look: Duration, mut accept: impl FnMut(TcpListener)) {
    let mut warned = false;
    loop {
        sockets.retain(|socket| {
            let address = socket.local_addr().ok().and_then(|address| address.as_socket());
            match listener(socket) {
                Ok(listener) => {
                    tracing::info!(address = address.map(tracing::field::display), "answering DNS over TLS");
                    accept(listener);
                    return false;
                }
                Err(error) if !warned => tracing::error!(
                    address = address.map(tracing::field::display),
                    %error,
                    "cannot listen for DNS over TLS; end the process that has this port, or change --tls-listen; trying again \
                     every {look:?}"
                ),
                Err(_) => {}
            }
            true
        });
        if sockets.is_empty() {
            return;
        }
        warned = true;
        tokio::time::sleep(look).await;
    }
}

/// Listens on a socket that is bound.
fn listener(socket: &Socket) -> io::Result<TcpListener> {
    let socket = socket.try_clone()?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::mpsc};

    use socket2::{Domain, Protocol, Type};

    use super::*;

    fn bound(port: u16) -> Socket {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.set_reuse_address(true).expect("set");
        socket.set_nonblocking(true).expect("set");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("bound");
        socket
    }

    fn address(socket: &Socket) -> SocketAddr {
        socket.local_addr().ok().and_then(|address| address.as_socket()).expect("an address")
    }

    #[tokio::test]
    async fn a_port_that_another_process_has_is_listened_on_once_it_is_free() {
        let other = bound(0);
        let taken = bound(address(&other).port());
        other.listen(1).expect("listening");
        let free = bound(0);
        let (listening, begun) = mpsc::channel();
        let (taken_address, free_address) = (address(&taken), address(&free));
        let accept = move |listener: TcpListener| listening.send(listener).expect("received");
        let listens = tokio::spawn(listen(vec![taken, free], Duration::from_millis(10), accept));
        let mut listener = None;
        while listener.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            listener = begun.try_recv().ok();
        }
        let first = listener.and_then(|listener| listener.local_addr().ok());
        assert_eq!(first, Some(free_address), "one that is taken keeps no other from being listened on");
        assert!(!listens.is_finished());
        drop(other);
        listens.await.expect("both are listened on");
        let second = begun.try_recv().expect("the other one");
        assert_eq!(second.local_addr().ok(), Some(taken_address));
    }
}
