//! Bytes of a caller of HTTP/1.1 to a running proxy: whatever is cut where, what an endpoint gets is what a reader of the same
//! bytes finds there, request by request, and nothing that another reader could take for one more.
//!
//! The first byte says how the rest is cut.

mod answers;
mod forwarded;
mod lab;
mod reader;

use self::{
    forwarded::judge,
    lab::LAB,
    reader::{CALLER, Request, read},
};
use crate::{cut::cut, http::server};

pub(crate) fn run(bytes: &[u8]) {
    let Some((&seed, stream)) = bytes.split_first() else { return };
    server::cuts_do_not_matter(stream, seed);
    let asked = requests(stream);
    let at_once = LAB.ask(&[stream]);
    judge(&asked, &at_once);
    if seed > 0 {
        judge(&asked, &LAB.ask(&cut(stream, seed)));
    }
}

/// The requests in a stream, as far as they are whole and well-formed.
fn requests(stream: &[u8]) -> Vec<Request> {
    let (mut requests, mut rest) = (Vec::new(), stream);
    while let Ok(Some((request, after))) = read(rest, &CALLER) {
        requests.push(request);
        rest = after;
    }
    requests
}
