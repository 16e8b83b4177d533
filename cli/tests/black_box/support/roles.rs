//! The roles as processes of their own, in the network namespace of a real Kubernetes API: a controller, two dns, and
//! a proxy for each of two nodes.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use maesh_test_support::Namespace;
use maesh_testkube::ApiServer;

use super::{await_condition, http::get, wait};

/// One of the five processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Controller,
    Dns1,
    Dns2,
    Proxy1,
    Proxy2,
}

impl Role {
    pub const ALL: [Self; 5] = [Self::Controller, Self::Dns1, Self::Dns2, Self::Proxy1, Self::Proxy2];

    /// The address that is this process's alone.
    pub fn address(self) -> IpAddr {
        let text = match self {
            Self::Controller => "10.89.3.1",
            Self::Dns1 => "10.89.2.1",
            Self::Dns2 => "10.89.2.2",
            Self::Proxy1 => "10.89.1.1",
            Self::Proxy2 => "10.89.1.2",
        };
        text.parse().expect("an address")
    }

    /// Where its admin endpoint is.
    pub fn admin(self) -> SocketAddr {
        (self.address(), 5380).into()
    }

    fn arguments(self, folder: &std::path::Path, kubeconfig: &std::path::Path, controller: &[String]) -> Vec<String> {
        let subscribe = |id: &str, node: &str| {
            let state = folder.join(format!("state-{id}")).display().to_string();
            ["--controller", "10.89.3.1:5390", "--insecure", "--id", id, "--node", node, "--state-dir", &state]
                .map(str::to_owned)
                .to_vec()
        };
        let dns = |id: &str| {
            let listen = format!("{}:53", self.address());
            let mut arguments = ["dns", "--listen", &listen, "--lameduck", "1s"].map(str::to_owned).to_vec();
            arguments.extend(subscribe(id, "n1"));
            arguments
        };
        let proxy = |id: &str, node: &str| {
            let address = self.address().to_string();
            let mut arguments =
                ["proxy", "--address", &address, "--drain-horizon", "1s", "--threads", "1"].map(str::to_owned).to_vec();
            arguments.extend(subscribe(id, node));
            arguments.extend(["--node-address".to_owned(), node.replace('n', "10.89.4.")]);
            arguments
        };
        let mut arguments = match self {
            Self::Controller => {
                let kubeconfig = kubeconfig.display().to_string();
                let flags = ["--listen", "10.89.3.1:5390", "--insecure", "--proxy-settle", "5s"];
                let mut arguments: Vec<_> =
                    ["controller", "--kubeconfig", &kubeconfig].into_iter().chain(flags).map(str::to_owned).collect();
                arguments.extend_from_slice(controller);
                arguments
            }
            Self::Dns1 => dns("dns-1"),
            Self::Dns2 => dns("dns-2"),
            Self::Proxy1 => proxy("proxy-1", "n1"),
            Self::Proxy2 => proxy("proxy-2", "n2"),
        };
        arguments.extend(["--admin".to_owned(), self.admin().to_string()]);
        arguments
    }
}

/// The five processes; killed when dropped.
pub struct Mesh {
    folder: PathBuf,
    kubeconfig: PathBuf,
    enter: PathBuf,
    running: Vec<(Role, Child)>,
    /// Further flags of the controller.
    controller: Vec<String>,
}

impl Mesh {
    /// Starts all of them, with own addresses that the proxies bind.
    pub fn start(server: &ApiServer) -> Self {
        Self::start_with(server, &["--address-range", "10.89.77.0/24"])
    }

    /// The same with these flags of the controller.
    pub fn start_with(server: &ApiServer, controller: &[&str]) -> Self {
        let namespace: &Namespace = server.namespace();
        let mut mesh = Self {
            folder: namespace.folder().to_owned(),
            kubeconfig: server.kubeconfig().to_owned(),
            enter: namespace.file(),
            running: Vec::new(),
            controller: controller.iter().map(|flag| (*flag).to_owned()).collect(),
        };
        for role in Role::ALL {
            mesh.start_role(role);
        }
        mesh
    }

    /// Starts one, which is not running.
    pub fn start_role(&mut self, role: Role) {
        assert!(self.running.iter().all(|(running, _)| *running != role), "{role:?} runs already");
        let log = self.log(role);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("log");
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.enter.display()))
            .args(["--", env!("CARGO_BIN_EXE_maesh")])
            .args(role.arguments(&self.folder, &self.kubeconfig, &self.controller))
            // Tests ask from the addresses of the namespace.
            .env("MAESH_API_FROM", "10.89.0.0/16")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log);
        self.running.push((role, command.spawn().expect("maesh starts")));
    }

    /// Kills one at once.
    pub fn kill(&mut self, role: Role) {
        let mut child = self.take(role);
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    /// Ends one in order, and waits for it.
    pub fn terminate(&mut self, role: Role) {
        let mut child = self.take(role);
        let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
        assert_eq!(wait(&mut child).code(), Some(0), "{role:?}: {}", self.logs(role));
    }

    /// Waits until all that run are ready.
    pub fn await_ready(&mut self) {
        for role in Role::ALL {
            if self.running.iter().any(|(running, _)| *running == role) {
                self.await_role(role);
            }
        }
    }

    /// Waits until one is ready.
    pub fn await_role(&mut self, role: Role) {
        await_condition(&format!("{role:?} is ready; its log:\n{}", self.logs(role)), || {
            get(role.admin(), "admin", "/readyz").is_ok_and(|answer| answer.status == 200).then_some(())
        });
    }

    /// The dns servers, the nearer one first.
    pub fn resolvers(&self) -> [SocketAddr; 2] {
        [(Role::Dns1.address(), 53).into(), (Role::Dns2.address(), 53).into()]
    }

    /// The end of what one logged.
    pub fn logs(&self, role: Role) -> String {
        let text = std::fs::read_to_string(self.log(role)).unwrap_or_default();
        let from = text.char_indices().rev().nth(9000).map_or(0, |(at, _)| at);
        text[from..].to_owned()
    }

    fn log(&self, role: Role) -> PathBuf {
        self.folder.join(format!("{role:?}.log"))
    }

    fn take(&mut self, role: Role) -> Child {
        let at = self.running.iter().position(|(running, _)| *running == role).expect("it runs");
        self.running.swap_remove(at).1
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for role in Role::ALL {
                eprintln!("--- {role:?}\n{}", self.logs(role));
            }
        }
        for (_, child) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Pause for outages whose length is the test.
#[allow(clippy::disallowed_methods, reason = "the length of an outage is what is tested, not a condition")]
pub fn outage(length: Duration) {
    std::thread::sleep(length);
}
