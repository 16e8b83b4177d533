//! HTTP/2 frame by frame, for endpoints and callers that do what no library would.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// `:status: 200`, as HPACK writes it.
pub const OK: &[u8] = &[0x88];

/// One frame.
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What begins a connection, from the side that opens it.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Fields as HPACK writes them without its tables.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            push_length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A length of a string, in seven bits and as many bytes more as it needs (RFC 7541 section 5.1).
fn push_length(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else {
        return block.push(u8::try_from(length).expect("below 127"));
    };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).expect("below 128") | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).expect("below 128"));
}

/// One side of a connection.
pub struct Frames(TcpStream);

impl Frames {
    /// Reads the preface and says its settings: pairs of identifier and value.
    pub async fn accept(mut stream: TcpStream, settings: &[(u16, u32)]) -> Option<Self> {
        stream.read_exact(&mut [0; 24]).await.ok()?;
        let mut frames = Self(stream);
        let payload: Vec<u8> =
            settings.iter().flat_map(|(id, value)| id.to_be_bytes().into_iter().chain(value.to_be_bytes())).collect();
        frames.write(SETTINGS, 0, 0, &payload).await;
        Some(frames)
    }

    /// Opens a connection and says its settings, of which there are none.
    pub async fn connect(to: SocketAddr) -> Self {
        Self::begin(TcpStream::connect(to).await.expect("connected")).await
    }

    /// The same with little room for what arrives, so that most of a response waits on the proxy's side.
    pub async fn connect_with_little_room(to: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(8 * 1024).expect("set");
        Self::begin(socket.connect(to).await.expect("connected")).await
    }

    async fn begin(mut stream: TcpStream) -> Self {
        stream.write_all(PREFACE).await.expect("written");
        let mut frames = Self(stream);
        frames.write(SETTINGS, 0, 0, &[]).await;
        frames
    }

    /// The next frame that is about a stream or ends something; SETTINGS are acknowledged.
    pub async fn read(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).expect("small")];
            self.0.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let frame = Frame { kind: head[3], flags: head[4], stream, payload };
            if frame.kind != SETTINGS {
                return Some(frame);
            }
            if frame.flags & ACK == 0 {
                self.write(SETTINGS, ACK, 0, &[]).await;
            }
        }
    }

    /// The connection, for what is no frame.
    pub fn into_inner(self) -> TcpStream {
        self.0
    }

    /// Writes bytes as they are; that the proxy may be gone is no failure.
    pub async fn write_raw(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// Writes a header block that may need several frames; `flags` are those of the first one.
    pub async fn write_block(&mut self, flags: u8, stream: u32, block: &[u8]) {
        let pieces: Vec<_> = block.chunks(16_000).collect();
        for (at, piece) in pieces.iter().enumerate() {
            let (kind, flags) = if at == 0 { (HEADERS, flags) } else { (CONTINUATION, 0) };
            let ends = if at + 1 == pieces.len() { END_HEADERS } else { 0 };
            self.write(kind, flags | ends, stream, piece).await;
        }
    }

    /// Writes a frame; that the proxy may be gone is no failure.
    pub async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let _ = self.0.write_all(&frame(kind, flags, stream, payload)).await;
    }
}
