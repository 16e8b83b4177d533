//! Endpoints that serve HTTPS: verified by name, and never spoken to otherwise.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use maesh_config::{
    model::{BackendPolicy, CalledPolicy, Scheme},
    policy::TlsRoots,
};
use rustls::version::{TLS12, TLS13};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use crate::support::{
    Fed, Raw, ask, config, endpoints, policy,
    tls::{self, Authority, NAME},
    within,
};

/// A proxy with the Service `web.shop`, and its address.
pub(crate) async fn fed(backend: BackendPolicy, endpoints: &[SocketAddr]) -> (Fed, SocketAddr) {
    let fed = Fed::new(maesh_proxy::Config { workers: 1, ..config() }).await;
    fed.begin().await;
    let address = fed.http_with("web.shop", CalledPolicy::default(), backend, endpoints).await;
    (fed, address)
}

/// Reads the head of a request and what follows it; `None` at the end of the connection.
async fn read_request(stream: &mut TlsStream<TcpStream>) -> Option<(String, String)> {
    let mut heard = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&heard).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some((head.to_owned(), body.to_owned()));
            }
        }
        if !matches!(stream.read_buf(&mut heard).await, Ok(1..)) {
            return None;
        }
    }
}

/// Answers each request with the number of the connection, and how its handshake was made.
fn answering() -> impl Fn(TlsStream<TcpStream>) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync {
    let connections = Arc::new(AtomicU32::new(0));
    move |mut stream| {
        let number = connections.fetch_add(1, Ordering::Relaxed) + 1;
        Box::pin(async move {
            let session = stream.get_ref().1;
            let about = format!(
                "connection {number} {:?} {:?} {}",
                session.protocol_version().expect("a version"),
                session.handshake_kind().expect("a handshake"),
                session.server_name().unwrap_or("no name")
            );
            while let Some((head, body)) = read_request(&mut stream).await {
                let text = format!("{about}\n{head}\n\n{body}");
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
                stream.write_all(answer.as_bytes()).await.expect("written");
                stream.flush().await.expect("flushed");
            }
        })
    }
}

#[tokio::test]
async fn a_request_goes_over_tls_to_an_endpoint_that_is_verified_by_name() {
    for (versions, said) in [(&[&TLS13][..], "TLSv1_3"), (&[&TLS12], "TLSv1_2")] {
        let authority = Authority::new();
        let server = tls::serve(authority.issue(NAME, 2099).config(versions), answering()).await;
        let (_fed, address) = fed(authority.policy(NAME), &[server]).await;
        let mut raw = Raw::to(address).await;
        for _ in 0..3 {
            raw.say("POST /pay HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 4\r\n\r\ncoin").await;
            let (head, body) = raw.hear().await;
            assert!(head.starts_with("http/1.1 200"), "{head}");
            assert!(body.starts_with(&format!("connection 1 {said} Full {NAME}\nPOST /pay HTTP/1.1")), "{body}");
            assert!(body.contains("host: web.shop") && body.ends_with("\n\ncoin"), "{body}");
        }
    }
}

const GET: &str = "GET /pay HTTP/1.1\r\nHost: web.shop\r\n\r\n";

/// The status and the reason of an answer.
pub(crate) fn outcome(head: &str) -> (u16, &str) {
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head.lines().find_map(|line| line.strip_prefix("x-maesh-reason: ")).unwrap_or_default())
}

/// Notes everything that a server reads once its handshake is made.
fn hearing(
    heard: &Arc<Mutex<Vec<u8>>>,
) -> impl Fn(TlsStream<TcpStream>) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync + use<> {
    let heard = heard.clone();
    move |mut stream| {
        let heard = heard.clone();
        Box::pin(async move {
            let mut some = [0; 1024];
            while let Ok(length @ 1..) = stream.read(&mut some).await {
                heard.lock().expect("lock").extend_from_slice(&some[..length]);
            }
        })
    }
}

