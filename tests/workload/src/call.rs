//! One exchange as a client, in each protocol. The address is given: who resolves decides how.

pub(crate) mod http;
pub(crate) mod stream;
pub(crate) mod websocket;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::resolve::LookupError;
use crate::seen::Seen;

/// For a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Why an exchange failed. Its text is short and the same every time, so that failures can be summed by it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("dns: {0}")]
    Lookup(#[from] LookupError),
    #[error("connect: {0}")]
    Connect(ErrorKind),
    #[error("connection: {0}")]
    Stream(ErrorKind),
    #[error("status {0}{1}")]
    Status(u16, String),
    #[error("http: {0}")]
    Http(String),
    #[error("websocket: {0}")]
    WebSocket(String),
    #[error("answer: {0}")]
    Answer(&'static str),
    #[error("the connection ended before the request was sent: {0}")]
    Unsent(String),
    #[error("timeout")]
    Slow,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Stream(error.kind())
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        use std::error::Error;
        // The innermost cause says what happened; hyper's own words only where.
        let mut cause: &dyn Error = &error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        match cause.downcast_ref::<io::Error>() {
            Some(io) => Self::Stream(io.kind()),
            None => Self::Http(cause.to_string()),
        }
    }
}

/// Opens a connection.
pub(crate) async fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    let stream = match timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(connected) => connected.map_err(|error| Failure::Connect(error.kind()))?,
        Err(_) => return Err(Failure::Connect(ErrorKind::TimedOut)),
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Who answered, from the JSON at the start of `text`.
pub(crate) fn who(text: &[u8]) -> Result<Seen, Failure> {
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    serde_json::from_slice(line).map_err(|_| Failure::Answer("not what the echo server says"))
}
