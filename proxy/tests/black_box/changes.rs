//! Endpoints and services that change while requests run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::support::{Fed, LOCAL, Raw, ask, config, endpoint, endpoints, get, policy, refusing, to, within};
use maesh_config::model::{BackendPolicy, Balance, Endpoint, EndpointHints, Protocol, Route, Scheme};
use maesh_proxy::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// 20,000 requests while the endpoints are swapped 50 times, and each removed one is stopped hard as soon as the change
/// is acknowledged: nobody notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_are_swapped_under_load() {
    const REQUESTS: u64 = 20_000;
    const SWAPS: u64 = 50;
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let mut servers = vec![endpoints::echo(false, "a").await, endpoints::echo(false, "b").await];
    let address = fed.http("web.shop", Scheme::Http, &[servers[0].address, servers[1].address]).await;
    let done = Arc::new(AtomicU64::new(0));
    let mut callers = tokio::task::JoinSet::new();
    for i in 0..8 {
        let done = done.clone();
        callers.spawn(async move {
            let mut raw = Raw::to(address).await;
            let mut failed = Vec::new();
            while done.fetch_add(1, Ordering::Relaxed) < REQUESTS {
                if i == 0 {
                    raw = Raw::to(address).await;
                }
                raw.say(&get("web.shop.maesh", "/")).await;
                let (head, _) = raw.hear().await;
                if !head.starts_with("http/1.1 200") {
                    failed.push(head);
                }
            }
            failed
        });
    }
    for swap in 0..SWAPS {
        within(async {
            while done.load(Ordering::Relaxed) < (swap + 1) * REQUESTS / (SWAPS + 2) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        servers.push(endpoints::echo(false, "next").await);
        let left = servers.remove(0);
        let now = servers.iter().map(|server| endpoint(server.address)).collect();
        fed.push_endpoints("web.shop", address.port(), Protocol::Http, now).await;
        left.stop().await;
    }
    let mut failed = Vec::new();
    while let Some(caller) = within(callers.join_next()).await {
        failed.extend(caller.expect("no panic"));
    }
    assert!(failed.is_empty(), "{} of {REQUESTS} failed: {:?}", failed.len(), failed.first());
}

#[tokio::test]
async fn a_connect_failure_is_tried_elsewhere_whatever_the_method() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let server = endpoints::echo(false, "one").await;
    let dead = refusing(LOCAL);
    let address = fed.http("web.shop", Scheme::Http, &[server.address, dead]).await;
    for _ in 0..20 {
        let post = "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 2\r\n\r\nhi";
        let (head, body) = ask(address, post).await;
        assert!(head.starts_with("http/1.1 200") && body.ends_with("hi"), "{head}");
    }
    let nobody = [refusing(LOCAL)];
    let address = fed.http("dead.shop", Scheme::Http, &nobody).await;
    let (head, _) = ask(address, &get("dead.shop", "/")).await;
    assert!(head.starts_with("http/1.1 502") && head.contains("x-maesh-reason: connect_failed"), "{head}");
}

/// An endpoint that is hinted to us and refuses connections is not all there is.
#[tokio::test]
async fn a_connect_failure_is_tried_beyond_the_hints() {
    let fed = Fed::new(Config { zone: Some("a".into()), ..config() }).await;
    fed.begin().await;
    let server = endpoints::echo(false, "far").await;
    let address = fed.http("web.shop", Scheme::Http, &[server.address]).await;
    let dead = refusing(LOCAL);
    let hinted = [(dead, "a"), (server.address, "b")].map(|(address, zone)| Endpoint {
        hints: EndpointHints::new(vec![zone.into()], Vec::new()),
        ..endpoint(address)
    });
    fed.push_endpoints("web.shop", address.port(), Protocol::Http, hinted.into()).await;
    for _ in 0..20 {
        let (head, body) = ask(address, &get("web.shop", "/")).await;
        assert!(head.starts_with("http/1.1 200") && body.starts_with("far "), "{head}{body}");
    }
}

/// An endpoint that answers one request on each connection and then closes it with the second request unread.
#[tokio::test]
async fn a_reused_connection_that_closes_is_not_the_callers_concern() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let server = endpoints::raw(|mut stream| async move {
        let mut bytes = [0; 4096];
        let _ = stream.read(&mut bytes).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        // The next request is on its way when the connection ends.
        let _ = stream.read(&mut bytes).await;
    })
    .await;
    let address = fed.http("web.shop", Scheme::Http, &[server]).await;
    let mut raw = Raw::to(address).await;
    for i in 0..10 {
        raw.say(&get("web.shop", "/")).await;
        let (head, body) = raw.hear().await;
        assert!(head.starts_with("http/1.1 200") && body == "ok", "{i}: {head}");
    }
    // A POST that was sent may have been acted on: it is told.
    raw.say("POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 2\r\n\r\nhi").await;
    let (head, _) = raw.hear().await;
    assert!(head.contains("x-maesh-reason: upstream_reset"), "{head}");
}

