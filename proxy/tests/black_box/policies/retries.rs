//! Retries and ejection.

use std::net::SocketAddr;

use http::{Request, Response};
use hyper::body::Incoming;
use maesh_config::policy::{BackendPolicy, CalledPolicy, Eject, Retry, RetryBudget, Scheme};
use tokio::io::AsyncReadExt;

use super::{Count, failing};
use crate::support::{Fed, Raw, ask, config, endpoints, get, within};

fn retry(attempts: u32, on: &str) -> CalledPolicy {
    let retry = Retry { attempts, on: on.parse().expect("conditions"), budget: RetryBudget::default() };
    CalledPolicy { retry, ..CalledPolicy::default() }
}

/// Endpoints that fail are not ejected.
fn patient() -> BackendPolicy {
    BackendPolicy { eject: Eject { failures: 0, most_percent: 0 }, ..BackendPolicy::default() }
}

#[tokio::test]
async fn statuses_are_tried_again_as_often_as_the_policy_says() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let post = "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 2\r\n\r\nhi".to_owned();
    for (case, policy, failures, request, want, tries) in [
        ("without a policy", CalledPolicy::default(), 1, get("web.shop", "/"), "503", 1),
        ("the last try succeeds", retry(3, "5xx"), 2, get("web.shop", "/"), "200", 3),
        ("the last try fails, and its response is passed on", retry(3, "5xx"), 9, get("web.shop", "/"), "503", 3),
        ("another status", retry(3, "504"), 9, get("web.shop", "/"), "503", 1),
        ("not idempotent", retry(3, "5xx"), 9, post.clone(), "503", 1),
        ("any method, with its body", retry(3, "5xx,any-method"), 2, post, "200", 3),
    ] {
        let (server, count) = failing("web", 503, failures).await;
        let address = fed.http_with("web.shop", policy, patient(), &[server.address]).await;
        let (head, _) = ask(address, &request).await;
        assert!(head.starts_with(&format!("http/1.1 {want}")), "{case}: {head}");
        assert_eq!(count.get(), tries, "{case}");
        let counted = fed.counted("maesh_proxy_retries_total", &["service=\"web\"", "cause=\"policy\""]);
        assert_eq!(counted, tries as u64 - 1, "{case}");
    }
}

#[tokio::test]
async fn a_retry_goes_to_another_endpoint() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let (bad, _) = failing("bad", 500, usize::MAX).await;
    let (good, _) = failing("good", 500, 0).await;
    let address = fed.http_with("web.shop", retry(2, "5xx"), patient(), &[bad.address, good.address]).await;
    for i in 0..50 {
        let (head, body) = ask(address, &get("web.shop", "/")).await;
        assert!(head.starts_with("http/1.1 200") && body == "good", "{i}: {head}");
    }
}

/// An endpoint that reads a request and then closes.
#[tokio::test]
async fn a_reset_is_tried_again_where_the_policy_says_so() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    for (case, policy, want, connections) in
        [("without", CalledPolicy::default(), "502", 1), ("with", retry(3, "reset"), "502", 3)]
    {
        let count = Count::default();
        let counted = count.clone();
        let server = endpoints::raw(move |mut stream| {
            counted.add();
            async move {
                let _ = stream.read(&mut [0; 4096]).await;
            }
        })
        .await;
        let address = fed.http_with("web.shop", policy, patient(), &[server]).await;
        let (head, _) = ask(address, &get("web.shop", "/")).await;
        assert!(head.starts_with(&format!("http/1.1 {want}")) && head.contains("upstream_reset"), "{case}: {head}");
        assert_eq!(count.get(), connections, "{case}");
    }
}

#[tokio::test]
async fn retries_do_not_multiply_the_load_of_a_service_that_fails() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let (server, count) = failing("web", 503, usize::MAX).await;
    let budget = RetryBudget { percent: 20, per_second: 0 };
    let called = CalledPolicy { retry: Retry { budget, ..retry(3, "5xx").retry }, ..CalledPolicy::default() };
    let address = fed.http_with("web.shop", called, patient(), &[server.address]).await;
    let mut raw = Raw::to(address).await;
    for _ in 0..100 {
        raw.say(&get("web.shop", "/")).await;
        let (head, _) = raw.hear().await;
        assert!(head.starts_with("http/1.1 503"), "{head}");
    }
    // 20 of 100; requests of the second before may have left the window.
    assert!((100..=121).contains(&count.get()), "{}", count.get());
}

