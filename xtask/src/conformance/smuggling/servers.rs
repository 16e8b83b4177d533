//! Servers that are the endpoint: a strict one of this suite, and those of others.
//!
//! Each answers a request with `seen: METHOD TARGET`, and writes down `METHOD TARGET X-FORWARDED-FOR` for each that it has
//! read to its end. A target `/early` is answered before its body was read.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use maesh_test_support::{ToolError, until};
use tempfile::TempDir;

use super::super::peers::{go, installed, plain_node};
use super::{PATIENCE, endpoint};
use crate::bench::rivals::free;
use crate::measure::{self, Running};

/// Where a server writes down what it has read.
enum Log {
    Memory(Arc<Mutex<Vec<String>>>),
    Output(measure::Log),
    File(PathBuf),
}

pub(super) struct Server {
    pub(super) title: &'static str,
    pub(super) address: SocketAddr,
    log: Log,
    /// Lines that were looked at.
    known: usize,
    _process: Option<Running>,
    _folder: Option<TempDir>,
}

/// Starts all servers whose programs are there; and says which is missing otherwise.
pub(super) fn start() -> Result<(Vec<Server>, Option<ToolError>)> {
    let (mut servers, mut missing) = (vec![strict()?], None);
    for start in [nginx as fn() -> Result<Server>, node, net_http] {
        match start() {
            Ok(server) => servers.push(server),
            Err(error) => missing = Some(error.downcast::<ToolError>()?),
        }
    }
    Ok((servers, missing))
}

fn strict() -> Result<Server> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let address = endpoint::start(Arc::clone(&log))?;
    Ok(Server { title: "strict", address, log: Log::Memory(log), known: 0, _process: None, _folder: None })
}

fn node() -> Result<Server> {
    program("Node.js", plain_node("http.js")?)
}

fn net_http() -> Result<Server> {
    program("Go", go(&["http"])?)
}

/// A program of `tests/peers/` that prints what it has read.
fn program(title: &'static str, mut command: Command) -> Result<Server> {
    let address = free()?;
    command.arg(address.to_string());
    let mut process = Running::start(title, command)?;
    process.wait_for_port(address)?;
    let log = Log::Output(process.log()?);
    Ok(Server { title, address, log, known: 0, _process: Some(process), _folder: None })
}

fn nginx() -> Result<Server> {
    let program = installed("nginx", "nginx-light", "an endpoint of the suite on request smuggling")?;
    let folder = tempfile::Builder::new().prefix("maesh-nginx").tempdir()?;
    let address = free()?;
    let (configuration, log) = (folder.path().join("nginx.conf"), folder.path().join("access.log"));
    fs::write(&configuration, nginx_configuration(folder.path(), address))?;
    let mut command = Command::new(program);
    command.arg("-p").arg(folder.path()).arg("-e").arg(folder.path().join("error.log")).arg("-c").arg(configuration);
    let mut process = Running::start("nginx", command)?;
    process.wait_for_port(address)?;
    let log = Log::File(log);
    Ok(Server { title: "nginx", address, log, known: 0, _process: Some(process), _folder: Some(folder) })
}

/// nginx before itself: it answers only once it has read the whole request and passed it on.
fn nginx_configuration(folder: &Path, address: SocketAddr) -> String {
    let path = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {path}/{name};\n"))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\npid {path}/nginx.pid;\nerror_log {path}/error.log error;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n{temporary}\
         log_format seen '$request_method $request_uri $http_x_forwarded_for';\n\
         map \"$upstream_status:$request_uri\" $is_whole {{ default 1; ~^:/early$ 1; ~^: 0; }}\n\
         keepalive_requests 100000;\n\
         upstream own {{ server unix:{path}/own.sock; keepalive 4; }}\n\
         server {{\n\
         listen {address};\n\
         access_log {path}/access.log seen if=$is_whole;\n\
         location / {{ proxy_pass http://own; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}\n\
         location = /early {{ return 200 \"seen: $request_method $request_uri\\n\"; }}\n\
         }}\n\
         server {{\nlisten unix:{path}/own.sock;\naccess_log off;\n\
         location / {{ return 200 \"seen: $request_method $request_uri\\n\"; }}\n}}\n}}\n"
    )
}

impl Server {
    /// What it has read since this was last asked, once that is as much as `expected`, or nothing more comes.
    pub(super) fn next(&mut self, expected: usize) -> Vec<String> {
        let mut lines = self.lines();
        until(PATIENCE, || {
            lines = self.lines();
            lines.len() >= self.known + expected
        });
        let new = lines.split_off(self.known.min(lines.len()));
        self.known += new.len();
        new
    }

    /// How many requests it has read.
    pub(super) fn total(&self) -> usize {
        self.lines().len()
    }

    fn lines(&self) -> Vec<String> {
        let text = match &self.log {
            Log::Memory(lines) => return lines.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Log::Output(output) => output.read(),
            Log::File(path) => fs::read_to_string(path).unwrap_or_default(),
        };
        // What has no end yet is being written.
        text.split_inclusive('\n').filter_map(|line| Some(line.strip_suffix('\n')?.to_owned())).collect()
    }
}
