//! TCP and UDP: some bytes there and back.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UdpSocket};

use super::Failure;

/// What is sent and must come back.
const WORDS: &[u8] = b"there and back";

/// An open connection whose server has said who it is.
pub(crate) struct Tcp {
    stream: BufReader<TcpStream>,
    /// The server's first line.
    pub(crate) told: Vec<u8>,
}

impl Tcp {
    /// Reads the first line.
    pub(crate) async fn open(stream: TcpStream) -> Result<Self, Failure> {
        let mut stream = BufReader::new(stream);
        let mut told = Vec::new();
        stream.read_until(b'\n', &mut told).await?;
        if told.is_empty() {
            return Err(Failure::Answer("closed before a byte came"));
        }
        Ok(Self { stream, told })
    }

    /// Sends some bytes, which must come back.
    pub(crate) async fn exchange(&mut self) -> Result<(), Failure> {
        self.stream.write_all(WORDS).await?;
        let mut back = [0; WORDS.len()];
        self.stream.read_exact(&mut back).await?;
        if back == WORDS { Ok(()) } else { Err(Failure::Answer("other bytes came back")) }
    }

    /// Ends sending, and waits for the server's end.
    pub(crate) async fn close(mut self) -> Result<(), Failure> {
        self.stream.shutdown().await?;
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await?;
        if rest.is_empty() { Ok(()) } else { Err(Failure::Answer("more bytes came back than were sent")) }
    }

    /// Waits for the server's end, or an unexpected byte.
    pub(crate) async fn ended(&mut self) -> Result<(), Failure> {
        match self.stream.read_u8().await {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Err(Failure::Answer("a byte came unasked")),
        }
    }
}

/// One datagram there and back; returns the server's line.
pub(crate) async fn datagram(address: SocketAddr) -> Result<Vec<u8>, Failure> {
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    socket.send(WORDS).await?;
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).await?;
    let answer = buffer.get(..length).unwrap_or_default();
    match answer.strip_suffix(WORDS) {
        Some(line) => Ok(line.to_owned()),
        None => Err(Failure::Answer("other bytes came back")),
    }
}
