//! The stanza comes with the mesh and goes before it, by itself.

use std::time::{Duration, Instant};

use maesh_test_support::until;
use maesh_testcluster::chart;
use serde_json::Value;

use crate::shared::{Cluster, PATIENCE, automatic, cluster};

/// From the uninstallation to its end: horizon, CoreDNS's own delay, and what Helm does.
const GOING: Duration = Duration::from_secs(290);

#[test]
fn cluster_the_stanza_comes_with_the_mesh_and_goes_before_it_to_the_byte() {
    let Some(cluster) = cluster() else { return };
    cluster.without_mesh();
    let (map, pods) = (dns_map(&cluster), dns_pods(&cluster));
    let since = Instant::now();
    chart(&cluster.kube, "install", &automatic(&[])).unwrap();
    cluster.mesh_settled();
    let written = until(PATIENCE, || text(&dns_map(&cluster)).starts_with("# maesh begin"));
    assert!(written, "{}", text(&dns_map(&cluster)));
    println!("stanza written {:.1} s after the installation began", since.elapsed().as_secs_f32());
    for (pod, took) in cluster.when_asked("web.shop.maesh.", |answer| answer["addresses"].is_array()) {
        println!("stanza live in {pod} {:.1} s after it was written", took.as_secs_f32());
    }
    let since = Instant::now();
    // Somebody else's copy of the Corefile.
    crate::stanza::write(&cluster.kube, &text(&map));
    let mended = until(Duration::from_secs(60), || text(&dns_map(&cluster)).starts_with("# maesh begin"));
    assert!(mended, "not mended within a minute");
    println!("mended after {:.1} s", since.elapsed().as_secs_f32());
    cluster.when_asked("web.shop.maesh.", |answer| answer["addresses"].is_array());
    let told = || ["StanzaWritten", "StanzaMended"].iter().all(|reason| events(&cluster).iter().any(|it| it == reason));
    assert!(until(PATIENCE, told), "Events at the ConfigMap: {:?}", events(&cluster));

    let since = Instant::now();
    cluster.uninstall();
    assert!(since.elapsed() < GOING);
    println!("uninstalled in {:.1} s", since.elapsed().as_secs_f32());
    assert_eq!(text(&dns_map(&cluster)), text(&map), "the Corefile is what it was, to the byte");
    let annotations = |map: &Value| map["metadata"]["annotations"].clone();
    assert_eq!(annotations(&dns_map(&cluster)), annotations(&map));
    assert_eq!(dns_pods(&cluster), pods, "no pod of the cluster's DNS was replaced or restarted");
    cluster.when_asked("web.shop.maesh.", |answer| answer["error"] == "NXDOMAIN");
    cluster.without_mesh();
}

fn dns_map(cluster: &Cluster) -> Value {
    cluster.kube.get("configmap coredns --namespace=kube-system").unwrap()
}

/// The reasons of Events at the ConfigMap that CoreDNS reads.
fn events(cluster: &Cluster) -> Vec<String> {
    let events = cluster.kube.list("events --namespace=kube-system").unwrap();
    let regarding = |event: &&Value| event["involvedObject"]["name"] == "coredns";
    events.iter().filter(regarding).map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

fn text(map: &Value) -> String {
    map["data"]["Corefile"].as_str().unwrap_or_default().to_owned()
}

/// Identity, annotations and restarts of the pods of the cluster's DNS.
fn dns_pods(cluster: &Cluster) -> Vec<Value> {
    let pods = cluster.kube.list("pods --namespace=kube-system --selector=k8s-app=kube-dns").unwrap();
    let what = |pod: &Value| {
        let metadata = &pod["metadata"];
        let restarts = pod.pointer("/status/containerStatuses/0/restartCount").cloned();
        serde_json::json!([metadata["uid"], metadata["annotations"], restarts])
    };
    let mut pods: Vec<Value> = pods.iter().map(what).collect();
    pods.sort_by_key(ToString::to_string);
    pods
}
