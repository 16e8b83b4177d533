//! The controller with the chart's flags and exactly the chart's rights on a real API server: its authority and its
//! token review, a dns process that has what is mounted into its pod, and its certificate for DNS over TLS.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use hickory_proto::rr::RecordType;
use k8s_openapi::api::core::v1::Secret;
use maesh_test_support::{need_tool, repository, until};
use maesh_testkube::ApiServer;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use serde_json::Value;

use crate::support::{
    dns_tls::{ask_tls, client},
    resolver::ask,
};

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
---
apiVersion: v1
kind: Service
metadata: {name: maesh-dns, namespace: maesh}
spec: {ports: [{port: 853}]}
";

/// A process that is killed when dropped.
struct Running(Child, std::path::PathBuf);

impl Running {
    fn start(server: &ApiServer, name: &str, arguments: &[&str]) -> Self {
        Self::start_program(server, name, Path::new(env!("CARGO_BIN_EXE_maesh")), arguments)
    }

    fn start_program(server: &ApiServer, name: &str, program: &Path, arguments: &[&str]) -> Self {
        let log = server.namespace().folder().join(format!("{name}.log"));
        let file = fs::File::create(&log).unwrap();
        let mut command: Command = server.namespace().command(program);
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

/// dns started without a certificate. Kubelet mounts the Secret, and clients that trust the published CA get answers: one
/// of ours, and CoreDNS with the stanza of docs/dns.md.
fn dns_over_tls_is_answered(server: &ApiServer, ca: &Path, dns: &Running) {
    let address = |namespace: &str, name: &str| {
        kubectl(server, &["get", "service", name, "--namespace", namespace, "--output", "jsonpath={.spec.clusterIP}"])
    };
    let want: Ipv4Addr = address("default", "bad").parse().unwrap();
    let at: SocketAddr = "127.0.0.1:5701".parse().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_file_iter(ca).unwrap().map(Result::unwrap));
    let client = client(roots);
    let told = || server.namespace().run(|| ask_tls(at, &client, "bad.default.maesh")).unwrap();
    assert_eq!(told().unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused, "there is no certificate");
    let log = dns.log();
    assert!(log.contains("no certificate for DNS over TLS") && log.contains("tls.crt: No such file"), "{log}");

    let secret: Secret =
        serde_json::from_str(&kubectl(server, &["get", "secret", "maesh-dns-tls", "--output", "json"])).unwrap();
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
    let data = secret.data.unwrap();
    for file in ["tls.key", "tls.crt"] {
        fs::write(server.namespace().folder().join(file), &data[file].0).unwrap();
    }
    assert!(until(PATIENCE, || told().is_ok_and(|told| told == want)), "{:?}\n{}", told(), dns.log());
    let certificate = maesh_discovery::tls::Certificate::parse(&data["tls.crt"].0, &data["tls.key"].0).unwrap();
    assert!(certificate.has_name(&address("maesh", "maesh-dns")), "the Service's address is one of the names");

    let Some(coredns) = need_tool("coredns") else { return };
    let corefile = server.namespace().folder().join("Corefile");
    let text = format!(
        "maesh:5600 {{\n    bind 127.0.0.1\n    errors\n    rewrite edns0 subnet set 32 128\n    forward . tls://{at} {{\n        \
         tls {}\n        tls_servername maesh-dns.maesh.svc\n    }}\n}}\n",
        ca.display()
    );
    fs::write(&corefile, text).unwrap();
    let coredns = Running::start_program(server, "coredns", &coredns, &["-conf", corefile.to_str().unwrap()]);
    let answered = || {
        let asked = || {
            let at = "127.0.0.1:5600".parse().unwrap();
            ask(Ipv4Addr::LOCALHOST.into(), at, "bad.default.maesh", RecordType::A, Duration::from_secs(5))
        };
        server.namespace().run(asked).unwrap().is_ok_and(|answer| answer.addresses == [want])
    };
    assert!(until(PATIENCE, answered), "{}", coredns.log());
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
    for file in ["rights.json", "rights-dns-tls.json"] {
        let rights = repository().join("tests/chart").join(file);
        let rights: Vec<Value> = serde_json::from_str(&fs::read_to_string(rights).unwrap()).unwrap();
        for right in rights.iter().filter(|it| it.pointer("/metadata/namespace").is_none_or(|space| space == "maesh")) {
            server.apply(&right.to_string()).unwrap();
        }
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
            "--dns-certificate-secret=maesh-dns-tls",
            "--server-name=maesh-controller.maesh.svc",
            "--dns-account=maesh-dns",
            "--proxy-account=maesh-proxy",
            "--lease=maesh-controller",
        ],
    );
    assert!(until(PATIENCE, || is_ready(&server, "127.0.0.1:5381")), "{}", controller.log());

    // The objects go with the ServiceAccount, and are nobody else's.
    let uid = kubectl(&server, &["get", "serviceaccount", "maesh-controller", "--output", "jsonpath={.metadata.uid}"]);
    let made = || kubectl(&server, &["get", "secrets", "--output", "name"]).contains("secret/maesh-dns-tls");
    assert!(until(PATIENCE, made), "{}", controller.log());
    for object in ["secret/maesh-ca", "configmap/maesh-ca", "secret/maesh-dns-tls"] {
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
        let tls_listen = format!("--tls-listen=127.0.0.1:{}", 5700 + number);
        let [chain, key] = ["tls.crt", "tls.key"].map(|file| folder.join(file).display().to_string());
        let (chain, key) = (format!("--tls-certificate={chain}"), format!("--tls-certificate-key={key}"));
        let arguments = [
            "dns",
            &admin,
            &listen,
            &ca,
            &file,
            &id,
            &tls_listen,
            &chain,
            &key,
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
    dns_over_tls_is_answered(&server, &ca, &ours);
    // The leader says on the object what is wrong with it.
    let described = || {
        let output = server.kubectl().args(["describe", "service", "bad"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(until(PATIENCE, || described().contains("InvalidAnnotation")), "{}\n{}", described(), controller.log());
    let said = controller.log();
    assert!(!said.contains("orbidden") && !said.contains("reviews no tokens"), "{said}");
}
