//! 0 failed requests while parts of the mesh, or of what it serves, are replaced.

use std::collections::BTreeSet;
use std::time::Duration;

use maesh_testcluster::load::now;
use maesh_testcluster::process::{Signal, signal};
use maesh_testcluster::{BEFORE_IMAGE, MESH, MESH_IMAGE, chart, chart_before, helm};

use crate::shared::{Cluster, PATIENCE, VALUES, automatic, cluster, our_cluster};
use crate::under_load::{Load, PLANS, pass};

/// Requests a second, all nodes together.
const RATE: u64 = 200;

impl Cluster {
    fn restart(&self, workload: &str) {
        self.kube.run(&format!("--namespace={MESH} rollout restart {workload}")).unwrap();
        self.mesh_settled();
    }

    fn restart_backends(&self) {
        self.kube.run("--namespace=shop rollout restart deployment/web").unwrap();
        self.kube.settled("shop", "deployment/web", PATIENCE).unwrap();
    }

    /// The images of the mesh's pods.
    fn mesh_images(&self) -> Vec<String> {
        let pods = self.kube.list(&format!("pods --namespace={MESH}")).unwrap();
        let images = pods.iter().filter_map(|pod| pod.pointer("/spec/containers/0/image")?.as_str().map(str::to_owned));
        images.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn scale_backends(&self, count: u8) {
        self.kube.run(&format!("--namespace=shop scale deployment/web --replicas={count}")).unwrap();
        self.kube.settled("shop", "deployment/web", PATIENCE).unwrap();
    }
}

#[test]
fn cluster_no_request_fails_while_all_proxies_are_replaced() {
    let Some(cluster) = cluster() else { return };
    cluster.with_mesh();
    cluster.with_stanza();
    let mut load = Load::start(&cluster, "load", &PLANS);
    load.phase("proxies are replaced", || cluster.restart("daemonset/maesh-proxy"));
    load.go_on(Duration::from_secs(5));
    load.end().assert_none_failed(RATE);
}

#[test]
#[ignore = "long: replaces every part of the mesh, and what it serves, under load"]
fn cluster_no_request_fails_while_anything_is_replaced() {
    let Some(cluster) = cluster() else { return };
    cluster.without_mesh();
    cluster.with_automatic_mesh();
    cluster.scale_backends(10);
    let mut load = Load::start(&cluster, "load", &PLANS);
    load.phase("nothing", load_alone);
    load.phase("10 backends are replaced", || cluster.restart_backends());
    load.phase("10 backends are replaced again", || cluster.restart_backends());
    load.phase("proxies are replaced", || cluster.restart("daemonset/maesh-proxy"));
    load.phase("dns is replaced", || cluster.restart("deployment/maesh-dns"));
    load.phase("controllers are replaced", || cluster.restart("deployment/maesh-controller"));
    load.phase("everything is upgraded", || {
        chart(&cluster.kube, "upgrade", &automatic(&["logs.level=debug"])).unwrap();
        cluster.mesh_settled();
    });
    load.phase("the mesh is uninstalled, and takes its stanza out before", || {
        cluster.uninstall();
        let gone = maesh_test_support::until(PATIENCE, || cluster.selected(MESH, "").is_empty());
        assert!(gone, "pods are left: {:?}", cluster.selected(MESH, ""));
    });
    load.phase("without a mesh", load_alone);
    let report = load.end();
    cluster.without_mesh();
    cluster.scale_backends(3);
    report.assert_none_failed(RATE);
    let (_, without) = &report.phases[report.phases.len() - 2];
    assert_eq!(without.plain, without.looked_up, "whoever resolves anew asks the plain name: {without}");
}

#[test]
#[ignore = "long: from the version before to this one and back, under load"]
fn cluster_no_request_fails_while_the_version_changes_and_changes_back() {
    let Some(cluster) = our_cluster() else { return };
    if !cluster.has_further(BEFORE_IMAGE) {
        return;
    }
    cluster.without_mesh();
    chart_before(&cluster.kube, "install", &VALUES).unwrap();
    cluster.mesh_settled();
    cluster.with_stanza();
    let mut load = Load::start(&cluster, "load", &PLANS);
    load.phase("nothing", load_alone);
    // One after the other: meanwhile old and new controllers, dns and proxies are there side by side.
    load.phase("to this version", || {
        chart(&cluster.kube, "upgrade", &VALUES).unwrap();
        cluster.mesh_settled();
    });
    assert_eq!(cluster.mesh_images(), [MESH_IMAGE]);
    load.phase("back to the version before", || {
        helm(&cluster.kube, &["rollback", MESH]).unwrap();
        cluster.mesh_settled();
    });
    assert_eq!(cluster.mesh_images(), [BEFORE_IMAGE]);
    load.go_on(Duration::from_secs(5));
    let report = load.end();
    cluster.without_mesh();
    report.assert_none_failed(RATE);
}

/// Nothing happens for a while.
fn load_alone() {
    pass(10);
}

#[test]
#[ignore = "long: a rollout of the proxies with the drain horizon that users have"]
fn cluster_no_request_fails_with_the_drain_horizon_that_users_have() {
    let Some(cluster) = cluster() else { return };
    cluster.without_mesh();
    chart(&cluster.kube, "install", &[VALUES[0], "coredns.mode=manual"]).unwrap();
    cluster.mesh_settled();
    cluster.with_stanza();
    let mut load = Load::start(&cluster, "load", &PLANS);
    load.phase("proxies are replaced", || cluster.restart("daemonset/maesh-proxy"));
    load.go_on(Duration::from_secs(5));
    let report = load.end();
    cluster.without_mesh();
    report.assert_none_failed(RATE);
}

#[test]
#[ignore = "long: a Service appears, and gets another port, while its name is asked for"]
fn cluster_a_new_service_is_only_heard_of_once_it_is_served() {
    let Some(cluster) = cluster() else { return };
    cluster.with_mesh();
    cluster.with_stanza();
    let plans = [
        "http1 20 late.shop.maesh:8093 dns=fresh",
        "h2c 10 late.shop.maesh:8093",
        "tcp 10 late-db.shop.maesh:9100 dns=fresh",
        "http1 10 late.shop.maesh:8094",
        "http1 20 web.shop.maesh:80",
    ];
    let service = |name: &str, ports: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{selector: {{app: web}}, ports: [{ports}]}}\n---\n"
        )
    };
    let first = "{name: a, port: 8093, targetPort: 8080}";
    let second = "{name: b, port: 8094, targetPort: 8080}";
    let mut load = Load::start(&cluster, "late", &plans);
    load.phase("nothing", load_alone);
    let made = now();
    load.phase("two Services appear", || {
        let db = service("late-db", "{name: a, port: 9100, targetPort: 9000, appProtocol: tcp}");
        cluster.kube.apply(&(service("late", first) + &db)).unwrap();
        load_alone();
    });
    let grown = now();
    load.phase("one gets another port", || {
        cluster.kube.apply(&service("late", &format!("{first}, {second}"))).unwrap();
        load_alone();
    });
    let report = load.end();
    cluster.kube.run("--namespace=shop delete service late late-db").unwrap();
    for request in report.requests.iter().filter(|request| request.failure.is_some()) {
        let failure = request.failure.as_deref().unwrap_or_default();
        let unknown = failure == "dns: NXDOMAIN";
        let allowed = if request.plan.contains(":8094") {
            // It asks for a port that is not there until then.
            request.at < grown + 2000
        } else {
            // Before the Service is there, until it is served, which is waited for for two seconds, and until both replicas
            // of our DNS and both of CoreDNS have heard of it.
            unknown && request.at < made + 4000 && !request.plan.contains("web.")
        };
        assert!(
            allowed,
            "{} ms after the Services, {} ms after the port: {request:?}",
            request.at - made,
            request.at as i64 - grown as i64
        );
    }
    for plan in plans {
        let good = report.requests.iter().filter(|request| request.plan == plan && request.failure.is_none());
        assert!(good.count() > 100, "{plan}");
    }
}

#[test]
#[ignore = "long: a proxy's container is killed under load"]
fn cluster_a_killed_proxy_costs_what_was_in_flight() {
    let Some(cluster) = our_cluster() else { return };
    cluster.with_mesh();
    cluster.with_stanza();
    let proxy = cluster.mesh_pods("proxy").remove(0);
    let mut load = Load::start(&cluster, "load", &PLANS);
    let mut killed = 0;
    load.phase("a proxy is killed", || {
        signal(&proxy.name, "/maesh proxy", Signal::KILL).unwrap();
        killed = now();
        load_alone();
        cluster.mesh_settled();
    });
    load.go_on(Duration::from_secs(10));
    let report = load.end();
    let failed: Vec<_> = report.requests.iter().filter(|request| !request.long && request.failure.is_some()).collect();
    println!("{} requests failed, of {} on three nodes", failed.len(), report.requests.len());
    for request in failed {
        assert_eq!(request.asker, proxy.node, "only its own node's callers: {request:?}");
        let (began, ended) = (request.at, request.at + request.took_us / 1000);
        assert!(began <= killed && ended + 100 >= killed, "not in flight at {killed}: {request:?}");
    }
}
