//! A thread that carries traffic: an event loop of its own, the connections on it, and the pools it uses.
//!
//! A connection, its requests and the connections to endpoints that they use all stay on one worker, so workers share
//! only counters.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    runtime::{Builder, Handle},
    sync::{oneshot, watch},
};

use crate::{
    config::Limits,
    connect::Connector,
    socket::run_outbox,
    state::Shared,
    upstream::{ResponseLimits, WorkerUpstream},
};

/// Time for connections that were given up to release what they held.
const RELEASE: Duration = Duration::from_millis(20);

/// How often connections that have been idle for too long are looked for.
const SWEEP: Duration = Duration::from_millis(500);

/// Fields of a response's head. More than callers may send: applications set a cookie, or add a link, for each of many
/// things.
const RESPONSE_FIELDS: usize = 1024;

/// One thread that carries traffic.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    /// Its connections to endpoints.
    pub(crate) upstream: Arc<WorkerUpstream>,
    /// Connections on it.
    pub(crate) load: AtomicUsize,
    handle: Handle,
    callers: Mutex<HashMap<u64, Arc<dyn CallerConnection>, ahash::RandomState>>,
    next: AtomicU64,
    random: AtomicU64,
    closing: watch::Receiver<bool>,
}

impl Worker {
    /// Its event loop.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// A uniformly random number. Good enough to spread load, not to keep secrets.
    pub(crate) fn draw(&self) -> u64 {
        // SplitMix64, whose state is a counter.
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Turns true when connections are asked to end.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.clone()
    }

    /// Lets the sweep know of a connection.
    pub(crate) fn enlist(&self, caller: Arc<dyn CallerConnection>) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.callers.lock().insert(id, caller);
        id
    }

    /// The connection has ended.
    pub(crate) fn discharge(&self, id: u64) {
        self.callers.lock().remove(&id);
    }

    /// Looks at every connection.
    fn sweep(&self) {
        self.upstream.sweep();
        let leaving = self.shared.has_leaving();
        self.callers.lock().values().for_each(|caller| caller.sweep(&self.shared.config.limits, leaving));
    }

    /// Ends connections between requests that have been quiet for `quiet`; they were told to go, or never heard.
    pub(crate) fn end_idle(&self, quiet: Duration) {
        self.callers.lock().values().for_each(|caller| caller.end_idle(quiet));
    }
}

/// A connection that does not notice by itself when its time is up.
pub(crate) trait CallerConnection: Send + Sync {
    /// Ends the connection if it took too long for something. `leaving`: a port is being taken out of service.
    fn sweep(&self, limits: &Limits, leaving: bool);
    /// Ends the connection if it is between requests and was quiet for `quiet`.
    fn end_idle(&self, quiet: Duration);
    /// What is held for the connection, if it is one of `caller` and holds something.
    fn held(&self, caller: IpAddr) -> Option<Held>;
    /// Ends the connection, because too much is held for its caller.
    fn give_up(&self);
}

/// What is held for a connection.
pub(crate) struct Held {
    pub(crate) bytes: usize,
    /// It is ending already.
    pub(crate) is_given_up: bool,
}

/// Gives up connections of `caller`, those that hold the most first, until what it holds is no longer in excess.
fn shed(workers: &[Arc<Worker>], caller: IpAddr) {
    let Some(mut excess) = workers.first().map(|worker| worker.shared.buffers.excess_of(caller)) else { return };
    let mut holding: Vec<(usize, Arc<dyn CallerConnection>)> = Vec::new();
    for worker in workers {
        for connection in worker.callers.lock().values() {
            match connection.held(caller) {
                Some(held) if held.is_given_up => excess = excess.saturating_sub(held.bytes),
                Some(held) => holding.push((held.bytes, connection.clone())),
                None => {}
            }
        }
    }
    holding.sort_unstable_by_key(|(bytes, _)| *bytes);
    while excess > 0
        && let Some((bytes, connection)) = holding.pop()
    {
        connection.give_up();
        excess = excess.saturating_sub(bytes);
    }
}

/// All threads that carry traffic. They end when this is dropped.
#[derive(Clone)]
pub(crate) struct Workers {
    all: Arc<[Arc<Worker>]>,
    _threads: Arc<Threads>,
}

struct Threads {
    stop: Vec<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.clear();
        // Not joined: the last reference may be dropped on one of them.
        self.threads.clear();
    }
}

impl Workers {
    /// Starts `count` threads (at least one).
    pub(crate) fn start(shared: &Arc<Shared>, count: usize, closing: &watch::Receiver<bool>) -> io::Result<Self> {
        let mut all = Vec::new();
        let mut threads = Threads { stop: Vec::new(), threads: Vec::new() };
        let limits = ResponseLimits { bytes: shared.config.limits.head, fields: RESPONSE_FIELDS };
        let count = count.max(1);
        for index in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let worker = Arc::new(Worker {
                shared: shared.clone(),
                upstream: WorkerUpstream::new(
                    (index, count),
                    shared.clock.clone(),
                    Connector::new(&shared.config, &shared.telemetry),
                    limits,
                ),
                load: AtomicUsize::new(0),
                handle: runtime.handle().clone(),
                callers: Mutex::default(),
                next: AtomicU64::new(0),
                random: AtomicU64::new(rand::random()),
                closing: closing.clone(),
            });
            let (stop, stopped) = oneshot::channel::<()>();
            let sweeping = worker.clone();
            let run = move || {
                runtime.spawn(run_outbox());
                runtime.spawn(async move {
                    let mut tick = tokio::time::interval(SWEEP);
                    loop {
                        tick.tick().await;
                        sweeping.sweep();
                    }
                });
                // An error means that the sender was dropped, which is the signal.
                let _ = runtime.block_on(stopped);
                runtime.shutdown_background();
            };
            threads.threads.push(std::thread::Builder::new().name(format!("maesh-proxy-{index}")).spawn(run)?);
            threads.stop.push(stop);
            all.push(worker);
        }
        let all: Arc<[Arc<Worker>]> = all.into();
        let (everyone, buffers) = (all.clone(), shared.buffers.clone());
        let shedding = async move {
            loop {
                buffers.over().await;
                // Until what was given up is released, and for as long as anybody is above a bound.
                loop {
                    let callers = buffers.callers_over();
                    if callers.is_empty() {
                        break;
                    }
                    callers.into_iter().for_each(|caller| shed(&everyone, caller));
                    tokio::time::sleep(RELEASE).await;
                }
            }
        };
        if let Some(first) = all.first() {
            first.handle.spawn(shedding);
        }
        Ok(Self { all, _threads: Arc::new(threads) })
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Worker>> {
        self.all.iter()
    }

    /// The worker of this index, modulo their number.
    pub(crate) fn nth(&self, index: usize) -> &Arc<Worker> {
        &self.all[index % self.all.len()]
    }

    /// The one with the fewest connections; `here` among equals.
    pub(crate) fn idlest<'a>(&'a self, here: &'a Arc<Worker>) -> &'a Arc<Worker> {
        let load = |worker: &Arc<Worker>| worker.load.load(Ordering::Relaxed);
        self.all.iter().min_by_key(|worker| load(worker)).filter(|least| load(least) < load(here)).unwrap_or(here)
    }
}
