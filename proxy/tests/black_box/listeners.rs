//! Ports that come and go, the bounds on what comes in by them, and the end.

use std::time::Duration;

use crate::support::{
    Fed, LOCAL, Raw, ask, config, echoing_with, endpoint, endpoints, free_port, get, listener, policy, within,
};
use http_body_util::BodyExt;
use maesh_config::{
    Kind, Resource,
    model::{Protocol, Scheme},
};
use maesh_discovery::update::Demand;
use maesh_proxy::Config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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
async fn a_port_that_was_taken_is_listened_on_once_it_is_free() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let server = endpoints::echo(false, "one").await;
    let taken = std::net::TcpListener::bind((LOCAL, 0)).expect("bound");
    let address = taken.local_addr().expect("bound");
    fed.define("web.shop", address.port(), Protocol::Http, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("web.shop", address.port(), Protocol::Http, vec![endpoint(server.address)]);
    fed.name("web.shop", address.port(), address.port(), Protocol::Http, &[]).await;
    let wanted = listener(address.port(), None, true, &[]);
    let id = wanted.id.0.clone();
    let refused = fed.push(Kind::Listener, vec![Resource::Listener(wanted.clone())], vec![]).await;
    assert!(refused.len() == 1 && refused[0].message.contains("in use"), "{refused:?}");
    assert!(refused[0].message.contains("tried again"), "{refused:?}");
    assert!(fed.metrics().contains("\nmaesh_proxy_listeners_refused 1\n"), "{}", fed.metrics());
    drop(taken);
    within(async {
        while !fed.metrics().contains("\nmaesh_proxy_listeners_refused 0\n") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let (head, _) = ask(address, &get("web.shop", "/")).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    // The controller is asked for the listener again, so that there is something to acknowledge.
    let again = Demand::Again(Kind::Listener, id.clone());
    within(async {
        while !fed.demands.lock().expect("lock").contains(&again) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let accepted = fed.push(Kind::Listener, vec![Resource::Listener(wanted)], vec![]).await;
    assert_eq!(accepted, Vec::new());
    // It closes like any other.
    fed.push(Kind::Listener, vec![], vec![&id]).await;
    within(async { while tokio::net::TcpStream::connect(address).await.is_ok() {} }).await;
}

#[tokio::test]
async fn a_refused_listener_that_is_removed_is_not_tried_again() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let taken = std::net::TcpListener::bind((LOCAL, 0)).expect("bound");
    let address = taken.local_addr().expect("bound");
    let wanted = listener(address.port(), None, true, &[]);
    let id = wanted.id.0.clone();
    assert_eq!(fed.push(Kind::Listener, vec![Resource::Listener(wanted)], vec![]).await.len(), 1);
    assert!(fed.metrics().contains("\nmaesh_proxy_listeners_refused 1\n"), "{}", fed.metrics());
    fed.push(Kind::Listener, vec![], vec![&id]).await;
    assert!(fed.metrics().contains("\nmaesh_proxy_listeners_refused 0\n"), "{}", fed.metrics());
}

#[tokio::test]
async fn a_listener_that_lingers_can_come_back() {
    let (fed, address, _server) = echoing_with(Config { linger: Duration::from_millis(200), ..config() }).await;
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
async fn limits_on_connections() {
    let mut config = Config { workers: 1, ..config() };
    config.limits.connections_per_caller = 2;
    config.limits.head_timeout = Duration::from_millis(300);
    let (_fed, address, _server) = echoing_with(config).await;
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
async fn a_refused_caller_that_sends_its_request_late_reads_why() {
    let mut config = config();
    config.limits.connections_per_caller = 1;
    let (fed, address, _server) = echoing_with(config).await;
    let mut first = Raw::to(address).await;
    first.say(&get("web.shop", "/")).await;
    first.hear().await;
    let mut second = tokio::net::TcpStream::connect(address).await.expect("connected");
    let refused = || fed.metrics().contains("maesh_http_refused_total{reason=\"overloaded\"} 1\n");
    within(async {
        while !refused() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    for _ in 0..2 {
        second.write_all(get("web.shop", "/").as_bytes()).await.expect("it is not reset");
    }
    let mut answer = Vec::new();
    within(second.read_to_end(&mut answer)).await.expect("an end, and no reset");
    assert!(String::from_utf8_lossy(&answer).contains("x-maesh-reason: overloaded"));
}

#[tokio::test]
async fn too_many_requests_in_flight() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let (go, wait) = tokio::sync::watch::channel(false);
    let (arrived, mut has_arrived) = tokio::sync::watch::channel(false);
    let server = endpoints::serve(false, move |_| {
        let mut wait = wait.clone();
        arrived.send_replace(true);
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
    within(has_arrived.wait_for(|arrived| *arrived)).await.expect("told");
    let (head, _) = ask(address, &get("web.shop", "/")).await;
    assert!(head.contains("x-maesh-reason: overloaded"), "{head}");
    go.send_replace(true);
    let (head, _) = first.hear().await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
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
