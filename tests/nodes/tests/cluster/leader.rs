//! One controller writes, and another when it dies.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use maesh_test_support::until;
use maesh_testcluster::process::{Signal, signal};
use maesh_testcluster::{Kube, MESH, audit};
use serde_json::Value;

use crate::shared::our_cluster;

/// The Lease's 15 s, after which another may write, and the time until a candidate looks again.
const TAKEN_OVER: Duration = Duration::from_secs(20);

/// Who holds the Lease: a process of a pod.
fn holder(kube: &Kube) -> Option<String> {
    let lease = kube.get(&format!("lease maesh-controller --namespace={MESH}")).ok()?;
    lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(str::to_owned)
}

#[test]
#[ignore = "long: kills the leading controller three times"]
fn cluster_another_controller_writes_when_the_leader_dies() {
    let Some(cluster) = our_cluster() else { return };
    cluster.with_mesh();
    for _ in 0..3 {
        let mut leader = None;
        assert!(until(TAKEN_OVER, || {
            leader = holder(&cluster.kube);
            leader.is_some()
        }));
        let leader = leader.unwrap();
        let pods = cluster.mesh_pods("controller");
        let pod = pods.iter().find(|pod| leader.contains(&pod.name)).expect("the leader is one of our pods");
        let since = Instant::now();
        signal(&pod.name, "/maesh", Signal::KILL).unwrap();
        let another = until(TAKEN_OVER, || holder(&cluster.kube).is_some_and(|holder| holder != leader));
        assert!(another, "nobody took over from {leader} in {TAKEN_OVER:?}");
        println!(
            "after {:.1} s {} leads, and no longer {leader}",
            since.elapsed().as_secs_f32(),
            holder(&cluster.kube).unwrap_or_default()
        );
        cluster.mesh_settled();
    }
    no_split_writes(&audit().unwrap());
}

/// In the audit log, whoever wrote anything held the Lease then.
fn no_split_writes(log: &[Value]) {
    let account = format!("system:serviceaccount:{MESH}:maesh-controller");
    let text =
        |event: &Value, pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut holder: Option<String> = None;
    let mut writes: BTreeMap<String, usize> = BTreeMap::new();
    let mut turns = 0;
    let mut ours: Vec<&Value> = log.iter().filter(|event| text(event, "/user/username") == account).collect();
    ours.sort_by_key(|event| text(event, "/stageTimestamp"));
    for event in ours {
        let code = event["responseStatus"]["code"].as_u64().unwrap_or_default();
        let pod =
            event["user"]["extra"]["authentication.kubernetes.io/pod-name"][0].as_str().unwrap_or_default().to_owned();
        if !(200..300).contains(&code) {
            continue;
        }
        if text(event, "/objectRef/resource") == "leases" {
            turns += usize::from(holder.as_ref() != Some(&pod));
            holder = Some(pod);
            continue;
        }
        let resource = text(event, "/objectRef/resource");
        // A question: every replica asks whose token a subscriber shows.
        if resource == "tokenreviews" {
            continue;
        }
        assert_eq!(holder.as_ref(), Some(&pod), "{pod} wrote {resource} without the Lease: {event}");
        *writes.entry(format!("{} {resource}", text(event, "/verb"))).or_default() += 1;
    }
    println!("{turns} turns of leading, writes by who led: {writes:?}");
    assert!(turns > 3, "the audit log knows of {turns} turns only");
}
