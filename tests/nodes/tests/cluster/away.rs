//! What holds while the API server, and then the controllers, are away.

use std::time::Duration;

use maesh_test_support::until;
use maesh_testcluster::Daemon;
use maesh_testcluster::load::now;
use maesh_testcluster::process::{Signal, kill_sandbox, signal};

use crate::shared::our_cluster;
use crate::under_load::{Load, PLANS, pass};

/// How long the API server is away in all, at least.
const AWAY: Duration = Duration::from_secs(180);

/// How long requests may fail after a process was killed: its address is kept for the TTL, and its container started
/// again.
const CRASH: u64 = 12_000;

#[test]
#[ignore = "long: three minutes without an API server, and then without controllers"]
fn cluster_names_answer_and_requests_pass_without_the_api_server_and_controllers() {
    let Some(cluster) = our_cluster() else { return };
    cluster.with_mesh();
    cluster.with_stanza();
    let (proxies, dns) = (cluster.mesh_pods("proxy"), cluster.mesh_pods("dns"));
    let controllers = cluster.mesh_pods("controller");
    let mut load = Load::start(&cluster, "load", &PLANS);
    let began = now();
    let mut crashes = Vec::new();
    load.phase("the API server is killed", || {
        Daemon::ApiServer.kill().unwrap();
        Daemon::ControllerManager.kill().unwrap();
        pass(20);
    });
    load.phase("the controllers too", || {
        for pod in &controllers {
            signal(&pod.name, "/maesh", Signal::KILL).unwrap();
        }
        pass(20);
    });
    load.phase("a proxy's container is killed", || {
        crashes.push(now());
        signal(&proxies[0].name, "/maesh proxy", Signal::KILL).unwrap();
        pass(20);
    });
    load.phase("a dns container is killed", || {
        crashes.push(now());
        signal(&dns[0].name, "/maesh", Signal::KILL).unwrap();
        pass(20);
    });
    load.phase("a whole proxy pod is made anew", || {
        crashes.push(now());
        kill_sandbox(&proxies[1].name, "/maesh").unwrap();
        pass(30);
    });
    load.phase("nothing more", || {
        let left = AWAY.as_millis() as u64 - (now() - began).min(AWAY.as_millis() as u64);
        pass(left.div_ceil(1000));
    });
    load.phase("the API server is back", || {
        Daemon::ApiServer.start().unwrap();
        let back = until(Duration::from_secs(120), || cluster.kube.run("get --raw=/readyz").is_ok());
        assert!(back, "the API server does not come back");
        Daemon::ControllerManager.start().unwrap();
        cluster.mesh_settled();
        // Until own addresses are answered again beside the proxy that was made anew, and longer.
        pass(180);
    });
    let report = load.end();
    for request in report.requests.iter().filter(|request| !request.long && request.failure.is_some()) {
        let allowed = crashes.iter().any(|at| (*at..at + CRASH).contains(&(request.at + request.took_us / 1000)));
        assert!(allowed, "{} ms after it began: {request:?}", request.at - began);
    }
}
