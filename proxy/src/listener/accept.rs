//! Accepting connections, and finding out what they speak.

mod log;

use std::{
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
    os::fd::AsRawFd,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use maesh_config::{ServiceName, model::Protocol};
use tokio::{io::AsyncReadExt, net::TcpStream, sync::oneshot, time::timeout};

use self::log::StreamLog;
use super::socket::AsyncListener;
use crate::{
    admission::ConnectionPermit,
    buffers::Charge,
    host::Host,
    http,
    loops::StreamOrigin,
    reason::Reason,
    routes::RouteFacts,
    state::{AdmittedStream, Denial, InFlight, Listening, PortLookup, ServiceEntry, Shared, Target, find_port},
    tcp,
    tls::{self, Opening},
    worker::{Worker, Workers},
};

/// What begins every connection of HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a stream on a port of one Service alone may take to say its server name, where routes ask for it.
const HELLO: Duration = Duration::from_secs(1);

/// Bytes that a connection usually begins with.
const OPENING: usize = 4096;

/// Most connections that are accepted after a listener was stopped: as many as may wait in its queue.
const BACKLOG: usize = 4096;

/// Pause after the system had no descriptor left for another connection.
const OUT_OF_FILES: Duration = Duration::from_millis(50);

/// A listening socket, and for which local addresses it is there.
pub(super) struct ListeningSocket {
    pub(super) socket: Arc<std::net::TcpListener>,
    /// Connections to other addresses are closed; empty where the socket is bound to what it serves.
    pub(super) only: Arc<[IpAddr]>,
}

/// Starts accepting on `socket`, on the worker at place `first`, until what it returns is dropped.
pub(super) fn start(
    workers: &Workers,
    first: usize,
    socket: ListeningSocket,
    listening: Arc<Listening>,
) -> oneshot::Sender<()> {
    let (stop, stopped) = oneshot::channel();
    let here = workers.nth(first).clone();
    let ListeningSocket { socket, only } = socket;
    let accepting = here.shared.acceptors.clone();
    let acceptor = Acceptor { workers: workers.clone(), here: here.clone(), only, listening, _accepting: accepting };
    here.handle().spawn(acceptor.run(socket, stopped));
    stop
}

/// Accepts the connections of one socket.
struct Acceptor {
    workers: Workers,
    /// The worker that accepts.
    here: Arc<Worker>,
    /// See [`ListeningSocket::only`].
    only: Arc<[IpAddr]>,
    listening: Arc<Listening>,
    _accepting: Arc<()>,
}

impl Acceptor {
    async fn run(self, socket: Arc<std::net::TcpListener>, mut stopped: oneshot::Receiver<()>) {
        let listener = match AsyncListener::new(socket) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "a bound listener cannot be used");
                return;
            }
        };
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                // An error means that its sender was dropped, which is the signal.
                _ = &mut stopped => break,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer),
                // An error of one connection does not concern the listener; a lack of descriptors does.
                Err(error) if !is_of_one_connection(&error) => {
                    let shared = &self.here.shared;
                    shared.admission.lingering().clear();
                    shared.logs.accept_failures.lock().log(&error);
                    tokio::time::sleep(OUT_OF_FILES).await;
                }
                Err(_) => {}
            }
        }
        // A connection that waits to be accepted would be reset when the socket is closed.
        for _ in 0..BACKLOG {
            match listener.accept_waiting() {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) if is_of_one_connection(&error) => {}
                Err(_) => return,
            }
        }
    }

    /// Hands a connection to the worker that has the fewest.
    fn admit(&self, stream: std::net::TcpStream, peer: SocketAddr) {
        let shared = &self.here.shared;
        if !self.only.is_empty() && !stream.local_addr().is_ok_and(|at| self.only.contains(&at.ip().to_canonical())) {
            return;
        }
        // Charged to its caller before it waits for a worker. A connection above a limit is refused at once.
        let has_descriptors = shared.admission.has_descriptors(stream.as_raw_fd());
        let permit = has_descriptors.then(|| shared.admission.connection(peer.ip().to_canonical())).flatten();
        let Some(permit) = permit else {
            return refuse(shared, stream, peer.ip().to_canonical(), &self.listening);
        };
        let worker = self.workers.idlest(&self.here).clone();
        worker.load.fetch_add(1, Ordering::Relaxed);
        let (handle, listening) = (worker.handle().clone(), self.listening.clone());
        // Registered with the event loop of the worker that serves it.
        handle.spawn(async move {
            if let Ok(stream) = TcpStream::from_std(stream) {
                connection(&worker, stream, peer, listening, permit).await;
            }
            worker.load.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

async fn connection(
    worker: &Arc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    listening: Arc<Listening>,
    permit: ConnectionPermit,
) {
    let shared = &worker.shared;
    let caller = peer.ip().to_canonical();
    let Ok(_end) = shared.own_ends.note(StreamOrigin::Arrived, peer) else {
        if let Some((called, port)) = owner_of_stream(shared, &listening) {
            looped(shared, &called.name, port, caller);
        } else {
            shared.telemetry.refused(Reason::LoopDetected);
        }
        shared.telemetry.loops.inc();
        return reset(&stream, caller, Reason::LoopDetected);
    };
    shared.request_workload(caller);
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
    let (http, tls, owner) = {
        let facts = listening.facts.load();
        (facts.http, facts.tls, facts.owner.clone())
    };
    if let Some((service, port)) = owner.filter(|_| !http) {
        let called = shared.directory.named(&service);
        let mut first = BytesMut::new();
        let server_name = match tls {
            // Boxed to keep the future of other streams small.
            true => Box::pin(server_name(shared, caller, &mut stream, &mut first)).await,
            false => None,
        };
        let carried = OpaqueTarget { called, port, protocol: Protocol::Tcp, server_name };
        return serve_tcp(worker, stream, first.freeze(), caller, carried).await;
    }
    let mut first = BytesMut::with_capacity(OPENING);
    shared.telemetry.open_unknown.inc();
    let mut held = None;
    let fits = |bytes| fits(shared, caller, &mut held, bytes);
    let opening = timeout(shared.config.limits.head_timeout, open(&mut stream, &mut first, fits)).await;
    shared.telemetry.open_unknown.dec();
    match opening {
        Ok(Ok(Speaks::Tls(name))) => serve_tls(worker, stream, first.freeze(), caller, &listening, name).await,
        Ok(Ok(Speaks::Http { http2 })) if http => {
            shared.telemetry.open_http.inc();
            let caller = http::Caller::new(shared.clone(), worker.clone(), listening, caller, http2, permit);
            http::serve(stream, first.freeze(), caller).await;
            shared.telemetry.open_http.dec();
        }
        // On a port that carries only TLS, other connections are closed without an answer; so are those that said
        // nothing.
        Ok(Ok(Speaks::Http { .. } | Speaks::Nothing) | Err(_)) | Err(_) => {}
    }
}

/// The server name of a stream on a port that is one Service's alone, where its routes ask for it. Who says none in time gets
/// what callers without one get: the protocol may be one in which the server speaks first.
async fn server_name(
    shared: &Shared,
    caller: IpAddr,
    stream: &mut TcpStream,
    first: &mut BytesMut,
) -> Option<Box<str>> {
    let mut held = None;
    let fits = |bytes| fits(shared, caller, &mut held, bytes);
    match timeout(HELLO, tls::read_opening(stream, first, fits)).await {
        Ok(Ok(Opening::Named(name))) => Some(name),
        // An error shows again when the stream is carried.
        Ok(_) | Err(_) => None,
    }
}

/// Whether `bytes` of what begins a connection may be held for `caller`. Counted in `held` once they are more than most need.
fn fits(shared: &Shared, caller: IpAddr, held: &mut Option<Charge>, bytes: usize) -> bool {
    if bytes <= OPENING {
        return true;
    }
    held.get_or_insert_with(|| shared.buffers.of(caller).charge()).set(bytes);
    shared.buffers.excess_of(caller) == 0
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
async fn open(stream: &mut TcpStream, first: &mut BytesMut, fits: impl FnMut(usize) -> bool) -> io::Result<Speaks> {
    match tls::read_opening(stream, first, fits).await? {
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
fn refuse(shared: &Shared, mut stream: std::net::TcpStream, caller: IpAddr, listening: &Listening) {
    // A caller that is an endpoint of what it calls, and has all connections that it may have, passes streams on to where
    // they came from. On a developer's machine everything may have the one address of loopback, which says nothing.
    let is_anybody = caller == IpAddr::from(Ipv4Addr::LOCALHOST) || caller == IpAddr::from(Ipv6Addr::LOCALHOST);
    let is_endpoint = |called: &ServiceEntry| {
        called.serving.load().as_ref().is_some_and(|serving| serving.leads_to(caller)) && !is_anybody
    };
    match owner_of_stream(shared, listening) {
        Some((called, port)) if is_endpoint(&called) => {
            shared.telemetry.loops.inc();
            looped(shared, &called.name, port, caller);
        }
        Some((called, port)) => {
            shared.telemetry.stream(&called.name, port).refused(Reason::Overloaded);
            log_refused(shared, Some(&called.name), caller);
        }
        None => {
            shared.telemetry.refused(Reason::Overloaded);
            log_refused(shared, None, caller);
        }
    }
    if listening.facts.load().http {
        // The buffer of a new connection has room for it. The caller may be gone; that is fine.
        if stream.write_all(&http::final_response(Reason::Overloaded)).is_ok()
            && stream.shutdown(Shutdown::Write).is_ok()
        {
            shared.admission.lingering().add(stream, Instant::now());
        }
    }
}

/// Says that connections of `caller` are refused.
fn log_refused(shared: &Shared, service: Option<&ServiceName>, caller: IpAddr) {
    if let Some(left_out) = shared.logs.refused.lock().note(Instant::now()) {
        let service = service.map(tracing::field::display);
        tracing::warn!(
            %caller, service, left_out,
            "connection refused: the caller has all connections that it may have, or the proxy has; see \
             maesh_proxy_connections_open. Look for a caller that opens connections in a loop, or raise the limit of open files"
        );
    }
}

/// Counts and logs a stream to `service` that led back to the mesh.
fn looped(shared: &Shared, service: &ServiceName, port: u16, caller: IpAddr) {
    shared.telemetry.stream(service, port).refused(Reason::LoopDetected);
    if let Some(left_out) = shared.logs.loops.lock().note(Instant::now()) {
        tracing::warn!(
            %service, port, %caller, left_out,
            "stream ended: an endpoint of the Service leads back to the mesh. Check the Service's EndpointSlices, and where \
             the programs behind them connect to"
        );
    }
}

/// The Service whose streams arrive at a listener, and its port; `None` where it carries HTTP.
fn owner_of_stream(shared: &Shared, listening: &Listening) -> Option<(Arc<ServiceEntry>, u16)> {
    let facts = listening.facts.load();
    let (service, port) = facts.owner.as_ref().filter(|_| !facts.http)?;
    Some((shared.directory.named(service)?, *port))
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
    let host = name.as_ref().and_then(|name| Host::parse(name.as_bytes()));
    if let Some((service, port)) = listening.facts.load().owner.clone() {
        let called = shared.directory.named(&service);
        let server_name = host.map(|host| host.as_str().into());
        let carried = OpaqueTarget { called, port, protocol: Protocol::Http, server_name };
        return serve_tcp(worker, stream, first, caller, carried).await;
    }
    // TLS without a server name belongs to no Service.
    let Some(host) = host else { return };
    if host.is_one_label() {
        shared.wait_for_workload(caller).await;
    }
    let carried = {
        let facts = listening.facts.load();
        let on =
            |called: &Arc<ServiceEntry>, protocol| http::port_on(called, facts.port, protocol).map(|it| (it, protocol));
        http::find_called(shared, &facts.sni, &host, caller).ok().and_then(|called| {
            let (port, protocol) = on(&called, Protocol::Tcp).or_else(|| on(&called, Protocol::Http))?;
            Some(OpaqueTarget { called: Some(called), port, protocol, server_name: Some(host.as_str().into()) })
        })
    };
    if let Some(carried) = carried {
        serve_tcp(worker, stream, first, caller, carried).await;
    }
}

/// The port of a Service to which an opaque stream belongs.
struct OpaqueTarget {
    called: Option<Arc<ServiceEntry>>,
    port: u16,
    /// What the port carries otherwise.
    protocol: Protocol,
    /// The server name of TLS, in small letters.
    server_name: Option<Box<str>>,
}

/// Carries a stream of which `first` was already read, or resets it.
async fn serve_tcp(worker: &Arc<Worker>, stream: TcpStream, first: Bytes, caller: IpAddr, carried: OpaqueTarget) {
    let shared = &worker.shared;
    let OpaqueTarget { called: Some(called), port, protocol, server_name } = carried else {
        return reset(&stream, caller, Reason::UnknownHost);
    };
    let counts = shared.telemetry.stream(&called.name, port);
    let logged = StreamLog::begin(worker, caller, &called.name, port);
    let (endpoint, in_flight, idle, admitted) =
        match endpoint_for(worker, caller, &called, port, protocol, server_name.as_deref()).await {
            Ok(found) => found,
            Err(reason) => {
                counts.refused(reason);
                logged.inspect(|logged| logged.refused(shared, reason));
                return reset(&stream, caller, reason);
            }
        };
    let begins = endpoint.local_addr().ok().filter(|_| shared.own_ends.any());
    let Ok(_end) = begins.map(|begins| shared.own_ends.note(StreamOrigin::Opened, begins)).transpose() else {
        shared.telemetry.loops.inc();
        looped(shared, &called.name, port, caller);
        return reset(&stream, caller, Reason::LoopDetected);
    };
    counts.connections.inc();
    shared.telemetry.open_tcp.inc();
    let relayed = match admitted {
        None => tcp::relay(stream, first, endpoint, idle).await,
        Some(admitted) => tcp::relay_until(stream, first, endpoint, idle, admitted.revoked()).await,
    };
    shared.telemetry.open_tcp.dec();
    counts.received.inc_by(relayed.to_endpoint);
    counts.sent.inc_by(relayed.to_caller);
    logged.inspect(|logged| logged.end(shared, &in_flight, (relayed.to_endpoint, relayed.to_caller)));
    drop(in_flight);
}

/// Connects a stream to `called` with an endpoint; also how long the stream may be silent.
///
/// # Errors
/// Why it cannot be carried.
async fn endpoint_for(
    worker: &Arc<Worker>,
    caller: IpAddr,
    called: &Arc<ServiceEntry>,
    port: u16,
    protocol: Protocol,
    server_name: Option<&str>,
) -> Result<(TcpStream, InFlight, Option<Duration>, Option<AdmittedStream>), Reason> {
    let shared = &worker.shared;
    let port = match find_port(shared, called, port, protocol).await {
        PortLookup::Port(port) => port,
        PortLookup::NoPort => return Err(Reason::NoRoute),
        PortLookup::Absent => return Err(Reason::UnknownHost),
        PortLookup::NotSynced => return Err(Reason::NotSynced),
    };
    let facts = || RouteFacts::of_connection(server_name.unwrap_or_default(), caller);
    let route = port.route(facts);
    if shared.controls_access() {
        shared.identify(caller).await?;
        shared.admits(&called.name, (&port, route), (caller, shared.account_of(caller).as_ref()), None)?;
    }
    let backend = match port.pick(route, worker.draw()) {
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
        shared.wait_for_workload(caller).await;
    }
    let (dialled, backend) = match tcp::dial(worker, caller, &port.runtime, backend).await {
        Err(reason) if reason.is_unreachable() => match port.fallback_of(backend) {
            Some(fallback) => {
                let account = shared.account_of(caller);
                let (called, account) = (&called.name, account.as_ref());
                shared.try_out(Denial { called, backend: fallback, caller, account, request: None });
                match tcp::dial(worker, caller, &port.runtime, fallback).await {
                    Err(Reason::Denied) => (Err(reason), backend),
                    dialled => (dialled, fallback),
                }
            }
            None => (Err(reason), backend),
        },
        dialled => (dialled, backend),
    };
    let (stream, in_flight) = dialled?;
    let admitted = in_flight.endpoint().filter(|_| shared.controls_access()).map(|endpoint| AdmittedStream {
        shared: shared.clone(),
        caller,
        backend: backend.clone(),
        endpoint,
        request: None,
    });
    Ok((stream, in_flight, idle, admitted))
}

/// Ends a stream so that the caller sees an error and not an end.
fn reset(stream: &TcpStream, caller: IpAddr, reason: Reason) {
    tracing::debug!(%caller, local = ?stream.local_addr().ok(), reason = reason.code(), "stream reset");
    // If this fails, the caller sees an ordinary end of the stream.
    let _ = stream.set_zero_linger();
}
