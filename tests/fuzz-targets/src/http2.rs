//! Bytes of a peer of HTTP/2, which come in pieces: nothing panics, nothing grows without bound, and what the program does
//! meanwhile with its streams changes nothing of that.
//!
//! The first byte says which side we are, and how large the pieces are.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use maesh_http2::{Config, Next, PREFACE, RecvStream, SendStream, Session};

const CONFIG: Config = Config { stream_window: 1_000, connection_window: 65_535, streams: 8, head: 4_096 };

/// Bytes that may wait for a peer that does not read: what may be said by frames that cost nothing is bounded by whoever
/// counts them.
const MOST: usize = 8 << 20;

pub(crate) fn run(bytes: &[u8]) {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let (is_server, piece) = (first & 1 == 0, usize::from(first >> 1) + 1);
    let mut held: Vec<(Option<RecvStream>, Option<SendStream>)> = Vec::new();
    let (session, sender) = if is_server {
        let session = Session::server(CONFIG);
        session.receive(PREFACE);
        (session, None)
    } else {
        let (session, sender) = Session::client(CONFIG);
        (session, Some(sender))
    };
    for (number, piece) in bytes.chunks(piece).enumerate() {
        session.receive(piece);
        while let Some((_, recv, send)) = session.accept() {
            held.push((recv, Some(send)));
        }
        if let Some(sender) = &sender {
            let head = Request::post("http://a/b").body(()).expect("a request").into_parts().0;
            if let Ok((recv, send)) = sender.request(&head, &[], number % 3 == 0) {
                held.push((Some(recv), send));
            }
        }
        for (at, (recv, send)) in held.iter_mut().enumerate() {
            act(number + at, recv, send);
        }
        held.retain(|(recv, send)| recv.is_some() || send.is_some());
        // Some of it is written.
        let _ = session.write_with(|slices| match number % 2 {
            0 => Poll::Pending,
            _ => Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum())),
        });
        assert!(session.unwritten() < MOST);
        if session.next() != Next::GoOn {
            return;
        }
    }
}

/// Does one of the things that a program does with a stream.
fn act(number: usize, recv: &mut Option<RecvStream>, send: &mut Option<SendStream>) {
    let cx = Context::from_waker(Waker::noop());
    match number % 9 {
        0 => *recv = None,
        1 => *send = None,
        2 => {
            if let Some(send) = send {
                let _ = send.send_response(StatusCode::OK, &HeaderMap::new(), false);
            }
        }
        3 => {
            if let Some(send) = send {
                let _ = send.poll_send(&cx, &mut Bytes::from(vec![7; 3_000]), true);
            }
        }
        4 => {
            if let Some(send) = send {
                let _ = send.send_trailers(&HeaderMap::new());
            }
        }
        _ => {
            if let Some(recv) = recv {
                let _ = recv.poll_response(&cx);
                if let Poll::Ready(Some(Ok(data))) = recv.poll_data(&cx) {
                    assert!(data.len() <= 1_000, "no more than the window");
                    recv.release(data.len());
                }
                let _ = recv.poll_trailers(&cx);
            }
        }
    }
}
