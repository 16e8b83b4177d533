//! Accepts connections and serves each in a task of its own, as plain TCP or as DNS over TLS.

use std::{io, net::SocketAddr, sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use maesh_discovery::{AcceptFailures, ConnectionSlot, ConnectionTable};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    StreamLimits,
    session::{Answering, Session, SessionEnd},
    tls,
};
use crate::{answer::Transport, metrics::Metrics};

/// How long to wait when the system has no file or memory left for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// What the connections of one kind share.
pub(crate) struct StreamServer {
    pub(crate) answering: Arc<Answering>,
    pub(crate) limits: StreamLimits,
    pub(crate) table: ConnectionTable,
    /// With it, connections begin with a TLS handshake.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) metrics: Metrics,
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl StreamServer {
    fn transport(&self) -> Transport {
        if self.tls.is_some() { Transport::Tls } else { Transport::Tcp }
    }

    /// Accepts connections until it is stopped. No error ends it.
    pub(crate) async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut failures = AcceptFailures::new("resolvers");
        let next = async || {
            self.table.room().await;
            listener.accept().await
        };
        loop {
            let accepted = tokio::select! {
                accepted = next() => accepted,
                () = self.stopping.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    self.clone().spawn(stream, peer);
                }
                Err(error) => {
                    self.metrics.connections().failed.fetch_add(1, Relaxed);
                    // A connection that went before it was accepted says nothing of the next one.
                    let transient = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset];
                    if transient.contains(&error.kind()) {
                        continue;
                    }
                    failures.log(&error);
                    tokio::select! {
                        () = sleep(PAUSE) => {}
                        () = self.stopping.cancelled() => return,
                    }
                }
            }
        }
    }

    /// Serves a connection in a task. Where there are too many, another one is closed for it.
    fn spawn(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let slot = self.table.add(peer.ip());
        let tasks = self.tasks.clone();
        tasks.spawn(async move {
            let connections = self.metrics.connections();
            connections.open(self.transport()).fetch_add(1, Relaxed);
            tokio::select! {
                ended = self.serve(stream, peer, &slot) => match ended {
                    Ok(SessionEnd::Idle) => {
                        connections.idle.fetch_add(1, Relaxed);
                    }
                    Ok(SessionEnd::Closed | SessionEnd::Malformed) => {}
                    Err(error) => tracing::debug!(%error, %peer, "a DNS connection failed"),
                },
                () = slot.close().cancelled() => {
                    connections.crowded_out.fetch_add(1, Relaxed);
                }
                () = self.stopping.cancelled() => {}
            }
            connections.open(self.transport()).fetch_sub(1, Relaxed);
        });
    }

    async fn serve(&self, mut stream: TcpStream, peer: SocketAddr, slot: &ConnectionSlot) -> io::Result<SessionEnd> {
        stream.set_nodelay(true)?;
        let mut session = Session::new(&self.answering, self.transport(), peer, slot);
        let Some(config) = &self.tls else { return session.serve(&mut stream, self.limits.idle).await };
        let handshake = tls::handshake(stream, config.clone(), self.limits.handshake).await;
        let mut stream = handshake.inspect_err(|_| {
            self.metrics.connections().handshake.fetch_add(1, Relaxed);
        })?;
        let ended = session.serve(&mut stream, self.limits.idle).await?;
        tls::close(&mut stream).await;
        Ok(ended)
    }
}
