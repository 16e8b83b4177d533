//! Finds a controller and opens a stream to it.

use std::{io, net::SocketAddr, time::Duration};

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rand::{Rng, RngExt};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Streaming, client::Grpc, metadata::MetadataValue};
use tonic_prost::ProstCodec;

use super::{Connect, SubscriberConfig};
use crate::{
    io::Io,
    progress,
    tls::ClientTls,
    xds::{self, DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};

/// Largest response: as much as a single resource may have.
const RESPONSE: usize = 64 << 20;

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no controller address is known: {0}")]
    Nowhere(String),
    #[error("{address}: {source}")]
    Io { address: String, source: io::Error },
    #[error("{address}: no connection within {limit:?}")]
    Slow { address: String, limit: Duration },
    #[error("{address}: {source}")]
    Http { address: String, source: hyper::Error },
    #[error("reading the token: {0}")]
    Token(io::Error),
    #[error("{address}: {status}")]
    Refused { address: String, status: Box<tonic::Status> },
}

impl ConnectError {
    /// A controller answered, and its own view of the cluster is old.
    pub(super) fn is_stale(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if progress::is_stale(status))
    }
}

/// Which controllers the subscriber accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AcceptedControllers {
    /// Those whose view of the cluster is fresh.
    Fresh,
    /// Any.
    Any,
}

/// One open stream.
pub(super) struct OpenStream {
    pub(super) responses: Streaming<DeltaDiscoveryResponse>,
    /// Ends the connection when dropped.
    _connection: Connection,
}

struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tries one address after another, for as long as the subscriber lives.
#[derive(Debug, Default)]
pub(super) struct Connector {
    /// Addresses still to be tried before they are looked up again.
    next: Vec<(String, SocketAddr)>,
}

impl Connector {
    /// Opens a stream to the next controller. `requests` may hold requests already: some servers say nothing, not even
    /// that the stream is open, before they have read one.
    pub(super) async fn open(
        &mut self,
        config: &SubscriberConfig,
        requests: mpsc::UnboundedReceiver<DeltaDiscoveryRequest>,
        take: AcceptedControllers,
    ) -> Result<OpenStream, ConnectError> {
        let limit = config.timing.connect;
        let token = config.token.read().map_err(ConnectError::Token)?;
        let (address, io) = match &config.connect {
            Connect::InProcess(way) => {
                let address = "this process".to_owned();
                let io = way.connect().await.map_err(|source| ConnectError::Io { address: address.clone(), source })?;
                (address, io)
            }
            Connect::Tcp { controllers, tls } => {
                if self.next.is_empty() {
                    self.next = resolve(controllers, limit).await?;
                }
                let Some((host, address)) = self.next.pop() else {
                    return Err(ConnectError::Nowhere("their names resolve to nothing".to_owned()));
                };
                tcp(&host, address, tls.as_ref(), limit).await?
            }
        };
        stream(config, address, io, token, requests, take).await
    }

    /// The stream that was opened last was good: when it ends, a new one may go to the same controller.
    pub(super) fn forget_failures(&mut self) {
        self.next.clear();
    }
}

/// Opens a stream to the controller at this address, however old its view of the cluster, whose certificate has the name of those that are configured.
pub(super) async fn open_at(
    config: &SubscriberConfig,
    address: SocketAddr,
    requests: mpsc::UnboundedReceiver<DeltaDiscoveryRequest>,
) -> Result<OpenStream, ConnectError> {
    let token = config.token.read().map_err(ConnectError::Token)?;
    let Connect::Tcp { controllers, tls } = &config.connect else {
        return Err(ConnectError::Nowhere("the controller is in this process".to_owned()));
    };
    let host = controllers.first().map_or("", |controller| host(controller));
    let (address, io) = tcp(host, address, tls.as_ref(), config.timing.connect).await?;
    stream(config, address, io, token, requests, AcceptedControllers::Any).await
}

/// A connection to `address` and what it is called; `host` is who its certificate is to name.
async fn tcp(
    host: &str,
    address: SocketAddr,
    tls: Option<&ClientTls>,
    limit: Duration,
) -> Result<(String, Io), ConnectError> {
    let name = format!("{host} ({address})");
    let io = tokio::time::timeout(limit, async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        match tls {
            None => Ok(Io::tcp(stream, address)),
            Some(tls) => Ok(Io::client_tls(tls.connect(host, stream).await?, address)),
        }
    });
    let io = io.await.map_err(|_| ConnectError::Slow { address: name.clone(), limit })?;
    let io = io.map_err(|source| ConnectError::Io { address: name.clone(), source })?;
    Ok((name, io))
}

/// The host in `HOST:PORT`.
fn host(controller: &str) -> &str {
    let host = controller.rsplit_once(':').map_or(controller, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

async fn stream(
    config: &SubscriberConfig,
    address: String,
    io: Io,
    token: Option<String>,
    requests: mpsc::UnboundedReceiver<DeltaDiscoveryRequest>,
    take: AcceptedControllers,
) -> Result<OpenStream, ConnectError> {
    let handshake = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(config.timing.keepalive)
        .keep_alive_timeout(config.timing.keepalive)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .handshake(TokioIo::new(io));
    let (sender, connection) = tokio::time::timeout(config.timing.connect, handshake)
        .await
        .map_err(|_| ConnectError::Slow { address: address.clone(), limit: config.timing.connect })?
        .map_err(|source| ConnectError::Http { address: address.clone(), source })?;
    let connection = Connection(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "discovery connection ended");
        }
    }));
    let service = tower::service_fn(move |request| {
        let mut sender = sender.clone();
        async move { sender.send_request(request).await }
    });
    let mut grpc = Grpc::with_origin(service, http::Uri::from_static("http://maesh-controller"))
        .max_decoding_message_size(RESPONSE);
    let mut request = Request::new(UnboundedReceiverStream::new(requests));
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse();
        let value = value.map_err(|_| ConnectError::Token(io::Error::other("it has impossible characters")))?;
        request.metadata_mut().insert("authorization", value);
    }
    if take == AcceptedControllers::Any {
        request.metadata_mut().insert(progress::ACCEPT_STALE, MetadataValue::from_static("true"));
    }
    let path = http::uri::PathAndQuery::from_static(xds::PATH);
    let opened = grpc.streaming(request, path, ProstCodec::default()).await;
    let responses = opened.map_err(|status| ConnectError::Refused { address, status: Box::new(status) })?.into_inner();
    Ok(OpenStream { responses, _connection: connection })
}

/// Every address of every controller, shuffled.
async fn resolve(controllers: &[String], limit: Duration) -> Result<Vec<(String, SocketAddr)>, ConnectError> {
    let mut all = Vec::new();
    let mut failure = "none is configured".to_owned();
    for controller in controllers {
        let host = host(controller);
        match tokio::time::timeout(limit, tokio::net::lookup_host(controller)).await {
            Ok(Ok(addresses)) => all.extend(addresses.map(|address| (host.to_owned(), address))),
            Ok(Err(error)) => failure = format!("{controller}: {error}"),
            Err(_) => failure = format!("{controller} did not resolve within {limit:?}"),
        }
    }
    if all.is_empty() {
        return Err(ConnectError::Nowhere(failure));
    }
    shuffle(&mut all, &mut rand::rng());
    Ok(all)
}

fn shuffle<T>(all: &mut [T], rng: &mut impl Rng) {
    for last in (1..all.len()).rev() {
        all.swap(last, rng.random_range(0..=last));
    }
}
