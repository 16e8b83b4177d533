//! A server that tells every caller who it is and what it sees, in all protocols that a mesh carries.
//!
//! Each listener is a task; a connection that fails is its caller's matter. [`Server::stop`] ends connections in order,
//! as a well-kept backend does.

mod grpc;
mod http;
mod stream;
mod tls;
mod websocket;

pub(crate) use grpc::{COUNT, SAY, frame, messages};

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch::{Receiver, Sender};
use tokio_rustls::TlsAcceptor;

/// Longest time that requests in flight may take once the server stops.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

/// Port numbers by protocol; 0 is any.
pub(crate) struct Ports {
    pub(crate) http: u16,
    pub(crate) tls: u16,
    pub(crate) tcp: u16,
    pub(crate) udp: u16,
}

/// What a pod listens on.
pub(crate) const PORTS: Ports = Ports { http: 8080, tls: 8443, tcp: 9000, udp: 9001 };

/// How a server differs from the usual one.
#[derive(Debug, Default, Clone, clap::Args)]
pub(crate) struct Behaviour {
    /// PEM file with the certificates for TLS, instead of one made at start
    #[arg(long, requires = "key")]
    certificates: Option<PathBuf>,
    /// PEM file with their key
    #[arg(long, requires = "certificates")]
    key: Option<PathBuf>,
    /// Answer every HTTP request with this status
    #[arg(long)]
    status: Option<u16>,
}

/// A running server.
pub(crate) struct Server {
    /// What was bound.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests bind any port"))]
    pub(crate) ports: Ports,
    /// Says when to stop; every listener and HTTP connection holds a receiver.
    stop: Sender<bool>,
}

/// Binds all ports and serves.
pub(crate) async fn start(ports: &Ports, behaviour: &Behaviour) -> Result<Server> {
    let stop = Sender::new(false);
    let (http, tls, tcp) = (listen(ports.http).await?, listen(ports.tls).await?, listen(ports.tcp).await?);
    let udp = datagrams(ports.udp).await?;
    let bound = Ports { http: port(&http)?, tls: port(&tls)?, tcp: port(&tcp)?, udp: udp.local_addr()?.port() };
    let status = behaviour.status;
    accept(http, stop.subscribe(), move |stream, from, stop| serve_http(stream, from, stop, status));
    let acceptor = TlsAcceptor::from(match (&behaviour.certificates, &behaviour.key) {
        (Some(certificates), Some(key)) => tls::of_files(certificates, key)?,
        _ => tls::of_nobody()?,
    });
    accept(tls, stop.subscribe(), move |stream, from, stop| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve_http(stream, from, stop, status).await;
            }
        }
    });
    accept(tcp, stop.subscribe(), |stream, from, _| async move {
        let _ = stream::echo(stream, from).await;
    });
    tokio::spawn(async move { stream::datagrams(&udp).await });
    Ok(Server { ports: bound, stop })
}

impl Server {
    /// Accepts no longer, tells open connections to end, and waits for requests in flight.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        let _ = tokio::time::timeout(LAST_REQUESTS, self.stop.closed()).await;
    }
}

/// Answers every datagram with bytes that are no answer to it, for ever.
pub(crate) async fn garbage(port: u16) -> Result<()> {
    let socket = datagrams(port).await?;
    let mut buffer = [0; 2048];
    loop {
        if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            // Its own id, so that it is looked at, and then nothing that makes sense.
            let mut answer = buffer.get(..length.min(2)).unwrap_or_default().to_vec();
            answer.extend((0..60).map(|_| rand::random::<u8>()));
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// One connection that speaks HTTP/1.1 or, known by its first bytes, HTTP/2.
async fn serve_http<I>(io: I, from: SocketAddr, mut stop: Receiver<bool>, status: Option<u16>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request| http::answer(request, from, status));
    let builder = Builder::new(TokioExecutor::new());
    let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(io), service));
    // A broken connection is its caller's matter.
    tokio::select! {
        _ = serving.as_mut() => return,
        () = told(&mut stop) => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

/// Until it is to stop.
async fn told(stop: &mut Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Runs `work` on every connection, until it is told to stop.
fn accept<F>(
    listener: TcpListener,
    mut stop: Receiver<bool>,
    work: impl Fn(TcpStream, SocketAddr, Receiver<bool>) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = told(&mut stop) => return,
            };
            if let Ok((stream, from)) = accepted {
                let _ = stream.set_nodelay(true);
                tokio::spawn(work(stream, from, stop.clone()));
            }
        }
    });
}

/// Both families where the machine has them.
async fn listen(port: u16) -> Result<TcpListener> {
    let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await;
    match both {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.with_context(|| format!("port {port}")),
    }
}

async fn datagrams(port: u16) -> Result<UdpSocket> {
    match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(socket) => Ok(socket),
        Err(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).await.with_context(|| format!("port {port}")),
    }
}

fn port(listener: &TcpListener) -> io::Result<u16> {
    Ok(listener.local_addr()?.port())
}
