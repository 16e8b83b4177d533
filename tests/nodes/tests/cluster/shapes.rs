//! The cluster's DNS in other shapes than kubeadm's: a cache on every node, and a Corefile that imports a ConfigMap.

use std::process::Command;

use maesh_test_support::until;
use maesh_testcluster::{DNS_IMAGE, exec};
use serde_json::{Value, json};

use crate::shared::{Cluster, PATIENCE, our_cluster};
use crate::stanza;

/// Where the caches listen on every node, as NodeLocal DNSCache does.
const LINK_LOCAL: &str = "169.254.20.10";

/// The nodes of our cluster.
const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// NodeLocal DNSCache's shape: CoreDNS in the node's own network, with its way of naming things, by which it is found.
const CACHES: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: node-local-dns, namespace: kube-system}
data:
  Corefile: |
    COREFILE
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: node-local-dns, namespace: kube-system, labels: {k8s-app: node-local-dns}}
spec:
  selector: {matchLabels: {k8s-app: node-local-dns}}
  template:
    metadata: {labels: {k8s-app: node-local-dns}}
    spec:
      hostNetwork: true
      dnsPolicy: Default
      terminationGracePeriodSeconds: 1
      containers:
      - name: node-cache
        image: IMAGE
        args: [-conf, /etc/coredns/Corefile]
        volumeMounts:
        - {name: config-volume, mountPath: /etc/coredns, readOnly: true}
      volumes:
      - name: config-volume
        configMap: {name: node-local-dns}
      - name: kube-dns-config
        configMap: {name: kube-dns, optional: true}
"#;

/// The caches, and what they need on the nodes; removed when dropped.
struct Caches<'a>(&'a Cluster);

impl<'a> Caches<'a> {
    fn start(cluster: &'a Cluster) -> Self {
        let caches = Self(cluster);
        for node in NODES {
            let output = address(node, "add").unwrap().output().unwrap();
            assert!(output.status.success(), "{node}: {output:?}");
        }
        caches.serve(&json!({}));
        caches
    }

    /// Runs them with these stub domains: as node-cache does when it reads them in its ConfigMap, every zone becomes a
    /// block that forwards to the zone's server over TCP.
    fn serve(&self, stubs: &Value) {
        let block = |zone: &str, to: &str, force: &str| {
            format!(
                "{zone}:53 {{\n  errors\n  cache 30\n  bind {LINK_LOCAL}\n  forward . {to} {{\n    {force}\n  }}\n}}\n"
            )
        };
        let mut corefile = block("cluster.local", "10.96.0.10", "force_tcp");
        corefile += &block(".", "/etc/resolv.conf", "");
        for (zone, servers) in stubs.as_object().into_iter().flatten() {
            corefile += &block(zone, servers[0].as_str().unwrap(), "force_tcp");
        }
        let manifest = CACHES.replace("IMAGE", DNS_IMAGE).replace("COREFILE", &corefile.replace('\n', "\n    "));
        let kube = &self.0.kube;
        kube.apply(&manifest).unwrap();
        kube.run("--namespace=kube-system rollout restart daemonset/node-local-dns").unwrap();
        kube.settled("kube-system", "daemonset/node-local-dns", PATIENCE).unwrap();
    }
}

impl Drop for Caches<'_> {
    fn drop(&mut self) {
        let what = "daemonset/node-local-dns configmap/node-local-dns configmap/kube-dns";
        let _ = self.0.kube.run(&format!("--namespace=kube-system delete {what} --ignore-not-found --wait"));
        for node in NODES {
            let _ = address(node, "delete").map(|mut command| command.output());
        }
    }
}

/// `ip address` with the caches' address; on the loopback interface, because not every kernel has dummy ones.
fn address(node: &str, verb: &str) -> anyhow::Result<Command> {
    let command = ["ip", "address", verb, LINK_LOCAL, "dev", "lo"].map(str::to_owned);
    exec(node, &command)
}

/// What the mesh wrote for the caches.
fn stubs(cluster: &Cluster) -> Option<Value> {
    let map = cluster.kube.get("configmap kube-dns --namespace=kube-system").ok()?;
    serde_json::from_str(map["data"]["stubDomains"].as_str()?).ok()
}

