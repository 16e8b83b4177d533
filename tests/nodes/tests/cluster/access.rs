//! Access control in a cluster: who is admitted, by the ServiceAccount of real pods.

use maesh_test_support::until;
use maesh_testcluster::{ECHO_IMAGE, chart};
use serde_json::Value;

use crate::shared::{Cluster, PATIENCE, VALUES, cluster};
use crate::splits::{install_smi, remove_smi};
use crate::under_load::{Load, pass};

/// A Service of its own ServiceAccount, on HTTP and on TCP.
const BACKEND: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: vault, namespace: shop}
---
apiVersion: v1
kind: Service
metadata: {name: vault, namespace: shop}
spec:
  selector: {app: vault}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: db, port: 9000, targetPort: 9000, appProtocol: tcp}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: vault, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: vault}}
  template:
    metadata: {labels: {app: vault}}
    spec:
      serviceAccountName: vault
      terminationGracePeriodSeconds: 20
      containers:
      - name: echo
        image: IMAGE
        args: [echo, --grace=5]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: callers}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: stranger, namespace: callers}
"#;

/// `callers/default` and `callers/reader` may ask for `/` and paths below `/open`, and `callers/default` may open TCP connections.
const GRANTS: &str = r"
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: open, namespace: shop}
spec: {matches: [{name: load, pathRegex: /$}, {name: open, pathRegex: /open}]}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {name: db, namespace: shop}
spec: {matches: {ports: [9000]}}
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: open, namespace: shop}
spec:
  destination: {kind: ServiceAccount, name: vault}
  sources:
  - {kind: ServiceAccount, name: default, namespace: callers}
  - {kind: ServiceAccount, name: reader, namespace: callers}
  rules: [{kind: HTTPRouteGroup, name: open}]
---
apiVersion: access.smi-spec.io/v1alpha2
kind: TrafficTarget
metadata: {name: db, namespace: shop}
spec:
  destination: {kind: ServiceAccount, name: vault}
  sources: [{kind: ServiceAccount, name: default, namespace: callers}]
  rules: [{kind: TCPRoute, name: db}]
";

/// A pod that asks once, at once.
fn once(name: &str, account: &str, more: &str, url: &str) -> String {
    format!(
        r"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: callers, labels: {{once: 'yes'}}}}
spec:
  serviceAccountName: {account}
  restartPolicy: Never
  terminationGracePeriodSeconds: 0{more}
  containers:
  - {{name: get, image: {ECHO_IMAGE}, args: [get, '{url}', --patience=8]}}
---
"
    )
}

impl Cluster {
    /// What becomes of a request of a long-lived caller: `ok`, or why not.
    fn fate(&self, url: &str) -> String {
        let caller = &self.pods("callers", "caller")[0];
        fate(self.kube.ask("callers", &caller.name, &format!("get {url} --patience=8")))
    }

    fn awaits(&self, url: &str, want: &str) {
        let mut last = String::new();
        let is_so = until(PATIENCE, || {
            last = self.fate(url);
            last == want
        });
        assert!(is_so, "{url}: {last} instead of {want}");
    }

    /// Runs pods that ask once, and returns what became of each request, by the pod's name.
    fn run_once(&self, pods: &str) -> Vec<(String, String)> {
        self.kube.apply(pods).unwrap();
        let all = || self.kube.list("pods --namespace=callers --selector=once=yes").unwrap();
        let is_over = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        assert!(until(PATIENCE, || all().iter().all(is_over)), "{:#?}", all());
        let fates = all().into_iter().map(|pod| {
            let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
            let said = self.kube.run(&format!("--namespace=callers logs {name}")).unwrap();
            let ended = pod["status"]["phase"] == "Succeeded";
            (name, if ended { "ok".to_owned() } else { fate(Err(anyhow::anyhow!(said))) })
        });
        let fates = fates.collect();
        self.kube.run("--namespace=callers delete pods --selector=once=yes --now").unwrap();
        fates
    }
}

