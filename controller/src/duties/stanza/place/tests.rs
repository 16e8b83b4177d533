#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use super::*;

fn pod(name: &str, args: &Value, mounts: &[(&str, &str)], volumes: &Value) -> Pod {
    let mounts: Vec<_> = mounts.iter().map(|(name, path)| json!({"name": name, "mountPath": path})).collect();
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {"containers": [{"name": "c", "args": args, "volumeMounts": mounts}], "volumes": volumes},
        "status": {"phase": "Running", "podIP": "10.244.1.7"},
    }))
    .unwrap()
}

fn map(name: &str) -> MapName {
    MapName { namespace: "kube-system".into(), name: name.into() }
}

fn services(list: Value) -> Vec<Service> {
    serde_json::from_value(list).unwrap()
}

#[test]
fn the_corefile_is_found_from_what_runs() {
    let config = |name: &str| json!([{"name": "v", "configMap": {"name": name}}]);
    let items =
        json!([{"name": "v", "configMap": {"name": "coredns", "items": [{"key": "base", "path": "Corefile"}]}}]);
    let k3s = json!([
        {"name": "v", "configMap": {"name": "coredns", "items": [{"key": "Corefile", "path": "Corefile"}]}},
        {"name": "w", "configMap": {"name": "coredns-custom", "optional": true}},
    ]);
    let projected = json!([{"name": "v", "projected": {"sources": [{"configMap": {"name": "coredns"}}]}}]);
    let conf = json!(["-conf", "/etc/coredns/Corefile"]);
    for (case, args, mounts, volumes, want) in [
        ("kubeadm", conf.clone(), &[("v", "/etc/coredns")][..], config("coredns"), ("coredns", "Corefile", 0)),
        (
            "RKE2",
            conf.clone(),
            &[("v", "/etc/coredns")],
            config("rke2-coredns-rke2-coredns"),
            ("rke2-coredns-rke2-coredns", "Corefile", 0),
        ),
        ("one word", json!(["--conf=/c/x"]), &[("v", "/c/")], config("d"), ("d", "x", 0)),
        ("another key", conf.clone(), &[("v", "/etc/coredns")], items, ("coredns", "base", 0)),
        ("k3s", conf.clone(), &[("v", "/etc/coredns"), ("w", "/etc/coredns/custom")], k3s, ("coredns", "Corefile", 1)),
        ("projected", conf, &[("v", "/etc/coredns")], projected, ("coredns", "Corefile", 0)),
    ] {
        let place = place("kube-dns", "10.96.0.10:53".parse().unwrap(), 53, &[pod("p", &args, mounts, &volumes)], &[]);
        let Software::CoreDns { map: found, key, mounts, .. } = place.unwrap().software else { panic!("{case}") };
        assert_eq!((found.name.as_str(), key.as_str(), mounts.len()), want, "{case}");
    }
}

#[test]
fn imports_lead_to_the_configmap_of_their_folder() {
    let software = Software::CoreDns {
        map: map("coredns"),
        key: "Corefile".into(),
        folder: "/etc/coredns".into(),
        mounts: vec![("/etc/coredns/custom".into(), map("coredns-custom"))],
    };
    for (pattern, want) in [
        ("/etc/coredns/custom/*.server", Some(".server")),
        ("custom/*.server", Some(".server")),
        ("custom/*", Some("")),
        ("custom/mine.server", None),
        ("other/*.server", None),
        ("custom/a*.server", None),
    ] {
        let want = want.map(|suffix| (map("coredns-custom"), suffix.to_owned()));
        assert_eq!(software.imported(pattern), want, "{pattern}");
    }
}

#[test]
fn caches_and_kube_dns_have_stub_domains() {
    let conf = json!(["-conf", "/etc/coredns/Corefile"]);
    let volumes = json!([{"name": "v", "configMap": {"name": "coredns"}}]);
    let coredns = pod("p", &conf, &[("v", "/etc/coredns")], &volumes);
    let cache = pod("n", &json!([]), &[], &json!([{"name": "kube-dns-config", "configMap": {"name": "kube-dns"}}]));
    let found = place("kube-dns", "10.96.0.10:53".parse().unwrap(), 53, &[coredns], &[cache]).unwrap();
    assert_eq!(found.node_local, Some(map("kube-dns")));
    assert_eq!(found.servers, [("p".to_owned(), "10.244.1.7:53".parse().unwrap())]);
    let mut kube_dns = pod("k", &json!([]), &[], &json!([]));
    kube_dns.spec.as_mut().unwrap().containers[0].name = "kubedns".into();
    let found = place("kube-dns", "10.96.0.10:53".parse().unwrap(), 53, &[kube_dns], &[]).unwrap();
    assert_eq!(found.software, Software::KubeDns { map: map("kube-dns") });
}

#[test]
fn what_cannot_be_served_says_what_to_do() {
    let one = |name: &str, labels: Value| {
        json!({"metadata": {"name": name, "labels": labels},
            "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 53, "protocol": "UDP"}]}})
    };
    let rke2 = one("rke2-coredns-rke2-coredns", json!({"k8s-app": "kube-dns"}));
    let found = services(json!([one("other", json!({})), rke2]));
    assert_eq!(service(&found).unwrap().0.metadata.name.as_deref(), Some("rke2-coredns-rke2-coredns"));
    assert_eq!(service(&services(json!([one("other", json!({}))]))).unwrap_err(), Unplaced::NoService);
    assert_eq!(service(&services(json!([one("dns-default", json!({}))]))).unwrap_err(), Unplaced::OpenShift);
    let address = "10.96.0.10:53".parse().unwrap();
    let mut ended = pod("p", &json!([]), &[], &json!([]));
    assert_eq!(place("a/b", address, 53, std::slice::from_ref(&ended), &[]), Err(Unplaced::NoCorefile("p".into())));
    ended.status.as_mut().unwrap().phase = Some("Succeeded".into());
    assert_eq!(place("a/b", address, 53, &[ended], &[]), Err(Unplaced::NoPods("a/b".into())));
}
