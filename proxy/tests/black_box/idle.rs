//! Connections on which nothing happens: none outlives its limit.

use std::{net::SocketAddr, time::Duration};

use crate::support::{
    Fed, Raw, config, echoing_with, endpoints,
    frames::{DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, OK, PREFACE, block},
    get, within,
};
use maesh_config::model::Scheme;
use maesh_proxy::{Config, Limits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

async fn fed(limits: Limits) -> (Fed, SocketAddr, endpoints::Server) {
    let (fed, address, server) = echoing_with(Config { limits, ..config() }).await;
    (fed, address, server)
}

/// What a connection begins with has to come in time, in each protocol.
#[tokio::test]
async fn a_beginning_that_is_not_complete_ends() {
    let (_fed, address, _server) = fed(Limits { head_timeout: Duration::from_millis(500), ..Limits::default() }).await;
    for (case, said) in [
        ("nothing", &b""[..]),
        ("part of a head", b"GET / HTTP/1.1\r\nHost"),
        ("part of the preface", &PREFACE[..20]),
        ("the preface alone", PREFACE),
        ("part of the settings", &[PREFACE, &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3]].concat()),
    ] {
        let mut raw = Raw::to(address).await;
        raw.stream.write_all(said).await.expect("written");
        // The settings of the proxy may come first.
        let heard = raw.rest().await;
        assert!(!heard.contains("HTTP/1.1 200"), "{case}: {heard}");
    }
}

/// A head that stops within its second line.
const PART: &str = "GET /part HTTP/1.1\r\nHost: web";

/// So does the head of every later request, also one whose first bytes came together with the request before it.
#[tokio::test]
async fn a_later_head_that_is_not_complete_ends() {
    let (_fed, address, _server) = fed(Limits { head_timeout: Duration::from_millis(500), ..Limits::default() }).await;
    let post = "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 3\r\n\r\nabc";
    let chunked = "POST / HTTP/1.1\r\nHost: web.shop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let mut connections = JoinSet::new();
    for (case, before, part) in [
        ("behind a request", vec![get("web.shop", "/")], PART),
        ("one byte", vec![get("web.shop", "/")], "G"),
        ("behind two requests", vec![get("web.shop", "/"), get("web.shop", "/")], PART),
        ("behind a body", vec![post.to_owned()], PART),
        ("behind chunks", vec![chunked.to_owned()], PART),
        ("behind a request that is refused", vec![get("nobody.shop", "/")], PART),
    ] {
        connections.spawn(async move {
            let mut raw = Raw::to(address).await;
            raw.say(&(before.concat() + part)).await;
            for _ in &before {
                assert!(raw.hear().await.0.starts_with("http/1.1 "), "{case}");
            }
            assert_eq!(raw.rest().await, "", "{case}");
        });
    }
    while let Some(ended) = connections.join_next().await {
        ended.expect("ended");
    }
    // The same in a packet of its own.
    let mut raw = Raw::to(address).await;
    raw.say(&get("web.shop", "/")).await;
    assert!(raw.hear().await.0.starts_with("http/1.1 200"));
    raw.say(PART).await;
    assert_eq!(raw.rest().await, "");
}

/// The head that follows the rest of an upload which was answered before it was complete.
#[tokio::test]
async fn a_head_behind_the_rest_of_an_upload_ends() {
    let server = endpoints::raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let limits = Limits { head_timeout: Duration::from_millis(500), ..Limits::default() };
    let fed = Fed::new(Config { limits, ..config() }).await;
    fed.begin().await;
    let address = fed.http("web.shop", Scheme::Http, &[server]).await;
    let mut raw = Raw::to(address).await;
    raw.say("POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 6\r\n\r\nabc").await;
    assert!(raw.hear().await.0.starts_with("http/1.1 200"));
    raw.say(&format!("def{PART}")).await;
    assert_eq!(raw.rest().await, "");
}

/// The header block of a request that is not to be refused for anything else.
fn request() -> Vec<u8> {
    block(&[(":method", "GET"), (":scheme", "http"), (":authority", "web.shop"), (":path", "/")])
}

/// Reads until the connection ends.
async fn ends(frames: &mut Frames) {
    within(async { while frames.read().await.is_some() {} }).await;
}

