//! A proxy that hangs: its process is there, its connections are open, and it does nothing.

use std::time::Duration;

use maesh_testcluster::load::now;
use maesh_testcluster::process::{Signal, signal};

use crate::shared::our_cluster;
use crate::under_load::{Load, PLANS};

/// Longest time until nobody is sent to it.
const LEFT: u64 = 6_000;

#[test]
#[ignore = "long: a proxy is stopped under load"]
fn cluster_nobody_is_sent_to_a_proxy_that_hangs() {
    let Some(cluster) = our_cluster() else { return };
    cluster.with_mesh();
    cluster.with_stanza();
    let proxy = cluster.mesh_pods("proxy").remove(0);
    let mut load = Load::start(&cluster, "load", &PLANS);
    let mut stopped = 0;
    load.phase("a proxy hangs", || {
        signal(&proxy.name, "/maesh proxy", Signal::STOP).unwrap();
        stopped = now();
    });
    load.go_on(Duration::from_secs(20));
    load.phase("it goes on", || {
        signal(&proxy.name, "/maesh proxy", Signal::CONT).unwrap();
        cluster.mesh_settled();
    });
    let report = load.end();
    let looked_up = report.requests.iter().filter(|request| request.plan.contains("dns=fresh"));
    let failed: Vec<_> = looked_up.filter(|request| request.failure.is_some()).collect();
    let last = failed.iter().map(|request| request.at.saturating_sub(stopped)).max().unwrap_or(0);
    println!("{} requests that looked the name up failed, the last began {last} ms after it hung", failed.len());
    for request in failed {
        assert_eq!(request.asker, proxy.node, "only its own node's callers: {request:?}");
        assert!(request.at < stopped + LEFT, "{} ms after it hung: {request:?}", request.at - stopped);
    }
}
