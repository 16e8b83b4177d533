//! DNS over TLS: what makes dns answer it, and a client.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::ServerName};

use super::PATIENCE;

/// The name in the certificate of dns.
pub const NAME: &str = "maesh-dns.maesh.svc";

/// Flags with which dns answers at `listen`, with `tls.crt` and `tls.key` in `folder`.
pub fn flags(listen: SocketAddr, folder: &Path) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    let flags = [
        ("--tls-listen", listen.to_string()),
        ("--tls-certificate", file("tls.crt")),
        ("--tls-certificate-key", file("tls.key")),
    ];
    flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}

/// A client that trusts only these CA certificates.
pub fn client(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    Arc::new(client.with_root_certificates(roots).with_no_client_auth())
}

/// A query for the IPv4 address of `name`, after its length, as TCP and TLS carry it.
pub fn framed(name: &str) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    [&(query.len() as u16).to_be_bytes(), &query[..]].concat()
}

/// Asks dns at `server` over TLS for the address of `name`, and verifies its certificate.
pub fn ask_tls(server: SocketAddr, client: &Arc<ClientConfig>, name: &str) -> std::io::Result<Ipv4Addr> {
    let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let server_name = ServerName::try_from(NAME).expect("a name");
    let connection = ClientConnection::new(client.clone(), server_name).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    stream.write_all(&framed(name))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply)?;
    if reply[3] & 15 != 0 || reply[7] != 1 {
        return Err(std::io::Error::other("no answer"));
    }
    // The record is the last of the answer, and its address the last of the record.
    Ok(Ipv4Addr::from(<[u8; 4]>::try_from(&reply[reply.len() - 4..]).expect("four bytes")))
}
