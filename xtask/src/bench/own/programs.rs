//! The programs that run beside the API server.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use maesh_test_support::tool;
use maesh_testkube::ApiServer;
use serde_json::json;

use super::super::scale::http::Client;
use crate::measure::Running;

/// Where the controller says how it is.
const ADMIN: &str = "10.89.3.1:5380";
/// Longest time until a program is ready.
const READY: Duration = Duration::from_secs(120);

/// All of them.
pub(super) struct Programs {
    manager: Running,
    kube_proxy: Running,
    controller: Option<Running>,
}

impl Programs {
    /// Starts what every cluster has: the controller of EndpointSlices, and kube-proxy as of the first node.
    pub(super) fn start(server: &ApiServer) -> Result<Self> {
        eprintln!("starting kube-controller-manager and kube-proxy");
        let kubeconfig = server.kubeconfig().display().to_string();
        let mut manager = server.namespace().command(tool("kube-controller-manager")?);
        manager.args(["--controllers=endpointslice-controller", "--leader-elect=false", "--secure-port=0"]);
        manager.arg(format!("--kubeconfig={kubeconfig}"));
        let config = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "clientConnection": { "kubeconfig": kubeconfig },
            "hostnameOverride": "node-0", "mode": "nftables", "clusterCIDR": "10.244.0.0/16",
            "detectLocalMode": "ClusterCIDR",
            // The table's size belongs to the machine.
            "conntrack": { "maxPerCore": 0, "min": 0 },
        });
        let file = server.namespace().folder().join("kube-proxy.json");
        fs::write(&file, config.to_string()).with_context(|| file.display().to_string())?;
        let mut kube_proxy = server.namespace().command(tool("kube-proxy")?);
        kube_proxy.arg(format!("--config={}", file.display()));
        let manager = Running::start("kube-controller-manager", manager)?;
        let mut kube_proxy = Running::start("kube-proxy", kube_proxy)?;
        kube_proxy.wait_for_port(SocketAddr::from(([127, 0, 0, 1], 10_256)))?;
        Ok(Self { manager, kube_proxy, controller: None })
    }

    /// Starts the mesh's controller, which leads.
    pub(super) fn start_controller(&mut self, server: &ApiServer, maesh: &Path, budget: u32) -> Result<()> {
        eprintln!("starting maesh controller");
        let mut command = server.namespace().command(maesh);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MAESH_")) {
            command.env_remove(name);
        }
        command.args(["controller", "--insecure", "--default-mode", "tcp", "--proxy-settle", "0s"]);
        // All of its Services are in one namespace.
        command.args(["--ports-per-namespace", "17000"]);
        command.args(["--listen", "10.89.3.1:5390", "--admin", ADMIN, "--own-budget", &budget.to_string()]);
        command.arg("--kubeconfig").arg(server.kubeconfig());
        let mut controller = Running::start("maesh controller", command)?;
        let admin: SocketAddr = ADMIN.parse()?;
        controller.wait_until(READY, || {
            let asked = Client::connect(admin).and_then(|mut client| client.get_path("admin", "/readyz"));
            asked.is_ok_and(|answer| answer.is_ok())
        })?;
        self.controller = Some(controller);
        Ok(())
    }

    /// Fails where one has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        for program in [&mut self.manager, &mut self.kube_proxy].into_iter().chain(&mut self.controller) {
            program.wait_until(Duration::from_secs(1), || true)?;
        }
        Ok(())
    }

    /// Of kube-proxy and of the controller so far.
    pub(super) fn processor_time(&self) -> Result<(Duration, Duration)> {
        let controller = self.controller.as_ref().map(Running::usage).transpose()?;
        Ok((self.kube_proxy.usage()?.total(), controller.unwrap_or_default().total()))
    }

    /// What kube-proxy has resident, in bytes.
    pub(super) fn resident(&self) -> Result<u64> {
        match self.kube_proxy.resident()? {
            0 => bail!("kube-proxy has no memory"),
            resident => Ok(resident),
        }
    }
}
