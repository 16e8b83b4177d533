//! etcd and kube-apiserver as one thing that can be started, killed and started again.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use maesh_test_support::{Namespace, need_root, need_tool, tool, until};
use rustix::process::Signal;

use crate::{Certificates, Process};

/// The API server's address inside the namespace; its port is 6443.
pub const ADDRESS: &str = "10.89.0.1";

/// How long starting one of the two may take, on a machine that builds other things at the same time.
const START: Duration = Duration::from_secs(240);

/// What can be chosen for an API server.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Further flags of kube-apiserver; a flag given twice has its last value.
    pub flags: Vec<String>,
}

/// A Kubernetes API server and its store. Dropped, both are killed and nothing is left of them.
#[derive(Debug)]
pub struct ApiServer {
    // Dropped in this order: the programs before the namespace, whose folder holds their files.
    apiserver: Option<Process>,
    etcd: Process,
    certificates: Certificates,
    kubeconfig: PathBuf,
    options: Options,
    namespace: Arc<Namespace>,
}

impl ApiServer {
    /// Starts a server; the test is skipped, with the reason noted, when it cannot run here for want of root or of the
    /// programs.
    ///
    /// # Panics
    /// When everything is there and the server does not start all the same.
    pub fn start_or_skip() -> Option<Self> {
        let there = need_root() && need_tool("etcd").is_some() && need_tool("kube").is_some();
        there.then(|| match Self::start() {
            Ok(server) => server,
            Err(error) => panic!("the API server did not start: {error:#}"),
        })
    }

    /// Starts etcd and kube-apiserver in a new network namespace and waits until they serve.
    ///
    /// # Errors
    /// When a program is missing, the namespace cannot be made, or one of the two does not serve in time; its last
    /// words are part of the error.
    pub fn start() -> Result<Self> {
        Self::start_with(Options::default())
    }

    /// Like [`ApiServer::start`], with `options`.
    ///
    /// # Errors
    /// As [`ApiServer::start`].
    pub fn start_with(options: Options) -> Result<Self> {
        let namespace = Arc::new(Namespace::new().context("a network namespace")?);
        let folder = namespace.folder().to_owned();
        let certificates = Certificates::new(&folder.join("pki"))?;
        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let addresses = ["127.0.0.1", ADDRESS, "10.96.0.1", "fd00:10:89::1"];
        certificates.server("apiserver", &[&names[..], &addresses].concat())?;
        let etcd = start_etcd(&namespace)?;
        let kubeconfig = folder.join("kubeconfig");
        let mut server = Self { apiserver: None, etcd, certificates, kubeconfig, options, namespace };
        server.kubeconfig = server.kubeconfig_for("admin", &["system:masters"])?;
        server.start_apiserver()?;
        Ok(server)
    }

    /// Where the server lives, and everything that talks to it must. A clone of it stays usable while the server is
    /// stopped and started.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The authority that signed the server's certificate, and more if wanted.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Writes a kubeconfig for `user` in `groups`, authenticated by a certificate.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig_for(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let file = format!("user-{}", user.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
        self.certificates.user(&file, user, groups)?;
        let path = |name: &str| self.certificates.file(name).display().to_string();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters:\n- name: test\n  cluster: {{server: \"https://{ADDRESS}:6443\", certificate-authority: {ca}}}\n\
             users:\n- name: test\n  user: {{client-certificate: {crt}, client-key: {key}}}\n\
             contexts:\n- name: test\n  context: {{cluster: test, user: test}}\n",
            ca = path("ca.crt"),
            crt = path(&format!("{file}.crt")),
            key = path(&format!("{file}.key")),
        );
        let kubeconfig = self.namespace.folder().join(format!("{file}.kubeconfig"));
        fs::write(&kubeconfig, text).with_context(|| kubeconfig.display().to_string())?;
        Ok(kubeconfig)
    }

    /// kubectl, as the administrator.
    pub fn kubectl(&self) -> Command {
        // Where it is not built, the command's start says so.
        let kubectl = tool("kubectl").unwrap_or_else(|_| "kubectl".into());
        let mut command = self.namespace.command(kubectl);
        command.env("KUBECONFIG", &self.kubeconfig).env("KUBECACHEDIR", self.namespace.folder().join("kubectl"));
        command
    }

