//! `maesh check` against a real API server and a real CoreDNS: what is checked passes, and is made to fail.
//!
//! Not made to fail here, because the test's cluster cannot be made so: `api` but by its absence, `version`, `clock`,
//! `cluster-ips` and `negative`; tables beside the checks do that.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod parts;

use std::{collections::BTreeMap, path::PathBuf, process::Command};

use crate::support::{await_condition, http::get};
use maesh_controller::duties::stanza::{Stanza, add};
use maesh_test_support::need_tool;
use maesh_testkube::{ApiServer, Kubelet, Process};
use serde_json::Value;

/// Address of the one CoreDNS, a pod.
const COREDNS: &str = "10.89.4.1";
/// Address of the cluster's DNS Service.
const CLUSTER_DNS: &str = "10.96.0.10";
/// Address of the mesh's DNS Service.
const MESH_DNS: &str = "10.96.0.53";

/// The pods of the mesh, and their addresses.
const PODS: [(&str, &str); 3] = [("controller-1", "10.89.3.1"), ("dns-1", "10.89.2.1"), ("proxy-1", "10.89.1.1")];

/// Results by check, and the exit code.
struct Report {
    code: Option<i32>,
    checks: BTreeMap<String, Value>,
}

impl Report {
    fn assert(&self, id: &str, result: &str, says: &str) {
        let check = self.checks.get(id).unwrap_or_else(|| panic!("{id} was not made: {:#?}", self.checks));
        assert_eq!(check["result"], result, "{check}");
        assert!(
            check["message"].as_str().is_some_and(|message| message.contains(says)),
            "{says:?} is not said: {check}"
        );
        let mended = check["fix"].as_str().is_some_and(|fix| fix.len() > 10);
        assert_eq!(mended, matches!(result, "warn" | "fail"), "a fix, where there is something to mend: {check}");
    }
}

fn command_for(server: &ApiServer, arguments: &[&str]) -> Command {
    let mut command = server.namespace().command(env!("CARGO_BIN_EXE_maesh"));
    command.arg("check").args(arguments).arg("--kubeconfig").arg(server.kubeconfig());
    command.env_remove("KUBERNETES_SERVICE_HOST");
    command
}

