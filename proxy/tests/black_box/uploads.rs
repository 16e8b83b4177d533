//! Uploads whose caller is gone before they are complete: they end with it, also where the endpoint does not read them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use maesh_config::model::Scheme;
use maesh_proxy::{Config, Limits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
};

use crate::support::{
    Fed, Raw,
    caller::{Caller, Upload, Version},
    config, endpoints,
    frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, OK, RST_STREAM, WINDOW_UPDATE, block},
    within,
};

/// How a caller goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    /// It ends its side, and waits for an answer.
    HalfClosed,
    Closed,
    Reset,
}

/// The bytes of a request with a body of chunks, and `end`.
fn chunks(count: usize, end: &str) -> String {
    let chunk = format!("1000\r\n{}\r\n", "b".repeat(4096));
    format!("Transfer-Encoding: chunked\r\n\r\n{}{end}", chunk.repeat(count))
}

/// The bytes of a request with a body of this length, of which so many bytes are there.
fn length(length: usize, sent: usize) -> String {
    format!("Content-Length: {length}\r\n\r\n{}", "b".repeat(sent))
}

async fn post(to: SocketAddr, rest: &str) -> Raw {
    let mut raw = Raw::to(to).await;
    raw.say(&format!("POST / HTTP/1.1\r\nHost: web.shop\r\n{rest}")).await;
    raw
}

/// Streams that an endpoint has seen.
#[derive(Clone, Copy, Default)]
struct Streams {
    begun: u32,
    reset: u32,
}

/// An endpoint of HTTP/2 that makes no room for more than the first 64 KiB of its uploads; begins responses if
/// `answers`. Says how many streams it has seen.
async fn deaf(answers: bool, streams: &watch::Sender<Streams>) -> SocketAddr {
    let streams = streams.clone();
    endpoints::raw(move |stream| {
        let streams = streams.clone();
        async move {
            let Some(mut frames) = Frames::accept(stream, &[]).await else { return };
            while let Some(frame) = frames.read().await {
                match frame.kind {
                    HEADERS => {
                        streams.send_modify(|streams| streams.begun += 1);
                        if answers {
                            frames.write(HEADERS, END_HEADERS, frame.stream, OK).await;
                            frames.write(DATA, 0, frame.stream, b"some of it").await;
                        }
                    }
                    RST_STREAM => streams.send_modify(|streams| streams.reset += 1),
                    _ => {}
                }
            }
        }
    })
    .await
}

/// Waits until no connection of a caller is left.
async fn are_closed(fed: &Fed) {
    let gone = async {
        while !fed.metrics().contains("maesh_proxy_connections_open{protocol=\"http\"} 0\n") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(gone).await;
}

#[tokio::test]
async fn an_upload_that_nobody_reads_ends_with_its_caller() {
    let streams = watch::Sender::new(Streams::default());
    let mut seen = streams.subscribe();
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let deaf = deaf(false, &streams).await;
    let to = fed.http("web.shop", Scheme::H2c, &[deaf]).await;
    let mut count = 0;
    for rest in [length(1_000_000, 100_000), chunks(25, "")] {
        for gone in [Gone::HalfClosed, Gone::Closed, Gone::Reset] {
            let mut raw = post(to, &rest).await;
            count += 1;
            within(seen.wait_for(|streams| streams.begun == count)).await.expect("the endpoint hears of it");
            match gone {
                Gone::HalfClosed => {
                    raw.stream.shutdown().await.expect("shut");
                    assert_eq!(raw.rest().await, "", "{gone:?}");
                }
                Gone::Closed => drop(raw),
                Gone::Reset => {
                    raw.stream.set_zero_linger().expect("set");
                    drop(raw);
                }
            }
            within(seen.wait_for(|streams| streams.reset == count)).await.expect("the endpoint hears of it");
            are_closed(&fed).await;
        }
    }
}

/// The same once the response has begun.
#[tokio::test]
async fn an_upload_beside_its_response_ends_with_its_caller() {
    let streams = watch::Sender::new(Streams::default());
    let mut seen = streams.subscribe();
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let deaf = deaf(true, &streams).await;
    let to = fed.http("web.shop", Scheme::H2c, &[deaf]).await;
    let mut raw = post(to, &length(1_000_000, 100_000)).await;
    assert!(raw.head().await.starts_with("http/1.1 200"));
    drop(raw);
    within(seen.wait_for(|streams| streams.reset == 1)).await.expect("the endpoint hears of it");
    are_closed(&fed).await;
}

/// An endpoint that answers in full, and neither reads the upload nor says that it wants no more of it.
async fn satisfied(streams: &watch::Sender<Streams>) -> SocketAddr {
    let streams = streams.clone();
    endpoints::raw(move |stream| {
        let streams = streams.clone();
        async move {
            let Some(mut frames) = Frames::accept(stream, &[]).await else { return };
            while let Some(frame) = frames.read().await {
                match frame.kind {
                    HEADERS => {
                        streams.send_modify(|streams| streams.begun += 1);
                        frames.write(HEADERS, END_HEADERS, frame.stream, OK).await;
                        frames.write(DATA, END_STREAM, frame.stream, b"all of it").await;
                    }
                    RST_STREAM => streams.send_modify(|streams| streams.reset += 1),
                    _ => {}
                }
            }
        }
    })
    .await
}

/// The same over HTTP/1.1.
async fn satisfied_of_http1() -> SocketAddr {
    endpoints::raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nall of it").await;
        // Never reads again.
        std::future::pending::<()>().await;
    })
    .await
}