/// Nothing of a request reaches an endpoint that is not who it has to be, and the reason is counted, logged and explained.
#[tokio::test]
async fn an_endpoint_that_cannot_be_verified_gets_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let good = || authority.issue(NAME, 2099);
    let mut other_protocol = tls::usual(&authority);
    other_protocol.alpn_protocols = vec![b"smtp".to_vec()];
    for (reason, config, backend, advice) in [
        ("expired", authority.issue(NAME, 2015).config(&[&TLS13]), authority.policy(NAME), "renew it"),
        (
            "wrong_name",
            authority.issue("pay.example.com", 2099).config(&[&TLS13]),
            authority.policy(NAME),
            "is for pay.example.com, not for web.shop.svc; set the annotation tls-server-name",
        ),
        ("wrong_name", authority.issue(NAME, 2099).config(&[&TLS12]), authority.policy("10.0.0.1"), "not for 10.0.0.1"),
        ("unknown_issuer", good().config(&[&TLS13]), other.policy(NAME), "name that with the annotation tls-ca"),
        (
            "unknown_issuer",
            good().config(&[&TLS12]),
            tls::policy(NAME, TlsRoots::System),
            "not signed by an authority that is trusted",
        ),
        (
            "no_roots",
            good().config(&[&TLS13]),
            tls::policy(NAME, TlsRoots::Unusable("ConfigMap shop/ca does not exist".into())),
            "ConfigMap shop/ca does not exist",
        ),
        (
            "no_roots",
            good().config(&[&TLS13]),
            tls::policy(NAME, TlsRoots::Certificates([].into())),
            "no certificate in ca.crt",
        ),
        (
            "no_roots",
            good().config(&[&TLS13]),
            tls::policy(NAME, TlsRoots::Certificates([Box::from(&b"x"[..])].into())),
            "cannot be read",
        ),
        ("bad_name", good().config(&[&TLS13]), authority.policy("no name"), "correct the annotation tls-server-name"),
        ("no_roots", good().config(&[&TLS13]), policy(Scheme::Https), "the controller is older than this proxy"),
        ("alert", other_protocol, authority.policy(NAME), "refused the TLS handshake (alert NoApplicationProtocol)"),
    ] {
        let heard = Arc::default();
        let server = tls::serve(config, hearing(&heard)).await;
        let (fed, address) = fed(backend, &[server]).await;
        let (head, _) = ask(address, GET).await;
        assert_eq!(outcome(&head), (502, "connect_failed"), "{advice}: {head}");
        assert!(heard.lock().expect("lock").is_empty(), "{advice}: the request was sent");
        let series = format!("maesh_proxy_tls_failures_total{{reason=\"{reason}\"}} 2\n");
        assert!(fed.metrics().contains(&series), "{advice}: {}", fed.metrics());
        let explainer = fed.proxy.as_ref().expect("running").explainer();
        let question = maesh_proxy::explain::Question { host: "web.shop".into(), ..Default::default() };
        let seen = explainer.explain(&question);
        let backend = &seen.ports[0].routes[0].backends[0];
        let said = backend.endpoints[0].tls_failure.as_deref().unwrap_or_default();
        assert!(said.contains(advice), "{reason}: {said}");
        assert!(backend.tls.is_some(), "{backend:?}");
    }
}

/// What answers something else than TLS, or nothing.
#[tokio::test]
async fn an_endpoint_that_makes_no_handshake() {
    let authority = Authority::new();
    for (reason, says) in [
        ("not_tls", Some(&b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..])),
        ("closed", Some(b"")),
        // A record whose length says more than ever comes.
        ("closed", Some(b"\x16\x03\x03\x40\x00\x02")),
        ("protocol", Some(b"\x16\x03\x03\xff\xff\x02")),
        ("alert", Some(b"\x15\x03\x03\x00\x02\x02\x28")),
        ("", None),
    ] {
        let endpoint = endpoints::raw(move |mut stream| async move {
            let _ = stream.read(&mut [0; 4096]).await;
            match says {
                Some(bytes) => {
                    stream.write_all(bytes).await.expect("written");
                    stream.shutdown().await.expect("ended");
                }
                None => std::future::pending().await,
            }
        })
        .await;
        let backend = BackendPolicy { connect_timeout: Duration::from_millis(200), ..authority.policy(NAME) };
        let (fed, address) = fed(backend, &[endpoint]).await;
        let (head, _) = ask(address, GET).await;
        let want = if says.is_some() { (502, "connect_failed") } else { (504, "connect_timeout") };
        assert_eq!(outcome(&head), want, "{reason}: {head}");
        let series = format!("maesh_proxy_tls_failures_total{{reason=\"{reason}\"}} 2\n");
        assert_eq!(fed.metrics().contains(&series), says.is_some(), "{reason}: {}", fed.metrics());
    }
}

