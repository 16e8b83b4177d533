//! DNS over TLS, and what happens to its certificate.

use std::{os::unix::fs::symlink, path::Path, sync::Arc};

use maesh_discovery::tls::CertificateFiles;
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::Tls;

/// A certificate for `localhost` of its own authority, and its key.
struct Papers {
    chain: String,
    key: String,
    der: CertificateDer<'static>,
}

fn papers() -> Papers {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    Papers { chain: signed.cert.pem(), key: signed.signing_key.serialize_pem(), der: signed.cert.der().clone() }
}

/// Lays files down as kubelet does a Secret's: in a folder of this version, to which a link is moved.
fn mount(folder: &Path, version: &str, chain: &str, key: &str) {
    let held = folder.join(version);
    std::fs::create_dir(&held).expect("a folder");
    std::fs::write(held.join("tls.crt"), chain).expect("written");
    std::fs::write(held.join("tls.key"), key).expect("written");
    let link = folder.join(format!("{version}.link"));
    symlink(&held, &link).expect("a link");
    std::fs::rename(link, folder.join("..data")).expect("moved");
}

fn config_with_tls(folder: &Path) -> Config {
    for file in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(file), folder.join(file)).expect("a link");
    }
    let files = CertificateFiles { chain: folder.join("tls.crt"), key: folder.join("tls.key") };
    let listen = vec!["127.0.0.1:0".parse().expect("an address")];
    Config { tls: Some(Tls { listen, files, look: Duration::from_millis(20) }), ..config() }
}

async fn connect(
    responder: &Responder,
    believed: &Papers,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(believed.der.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(responder.dns.tls_addresses()[0]).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await.expect("in time")
}

/// The answer to a query over TLS.
async fn ask(stream: &mut TlsStream<TcpStream>) -> (u8, [u8; 4]) {
    let read = async {
        stream.write_all(&framed(&query(1, "db.shop.maesh"))).await?;
        let mut reply = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut reply).await?;
        std::io::Result::Ok(told(&reply))
    };
    timeout(PATIENCE, read).await.expect("in time").expect("a reply")
}

/// Waits until the server has the certificate that is believed.
async fn serves(responder: &Responder, believed: &Papers) -> TlsStream<TcpStream> {
    let connected = async {
        loop {
            if let Ok(stream) = connect(responder, believed, &[&TLS13], &[]).await {
                return stream;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, connected).await.expect("in time")
}

const WANT: (u8, [u8; 4]) = (0, [10, 200, 0, 7]);

#[tokio::test]
async fn certificates_come_change_and_break() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, second) = (papers(), papers());
    let responder = Responder::synced(config_with_tls(folder.path())).await;
    let at = responder.dns.tls_addresses()[0];
    assert!(TcpStream::connect(at).await.is_err(), "closed while there is no certificate");
    assert_eq!(told(&over_udp(responder.at(), &query(1, "db.shop.maesh")).await), WANT, "UDP does not wait for it");

    mount(folder.path(), "1", &first.chain, &second.key);
    mount(folder.path(), "2", &first.chain, &first.key);
    let mut open = serves(&responder, &first).await;
    assert_eq!(ask(&mut open).await, WANT);

    mount(folder.path(), "3", "no certificate", &second.key);
    mount(folder.path(), "4", &second.chain, &first.key);
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut stream = connect(&responder, &first, &[&TLS13], &[]).await.expect("the last good one stays");
        assert_eq!(ask(&mut stream).await, WANT);
    }

    mount(folder.path(), "5", &second.chain, &second.key);
    let mut stream = serves(&responder, &second).await;
    assert_eq!(ask(&mut stream).await, WANT);
    assert!(connect(&responder, &first, &[&TLS13], &[]).await.is_err(), "the first one is gone");
    assert_eq!(ask(&mut open).await, WANT, "an open connection goes on");
    assert_eq!(responder.metric("maesh_dns_tls_connections"), Some(2));
    responder.dns.stop().await;
    assert!(TcpStream::connect(at).await.is_err());
}

#[tokio::test]
async fn clients_of_all_kinds() {
    let folder = tempfile::tempdir().expect("a folder");
    let papers = papers();
    mount(folder.path(), "1", &papers.chain, &papers.key);
    let responder = Responder::synced(config_with_tls(folder.path())).await;
    serves(&responder, &papers).await;
    for (case, versions, alpn, works) in [
        ("TLS 1.3", &[&TLS13][..], &[][..], true),
        ("TLS 1.2", &[&TLS12], &[], true),
        ("DNS by name", &[&TLS13], &["dot"], true),
        ("DNS among others", &[&TLS12], &["h2", "dot"], true),
        ("only another protocol", &[&TLS13], &["h2"], false),
    ] {
        let connected = connect(&responder, &papers, versions, alpn).await;
        assert_eq!(connected.is_ok(), works, "{case}");
        if let Ok(mut stream) = connected {
            assert_eq!(ask(&mut stream).await, WANT, "{case}");
        }
    }
    assert!(responder.metric("maesh_dns_queries_total{transport=\"tls\",type=\"A\"}") >= Some(4));
    assert!(responder.metric("maesh_dns_connections_closed_total{reason=\"handshake_failed\"}") >= Some(1));
}

/// A certificate that signs itself, valid from 2010 until this year.
fn papers_until(year: i32) -> Papers {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(2010, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let signed = params.self_signed(&key).expect("signed");
    Papers { chain: signed.pem(), key: key.serialize_pem(), der: signed.der().clone() }
}

#[tokio::test]
async fn the_end_of_the_certificate_is_a_metric() {
    const EXPIRY: &str = "maesh_dns_tls_certificate_expiry_timestamp_seconds";
    let folder = tempfile::tempdir().expect("a folder");
    let without = Responder::synced(config()).await;
    assert_eq!(without.metric(EXPIRY), None, "no DNS over TLS");
    let responder = Responder::synced(config_with_tls(folder.path())).await;
    assert_eq!(responder.metric(EXPIRY), Some(0), "no certificate");
    let is = async |papers: &Papers, version: &str, seconds: u64| {
        mount(folder.path(), version, &papers.chain, &papers.key);
        let counted = async {
            while responder.metric(EXPIRY) != Some(seconds) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, counted).await.unwrap_or_else(|_| panic!("{version}: {:?}", responder.metric(EXPIRY)));
        assert_eq!(told(&over_udp(responder.at(), &query(1, "db.shop.maesh")).await), WANT, "{version}");
    };
    let expired = papers_until(2020);
    is(&expired, "expired", 1_577_836_800).await;
    let refused = async {
        loop {
            match connect(&responder, &expired, &[&TLS13], &[]).await {
                // The port opens a moment later.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => tokio::task::yield_now().await,
                other => return other.expect_err("it has expired").to_string(),
            }
        }
    };
    let refused = timeout(PATIENCE, refused).await.expect("in time");
    assert!(refused.contains("expired"), "{refused}");
    is(&papers_until(2100), "valid", 4_102_444_800).await;
}
