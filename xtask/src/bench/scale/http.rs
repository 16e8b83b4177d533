//! Plain HTTP/1.1 over blocking sockets: a client, and a backend that answers the address it was reached at.

use std::{
    fmt,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::cluster::TARGET_PORT;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Stack of a thread that serves one connection: thousands of them are open at once.
const STACK: usize = 64 * 1024;

/// One answer.
pub(in crate::bench) struct Answer {
    pub(in crate::bench) status: u16,
    pub(in crate::bench) body: String,
}

impl Answer {
    pub(in crate::bench) fn is_ok(&self) -> bool {
        self.status == 200
    }

    /// Whether one of these addresses gave it.
    pub(in crate::bench) fn is_ok_from(&self, addresses: &[Ipv4Addr]) -> bool {
        self.is_ok() && self.body.parse().is_ok_and(|by: Ipv4Addr| addresses.contains(&by))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.body.trim())
    }
}

/// A connection that is kept.
pub(in crate::bench) struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub(in crate::bench) fn connect(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connecting to {to}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self::over(stream))
    }

    /// The same on a connection that is there already.
    pub(in crate::bench) fn over(stream: TcpStream) -> Self {
        Self { reader: BufReader::new(stream) }
    }

    /// The connection, whose last answer was read to its end.
    pub(in crate::bench) fn into_stream(self) -> Result<TcpStream> {
        if !self.reader.buffer().is_empty() {
            bail!("more came than was asked for");
        }
        Ok(self.reader.into_inner())
    }

    /// `GET /` with this `Host`.
    pub(in crate::bench) fn get(&mut self, host: &str) -> Result<Answer> {
        self.get_path(host, "/")
    }

    /// `GET` of a path with this `Host`.
    pub(in crate::bench) fn get_path(&mut self, host: &str, path: &str) -> Result<Answer> {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).with_context(|| format!("GET {host}{path}"))
    }

    /// Sends a whole request and reads its answer.
    pub(in crate::bench) fn send(&mut self, request: &str) -> Result<Answer> {
        self.reader.get_mut().write_all(request.as_bytes())?;
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.with_context(|| format!("no status in {first:?}"))?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().with_context(|| format!("{line:?}"))?;
            }
            chunked |= line.starts_with("transfer-encoding:") && line.contains("chunked");
        }
        let body = if chunked { self.chunks()? } else { self.exactly(length)? };
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// A line without its end.
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("the connection was closed");
        }
        Ok(line.trim_end().to_owned())
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        Ok(body)
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let length = usize::from_str_radix(line.trim(), 16).with_context(|| format!("chunk size {line:?}"))?;
            body.extend(self.exactly(length)?);
            self.line()?;
            if length == 0 {
                return Ok(body);
            }
        }
    }
}

/// Listens on the target port of every address of the namespace. It ends with the bench.
pub(in crate::bench) struct Backend {
    answered: Arc<AtomicUsize>,
}

impl Backend {
    pub(in crate::bench) fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, TARGET_PORT)).context("the backends' listener")?;
        let answered = Arc::<AtomicUsize>::default();
        let count = answered.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let count = count.clone();
                let serving = move || {
                    // An end of the connection is the end of its thread.
                    let _ = serve(stream, &count);
                };
                if std::thread::Builder::new().stack_size(STACK).spawn(serving).is_err() {
                    eprintln!("the backend has no thread for another connection");
                }
            }
        });
        Ok(Self { answered })
    }

    /// Requests answered so far.
    pub(in crate::bench) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }
}

fn serve(mut stream: TcpStream, count: &AtomicUsize) -> Result<()> {
    stream.set_nodelay(true)?;
    let name = stream.local_addr()?.ip().to_string();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
    let (mut buffer, mut length) = ([0; 4096], 0);
    while let Some(free) = buffer.get_mut(length..).filter(|free| !free.is_empty()) {
        let read = stream.read(free)?;
        if read == 0 {
            break;
        }
        length += read;
        // Requests without a body, one at a time.
        if buffer.get(..length).is_some_and(|head| head.ends_with(b"\r\n\r\n")) {
            count.fetch_add(1, Ordering::Relaxed);
            stream.write_all(answer.as_bytes())?;
            length = 0;
        }
    }
    Ok(())
}
