//! Callers that do not go: each is cut when the time of the drain is over, at the latest.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{oneshot, watch},
    task::JoinSet,
};

use super::{Proxied, http2::Talk};
use crate::support::{
    frames::{DATA, Frames, HEADERS, PING, PREFACE, SETTINGS, WINDOW_UPDATE},
    within,
};

/// How long a drain takes at most. A head may take longer.
const LIMIT: Duration = Duration::from_secs(2);

/// Pause between two things that a caller does again and again.
const PACE: Duration = Duration::from_millis(10);

/// Told once a caller is as it will stay.
struct Settled(oneshot::Sender<()>, watch::Receiver<bool>);

impl Settled {
    /// Says so; returns what turns true once the drain is over.
    fn tell(self) -> watch::Receiver<bool> {
        let _ = self.0.send(());
        self.1
    }
}

/// What a caller does until its connection is ended.
type Act = fn(SocketAddr, Settled) -> BoxFuture<'static, ()>;

/// Connects and says this.
async fn said(to: SocketAddr, what: &[u8], settled: Settled) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.expect("connected");
    stream.write_all(what).await.expect("written");
    settled.tell();
    stream
}

/// Reads until the other side has ended the connection.
async fn until_cut(mut stream: TcpStream) {
    let mut some = vec![0; 64 * 1024];
    while matches!(stream.read(&mut some).await, Ok(1..)) {}
}

/// Writes this again and again, until the connection is cut.
async fn goes_on(mut stream: TcpStream, what: &[u8]) {
    while stream.write_all(what).await.is_ok() {
        // Not to wait for something: this is how slow it is.
        tokio::time::sleep(PACE).await;
    }
}

/// A caller of HTTP/2 that has opened a connection and, with `path`, a stream.
async fn talks(to: SocketAddr, method: &str, path: &str, settled: Settled) -> Talk {
    let mut caller = Talk::connect(to).await;
    let first = caller.ask("/").await;
    assert!(caller.is_answered(first).await);
    caller.begin(method, path, 0).await;
    settled.tell();
    caller
}

/// A frame, of which the payload drips.
fn part_of_a_frame(kind: u8) -> Vec<u8> {
    [PREFACE, &[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0], &[0, 0x3f, 0xff, kind, 0, 0, 0, 0, 1]].concat()
}

const CALLERS: [(&str, Act); 15] = [
    ("says nothing", |to, settled| Box::pin(async move { until_cut(said(to, b"", settled).await).await })),
    ("half of a head", |to, settled| Box::pin(async move { until_cut(said(to, b"GET / HT", settled).await).await })),
    ("a head that drips", |to, settled| {
        Box::pin(async move { goes_on(said(to, b"GET / HTTP/1.1\r\nX: ", settled).await, b"x").await })
    }),
    ("half of a preface", |to, settled| {
        Box::pin(async move { until_cut(said(to, &PREFACE[..9], settled).await).await })
    }),
    ("the preface alone", |to, settled| Box::pin(async move { until_cut(said(to, PREFACE, settled).await).await })),
    ("a header block that drips", |to, settled| {
        Box::pin(async move { goes_on(said(to, &part_of_a_frame(HEADERS), settled).await, b"x").await })
    }),
    ("a PING that drips", |to, settled| {
        Box::pin(async move { goes_on(said(to, &part_of_a_frame(PING), settled).await, b"x").await })
    }),
    ("an upload of HTTP/1.1 that drips", |to, settled| {
        Box::pin(async move {
            let head = b"POST /slow HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 100000\r\n\r\n";
            goes_on(said(to, head, settled).await, b"x").await;
        })
    }),
    ("requests of HTTP/1.1 without end", |to, settled| {
        Box::pin(async move {
            goes_on(said(to, b"", settled).await, b"GET / HTTP/1.1\r\nHost: web.shop\r\n\r\n").await;
        })
    }),
    ("a connection without streams that says nothing to GOAWAY", |to, settled| {
        Box::pin(async move {
            let mut caller = Talk::connect(to).await;
            let stream = caller.ask("/").await;
            assert!(caller.is_answered(stream).await);
            settled.tell();
            until_cut(caller.into_frames().into_inner()).await;
        })
    }),
    ("streams without end, and no answer to PING", |to, settled| {
        Box::pin(async move {
            let mut caller = Talk::connect(to).await;
            settled.tell();
            loop {
                let stream = caller.ask("/").await;
                if !caller.is_answered(stream).await {
                    return;
                }
            }
        })
    }),
    ("a stream without end, and PING", |to, settled| {
        Box::pin(async move {
            let mut caller = talks(to, "POST", "/slow", settled).await;
            caller.hears_goaway(1).await;
            caller.acknowledge().await;
            pings(caller.into_frames()).await;
        })
    }),
    ("an upload that drips", |to, settled| {
        Box::pin(async move {
            let mut frames = talks(to, "POST", "/slow", settled).await.into_frames();
            within(async {
                loop {
                    frames.write(DATA, 0, 3, b"x").await;
                    if matches!(tokio::time::timeout(PACE, frames.read()).await, Ok(None)) {
                        return;
                    }
                }
            })
            .await;
        })
    }),
    ("a large response that it does not read", |to, settled| {
        Box::pin(async move {
            let mut frames = Frames::connect_with_little_room(to).await;
            // Windows in which all of it fits.
            frames.write(SETTINGS, 0, 0, &[&[0, 4][..], &(i32::MAX as u32).to_be_bytes()].concat()).await;
            frames.write(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes()).await;
            let mut caller = Talk::of(frames);
            caller.ask("/large").await;
            let frames = caller.into_frames();
            let stream = frames.into_inner();
            stream.readable().await.expect("the response begins");
            let _ = settled.tell().wait_for(|over| *over).await;
            until_cut(stream).await;
        })
    }),
    ("sends more after the connection was ended", |to, settled| {
        Box::pin(async move {
            let mut caller = Talk::connect(to).await;
            let stream = caller.ask("/").await;
            assert!(caller.is_answered(stream).await);
            settled.tell();
            caller.hears_goaway(1).await;
            caller.acknowledge().await;
            pings(caller.into_frames()).await;
        })
    }),
];

/// Sends PING now and then, as an honest peer may, until the connection is cut.
async fn pings(frames: Frames) {
    let ping = [&[0, 0, 8, PING, 0, 0, 0, 0, 0][..], &[0; 8]].concat();
    let (mut reading, mut writing) = frames.into_inner().into_split();
    let write = async {
        while writing.write_all(&ping).await.is_ok() {
            tokio::time::sleep(10 * PACE).await;
        }
    };
    let mut some = vec![0; 64 * 1024];
    let read = async { while matches!(reading.read(&mut some).await, Ok(1..)) {} };
    tokio::join!(write, read);
}

#[tokio::test]
async fn nobody_is_waited_for_beyond_the_limit() {
    let mut drains = JoinSet::new();
    for (case, act) in CALLERS {
        drains.spawn(async move {
            let mut proxied = Proxied::new(LIMIT).await;
            let (settled, is_settled) = oneshot::channel();
            let (over, is_over) = watch::channel(false);
            let caller = tokio::spawn(act(proxied.address, Settled(settled, is_over)));
            within(is_settled).await.expect("it came so far");
            let drained = proxied.drain().await;
            let cut = within(drained).await.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert!(cut <= 1, "{case}: {cut} connections");
            over.send_replace(true);
            within(caller).await.unwrap_or_else(|error| panic!("{case}: {error}"));
            case
        });
    }
    while let Some(drained) = within(drains.join_next()).await {
        drained.expect("drained");
    }
}
