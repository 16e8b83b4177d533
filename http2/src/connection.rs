//! The state of a connection: frames in, frames out, and what they mean for its streams.
//!
//! Frames are written to the output in the order in which they are asked for, so nothing is queued for a stream: what has no
//! room stays with whoever sends it. Heads and control frames always have room. How many of these a peer can cause is for the
//! caller of this crate to bound, which sees the bytes first; [`MOST_WAITING`] is the last resort.

mod ending;
mod receive;
mod send;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    task::{Context, Poll, Waker},
};

use crate::{
    error::{Error, Initiator, Reason},
    frame::{self, PREFACE},
    hpack::{Decoder, Encoder},
    output::Output,
    parser::Parser,
    settings::{self, Config, DEFAULT_TABLE, DEFAULT_WINDOW, PeerSettings},
    stream::{Arrived, Stream, remember, wake},
    streams::{Key, Streams},
    window::ReceiveWindow,
};

/// Data is given to the output while fewer bytes than this wait there.
pub(crate) const ROOM: usize = 32 * 1024;

/// Streams that wait for room get it once fewer bytes than this are left.
const LOW: usize = 16 * 1024;

/// Streams that are told at once that there is room.
const TURNS: usize = 8;

/// Bytes of heads and control frames that may wait for a peer that does not read.
const MOST_WAITING: usize = 4 * 1024 * 1024;

/// Streams that may end by an error of the peer's (CVE-2025-8671), or be refused, before the connection does: more than
/// those that ended well.
const STREAM_ERRORS: u32 = 1024;

/// Streams that a peer may reset before they were looked at (CVE-2023-44487).
const RESET_UNSEEN: usize = 32;

/// The PING whose answer says that a peer knows that the connection is ending.
const LAST_PING: [u8; 8] = *b"goingnow";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// How far this side has ended the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// The peer was told not to open streams, but may have opened some before it knew.
    Announced,
    /// No stream after the last one that is known is served.
    Final,
}

/// A header block whose last frame has not come.
#[derive(Debug)]
struct OpenBlock {
    stream: u32,
    ends_stream: bool,
    bytes: Vec<u8>,
    frames: usize,
}

/// The state of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    role: Role,
    config: Config,
    peer: PeerSettings,
    decoder: Decoder,
    encoder: Encoder,
    streams: Streams,
    output: Output,
    /// What the peer may send in all, and what this side may.
    window: ReceiveWindow,
    send_window: i64,
    block: Option<OpenBlock>,
    /// The last stream of the peer, and the next one of this side.
    last_peer: u32,
    next_id: u32,
    /// Streams that are open.
    open: u32,
    /// Requests that were not asked for yet.
    accept: VecDeque<Key>,
    /// How many of those were reset since somebody asked last.
    reset_unseen: usize,
    stream_errors: u32,
    /// Streams that wait for room, in the order of their turns.
    waiting: VecDeque<Key>,
    leaving: Leaving,
    /// The peer takes no streams any more.
    peer_left: Option<Error>,
    /// Nothing is read any more.
    ended: Option<Error>,
    /// Handles that may still open streams.
    pub(crate) senders: usize,
    /// The peer does not take what is to be written.
    is_blocked: bool,
    driver: Option<Waker>,
}

/// What whoever reads and writes the bytes has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Read, and write what there is.
    GoOn,
    /// Write what there is, and close the connection.
    Close(Result<(), Error>),
}

impl Connection {
    pub(crate) fn new(role: Role, config: Config) -> (Self, Parser) {
        let connection_window = config.connection_window.max(DEFAULT_WINDOW);
        let mut output = Output::default();
        let is_server = role == Role::Server;
        let out = output.buffer();
        if !is_server {
            out.extend_from_slice(PREFACE);
        }
        frame::settings(out, &settings::ours(&config, is_server));
        if connection_window > DEFAULT_WINDOW {
            frame::window_update(out, 0, connection_window - DEFAULT_WINDOW);
        }
        let connection = Self {
            role,
            config,
            peer: PeerSettings::default(),
            decoder: Decoder::new(DEFAULT_TABLE),
            encoder: Encoder::new(),
            streams: Streams::default(),
            output,
            window: ReceiveWindow::new(connection_window),
            send_window: i64::from(DEFAULT_WINDOW),
            block: None,
            last_peer: 0,
            next_id: 1,
            open: 0,
            accept: VecDeque::new(),
            reset_unseen: 0,
            stream_errors: 0,
            waiting: VecDeque::new(),
            leaving: Leaving::No,
            peer_left: None,
            ended: None,
            senders: usize::from(!is_server),
            is_blocked: false,
            driver: None,
        };
        (connection, if is_server { Parser::of_client() } else { Parser::of_server() })
    }

