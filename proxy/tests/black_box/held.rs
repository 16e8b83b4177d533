//! What the proxy holds for connections of HTTP/1.1, and for those that have not said yet what they want: all of it is
//! bounded, for one caller and for all together, and whoever is above the bound loses connections.

use std::{net::SocketAddr, time::Duration};

use maesh_config::model::Scheme;
use maesh_proxy::{Config, Limits};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

use crate::support::{Fed, config, endpoints, frames, get, within};

const KIB: usize = 1024;

/// Each of these holds more than a fifth of the bound, and there are more than five of them.
const CONNECTIONS: usize = 24;
const BOUND: usize = 256 * KIB;

/// How a connection leaves bytes with the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stall {
    /// A head that does not come to its end.
    Head,
    /// An upload that the endpoint does not read.
    Upload,
    /// A response that the caller does not read.
    Response,
    /// A header block of HTTP/2 that does not come to its end.
    Block,
    /// A frame of HTTP/2 that does not come to its end.
    Frame,
    /// A ClientHello that does not come to its end.
    Hello,
}

const ALL: [Stall; 6] = [Stall::Head, Stall::Upload, Stall::Response, Stall::Block, Stall::Frame, Stall::Hello];

impl Stall {
    /// What the connection says.
    fn bytes(self, to: SocketAddr) -> Vec<u8> {
        let host = format!("deaf.shop:{}", to.port());
        let frame = |length: usize, kind: u8, flags: u8| {
            let length = u32::try_from(length).expect("small").to_be_bytes();
            let head =
                [length[1], length[2], length[3], kind, flags, 0, 0, 0, if kind == frames::SETTINGS { 0 } else { 1 }];
            head.to_vec()
        };
        let opening = || [frames::PREFACE, &frame(0, frames::SETTINGS, 0)].concat();
        match self {
            Self::Head => format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: {}", "a".repeat(50 * KIB)).into_bytes(),
            Self::Upload => {
                let body = "b".repeat(300 * KIB);
                format!("POST /deaf HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n{body}").into_bytes()
            }
            Self::Response => get(&host, "/large").into_bytes(),
            Self::Block => {
                let block = frames::block(&[("x", &"a".repeat(64 * KIB))]);
                let mut bytes = opening();
                for (at, piece) in block.chunks_exact(16_000).enumerate() {
                    let kind = if at == 0 { frames::HEADERS } else { frames::CONTINUATION };
                    bytes.extend(frame(piece.len(), kind, 0));
                    bytes.extend(piece);
                }
                bytes
            }
            // Of a kind that nobody knows, which is read to its end and ignored.
            Self::Frame => [opening(), frame(16 * KIB, 0x20, 0), vec![0; 16 * KIB - 1]].concat(),
            Self::Hello => {
                let mut hello = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0x7f, 0xff, 3, 3];
                hello.resize(16 * KIB, 0);
                hello
            }
        }
    }
}

async fn connect(ip: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{ip}:0").parse().expect("an address")).expect("bound");
    socket.connect(to).await.expect("connected")
}

/// A Service that reads no upload to `/deaf`, says much at `/large`, and answers everything else.
async fn fed(limits: Limits) -> (Fed, SocketAddr, endpoints::Server) {
    let fed = Fed::new(Config { limits, ..config() }).await;
    fed.begin().await;
    let server = endpoints::serve(false, |request| async move {
        match request.uri().path() {
            "/deaf" => {
                let _unread = request;
                std::future::pending().await
            }
            "/large" => http::Response::new(endpoints::full(vec![b'c'; 32 << 20])),
            _ => http::Response::new(endpoints::full("done")),
        }
    })
    .await;
    let address = fed.http("deaf.shop", Scheme::Http, &[server.address]).await;
    (fed, address, server)
}

fn gauge(fed: &Fed, name: &str) -> usize {
    let metrics = fed.metrics();
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{name} is missing in {metrics}"))
}

fn held(fed: &Fed) -> usize {
    gauge(fed, "maesh_proxy_buffered_bytes")
}

fn open(fed: &Fed) -> usize {
    ["http", "unknown", "tcp"]
        .iter()
        .map(|protocol| gauge(fed, &format!("maesh_proxy_connections_open{{protocol=\"{protocol}\"}}")))
        .sum()
}

