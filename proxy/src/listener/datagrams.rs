//! Sockets for datagrams. Unlike those for streams, they end with the process: what waits in them is not worth keeping.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

use socket2::SockRef;

use super::{ListenError, Only};
use crate::udp;

type Bound = (SocketAddr, OwnedFd);

/// Sockets on all of these addresses, or on none: one for both families where that can be, which then serves only what is
/// returned with it.
pub(super) fn bind(addresses: &[IpAddr], port: u16) -> Result<(Vec<Bound>, Only), ListenError> {
    let specific = addresses.iter().all(|ip| !ip.is_unspecified());
    if specific && addresses.iter().any(IpAddr::is_ipv4) && addresses.iter().any(IpAddr::is_ipv6) {
        // Not where somebody else has the port on another address, or where there is no IPv6.
        if let Ok(socket) = listen(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)) {
            return Ok((vec![socket], addresses.iter().map(IpAddr::to_canonical).collect()));
        }
    }
    let each = addresses.iter().map(|ip| one(SocketAddr::new(*ip, port)));
    Ok((each.collect::<Result<_, _>>()?, Only::default()))
}

/// A socket on `address`. On `::` it takes both families; where the system has no IPv6, `0.0.0.0` is used.
fn one(address: SocketAddr) -> Result<Bound, ListenError> {
    listen(address).or_else(|error| {
        let has_no_v6 = matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL));
        if address.ip() == IpAddr::from([0_u16; 8]) && has_no_v6 {
            let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            return listen(v4).map_err(|error| ListenError::bind(v4, error));
        }
        Err(ListenError::bind(address, error))
    })
}

fn listen(address: SocketAddr) -> io::Result<Bound> {
    let socket = udp::listen(address)?;
    let bound = SockRef::from(&socket).local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    Ok((bound, socket))
}
