//! A node: namespaces held by one first process, and containerd, kubelet and kube-proxy inside them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use maesh_test_support::{tool, until};
use serde_json::json;

use crate::command::{checked, daemon};
use crate::control::{last_words, pki, pods};
use crate::network::{GATEWAY, LAB, addresses, file, node, pod_networks};
use crate::place::{CNI, PAUSE_IMAGE, state};
use crate::{Options, cgroup};

/// How long a node's first process and containerd may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The first process of a node. The cgroup mounts are kept while the rest of /sys becomes the node's own network's.
const INIT: &str = r#"set -e
name=$1 own=$2
hostname "$name"
mkdir -p "$own/cgroup"
mount --rbind /sys/fs/cgroup "$own/cgroup"
mount -t sysfs sysfs /sys
mount --move "$own/cgroup" /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mkdir -p /run/lock
for at in /var/lib/kubelet /var/lib/containerd /var/lib/cni /etc/cni /var/log; do
    mount --bind "$own$at" "$at"
done
mount --bind "$own/resolv.conf" /etc/resolv.conf
mount --bind "$own/hosts" /etc/hosts
mount --make-rshared /
touch "$own/ready"
exec tini -s -- sleep infinity"#;

/// Starts all nodes; they may not be ready yet.
pub(crate) fn start_all(options: &Options) -> Result<()> {
    for index in 1..=options.nodes {
        start(index, options).with_context(|| format!("node {}", node(index)))?;
    }
    Ok(())
}

/// The file `path` of node `name` in the state folder.
fn own(name: &str, path: &str) -> PathBuf {
    state(name).join(path)
}

fn start(index: u8, options: &Options) -> Result<()> {
    let name = node(index);
    for folder in ["var/lib/kubelet", "var/lib/containerd", "var/lib/cni", "etc/cni/net.d", "var/log"] {
        fs::create_dir_all(own(&name, folder))?;
    }
    configure(index, &name, options)?;
    let groups = cgroup::make(&name)?;
    let mut init = Command::new("nsenter");
    init.arg(format!("--net={}", file(&format!("{LAB}-{name}")).display()))
        .args(["unshare", "-m", "-u", "-p", "-f", "--mount-proc", "--kill-child", "--", "sh", "-c", INIT, "init"])
        .arg(&name)
        .arg(state(&name));
    let process = daemon(&init, &groups, &state(&format!("{name}-init.log")))?;
    if !until(PATIENCE, || own(&name, "ready").exists()) {
        bail!("its first process does not start: {}", last_words(&format!("{name}-init")));
    }
    // What unshare started; unshare itself stays outside.
    let unshare = process.id();
    let child = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).context("its first process")?;
    fs::write(own(&name, "pid"), child.trim())?;
    let run = |what: &str, command: &Command| -> Result<()> {
        daemon(command, &groups, &state(&format!("{name}-{what}.log"))).map(drop)
    };
    run("containerd", inside(&name, "containerd")?.arg("--config").arg(own(&name, "containerd.toml")))?;
    if !until(PATIENCE, || {
        inside(&name, "test")
            .is_ok_and(|mut test| checked(test.args(["-S", "/run/containerd/containerd.sock"])).is_ok())
    }) {
        bail!("containerd does not start: {}", last_words(&format!("{name}-containerd")));
    }
    let mut kubelet = inside(&name, tool("kubelet")?)?;
    kubelet
        .arg(format!("--config={}", own(&name, "kubelet.json").display()))
        .arg(format!("--kubeconfig={}", state(&format!("{name}.kubeconfig")).display()))
        .arg(format!("--hostname-override={name}"))
        .arg(format!("--node-ip={}", addresses(index, options.dual_stack).join(",")));
    run("kubelet", &kubelet)?;
    let mut proxy = inside(&name, tool("kube-proxy")?)?;
    run("kube-proxy", proxy.arg(format!("--config={}", own(&name, "proxy.json").display())))
}

/// A command on node `name`.
///
/// # Errors
/// When there is no such node.
pub(crate) fn inside(name: &str, program: impl AsRef<OsStr>) -> Result<Command> {
    let Ok(pid) = fs::read_to_string(own(name, "pid")) else {
        bail!("there is no node {name}: it is lab, or n1 to the number of nodes, while the cluster is up");
    };
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid, "-n", "-m", "-u", "-p", "--"]).arg(program);
    Ok(command)
}