/// One bad endpoint of two costs nobody a request.
#[tokio::test]
async fn another_endpoint_is_tried_after_a_failed_handshake() {
    let authority = Authority::new();
    let bad = tls::serve(authority.issue(NAME, 2015).config(&[&TLS13]), answering()).await;
    let good = tls::serve(tls::usual(&authority), answering()).await;
    let (_fed, address) = fed(authority.policy(NAME), &[bad, good]).await;
    for _ in 0..10 {
        assert_eq!(outcome(&ask(address, GET).await.0), (200, ""));
    }
}

/// A connection is used only by those who asked for just that identity, and one without TLS never by those who ask for it.
#[tokio::test]
async fn connections_belong_to_their_identity() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = tls::serve(tls::usual(&authority), answering()).await;
    let (fed, address) = fed(authority.policy(NAME), &[server]).await;
    let mut raw = Raw::to(address).await;
    let change = async |backend: BackendPolicy| {
        fed.define("web.shop", address.port(), maesh_config::model::Protocol::Http, backend, Vec::new());
        fed.push_service("web.shop").await;
    };
    for (case, backend, want) in [
        ("as it is", None, "connection 1 "),
        ("the same again", Some(authority.policy(NAME)), "connection 1 "),
        ("other roots", Some(other.policy(NAME)), ""),
        (
            "more roots",
            Some(tls::policy(NAME, TlsRoots::Certificates([other.der(), authority.der()].into()))),
            "connection 2 TLSv1_3 Full ",
        ),
        ("another name", Some(authority.policy("pay.shop.svc")), ""),
    ] {
        if let Some(backend) = backend {
            change(backend).await;
        }
        raw.say(GET).await;
        let (head, body) = raw.hear().await;
        let status = if want.is_empty() { (502, "connect_failed") } else { (200, "") };
        assert_eq!(outcome(&head), status, "{case}");
        assert!(body.starts_with(want) || want.is_empty(), "{case}: {body}");
    }
}

/// The same endpoint without TLS and with it: a connection that waits for the next request is never taken for the other kind.
#[tokio::test]
async fn a_plain_connection_is_never_used_for_tls() {
    let plain = endpoints::echo(false, "plain").await;
    let authority = Authority::new();
    let (fed, address) = fed(policy(Scheme::Http), &[plain.address]).await;
    let mut raw = Raw::to(address).await;
    for (backend, want) in [
        (None, (200, "")),
        (Some(authority.policy(NAME)), (502, "connect_failed")),
        (Some(policy(Scheme::Http)), (200, "")),
    ] {
        if let Some(backend) = backend {
            fed.define("web.shop", address.port(), maesh_config::model::Protocol::Http, backend, Vec::new());
            fed.push_service("web.shop").await;
        }
        raw.say(GET).await;
        assert_eq!(outcome(&raw.hear().await.0), want);
    }
}

/// The second connection to an endpoint is made by a short handshake, in both versions.
#[tokio::test]
async fn sessions_are_resumed() {
    for versions in [&[&TLS13][..], &[&TLS12]] {
        let authority = Authority::new();
        let server = tls::serve(authority.issue(NAME, 2099).config(versions), |mut stream| async move {
            let kind = stream.get_ref().1.handshake_kind().expect("a handshake");
            read_request(&mut stream).await.expect("a request");
            let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nX-Handshake: {kind:?}\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.expect("written");
            stream.shutdown().await.expect("ended");
        })
        .await;
        let (_fed, address) = fed(authority.policy(NAME), &[server]).await;
        for want in ["full", "resumed", "resumed", "resumed"] {
            let mut raw = Raw::to(address).await;
            raw.say("GET / HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n").await;
            let answer = raw.rest().await.to_ascii_lowercase();
            assert!(answer.contains(&format!("x-handshake: {want}\r\n")), "{versions:?}: {answer}");
        }
    }
}

