//! Where queries arrive.

pub(crate) mod tcp;
pub(crate) mod udp;

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Tries to find a port that is free for both transports when any will do.
const TRIES: usize = 32;
/// Room for queries that wait while a thread answers others: a burst of some thousands.
const RECEIVE_BUFFER: usize = 2 << 20;

/// An address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen for DNS on {address} ({transport}): {source}; choose another address, or end the process that has it"
)]
pub struct BindError {
    /// The address as it was configured.
    pub address: SocketAddr,
    /// `UDP` or `TCP`.
    pub transport: &'static str,
    /// What the system says.
    pub source: io::Error,
}

/// The sockets of one address.
#[derive(Debug)]
pub(crate) struct Bound {
    /// Datagrams; its threads block on it.
    pub(crate) udp: Socket,
    /// Streams; non-blocking.
    pub(crate) tcp: TcpListener,
    /// The address, with the port that was found if any would do.
    pub(crate) address: SocketAddr,
}

/// Binds both transports to `address`, and to the same port if it is 0.
pub(crate) fn bind(address: SocketAddr) -> Result<Bound, BindError> {
    let mut tries = if address.port() == 0 { TRIES } else { 1 };
    loop {
        tries -= 1;
        let udp = udp_socket(address).map_err(|source| BindError { address, transport: "udp", source })?;
        let bound = udp.local_addr().ok().and_then(|bound| bound.as_socket()).unwrap_or(address);
        match tcp_socket(bound) {
            Ok(tcp) => return Ok(Bound { udp, tcp, address: bound }),
            Err(error) if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            Err(source) => return Err(BindError { address: bound, transport: "tcp", source }),
        }
    }
}

fn udp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
    // The system may grant less, which only makes bursts that are lost smaller.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    if address.ip().is_unspecified() {
        udp::tell_destination(&socket, address.is_ipv6())?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn tcp_socket(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A socket for the family of `address`; one of IPv6 takes nothing of IPv4, so that both can be listened on.
fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}
