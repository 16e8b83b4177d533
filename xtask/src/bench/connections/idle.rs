//! Thousands of connections that made one request each and are kept.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use crate::bench::backends::BODY;
use crate::bench::scale::http::Client;

/// Addresses that they come from: one has ports for some 28,000, and ours lets one caller have a fifth of all.
pub(super) const SOURCES: u8 = 16;

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Open connections. Dropped, they are closed.
pub(super) struct IdleConnections(Vec<TcpStream>);

impl IdleConnections {
    /// Opens `count` connections to `to`, one after the other, and asks for `host` once on each.
    pub(super) fn open(to: SocketAddr, host: &str, count: usize) -> Result<Self> {
        let one = |number: usize| {
            ask(source(number), to, host).with_context(|| format!("connection {number} of {count} to {to}"))
        };
        (0..count).map(one).collect::<Result<_>>().map(Self)
    }

    /// Fails unless all of them are still open.
    pub(super) fn check(&self) -> Result<()> {
        let closed = self.0.iter().filter(|stream| !is_open(stream)).count();
        if closed > 0 {
            bail!("{closed} of {} idle connections were closed", self.0.len());
        }
        Ok(())
    }
}

/// The address that connection `number` comes from.
fn source(number: usize) -> Ipv4Addr {
    let host = u8::try_from(number % usize::from(SOURCES)).unwrap_or_default();
    Ipv4Addr::new(127, 1, 0, 1 + host)
}

fn ask(from: Ipv4Addr, to: SocketAddr, host: &str) -> Result<TcpStream> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrV4::new(from, 0))?;
    connect(&socket, &to)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut client = Client::over(stream);
    let answer = client.get(host)?;
    if !answer.is_ok() || answer.body.len() != BODY {
        bail!("answered {answer}");
    }
    client.into_stream()
}

/// Whether the other side has neither closed nor said something that nobody asked for.
fn is_open(stream: &TcpStream) -> bool {
    let peeked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers `count` connections, and keeps them until it is dropped.
    fn server(count: usize) -> (SocketAddr, std::thread::JoinHandle<Vec<TcpStream>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let accept = move || {
            let mut stream = listener.accept().unwrap().0;
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n{}", "x".repeat(BODY)).unwrap();
            stream
        };
        (address, std::thread::spawn(move || (0..count).map(|_| accept()).collect()))
    }

    #[test]
    fn a_connection_that_was_closed_is_seen() {
        let count = usize::from(SOURCES) + 1;
        let (address, server) = server(count);
        let idle = IdleConnections::open(address, "a.b.maesh", count).unwrap();
        let mut theirs = server.join().unwrap();
        idle.check().unwrap();
        let callers: std::collections::HashSet<_> =
            theirs.iter().map(|stream| stream.peer_addr().unwrap().ip()).collect();
        assert_eq!(callers.len(), usize::from(SOURCES));
        drop(theirs.pop());
        assert!(maesh_test_support::until(PATIENCE, || idle.check().is_err()));
        assert!(idle.check().unwrap_err().to_string().starts_with("1 of 17 "));
    }
}
