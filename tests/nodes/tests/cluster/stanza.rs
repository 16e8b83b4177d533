//! The stanza in the cluster's DNS, put in and taken out by hand as `coredns-snippet/` says.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use maesh_test_support::{repository, until};
use maesh_testcluster::Kube;
use serde_json::json;

use crate::shared::{Cluster, DNS};

/// How long CoreDNS may take: the kubelet's sync of a ConfigMap and its own look at the file.
const PATIENCE: Duration = Duration::from_secs(180);

/// Begins the block in the file.
const FIRST: &str = "maesh:53 traefik.mesh:53 {";

/// The block with the address of our DNS Service.
pub(crate) fn block() -> String {
    let file = fs::read_to_string(repository().join("coredns-snippet/kubeadm.corefile")).unwrap();
    let block = file.lines().skip_while(|line| line.starts_with('#')).collect::<Vec<_>>().join("\n");
    assert!(block.starts_with(FIRST), "{block}");
    block.replace("CLUSTER_IP", DNS) + "\n"
}

pub(crate) fn corefile(kube: &Kube) -> String {
    let map = kube.get("configmap coredns --namespace=kube-system").unwrap();
    map["data"]["Corefile"].as_str().unwrap().to_owned()
}

pub(crate) fn write(kube: &Kube, corefile: &str) {
    let patch = json!({ "data": { "Corefile": corefile } }).to_string();
    let mut command = kube.kubectl().unwrap();
    command.args(["--namespace=kube-system", "patch", "configmap", "coredns", "--type=merge", "--patch", &patch]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Appends the block to the Corefile.
fn add(kube: &Kube) {
    write(kube, &(corefile(kube) + &block()));
}

/// Begins and ends what the mesh puts in by itself.
const MARKS: [&str; 2] = ["# maesh begin", "# maesh end\n"];

/// Whether the mesh put it in by itself.
pub(crate) fn is_automatic(kube: &Kube) -> bool {
    corefile(kube).contains(MARKS[0])
}

/// Takes the block out, if it is there; whether it was.
fn remove(kube: &Kube) -> bool {
    let now = corefile(kube);
    let marked = now.find(MARKS[0]).zip(now.find(MARKS[1])).map(|(from, to)| from..to + MARKS[1].len());
    let ours = marked.map_or_else(block, |marked| now[marked].to_owned());
    let without = now.replace(&ours, "");
    if without == now {
        return false;
    }
    write(kube, &without);
    true
}

impl Cluster {
    /// Puts the stanza in, unless it is there from an earlier test, and waits until every CoreDNS pod uses it; says how
    /// long each took.
    pub(crate) fn with_stanza(&self) -> BTreeMap<String, Duration> {
        if self.forwarded.get() {
            return BTreeMap::new();
        }
        add(&self.kube);
        let took = self.when_asked("web.shop.maesh.", |answer| answer["addresses"].is_array());
        self.forwarded.set(true);
        took
    }

    /// Takes the stanza out, if there is one, and waits until no CoreDNS pod uses it.
    pub(crate) fn without_stanza(&self) -> BTreeMap<String, Duration> {
        if !remove(&self.kube) {
            return BTreeMap::new();
        }
        self.forwarded.set(false);
        self.when_asked("web.shop.maesh.", |answer| answer["error"] == "NXDOMAIN")
    }

    /// Asks every CoreDNS pod for `name` until the answer is as wanted; says how long each took.
    pub(crate) fn when_asked(
        &self,
        name: &str,
        wanted: impl Fn(&serde_json::Value) -> bool,
    ) -> BTreeMap<String, Duration> {
        let since = Instant::now();
        let caller = &self.pods("callers", "caller")[0].name;
        let mut took = BTreeMap::new();
        let pods = self.selected("kube-system", "k8s-app=kube-dns");
        assert!(!pods.is_empty(), "no CoreDNS pods");
        let all = until(PATIENCE, || {
            for pod in &pods {
                if took.contains_key(&pod.name) {
                    continue;
                }
                let answer = self.kube.ask("callers", caller, &format!("lookup {name} --server={}", pod.address));
                if answer.is_ok_and(|answer| wanted(&answer)) {
                    took.insert(pod.name.clone(), since.elapsed());
                }
            }
            took.len() == pods.len()
        });
        assert!(all, "of {pods:?} these changed in {PATIENCE:?}: {took:?}");
        took
    }
}
