//! Accepting connections, and finding out what they speak.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use maesh_config::model::Protocol;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

use super::{Listening, Worker, Workers};
use crate::{
    http,
    reason::Reason,
    state::{Called, Counts, Found, Target, find_port},
    tcp,
    tls::{self, Opening},
};

/// What begins every connection of HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// First byte of a TLS stream (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 22;

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
    // A failure here means that the connection is gone already, which reading will say.
    let _ = stream.set_nodelay(true);
    match worker.shared.connections.enter(caller) {
        None => refuse(stream, listening.facts.load().http).await,
        Some(place) => {
            dispatch(&worker, stream, caller, listening).await;
            drop(place);
        }
    }
    worker.load.fetch_sub(1, Ordering::Relaxed);
}

/// Serves a connection by what its port carries, and on shared ports by what it begins with.
async fn dispatch(worker: &Arc<Worker>, stream: TcpStream, caller: IpAddr, listening: Arc<Listening>) {
    let (http, tls, owner) = {
        let facts = listening.facts.load();
        (facts.http, facts.tls, facts.owner.clone())
    };
    if let Some((service, port)) = owner.filter(|_| !http) {
        let called = worker.shared.directory.named(&service);
        return serve_tcp(worker, stream, caller, called, port).await;
    }
    if tls {
        let opening = tls::peek(&stream, worker.shared.config.limits.head_timeout).await;
        match opening {
            Ok(Opening::Named(name)) => return serve_tls(worker, stream, caller, &listening, &name).await,
            // Nobody can claim what has no name.
            Ok(Opening::Unnamed) | Err(_) => return,
            Ok(Opening::NotTls | Opening::Silent) => {}
        }
    }
    if http {
        serve_http(worker, stream, caller, listening).await;
    }
}

/// Too many are open.
async fn refuse(mut stream: TcpStream, http: bool) {
    if http {
        // Whether it is heard is no matter.
        let _ = stream.write_all(&http::last_words(Reason::Overloaded)).await;
    }
}

async fn serve_http(worker: &Arc<Worker>, mut stream: TcpStream, caller: IpAddr, listening: Arc<Listening>) {
    let shared = &worker.shared;
    let first = tokio::time::timeout(shared.config.limits.head_timeout, recognise(&mut stream)).await;
    let Ok(Ok((first, http2))) = first else { return };
    // On a shared port TLS is a matter of names, and nobody claimed this one.
    let shared_port = listening.facts.load().owner.is_none();
    if first.is_empty() || (first[0] == TLS_HANDSHAKE && shared_port) {
        return;
    }
    shared.telemetry.open_http.inc();
    let caller = http::Caller::new(shared.clone(), worker.clone(), listening, caller, http2);
    http::serve(stream, first, caller).await;
    shared.telemetry.open_http.dec();
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

/// Carries a stream of TLS, untouched, to the Service whose name it says.
async fn serve_tls(worker: &Arc<Worker>, stream: TcpStream, caller: IpAddr, listening: &Listening, name: &str) {
    let Some(host) = http::Host::parse(name.as_bytes()) else { return };
    let found = {
        let facts = listening.facts.load();
        http::find_called(&worker.shared, &facts.sni, &host, caller)
            .ok()
            .and_then(|called| http::port_on(&called, facts.port, Protocol::Tcp).map(|port| (called, port)))
    };
    if let Some((called, port)) = found {
        serve_tcp(worker, stream, caller, Some(called), port).await;
    }
}

async fn serve_tcp(worker: &Arc<Worker>, stream: TcpStream, caller: IpAddr, called: Option<Arc<Called>>, port: u16) {
    let shared = &worker.shared;
    let found = match called {
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
    drop(in_flight);
}

/// Ends a stream so that the caller sees an error and not an end.
fn reset(stream: &TcpStream) {
    // Where it fails the caller sees an end, and no bytes before it.
    let _ = stream.set_zero_linger();
}