/// What is too large to be kept is not sent again, and the caller is told what the endpoint said, not that it did wrong.
#[tokio::test]
async fn an_upload_too_large_to_keep_gets_the_endpoints_response() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    for kept_open in [false, true] {
        let server = endpoints::raw(move |mut stream| async move {
            use tokio::io::AsyncWriteExt;
            let mut head = Vec::new();
            while !head.windows(4).any(|four| four == b"\r\n\r\n") {
                if !matches!(stream.read_buf(&mut head).await, Ok(1..)) {
                    return;
                }
            }
            let _ = stream.write_all(b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbusy").await;
            if kept_open {
                while stream.read(&mut [0; 65536]).await.is_ok_and(|read| read > 0) {}
            }
        })
        .await;
        let called = retry(3, "gateway-error,any-method");
        let address = fed.http_with("web.shop", called, patient(), &[server]).await;
        for length in [65_537, 100_000, 300_000] {
            for i in 0..10 {
                use tokio::io::AsyncWriteExt;
                let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
                let head = format!("POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: {length}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.expect("written");
                let _ = stream.write_all(&vec![b'u'; length]).await;
                let mut heard = Vec::new();
                while !heard.windows(4).any(|four| four == b"\r\n\r\n") {
                    let read = within(stream.read_buf(&mut heard)).await.expect("an answer");
                    assert_ne!(read, 0, "{length} {i}: closed without an answer");
                }
                let heard = String::from_utf8_lossy(&heard);
                let is_honest = heard.starts_with("HTTP/1.1 503") || heard.contains("upstream_reset");
                assert!(is_honest, "{kept_open} {length} {i}: {heard}");
            }
        }
    }
}

/// A response that has begun is never replaced.
#[tokio::test]
async fn a_response_that_breaks_off_is_not_tried_again() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let count = Count::default();
    let counted = count.clone();
    let server = endpoints::raw(move |mut stream| {
        counted.add();
        async move {
            let _ = stream.read(&mut [0; 4096]).await;
            use tokio::io::AsyncWriteExt;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        }
    })
    .await;
    let address = fed.http_with("web.shop", retry(5, "5xx,reset,gateway-error"), patient(), &[server]).await;
    let mut raw = Raw::to(address).await;
    raw.say(&get("web.shop", "/")).await;
    let head = raw.head().await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert_eq!(within(raw.rest()).await, "half");
    assert_eq!(count.get(), 1);
}

#[tokio::test]
async fn an_endpoint_that_fails_in_a_row_is_left_out_until_all_would_be() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let (bad, bad_count) = failing("bad", 500, usize::MAX).await;
    let (good, _) = failing("good", 500, 0).await;
    let eject = |failures, most_percent| BackendPolicy {
        eject: Eject { failures, most_percent },
        balance: "round-robin".parse().expect("a balance"),
        ..BackendPolicy::default()
    };
    let both: [SocketAddr; 2] = [bad.address, good.address];
    for (case, policy, endpoints, want_bad) in [
        ("ejected after three", eject(3, 50), &both[..], 3),
        ("ejection is off", eject(0, 50), &both[..], 20),
        ("a share that allows none", eject(3, 10), &both[..], 20),
        ("all are ejected: none is", eject(3, 100), &both[..1], 40),
    ] {
        let before = bad_count.get();
        let address = fed.http_with("web.shop", CalledPolicy::default(), policy, endpoints).await;
        let mut raw = Raw::to(address).await;
        for _ in 0..40 {
            raw.say(&get("web.shop", "/")).await;
            let (head, _) = raw.hear().await;
            assert!(!head.contains("x-maesh-reason"), "{case}: {head}");
        }
        assert_eq!(bad_count.get() - before, want_bad, "{case}");
    }
}

#[tokio::test]
async fn grpc_is_tried_again_by_its_status() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let count = Count::default();
    let counted = count.clone();
    let server = endpoints::serve(true, move |_: Request<Incoming>| {
        let status = if counted.add() < 2 { "14" } else { "0" };
        async move {
            let response = Response::builder().header("content-type", "application/grpc").header("grpc-status", status);
            response.body(endpoints::full("")).expect("a response")
        }
    })
    .await;
    let backend = BackendPolicy { scheme: Scheme::H2c, ..patient() };
    let address = fed.http_with("web.shop", retry(3, "unavailable"), backend, &[server.address]).await;
    let call = "POST /a.B/C HTTP/1.1\r\nHost: web.shop\r\nContent-Type: application/grpc\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0";
    let (head, _) = within(ask(address, call)).await;
    assert!(head.contains("grpc-status: 0"), "{head}");
    assert_eq!(count.get(), 3);
}
