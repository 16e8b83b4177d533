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

    /// Gives the socket back.
    pub(crate) fn into_io(self) -> T {
        self.io
    }

    /// Writes what there is, and reads once.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        loop {
            let written = self.write(cx);
            if let Poll::Ready(Err(_)) = written {
                self.read_rest(cx);
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

    /// Reads what a peer has sent before it closed its socket: the end of responses, and which requests it has not looked at.
    fn read_rest(&mut self, cx: &mut Context<'_>) {
        // The windows bound it.
        while self.session.next() == Next::GoOn && matches!(self.read(cx), Poll::Ready(Ok(true))) {}
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

#[cfg(test)]
mod tests {
    use http::Request;
    use hyper::rt::ReadBufCursor;
    use maesh_http2::Config;

    use super::*;

    /// A socket whose peer has sent this and closed it, without reading anything.
    struct Reset(Vec<u8>);

    impl Read for Reset {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            mut buf: ReadBufCursor<'_>,
        ) -> Poll<io::Result<()>> {
            if self.0.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let length = self.0.len().min(buf.remaining()).min(10);
            buf.put_slice(&self.0.drain(..length).collect::<Vec<_>>());
            Poll::Ready(Ok(()))
        }
    }

    impl Write for Reset {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A frame of fewer than 256 bytes.
    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    /// An endpoint that closes its connection may have answered before, and said which requests it has not looked at. A write
    /// that fails must not keep that from being read.
    #[test]
    fn what_came_before_a_reset_is_read() {
        let (session, sender) =
            Session::client(Config { stream_window: 65_535, connection_window: 65_535, streams: 0, head: 16 * 1024 });
        session.receive(&frame(4, 0, 0, &[]));
        let head = Request::get("http://a/").body(()).unwrap().into_parts().0;
        let (mut answered, _) = sender.request(&head, &[], true).unwrap();
        let (mut unseen, _) = sender.request(&head, &[], true).unwrap();
        // A response (`:status: 200`), and a GOAWAY whose last stream is the first.
        let sent = [frame(1, 5, 1, &[0x88]), frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])].concat();
        let mut driver = Driver::new(Reset(sent), session);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(driver.poll(&mut cx), Poll::Ready(Progress::Ended(_))));
        assert!(matches!(answered.poll_response(&cx), Poll::Ready(Ok(head)) if head.status == 200));
        let Poll::Ready(Err(error)) = unseen.poll_response(&cx) else { panic!("it was not answered") };
        assert_eq!(error.reason(), Some(maesh_http2::Reason::NO_ERROR));
        assert!(error.is_remote());
    }
}
