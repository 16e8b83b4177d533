//! What the proxy holds for callers of HTTP/2 whose uploads nobody reads, and what that does to others.

use std::{net::SocketAddr, time::Duration};

use crate::support::{Fed, config, endpoints, within};
use bytes::Bytes;
use h2::{
    SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{Request, StatusCode};
use maesh_config::model::Scheme;
use maesh_proxy::{Config, Limits};
use tokio::net::TcpSocket;

/// A caller of HTTP/2 at `ip`.
async fn caller(ip: &str, to: SocketAddr) -> SendRequest<Bytes> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{ip}:0").parse().expect("an address")).expect("bound");
    let stream = socket.connect(to).await.expect("connected");
    let (sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    sender.ready().await.expect("ready")
}

/// An upload that goes on until nothing more is taken.
struct Upload {
    send: SendStream<Bytes>,
    /// Held, or the stream would be reset.
    _answer: ResponseFuture,
    sent: usize,
}

impl Upload {
    async fn stalled(sender: &mut SendRequest<Bytes>, to: SocketAddr) -> Self {
        *sender = within(sender.clone().ready()).await.expect("ready");
        let request = Request::post(format!("http://deaf.shop:{}/", to.port())).body(()).expect("a request");
        let (answer, send) = sender.send_request(request, false).expect("sent");
        let mut upload = Self { send, _answer: answer, sent: 0 };
        while let Ok(true) = tokio::time::timeout(Duration::from_secs(2), upload.more()).await {}
        upload
    }

    /// Sends a piece; false once the stream is over.
    async fn more(&mut self) -> bool {
        self.send.reserve_capacity(16 * 1024);
        let room = std::future::poll_fn(|cx| self.send.poll_capacity(cx)).await;
        let Some(Ok(room)) = room else { return false };
        self.sent += room;
        self.send.send_data(Bytes::from(vec![b'x'; room]), false).is_ok()
    }

    /// What it was reset with, if it was.
    async fn reset(&mut self) -> Option<h2::Reason> {
        let reset = std::future::poll_fn(|cx| self.send.poll_reset(cx));
        tokio::time::timeout(Duration::from_secs(1), reset).await.ok().and_then(Result::ok)
    }
}

/// What each of these was reset with, if it was. All are waited for at the same time.
async fn resets(uploads: &mut [Upload]) -> Vec<Option<h2::Reason>> {
    futures_util::future::join_all(uploads.iter_mut().map(Upload::reset)).await
}

/// A Service whose endpoint reads no body, and one that answers.
async fn fed(limits: Limits) -> (Fed, SocketAddr, [endpoints::Server; 2]) {
    let fed = Fed::new(Config { limits, ..config() }).await;
    fed.begin().await;
    let deaf = endpoints::serve(true, |request| async move {
        let _unread = request;
        std::future::pending().await
    })
    .await;
    let echo = endpoints::echo(true, "one").await;
    let to_deaf = fed.http("deaf.shop", Scheme::H2c, &[deaf.address]).await;
    // The same listener, so that one connection reaches both.
    fed.define(
        "web.shop",
        to_deaf.port(),
        maesh_config::model::Protocol::Http,
        crate::support::policy(Scheme::H2c),
        vec![],
    );
    let endpoint = vec![crate::support::endpoint(echo.address)];
    fed.define_endpoints("web.shop", to_deaf.port(), maesh_config::model::Protocol::Http, endpoint);
    fed.name("web.shop", to_deaf.port(), to_deaf.port(), maesh_config::model::Protocol::Http, &[]).await;
    let servers = [deaf, echo];
    (fed, to_deaf, servers)
}

/// A request with a body to a Service that reads it.
async fn is_served(sender: &mut SendRequest<Bytes>, to: SocketAddr) {
    *sender = within(sender.clone().ready()).await.expect("ready");
    let request = Request::post(format!("http://web.shop:{}/", to.port())).body(()).expect("a request");
    let (answer, mut send) = sender.send_request(request, false).expect("sent");
    send.send_data(Bytes::from(vec![b'y'; 40_000]), true).expect("sent");
    let answer = within(answer).await.expect("answered");
    assert_eq!(answer.status(), StatusCode::OK);
    let mut body = answer.into_body();
    while let Some(data) = within(body.data()).await {
        let data = data.expect("data");
        body.flow_control().release_capacity(data.len()).expect("released");
    }
}

/// As many uploads as a connection may have, of which nobody reads one byte: another stream has all of its window.
#[tokio::test]
async fn uploads_that_nobody_reads_take_nothing_from_other_streams() {
    let (fed, to, _servers) = fed(Limits { streams: 24, ..Limits::default() }).await;
    let mut sender = caller("127.0.0.1", to).await;
    let mut uploads = Vec::new();
    let pumps: Vec<_> = (0..20)
        .map(|_| {
            let mut sender = sender.clone();
            tokio::spawn(async move { Upload::stalled(&mut sender, to).await })
        })
        .collect();
    for pump in pumps {
        let upload = within(pump).await.expect("stalled");
        assert!(upload.sent < 512 * 1024, "{} bytes of an upload were taken", upload.sent);
        uploads.push(upload);
    }
    assert_eq!(resets(&mut uploads).await, [None; 20]);
    for _ in 0..50 {
        is_served(&mut sender, to).await;
    }
    // Both gauges say what is held, and that nothing is once the caller is gone.
    assert_eq!(gauge(&fed, "maesh_http_requests_in_flight"), 20);
    assert!(gauge(&fed, "maesh_proxy_buffered_bytes") >= 64 * 1024);
    drop((sender, uploads));
    within(async {
        while gauge(&fed, "maesh_http_requests_in_flight") > 0 || gauge(&fed, "maesh_proxy_buffered_bytes") > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

fn gauge(fed: &Fed, name: &str) -> u64 {
    let metrics = fed.metrics();
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{name} is missing in {metrics}"))
}

/// A caller above its own bound loses streams, and only those that hold something.
#[tokio::test]
async fn a_caller_above_its_bound_loses_uploads() {
    let limits = Limits { buffered_per_caller: 256 * 1024, ..Limits::default() };
    let (_fed, to, _servers) = fed(limits).await;
    let mut sender = caller("127.0.0.1", to).await;
    let pumps: Vec<_> = (0..16)
        .map(|_| {
            let mut sender = sender.clone();
            tokio::spawn(async move { Upload::stalled(&mut sender, to).await })
        })
        .collect();
    let (mut reset, mut left) = (0, Vec::new());
    for pump in pumps {
        let mut upload = within(pump).await.expect("stalled");
        match upload.reset().await {
            Some(reason) => {
                assert_eq!(reason, h2::Reason::ENHANCE_YOUR_CALM);
                reset += 1;
            }
            None => left.push(upload),
        }
    }
    // Each of those that are left holds a window of 64 KiB, to within what is looked at at once.
    assert!((1..=6).contains(&left.len()), "{reset} were reset, {} are left", left.len());
    is_served(&mut sender, to).await;
}

/// Where all callers together are above the bound, the one that holds the most pays for it.
#[tokio::test]
async fn above_the_bound_of_all_the_largest_holder_loses_uploads() {
    let limits = Limits { buffered: 320 * 1024, buffered_per_caller: 1 << 20, ..Limits::default() };
    let (_fed, to, _servers) = fed(limits).await;
    let (mut large, mut small) = (caller("127.0.0.1", to).await, caller("127.0.0.9", to).await);
    let mut of_large = Vec::new();
    for _ in 0..5 {
        of_large.push(Upload::stalled(&mut large, to).await);
    }
    assert_eq!(resets(&mut of_large).await, [None; 5], "within the bound");
    let mut of_small = Vec::new();
    for _ in 0..3 {
        of_small.push(Upload::stalled(&mut small, to).await);
    }
    let calmed = resets(&mut of_large).await.contains(&Some(h2::Reason::ENHANCE_YOUR_CALM));
    assert!(calmed, "the large caller lost nothing");
    assert_eq!(resets(&mut of_small).await, [None; 3], "the small caller is within its part");
    is_served(&mut large, to).await;
    is_served(&mut small, to).await;
}
