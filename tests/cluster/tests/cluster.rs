//! The cluster itself: what tests of the mesh on it may rely on.

use std::collections::BTreeSet;
use std::time::Duration;

use maesh_test_support::{need_root, skip, until};
use maesh_testcluster::{ECHO_IMAGE, Guard, Options, exec, images, kubectl, kubectl_apply, up};

/// One echo pod a node behind a Service, and one client pod a node.
const WORKLOADS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: echo
        image: IMAGE
        args: [echo]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
        env:
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
"#;

/// For answers from every node: kube-proxy chooses at random.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn cluster_pods_reach_a_service_on_every_node_by_its_name() {
    const TEST: &str = "cluster_pods_reach_a_service_on_every_node_by_its_name";
    if !need_root() {
        return;
    }
    let Some(images) = images() else {
        skip("the images of the test cluster are not built, cargo xtask test --only cluster builds them");
        return;
    };
    let guard = Guard::new(&[env!("CARGO_BIN_EXE_maesh-testcluster").into()]).unwrap();
    up(&Options { nodes: 2, dual_stack: false, images }).unwrap();
    kubectl_apply(&WORKLOADS.replace("IMAGE", ECHO_IMAGE)).unwrap();
    let rollout = kubectl().unwrap().args(["rollout", "status", "daemonset/web", "--timeout=60s"]).output().unwrap();
    assert!(rollout.status.success(), "{TEST}: {rollout:?}");
    let pods = kubectl().unwrap().args(["get", "pods", "--output=name"]).output().unwrap();
    let pods = String::from_utf8(pods.stdout).unwrap();
    assert_eq!(pods.lines().count(), 2, "{pods}");
    for pod in pods.lines() {
        let mut nodes = BTreeSet::new();
        let mut last = String::new();
        until(PATIENCE, || {
            let answer =
                kubectl().unwrap().args(["exec", pod, "--", "/program", "get", "http://web/"]).output().unwrap();
            last = format!("{answer:?}");
            if answer.status.success() {
                let text = String::from_utf8(answer.stdout).unwrap();
                nodes.extend(["n1", "n2"].into_iter().filter(|node| text.contains(&format!("\"node\":\"{node}\""))));
            }
            nodes.len() == 2
        });
        assert_eq!(nodes, BTreeSet::from(["n1", "n2"]), "{pod}: {last}");
    }
    let pod = pods.lines().next().unwrap();
    let load =
        kubectl().unwrap().args(["exec", pod, "--", "/program", "load", "http://web/", "100", "2"]).output().unwrap();
    let log = String::from_utf8_lossy(&load.stdout).into_owned();
    assert!(load.status.success() && log.contains(r#""failed":0,"requests":200"#), "{TEST}: {load:?}");
    let refused = exec("n3", &["true".to_owned()]).unwrap_err().to_string();
    assert!(refused.contains("there is no node n3"), "{refused}");
    drop(guard);
    for left in ["/tmp/maesh-cluster", "/run/netns/maesh-cluster"] {
        assert!(!std::path::Path::new(left).exists(), "{left} is left");
    }
}
