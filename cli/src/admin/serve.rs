//! Accepts the connections of the admin port, which every pod of the cluster can reach.
//!
//! Probes decide whether this process lives, so they are answered whatever else is connected: a new connection is always
//! accepted, another one makes room for it ([`ConnectionTable`]), a connection carries one request, and none lasts long.
//! Everything that takes longer than a probe is done elsewhere than on this thread.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use maesh_discovery::{AcceptFailures, ConnectionSlot, ConnectionTable};
use tokio::net::{TcpListener, TcpStream};

use super::Admin;
use crate::open_files;

/// Longest time that a request's head may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest time that a connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves until the process ends.
pub(super) async fn accept(listener: std::net::TcpListener, admin: Arc<Admin>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "admin port: cannot be served"),
    };
    let connections = ConnectionTable::new(open_files::admin());
    let mut failures = AcceptFailures::new("the admin port");
    loop {
        connections.room().await;
        match listener.accept().await {
            Ok((stream, from)) => {
                tokio::spawn(serve(stream, from, connections.add(from.ip()), admin.clone()));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                failures.log(&error);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One connection, which carries one request.
async fn serve(stream: TcpStream, from: SocketAddr, slot: ConnectionSlot, admin: Arc<Admin>) {
    let service = service_fn(|request| {
        slot.mark_active();
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(admin.answer(request, from).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        // A peer that has sent its request and nothing more to come is answered.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        served = connection => {
            if let Err(error) = served {
                tracing::debug!(%error, %from, "admin port: connection failed");
            }
        }
        () = slot.close().cancelled() => tracing::debug!(%from, "admin port: connection closed to make room"),
        () = tokio::time::sleep(CONNECTION_TIMEOUT) => tracing::debug!(%from, "admin port: connection took too long"),
    }
}