/// Sends an upload over HTTP/2 until nobody on the way takes any more of it, reads its whole response meanwhile, and goes. Whether it
/// got one.
async fn upload_and_go(to: SocketAddr) -> bool {
    let mut caller = Frames::connect(to).await;
    let head = [(":method", "POST"), (":scheme", "http"), (":authority", "web.shop"), (":path", "/")];
    caller.write(HEADERS, END_HEADERS, 1, &block(&head)).await;
    let (mut room, mut is_answered) = (65_535, false);
    loop {
        while room > 0 {
            let length = room.min(16 * 1024);
            caller.write(DATA, 0, 1, &vec![b'u'; length]).await;
            room -= length;
        }
        let frame = match tokio::time::timeout(Duration::from_millis(500), caller.read()).await {
            Ok(frame) => frame.expect("the connection goes on"),
            Err(_) if is_answered => return true,
            Err(_) => continue,
        };
        match frame.kind {
            WINDOW_UPDATE if frame.stream == 1 => {
                let more = u32::from_be_bytes(frame.payload[..4].try_into().expect("four bytes"));
                room += usize::try_from(more).expect("small");
            }
            DATA => is_answered |= frame.flags & END_STREAM != 0,
            RST_STREAM => return false,
            _ => {}
        }
    }
}

/// Once all of the response was passed on, nothing is left of the upload when its caller is gone.
async fn nothing_is_left(scheme: Scheme, endpoint: SocketAddr) {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let to = fed.http("web.shop", scheme, &[endpoint]).await;
    for number in 0..3 {
        assert!(upload_and_go(to).await, "{number}");
        are_closed(&fed).await;
    }
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let held = fed.counted("maesh_proxy_buffered_bytes", &[]);
        if held == 0 {
            return;
        }
        assert!(Instant::now() < until, "{held} bytes are held for callers that are gone");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_upload_behind_its_response_ends_with_its_caller() {
    let streams = watch::Sender::new(Streams::default());
    nothing_is_left(Scheme::H2c, satisfied(&streams).await).await;
    within(streams.subscribe().wait_for(|streams| streams.reset == 3)).await.expect("the endpoint hears of it");
}

#[tokio::test]
async fn an_upload_behind_its_response_over_http1_ends_with_its_caller() {
    nothing_is_left(Scheme::Http, satisfied_of_http1().await).await;
}

/// The same for a caller of HTTP/1.1.
#[tokio::test]
async fn an_upload_behind_its_response_ends_with_its_caller_of_http1() {
    let streams = watch::Sender::new(Streams::default());
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let to = fed.http("web.shop", Scheme::H2c, &[satisfied(&streams).await]).await;
    for (rest, count) in [length(1_000_000, 100_000), chunks(25, "")].iter().zip(1..) {
        let mut raw = post(to, rest).await;
        raw.until("all of it").await;
        drop(raw);
        within(streams.subscribe().wait_for(|streams| streams.reset == count)).await.expect("told");
        are_closed(&fed).await;
        assert_eq!(fed.counted("maesh_proxy_buffered_bytes", &[]), 0, "{rest:.30}");
    }
}

/// What is still held for callers that are gone must not be a reason to refuse those that come.
#[tokio::test]
async fn callers_that_are_gone_take_nothing_from_those_that_come() {
    let streams = watch::Sender::new(Streams::default());
    let limits = Limits { buffered_per_caller: 256 * 1024, ..Limits::default() };
    let fed = Fed::new(Config { limits, ..config() }).await;
    fed.begin().await;
    let to = fed.http("web.shop", Scheme::H2c, &[satisfied(&streams).await]).await;
    let echo = endpoints::echo(true, "one").await;
    let well = fed.http("well.shop", Scheme::H2c, &[echo.address]).await;
    for number in 0..16 {
        let answered = upload_and_go(to).await;
        are_closed(&fed).await;
        let mut caller = Caller::new(Version::Http2, well, "well.shop");
        for _ in 0..5 {
            let answer = caller.ask("/", Upload::Small).await;
            let held = fed.counted("maesh_proxy_buffered_bytes", &[]);
            assert!(answer.status == 200 && answer.is_whole, "after {number}, {held} bytes are held: {answer:?}");
        }
        assert!(answered, "{number}");
    }
}

/// What was not read may be the rest of the request: a caller that ends its side behind that gets its response.
#[tokio::test]
async fn a_complete_request_that_was_not_read_is_answered() {
    let fed = Fed::new(Config { workers: 1, first_use: Duration::from_secs(60), ..config() }).await;
    fed.begin().await;
    // Nobody reads a body while the configuration of its Service is awaited.
    fed.answering.send_replace(false);
    let server = endpoints::echo(false, "one").await;
    let to = fed.http("web.shop", Scheme::Http, &[server.address]).await;
    let mut complete = Vec::new();
    for rest in [length(40_960, 40_960), chunks(10, "0\r\n\r\n"), chunks(10, "0\r\nx: y\r\n\r\n")] {
        let mut raw = post(to, &rest).await;
        raw.stream.shutdown().await.expect("shut");
        complete.push(raw);
    }
    // These are looked at after the others.
    for rest in [length(40_960, 40_959), chunks(10, ""), chunks(10, "1000\r\nhalf"), chunks(10, "0\r\n")] {
        let mut raw = post(to, &rest).await;
        raw.stream.shutdown().await.expect("shut");
        assert_eq!(raw.rest().await, "");
    }
    fed.answering.send_replace(true);
    for mut raw in complete {
        let (head, body) = raw.hear().await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(body.ends_with(&"b".repeat(40_960)), "all of it");
        assert_eq!(raw.rest().await, "", "and closed");
    }
}
