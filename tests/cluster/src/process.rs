//! Processes in pods of our cluster, found from outside: for what no API can do to them.

use std::fs;

use anyhow::{Context, Result, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use crate::cgroup;

/// Sends `signal` to the processes of `pod` whose program is `program`.
///
/// # Errors
/// When there is none, or one cannot be reached.
pub fn signal(pod: &str, program: &str, signal: Signal) -> Result<()> {
    let mut found = 0;
    for pid in cgroup::processes() {
        if !is_in(pid, pod, program) {
            continue;
        }
        let process = Pid::from_raw(pid).context("a process id")?;
        kill_process(process, signal).with_context(|| format!("process {pid} of {pod}"))?;
        found += 1;
    }
    if found == 0 {
        bail!("no process of {pod} runs {program}");
    }
    Ok(())
}

/// Containers have their pod's name in HOSTNAME.
fn is_in(pid: i32, pod: &str, program: &str) -> bool {
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let first = |bytes: &[u8]| bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    let host = format!("HOSTNAME={pod}");
    first(&read("cmdline")) == program.as_bytes()
        && read("environ").split(|byte| *byte == 0).any(|variable| variable == host.as_bytes())
}
