//! Listening sockets that outlive the proxy's process.
//!
//! A [`Keeper`], a second small process in the proxy's network namespace, has a copy of every listening socket. While
//! the proxy is started again, after a crash or a kill, the kernel goes on completing connections for the copies; they
//! wait in the sockets' queues until the next process has been given them and accepts. So a crash costs what was in
//! flight, and no new connection is refused.
//!
//! Without a keeper, or while it is away, everything works as it would for a process alone.

mod keeper;
mod link;
mod wire;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use rustix::net::{Shutdown, shutdown};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

pub use self::keeper::Keeper;
use self::link::{KeeperLink, KeeperUpdate};

/// Connections that wait in the kernel for being accepted.
const BACKLOG: i32 = 4096;

/// A caller that has said nothing for so long is asked by the kernel whether it is still there: so often, with so much time
/// between. One that does not answer is gone.
const SILENT: Duration = Duration::from_secs(30);
const PROBE: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

/// How long kept sockets wait for a configuration that names them. A port that was opened just before the crash may not
/// be in the state on disk.
const ADOPTION: Duration = Duration::from_secs(10);

/// Makes listening sockets, or takes them from a keeper.
pub(crate) struct Sockets(Option<KeeperClient>);

/// The proxy's state for working with a keeper.
struct KeeperClient {
    held: Arc<Mutex<KeptSockets>>,
    until: Instant,
    link: mpsc::Sender<KeeperUpdate>,
}

/// Sockets of which a keeper has copies, or should, by what they are bound to.
#[derive(Default)]
struct KeptSockets {
    open: HashMap<SocketAddr, Arc<TcpListener>>,
    /// Sockets of the previous process that no listener has asked for yet.
    adopted: HashMap<SocketAddr, Arc<TcpListener>>,
    /// The sockets were left to the next process.
    left: bool,
}

/// A socket that listens.
pub(crate) struct Listen {
    pub(crate) socket: Arc<TcpListener>,
    /// It comes from the previous process, so connections may be waiting in it.
    pub(crate) adopted: bool,
}

impl Sockets {
    /// Sockets without a keeper.
    pub(crate) fn alone() -> Self {
        Self(None)
    }

    /// Sockets with the keeper at `path`, and those that it kept. A keeper that does not run yet is tried again every
    /// second. `kept` is the number of sockets that it has. Blocks for a few seconds at most.
    ///
    /// # Errors
    /// When there is a keeper, and it does not give what it has: its copies would keep the ports taken.
    pub(crate) fn with_keeper(path: &Path, kept: Gauge) -> io::Result<Self> {
        let held = Arc::new(Mutex::new(KeptSockets::default()));
        let link = KeeperLink::new(path, held.clone(), kept)?;
        let (sender, told) = mpsc::channel();
        std::thread::Builder::new().name("sockets".into()).spawn(move || link.run(&told))?;
        Ok(Self(Some(KeeperClient { held, until: Instant::now() + ADOPTION, link: sender })))
    }

    /// A socket that listens on `address`; on `::` for both families.
    pub(crate) fn listen(&mut self, address: SocketAddr) -> io::Result<Listen> {
        let Some(kept) = &mut self.0 else { return Ok(Listen { socket: Arc::new(listen(address)?), adopted: false }) };
        let mut held = kept.held.lock();
        if let Some(socket) = held.adopted.remove(&address) {
            held.open.insert(address, socket.clone());
            prepare(&SockRef::from(&*socket));
            return Ok(Listen { socket, adopted: true });
        }
        let socket = Arc::new(listen(address)?);
        let bound = socket.local_addr()?;
        held.open.insert(bound, socket.clone());
        kept.send(KeeperUpdate::Opened(bound));
        Ok(Listen { socket, adopted: false })
    }

    /// Closes the socket on `address`, and with it every copy that the keeper has.
    pub(crate) fn close(&mut self, address: SocketAddr) {
        let Some(kept) = &mut self.0 else { return };
        let socket = kept.held.lock().open.remove(&address);
        if let Some(socket) = socket {
            kept.close(address, &socket);
        }
    }

    /// Whether the time for adopting kept sockets is over. If so, those that no listener asked for are closed.
    pub(crate) fn overdue(&mut self, now: Instant) -> bool {
        let Some(kept) = self.0.as_mut().filter(|kept| now >= kept.until) else { return false };
        let rest = std::mem::take(&mut kept.held.lock().adopted);
        for (address, socket) in rest {
            kept.close(address, &socket);
        }
        true
    }

    /// This process stops listening and leaves its sockets to the keeper, for a process that may come after it.
    pub(crate) fn leave(&mut self) {
        if let Some(kept) = &mut self.0 {
            *kept.held.lock() = KeptSockets { left: true, ..KeptSockets::default() };
        }
    }
}

impl KeeperClient {
    fn close(&self, address: SocketAddr, socket: &TcpListener) {
        end(address, socket);
        self.send(KeeperUpdate::Closed(address));
    }

    fn send(&self, update: KeeperUpdate) {
        // The receiver outlives this sender.
        let _ = self.link.send(update);
    }
}

/// Shuts a socket down. Closing it would not be enough: the keeper has a copy.
fn end(address: SocketAddr, socket: &TcpListener) {
    if let Err(error) = shutdown(socket, Shutdown::Both) {
        tracing::warn!(%address, %error, "cannot stop listening");
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.ip() == IpAddr::from([0_u16; 8]) {
        socket.set_only_v6(false)?;
    }
    // Without this, closed connections in TIME_WAIT would prevent listening on the port again.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    prepare(&SockRef::from(&socket));
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Sets what connections inherit, which costs five system calls for each of them otherwise: small writes leave at once, and
/// a caller that is silent is asked whether it is still there.
fn prepare(socket: &SockRef<'_>) {
    let alive = TcpKeepalive::new().with_time(SILENT).with_interval(PROBE).with_retries(PROBES);
    // It fails for no listening socket of TCP; without it callers would be served all the same.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&alive);
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn connections_inherit_what_the_listening_socket_has() {
        let listening = Sockets::alone().listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("listening");
        let address = listening.socket.local_addr().expect("bound");
        let _caller = TcpStream::connect(address).expect("connected");
        listening.socket.set_nonblocking(false).expect("set");
        let (accepted, _) = listening.socket.accept().expect("accepted");
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().expect("read") && accepted.keepalive().expect("read"));
        assert_eq!(accepted.tcp_keepalive_time().expect("read"), SILENT);
        assert_eq!(accepted.tcp_keepalive_interval().expect("read"), PROBE);
        assert_eq!(accepted.tcp_keepalive_retries().expect("read"), PROBES);
    }
}
