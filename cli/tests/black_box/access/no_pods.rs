//! Backends without any pod belong to nobody: whom they deny depends on what else of the port the caller is admitted to.

use std::collections::BTreeSet;

use super::*;

/// Service shop/NAME without endpoints.
fn empty(name: &str, annotations: &str) -> String {
    service("shop", name, 8080, annotations) + "---\n"
}

/// A canary that is scaled to nothing, and still has a weight, does not deny what the others may answer.
#[test]
fn a_canary_without_pods_denies_nobody_who_may_call_the_others() {
    let shop = Shop::new();
    let routes = "maesh.containo.us/routes: 'PathPrefix(`/`) => b 1, canary 1'";
    shop.save(&(empty("canary", "") + &empty("front", routes) + &group("g", "{pathRegex: /api}") + &ann_may(GROUP)));
    let dev = Dev::start_with(shop.folder.path(), &["--acl"]);
    let at = dev.served_at("front.shop.maesh");
    let front = |from: &str, path: &str| {
        let mut client = Client::connect_from(from.parse().unwrap(), at).unwrap();
        outcome(&client.send(format!("GET {path} HTTP/1.1\r\nHost: front.shop.maesh\r\n\r\n").as_bytes()).unwrap())
    };
    let heard: BTreeSet<_> = (0..40).map(|_| front(ANN, "/api")).collect();
    assert_eq!(heard, ["200", "503 no_endpoints"].map(str::to_owned).into());
    for (from, path) in [(ANN, "/other"), (CYD, "/api"), (NOBODY, "/api")] {
        let heard: BTreeSet<_> = (0..10).map(|_| front(from, path)).collect();
        assert_eq!(heard, ["403 denied".to_owned()].into(), "{from} {path}");
    }
}

/// A Service that is scaled to nothing has its fallback, for those who may go there.
#[test]
fn a_service_without_pods_has_its_fallback() {
    let shop = Shop::new();
    let fallback = "maesh.containo.us/fallback: b";
    shop.save(&(empty("gone", fallback) + &empty("lost", "") + &group("g", "{pathRegex: /api}") + &ann_may(GROUP)));
    let dev = Dev::start_with(shop.folder.path(), &["--acl"]);
    let of = |name: &str, from: &str, path: &str| {
        let at = dev.served_at(&format!("{name}.shop.maesh"));
        let mut client = Client::connect_from(from.parse().unwrap(), at).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {name}.shop.maesh\r\n\r\n");
        outcome(&client.send(request.as_bytes()).unwrap())
    };
    assert_eq!(of("gone", ANN, "/api"), "200");
    for (name, from, path) in [
        ("gone", ANN, "/other"),
        ("gone", CYD, "/api"),
        ("gone", NOBODY, "/api"),
        ("lost", ANN, "/api"),
        ("lost", NOBODY, "/api"),
    ] {
        assert_eq!(of(name, from, path), "403 denied", "{name} {from} {path}");
    }
    let explained =
        command(&["explain", "--admin", &dev.admin().to_string(), "--from", CYD, "http://gone.shop.maesh:8080/api"])
            .output()
            .unwrap();
    assert!(String::from_utf8_lossy(&explained.stdout).contains("denied"), "{explained:?}");
}
