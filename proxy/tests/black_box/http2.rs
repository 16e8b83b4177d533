//! HTTP/2 on either side: with gRPC and its trailers, and WebSocket over extended CONNECT.

use crate::support::{
    Fed, Raw, ask, config, endpoints,
    frames::{DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, SETTINGS, WINDOW_UPDATE, block},
    get, hasty, policy, within,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Frame, client::conn::http2::SendRequest, ext::Protocol as Extended};
use hyper_util::rt::{TokioExecutor, TokioIo};
use maesh_config::model::{Protocol, Scheme};
use maesh_proxy::{Config, Limits};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

type Body = BoxBody<Bytes, std::convert::Infallible>;

async fn caller(to: SocketAddr) -> SendRequest<Body> {
    let stream = TcpStream::connect(to).await.expect("connected");
    let io = TokioIo::new(stream);
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("a handshake");
    tokio::spawn(connection);
    sender
}

fn request(uri: &str) -> Request<Body> {
    Request::builder().uri(uri).version(Version::HTTP_2).body(Empty::new().boxed()).expect("a request")
}

async fn fed(scheme: Scheme, endpoint: SocketAddr) -> (Fed, SocketAddr) {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let address = fed.http("web.shop", scheme, &[endpoint]).await;
    (fed, address)
}

#[tokio::test]
async fn every_pair_of_versions() {
    for h2_up in [false, true] {
        let server = endpoints::echo(h2_up, "one").await;
        let scheme = if h2_up { Scheme::H2c } else { Scheme::Http };
        let (_fed, address) = fed(scheme, server.address).await;
        let (head, body) = ask(address, &get("web.shop.maesh", "/a?b")).await;
        assert!(head.starts_with("http/1.1 200 ok"), "h1 to h2={h2_up}: {head}");
        assert!(body.starts_with("one GET /a?b web.shop.maesh\n"), "h1 to h2={h2_up}: {body}");
        let mut sender = caller(address).await;
        for _ in 0..20 {
            let answer = within(sender.send_request(request("http://web.shop.maesh/a?b"))).await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::OK);
            let body = answer.into_body().collect().await.expect("a body").to_bytes();
            let body = String::from_utf8_lossy(&body);
            assert!(body.starts_with("one GET /a?b web.shop.maesh\n"), "h2 to h2={h2_up}: {body}");
            assert!(body.contains("\nx-forwarded-for: 127.0.0.1\n"), "h2 to h2={h2_up}: {body}");
        }
        let post = Request::post("http://web.shop.maesh/p").body(Full::from("hello").boxed()).expect("a request");
        let answer = within(sender.send_request(post)).await.expect("an answer");
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        assert!(body.ends_with(b"\n\nhello"), "h2 to h2={h2_up}");
    }
}

#[tokio::test]
async fn many_streams_at_once() {
    let server = endpoints::echo(true, "one").await;
    let (fed, address) = fed(Scheme::H2c, server.address).await;
    let sender = caller(address).await;
    let mut running = tokio::task::JoinSet::new();
    for i in 0..200 {
        let mut sender = sender.clone();
        running.spawn(async move {
            let answer = sender.send_request(request(&format!("http://web.shop.maesh/{i}"))).await.expect("an answer");
            let body = answer.into_body().collect().await.expect("a body").to_bytes();
            assert!(body.starts_with(format!("one GET /{i} ").as_bytes()));
        });
    }
    while let Some(done) = within(running.join_next()).await {
        done.expect("answered");
    }
    let metrics = fed.metrics();
    let connects = metrics.lines().find(|line| line.starts_with("maesh_proxy_upstream_connects_total{outcome=\"ok\"}"));
    let connects: u32 =
        connects.and_then(|line| line.rsplit(' ').next()).and_then(|n| n.parse().ok()).expect("counted");
    assert!((1..=8).contains(&connects), "{connects} connections for 200 streams");
}

