//! Manifests as a user writes them.

use std::{net::SocketAddr, path::Path};

use super::backend::Backend;

/// A Service with one port.
pub fn service(namespace: &str, name: &str, port: u16, annotations: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  annotations: {{{annotations}}}\n\
         spec:\n  clusterIP: 10.96.0.77\n  clusterIPs: [10.96.0.77]\n  ports:\n  - name: main\n    port: {port}\n"
    )
}

/// EndpointSlices of a Service: one for each address, since each has a port of its own.
pub fn slices(namespace: &str, service: &str, addresses: &[SocketAddr]) -> String {
    let one = |(number, at): (usize, &SocketAddr)| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {service}-{number}\n  \
             namespace: {namespace}\n  labels: {{kubernetes.io/service-name: {service}}}\naddressType: IPv4\n\
             endpoints:\n- addresses: [{}]\n  conditions: {{ready: true}}\nports:\n- name: main\n  port: {}\n",
            at.ip(),
            at.port()
        )
    };
    addresses.iter().enumerate().map(one).collect()
}

/// A ConfigMap in shop with this text as `ca.crt`.
pub fn config_map(name: &str, ca: &str) -> String {
    let ca = serde_json::Value::from(ca);
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: shop}}\ndata: {{ca.crt: {ca}}}\n---\n"
    )
}

/// `web.shop.maesh` and its one backend.
pub fn web(backend: &Backend) -> String {
    service("shop", "web", 8080, "") + &slices("shop", "web", &[backend.address])
}

/// A folder in which `web.shop.maesh` works, whatever else is put into it.
pub fn folder_with_web(backend: &Backend) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    save(folder.path(), "a-web.yaml", &web(backend));
    folder
}

/// Writes a file as a careful editor does: beside it, then renamed into place.
pub fn save(folder: &Path, file: &str, text: &str) {
    let beside = folder.join(format!(".{file}.new"));
    std::fs::write(&beside, text).expect("write");
    std::fs::rename(&beside, folder.join(file)).expect("rename");
}