fn check(server: &ApiServer, arguments: &[&str]) -> Report {
    let output = command_for(server, arguments).args(["-o", "json"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let checks = report["checks"].as_array().unwrap();
    let failed = checks.iter().any(|check| check["result"] == "fail");
    assert_eq!(report["success"], !failed, "{report}");
    let checks = checks.iter().map(|check| (check["id"].as_str().unwrap().to_owned(), check.clone()));
    Report { code: output.status.code(), checks: checks.collect() }
}

/// One check, which is to end so.
fn assert_check(server: &ApiServer, id: &str, result: &str, says: &str) {
    check(server, &["--only", id]).assert(id, result, says);
}

fn kubectl(server: &ApiServer, arguments: &[&str]) {
    let output = server.kubectl().args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn tell_status(server: &ApiServer, namespace: &str, pod: &str, address: &str, ready: bool) {
    let ready = if ready { "True" } else { "False" };
    let status = format!(
        r#"{{"status":{{"podIP":"{address}","podIPs":[{{"ip":"{address}"}}],"phase":"Running","conditions":[{{"type":"Ready","status":"{ready}"}}]}}}}"#
    );
    kubectl(
        server,
        &["-n", namespace, "patch", "pod", pod, "--subresource", "status", "--type", "merge", "-p", &status],
    );
}

#[test]
fn before_an_installation() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let first = check(&server, &["--pre"]);
    assert_eq!(first.code, Some(0));
    first.assert("api", "pass", "https://10.89.0.1:6443 answers");
    first.assert("version", "pass", "Kubernetes 1.35");
    first.assert("clock", "pass", "differ by 0 s");
    first.assert("rights", "pass", "you may create");
    first.assert("cluster-ips", "pass", "are left for Services");
    first.assert("platform", "skip", "no node says");
    first.assert("pod-security", "skip", "does not exist yet");
    first.assert("priority", "skip", "does not exist yet");
    first.assert("dns-provider", "warn", "no Service of the cluster's DNS was found");
    first.assert("corefile", "skip", "no Service of the cluster's DNS was found");
    first.assert("zone", "skip", "no Service of the cluster's DNS was found");
    first.assert("node-local", "skip", "no Service of the cluster's DNS was found");
    first.assert("corefile-owner", "skip", "no ConfigMap");
    first.assert("smi", "pass", "no kinds of SMI");
    first.assert("traefik-mesh", "pass", "nothing of a Traefik Mesh");

    let nobody = server.kubeconfig_for("nobody", &[]).unwrap();
    let mut command = server.namespace().command(env!("CARGO_BIN_EXE_maesh"));
    let output = command.args(["check", "--pre", "--only", "rights", "--kubeconfig"]).arg(nobody).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("FAIL  rights") && text.contains("you may not create serviceaccounts"), "{text}");
    assert!(text.contains("fix: install as an administrator") && text.contains("1 failed"), "{text}");

    // A right that is missing is one check that was not made.
    let mut command = command_as(&server, "nobody");
    let output = command.args(["--only", "platform,cluster-ips", "-o", "json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let messages: Vec<_> =
        report["checks"].as_array().unwrap().iter().map(|check| check["message"].as_str().unwrap()).collect();
    let needs = ["list servicecidrs", "list nodes"].map(|right| format!("not checked: needs the right to {right}"));
    assert_eq!((output.status.code(), messages), (Some(0), needs.iter().map(String::as_str).collect()), "{report}");

    node(&server, "n1", "amd64");
    assert_check(&server, "platform", "pass", "the only node runs on linux/amd64");
    node(&server, "n2", "arm64");
    assert_check(&server, "platform", "warn", "n2 (linux/arm64)");

    kubectl(&server, &["create", "namespace", "maesh"]);
    kubectl(&server, &["label", "namespace", "maesh", "pod-security.kubernetes.io/enforce=restricted"]);
    assert_check(&server, "pod-security", "pass", "are let in");
    assert_check(&server, "priority", "pass", "may be used");
    quota(&server, "critical", "{scopeName: PriorityClass, operator: In, values: [system-node-critical]}");
    assert_check(&server, "priority", "fail", "exceeded quota");
    assert_check(&server, "pod-security", "pass", "are let in");
    quota(&server, "all", "");
    assert_check(&server, "pod-security", "fail", "exceeded quota");

    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: coredns, namespace: kube-system}\ndata:\n  Corefile: |\n    .:53 {\n    }\n";
    std::fs::write(server.namespace().folder().join("map.yaml"), map).unwrap();
    let file = server.namespace().folder().join("map.yaml").display().to_string();
    kubectl(&server, &["create", "-f", &file]);
    assert_check(&server, "corefile-owner", "pass", "nobody applies");
    server.apply(&map.replace(".:53 {", "#### Begin Maesh Block\n    #### End Maesh Block\n    .:53 {")).unwrap_err();
    kubectl(&server, &["apply", "--server-side", "--force-conflicts", "-f", &file]);
    assert_check(&server, "corefile-owner", "warn", "kubectl applies ConfigMap kube-system/coredns");

    let blocks = r#"{"data":{"Corefile":".:53 {\n}\n#### Begin Maesh Block\n#### End Maesh Block\n"}}"#;
    kubectl(&server, &["-n", "kube-system", "patch", "configmap", "coredns", "--type", "merge", "-p", blocks]);
    assert_check(&server, "traefik-mesh", "warn", "blocks of a Traefik Mesh");
    server.apply(&daemon("maesh", "old", "app: maesh").replace("DaemonSet", "Deployment")).unwrap();
    assert_check(&server, "traefik-mesh", "fail", "a Traefik Mesh runs: Deployment maesh/old");

    server.apply(SMI).unwrap();
    await_condition("the kind is served", || {
        (check(&server, &["--only", "smi"]).checks["smi"]["result"] == "warn").then_some(())
    });
    assert_check(&server, "smi", "warn", "metrics.smi-spec.io/v1alpha3");
    let strict = check(&server, &["--only", "smi", "--strict"]);
    assert_eq!(strict.code, Some(3), "only warnings, strictly");
    assert_eq!(check(&server, &["--only", "smi"]).code, Some(0), "only warnings");
    let short = command_for(&server, &["--only", "api,smi", "-o", "short"]).output().unwrap();
    let short = String::from_utf8_lossy(&short.stdout).into_owned();
    assert!(short.starts_with("warn  smi: metrics.smi-spec.io/v1alpha3 are served"), "{short}");
    assert!(short.contains("; fix: ") && short.ends_with("\n1 passed, 1 warned, 0 failed, 0 skipped\n"), "{short}");
    for (strict, failures) in [(&[][..], 0), (&["--strict"], 1)] {
        let junit = command_for(&server, &["--only", "api,smi", "-o", "junit"]).args(strict).output().unwrap();
        let junit = String::from_utf8_lossy(&junit.stdout).into_owned();
        let want =
            format!("<testsuite name=\"maesh check\" tests=\"2\" failures=\"{failures}\" errors=\"0\" skipped=\"0\">");
        assert!(junit.contains(&want) && junit.ends_with("</testsuite>\n"), "{junit}");
    }
}

/// The program as another user.
fn command_as(server: &ApiServer, user: &str) -> Command {
    let kubeconfig = server.kubeconfig_for(user, &[]).unwrap();
    let mut command = server.namespace().command(env!("CARGO_BIN_EXE_maesh"));
    command.args(["check", "--kubeconfig"]).arg(kubeconfig).env_remove("KUBERNETES_SERVICE_HOST");
    command
}

fn node(server: &ApiServer, name: &str, architecture: &str) {
    server.apply(&format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n")).unwrap();
    let status =
        format!(r#"{{"status":{{"nodeInfo":{{"architecture":"{architecture}","operatingSystem":"linux"}}}}}}"#);
    kubectl(server, &["patch", "node", name, "--subresource", "status", "--type", "merge", "-p", &status]);
}

const SMI: &str = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: \
                   trafficmetrics.metrics.smi-spec.io, annotations: {api-approved.kubernetes.io: \"unapproved\"}}\nspec:\n  \
                   group: metrics.smi-spec.io\n  scope: Namespaced\n  names: {kind: TrafficMetrics, plural: trafficmetrics, \
                   singular: trafficmetric, listKind: TrafficMetricsList}\n  versions:\n  - name: v1alpha3\n    served: true\n    \
                   storage: true\n    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}\n";

/// A quota of no pods at all. Without controllers its status is what the test writes.
fn quota(server: &ApiServer, name: &str, scope: &str) {
    let scopes =
        if scope.is_empty() { String::new() } else { format!("\n  scopeSelector: {{matchExpressions: [{scope}]}}") };
    let text = format!(
        "apiVersion: v1\nkind: ResourceQuota\nmetadata: {{name: {name}, namespace: maesh}}\nspec:\n  hard: {{pods: 0}}{scopes}\n"
    );
    server.apply(&text).unwrap();
    let status = r#"{"status":{"hard":{"pods":"0"},"used":{"pods":"0"}}}"#;
    kubectl(
        server,
        &["-n", "maesh", "patch", "resourcequota", name, "--subresource", "status", "--type", "merge", "-p", status],
    );
    // The API server notices within its cache's time.
    await_condition("the quota is in force", || {
        let id = if scope.is_empty() { "pod-security" } else { "priority" };
        (check(server, &["--only", id]).checks[id]["result"] == "fail").then_some(())
    });
}

fn daemon(namespace: &str, name: &str, label: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{label}}}}}\nspec:\n  \
         selector: {{matchLabels: {{{label}}}}}\n  template:\n    metadata: {{labels: {{{label}}}}}\n    spec:\n      \
         containers: [{{name: c, image: c}}]\n"
    )
}

