//! The API server of the tests, tested itself: it serves, survives a kill with its data, forgets history on demand,
//! and leaves nothing behind however its owner ends.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use maesh_test_support::{need_root, need_tool, until};
use maesh_testkube::ApiServer;

const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.244.1.7], conditions: {ready: true}}]
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop}
spec: {containers: [{name: web, image: web}]}
"#;

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn serves_keeps_its_data_over_a_kill_and_forgets_history() {
    let Some(mut server) = ApiServer::start_or_skip() else { return };
    server.apply(SHOP).unwrap();
    let read = |server: &ApiServer, what: &str, path: &str| {
        output(server.kubectl().args(["--namespace", "shop", "get", what, "web-1", "-o", &format!("jsonpath={path}")]))
    };
    assert_eq!(read(&server, "endpointslice", "{.endpoints[0].addresses[0]}"), "10.244.1.7");
    let families = ["get", "service", "web", "--namespace", "shop", "-o", "jsonpath={.spec.ipFamilies}"];
    assert_eq!(output(server.kubectl().args(families)), r#"["IPv4","IPv6"]"#);
    let version = read(&server, "endpointslice", "{.metadata.resourceVersion}");

    server.restart_apiserver().unwrap();
    assert_eq!(read(&server, "pod", "{.spec.containers[0].image}"), "web");

    // Something newer, so that there is history to forget.
    let label = ["--namespace", "shop", "label", "endpointslice", "web-1", "a=b"];
    output(server.kubectl().args(label));
    server.compact().unwrap();
    server.restart_apiserver().unwrap();
    let watch = format!(
        "/apis/discovery.k8s.io/v1/endpointslices?watch=true&timeoutSeconds=5&resourceVersion={}",
        version.parse::<u64>().unwrap() - 1
    );
    let answer = server.kubectl().args(["get", "--raw", &watch]).output().unwrap();
    let said = [answer.stdout, answer.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("too old resource version") || said.contains("410"), "{said}");
    server.stop_apiserver().unwrap();
}

#[test]
fn nothing_is_left_when_the_owner_is_killed() {
    if !need_root() || need_tool("etcd").is_none() || need_tool("kube").is_none() {
        return;
    }
    let mut owner =
        Command::new(env!("CARGO_BIN_EXE_testkube")).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let folder = PathBuf::from(lines.next().unwrap().unwrap().strip_prefix("folder ").unwrap());
    let hint = lines.next().unwrap().unwrap();
    let file = hint.split(['=', ' ']).nth(2).unwrap();
    let network = fs::read_link(file).unwrap();
    let inside = || {
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.ok()?.path().join("ns/net")).ok())
            .filter(|link| *link == network)
            .count()
    };
    assert!(inside() >= 3, "the guard, etcd and kube-apiserver");
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(until(Duration::from_secs(20), || inside() == 0 && !folder.exists()), "{} left in {folder:?}", inside());
}