/// What is reached at its ClusterIP, because no controller answers, has no scheme that is known.
#[tokio::test]
async fn grpc_to_a_plain_address_is_http2() {
    let fed = Fed::new(Config { first_use: Duration::from_millis(100), ..config() }).await;
    fed.begin().await;
    fed.answering.send_replace(false);
    let server = endpoints::grpc().await;
    let listen = fed.listen(&[]).await;
    fed.name("web.shop", server.address.port(), listen.port(), Protocol::Http, &[server.address.ip()]).await;
    let request = Request::post("http://web.shop.maesh/pkg.Service/Method")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::from("hello").boxed())
        .expect("a request");
    let answer = within(caller(listen).await.send_request(request)).await.expect("an answer");
    let body = answer.into_body().collect().await.expect("a body");
    assert_eq!(body.trailers().expect("trailers")["grpc-status"], "0");
    assert!(fed.metrics().contains("maesh_proxy_plain_fallback_total 1"));
}

#[tokio::test]
async fn grpc_with_trailers_both_ways() {
    let server = endpoints::grpc().await;
    // An endpoint that is declared as plain HTTP too: gRPC cannot do without HTTP/2.
    for scheme in [Scheme::H2c, Scheme::Http] {
        let (_fed, address) = fed(scheme, server.address).await;
        let mut sender = caller(address).await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sent", HeaderValue::from_static("yes"));
        let frames = [Ok(Frame::data(Bytes::from("\0\0\0\0\u{3}abc"))), Ok(Frame::trailers(trailers))];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let request = Request::post("http://web.shop.maesh/pkg.Service/Method")
            .header("content-type", "application/grpc+proto")
            .header("te", "trailers")
            .body(BodyExt::boxed(body))
            .expect("a request");
        let answer = within(sender.send_request(request)).await.expect("an answer");
        assert_eq!(answer.headers()["content-type"], "application/grpc");
        let body = answer.into_body().collect().await.expect("a body");
        let trailers = body.trailers().cloned().expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-echo"], "yes");
        assert_eq!(trailers["x-te"], "trailers");
        assert_eq!(&body.to_bytes()[..], b"\0\0\0\0\x03abc");
    }
}

#[tokio::test]
async fn grpc_callers_are_refused_in_their_own_form() {
    let (_fed, address) = fed(Scheme::H2c, crate::support::refusing(crate::support::LOCAL)).await;
    let mut sender = caller(address).await;
    for (host, status, reason) in
        [("nobody.shop.maesh", "12", "unknown_host"), ("web.shop.maesh", "14", "connect_failed")]
    {
        let request = Request::post(format!("http://{host}/pkg.Service/Method"))
            .header("content-type", "application/grpc")
            .body(Empty::new().boxed())
            .expect("a request");
        let answer = within(sender.send_request(request)).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["grpc-status"], status);
        assert_eq!(answer.headers()["x-maesh-reason"], reason);
        assert_eq!(answer.headers()["content-type"], "application/grpc");
    }
}

#[tokio::test]
async fn refusals() {
    let server = endpoints::echo(false, "one").await;
    let (_fed, address) = fed(Scheme::Http, server.address).await;
    let mut sender = caller(address).await;
    let long = format!("http://web.shop.maesh/{}", "a".repeat(17_000));
    let connect = Request::builder().method(Method::CONNECT).uri("web.shop.maesh:80").body(Empty::new().boxed());
    let large = Request::get("http://web.shop.maesh/").header("x", "a".repeat(64 * 1024)).body(Empty::new().boxed());
    for (case, request, status, reason) in [
        ("unknown", request("http://nobody.maesh/"), 404, "unknown_host"),
        ("long", request(&long), 414, "uri_too_long"),
        ("connect", connect.expect("a request"), 405, "method_not_allowed"),
        ("large", large.expect("a request"), 431, "headers_too_large"),
    ] {
        let answer = within(sender.send_request(request)).await.expect(case);
        assert_eq!(answer.status(), status, "{case}");
        assert_eq!(answer.headers()["x-maesh-reason"], reason, "{case}");
    }
}

