//! The servers: programs in `tests/peers/`, and Envoy before one of them.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result};
use maesh_test_support::{ToolError, tool, until};
use tempfile::NamedTempFile;

use super::super::peers::{go, in_peers, node, python, version};
use super::cases::REASON;
use super::clients::PATIENCE;
use crate::bench::rivals::free;
use crate::measure::{Log, Running};

pub(super) struct Server {
    /// The name of its Service.
    pub(super) name: &'static str,
    /// What it is, for the page.
    pub(super) title: String,
    pub(super) address: SocketAddr,
    /// As `appProtocol` says it.
    pub(super) protocol: &'static str,
    log: Log,
    _process: Running,
    _configuration: Option<NamedTempFile>,
}

/// Starts a server; its error says what is missing.
type Start = fn(&[Server]) -> Result<Server>;

/// Starts all servers whose programs are there; and says which is missing otherwise.
pub(super) fn start() -> Result<(Vec<Server>, Option<ToolError>)> {
    let all: [Start; 5] = [ws, gorilla, coder, websockets, envoy];
    let (mut servers, mut missing) = (Vec::new(), None);
    for start in all {
        match start(&servers) {
            Ok(server) => servers.push(server),
            Err(error) => missing = Some(error.downcast::<ToolError>()?),
        }
    }
    Ok((servers, missing))
}

fn ws(_: &[Server]) -> Result<Server> {
    program(
        "ws",
        format!("[ws](https://github.com/websockets/ws) {}, Node.js", version("ws")?),
        node("websocket.js", "ws")?,
    )
}

fn gorilla(_: &[Server]) -> Result<Server> {
    let title = "[gorilla/websocket](https://github.com/gorilla/websocket) 1.5.3, Go";
    program("gorilla", title.to_owned(), go(&["gorilla"])?)
}

fn coder(_: &[Server]) -> Result<Server> {
    program("coder", "[coder/websocket](https://github.com/coder/websocket) 1.8.15, Go".to_owned(), go(&["coder"])?)
}

fn websockets(_: &[Server]) -> Result<Server> {
    let title =
        format!("[websockets](https://github.com/python-websockets/websockets) {}, Python", version("websockets")?);
    program("websockets", title, python("websockets_peer.py", "websockets")?)
}

/// Starts a program of `tests/peers/` as a server.
fn program(name: &'static str, title: String, mut command: Command) -> Result<Server> {
    let address = free()?;
    command.arg("serve").arg(address.to_string());
    let mut process = Running::start(name, command)?;
    process.wait_for_port(address)?;
    let log = process.log()?;
    Ok(Server { name, title, address, protocol: "http", log, _process: process, _configuration: None })
}

/// Envoy, which takes WebSockets over HTTP/2, before `ws`.
fn envoy(started: &[Server]) -> Result<Server> {
    let program = tool("envoy")?;
    // Without it there is nothing behind Envoy.
    node("websocket.js", "ws")?;
    let behind = started.iter().find(|server| server.name == "ws").context("no server is behind Envoy")?;
    let address = free()?;
    let template = fs::read_to_string(in_peers("envoy.yaml")).context("the configuration of Envoy")?;
    let configuration = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    let filled = template.replace("@PORT@", &address.port().to_string());
    fs::write(configuration.path(), filled.replace("@SERVER_PORT@", &behind.address.port().to_string()))?;
    let mut command = Command::new(program);
    command
        .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "-c"])
        .arg(configuration.path());
    let mut process = Running::start("envoy", command)?;
    process.wait_for_port(address)?;
    Ok(Server {
        name: "envoy",
        title: format!("[Envoy](https://www.envoyproxy.io) {} over HTTP/2, with `ws` behind it", version("envoy")?),
        address,
        protocol: "kubernetes.io/h2c",
        log: behind.log.again()?,
        _process: process,
        _configuration: Some(configuration),
    })
}

impl Server {
    /// Everything that it has printed.
    pub(super) fn log(&self) -> String {
        self.log.read()
    }

    /// What it says of the end of the connection `id`: code and reason, once the client has closed it with `code`.
    pub(super) fn close_seen(&self, id: &str, code: u16) -> String {
        let begin = format!("close\t{id}\t");
        let mut seen = String::new();
        until(PATIENCE, || {
            let log = self.log();
            seen = log.lines().find_map(|line| line.strip_prefix(&begin)).unwrap_or_default().replace('\t', " ");
            seen == format!("{code} {REASON}")
        });
        seen
    }
}
