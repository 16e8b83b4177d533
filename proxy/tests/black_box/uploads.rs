//! Uploads whose caller is gone before they are complete: they end with it, also where the endpoint does not read them.

use std::{net::SocketAddr, time::Duration};

use maesh_config::model::Scheme;
use maesh_proxy::Config;
use tokio::{io::AsyncWriteExt, sync::watch};

use crate::support::{
    Fed, Raw, config, endpoints,
    frames::{DATA, END_HEADERS, Frames, HEADERS, OK, RST_STREAM},
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