/// A mesh of one of each role, made by hand as a cluster's controllers would have it.
struct Installed {
    server: ApiServer,
    corefile: PathBuf,
    _kubelet: Kubelet,
    _controller: Process,
    _dns: Process,
    proxy: Option<Process>,
    _coredns: Process,
}

impl Installed {
    fn new(server: ApiServer, coredns: &std::path::Path) -> Self {
        let folder = server.namespace().folder().to_owned();
        for address in [CLUSTER_DNS, MESH_DNS] {
            server.namespace().make_local(&format!("{address}/32")).unwrap();
        }
        server.apply(&objects()).unwrap();
        for (pod, address) in PODS {
            tell_status(&server, "maesh", pod, address, true);
        }
        tell_status(&server, "kube-system", "coredns-1", COREDNS, true);
        let pods = PODS.map(|(pod, address)| (pod, Some(address.parse().unwrap())));
        let kubelet = Kubelet::start(&server, &[("n1", "10.89.5.1".parse().unwrap())], &pods).unwrap();
        let start = |name: &str, arguments: &[&str]| {
            let mut command = server.namespace().command(env!("CARGO_BIN_EXE_maesh"));
            command.args(arguments);
            Process::start(command, &folder.join(format!("{name}.log"))).unwrap()
        };
        let kubeconfig = server.kubeconfig().display().to_string();
        let listen = ["--listen", "10.89.3.1:5390", "--insecure", "--admin", "10.89.3.1:5381", "--read-only"];
        let controller = start("controller", &[&["controller", "--kubeconfig", &kubeconfig][..], &listen].concat());
        let stream = ["--controller", "10.89.3.1:5390", "--insecure", "--node", "n1"];
        let at = format!("{MESH_DNS}:53");
        let dns = ["dns", "--listen", &at, "--admin", "10.89.2.1:5382", "--id", "dns-1"];
        let dns = start("dns", &[&dns[..], &stream].concat());
        let corefile = folder.join("Corefile");
        std::fs::write(&corefile, corefile_with("")).unwrap();
        let mut command = server.namespace().command(coredns);
        command.arg("-conf").arg(&corefile);
        let coredns = Process::start(command, &folder.join("coredns.log")).unwrap();
        let proxy = Some(start_proxy(&server));
        let (_kubelet, _controller, _dns, _coredns) = (kubelet, controller, dns, coredns);
        let installed = Self { server, corefile, _kubelet, _controller, _dns, proxy, _coredns };
        installed.await_ready();
        installed
    }