/// In HTTP/2 the same holds for a header block, and for every frame but DATA, also while other streams are open.
#[tokio::test]
async fn a_header_block_that_is_not_complete_ends_its_connection() {
    let (_fed, address, _server) = fed(Limits { head_timeout: Duration::from_millis(500), ..Limits::default() }).await;
    let length = u8::try_from(request().len()).expect("short");
    let begun = [&[0, 0, length, HEADERS, END_HEADERS | END_STREAM, 0, 0, 0, 3], &request()[..]].concat();
    let open = [&[0, 0, length, HEADERS, END_STREAM, 0, 0, 0, 3], &request()[..]].concat();
    let mut connections = JoinSet::new();
    for (case, said) in [
        ("a part of what precedes the payload", begun[..4].to_vec()),
        ("no payload", begun[..9].to_vec()),
        ("half of a frame", begun[..30].to_vec()),
        ("no END_HEADERS", open),
        ("a part of a PING", vec![0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2]),
    ] {
        for answered in [false, true] {
            let said = said.clone();
            connections.spawn(async move {
                let mut frames = Frames::connect(address).await;
                if answered {
                    frames.write(HEADERS, END_HEADERS | END_STREAM, 1, &request()).await;
                    within(async { while frames.read().await.expect(case).kind != DATA {} }).await;
                }
                frames.write_raw(&said).await;
                ends(&mut frames).await;
            });
        }
    }
    while let Some(ended) = connections.join_next().await {
        ended.expect("ended");
    }
    // In the same packet as a whole request, and while an upload is under way.
    let mut frames = Frames::connect(address).await;
    let whole = [&[0, 0, length, HEADERS, END_HEADERS, 0, 0, 0, 1], &request()[..], &begun[..30]].concat();
    frames.write_raw(&whole).await;
    ends(&mut frames).await;
}

/// What trickles in is not complete either.
#[tokio::test]
async fn a_header_block_that_trickles_ends_its_connection() {
    let (_fed, address, _server) = fed(Limits { head_timeout: Duration::from_millis(500), ..Limits::default() }).await;
    let mut frames = Frames::connect(address).await;
    frames.write_raw(&[0, 0x3e, 0x80, HEADERS, END_HEADERS | END_STREAM, 0, 0, 0, 1]).await;
    within(async {
        loop {
            let frame = tokio::time::timeout(Duration::from_millis(100), frames.read()).await;
            if matches!(frame, Ok(None)) {
                break;
            }
            frames.write_raw(&[0]).await;
        }
    })
    .await;
}

/// An upload may take longer than a head, within a frame too.
#[tokio::test]
async fn a_frame_of_data_may_take_longer() {
    let (_fed, address, _server) = fed(Limits { head_timeout: Duration::from_millis(500), ..Limits::default() }).await;
    let mut frames = Frames::connect(address).await;
    frames.write(HEADERS, END_HEADERS, 1, &request()).await;
    frames.write_raw(&[0, 0, 6, DATA, END_STREAM, 0, 0, 0, 1, b'a', b'b', b'c']).await;
    // Longer than a head may take.
    tokio::time::sleep(Duration::from_secs(3)).await;
    frames.write_raw(b"def").await;
    let head = within(async {
        loop {
            let frame = frames.read().await.expect("answered");
            if frame.kind == HEADERS {
                return frame.payload;
            }
        }
    })
    .await;
    assert_eq!(head.first(), OK.first());
}

/// Between requests a connection may be silent for as long as the limit says; one of HTTP/2 hears GOAWAY first.
#[tokio::test]
async fn unused_connections_end() {
    let (_fed, address, _server) = fed(Limits { keep_alive: Duration::from_secs(1), ..Limits::default() }).await;
    let mut raw = Raw::to(address).await;
    raw.say(&get("web.shop", "/")).await;
    assert!(raw.hear().await.0.starts_with("http/1.1 200"));
    assert_eq!(raw.rest().await, "");

    let mut frames = Frames::connect(address).await;
    let (mut goaway, mut ended) = (false, false);
    within(async {
        while let Some(frame) = frames.read().await {
            goaway |= frame.kind == GOAWAY;
        }
        ended = true;
    })
    .await;
    assert!(goaway && ended);
}