#[tokio::test]
async fn answers_that_are_no_http() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    for (case, answer, reason) in [
        ("garbage", "SSH-2.0-OpenSSH\r\n", "upstream_protocol"),
        ("nothing", "", "upstream_reset"),
        ("folded", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "upstream_protocol"),
    ] {
        let server = endpoints::raw(move |mut stream| async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await;
        let address = fed.http(&format!("{case}.shop"), Scheme::Http, &[server]).await;
        let (head, _) = ask(address, &get(&format!("{case}.shop"), "/")).await;
        assert!(head.starts_with("http/1.1 502"), "{case}: {head}");
        assert!(head.contains(&format!("x-maesh-reason: {reason}")), "{case}: {head}");
    }
}

#[tokio::test]
async fn conditions_of_endpoints() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let (a, b) = (endpoints::echo(false, "a").await, endpoints::echo(false, "b").await);
    let address = fed.http("web.shop", Scheme::Http, &[a.address]).await;
    let terminating = |of| {
        let mut endpoint = endpoint(of);
        (endpoint.ready, endpoint.serving, endpoint.terminating) = (false, true, true);
        endpoint
    };
    let unready = |of| {
        let mut endpoint = endpoint(of);
        (endpoint.ready, endpoint.serving) = (false, false);
        endpoint
    };
    for (case, set, want) in [
        ("one ready", vec![endpoint(a.address)], "a "),
        ("the terminating one is left alone", vec![endpoint(a.address), terminating(b.address)], "a "),
        ("unless there is no other", vec![unready(a.address), terminating(b.address)], "b "),
        ("none", vec![unready(a.address)], "maesh: no_endpoints"),
        ("none at all", vec![], "maesh: no_endpoints"),
        ("back again", vec![endpoint(b.address)], "b "),
    ] {
        fed.push_endpoints("web.shop", address.port(), Protocol::Http, set).await;
        for _ in 0..10 {
            let (_, body) = ask(address, &get("web.shop", "/")).await;
            assert!(body.starts_with(want), "{case}: {body}");
        }
    }
}

#[tokio::test]
async fn a_source_keeps_its_endpoint() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let servers = [endpoints::echo(false, "a").await, endpoints::echo(false, "b").await];
    let address = fed.http("web.shop", Scheme::Http, &[servers[0].address, servers[1].address]).await;
    let mut sticky = policy(Scheme::Http);
    sticky.balance = Balance::SourceHash { timeout: Duration::from_secs(10_800) };
    fed.define("web.shop", address.port(), Protocol::Http, sticky, Vec::new());
    let (_, first) = ask(address, &get("web.shop", "/")).await;
    for _ in 0..20 {
        assert_eq!(ask(address, &get("web.shop", "/")).await.1, first);
    }
}

#[tokio::test]
async fn weights_and_warming() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let (a, b) = (endpoints::echo(false, "a").await, endpoints::echo(false, "b").await);
    let address = fed.http("web.shop", Scheme::Http, &[a.address]).await;
    let port = address.port();
    assert!(ask(address, &get("web.shop", "/")).await.1.starts_with("a "));
    // The new version sends to a Service whose endpoints are not here yet: the old one goes on.
    fed.answering.send_replace(false);
    let split = vec![Route {
        rule: None,
        backends: vec![to("v1.shop", port, 3), to("v2.shop", port, 1)],
        not_understood: None,
    }];
    fed.define("web.shop", port, Protocol::Http, policy(Scheme::Http), split);
    for (name, server) in [("v1.shop", &a), ("v2.shop", &b)] {
        fed.define(name, port, Protocol::Http, policy(Scheme::Http), Vec::new());
        fed.define_endpoints(name, port, Protocol::Http, vec![endpoint(server.address)]);
    }
    fed.push_service("web.shop").await;
    for _ in 0..20 {
        assert!(ask(address, &get("web.shop", "/")).await.1.starts_with("a "));
    }
    fed.answering.send_replace(true);
    let mut to_b = 0;
    within(async {
        while to_b == 0 {
            to_b += u32::from(ask(address, &get("web.shop", "/")).await.1.starts_with("b "));
        }
    })
    .await;
    to_b = 0;
    for _ in 0..200 {
        to_b += u32::from(ask(address, &get("web.shop", "/")).await.1.starts_with("b "));
    }
    assert!((20..90).contains(&to_b), "{to_b} of 200 went to a quarter");
    for (case, backends, reason) in [
        ("a backend that does not exist", vec![to("gone.shop", port, 1)], "bad_backend"),
        ("a port that does not exist", vec![to("v1.shop", 1, 1)], "bad_backend"),
        ("all weights 0", vec![to("v1.shop", port, 0)], "no_endpoints"),
    ] {
        fed.define(
            "web.shop",
            port,
            Protocol::Http,
            policy(Scheme::Http),
            vec![Route { rule: None, backends, not_understood: None }],
        );
        fed.push_service("web.shop").await;
        within(async {
            loop {
                let (head, _) = ask(address, &get("web.shop", "/")).await;
                if head.contains(&format!("x-maesh-reason: {reason}")) {
                    return;
                }
                assert!(head.starts_with("http/1.1 200") || head.contains("x-maesh-reason"), "{case}: {head}");
            }
        })
        .await;
    }
}

