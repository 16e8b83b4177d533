//! What a peer must not send, and what it is told (RFC 9113, by section).

use crate::{
    Config, Error, Initiator, Next, PREFACE, Reason, Session,
    frame::{FrameHead, HEAD, flag, head, kind},
    hpack::Encoder,
};

use super::CONFIG;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&head(payload.len(), kind, flags, stream)[..], payload].concat()
}

/// A header block of literal fields.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        // A literal without indexing, with a new name (RFC 7541 section 6.2.2).
        out.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "a short text");
            out.push(text.len() as u8);
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

pub(super) const GET: &[(&str, &str)] = &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
pub(super) const POST: &[(&str, &str)] =
    &[(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
pub(super) const ENDS: u8 = flag::END_STREAM | flag::END_HEADERS;

pub(super) fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(kind::HEADERS, flags, stream, &block(fields))
}

/// The frames that a session wrote.
pub(super) fn written(session: &Session) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut bytes = Vec::new();
    let _ = session.write_with(|slices| {
        slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        std::task::Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    });
    let (mut rest, mut frames) = (&bytes[..], Vec::new());
    while let Some((bytes, after)) = rest.split_first_chunk::<HEAD>() {
        let frame = FrameHead::read(bytes);
        frames.push((frame.kind, frame.flags, frame.stream, after[..frame.length].to_vec()));
        rest = &after[frame.length..];
    }
    frames
}

/// A server that has greeted its client.
pub(super) fn server(config: Config) -> Session {
    let session = Session::server(config);
    session.receive(PREFACE);
    session.receive(&frame(kind::SETTINGS, 0, 0, &[]));
    written(&session);
    session
}

/// What a session says to the bytes of its peer: a reset of a stream, or the end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Nothing,
    Reset(u32, u32),
    Goaway(u32),
}

pub(super) fn said(session: &Session) -> Said {
    let mut said = Said::Nothing;
    for (kind, _, stream, payload) in written(session) {
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("a code"));
        match kind {
            kind::RST_STREAM if said == Said::Nothing => said = Said::Reset(stream, code(0)),
            kind::GOAWAY => said = Said::Goaway(code(4)),
            _ => {}
        }
    }
    said
}

