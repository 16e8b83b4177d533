//! Where the cluster's files are, and what of the machine it changes: a few empty folders and host-wide settings, put
//! back by [`crate::down()`].

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use maesh_test_support::repository;

use crate::network::{self, LAB};

/// Everything the cluster writes. Fixed, so that the next command finds what a killed one left.
pub(crate) const STATE: &str = "/tmp/maesh-cluster";

/// Where Debian puts the CNI plugins.
pub const CNI: &str = "/usr/lib/cni";

/// Name of the image that holds a pod's namespaces.
pub const PAUSE_IMAGE: &str = "lab.local/pause:1";

/// Name of the image with the echo server and the client.
pub const ECHO_IMAGE: &str = "lab.local/pod:1";

/// Name of the image with the same program, linked with glibc and its files.
pub const GLIBC_IMAGE: &str = "lab.local/pod-glibc:1";

/// Name of CoreDNS's image.
pub const DNS_IMAGE: &str = "lab.local/coredns:1";

/// Name of the mesh's image, built quickly.
pub const MESH_IMAGE: &str = "lab.local/maesh:1";

/// Name of the image of a CoreDNS of some years ago; no cluster has it from the beginning.
pub const OLD_DNS_IMAGE: &str = "lab.local/coredns:old";

/// Name of the image of an OpenTelemetry collector; no cluster has it from the beginning.
pub const COLLECTOR_IMAGE: &str = "lab.local/otelcol:1";

/// Name of the mesh's image of the commit before; no cluster has it from the beginning.
pub const BEFORE_IMAGE: &str = "lab.local/maesh:before";

/// Where the archive of the image `name` lies once it is built: with what else was built of this state of the
/// repository, so that two clones do not disturb each other.
pub fn archive(name: &str) -> PathBuf {
    target().join("cluster-images").join(format!("{}.tar", name.replace(['/', ':'], "-")))
}

/// Where the sources of [`BEFORE_IMAGE`] lie once it is built.
pub(crate) fn before() -> PathBuf {
    target().join("before/sources")
}

fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

/// The archives of all images that a cluster needs; `None` when one is not built.
pub fn images() -> Option<Vec<PathBuf>> {
    let all = [PAUSE_IMAGE, ECHO_IMAGE, GLIBC_IMAGE, DNS_IMAGE, MESH_IMAGE].map(archive);
    all.iter().all(|file| file.exists()).then(|| all.to_vec())
}

/// Mount points that every node covers with folders of its own.
const MOUNT_POINTS: &[&str] = &["/var/lib/kubelet", "/var/lib/containerd", "/var/lib/cni", "/etc/cni"];

/// Settings of the whole machine that a kubelet writes, and one that several nodes need.
const SETTINGS: &[&str] = &[
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "fs/inotify/max_user_instances",
];

/// A file in the state folder.
pub(crate) fn state(name: &str) -> PathBuf {
    Path::new(STATE).join(name)
}

/// The administrator's kubeconfig. Its server is reached inside the cluster's outer namespace only.
pub fn kubeconfig() -> PathBuf {
    state("admin.kubeconfig")
}

/// A command on the node `node` (`n1`, `n2`, ...), or beside the API server when `node` is `lab`.
///
/// # Errors
/// When there is no such node, or the cluster is not up.
pub fn exec(node: &str, command: &[String]) -> Result<Command> {
    let mut inside = if node == "lab" {
        if !network::file(LAB).exists() {
            bail!("the cluster is not up: cargo xtask cluster up");
        }
        network::inside(LAB, "env")
    } else {
        crate::node::inside(node, "env")?
    };
    let tools = maesh_test_support::tool("kubectl")?;
    let tools = tools.parent().unwrap_or_else(|| Path::new("/")).display().to_string();
    let path = env::var("PATH").unwrap_or_default();
    inside.arg(format!("KUBECONFIG={}", kubeconfig().display())).arg(format!("PATH={tools}:{path}")).args(command);
    Ok(inside)
}

/// Makes the state folder, and the mount points, and writes down what has to be put back.
pub(crate) fn prepare() -> Result<()> {
    fs::create_dir_all(STATE).context(STATE)?;
    let mut settings = String::new();
    for name in SETTINGS {
        let value = fs::read_to_string(Path::new("/proc/sys").join(name)).with_context(|| (*name).to_owned())?;
        settings.push_str(&format!("{name} {}\n", value.trim()));
    }
    fs::write(state("settings"), settings)?;
    let made: Vec<&str> = MOUNT_POINTS.iter().copied().filter(|folder| !Path::new(folder).exists()).collect();
    fs::write(state("made"), made.join("\n"))?;
    for folder in made {
        fs::create_dir_all(folder).with_context(|| folder.to_owned())?;
    }
    fs::write("/proc/sys/fs/inotify/max_user_instances", "1024").context("fs.inotify.max_user_instances")?;
    Ok(())
}

/// Puts back what [`prepare`] wrote down, and removes the state folder.
pub(crate) fn restore() -> Result<()> {
    for line in fs::read_to_string(state("settings")).unwrap_or_default().lines() {
        if let Some((name, value)) = line.split_once(' ') {
            fs::write(Path::new("/proc/sys").join(name), value).with_context(|| name.to_owned())?;
        }
    }
    for folder in fs::read_to_string(state("made")).unwrap_or_default().lines() {
        // Only when it is empty still: anything in there is not ours.
        let _ = fs::remove_dir(folder);
    }
    match fs::remove_dir_all(STATE) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context(STATE),
        _ => Ok(()),
    }
}
