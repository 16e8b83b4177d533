//! Endpoints of HTTP/1.1 that fail.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    End::{BrokenOff, Refused, Whole},
    Habit, Over, Upload,
};

/// Pause between two bytes of what drips.
const DRIP: Duration = Duration::from_millis(50);

/// Bytes that are written at once of what has no end.
const AT_ONCE: usize = 8 * 1024;

pub(super) fn habits() -> Vec<Habit> {
    [connections(), heads(), interim_responses(), bodies(), early_answers()].into_iter().flatten().collect()
}

/// Reads the head of a request; false at the end of the connection.
async fn asked(stream: &mut TcpStream) -> bool {
    let mut heard = Vec::new();
    while !heard.windows(4).any(|four| four == b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut heard).await, Ok(1..)) {
            return false;
        }
    }
    true
}

/// Ends a connection with a reset.
pub(super) fn reset(stream: TcpStream) {
    // It fails only where the connection is gone.
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// Writes the same again and again until the connection is gone.
pub(super) async fn without_end(stream: &mut TcpStream, what: &[u8], pause: Duration) {
    while stream.write_all(what).await.is_ok() {
        if pause.is_zero() {
            tokio::task::yield_now().await;
        } else {
            // Not to wait for something: this is how slow it is.
            tokio::time::sleep(pause).await;
        }
    }
}

/// Says this to each request and then does nothing more; `ends` its side, or lets the other one end the connection.
fn says(case: &'static str, want: &'static [super::End], answer: &'static [u8], ends: bool) -> Habit {
    Habit::new(case, want, move |mut stream, over| async move {
        if asked(&mut stream).await && stream.write_all(answer).await.is_ok() {
            if ends {
                let _ = stream.shutdown().await;
            }
            over.hold(stream).await;
        }
    })
}

/// Says this to each request and then resets the connection.
fn says_and_resets(case: &'static str, want: &'static [super::End], answer: &'static [u8]) -> Habit {
    Habit::new(case, want, move |mut stream, _| async move {
        if asked(&mut stream).await && stream.write_all(answer).await.is_ok() {
            reset(stream);
        }
    })
}

/// Says this to each request, and then the other thing for ever: a little now and then, or without a pause.
fn goes_on(
    case: &'static str,
    want: &'static [super::End],
    (answer, then, pause): (&'static [u8], &'static [u8], Duration),
) -> Habit {
    let then = then.repeat(if pause.is_zero() { AT_ONCE.div_ceil(then.len()) } else { 1 });
    Habit::new(case, want, move |mut stream, _| {
        let then = then.clone();
        async move {
            if asked(&mut stream).await && stream.write_all(answer).await.is_ok() {
                without_end(&mut stream, &then, pause).await;
            }
        }
    })
}

fn connections() -> Vec<Habit> {
    let silent = &[Refused("request_timeout")];
    let gone = &[Refused("upstream_reset")];
    vec![
        Habit::new("takes the connection and reads nothing", silent, |stream, over: Over| over.hold(stream)),
        says("reads the request and says nothing", silent, b"", false),
        Habit::new("closes at once", gone, |stream, _| async move { drop(stream) }),
        // The reset can come before the proxy knows that it is connected.
        Habit::new("resets at once", &[Refused("upstream_reset"), Refused("connect_failed")], |stream, _| async move {
            reset(stream);
        }),
        Habit::new("ends its side at once", gone, |mut stream, over| async move {
            let _ = stream.shutdown().await;
            over.hold(stream).await;
        }),
        says("ends its side after the request", gone, b"", true),
        says_and_resets("resets after the request", gone, b""),
    ]
}

fn heads() -> Vec<Habit> {
    let silent = &[Refused("request_timeout")];
    let gone = &[Refused("upstream_reset")];
    let malformed = &[Refused("upstream_protocol")];
    vec![
        says("half of a status line", silent, b"HTTP/1.1 20", false),
        says("half of a status line, and the end", gone, b"HTTP/1.1 20", true),
        says_and_resets("half of a status line, and a reset", gone, b"HTTP/1.1 20"),
        says("half of a field, and the end", gone, b"HTTP/1.1 200 OK\r\nServ", true),
        says("fields, and the end", gone, b"HTTP/1.1 200 OK\r\nServer: x\r\n", true),
        goes_on("a head that drips", silent, (b"HTTP/1.1 200 OK\r\nX: ", b"x", DRIP)),
        goes_on("a head without end", malformed, (b"HTTP/1.1 200 OK\r\n", &[b'x'; 4096], Duration::ZERO)),
        goes_on("fields without end", malformed, (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", Duration::ZERO)),
        goes_on("empty lines without end", malformed, (b"", b"\r\n\r\n\r\n\r\n", Duration::ZERO)),
        says("another protocol", malformed, b"SSH-2.0-OpenSSH_9.2\r\n", false),
        says("a request", malformed, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", false),
        says("an alert of TLS", malformed, &[21, 3, 3, 0, 2, 2, 40], false),
        says("frames of HTTP/2", malformed, &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0], false),
        says("bytes of no meaning", malformed, &[0xff; 300], false),
        says("a status of two digits", malformed, b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", false),
        says("a NUL in a field", malformed, b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n", false),
    ]
}

fn interim_responses() -> Vec<Habit> {
    const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    vec![
        // Their number is bounded.
        goes_on("interim responses without end", &[Refused("upstream_protocol")], (b"", HINTS, Duration::ZERO)),
        goes_on(
            "interim responses now and then",
            &[Refused("upstream_protocol")],
            (b"", HINTS, Duration::from_millis(5)),
        ),
        says("an interim response and nothing more", &[Refused("request_timeout")], HINTS, false),
        says("an interim response and the end", &[Refused("upstream_reset")], HINTS, true),
        says(
            "an interim response and another protocol",
            &[Refused("upstream_protocol")],
            b"HTTP/1.1 100 \r\n\r\nSSH-2.0\r\n",
            false,
        ),
    ]
}

fn bodies() -> Vec<Habit> {
    const CHUNK: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    // A reset throws away what the proxy has not read yet.
    let lost = &[BrokenOff, Refused("upstream_reset")];
    // What arrives together with the head is looked at before the head is passed on.
    let malformed = &[BrokenOff, Refused("upstream_protocol")];
    vec![
        says("less than its length", &[BrokenOff], b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", true),
        says_and_resets("less than its length, and a reset", lost, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
        says("a body that stands still", &[BrokenOff], b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", false),
        says("a head with a length and nothing more", &[BrokenOff], b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", false),
        goes_on("a body that drips", &[BrokenOff], (CHUNK, b"1\r\nx\r\n", DRIP)),
        goes_on("a body without a length that drips", &[BrokenOff], (b"HTTP/1.1 200 OK\r\n\r\n", b"x", DRIP)),
        goes_on("the size of a chunk without end", malformed, (CHUNK, b"0", Duration::ZERO)),
        goes_on("an extension without end", malformed, (CHUNK, b"1;xxxxxxxxxxxxxxxxxxxxxxxx", Duration::ZERO)),
        goes_on("trailers that drip", &[BrokenOff], (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: ", b"x", DRIP)),
        says("the end within a chunk", &[BrokenOff], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc", true),
        says("the end within a size", &[BrokenOff], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1", true),
        says("the end before the last chunk", &[BrokenOff], CHUNK, true),
        says("the end within the last line", &[BrokenOff], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r", true),
        says_and_resets("a reset within a chunk", lost, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc"),
        says(
            "more than its length",
            &[Whole("ok")],
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
            false,
        ),
        says(
            "more than its chunks",
            &[Whole("ok")],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
            false,
        ),
    ]
}

/// Endpoints that do not wait for the end of the request.
fn early_answers() -> Vec<Habit> {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let answered = &[Whole("ok")];
    vec![
        says("answers within the upload", answered, OK, false).with(Upload::Slow),
        says("answers within the upload and ends its side", answered, OK, true).with(Upload::Slow),
        says_and_resets("answers within the upload and resets", &[Whole("ok"), Refused("upstream_reset")], OK)
            .with(Upload::Slow),
        Habit::new("answers before it has read anything", answered, |mut stream, over| async move {
            let _ = stream.write_all(OK).await;
            over.hold(stream).await;
        })
        .with(Upload::Slow),
        says("takes a part of a large upload and says nothing", &[Refused("request_timeout")], b"", false)
            .with(Upload::Large),
        says("takes a part of a large upload and ends its side", &[Refused("upstream_reset")], b"", true)
            .with(Upload::Large),
        says_and_resets("takes a part of a large upload and resets", &[Refused("upstream_reset")], b"")
            .with(Upload::Large),
        says("answers within a large upload and reads no more", answered, OK, false).with(Upload::Large),
    ]
}
