//! The serving side: streams of subscribers over one [`Store`].
//!
//! `subscription` is what one stream wants and has of one type, `session` is one stream, both without any input or
//! output; `stream` drives a session over gRPC; `registry` is what the controller sees of all of them; `serve` accepts
//! connections.

mod registry;
mod serve;
mod session;
mod stream;
mod subscription;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use registry::Registry;
pub use registry::Subscriber;
pub use session::Verdict;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::{ConnectionLimits, ConnectionTable, Store, auth::Authenticate};

/// Limits of a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Streams at once; one more is refused.
    pub subscribers: usize,
    /// Connections at once whose peer has not authenticated yet.
    pub unauthenticated: ConnectionLimits,
    /// A subscriber that does not answer, or take, a response for this long is dropped; it resumes when it can.
    pub stall: Duration,
    /// Changes that follow each other sooner than this are sent together.
    pub pace: Duration,
    /// Bytes of resources in one response; a greater resource travels alone.
    pub chunk: usize,
}

impl ServerOptions {
    /// The usual limits, or lower ones that fit into `files` open files.
    pub fn within(files: usize) -> Self {
        let default = Self::default();
        let all = (files / 4).clamp(16, default.unauthenticated.all);
        let per_source = (all / 4).min(default.unauthenticated.per_source);
        Self {
            subscribers: (files / 3).clamp(1, default.subscribers),
            unauthenticated: ConnectionLimits { all, per_source },
            ..default
        }
    }
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            subscribers: 10_000,
            unauthenticated: ConnectionLimits { all: 2048, per_source: 128 },
            stall: Duration::from_secs(30),
            pace: Duration::from_millis(5),
            chunk: (1 << 20) - 1024,
        }
    }
}

/// Figures of a server since it started.
#[derive(Debug, Default)]
pub struct Counters {
    pub(super) streams: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) pushes: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) acks: AtomicU64,
    pub(super) nacks: AtomicU64,
}

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident)*) => {
        impl Counters {
            $($(#[$doc])* pub fn $name(&self) -> u64 { self.$name.load(Ordering::Relaxed) })*
        }
    };
}
getters! {
    /// Streams opened.
    streams
    /// Streams refused: not authenticated, too many, or stale.
    refused
    /// Streams ended because the subscriber did not answer in time or was too far behind.
    dropped
    /// Responses sent.
    pushes
    /// Bytes of resources sent.
    bytes
    /// Responses fully put in force.
    acks
    /// Responses not or not fully put in force.
    nacks
}

/// A discovery server. Clones share everything.
#[derive(Clone, Debug)]
pub struct Server {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<Store>,
    options: ServerOptions,
    registry: Registry,
    counters: Counters,
    slots: Arc<Semaphore>,
    unauthenticated: ConnectionTable,
    ending: CancellationToken,
}

impl Server {
    /// A server of what is in `store`; it serves nobody until [`Server::listen`] or [`Server::in_process`].
    pub fn new(store: Arc<Store>, options: ServerOptions) -> Self {
        let slots = Arc::new(Semaphore::new(options.subscribers));
        let unauthenticated = ConnectionTable::new(options.unauthenticated);
        let shared = Shared {
            store,
            options,
            registry: Registry::default(),
            counters: Counters::default(),
            slots,
            unauthenticated,
            ending: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Our subscribers that are connected now, in order of their names; another program's are not among them.
    pub fn subscribers(&self) -> watch::Receiver<Arc<Vec<Subscriber>>> {
        self.shared.registry.watch()
    }

    /// Changes whenever some subscriber has answered for a newer revision ([`Subscriber::acknowledged`]).
    pub fn acknowledgements(&self) -> watch::Receiver<()> {
        self.shared.registry.watch_acknowledgements()
    }

    /// Figures since the start.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Connections that were closed before their peer authenticated, because there were too many of them.
    pub fn crowded_out(&self) -> u64 {
        self.shared.unauthenticated.closed()
    }

    /// Ends every stream and stops accepting.
    pub fn shutdown(&self) {
        self.shared.ending.cancel();
    }

    fn service(&self, auth: Arc<dyn Authenticate>) -> stream::Service {
        stream::Service { shared: self.shared.clone(), auth }
    }
}
