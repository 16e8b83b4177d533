//! Endpoints that serve HTTPS, through `maesh dev`: the authority is a ConfigMap in the manifests.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use crate::support::{
    Dev, await_condition,
    http::get,
    manifest::{config_map, save, service, slices},
    tls::{Authority, TlsBackend},
};

/// Service `pay.shop` over HTTPS, on port 8443.
fn pay(annotations: &str, backend: &TlsBackend) -> String {
    let annotations = format!("maesh.containo.us/scheme: https, {annotations}");
    service("shop", "pay", 8443, &annotations) + &slices("shop", "pay", &[backend.address]) + "---\n"
}

const CA: &str = "maesh.containo.us/tls-ca: internal-ca";

#[test]
fn a_service_over_https_with_an_authority_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Authority::new(), Authority::new());
    let backend = TlsBackend::start("pay", first.serving("pay.shop.svc", 2099));
    save(folder.path(), "pay.yaml", &pay(CA, &backend));
    save(folder.path(), "ca.yaml", &config_map("internal-ca", &first.pem()));
    let mut dev = Dev::start(folder.path());
    assert!(dev.early.is_empty(), "{:#?}", dev.early);
    let ask = |dev: &Dev| {
        let answer = get(dev.served_at("pay.shop.maesh"), "pay.shop.maesh", "/coin").unwrap();
        (answer.status, answer.field("x-maesh-reason").unwrap_or_default(), answer.body)
    };
    let served = (200, String::new(), "pay GET /coin HTTP/1.1\n".to_owned());
    assert_eq!(ask(&dev), served);

    // Roots that change take effect for the connections that come: the one that is open was verified otherwise.
    save(folder.path(), "ca.yaml", &config_map("internal-ca", &second.pem()));
    dev.await_changed("pay.shop.maesh");
    let (status, reason, _) = ask(&dev);
    assert_eq!((status, &*reason), (502, "connect_failed"));
    await_condition("the log says what is wrong", || {
        let logs = dev.logs();
        let parts = [
            "endpoint not used",
            "not signed by an authority that is trusted",
            "tls-ca",
            "shop/pay",
            &backend.address.to_string(),
        ];
        parts.iter().all(|part| logs.contains(part)).then_some(())
    });
    save(folder.path(), "ca.yaml", &config_map("internal-ca", &(second.pem() + &first.pem())));
    dev.await_changed("pay.shop.maesh");
    assert_eq!(ask(&dev), served);

    // Without the ConfigMap, nothing is sent, and what is wrong is said.
    std::fs::remove_file(folder.path().join("ca.yaml")).unwrap();
    let found = dev.await_event("a finding", |event| event["event"] == "warning");
    let text = found.to_string();
    for part in ["ConfigMap shop/internal-ca does not exist", "answered 502", "pay.yaml"] {
        assert!(text.contains(part), "{text}");
    }
    dev.await_changed("pay.shop.maesh");
    let (status, reason, _) = ask(&dev);
    assert_eq!((status, &*reason), (502, "connect_failed"));
}

#[test]
fn without_an_authority_of_its_own_those_of_the_system_count() {
    let folder = tempfile::tempdir().unwrap();
    let backend = TlsBackend::start("pay", Authority::new().serving("pay.shop.svc", 2099));
    save(folder.path(), "pay.yaml", &pay("", &backend));
    let dev = Dev::start(folder.path());
    let answer = get(dev.served_at("pay.shop.maesh"), "pay.shop.maesh", "/").unwrap();
    assert_eq!((answer.status, answer.field("x-maesh-reason").as_deref()), (502, Some("connect_failed")));
}
