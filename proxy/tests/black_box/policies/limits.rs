//! Rate limits, concurrency, circuit breakers and faults.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{Request, Response};
use hyper::body::Incoming;
use maesh_config::policy::{
    BackendPolicy, CalledPolicy, Eject, Fault, FaultAbort, FaultDelay, Queue, RateLimit, RateLimitBy,
};
use tokio::sync::Semaphore;

use super::{Count, failing};
use crate::support::{
    Fed, Raw, ask, config,
    endpoints::{self, full},
    get, within,
};

#[tokio::test]
async fn requests_above_the_rate_are_refused() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let (server, count) = failing("web", 500, 0).await;
    let limit = |by: RateLimitBy| CalledPolicy {
        rate_limit: Some(RateLimit { average: 1, burst: 3, by }),
        ..CalledPolicy::default()
    };
    let with = |value: &str| format!("GET / HTTP/1.1\r\nHost: web.shop\r\nx-user: {value}\r\n\r\n");
    for (case, policy, requests, want) in [
        ("without", CalledPolicy::default(), vec![get("web.shop", "/"); 6], 6),
        ("by source", limit(RateLimitBy::Source), vec![get("web.shop", "/"); 6], 3),
        ("by Service", limit(RateLimitBy::Service), vec![get("web.shop", "/"); 6], 3),
        ("by field", limit(RateLimitBy::Header("x-user".into())), [vec![with("a"); 6], vec![with("b"); 2]].concat(), 5),
    ] {
        let before = count.get();
        let address = fed.http_with("web.shop", policy, BackendPolicy::default(), &[server.address]).await;
        let mut raw = Raw::to(address).await;
        let mut refused = Vec::new();
        for request in &requests {
            raw.say(request).await;
            let (head, _) = raw.hear().await;
            if !head.starts_with("http/1.1 200") {
                refused.push(head);
            }
        }
        // A request more may have become free meanwhile.
        let passed = count.get() - before;
        assert!((want..=want + 2).contains(&passed), "{case}: {passed}");
        assert_eq!(passed + refused.len(), requests.len(), "{case}");
        for head in refused {
            assert!(
                head.starts_with("http/1.1 429") && head.contains("x-maesh-reason: rate_limited"),
                "{case}: {head}"
            );
            assert!(head.contains("retry-after: 1\r\n") && head.contains("ratelimit-limit: 3"), "{case}: {head}");
        }
    }
}

/// What was counted is not forgotten when the configuration changes.
#[tokio::test]
async fn a_change_of_the_configuration_gives_no_new_burst() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let (server, count) = failing("web", 500, 0).await;
    let policy = |burst| CalledPolicy {
        rate_limit: Some(RateLimit { average: 1, burst, by: RateLimitBy::Service }),
        ..CalledPolicy::default()
    };
    let address = fed.http_with("web.shop", policy(2), BackendPolicy::default(), &[server.address]).await;
    for _ in 0..10 {
        let _ = ask(address, &get("web.shop", "/")).await;
        fed.push_service("web.shop").await;
    }
    assert!((2..=4).contains(&count.get()), "{}", count.get());
}

/// An endpoint that answers when it is told to.
async fn held() -> (endpoints::Server, Arc<Semaphore>, Count) {
    let (gate, count) = (Arc::new(Semaphore::new(0)), Count::default());
    let (opened, counted) = (gate.clone(), count.clone());
    let server = endpoints::serve(false, move |_: Request<Incoming>| {
        counted.add();
        let opened = opened.clone();
        async move {
            opened.acquire().await.expect("open").forget();
            Response::new(full("ok"))
        }
    })
    .await;
    (server, gate, count)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn requests_wait_for_a_place_where_the_policy_has_a_queue() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let (server, gate, count) = held().await;
    let queue = Some(Queue { length: 2, wait: Duration::from_secs(20) });
    let backend = BackendPolicy { concurrency: 4, queue, ..BackendPolicy::default() };
    let address = fed.http_with("web.shop", CalledPolicy::default(), backend, &[server.address]).await;
    let mut asked = tokio::task::JoinSet::new();
    // One caller has at most three quarters of all places, so there are two.
    for i in 0..2_u8 {
        let from = std::net::Ipv4Addr::new(127, 0, 0, 20 + i);
        for _ in 0..3 {
            asked.spawn(async move { from_address(from, address).await });
        }
    }
    until("four are at the endpoint", || count.get() == 4).await;
    // Two wait; the next one is refused.
    let (head, _) = within(ask(address, &get("web.shop", "/"))).await;
    assert!(head.starts_with("http/1.1 503") && head.contains("overloaded"), "{head}");
    assert_eq!(count.get(), 4, "those that wait are not sent");
    assert_eq!(fed.counted("maesh_proxy_requests_waiting", &["service=\"web\""]), 2);
    assert_eq!(fed.counted("maesh_proxy_concurrency_refused_total", &["cause=\"queue_full\""]), 1);
    gate.add_permits(6);
    while let Some(head) = within(asked.join_next()).await {
        let head = head.expect("no panic");
        assert!(head.starts_with("http/1.1 200"), "{head}");
    }
    assert_eq!(count.get(), 6);
}

