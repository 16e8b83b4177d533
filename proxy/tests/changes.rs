//! What changes while requests run: endpoints, services, listeners, first uses, the end.

mod support;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http_body_util::BodyExt;
use maesh_config::{
    Kind, Resource,
    model::{Balance, Claim, Endpoint, Protocol, Route, Scheme, Workload, WorkloadKind},
    update::Demand,
};
use maesh_proxy::Config;
use support::{
    Fed, LOCAL, Raw, ask, config, endpoint, endpoints, free_port, get, listener, policy, service, to, within,
};
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
    let dead = SocketAddr::new(LOCAL, free_port());
    let address = fed.http("web.shop", Scheme::Http, &[server.address, dead]).await;
    for _ in 0..20 {
        let post = "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 2\r\n\r\nhi";
        let (head, body) = ask(address, post).await;
        assert!(head.starts_with("http/1.1 200") && body.ends_with("hi"), "{head}");
    }
    let nobody = [SocketAddr::new(LOCAL, free_port())];
    let address = fed.http("dead.shop", Scheme::Http, &nobody).await;
    let (head, _) = ask(address, &get("dead.shop", "/")).await;
    assert!(head.starts_with("http/1.1 502") && head.contains("x-maesh-reason: connect_failed"), "{head}");
}

/// An endpoint that answers one request on each connection and then closes it with the second request unread.
#[tokio::test]
async fn a_reused_connection_that_closes_is_not_the_callers_concern() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let listening = tokio::net::TcpListener::bind((LOCAL, 0)).await.expect("bound");
    let server = listening.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listening.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                let _ = stream.read(&mut bytes).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                // The next request is on its way when the connection ends.
                let _ = stream.read(&mut bytes).await;
            });
        }
    });
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
        let listening = tokio::net::TcpListener::bind((LOCAL, 0)).await.expect("bound");
        let server = listening.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listening.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
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
    let split = vec![Route { backends: vec![to("v1.shop", port, 3), to("v2.shop", port, 1)] }];
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
        fed.define("web.shop", port, Protocol::Http, policy(Scheme::Http), vec![Route { backends }]);
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

