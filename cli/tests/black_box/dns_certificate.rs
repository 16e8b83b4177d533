//! The certificate of DNS over TLS: what dns logs and counts of one that has expired, and who is answered meanwhile.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
};

use crate::support::{
    PATIENCE, await_condition,
    http::get,
    local::{Part, Roles},
    manifest::{save, service},
    resolver::ask,
};
use hickory_proto::rr::RecordType;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, pki_types::ServerName};

const NAME: &str = "maesh-dns.maesh.svc";

/// Writes a certificate that `ca` signs, valid from 2020 until this year, and its key.
fn write(folder: &Path, ca: &CertifiedIssuer<'_, KeyPair>, until: i32) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 1, 1));
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(folder.join("tls.crt"), params.signed_by(&key, ca).unwrap().pem()).unwrap();
}

/// A client that trusts only these CA certificates.
pub(crate) fn client(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(client.with_root_certificates(roots).with_no_client_auth())
}

/// Asks dns at `server` over TLS for the address of `name`, and verifies its certificate.
pub(crate) fn ask_tls(server: SocketAddr, client: &Arc<ClientConfig>, name: &str) -> std::io::Result<Ipv4Addr> {
    let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let connection = ClientConnection::new(client.clone(), ServerName::try_from(NAME).unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    let mut query = vec![0, 0, 0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.extend(b"\x00\x00\x01\x00\x01");
    query[1] = query.len() as u8 - 2;
    stream.write_all(&query)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply)?;
    if reply[3] & 15 != 0 || reply[7] != 1 {
        return Err(std::io::Error::other("no answer"));
    }
    // The record is the last of the answer, and its address the last of the record.
    Ok(Ipv4Addr::from(<[u8; 4]>::try_from(&reply[reply.len() - 4..]).unwrap()))
}

#[test]
fn an_expired_certificate_is_logged_and_counted_and_replaced_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let manifests = folder.path().join("manifests");
    std::fs::create_dir(&manifests).unwrap();
    save(&manifests, "web.yaml", &service("shop", "web", 8080, "maesh.containo.us/bypass: \"true\""));
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let client = client(roots);

    write(folder.path(), &ca, 2021);
    let mut tls = None;
    let roles = Roles::start_dns_limited(&manifests, 4096, folder.path(), |address| {
        let listen = *tls.insert(SocketAddr::new(address, 8853));
        let file = |name: &str| folder.path().join(name).display().to_string();
        let flags = [
            ("--tls-listen", listen.to_string()),
            ("--tls-certificate", file("tls.crt")),
            ("--tls-certificate-key", file("tls.key")),
        ];
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    });
    let tls = tls.unwrap();
    let metric = || {
        let text = get(roles.admin(Part::Dns), "admin", "/metrics").unwrap().body;
        let value =
            text.lines().find_map(|line| line.strip_prefix("maesh_dns_tls_certificate_expiry_timestamp_seconds "));
        value.map(str::to_owned)
    };
    await_condition("the metric says that it has expired", || {
        (metric().as_deref() == Some("1609459200")).then_some(())
    });
    let log = await_condition("it is logged", || {
        let log = roles.log(Part::Dns);
        log.contains("the certificate expired at 2021-01-01T00:00:00Z").then_some(log)
    });
    assert!(log.contains("tls.crt") && log.contains("clients refuse"), "{log}");
    let refused = await_condition("the port is open", || match ask_tls(tls, &client, "web.shop.maesh") {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => None,
        other => Some(other),
    });
    assert!(refused.unwrap_err().to_string().contains("xpired"));
    let other = IpAddr::from(Ipv4Addr::new(127, 0, 3, 1));
    let answer = ask(other, roles.dns(), "web.shop.maesh", RecordType::A, PATIENCE).unwrap();
    assert_eq!(answer.addresses, [Ipv4Addr::new(10, 96, 0, 77)], "UDP does not depend on it");

    write(folder.path(), &ca, 2100);
    let told =
        await_condition("a client that verifies gets an answer", || ask_tls(tls, &client, "web.shop.maesh").ok());
    assert_eq!(told, Ipv4Addr::new(10, 96, 0, 77));
    assert_eq!(metric().as_deref(), Some("4102444800"));
    assert_eq!(roles.log(Part::Dns).matches("the certificate expired").count(), 1, "{}", roles.log(Part::Dns));
}