impl Cluster {
    /// From every node the mesh name leads to the proxy of that node, and the plain name to a backend; `server` is asked.
    #[track_caller]
    fn asks_by_name(&self, server: Option<&str>) {
        let server = server.map(|server| format!("--server={server}")).unwrap_or_default();
        let proxies = self.mesh_pods("proxy");
        for caller in &self.pods("callers", "caller") {
            let local = proxies.iter().find(|proxy| proxy.node == caller.node).expect("a proxy on every node");
            for (url, source) in [
                ("http://web.shop.maesh/", &local.address),
                ("tcp://db.shop.maesh:9000/", &local.address),
                ("http://web.shop.svc.cluster.local/", &caller.address),
            ] {
                let mut last = String::new();
                let as_wanted = until(PATIENCE, || {
                    match self.kube.ask("callers", &caller.name, &format!("get {url} --patience=2 {server}")) {
                        Ok(answer) => {
                            last = answer.to_string();
                            answer["answer"]["source"] == source.as_str()
                        }
                        Err(error) => {
                            last = format!("{error:#}");
                            false
                        }
                    }
                });
                assert!(as_wanted, "{url} from {caller:?} is to come from {source}: {last}");
            }
        }
    }
}

#[test]
#[ignore = "long: a cache of the DNS on every node"]
fn cluster_names_work_through_a_cache_on_every_node() {
    let Some(cluster) = our_cluster() else { return };
    cluster.without_mesh();
    // As in a cluster in which the ConfigMap is not there: a person makes it, the mesh may not.
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "kube-dns", "namespace": "kube-system" } });
    cluster.kube.apply(&map.to_string()).unwrap();
    let caches = Caches::start(&cluster);
    cluster.with_automatic_mesh();
    let told = until(PATIENCE, || stubs(&cluster).is_some_and(|stubs| stubs["maesh"].is_array()));
    assert!(told, "{:?}", stubs(&cluster));
    caches.serve(&stubs(&cluster).unwrap());
    cluster.asks_by_name(Some(LINK_LOCAL));
    cluster.uninstall();
    assert_eq!(stubs(&cluster), None, "nothing is left of it");
    cluster.without_mesh();
}

#[test]
#[ignore = "long: a Corefile that imports a ConfigMap"]
fn cluster_names_work_through_an_imported_config_map() {
    let Some(cluster) = our_cluster() else { return };
    cluster.without_mesh();
    let kube = &cluster.kube;
    let before = stanza::corefile(kube);
    let custom = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": "coredns-custom", "namespace": "kube-system" }, "data": { "other.override": "# a person's\n" } });
    kube.apply(&custom.to_string()).unwrap();
    let imports = before.replacen("    errors\n", "    errors\n    import /etc/coredns/custom/*.override\n", 1)
        + "import /etc/coredns/custom/*.server\n";
    stanza::write(kube, &imports);
    let mount = json!({ "spec": { "template": { "spec": {
        "containers": [{ "name": "coredns", "volumeMounts": [
            { "name": "custom", "mountPath": "/etc/coredns/custom", "readOnly": true }] }],
        "volumes": [{ "name": "custom", "configMap": { "name": "coredns-custom", "optional": true } }] } } } });
    let mut command = kube.kubectl().unwrap();
    command.args(["--namespace=kube-system", "patch", "deployment", "coredns", "--patch", &mount.to_string()]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    kube.settled("kube-system", "deployment/coredns", PATIENCE).unwrap();

    cluster.with_automatic_mesh();
    let data = || kube.get("configmap coredns-custom --namespace=kube-system").unwrap()["data"].clone();
    let written = until(PATIENCE, || data()["maesh.server"].is_string());
    assert!(written, "{}", data());
    cluster.asks_by_name(None);
    assert_eq!(stanza::corefile(kube), imports, "what the platform owns is not touched");
    cluster.uninstall();
    assert_eq!(data(), custom["data"], "what is a person's stays");

    kube.run("--namespace=kube-system rollout undo deployment/coredns").unwrap();
    stanza::write(kube, &before);
    kube.settled("kube-system", "deployment/coredns", PATIENCE).unwrap();
    kube.run("--namespace=kube-system delete configmap coredns-custom").unwrap();
    cluster.without_mesh();
}
