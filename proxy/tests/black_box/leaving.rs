//! A port that is about to carry something else, or does: what becomes of the HTTP/1.1 connections that were kept.

use std::{net::SocketAddr, time::Duration};

use crate::support::{Fed, LOCAL, Raw, config, echoing, endpoints, get, hasty, policy, within};
use maesh_config::model::{Protocol, Scheme};
use maesh_proxy::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A Service in force with an endpoint, and a connection to it that was used once and is kept.
async fn kept() -> (Fed, endpoints::Server, Raw, SocketAddr) {
    let (fed, address, server) = echoing().await;
    let mut kept = Raw::to(address).await;
    kept.say(&get("web.shop", "/")).await;
    let (head, _) = kept.hear().await;
    assert!(head.starts_with("http/1.1 200") && !head.contains("connection: close"), "{head}");
    (fed, server, kept, address)
}

/// A port that carries something else from now on: who keeps a connection is served, and sent to look again.
#[tokio::test]
async fn a_port_that_leaves_serves_and_sends_its_callers_away() {
    let (fed, _server, mut kept, address) = kept().await;
    fed.define_leaving("web.shop", address.port(), Protocol::Http);
    fed.push_service("web.shop").await;
    kept.say(&get("web.shop", "/")).await;
    let (head, _) = kept.hear().await;
    assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
    assert_eq!(kept.rest().await, "", "and closed");
}

/// An answer that was under way all the time that a port was leaving: its connection does not stay longer than others.
#[tokio::test]
async fn what_was_busy_while_a_port_left_ends_once_it_is_idle() {
    let fed = Fed::new(hasty()).await;
    fed.begin().await;
    let server = tokio::net::TcpListener::bind((LOCAL, 0)).await.expect("bound");
    let address = fed.http("web.shop", Scheme::Http, &[server.local_addr().expect("bound")]).await;
    let (mut idle, mut busy) = (Raw::to(address).await, Raw::to(address).await);
    // Refused and kept, so that it is idle.
    idle.say(&get("nobody.shop", "/")).await;
    assert!(idle.hear().await.0.starts_with("http/1.1 404"));
    busy.say(&get("web.shop", "/")).await;
    let (mut endpoint, _) = within(server.accept()).await.expect("a connection");
    within(endpoint.read(&mut [0; 1024])).await.expect("a request");
    endpoint.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await.expect("written");
    let head = busy.head().await;
    assert!(head.starts_with("http/1.1 200") && !head.contains("connection: close"), "{head}");
    fed.define_leaving("web.shop", address.port(), Protocol::Http);
    fed.push_service("web.shop").await;
    assert_eq!(idle.rest().await, "", "it was looked at while the port was leaving, and so were all");
    fed.define("web.shop", address.port(), Protocol::Tcp, policy(Scheme::Http), Vec::new());
    fed.push_service("web.shop").await;
    endpoint.write_all(b"late").await.expect("written");
    assert_eq!(busy.rest().await, "late", "and closed");
}

/// A stream that began while its port was leaving may go on for days: nobody is sent away for it when the port is gone.
#[tokio::test]
async fn a_stream_that_goes_on_keeps_no_port_leaving() {
    let mut config = hasty();
    config.limits.head_timeout = Duration::from_secs(1);
    let fed = Fed::new(config).await;
    fed.begin().await;
    let server = tokio::net::TcpListener::bind((LOCAL, 0)).await.expect("bound");
    let address = fed.http("web.shop", Scheme::Http, &[server.local_addr().expect("bound")]).await;
    fed.define_leaving("web.shop", address.port(), Protocol::Http);
    fed.push_service("web.shop").await;
    let mut busy = Raw::to(address).await;
    busy.say(&get("web.shop", "/")).await;
    let (mut endpoint, _) = within(server.accept()).await.expect("a connection");
    within(endpoint.read(&mut [0; 1024])).await.expect("a request");
    endpoint.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await.expect("written");
    assert!(busy.head().await.starts_with("http/1.1 200"));
    fed.define("web.shop", address.port(), Protocol::Tcp, policy(Scheme::Http), Vec::new());
    fed.push_service("web.shop").await;
    let other = endpoints::echo(false, "other").await;
    let other = fed.http("other.shop", Scheme::Http, &[other.address]).await;
    let (mut idle, mut slow) = (Raw::to(other).await, Raw::to(other).await);
    idle.say(&get("other.shop", "/")).await;
    assert!(idle.hear().await.0.starts_with("http/1.1 200"));
    slow.say("GET / HT").await;
    assert_eq!(slow.rest().await, "", "all connections were looked at since");
    idle.say(&get("other.shop", "/")).await;
    assert!(idle.hear().await.0.starts_with("http/1.1 200"));
    endpoint.write_all(b"late").await.expect("written");
    assert!(busy.rest().await.ends_with("late"));
}

