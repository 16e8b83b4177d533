//! Local ports of outgoing connections, kept apart from ports that the mesh listens on.
//!
//! In a cluster a sysctl of the pod does this for every socket; elsewhere each socket is told.
#![allow(unsafe_code)]

use std::{io, ops::RangeInclusive, os::fd::AsRawFd};

/// `IP_LOCAL_PORT_RANGE` of linux/in.h, since Linux 6.3; it holds for IPv6 sockets as well.
const IP_LOCAL_PORT_RANGE: libc::c_int = 51;

/// Lets `socket` use local ports in `range` only, within what the system allows (`net.ipv4.ip_local_port_range`). Kernels
/// that do not know how are left to choose themselves.
pub(crate) fn limit(socket: &impl AsRawFd, range: &RangeInclusive<u16>) -> io::Result<()> {
    let value = u32::from(*range.end()) << 16 | u32::from(*range.start());
    let length = libc::socklen_t::try_from(size_of::<u32>()).map_err(io::Error::other)?;
    // SAFETY: the pointer is to a live u32, whose size is `length`; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, (&raw const value).cast(), length)
    };
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_stay_in_their_range() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("set");
        limit(&socket, &(40_000..=41_000)).expect("limited");
        let stream = socket.connect(listener.local_addr().expect("bound")).await.expect("connected");
        let port = stream.local_addr().expect("connected").port();
        assert!((40_000..=41_000).contains(&port), "{port}");
    }
}
