//! Takes and sends several datagrams with one system call each.
//!
//! The standard library has no call for this, nor one that says to which of a wildcard socket's addresses a datagram
//! was sent, which must be the source of the answer. So this module speaks to the system itself; it is the only one
//! here that does.
#![allow(unsafe_code)]

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    ptr,
};

use socket2::Socket;

/// Datagrams taken at once at most. Beyond some dozens there is nothing more to gain.
const BATCH: usize = 32;
/// Longest query; what is longer arrives cut short and is answered FORMERR.
const QUERY: usize = 2048;
/// Longest answer.
const ANSWER: usize = 1232;
/// Room for one control message with either kind of packet information.
const CONTROL: usize = 64;

/// Control messages must be aligned like their header.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Buffers for a number of queries and their answers.
pub(super) struct Batch {
    /// It holds the pointers below alive; they go into these allocations, which never move or grow.
    queries: Box<[[u8; QUERY]]>,
    answers: Box<[Vec<u8>]>,
    addresses: Box<[libc::sockaddr_storage]>,
    controls: Box<[Control]>,
    slices_in: Box<[libc::iovec]>,
    slices_out: Box<[libc::iovec]>,
    received: Box<[libc::mmsghdr]>,
    sending: Box<[libc::mmsghdr]>,
    /// Number of answers in `sending`.
    ready: usize,
    /// The socket is bound to a wildcard address.
    wildcard: bool,
    nothing: bool,
}

impl Batch {
    /// Buffers for a socket, bound to a wildcard address or not.
    pub(super) fn new(wildcard: bool) -> Self {
        // SAFETY: all-zero bytes are valid for these C structures: numbers, and pointers that may be null.
        let (address, slice, header): (libc::sockaddr_storage, libc::iovec, libc::mmsghdr) =
            unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        let boxed = |header: libc::mmsghdr| vec![header; BATCH].into_boxed_slice();
        Self {
            queries: vec![[0; QUERY]; BATCH].into(),
            answers: (0..BATCH).map(|_| Vec::with_capacity(ANSWER)).collect(),
            addresses: vec![address; BATCH].into(),
            controls: vec![Control([0; CONTROL]); BATCH].into(),
            slices_in: vec![slice; BATCH].into(),
            slices_out: vec![slice; BATCH].into(),
            received: boxed(header),
            sending: boxed(header),
            ready: 0,
            wildcard,
            nothing: false,
        }
    }

    /// Waits for a query and takes those that have gathered; how many there are.
    pub(super) fn receive(&mut self, socket: &Socket) -> io::Result<usize> {
        self.nothing = true;
        for at in 0..BATCH {
            self.slices_in[at] = libc::iovec { iov_base: self.queries[at].as_mut_ptr().cast(), iov_len: QUERY };
            let head = &mut self.received[at].msg_hdr;
            head.msg_name = ptr::from_mut(&mut self.addresses[at]).cast();
            head.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            head.msg_iov = &raw mut self.slices_in[at];
            head.msg_iovlen = 1;
            if self.wildcard {
                head.msg_control = ptr::from_mut(&mut self.controls[at]).cast();
                head.msg_controllen = CONTROL as _;
            }
            head.msg_flags = 0;
        }
        // SAFETY: the headers are BATCH valid ones; their pointers go into allocations of `self`, which is borrowed for
        // the length of the call, with the lengths of those allocations.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.received.as_mut_ptr(),
                BATCH as _,
                libc::MSG_WAITFORONE as _,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        // A socket that was shut down yields empty datagrams of nobody, for ever.
        let real = self.received[..count.min(BATCH)].iter().take_while(|message| message.msg_hdr.msg_namelen > 0);
        let count = real.count();
        self.nothing = count == 0;
        Ok(count)
    }

    /// Whether the last [`Batch::receive`] took nothing at all.
    pub(super) fn last_was_nothing(&self) -> bool {
        self.nothing
    }

    /// Has query `at` answered: `answer` gets it, its source and a buffer, and says whether to send what it wrote.
    pub(super) fn answer(&mut self, at: usize, answer: impl FnOnce(&[u8], IpAddr, &mut Vec<u8>) -> bool) {
        let message = &self.received[at];
        let length = (message.msg_len as usize).min(QUERY);
        let Some(source) = ip_of(&self.addresses[at]) else { return };
        let out = &mut self.answers[at];
        if !answer(&self.queries[at][..length], source, out) {
            return;
        }
        let slice = &mut self.slices_out[self.ready];
        *slice = libc::iovec { iov_base: out.as_mut_ptr().cast(), iov_len: out.len() };
        let head = &mut self.sending[self.ready].msg_hdr;
        head.msg_name = message.msg_hdr.msg_name;
        head.msg_namelen = message.msg_hdr.msg_namelen;
        head.msg_iov = slice;
        head.msg_iovlen = 1;
        // What said to which of our addresses the query went says from which one the answer goes.
        head.msg_control = message.msg_hdr.msg_control;
        head.msg_controllen = message.msg_hdr.msg_controllen;
        self.ready += 1;
    }

    /// Sends the answers. One that cannot be sent is dropped: its caller asks again.
    pub(super) fn send(&mut self, socket: &Socket) {
        let mut sent = 0;
        while sent < self.ready {
            let rest = &mut self.sending[sent..self.ready];
            // SAFETY: `rest` are valid headers, filled in by `answer` with pointers into allocations of `self`, which is
            // borrowed for the length of the call and has not received anything since.
            let count = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as _, 0) };
            match usize::try_from(count) {
                Ok(count) if count > 0 => sent += count,
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        tracing::debug!(%error, "sending an answer");
                        sent += 1;
                    }
                }
            }
        }
        self.ready = 0;
    }
}

/// The address in a socket address.
fn ip_of(storage: &libc::sockaddr_storage) -> Option<IpAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage, which is large and aligned enough for all, holds this kind.
            let address = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let address = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

/// Has the system say with each datagram to which address it was sent.
///
/// # Errors
/// The system refuses the option.
pub(crate) fn request_destination(socket: &Socket, v6: bool) -> io::Result<()> {
    let (level, option) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) } else { (libc::IPPROTO_IP, libc::IP_PKTINFO) };
    let on: libc::c_int = 1;
    // SAFETY: the pointer is to a `c_int`, with its length.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
