//! Pods that do what they can to harm the mesh, and Services that lead it in circles: nobody else notices.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Stdio};
use std::time::Duration;

use maesh_test_support::until;
use maesh_testcluster::MESH;
use serde_json::Value;

use crate::shared::{Cluster, PATIENCE, Pod, cluster};
use crate::under_load::{Load, PLANS};

/// How long hostile pods go on: longer than it takes a liveness or readiness probe to give a pod up.
const TIME: u64 = 60;

/// Connections that a hostile pod tries to hold at each port: more than any port of the mesh admits of one caller.
const CONNECTIONS: usize = 2_000;

impl Cluster {
    /// Lets `pod` hold silent connections to `targets`, for [`TIME`].
    fn holds(&self, pod: &str, targets: &[SocketAddr]) -> Child {
        let mut command = self.kube.kubectl().unwrap();
        command.args(["--namespace=callers", "exec", pod, "--", "/program", "hold"]);
        command.args([format!("--count={CONNECTIONS}"), format!("--time={TIME}")]);
        command.args(targets.iter().map(SocketAddr::to_string));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    }

    /// Every TCP port of every pod of the mesh.
    fn mesh_ports(&self) -> Vec<SocketAddr> {
        let pods = self.kube.list(&format!("pods --namespace={MESH}")).unwrap();
        let mut all = Vec::new();
        for pod in &pods {
            let address: IpAddr = pod["status"]["podIP"].as_str().unwrap().parse().unwrap();
            let containers = pod["spec"]["containers"].as_array().unwrap();
            let ports = containers.iter().filter_map(|container| container["ports"].as_array()).flatten();
            let tcp = ports.filter(|port| port["protocol"] != "UDP");
            all.extend(
                tcp.map(|port| SocketAddr::new(address, port["containerPort"].as_u64().unwrap().try_into().unwrap())),
            );
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Restarts of each pod of the mesh, and whether it is ready.
    fn mesh_state(&self) -> BTreeMap<String, (u64, bool)> {
        let pods = self.kube.list(&format!("pods --namespace={MESH}")).unwrap();
        let state = |pod: &Value| {
            let statuses = pod["status"]["containerStatuses"].as_array().unwrap();
            let restarts = statuses.iter().filter_map(|status| status["restartCount"].as_u64()).sum();
            (restarts, statuses.iter().all(|status| status["ready"] == true))
        };
        pods.iter().map(|pod| (pod["metadata"]["name"].as_str().unwrap().to_owned(), state(pod))).collect()
    }

    /// Asks for `url` from a pod; what came, or why nothing did.
    fn get(&self, caller: &Pod, url: &str) -> Result<Value, String> {
        self.kube.ask("callers", &caller.name, &format!("get {url}")).map_err(|error| format!("{error:#}"))
    }
}

/// What a hostile pod says at its end: connections that were made, and those that were open at the end.
fn held(child: Child) -> (u64, u64) {
    let output = child.wait_with_output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).expect("what it held");
    println!("a hostile pod: {said}");
    (said["opened"].as_u64().unwrap(), said["open"].as_u64().unwrap())
}

/// Two pods of one node hold connections to every port of every role: no pod of the mesh is restarted or loses its
/// readiness, and no request of anybody else fails.
#[test]
#[ignore = "long: two pods hold connections to every port of the mesh for a minute"]
fn cluster_pods_that_hold_every_port_harm_nobody() {
    let Some(cluster) = cluster() else { return };
    cluster.with_mesh();
    cluster.with_stanza();
    let ports = cluster.mesh_ports();
    println!("{} ports of the mesh", ports.len());
    assert!(ports.len() >= 7 * 2, "{ports:?}");
    let before = cluster.mesh_state();
    let hostile = [cluster.pods("callers", "caller").remove(0), cluster.pods("callers", "caller-glibc").remove(0)];
    assert_eq!(hostile[0].node, hostile[1].node);
    let mut load = Load::start(&cluster, "load", &PLANS);
    load.phase("two pods hold connections to every port", || {
        let children = hostile.each_ref().map(|pod| cluster.holds(&pod.name, &ports));
        let mut lost = Vec::new();
        until(Duration::from_secs(TIME - 10), || {
            lost.extend(cluster.mesh_state().into_iter().filter(|(name, now)| before.get(name) != Some(now)));
            !lost.is_empty()
        });
        assert!(lost.is_empty(), "was {before:?}, became {lost:?}");
        for child in children {
            let (opened, _) = held(child);
            assert!(opened > 1_000, "it hardly tried");
        }
    });
    load.end().assert_none_failed(200);
    assert_eq!(cluster.mesh_state(), before);
}

/// Two pods take all the connections that the proxy of their node gives them, over HTTP and over opaque streams, which
/// take two descriptors each: everybody else on the node is served.
#[test]
#[ignore = "long: two pods hold all the connections that they are given for a minute"]
fn cluster_two_callers_do_not_use_up_the_descriptors_of_a_proxy() {
    let Some(cluster) = cluster() else { return };
    cluster.with_mesh();
    cluster.with_stanza();
    let hostile = [cluster.pods("callers", "caller").remove(0), cluster.pods("callers", "caller-glibc").remove(0)];
    let address = |name: &str| -> IpAddr {
        let told = cluster.kube.ask("callers", &hostile[0].name, &format!("lookup {name}")).unwrap();
        told["addresses"][0].as_str().unwrap().parse().unwrap()
    };
    let targets = [SocketAddr::new(address("web.shop.maesh"), 80), SocketAddr::new(address("db.shop.maesh"), 9000)];
    let before = cluster.mesh_state();
    let mut load = Load::start(&cluster, "load", &PLANS);
    load.phase("two pods hold all they are given", || {
        let children = hostile.each_ref().map(|pod| cluster.holds(&pod.name, &targets));
        for child in children {
            let (opened, open) = held(child);
            assert!(opened > 1_000 && open > 500, "it hardly tried");
        }
    });
    load.end().assert_none_failed(200);
    assert_eq!(cluster.mesh_state(), before);
    // They have given everything back: one of them is served again.
    assert!(until(PATIENCE, || cluster.get(&hostile[0], "tcp://db.shop.maesh:9000/").is_ok()));
}

/// Services whose endpoints are the mesh itself.
const LOOPS: &str = r"
apiVersion: v1
kind: Service
metadata: {name: round, namespace: shop}
spec: {ports: [{name: http, port: 8096}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: round, namespace: shop, labels: {kubernetes.io/service-name: round}}
addressType: IPv4
ports: [{name: http, port: 8096}]
endpoints: [{addresses: [PROXY]}]
---
apiVersion: v1
kind: Service
metadata: {name: spiral, namespace: shop, annotations: {maesh.containo.us/traffic-type: tcp}}
spec: {ports: [{name: data, port: 9200}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: spiral, namespace: shop, labels: {kubernetes.io/service-name: spiral}}
addressType: IPv4
ports: [{name: data, port: 9200}]
endpoints: [{addresses: [OWN]}]
";

/// An endpoint that is a proxy's own address is left out. One that leads back to the proxy through a Service is noticed:
/// the stream is reset, and holds nothing afterwards.
#[test]
#[ignore = "long: Services that lead to the mesh itself, under load"]
fn cluster_services_that_lead_back_to_the_mesh_end_at_once() {
    let Some(cluster) = cluster() else { return };
    cluster.with_mesh();
    cluster.with_stanza();
    let caller = cluster.pods("callers", "caller").remove(0);
    let proxies = cluster.mesh_pods("proxy");
    let proxy = proxies.iter().find(|proxy| proxy.node == caller.node).unwrap();
    // Its own address is known only once it has one: until then it has no endpoints.
    let (services, _) = LOOPS.rsplit_once("---").unwrap();
    cluster.kube.apply(&services.replace("PROXY", &proxy.address)).unwrap();
    let own = || -> Option<IpAddr> {
        let told = cluster.kube.ask("callers", &caller.name, "lookup spiral.shop.maesh").ok()?;
        told["addresses"][0].as_str()?.parse().ok()
    };
    assert!(until(PATIENCE, || own().is_some()), "the Service of TCP has an address");
    let own = own().unwrap().to_string();
    cluster.kube.apply(&LOOPS.replace("PROXY", &proxy.address).replace("OWN", &own)).unwrap();
    let before = cluster.mesh_state();
    let mut load = Load::start(&cluster, "load", &PLANS);
    load.phase("Services that lead back are called", || {
        for _ in 0..20 {
            let round = cluster.get(&caller, "http://round.shop.maesh:8096/").unwrap_err();
            assert!(round.contains("503") || round.contains("508"), "{round}");
            cluster.get(&caller, "tcp://spiral.shop.maesh:9200/").unwrap_err();
        }
    });
    load.end().assert_none_failed(200);
    assert_eq!(cluster.mesh_state(), before);
    let described = cluster.kube.run("--namespace=shop get events --output=jsonpath={.items[*].message}").unwrap();
    assert!(described.contains(&proxy.address), "an Event names the address that is left out: {described}");
    cluster.kube.run("--namespace=shop delete service round spiral").unwrap();
    cluster.kube.run("--namespace=shop delete endpointslice round spiral --ignore-not-found").unwrap();
}
