//! UDP on own addresses, with kube-proxy before the proxies: a real DNS server behind the mesh, and a log.

use std::net::IpAddr;

use maesh_test_support::until;
use maesh_testcluster::DNS_IMAGE;

use crate::shared::{Cluster, PATIENCE, Pod, cluster};

/// A DNS server with one name, on the same number over UDP and TCP.
const RESOLVER: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: resolver, namespace: shop}
data:
  Corefile: |
    .:53 {
      errors
      hosts {
        192.0.2.7 www.example.test
      }
    }
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: resolver, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: resolver}}
  template:
    metadata: {labels: {app: resolver}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: coredns
        image: IMAGE
        args: [-conf, /etc/coredns/Corefile]
        volumeMounts:
        - {name: config-volume, mountPath: /etc/coredns, readOnly: true}
      volumes:
      - name: config-volume
        configMap: {name: resolver}
---
apiVersion: v1
kind: Service
metadata: {name: resolver, namespace: shop}
spec:
  selector: {app: resolver}
  ports:
  - {name: dns, port: 53, protocol: UDP}
  - {name: dns-tcp, port: 53, protocol: TCP, appProtocol: tcp}
"#;

impl Cluster {
    /// What a name resolves to for this caller, asked of `server` or else of the cluster's DNS.
    fn looked_up(&self, caller: &Pod, name: &str, server: Option<IpAddr>) -> Vec<IpAddr> {
        let server = server.map(|server| format!(" --server={server}")).unwrap_or_default();
        let told = self.kube.ask("callers", &caller.name, &format!("lookup {name}{server}")).unwrap_or_default();
        serde_json::from_value(told["addresses"].clone()).unwrap_or_default()
    }

    /// The source that the log sees of a datagram of this caller, sent to the mesh name.
    fn logged_from(&self, caller: &Pod) -> Option<String> {
        let answer = self.kube.ask("callers", &caller.name, "get udp://log.shop.maesh:9001/ --patience=2").ok()?;
        answer["answer"]["source"].as_str().map(str::to_owned)
    }
}

#[test]
#[ignore = "long: endpoints come and go under datagrams"]
fn cluster_udp_is_carried_to_endpoints_that_come_and_go() {
    let Some(cluster) = cluster() else { return };
    cluster.with_mesh();
    cluster.with_stanza();
    cluster.kube.apply(&RESOLVER.replace("IMAGE", DNS_IMAGE)).unwrap();
    let plain: IpAddr = {
        let service = cluster.kube.get("service --namespace=shop resolver").unwrap();
        service["spec"]["clusterIP"].as_str().unwrap().parse().unwrap()
    };
    let proxies = cluster.mesh_pods("proxy");
    for caller in &cluster.pods("callers", "caller") {
        let local = &proxies.iter().find(|proxy| proxy.node == caller.node).expect("a proxy on every node").address;
        assert!(
            until(PATIENCE, || cluster.logged_from(caller).as_ref() == Some(local)),
            "{caller:?}: the proxy on its node carries the datagram, and its reply is heard"
        );
        let mut own = Vec::new();
        let is_own = until(PATIENCE, || {
            own = cluster.looked_up(caller, "resolver.shop.maesh", None);
            matches!(own[..], [at] if at != plain && proxies.iter().all(|proxy| proxy.address != at.to_string()))
        });
        assert!(is_own, "{caller:?}: the name resolves to an own address: {own:?}");
        let answers = || cluster.looked_up(caller, "www.example.test", Some(own[0])) == [IpAddr::from([192, 0, 2, 7])];
        assert!(until(PATIENCE, answers), "{caller:?}: the DNS server answers through the mesh");
    }
    // Pods that are gone leave flows behind, which have to move.
    cluster.kube.run("--namespace=shop rollout restart deployment resolver").unwrap();
    cluster.kube.run("--namespace=shop rollout status deployment resolver --timeout=120s").unwrap();
    for caller in &cluster.pods("callers", "caller") {
        let own = cluster.looked_up(caller, "resolver.shop.maesh", None);
        assert_eq!(own.len(), 1, "{caller:?}: {own:?}");
        for number in 0..20 {
            let answers =
                || cluster.looked_up(caller, "www.example.test", Some(own[0])) == [IpAddr::from([192, 0, 2, 7])];
            assert!(until(PATIENCE, answers), "{caller:?}, question {number}");
        }
    }
    cluster.kube.run("--namespace=shop delete service,deployment,configmap resolver").unwrap();
}
