//! Peers of HTTP/2 that send frames without end which do no work: their connection is closed. Those of an honest peer
//! are never too many.

use std::net::SocketAddr;

use maesh_config::model::Scheme;
use maesh_proxy::{Config, Limits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use crate::support::{
    Fed, ask, config, endpoints,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, RST_STREAM,
        SETTINGS, WINDOW_UPDATE, block, frame,
    },
    get, within,
};

/// ENHANCE_YOUR_CALM.
const CALM: u32 = 11;

/// Streams that a caller may have at once.
const STREAMS: u32 = 4;

/// A Service whose endpoint never answers `/deaf`, and says much otherwise.
async fn fed() -> (Fed, SocketAddr, endpoints::Server) {
    let limits = Limits { streams: STREAMS, ..Limits::default() };
    let fed = Fed::new(Config { limits, ..config() }).await;
    fed.begin().await;
    let server = endpoints::serve(true, |request| async move {
        match request.uri().path() {
            "/deaf" => {
                let _unread = request;
                std::future::pending().await
            }
            "/large" => http::Response::new(endpoints::full(vec![b'c'; LARGE])),
            _ => http::Response::new(endpoints::full("done")),
        }
    })
    .await;
    let address = fed.http("web.shop", Scheme::H2c, &[server.address]).await;
    (fed, address, server)
}

/// Bytes of the large response.
const LARGE: usize = 8 << 20;

/// What begins a request.
fn head(method: &str, path: &str) -> Vec<u8> {
    block(&[(":method", method), (":scheme", "http"), (":authority", "web.shop.maesh"), (":path", path)])
}

/// The stream of the request at this place, counted from 0.
fn stream(at: u32) -> u32 {
    2 * at + 1
}

/// What a caller sends to open a connection, and requests whose bodies do not come to their end.
fn opening(requests: u32) -> Vec<u8> {
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for at in 0..requests {
        bytes.extend(frame(HEADERS, END_HEADERS, stream(at), &head("POST", "/deaf")));
    }
    bytes
}

/// What the other side sends, frame by frame.
struct Reader(OwnedReadHalf);

impl Reader {
    /// Kind and payload of the next frame.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("small")];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((head[3], payload))
    }

    /// Reads until the connection ends; the code of the last GOAWAY. `pongs` counts answers to PING.
    async fn goaway(mut self, pongs: &watch::Sender<u32>) -> Option<u32> {
        let mut code = None;
        while let Some((kind, payload)) = self.next().await {
            match kind {
                GOAWAY => code = payload[4..8].try_into().map(u32::from_be_bytes).ok(),
                PING => pongs.send_modify(|count| *count += 1),
                _ => {}
            }
        }
        code
    }
}

/// Writes so many pieces, and ends its side; less where the other side has ended the connection.
async fn write_all(mut writing: OwnedWriteHalf, pieces: impl Iterator<Item = Vec<u8>>) {
    for piece in pieces {
        if writing.write_all(&piece).await.is_err() {
            return;
        }
    }
    let _ = writing.shutdown().await;
}

/// Sends `opening`, then so many pieces; the code with which the proxy ended the connection, if it did.
async fn flood(to: SocketAddr, opening: Vec<u8>, count: u32, piece: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
    let (reading, writing) = TcpStream::connect(to).await.expect("connected").into_split();
    let pongs = watch::Sender::new(0);
    let pieces = std::iter::once(opening).chain((0..count).map(piece));
    within(async { tokio::join!(Reader(reading).goaway(&pongs), write_all(writing, pieces)) }).await.0
}

/// What a flood sends in its place, counted from 0.
type Piece<'a> = &'a dyn Fn(u32) -> Vec<u8>;