#[test]
fn what_a_server_says_to_a_wrong_client() {
    const PROTOCOL: u32 = 1;
    const FLOW: u32 = 3;
    const CLOSED: u32 = 5;
    const SIZE: u32 = 6;
    const COMPRESSION: u32 = 9;
    let with = |more: &[(&'static str, &'static str)]| [GET, more].concat();
    let post = || headers(1, flag::END_HEADERS, POST);
    let cases: Vec<(&str, Vec<Vec<u8>>, Said)> = vec![
        ("a request", vec![headers(1, ENDS, GET)], Said::Nothing),
        ("4.1: an unknown kind", vec![frame(99, 0xff, 0, b"?")], Said::Nothing),
        ("4.3: a block that cannot be decoded", vec![frame(1, ENDS, 1, &[0xff; 9])], Said::Goaway(COMPRESSION)),
        ("5.1: DATA on an idle stream", vec![frame(0, 0, 1, b"x")], Said::Goaway(PROTOCOL)),
        ("5.1: RST_STREAM on an idle stream", vec![frame(3, 0, 1, &[0; 4])], Said::Goaway(PROTOCOL)),
        ("5.1: WINDOW_UPDATE on an idle stream", vec![frame(8, 0, 1, &[0, 0, 0, 1])], Said::Goaway(PROTOCOL)),
        ("5.1: CONTINUATION on its own", vec![frame(9, 4, 1, b"")], Said::Goaway(PROTOCOL)),
        ("5.1: DATA after the end", vec![headers(1, ENDS, GET), frame(0, 0, 1, b"x")], Said::Reset(1, CLOSED)),
        ("5.1: HEADERS after the end", vec![headers(1, ENDS, GET), headers(1, ENDS, GET)], Said::Reset(1, CLOSED)),
        ("5.1.1: an even stream", vec![headers(2, ENDS, GET)], Said::Goaway(PROTOCOL)),
        ("5.1.1: a lower stream", vec![headers(5, ENDS, GET), headers(3, ENDS, GET)], Said::Goaway(CLOSED)),
        ("5.3.1: a stream that depends on itself", vec![frame(2, 0, 1, &[0, 0, 0, 1, 9])], Said::Reset(1, PROTOCOL)),
        ("6.1: DATA without a stream", vec![frame(0, 0, 0, b"x")], Said::Goaway(PROTOCOL)),
        ("6.1: too much padding", vec![post(), frame(0, flag::PADDED, 1, b"\x09x")], Said::Goaway(PROTOCOL)),
        ("6.2: HEADERS without a stream", vec![headers(0, ENDS, GET)], Said::Goaway(PROTOCOL)),
        ("6.2: too much padding", vec![frame(1, ENDS | flag::PADDED, 1, b"\x09x")], Said::Goaway(PROTOCOL)),
        ("6.2: a frame within a block", vec![headers(1, 0, GET), frame(6, 0, 0, &[0; 8])], Said::Goaway(PROTOCOL)),
        ("6.2: another stream within", vec![headers(1, 0, GET), frame(9, 4, 3, b"")], Said::Goaway(PROTOCOL)),
        ("6.3: PRIORITY without a stream", vec![frame(2, 0, 0, &[0; 5])], Said::Goaway(PROTOCOL)),
        ("6.3: PRIORITY of another length", vec![frame(2, 0, 1, &[0; 4])], Said::Reset(1, SIZE)),
        ("6.4: RST_STREAM without a stream", vec![frame(3, 0, 0, &[0; 4])], Said::Goaway(PROTOCOL)),
        ("6.4: RST_STREAM of another length", vec![post(), frame(3, 0, 1, &[0; 3])], Said::Goaway(SIZE)),
        ("6.5: SETTINGS of a stream", vec![frame(4, 0, 1, &[])], Said::Goaway(PROTOCOL)),
        ("6.5: an ACK with a payload", vec![frame(4, 1, 0, &[0; 6])], Said::Goaway(SIZE)),
        ("6.5: SETTINGS of another length", vec![frame(4, 0, 0, &[0; 3])], Said::Goaway(SIZE)),
        ("6.6: PUSH_PROMISE", vec![post(), frame(5, 4, 1, &[0; 4])], Said::Goaway(PROTOCOL)),
        ("6.7: PING of a stream", vec![frame(6, 0, 1, &[0; 8])], Said::Goaway(PROTOCOL)),
        ("6.7: PING of another length", vec![frame(6, 0, 0, &[0; 6])], Said::Goaway(SIZE)),
        ("6.8: GOAWAY of a stream", vec![frame(7, 0, 1, &[0; 8])], Said::Goaway(PROTOCOL)),
        ("6.9: no increment", vec![frame(8, 0, 0, &[0; 4])], Said::Goaway(PROTOCOL)),
        ("6.9: no increment for a stream", vec![post(), frame(8, 0, 1, &[0; 4])], Said::Reset(1, PROTOCOL)),
        ("6.9: WINDOW_UPDATE of another length", vec![frame(8, 0, 0, &[0; 3])], Said::Goaway(SIZE)),
        ("6.9.1: too large a window", vec![frame(8, 0, 0, &[0x7f, 255, 255, 255])], Said::Goaway(FLOW)),
        (
            "6.9.1: too large a window of a stream",
            vec![post(), frame(8, 0, 1, &[0x7f, 255, 255, 255])],
            Said::Reset(1, FLOW),
        ),
        ("8.1: a second head", vec![post(), headers(1, flag::END_HEADERS, GET)], Said::Reset(1, PROTOCOL)),
        ("8.1: pseudo-fields in trailers", vec![post(), headers(1, ENDS, &[(":path", "/")])], Said::Reset(1, PROTOCOL)),
        ("8.2: upper case", vec![headers(1, ENDS, &with(&[("Accept", "x")]))], Said::Reset(1, PROTOCOL)),
        ("8.2.2: Connection", vec![headers(1, ENDS, &with(&[("connection", "close")]))], Said::Reset(1, PROTOCOL)),
        ("8.2.2: TE", vec![headers(1, ENDS, &with(&[("te", "gzip")]))], Said::Reset(1, PROTOCOL)),
        ("8.2.2: TE of trailers", vec![headers(1, ENDS, &with(&[("te", "trailers")]))], Said::Nothing),
        ("8.3: an unknown pseudo-field", vec![headers(1, ENDS, &with(&[(":x", "y")]))], Said::Reset(1, PROTOCOL)),
        (
            "8.3: a pseudo-field of responses",
            vec![headers(1, ENDS, &with(&[(":status", "200")]))],
            Said::Reset(1, PROTOCOL),
        ),
        (
            "8.3: a pseudo-field after others",
            vec![headers(1, ENDS, &[GET, &[("a", "b"), (":protocol", "x")]].concat())],
            Said::Reset(1, PROTOCOL),
        ),
        ("8.3.1: a pseudo-field twice", vec![headers(1, ENDS, &with(&[(":path", "/")]))], Said::Reset(1, PROTOCOL)),
        ("8.3.1: no method", vec![headers(1, ENDS, &GET[1..])], Said::Reset(1, PROTOCOL)),
        ("8.3.1: no path", vec![headers(1, ENDS, &GET[..2])], Said::Reset(1, PROTOCOL)),
        ("8.3.1: an empty path", vec![headers(1, ENDS, &[GET[0], GET[1], (":path", "")])], Said::Reset(1, PROTOCOL)),
        (
            "8.5: CONNECT with a path",
            vec![headers(1, ENDS, &[&[(":method", "CONNECT")], &GET[1..]].concat())],
            Said::Reset(1, PROTOCOL),
        ),
        (
            "8.1.1: a length and no body",
            vec![headers(1, ENDS, &with(&[("content-length", "1")]))],
            Said::Reset(1, PROTOCOL),
        ),
        (
            "8.1.1: two lengths",
            vec![headers(1, flag::END_HEADERS, &with(&[("content-length", "1"), ("content-length", "2")]))],
            Said::Reset(1, PROTOCOL),
        ),
        (
            "8.1.1: more than the length",
            vec![headers(1, flag::END_HEADERS, &with(&[("content-length", "1")])), frame(0, 0, 1, b"xy")],
            Said::Reset(1, PROTOCOL),
        ),
        (
            "8.1.1: less than the length",
            vec![headers(1, flag::END_HEADERS, &with(&[("content-length", "3")])), frame(0, 1, 1, b"xy")],
            Said::Reset(1, PROTOCOL),
        ),
    ];
    for (case, frames, want) in cases {
        let session = server(CONFIG);
        for frame in &frames {
            session.receive(frame);
            while session.accept().is_some_and(|(_, recv, send)| {
                // Held until the end of the case.
                std::mem::forget((recv, send));
                true
            }) {}
        }
        let ends = matches!(want, Said::Goaway(_));
        assert_eq!(said(&session), want, "{case}");
        assert_eq!(session.next() != Next::GoOn, ends, "{case}");
    }
}

