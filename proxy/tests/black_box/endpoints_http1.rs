//! Endpoints of HTTP/1.1 that close, refuse, answer early or answer badly, byte by byte.

mod uploads;

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::support::{Fed, LOCAL, Raw, ask, config, endpoint, endpoints, get, refusing, within};
use maesh_config::model::{Protocol, Scheme};
use maesh_proxy::{Config, Limits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Barrier, watch},
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn fed(endpoint: SocketAddr) -> (Fed, SocketAddr) {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let address = fed.http("web.shop", Scheme::Http, &[endpoint]).await;
    (fed, address)
}

fn post(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Reads the head of a request; `None` at the end of the connection.
async fn read_head(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut heard = Vec::new();
    loop {
        if let Some(end) = heard.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = heard.split_off(end + 4);
            return Some((String::from_utf8(heard).expect("text"), rest));
        }
        if !matches!(stream.read_buf(&mut heard).await, Ok(1..)) {
            return None;
        }
    }
}

async fn read_exactly(stream: &mut TcpStream, mut heard: Vec<u8>, length: usize) -> Vec<u8> {
    while heard.len() < length {
        if !matches!(stream.read_buf(&mut heard).await, Ok(1..)) {
            break;
        }
    }
    heard
}

/// Many pooled connections that the endpoint has closed: none of them is given a request, whatever its method.
#[tokio::test]
async fn connections_that_the_endpoint_closed_cost_nothing() {
    const MANY: usize = 20;
    let (barrier, closing) = (Arc::new(Barrier::new(MANY)), watch::Sender::new(false));
    let (opened, close) = (Arc::new(AtomicU32::new(0)), closing.clone());
    let endpoint = endpoints::raw(move |mut stream| {
        let (barrier, opened, mut close) = (barrier.clone(), opened.clone(), close.subscribe());
        async move {
            let first = opened.fetch_add(1, Ordering::Relaxed) < u32::try_from(MANY).expect("few");
            while read_head(&mut stream).await.is_some() {
                if first {
                    barrier.wait().await;
                }
                stream.write_all(OK).await.expect("written");
                if first {
                    // The connection waits in the pool until the endpoint has had enough.
                    close.wait_for(|close| *close).await.expect("told");
                    return;
                }
            }
        }
    })
    .await;
    let (fed, address) = fed(endpoint).await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..MANY {
        callers.spawn(async move { ask(address, &get("web.shop", "/")).await });
    }
    while let Some(answer) = within(callers.join_next()).await {
        assert!(answer.expect("no panic").0.starts_with("http/1.1 200"));
    }
    closing.send_replace(true);
    within(async {
        while closing.receiver_count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for i in 0..5 {
        let (head, _) = ask(address, &post("")).await;
        assert!(head.starts_with("http/1.1 200"), "{i}: {head}");
    }
    assert_eq!(fed.counted("maesh_proxy_retries_total", &["cause=\"closed\""]), 0, "{}", fed.metrics());
}

/// A connection that ends with the request on it: idempotent ones are made again with their body, while it is kept.
#[tokio::test]
async fn small_bodies_are_sent_again_where_that_is_safe() {
    let endpoint = endpoints::raw(|mut stream| async move {
        for answers in [true, false] {
            let Some((head, rest)) = read_head(&mut stream).await else { return };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.map_or(0, |length| length.parse().expect("a number"));
            let body = read_exactly(&mut stream, rest, length).await;
            // The second request is read to its end, and never answered.
            if answers {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all(answer.as_bytes()).await.expect("written");
                stream.write_all(&body).await.expect("written");
            }
        }
    })
    .await;
    let (_fed, address) = fed(endpoint).await;
    let large = "x".repeat(70 * 1024);
    for (case, method, body, status) in [
        ("PUT", "PUT", "0123456789", "200"),
        ("POST", "POST", "0123456789", "502"),
        ("PUT of more than is kept", "PUT", &large, "502"),
    ] {
        let mut raw = Raw::to(address).await;
        raw.say(&get("web.shop", "/")).await;
        assert!(raw.hear().await.0.starts_with("http/1.1 200"), "{case}");
        let framed = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        raw.say(&format!("{method} / HTTP/1.1\r\nHost: web.shop\r\n{framed}")).await;
        let (head, heard) = raw.hear().await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{case}: {head}");
        assert!(status != "200" || heard == body, "{case}: {heard}");
    }
}

/// A `HEAD` without a length from an endpoint that then closes: the next request gets a connection of its own.
#[tokio::test]
async fn a_head_that_is_followed_by_the_end_is_not_reused() {
    let endpoint = endpoints::raw(|mut stream| async move {
        while let Some((head, rest)) = read_head(&mut stream).await {
            if head.starts_with("HEAD") {
                stream.write_all(b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n").await.expect("written");
                stream.shutdown().await.expect("shut down");
                // What comes now would never be answered.
                let _ = stream.read(&mut [0; 1024]).await;
                return;
            }
            read_exactly(&mut stream, rest, 3).await;
            stream.write_all(OK).await.expect("written");
        }
    })
    .await;
    let (_fed, address) = fed(endpoint).await;
    for i in 0..20 {
        let mut raw = Raw::to(address).await;
        raw.say(&format!("HEAD / HTTP/1.1\r\nHost: web.shop\r\n\r\n{}", post("abc"))).await;
        assert!(raw.head().await.starts_with("http/1.1 200"), "{i}");
        let (head, _) = raw.hear().await;
        assert!(head.starts_with("http/1.1 200"), "{i}: {head}");
    }
}

/// An endpoint that begins to answer before it has the whole request may not read the rest of it, and would take what it
/// finds there for the next request: its connection carries no other one, even if all was sent in the end.
#[tokio::test]
async fn a_connection_that_was_answered_early_is_not_reused() {
    let reused = Arc::new(AtomicU32::new(0));
    let counted = reused.clone();
    let endpoint = endpoints::raw(move |mut stream| {
        let reused = counted.clone();
        async move {
            let mut answered_early = 0;
            while let Some((head, rest)) = read_head(&mut stream).await {
                reused.fetch_add(answered_early, Ordering::Relaxed);
                let (first, last) = OK.split_at(OK.len() - 1);
                stream.write_all(first).await.expect("written");
                if head.starts_with("POST") {
                    answered_early = 1;
                    read_exactly(&mut stream, rest, 3).await;
                }
                stream.write_all(last).await.expect("written");
            }
        }
    })
    .await;
    let (_fed, address) = fed(endpoint).await;
    for _ in 0..8 {
        let mut raw = Raw::to(address).await;
        raw.say("POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 3\r\n\r\n").await;
        let mut some = [0; 256];
        let read = within(raw.stream.read(&mut some)).await.expect("read");
        assert!(some[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&some[..read]));
        raw.say("abc").await;
        while !some.contains(&b'k') {
            assert!(within(raw.stream.read(&mut some)).await.expect("read") > 0, "closed within the body");
        }
        raw.say(&get("web.shop", "/")).await;
        let (head, _) = raw.hear().await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
    }
    assert_eq!(reused.load(Ordering::Relaxed), 0);
}

/// An endpoint that refuses an upload by its head, says so, and closes without reading the rest.
#[tokio::test]
async fn what_an_endpoint_said_before_it_closed_is_passed_on() {
    let endpoint = endpoints::raw(|mut stream| async move {
        let _ = read_head(&mut stream).await;
        let answer = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig";
        let _ = stream.write_all(answer).await;
    })
    .await;
    let (_fed, address) = fed(endpoint).await;
    for i in 0..20 {
        let (mut read, mut write) = TcpStream::connect(address).await.expect("connected").into_split();
        let upload = tokio::spawn(async move {
            let head = "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 1000000\r\n\r\n";
            let mut sent = write.write_all(head.as_bytes()).await;
            for _ in 0..20 {
                sent = match sent {
                    Ok(()) => write.write_all(&[b'a'; 50_000]).await,
                    failed => failed,
                };
            }
            (sent, write)
        });
        let mut heard = Vec::new();
        within(async { while !heard.ends_with(b"big") && matches!(read.read_buf(&mut heard).await, Ok(1..)) {} }).await;
        let heard = String::from_utf8_lossy(&heard).into_owned();
        assert!(heard.starts_with("HTTP/1.1 413 ") && heard.ends_with("\r\n\r\nbig"), "{i}: {heard:?}");
        drop(within(upload).await.expect("no panic"));
    }
}

/// Trailers pass both ways; those that would frame or route do not.
#[tokio::test]
async fn trailers_of_chunked_bodies() {
    let heard = watch::Sender::new(String::new());
    let told = heard.clone();
    let endpoint = endpoints::raw(move |mut stream| {
        let told = told.clone();
        async move {
            let Some((head, mut body)) = read_head(&mut stream).await else { return };
            while !body.ends_with(b"\r\n\r\n") {
                assert!(matches!(stream.read_buf(&mut body).await, Ok(1..)));
            }
            told.send_replace(head + &String::from_utf8_lossy(&body));
            let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                          2\r\nok\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.expect("written");
        }
    })
    .await;
    let (_fed, address) = fed(endpoint).await;
    let mut raw = Raw::to(address).await;
    raw.say(
        "PUT / HTTP/1.1\r\nHost: web.shop\r\nTE: trailers\r\nConnection: TE, close\r\nTransfer-Encoding: chunked\r\n\r\n\
         3;x=y\r\nabc\r\n0\r\nX-Check: 5\r\nHost: evil\r\n\r\n",
    )
    .await;
    let answer = raw.rest().await;
    assert!(answer.contains("\r\nx-sum: 7\r\n") && !answer.contains("content-length"), "{answer}");
    let asked = heard.borrow().clone();
    assert!(asked.contains("transfer-encoding: chunked\r\n") && !asked.contains("content-length"), "{asked}");
    assert!(asked.ends_with("\r\n\r\n3\r\nabc\r\n0\r\nx-check: 5\r\n\r\n"), "{asked}");
}

/// What can be read in two ways, or not at all, reaches no caller as it was.
#[tokio::test]
async fn responses_that_are_framed_badly() {
    let many = format!("200 OK\r\n{}Content-Length: 2\r\n\r\nok", "Set-Cookie: c=1\r\n".repeat(200));
    let too_many = format!("200 OK\r\n{}Content-Length: 2\r\n\r\nok", "Set-Cookie: c=1\r\n".repeat(1100));
    let large = format!("200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\nok", "x".repeat(70 * 1024));
    for (case, answer, want) in [
        (
            "chunks and a wrong length",
            "200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 99\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            Ok("hello"),
        ),
        ("a length twice", "200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", Ok("ok")),
        ("two lengths", "200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk", Err("upstream_protocol")),
        ("a malformed length", "200 OK\r\nContent-Length: 2x\r\n\r\nok", Err("upstream_protocol")),
        ("an unknown coding", "200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Err("upstream_protocol")),
        ("more than the body", "200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n", Ok("ok")),
        ("a body that the end ends", "200 OK\r\nServer: x\r\n\r\nuntil here", Ok("until here")),
        (
            "interim responses first",
            "102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Ok("ok"),
        ),
        ("101 unasked", "101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Err("upstream_protocol")),
        ("200 fields", &many, Ok("ok")),
        ("1,100 fields", &too_many, Err("upstream_protocol")),
        ("a head of 70 KiB", &large, Err("upstream_protocol")),
    ] {
        let answer = format!("HTTP/1.1 {answer}");
        let endpoint = endpoints::raw(move |mut stream| {
            let answer = answer.clone();
            async move {
                let _ = read_head(&mut stream).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        })
        .await;
        let (_fed, address) = fed(endpoint).await;
        let mut raw = Raw::to(address).await;
        raw.say("GET / HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n").await;
        let heard = raw.rest().await;
        match want {
            Ok(body) => {
                assert!(heard.starts_with("HTTP/1.1 200") && heard.contains(body), "{case}: {heard:.300}");
                assert!(!heard.to_ascii_lowercase().contains("content-length: 99"), "{case}: {heard}");
                assert!(heard.to_ascii_lowercase().matches("content-length: ").count() <= 1, "{case}: {heard}");
            }
            Err(reason) => {
                assert!(heard.starts_with("HTTP/1.1 502"), "{case}: {heard:.300}");
                assert!(heard.contains(&format!("x-maesh-reason: {reason}")), "{case}: {heard:.300}");
            }
        }
    }
}

/// A body that ends early, or is no body, ends the caller's connection within its answer, never as if it were whole.
#[tokio::test]
async fn a_broken_body_never_looks_whole() {
    for (case, answer) in [
        ("short of its length", "Content-Length: 99\r\n\r\nabc"),
        ("short of its last chunk", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        ("with a bad chunk", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\n0\r\n\r\n"),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{answer}");
        let endpoint = endpoints::raw(move |mut stream| {
            let answer = answer.clone();
            async move {
                let _ = read_head(&mut stream).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
        .await;
        let (_fed, address) = fed(endpoint).await;
        let mut raw = Raw::to(address).await;
        raw.say("GET / HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n").await;
        let heard = raw.rest().await;
        assert!(!heard.ends_with("0\r\n\r\n"), "{case}: {heard}");
        assert!(!heard.contains("content-length: 3\r\n"), "{case}: {heard}");
    }
}

/// An endpoint that refuses at once is not the fastest one.
#[tokio::test]
async fn fast_failures_attract_no_traffic() {
    for status in ["503 Service Unavailable", "429 Too Many Requests", "500 Oh"] {
        let asked: Arc<Mutex<[u32; 2]>> = Arc::default();
        let serve = |ill: bool| {
            let asked = asked.clone();
            endpoints::raw(move |mut stream| {
                let asked = asked.clone();
                async move {
                    while read_head(&mut stream).await.is_some() {
                        asked.lock().expect("lock")[usize::from(ill)] += 1;
                        let answer = if ill {
                            format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
                        } else {
                            // What it takes to answer, not a time to wait for something.
                            tokio::time::sleep(Duration::from_millis(5)).await;
                            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into()
                        };
                        stream.write_all(answer.as_bytes()).await.expect("written");
                    }
                }
            })
        };
        let servers = [serve(false).await, serve(true).await];
        let fed = Fed::new(config()).await;
        fed.begin().await;
        let address = fed.http("web.shop", Scheme::Http, &servers).await;
        let mut raw = Raw::to(address).await;
        for _ in 0..300 {
            raw.say(&get("web.shop", "/")).await;
            raw.hear().await;
        }
        let [well, ill] = *asked.lock().expect("lock");
        assert!(ill * 100 < (well + ill) * 40, "{status}: {ill} of {}", well + ill);
    }
}

/// A Service of both families whose pods listen on one: its callers of that family meet no other.
#[tokio::test]
async fn endpoints_of_the_callers_family_come_first() {
    let server = endpoints::echo(false, "one").await;
    let (fed, address) = fed(server.address).await;
    let closed = || endpoint(refusing(Ipv6Addr::LOCALHOST.into()));
    let set = vec![closed(), endpoint(server.address), closed(), closed()];
    fed.push_endpoints("web.shop", address.port(), Protocol::Http, set).await;
    for _ in 0..60 {
        assert!(ask(address, &get("web.shop", "/")).await.0.starts_with("http/1.1 200"));
    }
    let metrics = fed.metrics();
    assert!(metrics.contains("maesh_proxy_upstream_connects_total{outcome=\"failed\"} 0"), "{metrics}");
    // Only where it has none of the caller's family are the others used.
    fed.push_endpoints("web.shop", address.port(), Protocol::Http, vec![closed()]).await;
    assert!(ask(address, &get("web.shop", "/")).await.0.contains("x-maesh-reason: connect_failed"));
    let dead = endpoint(refusing(LOCAL));
    let ipv6 = tokio::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.expect("bound");
    let alive = endpoint(ipv6.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = ipv6.accept().await {
            let _ = read_head(&mut stream).await;
            let _ = stream.write_all(OK).await;
        }
    });
    fed.push_endpoints("web.shop", address.port(), Protocol::Http, vec![dead, alive]).await;
    let (head, _) = ask(address, &get("web.shop", "/")).await;
    assert!(head.starts_with("http/1.1 200"), "a connect failure is tried beyond the family: {head}");
}

/// Names of fields arrive in lower case, whatever case they were sent in; values are not touched.
#[tokio::test]
async fn field_names_are_lower_case() {
    let (told, mut seen) = watch::channel(String::new());
    let told = Arc::new(told);
    let endpoint = endpoints::raw(move |mut stream| {
        let told = told.clone();
        async move {
            while let Some((head, _)) = read_head(&mut stream).await {
                told.send_replace(head);
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nX-Request-ID: A\r\nContent-Length: 0\r\n\r\n")
                    .await
                    .expect("written");
            }
        }
    })
    .await;
    let (_fed, address) = fed(endpoint).await;
    let mut raw = Raw::to(address).await;
    raw.say("GET / HTTP/1.1\r\nHost: web.shop\r\nSOAPAction: Do\r\nConnection: close\r\n\r\n").await;
    let heard = raw.rest().await;
    assert!(heard.contains("\r\nx-request-id: A\r\n"), "{heard}");
    let asked = within(seen.wait_for(|head| !head.is_empty())).await.expect("asked").clone();
    assert!(asked.contains("\r\nsoapaction: Do\r\n") && asked.contains("\r\nhost: web.shop\r\n"), "{asked}");
}