/// Bytes that only belong to TLS do not end a connection that waits for the next request.
#[tokio::test]
async fn an_idle_connection_survives_a_change_of_keys() {
    let authority = Authority::new();
    let (changed, mut is_changed) = tokio::sync::mpsc::channel(1);
    let server = tls::serve(authority.issue(NAME, 2099).config(&[&TLS13]), move |mut stream| {
        let changed = changed.clone();
        async move {
            while read_request(&mut stream).await.is_some() {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("written");
                stream.get_mut().1.refresh_traffic_keys().expect("keys");
                stream.flush().await.expect("flushed");
                changed.send(()).await.expect("heard");
            }
        }
    })
    .await;
    let (fed, address) = fed(authority.policy(NAME), &[server]).await;
    let mut raw = Raw::to(address).await;
    for _ in 0..3 {
        raw.say(GET).await;
        assert_eq!(outcome(&raw.hear().await.0), (200, ""));
        within(is_changed.recv()).await.expect("changed");
    }
    assert!(fed.metrics().contains("maesh_proxy_upstream_connects_total{outcome=\"ok\"} 1\n"), "{}", fed.metrics());
}

/// Who cuts a connection must not make a part of a response look like all of it.
#[tokio::test]
async fn a_response_that_is_cut_off_is_not_complete() {
    let authority = Authority::new();
    for (case, head, proper, complete) in [
        ("ends by closing, with close_notify", "", true, true),
        ("ends by closing, without", "", false, false),
        ("with a length, without", "Content-Length: 9\r\n", false, false),
        ("with a length, with close_notify", "Content-Length: 9\r\n", true, false),
        ("all of it, without", "Content-Length: 4\r\n", false, true),
    ] {
        let server = tls::serve(tls::usual(&authority), move |mut stream| async move {
            read_request(&mut stream).await.expect("a request");
            let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\npart");
            stream.write_all(answer.as_bytes()).await.expect("written");
            stream.flush().await.expect("flushed");
            if proper {
                stream.shutdown().await.expect("ended");
            } else {
                stream.get_mut().0.shutdown().await.expect("ended");
            }
            // Until the proxy is done with it.
            let _ = stream.read(&mut [0; 16]).await;
        })
        .await;
        let (_fed, address) = fed(authority.policy(NAME), &[server]).await;
        let mut raw = Raw::to(address).await;
        raw.say("GET / HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n").await;
        let all = raw.rest().await;
        assert!(all.starts_with("HTTP/1.1 200"), "{case}: {all}");
        // Without a length, the end of the last chunk says that it is complete.
        let ends =
            if head.is_empty() { all.ends_with("\r\n0\r\n\r\n") } else { all.ends_with("part") && head.contains('4') };
        assert_eq!(ends, complete, "{case}: {all:?}");
    }
}