    /// Changes the ConfigMap, and not what CoreDNS reads.
    fn corefile_map(&self, text: &str) {
        let map = serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "coredns", "namespace": "kube-system" },
            "data": { "Corefile": text },
        });
        self.server.apply(&map.to_string()).unwrap();
    }

    /// Gives CoreDNS another Corefile, as a kubelet passes a ConfigMap on.
    fn corefile(&self, text: &str) {
        self.corefile_map(text);
        // Here it has to keep off the address of the mesh's dns, which on real nodes is another machine's.
        let bind = format!("{{\n    bind {COREDNS} {CLUSTER_DNS}\n    errors\n    rewrite");
        std::fs::write(&self.corefile, text.replace("{\n    errors\n    rewrite", &bind)).unwrap();
    }

    fn await_ready(&self) {
        let admins = ["10.89.3.1:5381", "10.89.2.1:5382", "10.89.1.1:5383"];
        let ready =
            |admin: &str| get(admin.parse().unwrap(), "admin", "/readyz").is_ok_and(|answer| answer.status == 200);
        let all = || await_condition("the roles are ready", || admins.iter().all(|admin| ready(admin)).then_some(()));
        self.server.namespace().run(all).unwrap();
    }

    fn assert(&self, id: &str, result: &str, says: &str) {
        assert_check(&self.server, id, result, says);
    }

    /// Waits until a check ends so: somebody has to notice what was done first.
    fn await_check(&self, id: &str, result: &str, says: &str) {
        await_condition(&format!("{id} is {result}"), || {
            (check(&self.server, &["--only", id]).checks[id]["result"] == result).then_some(())
        });
        self.assert(id, result, says);
    }
}

