//! Timeouts, and what is said of them to endpoints.

use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use maesh_config::policy::{BackendPolicy, CalledPolicy, Retry, Scheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Count;
use crate::support::{
    Fed, Raw, ask, config,
    endpoints::{self, full},
    get, within,
};

fn limits(request: Option<u64>, of_try: Option<u64>) -> CalledPolicy {
    CalledPolicy {
        request_timeout: request.map(Duration::from_millis),
        try_timeout: of_try.map(Duration::from_millis),
        ..CalledPolicy::default()
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_given_up() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let again = |policy: CalledPolicy| {
        let retry = Retry { attempts: 3, on: "gateway-error".parse().expect("conditions"), ..Retry::default() };
        CalledPolicy { retry, ..policy }
    };
    for (case, policy, reason, tries) in [
        ("a request", limits(Some(100), None), "request_timeout", 1..=1),
        ("a try", limits(None, Some(100)), "try_timeout", 1..=1),
        ("tries", again(limits(None, Some(50))), "try_timeout", 3..=3),
        ("tries within a request", again(limits(Some(300), Some(250))), "request_timeout", 1..=2),
    ] {
        let count = Count::default();
        let counted = count.clone();
        let server = endpoints::raw(move |mut stream| {
            counted.add();
            async move { while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {} }
        })
        .await;
        let address = fed.http_with("web.shop", policy, BackendPolicy::default(), &[server]).await;
        let (head, _) = within(ask(address, &get("web.shop", "/"))).await;
        assert!(head.starts_with("http/1.1 504") && head.contains(reason), "{case}: {head}");
        // The system may be slow to give the last connection to the endpoint.
        within(async {
            while !tries.contains(&count.get()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

/// The time of a request is over while its response is under way.
#[tokio::test]
async fn a_response_that_takes_too_long_is_cut_off() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let server = endpoints::raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await;
        while stream.write_all(b"more").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let address = fed.http_with("web.shop", limits(Some(200), None), BackendPolicy::default(), &[server]).await;
    let mut raw = Raw::to(address).await;
    raw.say(&get("web.shop", "/")).await;
    let head = raw.head().await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let rest = within(raw.rest()).await;
    assert!(rest.len() < 1_000_000, "{}", rest.len());
    within(async {
        while !fed.metrics().contains("reason=\"request_timeout\"") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_response_in_time_is_left_alone() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let server = endpoints::echo(false, "web").await;
    let policy = limits(Some(60_000), Some(30_000));
    let address = fed.http_with("web.shop", policy, BackendPolicy::default(), &[server.address]).await;
    let (head, body) = ask(address, &get("web.shop", "/")).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(body.contains("x-maesh-timeout-ms: 30000"), "{body}");
}

/// What the caller allows is less than what the policy does; and it needs no policy.
#[tokio::test]
async fn a_caller_may_allow_less() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let server = endpoints::serve(false, |request: Request<Incoming>| async move {
        if request.uri().path() == "/slow" {
            std::future::pending::<()>().await;
        }
        let said = request.headers().get("x-maesh-timeout-ms").map(|value| value.to_str().expect("text").to_owned());
        Response::new(full(said.unwrap_or_else(|| "nothing".into())))
    })
    .await;
    for (policy, field, want) in [
        (limits(None, None), "", "nothing"),
        (limits(None, None), "x-maesh-timeout-ms: 5000\r\n", "5000"),
        (limits(Some(1_000), None), "x-maesh-timeout-ms: 5000\r\n", "1000"),
        (limits(None, None), "x-maesh-timeout-ms: soon\r\n", "nothing"),
    ] {
        let address = fed.http_with("web.shop", policy, BackendPolicy::default(), &[server.address]).await;
        let request = format!("GET / HTTP/1.1\r\nHost: web.shop\r\n{field}\r\n");
        let (_, body) = ask(address, &request).await;
        assert_eq!(body, want, "{field:?}");
        let slow = "GET /slow HTTP/1.1\r\nHost: web.shop\r\nx-maesh-timeout-ms: 100\r\n\r\n";
        let (head, _) = within(ask(address, slow)).await;
        assert!(head.starts_with("http/1.1 504") && head.contains("request_timeout"), "{field:?}: {head}");
    }
}

#[tokio::test]
async fn the_deadline_of_grpc_is_lowered() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let server = endpoints::serve(true, |request: Request<Incoming>| async move {
        let said = request.headers().get("grpc-timeout").cloned();
        let mut response = Response::builder().header("content-type", "application/grpc").header("grpc-status", "0");
        if let Some(said) = said {
            response = response.header("x-said", said);
        }
        response.body(full("")).expect("a response")
    })
    .await;
    let backend = || BackendPolicy { scheme: Scheme::H2c, ..BackendPolicy::default() };
    for (policy, said, want) in [
        (limits(None, None), "grpc-timeout: 9S\r\n", "x-said: 9s"),
        (limits(Some(2_000), None), "grpc-timeout: 9S\r\n", "x-said: 2000m"),
        (limits(Some(2_000), None), "grpc-timeout: 9m\r\n", "x-said: 9m"),
        (limits(Some(2_000), None), "", "x-said: 2000m"),
    ] {
        let address = fed.http_with("web.shop", policy, backend(), &[server.address]).await;
        let call = format!(
            "POST /a.B/C HTTP/1.1\r\nHost: web.shop\r\nContent-Type: application/grpc\r\n{said}Content-Length: 0\r\n\r\n"
        );
        let (head, _) = within(ask(address, &call)).await;
        assert!(head.contains(want), "{said:?}: {head}");
    }
}