/// A server that agrees to WebSocket and sends back whatever it gets.
async fn mirror() -> endpoints::Server {
    endpoints::serve(false, |mut request| async move {
        assert_eq!(request.headers()["upgrade"], "websocket");
        assert_eq!(request.headers()["x-forwarded-proto"], "ws");
        let key = request.headers().get("sec-websocket-key").expect("a key").clone();
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.expect("upgraded"));
            let mut bytes = [0; 1024];
            while let Ok(read @ 1..) = io.read(&mut bytes).await {
                io.write_all(&bytes[..read]).await.expect("written");
            }
        });
        Response::builder()
            .status(101)
            .header("upgrade", "websocket")
            .header("connection", "upgrade")
            .header("sec-websocket-accept", key)
            .body(endpoints::full(""))
            .expect("a response")
    })
    .await
}

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: web.shop\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[tokio::test]
async fn websocket_from_http1() {
    let server = mirror().await;
    let (mut fed, address) = fed(Scheme::Http, server.address).await;
    let mut raw = Raw::to(address).await;
    raw.say(UPGRADE).await;
    let (head, _) = raw.hear().await;
    assert!(head.starts_with("http/1.1 101 switching protocols"), "{head}");
    assert!(head.contains("\r\nupgrade: websocket\r\n") && head.contains("\r\nconnection: upgrade\r\n"), "{head}");
    for frame in [&b"\x81\x85\0\0\0\0hello"[..], b"\x81\x80\0\0\0\0"] {
        raw.stream.write_all(frame).await.expect("written");
        let mut back = vec![0; frame.len()];
        within(raw.stream.read_exact(&mut back)).await.expect("read");
        assert_eq!(back, frame);
    }
    // A drain ends it as WebSocket does.
    let proxy = fed.proxy.take().expect("running");
    let drained = tokio::spawn(proxy.drain());
    let mut rest = Vec::new();
    within(raw.stream.read_to_end(&mut rest)).await.expect("an end");
    assert_eq!(rest, b"\x88\x02\x03\xe9");
    drop(raw);
    assert_eq!(within(drained).await.expect("drained"), 0);
}