fn start_proxy(server: &ApiServer) -> Process {
    let mut command = server.namespace().command(env!("CARGO_BIN_EXE_maesh"));
    let own =
        ["proxy", "--address", "10.89.1.1", "--admin", "10.89.1.1:5383", "--drain-horizon", "0s", "--id", "proxy-1"];
    command.args(own).args(["--controller", "10.89.3.1:5390", "--insecure", "--node", "n1"]);
    Process::start(command, &server.namespace().folder().join("proxy.log")).unwrap()
}

fn corefile_with(stanza: &str) -> String {
    format!(
        ".:53 {{\n  bind {COREDNS} {CLUSTER_DNS}\n  errors\n  reload 2s 1s\n  prometheus {COREDNS}:9153\n  template ANY ANY . {{\n    \
         rcode NXDOMAIN\n  }}\n}}\n{stanza}"
    )
}

fn objects() -> String {
    let mut text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: maesh}\n".to_owned();
    text += "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1}\n";
    for (role, port) in [("controller", 5381), ("dns", 5382), ("proxy", 5383)] {
        text += &format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {role}-1\n  namespace: maesh\n  labels: \
             {{app.kubernetes.io/name: maesh, app.kubernetes.io/component: {role}}}\nspec:\n  nodeName: n1\n  \
             containers:\n  - {{name: c, image: c, ports: [{{name: admin, containerPort: {port}}}]}}\n"
        );
    }
    text += "---\napiVersion: v1\nkind: Pod\nmetadata: {name: coredns-1, namespace: kube-system, labels: {k8s-app: \
             kube-dns}}\nspec:\n  nodeName: n1\n  containers:\n  - name: coredns\n    image: c\n    args: [-conf, \
             /etc/coredns/Corefile]\n    ports: [{name: dns, containerPort: 53, protocol: UDP}, {name: metrics, \
             containerPort: 9153}]\n    volumeMounts: [{name: config, mountPath: /etc/coredns}]\n  volumes:\n  - {name: \
             config, configMap: {name: coredns, items: [{key: Corefile, path: Corefile}]}}\n";
    text += "---\n";
    text += &daemon("maesh", "maesh-proxy", "app.kubernetes.io/component: proxy");
    for (namespace, name, address, labels) in [
        ("kube-system", "kube-dns", CLUSTER_DNS, "k8s-app: kube-dns"),
        ("maesh", "maesh-dns", MESH_DNS, "app.kubernetes.io/component: dns"),
    ] {
        text += &format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}\nspec: \
             {{clusterIP: {address}, selector: {{{labels}}}, ports: [{{name: dns, port: 53, protocol: UDP}}]}}\n"
        );
    }
    text
}

const SHOP: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web, \
                    namespace: shop}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n---\napiVersion: \
                    networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: by-caller, namespace: shop}\nspec: {podSelector: \
                    {matchLabels: {app: web}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: \
                    client}}}]}]}\n";

