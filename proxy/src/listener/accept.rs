//! Accepting connections, and finding out what they speak.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use maesh_config::model::Protocol;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::AbortHandle,
    time::timeout,
};

use super::socket::AsyncListener;
use crate::{
    admission::ConnectionPermit,
    http,
    loops::Way,
    reason::Reason,
    state::{Called, Found, InFlight, Listening, Shared, Target, find_port},
    tcp,
    tls::{self, Opening},
    worker::{Worker, Workers},
};

/// What begins every connection of HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Pause after the system had no descriptor left for another connection.
const OUT_OF_FILES: Duration = Duration::from_millis(50);

/// A listening socket, and for which local addresses it is there.
pub(super) struct Socket {
    pub(super) socket: Arc<std::net::TcpListener>,
    /// Connections to other addresses are closed; empty where the socket is bound to what it serves.
    pub(super) only: Arc<[IpAddr]>,
}

/// Starts accepting on `socket`, on the worker at place `first`.
pub(super) fn start(workers: &Workers, first: usize, socket: Socket, listening: Arc<Listening>) -> AbortHandle {
    let here = workers.nth(first).clone();
    let accepting = accept(workers.clone(), here.clone(), socket, listening);
    here.handle().spawn(accepting).abort_handle()
}

async fn accept(workers: Workers, here: Arc<Worker>, socket: Socket, listening: Arc<Listening>) {
    let Socket { socket, only } = socket;
    let listener = match AsyncListener::new(socket) {
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
                // An error of one connection does not concern the listener; a lack of descriptors does.
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(OUT_OF_FILES).await;
                }
                continue;
            }
        };
        if !only.is_empty() && !stream.local_addr().is_ok_and(|local| only.contains(&local.ip().to_canonical())) {
            continue;
        }
        let worker = workers.idlest(&here).clone();
        worker.load.fetch_add(1, Ordering::Relaxed);
        let (handle, listening) = (worker.handle().clone(), listening.clone());
        // Registered with the event loop of the worker that serves it.
        let serve = async move {
            if let Ok(stream) = TcpStream::from_std(stream) {
                connection(&worker, stream, peer, listening).await;
            }
            worker.load.fetch_sub(1, Ordering::Relaxed);
        };
        handle.spawn(serve);
    }
}

async fn connection(worker: &Arc<Worker>, stream: TcpStream, peer: SocketAddr, listening: Arc<Listening>) {
    let shared = &worker.shared;
    let caller = peer.ip().to_canonical();
    // A failure means that the connection is closed already. Reading will notice.
    let _ = stream.set_nodelay(true);
    let has_descriptors = shared.admission.has_descriptors(stream.as_raw_fd());
    let Some(permit) = has_descriptors.then(|| shared.admission.connection(caller)).flatten() else {
        return refuse(shared, stream, &listening).await;
    };
    let Ok(_end) = shared.own_ends.note(Way::Arrived, peer) else {
        shared.telemetry.loops.inc();
        return reset(&stream, caller, Reason::LoopDetected);
    };
    shared.meet(caller);
    dispatch(worker, stream, caller, listening, permit).await;
}

/// Serves a connection by the protocol of its port; on shared ports, by its first bytes.
async fn dispatch(
    worker: &Arc<Worker>,
    mut stream: TcpStream,
    caller: IpAddr,
    listening: Arc<Listening>,
    permit: ConnectionPermit,
) {
    let shared = &worker.shared;
    let (http, owner) = {
        let facts = listening.facts.load();
        (facts.http, facts.owner.clone())
    };
    if let Some((service, port)) = owner.filter(|_| !http) {
        let called = shared.directory.named(&service);
        return serve_tcp(worker, stream, Bytes::new(), caller, Carried { called, port, protocol: Protocol::Tcp })
            .await;
    }
    let mut first = BytesMut::with_capacity(4096);
    shared.telemetry.open_unknown.inc();
    let opening = timeout(shared.config.limits.head_timeout, open(&mut stream, &mut first)).await;
    shared.telemetry.open_unknown.dec();
    match opening {
        Ok(Ok(Speaks::Tls(name))) => serve_tls(worker, stream, first.freeze(), caller, &listening, name).await,
        Ok(Ok(Speaks::Http { http2 })) if http => {
            shared.telemetry.open_http.inc();
            let caller = http::Caller::new(shared.clone(), worker.clone(), listening, caller, http2, permit);
            http::serve(stream, first.freeze(), caller).await;
            shared.telemetry.open_http.dec();
        }
        // What carries only TLS has nothing to say to anybody else; nor is there anything to say to silence.
        Ok(Ok(Speaks::Http { .. } | Speaks::Nothing) | Err(_)) | Err(_) => {}
    }
}

/// What a connection speaks, as far as its first bytes say.
enum Speaks {
    /// TLS, for this name.
    Tls(Option<Box<str>>),
    /// HTTP, or nothing that is known here: then HTTP/1.1 says so.
    Http {
        http2: bool,
    },
    Nothing,
}

/// Reads into `first` until it is known what the connection speaks.
async fn open(stream: &mut TcpStream, first: &mut BytesMut) -> io::Result<Speaks> {
    match tls::read_opening(stream, first).await? {
        Opening::Named(name) => return Ok(Speaks::Tls(Some(name))),
        Opening::Unnamed => return Ok(Speaks::Tls(None)),
        Opening::Ended => return Ok(Speaks::Nothing),
        Opening::NotTls => {}
    }
    loop {
        let len = first.len().min(PREFACE.len());
        if first[..len] != PREFACE[..len] {
            return Ok(Speaks::Http { http2: false });
        }
        if len == PREFACE.len() {
            return Ok(Speaks::Http { http2: true });
        }
        if stream.read_buf(first).await? == 0 {
            return Ok(Speaks::Http { http2: false });
        }
    }
}

