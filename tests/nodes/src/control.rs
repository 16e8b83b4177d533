//! The control plane: etcd, API server, controller manager and scheduler, and the DNS server that stands for the
//! world outside.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use maesh_test_support::{tool, until};
use maesh_testkube::Certificates;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::command::daemon;
use crate::kube::Kube;
use crate::network::{GATEWAY, LAB, addresses, families, inside, node, pod_networks};
use crate::place::{kubeconfig, state};
use crate::{Options, cgroup};

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The lines of the audit log: every write with who made it, in JSON, those of a killed API server included.
///
/// # Errors
/// When it cannot be read.
pub fn audit() -> Result<Vec<serde_json::Value>> {
    let file = state("audit.log");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    // The last line may not be whole.
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Every write with who made it, one line of JSON each.
const AUDIT: &str = r#"{"apiVersion":"audit.k8s.io/v1","kind":"Policy","omitStages":["RequestReceived"],
"rules":[{"level":"Metadata","verbs":["create","update","patch","delete","deletecollection"]},{"level":"None"}]}"#;

/// The outside world: it knows no name.
const OUTSIDE: &str = ".:53 {\n  bind 10.89.0.1\n  template ANY ANY . {\n    rcode NXDOMAIN\n  }\n}\n";

/// Starts everything and creates the Node objects, whose pod networks are thereby fixed.
pub(crate) fn start(options: &Options) -> Result<()> {
    certificates(options)?;
    fs::write(state("outside.corefile"), OUTSIDE)?;
    let groups = cgroup::make("control")?;
    fs::write(state("audit.json"), AUDIT)?;
    let run = |name: &str, command: &Command| -> Result<()> {
        daemon(command, &groups, &state(&format!("{name}.log"))).map(drop)
    };
    run("outside-dns", inside(LAB, tool("coredns")?).arg("-conf").arg(state("outside.corefile")))?;
    run("etcd", &etcd()?)?;
    if options.dual_stack {
        fs::write(state("dual-stack"), "")?;
    }
    Daemon::ApiServer.start()?;
    Daemon::ControllerManager.start()?;
    run("kube-scheduler", inside(LAB, tool("kube-scheduler")?).args(["--leader-elect=false", &config("scheduler")]))?;
    Kube::ours().apply(&nodes(options))
}

/// A daemon that tests take away and bring back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemon {
    /// The API server.
    ApiServer,
    /// The controllers of Kubernetes. They do not elect a leader here, by which they would end ten seconds after the API
    /// server: a test that takes that away takes them away too. Those that went on would find every node silent for so long,
    /// and take its pods out of Services when they may write again.
    ControllerManager,
}

impl Daemon {
    fn name(self) -> &'static str {
        match self {
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
        }
    }

    /// Starts it, as it was before; of the API server, returns when it is ready.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(self) -> Result<()> {
        let dual_stack = fs::exists(state("dual-stack")).context("what kind of cluster this is")?;
        let command = match self {
            Self::ApiServer => apiserver(dual_stack)?,
            Self::ControllerManager => controller_manager(dual_stack)?,
        };
        let log = state(&format!("{}.log", self.name()));
        let child = daemon(&command, &cgroup::make("control")?, &log)?;
        fs::write(state(&format!("{}.pid", self.name())), child.id().to_string())?;
        if self == Self::ApiServer && !until(PATIENCE, || Kube::ours().run("get --raw=/readyz").is_ok()) {
            bail!("the API server is not ready: {}", last_words(self.name()));
        }
        Ok(())
    }

    /// Ends it at once, as a machine does that loses its power; of the API server, returns when it is gone.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill(self) -> Result<()> {
        self.signal(Signal::KILL)?;
        if self == Self::ApiServer && !until(PATIENCE, || Kube::ours().run("get --raw=/livez").is_err()) {
            bail!("{} still answers", self.name());
        }
        Ok(())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal(self, signal: Signal) -> Result<()> {
        let file = state(&format!("{}.pid", self.name()));
        let pid = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let pid = pid.parse().ok().and_then(Pid::from_raw).context("its process id")?;
        kill_process(pid, signal).with_context(|| format!("a signal for {}", self.name()))
    }
}

