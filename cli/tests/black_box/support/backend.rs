//! An HTTP or TCP backend in threads of this process, which can be stopped as hard as a node that loses its power:
//! its listener closes and every connection is reset.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

type Handler = fn(&str, TcpStream, &Shared);

pub struct Backend {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the backend's threads share.
#[derive(Default)]
struct Shared {
    arrived: AtomicUsize,
    answered: AtomicUsize,
    /// Answers wait while it is shut.
    gate: AtomicBool,
    stopped: AtomicBool,
    /// Connections that are served, by number.
    open: Mutex<HashMap<usize, TcpStream>>,
}

impl Backend {
    /// Answers every HTTP/1.1 request with its name and what it was sent; those to `.../status/503` with that status.
    pub fn http(name: &str) -> Self {
        Self::http_at(name, "127.0.0.1")
    }

    /// The same at this address.
    pub fn http_at(name: &str, address: &str) -> Self {
        Self::start(name, address, serve_http)
    }

    /// The same, but each answer waits for [`Self::release`].
    pub fn http_slow(name: &str) -> Self {
        let backend = Self::http(name);
        backend.shared.gate.store(true, Ordering::Release);
        backend
    }

    /// Lets the answers of a slow backend go.
    pub fn release(&self) {
        self.shared.gate.store(false, Ordering::Release);
    }

    /// Sends back what it gets, to the end.
    pub fn echo() -> Self {
        Self::echo_at("127.0.0.1")
    }

    /// The same at this address.
    pub fn echo_at(address: &str) -> Self {
        Self::start("echo", address, |_, mut stream, shared| {
            shared.answered.fetch_add(1, Ordering::Relaxed);
            let mut buffer = [0; 16 * 1024];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
            // Another handle of the stream is kept to reset it by, so its end has to be said.
            let _ = stream.shutdown(std::net::Shutdown::Write);
        })
    }

    fn start(name: &str, address: &str, handler: Handler) -> Self {
        let address: IpAddr = address.parse().expect("an address");
        let listener = TcpListener::bind((address, 0)).expect("bind");
        let address = listener.local_addr().expect("address");
        let shared = Arc::<Shared>::default();
        let (name, kept) = (name.to_owned(), shared.clone());
        let thread = std::thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                if kept.stopped.load(Ordering::Acquire) {
                    return;
                }
                stream.set_nodelay(true).expect("nodelay");
                kept.open.lock().expect("open").insert(number, stream.try_clone().expect("clone"));
                let (name, shared) = (name.clone(), kept.clone());
                std::thread::spawn(move || {
                    handler(&name, stream, &shared);
                    shared.open.lock().expect("open").remove(&number);
                });
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// Requests or connections it answered.
    pub fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Requests that came.
    pub fn arrived(&self) -> usize {
        self.shared.arrived.load(Ordering::Relaxed)
    }

    /// Ends every connection in order, as a server does with one that was idle for long; the listener goes on.
    pub fn close_connections(&self) {
        for (_, stream) in self.shared.open.lock().expect("open").drain() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Closes the listener and resets every connection; returns once that is done.
    pub fn stop_hard(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.stopped.store(true, Ordering::Release);
        // Wakes the accept loop; its listener closes as it returns.
        drop(TcpStream::connect_timeout(&self.address, Duration::from_secs(1)));
        thread.join().expect("accept loop");
        for (_, stream) in self.shared.open.lock().expect("open").drain() {
            let socket = socket2::SockRef::from(&stream);
            let _ = socket.set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop_hard();
    }
}

/// `NAME METHOD TARGET`, then the request's fields, one a line.
fn serve_http(name: &str, stream: TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(stream.try_clone().expect("clone"));
    let mut writer = stream;
    loop {
        let mut head = String::new();
        loop {
            match reader.read_line(&mut head) {
                Ok(0) | Err(_) => return,
                Ok(_) if head.ends_with("\r\n\r\n") => break,
                Ok(_) => {}
            }
        }
        let length = field(&head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        shared.arrived.fetch_add(1, Ordering::Relaxed);
        while shared.gate.load(Ordering::Acquire) && !shared.stopped.load(Ordering::Acquire) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        shared.answered.fetch_add(1, Ordering::Relaxed);
        let request_line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1");
        let fields: String =
            head.lines().skip(1).filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
        let answer = format!("{name} {request_line}\n{fields}");
        let head_only = request_line.starts_with("HEAD ");
        let body = if head_only { "" } else { &answer };
        let asked = request_line.rsplit_once("/status/").map(|(_, status)| format!("{status} Asked"));
        let status = asked.as_deref().unwrap_or("200 OK");
        let response = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", answer.len());
        if writer.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

/// The value of a field in a head, by its name in lower case.
pub fn field(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}
