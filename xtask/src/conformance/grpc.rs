//! The interoperability cases of gRPC: its own client asks its own server, through the proxy.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use maesh_test_support::{TOOLS, tool};

use super::mesh::Mesh;
use crate::command::collect;
use crate::measure::{Running, free_tcp_port};

pub(super) const CLIENT: &str = "grpc-interop-client";
pub(super) const SERVER: &str = "grpc-interop-server";

/// The cases of the client that need neither TLS nor accounts of a cloud.
const CASES: &[&str] = &[
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
];

/// Runs all cases and returns their page.
pub(super) fn run(maesh: &Path) -> Result<String> {
    let known = TOOLS.iter().find(|tool| tool.name == CLIENT).context("the client is no tool")?;
    let endpoint: SocketAddr = (Ipv4Addr::LOCALHOST, free_tcp_port()?).into();
    let mut command = Command::new(tool(SERVER)?);
    command.arg(format!("--port={}", endpoint.port()));
    let mut server = Running::start(SERVER, command)?;
    server.wait_for_port(endpoint)?;
    let mesh = Mesh::start(maesh, endpoint, "kubernetes.io/h2c")?;
    for case in CASES {
        let mut client = Command::new(tool(CLIENT)?);
        client.arg(format!("--server_host={}", mesh.address.ip())).arg(format!("--test_case={case}"));
        client.arg(format!("--server_port={}", mesh.address.port()));
        let ran = collect(case, &mut client)?;
        if !ran.success {
            bail!("{case} failed:\n{}", ran.output);
        }
    }
    Ok(page(known.version))
}

fn page(version: &str) -> String {
    let cases: String = CASES.iter().map(|case| format!("- `{case}`\n")).collect();
    format!(
        "<!-- Written by `MAESH_WRITE=1 cargo xtask conformance grpc`; do not edit. -->\n\
         # gRPC: its interoperability cases\n\n\
         The client and the server of [grpc-go](https://github.com/grpc/grpc-go/tree/master/interop) {version}, with `maesh dev`\n\
         between them. `cargo xtask conformance grpc` runs it again. All {} cases pass:\n\n{cases}",
        CASES.len()
    )
}
