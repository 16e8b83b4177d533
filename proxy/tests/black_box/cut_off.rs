//! Responses that break off, or are malformed: their caller can always tell, and hears of it at once.

use std::{io, net::SocketAddr, time::Duration};

use crate::support::{
    Fed, Raw, config, endpoint, endpoints,
    frames::{DATA, END_HEADERS, Frames, HEADERS, OK, RST_STREAM},
    get, policy, within,
};
use maesh_config::model::{Protocol, Scheme};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
};

async fn fed(scheme: Scheme, endpoint: SocketAddr) -> (Fed, SocketAddr) {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let address = fed.http("web.shop", scheme, &[endpoint]).await;
    (fed, address)
}

/// An endpoint of HTTP/1.1 that writes each of `pieces` once the one before it was heard of, and ends the connection.
async fn saying(pieces: &'static [&'static str], heard: watch::Sender<usize>) -> SocketAddr {
    endpoints::raw(move |mut stream| {
        let heard = heard.clone();
        async move {
            let _ = stream.read(&mut [0; 4096]).await;
            for (at, piece) in pieces.iter().enumerate() {
                let _ = heard.subscribe().wait_for(|heard| *heard >= at).await;
                let _ = stream.write_all(piece.as_bytes()).await;
            }
            let _ = heard.subscribe().wait_for(|heard| *heard >= pieces.len()).await;
        }
    })
    .await
}

/// Reads until the other side ends; says what came and how it ended.
async fn read_to_end(raw: &mut Raw) -> (String, io::Result<()>) {
    let mut bytes = Vec::new();
    let ended = within(raw.stream.read_to_end(&mut bytes)).await.map(drop);
    (String::from_utf8_lossy(&bytes).into_owned(), ended)
}

/// The body that HTTP/1.0 gets for chunks ends with the connection: one that broke off ends with a reset.
#[tokio::test]
async fn http10_is_reset_where_a_response_breaks_off() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    for (case, pieces, whole) in [
        ("whole", &[HEAD, "0\r\n\r\n"][..], true),
        ("ends within the chunks", &[HEAD, ""], false),
        ("a bad chunk", &[HEAD, "xyz\r\n"], false),
    ] {
        let heard = watch::Sender::new(0);
        let server = saying(pieces, heard.clone()).await;
        let (_fed, address) = fed(Scheme::Http, server).await;
        let mut raw = Raw::to(address).await;
        raw.say("GET / HTTP/1.0\r\nHost: web.shop\r\n\r\n").await;
        let head = raw.head().await;
        assert!(head.starts_with("http/1.0 200") && !head.contains("content-length"), "{case}: {head}");
        heard.send_replace(2);
        let ended = read_to_end(&mut raw).await.1;
        let kind = ended.as_ref().map_err(io::Error::kind).err();
        assert_eq!(kind, (!whole).then_some(io::ErrorKind::ConnectionReset), "{case}: {ended:?}");
    }
}

/// The same where the endpoint falls silent, and where its stream of HTTP/2 is reset.
#[tokio::test]
async fn http10_is_reset_whatever_cuts_its_response_off() {
    let silent = endpoints::raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let resetting = endpoints::raw(|stream| async move {
        let Some(mut frames) = Frames::accept(stream, &[]).await else { return };
        while let Some(frame) = frames.read().await {
            if frame.kind == HEADERS {
                frames.write(HEADERS, END_HEADERS, frame.stream, OK).await;
                frames.write(DATA, 0, frame.stream, b"abc").await;
                frames.write(RST_STREAM, 0, frame.stream, &2_u32.to_be_bytes()).await;
            }
        }
    })
    .await;
    for (case, scheme, server) in [("silence", Scheme::Http, silent), ("RST_STREAM", Scheme::H2c, resetting)] {
        let (fed, address) = fed(scheme, server).await;
        let mut impatient = policy(scheme);
        impatient.idle_timeout = Some(Duration::from_secs(1));
        fed.define("web.shop", address.port(), Protocol::Http, impatient, Vec::new());
        fed.define_endpoints("web.shop", address.port(), Protocol::Http, vec![endpoint(server)]);
        let mut raw = Raw::to(address).await;
        raw.say("GET / HTTP/1.0\r\nHost: web.shop\r\n\r\n").await;
        let (answer, ended) = read_to_end(&mut raw).await;
        let kind = ended.as_ref().map_err(io::Error::kind).err();
        assert_eq!(kind, Some(io::ErrorKind::ConnectionReset), "{case}: {answer}");
    }
}

/// Callers of HTTP/1.1 see from the framing that a response broke off, once their connection ends: that must not wait
/// for what they may still send. Their side stays open here, so the proxy cannot be ended by them.
#[tokio::test]
async fn http11_hears_at_once_that_a_response_broke_off() {
    let heard = watch::Sender::new(0);
    let pieces = &["HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc", ""];
    let server = saying(pieces, heard.clone()).await;
    let (_fed, address) = fed(Scheme::Http, server).await;
    let mut raw = Raw::to(address).await;
    raw.say(&get("web.shop", "/")).await;
    raw.head().await;
    heard.send_replace(2);
    // A caller that goes on sending would keep the proxy from ending for as long as that lasts.
    let (mut reading, mut writing) = raw.stream.into_split();
    let sending = tokio::spawn(async move {
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let mut rest = Vec::new();
    let _ = within(reading.read_to_end(&mut rest)).await;
    sending.abort();
    assert!(rest.is_empty() || rest.ends_with(b"abc"), "{}", String::from_utf8_lossy(&rest));
}

/// A malformed chunk that is there with the head is answered with 502; what came before it is not given to the caller.
#[tokio::test]
async fn a_response_that_begins_malformed_is_a_502() {
    for (case, body, want) in [
        ("no size", "xyz\r\nabc\r\n0\r\n\r\n", "502"),
        ("a bad second chunk", "3\r\nabc\r\nxyz\r\n", "502"),
        ("no end of line after the data", "3\r\nabcde\r\n0\r\n\r\n", "502"),
        ("a bare LF after a size", "3\nabc\r\n0\r\n\r\n", "502"),
        ("a bare LF in an extension", "3;a=b\nc\r\nabc\r\n0\r\n\r\n", "502"),
        ("a bare CR in an extension", "3;a=\rb\r\nabc\r\n0\r\n\r\n", "502"),
        ("a bare LF in the trailers", "3\r\nabc\r\n0\r\nX: y\n\r\n\r\n", "502"),
        ("an empty line of a bare LF", "3\r\nabc\r\n0\r\nX: y\r\n\n\r\n", "502"),
        ("a bare CR in the trailers", "3\r\nabc\r\n0\r\nX: y\rz\r\n\r\n", "502"),
        ("a folded trailer", "3\r\nabc\r\n0\r\nX: y\r\n z\r\n\r\n", "502"),
        ("well-formed", "3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n", "200"),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let server = endpoints::raw(move |mut stream| {
            let answer = answer.clone();
            async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        })
        .await;
        let (_fed, address) = fed(Scheme::Http, server).await;
        let mut raw = Raw::to(address).await;
        raw.say(&get("web.shop", "/")).await;
        let head = raw.head().await;
        assert!(head.starts_with(&format!("http/1.1 {want}")), "{case}: {head}");
        assert!(want == "200" || head.contains("x-maesh-reason: upstream_protocol\r\n"), "{case}: {head}");
    }
}
