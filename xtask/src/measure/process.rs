//! Programs started for a measurement: pinned, held by their process id, and gone afterwards.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use maesh_test_support::until;
use rustix::process::{Pid, Signal, kill_process};

use super::usage::{Usage, mebibytes, resident, tree};

/// How long a program may take to end after SIGTERM before it gets SIGKILL.
const GRACE: Duration = Duration::from_secs(3);

/// A command for `program` that runs on the processors `cpus` only (`0`, `0,2`, `1-3`: the list of taskset).
///
/// taskset replaces itself by the program, so the process id is the program's own.
pub(crate) fn pinned(cpus: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", cpus]).arg(program);
    command
}

/// A started program. Dropped, it and every process below it are ended, by the process ids seen at that moment.
pub(crate) struct Running {
    name: String,
    child: Child,
    log: File,
}

impl Running {
    /// Starts `command`, without standard input; both outputs are kept for [`Running::output`].
    pub(crate) fn start(name: &str, mut command: Command) -> Result<Self> {
        let log = tempfile::tempfile().context("a file for the program's output")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// The program's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far on both outputs.
    pub(crate) fn output(&self) -> String {
        self.log().map(|log| log.read()).unwrap_or_default()
    }

    /// What it prints on both outputs, for whoever waits for a word of it.
    pub(crate) fn log(&self) -> Result<Log> {
        Ok(Log(self.log.try_clone().context("the program's output")?))
    }

    /// Processor time so far of the program and every process below it, children that have ended included.
    pub(crate) fn usage(&self) -> Result<Usage> {
        Usage::of_tree(self.pid()).with_context(|| format!("processor time of {}", self.name))
    }

    /// Resident memory, in bytes, of the program and every process below it.
    pub(crate) fn resident(&self) -> Result<u64> {
        resident(self.pid()).with_context(|| format!("memory of {}", self.name))
    }

    /// The same in MiB.
    pub(crate) fn memory(&self) -> Result<f64> {
        self.resident().map(mebibytes)
    }

    /// Waits until `ready` says so; fails at once when the program ends, and after `limit` in any case.
    pub(crate) fn wait_until(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let mut ended = Ok(None);
        let is_ready = until(limit, || {
            ended = self.child.try_wait();
            !matches!(ended, Ok(None)) || ready()
        });
        if let Some(status) = ended? {
            bail!("{} ended ({status}) before it was ready:\n{}", self.name, self.output());
        }
        if !is_ready {
            bail!("{} was not ready within {limit:?}:\n{}", self.name, self.output());
        }
        Ok(())
    }

    /// Waits until TCP connections to `address` are accepted.
    pub(crate) fn wait_for_port(&mut self, address: SocketAddr) -> Result<()> {
        self.wait_until(Duration::from_secs(20), || {
            TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
        })
    }

    /// Waits for the program to end by itself.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().with_context(|| format!("waiting for {}", self.name))
    }

    /// Sends the program (not those below it) a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).with_context(|| format!("signalling {}", self.name))
    }

    /// Ends the program and all below it: SIGTERM, then SIGKILL for what is left after three seconds.
    fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let all = tree(self.pid());
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        until(GRACE, || !matches!(self.child.try_wait(), Ok(None)));
        for process in all {
            // Its id may be another's by now.
            if process.is_running()
                && let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw)
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

/// The outputs of a program that runs.
pub(crate) struct Log(File);

impl Log {
    /// The same outputs once more.
    pub(crate) fn again(&self) -> Result<Self> {
        Ok(Self(self.0.try_clone().context("the program's output")?))
    }

    /// Everything so far.
    pub(crate) fn read(&self) -> String {
        let mut text = Vec::new();
        // The position in the file is the program's as well; opened anew through /proc, it has one of its own.
        if let Ok(mut log) = File::open(format!("/proc/self/fd/{}", self.0.as_raw_fd())) {
            let _ = log.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A TCP port of 127.0.0.1 that was free a moment ago, for programs that cannot take port 0.
pub(crate) fn free_tcp_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A port of 127.0.0.1 that was free a moment ago for both UDP and TCP.
pub(crate) fn free_udp_port() -> Result<u16> {
    for _ in 0..50 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = tcp.local_addr()?.port();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of 127.0.0.1 is free for both UDP and TCP")
}