#[test]
fn the_first_frame_is_settings() {
    let session = Session::server(CONFIG);
    session.receive(PREFACE);
    session.receive(&headers(1, ENDS, GET));
    assert_eq!(said(&session), Said::Goaway(1));
}

#[test]
fn another_protocol_is_not_waited_for() {
    let session = Session::server(CONFIG);
    session.receive(b"GET");
    assert_eq!(session.next(), Next::Close(Err(Error::GoAway(Reason::PROTOCOL_ERROR, Initiator::Protocol))));
}

/// More than the windows allow.
#[test]
fn windows_hold() {
    for (case, config, want) in [
        ("of the stream", Config { stream_window: 100, ..CONFIG }, Said::Reset(1, 3)),
        ("of the connection", Config { stream_window: 1 << 20, connection_window: 65_535, ..CONFIG }, Said::Goaway(3)),
    ] {
        let session = server(config);
        session.receive(&headers(1, flag::END_HEADERS, POST));
        let _held = session.accept().expect("a request");
        for _ in 0..5 {
            session.receive(&frame(kind::DATA, 0, 1, &[0; 16 * 1024]));
        }
        assert_eq!(said(&session), want, "{case}");
    }
}

/// What nobody reads any more is let through, so that it takes nothing from others.
#[test]
fn data_that_nobody_reads_is_dropped() {
    let session = server(Config { connection_window: 65_535, ..CONFIG });
    session.receive(&headers(1, flag::END_HEADERS, POST));
    let (_, recv, send) = session.accept().expect("a request");
    drop(recv);
    for _ in 0..3 {
        session.receive(&frame(kind::DATA, 0, 1, &[0; 16 * 1024]));
    }
    assert!(written(&session).iter().any(|(kind, _, stream, _)| (*kind, *stream) == (kind::WINDOW_UPDATE, 0)));
    drop(send);
    assert_eq!(said(&session), Said::Reset(1, 8));
    for _ in 0..9 {
        session.receive(&frame(kind::DATA, 0, 1, &[0; 16 * 1024]));
    }
    assert_ne!(said(&session), Said::Goaway(3), "what comes before the client knows is no error");
    assert_eq!(session.next(), Next::GoOn);
}

