//! The roles as processes of their own on loopback, from manifests: a controller, one dns, and a proxy for each of two
//! nodes.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{AddressRange, await_condition, command, command_of, http::get};

/// One of the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Controller,
    Dns,
    /// The proxy of node `n1`.
    Proxy1,
    /// The proxy of node `n2`.
    Proxy2,
}

/// The four processes; killed when dropped.
pub struct Roles {
    /// That of all their addresses.
    range: AddressRange,
    running: Vec<(Part, Child)>,
    limited: Option<Limited>,
}

/// A bound on the open files of each process, and the folder of their logs.
struct Limited {
    open_files: u32,
    logs: PathBuf,
}

impl Roles {
    /// Starts them on the manifests in `folder`, which must exist, and waits until they are ready.
    pub fn start(folder: &Path) -> Self {
        Self::start_as(folder, None)
    }

    /// The same, where each process may open so many files. Their logs are in the folder `logs`.
    pub fn start_limited(folder: &Path, open_files: u32, logs: &Path) -> Self {
        Self::start_as(folder, Some(Limited { open_files, logs: logs.to_owned() }))
    }

    fn start_as(folder: &Path, limited: Option<Limited>) -> Self {
        let range = AddressRange::new();
        let flag = range.flag();
        let mut roles = Self { range, running: Vec::new(), limited };
        let manifests = folder.display().to_string();
        let controller = roles.socket(Part::Controller, 5390).to_string();
        roles.spawn(
            Part::Controller,
            &["controller", "--manifests", &manifests, "--listen", &controller, "--address-range", &flag],
        );
        let dns = roles.dns().to_string();
        roles.spawn(
            Part::Dns,
            &["dns", "--controller", &controller, "--id", "dns", "--listen", &dns, "--lameduck", "0s"],
        );
        for (part, id, node) in [(Part::Proxy1, "proxy-1", "n1"), (Part::Proxy2, "proxy-2", "n2")] {
            let address = roles.address(part).to_string();
            let who = ["--id", id, "--node", node, "--address", &address, "--threads", "1"];
            roles.spawn(part, &[&["proxy", "--controller", &controller][..], &who].concat());
        }
        roles.await_ready();
        roles
    }

    /// Starts a controller on the manifests in `folder`, and dns with these further flags; waits until both are ready.
    pub fn start_dns(folder: &Path, flags: impl FnOnce(IpAddr) -> Vec<String>) -> Self {
        Self::start_dns_as(folder, None, flags)
    }

    /// The same, where each process may open so many files. Their logs are in the folder `logs`.
    pub fn start_dns_limited(
        folder: &Path,
        open_files: u32,
        logs: &Path,
        flags: impl FnOnce(IpAddr) -> Vec<String>,
    ) -> Self {
        Self::start_dns_as(folder, Some(Limited { open_files, logs: logs.to_owned() }), flags)
    }

    fn start_dns_as(folder: &Path, limited: Option<Limited>, flags: impl FnOnce(IpAddr) -> Vec<String>) -> Self {
        let mut roles = Self { range: AddressRange::new(), running: Vec::new(), limited };
        let (manifests, controller) = (folder.display().to_string(), roles.socket(Part::Controller, 5390).to_string());
        roles.spawn(Part::Controller, &["controller", "--manifests", &manifests, "--listen", &controller]);
        let dns = roles.dns().to_string();
        let flags = flags(roles.address(Part::Dns));
        let arguments = ["dns", "--controller", &controller, "--id", "dns", "--listen", &dns, "--lameduck", "0s"];
        roles.spawn(Part::Dns, &arguments.into_iter().chain(flags.iter().map(String::as_str)).collect::<Vec<_>>());
        roles.await_ready();
        roles
    }

    fn await_ready(&self) {
        for (part, _) in &self.running {
            await_condition(&format!("{part:?} is ready"), || {
                get(self.socket(*part, 5380), "admin", "/readyz").is_ok_and(|answer| answer.status == 200).then_some(())
            });
        }
    }

    fn spawn(&mut self, part: Part, arguments: &[&str]) {
        let admin = self.socket(part, 5380).to_string();
        let mut program = match &self.limited {
            None => command(arguments),
            Some(limited) => {
                let mut shell = command_of("sh");
                let script = format!("ulimit -n {} && exec \"$@\"", limited.open_files);
                shell.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_maesh")]).args(arguments);
                let log = std::fs::File::create(limited.log(part)).expect("a log");
                shell.stderr(log);
                shell
            }
        };
        let child = program
            .args(["--admin", &admin, "--log-level", "warn"])
            .stdin(Stdio::null())
            .spawn()
            .expect("maesh starts");
        self.running.push((part, child));
    }

    /// The address of a process.
    pub fn address(&self, part: Part) -> IpAddr {
        self.place(200, part as u8 + 1)
    }

    /// An address of this test's own.
    pub fn place(&self, third: u8, last: u8) -> IpAddr {
        format!("{}.{third}.{last}", self.range.prefix()).parse().expect("an address")
    }

    /// Where dns answers.
    pub fn dns(&self) -> SocketAddr {
        self.socket(Part::Dns, 5353)
    }

    /// What a limited process logged.
    pub fn log(&self, part: Part) -> String {
        let limited = self.limited.as_ref().expect("it is limited");
        std::fs::read_to_string(limited.log(part)).expect("a log")
    }

    /// Where subscribers connect to the controller.
    pub fn discovery(&self) -> SocketAddr {
        self.socket(Part::Controller, 5390)
    }

    fn socket(&self, part: Part, port: u16) -> SocketAddr {
        (self.address(part), port).into()
    }

    /// Where its admin endpoint is.
    pub fn admin(&self, part: Part) -> SocketAddr {
        self.socket(part, 5380)
    }

    /// The id of a process.
    pub fn id(&self, part: Part) -> u32 {
        self.running.iter().find(|(running, _)| *running == part).expect("it runs").1.id()
    }

    /// Sends a process a signal, by its name without `SIG`.
    pub fn signal(&self, part: Part, name: &str) {
        let (_, child) = self.running.iter().find(|(running, _)| *running == part).expect("it runs");
        let sent = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
    }
}

impl Limited {
    fn log(&self, part: Part) -> PathBuf {
        self.logs.join(format!("{part:?}.log"))
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
