//! Callers that do not behave: forms of targets, half-closed connections, uploads that are refused, fields that lie.

use std::{net::SocketAddr, time::Duration};

use crate::support::{
    Fed, Raw, ask, config, echoing, endpoint, endpoints,
    frames::{END_HEADERS, END_STREAM, Frames, HEADERS, block},
    get, policy, within,
};
use maesh_config::model::{BackendPolicy, Protocol, Scheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Forms of a target (RFC 9112 section 3.2) with which a method has no business never reach an endpoint.
#[tokio::test]
async fn targets_have_the_form_of_their_method() {
    let (_fed, address, _server) = echoing().await;
    for (line, status) in [
        ("GET /ok?q=1", 200),
        ("GET http://web.shop/ok", 200),
        ("GET https://web.shop/ok", 200),
        ("OPTIONS *", 200),
        ("GET web.shop:8080", 400),
        ("GET web.shop", 400),
        ("GET *", 400),
        ("POST *", 400),
        ("GET ftp://web.shop/ok", 400),
        ("GET /ok#fragment", 400),
        ("GET http://web.shop/ok#fragment", 400),
    ] {
        let (head, _) = ask(address, &format!("{line} HTTP/1.1\r\nHost: web.shop\r\n\r\n")).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{line}: {head}");
        assert!(status == 200 || head.contains("x-maesh-reason: bad_request\r\n"), "{line}: {head}");
    }
}

/// What `docs/services.md` says of characters that a target should have encoded.
#[tokio::test]
async fn characters_of_a_target() {
    let (_fed, address, _server) = echoing().await;
    for target in
        [&b"/?filter={a:1}"[..], b"/a{\"b\"}", b"/%zz", b"/a|b^c\\d", b"/?q=a|b^c`d", "/é?q=ü".as_bytes(), b"/[x]'()*"]
    {
        let mut raw = Raw::to(address).await;
        let line = [b"GET ", target, b" HTTP/1.1\r\nHost: web.shop\r\n\r\n"].concat();
        raw.stream.write_all(&line).await.expect("written");
        let (head, body) = raw.hear().await;
        let text = String::from_utf8_lossy(target).into_owned();
        assert!(head.starts_with("http/1.1 200"), "{text}: {head}");
        assert!(body.starts_with(&format!("one GET {text} ")), "as it came: {body}");
    }
    for target in [&b"/a<b>"[..], b"/a`b", b"/?filter={\"a\":1}", b"/?q=<b>", b"/caf\xe9", b"/?q=\xfc"] {
        let mut raw = Raw::to(address).await;
        let line = [b"GET ", target, b" HTTP/1.1\r\nHost: web.shop\r\n\r\n"].concat();
        raw.stream.write_all(&line).await.expect("written");
        let answer = raw.rest().await;
        let text = String::from_utf8_lossy(target).into_owned();
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("bad_request"), "{text}: {answer}");
    }
}

