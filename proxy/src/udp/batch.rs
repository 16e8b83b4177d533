//! Sockets for datagrams, and batches of what they receive: several datagrams with one system call.
//!
//! The standard library has no call for this, nor one that says to which of a wildcard socket's addresses a datagram was
//! sent, which must be the source of the reply. So this module speaks to the system itself; in this folder it is the only
//! one that does.
#![allow(unsafe_code)]

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    ops::RangeInclusive,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr,
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use crate::local_ports;

/// Datagrams taken at once at most.
pub(super) const BATCH: usize = 32;
/// More than any datagram has.
const LENGTH: usize = 64 * 1024;
/// Room for one control message with either kind of packet information.
const CONTROL: usize = 64;
/// Bytes that may wait in a listener's socket, where the system allows so many (`net.core.rmem_max`).
const WAITING: usize = 1 << 20;

/// A socket that receives datagrams on `address`; on `::` those of both families. One on a wildcard address says of each
/// where it was sent to.
pub(crate) fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if address.ip() == IpAddr::from([0_u16; 8]) {
        socket.set_only_v6(false)?;
    }
    if address.ip().is_unspecified() {
        let (level, option) = match address {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        };
        enable(&socket, level, option)?;
    }
    // What the system does not allow is cut down without an error.
    socket.set_recv_buffer_size(WAITING)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A socket that sends to `endpoint` and receives only from there, and hears when that cannot be reached.
pub(super) fn connect(endpoint: SocketAddr, local_ports: Option<&RangeInclusive<u16>>) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(endpoint), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if let Some(range) = local_ports {
        local_ports::limit(&socket, range)?;
    }
    // Without it only a few of the errors are reported: not that a node is gone.
    match endpoint {
        SocketAddr::V4(_) => enable(&socket, libc::IPPROTO_IP, libc::IP_RECVERR)?,
        SocketAddr::V6(_) => enable(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR)?,
    }
    socket.connect(&endpoint.into())?;
    Ok(socket.into())
}

/// Registers a socket on the event loop of this thread, for what arrives at it.
pub(super) fn register<T: Descriptor>(socket: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the descriptor is that of an `OwnedFd`, which lives as long as the `AsyncFd` that has it, or a reference to
    // it, and nothing takes it out of there.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

/// What keeps its descriptor open for as long as it lives.
pub(super) trait Descriptor: AsRawFd {}
impl Descriptor for OwnedFd {}
impl Descriptor for std::sync::Arc<OwnedFd> {}

fn enable(socket: &Socket, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer is to a `c_int`, with its length; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, ptr::from_ref(&on).cast(), length_of::<libc::c_int>())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

/// Control messages must be aligned like their header.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// One datagram of a batch.
pub(super) struct Datagram<'a> {
    pub(super) bytes: &'a [u8],
    /// Who sent it, as the socket's family has it.
    pub(super) from: Option<SocketAddr>,
    /// Where it was sent to, as the socket's family has it; of a socket on a wildcard address.
    pub(super) to: Option<IpAddr>,
}

/// Buffers for a number of datagrams. What is never received takes no memory.
pub(super) struct Batch {
    /// The pointers below go into these allocations, which never move or grow.
    bytes: Box<[u8]>,
    addresses: Box<[libc::sockaddr_storage]>,
    controls: Box<[Control]>,
    slices: Box<[libc::iovec]>,
    heads: Box<[libc::mmsghdr]>,
}

impl Batch {
    pub(super) fn new() -> Self {
        // SAFETY: all-zero bytes are valid for these C structures: numbers, and pointers that may be null.
        let (address, slice, head): (libc::sockaddr_storage, libc::iovec, libc::mmsghdr) =
            unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        Self {
            bytes: vec![0; BATCH * LENGTH].into(),
            addresses: vec![address; BATCH].into(),
            controls: vec![Control([0; CONTROL]); BATCH].into(),
            slices: vec![slice; BATCH].into(),
            heads: vec![head; BATCH].into(),
        }
    }

