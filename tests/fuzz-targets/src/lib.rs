//! What each fuzz target does with its bytes, as a function that panics when something is not as it should be.
//!
//! `tests/fuzz` makes a program of each, with coverage counters. The test of this crate runs each of them over its seeds and
//! over some variations of these, so that a target which fails at once is noticed without a fuzzer.
//!
//! Some targets test modules that are private in their crates and need little of them. These are compiled in here once more, from
//! the same files; what they need of their crates is under the same names. Their own tests are in
//! their crates, so this crate is empty where it would be built as a test itself.
#![cfg(not(test))]

mod annotations;
mod breaker;
mod client_hello;
mod corefile;
mod cut;
mod discovery;
mod dns;
mod flow_limits;
mod flow_table;
mod hpack;
mod http;
mod http1_request;
mod http2;
mod limiter;
mod objects;
mod response;
mod texts;
mod udp_flows;
mod websocket;
mod wire_form;

/// A target, by the name of its program.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, sorted by name.
pub const TARGETS: [Target; 14] = [
    ("annotations", annotations::run),
    ("breaker", breaker::run),
    ("client_hello", client_hello::run),
    ("corefile", corefile::run),
    ("discovery", discovery::run),
    ("dns", dns::run),
    ("hpack", hpack::run),
    ("http1_request", http1_request::run),
    ("http2", http2::run),
    ("limiter", limiter::run),
    ("response", response::run),
    ("texts", texts::run),
    ("udp_flows", udp_flows::run),
    ("websocket", websocket::run),
];

/// Runs the target of this name.
///
/// # Panics
/// When there is none, or when it finds something.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(target, _)| *target == name);
    let (_, target) = target.unwrap_or_else(|| panic!("no fuzz target is called {name}"));
    target(bytes);
}

/// The text at the beginning of `bytes`, as far as it is one.
fn text(bytes: &[u8]) -> &str {
    bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid())
}

// Names under which the files of other crates find what they need there.

use maesh_discovery::{RevisionMark, Verdict, update, xds};

mod config {
    pub(crate) use maesh_proxy::Limits;
}

mod state {
    /// In place of an endpoint: its number.
    #[derive(Debug, PartialEq, Eq)]
    pub(crate) struct Endpoint(pub(crate) u8);
}

#[allow(dead_code)]
#[path = "../../../proxy/src/policy"]
mod policy {
    pub(crate) mod breaker;
    mod histogram;
    pub(crate) mod limiter;
    mod window;
}

#[allow(dead_code, unreachable_pub)]
#[path = "../../../proxy/src"]
mod proxy {
    pub(crate) mod admission;
}
