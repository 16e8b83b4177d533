//! Datagrams: threads that block on one socket.
//!
//! Behind CoreDNS queries arrive singly, and a thread that sleeps in the kernel is woken with one switch and no event
//! loop between; under load a thread takes what has gathered with one system call and answers it with another. All
//! threads share the socket, so few flows cannot leave some of them idle.

mod batch;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use arc_swap::ArcSwap;
use batch::Batch;
pub(crate) use batch::request_destination;
use socket2::Socket;

use crate::{
    answer::{Action, Transport, answer},
    metrics::{Counters, Metrics},
    rotation::Rotation,
    snapshot::Snapshot,
};

/// How long to wait after an error that may come again at once.
const PAUSE: Duration = Duration::from_millis(10);

/// The threads that answer on one socket.
#[derive(Debug)]
pub(crate) struct UdpServer {
    socket: Arc<Socket>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl UdpServer {
    /// Starts `threads` threads that answer what arrives at `socket`, which is bound to `address`.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub(crate) fn start(
        socket: Socket,
        address: SocketAddr,
        threads: usize,
        snapshot: &Arc<ArcSwap<Snapshot>>,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let mut server = Self { socket: Arc::new(socket), stopping: Arc::default(), threads: Vec::new() };
        for number in 0..threads.max(1) {
            let worker = Worker {
                socket: server.socket.clone(),
                stopping: server.stopping.clone(),
                snapshot: snapshot.clone(),
                counters: metrics.writer(),
                wildcard: address.ip().is_unspecified(),
            };
            let thread = thread::Builder::new().name(format!("dns-udp-{number}")).spawn(move || worker.run())?;
            server.threads.push(thread);
        }
        Ok(server)
    }

    /// Ends the threads, after they have answered what had arrived.
    pub(crate) fn stop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // Wakes every thread that waits in the kernel. The error says that a datagram socket has no peer.
        let _ = self.socket.shutdown(std::net::Shutdown::Read);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One thread.
struct Worker {
    socket: Arc<Socket>,
    stopping: Arc<AtomicBool>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    counters: Arc<Counters>,
    wildcard: bool,
}

impl Worker {
    fn run(self) {
        let mut batch = Batch::new(self.wildcard);
        let mut rotation = Rotation::new(0);
        loop {
            let received = match batch.receive(&self.socket) {
                Ok(received) => received,
                // A signal, or news that the caller of an earlier answer is gone.
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused) => {
                    continue;
                }
                Err(error) => {
                    tracing::debug!(%error, "receiving a query");
                    // An error that stays must not become a busy loop.
                    thread::park_timeout(PAUSE);
                    0
                }
            };
            let snapshot = self.snapshot.load();
            for at in 0..received {
                batch.answer(at, |query, source, out| {
                    let action = answer(query, source, &snapshot, Transport::Udp, rotation.next(), out);
                    self.counters.count(Transport::Udp, action);
                    matches!(action, Action::Reply(_))
                });
            }
            batch.send(&self.socket);
            if self.stopping.load(Ordering::Acquire) && batch.last_was_nothing() {
                return;
            }
        }
    }
}