/// Floods that cost their sender nothing end the connection, or are bounded.
#[test]
fn floods_are_bounded() {
    let resets = |count: u32| -> Vec<u8> {
        let one = |stream| [headers(stream, ENDS, GET), frame(kind::RST_STREAM, 0, stream, &[0; 4])].concat();
        (0..count).flat_map(|number| one(2 * number + 1)).collect()
    };
    let cases: [(&str, Vec<u8>, Said); 4] = [
        ("resets of what nobody has seen", resets(32), Said::Nothing),
        ("more of them", resets(33), Said::Goaway(11)),
        (
            "a block without end",
            [headers(1, 0, GET), (0..100).flat_map(|_| frame(kind::CONTINUATION, 0, 1, &[])).collect()].concat(),
            Said::Goaway(11),
        ),
        (
            "a large block",
            [headers(1, 0, GET), (0..3).flat_map(|_| frame(kind::CONTINUATION, 0, 1, &[0x82; 16 * 1024])).collect()]
                .concat(),
            Said::Goaway(11),
        ),
    ];
    for (case, bytes, want) in cases {
        let session = server(CONFIG);
        session.receive(&bytes);
        assert_eq!(said(&session), want, "{case}");
    }
    let session = server(CONFIG);
    for stream in (1..4_000).step_by(2) {
        // Each is an error of its stream alone.
        session.receive(&headers(stream, ENDS, &GET[1..]));
    }
    assert_eq!(said(&session), Said::Goaway(11), "streams that end by errors");
}

/// Too large a head is answered, and what follows is decoded all the same.
#[test]
fn a_large_head_is_answered() {
    let session = server(Config { head: 300, ..CONFIG });
    let long = "x".repeat(120);
    let large = [GET, &[("a", &long[..]), ("b", &long[..])]].concat();
    session.receive(&headers(1, ENDS, &large));
    let answer = written(&session);
    let (kind, flags, stream, _) = &answer[0];
    assert_eq!((*kind, *flags, *stream), (kind::HEADERS, ENDS, 1));
    assert!(session.accept().is_none());
    session.receive(&headers(3, ENDS, GET));
    assert!(session.accept().is_some());
}

/// What a client says to a server that is wrong, and what its request ends with.
#[test]
fn what_a_client_says_to_a_wrong_server() {
    let ok: &[(&str, &str)] = &[(":status", "200")];
    let reset = |reason| Error::Reset(reason, Initiator::Protocol);
    let goaway = |reason| Error::GoAway(reason, Initiator::Protocol);
    let peer = Initiator::Peer;
    let cases: Vec<(&str, Vec<u8>, Result<u16, Error>)> = vec![
        ("a response", headers(1, ENDS, ok), Ok(200)),
        ("after interim ones", [headers(1, 4, &[(":status", "103")]), headers(1, ENDS, ok)].concat(), Ok(200)),
        ("101", headers(1, 4, &[(":status", "101")]), Err(reset(Reason::PROTOCOL_ERROR))),
        ("an interim one that ends", headers(1, ENDS, &[(":status", "103")]), Err(reset(Reason::PROTOCOL_ERROR))),
        ("DATA first", frame(kind::DATA, 0, 1, b"x"), Err(reset(Reason::PROTOCOL_ERROR))),
        ("no status", headers(1, ENDS, &[("a", "b")]), Err(reset(Reason::PROTOCOL_ERROR))),
        ("a path", headers(1, ENDS, &[(":status", "200"), (":path", "/")]), Err(reset(Reason::PROTOCOL_ERROR))),
        ("a stream of its own", headers(2, ENDS, ok), Err(goaway(Reason::PROTOCOL_ERROR))),
        ("a stream that was not opened", headers(3, ENDS, ok), Err(goaway(Reason::PROTOCOL_ERROR))),
        ("a push", frame(kind::PUSH_PROMISE, 4, 1, &[0; 4]), Err(goaway(Reason::PROTOCOL_ERROR))),
        ("refused", frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 7]), Err(Error::Reset(Reason::REFUSED_STREAM, peer))),
        ("gone before", frame(kind::GOAWAY, 0, 0, &[0; 8]), Err(Error::GoAway(Reason::NO_ERROR, peer))),
    ];
    for (case, bytes, want) in cases {
        let (session, sender) = Session::client(CONFIG);
        session.receive(&frame(kind::SETTINGS, 0, 0, &[]));
        let head = http::Request::get("http://a/").body(()).expect("a request").into_parts().0;
        let (mut recv, _) = sender.request(&head, &[], true).expect("a stream");
        session.receive(&bytes);
        let cx = std::task::Context::from_waker(std::task::Waker::noop());
        let std::task::Poll::Ready(answer) = recv.poll_response(&cx) else { panic!("{case}: no answer") };
        assert_eq!(answer.map(|head| head.status.as_u16()), want, "{case}");
    }
}

