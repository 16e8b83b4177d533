//! What callers of HTTP/2 do after they were told to go.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    task::JoinSet,
};

use super::Proxied;
use crate::support::{
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, block, frame,
    },
    within,
};

/// A drain that takes this long has failed.
const LONG: Duration = Duration::from_secs(60);

/// ENHANCE_YOUR_CALM.
const CALM: u32 = 11;

const ACK: u8 = 1;

/// A connection, and what was heard on it besides responses.
pub(super) struct Talk {
    frames: Frames,
    /// Last stream and code of each GOAWAY.
    goaways: Vec<(u32, u32)>,
    /// Payload of the last PING that was not acknowledged.
    ping: Option<Vec<u8>>,
    next: u32,
}

impl Talk {
    pub(super) async fn connect(to: SocketAddr) -> Self {
        Self::of(Frames::connect(to).await)
    }

    /// On a connection without streams.
    pub(super) fn of(frames: Frames) -> Self {
        Self { frames, goaways: Vec::new(), ping: None, next: 1 }
    }

    /// Sends a request without a body; returns its stream.
    pub(super) async fn ask(&mut self, path: &str) -> u32 {
        self.begin("GET", path, END_STREAM).await
    }

    /// Sends the head of a request; returns its stream.
    pub(super) async fn begin(&mut self, method: &str, path: &str, flags: u8) -> u32 {
        let stream = self.next;
        self.next += 2;
        self.frames.write_block(flags, stream, &head(method, path)).await;
        stream
    }

    /// Reads one frame and notes what it says; `None` at the end of the connection. A stream that has come to its end is
    /// told, and whether that was well.
    async fn read(&mut self) -> Option<Option<(u32, bool)>> {
        let frame = within(self.frames.read()).await?;
        let number = |at: usize| frame.payload[at..at + 4].try_into().map(u32::from_be_bytes).expect("four bytes");
        match frame.kind {
            GOAWAY => self.goaways.push((number(0), number(4))),
            PING if frame.flags & ACK == 0 => self.ping = Some(frame.payload.clone()),
            RST_STREAM => return Some(Some((frame.stream, false))),
            HEADERS | DATA if frame.flags & END_STREAM != 0 => return Some(Some((frame.stream, true))),
            _ => {}
        }
        Some(None)
    }

