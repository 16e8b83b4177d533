//! Processes in pods of our cluster, found from outside: for what no API can do to them.

use std::fs;

use anyhow::{Context, Result, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use crate::cgroup;

/// Sends `signal` to the processes of `pod` whose command line begins with the words of `program`.
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

/// Ends what holds the namespaces of `pod`, so that the kubelet makes the pod's containers anew, at another address.
///
/// # Errors
/// When `program` does not run in it, or its holder is not found.
pub fn kill_sandbox(pod: &str, program: &str) -> Result<()> {
    let network = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let all = cgroup::processes();
    let inside = all.iter().find(|pid| is_in(**pid, pod, program)).with_context(|| format!("{pod} does not run"))?;
    let of_the_pod = network(*inside).context("its network")?;
    let holder = all.iter().find(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.starts_with(b"/program\0pause") && network(**pid).is_some_and(|its| its == of_the_pod)
    });
    let holder = holder.and_then(|pid| Pid::from_raw(*pid)).with_context(|| format!("nothing holds {pod}"))?;
    kill_process(holder, Signal::KILL).with_context(|| format!("the holder of {pod}"))
}

/// Containers have their pod's name in HOSTNAME.
fn is_in(pid: i32, pod: &str, program: &str) -> bool {
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let host = format!("HOSTNAME={pod}");
    let words = format!("{}\0", program.replace(' ', "\0"));
    read("cmdline").starts_with(words.as_bytes())
        && read("environ").split(|byte| *byte == 0).any(|variable| variable == host.as_bytes())
}
