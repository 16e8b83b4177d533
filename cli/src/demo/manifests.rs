//! The manifests of the demo: what a user would have in a cluster, with the toy backends as endpoints.

use std::{fmt::Write as _, net::SocketAddr, path::Path};

use anyhow::Context as _;

/// Where the toy backends listen.
#[derive(Clone, Copy)]
pub struct Endpoints {
    /// First version of `web`.
    pub v1: SocketAddr,
    /// Second version of `web`.
    pub v2: SocketAddr,
    /// The one that keeps going away.
    pub flaky: SocketAddr,
    /// The TCP echo.
    pub echo: SocketAddr,
}

/// Name of the file that `web` leads to v1 and v2 by; the demo proposes to edit it.
pub const WEB_ENDPOINTS: &str = "web-endpoints.yaml";

/// Writes them into `folder`.
pub fn write(folder: &Path, at: &Endpoints) -> anyhow::Result<()> {
    let services = [
        service("web", 80, "http", ""),
        service("flaky", 80, "http", ""),
        service("echo", 7000, "echo", "  annotations: { maesh.containo.us/traffic-type: tcp }\n"),
    ]
    .join("---\n");
    save(folder, "services.yaml", &services)?;
    save(folder, WEB_ENDPOINTS, &slice("web", "http", &[at.v1, at.v2]))?;
    save(folder, "flaky-endpoints.yaml", &slice("flaky", "http", &[at.v1, at.flaky]))?;
    save(folder, "echo-endpoints.yaml", &slice("echo", "echo", &[at.echo]))
}

/// Writes the endpoints of `web` anew, as a deployment of another version would.
pub fn web_leads_to(folder: &Path, backends: &[SocketAddr]) -> anyhow::Result<()> {
    save(folder, WEB_ENDPOINTS, &slice("web", "http", backends))
}

fn save(folder: &Path, file: &str, text: &str) -> anyhow::Result<()> {
    let path = folder.join(file);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn service(name: &str, port: u16, port_name: &str, metadata: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: demo\n{metadata}spec:\n  \
         ports:\n  - name: {port_name}\n    port: {port}\n"
    )
}

/// One slice for each backend, since toy backends listen on ports of their own.
fn slice(service: &str, port_name: &str, backends: &[SocketAddr]) -> String {
    let mut text = String::new();
    for (number, backend) in backends.iter().enumerate() {
        let _ = write!(
            text,
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {service}-{number}\n  \
             namespace: demo\n  labels:\n    kubernetes.io/service-name: {service}\naddressType: IPv4\nendpoints:\n\
             - addresses: [\"{}\"]\n  conditions: {{ ready: true }}\nports:\n- name: {port_name}\n  port: {}\n",
            backend.ip(),
            backend.port()
        );
    }
    text
}