/// A response that is reset after all of it has come is complete (RFC 9113 section 8.1).
#[test]
fn a_reset_after_the_response_takes_nothing_away() {
    let (session, sender) = Session::client(CONFIG);
    session.receive(&frame(kind::SETTINGS, 0, 0, &[]));
    let head = http::Request::post("http://a/").body(()).expect("a request").into_parts().0;
    let (mut recv, send) = sender.request(&head, &[], false).expect("a stream");
    session.receive(&headers(1, flag::END_HEADERS, &[(":status", "413")]));
    session.receive(&frame(kind::DATA, flag::END_STREAM, 1, b"too much"));
    session.receive(&frame(kind::RST_STREAM, 0, 1, &[0; 4]));
    let cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(matches!(recv.poll_response(&cx), std::task::Poll::Ready(Ok(head)) if head.status == 413));
    assert!(matches!(recv.poll_data(&cx), std::task::Poll::Ready(Some(Ok(data))) if data == "too much"));
    assert!(matches!(recv.poll_data(&cx), std::task::Poll::Ready(None)));
    assert!(send.expect("a body").end().is_err(), "no more is taken");
}

/// Blocks are decoded with what earlier ones have left in the table, also those of streams that are refused.
#[test]
fn refused_streams_keep_the_table_right() {
    let session = server(Config { streams: 1, ..CONFIG });
    let mut encoder = Encoder::new();
    let mut request = |stream: u32| {
        let head =
            http::Request::get("http://a/").header("x-name", "value").body(()).expect("a request").into_parts().0;
        let mut out = vec![0; HEAD];
        crate::head::write_request(&mut encoder, &head, &[], &mut out);
        crate::frame::finish_block(&mut out, 0, stream, true);
        out
    };
    session.receive(&request(1));
    let held = session.accept().expect("a request");
    for stream in [3, 5, 7] {
        session.receive(&request(stream));
        assert_eq!(said(&session), Said::Reset(stream, 7));
    }
    drop(held);
    session.receive(&request(9));
    let (head, ..) = session.accept().expect("a request");
    assert_eq!(head.headers["x-name"], "value");
}

/// What follows an extended CONNECT is no body, whatever length its heads speak of.
#[test]
fn a_length_says_nothing_of_a_tunnel() {
    let zero = ("content-length", "0");
    let connect = [(":method", "CONNECT"), (":protocol", "websocket"), GET[1], GET[2], GET[3], zero];
    let session = server(CONFIG);
    session.receive(&headers(1, flag::END_HEADERS, &connect));
    let _held = session.accept().expect("a request");
    session.receive(&frame(kind::DATA, 0, 1, b"hello"));
    assert_eq!(said(&session), Said::Nothing);

    let (session, sender) = Session::client(CONFIG);
    session.receive(&frame(kind::SETTINGS, 0, 0, &[0, 8, 0, 0, 0, 1]));
    assert!(sender.allows_extended_connect());
    let mut head = http::Request::connect("http://a/").body(()).expect("a request").into_parts().0;
    head.extensions.insert(crate::Protocol::new(&b"websocket"[..]));
    let (mut recv, _send) = sender.request(&head, &[], false).expect("a stream");
    session.receive(&headers(1, flag::END_HEADERS, &[(":status", "200"), zero]));
    session.receive(&frame(kind::DATA, 0, 1, b"hello"));
    let cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(matches!(recv.poll_response(&cx), std::task::Poll::Ready(Ok(head)) if head.status == 200));
    assert!(matches!(recv.poll_data(&cx), std::task::Poll::Ready(Some(Ok(data))) if data == "hello"));
}
