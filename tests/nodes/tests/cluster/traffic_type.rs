//! A Service becomes TCP by an annotation and HTTP again, and nobody who calls it meanwhile fails.

use std::net::IpAddr;
use std::time::Duration;

use maesh_test_support::until;
use maesh_testcluster::load::{Request, now};

use crate::shared::{Cluster, PATIENCE, Pod, cluster};
use crate::under_load::Load;

/// From the annotation until the name carries TCP, and back.
const SOON: Duration = Duration::from_secs(5);
/// Longer than the horizon of the tests and the life of an answer together.
const HORIZON: Duration = Duration::from_secs(16);
const NAME: &str = "turn.shop.maesh";
/// What only a proxy of TCP carries, and what either does.
const STREAMS: &str = "tcp 10 turn.shop.maesh:9100 dns=fresh";
const FRESH: &str = "http1 10 turn.shop.maesh:8095 dns=fresh";
const PLANS: [&str; 5] = [
    STREAMS,
    FRESH,
    "http1 20 turn.shop.maesh:8095",
    "http1-kept 10 turn.shop.maesh:8095",
    "h2c-kept 10 turn.shop.maesh:8095",
];

/// An HTTP port, whose requests a proxy of HTTP and one of TCP can carry, and one that only speaks TCP.
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: turn, namespace: shop}
spec:
  selector: {app: web}
  ports:
  - {name: main, port: 8095, targetPort: 8080}
  - {name: stream, port: 9100, targetPort: 9000}
";

impl Cluster {
    /// What the DNS of the cluster tells this caller.
    fn answers(&self, caller: &Pod) -> Vec<IpAddr> {
        let told = self.kube.ask("callers", &caller.name, &format!("lookup {NAME}")).unwrap_or_default();
        serde_json::from_value(told["addresses"].clone()).unwrap_or_default()
    }

    /// Whether TCP gets through, by the proxy at `proxy`.
    fn carries_tcp(&self, caller: &Pod, proxy: IpAddr) -> bool {
        let answer = self.kube.ask("callers", &caller.name, &format!("get tcp://{NAME}:9100/ --patience=2"));
        answer.is_ok_and(|answer| answer["answer"]["source"] == proxy.to_string())
    }
}

#[test]
fn cluster_a_service_becomes_tcp_and_http_again_and_no_connection_fails() {
    let Some(cluster) = cluster() else { return };
    cluster.with_mesh();
    cluster.with_stanza();
    cluster.kube.apply(SERVICE).unwrap();
    let plain: IpAddr = {
        let service = cluster.kube.get("service --namespace=shop turn").unwrap();
        service["spec"]["clusterIP"].as_str().unwrap().parse().unwrap()
    };
    let callers: Vec<(Pod, IpAddr)> = cluster
        .pods("callers", "caller")
        .into_iter()
        .map(|caller| {
            let proxies = cluster.mesh_pods("proxy");
            let proxy = proxies.iter().find(|proxy| proxy.node == caller.node).expect("a proxy on every node");
            let address = proxy.address.parse().unwrap();
            (caller, address)
        })
        .collect();
    let began_with: Vec<(String, String)> =
        cluster.mesh_pods("proxy").into_iter().map(|proxy| (proxy.name, proxy.address)).collect();
    let all = |what: &dyn Fn(&Pod, IpAddr) -> bool| callers.iter().all(|(caller, proxy)| what(caller, *proxy));
    let shared = |caller: &Pod, proxy| cluster.answers(caller) == [proxy];
    let own = |caller: &Pod, proxy| matches!(cluster.answers(caller)[..], [at] if at != proxy && at != plain);
    assert!(until(PATIENCE, || all(&shared)), "the proxy of each node is answered");

    let mut load = Load::start(&cluster, "turn", &PLANS);
    let (mut tcp, mut http) = (0, 0);
    load.phase("it becomes TCP", || {
        tcp = now();
        cluster.kube.run("--namespace=shop annotate service turn maesh.containo.us/traffic-type=tcp").unwrap();
        assert!(until(PATIENCE, || all(&own)), "an own address is answered on every node");
        // One replica of our DNS may have heard of it later than the other.
        let carried = until(PATIENCE, || all(&|caller, proxy| cluster.carries_tcp(caller, proxy)));
        assert!(carried, "TCP gets through on every node");
    });
    load.go_on(HORIZON);
    load.phase("it becomes HTTP again", || {
        http = now();
        cluster.kube.run("--namespace=shop annotate service turn maesh.containo.us/traffic-type-").unwrap();
        assert!(until(PATIENCE, || all(&shared)), "the proxy of each node is answered");
    });
    load.go_on(HORIZON);
    let report = load.end();
    cluster.kube.run("--namespace=shop delete service turn").unwrap();

    for (caller, proxy) in &callers {
        let of_node = |request: &&Request| request.asker == caller.node;
        let streams = || report.requests.iter().filter(of_node).filter(|request| request.plan == STREAMS);
        let meanwhile = || streams().filter(|request| (tcp..http).contains(&request.at));
        // Both replicas of our DNS have to have heard of it: the last that failed counts.
        let carried = meanwhile().filter(|request| request.failure.is_some()).map(|it| it.at).max().unwrap_or(tcp);
        assert!(meanwhile().filter(|request| request.failure.is_none()).count() > 100, "TCP is carried");
        let fresh =
            report.requests.iter().filter(of_node).filter(|request| request.plan == FRESH && request.at >= http);
        let proxy = Some(proxy.to_string());
        let back = fresh.filter(|request| request.address == proxy).map(|request| request.at).min();
        let (carried, back) = (carried - tcp, back.expect("HTTP again") - http);
        println!(
            "from {}: TCP is carried after {carried} ms, the proxy is answered again after {back} ms",
            caller.node
        );
        assert!(u128::from(carried.max(back)) < SOON.as_millis());
    }
    let requests = || report.requests.iter().filter(|request| request.plan != STREAMS);
    let failed: Vec<&Request> = requests().filter(|request| request.failure.is_some()).collect();
    println!(
        "{} requests over HTTP, {} failed; proxies when it began: {began_with:?}",
        requests().count(),
        failed.len()
    );
    assert!(failed.is_empty(), "{failed:?}");
    let proxies: Vec<String> = callers.iter().map(|(_, proxy)| proxy.to_string()).collect();
    let used: Vec<&String> = requests().filter_map(|request| request.address.as_ref()).collect();
    let shared = used.iter().filter(|address| proxies.contains(address)).count();
    assert!(shared > 100 && used.len() - shared > 100, "{shared} connections of {} to shared addresses", used.len());
}
