//! Reading into the unfilled part of a buffer, which is not initialised.
#![allow(unsafe_code)]

use std::io;

use bytes::{BufMut, BytesMut};
use hyper::rt::ReadBufCursor;
use rustix::net::{RecvFlags, recv};
use tokio::net::TcpStream;

/// Reads once, and lets in as much of it as `look` says; returns how much was read, and whether that left room.
pub(super) fn receive(
    stream: &TcpStream,
    buffer: &mut ReadBufCursor<'_>,
    look: impl FnOnce(&[u8]) -> usize,
) -> io::Result<(usize, bool)> {
    // SAFETY: the bytes are only given to `recv`, which initialises what it writes and writes nothing else.
    let room = unsafe { buffer.as_mut() };
    let size = room.len();
    let ((filled, _), _) = recv(stream, room, RecvFlags::empty())?;
    let length = filled.len();
    let passed = look(filled).min(length);
    // SAFETY: `recv` says that it has initialised the first `length` bytes, and `passed` is no more.
    unsafe { buffer.advance(passed) };
    Ok((length, length < size))
}

/// Appends to `buffer` what one read gives; returns how much that was, and whether it left room.
pub(super) fn append(stream: &TcpStream, buffer: &mut BytesMut) -> io::Result<(usize, bool)> {
    let room = buffer.spare_capacity_mut();
    let size = room.len();
    let ((filled, _), _) = recv(stream, room, RecvFlags::empty())?;
    let length = filled.len();
    // SAFETY: `recv` says that it has initialised the first `length` bytes of the spare capacity.
    unsafe { buffer.advance_mut(length) };
    Ok((length, length < size))
}
