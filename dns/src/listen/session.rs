//! The queries of one connection, answered in order (RFC 7766).
//!
//! An answer takes a microsecond, so each is made in line. What a connection holds is bounded: one read of queries, and
//! [`OUTPUT`] bytes of answers and one more answer. A peer that takes no answers is read no further, and ends when its
//! time is over.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use maesh_discovery::ConnectionSlot;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use crate::{
    answer::{Action, Transport, answer},
    metrics::Counters,
    rotation::Rotation,
    snapshot::Snapshot,
};

/// Bytes read at once at most.
const READ: usize = 4096;
/// Longest query; longer ones end the connection, as nothing we serve needs them.
const QUERY: usize = 4096;
/// Answers are sent when there are this many bytes of them: a read of short queries for long answers would else be
/// megabytes.
const OUTPUT: usize = 16 << 10;
/// Buffers that grew past this are given back when a connection waits for its next query.
const IDLE_BUFFER: usize = 2048;

/// What all connections answer from, and where they count.
pub(crate) struct Answering {
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    /// Tasks of several threads count here, one at a time.
    pub(crate) counters: Mutex<Arc<Counters>>,
}

/// Why a connection ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// By the peer, between two queries or within one.
    Closed,
    /// What came is no query.
    Malformed,
    /// No whole query came in time, or no answer was taken.
    Idle,
}

/// One connection.
pub(crate) struct Session<'a> {
    answering: &'a Answering,
    transport: Transport,
    peer: IpAddr,
    slot: &'a ConnectionSlot,
    rotation: Rotation,
    input: Vec<u8>,
    output: Vec<u8>,
    reply: Vec<u8>,
}

/// How far the queries at hand were answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// All whole ones.
    Done,
    /// There are more, once these answers were sent.
    Full,
    /// What follows is no query.
    Malformed,
}

impl<'a> Session<'a> {
    /// A connection of `peer`, which is counted by `slot`.
    pub(crate) fn new(
        answering: &'a Answering,
        transport: Transport,
        peer: SocketAddr,
        slot: &'a ConnectionSlot,
    ) -> Self {
        let rotation = Rotation::new(peer.port().into());
        let peer = peer.ip().to_canonical();
        Self { answering, transport, peer, slot, rotation, input: vec![], output: vec![], reply: vec![] }
    }

    /// Answers what comes, each query and each answer within `idle`.
    pub(crate) async fn serve<S>(&mut self, stream: &mut S, idle: Duration) -> io::Result<SessionEnd>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            match timeout(idle, self.fill(stream)).await {
                Err(_) => return Ok(SessionEnd::Idle),
                Ok(whole) => {
                    if !whole? {
                        return Ok(SessionEnd::Closed);
                    }
                }
            }
            self.slot.mark_active();
            loop {
                let progress = self.answer_some();
                let sent = timeout(idle, async {
                    stream.write_all(&self.output).await?;
                    stream.flush().await
                });
                match sent.await {
                    Err(_) => return Ok(SessionEnd::Idle),
                    Ok(sent) => sent?,
                }
                self.output.clear();
                match progress {
                    Progress::Done => break,
                    Progress::Full => {}
                    Progress::Malformed => return Ok(SessionEnd::Malformed),
                }
            }
            for buffer in [&mut self.input, &mut self.output] {
                buffer.shrink_to(IDLE_BUFFER);
            }
        }
    }

    /// Answers whole queries in `input`, until there are enough answers to send.
    fn answer_some(&mut self) -> Progress {
        let snapshot = self.answering.snapshot.load();
        let mut done = 0;
        let progress = loop {
            if self.output.len() >= OUTPUT {
                break Progress::Full;
            }
            match first_message(&self.input[done..]) {
                Message::Whole(query) => {
                    let rotation = self.rotation.next();
                    let action = answer(query, self.peer, &snapshot, self.transport, rotation, &mut self.reply);
                    self.answering.counters.lock().count(self.transport, action);
                    done += 2 + query.len();
                    if action == Action::Drop {
                        break Progress::Malformed;
                    }
                    if self.reply.len() > OUTPUT {
                        // Without room for a second one like it.
                        self.output.reserve_exact(2 + self.reply.len());
                    }
                    self.output.extend_from_slice(&(self.reply.len() as u16).to_be_bytes());
                    self.output.extend_from_slice(&self.reply);
                }
                Message::Part => break Progress::Done,
                Message::Bad => break Progress::Malformed,
            }
        };
        self.input.drain(..done);
        // The peer may take its time to read what is in `output`.
        self.reply.shrink_to(IDLE_BUFFER);
        progress
    }

    /// Reads until `input` starts with a whole or a bad message; `false` at the end of the stream.
    async fn fill<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<bool> {
        while let Message::Part = first_message(&self.input) {
            if (&mut *stream).take(READ as u64).read_buf(&mut self.input).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The start of a stream of messages, each with its length before it.
enum Message<'a> {
    Whole(&'a [u8]),
    Part,
    /// Empty, or longer than any query.
    Bad,
}

fn first_message(input: &[u8]) -> Message<'_> {
    let Some((length, rest)) = input.split_first_chunk::<2>() else { return Message::Part };
    let length = usize::from(u16::from_be_bytes(*length));
    if length == 0 || length > QUERY {
        return Message::Bad;
    }
    rest.get(..length).map_or(Message::Part, Message::Whole)
}
