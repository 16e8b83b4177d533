//! Endpoints of HTTP/2 that cannot be reached, refuse streams, allow few, or send to callers who do not read.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::support::{
    Fed, LOCAL, Raw, ask, config, endpoint, endpoints,
    frames::{DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, OK, PING, RST_STREAM, block},
    get, policy, within,
};
use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use maesh_config::model::{Protocol, Scheme};
use maesh_proxy::Config;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};

/// One worker, so that all requests share their connections.
async fn fed(endpoint: SocketAddr) -> (Fed, SocketAddr) {
    let fed = Fed::new(Config { workers: 1, ..config() }).await;
    fed.begin().await;
    let address = fed.http("web.shop", Scheme::H2c, &[endpoint]).await;
    (fed, address)
}

/// The same with little patience when connecting.
async fn impatient(to: SocketAddr) -> (Fed, SocketAddr) {
    let (fed, address) = fed(to).await;
    let mut policy = policy(Scheme::H2c);
    policy.connect_timeout = Duration::from_millis(300);
    fed.define("web.shop", address.port(), Protocol::Http, policy, Vec::new());
    fed.define_endpoints("web.shop", address.port(), Protocol::Http, vec![endpoint(to)]);
    (fed, address)
}

fn connects(fed: &Fed, outcome: &str) -> u32 {
    let metrics = fed.metrics();
    let name = format!("maesh_proxy_upstream_connects_total{{outcome=\"{outcome}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.and_then(|count| count.parse().ok()).expect("counted")
}

/// An endpoint that lets SYNs fall, because its queue is full: all who wait share each attempt and its result.
#[tokio::test]
async fn waiters_share_an_attempt_to_connect() {
    let full = TcpSocket::new_v4().expect("a socket");
    full.bind((LOCAL, 0).into()).expect("bound");
    let full = full.listen(1).expect("listening");
    let to = full.local_addr().expect("bound");
    let mut queue = JoinSet::new();
    for _ in 0..8 {
        queue.spawn(TcpStream::connect(to));
    }
    // Those that have a place say so; then the queue is full.
    let mut held = Vec::new();
    while let Ok(Some(connected)) = tokio::time::timeout(Duration::from_millis(500), queue.join_next()).await {
        held.push(connected.expect("no panic").expect("connected"));
    }
    let (fed, address) = impatient(to).await;
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        callers.spawn(async move { ask(address, &get("web.shop", "/")).await });
    }
    while let Some(answer) = within(callers.join_next()).await {
        let (head, _) = answer.expect("no panic");
        assert!(head.starts_with("http/1.1 504") && head.contains("x-maesh-reason: connect_timeout"), "{head}");
    }
    let attempts = connects(&fed, "failed");
    assert!((2..=6).contains(&attempts), "{attempts} attempts for 8 requests that may make two each");
}

/// What does not speak HTTP/2 is found out before a request is sent to it.
#[tokio::test]
async fn endpoints_that_do_not_speak_http2() {
    let silent = TcpListener::bind((LOCAL, 0)).await.expect("bound");
    let http1 = endpoints::echo(false, "one").await;
    for (case, to, status, reason) in [
        ("silence", silent.local_addr().expect("bound"), "504", "connect_timeout"),
        ("HTTP/1.1", http1.address, "502", "connect_failed"),
    ] {
        let (_fed, address) = impatient(to).await;
        let (head, _) = ask(address, "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 2\r\n\r\nhi").await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{case}: {head}");
        assert!(head.contains(&format!("x-maesh-reason: {reason}")), "{case}: {head}");
    }
}

