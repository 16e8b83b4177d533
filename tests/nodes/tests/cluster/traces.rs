//! Traces of requests between pods, as an OpenTelemetry collector in a pod receives them.

use std::collections::BTreeSet;

use maesh_test_support::until;
use maesh_testcluster::{COLLECTOR_IMAGE, chart};
use serde_json::Value;

use crate::shared::{Cluster, PATIENCE, VALUES, cluster};

const COLLECTOR: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: tracing}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: collector, namespace: tracing}
data:
  config.yaml: |
    receivers:
      otlp:
        protocols:
          grpc: {endpoint: '0.0.0.0:4317'}
    exporters:
      file: {path: /dev/stdout, flush_interval: 100ms}
    service:
      telemetry: {metrics: {level: none}}
      pipelines:
        traces: {receivers: [otlp], exporters: [file]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: collector, namespace: tracing}
spec:
  selector: {matchLabels: {app: collector}}
  template:
    metadata: {labels: {app: collector}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: collector
        image: IMAGE
        args: [--config, 'file:/config/config.yaml']
        readinessProbe: {tcpSocket: {port: 4317}, periodSeconds: 1}
        volumeMounts: [{name: config, mountPath: /config, readOnly: true}]
      volumes: [{name: config, configMap: {name: collector}}]
---
apiVersion: v1
kind: Service
metadata: {name: collector, namespace: tracing}
spec:
  selector: {app: collector}
  ports: [{name: otlp, port: 4317}]
";

impl Cluster {
    /// Every span that has arrived: its trace, its kind, its node and the path that was asked for, where it says so.
    fn spans(&self) -> Vec<(String, u64, String, String)> {
        let logs = self.kube.run("--namespace=tracing logs deployment/collector").unwrap_or_default();
        let batches = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let resources = batches.flat_map(|batch| batch["resourceSpans"].as_array().cloned().unwrap_or_default());
        let mut found = Vec::new();
        for resource in resources {
            let node = attribute(&resource["resource"]["attributes"], "k8s.node.name");
            let scopes = resource["scopeSpans"].as_array().into_iter().flatten();
            for span in scopes.flat_map(|scope| scope["spans"].as_array().into_iter().flatten()) {
                let (trace, kind) = (span["traceId"].as_str().unwrap_or_default(), span["kind"].as_u64());
                let path = attribute(&span["attributes"], "url.path");
                found.push((trace.to_owned(), kind.unwrap_or_default(), node.clone(), path));
            }
        }
        found
    }

    /// The kinds of spans and the nodes that have told of requests for `path`.
    fn told_of(&self, path: &str) -> BTreeSet<(u64, String)> {
        let spans = self.spans();
        let traces: BTreeSet<&String> = spans.iter().filter(|span| span.3 == path).map(|span| &span.0).collect();
        spans.iter().filter(|span| traces.contains(&span.0)).map(|span| (span.1, span.2.clone())).collect()
    }
}

fn attribute(list: &Value, name: &str) -> String {
    let found = list.as_array().into_iter().flatten().find(|attribute| attribute["key"] == name);
    found.and_then(|attribute| attribute["value"]["stringValue"].as_str()).unwrap_or_default().to_owned()
}

#[test]
#[ignore = "long: installs the mesh with other values"]
fn cluster_traces_arrive_at_a_collector() {
    let Some(cluster) = cluster() else { return };
    if !cluster.has_further(COLLECTOR_IMAGE) {
        return;
    }
    cluster.without_mesh();
    cluster.kube.apply(&COLLECTOR.replace("IMAGE", COLLECTOR_IMAGE)).unwrap();
    cluster.kube.settled("tracing", "deployment/collector", PATIENCE).unwrap();
    let endpoint = "proxy.traces.endpoint=http://collector.tracing.svc.cluster.local:4317";
    let values: Vec<&str> = VALUES.into_iter().chain([endpoint, "proxy.traces.sample=100%"]).collect();
    chart(&cluster.kube, "install", &values).unwrap();
    cluster.mesh_settled();
    cluster.with_stanza();
    let callers = cluster.pods("callers", "caller");
    for caller in &callers {
        cluster.kube.ask("callers", &caller.name, "get http://web.shop.maesh/traced/here").unwrap();
    }
    let mut arrived = BTreeSet::new();
    let all = until(PATIENCE, || {
        arrived = cluster.told_of("/traced/here");
        // A server span (2) and a client span (3) of each node's proxy.
        callers.iter().all(|caller| [2, 3].iter().all(|kind| arrived.contains(&(*kind, caller.node.clone()))))
    });
    cluster.without_mesh();
    cluster.kube.run("delete namespace tracing --wait=false").unwrap();
    assert!(all, "{arrived:?}");
}
