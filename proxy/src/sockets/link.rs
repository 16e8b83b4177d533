//! The proxy's side of the link to the keeper: a thread of its own, so that nothing else waits for the keeper.

use std::{
    collections::HashSet,
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;

use super::{
    Held, end,
    wire::{Connection, Message},
};

/// How often the proxy tries to connect to a keeper that does not run.
const RETRY: Duration = Duration::from_secs(1);

/// A warning is logged once, after this many failed tries.
const SAY: u32 = 15;

/// Pause before a keeper that is there is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// Longest time in which a keeper has given what it has.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the keeper is to be told.
pub(super) enum Told {
    Opened(SocketAddr),
    Closed(SocketAddr),
}

/// The way to the keeper.
pub(super) struct Link {
    path: PathBuf,
    held: Arc<Mutex<Held>>,
    keeper: Option<Connection>,
    kept: HashSet<SocketAddr>,
    count: Gauge,
    in_vain: u32,
}

impl Link {
    /// A link; what the keeper has from the process before is adopted in `held`.
    ///
    /// # Errors
    /// When there is a keeper, and it does not give what it has.
    pub(super) fn new(path: &Path, held: Arc<Mutex<Held>>, count: Gauge) -> io::Result<Self> {
        let mut link = Self { path: path.to_owned(), held, keeper: None, kept: HashSet::new(), count, in_vain: 0 };
        match reach_patiently(path) {
            Ok((keeper, before)) => {
                if !before.is_empty() {
                    tracing::info!(sockets = before.len(), "goes on with the sockets of the process before");
                }
                link.kept = before.iter().map(|(address, _)| *address).collect();
                link.held.lock().adopted =
                    before.into_iter().map(|(address, socket)| (address, Arc::new(socket))).collect();
                link.keeper = Some(keeper);
            }
            Err(error) if absent(&error) => link.missed(&error),
            Err(error) => return Err(error),
        }
        link.tally();
        Ok(link)
    }

    /// Sends what the proxy opens and closes, and connects again where needed, until the proxy ends.
    pub(super) fn run(mut self, told: &Receiver<Told>) {
        let mut next = Instant::now() + RETRY;
        loop {
            match told.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(told) => self.tell(&told),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= next {
                self.look();
                next = Instant::now() + RETRY;
            }
            self.tally();
        }
    }

    fn tell(&mut self, told: &Told) {
        let Some(keeper) = &self.keeper else { return };
        let sent = match told {
            Told::Opened(address) => {
                // It may have been closed meanwhile.
                let Some(socket) = self.held.lock().open.get(address).cloned() else { return };
                self.kept.insert(*address);
                keeper.keep(&socket)
            }
            Told::Closed(address) => {
                self.kept.remove(address);
                keeper.close(*address)
            }
        };
        self.judge(sent);
    }

    /// Connects to a keeper that was started or restarted, and sends it every socket.
    fn look(&mut self) {
        // After a drain the sockets belong to the next process.
        if self.keeper.as_ref().is_some_and(|keeper| !keeper.ended()) || self.held.lock().left {
            return;
        }
        self.lose();
        match reach(&self.path) {
            Ok((keeper, theirs)) => {
                let sent = self.tell_all(&keeper, &theirs);
                (self.keeper, self.in_vain) = (Some(keeper), 0);
                self.judge(sent);
            }
            Err(error) => self.missed(&error),
        }
    }

    fn tell_all(&mut self, keeper: &Connection, theirs: &[(SocketAddr, TcpListener)]) -> io::Result<()> {
        let ours: Vec<_> = {
            let held = self.held.lock();
            held.open.iter().chain(&held.adopted).map(|(address, socket)| (*address, socket.clone())).collect()
        };
        self.kept = ours.iter().map(|(address, _)| *address).collect();
        for (address, socket) in theirs.iter().filter(|(address, _)| !self.kept.contains(address)) {
            // No listener would ever accept on it.
            end(*address, socket);
        }
        ours.iter().try_for_each(|(_, socket)| keeper.keep(socket))
    }

    fn judge(&mut self, sent: io::Result<()>) {
        if let Err(error) = sent {
            tracing::warn!(%error, "the keeper of the sockets does not listen");
            self.lose();
        }
    }

    fn lose(&mut self) {
        self.keeper = None;
        self.kept.clear();
    }

    fn missed(&mut self, error: &io::Error) {
        self.in_vain = self.in_vain.saturating_add(1);
        let keeper = self.path.display();
        if self.in_vain == SAY {
            tracing::warn!(%error, %keeper, "nobody keeps the sockets: after a crash callers are refused until this process is back");
        } else {
            tracing::debug!(%error, %keeper, "no keeper of the sockets");
        }
    }

    fn tally(&self) {
        #[allow(clippy::cast_possible_wrap)]
        self.count.set(self.kept.len() as i64);
    }
}

/// A keeper, and what it has.
type Reached = (Connection, Vec<(SocketAddr, TcpListener)>);

/// There is no keeper, so nothing is kept.
fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Tries to reach a running keeper until it answers or the time is up. The proxy cannot start without that.
fn reach_patiently(path: &Path) -> io::Result<Reached> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match reach(path) {
            Err(error) if may_pass(&error) && Instant::now() < deadline => {
                tracing::debug!(%error, "the keeper of the sockets is asked again");
                std::thread::park_timeout(PAUSE);
            }
            reached => return reached,
        }
    }
}

/// A keeper that is there may answer the next time.
fn may_pass(error: &io::Error) -> bool {
    !absent(error) && error.kind() != io::ErrorKind::PermissionDenied
}

/// Connects to a keeper and takes what it has.
fn reach(path: &Path) -> io::Result<Reached> {
    let deadline = Instant::now() + PATIENCE;
    let keeper = Connection::to(path)?;
    let mut kept = Vec::new();
    while let Some(message) = keeper.receive()? {
        match message {
            Message::Keep(socket) => kept.push((socket.local_addr()?, socket)),
            Message::Close(_) => {}
            Message::End => {
                keeper.end()?;
                return Ok((keeper, kept));
            }
        }
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}
