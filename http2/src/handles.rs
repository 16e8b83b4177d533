//! What a program holds of a connection and of its streams.

use std::{
    io::{self, IoSlice},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, request, response};
use parking_lot::Mutex;

use crate::{
    connection::{Connection, Next, Role},
    error::{Error, Initiator, Reason},
    head::MoreField,
    parser::Parser,
    settings::Config,
    stream::remember,
    streams::Key,
};

#[derive(Debug)]
struct Shared(Mutex<(Connection, Parser)>);

impl Shared {
    fn new(role: Role, config: Config) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Connection::new(role, config))))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Connection) -> T) -> T {
        act(&mut self.0.lock().0)
    }
}

/// A connection, for whoever reads and writes its bytes. Everything on it ends when this is dropped.
#[derive(Debug)]
pub struct Session(Arc<Shared>);

impl Session {
    /// The server's side. The first bytes are to be [`PREFACE`](crate::PREFACE).
    #[must_use]
    pub fn server(config: Config) -> Self {
        Self(Shared::new(Role::Server, config))
    }

    /// The client's side, and what opens streams on it.
    #[must_use]
    pub fn client(config: Config) -> (Self, Sender) {
        let shared = Shared::new(Role::Client, config);
        (Self(shared.clone()), Sender(shared))
    }

    /// Takes bytes that have arrived.
    pub fn receive(&self, bytes: &[u8]) {
        let (connection, parser) = &mut *self.0.0.lock();
        connection.receive(parser, bytes);
    }

    /// The peer sends nothing more: everything ends.
    pub fn lost(&self) {
        self.0.with(Connection::lost);
    }

    /// Writes what there is until nothing is left, or `write` is not ready.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn write_with(&self, write: impl FnMut(&[IoSlice<'_>]) -> Poll<io::Result<usize>>) -> Poll<io::Result<()>> {
        self.0.with(|connection| connection.write_with(write))
    }

    /// What is to be done next.
    #[must_use]
    pub fn next(&self) -> Next {
        self.0.with(|connection| connection.next())
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub fn unwritten(&self) -> usize {
        self.0.with(|connection| connection.unwritten())
    }

    /// The peer does not take what is to be written, and much of it waits.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.0.with(|connection| connection.is_stuck())
    }

    /// Has the task of `cx` woken once there is something to do here. Ready when there already is something to write, and
    /// nobody has found that the socket does not take it.
    pub fn poll_work(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.with(|connection| {
            if connection.wants_to_write() || connection.next() != Next::GoOn {
                return Poll::Ready(());
            }
            connection.remember_driver(cx);
            Poll::Pending
        })
    }

    /// The next request of a client: its head, its body where it has one, and what answers it.
    pub fn accept(&self) -> Option<(request::Parts, Option<RecvStream>, SendStream)> {
        let (key, head, has_body) = self.0.with(Connection::accept)?;
        let recv = has_body.then(|| RecvStream { shared: self.0.clone(), key });
        Some((head, recv, SendStream { shared: self.0.clone(), key }))
    }

    /// Asks the client to open no more streams, serves those that it has opened, and ends.
    pub fn leave(&self) {
        self.0.with(Connection::leave);
    }

    /// Ends the connection at once.
    pub fn abort(&self, reason: Reason) {
        self.0.with(|connection| connection.abort(reason, Initiator::Program));
    }

    /// How many streams the peer allows at once; `None` until it has said so.
    #[must_use]
    pub fn allowed_streams(&self) -> Option<u32> {
        self.0.with(|connection| connection.allowed_streams())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.lost();
    }
}

/// Opens streams on a connection to a server. The connection ends once the last one is dropped and all streams are over.
#[derive(Debug)]
pub struct Sender(Arc<Shared>);

impl Clone for Sender {
    fn clone(&self) -> Self {
        self.0.with(|connection| connection.senders += 1);
        Self(self.0.clone())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.with(|connection| {
            connection.senders -= 1;
            if connection.senders == 0 {
                connection.wake_driver();
            }
        });
    }
}

impl Sender {
    /// The peer allows extended CONNECT (RFC 8441 section 3).
    #[must_use]
    pub fn allows_extended_connect(&self) -> bool {
        self.0.with(|connection| connection.allows_extended_connect())
    }

    /// Sends the head of a request with `more` fields behind its own; it has no body where it `ends`.
    ///
    /// # Errors
    /// Nothing was sent: the connection takes no streams any more, or none for now.
    pub fn request(
        &self,
        head: &request::Parts,
        more: &[MoreField],
        ends: bool,
    ) -> Result<(RecvStream, Option<SendStream>), Error> {
        let key = self.0.with(|connection| connection.request(head, more, ends))?;
        let send = (!ends).then(|| SendStream { shared: self.0.clone(), key });
        Ok((RecvStream { shared: self.0.clone(), key }, send))
    }
}

/// What a peer sends on a stream. Dropped before its end, it gives up what is left, and with the other half the stream.
#[derive(Debug)]
pub struct RecvStream {
    shared: Arc<Shared>,
    key: Key,
}

