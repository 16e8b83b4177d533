//! What comes on streams that are over, because its sender does not know yet: it harms no other stream.

use std::task::{Context, Poll, Waker};

use http::{HeaderMap, StatusCode};

use super::{
    CONFIG,
    refusals::{ENDS, GET, POST, Said, frame, headers, said, server, written},
};
use crate::{
    Config, Next, Session,
    frame::{flag, kind},
};

/// Streams that are over while their frames are still on the way: more than are open at once.
const STREAMS: u32 = 300;

/// The numbers of the streams of a client.
fn streams() -> impl Iterator<Item = u32> {
    (0..STREAMS).map(|number| 2 * number + 1)
}

/// Receives `frames` small frames of DATA on each stream, in turn.
fn receive_late(session: &Session, frames: u32) {
    for _ in 0..frames {
        for stream in streams() {
            session.receive(&frame(kind::DATA, 0, stream, &[0; 100]));
            assert_eq!(session.next(), Next::GoOn, "DATA on stream {stream}");
        }
    }
}

/// A server may answer before it has read the request. What its client still sends until it knows is no error.
#[test]
fn uploads_that_were_answered_early_end_no_other_request() {
    let session = server(CONFIG);
    for stream in streams() {
        session.receive(&headers(stream, flag::END_HEADERS, POST));
        let (_, recv, mut send) = session.accept().expect("a request");
        send.send_response(StatusCode::UNAUTHORIZED, &HeaderMap::new(), true).expect("a stream");
        drop((recv, send));
        assert_eq!(said(&session), Said::Reset(stream, 0));
    }
    receive_late(&session, 20);
    assert!(written(&session).iter().all(|(kind, ..)| *kind != kind::GOAWAY));
}

/// The same for responses that a client no longer wants: others share its connection.
#[test]
fn responses_that_were_given_up_end_no_other_request() {
    let (session, sender) = Session::client(Config { connection_window: 1 << 20, ..CONFIG });
    session.receive(&frame(kind::SETTINGS, 0, 0, &[]));
    // The preface is no frame.
    let _ = session.write_with(|slices| Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum())));
    for stream in streams() {
        let head = http::Request::get("http://a/").body(()).expect("a request").into_parts().0;
        let (mut recv, _) = sender.request(&head, &[], true).expect("a stream");
        session.receive(&headers(stream, flag::END_HEADERS, &[(":status", "200")]));
        assert!(matches!(recv.poll_response(&Context::from_waker(Waker::noop())), Poll::Ready(Ok(_))));
        drop(recv);
        assert_eq!(said(&session), Said::Reset(stream, 8));
    }
    receive_late(&session, 20);
    for stream in streams() {
        session.receive(&headers(stream, ENDS, &[("grpc-status", "0")]));
        assert_eq!(session.next(), Next::GoOn, "trailers on stream {stream}");
    }
}

/// A client that goes on with a stream which it has reset itself is told so, once, whether or not anybody still holds the stream.
#[test]
fn what_comes_on_a_stream_that_its_sender_has_reset_is_refused() {
    let session = server(CONFIG);
    for (stream, is_held) in [(1, true), (3, false)] {
        session.receive(&headers(stream, flag::END_HEADERS, POST));
        let held = session.accept().expect("a request");
        session.receive(&frame(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8]));
        if is_held {
            session.receive(&headers(stream, flag::END_HEADERS, POST));
            assert_eq!(said(&session), Said::Reset(stream, 5));
            session.receive(&headers(stream, flag::END_HEADERS, POST));
            assert_eq!(session.next(), Next::GoOn);
        } else {
            session.receive(&frame(kind::DATA, 0, stream, &[0; 100]));
            assert_eq!(said(&session), Said::Reset(stream, 5));
        }
        drop(held);
    }
}

/// Streams that a peer's errors ended are too many only beside those that ended well: a connection may last for years.
#[test]
fn rare_errors_do_not_add_up() {
    let session = server(CONFIG);
    for number in 0..3_000 {
        session.receive(&headers(4 * number + 1, ENDS, GET));
        let (.., mut send) = session.accept().expect("a request");
        send.send_response(StatusCode::OK, &HeaderMap::new(), true).expect("a stream");
        session.receive(&headers(4 * number + 3, ENDS, &GET[1..]));
        assert_eq!(said(&session), Said::Reset(4 * number + 3, 1), "after {number} errors");
    }
    assert_eq!(session.next(), Next::GoOn);
}
