//! A plain HTTP/1.1 client: what is sent is what is written here, byte for byte.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
};

use super::{PATIENCE, backend::field};

/// One answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// A field of the answer.
    pub fn field(&self, name: &str) -> Option<String> {
        field(&self.head, name)
    }

    /// The backend that answered: the first word of its body.
    pub fn by(&self) -> &str {
        self.body.split(' ').next().unwrap_or_default()
    }
}

/// A keep-alive connection.
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(at: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&at, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// The same from this address.
    pub fn connect_from(from: IpAddr, at: SocketAddr) -> std::io::Result<Self> {
        let stream = connect_from(from, at)?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// `GET path` with this `Host`.
    pub fn get(&mut self, host: &str, path: &str) -> std::io::Result<Answer> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
    }

    /// Writes these bytes and reads one answer.
    pub fn send(&mut self, request: &[u8]) -> std::io::Result<Answer> {
        self.write(request)?;
        self.answer()
    }

    /// Writes these bytes.
    pub fn write(&mut self, request: &[u8]) -> std::io::Result<()> {
        self.reader.get_mut().write_all(request)
    }

    /// Reads one answer.
    pub fn answer(&mut self) -> std::io::Result<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.reader.read_line(&mut head)? == 0 {
                return Err(std::io::Error::other(format!("closed within the head {head:?}")));
            }
        }
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("no status in {head:?}")))?;
        let length = field(&head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        Ok(Answer { status, head, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

/// One request over a connection of its own.
pub fn get(at: SocketAddr, host: &str, path: &str) -> std::io::Result<Answer> {
    Client::connect(at)?.get(host, path)
}

/// A connection from this address.
pub fn connect_from(from: IpAddr, at: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(at), socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&at.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
