//! Listeners: ports that open and close as the configuration changes, and the tasks that accept connections on them.
//!
//! A listener is acknowledged once its sockets are bound, and none is touched by a change of another. A connection is
//! accepted on one worker and handed to the one that has the fewest: one socket, one descriptor, for a port, however many
//! workers there are, and for both families where that can be.

mod accept;
mod datagrams;
mod socket;

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, atomic::AtomicUsize},
    time::Instant,
};

use arc_swap::ArcSwap;
use maesh_config::model::{Bind, Listener, Transport};
use tokio::sync::oneshot;

use self::accept::ListeningSocket;
use crate::{
    sockets::{Listen, Sockets},
    state::{Facts, Listening, NotOpened, Ports, Shared},
    udp,
    worker::Workers,
};

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// The system refused the address or port.
    #[error("cannot listen on {address}: {source}. {advice}")]
    Bind { address: SocketAddr, source: io::Error, advice: &'static str },
    /// There is no address to listen on.
    #[error("port {0}: this proxy has no shared address; start it with at least one")]
    NoAddress(u16),
    /// The proxy has as many listeners as the limit of open files leaves room for.
    #[error(
        "this proxy has {most} listeners already, the most for its limit of {open_files} open files. Raise that limit \
         (`ulimit -n`), or mesh fewer ports"
    )]
    TooMany { most: usize, open_files: usize },
}

impl ListenError {
    /// Whether what stands in the way may pass while the configuration stays as it is.
    fn may_pass(&self) -> bool {
        match self {
            Self::Bind { .. } | Self::TooMany { .. } => true,
            Self::NoAddress(_) => false,
        }
    }

    fn bind(address: SocketAddr, source: io::Error) -> Self {
        let advice = match source.kind() {
            io::ErrorKind::AddrInUse => {
                "Another process has this port; it is tried again until it is free. Stop that process, or let the \
                 Service use another port"
            }
            io::ErrorKind::PermissionDenied => {
                "Ports below net.ipv4.ip_unprivileged_port_start need that sysctl lowered, or CAP_NET_BIND_SERVICE"
            }
            io::ErrorKind::AddrNotAvailable => "The address is not on this machine; check the proxy's addresses",
            _ => "Check the limit of open files and the addresses of this machine",
        };
        Self::Bind { address, source, advice }
    }
}

/// The addresses that a socket serves; empty if it is bound to exactly these.
type Only = Arc<[IpAddr]>;

/// An open listener, as the status page shows it.
pub(crate) struct Opened {
    /// Its identity.
    pub(crate) id: Arc<str>,
    /// The addresses it is bound to.
    pub(crate) addresses: Vec<SocketAddr>,
    /// What it serves.
    pub(crate) listening: Arc<Listening>,
}

/// Where a listener is, which no other one is.
type Place = (Bind, u16, Transport);

struct OpenListener {
    listening: Arc<Listening>,
    at: Place,
    /// What the sockets are bound to.
    bound: Vec<SocketAddr>,
    /// The addresses that are served.
    addresses: Vec<SocketAddr>,
    /// Tasks that accept, which end when these are dropped; see [`OpenListener::end`].
    accepting: Vec<oneshot::Sender<()>>,
    /// Sockets of the previous process. Connections wait in them, and are accepted once the configuration is complete.
    waiting: Vec<ListeningSocket>,
}

impl OpenListener {
    /// A listener with sockets that are `bound`, and serve only some addresses of these if `only` is not empty.
    fn new(listener: &Listener, at: Place, bound: Vec<SocketAddr>, only: &Only) -> Self {
        let served = |ip: &IpAddr| SocketAddr::new(*ip, bound[0].port());
        let addresses = if only.is_empty() { bound.clone() } else { only.iter().map(served).collect() };
        let listening = Arc::new(Listening { facts: ArcSwap::from_pointee(Facts::from(listener)) });
        Self { listening, at, bound, addresses, accepting: Vec::new(), waiting: Vec::new() }
    }

    /// Takes no new connections and flows. Flows that are open end when they are silent.
    fn end(self) {
        for task in self.accepting {
            // One that carries streams only sees that this is gone; so does one that has ended.
            let _ = task.send(());
        }
    }
}

/// All open listeners.
pub(crate) struct Listeners {
    shared: Arc<Shared>,
    workers: Workers,
    sockets: Sockets,
    /// All names and listeners have arrived.
    complete: bool,
    /// The process is ending: nothing is opened any more.
    closed: bool,
    open: HashMap<Arc<str>, OpenListener>,
    /// The open listener of each address and port.
    at: HashMap<Place, Arc<str>>,
    /// Listeners that are no longer configured, and until when they still accept.
    lingering: HashMap<Arc<str>, (OpenListener, Instant)>,
    next: AtomicUsize,
    /// The addresses that are listened on.
    listening: HashSet<(SocketAddr, Transport)>,
    /// A listener was opened or closed since the last look.
    changed: bool,
}