/// One stream is refused, by REFUSED_STREAM or by a GOAWAY below it: the request is made again, whatever its method.
#[tokio::test]
async fn refused_streams_are_sent_again_with_their_bodies() {
    for goaway in [false, true] {
        for (method, body) in [("GET", ""), ("PUT", "0123456789"), ("POST", "0123456789")] {
            let case = format!("{method}, {}", if goaway { "GOAWAY" } else { "REFUSED_STREAM" });
            let seen = Arc::new(AtomicU32::new(0));
            let counted = seen.clone();
            let endpoint = endpoints::raw(move |stream| {
                let seen = counted.clone();
                async move {
                    let Some(mut frames) = Frames::accept(stream, &[]).await else { return };
                    let mut refused = 0;
                    while let Some(frame) = frames.read().await {
                        if frame.kind == HEADERS && seen.fetch_add(1, Ordering::Relaxed) == 1 {
                            refused = frame.stream;
                        }
                        let ends = matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0;
                        if ends && frame.stream != refused {
                            frames.write(HEADERS, END_HEADERS | END_STREAM, frame.stream, OK).await;
                        } else if ends && goaway {
                            let last = (frame.stream - 2).to_be_bytes();
                            frames.write(GOAWAY, 0, 0, &[last, [0; 4]].concat()).await;
                        } else if ends {
                            frames.write(RST_STREAM, 0, frame.stream, &7_u32.to_be_bytes()).await;
                        }
                    }
                }
            })
            .await;
            let (_fed, address) = fed(endpoint).await;
            for _ in 0..3 {
                let request =
                    format!("{method} / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let (head, _) = ask(address, &request).await;
                assert!(head.starts_with("http/1.1 200"), "{case}: {head}");
            }
            assert_eq!(seen.load(Ordering::Relaxed), 4, "{case}");
        }
    }
}

/// An endpoint that refuses every stream sees a request twice, whatever its method; one that ends every connection, five times.
#[tokio::test]
async fn a_refused_stream_is_sent_again() {
    for (goaway, want) in [(false, 2), (true, 5)] {
        for method in ["GET", "POST"] {
            let case = format!("{method}, {}", if goaway { "GOAWAY" } else { "REFUSED_STREAM" });
            let seen = Arc::new(AtomicU32::new(0));
            let counted = seen.clone();
            let server = endpoints::raw(move |stream| {
                let seen = counted.clone();
                async move {
                    let Some(mut frames) = Frames::accept(stream, &[]).await else { return };
                    while let Some(frame) = frames.read().await {
                        seen.fetch_add(u32::from(frame.kind == HEADERS), Ordering::Relaxed);
                        if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
                            if goaway {
                                frames.write(GOAWAY, 0, 0, &[0; 8]).await;
                            } else {
                                frames.write(RST_STREAM, 0, frame.stream, &7_u32.to_be_bytes()).await;
                            }
                        }
                    }
                }
            })
            .await;
            let (_fed, address) = fed(server).await;
            let request = format!("{method} / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 2\r\n\r\nhi");
            let (head, _) = ask(address, &request).await;
            assert!(head.starts_with("http/1.1 502") && head.contains("upstream_reset"), "{case}: {head}");
            assert_eq!(seen.load(Ordering::Relaxed), want, "{case}");
        }
    }
}

/// A body that goes on for ever, a piece now and then taken by nobody.
fn endless(piece: &'static [u8]) -> endpoints::Body {
    let pieces = futures_util::stream::repeat_with(move || Ok(Frame::data(Bytes::from_static(piece))));
    BodyExt::boxed(StreamBody::new(pieces))
}

/// Callers that ask for much and read none of it: others are answered by the same endpoint.
#[tokio::test]
async fn callers_that_do_not_read_stop_nobody_else() {
    let server = endpoints::serve(true, |request| async move {
        let much = request.uri().path() == "/much";
        Response::new(if much { endless(&[b'x'; 16 * 1024]) } else { endpoints::full("little") })
    })
    .await;
    let (fed, address) = fed(server.address).await;
    let mut stalled = Vec::new();
    for i in 0..40 {
        let mut raw = Raw::to(address).await;
        raw.say(&get("web.shop", "/much")).await;
        assert!(raw.head().await.starts_with("http/1.1 200"), "{i}");
        stalled.push(raw);
        let (head, body) = ask(address, &get("web.shop", "/little")).await;
        assert!(head.starts_with("http/1.1 200") && body == "little", "beside {i}: {head}");
    }
    assert!(connects(&fed, "ok") <= 4, "they share connections");
}

