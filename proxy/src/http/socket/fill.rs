//! Reading into the unfilled part of hyper's buffer, which is not initialised.
#![allow(unsafe_code)]

use std::io;

use hyper::rt::ReadBufCursor;
use rustix::net::{RecvFlags, recv};
use tokio::net::TcpStream;

/// Reads once; returns how much was read, and whether that left room.
pub(super) fn receive(stream: &TcpStream, buffer: &mut ReadBufCursor<'_>) -> io::Result<(usize, bool)> {
    // SAFETY: the bytes are only given to `recv`, which initialises what it writes and writes nothing else.
    let room = unsafe { buffer.as_mut() };
    let size = room.len();
    let ((filled, _), _) = recv(stream, room, RecvFlags::empty())?;
    let length = filled.len();
    // SAFETY: `recv` says that it has initialised the first `length` bytes.
    unsafe { buffer.advance(length) };
    Ok((length, length < size))
}
