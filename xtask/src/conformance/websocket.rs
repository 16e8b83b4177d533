//! WebSocket: clients of others ask servers of others, with the proxy between them.
//!
//! Clients and servers are programs in `tests/peers/`; each client runs all cases that it can against each server, and
//! prints what it saw. What is right is decided here, with what servers say of their side and what the mesh has counted.

mod cases;
mod clients;
mod page;
mod servers;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use maesh_test_support::ToolError;

use self::cases::{CASES, Case, reason_against};
use self::clients::{CLIENTS, Client};
use self::servers::Server;
use super::mesh::{Mesh, Service};
use super::peers;

pub(super) const TOOLS: &[&str] = &[peers::GO, "ws", "undici", "websockets", "wsproto", "envoy"];

/// Clients that run at the same time.
const SIDE_BY_SIDE: usize = 3;

/// What a client saw: by the server's name and the case's.
type Results = BTreeMap<(String, String), String>;

/// Runs all cases and returns their page. Where a program is missing, what is there is asked all the same, and the error says
/// what is missing.
pub(super) fn run(maesh: &Path) -> Result<String> {
    let (servers, mut missing) = servers::start()?;
    let mesh = Mesh::serve(maesh, &services(&servers))?;
    let mut faults = Vec::new();
    for (client, results) in ask_all(&mesh, &servers)? {
        match results {
            Ok(results) => faults.extend(judge(client, &servers, &results)),
            Err(error) => missing = Some(error.downcast::<ToolError>()?),
        }
    }
    if !faults.is_empty() {
        bail!("{} faults:\n{}", faults.len(), faults.join("\n"));
    }
    match missing {
        Some(missing) => Err(missing.into()),
        None => page::page(&servers),
    }
}

/// Has all clients run their cases, [`SIDE_BY_SIDE`] at a time.
fn ask_all(mesh: &Mesh, servers: &[Server]) -> Result<Vec<(&'static Client, Result<Results>)>> {
    let (clients, done) = (Mutex::new(CLIENTS.iter().rev()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                loop {
                    let next = clients.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(client) = next else { return };
                    let results = clients::ask(client, mesh, servers);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((client, results));
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    if done.len() < CLIENTS.len() {
        bail!("only {} of {} clients came to an end", done.len(), CLIENTS.len());
    }
    Ok(done)
}

/// The Services of each server: its own, and one for each client that has only what is sent for the cases on compression.
fn services(servers: &[Server]) -> Vec<Service> {
    let service = |name: String, server: &Server| Service { name, endpoint: server.address, protocol: server.protocol };
    let own = servers.iter().map(|server| service(server.name.to_owned(), server));
    let twins =
        servers.iter().flat_map(|server| CLIENTS.iter().map(move |client| service(twin(server, client), server)));
    own.chain(twins).collect()
}

/// The Service of a server for the cases on compression.
fn twin(server: &Server, client: &Client) -> String {
    format!("{}-from-{}", server.name, client.name)
}

/// The cases that did not come out as they should.
fn judge(client: &Client, servers: &[Server], results: &Results) -> Vec<String> {
    let mut faults = Vec::new();
    for server in servers {
        for Case { name, want, .. } in CASES.iter().filter(|case| reason_against(client, case).is_none()) {
            let got = results.get(&(server.name.to_owned(), (*name).to_owned()));
            if got.is_none_or(|got| got != want) {
                let got = got.map_or("nothing", String::as_str);
                faults.push(format!("{} at {}: {name}: {got}, not {want}", client.name, server.name));
            }
        }
    }
    faults
}