/// Gives every node the image in `image`: an OCI layout, as a folder or as an archive.
///
/// # Errors
/// When a node refuses it.
pub fn load_image(image: &Path) -> Result<()> {
    let mut archive = image.to_owned();
    if image.is_dir() {
        archive = state("image.tar");
        checked(Command::new("tar").arg("-C").arg(image).arg("-cf").arg(&archive).args([
            "oci-layout",
            "index.json",
            "blobs",
        ]))?;
    }
    let archive = archive.canonicalize().with_context(|| image.display().to_string())?;
    let nodes: Vec<String> = (1..=9).map(node).filter(|name| own(name, "pid").exists()).collect();
    if nodes.is_empty() {
        bail!("the cluster is not up: cargo xtask cluster up");
    }
    // All at once: they write to folders of their own.
    let imports = nodes.iter().map(|name| {
        let mut import = inside(name, "ctr")?;
        import.args(["-n", "k8s.io", "images", "import"]).arg(&archive).stdin(Stdio::null());
        import.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("starting ctr")
    });
    for (name, import) in nodes.iter().zip(imports.collect::<Vec<_>>()) {
        let output = import?.wait_with_output().context("waiting for ctr")?;
        if !output.status.success() {
            bail!("{name} refuses {}: {}", archive.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    Ok(())
}

/// Writes the configuration of everything on a node.
fn configure(index: u8, name: &str, options: &Options) -> Result<()> {
    fs::write(own(name, "resolv.conf"), format!("nameserver {GATEWAY}\n"))?;
    fs::write(own(name, "hosts"), format!("127.0.0.1 localhost\n::1 localhost\n10.89.0.1{index} {name}\n"))?;
    // Lowering the score needs a capability that root in a container lacks; without this no pod would start there.
    let containerd = format!(
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{PAUSE_IMAGE}\"\n\
         restrict_oom_score_adj = true\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"{CNI}\"\n\
         conf_dir = \"/etc/cni/net.d\"\n"
    );
    fs::write(own(name, "containerd.toml"), containerd)?;
    let kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}/{name}", cgroup::ROOT),
        "failCgroupV1": false, "failSwapOn": false,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": ["10.96.0.10"], "clusterDomain": "cluster.local", "resolvConf": own(name, "resolv.conf"),
        "authentication": { "anonymous": { "enabled": false }, "webhook": { "enabled": true },
            "x509": { "clientCAFile": pki("ca.crt") } },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": pki(&format!("{name}-serving.crt")), "tlsPrivateKeyFile": pki(&format!("{name}-serving.key")),
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        // How soon pods see that a ConfigMap has changed. With the default, a minute and more, every change of the
        // cluster's DNS would be waited for that long.
        "syncFrequency": "10s",
        // Images come by hand only: one that is collected would be lost.
        "imageGCHighThresholdPercent": 100,
        // The load's logs are read at the end.
        "containerLogMaxSize": "200Mi",
        "evictionHard": { "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
    });
    fs::write(own(name, "kubelet.json"), kubelet.to_string())?;
    let proxy = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": state("proxy.kubeconfig") },
        "hostnameOverride": name, "mode": "nftables", "clusterCIDR": pods(options.dual_stack), "detectLocalMode": "ClusterCIDR",
        // The table's size belongs to the machine.
        "conntrack": { "maxPerCore": 0, "min": 0 },
    });
    fs::write(own(name, "proxy.json"), proxy.to_string())?;
    let networks = pod_networks(index, options.dual_stack);
    let ranges: Vec<_> = networks.iter().map(|network| json!([{ "subnet": network }])).collect();
    let routes = if options.dual_stack { vec!["0.0.0.0/0", "::/0"] } else { vec!["0.0.0.0/0"] };
    let routes: Vec<_> = routes.iter().map(|to| json!({ "dst": to })).collect();
    let cni = json!({
        "cniVersion": "1.0.0", "name": "pods",
        "plugins": [
            // Masquerading would hide pods' addresses from other nodes.
            { "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": false, "mtu": 1500,
              "ipam": { "type": "host-local", "ranges": ranges, "routes": routes } },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    fs::write(own(name, "etc/cni/net.d/10-pods.conflist"), cni.to_string())?;
    Ok(())
}