/// Bytes that are not of the session, or an alert, in the middle of a response.
#[tokio::test]
async fn what_is_no_record_ends_the_response() {
    let authority = Authority::new();
    for (case, bytes) in [
        ("an alert that is not encrypted", &b"\x15\x03\x03\x00\x02\x02\x14"[..]),
        ("a close_notify that is not encrypted", b"\x15\x03\x03\x00\x02\x01\x00"),
        ("a record of somebody else", b"\x17\x03\x03\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ("no record", b"HTTP/1.1 200 OK\r\n\r\n"),
    ] {
        for versions in [&[&TLS13][..], &[&TLS12]] {
            let server = tls::serve(authority.issue(NAME, 2099).config(versions), move |mut stream| async move {
                read_request(&mut stream).await.expect("a request");
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\npart").await.expect("written");
                stream.flush().await.expect("flushed");
                stream.get_mut().0.write_all(bytes).await.expect("written");
                let _ = stream.get_mut().0.read(&mut [0; 16]).await;
            })
            .await;
            let (_fed, address) = fed(authority.policy(NAME), &[server]).await;
            let mut raw = Raw::to(address).await;
            raw.say("GET / HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n").await;
            let all = raw.rest().await;
            assert!(all.starts_with("HTTP/1.1 200") && !all.ends_with("0\r\n\r\n"), "{case}: {all:?}");
        }
    }
}

/// More than any buffer holds, both ways at the same time.
#[tokio::test]
async fn large_bodies_pass_unchanged() {
    const SIZE: usize = 4 << 20;
    let authority = Authority::new();
    for versions in [&[&TLS13][..], &[&TLS12]] {
        let server = tls::serve(authority.issue(NAME, 2099).config(versions), |stream| async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(reader.read_u8().await.expect("a head"));
            }
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
            writer.write_all(answer.as_bytes()).await.expect("written");
            let mut body = reader.take(SIZE as u64);
            assert_eq!(tokio::io::copy(&mut body, &mut writer).await.expect("copied"), SIZE as u64);
            writer.flush().await.expect("flushed");
        })
        .await;
        let (_fed, address) = fed(authority.policy(NAME), &[server]).await;
        let stream = TcpStream::connect(address).await.expect("connected");
        let (mut reader, mut writer) = stream.into_split();
        let sent: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
        let copy = sent.clone();
        let sending = tokio::spawn(async move {
            let head = format!("POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: {SIZE}\r\n\r\n");
            writer.write_all(head.as_bytes()).await.expect("written");
            writer.write_all(&copy).await.expect("written");
            writer
        });
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(reader.read_u8()).await.expect("a head"));
        }
        let mut back = vec![0; SIZE];
        within(reader.read_exact(&mut back)).await.expect("a body");
        assert!(back == sent, "{versions:?}");
        sending.await.expect("sent");
    }
}

/// An endpoint of WebSocket that says something first, and then sends back what it gets.
async fn websocket(authority: &Authority) -> SocketAddr {
    tls::serve(tls::usual(authority), |mut stream| async move {
        read_request(&mut stream).await.expect("a request");
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nfirst";
        stream.write_all(answer.as_bytes()).await.expect("written");
        stream.flush().await.expect("flushed");
        let (mut reader, mut writer) = tokio::io::split(stream);
        tokio::io::copy(&mut reader, &mut writer).await.expect("copied");
        writer.shutdown().await.expect("ended");
    })
    .await
}

/// WebSocket through the proxy to an endpoint over TLS: bytes both ways, and an end that is an end.
#[tokio::test]
async fn an_upgrade_over_tls() {
    let authority = Authority::new();
    let server = websocket(&authority).await;
    let (_fed, address) = fed(authority.policy(NAME), &[server]).await;
    let mut raw = Raw::to(address).await;
    raw.say(
        "GET /chat HTTP/1.1\r\nHost: web.shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    .await;
    assert_eq!(outcome(&raw.head().await).0, 101);
    raw.say("second").await;
    raw.stream.shutdown().await.expect("ended");
    assert_eq!(raw.rest().await, "firstsecond");
}

/// The same from a caller of HTTP/2 (RFC 8441).
#[tokio::test]
async fn an_upgrade_over_tls_from_http2() {
    let authority = Authority::new();
    let server = websocket(&authority).await;
    let (_fed, address) = fed(authority.policy(NAME), &[server]).await;
    let stream = TcpStream::connect(address).await.expect("connected");
    let (sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    within(async {
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let mut request = http::Request::new(());
    *request.method_mut() = http::Method::CONNECT;
    *request.uri_mut() = format!("http://web.shop:{}/chat", address.port()).parse().expect("a URI");
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let mut sender = within(sender.ready()).await.expect("ready");
    let (answer, mut upload) = sender.send_request(request, false).expect("sent");
    let answer = within(answer).await.expect("answered");
    assert_eq!(answer.status(), 200);
    upload.send_data(bytes::Bytes::from_static(b"second"), true).expect("sent");
    let mut body = answer.into_body();
    let mut back = Vec::new();
    while let Some(data) = within(body.data()).await {
        back.extend_from_slice(&data.expect("data"));
    }
    assert_eq!(back, b"firstsecond");
}