/// The end of a daemon's log.
pub(crate) fn last_words(name: &str) -> String {
    let log = fs::read_to_string(state(&format!("{name}.log"))).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// `--kubeconfig=` of a user.
fn config(user: &str) -> String {
    format!("--kubeconfig={}", state(&format!("{user}.kubeconfig")).display())
}

/// A file of the certificates' folder.
pub(crate) fn pki(name: &str) -> PathBuf {
    state("pki").join(name)
}

/// Makes all certificates and kubeconfigs.
fn certificates(options: &Options) -> Result<()> {
    let folder = state("pki");
    let made = Certificates::new(&folder)?;
    let mut names = vec!["kubernetes", "localhost", "127.0.0.1", "10.96.0.1", GATEWAY];
    names.extend(["kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]);
    made.server("apiserver", &names)?;
    let masters = &["system:masters"][..];
    let front = Certificates::new(&folder.join("front"))?;
    front.user("client", "front-proxy-client", &[])?;
    made.user("kubelet-client", "kube-apiserver-kubelet-client", masters)?;
    let mut users = vec![
        ("admin".to_owned(), "admin".to_owned(), masters),
        ("controller-manager".to_owned(), "system:kube-controller-manager".to_owned(), &[][..]),
        ("scheduler".to_owned(), "system:kube-scheduler".to_owned(), &[]),
        ("proxy".to_owned(), "system:kube-proxy".to_owned(), &[]),
    ];
    for index in 1..=options.nodes {
        let name = node(index);
        users.push((name.clone(), format!("system:node:{name}"), &["system:nodes"]));
        let addresses = addresses(index, true);
        let subjects: Vec<&str> = [name.as_str()].into_iter().chain(addresses.iter().map(String::as_str)).collect();
        made.server(&format!("{name}-serving"), &subjects)?;
    }
    for (file, name, groups) in users {
        made.user(&file, &name, groups)?;
        let path = |file: &str| folder.join(file).display().to_string();
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "maesh-cluster",
            "clusters": [{ "name": "maesh-cluster", "cluster": {
                "server": format!("https://{GATEWAY}:6443"), "certificate-authority": path("ca.crt") } }],
            "users": [{ "name": file, "user": {
                "client-certificate": path(&format!("{file}.crt")), "client-key": path(&format!("{file}.key")) } }],
            "contexts": [{ "name": "maesh-cluster", "context": { "cluster": "maesh-cluster", "user": file } }],
        });
        let to = if file == "admin" { kubeconfig() } else { state(&format!("{file}.kubeconfig")) };
        fs::write(&to, text.to_string()).with_context(|| to.display().to_string())?;
    }
    Ok(())
}

fn etcd() -> Result<Command> {
    let mut command = inside(LAB, tool("etcd")?);
    command.arg("--data-dir").arg(state("etcd")).args([
        "--name=lab",
        "--log-level=warn",
        // The data is thrown away with the cluster.
        "--unsafe-no-fsync",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=lab=http://127.0.0.1:2380",
    ]);
    Ok(command)
}

/// Adds `--FLAG=FILE` for each.
fn files(command: &mut Command, flags: &[(&str, &str)]) {
    for (flag, file) in flags {
        command.arg(format!("--{flag}={}", pki(file).display()));
    }
}

/// The networks of Services.
fn services(dual_stack: bool) -> String {
    families(dual_stack, "10.96.0.0/16", "fd00:10:96::/112").join(",")
}

/// The network of all pods.
pub(crate) fn pods(dual_stack: bool) -> String {
    families(dual_stack, "10.244.0.0/16", "fd00:10:244::/48").join(",")
}

fn apiserver(dual_stack: bool) -> Result<Command> {
    let mut command = inside(LAB, tool("kube-apiserver")?);
    command.args([
        "--etcd-servers=http://127.0.0.1:2379",
        "--secure-port=6443",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--kubelet-preferred-address-types=InternalIP",
        // No kube-proxy runs beside it: webhooks are called at the addresses of their pods.
        "--enable-aggregator-routing=true",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    ]);
    command
        .arg(format!("--audit-policy-file={}", state("audit.json").display()))
        .arg(format!("--audit-log-path={}", state("audit.log").display()))
        .arg(format!("--advertise-address={GATEWAY}"))
        .arg(format!("--service-cluster-ip-range={}", services(dual_stack)));
    files(
        &mut command,
        &[
            ("client-ca-file", "ca.crt"),
            ("tls-cert-file", "apiserver.crt"),
            ("tls-private-key-file", "apiserver.key"),
            ("service-account-key-file", "tokens.pub"),
            ("service-account-signing-key-file", "tokens.key"),
            ("kubelet-client-certificate", "kubelet-client.crt"),
            ("kubelet-client-key", "kubelet-client.key"),
            ("kubelet-certificate-authority", "ca.crt"),
            ("requestheader-client-ca-file", "front/ca.crt"),
            ("proxy-client-cert-file", "front/client.crt"),
            ("proxy-client-key-file", "front/client.key"),
        ],
    );
    Ok(command)
}

fn controller_manager(dual_stack: bool) -> Result<Command> {
    let mut command = inside(LAB, tool("kube-controller-manager")?);
    command.args([
        "--use-service-account-credentials=true",
        "--allocate-node-cidrs=true",
        "--configure-cloud-routes=false",
        "--leader-elect=false",
        "--node-cidr-mask-size-ipv4=24",
    ]);
    if dual_stack {
        command.arg("--node-cidr-mask-size-ipv6=64");
    }
    command
        .arg(config("controller-manager"))
        .arg(format!("--cluster-cidr={}", pods(dual_stack)))
        .arg(format!("--service-cluster-ip-range={}", services(dual_stack)));
    files(&mut command, &[("root-ca-file", "ca.crt"), ("service-account-private-key-file", "tokens.key")]);
    Ok(command)
}

/// The Node objects: with the first two in one zone and the others in a second.
fn nodes(options: &Options) -> String {
    let items: Vec<_> = (1..=options.nodes)
        .map(|index| {
            let networks = pod_networks(index, options.dual_stack);
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": { "name": node(index), "labels": {
                    "topology.kubernetes.io/zone": if index <= 2 { "zone-a" } else { "zone-b" } } },
                "spec": { "podCIDR": networks.first(), "podCIDRs": networks },
            })
        })
        .collect();
    json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()
}
