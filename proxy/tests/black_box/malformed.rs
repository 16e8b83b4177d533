//! Requests and responses that are not what RFC 9110 and RFC 9113 allow: refused, or passed on in a form that is.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::{
    Fed, Raw, ask, config, endpoints,
    frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, OK, block},
    within,
};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderValue, Method, Request, StatusCode};
use maesh_config::model::Scheme;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn fed(scheme: Scheme, endpoint: SocketAddr) -> (Fed, SocketAddr) {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let address = fed.http("web.shop", scheme, &[endpoint]).await;
    (fed, address)
}

/// A caller of HTTP/2 that has heard what the proxy supports.
async fn caller(to: SocketAddr) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(to).await.expect("connected");
    let (sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    within(async {
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    sender
}

/// Sends a request without a body; returns the status, `x-maesh-reason`, and the body.
async fn send(sender: &mut SendRequest<Bytes>, request: Request<()>) -> (StatusCode, String, Vec<u8>) {
    *sender = within(sender.clone().ready()).await.expect("ready");
    let ends = *request.method() != Method::CONNECT;
    let (answer, upload) = sender.send_request(request, ends).expect("sent");
    let (head, mut body) = within(answer).await.expect("answered").into_parts();
    let reason = head.headers.get("x-maesh-reason").map_or("", |reason| reason.to_str().expect("text")).to_owned();
    let mut heard = Vec::new();
    if ends {
        while let Some(data) = within(body.data()).await {
            heard.extend_from_slice(&data.expect("data"));
        }
    }
    drop(upload);
    (head.status, reason, heard)
}

/// An endpoint that agrees to any upgrade, and keeps the heads that it was asked with.
async fn agreeing() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = heads.clone();
    let address = endpoints::raw(move |mut stream| {
        let log = log.clone();
        async move {
            let mut heard = Vec::new();
            while !heard.ends_with(b"\r\n\r\n") {
                if !matches!(stream.read_buf(&mut heard).await, Ok(1..)) {
                    return;
                }
            }
            let head = String::from_utf8_lossy(&heard).into_owned();
            let upgrade = head.lines().find_map(|line| line.strip_prefix("upgrade: ").map(str::to_owned));
            log.lock().expect("lock").push(head);
            let answer = match upgrade {
                Some(protocol) => {
                    format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n")
                }
                None => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into(),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    (address, heads)
}

/// Extended CONNECT is for WebSocket (RFC 8441): other protocols are answered with 501 (RFC 9220 section 3), what is no
/// protocol with 400, and no endpoint hears of either.
#[tokio::test]
async fn extended_connect_is_for_websocket() {
    let (server, heads) = agreeing().await;
    let (_fed, address) = fed(Scheme::Http, server).await;
    let mut sender = caller(address).await;
    for (protocol, status, reason) in [
        ("websocket", 200, ""),
        ("WebSocket", 200, ""),
        ("connect-udp", 501, "not_implemented"),
        ("h2c", 501, "not_implemented"),
        ("", 400, "bad_request"),
        ("web socket", 400, "bad_request"),
        ("websocket, h2c", 400, "bad_request"),
    ] {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = format!("http://web.shop:{}/chat", address.port()).parse().expect("a URI");
        request.extensions_mut().insert(h2::ext::Protocol::from(protocol));
        let (got, why, _) = send(&mut sender, request).await;
        assert_eq!((got.as_u16(), &*why), (status, reason), "{protocol:?}");
    }
    let heads = heads.lock().expect("lock");
    assert_eq!(heads.len(), 2, "{heads:?}");
    for head in heads.iter() {
        assert!(head.contains("\r\nupgrade: websocket\r\n") && head.contains("\r\nsec-websocket-key: "), "{head}");
    }
}

/// No caller gets to speak HTTP to an endpoint past the proxy, which would see none of its requests.
#[tokio::test]
async fn upgrades_to_http_are_not_passed_on() {
    let (server, heads) = agreeing().await;
    let (_fed, address) = fed(Scheme::Http, server).await;
    for (asked, passed) in [
        ("tcp", Some("tcp")),
        ("websocket", Some("websocket")),
        ("foo/2, bar", Some("foo/2, bar")),
        ("h2c", None),
        ("H2C", None),
        ("h2c, websocket", Some("websocket")),
        ("websocket\r\nUpgrade: h2c", Some("websocket")),
        ("HTTP/2.0", None),
        ("", None),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: web.shop\r\nConnection: Upgrade\r\nUpgrade: {asked}\r\n\r\n");
        let mut raw = Raw::to(address).await;
        raw.say(&request).await;
        let head = raw.head().await;
        assert!(head.starts_with(if passed.is_some() { "http/1.1 101" } else { "http/1.1 200" }), "{asked}: {head}");
        let asked_with = heads.lock().expect("lock").pop().expect("asked");
        let upgrade = asked_with.lines().find_map(|line| line.strip_prefix("upgrade: "));
        assert_eq!(upgrade, passed, "{asked}: {asked_with}");
    }
    for asked in ["web socket", "a@b", "/2"] {
        let request = format!("GET / HTTP/1.1\r\nHost: web.shop\r\nConnection: Upgrade\r\nUpgrade: {asked}\r\n\r\n");
        let (head, _) = ask(address, &request).await;
        assert!(head.starts_with("http/1.1 400"), "{asked}: {head}");
    }
}

/// `PRI` is no method: it begins HTTP/2, and an endpoint might take it for that.
#[tokio::test]
async fn pri_is_no_method() {
    let server = endpoints::echo(false, "one").await;
    let (_fed, address) = fed(Scheme::Http, server.address).await;
    for target in ["/", "*"] {
        let (head, _) = ask(address, &format!("PRI {target} HTTP/1.1\r\nHost: web.shop\r\n\r\n")).await;
        assert!(head.starts_with("http/1.1 400") && head.contains("bad_request"), "{target}: {head}");
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(b"PRI").expect("a token");
    *request.uri_mut() = format!("http://web.shop:{}/", address.port()).parse().expect("a URI");
    let (status, reason, _) = send(&mut caller(address).await, request).await;
    assert_eq!((status.as_u16(), &*reason), (400, "bad_request"));
}

/// A `:path` that is no path would become the target of HTTP/1.1, in another of its forms. A fragment belongs to none.
#[tokio::test]
async fn a_path_of_http2_begins_with_a_slash() {
    let server = endpoints::echo(false, "one").await;
    let (_fed, address) = fed(Scheme::Http, server.address).await;
    for (path, method, ok) in [
        ("/x", "GET", true),
        ("*", "OPTIONS", true),
        ("*", "GET", false),
        ("http://evil/x", "GET", false),
        ("evil:80", "GET", false),
        ("?q", "GET", false),
        ("/p?q#frag", "GET", false),
        ("/#", "GET", false),
    ] {
        let mut frames = Frames::connect(address).await;
        let fields = block(&[(":method", method), (":scheme", "http"), (":authority", "web.shop"), (":path", path)]);
        frames.write(HEADERS, END_HEADERS | END_STREAM, 1, &fields).await;
        let answer = within(async {
            loop {
                let frame = frames.read().await?;
                if frame.stream == 1 {
                    return Some(frame);
                }
            }
        })
        .await;
        // Refused by an answer or by a reset of the stream.
        let served = answer.is_some_and(|frame| frame.kind == HEADERS && frame.payload.first() == OK.first());
        assert_eq!(served, ok, "{method} {path}");
    }
}

/// Values of HTTP/2 keep the space around them, which HTTP/1.1 would not: it is removed.
#[tokio::test]
async fn what_http2_leaves_in_values_is_removed() {
    let server = endpoints::echo(true, "one").await;
    let (_fed, address) = fed(Scheme::H2c, server.address).await;
    let mut request = Request::new(());
    *request.uri_mut() = format!("http://web.shop:{}/", address.port()).parse().expect("a URI");
    request.headers_mut().insert("x-padded", HeaderValue::from_static(" \ta b\t "));
    let (status, _, body) = send(&mut caller(address).await, request).await;
    let body = String::from_utf8(body).expect("text");
    assert!(status == 200 && body.contains("\nx-padded: a b\n"), "{body}");
}

/// The same from an endpoint, also in trailers; pseudo-fields in trailers reach nobody.
#[tokio::test]
async fn what_an_endpoint_leaves_in_values_is_removed() {
    let server = endpoints::raw(|stream| async move {
        let Some(mut frames) = Frames::accept(stream, &[]).await else { return };
        while let Some(frame) = frames.read().await {
            if frame.kind == HEADERS {
                let head = block(&[(":status", "200"), ("x-padded", " a\t")]);
                frames.write(HEADERS, END_HEADERS, frame.stream, &head).await;
                frames.write(DATA, 0, frame.stream, b"ok").await;
                let trailers = block(&[("x-sum", " 7 ")]);
                frames.write(HEADERS, END_HEADERS | END_STREAM, frame.stream, &trailers).await;
            }
        }
    })
    .await;
    let (_fed, address) = fed(Scheme::H2c, server).await;
    let mut sender = caller(address).await;
    let request = Request::get(format!("http://web.shop:{}/", address.port())).body(()).expect("a request");
    let (answer, _) = sender.send_request(request, true).expect("sent");
    let (head, mut body) = within(answer).await.expect("answered").into_parts();
    assert_eq!((head.status.as_u16(), head.headers["x-padded"].as_bytes()), (200, &b"a"[..]));
    while within(body.data()).await.is_some() {}
    let trailers = within(body.trailers()).await.expect("no error").expect("trailers");
    assert_eq!(trailers.len(), 1, "{trailers:?}");
    assert_eq!(trailers["x-sum"].as_bytes(), b"7");
}

/// A response that has no body has none for the caller either, whatever an endpoint sends with it.
#[tokio::test]
async fn data_where_there_is_no_body_is_dropped() {
    for (method, status) in [("GET", "204"), ("GET", "304"), ("HEAD", "200")] {
        let server = endpoints::raw(move |stream| async move {
            let Some(mut frames) = Frames::accept(stream, &[]).await else { return };
            while let Some(frame) = frames.read().await {
                if frame.kind == HEADERS {
                    frames.write(HEADERS, END_HEADERS, frame.stream, &block(&[(":status", status)])).await;
                    frames.write(DATA, END_STREAM, frame.stream, b"smuggled").await;
                }
            }
        })
        .await;
        let (_fed, address) = fed(Scheme::H2c, server).await;
        let mut sender = caller(address).await;
        for _ in 0..3 {
            let mut request = Request::new(());
            *request.method_mut() = method.parse().expect("a method");
            *request.uri_mut() = format!("http://web.shop:{}/", address.port()).parse().expect("a URI");
            let (got, _, body) = send(&mut sender, request).await;
            assert_eq!((got.as_str(), &*body), (status, &b""[..]), "{method}");
        }
        let mut raw = Raw::to(address).await;
        let request = format!("{method} / HTTP/1.1\r\nHost: web.shop\r\n\r\n");
        for _ in 0..2 {
            raw.say(&request).await;
            let head = raw.head().await;
            assert!(head.starts_with(&format!("http/1.1 {status}")), "{method}: {head}");
        }
    }
}
