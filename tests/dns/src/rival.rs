//! Knot and NSD, started on loopback from configurations that lie in a folder of the test's own.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use maesh_test_support::{need_program, until};
use tempfile::TempDir;

use crate::zone_file;

/// How long a server may take to start, on a busy machine.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// A started program, with those it starts itself; all are ended with it.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts `command` as the leader of a process group of its own.
    ///
    /// # Errors
    /// The system refuses.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).spawn().map(Self)
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group is ours until its leader was waited for, so its id is nobody else's.
        let _ = rustix::process::kill_process_group(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::KILL,
        );
        let _ = self.0.wait();
    }
}

/// A server of another project with the zone of [`zone_file`].
#[derive(Debug)]
pub struct Rival {
    /// Its name.
    pub name: &'static str,
    /// Where it answers.
    pub address: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Rival {
    /// Starts Knot; `None`, after saying so, if it is not there.
    pub fn knot() -> Option<Self> {
        let program = need_program("knotd", "knot")?;
        Some(Self::start("knot", |folder, port| {
            let config = format!(
                "server:\n    rundir: \"{folder}\"\n    listen: 127.0.0.1@{port}\n    udp-workers: 1\n    tcp-workers: 1\n    \
                 background-workers: 1\ndatabase:\n    storage: \"{folder}/db\"\nlog:\n  - target: stderr\n    any: error\n\
                 zone:\n  - domain: maesh\n    file: \"{folder}/zone\"\n    semantic-checks: off\n",
                folder = folder.display()
            );
            let mut command = Command::new(&program);
            command.arg("-c").arg(written(folder, "knot.conf", &config));
            command
        }))
    }

    /// Starts NSD; `None`, after saying so, if it is not there.
    pub fn nsd() -> Option<Self> {
        let program = need_program("nsd", "nsd")?;
        Some(Self::start("nsd", |folder, port| {
            let config = format!(
                "server:\n    ip-address: 127.0.0.1@{port}\n    server-count: 1\n    username: \"\"\n    chroot: \"\"\n    \
                 zonesdir: \"{folder}\"\n    database: \"\"\n    pidfile: \"\"\n    zonelistfile: \"{folder}/zones\"\n    \
                 xfrdfile: \"{folder}/xfrd\"\n    xfrdir: \"{folder}\"\n    logfile: \"{folder}/log\"\n    rrl-ratelimit: 0\n    \
                 minimal-responses: yes\nremote-control:\n    control-enable: no\nzone:\n    name: \"maesh\"\n    \
                 zonefile: \"zone\"\n",
                folder = folder.display()
            );
            let mut command = Command::new(&program);
            command.arg("-d").arg("-c").arg(written(folder, "nsd.conf", &config));
            command
        }))
    }

    fn start(name: &'static str, command: impl Fn(&Path, u16) -> Command) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        written(folder.path(), "zone", &zone_file());
        // A free port may be taken before the server has it: then the next one is tried.
        for _ in 0..5 {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            let mut process = Process::start(&mut command(folder.path(), address.port())).expect("it starts");
            let mut ended = false;
            until(STARTS_WITHIN, || {
                ended = !process.runs();
                ended || TcpStream::connect(address).is_ok()
            });
            if !ended {
                return Self { name, address, _process: process, _folder: folder };
            }
        }
        panic!("{name} does not start");
    }
}

/// Writes a file; its path.
fn written(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).expect("written");
    path
}

/// A port that was free for both transports a moment ago.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
