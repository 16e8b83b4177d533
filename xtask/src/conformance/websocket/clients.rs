//! The clients: programs in `tests/peers/`, and a browser.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use maesh_test_support::ToolError;

use super::super::mesh::Mesh;
use super::super::peers::{go, installed, node, node_20, python};
use super::cases::{CODES, COMPRESSED, REASON};
use super::servers::Server;
use super::{Results, twin};
use crate::command::collect;
use crate::measure::Running;

/// Longest time until something that should have happened is seen.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Longest time for all cases in the browser.
const BROWSING: Duration = Duration::from_secs(120);

pub(super) struct Client {
    pub(super) name: &'static str,
    /// What it is, for the page.
    pub(super) title: &'static str,
    how: How,
}

enum How {
    /// A program of `tests/peers/`.
    Program(fn() -> Result<Command, ToolError>),
    Browser,
}

pub(super) const CLIENTS: &[Client] = &[
    Client { name: "ws", title: "ws", how: How::Program(|| node("websocket.js", "ws")) },
    Client { name: "gorilla", title: "gorilla", how: How::Program(|| go(&["gorilla"])) },
    Client { name: "coder", title: "coder", how: How::Program(|| go(&["coder"])) },
    Client {
        name: "websockets",
        title: "websockets",
        how: How::Program(|| python("websockets_peer.py", "websockets")),
    },
    Client { name: "undici", title: "undici (HTTP/2)", how: How::Program(|| node_20("websocket_h2.js", "undici")) },
    Client { name: "wsproto", title: "wsproto (HTTP/2)", how: How::Program(|| python("h2_peer.py", "wsproto")) },
    Client { name: "chromium", title: "Chromium", how: How::Browser },
];

/// Has a client run its cases against all servers; adds what servers and the mesh say of them.
pub(super) fn ask(client: &Client, mesh: &Mesh, servers: &[Server]) -> Result<Results> {
    let before = servers.iter().map(|server| mesh.carried(&twin(server, client))).collect::<Result<Vec<_>>>()?;
    let said = match client.how {
        How::Program(command) => call(client.name, command()?, mesh.address, servers)?,
        How::Browser => browse(client.name, mesh.address, servers)?,
    };
    let mut results: Results = said.lines().filter_map(result).collect();
    for (server, before) in servers.iter().zip(before) {
        add_sizes(&mut results, server, || mesh.carried_since(&twin(server, client), before))?;
        add_closes(&mut results, client, server);
    }
    Ok(results)
}

/// Adds how many bytes the mesh has carried for the case on compression.
fn add_sizes(results: &mut Results, server: &Server, carried: impl Fn() -> Result<[u64; 2]>) -> Result<()> {
    let case = |name: &str| (server.name.to_owned(), name.to_owned());
    if results.get(&case("deflate")).is_none_or(|result| result.starts_with("failed")) {
        return Ok(());
    }
    for (name, bytes) in ["deflate-sent", "deflate-received"].into_iter().zip(carried()?) {
        let result = if (1..COMPRESSED).contains(&bytes) { "compressed".to_owned() } else { format!("{bytes} bytes") };
        results.insert(case(name), result);
    }
    Ok(())
}

/// Adds the reason that the server saw to what the client saw of a close.
fn add_closes(results: &mut Results, client: &Client, server: &Server) {
    for code in CODES {
        let case = (server.name.to_owned(), format!("close-{code}-sent"));
        let Some(answer) = results.get_mut(&case).filter(|answer| **answer == code.to_string()) else { continue };
        let seen = server.close_seen(&format!("{}-{}-{code}", client.name, server.name), code);
        *answer = match seen.strip_prefix(&format!("{code} ")) {
            Some(REASON) => format!("{code} {REASON}"),
            _ => format!("{answer}, and the server saw {seen:?}"),
        };
    }
}

/// A line `result NAME CASE RESULT`.
fn result(line: &str) -> Option<((String, String), String)> {
    let mut words = line.strip_prefix("result\t")?.splitn(3, '\t').map(str::to_owned);
    Some(((words.next()?, words.next()?), words.next()?))
}

/// Runs a program of `tests/peers/`, and returns what it prints.
fn call(name: &str, mut command: Command, to: SocketAddr, servers: &[Server]) -> Result<String> {
    command.arg("call").arg(to.to_string()).args(servers.iter().map(|server| server.name));
    let ran = collect(name, &mut command)?;
    if !ran.success {
        bail!("{name} failed:\n{}", ran.output);
    }
    Ok(ran.output)
}

/// Opens the page of the server `ws` in Chromium, through the mesh, and returns what the page sends back to that server.
fn browse(name: &str, to: SocketAddr, servers: &[Server]) -> Result<String> {
    let program = installed("chromium", "chromium", "WebSocket from a browser")?;
    // Without it there is no server with the page.
    node("websocket.js", "ws")?;
    let home = servers.iter().find(|server| server.name == "ws").context("no server has the page")?;
    let profile = tempfile::Builder::new().prefix("maesh-browser").tempdir()?;
    let mut command = Command::new(program);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage"]);
    command.args(["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.args(["--no-proxy-server", "--disable-features=HttpsUpgrades"]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    // No name but those of the mesh is looked up.
    command.arg(format!("--host-resolver-rules=MAP *.shop.maesh {}, MAP * ~NOTFOUND", to.ip()));
    let names: String = servers.iter().map(|server| format!("&name={}", server.name)).collect();
    command.arg(format!("http://ws.shop.maesh:{}/?client={name}{names}", to.port()));
    let mut browser = Running::start(name, command)?;
    let end = format!("end\t{name}\n");
    browser.wait_until(BROWSING, || home.log().contains(&end))?;
    Ok(home.log())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_lines() {
        for (line, want) in [
            ("result\tws\ttext\ta b\tc", Some(("ws", "text", "a b\tc"))),
            ("result\tws\ttext", None),
            ("close\tws\t1000\tbye", None),
        ] {
            let got = result(line);
            let got = got.as_ref().map(|((server, case), seen)| (server.as_str(), case.as_str(), seen.as_str()));
            assert_eq!(got, want, "{line:?}");
        }
    }
}
