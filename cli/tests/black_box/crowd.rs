//! Every pod can reach the admin port of every role. Whatever it does there, probes and metrics are answered.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::support::{Dev, PATIENCE, http::get};
use socket2::{Domain, Socket, Type};

/// What a peer does with its connections.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Says nothing.
    Silent,
    /// Sends a head that never ends, byte by byte.
    Slow,
    /// Says nothing, and that nothing is to come.
    HalfClosed,
    /// Asks for the metrics again and again, and reads nothing.
    Deaf,
}

/// Peers that hold connections, and open another one for each that is closed.
struct Crowd {
    ending: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// `each` connections from each of these loopback addresses (the last byte).
    fn gather(at: SocketAddr, each: usize, peers: &[(u8, Manner)]) -> Self {
        let (ending, opened) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let threads = peers.iter().map(|&(last, manner)| {
            let (ending, opened) = (ending.clone(), opened.clone());
            std::thread::spawn(move || {
                let mut open: Vec<TcpStream> = Vec::new();
                while !ending.load(Relaxed) {
                    open.retain_mut(|stream| goes_on(stream, manner));
                    while open.len() < each && !ending.load(Relaxed) {
                        open.push(connect(Ipv4Addr::new(127, 0, 1, last), at, manner));
                        opened.fetch_add(1, Relaxed);
                    }
                    std::thread::park_timeout(Duration::from_millis(50));
                }
            })
        });
        let threads = threads.collect();
        let crowd = Self { ending, opened, threads };
        crate::support::await_condition("the crowd is there", || {
            (crowd.opened.load(Relaxed) >= each * peers.len()).then_some(())
        });
        crowd
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.ending.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn connect(from: Ipv4Addr, at: SocketAddr, manner: Manner) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect_timeout(&at.into(), PATIENCE).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut stream = TcpStream::from(socket);
    // The peer may have closed it already.
    let _ = match manner {
        Manner::Silent => Ok(()),
        Manner::Slow => stream.write_all(b"GET /livez HTTP/1.1\r\nx: "),
        Manner::HalfClosed => stream.shutdown(Shutdown::Write),
        Manner::Deaf => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    };
    stream
}

/// Whether the connection is still open; it does what it does with it.
fn goes_on(stream: &mut TcpStream, manner: Manner) -> bool {
    if matches!(manner, Manner::Slow) && stream.write_all(b"x").is_err() {
        return false;
    }
    if matches!(manner, Manner::Deaf) {
        return stream.take_error().is_ok_and(|error| error.is_none());
    }
    match stream.read(&mut [0; 64]) {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

#[test]
fn probes_are_answered_whatever_else_is_connected() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path());
    let peers = [
        (1, Manner::Silent),
        (2, Manner::Silent),
        (3, Manner::Slow),
        (4, Manner::Slow),
        (5, Manner::HalfClosed),
        (6, Manner::Deaf),
        (7, Manner::Silent),
    ];
    let crowd = Crowd::gather(dev.admin(), 80, &peers);
    for round in 0..10 {
        for path in ["/livez", "/readyz", "/metrics"] {
            let answer = get(dev.admin(), "localhost", path);
            let answer = answer.unwrap_or_else(|error| panic!("{path}, round {round}: {error}"));
            assert_eq!(answer.status, 200, "{path}, round {round}");
        }
    }
    drop(crowd);
}

#[test]
fn a_request_is_answered_although_its_peer_sends_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path());
    let back = String::from_utf8(crate::support::echo(dev.admin(), b"GET /livez HTTP/1.0\r\n\r\n")).unwrap();
    assert!(back.contains(" 200 OK") && back.ends_with("ok\n"), "{back}");
}