#[test]
fn an_installed_mesh() {
    let Some(coredns) = need_tool("coredns") else { return };
    let Some(server) = ApiServer::start_or_skip() else { return };
    let mut mesh = Installed::new(server, &coredns);
    mesh.await_check("config", "pass", "2 subscribers");
    mesh.assert("roles", "pass", "all 3 pods are ready");
    parts::what_runs(&mesh);
    parts::the_way_of_requests(&mesh);
    mesh.assert("proxy-nodes", "pass", "ready on the only node");
    mesh.assert("node-local-stub", "pass", "does not run");
    mesh.assert("bypass", "pass", "names lead to the mesh");
    mesh.assert("mesh-dns", "pass", "over UDP and TCP");
    mesh.assert("negative", "pass", "kept for 5 s");
    mesh.assert("coredns-loaded", "pass", "another Corefile");
    mesh.assert("corefile", "fail", "is not there");
    mesh.corefile_map(&corefile_with("").replace("  reload 2s 1s\n", ""));
    mesh.assert("corefile", "warn", "no plugin reload");
    mesh.corefile(&corefile_with(""));
    mesh.assert("corefile", "pass", "is understood");
    mesh.assert("dns-provider", "pass", "CoreDNS, 1 pod, reads ConfigMap kube-system/coredns, key Corefile");
    mesh.assert("node-local", "pass", "does not run");
    mesh.assert("stanza", "fail", "nothing leads to the mesh");
    mesh.assert("coredns-query", "fail", "coredns-1 (");
    mesh.assert("zone", "pass", "nobody answers the zone");

    // A policy that knows the callers alone, and the one that is printed against it.
    mesh.assert("network-policies", "pass", "no NetworkPolicy keeps proxies");
    mesh.server.apply(SHOP).unwrap();
    mesh.assert(
        "network-policies",
        "warn",
        "may not connect to the pods of Service shop/web (NetworkPolicy by-caller)",
    );
    let print = |more: &[&str]| {
        let mut print = mesh.server.namespace().command(env!("CARGO_BIN_EXE_maesh"));
        print.args(["print", "network-policy", "shop", "--kubeconfig"]).arg(mesh.server.kubeconfig()).args(more);
        print.output().unwrap()
    };
    let printed = print(&[]);
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let not_there = print(&["--service", "web", "--service", "absent"]);
    let said = String::from_utf8_lossy(&not_there.stderr);
    assert!(said.contains("no Service absent exists in namespace shop"), "{said}");
    assert_eq!((not_there.status.code(), not_there.stdout), (Some(1), printed.stdout.clone()));
    mesh.server.apply(&String::from_utf8(printed.stdout).unwrap()).unwrap();
    mesh.assert(
        "network-policies",
        "warn",
        "policies that select callers do not apply through the mesh: Service shop/web",
    );
    kubectl(&mesh.server, &["-n", "shop", "delete", "networkpolicy", "by-caller"]);
    mesh.assert("network-policies", "pass", "no NetworkPolicy keeps proxies");

    // The stanza comes, a broken Corefile after it.
    let with_stanza = |forward: &str| {
        let zones = ["maesh", "traefik.mesh"].map(|zone| zone.parse().unwrap()).to_vec();
        add(&corefile_with(""), &Stanza { zones, port: 53, forward: forward.parse().unwrap() }).unwrap()
    };
    mesh.corefile(&with_stanza("10.96.0.54"));
    mesh.assert("stanza", "fail", "leads elsewhere");
    mesh.corefile(&with_stanza(MESH_DNS));
    mesh.assert("stanza", "pass", "leads the mesh's zones to 10.96.0.53");
    mesh.await_check("coredns-query", "pass", "answers ns.dns.maesh");
    mesh.assert("zone", "fail", "already answers the zone maesh");
    let all = check(&mesh.server, &[]);
    let bad: Vec<_> = all.checks.values().filter(|check| check["result"] == "fail").collect();
    assert!(all.code == Some(0) && bad.is_empty(), "{bad:#?}");
    // A person's stanza over TLS, as docs/dns.md shows it: nothing is proposed that would undo it.
    let over_tls = format!(
        "maesh:53 traefik.mesh:53 {{\n  errors\n  rewrite edns0 subnet set 32 128\n  forward . tls://{MESH_DNS} {{\n    \
         tls_servername maesh-dns.maesh.svc\n  }}\n}}\n"
    );
    mesh.corefile_map(&corefile_with(&over_tls));
    mesh.assert("stanza", "pass", "leads the mesh's zones to 10.96.0.53");
    mesh.assert("corefile", "pass", "is understood");
    mesh.corefile_map(&corefile_with(&over_tls.replace(MESH_DNS, "10.96.0.54")));
    mesh.assert("stanza", "fail", "forwards over TLS, which the mesh never writes");
    mesh.corefile(&corefile_with("maesh:53 {\n  nosuch\n}\n"));
    mesh.assert("corefile", "fail", "is served by a block that is not the mesh's");
    mesh.await_check("coredns-loaded", "warn", "could not be loaded at some time");

    // A node without a proxy, a pod that is not ready, a cache on the nodes.
    mesh.server.apply("apiVersion: v1\nkind: Node\nmetadata: {name: n2}\n").unwrap();
    mesh.assert("proxy-nodes", "warn", "1 node has no ready proxy, and uses those of others: n2");
    tell_status(&mesh.server, "maesh", "proxy-1", "10.89.1.1", false);
    mesh.assert("proxy-nodes", "fail", "no node has a ready proxy");
    mesh.assert("roles", "fail", "no proxy is ready (proxy-1)");
    tell_status(&mesh.server, "maesh", "proxy-1", "10.89.1.1", true);
    mesh.corefile(&with_stanza(MESH_DNS));
    let cache = "apiVersion: v1\nkind: Pod\nmetadata: {name: cache, namespace: kube-system, labels: {k8s-app: \
                 node-local-dns}}\nspec: {nodeName: n1, containers: [{name: c, image: c}]}\n";
    mesh.server.apply(cache).unwrap();
    tell_status(&mesh.server, "kube-system", "cache", "10.89.4.2", true);
    mesh.assert(
        "node-local",
        "warn",
        "and ConfigMap kube-system/kube-dns, which tells it about the mesh's zones, is not",
    );
    mesh.assert(
        "node-local-stub",
        "fail",
        "ConfigMap kube-system/kube-dns, key stubDomains: nothing leads to the mesh",
    );
    let stubs = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: kube-dns, namespace: kube-system}}\ndata: {{stubDomains: \
         '{{\"maesh\": [\"{MESH_DNS}\"], \"traefik.mesh\": [\"{MESH_DNS}\"]}}'}}\n"
    );
    mesh.server.apply(&stubs).unwrap();
    mesh.assert("node-local-stub", "pass", "leads the mesh's zones to 10.96.0.53");
    mesh.assert("node-local", "warn", "NodeLocal DNSCache runs: pods ask it");

    // A proxy whose stream is gone, and comes back while it is waited for.
    mesh.proxy = None;
    mesh.await_check("config", "fail", "not connected to any controller: proxy-1");
    let mut waiting = command_for(&mesh.server, &["--only", "config", "--wait", "30s"]);
    let mut waiting = waiting.stdout(std::process::Stdio::null()).spawn().unwrap();
    mesh.proxy = Some(start_proxy(&mesh.server));
    assert_eq!(crate::support::wait(&mut waiting).code(), Some(0), "it passes once the proxy is back");
}

#[test]
fn a_cluster_that_does_not_answer_fails_the_first_check_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: \
                'http://127.0.0.1:1'}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\n";
    std::fs::write(&file, text).unwrap();
    let output = crate::support::command(&["check", "--kubeconfig"]).arg(&file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("FAIL  api") && text.contains("0 passed, 0 warned, 1 failed, 0 skipped"), "{text}");
    for (arguments, code) in [(["--only", "nothing"], 2), (["--kubeconfig", "/nowhere/config"], 1)] {
        let output = crate::support::command(&["check"]).args(arguments).env("HOME", folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}
