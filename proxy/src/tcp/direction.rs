//! One direction of a stream: reads from its source, holds what its target does not take yet, passes the end on.

use std::{
    future::Future,
    io::{self, Read, Write},
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream, task::yield_now};

use super::{buffer::Buffer, pipe::Pipe};

/// From so many bytes carried on, a direction may be a bulk transfer.
const BULK: u64 = 128 * 1024;

/// A bulk transfer's reads are at least so long on average. Shorter ones are copied faster than they are spliced.
const LONG: usize = 8 * 1024;

/// A direction lets others have their turn after so many bytes.
const TURN: usize = 2 * 1024 * 1024;

/// Carries bytes one way.
pub(super) struct Direction {
    held: PendingBytes,
    carried: u64,
    /// Moving average of what one read yields.
    average: usize,
    end: SourceEnd,
}

/// What was read from the source and not yet written to the target.
enum PendingBytes {
    Nothing,
    First(Bytes),
    Copied(Buffer),
    Piped(Pipe),
}

/// How far the source's end has come.
#[derive(PartialEq, Eq)]
enum SourceEnd {
    NotSeen,
    Read,
    Passed,
}

/// Which side of a direction is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BrokenSide {
    /// Reading failed.
    Source,
    /// Writing failed.
    Target,
}

impl Direction {
    /// A direction in which `first` was read already.
    pub(super) fn new(first: Bytes) -> Self {
        let held = if first.is_empty() { PendingBytes::Nothing } else { PendingBytes::First(first) };
        Self { held, carried: 0, average: 0, end: SourceEnd::NotSeen }
    }

    /// Bytes that the target has taken.
    pub(super) fn carried(&self) -> u64 {
        self.carried
    }

    /// Whether it waits for its source; else for its target, or for nothing any more.
    pub(super) fn reads(&self) -> bool {
        self.end == SourceEnd::NotSeen && matches!(self.held, PendingBytes::Nothing)
    }

    /// Moves what can be moved. Ready when the source has ended and the target has taken everything.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        target: &TcpStream,
    ) -> Poll<Result<(), BrokenSide>> {
        let mut turn = 0;
        loop {
            turn += ready!(self.write(cx, target)).map_err(|_| BrokenSide::Target)?;
            if self.end != SourceEnd::NotSeen {
                return Poll::Ready(Ok(()));
            }
            if turn >= TURN {
                // Woken again only after sockets were looked at: a plain wake-up would come before them.
                let _ = pin!(yield_now()).poll(cx);
                return Poll::Pending;
            }
            ready!(self.read(cx, source)).map_err(|_| BrokenSide::Source)?;
        }
    }

    /// Tells the target that the source has ended, once.
    pub(super) fn pass_end(&mut self, target: &TcpStream) -> io::Result<()> {
        if self.end == SourceEnd::Read {
            self.end = SourceEnd::Passed;
            SockRef::from(target).shutdown(std::net::Shutdown::Write)?;
        }
        Ok(())
    }

    /// Writes all that is held; returns how much that was.
    fn write(&mut self, cx: &mut Context<'_>, target: &TcpStream) -> Poll<io::Result<usize>> {
        let mut written = 0;
        loop {
            let outcome = match &mut self.held {
                PendingBytes::Nothing => return Poll::Ready(Ok(written)),
                PendingBytes::First(bytes) => send(target, bytes).map(|sent| {
                    bytes.advance(sent);
                    (sent, bytes.is_empty())
                }),
                PendingBytes::Copied(buffer) => send(target, buffer.waiting()).map(|sent| {
                    buffer.advance(sent);
                    (sent, buffer.waiting().is_empty())
                }),
                PendingBytes::Piped(pipe) => target
                    .try_io(Interest::WRITABLE, || Ok(pipe.empty(target)?))
                    .map(|sent| (sent, pipe.waiting() == 0)),
            };
            match outcome {
                Ok((sent, all)) => {
                    self.carried += sent as u64;
                    written += sent;
                    if all {
                        self.held = PendingBytes::Nothing;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(target.poll_write_ready(cx))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Reads something, or notes the end. Nothing may be held.
    fn read(&mut self, cx: &mut Context<'_>, source: &TcpStream) -> Poll<io::Result<()>> {
        loop {
            ready!(source.poll_read_ready(cx))?;
            match self.receive(source) {
                Ok(0) => self.end = SourceEnd::Read,
                Ok(length) => self.average = self.average - self.average / 4 + length / 4,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Poll::Ready(Err(error)),
            }
            return Poll::Ready(Ok(()));
        }
    }

    fn receive(&mut self, source: &TcpStream) -> io::Result<usize> {
        if self.carried >= BULK
            && self.average >= LONG
            && let Some(mut pipe) = Pipe::acquire()
        {
            let length = source.try_io(Interest::READABLE, || Ok(pipe.fill(source)?))?;
            if length > 0 {
                self.held = PendingBytes::Piped(pipe);
            }
            return Ok(length);
        }
        let mut buffer = Buffer::acquire();
        let length = receive(source, buffer.room())?;
        if length > 0 {
            buffer.fill(length);
            self.held = PendingBytes::Copied(buffer);
        }
        Ok(length)
    }
}

/// Reads from a socket. A read that leaves room has emptied the socket, so it counts as not readable until the kernel
/// says otherwise: that saves the system call which would only find this out.
fn receive(socket: &TcpStream, room: &mut [u8]) -> io::Result<usize> {
    let size = room.len();
    let mut partial = None;
    let outcome = socket.try_io(Interest::READABLE, || {
        let length = (&*SockRef::from(socket)).read(room)?;
        if 0 < length && length < size {
            partial = Some(length);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(length)
    });
    partial.map_or(outcome, Ok)
}

/// Writes to a socket. One that does not take everything is full, so it counts as not writable until the kernel says
/// otherwise.
fn send(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut partial = None;
    let outcome = socket.try_io(Interest::WRITABLE, || {
        let length = (&*SockRef::from(socket)).write(bytes)?;
        if 0 < length && length < bytes.len() {
            partial = Some(length);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(length)
    });
    partial.map_or(outcome, Ok)
}
