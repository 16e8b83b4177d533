//! An endpoint that says what it was sent.

use std::io::{BufRead, BufReader, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, bail};

use super::{PATIENCE, Sent, caller};

/// The path of a request that only says that all before it has arrived.
const LAST: &str = "/last";

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A whole request: its first line.
    Request(String),
    /// What is none, strictly read.
    Malformed(String),
}

pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    seen: Receiver<Seen>,
}

impl Endpoint {
    /// Starts one. Its threads end with this process.
    pub(super) fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("an endpoint")?;
        let address = listener.local_addr()?;
        let (sender, seen) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(std::result::Result::ok) {
                let sender = sender.clone();
                // An error is the end of the connection.
                std::thread::spawn(move || serve(stream, &sender));
            }
        });
        Ok(Self { address, seen })
    }

    /// What came since this was last asked. `mesh` is where callers reach the endpoint.
    pub(super) fn requests(&self, mesh: SocketAddr) -> anyhow::Result<Vec<Seen>> {
        let last = format!("GET {LAST} HTTP/1.1\r\nHost: {}\r\n\r\n", mesh.ip());
        let answer = caller::ask(mesh, &Sent::Http1(last.into_bytes()))?;
        if answer != "200" {
            bail!("a request as it should be was answered with {answer}");
        }
        let mut all = Vec::new();
        loop {
            match self.seen.recv_timeout(PATIENCE).context("the endpoint's last request")? {
                Seen::Request(line) if line.contains(LAST) => return Ok(all),
                seen => all.push(seen),
            }
        }
    }
}

fn serve(mut stream: TcpStream, seen: &Sender<Seen>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while !reader.fill_buf()?.is_empty() {
        let request = read(&mut reader);
        let is_malformed = matches!(&request, Err(error) if error.kind() == ErrorKind::InvalidData);
        let what = match request {
            Ok(line) => Seen::Request(line),
            Err(error) if is_malformed => Seen::Malformed(error.to_string()),
            // Cut off: the proxy has found in its middle that it is malformed.
            Err(error) => return Err(error),
        };
        // Nobody may be listening any more.
        let _ = seen.send(what);
        if is_malformed {
            return Ok(());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    }
    Ok(())
}

/// Reads one request; returns its first line. The kind of an error is `InvalidData` where it is not what it should be.
fn read(reader: &mut impl BufRead) -> Result<String> {
    let first = line(reader)?;
    let parts: Vec<&str> = first.split(' ').collect();
    if !matches!(parts[..], [_, target, "HTTP/1.1"] if target.starts_with('/') || target == "*") {
        return malformed(&first);
    }
    let (mut length, mut is_chunked) = (None, false);
    loop {
        let field = line(reader)?;
        if field.is_empty() {
            break;
        }
        let Some((name, value)) = field.split_once(':') else { return malformed(&field) };
        match (name, value.trim()) {
            ("content-length", value) if length.is_none() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                length = value.parse().ok();
            }
            ("transfer-encoding", "chunked") if !is_chunked => is_chunked = true,
            ("content-length" | "transfer-encoding", _) => return malformed(&field),
            _ if name.is_empty() || name.contains([' ', '\t']) => return malformed(&field),
            _ => {}
        }
    }
    match (length, is_chunked) {
        (Some(_), true) => return malformed("a request with two lengths"),
        (Some(length), false) => skip(reader, length)?,
        (None, true) => chunks(reader)?,
        (None, false) => {}
    }
    Ok(first)
}

fn chunks(reader: &mut impl BufRead) -> Result<()> {
    loop {
        let size = line(reader)?;
        let Ok(bytes) = u64::from_str_radix(&size, 16) else { return malformed(&size) };
        if bytes == 0 {
            break;
        }
        skip(reader, bytes)?;
        let end = line(reader)?;
        if !end.is_empty() {
            return malformed(&end);
        }
    }
    // Trailers.
    while !line(reader)?.is_empty() {}
    Ok(())
}

/// The next line: it ends with CR LF, and has no other control character.
fn line(reader: &mut impl BufRead) -> Result<String> {
    let mut bytes = Vec::new();
    reader.read_until(b'\n', &mut bytes)?;
    let Some(text) = bytes.strip_suffix(b"\r\n") else {
        let is_cut_off = !bytes.ends_with(b"\n");
        let text = String::from_utf8_lossy(&bytes);
        return if is_cut_off { Err(ErrorKind::UnexpectedEof.into()) } else { malformed(&text) };
    };
    let text = String::from_utf8_lossy(text).into_owned();
    match text.contains(|c: char| c.is_control() && c != '\t') {
        true => malformed(&text),
        false => Ok(text),
    }
}

fn skip(reader: &mut impl Read, bytes: u64) -> Result<()> {
    match std::io::copy(&mut reader.take(bytes), &mut std::io::sink())? {
        read if read == bytes => Ok(()),
        _ => Err(ErrorKind::UnexpectedEof.into()),
    }
}

fn malformed<T>(text: &str) -> Result<T> {
    Err(std::io::Error::new(ErrorKind::InvalidData, format!("{text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_strictly() {
        for (bytes, want) in [
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", Some("GET / HTTP/1.1")),
            ("POST /a HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi", Some("POST /a HTTP/1.1")),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\na: b\r\n\r\n",
                Some("POST / HTTP/1.1"),
            ),
            ("GET  / HTTP/1.1\r\n\r\n", None),
            ("GET / HTTP/1.1\nhost: a\n\n", None),
            ("GET / HTTP/1.1\r\na: b\rc\r\n\r\n", None),
            ("POST / HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nhi", None),
            ("POST / HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", None),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2;x\r\nhi\r\n0\r\n\r\n", None),
            ("POST / HTTP/1.1\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n", None),
        ] {
            let got = read(&mut bytes.as_bytes());
            assert_eq!(got.as_deref().ok(), want, "{bytes:?}: {got:?}");
        }
    }
}