/// An endpoint that allows four streams on a connection, and says so: requests beyond them get another connection.
#[tokio::test]
async fn the_endpoints_limit_of_streams_is_kept() {
    let most = Arc::new(AtomicU32::new(0));
    let listener = TcpListener::bind((LOCAL, 0)).await.expect("bound");
    let to = listener.local_addr().expect("bound");
    let counted = most.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let on_this = Arc::new(AtomicU32::new(0));
            let most = counted.clone();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let long = request.uri().path() == "/long";
                if long {
                    most.fetch_max(on_this.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                }
                async move {
                    let never = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, hyper::Error>>());
                    let body = if long { BodyExt::boxed(never) } else { endpoints::full("short") };
                    Ok::<_, std::convert::Infallible>(Response::new(body))
                }
            });
            tokio::spawn(async move {
                let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = builder.max_concurrent_streams(4).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    let (_fed, address) = fed(to).await;
    let mut long = Vec::new();
    for i in 0..40 {
        let mut raw = Raw::to(address).await;
        raw.say(&get("web.shop", "/long")).await;
        assert!(raw.head().await.starts_with("http/1.1 200"), "{i}");
        long.push(raw);
    }
    assert_eq!(most.load(Ordering::Relaxed), 4);
    let (head, body) = ask(address, &get("web.shop", "/short")).await;
    assert!(head.starts_with("http/1.1 200") && body == "short", "{head}");
    // Two hundred at once, four at a time on each connection.
    let mut callers = JoinSet::new();
    for _ in 0..200 {
        callers.spawn(async move { ask(address, &get("web.shop", "/short")).await });
    }
    while let Some(answer) = within(callers.join_next()).await {
        let (head, _) = answer.expect("no panic");
        assert!(head.starts_with("http/1.1 200"), "{head}");
    }
}

/// An endpoint that has answered and wants no more of the upload says so by RST_STREAM: the answer is passed on.
#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_is_passed_on() {
    let endpoint = endpoints::raw(|stream| async move {
        let Some(mut frames) = Frames::accept(stream, &[]).await else { return };
        while let Some(frame) = frames.read().await {
            if frame.kind == HEADERS {
                frames.write(HEADERS, END_HEADERS | END_STREAM, frame.stream, OK).await;
                frames.write(RST_STREAM, 0, frame.stream, &[0; 4]).await;
            }
        }
    })
    .await;
    let (_fed, address) = fed(endpoint).await;
    for i in 0..10 {
        let body = "x".repeat(300_000);
        let mut raw = Raw::to(address).await;
        raw.say(&format!("POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        let (head, _) = raw.hear().await;
        assert!(head.starts_with("http/1.1 200"), "{i}: {head}");
    }
}

/// A stream on which each side waits for the other one's last word, as calls of gRPC that stream both ways do.
#[tokio::test]
async fn both_directions_of_a_stream_go_on_by_themselves() {
    let server =
        endpoints::serve(true, |request| async move { Response::new(BodyExt::boxed(request.into_body())) }).await;
    let (fed, address) = fed(server.address).await;
    let io = TokioIo::new(TcpStream::connect(address).await.expect("connected"));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("a handshake");
    tokio::spawn(connection);
    let (say, said) = tokio::sync::mpsc::channel::<Bytes>(1);
    let pieces = futures_util::stream::unfold(said, |mut said| async move {
        let piece = said.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(Frame::data(piece)), said))
    });
    let request =
        http::Request::post("http://web.shop.maesh/").body(StreamBody::new(Box::pin(pieces))).expect("a request");
    let answer = within(sender.send_request(request)).await.expect("an answer before anything was said");
    let mut body = answer.into_body();
    for i in 0..100 {
        let word = Bytes::from(format!("word {i}"));
        say.send(word.clone()).await.expect("still sending");
        let heard = within(body.frame()).await.expect("a frame").expect("well").into_data().expect("data");
        assert_eq!(heard, word);
    }
    drop(say);
    assert!(
        within(body.frame()).await.is_none_or(|end| end.expect("well").into_data().is_ok_and(|data| data.is_empty()))
    );
    assert_eq!(connects(&fed, "ok"), 1);
}

/// A stock gRPC server ends a connection that pings more than every five minutes without data.
#[tokio::test]
#[ignore = "long: a stream is silent for 70 s"]
async fn a_silent_stream_is_not_pinged() {
    let pinged = Arc::new(AtomicU32::new(0));
    let counted = pinged.clone();
    let endpoint = endpoints::raw(move |stream| {
        let pinged = counted.clone();
        async move {
            let Some(mut frames) = Frames::accept(stream, &[]).await else { return };
            while let Some(frame) = frames.read().await {
                match frame.kind {
                    HEADERS => frames.write(HEADERS, END_HEADERS, frame.stream, OK).await,
                    PING => drop(pinged.fetch_add(1, Ordering::Relaxed)),
                    _ => {}
                }
            }
        }
    })
    .await;
    let (_fed, address) = fed(endpoint).await;
    let mut raw = Raw::to(address).await;
    raw.say(&get("web.shop", "/")).await;
    assert!(raw.head().await.starts_with("http/1.1 200"));
    let silent = tokio::time::timeout(Duration::from_secs(70), raw.stream.read_u8()).await;
    assert!(silent.is_err(), "the stream is still open, and nothing comes: {silent:?}");
    assert_eq!(pinged.load(Ordering::Relaxed), 0);
}