async fn from_address(from: std::net::Ipv4Addr, to: std::net::SocketAddr) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("bound");
    let mut stream = socket.connect(to).await.expect("connected");
    let request = "GET / HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("read");
    text.to_ascii_lowercase()
}

#[tokio::test]
async fn who_waits_too_long_is_refused() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let (server, gate, count) = held().await;
    let queue = Some(Queue { length: 5, wait: Duration::from_millis(50) });
    let backend = BackendPolicy { concurrency: 1, queue, ..BackendPolicy::default() };
    let address = fed.http_with("web.shop", CalledPolicy::default(), backend, &[server.address]).await;
    let first = tokio::spawn(async move { ask(address, &get("web.shop", "/")).await });
    until("one is at the endpoint", || count.get() == 1).await;
    let (head, _) = within(ask(address, &get("web.shop", "/"))).await;
    assert!(head.starts_with("http/1.1 503") && head.contains("overloaded"), "{head}");
    assert_eq!(fed.counted("maesh_proxy_concurrency_refused_total", &["cause=\"queue_timeout\""]), 1);
    gate.add_permits(1);
    let (head, _) = within(first).await.expect("no panic");
    assert!(head.starts_with("http/1.1 200"), "{head}");
}

#[tokio::test]
async fn an_open_breaker_keeps_requests_from_a_service_that_fails() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let (server, count) = failing("web", 500, usize::MAX).await;
    let eject = Eject { failures: 0, most_percent: 0 };
    let expression = "ResponseCodeRatio(500, 600, 0, 600) > 0.5";
    for (case, breaker, opens) in [("without", None, false), ("with", Some(expression), true)] {
        let before = count.get();
        let breaker = breaker.map(|text| text.parse().expect("an expression"));
        let backend = BackendPolicy { breaker, eject, ..BackendPolicy::default() };
        let address = fed.http_with("web.shop", CalledPolicy::default(), backend, &[server.address]).await;
        let mut raw = Raw::to(address).await;
        let mut last = String::new();
        for _ in 0..60 {
            raw.say(&get("web.shop", "/")).await;
            last = raw.hear().await.0;
            // It is evaluated every 100 ms.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let sent = count.get() - before;
        assert_eq!(last.contains("x-maesh-reason: circuit_open"), opens, "{case}: {last}");
        assert_eq!(sent < 60, opens, "{case}: {sent}");
        assert!(sent >= 10, "{case}: {sent}");
    }
    let web = "service=\"web\"";
    assert_eq!(fed.counted("maesh_proxy_breaker_transitions_total", &[web, "to=\"open\""]), 1, "{}", fed.metrics());
    assert_eq!(fed.counted("maesh_proxy_breaker_transitions_total", &[web, "to=\"closed\""]), 0, "{}", fed.metrics());
    assert_eq!(fed.counted("maesh_proxy_breaker_state", &[web]), 2, "{}", fed.metrics());
}

#[tokio::test]
async fn faults_are_injected_until_their_time_is_over() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let (server, count) = failing("web", 500, 0).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let delay: FaultDelay = "300ms".parse().expect("a delay");
    let abort: FaultAbort = "418".parse().expect("an abort");
    for (case, fault, want, delayed) in [
        ("an abort", Fault { delay: None, abort: Some(abort), until: now + 3600 }, "418", false),
        ("a delay", Fault { delay: Some(delay), abort: None, until: now + 3600 }, "200", true),
        ("over", Fault { delay: Some(delay), abort: Some(abort), until: now }, "200", false),
    ] {
        let before = count.get();
        let called = CalledPolicy { fault: Some(fault), ..CalledPolicy::default() };
        let address = fed.http_with("web.shop", called, BackendPolicy::default(), &[server.address]).await;
        let began = tokio::time::Instant::now();
        let (head, _) = ask(address, &get("web.shop", "/")).await;
        assert!(head.starts_with(&format!("http/1.1 {want}")), "{case}: {head}");
        assert_eq!(head.contains("x-maesh-reason: fault_injected"), want == "418", "{case}: {head}");
        assert!(!delayed || began.elapsed() >= Duration::from_millis(300), "{case}");
        assert_eq!(count.get() - before, usize::from(want == "200"), "{case}");
        let counted = ["delay", "abort"]
            .map(|fault| fed.counted("maesh_proxy_faults_total", &["service=\"web\"", &format!("fault=\"{fault}\"")]));
        assert_eq!(counted, [u64::from(delayed), u64::from(want == "418")], "{case}");
    }
}
