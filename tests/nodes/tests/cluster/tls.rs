//! TLS: to endpoints that a ConfigMap's authority vouches for, and through shared ports by the name that is asked for.

use maesh_test_support::until;
use maesh_testcluster::ECHO_IMAGE;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;

use crate::shared::{Cluster, PATIENCE, Pod, cluster};

/// Who signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// The ConfigMap that tells of it.
    fn config_map(&self) -> String {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "pay-ca", "namespace": "shop"},
            "data": {"ca.crt": self.0.pem()},
        })
        .to_string()
    }

    /// A Secret with a certificate for `name`.
    fn secret(&self, name: &str) -> String {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pay-tls", "namespace": "shop"},
            "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": certificate.pem(), "tls.key": key.serialize_pem()},
        })
        .to_string()
    }
}

const PAY: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: pay, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: pay}}
  template:
    metadata: {labels: {app: pay}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: echo
        image: IMAGE
        args: [echo, --grace=0, --certificates=/tls/tls.crt, --key=/tls/tls.key]
        readinessProbe: {tcpSocket: {port: 8443}, periodSeconds: 1}
        volumeMounts: [{name: tls, mountPath: /tls, readOnly: true}]
      volumes: [{name: tls, secret: {secretName: pay-tls}}]
---
apiVersion: v1
kind: Service
metadata:
  name: pay
  namespace: shop
  annotations:
    maesh.containo.us/scheme: https
    maesh.containo.us/tls-ca: pay-ca
spec:
  selector: {app: pay}
  ports: [{name: http, port: 80, targetPort: 8443}]
"#;

impl Cluster {
    /// What this caller is answered, or why it is not.
    fn outcome(&self, caller: &Pod, url: &str) -> Result<serde_json::Value, String> {
        let answer = self.kube.ask("callers", &caller.name, &format!("get {url} --patience=5"));
        answer.map(|mut answer| answer["answer"].take()).map_err(|error| format!("{error:#}"))
    }
}

#[test]
#[ignore = "long: certificates are replaced, and a ConfigMap in every way"]
fn cluster_endpoints_are_verified_against_a_config_map() {
    let Some(cluster) = cluster() else { return };
    cluster.with_mesh();
    cluster.with_stanza();
    let (authority, stranger) = (Authority::new(), Authority::new());
    cluster.kube.apply(&authority.config_map()).unwrap();
    cluster.kube.apply(&authority.secret("pay.shop.svc")).unwrap();
    cluster.kube.apply(&PAY.replace("IMAGE", ECHO_IMAGE)).unwrap();
    cluster.kube.settled("shop", "deployment/pay", PATIENCE).unwrap();
    let callers = cluster.pods("callers", "caller");
    let answered = |scheme: &str, field: &str, value: &str| {
        for caller in &callers {
            let mut last = Err(String::new());
            let is_so = until(PATIENCE, || {
                last = cluster.outcome(caller, &format!("{scheme}://pay.shop.maesh:80/"));
                last.as_ref().is_ok_and(|answer| answer[field] == value)
            });
            assert!(is_so, "{scheme} from {caller:?}: {last:?}");
        }
    };
    let refused = |what: &str| {
        for caller in &callers {
            let mut last = Ok(serde_json::Value::Null);
            let is_so = until(PATIENCE, || {
                last = cluster.outcome(caller, "http://pay.shop.maesh/");
                last.as_ref().is_err_and(|error| error.contains("status 502 connect_failed"))
            });
            assert!(is_so, "{what}: {last:?}");
        }
    };
    // The pods choose HTTP/2, whatever the callers speak. A WebSocket begins in HTTP/1.1.
    answered("http", "protocol", "HTTP/2");
    answered("h2c", "protocol", "HTTP/2");
    answered("grpc", "protocol", "HTTP/2");
    answered("ws", "protocol", "HTTP/1.1");

    cluster.kube.apply(&stranger.config_map()).unwrap();
    refused("the authority is another one");
    cluster.kube.apply(&authority.config_map()).unwrap();
    answered("http", "protocol", "HTTP/2");
    cluster.kube.run("--namespace=shop delete configmap pay-ca").unwrap();
    refused("the ConfigMap is gone");
    cluster.kube.apply(&authority.config_map()).unwrap();
    answered("http", "protocol", "HTTP/2");

    // Pods with a certificate for another name.
    cluster.kube.apply(&authority.secret("other.shop.svc")).unwrap();
    cluster.kube.run("--namespace=shop rollout restart deployment pay").unwrap();
    cluster.kube.settled("shop", "deployment/pay", PATIENCE).unwrap();
    refused("the certificate is for another name");
    cluster.kube.run("--namespace=shop annotate service pay maesh.containo.us/tls-server-name=other.shop.svc").unwrap();
    answered("http", "protocol", "HTTP/2");
    let all = "deployment/pay service/pay secret/pay-tls configmap/pay-ca";
    cluster.kube.run(&format!("--namespace=shop delete {all}")).unwrap();
}

/// A Service whose pods speak TLS themselves: the proxy passes it on by the name that the caller asks for.
const SECURE: &str = r"
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: shop}
spec:
  selector: {app: APP}
  ports: [{name: https, port: 443, targetPort: 8443}]
";

#[test]
#[ignore = "long: two Services share a port"]
fn cluster_tls_goes_to_the_service_whose_name_it_asks_for() {
    let Some(cluster) = cluster() else { return };
    cluster.with_mesh();
    cluster.with_stanza();
    cluster.kube.apply(&VAULT.replace("IMAGE", ECHO_IMAGE)).unwrap();
    cluster.kube.settled("shop", "deployment/vault", PATIENCE).unwrap();
    for (name, app) in [("secure", "web"), ("vault", "vault")] {
        cluster.kube.apply(&SECURE.replace("NAME", name).replace("APP", app)).unwrap();
    }
    for caller in &cluster.pods("callers", "caller") {
        for (host, pods) in [("secure.shop.maesh", "web-"), ("vault.shop.maesh", "vault-")] {
            let mut last = Err(String::new());
            let is_so = until(PATIENCE, || {
                last = cluster.outcome(caller, &format!("https://{host}/"));
                last.as_ref().is_ok_and(|answer| {
                    answer["source"] != caller.address.as_str()
                        && answer["pod"].as_str().is_some_and(|pod| pod.starts_with(pods))
                })
            });
            assert!(is_so, "{host} from {caller:?}: {last:?}");
        }
    }
    cluster.kube.run("--namespace=shop delete service secure vault").unwrap();
    cluster.kube.run("--namespace=shop delete deployment vault").unwrap();
}

/// One more backend, with a certificate of its own making.
const VAULT: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: vault, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: vault}}
  template:
    metadata: {labels: {app: vault}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: echo
        image: IMAGE
        args: [echo, --grace=0]
        readinessProbe: {tcpSocket: {port: 8443}, periodSeconds: 1}
        env:
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
";
