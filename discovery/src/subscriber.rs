//! The subscribing side: one long-lived client that keeps a role supplied.
//!
//! `state` is what the subscriber has, without any input or output; `stream` runs it over one connection after another;
//! `connect` finds a controller; `witness` tells the other replicas of it how this is; `disk` keeps the state while the process is away; `backoff` spaces the tries.

mod backoff;
mod connect;
mod disk;
mod state;
mod stream;
mod witness;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{InProcess, tls::ClientTls};
use crate::{
    small_file,
    update::{Connected, Identity, Interest, Report, Updates},
};
use maesh_config::Kind;

/// Updates that a role did not take yet.
const UPDATES: usize = 16;

/// What a subscriber is started with.
#[derive(Clone, Debug)]
pub struct SubscriberConfig {
    /// Who it is.
    pub identity: Identity,
    /// Kinds of which it gets every resource. At least one.
    pub wildcard: Vec<Kind>,
    /// Kinds of which it gets what it asks for through its [`Interest`].
    pub on_demand: Vec<Kind>,
    /// Where the controllers are.
    pub connect: Connect,
    /// What it shows to them.
    pub token: Token,
    /// File in which the last good state is kept; without it a restart begins with nothing.
    pub state: Option<PathBuf>,
    /// How long things may take.
    pub timing: Timing,
}

/// Where the controllers are.
#[derive(Clone, Debug)]
pub enum Connect {
    /// In this process.
    InProcess(InProcess),
    /// Elsewhere.
    Tcp {
        /// `host:port` of each; every address that a host resolves to is tried in turn.
        controllers: Vec<String>,
        /// TLS; without it, only sound on loopback.
        tls: Option<ClientTls>,
    },
}

/// The bearer token that a subscriber shows.
#[derive(Clone, Default)]
pub enum Token {
    /// None.
    #[default]
    None,
    /// This one.
    Value(Arc<str>),
    /// The content of a file, read anew for every connection because it is replaced before it expires.
    File(PathBuf),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Value(_) => f.write_str("Value(hidden)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl Token {
    fn read(&self) -> io::Result<Option<String>> {
        Ok(match self {
            Self::None => None,
            Self::Value(token) => Some(token.to_string()),
            Self::File(path) => Some(small_file::read_text(path)?.trim().to_owned()),
        })
    }
}

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Longest pause before the first try after a connection was lost; it doubles with every try ...
    pub backoff_first: Duration,
    /// ... up to this. The pause is drawn between half of that and all of it.
    pub backoff_last: Duration,
    /// Longest time to resolve, connect and shake hands.
    pub connect: Duration,
    /// A silent controller is asked this often whether it is alive, and has as long to answer.
    pub keepalive: Duration,
    /// Shortest pause between two writes of the state file.
    pub save: Duration,
    /// A controller whose watches are behind what was seen before is left again for this long; then it is believed.
    pub behind: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            backoff_first: Duration::from_millis(50),
            backoff_last: Duration::from_secs(2),
            connect: Duration::from_secs(3),
            keepalive: Duration::from_secs(2),
            save: Duration::from_secs(1),
            behind: Duration::from_secs(30),
        }
    }
}

/// A running subscriber, as its role holds it. It ends, and writes its state a last time, when `updates` is dropped;
/// await `task` to know that this is done.
#[derive(Debug)]
pub struct Subscribed {
    /// What to put in force.
    pub updates: Updates,
    /// Says what is needed on demand. What is in the state file is asked for again by itself; let go of what is not
    /// needed any more.
    pub interest: Interest,
    /// Says whether the role takes new work.
    pub report: Report,
    /// Whether the stream to a controller is up.
    pub connected: Connected,
    /// Figures.
    pub status: Arc<SubscriberStatus>,
    /// Ends after the subscriber has.
    pub task: JoinHandle<()>,
}

/// Figures of a subscriber since it started.
#[derive(Debug, Default)]
pub struct SubscriberStatus {
    connects: AtomicU64,
    failures: AtomicU64,
    updates: AtomicU64,
    rejected: AtomicU64,
    resources: AtomicU64,
    saves: AtomicU64,
    last_error: parking_lot::Mutex<Option<Arc<str>>>,
}

impl SubscriberStatus {
    /// Streams that were opened.
    pub fn connects(&self) -> u64 {
        self.connects.load(Ordering::Relaxed)
    }

    /// Tries that failed, and streams that were lost.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Responses received.
    pub fn updates(&self) -> u64 {
        self.updates.load(Ordering::Relaxed)
    }

    /// Resources that were not put in force.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Resources held now.
    pub fn resources(&self) -> u64 {
        self.resources.load(Ordering::Relaxed)
    }

    /// State files written.
    pub fn saves(&self) -> u64 {
        self.saves.load(Ordering::Relaxed)
    }

    /// Why there is no stream now, or why the last one ended.
    pub fn last_error(&self) -> Option<Arc<str>> {
        self.last_error.lock().clone()
    }
}

/// Starts a subscriber. Must be called within a runtime.
///
/// What the state file holds is delivered first, as updates like any others; then the stream resumes from there.
pub fn start(config: SubscriberConfig) -> Subscribed {
    let (sender, updates) = mpsc::channel(UPDATES);
    let (interest, demands) = Interest::new();
    let (report, ready) = watch::channel(false);
    let (up, connected) = watch::channel(false);
    let status = Arc::new(SubscriberStatus::default());
    let runner = stream::Runner::new(config, sender, demands, ready, up, status.clone());
    Subscribed { updates, interest, report, connected, status, task: tokio::spawn(runner.run()) }
}