#[tokio::test]
async fn websocket_from_http2() {
    let server = mirror().await;
    let (_fed, address) = fed(Scheme::Http, server.address).await;
    let mut sender = caller(address).await;
    // With an answer the proxy's settings have arrived, which allow extended CONNECT.
    within(sender.send_request(request("http://nobody.maesh/"))).await.expect("an answer");
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri("http://web.shop.maesh/chat")
        .extension(Extended::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(Empty::new().boxed())
        .expect("a request");
    let answer = within(sender.send_request(request)).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let mut io = TokioIo::new(hyper::upgrade::on(answer).await.expect("a stream"));
    io.write_all(b"\x81\x85\0\0\0\0hello").await.expect("written");
    let mut back = [0; 11];
    within(io.read_exact(&mut back)).await.expect("read");
    assert_eq!(&back, b"\x81\x85\0\0\0\0hello");
}

/// Closing a socket on which WINDOW_UPDATEs arrive resets the connection, and what the system has not sent yet is lost.
#[tokio::test]
async fn a_connection_that_ends_takes_nothing_from_its_last_response() {
    const LENGTH: usize = 400 << 10;
    let server = endpoints::serve(true, |_| async { Response::new(endpoints::full(vec![7; LENGTH])) }).await;
    let (fed, address) = fed(Scheme::H2c, server.address).await;
    let mut frames = Frames::connect_with_little_room(address).await;
    let most = (i32::MAX as u32).to_be_bytes();
    // Windows in which all of it fits.
    frames.write(SETTINGS, 0, 0, &[&[0, 4][..], &most].concat()).await;
    frames.write(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes()).await;
    let head = block(&[(":method", "GET"), (":scheme", "http"), (":authority", "web.shop.maesh"), (":path", "/")]);
    frames.write(HEADERS, END_STREAM | END_HEADERS, 1, &head).await;
    // It opens no other stream, so the proxy closes the connection after this one.
    frames.write(GOAWAY, 0, 0, &[0; 8]).await;
    // The system has all of it, and the caller hardly anything.
    within(async {
        while fed.counted("maesh_http_requests_total", &["service=\"web\""]) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let mut received = 0;
    while let Some(frame) = within(frames.read()).await {
        if frame.kind == DATA {
            received += frame.payload.len();
            frames.write(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).await;
        }
    }
    assert_eq!(received, LENGTH);
}

#[tokio::test]
async fn a_port_that_leaves_says_goaway() {
    let server = endpoints::echo(true, "one").await;
    let (fed, address) = fed(Scheme::H2c, server.address).await;
    let mut sender = caller(address).await;
    within(sender.send_request(request("http://web.shop.maesh/"))).await.expect("an answer");
    fed.define_leaving("web.shop", address.port(), Protocol::Http);
    fed.push_service("web.shop").await;
    let answer = within(sender.send_request(request("http://web.shop.maesh/"))).await.expect("an answer");
    answer.into_body().collect().await.expect("a body");
    is_sent_away(&sender).await;
}

/// Whoever keeps a connection without sending anything while a port leaves hears of it as well.
#[tokio::test]
async fn while_a_port_leaves_connections_without_new_streams_hear_goaway() {
    let (step, server) = slow().await;
    let fed = Fed::new(hasty()).await;
    fed.begin().await;
    let address = fed.http("web.shop", Scheme::H2c, &[server.address]).await;
    let (mut idle, mut busy) = (caller(address).await, caller(address).await);
    for sender in [&mut idle, &mut busy] {
        within(sender.send_request(request("http://web.shop.maesh/"))).await.expect("an answer");
    }
    let slow = tokio::spawn(busy.send_request(request("http://web.shop.maesh/slow")));
    within(step.subscribe().wait_for(|step| *step == Step::Begun)).await.expect("begun");
    fed.define_leaving("web.shop", address.port(), Protocol::Http);
    fed.push_service("web.shop").await;
    is_sent_away(&idle).await;
    step.send_replace(Step::End);
    let answer = within(slow).await.expect("no panic").expect("its stream goes on");
    assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes(), "done");
    is_sent_away(&busy).await;
}

/// Whoever was not sent away in time is with the first refusal.
#[tokio::test]
async fn a_port_that_left_says_goaway() {
    let server = endpoints::echo(true, "one").await;
    let (fed, address) = fed(Scheme::H2c, server.address).await;
    let mut sender = caller(address).await;
    within(sender.send_request(request("http://web.shop.maesh/"))).await.expect("an answer");
    fed.define("web.shop", address.port(), Protocol::Tcp, policy(Scheme::Http), Vec::new());
    fed.push_service("web.shop").await;
    let answer = within(sender.send_request(request("http://web.shop.maesh/"))).await.expect("an answer");
    assert_eq!(answer.headers()["x-maesh-reason"], "no_route");
    is_sent_away(&sender).await;
}

/// Whether the proxy has said no GOAWAY by the time that it answers a PING.
async fn hears_no_goaway(caller: &mut Frames) -> bool {
    caller.write(PING, 0, 0, b"12345678").await;
    loop {
        match within(caller.read()).await.expect("a frame").kind {
            PING => return true,
            GOAWAY => return false,
            _ => {}
        }
    }
}

async fn is_sent_away(sender: &SendRequest<Body>) {
    within(async {
        while !sender.is_closed() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Where a request for `/slow` is.
#[derive(PartialEq)]
enum Step {
    Nowhere,
    Begun,
    End,
}

/// An endpoint that says when `/slow` has begun, and answers it only once it is told to.
async fn slow() -> (tokio::sync::watch::Sender<Step>, endpoints::Server) {
    let step = tokio::sync::watch::Sender::new(Step::Nowhere);
    let here = step.clone();
    let server = endpoints::serve(true, move |request| {
        let step = here.clone();
        async move {
            if request.uri().path() == "/slow" {
                step.send_replace(Step::Begun);
                step.subscribe().wait_for(|step| *step == Step::End).await.expect("told");
            }
            Response::new(endpoints::full("done"))
        }
    })
    .await;
    (step, server)
}

/// A proxy that drains, and that has had the time to say GOAWAY.
struct Draining {
    address: SocketAddr,
    step: tokio::sync::watch::Sender<Step>,
    busy: tokio::task::JoinHandle<Result<Response<hyper::body::Incoming>, hyper::Error>>,
    drained: tokio::task::JoinHandle<usize>,
    _server: endpoints::Server,
    _fed: Fed,
}

/// Drains once `new` is connected, which hears GOAWAY at the latest after `leave_within`.
async fn draining(leave_within: Duration) -> (Draining, Frames) {
    let (step, server) = slow().await;
    let limits = Limits { leave_within, ..Limits::default() };
    let mut fed = Fed::new(Config { limits, drain_timeout: Duration::from_secs(60), ..config() }).await;
    fed.begin().await;
    let address = fed.http("web.shop", Scheme::H2c, &[server.address]).await;
    let (mut busy, mut used) = (caller(address).await, caller(address).await);
    within(used.send_request(request("http://web.shop.maesh/"))).await.expect("an answer");
    // Keeps the drain from ending.
    let busy = tokio::spawn(async move { busy.send_request(request("http://web.shop.maesh/slow")).await });
    within(step.subscribe().wait_for(|step| *step == Step::Begun)).await.expect("begun");
    let mut new = Frames::connect(address).await;
    assert!(hears_no_goaway(&mut new).await);
    let drained = tokio::spawn(fed.proxy.take().expect("running").drain());
    is_sent_away(&used).await;
    (Draining { address, step, busy, drained, _server: server, _fed: fed }, new)
}

impl Draining {
    async fn ends(self) {
        self.step.send_replace(Step::End);
        within(self.busy).await.expect("no panic").expect("an answer");
        assert_eq!(within(self.drained).await.expect("drained"), 0);
        assert!(TcpStream::connect(self.address).await.is_err(), "nothing listens");
    }
}

async fn ask_on(caller: &mut Frames, stream: u32, path: &str) {
    let head = [(":method", "GET"), (":scheme", "http"), (":authority", "web.shop.maesh"), (":path", path)];
    caller.write_block(END_STREAM, stream, &block(&head)).await;
}

/// What comes first, and what follows: the answer to the request on this stream, or GOAWAY.
async fn order(caller: &mut Frames, stream: u32) -> [u8; 2] {
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let frame = within(caller.read()).await.expect("a frame");
        let is_new = (frame.kind == HEADERS && frame.stream == stream) || frame.kind == GOAWAY;
        if is_new && !seen.contains(&frame.kind) {
            seen.push(frame.kind);
        }
    }
    [seen[0], seen[1]]
}

/// A connection that was opened just before the proxy ends: many callers take a GOAWAY for a failure of the request that it
/// crosses, though RFC 9113 says otherwise. A client of hyper 1.12 does if it is slow to look.
#[tokio::test]
async fn goaway_does_not_cross_a_request() {
    let (draining, mut new) = draining(Duration::from_secs(60)).await;
    assert!(hears_no_goaway(&mut new).await, "before its first request");
    ask_on(&mut new, 1, "/slow").await;
    assert!(hears_no_goaway(&mut new).await, "while its first request is under way");
    ask_on(&mut new, 3, "/").await;
    while within(new.read()).await.expect("a frame").kind != HEADERS {}
    assert!(hears_no_goaway(&mut new).await, "while one of two is under way");
    draining.step.send_replace(Step::End);
    assert_eq!(order(&mut new, 1).await, [HEADERS, GOAWAY]);
    drop(new);
    draining.ends().await;
}

/// Streams that never end do not keep a connection from hearing it.
#[tokio::test]
async fn goaway_is_not_put_off_for_ever() {
    let (draining, mut new) = draining(Duration::from_millis(300)).await;
    ask_on(&mut new, 1, "/slow").await;
    while within(new.read()).await.expect("a frame").kind != GOAWAY {}
    draining.step.send_replace(Step::End);
    while within(new.read()).await.expect("a frame").kind != HEADERS {}
    drop(new);
    draining.ends().await;
}

#[tokio::test]
async fn a_drain_says_goaway_and_finishes_the_streams() {
    let (step, server) = slow().await;
    let (mut fed, address) = fed(Scheme::H2c, server.address).await;
    let mut sender = caller(address).await;
    within(sender.send_request(request("http://web.shop.maesh/"))).await.expect("an answer");
    let slow = sender.send_request(request("http://web.shop.maesh/slow"));
    let drained = tokio::spawn(fed.proxy.take().expect("running").drain());
    let slow = tokio::spawn(slow);
    within(fed.report.wait_for(|ready| !*ready)).await.expect("told");
    within(step.subscribe().wait_for(|step| *step == Step::Begun)).await.expect("begun");
    step.send_replace(Step::End);
    let answer = within(slow).await.expect("no panic").expect("an answer");
    assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes(), "done");
    is_sent_away(&sender).await;
    assert_eq!(within(drained).await.expect("drained"), 0);
}
