//! Thousands of connections and streams that hardly move: what each of them costs the process in memory, and that others are
//! served beside them.
//!
//! `MAESH_SLOW_CONNECTIONS` and `MAESH_SLOW_STREAMS` choose other numbers.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::support::{
    Dev, PATIENCE,
    backend::Backend,
    h2::{self, END_HEADERS},
    http::get,
    manifest::{save, service, slices},
    resident,
};

/// Connections with a head that drips. Without a limit of open files that allows so many, as many as it allows.
const CONNECTIONS: usize = 15_000;
/// Streams whose upload drips, and how many of them share a connection.
const STREAMS: usize = 50_000;
const STREAMS_EACH: usize = 250;

/// So often they come and go: what they leave behind must not add up. The allocator of a program that is not the image's keeps
/// more in the first rounds, in which it spreads what it has over its threads.
const ROUNDS: usize = 5;
const SETTLED: usize = 3;

/// Addresses of the callers: one has a fifth of all connections at most.
const CALLERS: usize = 60;

/// Most bytes of memory that one connection or stream may cost, with a program and an allocator that are not those of the image.
const MOST_OF_A_CONNECTION: u64 = 48 * 1024;
const MOST_OF_A_STREAM: u64 = 16 * 1024;

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// A connection from the caller at this place.
async fn from(caller: usize, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let last = u8::try_from(caller % CALLERS + 1).unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 7, last), 0).into())?;
    socket.connect(to).await
}

/// The sum of a metric's series.
fn gauge(dev: &Dev, name: &str) -> u64 {
    let metrics = get(dev.admin(), "localhost", "/metrics").unwrap().body;
    let of_name =
        metrics.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    of_name.map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok()).unwrap()).sum()
}

/// Waits until these metrics have this sum.
async fn await_sum<const N: usize>(dev: &Dev, names: [&str; N], value: u64) {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = names.map(|name| gauge(dev, name));
        if found.iter().sum::<u64>() == value {
            return;
        }
        assert!(Instant::now() < end, "{names:?} are {found:?}, not {value}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What the process holds, in KiB: before the crowd, and with the crowd of each round.
struct Memory<'a> {
    dev: &'a Dev,
    before: u64,
    seen: Vec<u64>,
}

impl<'a> Memory<'a> {
    fn of(dev: &'a Dev) -> Self {
        Self { dev, before: resident(dev.pid()), seen: Vec::new() }
    }

    /// Says what each of so many costs; fails where it is more than `most` bytes, or more than once it had settled.
    fn judge(&mut self, what: &str, count: usize, most: u64) {
        let now = resident(self.dev.pid());
        let each = now.saturating_sub(self.before) * 1024 / count.max(1) as u64;
        println!("{count} {what}: {} to {now} KiB resident, {each} bytes each (at most {most})", self.before);
        assert!(each <= most, "{each} bytes for each of {count} {what}, more than {most}");
        self.seen.push(now);
        if let Some(settled) = self.seen.get(SETTLED - 1) {
            assert!(now <= settled + settled / 10, "more and more KiB for the same: {:?}", self.seen);
        }
    }
}

/// Opens so many connections, each with a head that has begun; returns those that were admitted.
async fn slow_connections(dev: &Dev, at: SocketAddr, wanted: usize) -> Vec<TcpStream> {
    let before = gauge(dev, "maesh_http_refused_total");
    let mut open = Vec::new();
    for number in 0..wanted {
        let mut stream = from(number, at).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: web.shop.maesh\r\nX-Slow: ").await.unwrap();
        open.push(stream);
    }
    // A byte more, so that each head has arrived in several pieces.
    for stream in &mut open {
        let _ = stream.write_all(b"x").await;
    }
    await_sum(dev, ["maesh_proxy_connections_open", "maesh_http_refused_total"], wanted as u64 + before).await;
    // Those that were refused have been told so.
    let is_held = |stream: &TcpStream| socket2::SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]).is_err();
    open.retain(is_held);
    assert_eq!(gauge(dev, "maesh_proxy_connections_open"), open.len() as u64, "of {wanted}");
    open
}

