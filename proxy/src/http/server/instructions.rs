//! Following a caller's requests in the bytes of its connection, for [`crate::instructions`].

use std::hint::black_box;

use super::h1::RequestTracker;
use crate::instructions::{Part, Step};

/// The parts.
pub(crate) const PARTS: &[Part] = &[
    Part { name: "HTTP/1.1: follow a request's head", prepare: || following(GET) },
    Part { name: "HTTP/1.1: follow a chunked request", prepare: || following(CHUNKED) },
];

const GET: &[u8] = b"GET /api/items/16?page=2 HTTP/1.1\r\nhost: web-16.shop.maesh\r\n\
    user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    accept: application/json, text/plain, */*\r\naccept-encoding: gzip, deflate, br, zstd\r\n\
    cookie: session=0123456789abcdef; theme=dark\r\n\
    traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nconnection: keep-alive\r\n\r\n";

const CHUNKED: &[u8] = b"POST /api/items HTTP/1.1\r\nhost: web-16.shop.maesh\r\ntransfer-encoding: chunked\r\n\r\n\
    10\r\n0123456789abcdef\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";

/// A whole request, with nothing left open behind it.
fn following(request: &'static [u8]) -> Step {
    let mut tracker = RequestTracker::new();
    Box::new(move |counted| {
        counted(&mut || assert_eq!(tracker.pass(black_box(request)), request.len()));
        assert!(!tracker.is_refused() && tracker.unfinished() == 0);
    })
}
