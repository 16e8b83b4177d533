//! HTTP/1.1 from a caller's socket to an endpoint's and back, byte by byte where it matters.

use std::net::IpAddr;

use crate::support::{Raw, ask, echoing, get};
use maesh_config::{
    Kind, Resource,
    model::{Protocol, Workload, WorkloadKind},
};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn names_of_a_service() {
    let (fed, address, _server) = echoing().await;
    let port = address.port();
    fed.name("web.shop", port, port, Protocol::Http, &[IpAddr::from([10, 96, 0, 7])]).await;
    for (host, status, reason) in [
        ("web.shop.maesh", 200, ""),
        ("WEB.Shop.MAESH", 200, ""),
        ("web.shop.maesh.", 200, ""),
        ("web.shop.maesh:1234", 200, ""),
        ("web.shop.traefik.mesh", 200, ""),
        ("web.shop", 200, ""),
        ("web.shop.svc", 200, ""),
        ("web.shop.svc.cluster.local", 200, ""),
        ("10.96.0.7", 200, ""),
        ("10.96.0.8", 404, "unknown_host"),
        ("web", 404, "unknown_host"),
        ("other.shop.maesh", 404, "unknown_host"),
        ("www.example.com", 404, "unknown_host"),
        ("a.web.shop.maesh", 404, "unknown_host"),
        ("a b", 400, "bad_request"),
    ] {
        let (head, body) = ask(address, &get(host, "/x?y=1")).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{host}: {head}");
        if status == 200 {
            assert!(body.starts_with(&format!("one GET /x?y=1 {host}\n")), "{host}: {body}");
            assert!(!head.contains("x-maesh-reason"), "{host}: {head}");
        } else {
            assert!(head.contains(&format!("x-maesh-reason: {reason}\r\n")), "{host}: {head}");
        }
    }
}

#[tokio::test]
async fn one_label_is_a_service_of_the_callers_namespace() {
    let (fed, address, _server) = echoing().await;
    let workload = |namespace: &str| {
        Resource::Workload(Workload {
            address: "127.0.0.1/32".parse().expect("an address"),
            kind: WorkloadKind::Pod,
            namespace: Some(namespace.into()),
            name: "caller".into(),
            service_account: None,
            node: None,
            zone: None,
        })
    };
    for (namespace, status) in [("shop", 200), ("other", 404)] {
        fed.push(Kind::Workload, vec![workload(namespace)], vec![]).await;
        let (head, _) = ask(address, &get("web", "/")).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{namespace}: {head}");
    }
    fed.push(Kind::Workload, vec![workload("shop")], vec![]).await;
    fed.push(Kind::Workload, vec![], vec!["127.0.0.1"]).await;
    assert!(ask(address, &get("web", "/")).await.0.starts_with("http/1.1 404"), "the pod is gone");
}

#[tokio::test]
async fn a_connection_carries_many_requests() {
    let (fed, address, _server) = echoing().await;
    let mut raw = Raw::to(address).await;
    for i in 0..50 {
        raw.say(&get("web.shop.maesh", &format!("/{i}"))).await;
        let (head, body) = raw.hear().await;
        assert!(head.starts_with("http/1.1 200 ok"), "{head}");
        assert!(body.starts_with(&format!("one GET /{i} ")), "{body}");
    }
    // Pipelined: asked at once, answered in order.
    let both = get("web.shop.maesh", "/a") + &get("nobody.shop.maesh", "/b") + &get("web.shop.maesh", "/c");
    raw.say(&both).await;
    assert!(raw.hear().await.1.starts_with("one GET /a "));
    assert!(raw.hear().await.0.contains("x-maesh-reason: unknown_host"));
    assert!(raw.hear().await.1.starts_with("one GET /c "));
    let metrics = fed.metrics();
    assert!(metrics.contains("maesh_proxy_upstream_connects_total{outcome=\"ok\"} 1"), "{metrics}");
    let counted = "maesh_http_requests_total{service=\"web\",namespace=\"shop\",port=";
    let line = metrics.lines().find(|line| line.starts_with(counted)).expect("counted");
    assert!(line.contains("protocol=\"http1\",method=\"GET\",code=\"200\",reason=\"\"} 52"), "{line}");
}

#[tokio::test]
async fn fields_of_the_caller_are_set_and_those_of_the_connection_removed() {
    let (_fed, address, _server) = echoing().await;
    let request = "GET / HTTP/1.1\r\nHost: web.shop\r\nX-Forwarded-For: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\n\
                   X-Real-IP: 9.9.9.9\r\nConnection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: 5\r\n\
                   TE: trailers\r\nProxy-Connection: x\r\nX-Kept: yes\r\n\r\n";
    let (_, body) = ask(address, request).await;
    let mut fields: Vec<&str> = body.lines().skip(1).filter(|line| !line.is_empty()).collect();
    fields.sort_unstable();
    let port = format!("x-forwarded-port: {}", address.port());
    let want = [
        "host: web.shop",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: web.shop",
        &port,
        "x-forwarded-proto: http",
        "x-kept: yes",
        "x-maesh-hops: 1",
        "x-real-ip: 127.0.0.1",
    ];
    assert_eq!(fields, want);
}

