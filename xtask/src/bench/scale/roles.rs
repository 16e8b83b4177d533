//! The roles as processes of their own.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use maesh_testkube::ApiServer;

use super::{ROLES, http::Client};
use crate::measure::Running;

/// Where the proxy carries requests.
pub(super) const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 89, 1, 1)), 80);
const DISCOVERY: &str = "10.89.3.1:5390";
/// Longest time until a role is ready.
const READY: Duration = Duration::from_secs(180);

/// Memory of a process, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    /// Resident now.
    pub(super) resident: u64,
    /// The most that was ever resident.
    pub(super) peak: u64,
}

/// A role that runs.
struct Role {
    process: Running,
    admin: SocketAddr,
    started: Instant,
}

/// The three roles, in the order of [`ROLES`].
pub(super) struct Mesh {
    roles: Vec<Role>,
}

impl Mesh {
    /// Starts all three at once.
    pub(super) fn start(server: &ApiServer, maesh: &Path) -> Result<Self> {
        eprintln!("starting maesh controller, dns and proxy");
        let kubeconfig = server.kubeconfig().display().to_string();
        let flags = ["--kubeconfig", &kubeconfig, "--listen", DISCOVERY, "--insecure"].map(str::to_owned).to_vec();
        let controller = Role::start(server, maesh, "controller", "10.89.3.1", flags)?;
        let roles = vec![controller, dns(server, maesh, "10.89.2.1")?, proxy(server, maesh, "10.89.1.1")?];
        Ok(Self { roles })
    }

    /// Waits until each is ready; says how long each took from its start.
    pub(super) fn await_ready(&mut self) -> Result<Vec<Duration>> {
        // Watched side by side: the order in which they become ready is theirs.
        std::thread::scope(|scope| {
            let waits: Vec<_> = self.roles.iter_mut().map(|role| scope.spawn(|| role.await_ready())).collect();
            waits.into_iter().map(super::cluster::joined).collect()
        })
    }

    /// How long a dns and a proxy take that join when everything is there; they are gone afterwards.
    pub(super) fn join(&self, server: &ApiServer, maesh: &Path) -> Result<Vec<Duration>> {
        let dns = dns(server, maesh, "10.89.2.2")?.await_ready()?;
        let proxy = proxy(server, maesh, "10.89.1.2")?.await_ready()?;
        Ok(vec![dns, proxy])
    }

    /// Memory of each.
    pub(super) fn memory(&self) -> Result<Vec<Memory>> {
        self.roles.iter().map(|role| memory(role.process.pid())).collect()
    }

    /// Processor time of each so far.
    pub(super) fn processor_time(&self) -> Result<Vec<Duration>> {
        self.roles.iter().map(|role| Ok(role.process.usage()?.total())).collect()
    }
}

fn dns(server: &ApiServer, maesh: &Path, address: &str) -> Result<Role> {
    let listen = format!("{address}:53");
    let flags = ["--listen", &listen, "--lameduck", "0s"].map(str::to_owned);
    Role::start(server, maesh, "dns", address, [&flags[..], &subscribe(server, "dns", address)].concat())
}

fn proxy(server: &ApiServer, maesh: &Path, address: &str) -> Result<Role> {
    let flags = ["--address", address, "--drain-horizon", "0s"].map(str::to_owned);
    Role::start(server, maesh, "proxy", address, [&flags[..], &subscribe(server, "proxy", address)].concat())
}

fn subscribe(server: &ApiServer, role: &str, address: &str) -> Vec<String> {
    let id = format!("{role}-{address}");
    let state = server.namespace().folder().join(format!("state-{id}")).display().to_string();
    ["--controller", DISCOVERY, "--insecure", "--id", &id, "--node", "node-0", "--state-dir", &state]
        .map(str::to_owned)
        .to_vec()
}

impl Role {
    fn start(server: &ApiServer, maesh: &Path, role: &str, address: &str, flags: Vec<String>) -> Result<Self> {
        let admin = format!("{address}:5380");
        let mut command = server.namespace().command(maesh);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MAESH_")) {
            command.env_remove(name);
        }
        command.arg(role).args(flags).args(["--admin", &admin]);
        let admin = admin.parse().with_context(|| admin.clone())?;
        debug_assert!(ROLES.iter().any(|(name, _)| *name == role));
        Ok(Self { process: Running::start(&format!("maesh {role}"), command)?, admin, started: Instant::now() })
    }

    fn await_ready(&mut self) -> Result<Duration> {
        let admin = self.admin;
        let ready = || {
            let asked = Client::connect(admin).and_then(|mut client| client.get_path("admin", "/readyz"));
            asked.is_ok_and(|answer| answer.is_ok())
        };
        self.process.wait_until(READY, ready)?;
        Ok(self.started.elapsed())
    }
}

fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let field = |name: &str| -> Result<u64> {
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{path}: no {name}"))?;
        let number = line.split_whitespace().next().with_context(|| format!("{path}: {line:?}"))?;
        Ok(number.parse::<u64>().with_context(|| format!("{path}: {number:?}"))? * 1024)
    };
    Ok(Memory { resident: field("VmRSS:")?, peak: field("VmHWM:")? })
}