#[tokio::test]
#[ignore = "long: thousands of connections"]
async fn slow_connections_cost_little() {
    let wanted = number("MAESH_SLOW_CONNECTIONS", CONNECTIONS);
    let web = Backend::http("web");
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "web.yaml", &(service("shop", "web", 8080, "") + &slices("shop", "web", &[web.address])));
    let dev = Dev::start(folder.path());
    let at = dev.served_at("web.shop.maesh");
    dev.assert_web_serves();
    let mut memory = Memory::of(&dev);
    for round in 0..ROUNDS {
        let mut held = slow_connections(&dev, at, wanted).await;
        let count = held.len();
        assert!(count >= wanted.min(5_000), "{count} of {wanted} are no crowd; raise the limit of open files");
        memory.judge("slow connections", count, MOST_OF_A_CONNECTION);
        // They may be all that there may be: others are served once there is room for some.
        held.truncate(count - count / 20);
        await_sum(&dev, ["maesh_proxy_connections_open"], held.len() as u64).await;
        dev.assert_web_serves();
        // Each gets its answer in the end, a few at a time: the Service takes so many requests at once.
        for (number, few) in held.chunks_mut(100).enumerate() {
            for stream in &mut *few {
                stream.write_all(b"\r\nConnection: close\r\n\r\n").await.unwrap();
            }
            for stream in few {
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                assert!(answer.starts_with("HTTP/1.1 200 "), "round {round}, {number}: {answer}");
            }
        }
        drop(held);
        await_sum(&dev, ["maesh_proxy_connections_open"], 0).await;
    }
}

/// An endpoint of HTTP/2 that takes any number of requests and answers none.
async fn silent() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(&h2::frame(h2::SETTINGS, 0, 0, &[])).await;
                let mut some = [0; 16 * 1024];
                while matches!(stream.read(&mut some).await, Ok(1..)) {}
            });
        }
    });
    address
}

/// Opens a connection with so many uploads, each of a head and a byte.
async fn uploads(caller: usize, to: SocketAddr, streams: usize) -> TcpStream {
    let mut stream = from(caller, to).await.unwrap();
    let fields = [(":method", "POST"), (":scheme", "http"), (":authority", "silent.shop.maesh"), (":path", "/")];
    let head = h2::block(&fields);
    let mut bytes = [h2::PREFACE, &h2::frame(h2::SETTINGS, 0, 0, &[])].concat();
    for number in 0..u32::try_from(streams).unwrap() {
        bytes.extend(h2::frame(h2::HEADERS, END_HEADERS, 2 * number + 1, &head));
    }
    stream.write_all(&bytes).await.unwrap();
    for number in 0..u32::try_from(streams).unwrap() {
        stream.write_all(&h2::frame(h2::DATA, 0, 2 * number + 1, b"x")).await.unwrap();
    }
    stream
}

#[tokio::test]
#[ignore = "long: thousands of streams"]
async fn slow_streams_cost_little() {
    let streams = number("MAESH_SLOW_STREAMS", STREAMS);
    let web = Backend::http("web");
    let mut endpoints = Vec::new();
    for _ in 0..4 {
        endpoints.push(silent().await);
    }
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "web.yaml", &(service("shop", "web", 8080, "") + &slices("shop", "web", &[web.address])));
    let many = "maesh.containo.us/scheme: h2c, maesh.containo.us/concurrency: \"1000000\"";
    save(
        folder.path(),
        "silent.yaml",
        &(service("shop", "silent", 8080, many) + &slices("shop", "silent", &endpoints)),
    );
    let dev = Dev::start(folder.path());
    assert!(dev.early.is_empty(), "{:#?}", dev.early);
    let at = dev.served_at("silent.shop.maesh");
    dev.assert_web_serves();
    let mut memory = Memory::of(&dev);
    for _ in 0..ROUNDS {
        let (mut connecting, mut left) = (JoinSet::new(), streams);
        for caller in 0.. {
            let each = left.min(STREAMS_EACH);
            if each == 0 {
                break;
            }
            left -= each;
            connecting.spawn(uploads(caller, at, each));
        }
        let held = connecting.join_all().await;
        await_sum(&dev, ["maesh_http_requests_in_flight"], streams as u64).await;
        dev.assert_web_serves();
        memory.judge("slow streams", streams, MOST_OF_A_STREAM);
        drop(held);
        for name in ["maesh_http_requests_in_flight", "maesh_proxy_connections_open", "maesh_proxy_buffered_bytes"] {
            await_sum(&dev, [name], 0).await;
        }
    }
}
