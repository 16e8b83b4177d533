//! The bytes of an HTTP/2 connection: between a socket and its [`Session`].

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBuf, Write};
use maesh_http2::{Error, Next, Session};

/// Bytes that are read at once. All connections of a thread read into the same buffer, so that one that rests has none.
const READ: usize = 32 * 1024;

/// Reads after which other tasks get their turn.
const READS: usize = 8;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Reads and writes for a session.
pub(crate) struct Driver<T> {
    io: T,
    session: Session,
    /// Everything that was written is on its way.
    is_flushed: bool,
    reads: usize,
}

/// What the driver has done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The session was given bytes that arrived.
    Received,
    /// The connection is over.
    Ended(Result<(), Error>),
}

impl<T: Read + Write + Unpin> Driver<T> {
    /// Nothing was read or written.
    pub(crate) fn new(io: T, session: Session) -> Self {
        Self { io, session, is_flushed: true, reads: 0 }
    }

    /// The connection.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// Writes what there is, and reads once.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        loop {
            let written = self.write(cx);
            if let Poll::Ready(Err(_)) = written {
                self.session.lost();
                return Poll::Ready(Progress::Ended(Err(Error::Closed)));
            }
            match self.session.next() {
                Next::GoOn => {}
                // Why it ends was said as far as the peer takes it; it is not waited for.
                Next::Close(Err(error)) => return Poll::Ready(Progress::Ended(Err(error))),
                Next::Close(Ok(())) => {
                    // Where the socket fails now, nobody misses anything.
                    let _ = ready!(written);
                    let _ = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
                    return Poll::Ready(Progress::Ended(Ok(())));
                }
            }
            if self.reads >= READS {
                self.reads = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.read(cx) {
                Poll::Ready(Ok(true)) => {
                    self.reads += 1;
                    return Poll::Ready(Progress::Received);
                }
                Poll::Ready(Ok(false) | Err(_)) => {
                    self.session.lost();
                    return Poll::Ready(Progress::Ended(Err(Error::Closed)));
                }
                Poll::Pending if self.session.poll_work(cx).is_pending() => {
                    self.reads = 0;
                    return Poll::Pending;
                }
                Poll::Pending => {}
            }
        }
    }

    /// Writes, once, what there is, without waiting for it.
    pub(crate) fn write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, session, is_flushed, .. } = self;
        let written = session.write_with(|slices| {
            *is_flushed = false;
            write(io, cx, slices)
        });
        ready!(written)?;
        if !*is_flushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            *is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Gives the session what has arrived; `false` at the end.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(READ, 0);
            let mut room = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.io).poll_read(cx, room.unfilled()))?;
            let bytes = room.filled();
            self.session.receive(bytes);
            Poll::Ready(Ok(!bytes.is_empty()))
        })
    }
}

fn write<T: Write + Unpin>(io: &mut T, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
    match slices {
        [one] => Pin::new(io).poll_write(cx, one),
        all => Pin::new(io).poll_write_vectored(cx, all),
    }
}
