//! 0 failed requests while parts of the mesh, or of what it serves, are replaced.

use std::time::Duration;

use crate::shared::cluster;
use crate::under_load::{Load, PLANS};
use maesh_testcluster::MESH;

/// Requests a second, all nodes together.
const RATE: u64 = 200;

#[test]
fn cluster_no_request_fails_while_all_proxies_are_replaced() {
    let Some(cluster) = cluster() else { return };
    cluster.with_mesh();
    cluster.with_stanza();
    let mut load = Load::start(&cluster, "load", &PLANS);
    load.phase("proxies are replaced", || {
        cluster.kube.run(&format!("--namespace={MESH} rollout restart daemonset/maesh-proxy")).unwrap();
        cluster.mesh_settled();
    });
    load.go_on(Duration::from_secs(5));
    load.end().assert_none_failed(RATE);
}
