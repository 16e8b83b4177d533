//! Frames are written whole, whatever else is to be said at the same moment.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::{
    CONFIG,
    refusals::{ENDS, GET, POST, frame, headers, server, written},
};
use crate::{
    Config,
    frame::{flag, kind},
};

/// The end of a response may be when a window is raised, for what has arrived on other streams.
#[test]
fn the_last_data_of_a_response_is_one_frame() {
    let session = server(Config { connection_window: 65_535, ..CONFIG });
    let cx = Context::from_waker(Waker::noop());
    session.receive(&headers(1, flag::END_HEADERS, POST));
    let (_, upload, _answer) = session.accept().expect("an upload");
    let mut upload = upload.expect("a body");
    session.receive(&frame(kind::DATA, 0, 1, &[0; 16_000]));
    upload.release(16_000);
    assert_eq!(written(&session), [], "that is not worth a frame yet");
    for length in [16_000, 8_000] {
        session.receive(&frame(kind::DATA, 0, 1, &vec![0; length]));
    }
    session.receive(&headers(3, ENDS, GET));
    let (.., mut send) = session.accept().expect("a request");
    send.send_response(StatusCode::OK, &HeaderMap::new(), false).expect("a stream");
    let mut body = Bytes::from_static(b"hello");
    assert!(matches!(send.poll_send(&cx, &mut body, true), Poll::Ready(Ok(5))));
    let frames = written(&session);
    let kinds: Vec<_> = frames.iter().map(|(kind, _, stream, _)| (*kind, *stream)).collect();
    assert_eq!(kinds, [(kind::HEADERS, 3), (kind::DATA, 3), (kind::WINDOW_UPDATE, 0)]);
    assert_eq!(frames[1].3, b"hello");
}
