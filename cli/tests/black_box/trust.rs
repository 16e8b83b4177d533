//! The controller with the chart's flags and exactly the chart's rights on a real API server: its authority and its
//! token review, and a dns process that has what is mounted into its pod.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use maesh_test_support::until;
use maesh_testkube::ApiServer;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(40);
const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: maesh}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: Service
metadata: {name: bad, namespace: default, annotations: {maesh.containo.us/traffic-type: many}}
spec: {ports: [{port: 80}]}
";

/// A process that is killed when dropped.
struct Running(Child, std::path::PathBuf);

impl Running {
    fn start(server: &ApiServer, name: &str, arguments: &[&str]) -> Self {
        let log = server.namespace().folder().join(format!("{name}.log"));
        let file = fs::File::create(&log).unwrap();
        let mut command: Command = server.namespace().command(env!("CARGO_BIN_EXE_maesh"));
        command.args(arguments).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Self(command.spawn().unwrap(), log)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.1).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn kubectl(server: &ApiServer, arguments: &[&str]) -> String {
    let output = server.kubectl().args(["--namespace", "maesh"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether the admin endpoint says that the process is ready.
fn is_ready(server: &ApiServer, admin: &str) -> bool {
    let address: SocketAddr = admin.parse().unwrap();
    let ask = move || -> std::io::Result<String> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    server.namespace().run(ask).unwrap().is_ok_and(|text| text.starts_with("HTTP/1.1 200"))
}

/// A token of the ServiceAccount, bound to its pod where there is one.
fn token(server: &ApiServer, account: &str, bound: bool) -> String {
    let mut arguments = vec!["create", "token", account, "--duration", "20m"];
    let pod = format!("{account}-1");
    if bound {
        arguments.extend(["--audience", "maesh", "--bound-object-kind", "Pod", "--bound-object-name", &pod]);
    }
    kubectl(server, &arguments).trim().to_owned()
}

/// A kubeconfig of `token`.
fn kubeconfig(server: &ApiServer, token: &str) -> std::path::PathBuf {
    let file = server.namespace().folder().join("controller.kubeconfig");
    let ca = server.certificates().file("ca.crt");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters:\n- name: test\n  cluster: {{server: \"https://{}:6443\", certificate-authority: {}}}\n\
         users:\n- name: test\n  user: {{token: {token}}}\n\
         contexts:\n- name: test\n  context: {{cluster: test, user: test}}\n",
        maesh_testkube::ADDRESS,
        ca.display()
    );
    fs::write(&file, text).unwrap();
    file
}

#[test]
fn the_rights_of_the_chart_suffice_and_strangers_get_nothing() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let mut objects = OBJECTS.to_owned();
    for account in ["maesh-controller", "maesh-dns", "maesh-proxy", "stranger"] {
        objects += &format!(
            "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {account}, namespace: maesh}}\n\
             ---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {account}-1, namespace: maesh}}\n\
             spec: {{serviceAccountName: {account}, nodeName: n1, containers: [{{name: a, image: a}}]}}\n"
        );
    }
    server.apply(&objects).unwrap();
    let rights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/chart/rights.json");
    let rights: Vec<Value> = serde_json::from_str(&fs::read_to_string(rights).unwrap()).unwrap();
    for right in rights.iter().filter(|it| it.pointer("/metadata/namespace").is_none_or(|space| space == "maesh")) {
        server.apply(&right.to_string()).unwrap();
    }
    let config = kubeconfig(&server, &token(&server, "maesh-controller", false)).display().to_string();
    let controller = Running::start(
        &server,
        "controller",
        &[
            "controller",
            "--kubeconfig",
            &config,
            "--listen=127.0.0.1:5390",
            "--admin=127.0.0.1:5381",
            "--ca=maesh-ca",
            "--server-name=maesh-controller.maesh.svc",
            "--dns-account=maesh-dns",
            "--proxy-account=maesh-proxy",
            "--lease=maesh-controller",
        ],
    );
    assert!(until(PATIENCE, || is_ready(&server, "127.0.0.1:5381")), "{}", controller.log());

    // Both objects go with the ServiceAccount, and are nobody else's.
    let uid = kubectl(&server, &["get", "serviceaccount", "maesh-controller", "--output", "jsonpath={.metadata.uid}"]);
    for object in ["secret/maesh-ca", "configmap/maesh-ca"] {
        let owner = kubectl(&server, &["get", object, "--output", "jsonpath={.metadata.ownerReferences[*].uid}"]);
        assert_eq!(owner, uid, "{object}");
    }
    let folder = server.namespace().folder();
    let ca = folder.join("mounted-ca.crt");
    fs::write(&ca, kubectl(&server, &["get", "configmap", "maesh-ca", "--output", "jsonpath={.data.ca\\.crt}"]))
        .unwrap();
    assert!(!fs::read_to_string(&ca).unwrap().contains("PRIVATE"));

    let dns = |account: &str, number: usize| {
        let file = folder.join(format!("token-{account}"));
        fs::write(&file, token(&server, account, true)).unwrap();
        let admin = format!("--admin=127.0.0.1:{}", 5400 + number);
        let listen = format!("--listen=127.0.0.1:{}", 5500 + number);
        let (ca, file) = (format!("--tls-ca={}", ca.display()), format!("--token-file={}", file.display()));
        let id = format!("--id={account}-1");
        let arguments = [
            "dns",
            &admin,
            &listen,
            &ca,
            &file,
            &id,
            "--node=n1",
            "--controller=127.0.0.1:5390",
            "--tls-server-name=maesh-controller.maesh.svc",
        ];
        Running::start(&server, account, &arguments)
    };
    let (ours, stranger) = (dns("maesh-dns", 1), dns("stranger", 2));
    assert!(until(PATIENCE, || is_ready(&server, "127.0.0.1:5401")), "{}\n{}", ours.log(), controller.log());
    assert!(until(PATIENCE, || stranger.log().contains("no subscriber of this mesh")), "{}", stranger.log());
    assert!(!is_ready(&server, "127.0.0.1:5402"));
    // The leader says on the object what is wrong with it.
    let described = || {
        let output = server.kubectl().args(["describe", "service", "bad"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(until(PATIENCE, || described().contains("InvalidAnnotation")), "{}\n{}", described(), controller.log());
    let said = controller.log();
    assert!(!said.contains("orbidden") && !said.contains("reviews no tokens"), "{said}");
}
