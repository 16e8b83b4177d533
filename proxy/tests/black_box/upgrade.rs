//! Requests that ask to leave HTTP: what reaches the endpoint, and what becomes of the connections.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::{Fed, Raw, ask, config, endpoints, get, within};
use maesh_config::model::Scheme;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const BODY: &str = "{\"Detach\":false,\"Tty\":true}";

fn upgrade(path: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: web.shop\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {}\r\n\r\n\
         {BODY}",
        BODY.len()
    )
}

async fn fed(endpoint: SocketAddr) -> (Fed, SocketAddr) {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let address = fed.http("web.shop", Scheme::Http, &[endpoint]).await;
    (fed, address)
}

/// Reads until `text` has come, or the end.
async fn read_until(stream: &mut TcpStream, heard: &mut Vec<u8>, text: &[u8]) -> bool {
    while !heard.windows(text.len()).any(|part| part == text) {
        if !matches!(stream.read_buf(heard).await, Ok(1..)) {
            return false;
        }
    }
    true
}

/// `docker exec` posts JSON and asks for an upgrade in one request: the endpoint gets both.
#[tokio::test]
async fn the_body_of_an_upgrade_reaches_the_endpoint() {
    let endpoint = endpoints::raw(|mut stream| async move {
        let mut heard = Vec::new();
        if read_until(&mut stream, &mut heard, BODY.as_bytes()).await {
            let answer = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello ";
            stream.write_all(answer.as_bytes()).await.expect("written");
            let mut word = [0; 3];
            stream.read_exact(&mut word).await.expect("read");
            stream.write_all(&word).await.expect("written");
        }
    })
    .await;
    let (_fed, address) = fed(endpoint).await;
    let mut raw = Raw::to(address).await;
    raw.say(&upgrade("/exec")).await;
    let head = raw.head().await;
    assert!(head.starts_with("http/1.1 101") && head.contains("\r\nupgrade: tcp\r\n"), "{head}");
    raw.say("you").await;
    assert_eq!(raw.rest().await, "hello you");
}

