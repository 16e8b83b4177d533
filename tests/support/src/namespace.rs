//! A network of a test's own.
//!
//! A test that needs private addresses, fixed ports or several hosts makes a network namespace and works in there: the
//! machine's own network never sees any of it. The namespace has no name and no mount; it lives as long as its guard,
//! a shell that waits for the end of its standard input. That end comes when [`Namespace`] is dropped, and also when
//! the test's process ends in any other way (Ctrl-C, SIGKILL, abort): then the guard ends every process in the
//! namespace, removes the test's folder, and goes, and the namespace with it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What the guard does; its first argument is the folder to remove. Signals are for the tests, not for it.
const GUARD: &str = r#"
trap '' INT TERM HUP QUIT
ip link set lo up &&
echo 1 > /proc/sys/net/ipv6/ip_nonlocal_bind &&
echo 1 > /proc/sys/net/ipv4/ip_nonlocal_bind &&
echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start &&
echo ready || exit 1
exec 1>&- 2>&-
cat > /dev/null
own=$(readlink /proc/$$/ns/net)
for try in 1 2 3 4 5 6 7 8 9 10; do
    left=
    for process in /proc/[0-9]*; do
        pid=${process#/proc/}
        if [ "$pid" != $$ ] && [ "$(readlink "$process/ns/net")" = "$own" ]; then
            kill -9 "$pid" && left=yes
        fi
    done
    [ -z "$left" ] && break
    sleep 0.05
done
rm -rf "$1"
"#;

/// Addresses that are local in every namespace, any of them to be bound or dialled without further ado: nodes and
/// other hosts (10.89.0.0/16), pods (10.244.0.0/16), and the same in IPv6.
pub const RANGES: &[&str] = &["10.89.0.0/16", "10.244.0.0/16", "fd00:10:89::/64", "fd00:10:244::/48"];

/// A network namespace, and a folder that goes with it. Dropped, every process in it is ended (SIGKILL).
#[derive(Debug)]
pub struct Namespace {
    guard: Child,
    folder: PathBuf,
}

impl Namespace {
    /// Makes a namespace whose loopback interface is up, with [`RANGES`] as local addresses. Needs root.
    ///
    /// # Errors
    /// When the folder or the namespace cannot be made, or `unshare` or `ip` is missing.
    pub fn new() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("maesh-test-").tempdir()?.keep();
        let mut guard = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", GUARD, "guard"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = guard.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let namespace = Self { guard, folder };
        if line.trim() != "ready" {
            return Err(io::Error::other("the network namespace could not be set up (needs root, unshare and ip)"));
        }
        for range in RANGES {
            namespace.make_local(range)?;
        }
        Ok(namespace)
    }

    /// A folder for this test, removed at the end.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The namespace's file, for `nsenter --net=` and the like.
    pub fn file(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.guard.id()).into()
    }

    /// A command that will run in here. It becomes `program` itself, so the process id of the child is the program's.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.file().display())).arg("--").arg(program);
        command
    }

    /// Makes every address of `range` local.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn make_local(&self, range: &str) -> io::Result<()> {
        let output = self.command("ip").args(["route", "add", "local", range, "dev", "lo"]).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("making {range} local: {}", String::from_utf8_lossy(&output.stderr).trim())))
    }

    /// Runs `work` in here, on a thread of its own: sockets that it opens, and threads and runtimes that it starts,
    /// belong to this namespace.
    ///
    /// # Errors
    /// When the thread cannot move into the namespace.
    ///
    /// # Panics
    /// When `work` does, in the same way.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let file = File::open(self.file())?;
        // The new thread bears the test's name, so that a skip in there is noted under it.
        let name = thread::current().name().unwrap_or("in a network namespace").to_owned();
        let done = thread::scope(|scope| {
            let inside = move || -> io::Result<T> {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            };
            thread::Builder::new().name(name).spawn_scoped(scope, inside).map(thread::ScopedJoinHandle::join)
        });
        done?.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}
