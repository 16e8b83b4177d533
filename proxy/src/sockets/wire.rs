//! What proxy and keeper say to each other: packets of a Unix socket, each a letter, and with it a socket or an address.
//!
//! The keeper gives all that it kept, then the end; the proxy says the end too, and from then on what it opens and
//! closes.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::Duration,
};

use rustix::{
    cmsg_space,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, SocketAddrUnix, SocketFlags, SocketType, recv, recvmsg, sendmsg, socket_with,
        sockopt::{Timeout, set_socket_timeout, socket_acceptconn},
    },
};

/// Longest wait for the other side, which does nothing that takes time.
const PATIENCE: Duration = Duration::from_secs(1);

/// More than the longest address takes.
const PACKET: usize = 64;

const KEEP: u8 = b'k';
const CLOSE: u8 = b'c';
const END: u8 = b'e';

/// One packet.
pub(super) enum Message {
    /// Keep a copy of this; or, from the keeper, this was kept.
    Keep(TcpListener),
    /// Keep it no longer.
    Close(SocketAddr),
    /// That was all that was kept; or, from the proxy, all of it has arrived.
    End,
}

/// The address of a keeper.
pub(super) fn address(path: &Path) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(path)?)
}

/// A socket for packets, on which nothing waits for ever but the receiving side of a keeper.
pub(super) fn socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Whether connections are taken for it still.
pub(super) fn listens(socket: impl AsFd) -> bool {
    socket_acceptconn(socket).unwrap_or(false)
}

/// A connection between the two.
pub(super) struct KeeperConnection(OwnedFd);

impl KeeperConnection {
    /// The other side is waited for no longer than it can take; by a keeper only until it has taken what it is sent.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        Ok(Self(socket))
    }

    /// To a keeper, which answers at once.
    pub(super) fn to(path: &Path) -> io::Result<Self> {
        let socket = socket()?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        let connection = Self::new(socket)?;
        rustix::net::connect(&connection.0, &address(path)?)?;
        Ok(connection)
    }

    /// Whether the other side has ended.
    pub(super) fn ended(&self) -> bool {
        let mut byte = [0];
        match recv(&self.0, &mut byte, RecvFlags::DONTWAIT | RecvFlags::PEEK) {
            Ok((_, length)) => length == 0,
            Err(error) => error != rustix::io::Errno::AGAIN,
        }
    }

    pub(super) fn keep(&self, socket: &TcpListener) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut with = SendAncillaryBuffer::new(&mut space);
        let sockets = [socket.as_fd()];
        with.push(SendAncillaryMessage::ScmRights(&sockets));
        sendmsg(&self.0, &[IoSlice::new(&[KEEP])], &mut with, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    pub(super) fn close(&self, address: SocketAddr) -> io::Result<()> {
        let packet = [&[CLOSE], address.to_string().as_bytes()].concat();
        self.send(&packet)
    }

    pub(super) fn end(&self) -> io::Result<()> {
        self.send(&[END])
    }

    fn send(&self, packet: &[u8]) -> io::Result<()> {
        sendmsg(&self.0, &[IoSlice::new(packet)], &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next packet; none when the other side has ended.
    pub(super) fn receive(&self) -> io::Result<Option<Message>> {
        loop {
            let mut packet = [0; PACKET];
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            let mut with = RecvAncillaryBuffer::new(&mut space);
            let length =
                recvmsg(&self.0, &mut [IoSliceMut::new(&mut packet)], &mut with, RecvFlags::CMSG_CLOEXEC)?.bytes;
            let sent = with.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
                _ => None,
            });
            let Some((letter, rest)) = packet[..length].split_first() else { return Ok(None) };
            match (*letter, sent) {
                (KEEP, Some(socket)) if listens(&socket) => return Ok(Some(Message::Keep(socket.into()))),
                // It was closed on its way.
                (KEEP, Some(_)) => {}
                (KEEP, None) => return Err(io::Error::other("no descriptor is left for a socket")),
                (CLOSE, _) => return parse(rest).map(|address| Some(Message::Close(address))),
                (END, _) => return Ok(Some(Message::End)),
                (letter, _) => return Err(unexpected(&format!("a packet {:?}", char::from(letter)))),
            }
        }
    }
}

fn parse(address: &[u8]) -> io::Result<SocketAddr> {
    let text = std::str::from_utf8(address).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| unexpected("no address"))
}

fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} was received"))
}
