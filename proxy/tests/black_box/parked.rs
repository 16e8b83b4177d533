//! Idle connections of HTTP/1.1 that have given their buffers back: nobody can tell them from others.

use std::time::Duration;

use maesh_config::model::Scheme;
use maesh_proxy::{Config, Limits};
use tokio::io::AsyncWriteExt;

use crate::support::{Fed, Raw, endpoints, get, hasty, within};

/// Connections that have answered a request, and have been idle for longer than the proxy keeps their buffers.
async fn parked(count: usize) -> (Fed, Vec<Raw>, endpoints::Server) {
    let limits = Limits { park_after: Duration::ZERO, head_timeout: Duration::from_secs(2), ..Limits::default() };
    let fed = Fed::new(Config { limits, ..hasty() }).await;
    fed.begin().await;
    let server = endpoints::echo(false, "web").await;
    let address = fed.http("web.shop", Scheme::Http, &[server.address]).await;
    let mut connections = Vec::new();
    for _ in 0..count {
        let mut raw = Raw::to(address).await;
        raw.say(&get("web.shop", "/first")).await;
        assert!(raw.hear().await.0.starts_with("http/1.1 200"));
        connections.push(raw);
    }
    // Idle connections are looked at twice a second. One whose head does not come ends after two seconds, by the same hand.
    let mut slow = Raw::to(address).await;
    slow.say("GET / HTTP/1.1\r\nHost").await;
    slow.rest().await;
    (fed, connections, server)
}

const CHUNKED: &str =
    "POST /chunks HTTP/1.1\r\nHost: web.shop\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

#[tokio::test]
async fn a_parked_connection_serves_whatever_comes() {
    let (_fed, connections, _server) = parked(6).await;
    let two = get("web.shop", "/one") + &get("web.shop", "/two");
    let closing = get("web.shop", "/last").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let cases = [
        ("a request", get("web.shop", "/again"), vec!["200"]),
        ("two at once", two, vec!["200", "200"]),
        ("a body in chunks", CHUNKED.to_owned(), vec!["200"]),
        ("the last one", closing, vec!["200"]),
        ("an unknown host", get("nobody.shop", "/"), vec!["404"]),
        ("what is no request", "x\r\n\r\n".to_owned(), vec!["400"]),
    ];
    for (mut raw, (case, said, statuses)) in connections.into_iter().zip(cases) {
        raw.say(&said).await;
        for status in statuses {
            let (head, body) = raw.hear().await;
            assert!(head.starts_with(&format!("http/1.1 {status}")), "{case}: {head}{body}");
            assert_eq!(body.contains("hello"), case == "a body in chunks", "{case}: {body}");
        }
        if case == "the last one" {
            assert_eq!(raw.rest().await, "", "{case}");
        }
    }
}

/// A head that begins on such a connection has to come in time, and may come in pieces.
#[tokio::test]
async fn a_head_in_pieces_wakes_a_parked_connection() {
    let (_fed, mut connections, _server) = parked(2).await;
    let (mut slow, mut stuck) = (connections.pop().expect("one"), connections.pop().expect("another"));
    let request = get("web.shop", "/pieces");
    for byte in request.as_bytes() {
        slow.stream.write_all(&[*byte]).await.expect("written");
        tokio::task::yield_now().await;
    }
    assert!(slow.hear().await.0.starts_with("http/1.1 200"));
    stuck.say("GET /never HTTP/1.1\r\n").await;
    assert_eq!(stuck.rest().await, "");
}

/// They end with their callers, and with the proxy.
#[tokio::test]
async fn parked_connections_end() {
    let (mut fed, mut connections, _server) = parked(4).await;
    let open = |fed: &Fed| fed.counted("maesh_proxy_connections_open", &["protocol=\"http\""]);
    // What began the mesh for this test may still be ending.
    within(until(|| open(&fed) == 4)).await;
    drop(connections.pop());
    within(until(|| open(&fed) == 3)).await;
    // One that only ends its side is not owed anything.
    let mut half = connections.pop().expect("one");
    half.stream.shutdown().await.expect("ended");
    assert_eq!(half.rest().await, "");
    within(until(|| open(&fed) == 2)).await;
    let drained = tokio::spawn(fed.proxy.take().expect("running").drain());
    for mut raw in connections {
        assert_eq!(raw.rest().await, "");
    }
    within(drained).await.expect("drained");
}

async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
