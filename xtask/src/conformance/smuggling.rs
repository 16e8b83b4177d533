//! Requests that programs read in different ways, so that one of them hides another one from the next (request smuggling).
//!
//! Each is sent to the proxy, over HTTP/1.1 or HTTP/2. What the endpoint gets is read strictly: whole requests with one length
//! each, and as many of them as the caller sent by the letter of RFC 9112 and RFC 9113.

mod caller;
mod corpus;
mod endpoint;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use self::corpus::{Case, Sent, http1, http2};
use self::endpoint::{Endpoint, Seen};
use super::mesh::Mesh;

/// Longest time until an answer, or a request at the endpoint.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends all of them, and returns their page.
pub(super) fn run(maesh: &Path) -> Result<String> {
    let endpoint = Endpoint::start()?;
    let mesh = Mesh::start(maesh, endpoint.address, "http")?;
    let mut faults = Vec::new();
    let mut page = String::from(
        "<!-- Written by `MAESH_WRITE=1 cargo xtask conformance smuggling`; do not edit. -->\n\
         # Request smuggling\n\n\
         Requests that programs read in different ways, sent to `maesh dev` by `cargo xtask conformance smuggling`. The endpoint\n\
         speaks HTTP/1.1, reads strictly, and must see as many requests as the caller sent by the letter of RFC 9112 and\n\
         RFC 9113: none that was refused, and none that was hidden in another one.\n",
    );
    for (name, cases) in [("HTTP/1.1", http1()), ("HTTP/2", http2())] {
        page +=
            &format!("\n## {name}\n\n| a request with | the caller gets | requests at the endpoint |\n|---|---|---|\n");
        for case in &cases {
            let answer = caller::ask(mesh.address, &case.sent)?;
            let requests = endpoint.requests(mesh.address)?;
            page += &format!("| {} | {answer} | {} |\n", case.name, requests.len());
            faults.extend(fault(case, &requests));
        }
    }
    if !faults.is_empty() {
        bail!("{} faults:\n{}", faults.len(), faults.join("\n"));
    }
    Ok(page)
}

/// What is wrong with what the endpoint saw of `case`.
fn fault(case: &Case, requests: &[Seen]) -> Option<String> {
    let malformed = requests.iter().any(|seen| matches!(seen, Seen::Malformed(_)));
    (malformed || requests.len() != case.requests)
        .then(|| format!("{}: the endpoint saw {requests:?}, not {} requests", case.name, case.requests))
}
