//! The cluster's DNS is not harmed by ours, whatever becomes of it.

use std::time::Duration;

use maesh_testcluster::load::{Counts, now};
use maesh_testcluster::process::{Signal, signal};
use maesh_testcluster::{DNS_IMAGE, ECHO_IMAGE, MESH, OLD_DNS_IMAGE};

use crate::shared::{Cluster, PATIENCE, our_cluster};
use crate::under_load::{Load, Report, pass};

/// Plain names and mesh names, looked up for every request.
const PLANS: [&str; 2] = ["http1 20 web.shop:80 dns=fresh", "http1 3 web.shop.maesh:80 dns=fresh"];

/// A query of a mesh name may take this long while our DNS is silent: CoreDNS tries for six seconds at first, and a
/// client asks twice.
const SILENT: Duration = Duration::from_secs(12);

impl Cluster {
    /// Has the cluster's DNS run from this image.
    fn with_cluster_dns(&self, image: &str) {
        self.without_stanza();
        self.kube.run(&format!("--namespace=kube-system set image deployment/coredns coredns={image}")).unwrap();
        self.kube.settled("kube-system", "deployment/coredns", PATIENCE).unwrap();
    }

    fn to_dns(&self, what: Signal) {
        for pod in self.mesh_pods("dns") {
            signal(&pod.name, "/maesh", what).unwrap();
        }
    }

    /// Our DNS Service leads to something that answers with other bytes than were asked for.
    fn with_garbage(&self) {
        let pod = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"garbage","namespace":"{MESH}","labels":{{
            "app.kubernetes.io/name":"maesh","app.kubernetes.io/instance":"maesh","app.kubernetes.io/component":"dns"}}}},
            "spec":{{"terminationGracePeriodSeconds":1,"containers":[{{"name":"garbage","image":"{ECHO_IMAGE}","args":["garbage"],
            "ports":[{{"name":"dns","containerPort":5353,"protocol":"UDP"}},{{"name":"dns-tcp","containerPort":5353}}],
            "securityContext":{{"allowPrivilegeEscalation":false,"capabilities":{{"drop":["ALL"]}},"runAsNonRoot":true,
            "seccompProfile":{{"type":"RuntimeDefault"}}}}}}]}}}}"#
        );
        self.kube.apply(&pod).unwrap();
        self.kube.run(&format!("--namespace={MESH} scale deployment/maesh-dns --replicas=0")).unwrap();
        self.kube.run(&format!("--namespace={MESH} wait --for=condition=Ready pod/garbage --timeout=60s")).unwrap();
    }
}

#[test]
#[ignore = "long: our DNS killed, hung and answering garbage, under queries of plain names"]
fn cluster_dns_of_the_cluster_is_not_harmed() {
    let Some(cluster) = our_cluster() else { return };
    is_not_harmed(&cluster);
}

#[test]
#[ignore = "long: the same with a CoreDNS of some years ago, whose forwarding behaves worse"]
fn cluster_dns_of_an_old_cluster_is_not_harmed() {
    let Some(cluster) = our_cluster() else { return };
    if !cluster.has_further(OLD_DNS_IMAGE) {
        return;
    }
    cluster.with_cluster_dns(OLD_DNS_IMAGE);
    is_not_harmed(&cluster);
    cluster.with_cluster_dns(DNS_IMAGE);
}

fn is_not_harmed(cluster: &Cluster) {
    cluster.with_mesh();
    cluster.with_stanza();
    let mut load = Load::start(cluster, "dns", &PLANS);
    let began = now();
    load.phase("before", || pass(15));
    load.phase("our DNS is killed", || {
        cluster.to_dns(Signal::KILL);
        pass(15);
    });
    cluster.mesh_settled();
    load.phase("our DNS hangs", || {
        cluster.to_dns(Signal::STOP);
        pass(25);
        cluster.to_dns(Signal::CONT);
    });
    cluster.mesh_settled();
    load.phase("our DNS answers garbage", || {
        cluster.with_garbage();
        pass(20);
    });
    cluster.kube.run(&format!("--namespace={MESH} delete pod garbage")).unwrap();
    cluster.kube.run(&format!("--namespace={MESH} scale deployment/maesh-dns --replicas=2")).unwrap();
    cluster.kube.settled(MESH, "deployment/maesh-dns", PATIENCE).unwrap();
    load.phase("after", || pass(10));
    let report = load.end();
    println!("plain names only, {} s:", (now() - began) / 1000);
    for index in 0..report.phases.len() - 1 {
        let counts = plain(&report, index);
        println!("  {}: {counts}", report.phases[index].0);
        assert_eq!(counts.failed, 0, "plain names, {}", report.phases[index].0);
        assert_eq!(counts.resent, 0, "queries of plain names without an answer, {}", report.phases[index].0);
    }
    for request in report.requests.iter().filter(|request| request.plan == PLANS[1]) {
        assert!(request.took_us < SILENT.as_micros() as u64, "{request:?}");
    }
}

/// The requests of a phase to plain names.
fn plain(report: &Report, phase: usize) -> Counts {
    let (_, from, to) = &report.spans[phase];
    let requests: Vec<_> = report.requests.iter().filter(|request| request.plan == PLANS[0]).cloned().collect();
    Counts::of(&requests, *from..*to)
}