#[tokio::test]
async fn bodies_and_methods() {
    let (_fed, address, _server) = echoing().await;
    let post = "POST /p HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 5\r\n\r\nhello";
    assert!(ask(address, post).await.1.ends_with("\n\nhello"));
    let chunked =
        "POST /p HTTP/1.1\r\nHost: web.shop\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
    assert!(ask(address, chunked).await.1.ends_with("\n\nhello"));
    let mut raw = Raw::to(address).await;
    raw.say("POST /p HTTP/1.1\r\nHost: web.shop\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    assert!(raw.hear().await.0.starts_with("http/1.1 100 continue"));
    raw.say("ok").await;
    assert!(raw.hear().await.1.ends_with("\n\nok"));
    // A refused request is not told to go on.
    raw.say("POST /p HTTP/1.1\r\nHost: no.shop\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    assert!(raw.hear().await.0.starts_with("http/1.1 404"));
    let mut raw = Raw::to(address).await;
    raw.say("HEAD / HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n").await;
    let answer = raw.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("\r\n\r\n"), "{answer}");
    let (head, _) = ask(address, "GET http://web.shop:1/abs HTTP/1.1\r\nHost: nobody\r\n\r\n").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let mut raw = Raw::to(address).await;
    raw.say("GET / HTTP/1.0\r\nHost: web.shop\r\n\r\n").await;
    let answer = raw.rest().await;
    assert!(answer.starts_with("HTTP/1.0 200 OK") || answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

/// What must be refused, with its reason, and never reach an endpoint.
#[tokio::test]
async fn refusals() {
    let (_fed, address, _server) = echoing().await;
    let host = "Host: web.shop\r\n";
    let long = format!("GET /{} HTTP/1.1\r\n{host}\r\n", "a".repeat(16 * 1024));
    let longer = format!("GET /{} HTTP/1.1\r\n{host}\r\n", "a".repeat(70 * 1024));
    let large = format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "a".repeat(66 * 1024));
    let many = format!("GET / HTTP/1.1\r\n{host}{}\r\n", "X: y\r\n".repeat(128));
    for (case, request, status, reason) in [
        ("no host", "GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
        ("two hosts", "GET / HTTP/1.1\r\nHost: web.shop\r\nHost: web.shop\r\n\r\n", 400, "bad_request"),
        ("folded field", "GET / HTTP/1.1\r\nHost: web.shop\r\nX: a\r\n b\r\n\r\n", 400, "bad_request"),
        ("space before colon", "GET / HTTP/1.1\r\nHost : web.shop\r\n\r\n", 400, "bad_request"),
        ("no target", "GET\r\n\r\n", 400, "bad_request"),
        ("version 3", "GET / HTTP/3.0\r\nHost: web.shop\r\n\r\n", 505, "version_not_supported"),
        ("version 2 by name", "GET / HTTP/2.0\r\nHost: web.shop\r\n\r\n", 505, "version_not_supported"),
        ("connect", "CONNECT web.shop:80 HTTP/1.1\r\nHost: web.shop\r\n\r\n", 405, "method_not_allowed"),
        (
            "unknown coding",
            "POST / HTTP/1.1\r\nHost: web.shop\r\nTransfer-Encoding: gzip\r\n\r\n",
            501,
            "not_implemented",
        ),
        (
            "unknown coding before chunked",
            "POST / HTTP/1.1\r\nHost: web.shop\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            501,
            "not_implemented",
        ),
        (
            "chunked twice",
            "POST / HTTP/1.1\r\nHost: web.shop\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "bad_request",
        ),
        (
            "chunked in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: web.shop\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "bad_request",
        ),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            400,
            "bad_request",
        ),
        ("length +1", "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: +1\r\n\r\na", 400, "bad_request"),
        ("length -1", "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: -1\r\n\r\na", 400, "bad_request"),
        (
            "length 2^64 - 2",
            "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 18446744073709551614\r\n\r\na",
            400,
            "bad_request",
        ),
        (
            "length 2^64 - 1",
            "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 18446744073709551615\r\n\r\na",
            400,
            "bad_request",
        ),
        (
            "length 2^64",
            "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 18446744073709551616\r\n\r\na",
            400,
            "bad_request",
        ),
        (
            "bad chunk",
            "POST / HTTP/1.1\r\nHost: web.shop\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n",
            400,
            "bad_request",
        ),
        ("long target", &long, 414, "uri_too_long"),
        ("target longer than any head", &longer, 414, "uri_too_long"),
        ("large head", &large, 431, "headers_too_large"),
        ("many fields", &many, 431, "headers_too_large"),
        ("neither HTTP nor TLS", "SSH-2.0-OpenSSH_9\r\n", 400, "bad_request"),
    ] {
        let mut raw = Raw::to(address).await;
        raw.say(request).await;
        let answer = raw.rest().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{case}: {answer:.300}");
        assert!(answer.contains(&format!("x-maesh-reason: {reason}\r\n")), "{case}: {answer}");
    }
}

#[tokio::test]
async fn tls_that_nobody_claims_is_closed() {
    let (_fed, address, _server) = echoing().await;
    let mut raw = Raw::to(address).await;
    raw.say("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n").await;
    raw.stream.shutdown().await.expect("shut");
    assert_eq!(raw.rest().await, "");
}

/// What could be read in two ways is refused, or passed on so that it can be read in one way only.
#[tokio::test]
async fn nothing_is_smuggled() {
    let (_fed, address, _server) = echoing().await;
    let both = "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: web.shop\r\n\r\n";
    let mut raw = Raw::to(address).await;
    raw.say(both).await;
    let answer = raw.rest().await;
    assert!(!answer.contains("/evil"), "{answer}");
    assert!(!answer.contains("content-length: 6"), "{answer}");
    let bare = "GET / HTTP/1.1\nHost: web.shop\nX-A: b\nConnection: close\n\n";
    let mut raw = Raw::to(address).await;
    raw.say(bare).await;
    let answer = raw.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200") || answer.contains("x-maesh-reason: bad_request"), "{answer}");
}
