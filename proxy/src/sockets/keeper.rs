//! The process that keeps the sockets.

use std::{
    collections::HashMap,
    fs::{self, Permissions},
    io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt as _, PermissionsExt as _},
    },
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{
        SocketFlags, accept_with, bind, listen,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use super::wire::{self, KeeperConnection, Message};

/// More sockets than any proxy opens: all of an own address's ports on both families.
const MOST: usize = 40_000;

/// Pause after the system had no descriptor left for another connection.
const PAUSE: Duration = Duration::from_millis(50);

/// Keeps copies of a proxy's listening sockets.
pub struct Keeper {
    listener: OwnedFd,
    hold: Duration,
    kept: HashMap<SocketAddr, TcpListener>,
}

impl Keeper {
    /// A keeper that proxies of the same user find at `path`, a socket that only this user may use; one that was left
    /// there is replaced. What was kept for a proxy that is gone is closed after `hold`: whoever connects should then be
    /// refused and not wait in vain.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn bind(path: &Path, hold: Duration) -> io::Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
        let listener = wire::socket()?;
        bind(&listener, &wire::address(path)?)?;
        // Nobody can connect before it listens.
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        listen(&listener, 8)?;
        Ok(Self { listener, hold: hold.max(Duration::from_millis(1)), kept: HashMap::new() })
    }

    /// Serves one proxy after another. Blocks, and never returns without an error.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn run(mut self) -> io::Error {
        let mut until = Instant::now();
        loop {
            match self.accept(until) {
                Ok(None) => {
                    let (sockets, hold) = (self.kept.len(), self.hold);
                    tracing::warn!(sockets, ?hold, "the proxy has not come back: its ports are closed until it does");
                    self.kept.clear();
                }
                Ok(Some(socket)) => {
                    if self.serve(socket) {
                        until = Instant::now() + self.hold;
                    }
                }
                Err(error) => return error,
            }
        }
    }

    /// Waits for the next proxy. If sockets are kept and none comes in time, returns none.
    fn accept(&self, until: Instant) -> io::Result<Option<OwnedFd>> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let wait = (!self.kept.is_empty()).then(|| left.max(Duration::from_millis(1)));
            set_socket_timeout(&self.listener, Timeout::Recv, wait)?;
            match accept_with(&self.listener, SocketFlags::CLOEXEC) {
                Ok(socket) => return Ok(Some(socket)),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    tracing::warn!(%error, "cannot take a proxy's connection");
                    std::thread::park_timeout(PAUSE);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Serves a proxy until it ends. Says whether it took what was kept.
    fn serve(&mut self, socket: OwnedFd) -> bool {
        let mut taken = false;
        if let Err(error) = self.exchange(socket, &mut taken) {
            tracing::warn!(%error, "a proxy was sent away");
        }
        if taken {
            let (sockets, hold) = (self.kept.len(), self.hold);
            tracing::info!(sockets, ?hold, "the proxy is gone; its ports stay open for the next one");
        }
        taken
    }

    /// Gives a proxy what is kept, then keeps what it has.
    fn exchange(&mut self, socket: OwnedFd, taken: &mut bool) -> io::Result<()> {
        let proxy = KeeperConnection::new(socket)?;
        self.kept.retain(|_, socket| wire::listens(socket));
        for socket in self.kept.values() {
            proxy.keep(socket)?;
        }
        proxy.end()?;
        while let Some(message) = proxy.receive()? {
            match message {
                Message::End => {
                    *taken = true;
                    tracing::info!(sockets = self.kept.len(), "a proxy is here, and has what was kept");
                }
                Message::Close(address) => drop(self.kept.remove(&address)),
                Message::Keep(socket) => {
                    let address = socket.local_addr()?;
                    if self.kept.len() < MOST || self.kept.contains_key(&address) {
                        self.kept.insert(address, socket);
                    }
                }
            }
        }
        Ok(())
    }
}