/// Whoever was not sent away in time is with the first refusal.
#[tokio::test]
async fn a_port_that_left_ends_its_callers_connections() {
    let (fed, _server, mut kept, address) = kept().await;
    fed.define("web.shop", address.port(), Protocol::Tcp, policy(Scheme::Http), Vec::new());
    fed.push_service("web.shop").await;
    kept.say(&get("web.shop", "/")).await;
    let (head, _) = kept.hear().await;
    assert!(head.contains("x-maesh-reason: no_route") && head.contains("connection: close"), "{head}");
    assert_eq!(kept.rest().await, "", "and closed");
}

/// A caller whose connection was made, and not accepted yet, when the proxy stops accepting gets its answer.
#[tokio::test]
async fn connections_that_wait_to_be_accepted_are_answered_by_a_proxy_that_ends() {
    let server = endpoints::echo(false, "one").await;
    for _ in 0..20 {
        let mut fed = Fed::new(config()).await;
        fed.begin().await;
        let address = fed.http("web.shop", Scheme::Http, &[server.address]).await;
        // More than can be accepted while the proxy hears that it is to end.
        let streams: Vec<_> = (0..200)
            .map(|_| {
                let stream = std::net::TcpStream::connect(address).expect("connected");
                stream.set_nonblocking(true).expect("set");
                stream
            })
            .collect();
        let drained = tokio::spawn(fed.proxy.take().expect("running").drain());
        let calls = streams.into_iter().map(|stream| async move {
            let mut stream = tokio::net::TcpStream::from_std(stream).expect("a stream");
            stream.write_all(get("web.shop.maesh", "/").as_bytes()).await.expect("written");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("read");
            answer
        });
        for answer in within(futures_util::future::join_all(calls)).await {
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        assert_eq!(within(drained).await.expect("drained"), 0);
    }
}

/// Connections that say nothing before a drain begins, or are opened while it has, and ask only later: within the drain
/// window or after it, and beside requests in flight.
#[tokio::test]
async fn connections_that_ask_late_are_answered_by_a_proxy_that_ends() {
    const SILENT: usize = 125;
    const BUSY: usize = 400;
    let (free, is_free) = tokio::sync::watch::channel(false);
    let server = endpoints::serve(false, move |request| {
        let mut is_free = is_free.clone();
        async move {
            if request.uri().path() == "/slow" {
                is_free.wait_for(|free| *free).await.expect("told");
            }
            http::Response::new(endpoints::full("done"))
        }
    })
    .await;
    let window = Duration::from_secs(5);
    let config = Config { drain_horizon: window, drain_timeout: Duration::from_secs(60), ..config() };
    let mut fed = Fed::new(config).await;
    fed.begin().await;
    let address = fed.http("web.shop", Scheme::Http, &[server.address]).await;
    let mut busy = Vec::new();
    for _ in 0..BUSY {
        let mut raw = Raw::to(address).await;
        raw.say(&get("web.shop", "/slow")).await;
        busy.push(raw);
    }
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(Raw::to(address).await);
    }
    let drained = tokio::spawn(fed.proxy.take().expect("running").drain());
    within(fed.report.wait_for(|ready| !*ready)).await.expect("told");
    for _ in 0..SILENT {
        silent.push(Raw::to(address).await);
    }
    let after = silent.split_off(SILENT / 2 * 3);
    for mut raw in silent {
        raw.say(&get("web.shop", "/")).await;
        assert!(raw.hear().await.0.starts_with("http/1.1 200"));
    }
    // The window is over once nothing listens any more.
    within(async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for mut raw in after {
        raw.say(&get("web.shop", "/")).await;
        let (head, _) = raw.hear().await;
        assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
    }
    free.send_replace(true);
    for mut raw in busy {
        assert!(raw.hear().await.0.starts_with("http/1.1 200"));
    }
    assert_eq!(within(drained).await.expect("drained"), 0);
}
