//! A pod that behaves as a page needs it.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rustls::{ServerConnection, StreamOwned};

use crate::support::{backend::field, tls::Authority};

/// What a pod does with a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// 200 with its name.
    Answer,
    /// This status with its name.
    Fail(u16),
    /// The same as [`Act::Answer`], after two seconds.
    Slow,
    /// Nothing, until the connection ends.
    Silent,
    /// 200 with what it was told in this field.
    Tell(&'static str),
    /// The same as [`Act::Answer`], over TLS, with a certificate of [`AUTHORITY`] for this name. The only act of its pod.
    Secure(&'static str),
    /// The same, where the Service does not say whom to trust, so that nothing is asked of it.
    Unverified(&'static str),
}

/// Signs the certificates of pods.
pub(super) static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);

/// An HTTP/1.1 server in threads of this process; its listener closes when it is dropped.
pub(super) struct Pod {
    pub(super) address: SocketAddr,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pod {
    /// Does the acts one after the other, by the number of requests that came to all pods with the same counter.
    pub(super) fn start(name: String, acts: &'static [Act], before: &Arc<AtomicUsize>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let address = listener.local_addr().expect("address");
        let stopped = Arc::<AtomicBool>::default();
        let (kept, before) = (stopped.clone(), before.clone());
        let secure = acts.iter().find_map(|act| match act {
            Act::Secure(name) | Act::Unverified(name) => Some(AUTHORITY.serving(name, 2099)),
            _ => None,
        });
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if kept.load(Ordering::Acquire) {
                    return;
                }
                let (name, before) = (name.clone(), before.clone());
                let secure = secure.clone();
                std::thread::spawn(move || match secure {
                    Some(config) => {
                        let session = ServerConnection::new(config).expect("a session");
                        serve(&name, acts, &before, StreamOwned::new(session, stream));
                    }
                    None => serve(&name, acts, &before, stream),
                });
            }
        });
        Self { address, stopped, thread: Some(thread) }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        // Wakes the accept loop; its listener closes as it returns.
        drop(TcpStream::connect_timeout(&self.address, Duration::from_secs(1)));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("accept loop");
        }
    }
}

/// Serves a connection to its end.
fn serve(name: &str, acts: &[Act], before: &AtomicUsize, stream: impl Read + Write) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(reader.read_line(&mut head), Ok(1..)) {
                return;
            }
        }
        let length = field(&head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        if reader.read_exact(&mut vec![0; length]).is_err() {
            return;
        }
        let (status, body) = match acts[before.fetch_add(1, Ordering::Relaxed) % acts.len()] {
            Act::Answer | Act::Secure(_) | Act::Unverified(_) => ("200 OK".to_owned(), name.to_owned()),
            Act::Fail(status) => (format!("{status} Failed"), name.to_owned()),
            Act::Slow => {
                #[allow(clippy::disallowed_methods, reason = "a slow endpoint is what the page is about")]
                std::thread::sleep(Duration::from_secs(2));
                ("200 OK".to_owned(), name.to_owned())
            }
            Act::Silent => {
                let _ = reader.read_to_end(&mut Vec::new());
                return;
            }
            Act::Tell(what) => {
                ("200 OK".to_owned(), format!("{what}: {}", field(&head, what).unwrap_or_else(|| "none".to_owned())))
            }
        };
        let response = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}\n", body.len() + 1);
        if reader.get_mut().write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}