/// Waits until `what` holds of the bytes that are held and the connections that are open.
async fn until(fed: &Fed, case: &str, what: impl Fn(usize, usize) -> bool) {
    let waiting = async {
        while !what(held(fed), open(fed)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    assert!(outcome.is_ok(), "{case}: {} bytes held, {} connections open", held(fed), open(fed));
}

async fn is_served(ip: &str, to: SocketAddr) {
    let mut stream = connect(ip, to).await;
    stream.write_all(get(&format!("deaf.shop:{}", to.port()), "/").as_bytes()).await.expect("written");
    let mut answer = [0; 12];
    within(tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer)).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

/// Opens connections of `ip` that leave bytes with the proxy.
async fn stalled(stall: Stall, count: usize, ip: &str, to: SocketAddr) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = connect(ip, to).await;
        // It may be given up already while it writes.
        let _ = stream.write_all(&stall.bytes(to)).await;
        streams.push(stream);
    }
    streams
}

/// The bytes that are left are within the bound, and not far from it; connections were lost.
fn is_bounded(held: usize, open: usize) -> bool {
    (BOUND / 3..=BOUND).contains(&held) && open < CONNECTIONS
}

#[tokio::test]
async fn a_caller_above_its_bound_loses_connections() {
    for stall in ALL {
        let (fed, to, _server) = fed(Limits { buffered_per_caller: BOUND, ..Limits::default() }).await;
        let streams = stalled(stall, CONNECTIONS, "127.0.0.1", to).await;
        until(&fed, &format!("{stall:?}: bounded"), is_bounded).await;
        is_served("127.0.0.1", to).await;
        is_served("127.0.0.9", to).await;
        drop(streams);
        until(&fed, &format!("{stall:?}: released"), |held, _| held == 0).await;
    }
}

#[tokio::test]
async fn above_the_bound_of_all_the_largest_holder_loses_connections() {
    for stall in ALL {
        let (fed, to, _server) = fed(Limits { buffered: BOUND, ..Limits::default() }).await;
        let small = stalled(stall, 1, "127.0.0.9", to).await;
        until(&fed, &format!("{stall:?}: the small one holds something"), |held, _| held > 0).await;
        let large = stalled(stall, CONNECTIONS, "127.0.0.1", to).await;
        until(&fed, &format!("{stall:?}: bounded"), is_bounded).await;
        drop(large);
        until(&fed, &format!("{stall:?}: the small one still does"), |held, open| open == 1 && held > 0).await;
        drop(small);
        until(&fed, &format!("{stall:?}: released"), |held, _| held == 0).await;
    }
}

/// All at once, each of them is held to its bound.
#[tokio::test]
async fn many_callers_above_their_bounds_lose_connections() {
    let (fed, to, _server) = fed(Limits { buffered_per_caller: BOUND, ..Limits::default() }).await;
    let callers = 6;
    let stalls = (1..=callers).map(|caller| async move {
        let ip = format!("127.0.0.{}", 10 + caller);
        stalled(Stall::Head, CONNECTIONS, &ip, to).await
    });
    let _streams = futures_util::future::join_all(stalls).await;
    until(&fed, "bounded", |held, open| held <= callers * BOUND && open < callers * CONNECTIONS / 2).await;
}

/// Copies of uploads for another attempt can be done without: where much is held, none is kept, and no request is lost for it.
#[tokio::test]
async fn copies_of_uploads_cost_no_request() {
    const BODY: usize = 60_000;
    let limits = Limits { buffered: 64 * BOUND, buffered_per_caller: 4 * BOUND, ..Limits::default() };
    let fed = Fed::new(Config { limits, ..config() }).await;
    fed.begin().await;
    let (arrived, mut all_there) = tokio::sync::watch::channel(0_usize);
    let counted = arrived.clone();
    let server = endpoints::serve(false, move |request: http::Request<hyper::body::Incoming>| {
        let arrived = counted.clone();
        async move {
            let body = http_body_util::BodyExt::collect(request.into_body()).await.expect("a body").to_bytes();
            let mut all = arrived.subscribe();
            arrived.send_modify(|count| *count += 1);
            // All of them are there at the same time.
            let _ = all.wait_for(|count| *count >= CONNECTIONS * 4).await;
            http::Response::new(endpoints::full(body.len().to_string()))
        }
    })
    .await;
    let address = fed.http("web.shop", Scheme::Http, &[server.address]).await;
    let mut asked = tokio::task::JoinSet::new();
    for i in 0..CONNECTIONS * 4 {
        asked.spawn(async move {
            let request = format!("POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: {BODY}\r\n\r\n");
            crate::support::ask(address, &(request + &"u".repeat(BODY))).await
        });
        // One after the other: what is on its way at the same time is held too, and cannot be done without.
        within(all_there.wait_for(|count| *count > i)).await.expect("alive");
    }
    while let Some(answer) = within(asked.join_next()).await {
        let (head, body) = answer.expect("no panic");
        assert!(head.starts_with("http/1.1 200") && body == BODY.to_string(), "{head}{body}");
    }
}
