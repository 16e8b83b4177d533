//! Endpoints of HTTP/2 that fail.

use std::time::Duration;

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    End::{self, BrokenOff, Refused, Whole},
    Habit, Over, Upload,
    http1::{reset, without_end},
};
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, OK, PING, PUSH_PROMISE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, frame,
};

/// Pause between two bytes of what drips.
const DRIP: Duration = Duration::from_millis(50);

/// Codes of RFC 9113 section 7.
const INTERNAL_ERROR: [u8; 4] = [0, 0, 0, 2];
const NO_ERROR: [u8; 4] = [0; 4];

pub(super) fn habits() -> Vec<Habit> {
    [connections(), ends(), floods(), frames(), heads(), bodies(), early_answers()].into_iter().flatten().collect()
}

/// Waits for a request; its stream. Makes room for what it reads meanwhile.
async fn asked(frames: &mut Frames) -> Option<u32> {
    loop {
        let read = frames.read().await?;
        match read.kind {
            HEADERS => return Some(read.stream),
            DATA if !read.payload.is_empty() => {
                let bytes = u32::try_from(read.payload.len()).expect("small").to_be_bytes();
                frames.write(WINDOW_UPDATE, 0, 0, &bytes).await;
                frames.write(WINDOW_UPDATE, 0, read.stream, &bytes).await;
            }
            _ => {}
        }
    }
}

/// Does this once a connection has had its first request, whose stream is told.
fn once<A>(
    case: &'static str,
    want: &'static [End],
    act: impl Fn(TcpStream, u32, Over) -> A + Clone + Send + 'static,
) -> Habit
where
    A: Future<Output = ()> + Send + 'static,
{
    Habit::new(case, want, move |stream, over| {
        let act = act.clone();
        async move {
            let Some(mut frames) = Frames::accept(stream, &[]).await else { return };
            let Some(stream) = asked(&mut frames).await else { return };
            act(frames.into_inner(), stream, over).await;
        }
    })
}

/// Writes these bytes once a connection has had its first request, and nothing more.
fn writes(case: &'static str, want: &'static [End], bytes: Vec<u8>) -> Habit {
    once(case, want, move |mut stream, _, over| {
        let bytes = bytes.clone();
        async move {
            let _ = stream.write_all(&bytes).await;
            over.hold(stream).await;
        }
    })
}

/// Answers each request with these frames: kind, flags and payload.
fn says(case: &'static str, want: &'static [End], answer: Vec<(u8, u8, Vec<u8>)>) -> Habit {
    Habit::new(case, want, move |stream, _| {
        let answer = answer.clone();
        async move {
            let Some(mut frames) = Frames::accept(stream, &[]).await else { return };
            while let Some(stream) = asked(&mut frames).await {
                for (kind, flags, payload) in &answer {
                    frames.write(*kind, *flags, stream, payload).await;
                }
            }
        }
    })
}

/// A response that goes on.
fn begins() -> (u8, u8, Vec<u8>) {
    (HEADERS, END_HEADERS, OK.to_vec())
}

/// The same, which says how long it is.
fn begins_with(length: &str) -> (u8, u8, Vec<u8>) {
    (HEADERS, END_HEADERS, block(&[(":status", "200"), ("content-length", length)]))
}

fn data(flags: u8, bytes: &[u8]) -> (u8, u8, Vec<u8>) {
    (DATA, flags, bytes.to_vec())
}

/// Before any request.
fn connections() -> Vec<Habit> {
    let none = &[Refused("connect_failed")];
    vec![
        Habit::new("takes the connection and reads nothing", &[Refused("connect_timeout")], |stream, over: Over| {
            over.hold(stream)
        }),
        Habit::new("closes at once", none, |stream, _| async move { drop(stream) }),
        Habit::new("resets at once", none, |stream, _| async move { reset(stream) }),
        Habit::new("ends its side at once", none, |mut stream, over| async move {
            let _ = stream.shutdown().await;
            over.hold(stream).await;
        }),
        Habit::new("another protocol", none, |mut stream, over| async move {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
            over.hold(stream).await;
        }),
        Habit::new("half of its settings", &[Refused("connect_timeout")], |mut stream, over| async move {
            let _ = stream.write_all(&[0, 0, 6, SETTINGS, 0, 0, 0, 0, 0, 0, 3]).await;
            over.hold(stream).await;
        }),
        Habit::new("ends its side after its settings", &[Refused("connect_failed"), Refused("upstream_reset")], {
            |stream, over| async move {
                let Some(frames) = Frames::accept(stream, &[]).await else { return };
                let mut stream = frames.into_inner();
                let _ = stream.shutdown().await;
                over.hold(stream).await;
            }
        }),
        Habit::new("allows no streams", &[Refused("overloaded")], |stream, over| async move {
            let Some(frames) = Frames::accept(stream, &[(3, 0)]).await else { return };
            over.hold(frames.into_inner()).await;
        }),
    ]
}

