//! Requests that programs read in different ways, so that one of them hides another one from the next (request smuggling).
//!
//! Each is sent to the proxy, over HTTP/1.1 or HTTP/2, with several servers as the endpoint. Behind it, on the same connection
//! and on others, comes a request with a target of its own. The endpoint must see as many requests as the caller sent by
//! the letter of RFC 9112 and RFC 9113, and each caller must get the response to its own request.

mod caller;
mod corpus;
mod endpoint;
mod servers;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use self::caller::Heard;
use self::corpus::{Case, HOST, Sent, http1, http2};
use self::servers::Server;
use super::mesh::Mesh;
use super::peers;

pub(super) const TOOLS: &[&str] = &[peers::GO];

/// Longest time until an answer, or a request at the endpoint.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of each case at one server: the table's cells, in the order of the cases, and what is wrong.
struct Outcome {
    cells: Vec<String>,
    faults: Vec<String>,
}

/// Sends all of them, and returns their page. Where a server is missing, the others are asked all the same, and the error says
/// what is missing.
pub(super) fn run(maesh: &Path) -> Result<String> {
    let (servers, missing) = servers::start()?;
    let titles: Vec<&str> = servers.iter().map(|server| server.title).collect();
    let cases = [http1(), http2()];
    let meshes = servers.iter().map(|server| Mesh::start(maesh, server.address, "http")).collect::<Result<Vec<_>>>()?;
    let outcomes = std::thread::scope(|scope| {
        let of_servers = servers.into_iter().zip(&meshes);
        let asking: Vec<_> =
            of_servers.map(|(server, mesh)| scope.spawn(|| ask(server, mesh, cases.iter().flatten()))).collect();
        let joined =
            asking.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread that asks ended")));
        joined.collect::<Result<Vec<_>>>()
    })?;
    let faults: Vec<&str> = outcomes.iter().flat_map(|outcome| &outcome.faults).map(String::as_str).collect();
    if !faults.is_empty() {
        bail!("{} faults:\n{}", faults.len(), faults.join("\n"));
    }
    match missing {
        Some(missing) => Err(missing.into()),
        None => Ok(page(&titles, &cases, &outcomes)),
    }
}

/// Sends all cases to one server.
fn ask<'a>(mut server: Server, mesh: &Mesh, cases: impl Iterator<Item = &'a Case>) -> Result<Outcome> {
    let mut outcome = Outcome { cells: Vec::new(), faults: Vec::new() };
    let mut answered = 0;
    for (index, case) in cases.enumerate() {
        let heard = caller::ask(mesh.address, &case.sent, &marker(index, "same"))?;
        let mut markers: Vec<String> = heard.follower.is_some().then(|| marker(index, "same")).into_iter().collect();
        let mut wrong = faults_heard(&heard);
        for (name, sent) in [("other", get as fn(&str) -> Sent), ("stream", corpus::stream_of)] {
            let target = marker(index, name);
            let other = caller::ask_one(mesh.address, &sent(&target))?;
            if other != format!("200 GET {target}") {
                wrong.push(format!("the next request on another connection got {other:?}"));
            }
            markers.push(target);
        }
        let seen = server.next(case.requests + markers.len());
        answered += seen.len();
        wrong.extend(faults_seen(case, &markers, &seen));
        outcome.cells.push(heard.cell());
        outcome.faults.extend(wrong.iter().map(|wrong| format!("{}: {}: {wrong}", server.title, case.name)));
    }
    let late = server.total() - answered;
    if late > 0 {
        outcome.faults.push(format!("{}: {late} requests came late, and nobody had sent them", server.title));
    }
    Ok(outcome)
}

/// The target of a request that follows the case of this number.
fn marker(case: usize, name: &str) -> String {
    format!("/marker-{case}-{name}")
}

fn get(target: &str) -> Sent {
    Sent::Http1(format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n").into_bytes())
}

/// What is wrong with the responses on the connection of a case.
fn faults_heard(heard: &Heard) -> Vec<String> {
    let mut wrong = Vec::new();
    for seen in heard.answers.iter().filter_map(|answer| answer.seen.as_deref()) {
        if seen.contains("marker") || seen.contains("smuggled") {
            wrong.push(format!("it was answered with the response to {seen}"));
        }
    }
    if let Some(follower) = heard.follower.as_ref().filter(|follower| follower.status != "200") {
        wrong.push(format!("the next request on the connection got {}", follower.status));
    }
    for refused in heard.answers.iter().filter(|answer| answer.is_refusal_of_the_endpoint()) {
        wrong.push(format!("the endpoint got it, and refused it with {}", refused.status));
    }
    wrong
}

/// What is wrong with what the endpoint saw: lines `METHOD TARGET X-FORWARDED-FOR`.
fn faults_seen(case: &Case, markers: &[String], seen: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    let is_marker = |line: &&String| markers.iter().any(|marker| line.starts_with(&format!("GET {marker} ")));
    let (followers, own): (Vec<&String>, Vec<&String>) = seen.iter().partition(is_marker);
    if followers.len() != markers.len() {
        wrong.push(format!("of {markers:?} the endpoint saw {followers:?}"));
    }
    if own.len() != case.requests || own.iter().any(|line| line.contains("smuggled") || line.contains("marker")) {
        wrong.push(format!("the endpoint saw {own:?}, not {} requests", case.requests));
    }
    // Each passed through the proxy as a request.
    for line in seen.iter().filter(|line| !line.ends_with(" 127.0.0.1")) {
        wrong.push(format!("the endpoint saw {line:?}, which the proxy has not passed on as a request"));
    }
    wrong
}

fn page(titles: &[&str], cases: &[Vec<Case>; 2], outcomes: &[Outcome]) -> String {
    let mut page = String::from(
        "<!-- Written by `MAESH_WRITE=1 cargo xtask conformance smuggling`; do not edit. -->\n\
         # Request smuggling\n\n\
         Requests that programs read in different ways, sent to `maesh dev` by `cargo xtask conformance smuggling`, with several\n\
         servers as the endpoint. They speak HTTP/1.1; one is part of the suite and reads strictly. On the same connection and on\n\
         two others a usual request follows each of them.\n\n\
         - The endpoint must see as many requests as the caller sent by the letter of RFC 9112 and RFC 9113: none that was\n  \
           refused, and none that was hidden in another one.\n\
         - Each of them must have passed through the proxy as a request: it has the `X-Forwarded-For` of the proxy.\n\
         - Nobody may get the response to another request.\n\n\
         A cell says what the caller gets, and, behind the semicolon, what the next request on the same connection gets; `-` where\n\
         the connection or its reading side has ended.\n",
    );
    let mut cells = outcomes.iter().map(|outcome| outcome.cells.iter()).collect::<Vec<_>>();
    for (name, cases) in ["HTTP/1.1", "HTTP/2"].into_iter().zip(cases) {
        page += &format!("\n## {name}\n\n| a request with | requests at the endpoint | {} |\n", titles.join(" | "));
        page += &format!("|---|---|{}\n", "---|".repeat(titles.len()));
        for case in cases {
            let row: Vec<&str> = cells.iter_mut().filter_map(Iterator::next).map(String::as_str).collect();
            page += &format!("| {} | {} | {} |\n", case.name, case.requests, row.join(" | "));
        }
    }
    page
}