/// Too many are open.
async fn refuse(shared: &Shared, mut stream: TcpStream, listening: &Listening) {
    let (http, owner) = {
        let facts = listening.facts.load();
        (facts.http, facts.owner.clone())
    };
    match owner.and_then(|(service, port)| Some((shared.directory.named(&service)?, port))) {
        Some((called, port)) if !http => shared.telemetry.stream(&called.name, port).refused(Reason::Overloaded),
        _ => shared.telemetry.refused(Reason::Overloaded),
    }
    if http {
        // The caller may be gone; that is fine.
        let _ = stream.write_all(&http::last_words(Reason::Overloaded)).await;
    }
}

/// Carries a stream of TLS, untouched, to the Service that owns the port, or on a shared port to the one whose name it
/// says: every Service has its own names there, whatever the port carries otherwise.
async fn serve_tls(
    worker: &Arc<Worker>,
    stream: TcpStream,
    first: Bytes,
    caller: IpAddr,
    listening: &Listening,
    name: Option<Box<str>>,
) {
    let shared = &worker.shared;
    if let Some((service, port)) = listening.facts.load().owner.clone() {
        let called = shared.directory.named(&service);
        return serve_tcp(worker, stream, first, caller, Carried { called, port, protocol: Protocol::Http }).await;
    }
    // TLS without a server name belongs to no Service.
    let Some(host) = name.as_ref().and_then(|name| http::Host::parse(name.as_bytes())) else { return };
    if host.is_one_label() {
        shared.know(caller).await;
    }
    let carried = {
        let facts = listening.facts.load();
        let on = |called: &Arc<Called>, protocol| http::port_on(called, facts.port, protocol).map(|it| (it, protocol));
        http::find_called(shared, &facts.sni, &host, caller).ok().and_then(|called| {
            let (port, protocol) = on(&called, Protocol::Tcp).or_else(|| on(&called, Protocol::Http))?;
            Some(Carried { called: Some(called), port, protocol })
        })
    };
    if let Some(carried) = carried {
        serve_tcp(worker, stream, first, caller, carried).await;
    }
}

/// The port of a Service to which an opaque stream belongs.
struct Carried {
    called: Option<Arc<Called>>,
    port: u16,
    /// What the port carries otherwise.
    protocol: Protocol,
}

/// Carries a stream of which `first` was already read, or resets it.
async fn serve_tcp(worker: &Arc<Worker>, stream: TcpStream, first: Bytes, caller: IpAddr, carried: Carried) {
    let shared = &worker.shared;
    let Carried { called: Some(called), port, protocol } = carried else {
        return reset(&stream, caller, Reason::UnknownHost);
    };
    let counts = shared.telemetry.stream(&called.name, port);
    let (endpoint, in_flight, idle) = match endpoint_for(worker, caller, &called, port, protocol).await {
        Ok(found) => found,
        Err(reason) => {
            counts.refused(reason);
            return reset(&stream, caller, reason);
        }
    };
    let begins = endpoint.local_addr().ok().filter(|_| shared.own_ends.any());
    let Ok(_end) = begins.map(|begins| shared.own_ends.note(Way::Opened, begins)).transpose() else {
        shared.telemetry.loops.inc();
        counts.refused(Reason::LoopDetected);
        return reset(&stream, caller, Reason::LoopDetected);
    };
    counts.connections.inc();
    shared.telemetry.open_tcp.inc();
    let relayed = tcp::relay(stream, first, endpoint, idle).await;
    shared.telemetry.open_tcp.dec();
    counts.received.inc_by(relayed.to_endpoint);
    counts.sent.inc_by(relayed.to_caller);
    drop(in_flight);
}

/// Connects a stream to `called` with an endpoint; also how long the stream may be silent.
///
/// # Errors
/// Why it cannot be carried.
async fn endpoint_for(
    worker: &Arc<Worker>,
    caller: IpAddr,
    called: &Arc<Called>,
    port: u16,
    protocol: Protocol,
) -> Result<(TcpStream, InFlight, Option<Duration>), Reason> {
    let shared = &worker.shared;
    let port = match find_port(shared, called, port, protocol).await {
        Found::Port(port) => port,
        Found::NoPort => return Err(Reason::NoRoute),
        Found::Absent => return Err(Reason::UnknownHost),
        Found::NotSynced => return Err(Reason::NotSynced),
    };
    let backend = match port.target(worker.draw()) {
        Target::Backend(backend) => backend,
        Target::NotUnderstood => return Err(Reason::UnsupportedPolicy),
        Target::Missing => return Err(Reason::BadBackend),
        Target::Nowhere => return Err(Reason::NoEndpoints),
    };
    let (idle, local_only) = {
        let upstreams = backend.upstreams.load();
        (upstreams.policy.idle_timeout, upstreams.policy.local_only)
    };
    if local_only {
        shared.know(caller).await;
    }
    let (endpoint, in_flight) = tcp::dial(worker, caller, backend).await?;
    Ok((endpoint, in_flight, idle))
}

/// Ends a stream so that the caller sees an error and not an end.
fn reset(stream: &TcpStream, caller: IpAddr, reason: Reason) {
    tracing::debug!(%caller, local = ?stream.local_addr().ok(), reason = reason.code(), "stream reset");
    // If this fails, the caller sees an ordinary end of the stream.
    let _ = stream.set_zero_linger();
}
