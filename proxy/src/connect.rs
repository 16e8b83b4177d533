//! Connecting to an endpoint.

mod tls;

use std::{io, net::SocketAddr, ops::RangeInclusive, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

pub(crate) use self::tls::TlsFailure;
use crate::{
    config::Config,
    local_ports,
    reason::Reason,
    telemetry::{Telemetry, TlsFailures},
};

/// Silence on a connection after which the kernel asks the endpoint's kernel whether it is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// Time between such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Unanswered questions after which the connection is dead.
const KEEPALIVE_RETRIES: u32 = 3;

/// Longest time that bytes of an HTTP exchange may wait for the endpoint's kernel to take them. It also ends a connection
/// whose endpoint is alive and does not read, so it must be longer than an application pauses.
const USER_TIMEOUT: Duration = Duration::from_secs(300);

/// Why no connection was made. Nothing was sent, so any request may be tried elsewhere.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The endpoint refused, or cannot be reached.
    #[error("connecting to {to}: {source}")]
    Failed { to: SocketAddr, source: Arc<io::Error> },
    /// The endpoint did not answer in time.
    #[error("connecting to {to}: no answer within {within:?}")]
    TimedOut { to: SocketAddr, within: Duration },
    /// All connections that may be opened to the endpoint are busy, and none became free in time.
    #[error("every connection to {to} is busy")]
    Busy { to: SocketAddr },
    /// The endpoint took the connection, and could not be verified, or does not speak TLS.
    #[error("TLS with {to}: {failure}")]
    Tls { to: SocketAddr, failure: TlsFailure },
    /// The endpoint does not speak the version of HTTP that the request needs over TLS. For others it may be fine.
    #[error("{to} does not speak {wanted} over TLS")]
    OtherProtocol { to: SocketAddr, wanted: &'static str },
}

impl ConnectError {
    /// The endpoint took the connection and did not begin to speak as expected.
    pub(crate) fn handshake(to: SocketAddr, error: &maesh_http2::Error) -> Self {
        Self::Failed { to, source: Arc::new(io::Error::other(error.to_string())) }
    }

    /// Whether it says something about the endpoint, and not only about what it is to be verified against, or what the request
    /// needs.
    pub(crate) fn is_of_endpoint(&self) -> bool {
        match self {
            Self::Tls { failure, .. } => !matches!(failure, TlsFailure::NoRoots(_) | TlsFailure::BadName),
            Self::OtherProtocol { .. } => false,
            Self::Failed { .. } | Self::TimedOut { .. } | Self::Busy { .. } => true,
        }
    }

    /// The reason that a caller is told.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Failed { .. } | Self::Tls { .. } => Reason::ConnectFailed,
            Self::TimedOut { .. } => Reason::ConnectTimeout,
            Self::Busy { .. } => Reason::Overloaded,
            Self::OtherProtocol { .. } => Reason::UpstreamProtocol,
        }
    }
}

/// How connections to endpoints are made, and where they are counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connector {
    outgoing_ports: Option<RangeInclusive<u16>>,
    connected: prometheus_client::metrics::counter::Counter,
    failed: prometheus_client::metrics::counter::Counter,
    tls_failures: TlsFailures,
}

impl Connector {
    /// A connector as the proxy is configured.
    pub(crate) fn new(config: &Config, telemetry: &Telemetry) -> Self {
        Self {
            outgoing_ports: config.outgoing_ports.clone(),
            connected: telemetry.connects.clone(),
            failed: telemetry.connects_failed.clone(),
            tls_failures: telemetry.tls_failures.clone(),
        }
    }

    /// Opens a stream to `to`, at the latest after `within`.
    pub(crate) async fn connect(&self, to: SocketAddr, within: Duration) -> Result<TcpStream, ConnectError> {
        let connected = match tokio::time::timeout(within, self.open(to)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(source)) => Err(ConnectError::Failed { to, source: Arc::new(source) }),
            Err(_) => Err(ConnectError::TimedOut { to, within }),
        };
        if connected.is_ok() {
            self.connected.inc()
        } else {
            self.failed.inc()
        };
        connected
    }

    /// Counts a handshake that failed.
    pub(crate) fn tls_failed(&self, failure: &TlsFailure) {
        self.tls_failures.count(failure.code());
    }

    async fn open(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Without it a listener could not be opened later on the local port that this connection happens to get.
        socket.set_reuseaddr(true)?;
        socket.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES);
        SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
        if let Some(range) = &self.outgoing_ports {
            local_ports::limit(&socket, range)?;
        }
        socket.connect(to).await
    }
}

/// Bounds the time that bytes of an HTTP exchange wait unacknowledged. Not for opaque streams, where either side may
/// stop reading for as long as it likes.
pub(crate) fn limit_unacknowledged(stream: &TcpStream) {
    // It fails only where the connection is gone, which reading will say.
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(USER_TIMEOUT));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An endpoint whose node dies says nothing any more: only the kernel can notice.
    #[tokio::test]
    async fn connections_notice_a_node_that_died() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let to = listener.local_addr().expect("bound");
        let stream = Connector::default().connect(to, Duration::from_secs(60)).await.expect("connected");
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("read"));
        assert_eq!(socket.tcp_keepalive_time().expect("read"), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().expect("read"), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().expect("read"), KEEPALIVE_RETRIES);
        assert_eq!(socket.tcp_user_timeout().expect("read"), None, "opaque streams may stand still");
        limit_unacknowledged(&stream);
        assert_eq!(socket.tcp_user_timeout().expect("read"), Some(USER_TIMEOUT));
    }
}
