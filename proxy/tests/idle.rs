//! Connections on which nothing happens: none outlives its limit.

mod support;

use std::{net::SocketAddr, time::Duration};

use maesh_config::model::Scheme;
use maesh_proxy::{Config, Limits};
use support::{
    Fed, Raw, config, endpoints,
    frames::{Frames, GOAWAY, PREFACE},
    get, within,
};
use tokio::io::AsyncWriteExt;

async fn fed(limits: Limits) -> (Fed, SocketAddr, endpoints::Server) {
    let fed = Fed::new(Config { limits, ..config() }).await;
    fed.begin().await;
    let server = endpoints::echo(false, "one").await;
    let address = fed.http("web.shop", Scheme::Http, &[server.address]).await;
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
