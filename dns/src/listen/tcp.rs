//! Streams: several queries on a connection, answered in order (RFC 7766).
//!
//! An answer takes a microsecond, so each is made in line: what is in flight is at most what one read brought, and a
//! peer that takes no answers is read no further. Connections are counted, in all and by peer, and end when nothing
//! whole comes for a while.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use ahash::RandomState;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    answer::{Action, Transport, answer},
    metrics::{Counters, Metrics},
    rotation::Rotation,
    snapshot::Snapshot,
};

/// Bytes read at once at most, and so the most that is in flight on one connection.
const READ: usize = 4096;
/// Longest query; longer ones end the connection, as nothing we serve needs them.
const QUERY: usize = 4096;
/// How long to wait when the system has no file or memory left for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Limits of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpLimits {
    /// Connections open at a time; more are closed at once.
    pub connections: usize,
    /// Connections of one peer address at a time; more are closed at once.
    pub per_peer: usize,
    /// Time in which a whole query must come, or an answer be taken. CoreDNS keeps idle connections for 10 s.
    pub idle: Duration,
}

impl Default for TcpLimits {
    fn default() -> Self {
        Self { connections: 2048, per_peer: 512, idle: Duration::from_secs(30) }
    }
}

/// What the connections share.
pub(crate) struct Server {
    pub(crate) limits: TcpLimits,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) metrics: Metrics,
    counters: Mutex<Arc<Counters>>,
    peers: Mutex<HashMap<IpAddr, usize, RandomState>>,
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Server {
    /// A server without listeners.
    pub(crate) fn new(
        limits: TcpLimits,
        snapshot: Arc<ArcSwap<Snapshot>>,
        metrics: Metrics,
        stopping: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        let counters = Mutex::new(metrics.writer());
        Self { limits, snapshot, metrics, counters, peers: Mutex::default(), stopping, tasks }
    }

    /// Accepts connections until it is stopped. No error ends it.
    pub(crate) async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stopping.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => self.clone().admit(stream, peer),
                Err(error) => {
                    self.metrics.connections().failed.fetch_add(1, Relaxed);
                    tracing::warn!(%error, "accepting a DNS connection");
                    // A connection that went before it was accepted says nothing of the next one.
                    let transient = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset];
                    if !transient.contains(&error.kind()) {
                        tokio::select! {
                            () = tokio::time::sleep(PAUSE) => {}
                            () = self.stopping.cancelled() => return,
                        }
                    }
                }
            }
        }
    }

    /// Serves a connection, unless there are too many.
    fn admit(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let peer = peer.ip().to_canonical();
        {
            let mut peers = self.peers.lock();
            let total: usize = self.metrics.connections().open.load(Relaxed) as usize;
            let of_peer = peers.get(&peer).copied().unwrap_or(0);
            if total >= self.limits.connections || of_peer >= self.limits.per_peer {
                self.metrics.connections().refused.fetch_add(1, Relaxed);
                return;
            }
            peers.insert(peer, of_peer + 1);
        }
        self.metrics.connections().open.fetch_add(1, Relaxed);
        let admitted = Admitted { server: self.clone(), peer };
        self.tasks.spawn(async move {
            if let Err(error) = admitted.serve(stream).await {
                tracing::debug!(%error, %peer, "a DNS connection ended");
            }
        });
    }
}

/// A connection that is counted.
struct Admitted {
    server: Arc<Server>,
    peer: IpAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.server.metrics.connections().open.fetch_sub(1, Relaxed);
        let mut peers = self.server.peers.lock();
        match peers.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                peers.remove(&self.peer);
            }
        }
    }
}

impl Admitted {
    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut input = Vec::with_capacity(512);
        let (mut output, mut reply) = (Vec::with_capacity(512), Vec::with_capacity(512));
        let mut rotation = Rotation::new(stream.peer_addr()?.port().into());
        loop {
            let whole = tokio::select! {
                whole = timeout(self.server.limits.idle, fill(&mut stream, &mut input)) => whole,
                () = self.server.stopping.cancelled() => return Ok(()),
            };
            match whole {
                Err(_) => {
                    self.server.metrics.connections().idle.fetch_add(1, Relaxed);
                    return Ok(());
                }
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
            }
            let more = self.answer_all(&mut input, &mut output, &mut reply, &mut rotation);
            if timeout(self.server.limits.idle, stream.write_all(&output)).await.is_err() {
                self.server.metrics.connections().idle.fetch_add(1, Relaxed);
                return Ok(());
            }
            output.clear();
            if !more {
                return Ok(());
            }
        }
    }

    /// Answers every whole query in `input`; whether the connection may go on.
    fn answer_all(
        &self,
        input: &mut Vec<u8>,
        output: &mut Vec<u8>,
        reply: &mut Vec<u8>,
        rotation: &mut Rotation,
    ) -> bool {
        let snapshot = self.server.snapshot.load();
        let mut done = 0;
        let more = loop {
            match first_message(&input[done..]) {
                Message::Whole(query) => {
                    let action = answer(query, self.peer, &snapshot, Transport::Tcp, rotation.next(), reply);
                    // Tasks of several threads count here, one at a time.
                    self.server.counters.lock().count(Transport::Tcp, action);
                    done += 2 + query.len();
                    if action == Action::Drop {
                        break false;
                    }
                    output.extend_from_slice(&(reply.len() as u16).to_be_bytes());
                    output.extend_from_slice(reply);
                }
                Message::Part => break true,
                Message::Bad => break false,
            }
        };
        input.drain(..done);
        more
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

/// Reads until `input` starts with a whole or a bad message; `false` at the end of the stream.
async fn fill(stream: &mut TcpStream, input: &mut Vec<u8>) -> io::Result<bool> {
    while let Message::Part = first_message(input) {
        if (&mut *stream).take(READ as u64).read_buf(input).await? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}