/// An endpoint that answers every request with this head and a body of two bytes.
async fn answering(fields: Vec<(String, String)>) -> SocketAddr {
    let head: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let head = block(&[&[(":status", "200")], &head[..]].concat());
    endpoints::raw(move |stream| {
        let head = head.clone();
        async move {
            let Some(mut frames) = Frames::accept(stream, &[]).await else { return };
            while let Some(frame) = frames.read().await {
                if frame.kind == HEADERS {
                    frames.write_block(0, frame.stream, &head).await;
                    frames.write(DATA, END_STREAM, frame.stream, b"ok").await;
                }
            }
        }
    })
    .await
}

/// What callers of both versions are answered: the status and the reason.
async fn asked(address: SocketAddr) -> [(u16, String); 2] {
    let (head, _) = ask(address, &get("web.shop", "/")).await;
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    let reason = head.lines().find_map(|line| line.strip_prefix("x-maesh-reason: ")).unwrap_or_default().to_owned();
    let stream = TcpStream::connect(address).await.expect("connected");
    let (sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    let mut sender = within(sender.ready()).await.expect("ready");
    let request = http::Request::get("http://web.shop/").body(()).expect("a request");
    let (answer, _) = sender.send_request(request, true).expect("sent");
    let answer = within(answer).await.expect("answered");
    let why = answer.headers().get("x-maesh-reason").map_or("", |reason| reason.to_str().expect("text"));
    [(status, reason), (answer.status().as_u16(), why.to_owned())]
}

/// A length that is none, or two of them, reaches no caller.
#[tokio::test]
async fn lengths_of_responses() {
    for (lengths, status) in [
        (&["2"][..], 200),
        (&["02"], 200),
        (&["2", "2"], 200),
        (&[], 200),
        (&[""], 502),
        (&["+2"], 502),
        (&["-2"], 502),
        (&["2x"], 502),
        (&["0x2"], 502),
        (&["2 2"], 502),
        (&["2,3"], 502),
        (&["2", "3"], 502),
        (&["2", ""], 502),
        (&["99999999999999999999"], 502),
    ] {
        let fields = lengths.iter().map(|length| ("content-length".to_owned(), (*length).to_owned())).collect();
        let (_fed, address) = fed(answering(fields).await).await;
        let reason = if status == 502 { "upstream_protocol" } else { "" };
        for (version, answer) in ["HTTP/1.1", "HTTP/2"].iter().zip(asked(address).await) {
            assert_eq!(answer, (status, reason.to_owned()), "{version}: {lengths:?}");
        }
    }
}

/// The limits of a response's head are those of HTTP/1.1.
#[tokio::test]
async fn heads_that_are_too_large() {
    for (fields, size, status) in [
        (60, 1000, 200),
        (70, 1000, 502),
        (200, 1000, 502),
        (300, 1000, 502),
        (1000, 1000, 502),
        (1, 66_000, 502),
        (1000, 1, 200),
        (1100, 1, 502),
        (3000, 1, 502),
    ] {
        let head = vec![("x".to_owned(), "y".repeat(size)); fields];
        let (_fed, address) = fed(answering(head).await).await;
        let reason = if status == 502 { "upstream_protocol" } else { "" };
        for (version, answer) in ["HTTP/1.1", "HTTP/2"].iter().zip(asked(address).await) {
            assert_eq!(answer, (status, reason.to_owned()), "{version}: {fields} fields of {size} bytes");
        }
    }
}

/// Interim responses are counted in both versions, however slowly they come: an endpoint that sends nothing else would hold
/// its callers for ever, where no time limit is set.
#[tokio::test]
async fn interim_responses_are_counted() {
    const MORE_THAN_ENOUGH: usize = 200;
    let server = endpoints::raw(|stream| async move {
        let Some(mut frames) = Frames::accept(stream, &[]).await else { return };
        while let Some(frame) = frames.read().await {
            if frame.kind != HEADERS {
                continue;
            }
            for _ in 0..MORE_THAN_ENOUGH {
                frames.write(HEADERS, END_HEADERS, frame.stream, &block(&[(":status", "103"), ("link", "x")])).await;
            }
            frames.write(HEADERS, END_HEADERS | END_STREAM, frame.stream, OK).await;
        }
    })
    .await;
    let (_fed, address) = fed(server).await;
    let [of_http1, of_http2] = asked(address).await;
    assert_eq!(of_http1, (502, "upstream_protocol".to_owned()));
    assert_eq!(of_http2, (502, "upstream_protocol".to_owned()));
}