    /// Reads until this stream has come to its end; whether it was answered.
    pub(super) async fn is_answered(&mut self, stream: u32) -> bool {
        loop {
            match self.read().await {
                Some(Some((ended, well))) if ended == stream => return well,
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// Reads until it was told so many times to go.
    pub(super) async fn hears_goaway(&mut self, times: usize) {
        while self.goaways.len() < times {
            assert!(self.read().await.is_some(), "the connection ended");
        }
    }

    /// Says that it has heard the PING that comes with GOAWAY: it will open no streams.
    pub(super) async fn acknowledge(&mut self) {
        while self.ping.is_none() {
            assert!(self.read().await.is_some(), "the connection ended");
        }
        let ping = self.ping.take().expect("heard");
        self.frames.write(PING, ACK, 0, &ping).await;
    }

    /// Reads until the connection ends; the code of the last GOAWAY.
    async fn end(&mut self) -> Option<u32> {
        while self.read().await.is_some() {}
        self.goaways.last().map(|(_, code)| *code)
    }

    pub(super) fn into_frames(self) -> Frames {
        self.frames
    }
}

fn head(method: &str, path: &str) -> Vec<u8> {
    block(&[(":method", method), (":scheme", "http"), (":authority", "web.shop.maesh"), (":path", path)])
}

/// A caller whose requests follow each other without a pause hears GOAWAY all the same. What it still asks is answered, for as long
/// as it has not said that it heard.
#[tokio::test]
async fn requests_without_a_pause_do_not_put_goaway_off() {
    let mut proxied = Proxied::new(LONG).await;
    let mut caller = Talk::connect(proxied.address).await;
    let first = caller.ask("/").await;
    assert!(caller.is_answered(first).await);
    let drained = proxied.drain().await;
    let mut last = first;
    while caller.goaways.is_empty() {
        last = caller.ask("/").await;
        assert!(caller.is_answered(last).await, "{last}");
    }
    for _ in 0..20 {
        last = caller.ask("/").await;
        assert!(caller.is_answered(last).await, "{last}, which it opened before it could know");
    }
    assert_eq!(caller.goaways, [(i32::MAX as u32, 0)]);
    caller.acknowledge().await;
    assert_eq!(caller.end().await, Some(0));
    assert_eq!(caller.goaways[1..], [(last, 0)], "all of them were served");
    assert_eq!(within(drained).await.expect("drained"), 0);
}

/// Many connections at once, each with a request under way and others that follow: none is lost.
#[tokio::test]
async fn many_connections_part_at_once_without_a_loss() {
    const MANY: u32 = 300;
    let mut proxied = Proxied::new(LONG).await;
    let (told, mut are_told) = watch::channel(0);
    let mut callers = JoinSet::new();
    for _ in 0..MANY {
        let mut caller = Talk::connect(proxied.address).await;
        let slow = caller.ask("/slow").await;
        let told = told.clone();
        callers.spawn(async move {
            let mut lost = 0;
            while caller.goaways.is_empty() {
                let stream = caller.ask("/").await;
                lost += u32::from(!caller.is_answered(stream).await);
            }
            told.send_modify(|told| *told += 1);
            caller.acknowledge().await;
            (lost + u32::from(!caller.is_answered(slow).await), caller.end().await)
        });
    }
    proxied.await_asked(2 * MANY).await;
    let drained = proxied.drain().await;
    within(are_told.wait_for(|told| *told == MANY)).await.expect("told to go");
    proxied.free.send_replace(true);
    while let Some(caller) = within(callers.join_next()).await {
        assert_eq!(caller.expect("no panic"), (0, Some(0)), "requests lost, and how the connection ended");
    }
    assert_eq!(within(drained).await.expect("drained"), 0);
}

/// A caller that was told the last stream, with that one still under way.
async fn parting(drain_timeout: Duration) -> (Proxied, Talk, tokio::task::JoinHandle<usize>, Metrics) {
    let mut proxied = Proxied::new(drain_timeout).await;
    let metrics = Metrics(proxied.fed.proxy.as_ref().expect("running").registry());
    let mut caller = Talk::connect(proxied.address).await;
    caller.ask("/slow").await;
    proxied.await_asked(1).await;
    let drained = proxied.drain().await;
    caller.hears_goaway(1).await;
    caller.acknowledge().await;
    caller.hears_goaway(2).await;
    assert_eq!(caller.goaways[1], (1, 0));
    (proxied, caller, drained, metrics)
}

/// The metrics of a proxy, also while it drains.
struct Metrics(Arc<parking_lot::Mutex<Registry>>);

impl Metrics {
    /// The value of a gauge without labels.
    fn gauge(&self, name: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0.lock()).expect("encoded");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("{name} is missing in {text}"))
    }
}

/// Streams that a caller opens although it has said that it will not: nobody hears of them, nothing is held for them, and the
/// stream before them is answered.
#[tokio::test]
async fn streams_above_the_last_one_are_ignored() {
    let (proxied, mut caller, drained, metrics) = parting(LONG).await;
    for _ in 0..20 {
        let stream = caller.begin("POST", "/", 0).await;
        for _ in 0..4 {
            caller.frames.write(DATA, 0, stream, &[b'x'; 16 * 1024]).await;
        }
        caller.frames.write(WINDOW_UPDATE, 0, stream, &1_u32.to_be_bytes()).await;
        caller.frames.write_block(END_STREAM, stream, &block(&[("x-trailer", "x")])).await;
        caller.frames.write(RST_STREAM, 0, stream, &8_u32.to_be_bytes()).await;
    }
    // What was sent before the PING was looked at once that is answered.
    caller.frames.write(PING, 0, 0, b"12345678").await;
    loop {
        let frame = within(caller.frames.read()).await.expect("the connection goes on");
        assert!(frame.stream <= 1, "a frame of kind {} on stream {}", frame.kind, frame.stream);
        if frame.kind == PING {
            break;
        }
    }
    assert_eq!(metrics.gauge("maesh_http_requests_in_flight"), 1);
    assert_eq!(metrics.gauge("maesh_proxy_buffered_bytes"), 0);
    assert_eq!(*proxied.asked.borrow(), 1, "only the stream before");
    proxied.free.send_replace(true);
    assert!(caller.is_answered(1).await);
    assert_eq!(caller.end().await, Some(0));
    assert_eq!(within(drained).await.expect("drained"), 0);
}

/// The frames of a flood, by their place in it.
type Flood<'a> = &'a (dyn Fn(u32) -> Vec<u8> + Sync);

/// Frames without end from a caller that was told to go: its connection ends, and the drain does not wait for it.
#[tokio::test]
async fn floods_of_callers_that_part_are_ended() {
    let above = |at: u32| frame(HEADERS, END_HEADERS | END_STREAM, 3 + 2 * at, &head("GET", "/"));
    let block_above = |at: u32| match at {
        0 => frame(HEADERS, 0, 3, &head("GET", "/")),
        _ => frame(CONTINUATION, 0, 3, &[]),
    };
    let floods: [(&str, Flood<'_>); 7] = [
        ("PING", &|_| frame(PING, 0, 0, &[0; 8])),
        ("answers to PING", &|_| frame(PING, ACK, 0, b"goingnow")),
        ("SETTINGS", &|_| frame(SETTINGS, 0, 0, &[])),
        ("PRIORITY", &|_| frame(PRIORITY, 0, 9, &[0, 0, 0, 0, 1])),
        ("streams above the last one", &above),
        ("a header block above the last stream", &block_above),
        ("empty DATA above the last stream", &|_| frame(DATA, 0, 3, &[])),
    ];
    for (case, piece) in floods {
        let (_proxied, caller, drained, metrics) = parting(LONG).await;
        let (mut reading, mut writing) = caller.into_frames().into_inner().into_split();
        let write = async {
            for at in 0..20_000 {
                if writing.write_all(&piece(at)).await.is_err() {
                    return;
                }
            }
        };
        let mut heard = Vec::new();
        let read = reading.read_to_end(&mut heard);
        // Its end may be a reset.
        let _ = within(async { tokio::join!(write, read) }).await;
        let calm = frame(GOAWAY, 0, 0, &[1_u32.to_be_bytes(), CALM.to_be_bytes()].concat());
        let is_calmed = heard.windows(calm.len()).any(|window| window == calm);
        assert!(is_calmed, "{case}: {} bytes, and no word of calm", heard.len());
        assert_eq!(within(drained).await.expect("drained"), 0, "{case}");
        assert_eq!(metrics.gauge("maesh_http_requests_in_flight"), 0, "{case}");
    }
}

/// A caller that ends its side while its last request is under way is not waited for.
#[tokio::test]
async fn a_caller_that_ends_its_side_is_not_waited_for() {
    for acknowledged in [false, true] {
        let mut proxied = Proxied::new(LONG).await;
        let mut caller = Talk::connect(proxied.address).await;
        caller.ask("/slow").await;
        proxied.await_asked(1).await;
        let drained = proxied.drain().await;
        caller.hears_goaway(1).await;
        if acknowledged {
            caller.acknowledge().await;
        }
        let mut stream = caller.into_frames().into_inner();
        stream.shutdown().await.expect("its side ends");
        assert_eq!(within(drained).await.expect("drained"), 0, "acknowledged: {acknowledged}");
    }
}

/// A connection that comes when the drain has begun hears GOAWAY as well, and its first request is answered.
#[tokio::test]
async fn who_comes_while_others_part_is_served_and_told() {
    let mut proxied = Proxied::new(LONG).await;
    let (go, gone) = watch::channel(false);
    // Its connection waits to be accepted until the proxy is told to end.
    let address = proxied.address;
    let late = tokio::spawn(async move {
        let mut callers = Vec::new();
        for _ in 0..50 {
            callers.push(Talk::connect(address).await);
        }
        go.send_replace(true);
        let mut well = 0;
        for caller in &mut callers {
            let stream = caller.ask("/").await;
            well += u32::from(caller.is_answered(stream).await);
            caller.hears_goaway(1).await;
            caller.acknowledge().await;
            assert_eq!(caller.end().await, Some(0));
        }
        well
    });
    within(gone.clone().wait_for(|gone| *gone)).await.expect("connected");
    let drained = proxied.drain().await;
    assert_eq!(within(late).await.expect("no panic"), 50);
    assert_eq!(within(drained).await.expect("drained"), 0);
}