/// After a request, and before its response.
fn ends() -> Vec<Habit> {
    let silent = &[Refused("request_timeout")];
    let gone = &[Refused("upstream_reset")];
    vec![
        writes("reads the request and says nothing", silent, Vec::new()),
        once("closes after the request", gone, |stream, _, _| async move { drop(stream) }),
        once("resets after the request", gone, |stream, _, _| async move { reset(stream) }),
        once("ends its side after the request", gone, |mut stream, _, over| async move {
            let _ = stream.shutdown().await;
            over.hold(stream).await;
        }),
        says("resets the stream", gone, vec![(RST_STREAM, 0, INTERNAL_ERROR.to_vec())]),
        says("resets the stream without an error", gone, vec![(RST_STREAM, 0, NO_ERROR.to_vec())]),
        writes("says GOAWAY with an error", gone, frame(GOAWAY, 0, 0, &[NO_ERROR, INTERNAL_ERROR].concat())),
        writes("says GOAWAY and nothing more", silent, {
            frame(GOAWAY, 0, 0, &[(i32::MAX as u32).to_be_bytes(), NO_ERROR].concat())
        }),
        writes("half of a head and nothing more", silent, [&[0, 0, 9, HEADERS, END_HEADERS, 0, 0, 0, 1], OK].concat()),
        once("half of a head and the end", gone, |mut stream, _, over| async move {
            let _ = stream.write_all(&[0, 0, 9, HEADERS, END_HEADERS, 0, 0, 0, 1, 0x88]).await;
            let _ = stream.shutdown().await;
            over.hold(stream).await;
        }),
        once("a head that drips", silent, |mut stream, _, _| async move {
            let _ = stream.write_all(&[0, 0x3f, 0xff, HEADERS, END_HEADERS, 0, 0, 0, 1]).await;
            without_end(&mut stream, &[0x88], DRIP).await;
        }),
    ]
}

/// Frames without end, as fast as they are taken.
fn floods() -> Vec<Habit> {
    let flood = |case, want, kind, flags, payload: Vec<u8>, has_stream: bool| {
        once(case, want, move |mut stream, id, _| {
            let one = frame(kind, flags, if has_stream { id } else { 0 }, &payload);
            async move { without_end(&mut stream, &one.repeat(200), Duration::ZERO).await }
        })
    };
    let interim = block(&[(":status", "103"), ("link", "x")]);
    vec![
        // What bounds their number is that they do no work; interim responses are also counted for each stream.
        flood(
            "interim responses",
            &[Refused("upstream_protocol"), Refused("upstream_reset")],
            HEADERS,
            END_HEADERS,
            interim,
            true,
        ),
        flood("PING", &[Refused("upstream_reset")], PING, 0, vec![0; 8], false),
        once("a header block without end", &[Refused("upstream_protocol")], |mut stream, id, _| async move {
            let _ = stream.write_all(&frame(HEADERS, 0, id, OK)).await;
            without_end(&mut stream, &frame(CONTINUATION, 0, id, &[0x88; 1000]), Duration::ZERO).await;
        }),
        // Of two requests on one connection, the second has no response yet when that ends.
        once("empty DATA", &[BrokenOff, Refused("upstream_reset")], |mut stream, id, _| async move {
            let _ = stream.write_all(&frame(HEADERS, END_HEADERS, id, OK)).await;
            without_end(&mut stream, &frame(DATA, 0, id, &[]).repeat(200), Duration::ZERO).await;
        }),
    ]
}