fn fate(outcome: anyhow::Result<Value>) -> String {
    let Err(error) = outcome else { return "ok".to_owned() };
    let text = format!("{error:#}");
    let status = text.split("status ").nth(1).map(|rest| rest.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
    status.unwrap_or(text)
}

const OPEN: &str = "http://vault.shop.maesh/open";
const SHUT: &str = "http://vault.shop.maesh/shut";
const DENIED: &str = "403 denied";

#[test]
#[ignore = "long: grants come and go under load, with the kinds that say them"]
fn cluster_only_those_who_are_granted_it_reach_a_service() {
    let Some(cluster) = cluster() else { return };
    let kube = &cluster.kube;
    remove_smi(kube);
    cluster.without_mesh();
    chart(kube, "install", &[&VALUES[..], &["acl.enabled=true"]].concat()).unwrap();
    cluster.mesh_settled();
    cluster.with_stanza();
    kube.apply(&BACKEND.replace("IMAGE", ECHO_IMAGE)).unwrap();
    kube.settled("shop", "deployment/vault", PATIENCE).unwrap();

    // Nobody can grant anything, so nobody is admitted.
    cluster.awaits(OPEN, DENIED);
    install_smi(kube);
    kube.apply(GRANTS).unwrap();
    cluster.awaits(OPEN, "ok");
    assert_eq!(cluster.fate(SHUT), DENIED);
    assert_eq!(cluster.fate("http://web.shop.maesh/open"), DENIED, "another Service");
    cluster.awaits("tcp://vault.shop.maesh:9000", "ok");

    // A pod's first request comes before anybody has heard of the pod.
    let pods = |kind: &str, account: &str, url: &str| -> String {
        (0..6).map(|at| once(&format!("{kind}-{at}"), account, "", url)).collect()
    };
    let host = once("host", "reader", "\n  hostNetwork: true\n  dnsPolicy: ClusterFirstWithHostNet", OPEN);
    let batches = [
        pods("reader", "reader", OPEN),
        pods("stranger", "stranger", OPEN) + &host,
        pods("shut", "reader", SHUT),
        pods("db", "reader", "tcp://vault.shop.maesh:9000"),
    ];
    // Few at a time: the kubelets of a small machine say late which address a pod has when they start many, and nobody is held
    // for more than 5 s.
    let fates: Vec<_> = batches.iter().flat_map(|batch| cluster.run_once(batch)).collect();
    assert_eq!(fates.len(), 25);
    for (name, fate) in &fates {
        match name.split('-').next().unwrap() {
            "reader" => assert_eq!(fate, "ok", "{name}"),
            // A connection that is reset has no status.
            "db" => assert!(fate != "ok" && !fate.contains("status"), "{name}: {fate}"),
            _ => assert_eq!(fate, DENIED, "{name}"),
        }
    }
    println!("first requests of {} pods were decided as the grants say", fates.len());

    // Changes, under load of who is granted it all the while and of who never is.
    let plans = ["http1-kept 20 vault.shop.maesh:80", "tcp 5 vault.shop.maesh:9000"];
    let mut load = Load::start(&cluster, "granted", &plans);
    load.phase("another grant comes and goes", || {
        let further = GRANTS.replace("name: open", "name: further").replace("pathRegex: /open", "pathRegex: /shut");
        kube.apply(&further).unwrap();
        cluster.awaits(SHUT, "ok");
        kube.run("--namespace=shop delete traffictarget,httproutegroup further").unwrap();
        cluster.awaits(SHUT, DENIED);
    });
    load.phase("the pods of the Service are replaced", || {
        kube.run("--namespace=shop rollout restart deployment vault").unwrap();
        kube.settled("shop", "deployment/vault", PATIENCE).unwrap();
    });
    load.phase("the controllers are replaced", || {
        kube.run("--namespace=maesh rollout restart deployment maesh-controller").unwrap();
        kube.settled("maesh", "deployment/maesh-controller", PATIENCE).unwrap();
        pass(3);
    });
    load.end().assert_none_failed(3 * 25);

    // The kinds go: nothing is granted any more.
    remove_smi(kube);
    cluster.awaits(OPEN, DENIED);

    chart(kube, "upgrade", &[&VALUES[..], &["acl.enabled=true", "acl.dryRun=true"]].concat()).unwrap();
    cluster.mesh_settled();
    cluster.awaits(OPEN, "ok");
    cluster.awaits(SHUT, "ok");
    let counted = |pod: &crate::shared::Pod| {
        let path = format!("/api/v1/namespaces/maesh/pods/{}:5383/proxy/metrics", pod.name);
        kube.run(&format!("get --raw {path}"))
            .unwrap()
            .contains("maesh_proxy_access_dry_run_denials_total{service=\"vault\"")
    };
    assert!(until(PATIENCE, || cluster.mesh_pods("proxy").iter().any(counted)), "no denial was counted");
    kube.run("--namespace=shop delete deployment,service,serviceaccount vault").unwrap();
    cluster.without_mesh();
}
