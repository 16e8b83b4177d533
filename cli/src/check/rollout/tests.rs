use serde_json::json;

use super::{super::outcome::Verdict, *};

#[test]
fn rollouts_that_are_complete() {
    let deployment = |generation: u64, updated: u64, all: u64| {
        json!({ "metadata": { "name": "dns", "generation": generation }, "spec": { "replicas": 2 },
            "status": { "observedGeneration": 2, "updatedReplicas": updated, "replicas": all } })
    };
    let daemon = |updated: u64| {
        json!({ "metadata": { "name": "proxy", "generation": 2 },
            "status": { "observedGeneration": 2, "desiredNumberScheduled": 3, "updatedNumberScheduled": updated } })
    };
    let pod = |waits: Value, restarts: u64| {
        json!({ "metadata": { "name": "dns-1" },
            "status": { "containerStatuses": [{ "state": { "waiting": waits }, "restartCount": restarts }] } })
    };
    let runs = || pod(json!(null), 0);
    for (case, workload, pod, want, says) in [
        ("complete", deployment(2, 2, 2), runs(), Verdict::Pass, "dns are rolled out"),
        ("not seen yet", deployment(3, 2, 2), runs(), Verdict::Warn, "not rolled out yet: dns"),
        ("one is old", deployment(2, 1, 2), runs(), Verdict::Warn, "not rolled out yet"),
        ("an old one is still there", deployment(2, 2, 3), runs(), Verdict::Warn, "not rolled out yet"),
        ("on all nodes", daemon(3), runs(), Verdict::Pass, "proxy are rolled out"),
        ("not on all nodes", daemon(2), runs(), Verdict::Warn, "not rolled out yet: proxy"),
        (
            "no status",
            json!({ "metadata": { "name": "x", "generation": 1 } }),
            runs(),
            Verdict::Warn,
            "not rolled out yet: x",
        ),
        (
            "fails",
            daemon(3),
            pod(json!({ "reason": "CrashLoopBackOff" }), 1),
            Verdict::Fail,
            "dns-1 (CrashLoopBackOff)",
        ),
        ("no image", daemon(3), pod(json!({ "reason": "ImagePullBackOff" }), 0), Verdict::Fail, "ImagePullBackOff"),
        ("starts", daemon(3), pod(json!({ "reason": "ContainerCreating" }), 0), Verdict::Pass, "rolled out"),
        ("failed often", daemon(3), pod(json!(null), 5), Verdict::Warn, "restarted 5 times or more: dns-1"),
    ] {
        let outcome = judge_rollouts(&[&workload], &[pod], "maesh");
        assert_eq!(outcome.verdict, want, "{case}: {outcome:?}");
        assert!(outcome.message.contains(says), "{case}: {outcome:?}");
    }
    assert_eq!(judge_rollouts(&[], &[], "maesh").verdict, Verdict::Skip);
}

#[test]
fn images_of_pods() {
    let pod = |image: &str, id: &str| json!({ "status": { "containerStatuses": [{ "image": image, "imageID": id }] } });
    for (case, pods, want) in [
        ("one", vec![pod("m:1", "sha256:a"), pod("m:1", "sha256:a")], Verdict::Pass),
        ("pushed again", vec![pod("m:1", "sha256:a"), pod("m:1", "sha256:b")], Verdict::Warn),
        ("an upgrade", vec![pod("m:1", "sha256:a"), pod("m:2", "sha256:b")], Verdict::Warn),
        ("not started", vec![pod("m:1", "")], Verdict::Skip),
    ] {
        assert_eq!(judge_images(&pods).verdict, want, "{case}");
    }
}

#[test]
fn versions_of_roles() {
    let seen =
        |all: &[(&str, &str)]| all.iter().map(|(version, pod)| ((*version).to_owned(), (*pod).to_owned())).collect();
    for (case, all, want, says) in [
        ("one", &[("1.0.0", "a"), ("1.0.0", "b")][..], Verdict::Pass, "are version 1.0.0"),
        (
            "this program is another",
            &[("0.9.0", "a")],
            Verdict::Warn,
            "this program is version 1.0.0, and the mesh is version 0.9.0",
        ),
        ("an upgrade", &[("1.0.0", "a"), ("0.9.0", "b")], Verdict::Warn, "0.9.0 (b); 1.0.0 (a)"),
        ("nobody to ask", &[], Verdict::Skip, "no controller"),
    ] {
        let outcome = judge_versions(&seen(all), "1.0.0");
        assert_eq!(outcome.verdict, want, "{case}: {outcome:?}");
        assert!(outcome.message.contains(says), "{case}: {outcome:?}");
    }
}

#[test]
fn replicas_of_roles() {
    let deployment = |role: &str, replicas: u64| json!({ "metadata": { "labels": { "app.kubernetes.io/component": role } }, "spec": { "replicas": replicas } });
    let budget = |allowed: u64| json!({ "metadata": { "name": "dns" }, "status": { "disruptionsAllowed": allowed, "expectedPods": 2 } });
    let both = |controller, dns| vec![deployment("controller", controller), deployment("dns", dns)];
    for (case, deployments, budget, nodes, want) in [
        ("two of each", both(2, 2), budget(1), 3, Verdict::Pass),
        ("one dns", both(2, 1), budget(1), 3, Verdict::Warn),
        ("one of each on one node", both(1, 1), budget(1), 1, Verdict::Pass),
        ("none may go", both(2, 2), budget(0), 3, Verdict::Warn),
        ("made by hand", vec![], budget(1), 3, Verdict::Skip),
    ] {
        assert_eq!(judge_replicas(&deployments, &[budget], nodes).verdict, want, "{case}");
    }
}

#[test]
fn ports_that_are_left() {
    let service = |address: Value, ports: usize, bypass: bool| json!({ "address": address, "ports": vec![0; ports], "bypass": bypass });
    for (case, services, want) in [
        ("few", vec![service(json!("10.96.0.1"), 10, false)], Verdict::Pass),
        ("nine tenths", vec![service(json!("10.96.0.1"), 90, false)], Verdict::Pass),
        ("more", vec![service(json!("10.96.0.1"), 91, false)], Verdict::Warn),
        ("too many", vec![service(json!("10.96.0.1"), 120, false)], Verdict::Warn),
        ("shared ones", vec![service(json!(null), 99, false)], Verdict::Pass),
        ("bypassed ones", vec![service(json!("10.96.0.1"), 99, true)], Verdict::Pass),
    ] {
        assert_eq!(judge_own_ports(&services, 100).verdict, want, "{case}");
    }
}
