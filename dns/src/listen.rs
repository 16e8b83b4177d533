//! Where queries arrive.

pub(crate) mod session;
pub(crate) mod tcp;
pub(crate) mod tls;
pub(crate) mod udp;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use maesh_discovery::ConnectionLimits;

use socket2::{Domain, Protocol, Socket, Type};

/// Tries to find a port that is free for both transports when any will do.
const TRIES: usize = 32;
/// Room for queries that wait while a thread answers others: a burst of some thousands.
const RECEIVE_BUFFER: usize = 2 << 20;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// What the kernel buffers of one connection, which counts as memory of the pod: queries are short, and answers wait for
/// nobody but their own peer.
const CONNECTION_BUFFERS: [usize; 2] = [16 << 10, 32 << 10];

/// Limits of the connections of one kind, TCP or TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Connections open at a time, in all and of one source. Past a limit, the oldest silent one is closed.
    pub connections: ConnectionLimits,
    /// Time in which a whole query must come, or an answer be taken. CoreDNS keeps idle connections for 10 s.
    pub idle: Duration,
    /// Time in which a TLS handshake must be complete.
    pub handshake: Duration,
}

impl StreamLimits {
    /// At most `all` connections, of which one source has a fifth.
    pub const fn of(all: usize) -> Self {
        let connections = ConnectionLimits { all, per_source: all / 5 };
        Self { connections, idle: Duration::from_secs(30), handshake: Duration::from_secs(10) }
    }
}

/// An address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen for DNS on {address} ({transport}): {source}; choose another address, or end the process that has it"
)]
pub struct BindError {
    /// The address as it was configured.
    pub address: SocketAddr,
    /// `UDP`, `TCP` or `TLS`.
    pub transport: &'static str,
    /// What the system says.
    pub source: io::Error,
}

/// The sockets of one address.
#[derive(Debug)]
pub(crate) struct BoundSockets {
    /// Datagrams; its threads block on it.
    pub(crate) udp: Socket,
    /// Streams; non-blocking.
    pub(crate) tcp: TcpListener,
    /// The address, with the port that was found if any would do.
    pub(crate) address: SocketAddr,
}

/// Binds both transports to `address`, and to the same port if it is 0.
pub(crate) fn bind(address: SocketAddr) -> Result<BoundSockets, BindError> {
    let mut tries = if address.port() == 0 { TRIES } else { 1 };
    loop {
        tries -= 1;
        let udp = udp_socket(address).map_err(|source| BindError { address, transport: "UDP", source })?;
        let bound = udp.local_addr().ok().and_then(|bound| bound.as_socket()).unwrap_or(address);
        match tcp_socket(bound) {
            Ok(tcp) => return Ok(BoundSockets { udp, tcp, address: bound }),
            Err(error) if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            Err(source) => return Err(BindError { address: bound, transport: "TCP", source }),
        }
    }
}

/// Binds a socket for connections to `address`, without listening on it.
pub(crate) fn bind_tls(address: SocketAddr) -> Result<Socket, BindError> {
    stream_socket(address).map_err(|source| BindError { address, transport: "TLS", source })
}

fn udp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
    // The system may grant less, which only makes bursts that are lost smaller.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    if address.ip().is_unspecified() {
        udp::request_destination(&socket, address.is_ipv6())?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn tcp_socket(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = stream_socket(address)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn stream_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket(address, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?;
    let [receive, send] = CONNECTION_BUFFERS;
    // Accepted connections inherit them.
    socket.set_recv_buffer_size(receive)?;
    socket.set_send_buffer_size(send)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A socket for the family of `address`; one of IPv6 takes nothing of IPv4, so that both can be listened on.
fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}
