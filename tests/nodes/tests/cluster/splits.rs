//! Where requests go, decided by a TrafficSplit and by routes while a new version is rolled out, and kinds of SMI that come and
//! go under load.

use std::collections::BTreeMap;

use maesh_test_support::until;
use maesh_testcluster::{ECHO_IMAGE, Kube, load::Request};

use crate::shared::{Cluster, PATIENCE, cluster};
use crate::under_load::{Load, pass};

/// A version of the shop's front, and the Service of its pods alone.
fn front(version: &str) -> String {
    format!(
        r"
apiVersion: v1
kind: Service
metadata: {{name: front-{version}, namespace: shop}}
spec:
  selector: {{app: front, version: {version}}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: front-{version}, namespace: shop}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: front, version: {version}}}}}
  template:
    metadata: {{labels: {{app: front, version: {version}}}}}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
      - name: echo
        image: {ECHO_IMAGE}
        args: [echo, --grace=5]
        readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
        env:
        - {{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
---
"
    )
}

/// The Service that callers name: pods of both versions.
const FRONT: &str = r"
apiVersion: v1
kind: Service
metadata: {name: front, namespace: shop}
spec:
  selector: {app: front}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
";

fn split(version: &str, old: u32, new: u32) -> String {
    format!(
        "apiVersion: split.smi-spec.io/{version}\nkind: TrafficSplit\nmetadata: {{name: front, namespace: shop}}\n\
         spec: {{service: front, backends: [{{service: front-old, weight: {old}}}, {{service: front-new, weight: {new}}}]}}\n"
    )
}

/// Installs the kinds of SMI; the server serves them when it returns.
pub(crate) fn install_smi(kube: &Kube) {
    kube.apply(include_str!("../../manifests/smi.yaml")).unwrap();
    kube.run("wait --for=condition=Established crd --selector=smi=yes --timeout=60s").unwrap();
}

/// Removes them, and with them all of their objects.
pub(crate) fn remove_smi(kube: &Kube) {
    kube.run("delete crd --selector=smi=yes --ignore-not-found --wait").unwrap();
}

/// How many requests that began in the span each version answered.
fn by_version(requests: &[Request], from: u64, to: u64) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for request in requests.iter().filter(|it| (from..to).contains(&it.at) && it.failure.is_none()) {
        let version = request.pod.split('-').nth(1).unwrap_or_default();
        *count.entry(version.to_owned()).or_default() += 1;
    }
    count
}

impl Cluster {
    /// Waits until twenty requests in a row from every node are answered by these versions, all of them and no others.
    fn goes_to(&self, versions: &[&str]) {
        for caller in self.pods("callers", "caller") {
            let mut last = Vec::new();
            let is_so = until(PATIENCE, || {
                let ask = || self.kube.ask("callers", &caller.name, "get http://front.shop.maesh/ --patience=5").ok();
                last = (0..20)
                    .filter_map(|_| Some(ask()?["answer"]["pod"].as_str()?.split('-').nth(1)?.to_owned()))
                    .collect();
                last.len() == 20
                    && last.iter().all(|it| versions.contains(&it.as_str()))
                    && versions.iter().all(|version| last.iter().any(|it| it == version))
            });
            assert!(is_so, "{versions:?} from {caller:?}: {last:?}");
        }
    }
}

#[test]
#[ignore = "long: shares are measured over a time"]
fn cluster_a_split_moves_callers_to_a_new_version_and_none_fails() {
    let Some(cluster) = cluster() else { return };
    remove_smi(&cluster.kube);
    cluster.with_mesh();
    cluster.with_stanza();
    cluster.kube.apply(&(front("old") + &front("new") + FRONT)).unwrap();
    for deployment in ["deployment/front-old", "deployment/front-new"] {
        cluster.kube.settled("shop", deployment, PATIENCE).unwrap();
    }
    cluster.goes_to(&["new", "old"]);
    let plans = ["http1-kept 20 front.shop.maesh:80", "http1 5 front.shop.maesh:80", "h2c-kept 10 front.shop.maesh:80"];
    let mut load = Load::start(&cluster, "split", &plans);
    let kube = &cluster.kube;
    let changed = |load: &mut Load<'_>, name: &str, change: &dyn Fn(), versions: &[&str]| {
        load.phase(&format!("{name}, until it holds"), || {
            change();
            cluster.goes_to(versions);
        });
        load.phase(name, || pass(8));
    };
    let apply = |text: String| move || kube.apply(&text).unwrap();
    let (old, both, new) = (&["old"][..], &["new", "old"][..], &["new"][..]);
    changed(&mut load, "the kinds are installed", &|| install_smi(kube), both);
    changed(&mut load, "all to the old one", &apply(split("v1alpha4", 1, 0)), old);
    changed(&mut load, "a quarter to the new one", &apply(split("v1alpha2", 75, 25)), both);
    changed(&mut load, "all to the new one", &apply(split("v1alpha4", 0, 1)), new);
    changed(&mut load, "the kinds are removed", &|| remove_smi(kube), both);
    let routes = "--namespace=shop annotate service front maesh.containo.us/routes=PathPrefix(`/`)=>front-old";
    changed(&mut load, "routes to the old one", &|| drop(kube.run(routes).unwrap()), old);
    let none = "--namespace=shop annotate service front maesh.containo.us/routes-";
    changed(&mut load, "no routes", &|| drop(kube.run(none).unwrap()), both);
    let report = load.end();
    kube.run("--namespace=shop delete service front front-old front-new").unwrap();
    kube.run("--namespace=shop delete deployment front-old front-new --wait=false").unwrap();
    report.assert_none_failed(3 * 35);
    for (name, from, to) in &report.spans {
        let count = by_version(&report.requests, *from, *to);
        println!("  {name}: {count:?}");
        let share = |version: &str| {
            count.get(version).copied().unwrap_or_default() as f64 / count.values().sum::<usize>() as f64
        };
        let want = match name.as_str() {
            "all to the old one" | "routes to the old one" => 1.0..=1.0,
            "all to the new one" => 0.0..=0.0,
            "a quarter to the new one" => 0.70..=0.80,
            _ => continue,
        };
        assert!(want.contains(&share("old")), "{name}: {count:?}");
    }
}
