//! Accepting connections, and finding out what they speak.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use maesh_config::{ServiceName, model::Protocol};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

use super::{Listening, Place, Worker, Workers};
use crate::{
    http,
    reason::Reason,
    state::{Counts, Found, Target, find_port},
    tcp,
};

/// What begins every connection of HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Wait after the system had no descriptor left for another connection.
const OUT_OF_FILES: Duration = Duration::from_millis(50);

/// Starts accepting on `socket`, on the worker at place `first`.
pub(super) fn start(
    workers: &Workers,
    first: usize,
    socket: std::net::TcpListener,
    listening: Arc<Listening>,
) -> AbortHandle {
    let here = workers.nth(first).clone();
    let accepting = accept(workers.clone(), here.clone(), socket, listening);
    here.handle().spawn(accepting).abort_handle()
}

async fn accept(workers: Workers, here: Arc<Worker>, socket: std::net::TcpListener, listening: Arc<Listening>) {
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a bound listener cannot be used");
            return;
        }
    };
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // What the caller did to its connection is no matter of the listener; want of descriptors is.
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(OUT_OF_FILES).await;
                }
                continue;
            }
        };
        let worker = workers.idlest(&here).clone();
        worker.load.fetch_add(1, Ordering::Relaxed);
        if Arc::ptr_eq(&worker, &here) {
            tokio::spawn(connection(worker, stream, peer, listening.clone()));
        } else if let Ok(stream) = stream.into_std() {
            // Its events must come to the loop that will serve it.
            let (handle, listening) = (worker.handle().clone(), listening.clone());
            handle.spawn(async move {
                match TcpStream::from_std(stream) {
                    Ok(stream) => connection(worker, stream, peer, listening).await,
                    Err(_) => drop(worker.load.fetch_sub(1, Ordering::Relaxed)),
                }
            });
        }
    }
}

async fn connection(worker: Arc<Worker>, stream: TcpStream, peer: SocketAddr, listening: Arc<Listening>) {
    let caller = peer.ip().to_canonical();
    let (http, owner) = {
        let facts = listening.facts.load();
        (facts.http, facts.owner.clone())
    };
    // A failure here means that the connection is gone already, which reading will say.
    let _ = stream.set_nodelay(true);
    match worker.shared.connections.enter(caller) {
        None => refuse(stream, http).await,
        Some(place) if http => serve_http(&worker, stream, caller, listening, place).await,
        Some(place) => match owner {
            Some((service, port)) => serve_tcp(&worker, stream, caller, &service, port, place).await,
            // A shared port without HTTP carries TLS only, which is routed by name.
            None => drop(stream),
        },
    }
    worker.load.fetch_sub(1, Ordering::Relaxed);
}

/// Too many are open.
async fn refuse(mut stream: TcpStream, http: bool) {
    if http {
        // Whether it is heard is no matter.
        let _ = stream.write_all(&http::last_words(Reason::Overloaded)).await;
    }
}

async fn serve_http(
    worker: &Arc<Worker>,
    mut stream: TcpStream,
    caller: IpAddr,
    listening: Arc<Listening>,
    place: Place,
) {
    let shared = &worker.shared;
    let first = tokio::time::timeout(shared.config.limits.head_timeout, recognise(&mut stream)).await;
    let Ok(Ok((first, http2))) = first else { return };
    if first.is_empty() {
        return;
    }
    shared.telemetry.open_http.inc();
    let caller = http::Caller::new(shared.clone(), worker.clone(), listening, caller, http2);
    http::serve(stream, first, caller).await;
    shared.telemetry.open_http.dec();
    drop(place);
}

/// Reads until it is known whether the connection speaks HTTP/2.
async fn recognise(stream: &mut TcpStream) -> io::Result<(Bytes, bool)> {
    let mut first = BytesMut::with_capacity(4096);
    loop {
        if stream.read_buf(&mut first).await? == 0 {
            return Ok((first.freeze(), false));
        }
        let len = first.len().min(PREFACE.len());
        if first[..len] != PREFACE[..len] {
            return Ok((first.freeze(), false));
        }
        if len == PREFACE.len() {
            return Ok((first.freeze(), true));
        }
    }
}

async fn serve_tcp(
    worker: &Arc<Worker>,
    stream: TcpStream,
    caller: IpAddr,
    service: &ServiceName,
    port: u16,
    place: Place,
) {
    let shared = &worker.shared;
    let found = match shared.directory.service(service) {
        Some(called) => find_port(shared, &called, port, Protocol::Tcp).await,
        None => Found::Absent,
    };
    let Found::Port(port) = found else { return reset(&stream) };
    let Target::Backend(backend) = port.target(worker.draw()) else { return reset(&stream) };
    let Some((endpoint, in_flight)) = http::dial(worker, caller, backend).await else { return reset(&stream) };
    let idle = backend.upstreams.load().policy.idle_timeout;
    shared.telemetry.open_tcp.inc();
    let relayed = tcp::relay(stream, Bytes::new(), endpoint, idle).await;
    shared.telemetry.open_tcp.dec();
    if let Counts::Stream(counts) = &port.counts {
        counts.connections.inc();
        counts.received.inc_by(relayed.to_endpoint);
        counts.sent.inc_by(relayed.to_caller);
    }
    drop((in_flight, place));
}

/// Ends a stream so that the caller sees an error and not an end.
fn reset(stream: &TcpStream) {
    // Where it fails the caller sees an end, and no bytes before it.
    let _ = stream.set_zero_linger();
}