/// Frames that must not come.
fn frames() -> Vec<Habit> {
    let malformed = &[Refused("upstream_protocol")];
    let first = 1_u32.to_be_bytes();
    vec![
        writes("bytes of no meaning", malformed, vec![0xff; 300]),
        writes("text in the middle", malformed, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".repeat(100)),
        says("data before the head", malformed, vec![data(0, b"poison")]),
        writes("a head that cannot be decoded", malformed, frame(HEADERS, END_HEADERS, 1, &[0xff; 8])),
        writes("a response on stream 0", malformed, frame(HEADERS, END_HEADERS, 0, OK)),
        writes("a response to a request that was not made", malformed, frame(HEADERS, END_HEADERS, 9999, OK)),
        writes("a request", malformed, frame(HEADERS, END_HEADERS, 2, OK)),
        writes("a push", malformed, frame(PUSH_PROMISE, END_HEADERS, 1, &[&2_u32.to_be_bytes(), OK].concat())),
        writes("a CONTINUATION of nothing", malformed, frame(CONTINUATION, END_HEADERS, 1, OK)),
        writes("a PING of seven bytes", malformed, frame(PING, 0, 0, &[0; 7])),
        writes("a window of nothing", malformed, frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        writes("a window that overflows", malformed, frame(WINDOW_UPDATE, 0, 0, &(i32::MAX as u32).to_be_bytes())),
        writes("a reset of stream 0", malformed, frame(RST_STREAM, 0, 0, &first)),
        writes("settings of five bytes", malformed, frame(SETTINGS, 0, 0, &[0; 5])),
    ]
}

fn heads() -> Vec<Habit> {
    let malformed = &[Refused("upstream_protocol")];
    let head = |fields: &[(&str, &str)]| vec![(HEADERS, END_HEADERS | END_STREAM, block(fields))];
    vec![
        says("no status", malformed, head(&[("server", "x")])),
        says("two statuses", malformed, head(&[(":status", "200"), (":status", "404")])),
        says("a status of two digits", malformed, head(&[(":status", "20")])),
        says("101", malformed, head(&[(":status", "101")])),
        says("capitals", malformed, head(&[(":status", "200"), ("Server", "x")])),
        says("a field of the connection", malformed, head(&[(":status", "200"), ("connection", "close")])),
        says("a line's end in a field", malformed, head(&[(":status", "200"), ("x", "a\r\nb: c")])),
        says("an interim response that ends the stream", malformed, head(&[(":status", "103")])),
    ]
}

fn bodies() -> Vec<Habit> {
    // What arrives together with the head can be seen before the head is passed on.
    let malformed = &[BrokenOff, Refused("upstream_protocol")];
    let whole = [frame(HEADERS, END_HEADERS, 1, OK), frame(DATA, 0, 1, b"abc")].concat();
    vec![
        says("less than its length", malformed, vec![begins_with("9"), data(END_STREAM, b"abc")]),
        says("more than its length", malformed, vec![begins_with("2"), data(END_STREAM, b"okpoison")]),
        says(
            "a stream that is reset",
            &[BrokenOff],
            vec![begins(), data(0, b"abc"), { (RST_STREAM, 0, INTERNAL_ERROR.to_vec()) }],
        ),
        says(
            "a stream that is reset without an error",
            &[BrokenOff],
            vec![begins(), data(0, b"abc"), { (RST_STREAM, 0, NO_ERROR.to_vec()) }],
        ),
        says("a body that stands still", &[BrokenOff], vec![begins_with("9"), data(0, b"abc")]),
        says("a head and nothing more", &[BrokenOff], vec![begins()]),
        says(
            "trailers that do not end",
            malformed,
            vec![begins(), data(0, b"abc"), { (HEADERS, END_HEADERS, block(&[("x-sum", "7")])) }],
        ),
        says("padding that is longer than its frame", malformed, vec![begins(), (DATA, 8, vec![200, 1, 2])]),
        once("the end within a body", &[BrokenOff, Refused("upstream_reset")], {
            let whole = whole.clone();
            move |mut stream, _, over| {
                let whole = whole.clone();
                async move {
                    let _ = stream.write_all(&whole).await;
                    let _ = stream.shutdown().await;
                    over.hold(stream).await;
                }
            }
        }),
        once("the end within a frame", &[BrokenOff, Refused("upstream_reset")], {
            let cut = whole[..whole.len() - 1].to_vec();
            move |mut stream, _, over| {
                let cut = cut.clone();
                async move {
                    let _ = stream.write_all(&cut).await;
                    let _ = stream.shutdown().await;
                    over.hold(stream).await;
                }
            }
        }),
        once("a reset within a body", &[BrokenOff, Refused("upstream_reset")], move |mut stream, _, _| {
            let whole = whole.clone();
            async move {
                let _ = stream.write_all(&whole).await;
                reset(stream);
            }
        }),
        once("a body that drips", &[BrokenOff, Refused("request_timeout")], |mut stream, id, _| async move {
            let _ = stream.write_all(&frame(HEADERS, END_HEADERS, id, OK)).await;
            without_end(&mut stream, &frame(DATA, 0, id, b"x"), DRIP).await;
        }),
    ]
}

/// Endpoints that do not wait for the end of the request.
fn early_answers() -> Vec<Habit> {
    let answer = || vec![begins(), data(END_STREAM, b"ok")];
    let stop = (RST_STREAM, 0, NO_ERROR.to_vec());
    vec![
        says("answers within the upload", &[Whole("ok")], answer()).with(Upload::Slow),
        says("answers within the upload and wants no more", &[Whole("ok")], [answer(), vec![stop.clone()]].concat())
            .with(Upload::Slow),
        says("answers within a large upload and reads on", &[Whole("ok")], answer()).with(Upload::Large),
        says("answers within a large upload and wants no more", &[Whole("ok")], [answer(), vec![stop]].concat())
            .with(Upload::Large),
        writes("makes no room for a large upload", &[Refused("request_timeout")], Vec::new()).with(Upload::Large),
        says("resets a large upload", &[Refused("upstream_reset")], vec![(RST_STREAM, 0, INTERNAL_ERROR.to_vec())])
            .with(Upload::Large),
    ]
}