/// Says how much of a stream waits to be released. It does not keep the stream.
#[derive(Debug)]
pub struct WindowMeter {
    shared: Arc<Shared>,
    key: Key,
}

impl WindowMeter {
    /// Bytes that have arrived and were not released.
    #[must_use]
    pub fn held(&self) -> usize {
        self.shared.with(|connection| connection.held(self.key))
    }
}

impl RecvStream {
    /// The head of the response.
    ///
    /// # Errors
    /// The stream or the connection ended before.
    pub fn poll_response(&mut self, cx: &Context<'_>) -> Poll<Result<response::Parts, Error>> {
        self.shared.with(|connection| match connection.stream(self.key) {
            Some(stream) => stream.poll_response(cx),
            None => Poll::Ready(Err(Error::Closed)),
        })
    }

    /// The data that has arrived; `None` after the last of it.
    pub fn poll_data(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        self.shared.with(|connection| match connection.stream(self.key) {
            Some(stream) => stream.poll_data(cx),
            None => Poll::Ready(Some(Err(Error::Closed))),
        })
    }

    /// The trailers that have arrived after the data.
    ///
    /// # Errors
    /// The stream or the connection ended before.
    pub fn poll_trailers(&mut self, cx: &Context<'_>) -> Poll<Result<Option<HeaderMap>, Error>> {
        self.shared.with(|connection| match connection.stream(self.key) {
            Some(stream) => stream.poll_trailers(cx),
            None => Poll::Ready(Err(Error::Closed)),
        })
    }

    /// Ready once the stream has failed before everything has arrived, also while data is left that did arrive.
    pub fn poll_failed(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.shared.with(|connection| match connection.stream(self.key) {
            Some(stream) => stream.poll_failed(cx),
            None => Poll::Ready(()),
        })
    }

    /// Everything has arrived, and nothing of it is left.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.shared.with(|connection| connection.stream(self.key).is_none_or(|stream| stream.is_at_end()))
    }

    /// There is room for so many bytes more: as many were read and given on.
    pub fn release(&mut self, bytes: usize) {
        self.shared.with(|connection| connection.release(self.key, bytes));
    }

    /// What says how much of the stream waits to be released.
    #[must_use]
    pub fn meter(&self) -> WindowMeter {
        WindowMeter { shared: self.shared.clone(), key: self.key }
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.shared.with(|connection| connection.drop_reader(self.key));
    }
}

/// What is sent to the peer on a stream. Dropped before its end, it resets the stream.
#[derive(Debug)]
pub struct SendStream {
    shared: Arc<Shared>,
    key: Key,
}

impl SendStream {
    /// Sends the head of a response, which has no body where it `ends`.
    ///
    /// # Errors
    /// The stream or the connection has ended.
    pub fn send_response(&mut self, status: StatusCode, fields: &HeaderMap, ends: bool) -> Result<(), Error> {
        self.shared.with(|connection| connection.respond(self.key, status, fields, ends))
    }

    /// Sends as much of `data` as there is room for, at most one frame, and takes it out of `data`; the end of the stream
    /// with the last of it, if it `ends`. Returns how many bytes were taken. Not ready while there is no room.
    ///
    /// # Errors
    /// The stream or the connection has ended.
    pub fn poll_send(&mut self, cx: &Context<'_>, data: &mut Bytes, ends: bool) -> Poll<Result<usize, Error>> {
        self.shared.with(|connection| connection.poll_send(self.key, cx, data, ends))
    }

    /// Sends as much of `bytes` as there is room for, and says how much that is. Not ready while there is no room.
    ///
    /// # Errors
    /// The stream or the connection has ended.
    pub fn poll_write(&mut self, cx: &Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Error>> {
        self.shared.with(|connection| connection.poll_write(self.key, cx, bytes))
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// The stream or the connection has ended before.
    pub fn end(&mut self) -> Result<(), Error> {
        // What has no bytes needs no room.
        self.shared.with(|connection| connection.end_stream(self.key))
    }

    /// Sends trailers, which end the stream.
    ///
    /// # Errors
    /// The stream or the connection has ended before.
    pub fn send_trailers(&mut self, fields: &HeaderMap) -> Result<(), Error> {
        self.shared.with(|connection| connection.trailers(self.key, fields))
    }

    /// Resets the stream, unless it is over.
    pub fn reset(&mut self, reason: Reason) {
        self.shared.with(|connection| connection.reset(self.key, reason, Error::Reset(reason, Initiator::Program)));
    }

    /// Ready once the stream, or its connection, has ended before its time.
    pub fn poll_reset(&mut self, cx: &Context<'_>) -> Poll<Error> {
        self.shared.with(|connection| match connection.stream(self.key) {
            Some(stream) => match stream.failed {
                Some(error) => Poll::Ready(error),
                None => remember(&mut stream.writer, cx),
            },
            None => Poll::Ready(Error::Closed),
        })
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        self.shared.with(|connection| connection.drop_writer(self.key));
    }
}
