//! Connecting to an endpoint.

use std::{io, net::SocketAddr, time::Duration};

use tokio::net::{TcpSocket, TcpStream};

use crate::{local_ports, reason::Reason, state::Shared};

/// Why no connection was made. Nothing was sent, so any request may be tried elsewhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The endpoint refused, or cannot be reached.
    #[error("connecting to {to}: {source}")]
    Failed { to: SocketAddr, source: io::Error },
    /// The endpoint did not answer in time.
    #[error("connecting to {to}: no answer within {within:?}")]
    TimedOut { to: SocketAddr, within: Duration },
}

impl ConnectError {
    /// The endpoint took the connection and did not begin to speak as expected.
    pub(crate) fn handshake(to: SocketAddr, error: &hyper::Error) -> Self {
        Self::Failed { to, source: io::Error::other(error.to_string()) }
    }

    /// The reason that a caller is told.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Failed { .. } => Reason::ConnectFailed,
            Self::TimedOut { .. } => Reason::ConnectTimeout,
        }
    }
}

/// Opens a stream to `to`, at the latest after `within`.
pub(crate) async fn connect(shared: &Shared, to: SocketAddr, within: Duration) -> Result<TcpStream, ConnectError> {
    let connected = tokio::time::timeout(within, open(shared, to)).await;
    match connected {
        Ok(Ok(stream)) => {
            shared.telemetry.connects.inc();
            Ok(stream)
        }
        Ok(Err(source)) => {
            shared.telemetry.connects_failed.inc();
            Err(ConnectError::Failed { to, source })
        }
        Err(_) => {
            shared.telemetry.connects_failed.inc();
            Err(ConnectError::TimedOut { to, within })
        }
    }
}

async fn open(shared: &Shared, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Else a listener could not be opened later on the local port that this connection happens to get.
    socket.set_reuseaddr(true)?;
    socket.set_nodelay(true)?;
    if let Some(range) = &shared.config.outgoing_ports {
        local_ports::limit(&socket, range)?;
    }
    socket.connect(to).await
}
