//! The certificate of DNS over TLS: what dns logs and counts of one that has expired, and who is answered meanwhile.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use crate::support::{
    PATIENCE, await_condition,
    dns_tls::{self, NAME, ask_tls},
    http::get,
    local::{Part, Roles},
    manifest::{save, service},
    resolver::ask,
};
use hickory_proto::rr::RecordType;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::RootCertStore;

/// Writes a certificate that `ca` signs, valid from 2020 until this year, and its key.
fn write(folder: &Path, ca: &CertifiedIssuer<'_, KeyPair>, until: i32) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 1, 1));
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(folder.join("tls.crt"), params.signed_by(&key, ca).unwrap().pem()).unwrap();
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
    let client = dns_tls::client(roots);

    write(folder.path(), &ca, 2021);
    let mut tls = None;
    let roles = Roles::start_dns_limited(&manifests, 4096, folder.path(), |address| {
        let listen = *tls.insert(SocketAddr::new(address, 8853));
        dns_tls::flags(listen, folder.path())
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
