//! The stanza files that a person applies by hand.

use std::fs;
use std::time::Duration;

use maesh_test_support::{Namespace, need_root, need_tool, repository, until};
use maesh_testkube::Process;
use serde_json::Value;

use crate::helm::objects;

/// A Corefile as kubeadm writes it, without what needs a cluster.
const CLUSTER: &str = ".:PORT {\n    errors\n    cache 30\n    forward . 10.89.0.9\n    reload\n    loadbalance\n}\n";

#[test]
fn chart_snippets_are_run_by_coredns() {
    let (true, Some(coredns)) = (need_root(), need_tool("coredns")) else { return };
    let key = |name: &str| {
        let object: Value = objects(&snippet(name)).remove(0);
        object["data"]["maesh.server"].as_str().unwrap().to_owned()
    };
    for (name, port, stanza) in [
        ("kubeadm.corefile", 53, snippet("kubeadm.corefile")),
        ("coredns-custom.yaml", 53, key("coredns-custom.yaml")),
        ("gardener.yaml", 8053, key("gardener.yaml")),
    ] {
        let namespace = Namespace::new().unwrap();
        let corefile = namespace.folder().join("Corefile");
        let cluster = CLUSTER.replace("PORT", &port.to_string());
        fs::write(&corefile, cluster + &stanza.replace("CLUSTER_IP", "10.96.0.53")).unwrap();
        let log = namespace.folder().join("coredns.log");
        let mut command = namespace.command(&coredns);
        command.arg("-conf").arg(&corefile);
        let mut process = Process::start(command, &log).unwrap();
        let said = || fs::read_to_string(&log).unwrap_or_default();
        let started = until(Duration::from_secs(60), || said().contains("CoreDNS-") || process.ended().is_some());
        assert!(started && process.ended().is_none(), "{name}: {}", said());
        for zone in ["maesh", "traefik.mesh"] {
            assert!(said().contains(&format!("{zone}.:{port}")), "{name}: {}", said());
        }
    }
}

#[test]
fn chart_snippets_can_be_read_and_name_the_address_to_set() {
    let mut seen = 0;
    for entry in fs::read_dir(repository().join("coredns-snippet")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name == "README.md" {
            continue;
        }
        let text = snippet(&name);
        assert!(text.contains("CLUSTER_IP"), "{name}");
        if !name.ends_with(".corefile") {
            assert_eq!(objects(&text).len(), 1, "{name}");
        }
        assert!(snippet("README.md").contains(&format!("`{name}`")), "{name} is not in the table");
        seen += 1;
    }
    assert!(seen >= 7);
    let stub: Value =
        serde_json::from_str(objects(&snippet("kube-dns.yaml"))[0]["data"]["stubDomains"].as_str().unwrap()).unwrap();
    assert_eq!(stub["maesh"][0], "CLUSTER_IP");
}

fn snippet(name: &str) -> String {
    let file = repository().join("coredns-snippet").join(name);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
