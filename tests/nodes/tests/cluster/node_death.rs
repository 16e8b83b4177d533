//! A node that dies: what callers on other nodes lose of requests to Services with endpoints on it, and for how long its
//! proxy is answered to anybody.
//!
//! The cluster's DNS, our dns and our controllers have no pods on the node: what it costs to lose one of those is a matter
//! of Kubernetes' own Services.

use std::time::Duration;

use maesh_test_support::until;
use maesh_testcluster::load::{Counts, Request, now};
use maesh_testcluster::{CutOff, MESH, chart};
use serde_json::Value;

use crate::shared::{Cluster, PATIENCE, Pod, VALUES, our_cluster};
use crate::under_load::{Load, PLANS};

/// Longest time until dns answers nobody with the node's proxy, in milliseconds.
const LEFT: u64 = 6_000;

/// From the moment when Kubernetes says that an endpoint is not ready until every proxy has heard of it, in milliseconds.
const HEARD: u64 = 2_000;

/// After this time a proxy gives a connection up that is not answered, in microseconds.
const CONNECT: u64 = 5_000_000;

/// Lets the API server, whose address is that of [`ANYBODY`], read what dns says of its answers.
const ALLOWED: &str = "api.allowFrom={10.89.0.1/32}";

/// An address of no pod and of no node with a proxy: it is answered with some of all proxies.
const ANYBODY: &str = "10.89.0.1";

impl Cluster {
    /// Moves what answers names, and what configures the mesh, from `node` to other nodes.
    fn clear_of_dns(&self, node: &str) {
        self.kube.run(&format!("cordon {node}")).unwrap();
        for (namespace, labels, deployment) in [
            ("kube-system", "k8s-app=kube-dns", "coredns"),
            (MESH, "app.kubernetes.io/component=dns", "maesh-dns"),
            (MESH, "app.kubernetes.io/component=controller", "maesh-controller"),
        ] {
            for pod in self.selected(namespace, labels).iter().filter(|pod| pod.node == node) {
                self.kube.run(&format!("--namespace={namespace} delete pod {}", pod.name)).unwrap();
            }
            self.kube.settled(namespace, &format!("deployment/{deployment}"), PATIENCE).unwrap();
        }
        self.kube.run(&format!("uncordon {node}")).unwrap();
    }

    /// The addresses that this pod of our dns answers a caller at `from` with.
    fn answered_by(&self, dns: &Pod, from: &str) -> Vec<String> {
        let ask = format!(
            "get --raw=/api/v1/namespaces/{MESH}/pods/{}:5382/proxy/api/explain/dns?name=web.shop.maesh&from={from}",
            dns.name
        );
        let told: Value = serde_json::from_str(&self.kube.run(&ask).unwrap()).unwrap();
        serde_json::from_value(told["addresses"].clone()).unwrap_or_else(|error| panic!("{error}: {told}"))
    }

    /// Whether Kubernetes calls this pod a ready endpoint of Service web.
    fn is_ready_endpoint(&self, pod: &Pod) -> bool {
        let slices = "endpointslices --namespace=shop --selector=kubernetes.io/service-name=web";
        let slices = self.kube.list(slices).unwrap();
        let mut endpoints = slices.iter().filter_map(|slice| slice["endpoints"].as_array()).flatten();
        endpoints.any(|it| it["targetRef"]["name"] == pod.name.as_str() && it["conditions"]["ready"] == true)
    }
}

/// The pod of these that is on `node`.
#[track_caller]
fn on(node: &str, pods: Vec<Pod>) -> Pod {
    pods.into_iter().find(|pod| pod.node == node).expect("a pod on the node")
}

#[test]
#[ignore = "long: a node is cut off until Kubernetes has noticed"]
fn cluster_callers_on_other_nodes_go_on_when_a_node_dies() {
    let Some(cluster) = our_cluster() else { return };
    cluster.without_mesh();
    chart(&cluster.kube, "install", &[&VALUES[..], &[ALLOWED]].concat()).unwrap();
    cluster.mesh_settled();
    cluster.with_stanza();
    let backends = cluster.pods("shop", "web");
    let node = backends.last().expect("a backend").node.clone();
    assert!(backends.iter().any(|pod| pod.node != node), "backends on two nodes are needed: {backends:?}");
    cluster.clear_of_dns(&node);
    let backend = on(&node, backends);
    let (proxy, caller) = (on(&node, cluster.mesh_pods("proxy")), on(&node, cluster.pods("callers", "caller")));
    let resolvers = cluster.mesh_pods("dns");
    let names_it = |from: &str| resolvers.iter().any(|dns| cluster.answered_by(dns, from).contains(&proxy.address));
    assert!(names_it(&caller.address) && names_it(ANYBODY), "before, dns answers the node's proxy");

    let mut load = Load::start(&cluster, "load", &PLANS);
    let (mut off, mut cut, mut left, mut marked) = (None, 0, 0, 0);
    load.phase("a node dies, until Kubernetes has noticed", || {
        off = Some(CutOff::new(&node).unwrap());
        cut = now();
        assert!(until(PATIENCE, || !names_it(&caller.address) && !names_it(ANYBODY)), "dns answers {proxy:?} still");
        left = now() - cut;
        assert!(until(PATIENCE, || !cluster.is_ready_endpoint(&backend)), "{backend:?} is a ready endpoint still");
        marked = now();
    });
    load.go_on(Duration::from_secs(20));
    let healed = now();
    load.phase("the node is back", || {
        drop(off.take());
        assert!(until(PATIENCE, || cluster.is_ready_endpoint(&backend)), "{backend:?} does not come back");
        cluster.mesh_settled();
        cluster.kube.settled("callers", "daemonset/load", PATIENCE).unwrap();
    });
    let report = load.end();
    cluster.without_mesh();

    let elsewhere: Vec<Request> = report.requests.into_iter().filter(|request| request.asker != node).collect();
    let unnoticed = Counts::of(&elsewhere, cut..marked + HEARD);
    let noticed = Counts::of(&elsewhere, marked + HEARD..healed);
    let went_on = |request: &&Request| {
        (cut..marked).contains(&request.at) && request.failure.is_none() && !request.long && request.took_us >= CONNECT
    };
    let tried_twice = elsewhere.iter().filter(went_on).count();
    println!(
        "dns answered nobody with the proxy of {node} after {left} ms; Kubernetes marked the endpoint after {} ms",
        marked - cut
    );
    println!("callers on other nodes until then: {unnoticed}");
    println!("of these, {tried_twice} took {} s or more and succeeded on another endpoint", CONNECT / 1_000_000);
    println!("callers on other nodes afterwards: {noticed}");
    assert!(left <= LEFT, "dns answered the dead proxy for {left} ms");
    assert!(tried_twice > 0, "no request was tried again after a connection that was not made: {unnoticed}");
    assert!(noticed.requests > 1_000, "{noticed}");
    assert_eq!(noticed.failed, 0, "{noticed}");
}
