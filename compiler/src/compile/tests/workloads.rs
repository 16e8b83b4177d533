//! Whose address it is.

use super::*;

fn workloads(yaml: &str) -> Vec<String> {
    let output = compiled(dev(), yaml);
    let mut all = Vec::new();
    for resource in &output.change.upserts {
        if let Resource::Workload(workload) = resource {
            let account = workload.service_account.as_deref().unwrap_or("-");
            all.push(format!("{:?} {} {} {account}", workload.kind, workload.resource_name(), workload.name));
        }
    }
    all
}

fn pod(name: &str, metadata: &str, spec: &str, status: &str) -> String {
    format!(
        "kind: Pod\nmetadata: {{namespace: shop, name: {name}, {metadata}}}\nspec: {{{spec}}}\nstatus: {{{status}}}\n---\n"
    )
}

#[test]
fn pods() {
    let resolver = "labels: {k8s-app: kube-dns}, ownerReferences: [{kind: ReplicaSet}]";
    let on_each_node = "labels: {k8s-app: kube-dns}, ownerReferences: [{kind: DaemonSet}]";
    let old = "creationTimestamp: 2020-01-01T00:00:00Z";
    for (case, yaml, want) in [
        ("a pod", pod("a", "", "serviceAccountName: sa", "podIP: 10.1.0.1"), &["Pod 10.1.0.1 a sa"][..]),
        (
            "both families",
            pod("a", "", "", "podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}, {ip: 'fd00::1'}]"),
            &["Pod 10.1.0.1 a default", "Pod fd00::1 a default"],
        ),
        ("of the host's network", pod("a", "", "hostNetwork: true", "podIP: 10.1.0.1"), &[]),
        ("ended", pod("a", "", "", "podIP: 10.1.0.1, phase: Succeeded"), &[]),
        ("resolver for all", pod("a", resolver, "", "podIP: 10.1.0.1"), &["Resolver 10.1.0.1 a default"]),
        ("resolver of its node", pod("a", on_each_node, "", "podIP: 10.1.0.1"), &["Pod 10.1.0.1 a default"]),
        (
            "an address used again belongs to the newest",
            pod("z", "creationTimestamp: 2021-01-01T00:00:00Z", "", "podIP: 10.1.0.1")
                + &pod("a", old, "", "podIP: 10.1.0.1"),
            &["Pod 10.1.0.1 z default"],
        ),
        (
            "unless that one has ended",
            pod("z", "creationTimestamp: 2021-01-01T00:00:00Z", "", "podIP: 10.1.0.1, phase: Failed")
                + &pod("a", old, "", "podIP: 10.1.0.1"),
            &["Pod 10.1.0.1 a default"],
        ),
    ] {
        assert_eq!(workloads(&yaml), want, "{case}");
    }
}

#[test]
fn nodes() {
    let node = "kind: Node\nmetadata: {name: n1}\nspec: {podCIDR: 10.1.0.0/24, podCIDRs: [10.1.0.0/24, 'fd00::/64']}\n\
                status: {addresses: [{type: InternalIP, address: 192.168.0.1}, {type: ExternalIP, address: 1.2.3.4}]}\n";
    let want = ["Node 192.168.0.1 n1 -", "PodRange 10.1.0.0/24 n1 -", "PodRange fd00::/64 n1 -"];
    let mut got = workloads(node);
    got.sort();
    assert_eq!(got, want);
}

#[test]
fn the_zone_of_a_node() {
    let node = |labels: &str| {
        let spec = "spec: {podCIDR: 10.1.0.0/24}\nstatus: {addresses: [{type: InternalIP, address: 192.168.0.1}]}\n";
        format!("kind: Node\nmetadata: {{name: n1, labels: {{{labels}}}}}\n{spec}")
    };
    let zones = |yaml: &str| {
        let upserts = compiled(dev(), yaml).change.upserts;
        let zone = |resource: &Resource| match resource {
            Resource::Workload(workload) => Some((workload.kind, workload.zone.as_deref().map(str::to_owned))),
            _ => None,
        };
        let mut all: Vec<_> = upserts.iter().filter_map(zone).collect();
        all.sort();
        all
    };
    for (case, labels, want) in [
        ("a zone", "topology.kubernetes.io/zone: z1", Some("z1".to_owned())),
        ("none", "other: z1", None),
        ("an empty one", "topology.kubernetes.io/zone: ''", None),
    ] {
        assert_eq!(zones(&node(labels)), [(WorkloadKind::Node, want), (WorkloadKind::PodRange, None)], "{case}");
    }
}

#[test]
fn the_cluster_dns_by_its_service() {
    let pod = "kind: Pod\nmetadata: {namespace: kube-system, name: dns, labels: {app: coredns}, \
               ownerReferences: [{kind: ReplicaSet}]}\nstatus: {podIP: 10.1.0.1}\n---\n";
    let service =
        "kind: Service\nmetadata: {namespace: kube-system, name: kube-dns}\nspec: {selector: {app: coredns}}\n";
    assert_eq!(workloads(pod), ["Pod 10.1.0.1 dns default"]);
    assert_eq!(workloads(&format!("{pod}{service}")), ["Resolver 10.1.0.1 dns default"]);
}