/// A route names a port of another Service that does not have it yet, or for a while.
#[tokio::test]
async fn a_backends_port_that_comes_later_is_found() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let server = endpoints::echo(false, "v1").await;
    let address = fed.http("web.shop", Scheme::Http, &[]).await;
    let port = address.port();
    let define = |number| fed.define("v1.shop", number, Protocol::Http, policy(Scheme::Http), Vec::new());
    let routes = vec![Route { rule: None, backends: vec![to("v1.shop", port, 1)], not_understood: None }];
    fed.define("web.shop", port, Protocol::Http, policy(Scheme::Http), routes);
    fed.define_endpoints("v1.shop", port, Protocol::Http, vec![endpoint(server.address)]);
    define(port - 1);
    for (case, number, want) in [
        ("not yet", None, "maesh: bad_backend"),
        ("now", Some(port), "v1 "),
        ("not any more", Some(port - 1), "maesh: bad_backend"),
        ("again", Some(port), "v1 "),
    ] {
        if let Some(number) = number {
            define(number);
            fed.push_service("v1.shop").await;
        }
        let (_, body) = ask(address, &get("web.shop", "/")).await;
        assert!(body.starts_with(want), "{case}: {body}");
    }
}

/// However long an update takes to apply, callers are served and what is measured in seconds goes on. Here the thread
/// that applies updates does nothing at all.
#[tokio::test]
async fn callers_do_not_wait_for_whoever_applies_the_configuration() {
    use std::io::{Read, Write};
    let mut config = config();
    config.limits.keep_alive = Duration::from_millis(200);
    let fed = Fed::new(config).await;
    fed.begin().await;
    let address = fed.listen(&[]).await;
    // From here on this thread, which is also the writer's, blocks.
    let mut stream = std::net::TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    stream.write_all(get("nobody.shop", "/").as_bytes()).expect("written");
    let mut all = String::new();
    stream.read_to_string(&mut all).expect("answered, then closed because it is idle");
    assert!(all.contains("x-maesh-reason: unknown_host"), "{all}");
}

/// A controller of a newer version says something of a route, or of a backend, that this version must not ignore.
#[tokio::test]
async fn what_is_not_understood_is_refused_and_nothing_else_is() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let server = endpoints::echo(false, "v").await;
    let address = fed.http("web.shop", Scheme::Http, &[server.address]).await;
    let other = fed.http("v1.shop", Scheme::Http, &[server.address]).await;
    let (port, v1) = (address.port(), other.port());
    let route = |not_understood| vec![Route { rule: None, backends: vec![to("v1.shop", v1, 1)], not_understood }];
    let newer = || BackendPolicy { not_understood: Some(70), ..policy(Scheme::Http) };
    let refused = "maesh: unsupported_policy";
    for (case, web, routes, backend, want, want_of_backend) in [
        ("nothing is new", policy(Scheme::Http), vec![], policy(Scheme::Http), "v ", "v "),
        ("the route", policy(Scheme::Http), route(Some(64)), policy(Scheme::Http), refused, "v "),
        ("a policy that the route does not use", newer(), route(None), policy(Scheme::Http), "v ", "v "),
        ("a policy of the port", newer(), vec![], policy(Scheme::Http), refused, "v "),
        ("a policy of the backend", policy(Scheme::Http), route(None), newer(), refused, refused),
        ("understood again", policy(Scheme::Http), route(None), policy(Scheme::Http), "v ", "v "),
    ] {
        fed.define("v1.shop", v1, Protocol::Http, backend, Vec::new());
        fed.push_service("v1.shop").await;
        fed.define("web.shop", port, Protocol::Http, web, routes);
        fed.push_service("web.shop").await;
        for (address, name, want) in [(other, "v1.shop", want_of_backend), (address, "web.shop", want)] {
            let (head, body) = ask(address, &get(name, "/")).await;
            assert!(body.starts_with(want), "{case}: {name}: {head}{body}");
        }
    }
}
