//! Addresses of both families: names, own addresses and the mesh's DNS answer in either, from every node.

use std::net::IpAddr;

use maesh_test_support::until;
use maesh_testcluster::{MESH, chart};
use serde_json::Value;

use crate::shared::{Cluster, PATIENCE, Pod, VALUES, dual_stack_cluster};

/// What the values say of a cluster with both families.
const BOTH: [&str; 2] = ["listenAddress=[::]", "ipFamilyPolicy=PreferDualStack"];

impl Cluster {
    /// Addresses of a pod, IPv4 first.
    fn addresses(&self, namespace: &str, pod: &str) -> Vec<IpAddr> {
        let pod = self.kube.get(&format!("pod --namespace={namespace} {pod}")).unwrap();
        let addresses = pod["status"]["podIPs"].as_array().into_iter().flatten();
        addresses.filter_map(|address| address["ip"].as_str()?.parse().ok()).collect()
    }

    /// ClusterIPs of a Service, IPv4 first.
    fn cluster_ips(&self, namespace: &str, service: &str) -> Vec<IpAddr> {
        let service = self.kube.get(&format!("service --namespace={namespace} {service}")).unwrap();
        serde_json::from_value(service["spec"]["clusterIPs"].clone()).unwrap()
    }

    fn told(&self, caller: &Pod, arguments: &str) -> Value {
        self.kube.ask("callers", &caller.name, arguments).unwrap_or_else(|error| format!("{error:#}").into())
    }
}

#[test]
#[ignore = "long: makes a cluster of its own"]
fn cluster_both_families_are_answered_and_carried() {
    let Some(cluster) = dual_stack_cluster() else { return };
    for service in ["web", "db"] {
        let both = "--type=merge --patch={\"spec\":{\"ipFamilyPolicy\":\"PreferDualStack\"}}";
        cluster.kube.run(&format!("--namespace=shop patch service {service} {both}")).unwrap();
    }
    // First as an installation that says nothing of families, then with the mesh's own Services in both.
    cluster.with_mesh();
    cluster.with_stanza();
    from_every_node(&cluster);
    chart(&cluster.kube, "upgrade", &[&VALUES[..], &BOTH].concat()).unwrap();
    cluster.mesh_settled();
    from_every_node(&cluster);

    let caller = &cluster.pods("callers", "caller")[0];
    let proxies = cluster.mesh_pods("proxy");
    let proxies: Vec<_> = proxies.iter().map(|proxy| cluster.addresses(MESH, &proxy.name)).collect();
    let servers = cluster.cluster_ips(MESH, "maesh-dns");
    assert_eq!(servers.len(), 2, "{servers:?}");
    for server in servers {
        let told = cluster.told(caller, &format!("lookup web.shop.maesh --server={server}"));
        let addresses: Vec<IpAddr> = serde_json::from_value(told["addresses"].clone()).unwrap_or_default();
        assert!(proxies.contains(&addresses), "{server}: {told}");
    }
    cluster.without_mesh();
}

/// Names answer both addresses of the proxy on the caller's node, own addresses have both families, and either carries
/// requests by that proxy.
fn from_every_node(cluster: &Cluster) {
    for caller in cluster.pods("callers", "caller") {
        let proxy = cluster.mesh_pods("proxy").into_iter().find(|proxy| proxy.node == caller.node).unwrap();
        let proxy = cluster.addresses(MESH, &proxy.name);
        assert!(matches!(proxy[..], [IpAddr::V4(_), IpAddr::V6(_)]), "{proxy:?}");
        let mut told = Value::Null;
        let both = until(PATIENCE, || {
            told = cluster.told(&caller, "lookup web.shop.maesh");
            told["addresses"] == serde_json::to_value(&proxy).unwrap()
        });
        assert!(both, "{caller:?}: {proxy:?} expected: {told}");
        let own = until(PATIENCE, || {
            told = cluster.told(&caller, "lookup db.shop.maesh");
            let addresses: Vec<IpAddr> = serde_json::from_value(told["addresses"].clone()).unwrap_or_default();
            let plain = cluster.cluster_ips("shop", "db");
            matches!(addresses[..], [IpAddr::V4(_), IpAddr::V6(_)]) && addresses.iter().all(|at| !plain.contains(at))
        });
        assert!(own, "{caller:?}: own addresses of both families expected: {told}");
        for (url, family) in [
            ("http://web.shop.maesh/", ""),
            ("http://web.shop.maesh/", " --six"),
            ("grpc://grpc.shop.maesh:50051/", ""),
            ("tcp://db.shop.maesh:9000/", ""),
            ("tcp://db.shop.maesh:9000/", " --six"),
        ] {
            let told = cluster.told(&caller, &format!("get {url}{family}"));
            let address = |value: &Value| value.as_str().and_then(|text| text.parse::<IpAddr>().ok());
            let to = address(&told["address"]);
            assert_eq!(to.map(|to| to.is_ipv6()), Some(!family.is_empty()), "{url}{family}: {told}");
            // The backend may be reached by the other family than the caller came by.
            let from = address(&told["answer"]["source"]);
            assert!(from.is_some_and(|from| proxy.contains(&from)), "{url}{family}, {proxy:?} expected: {told}");
        }
    }
}