#[tokio::test]
async fn floods_of_frames_that_do_no_work_are_ended() {
    let ping = |_: u32| frame(PING, 0, 0, &[0; 8]);
    let refused = |at: u32| frame(HEADERS, END_HEADERS | END_STREAM, stream(STREAMS + at), &head("GET", "/deaf"));
    let open_block = |at: u32| match at {
        0 => frame(HEADERS, 0, 1, &head("GET", "/")),
        _ => frame(CONTINUATION, 0, 1, &[]),
    };
    let floods: [(&str, u32, Piece<'_>); 9] = [
        ("PING", 0, &ping),
        ("SETTINGS", 0, &|_| frame(SETTINGS, 0, 0, &[])),
        ("PRIORITY", 0, &|_| frame(PRIORITY, 0, 9, &[0, 0, 0, 0, 1])),
        ("WINDOW_UPDATE of a connection", 0, &|_| frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
        ("WINDOW_UPDATE of a stream", 1, &|_| frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes())),
        ("an unknown kind", 0, &|_| frame(0x77, 0, 0, b"what")),
        ("empty DATA", 1, &|_| frame(DATA, 0, 1, &[])),
        ("HEADERS above the limit of streams", STREAMS, &refused),
        ("empty CONTINUATION", 0, &open_block),
    ];
    for (case, requests, piece) in floods {
        let (fed, to, _server) = fed().await;
        assert_eq!(flood(to, opening(requests), 20_000, piece).await, Some(CALM), "{case}");
        let metrics = fed.metrics();
        assert!(metrics.contains("maesh_http_refused_total{reason=\"overloaded\"} 1\n"), "{case}: {metrics}");
    }
}

/// Streams that are opened and reset at once (CVE-2023-44487), fewer at a time than the `h2` crate itself bounds.
#[tokio::test]
async fn a_flood_of_streams_that_are_reset_is_ended() {
    for path in ["/deaf", "/"] {
        let (_fed, to, _server) = fed().await;
        let (reading, mut writing) = TcpStream::connect(to).await.expect("connected").into_split();
        let pongs = watch::Sender::new(0);
        let mut heard = pongs.subscribe();
        let resets = async {
            writing.write_all(&opening(0)).await.expect("written");
            for round in 0..2_000 {
                let mut piece = Vec::new();
                for at in 0..STREAMS {
                    let stream = stream(STREAMS * round + at);
                    piece.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("GET", path)));
                    piece.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
                }
                piece.extend(frame(PING, 0, 0, &[0; 8]));
                if writing.write_all(&piece).await.is_err() {
                    return;
                }
                // The reader ends with the connection.
                let _ = heard.wait_for(|pongs| *pongs > round).await;
            }
            let _ = writing.shutdown().await;
        };
        let code = within(async {
            tokio::select! {
                code = Reader(reading).goaway(&pongs) => code,
                () = async { resets.await; std::future::pending().await } => None,
            }
        });
        assert_eq!(code.await, Some(CALM), "{path}");
    }
}

/// Reads frames until a stream has come to its end; how many bytes of a body that were. `on_data` says what to send for
/// each piece.
async fn response(frames: &mut Frames, stream: u32, on_data: impl Fn(usize) -> Vec<u8>) -> usize {
    let mut bytes = 0;
    loop {
        let frame = within(frames.read()).await.expect("a frame");
        assert_ne!(frame.kind, GOAWAY, "{:?}", frame.payload);
        if frame.kind == DATA && !frame.payload.is_empty() {
            bytes += frame.payload.len();
            frames.write_raw(&on_data(frame.payload.len())).await;
        }
        if frame.stream == stream && frame.flags & END_STREAM != 0 && matches!(frame.kind, DATA | HEADERS) {
            return bytes;
        }
    }
}

/// Room for so many bytes more, on a stream and its connection.
fn window_updates(stream: u32, bytes: usize) -> Vec<u8> {
    let increment = u32::try_from(bytes).expect("small").to_be_bytes();
    [frame(WINDOW_UPDATE, 0, stream, &increment), frame(WINDOW_UPDATE, 0, 0, &increment)].concat()
}

/// A caller that makes room for each few bytes that it reads: more than 60,000 frames for one request.
#[tokio::test]
async fn a_large_response_may_be_read_in_small_steps() {
    const STEP: usize = 256;
    let (_fed, to, _server) = fed().await;
    let mut frames = Frames::connect(to).await;
    frames.write(HEADERS, END_HEADERS | END_STREAM, 1, &head("GET", "/large")).await;
    let steps = |bytes: usize| {
        let mut updates = window_updates(1, STEP).repeat(bytes / STEP);
        if !bytes.is_multiple_of(STEP) {
            updates.extend(window_updates(1, bytes % STEP));
        }
        updates
    };
    assert_eq!(response(&mut frames, 1, steps).await, LARGE);
}

/// A caller that measures the connection and makes room for each response, as gRPC does.
#[tokio::test]
async fn requests_may_come_with_pings_and_window_updates() {
    let (_fed, to, _server) = fed().await;
    let mut frames = Frames::connect(to).await;
    for at in 0..1_000 {
        frames.write(HEADERS, END_HEADERS, stream(at), &head("POST", "/")).await;
        frames.write(DATA, 0, stream(at), b"hello").await;
        frames.write(DATA, END_STREAM, stream(at), b"").await;
        let answer = |bytes| [frame(PING, 0, 0, &[0; 8]), window_updates(stream(at), bytes)].concat();
        assert_eq!(response(&mut frames, stream(at), answer).await, 4);
    }
}

/// An endpoint that floods loses its connection.
#[tokio::test]
async fn a_flood_of_an_endpoint_is_ended() {
    let ended = watch::Sender::new(false);
    let note = ended.clone();
    let server = endpoints::raw(move |stream| {
        let ended = note.clone();
        async move {
            let (mut reading, writing) = stream.into_split();
            let pieces = std::iter::once(frame(SETTINGS, 0, 0, &[]));
            let pieces = pieces.chain(std::iter::repeat_with(|| frame(PING, 0, 0, &[0; 8])));
            let mut heard = [0; 4096];
            let read = async { while let Ok(1..) = reading.read(&mut heard).await {} };
            tokio::join!(read, write_all(writing, pieces));
            ended.send_replace(true);
        }
    })
    .await;
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let address = fed.http("web.shop", Scheme::H2c, &[server]).await;
    let (head, _) = ask(address, &get("web.shop", "/")).await;
    assert!(head.starts_with("http/1.1 502"), "{head}");
    within(ended.subscribe().wait_for(|ended| *ended)).await.expect("the connection was closed");
}