    /// Takes what has arrived at `socket`, at most `most` datagrams; how many there are.
    ///
    /// # Errors
    /// When there are none (`WouldBlock`), or the system says that what was sent did not arrive.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let most = most.min(BATCH);
        for at in 0..most {
            self.slices[at] =
                libc::iovec { iov_base: self.bytes[at * LENGTH..][..LENGTH].as_mut_ptr().cast(), iov_len: LENGTH };
            let head = &mut self.heads[at].msg_hdr;
            head.msg_name = ptr::from_mut(&mut self.addresses[at]).cast();
            head.msg_namelen = length_of::<libc::sockaddr_storage>();
            head.msg_iov = &raw mut self.slices[at];
            head.msg_iovlen = 1;
            head.msg_control = ptr::from_mut(&mut self.controls[at]).cast();
            head.msg_controllen = CONTROL as _;
            head.msg_flags = 0;
        }
        // SAFETY: the first `most` headers are valid; their pointers go into allocations of `self`, which is borrowed for the
        // length of the call, with the lengths of those allocations.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.heads.as_mut_ptr(),
                most as _,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// Datagram `at` of those that were received last.
    pub(super) fn datagram(&self, at: usize) -> Datagram<'_> {
        let head = &self.heads[at];
        let length = (head.msg_len as usize).min(LENGTH);
        Datagram {
            bytes: &self.bytes[at * LENGTH..][..length],
            from: address_of(&self.addresses[at], head.msg_hdr.msg_namelen),
            to: destination(&head.msg_hdr),
        }
    }

    /// Sends the first `count` of those that were received last from `socket` to `to`; where the socket is on a wildcard
    /// address, from the address `from`. How many datagrams and bytes were sent; what cannot be sent is left out.
    pub(super) fn pass_on(
        &mut self,
        count: usize,
        socket: &impl AsFd,
        to: SocketAddr,
        from: Option<IpAddr>,
    ) -> (usize, usize) {
        let name = SockAddr::from(to);
        let mut control = Control([0; CONTROL]);
        let control_length = from.map_or(0, |from| write_source(&mut control, from));
        let (mut done, mut sent, mut bytes) = (0, 0, 0);
        for at in 0..count {
            self.slices[at].iov_len = self.heads[at].msg_len as usize;
            let head = &mut self.heads[at].msg_hdr;
            head.msg_name = name.as_ptr().cast_mut().cast();
            head.msg_namelen = name.len();
            head.msg_control = ptr::from_mut(&mut control).cast();
            head.msg_controllen = control_length as _;
        }
        while done < count {
            let rest = &mut self.heads[done..count];
            // SAFETY: `rest` are valid headers, as `receive` and the loop above left them, with pointers into allocations of
            // `self`, to `name` and to `control`, which all live longer than the call. The kernel only reads what they
            // point to.
            let passed = unsafe {
                libc::sendmmsg(
                    socket.as_fd().as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as _,
                    (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
                )
            };
            match usize::try_from(passed) {
                Ok(passed) if passed > 0 => {
                    sent += passed;
                    bytes += self.slices[done..done + passed].iter().map(|slice| slice.iov_len).sum::<usize>();
                    done += passed;
                }
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        tracing::debug!(%to, %error, "a datagram was not sent");
                        done += 1;
                    }
                }
            }
        }
        (sent, bytes)
    }
}

/// The address in a socket address.
fn address_of(storage: &libc::sockaddr_storage, length: libc::socklen_t) -> Option<SocketAddr> {
    if length == 0 {
        return None;
    }
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage, which is large and aligned enough for all, holds this kind.
            let address = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
            Some(SocketAddr::new(ip.into(), u16::from_be(address.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let address = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(address.sin6_port), 0, address.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Where a datagram was sent to, as its control messages say.
fn destination(head: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: `head` was filled in by the kernel, and its control buffer is alive: both belong to one `Batch`.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(head) };
    while !message.is_null() {
        // SAFETY: not null, so it points to a whole header in the control buffer.
        let (level, kind) = unsafe { ((*message).cmsg_level, (*message).cmsg_type) };
        // SAFETY: the data follows the header, with the type that level and kind say; it may not be aligned for that.
        unsafe {
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                    return Some(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                    return Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                _ => message = libc::CMSG_NXTHDR(head, message),
            }
        }
    }
    None
}

/// Writes a control message that gives a datagram the source `from`; its length.
fn write_source(control: &mut Control, from: IpAddr) -> usize {
    // SAFETY: all-zero bytes are valid for these C structures, which are numbers.
    let (mut v4, mut v6): (libc::in_pktinfo, libc::in6_pktinfo) = unsafe { (mem::zeroed(), mem::zeroed()) };
    match from {
        IpAddr::V4(from) => {
            v4.ipi_spec_dst.s_addr = u32::from(from).to_be();
            write_control(control, libc::IPPROTO_IP, libc::IP_PKTINFO, v4)
        }
        IpAddr::V6(from) => {
            v6.ipi6_addr.s6_addr = from.octets();
            write_control(control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, v6)
        }
    }
}

fn write_control<T>(control: &mut Control, level: libc::c_int, kind: libc::c_int, value: T) -> usize {
    let length = length_of::<T>();
    // SAFETY: the buffer is aligned like a header and has room for a header and the larger of the two values, which are
    // the only ones: 16 + 20 bytes of 64. The value may not be aligned there.
    unsafe {
        let message: *mut libc::cmsghdr = ptr::from_mut(control).cast();
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = libc::CMSG_LEN(length) as _;
        ptr::write_unaligned(libc::CMSG_DATA(message).cast(), value);
        libc::CMSG_SPACE(length) as usize
    }
}
