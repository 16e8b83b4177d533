//! Requests that are sent to another Service, instead or beside; and to a second endpoint.

use std::{net::SocketAddr, time::Duration};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use maesh_config::{
    model::Protocol,
    policy::{BackendPolicy, CalledPolicy, Hedge, Mirror, Percent, ServiceRef},
};

use super::{Count, failing};
use crate::support::{
    Fed, LOCAL, ask, config, endpoint,
    endpoints::{self, full},
    get, policy, refusing, service, within,
};

fn service_ref(name: &str, port: u16) -> ServiceRef {
    ServiceRef { service: service(name), port }
}

/// Defines a Service without a listener of its own.
fn define(fed: &Fed, name: &str, number: u16, endpoints: &[SocketAddr]) {
    let scheme = maesh_config::model::Scheme::Http;
    fed.define(name, number, Protocol::Http, policy(scheme), Vec::new());
    fed.define_endpoints(name, number, Protocol::Http, endpoints.iter().map(|it| endpoint(*it)).collect());
}

#[tokio::test]
async fn a_fallback_gets_what_no_endpoint_can() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let (own, _) = failing("own", 500, 0).await;
    let (other, _) = failing("other", 500, 0).await;
    let dead = refusing(LOCAL);
    define(&fed, "spare.shop", 8080, &[other.address]);
    let with = |to: Option<&str>| BackendPolicy {
        fallback: to.map(|name| service_ref(name, 8080)),
        ..BackendPolicy::default()
    };
    let post = "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 2\r\n\r\nhi".to_owned();
    for (case, fallback, endpoints, request, want) in [
        ("usable", Some("spare.shop"), vec![own.address], get("web.shop", "/"), Ok("own")),
        ("no endpoint", Some("spare.shop"), vec![], get("web.shop", "/"), Ok("other")),
        ("no connection", Some("spare.shop"), vec![dead], get("web.shop", "/"), Ok("other")),
        ("no connection, with a body", Some("spare.shop"), vec![dead], post, Ok("other")),
        ("no fallback", None, vec![dead], get("web.shop", "/"), Err("connect_failed")),
        ("a fallback that does not exist", Some("gone.shop"), vec![], get("web.shop", "/"), Err("no_endpoints")),
    ] {
        let address = fed.http_with("web.shop", CalledPolicy::default(), with(fallback), &endpoints).await;
        let (head, body) = within(ask(address, &request)).await;
        match want {
            Ok(name) => assert!(head.starts_with("http/1.1 200") && body == name, "{case}: {head}{body}"),
            Err(reason) => assert!(head.contains(reason), "{case}: {head}"),
        }
    }
}

#[tokio::test]
async fn copies_go_to_the_mirror_and_nobody_waits_for_it() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let (own, _) = failing("own", 500, 0).await;
    let (seen, mut copies) = tokio::sync::mpsc::unbounded_channel();
    let shadow = endpoints::serve(false, move |request: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let (head, body) = request.into_parts();
            let host = head.headers["host"].to_str().expect("text").to_owned();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let _ = seen.send(format!("{} {} {host} {}", head.method, head.uri, String::from_utf8_lossy(&body)));
            // Whoever waited for this would wait for ever.
            std::future::pending::<()>().await;
            Response::new(full(""))
        }
    })
    .await;
    define(&fed, "shadow.shop", 8080, &[shadow.address]);
    let mirror = |share| CalledPolicy {
        mirror: Some(Mirror { to: service_ref("shadow.shop", 8080), share }),
        ..CalledPolicy::default()
    };
    let address = fed.http_with("web.shop", mirror(Percent::ALL), BackendPolicy::default(), &[own.address]).await;
    for body in ["", "hi"] {
        let length = body.len();
        let request = format!("POST /a?b HTTP/1.1\r\nHost: web.shop\r\nContent-Length: {length}\r\n\r\n{body}");
        let (head, answer) = within(ask(address, &request)).await;
        assert!(head.starts_with("http/1.1 200") && answer == "own", "{head}{answer}");
        assert_eq!(within(copies.recv()).await, Some(format!("POST /a?b web.shop {body}")));
    }
    let none = Percent::hundredths(0).expect("a share");
    let address = fed.http_with("web.shop", mirror(none), BackendPolicy::default(), &[own.address]).await;
    for _ in 0..20 {
        let (head, _) = within(ask(address, &get("web.shop", "/"))).await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
    }
    assert!(copies.try_recv().is_err(), "no share, no copy");
}

#[tokio::test]
async fn a_mirror_that_does_not_exist_or_is_dead_harms_nobody() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let (own, _) = failing("own", 500, 0).await;
    define(&fed, "dead.shop", 8080, &[refusing(LOCAL)]);
    for name in ["gone.shop", "dead.shop"] {
        let mirror = Some(Mirror { to: service_ref(name, 8080), share: Percent::ALL });
        let called = CalledPolicy { mirror, ..CalledPolicy::default() };
        let address = fed.http_with("web.shop", called, BackendPolicy::default(), &[own.address]).await;
        let (head, body) = within(ask(address, &get("web.shop", "/"))).await;
        assert!(head.starts_with("http/1.1 200") && body == "own", "{name}: {head}");
    }
}

/// The first endpoint that is asked never answers.
#[tokio::test]
async fn a_slow_request_is_sent_to_a_second_endpoint() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let count = Count::default();
    let mut servers = Vec::new();
    for name in ["a", "b"] {
        let counted = count.clone();
        servers.push(
            endpoints::serve(false, move |_: Request<Incoming>| {
                let first = counted.add() == 0;
                async move {
                    if first {
                        std::future::pending::<()>().await;
                    }
                    Response::new(full(name))
                }
            })
            .await,
        );
    }
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let called = CalledPolicy {
        hedge: Some(Hedge::After(Duration::from_millis(50))),
        request_timeout: Some(Duration::from_secs(15)),
        ..CalledPolicy::default()
    };
    let address = fed.http_with("web.shop", called, BackendPolicy::default(), &addresses).await;
    let (head, _) = within(ask(address, &get("web.shop", "/"))).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert_eq!(count.get(), 2);
    for name in ["maesh_proxy_hedges_total", "maesh_proxy_hedges_won_total"] {
        assert_eq!(fed.counted(name, &["service=\"web\"", "namespace=\"shop\""]), 1, "{name}: {}", fed.metrics());
    }
    // A method that is not idempotent is never sent twice.
    let (server, posts) = failing("slow", 500, 0).await;
    let called = CalledPolicy { hedge: Some(Hedge::After(Duration::from_nanos(1))), ..CalledPolicy::default() };
    let address =
        fed.http_with("post.shop", called, BackendPolicy::default(), &[server.address, servers[1].address]).await;
    let before = count.get() + posts.get();
    for _ in 0..20 {
        let post = "POST / HTTP/1.1\r\nHost: post.shop\r\nContent-Length: 2\r\n\r\nhi";
        let (head, _) = within(ask(address, post)).await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
    }
    assert_eq!(count.get() + posts.get() - before, 20);
}
