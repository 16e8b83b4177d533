//! A real Kubernetes of several nodes on one machine, for tests and for people.
//!
//! Every node is a network, mount, process and host name space with its own containerd, kubelet and kube-proxy; the
//! control plane has a network namespace that the nodes are plugged into, and from there no route leads out. There is
//! one such cluster on a machine. [`up()`] makes it, [`down()`] removes every process, mount, namespace, cgroup and file of
//! it, also of one whose owner was killed. Needs root.

mod cgroup;
mod command;
mod control;
mod cut_off;
mod down;
pub mod dump;
mod guard;
mod helm;
mod kube;
pub mod load;
mod network;
mod node;
mod place;
pub mod process;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

pub use control::{Daemon, audit};
pub use cut_off::CutOff;
pub use down::down;
pub use guard::Guard;
pub use helm::{MESH, chart, chart_before, helm};
pub use kube::{Kube, ON_CONTEXT};
pub use node::load_image;
pub use place::{
    BEFORE_IMAGE, CNI, COLLECTOR_IMAGE, DNS_IMAGE, ECHO_IMAGE, GLIBC_IMAGE, MESH_IMAGE, OLD_DNS_IMAGE, PAUSE_IMAGE,
    archive, exec, images, kubeconfig,
};

use place::STATE;

/// What kind of cluster is wanted.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many nodes, 1 to 9.
    pub nodes: u8,
    /// Whether pods and Services have IPv6 addresses too.
    pub dual_stack: bool,
    /// Images that every node gets, as archives of OCI layouts; CoreDNS and [`PAUSE_IMAGE`] must be among them.
    pub images: Vec<PathBuf>,
}

/// How long nodes or CoreDNS may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// Removes what is left of an earlier cluster and makes a new one; returns once every node is ready and CoreDNS
/// answers. On an error what was made is left to look at: the caller drops its [`Guard`] or calls [`down()`].
///
/// # Errors
/// When a program is missing, or a part does not come up in time; the error has its last words.
pub fn up(options: &Options) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the test cluster needs root: it makes namespaces, mounts and cgroups");
    }
    if !(1..=9).contains(&options.nodes) {
        bail!("{} nodes are not possible: 1 to 9 are", options.nodes);
    }
    down()?;
    let since = Instant::now();
    place::prepare()?;
    network::make(options)?;
    control::start(options)?;
    node::start_all(options)?;
    // Meanwhile the nodes become ready.
    for image in &options.images {
        load_image(image)?;
    }
    wait("wait --for=condition=Ready node --all")?;
    eprintln!("{} nodes are ready after {:.1} s", options.nodes, since.elapsed().as_secs_f32());
    Kube::ours().apply(include_str!("../manifests/coredns.yaml"))?;
    wait("--namespace=kube-system rollout status deployment/coredns")?;
    eprintln!("CoreDNS is available after {:.1} s", since.elapsed().as_secs_f32());
    Ok(())
}

fn wait(arguments: &str) -> Result<()> {
    let kube = Kube::ours();
    if let Err(error) = kube.run(&format!("{arguments} --timeout={}s", PATIENCE.as_secs())) {
        let state = kube.run("get nodes,pods,events --all-namespaces").unwrap_or_default();
        bail!("{error:#}\n{state}\nLogs are in {STATE}");
    }
    Ok(())
}
