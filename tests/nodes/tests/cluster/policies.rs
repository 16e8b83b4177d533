//! Policies by annotation, seen by pods: a limit of each proxy, and retries that hide a bad version.

use std::time::Duration;

use maesh_test_support::until;
use maesh_testcluster::ECHO_IMAGE;

use crate::shared::{Cluster, PATIENCE, Pod, cluster};
use crate::under_load::{Load, pass};

/// A Service of which each proxy passes on a request a second, and five at once after a pause.
const LIMITED: &str = r#"
apiVersion: v1
kind: Service
metadata:
  name: limited
  namespace: shop
  annotations:
    maesh.containo.us/ratelimit-average: "1"
    maesh.containo.us/ratelimit-burst: "5"
    maesh.containo.us/ratelimit-by: service
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
"#;

impl Cluster {
    /// The status of the answer to this caller.
    fn status(&self, caller: &Pod, host: &str) -> u16 {
        match self.kube.ask("callers", &caller.name, &format!("get http://{host}/ --patience=5")) {
            Ok(_) => 200,
            Err(error) => {
                let text = format!("{error:#}");
                let digits = text.split("status ").nth(1).and_then(|rest| rest.get(..3));
                digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{caller:?}: {text}"))
            }
        }
    }
}

#[test]
#[ignore = "long: a limit is measured over a time"]
fn cluster_a_rate_limit_is_that_of_each_proxy() {
    let Some(cluster) = cluster() else { return };
    cluster.with_mesh();
    cluster.with_stanza();
    cluster.kube.apply(LIMITED).unwrap();
    let callers = cluster.pods("callers", "caller");
    for caller in &callers {
        assert!(until(PATIENCE, || cluster.status(caller, "limited.shop.maesh") == 429), "{caller:?} is limited");
    }
    assert_eq!(cluster.status(&callers[0], "web.shop.maesh"), 200, "other Services are not");
    let load = Load::start(&cluster, "limited", &["http1-kept 20 limited.shop.maesh:80"]);
    load.go_on(Duration::from_secs(20));
    let report = load.end();
    cluster.kube.run("--namespace=shop delete service limited").unwrap();
    for caller in &callers {
        let here = || report.requests.iter().filter(|request| request.asker == caller.node);
        let limited = here().filter(|it| it.failure.as_deref() == Some("status 429 rate_limited")).count();
        let passed = here().filter(|it| it.failure.is_none()).count();
        assert_eq!(limited + passed, here().count(), "nothing else happens on {}", caller.node);
        let (first, last) = (here().map(|it| it.at).min().unwrap(), here().map(|it| it.at).max().unwrap());
        let seconds = usize::try_from((last - first) / 1000).unwrap();
        // The same on every node, whatever the others pass on.
        assert!((seconds - 2..=seconds + 6).contains(&passed), "{passed} on {} in {seconds} s", caller.node);
    }
}

/// Two Services with the same endpoints, of which one retries.
const FLAKY: &str = r#"
apiVersion: v1
kind: Service
metadata:
  name: retried
  namespace: shop
  annotations:
    maesh.containo.us/retry-attempts: "4"
    maesh.containo.us/retry-on: 5xx
    maesh.containo.us/retry-budget: 100%
    maesh.containo.us/eject: "0"
spec:
  selector: {app: flaky}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata:
  name: bare
  namespace: shop
  annotations: {maesh.containo.us/eject: "0"}
spec:
  selector: {app: flaky}
  ports: [{name: http, port: 80, targetPort: 8080}]
"#;

/// A version of the backend, of which so many pods run.
fn version(name: &str, replicas: u8, arguments: &str) -> String {
    format!(
        r"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: shop}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: flaky, version: {name}}}}}
  template:
    metadata: {{labels: {{app: flaky, version: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
      - name: echo
        image: {ECHO_IMAGE}
        args: [echo, --grace=5{arguments}]
        readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
"
    )
}

/// A version that answers 503 and looks ready is rolled out beside the good one, and taken back.
#[test]
#[ignore = "long: rolls a version out and back, under load"]
fn cluster_retries_hide_a_bad_version() {
    let Some(cluster) = cluster() else { return };
    cluster.with_mesh();
    cluster.with_stanza();
    cluster.kube.apply(&version("flaky-good", 3, "")).unwrap();
    cluster.kube.settled("shop", "deployment/flaky-good", PATIENCE).unwrap();
    cluster.kube.apply(FLAKY).unwrap();
    let callers = cluster.pods("callers", "caller");
    for host in ["retried.shop.maesh", "bare.shop.maesh"] {
        assert!(until(PATIENCE, || callers.iter().all(|caller| cluster.status(caller, host) == 200)), "{host}");
    }
    let plans = ["http1-kept 20 retried.shop.maesh:80", "http1-kept 20 bare.shop.maesh:80"];
    let mut load = Load::start(&cluster, "flaky", &plans);
    load.phase("a bad version comes", || {
        cluster.kube.apply(&version("flaky-bad", 1, ", --status=503")).unwrap();
        cluster.kube.settled("shop", "deployment/flaky-bad", PATIENCE).unwrap();
        pass(10);
    });
    load.phase("it goes", || {
        cluster.kube.run("--namespace=shop delete deployment flaky-bad --wait").unwrap();
        cluster.kube.settled("shop", "deployment/flaky-good", PATIENCE).unwrap();
    });
    load.go_on(Duration::from_secs(5));
    let report = load.end();
    cluster.kube.run("--namespace=shop delete service retried bare").unwrap();
    cluster.kube.run("--namespace=shop delete deployment flaky-good").unwrap();
    let failed = |host: &str| {
        report.requests.iter().filter(|it| it.plan.contains(host) && it.failure.is_some()).collect::<Vec<_>>()
    };
    assert!(failed("retried.shop").is_empty(), "{:?}", failed("retried.shop"));
    let bare = failed("bare.shop");
    assert!(bare.iter().all(|it| it.failure.as_deref() == Some("status 503")), "{bare:?}");
    assert!(bare.len() > 20, "without retries, callers see the bad version: {}", bare.len());
}
