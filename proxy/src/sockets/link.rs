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
    KeptSockets, end,
    wire::{KeeperConnection, Message},
};

/// How often the proxy tries to connect to a keeper that does not run.
const RETRY: Duration = Duration::from_secs(1);

/// A warning is logged once, after this many failed tries.
const SAY: u32 = 15;

/// Pause before a keeper that is there is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// Longest time in which a keeper has given what it has.
const PATIENCE: Duration = Duration::from_secs(5);

/// A change of the open sockets, sent to the keeper.
pub(super) enum KeeperUpdate {
    Opened(SocketAddr),
    Closed(SocketAddr),
}

/// The connection to the keeper, and what was sent on it.
pub(super) struct KeeperLink {
    path: PathBuf,
    held: Arc<Mutex<KeptSockets>>,
    keeper: Option<KeeperConnection>,
    kept: HashSet<SocketAddr>,
    count: Gauge,
    failures: u32,
}

impl KeeperLink {
    /// A link; what the keeper has from the process before is adopted in `held`.
    ///
    /// # Errors
    /// When there is a keeper, and it does not give what it has.
    pub(super) fn new(path: &Path, held: Arc<Mutex<KeptSockets>>, count: Gauge) -> io::Result<Self> {
        let mut link = Self { path: path.to_owned(), held, keeper: None, kept: HashSet::new(), count, failures: 0 };
        match connect_with_retries(path) {
            Ok((keeper, before)) => {
                if !before.is_empty() {
                    tracing::info!(sockets = before.len(), "goes on with the sockets of the process before");
                }
                link.kept = before.iter().map(|(address, _)| *address).collect();
                link.held.lock().adopted =
                    before.into_iter().map(|(address, socket)| (address, Arc::new(socket))).collect();
                link.keeper = Some(keeper);
            }
            Err(error) if absent(&error) => link.count_failure(&error),
            Err(error) => return Err(error),
        }
        link.update_gauge();
        Ok(link)
    }

    /// Sends what the proxy opens and closes, and connects again where needed, until the proxy ends.
    pub(super) fn run(mut self, updates: &Receiver<KeeperUpdate>) {
        let mut next = Instant::now() + RETRY;
        loop {
            match updates.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(update) => self.send(&update),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= next {
                self.reconnect();
                next = Instant::now() + RETRY;
            }
            self.update_gauge();
        }
    }

    fn send(&mut self, update: &KeeperUpdate) {
        let Some(keeper) = &self.keeper else { return };
        let sent = match update {
            KeeperUpdate::Opened(address) => {
                // It may have been closed meanwhile.
                let Some(socket) = self.held.lock().open.get(address).cloned() else { return };
                self.kept.insert(*address);
                keeper.keep(&socket)
            }
            KeeperUpdate::Closed(address) => {
                self.kept.remove(address);
                keeper.close(*address)
            }
        };
        self.disconnect_if_failed(sent);
    }

    /// Connects to a keeper that was started or restarted, and sends it every socket.
    fn reconnect(&mut self) {
        // After a drain the sockets belong to the next process.
        if self.keeper.as_ref().is_some_and(|keeper| !keeper.ended()) || self.held.lock().left {
            return;
        }
        self.disconnect();
        match connect(&self.path) {
            Ok((keeper, theirs)) => {
                let sent = self.send_all(&keeper, &theirs);
                (self.keeper, self.failures) = (Some(keeper), 0);
                self.disconnect_if_failed(sent);
            }
            Err(error) => self.count_failure(&error),
        }
    }

    fn send_all(&mut self, keeper: &KeeperConnection, theirs: &[(SocketAddr, TcpListener)]) -> io::Result<()> {
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

    fn disconnect_if_failed(&mut self, sent: io::Result<()>) {
        if let Err(error) = sent {
            tracing::warn!(%error, "the keeper of the sockets does not listen");
            self.disconnect();
        }
    }

    fn disconnect(&mut self) {
        self.keeper = None;
        self.kept.clear();
    }

    fn count_failure(&mut self, error: &io::Error) {
        self.failures = self.failures.saturating_add(1);
        let keeper = self.path.display();
        if self.failures == SAY {
            tracing::warn!(%error, %keeper, "nobody keeps the sockets: after a crash callers are refused until this process is back");
        } else {
            tracing::debug!(%error, %keeper, "no keeper of the sockets");
        }
    }

    fn update_gauge(&self) {
        #[allow(clippy::cast_possible_wrap)]
        self.count.set(self.kept.len() as i64);
    }
}

/// A keeper, and what it has.
type Connected = (KeeperConnection, Vec<(SocketAddr, TcpListener)>);

/// There is no keeper, so nothing is kept.
fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Tries to connect to a running keeper until it answers or the time is up. The proxy cannot start without that.
fn connect_with_retries(path: &Path) -> io::Result<Connected> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match connect(path) {
            Err(error) if may_retry(&error) && Instant::now() < deadline => {
                tracing::debug!(%error, "the keeper of the sockets is asked again");
                std::thread::park_timeout(PAUSE);
            }
            connected => return connected,
        }
    }
}

/// A keeper that is there may answer the next time.
fn may_retry(error: &io::Error) -> bool {
    !absent(error) && error.kind() != io::ErrorKind::PermissionDenied
}

/// Connects to a keeper and takes what it has.
fn connect(path: &Path) -> io::Result<Connected> {
    let deadline = Instant::now() + PATIENCE;
    let keeper = KeeperConnection::to(path)?;
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
