//! Queries byte by byte, also those that no library would write.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName};

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A message with id 0x1234: flags, counts of the four sections, and what follows the header.
pub fn message(flags: u16, counts: [u16; 4], body: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34];
    bytes.extend(flags.to_be_bytes());
    bytes.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    bytes.extend(body.concat());
    bytes
}

/// A question for `name`, written with dots, of a type and class IN.
pub fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// An OPT record: UDP size, extended code, version and flags, options.
pub fn opt(size: u16, ttl: [u8; 4], options: &[u8]) -> Vec<u8> {
    let length = (options.len() as u16).to_be_bytes();
    [&[0, 0, 41][..], &size.to_be_bytes(), &ttl, &length, options].concat()
}

/// A client subnet option: family, source and scope lengths, address.
pub fn subnet(family: u16, source: u8, scope: u8, address: &[u8]) -> Vec<u8> {
    let length = (4 + address.len() as u16).to_be_bytes();
    [&[0, 8][..], &length, &family.to_be_bytes(), &[source, scope], address].concat()
}

/// A good query with another id, whose answer says that what came before it has been dealt with.
fn marker() -> Vec<u8> {
    let mut query = message(0, [1, 0, 0, 0], &[&question("maesh", 6)]);
    query[..2].copy_from_slice(&MARKER);
    query
}

const MARKER: [u8; 2] = [0xff, 0xff];

/// The answer to `query` over UDP; `None` if there is none. The server must answer one after the other.
///
/// # Errors
/// Sending or receiving fails, or nothing at all is answered.
pub fn ask_udp(server: SocketAddr, query: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let socket = UdpSocket::bind((server.ip(), 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(query)?;
    socket.send(&marker())?;
    let mut reply = vec![0; 65536];
    let length = socket.recv(&mut reply)?;
    reply.truncate(length);
    Ok((!reply.starts_with(&MARKER)).then_some(reply))
}

/// The answer to `query` over TCP; `None` if there is none, or the connection ends.
///
/// # Errors
/// Connecting or sending fails, or nothing at all is answered.
pub fn ask_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Option<Vec<u8>>> {
    ask_stream(&mut connect(server)?, query)
}

/// The same over TLS, by a client that believes the certificate `authority` and checks that the server has the name
/// `localhost`.
///
/// # Errors
/// As [`ask_tcp`], and when the handshake fails.
pub fn ask_tls(server: SocketAddr, authority: &CertificateDer<'_>, query: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone().into_owned()).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let client = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    ask_stream(&mut StreamOwned::new(client, connect(server)?), query)
}

fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ask_stream<S: Read + Write>(stream: &mut S, query: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let framed = |message: &[u8]| [&(message.len() as u16).to_be_bytes(), message].concat();
    stream.write_all(&[framed(query), framed(&marker())].concat())?;
    let mut reply = Vec::new();
    let read = (|| {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        reply.resize(usize::from(u16::from_be_bytes(length)), 0);
        stream.read_exact(&mut reply)
    })();
    match read {
        Ok(()) => Ok((!reply.starts_with(&MARKER)).then_some(reply)),
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => Ok(None),
        Err(error) => Err(error),
    }
}