/// A caller that ends its side with its request (BusyBox wget, `nc -N`) still wants the response.
#[tokio::test]
async fn a_caller_that_half_closes_gets_its_response() {
    let server = endpoints::serve(false, |request| async move {
        if request.uri().path() == "/slow" {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let body = http_body_util::BodyExt::collect(request.into_body()).await.expect("a body").to_bytes();
        http::Response::new(endpoints::full(format!("got {}", body.len())))
    })
    .await;
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let address = fed.http("web.shop", Scheme::Http, &[server.address]).await;
    for path in ["/", "/slow"] {
        for (body, want) in [("", "got 0"), ("hello", "got 5")] {
            let mut raw = Raw::to(address).await;
            let length = body.len();
            raw.say(&format!("POST {path} HTTP/1.1\r\nHost: web.shop\r\nContent-Length: {length}\r\n\r\n{body}")).await;
            raw.stream.shutdown().await.expect("shut");
            let (head, answer) = raw.hear().await;
            assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
            assert_eq!(answer, want, "{path}");
            assert_eq!(raw.rest().await, "", "and closed");
        }
    }
}

/// A caller that ends its side within its request gets no response, and the endpoint no complete request.
#[tokio::test]
async fn a_request_that_ends_early_is_not_completed() {
    let (_fed, address, _server) = echoing().await;
    let mut raw = Raw::to(address).await;
    raw.say("POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 9\r\n\r\nhalf").await;
    raw.stream.shutdown().await.expect("shut");
    let answer = raw.rest().await;
    assert!(answer.is_empty() || answer.contains("x-maesh-reason: bad_request"), "{answer}");
}

/// Whoever uploads a lot without listening reads the refusal all the same: the connection is not reset under it.
#[tokio::test]
async fn an_upload_that_is_refused_early_can_read_why() {
    let (_fed, address, _server) = echoing().await;
    for framing in ["Content-Length: 8388608", "Transfer-Encoding: chunked"] {
        let mut raw = Raw::to(address).await;
        raw.say(&format!("POST / HTTP/1.1\r\nHost: nobody.shop\r\n{framing}\r\n\r\n")).await;
        // All of it is taken, though the response was there before.
        let piece = if framing.starts_with("Tr") {
            [b"10000\r\n".to_vec(), vec![b'x'; 65536], b"\r\n".to_vec()].concat()
        } else {
            vec![b'x'; 65536]
        };
        for _ in 0..128 {
            within(raw.stream.write_all(&piece)).await.expect("taken");
        }
        let (head, _) = raw.hear().await;
        assert!(head.starts_with("http/1.1 404") && head.contains("connection: close"), "{framing}: {head}");
        assert_eq!(raw.rest().await, "", "{framing}: and closed");
    }
}

/// The connection of a small upload that is refused goes on.
#[tokio::test]
async fn a_small_upload_that_is_refused_costs_no_connection() {
    let (_fed, address, _server) = echoing().await;
    let mut raw = Raw::to(address).await;
    for _ in 0..3 {
        raw.say("POST / HTTP/1.1\r\nHost: nobody.shop\r\nContent-Length: 5\r\n\r\nhello").await;
        let (head, _) = raw.hear().await;
        assert!(head.starts_with("http/1.1 404") && !head.contains("connection: close"), "{head}");
    }
    raw.say(&get("web.shop", "/")).await;
    assert!(raw.hear().await.0.starts_with("http/1.1 200"));
}

/// Where the connection will be closed because an upload is not complete yet, the refusal says so (RFC 9112 section 9.6).
#[tokio::test]
async fn a_refusal_says_whether_its_connection_goes_on() {
    let (fed, address, _server) = echoing().await;
    fed.define("gone.shop", address.port(), Protocol::Http, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("gone.shop", address.port(), Protocol::Http, Vec::new());
    fed.name("gone.shop", address.port(), address.port(), Protocol::Http, &[]).await;
    for (fields, status) in [
        ("Host: nobody.shop", 404),
        ("Host: web.shop\r\nX-Maesh-Hops: 99", 508),
        ("Host: gone.shop", 503),
        ("Host: nobody.shop\r\nExpect: 100-continue", 404),
    ] {
        for (framing, first, rest) in [
            ("Content-Length: 5", "", "hello"),
            ("Content-Length: 5", "he", "llo"),
            ("Transfer-Encoding: chunked", "", "5\r\nhello\r\n0\r\n\r\n"),
            ("Transfer-Encoding: chunked", "5\r\nhello\r\n", "0\r\n\r\n"),
        ] {
            let case = format!("{fields} {framing} {first}");
            let mut raw = Raw::to(address).await;
            raw.say(&format!("POST / HTTP/1.1\r\n{fields}\r\n{framing}\r\n\r\n{first}")).await;
            let (head, _) = raw.hear().await;
            assert!(head.starts_with(&format!("http/1.1 {status}")), "{case}: {head}");
            let closes = head.contains("\r\nconnection: close\r\n");
            // That the connection may be gone by now is what is announced.
            let _ = raw.stream.write_all(rest.as_bytes()).await;
            let _ = raw.stream.write_all(get("web.shop", "/next").as_bytes()).await;
            if closes {
                assert_eq!(raw.rest().await, "", "{case}");
            } else {
                assert!(raw.hear().await.0.starts_with("http/1.1 200"), "{case}");
            }
        }
    }
}

/// The authority of a target may be followed by a query at once (RFC 9112 section 3.2.2).
#[tokio::test]
async fn an_absolute_target_may_have_no_path() {
    for (scheme, http2) in [(Scheme::Http, false), (Scheme::H2c, true)] {
        let server = endpoints::echo(http2, "one").await;
        let fed = Fed::new(config()).await;
        fed.begin().await;
        let address = fed.http("web.shop", scheme, &[server.address]).await;
        for (target, want) in [
            ("http://web.shop?q", "/?q"),
            ("http://web.shop:80?q=/a?b", "/?q=/a?b"),
            ("http://web.shop?", "/?"),
            ("http://web.shop", "/"),
            ("http://web.shop/?q", "/?q"),
        ] {
            let (head, body) = ask(address, &format!("GET {target} HTTP/1.1\r\nHost: web.shop\r\n\r\n")).await;
            assert!(head.starts_with("http/1.1 200"), "{target}: {head}");
            assert!(body.starts_with(&format!("one GET {want} ")), "{target}: {body}");
        }
    }
}

/// Between brackets stands an IPv6 address and nothing else (RFC 3986 section 3.2.2).
#[tokio::test]
async fn brackets_hold_an_address() {
    let (_fed, address, _server) = echoing().await;
    for (host, status) in [
        ("[web.shop.maesh]", 400),
        ("[web.shop]", 400),
        ("[127.0.0.1]", 400),
        ("[v1.a]", 400),
        ("[]", 400),
        ("[fd00::1]", 404),
        ("[fd00::1]:80", 404),
        ("[fe80::1%25eth0]", 404),
    ] {
        let (head, _) = ask(address, &get(host, "/")).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{host}: {head}");
    }
    for (authority, status) in [("[web.shop.maesh]", "400"), ("web.shop.maesh", "200")] {
        let mut frames = Frames::connect(address).await;
        let fields = block(&[(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", "/")]);
        frames.write(HEADERS, END_HEADERS | END_STREAM, 1, &fields).await;
        let answer = within(async {
            loop {
                let frame = frames.read().await.expect("answered");
                if frame.stream == 1 {
                    return frame;
                }
            }
        })
        .await;
        // The status comes first, from the table of HPACK.
        let want = if status == "200" { 0x88 } else { 0x8c };
        assert_eq!((answer.kind, answer.payload.first()), (HEADERS, Some(&want)), "{authority}");
    }
}

/// Names that CGI and WSGI read as those that the mesh sets.
#[tokio::test]
async fn fields_with_underscores_do_not_lie() {
    let (_fed, address, _server) = echoing().await;
    let request = "GET / HTTP/1.1\r\nHost: web.shop\r\nX_Forwarded_For: 9.9.9.9\r\nX-Forwarded_Proto: https\r\n\
                   X_Real_IP: 9.9.9.9\r\nX_Maesh_Reason: x\r\nMy_Field: kept\r\n\r\n";
    let (_, body) = ask(address, request).await;
    assert!(!body.contains("9.9.9.9") && !body.contains("x_maesh"), "{body}");
    assert!(body.contains("\nmy_field: kept\n"), "{body}");
}

#[tokio::test]
async fn a_post_without_a_body_has_a_length() {
    let (_fed, address, _server) = echoing().await;
    for (method, want) in [("POST", true), ("PUT", true), ("PATCH", true), ("GET", false), ("DELETE", false)] {
        let (_, body) = ask(address, &format!("{method} / HTTP/1.1\r\nHost: web.shop\r\n\r\n")).await;
        assert_eq!(body.contains("\ncontent-length: 0\n"), want, "{method}: {body}");
    }
}

/// A Service with this policy, whose endpoint begins its responses and does not go on.
async fn standing_still(policy: BackendPolicy) -> (Fed, SocketAddr) {
    let server = endpoints::raw(|mut stream| async move {
        let mut some = [0; 1024];
        while let Ok(1..) = stream.read(&mut some).await {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun").await;
        }
    })
    .await;
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let address = fed.listen(&[]).await;
    fed.define("web.shop", address.port(), Protocol::Http, policy, Vec::new());
    fed.define_endpoints("web.shop", address.port(), Protocol::Http, vec![endpoint(server)]);
    fed.name("web.shop", address.port(), address.port(), Protocol::Http, &[]).await;
    (fed, address)
}

/// A response that stands still in both directions is cut after the backend's idle timeout, and its place is free again.
#[tokio::test]
async fn a_body_that_is_silent_is_cut() {
    let mut impatient = policy(Scheme::Http);
    impatient.idle_timeout = Some(Duration::from_secs(1));
    impatient.concurrency = 1;
    let (_fed, address) = standing_still(impatient).await;
    for _ in 0..2 {
        let mut raw = Raw::to(address).await;
        raw.say(&get("web.shop", "/")).await;
        let answer = raw.rest().await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("begun"), "{answer}");
    }
}

/// One caller cannot hold all of a backend's concurrency.
#[tokio::test]
async fn one_caller_leaves_some_concurrency_to_others() {
    let mut narrow = policy(Scheme::Http);
    narrow.concurrency = 8;
    let (_fed, address) = standing_still(narrow).await;
    let mut held = Vec::new();
    for i in 0..8 {
        let mut raw = Raw::to(address).await;
        raw.say(&get("web.shop", "/")).await;
        let head = raw.head().await;
        if i < 6 {
            assert!(head.starts_with("http/1.1 200"), "{i}: {head}");
        } else {
            assert!(head.contains("x-maesh-reason: overloaded\r\n"), "{i}: {head}");
        }
        held.push(raw);
    }
    let other = tokio::net::TcpSocket::new_v4().expect("a socket");
    other.bind("127.0.0.9:0".parse().expect("an address")).expect("bound");
    let mut other = other.connect(address).await.expect("connected");
    other.write_all(get("web.shop", "/").as_bytes()).await.expect("written");
    let mut answer = [0; 12];
    within(other.read_exact(&mut answer)).await.expect("read");
    assert_eq!(&answer, b"HTTP/1.1 200");
}