#[tokio::test]
async fn first_use_while_the_controller_is_away() {
    let mut config = config();
    config.first_use = Duration::from_millis(100);
    let fed = Fed::new(config).await;
    fed.begin().await;
    fed.answering.send_replace(false);
    fed.connected.send_replace(false);
    let plain = endpoints::echo(false, "plain").await;
    let port = plain.address.port();
    // The proxy listens beside the plain address, so the Service's port and the listener's differ here.
    let listen = fed.listen(&[]).await;
    fed.name("web.shop", port, listen.port(), Protocol::Http, &[LOCAL]).await;
    let (head, body) = ask(listen, &get("web.shop", "/")).await;
    assert!(head.starts_with("http/1.1 200") && body.starts_with("plain "), "{head}{body}");
    assert!(fed.metrics().contains("maesh_proxy_plain_fallback_total 1"));
    fed.mesh(true).await;
    let (head, _) = ask(listen, &get("web.shop", "/")).await;
    assert!(head.starts_with("http/1.1 503") && head.contains("x-maesh-reason: not_synced"), "{head}");
    // Once the configuration is here, it holds.
    let real = endpoints::echo(false, "real").await;
    fed.define("web.shop", port, Protocol::Http, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("web.shop", port, Protocol::Http, vec![endpoint(real.address)]);
    fed.answering.send_replace(true);
    within(async { while !ask(listen, &get("web.shop", "/")).await.1.starts_with("real ") {} }).await;
}

/// What a subscriber kept on disk comes before it was asked for, and is not sent again when it is.
#[tokio::test]
async fn what_was_kept_over_a_restart_is_served_at_once_and_let_go_of_when_unused() {
    let mut config = config();
    config.idle_service = Duration::from_secs(1);
    let fed = Fed::new(config).await;
    fed.answering.send_replace(false);
    let server = endpoints::echo(false, "kept").await;
    let listen = free_port();
    let routes = vec![Route { backends: vec![to("web.shop", listen, 1), to("gone.shop", listen, 0)] }];
    fed.define("web.shop", listen, Protocol::Http, policy(Scheme::Http), routes);
    let gone = service("gone.shop").to_string();
    fed.push(Kind::Endpoints, Vec::new(), vec![&gone]).await;
    fed.push_endpoints("web.shop", listen, Protocol::Http, vec![endpoint(server.address)]).await;
    fed.push(Kind::Service, Vec::new(), vec![&gone]).await;
    fed.push_service("web.shop").await;
    let address = fed.listen_on(listen, None, true, &[]).await;
    fed.name("web.shop", listen, listen, Protocol::Http, &[]).await;
    let (head, body) = ask(address, &get("web.shop", "/")).await;
    assert!(head.starts_with("http/1.1 200") && body.starts_with("kept "), "{head}{body}");
    fed.answering.send_replace(true);
    for name in ["web.shop", "gone.shop"] {
        let key = service(name).to_string();
        for kind in [Kind::Service, Kind::Endpoints] {
            let released = Demand::Unsubscribe(kind, key.as_str().into());
            let said = || fed.demands.lock().expect("lock").contains(&released);
            within(async {
                while !said() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
            .await;
        }
    }
}

#[tokio::test]
async fn unused_services_are_let_go_of() {
    let mut config = config();
    config.idle_service = Duration::from_millis(200);
    let fed = Fed::new(config).await;
    fed.begin().await;
    let server = endpoints::echo(false, "one").await;
    let address = fed.http("web.shop", Scheme::Http, &[server.address]).await;
    assert_eq!(fed.demands.lock().expect("lock").len(), 0, "nothing is asked for before it is used");
    assert!(ask(address, &get("web.shop", "/")).await.0.starts_with("http/1.1 200"));
    let key = service("web.shop").to_string();
    let gone = Demand::Unsubscribe(Kind::Endpoints, key.as_str().into());
    within(async {
        while !fed.demands.lock().expect("lock").contains(&gone) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(ask(address, &get("web.shop", "/")).await.0.starts_with("http/1.1 200"), "and asked for again");
}

/// A proxy follows the hints for the zone that it was given, or else for the one that the controller says of its node.
#[tokio::test]
async fn the_zone_is_given_or_comes_from_the_controller() {
    for (case, given, wants) in [("given", Some("a"), ["a", "a"]), ("from the controller", None, ["a", "b"])] {
        let node_address = Some("192.0.2.1".parse().expect("an address"));
        let fed = Fed::new(Config { node_address, zone: given.map(Into::into), ..config() }).await;
        fed.begin().await;
        let servers = [endpoints::echo(false, "a").await, endpoints::echo(false, "b").await];
        let address = fed.http("web.shop", Scheme::Http, &[servers[0].address]).await;
        let hinted = |(server, zone): (&endpoints::Server, &str)| Endpoint {
            for_zones: vec![zone.into()],
            ..endpoint(server.address)
        };
        let hinted = servers.iter().zip(["a", "b"]).map(hinted).collect();
        fed.push_endpoints("web.shop", address.port(), Protocol::Http, hinted).await;
        assert!(ask(address, &get("web.shop", "/")).await.0.starts_with("http/1.1 200"), "{case}: without any word");
        for (zone, want) in ["a", "b"].into_iter().zip(wants) {
            fed.push(Kind::Workload, vec![node("192.0.2.9", "c"), node("192.0.2.1", zone)], vec![]).await;
            for _ in 0..20 {
                let (_, body) = ask(address, &get("web.shop", "/")).await;
                assert!(body.starts_with(want), "{case}, told {zone}: {body}");
            }
        }
        let asked = Demand::Subscribe(Kind::Workload, "192.0.2.1".into());
        assert_eq!(fed.demands.lock().expect("lock").contains(&asked), given.is_none(), "{case}");
    }
}

/// The workload of a node in this zone.
fn node(address: &str, zone: &str) -> Resource {
    Resource::Workload(Workload {
        address: format!("{address}/32").parse().expect("an address"),
        kind: WorkloadKind::Node,
        namespace: None,
        name: "n1".into(),
        service_account: None,
        node: Some("n1".into()),
        zone: Some(zone.into()),
    })
}

#[tokio::test]
async fn listeners_come_and_go() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let server = endpoints::echo(false, "one").await;
    let kept = fed.http("web.shop", Scheme::Http, &[server.address]).await;
    let mut open = Raw::to(kept).await;
    // An own address: whatever the Host.
    let own = fed.listen_on(free_port(), Some(("own.shop", 80)), true, &[]).await;
    fed.define("own.shop", 80, Protocol::Http, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("own.shop", 80, Protocol::Http, vec![endpoint(server.address)]);
    fed.name("own.shop", 80, own.port(), Protocol::Http, &[]).await;
    for host in ["own.shop", "www.example.com", "web.shop.maesh"] {
        let (head, body) = ask(own, &get(host, "/")).await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(body.contains("\nx-forwarded-port: 80\n"), "the Service's port: {body}");
    }
    // A claimed host, on the port where it is claimed.
    let claimed = fed.listen(&[("www.example.com", "web.shop"), ("*.example.org", "web.shop")]).await;
    fed.name("web.shop", kept.port(), claimed.port(), Protocol::Http, &[]).await;
    for (host, status) in [("www.example.com", 200), ("a.example.org", 200), ("example.org", 404), ("web.shop", 200)] {
        let (head, _) = ask(claimed, &get(host, "/")).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{host}: {head}");
    }
    let (head, _) = ask(kept, &get("web.shop", "/")).await;
    assert!(head.contains("x-maesh-reason: no_route"), "it left this port: {head}");
    fed.name("web.shop", kept.port(), kept.port(), Protocol::Http, &[]).await;
    // A port that is taken is refused, with what to do; the others are untouched.
    let taken = std::net::TcpListener::bind((LOCAL, 0)).expect("bound");
    let port = taken.local_addr().expect("bound").port();
    let refused = fed.push(Kind::Listener, vec![Resource::Listener(listener(port, None, true, &[]))], vec![]).await;
    assert_eq!(refused.len(), 1);
    assert!(refused[0].message.contains(&port.to_string()) && refused[0].message.contains("in use"), "{refused:?}");
    // One that is removed accepts no more; its connections live on.
    let mut on_own = Raw::to(own).await;
    on_own.say(&get("own.shop", "/")).await;
    on_own.hear().await;
    let id = listener(own.port(), Some(("own.shop", 80)), true, &[]).id;
    fed.push(Kind::Listener, vec![], vec![&id.0]).await;
    within(async {
        while tokio::net::TcpStream::connect(own).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    on_own.say(&get("own.shop", "/")).await;
    assert!(on_own.hear().await.0.starts_with("http/1.1 200"));
    open.say(&get("web.shop", "/")).await;
    assert!(open.hear().await.0.starts_with("http/1.1 200"));
}

#[tokio::test]
async fn a_listener_that_lingers_can_come_back() {
    let fed = Fed::new(Config { linger: Duration::from_millis(200), ..config() }).await;
    fed.begin().await;
    let server = endpoints::echo(false, "one").await;
    let address = fed.http("web.shop", Scheme::Http, &[server.address]).await;
    let id = listener(address.port(), None, true, &[]).id;
    fed.push(Kind::Listener, vec![], vec![&id.0]).await;
    assert!(ask(address, &get("web.shop", "/")).await.0.starts_with("http/1.1 200"), "it lingers");
    fed.listen_on(address.port(), None, true, &[]).await;
    assert!(ask(address, &get("web.shop", "/")).await.0.starts_with("http/1.1 200"), "it is back");
    fed.push(Kind::Listener, vec![], vec![&id.0]).await;
    within(async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight() {
    let mut fed = Fed::new(config()).await;
    fed.begin().await;
    let (go, wait) = tokio::sync::watch::channel(false);
    let server = endpoints::serve(false, move |request| {
        let mut wait = wait.clone();
        async move {
            if request.uri().path() == "/slow" {
                wait.wait_for(|go| *go).await.expect("told");
            }
            let _ = request.into_body().collect().await;
            http::Response::new(endpoints::full("done"))
        }
    })
    .await;
    let address = fed.http("web.shop", Scheme::Http, &[server.address]).await;
    assert!(*fed.report.borrow(), "ready");
    let mut slow = Raw::to(address).await;
    slow.say(&get("web.shop", "/")).await;
    slow.hear().await;
    slow.say(&get("web.shop", "/slow")).await;
    let mut idle = Raw::to(address).await;
    idle.say(&get("web.shop", "/")).await;
    idle.hear().await;
    let proxy = fed.proxy.take().expect("running");
    let ready = proxy.ready();
    let drained = tokio::spawn(proxy.drain());
    within(fed.report.wait_for(|ready| !*ready)).await.expect("told");
    assert!(!*ready.borrow());
    assert_eq!(within(idle.rest()).await, "", "an idle connection ends");
    go.send_replace(true);
    let (head, body) = slow.hear().await;
    assert!(head.starts_with("http/1.1 200") && body == "done", "{head}");
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    assert_eq!(within(drained).await.expect("drained"), 0);
}

#[tokio::test]
async fn limits_on_connections() {
    let mut config = Config { workers: 1, ..config() };
    config.limits.connections_per_caller = 2;
    config.limits.head_timeout = Duration::from_millis(300);
    let fed = Fed::new(config).await;
    fed.begin().await;
    let server = endpoints::echo(false, "one").await;
    let address = fed.http("web.shop", Scheme::Http, &[server.address]).await;
    let mut first = Raw::to(address).await;
    first.say(&get("web.shop", "/")).await;
    first.hear().await;
    let mut second = Raw::to(address).await;
    second.say("GET / HT").await;
    let mut third = Raw::to(address).await;
    third.say(&get("web.shop", "/")).await;
    assert!(third.rest().await.contains("x-maesh-reason: overloaded"));
    // A head that does not come to its end is not waited for.
    assert_eq!(second.rest().await, "");
    first.say(&get("web.shop", "/")).await;
    assert!(first.hear().await.0.starts_with("http/1.1 200"), "an idle connection is another matter");
}

#[tokio::test]
async fn too_many_requests_in_flight() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let (go, wait) = tokio::sync::watch::channel(false);
    let server = endpoints::serve(false, move |_| {
        let mut wait = wait.clone();
        async move {
            wait.wait_for(|go| *go).await.expect("told");
            http::Response::new(endpoints::full("done"))
        }
    })
    .await;
    let address = fed.http("web.shop", Scheme::Http, &[server.address]).await;
    let mut narrow = policy(Scheme::Http);
    narrow.concurrency = 1;
    fed.define("web.shop", address.port(), Protocol::Http, narrow, Vec::new());
    let mut first = Raw::to(address).await;
    first.say(&get("web.shop", "/")).await;
    // The first one is in flight once another is refused.
    within(async {
        loop {
            let mut other = Raw::to(address).await;
            other.say(&get("web.shop", "/")).await;
            let refused = tokio::time::timeout(Duration::from_millis(200), other.hear()).await;
            if refused.is_ok_and(|(head, _)| head.contains("x-maesh-reason: overloaded")) {
                return;
            }
        }
    })
    .await;
    go.send_replace(true);
    let (head, _) = first.hear().await;
    assert!(head.starts_with("http/1.1 200") || head.contains("overloaded"), "{head}");
}

#[tokio::test]
async fn opaque_streams() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let listening = tokio::net::TcpListener::bind((LOCAL, 0)).await.expect("bound");
    let server = listening.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listening.accept().await {
            tokio::spawn(async move {
                let mut all = Vec::new();
                let _ = stream.read_to_end(&mut all).await;
                let _ = stream.write_all(&all).await;
            });
        }
    });
    let address = fed.listen_on(free_port(), Some(("db.shop", 5432)), false, &[]).await;
    fed.define("db.shop", 5432, Protocol::Tcp, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("db.shop", 5432, Protocol::Tcp, vec![endpoint(server)]);
    fed.name("db.shop", 5432, address.port(), Protocol::Tcp, &[IpAddr::from([10, 96, 0, 9])]).await;
    let mut raw = Raw::to(address).await;
    raw.say("all of it").await;
    raw.stream.shutdown().await.expect("half closed");
    assert_eq!(raw.rest().await, "all of it");
    fed.push_endpoints("db.shop", 5432, Protocol::Tcp, vec![]).await;
    // The reset may come as early as the end of the handshake.
    let error = match tokio::net::TcpStream::connect(address).await {
        Ok(mut stream) => within(stream.read(&mut [0; 8])).await.expect_err("reset"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// A hello that says `name`, and nothing that could be agreed on: enough to be routed by.
fn hello(name: &str) -> Vec<u8> {
    let length = |len: usize| u16::try_from(len).expect("short").to_be_bytes();
    let mut entry = vec![0];
    entry.extend(length(name.len()));
    entry.extend(name.as_bytes());
    let mut extension = vec![0, 0];
    extension.extend(length(entry.len() + 2));
    extension.extend(length(entry.len()));
    extension.extend(entry);
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend(length(extension.len()));
    body.extend(extension);
    let mut record = vec![22, 3, 1];
    record.extend(length(body.len() + 4));
    record.extend([1, 0]);
    record.extend(length(body.len()));
    record.extend(body);
    record
}

#[tokio::test]
async fn tls_on_a_shared_port_goes_by_its_name() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let listening = tokio::net::TcpListener::bind((LOCAL, 0)).await.expect("bound");
    let server = listening.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listening.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 1024];
                while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                    let _ = stream.write_all(&bytes[..read]).await;
                }
            });
        }
    });
    let port = free_port();
    let mut both = listener(port, None, true, &[]);
    both.tls = true;
    both.sni = vec![Claim { host: "www.example.com".into(), service: service("tls.shop") }];
    assert!(fed.push(Kind::Listener, vec![Resource::Listener(both)], vec![]).await.is_empty());
    let address = SocketAddr::new(LOCAL, port);
    fed.define("tls.shop", port, Protocol::Tcp, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("tls.shop", port, Protocol::Tcp, vec![endpoint(server)]);
    fed.name("tls.shop", port, port, Protocol::Tcp, &[]).await;
    let web = endpoints::echo(false, "web").await;
    fed.define("web.shop", port, Protocol::Http, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("web.shop", port, Protocol::Http, vec![endpoint(web.address)]);
    fed.name("web.shop", port, port, Protocol::Http, &[]).await;
    for (name, routed) in [
        ("tls.shop.maesh", true),
        ("TLS.shop", true),
        ("www.example.com", true),
        ("web.shop.maesh", false),
        ("nobody.shop.maesh", false),
        ("example.com", false),
    ] {
        let mut raw = Raw::to(address).await;
        let hello = hello(name);
        raw.stream.write_all(&hello).await.expect("written");
        raw.stream.shutdown().await.expect("half closed");
        let mut back = Vec::new();
        let _ = within(raw.stream.read_to_end(&mut back)).await;
        assert_eq!(back == hello, routed, "{name}: {} bytes back", back.len());
    }
    assert!(ask(address, &get("web.shop.maesh", "/")).await.1.starts_with("web "), "HTTP beside it");
}

#[tokio::test]
async fn what_is_dropped_is_gone() {
    let mut fed = Fed::new(config()).await;
    fed.begin().await;
    let server = endpoints::echo(false, "one").await;
    let address = fed.http("web.shop", Scheme::Http, &[server.address]).await;
    let mut raw = Raw::to(address).await;
    raw.say(&get("web.shop", "/")).await;
    raw.hear().await;
    drop(fed.proxy.take());
    assert_eq!(raw.rest().await, "");
    within(async { while tokio::net::TcpStream::connect(address).await.is_ok() {} }).await;
}
