//! Removes the cluster, however much of it there is.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use maesh_test_support::until;
use rustix::process::{Pid, Signal, kill_process};

use crate::command::line;
use crate::network::LAB;
use crate::{cgroup, place};

/// Longer than the kernel takes to end a node's processes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ends every process of the cluster and removes its namespaces, cgroups, mounts and files. Harmless when there is
/// none.
///
/// # Errors
/// When something of it stays.
pub fn down() -> Result<()> {
    // A node's first process is among them: with it the kernel ends every container and mount of the node.
    let ended = until(PATIENCE, || {
        let left = processes();
        for pid in &left {
            if let Some(pid) = Pid::from_raw(*pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        left.is_empty()
    });
    if !ended {
        bail!("processes of the cluster do not end: {:?}", processes());
    }
    for name in namespaces() {
        line(&format!("ip netns delete {name}"))?;
    }
    if !until(PATIENCE, cgroup::remove) {
        bail!("the cgroups {} cannot be removed", cgroup::ROOT);
    }
    place::restore()?;
    // The mount that `ip netns` makes for the first namespace.
    let folder = Path::new("/run/netns");
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none()) && mounted(folder) {
        line("umount /run/netns")?;
    }
    Ok(())
}

/// Our network namespaces.
fn namespaces() -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name == LAB || name.strip_prefix(LAB).is_some_and(|rest| rest.starts_with("-n")))
        .collect()
}

/// Processes in our namespaces and cgroups, each once.
fn processes() -> Vec<i32> {
    let mut found = cgroup::processes();
    for name in namespaces() {
        let text = line(&format!("ip netns pids {name}")).unwrap_or_default();
        found.extend(text.lines().filter_map(|pid| pid.trim().parse::<i32>().ok()));
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn mounted(folder: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|at| Path::new(at) == folder))
}