    /// Applies `manifests` (YAML, several documents if wanted) as the administrator.
    ///
    /// # Errors
    /// With kubectl's words when it refuses.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        let file = self.namespace.folder().join("apply.yaml");
        fs::write(&file, manifests)?;
        let output = self.kubectl().args(["apply", "--server-side", "--filename"]).arg(&file).output()?;
        if !output.status.success() {
            bail!("kubectl apply: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Process ids of etcd and, when it runs, of kube-apiserver.
    pub fn pids(&self) -> (u32, Option<u32>) {
        (self.etcd.pid(), self.apiserver.as_ref().map(Process::pid))
    }

    /// Kills the API server at once, as a crash does; etcd goes on.
    pub fn kill_apiserver(&mut self) {
        drop(self.apiserver.take());
    }

    /// Stops the API server in order (it ends its watches and then itself); etcd goes on.
    ///
    /// # Errors
    /// When it does not end within 70 seconds; it is killed then.
    pub fn stop_apiserver(&mut self) -> Result<()> {
        let Some(mut apiserver) = self.apiserver.take() else { return Ok(()) };
        apiserver.signal(Signal::TERM)?;
        if !until(Duration::from_secs(70), || apiserver.ended().is_some()) {
            bail!("kube-apiserver did not stop: {}", apiserver.last_words());
        }
        Ok(())
    }

    /// Starts the API server if it is not running, and waits until it is ready.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub fn start_apiserver(&mut self) -> Result<()> {
        if self.apiserver.is_some() {
            return Ok(());
        }
        let log = self.namespace.folder().join("kube-apiserver.log");
        let mut apiserver = Process::start(self.apiserver_command()?, &log)?;
        self.wait_for(&mut apiserver, 6443, "kube-apiserver")?;
        let ready = until(START, || {
            let answer = self.kubectl().args(["get", "--raw", "/readyz"]).output();
            apiserver.ended().is_some() || answer.is_ok_and(|answer| answer.status.success())
        });
        if !ready || apiserver.ended().is_some() {
            bail!("kube-apiserver is not ready:\n{}", apiserver.last_words());
        }
        self.apiserver = Some(apiserver);
        Ok(())
    }

    /// Kills the API server and starts it again.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub fn restart_apiserver(&mut self) -> Result<()> {
        self.kill_apiserver();
        self.start_apiserver()
    }

    /// Drops the store's history. An API server that is started after that answers watches from before with 410 Gone.
    ///
    /// # Errors
    /// When etcdctl is missing or fails.
    pub fn compact(&self) -> Result<()> {
        let etcdctl = tool("etcdctl")?;
        let run = |arguments: &[&str]| -> Result<String> {
            let output = self.namespace.command(&etcdctl).args(arguments).output()?;
            if !output.status.success() {
                bail!("etcdctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            }
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let status = run(&["endpoint", "status", "--write-out", "fields"])?;
        let revision =
            status.lines().find_map(|line| line.split_once("\"Revision\" : ")).context("etcdctl names no revision")?.1;
        run(&["compact", "--physical", revision.trim()])?;
        Ok(())
    }

    fn apiserver_command(&self) -> Result<Command> {
        let pki = |name: &str| self.certificates.file(name).display().to_string();
        let mut command = self.namespace.command(tool("kube-apiserver")?);
        command
            .arg("--etcd-servers=http://127.0.0.1:2379")
            .arg(format!("--advertise-address={ADDRESS}"))
            .arg("--secure-port=6443")
            .arg("--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112")
            .arg("--authorization-mode=Node,RBAC")
            // Without controllers no Namespace has a ServiceAccount; Pods may be written all the same.
            .arg("--disable-admission-plugins=ServiceAccount")
            .arg("--allow-privileged=true")
            // The Service default/kubernetes stays without endpoints, and a stop does not wait for them to be taken out.
            .arg("--endpoint-reconciler-type=none")
            .arg(format!("--client-ca-file={}", pki("ca.crt")))
            .arg(format!("--tls-cert-file={}", pki("apiserver.crt")))
            .arg(format!("--tls-private-key-file={}", pki("apiserver.key")))
            .arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local")
            .arg(format!("--service-account-key-file={}", pki("tokens.pub")))
            .arg(format!("--service-account-signing-key-file={}", pki("tokens.key")))
            .args(&self.options.flags);
        Ok(command)
    }

    fn wait_for(&self, process: &mut Process, port: u16, name: &str) -> Result<()> {
        wait_for(&self.namespace, process, port, name)
    }
}

fn start_etcd(namespace: &Namespace) -> Result<Process> {
    let mut command = namespace.command(tool("etcd")?);
    command
        .arg("--data-dir")
        .arg(namespace.folder().join("etcd"))
        .args(["--name", "test", "--log-level", "warn"])
        // The data is thrown away with the test.
        .arg("--unsafe-no-fsync")
        .args(["--quota-backend-bytes", "4294967296"])
        .args(["--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379"])
        .args(["--listen-peer-urls", "http://127.0.0.1:2380"])
        .args(["--initial-advertise-peer-urls", "http://127.0.0.1:2380"])
        .args(["--initial-cluster", "test=http://127.0.0.1:2380"]);
    let mut etcd = Process::start(command, &namespace.folder().join("etcd.log"))?;
    wait_for(namespace, &mut etcd, 2379, "etcd")?;
    Ok(etcd)
}

/// Waits until `port` of the namespace accepts connections; fails as soon as `process` ends.
fn wait_for(namespace: &Namespace, process: &mut Process, port: u16, name: &str) -> Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let open = namespace.run(|| {
        until(START, || {
            process.ended().is_some() || TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
        })
    })?;
    if !open || process.ended().is_some() {
        bail!("{name} does not serve:\n{}", process.last_words());
    }
    Ok(())
}
