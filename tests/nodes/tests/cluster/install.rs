//! From `helm install` to a request by a mesh name, on every node and in every protocol.

use std::time::{Duration, Instant};

use maesh_test_support::until;
use maesh_testcluster::{MESH, chart, helm};
use serde_json::Value;

use crate::shared::{Cluster, DNS, PATIENCE, Pod, VALUES, cluster};

/// From the installation to the first meshed answer, once the image is on the nodes.
const INSTALL: Duration = Duration::from_secs(30);

#[test]
fn cluster_install_is_quick_and_names_lead_to_the_proxy_on_the_callers_node() {
    let Some(cluster) = cluster() else { return };
    cluster.without_mesh();
    let callers = cluster.pods("callers", "caller");
    let since = Instant::now();
    chart(&cluster.kube, "install", &VALUES).unwrap();
    let mut last = String::new();
    let meshed = until(PATIENCE, || {
        // Our DNS Service itself is asked: the stanza's way into CoreDNS is another matter.
        let url = format!("get http://web.shop.maesh/ --patience=2 --server={DNS}");
        match cluster.kube.ask("callers", &callers[0].name, &url) {
            Ok(answer) => {
                last = answer.to_string();
                is_meshed(&answer, &callers[0])
            }
            Err(error) => {
                last = format!("{error:#}");
                false
            }
        }
    });
    let took = since.elapsed();
    assert!(meshed, "no meshed answer in {PATIENCE:?}: {last}");
    println!("first meshed 200 after {:.1} s", took.as_secs_f32());
    assert!(took < INSTALL, "the first meshed 200 came after {took:?}");
    cluster.mesh_settled();
    for (pod, took) in cluster.with_stanza() {
        println!("stanza live in {pod} after {:.1} s", took.as_secs_f32());
    }
    for caller in &callers {
        every_protocol(&cluster, caller);
    }
    // The API server passes this on from an address of its own. Commands forward ports instead.
    for (role, port) in [("controller", 5381), ("dns", 5382), ("proxy", 5383)] {
        let pod = &cluster.mesh_pods(role)[0].name;
        let get = |path: &str| {
            cluster.kube.run(&format!("get --raw=/api/v1/namespaces/{MESH}/pods/{pod}:{port}/proxy{path}"))
        };
        assert!(get("/metrics").unwrap().contains("maesh_build_info"), "{pod}");
        let refused = get("/api/status").unwrap_err().to_string();
        assert!(refused.contains("from a loopback address"), "{pod}: {refused}");
    }
    // `maesh check` from inside the cluster; it fails when one check does.
    helm(&cluster.kube, &["test", MESH, "--timeout=200s"]).unwrap();
    for caller in &cluster.pods("callers", "caller-glibc") {
        let answer = cluster.kube.ask("callers", &caller.name, "get http://web.shop.maesh/ --libc").unwrap();
        assert_eq!(answer["answer"]["source"], local_proxy(&cluster, caller), "{caller:?}: {answer}");
    }
}

/// Whether a proxy carried it: the backend saw another address than the caller's.
fn is_meshed(answer: &Value, caller: &Pod) -> bool {
    answer["answer"]["source"].as_str().is_some_and(|source| source != caller.address)
}

/// Address of the proxy on the caller's node.
fn local_proxy(cluster: &Cluster, caller: &Pod) -> String {
    let proxies = cluster.mesh_pods("proxy");
    proxies.iter().find(|proxy| proxy.node == caller.node).expect("a proxy on every node").address.clone()
}

/// Asks in every protocol by the mesh name, and by the plain name beside it.
fn every_protocol(cluster: &Cluster, caller: &Pod) {
    let local = local_proxy(cluster, caller);
    for (url, by_the_proxy) in [
        ("http://web.shop.maesh/some/path?q=1", true),
        ("http://web.shop.traefik.mesh/", true),
        ("h2c://web.shop.maesh/", true),
        ("h2c://h2c.shop.maesh/", true),
        ("grpc://grpc.shop.maesh:50051/", true),
        ("ws://web.shop.maesh/", true),
        // The plain names beside them.
        ("http://web.shop/", false),
        ("grpc://grpc.shop:50051/", false),
        ("tcp://db.shop:9000/", false),
        ("udp://log.shop:9001/", false),
        // An own address leads to the proxy on the caller's node as well.
        ("tcp://db.shop.maesh:9000/", true),
    ] {
        let answer = cluster.kube.ask("callers", &caller.name, &format!("get {url}")).unwrap();
        let want = if by_the_proxy { &local } else { &caller.address };
        assert_eq!(answer["answer"]["source"], want.as_str(), "{url} from {caller:?}: {answer}");
    }
    let answer = cluster.kube.ask("callers", &caller.name, "get http://web.shop.maesh/some/path?q=1").unwrap();
    assert_eq!(answer["answer"]["path"], "/some/path?q=1", "{answer}");
    let headers = &answer["answer"]["headers"];
    assert_eq!(
        (&headers["host"], &headers["x-forwarded-for"]),
        (&"web.shop.maesh".into(), &caller.address.as_str().into())
    );
}