impl Listeners {
    /// No listeners, whose sockets will come from `sockets` and whose connections will be carried by `workers`.
    pub(crate) fn new(shared: Arc<Shared>, workers: Workers, sockets: Sockets) -> Self {
        Self {
            listening: HashSet::new(),
            changed: false,
            shared,
            workers,
            sockets,
            complete: false,
            closed: false,
            open: HashMap::new(),
            at: HashMap::new(),
            lingering: HashMap::new(),
            next: AtomicUsize::new(0),
        }
    }

    fn open_one(&mut self, listener: &Listener) -> Result<(), ListenError> {
        if self.closed {
            return Ok(());
        }
        if let Some(open) = self.open.get(&listener.id.0) {
            open.listening.facts.store(Arc::new(Facts::from(listener)));
            return Ok(());
        }
        let at = (listener.bind, listener.port, listener.transport);
        // It still accepts after it was removed; or another owner has its port, who is gone or is about to be.
        let lingering = self.lingering.remove(&listener.id.0).map(|(open, _)| open);
        if let Some(open) = lingering.or_else(|| self.open.remove(self.at.get(&at)?)) {
            open.listening.facts.store(Arc::new(Facts::from(listener)));
            self.insert(&listener.id.0, open);
            return Ok(());
        }
        let addresses = match listener.bind {
            Bind::Shared => self.shared.config.shared.clone(),
            Bind::Address(address) => vec![address],
        };
        if addresses.is_empty() {
            return Err(ListenError::NoAddress(listener.port));
        }
        let open = match listener.transport {
            Transport::Tcp => self.open_stream(listener, at, &addresses),
            Transport::Udp => self.open_datagrams(listener, at, &addresses),
        };
        self.insert(&listener.id.0, open?);
        Ok(())
    }

    fn open_stream(
        &mut self,
        listener: &Listener,
        at: Place,
        addresses: &[IpAddr],
    ) -> Result<OpenListener, ListenError> {
        let (sockets, only) = self.listen(addresses, listener.port)?;
        if let Err(error) = self.admit(sockets.len()) {
            sockets.iter().for_each(|(bound, _)| self.sockets.close(*bound));
            return Err(error);
        }
        let bound = sockets.iter().map(|(bound, _)| *bound).collect();
        let mut open = OpenListener::new(listener, at, bound, &only);
        for (_, Listen { socket, adopted }) in sockets {
            let socket = ListeningSocket { socket, only: only.clone() };
            if adopted && !self.complete {
                open.waiting.push(socket);
            } else {
                self.accept(&mut open, socket);
            }
        }
        Ok(open)
    }

    fn open_datagrams(
        &self,
        listener: &Listener,
        at: Place,
        addresses: &[IpAddr],
    ) -> Result<OpenListener, ListenError> {
        let (sockets, only) = datagrams::bind(addresses, listener.port)?;
        self.admit(sockets.len())?;
        let bound = sockets.iter().map(|(bound, _)| *bound).collect();
        let mut open = OpenListener::new(listener, at, bound, &only);
        for (_, socket) in sockets {
            let socket = udp::DatagramSocket { socket, only: only.clone() };
            open.accepting.push(udp::start(&self.workers, self.next_worker(), socket, open.listening.clone()));
        }
        Ok(open)
    }

    /// Counts so many sockets more.
    fn admit(&self, sockets: usize) -> Result<(), ListenError> {
        let admission = &self.shared.admission;
        let open_files = admission.budget().open_files;
        admission.listeners(sockets).map_err(|most| ListenError::TooMany { most, open_files })
    }

    fn next_worker(&self) -> usize {
        self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }

    /// Sockets on all of these addresses, or on none: one for both families where that can be, which then serves only
    /// what is returned with it.
    fn listen(&mut self, addresses: &[IpAddr], port: u16) -> Result<(Vec<(SocketAddr, Listen)>, Only), ListenError> {
        let specific = addresses.iter().all(|ip| !ip.is_unspecified());
        if specific && addresses.iter().any(IpAddr::is_ipv4) && addresses.iter().any(IpAddr::is_ipv6) {
            let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
            // Not where somebody else has the port on another address, or where there is no IPv6.
            if let Ok(listening) = self.sockets.listen(any)
                && let Ok(bound) = listening.socket.local_addr()
            {
                return Ok((vec![(bound, listening)], addresses.iter().map(IpAddr::to_canonical).collect()));
            }
        }
        self.listen_each(addresses, port).map(|sockets| (sockets, Only::default()))
    }

    fn listen_each(&mut self, addresses: &[IpAddr], port: u16) -> Result<Vec<(SocketAddr, Listen)>, ListenError> {
        let mut listening = Vec::with_capacity(addresses.len());
        for address in addresses {
            match bind(&mut self.sockets, SocketAddr::new(*address, port)) {
                Ok(socket) => listening.push(socket),
                Err(error) => {
                    listening.iter().for_each(|(bound, _)| self.sockets.close(*bound));
                    return Err(error);
                }
            }
        }
        Ok(listening)
    }