/// An endpoint that answers an upgrade before it has read the body: nothing of the next caller's request may become part
/// of that body, so no other request comes on its connection.
#[tokio::test]
async fn a_connection_that_was_asked_to_leave_http_is_not_used_again() {
    let transcripts: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = transcripts.clone();
    let endpoint = endpoints::raw(move |mut stream| {
        let log = log.clone();
        async move {
            let (mut heard, mut answered) = (Vec::new(), 0);
            let place = {
                let mut log = log.lock().expect("lock");
                log.push(String::new());
                log.len() - 1
            };
            while let Ok(1..) = stream.read_buf(&mut heard).await {
                log.lock().expect("lock")[place] = String::from_utf8_lossy(&heard).into_owned();
                let heads = heard.windows(4).filter(|four| *four == b"\r\n\r\n").count();
                for _ in answered..heads {
                    let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
                }
                answered = heads;
            }
        }
    })
    .await;
    let (_fed, address) = fed(endpoint).await;
    for _ in 0..8 {
        assert!(ask(address, &upgrade("/first")).await.0.starts_with("http/1.1 403"));
        assert!(ask(address, &get("web.shop", "/second")).await.0.starts_with("http/1.1 403"));
    }
    let bodies = || transcripts.lock().expect("lock").iter().filter(|text| text.contains(BODY)).count();
    within(async {
        while bodies() < 8 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    for text in transcripts.lock().expect("lock").iter() {
        let end = text.find(BODY).map(|at| at + BODY.len());
        assert!(end.is_none_or(|end| end == text.len()), "a request after that of an upgrade: {text}");
    }
}

/// An endpoint that switches protocols unasked, or before it has the request: the caller's next bytes are not its.
#[tokio::test]
async fn an_endpoint_does_not_leave_http_by_itself() {
    let endpoint = endpoints::raw(|mut stream| async move {
        if read_until(&mut stream, &mut Vec::new(), b"\r\n\r\n").await {
            let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.expect("written");
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    let (_fed, address) = fed(endpoint).await;
    let half =
        "POST / HTTP/1.1\r\nHost: web.shop\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 9\r\n\r\nhalf";
    for (case, request) in [("unasked", get("web.shop", "/")), ("early", half.to_owned())] {
        let (head, _) = ask(address, &request).await;
        assert!(head.starts_with("http/1.1 502"), "{case}: {head}");
        assert!(head.contains("x-maesh-reason: upstream_protocol\r\n"), "{case}: {head}");
    }
}

/// Who leaves HTTP says in HTTP/1.1 for what (RFC 9110 sections 7.8 and 15.2.2).
#[tokio::test]
async fn an_endpoint_that_leaves_http_says_for_what() {
    for (case, answer, want) in [
        ("as it should be", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", "101"),
        ("no Upgrade", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n", "502"),
        ("an empty one", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: \r\n\r\n", "502"),
        ("HTTP/1.0", "HTTP/1.0 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", "502"),
    ] {
        let endpoint = endpoints::raw(move |mut stream| async move {
            if read_until(&mut stream, &mut Vec::new(), BODY.as_bytes()).await {
                stream.write_all(answer.as_bytes()).await.expect("written");
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        })
        .await;
        let (_fed, address) = fed(endpoint).await;
        let mut raw = Raw::to(address).await;
        raw.say(&upgrade("/exec")).await;
        let head = raw.head().await;
        assert!(head.starts_with(&format!("http/1.1 {want}")), "{case}: {head}");
        assert_eq!(head.contains("x-maesh-reason: upstream_protocol\r\n"), want == "502", "{case}: {head}");
    }
}

const WEBSOCKET: &str = "GET /chat HTTP/1.1\r\nHost: web.shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// An endpoint that agrees to WebSocket and then does what `serve` says.
async fn agreeing<A>(serve: impl Fn(TcpStream) -> A + Clone + Send + 'static) -> SocketAddr
where
    A: Future<Output = ()> + Send + 'static,
{
    endpoints::raw(move |mut stream| {
        let serve = serve.clone();
        async move {
            if read_until(&mut stream, &mut Vec::new(), b"\r\n\r\n").await {
                let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.expect("written");
                serve(stream).await;
            }
        }
    })
    .await
}

async fn upgraded(address: SocketAddr) -> Raw {
    let mut raw = Raw::to(address).await;
    raw.say(WEBSOCKET).await;
    let head = raw.head().await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    raw
}

fn open(fed: &Fed) -> String {
    let metrics = fed.metrics();
    let line = metrics.lines().find(|line| line.starts_with("maesh_proxy_connections_open{protocol=\"http\"}"));
    line.and_then(|line| line.rsplit(' ').next()).expect("counted").to_owned()
}

async fn until(what: impl Fn() -> bool) {
    within(async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Upgraded connections are connections of callers and requests in flight, until they end.
#[tokio::test]
async fn upgraded_streams_are_counted() {
    let endpoint = agreeing(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let address = fed.listen(&[]).await;
    let mut narrow = crate::support::policy(Scheme::Http);
    narrow.concurrency = 3;
    fed.define("web.shop", address.port(), maesh_config::model::Protocol::Http, narrow, Vec::new());
    let endpoints = vec![crate::support::endpoint(endpoint)];
    fed.define_endpoints("web.shop", address.port(), maesh_config::model::Protocol::Http, endpoints);
    fed.name("web.shop", address.port(), address.port(), maesh_config::model::Protocol::Http, &[]).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(upgraded(address).await);
    }
    until(|| open(&fed) == "3").await;
    let (head, _) = ask(address, WEBSOCKET).await;
    assert!(head.contains("x-maesh-reason: overloaded\r\n"), "{head}");
    until(|| fed.proxy.as_ref().expect("running").status().connections == 3).await;
    held.clear();
    until(|| open(&fed) == "0").await;
    let again = upgraded(address).await;
    let counted = "code=\"101\",reason=\"\"} 3";
    until(|| fed.metrics().lines().any(|line| line.ends_with(counted))).await;
    drop(again);
}

/// Both sides write as much as they can, and the endpoint reads and writes in turn, as simple servers do.
#[tokio::test]
async fn both_directions_of_an_upgraded_stream_move_at_once() {
    const FRAMES: usize = 512;
    let endpoint = agreeing(|mut stream| async move {
        let mut bytes = vec![0; 65536];
        while let Ok(read @ 1..) = stream.read(&mut bytes).await {
            if stream.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    })
    .await;
    let (_fed, address) = fed(endpoint).await;
    for _ in 0..2 {
        let raw = upgraded(address).await;
        let (mut read, mut write) = raw.stream.into_split();
        let writing = tokio::spawn(async move {
            let frame = [&[0x82, 0x7e, 0xff, 0xff][..], &[b'a'; 65535]].concat();
            for _ in 0..FRAMES {
                write.write_all(&frame).await.expect("written");
            }
            write
        });
        let (mut got, mut some) = (0, vec![0; 1 << 16]);
        while got < FRAMES * 65539 {
            let count = tokio::time::timeout(Duration::from_secs(60), read.read(&mut some)).await;
            got += count.unwrap_or_else(|_| panic!("stood still after {got} bytes")).expect("read");
        }
        drop(writing.await.expect("written"));
    }
}

/// A drain lets the frame that is under way end, then closes with 1001, each direction by itself.
#[tokio::test]
async fn a_drain_closes_websockets_between_frames() {
    let (frame, next) = tokio::sync::watch::channel(0);
    let (heard, mut hearing) = tokio::sync::mpsc::unbounded_channel();
    let endpoint = agreeing(move |mut stream| {
        let (mut next, heard) = (next.clone(), heard.clone());
        async move {
            let mut all = Vec::new();
            assert!(read_until(&mut stream, &mut all, b"hi").await);
            // The first half of a frame, and the second only when told.
            stream.write_all(b"\x81\x06hal").await.expect("written");
            next.wait_for(|next| *next == 1).await.expect("told");
            // The next frame comes too late.
            stream.write_all(b"ves\x81\x04late").await.expect("written");
            let _ = stream.read_to_end(&mut all).await;
            heard.send(all).expect("the test runs");
        }
    })
    .await;
    let (mut fed, address) = fed(endpoint).await;
    let mut raw = upgraded(address).await;
    raw.stream.write_all(b"\x81\x82\0\0\0\0hi").await.expect("written");
    let mut half = [0; 5];
    within(raw.stream.read_exact(&mut half)).await.expect("read");
    let drained = tokio::spawn(fed.proxy.take().expect("running").drain());
    within(fed.report.wait_for(|ready| !*ready)).await.expect("told");
    // Nothing may come between the halves, however long it takes.
    let early = tokio::time::timeout(Duration::from_millis(500), raw.stream.read(&mut [0; 1])).await;
    assert!(early.is_err(), "{early:?}");
    frame.send_replace(1);
    let mut rest = Vec::new();
    within(raw.stream.read_to_end(&mut rest)).await.expect("an end");
    assert_eq!(rest, b"ves\x88\x02\x03\xe9");
    drop(raw);
    assert_eq!(within(hearing.recv()).await.expect("heard"), b"\x81\x82\0\0\0\0hi\x88\x82\0\0\0\0\x03\xe9");
    assert_eq!(within(drained).await.expect("drained"), 0);
}

/// An upgraded stream that is silent both ways ends after the idle timeout, also while one side does not read.
#[tokio::test]
async fn a_silent_upgraded_stream_is_cut() {
    let endpoint = agreeing(|stream| async move {
        // Reads nothing.
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let address = fed.listen(&[]).await;
    let mut impatient = crate::support::policy(Scheme::Http);
    impatient.idle_timeout = Some(Duration::from_secs(2));
    fed.define("web.shop", address.port(), maesh_config::model::Protocol::Http, impatient, Vec::new());
    let endpoints = vec![crate::support::endpoint(endpoint)];
    fed.define_endpoints("web.shop", address.port(), maesh_config::model::Protocol::Http, endpoints);
    fed.name("web.shop", address.port(), address.port(), maesh_config::model::Protocol::Http, &[]).await;
    let mut stuck = upgraded(address).await;
    let writing = tokio::spawn(async move {
        // An error is the end that is waited for.
        while stuck.stream.write_all(&[b'x'; 65536]).await.is_ok() {}
    });
    let mut quiet = upgraded(address).await;
    assert_eq!(quiet.rest().await, "");
    within(writing).await.expect("ended");
}

/// The endpoint's reset is the caller's, as without a proxy: an end would say that all was well.
#[tokio::test]
async fn a_reset_of_the_endpoint_is_passed_on() {
    let server = agreeing(|mut stream| async move {
        let _ = stream.read(&mut [0; 16]).await;
        stream.set_zero_linger().expect("set");
    })
    .await;
    let (_fed, address) = fed(server).await;
    let mut raw = upgraded(address).await;
    raw.say("x").await;
    let read = within(raw.stream.read(&mut [0; 16])).await;
    assert_eq!(read.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset));

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
    upload.send_data(bytes::Bytes::from_static(b"x"), false).expect("sent");
    let error = within(answer.into_body().data()).await.expect("an error").expect_err("a reset");
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
}

/// The caller's reset is the endpoint's, also where the endpoint does not read.
#[tokio::test]
async fn a_reset_of_the_caller_is_passed_on() {
    for reads in [true, false] {
        let seen = tokio::sync::watch::Sender::new(false);
        let told = seen.clone();
        let server = agreeing(move |mut stream| {
            let told = told.clone();
            async move {
                if reads {
                    let ended = stream.read_to_end(&mut Vec::new()).await.map_err(|error| error.kind());
                    told.send_replace(ended == Err(std::io::ErrorKind::ConnectionReset));
                } else {
                    let _ = stream.ready(tokio::io::Interest::ERROR).await;
                    told.send_replace(true);
                }
            }
        })
        .await;
        let (_fed, address) = fed(server).await;
        let mut raw = upgraded(address).await;
        let piece = vec![b'x'; 64 * 1024];
        // Until nothing more is taken where nobody reads.
        for _ in 0..if reads { 1 } else { 1024 } {
            let written = tokio::time::timeout(Duration::from_secs(1), raw.stream.write_all(&piece)).await;
            let Ok(written) = written else { break };
            written.expect("written");
        }
        raw.stream.set_zero_linger().expect("set");
        drop(raw);
        let mut seen = seen.subscribe();
        within(seen.wait_for(|seen| *seen)).await.unwrap_or_else(|_| panic!("reads: {reads}"));
    }
}

/// A WebSocket of HTTP/1.1 to an endpoint that speaks HTTP/2 is an extended CONNECT there (RFC 8441).
#[tokio::test]
async fn a_websocket_reaches_an_endpoint_of_http2() {
    let server = endpoints::serve(true, |mut request| async move {
        assert_eq!(request.method(), http::Method::CONNECT);
        assert_eq!(request.uri().path_and_query().expect("a path").as_str(), "/chat");
        assert_eq!(request.extensions().get::<hyper::ext::Protocol>().expect("a protocol").as_str(), "websocket");
        assert_eq!(request.headers()["sec-websocket-version"], "13");
        for absent in ["connection", "upgrade", "sec-websocket-key", "host"] {
            assert!(!request.headers().contains_key(absent), "{absent}");
        }
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = hyper_util::rt::TokioIo::new(upgraded.await.expect("upgraded"));
            let mut bytes = [0; 1024];
            while let Ok(read @ 1..) = io.read(&mut bytes).await {
                io.write_all(&bytes[..read]).await.expect("written");
            }
        });
        http::Response::builder()
            .header("sec-websocket-protocol", "chat")
            .body(endpoints::full(""))
            .expect("a response")
    })
    .await;
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let address = fed.http("web.shop", Scheme::H2c, &[server.address]).await;
    let mut raw = Raw::to(address).await;
    raw.say(WEBSOCKET).await;
    let head = raw.head().await.to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    for line in [
        "upgrade: websocket",
        "connection: upgrade",
        "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=",
        "sec-websocket-protocol: chat",
    ] {
        assert!(head.contains(&format!("{line}\r\n")), "{line} is missing in {head}");
    }
    for message in [&b"\x81\x85\0\0\0\0hello"[..], b"\x82\x83\0\0\0\0abc"] {
        raw.stream.write_all(message).await.expect("written");
        let mut back = vec![0; message.len()];
        within(raw.stream.read_exact(&mut back)).await.expect("read");
        assert_eq!(back, message);
    }
    // Other upgrades do not exist there, and without a key nobody can be told that the WebSocket was understood.
    let mut raw = Raw::to(address).await;
    raw.say(&WEBSOCKET.replace("Sec-WebSocket-Key", "X-Key")).await;
    assert!(raw.head().await.contains("x-maesh-reason: bad_request"));
}

/// An endpoint of HTTP/2 that does not allow it is not asked.
#[tokio::test]
async fn an_endpoint_without_extended_connect_gets_no_websocket() {
    use crate::support::frames::{END_HEADERS, END_STREAM, Frames, HEADERS, OK};
    let server = endpoints::raw(|stream| async move {
        let Some(mut frames) = Frames::accept(stream, &[]).await else { return };
        while let Some(frame) = frames.read().await {
            if frame.kind == HEADERS {
                frames.write(HEADERS, END_HEADERS | END_STREAM, frame.stream, OK).await;
            }
        }
    })
    .await;
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let address = fed.http("web.shop", Scheme::H2c, &[server]).await;
    let mut raw = Raw::to(address).await;
    raw.say(WEBSOCKET).await;
    let head = raw.head().await;
    assert!(head.starts_with("http/1.1 502 ") && head.contains("x-maesh-reason: upstream_protocol"), "{head}");
    // The connection to the endpoint is as good as before.
    let (head, _) = ask(address, &get("web.shop", "/")).await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
}

/// An endpoint that answers a WebSocket handshake as a usual request has not agreed: over HTTP/2 its 200 would say that it has
/// (RFC 8441 section 5).
#[tokio::test]
async fn an_endpoint_that_stays_in_http_has_not_agreed() {
    let endpoint = endpoints::raw(|mut stream| async move {
        if read_until(&mut stream, &mut Vec::new(), b"\r\n\r\n").await {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await.expect("written");
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    let (_fed, address) = fed(endpoint).await;
    let stream = TcpStream::connect(address).await.expect("connected");
    let (sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    until(|| sender.is_extended_connect_protocol_enabled()).await;
    let mut request = http::Request::new(());
    *request.method_mut() = http::Method::CONNECT;
    *request.uri_mut() = format!("http://web.shop:{}/chat", address.port()).parse().expect("a URI");
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let mut sender = within(sender.ready()).await.expect("ready");
    let (answer, _upload) = sender.send_request(request, false).expect("sent");
    let answer = within(answer).await.expect("answered");
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.headers().get("x-maesh-reason").expect("a reason"), "upstream_protocol");
}

/// Where the mesh itself answers a request that asks to leave HTTP, nobody reads its body: what follows is answered all the same, or
/// the connection ends.
#[tokio::test]
async fn a_local_answer_to_an_upgrade_with_a_body_does_not_stop_its_connection() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let echo = endpoints::echo(false, "one").await;
    let to = fed.http("web.shop", Scheme::Http, &[echo.address]).await;
    let plain = "POST / HTTP/1.1\r\nHost: nowhere.shop\r\nUpgrade: websocket\r\n";
    let asking = format!("{plain}Connection: upgrade\r\n");
    let heads = [("", &*asking), (" without Connection", plain)];
    let mut stopped = Vec::new();
    for (case, body) in [
        ("no body", "\r\n"),
        ("a length of none", "Content-Length: 0\r\n\r\n"),
        ("a length", "Content-Length: 5\r\n\r\nhello"),
        ("no chunks", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("no chunks, trailers", "Transfer-Encoding: chunked\r\n\r\n0\r\nx-a: b\r\n\r\n"),
        ("a chunk", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ("a chunk, trailers", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-a: b\r\n\r\n"),
    ] {
        for (way, next, ends) in [
            ("and a request", get("web.shop", "/"), false),
            ("and its end", String::new(), true),
            ("and a request and its end", get("web.shop", "/"), true),
        ] {
            for ((which, head), cut) in heads.iter().flat_map(|head| [(head, 0), (head, 1), (head, 6)]) {
                let mut raw = Raw::to(to).await;
                let text = format!("{head}{body}{next}");
                let (first, rest) = text.split_at(if cut == 0 { text.len() } else { head.len() + body.len() - cut });
                raw.stream.set_nodelay(true).expect("set");
                raw.say(first).await;
                if !rest.is_empty() {
                    raw.say(rest).await;
                }
                if ends {
                    raw.stream.shutdown().await.expect("shut");
                }
                let mut heard = Vec::new();
                let over = async {
                    let mut some = [0; 4096];
                    while let Ok(read @ 1..) = raw.stream.read(&mut some).await {
                        heard.extend_from_slice(&some[..read]);
                        if !ends && String::from_utf8_lossy(&heard).contains("HTTP/1.1 200") {
                            return;
                        }
                    }
                };
                if tokio::time::timeout(Duration::from_secs(8), over).await.is_err() {
                    stopped.push(format!("{case}{which} {way}, cut {cut}: {:.60}", String::from_utf8_lossy(&heard)));
                }
            }
        }
    }
    assert!(stopped.is_empty(), "{stopped:#?}");
}