    /// What is to be done next.
    pub(crate) fn next(&self) -> Next {
        match self.ended {
            Some(Error::GoAway(Reason::NO_ERROR, Initiator::Program)) => Next::Close(Ok(())),
            Some(error) => Next::Close(Err(error)),
            None if self.is_done() => Next::Close(Ok(())),
            None => Next::GoOn,
        }
    }

    /// Nothing will happen on it any more: one of the sides has taken leave, and every stream is over.
    fn is_done(&self) -> bool {
        let no_more = match self.role {
            Role::Server => self.leaving == Leaving::Final || self.peer_left.is_some(),
            Role::Client => self.senders == 0 || self.peer_left.is_some(),
        };
        no_more && self.open == 0 && self.accept.is_empty()
    }

    /// Writes what there is until nothing is left, or `write` is not ready.
    pub(crate) fn write_with(
        &mut self,
        write: impl FnMut(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        let written = self.output.write_with(write);
        self.is_blocked = written.is_pending();
        self.give_turns();
        if self.open == 0 {
            self.output.release();
            self.streams.release();
        }
        written
    }

    /// Bytes that wait to be written.
    pub(crate) fn unwritten(&self) -> usize {
        self.output.len()
    }

    /// There is something to write, and nobody knows that the peer does not take it.
    pub(crate) fn wants_to_write(&self) -> bool {
        !self.is_blocked && !self.output.is_empty()
    }

    /// The peer does not take what is to be written, and much of it waits.
    pub(crate) fn is_stuck(&self) -> bool {
        self.is_blocked && self.output.len() > LOW
    }

    /// Has whoever writes woken when there is something to do.
    pub(crate) fn remember_driver(&mut self, cx: &Context<'_>) {
        let _: Poll<()> = remember(&mut self.driver, cx);
    }

    /// Has whoever writes look again.
    pub(crate) fn wake_driver(&mut self) {
        wake(&mut self.driver);
    }

    fn wrote(&mut self) {
        if !self.is_blocked {
            wake(&mut self.driver);
        }
    }

    /// Tells the first of the streams that wait for room that there is some.
    fn give_turns(&mut self) {
        if self.send_window <= 0 || self.output.len() > LOW {
            return;
        }
        for key in self.waiting.iter().take(TURNS) {
            if let Some(stream) = self.streams.get_mut(*key) {
                stream.has_turn = true;
                wake(&mut stream.writer);
            }
        }
    }

    /// The next request, and whether its body is still to come.
    pub(crate) fn accept(&mut self) -> Option<(Key, http::request::Parts, bool)> {
        self.reset_unseen = 0;
        while let Some(key) = self.accept.pop_front() {
            let Some(stream) = self.streams.get_mut(key) else { continue };
            let Some(crate::stream::Head::Request(head)) = stream.head.take() else { continue };
            let has_body = !stream.is_at_end();
            stream.has_reader = has_body;
            return Some((key, head, has_body));
        }
        None
    }

    pub(crate) fn stream(&mut self, key: Key) -> Option<&mut Stream> {
        self.streams.get_mut(key)
    }

    /// Bytes that have arrived on a stream and were not released.
    pub(crate) fn held(&self, key: Key) -> usize {
        self.streams.get(key).map_or(0, |stream| stream.window.held())
    }

    /// There is room for `bytes` of a stream that were read.
    pub(crate) fn release(&mut self, key: Key, bytes: usize) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let bytes = bytes.min(stream.window.held());
        let id = stream.id;
        let is_open = stream.arrived != Arrived::All && stream.failed.is_none();
        if let Some(increment) = stream.window.release(bytes)
            && is_open
        {
            frame::window_update(self.output.buffer(), id, increment);
            self.wrote();
        }
        self.release_connection(bytes);
    }

    /// Nobody will ask for what arrives on a stream any more.
    pub(crate) fn drop_reader(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.has_reader = false;
        stream.reader = None;
        if stream.has_writer || stream.is_closed() {
            self.drop_data(key);
            self.settle(key);
        } else {
            self.abandon(key);
        }
    }

    /// Nobody will send on a stream any more.
    pub(crate) fn drop_writer(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.has_writer = false;
        stream.writer = None;
        if stream.is_closed() {
            self.settle(key);
        } else if !stream.sent_all || !stream.has_reader {
            self.abandon(key);
        }
    }

    /// How many streams the peer allows; `None` until it has said so.
    pub(crate) fn allowed_streams(&self) -> Option<u32> {
        self.peer.are_known.then_some(self.peer.streams)
    }

    /// The peer allows extended CONNECT.
    pub(crate) fn allows_extended_connect(&self) -> bool {
        self.peer.connect
    }

    /// Why no stream can be opened.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let left = (self.leaving != Leaving::No).then_some(Error::GoAway(Reason::NO_ERROR, Initiator::Program));
        self.ended.or(self.peer_left).or(left)
    }
}