    fn accept(&self, open: &mut OpenListener, socket: ListeningSocket) {
        open.accepting.push(accept::start(&self.workers, self.next_worker(), socket, open.listening.clone()));
    }

    /// The configuration is complete: accepts the connections that wait in sockets of the previous process.
    pub(crate) fn completed(&mut self) {
        if std::mem::replace(&mut self.complete, true) {
            return;
        }
        let (mut all, mut lingering) = (std::mem::take(&mut self.open), std::mem::take(&mut self.lingering));
        for open in all.values_mut().chain(lingering.values_mut().map(|(open, _)| open)) {
            for socket in std::mem::take(&mut open.waiting) {
                self.accept(open, socket);
            }
        }
        (self.open, self.lingering) = (all, lingering);
    }

    fn insert(&mut self, id: &Arc<str>, open: OpenListener) {
        let (_, _, transport) = open.at;
        for address in &open.addresses {
            self.changed |= self.listening.insert((*address, transport));
        }
        self.at.insert(open.at, id.clone());
        self.open.insert(id.clone(), open);
        self.count();
    }

    /// Closes removed listeners whose time is over. Connections that wait for a complete configuration are accepted after
    /// a while even if it is not.
    pub(crate) fn expire(&mut self, now: Instant) {
        let over: Vec<_> = self.lingering.extract_if(|_, (_, until)| *until <= now).collect();
        over.into_iter().for_each(|(_, (open, _))| self.shut(open));
        if self.sockets.overdue(now) {
            self.completed();
        }
    }

    /// The open ones by id, with the addresses that are bound.
    pub(crate) fn opened(&self) -> Vec<Opened> {
        let opened = |(id, open): (&Arc<str>, &OpenListener)| Opened {
            id: id.clone(),
            addresses: open.addresses.clone(),
            listening: open.listening.clone(),
        };
        let mut all: Vec<_> = self.open.iter().map(opened).collect();
        all.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Stops accepting everywhere. The socket keeper keeps its copies for the next process.
    pub(crate) fn close_all(&mut self) {
        self.closed = true;
        self.sockets.leave();
        let open = self.open.values().chain(self.lingering.values().map(|(open, _)| open));
        self.shared.admission.listeners_closed(open.map(|open| open.bound.len()).sum());
        let open = self.open.drain().map(|(_, open)| open);
        open.chain(self.lingering.drain().map(|(_, (open, _))| open)).for_each(OpenListener::end);
        self.at.clear();
        self.count();
    }

    /// Stops accepting for good.
    fn shut(&mut self, open: OpenListener) {
        let (bound, addresses, (_, _, transport)) = (open.bound.clone(), open.addresses.clone(), open.at);
        // Ends its tasks first, so that they do not report that their sockets were closed.
        drop(open);
        self.shared.admission.listeners_closed(bound.len());
        if transport == Transport::Tcp {
            bound.into_iter().for_each(|bound| self.sockets.close(bound));
        }
        self.listening.retain(|(address, of)| *of != transport || !addresses.contains(address));
        self.changed = true;
    }

    fn count(&self) {
        #[allow(clippy::cast_possible_wrap)]
        self.shared.telemetry.listeners.set(self.open.len() as i64);
    }
}

impl Ports for Listeners {
    fn open(&mut self, listener: &Listener) -> Result<(), NotOpened> {
        self.open_one(listener).map_err(|error| NotOpened { message: error.to_string(), try_again: error.may_pass() })
    }

    /// Stops accepting on a listener; where names may be cached, after it lingered. Its connections live on.
    fn close(&mut self, id: &str) {
        let Some((id, open)) = self.open.remove_entry(id) else { return };
        self.at.remove(&open.at);
        let linger = self.shared.config.linger;
        if linger.is_zero() {
            self.shut(open);
        } else {
            self.lingering.insert(id, (open, Instant::now() + linger));
        }
        self.count();
    }

    fn take_changed(&mut self) -> Option<HashSet<SocketAddr>> {
        std::mem::take(&mut self.changed).then(|| self.listening.iter().map(|(address, _)| *address).collect())
    }
}

/// A listening socket on `address`, and what it is bound to. On `::` it takes both families; where the system has no
/// IPv6, `0.0.0.0` is used.
fn bind(sockets: &mut Sockets, address: SocketAddr) -> Result<(SocketAddr, Listen), ListenError> {
    let listening = match sockets.listen(address) {
        Ok(listening) => Ok((address, listening)),
        Err(error)
            if address.ip() == IpAddr::from([0_u16; 8])
                && matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) =>
        {
            let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            sockets.listen(v4).map(|listening| (v4, listening)).map_err(|error| ListenError::bind(v4, error))
        }
        Err(error) => Err(ListenError::bind(address, error)),
    }?;
    let (asked, listening) = listening;
    let bound = listening.socket.local_addr().map_err(|error| ListenError::bind(asked, error))?;
    Ok((bound, listening))
}
