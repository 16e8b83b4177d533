//! The chart and a real API server, which has no nodes: what it admits, and what Helm does to it over a release's life.

use std::fs;
use std::path::Path;
use std::process::Command;

use maesh_testkube::ApiServer;
use serde_json::{Value, json};

use crate::VALUES;
use crate::helm::{both, chart, isolate, newest, objects, succeeded, template, values};
use crate::render::text;

/// A namespace in which Pod Security `restricted` is enforced, and warned of.
const NAMESPACE: &str = r#"
apiVersion: v1
kind: Namespace
metadata:
  name: maesh
  labels:
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/enforce-version: latest
    pod-security.kubernetes.io/warn: restricted
    pod-security.kubernetes.io/warn-version: latest
"#;

#[test]
fn chart_is_admitted_under_restricted_pod_security() {
    let (Some(helm), Some(server)) = (newest(), ApiServer::start_or_skip()) else { return };
    server.apply(NAMESPACE).unwrap();
    server.apply("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default, namespace: maesh}\n").unwrap();
    for name in VALUES {
        let all = objects(&template(&helm, &values(name)).unwrap());
        let known: Vec<&Value> = all.iter().filter(|object| !text(object, "/apiVersion").contains("coreos")).collect();
        for object in &known {
            // A workload's template is only warned of; the pod itself is what is refused.
            dry_run(&server, object, &format!("values {name:?}"));
            if object["kind"] == "ServiceAccount" {
                server.apply(&object.to_string()).unwrap();
            }
        }
        let mut pods = 0;
        for object in &known {
            let (metadata, spec) = match text(object, "/kind") {
                "Deployment" | "DaemonSet" | "Job" => {
                    (&object["spec"]["template"]["metadata"], &object["spec"]["template"]["spec"])
                }
                "Pod" => (&object["metadata"], &object["spec"]),
                _ => continue,
            };
            let mut metadata = metadata.clone();
            metadata["name"] = json!("try");
            metadata["namespace"] = json!("maesh");
            let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec });
            dry_run(&server, &pod, &format!("pod of {}, values {name:?}", text(object, "/metadata/name")));
            pods += 1;
        }
        assert_eq!(pods, 5, "three roles, the test and the end");
    }
    // The server does refuse what is not restricted.
    let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"try","namespace":"maesh"},
        "spec":{"containers":[{"name":"a","image":"a"}]}}"#;
    let refused = apply(&server, pod).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("violates PodSecurity"));
}

#[test]
fn chart_is_installed_upgraded_rolled_back_and_leaves_nothing() {
    let helms = both();
    if helms.is_empty() {
        return;
    }
    let Some(server) = ApiServer::start_or_skip() else { return };
    server.apply(NAMESPACE).unwrap();
    let before = inventory(&server);
    for helm in &helms {
        let run = |arguments: &[&str]| {
            let output = administrator(&server, helm).args(arguments).args(["--namespace", "maesh"]).output().unwrap();
            succeeded(&format!("{} {arguments:?}", helm.display()), &output)
        };
        let chart = chart().display().to_string();
        let notes = run(&["install", "maesh", &chart]);
        assert!(notes.contains("maesh dns status --namespace maesh"), "{notes}");
        run(&["upgrade", "maesh", &chart, "--set", "dns.replicas=3,zones={mesh.example}"]);
        run(&["upgrade", "maesh", &chart, "--set", "proxy.drainHorizon=8s"]);
        // The emergency exit of docs/cluster-dns.md, and back. Other values stay.
        for (mode, rights) in [("manual", 0), ("auto", 2)] {
            let value = format!("coredns.mode={mode}");
            run(&["upgrade", "maesh", &chart, "--reset-then-reuse-values", "--set", &value]);
            let kubectl = |arguments: &[&str]| {
                let output = server.kubectl().args(arguments).output().unwrap();
                succeeded(&format!("{mode}: kubectl {arguments:?}"), &output)
            };
            let of_release = "--selector=app.kubernetes.io/part-of=maesh,app.kubernetes.io/instance=maesh";
            let there = kubectl(&["-n", "kube-system", "get", "roles,rolebindings", of_release, "--output=name"]);
            assert_eq!(there.lines().count(), rights, "{mode}: {there}");
            let flags = "--output=jsonpath={.spec.template.spec.containers[0].args}";
            let flags = kubectl(&["-n", "maesh", "get", "deployment", "maesh-controller", flags]);
            assert!(flags.contains(&format!("--coredns-mode={mode}")), "{mode}: {flags}");
            assert!(flags.contains("--horizon=8s"), "{mode}: {flags}");
        }
        run(&["rollback", "maesh", "1"]);
        // One more after the rollback: nobody else owns a field by then.
        run(&["upgrade", "maesh", &chart]);
        // What runs before it needs nodes: it is seen on the test cluster.
        run(&["uninstall", "maesh", "--no-hooks"]);
        assert_eq!(before, inventory(&server), "{}", helm.display());
    }
}

/// A cluster has one mesh: another one is refused before anything of it is there, with what stands in its way.
#[test]
fn chart_refuses_a_second_installation() {
    let helms = both();
    if helms.is_empty() {
        return;
    }
    let Some(server) = ApiServer::start_or_skip() else { return };
    server.apply(&NAMESPACE.replace("name: maesh\n", "name: other\n")).unwrap();
    server.apply(NAMESPACE).unwrap();
    let before = inventory(&server);
    for helm in &helms {
        let run = |arguments: &[&str]| administrator(&server, helm).args(arguments).output().unwrap();
        let chart = chart().display().to_string();
        succeeded("install", &run(&["install", "first", &chart, "--namespace=maesh"]));
        let first = inventory(&server);
        for (case, arguments) in [
            ("another namespace", ["install", "first", &chart, "--namespace=other"]),
            ("another name", ["install", "second", &chart, "--namespace=maesh"]),
        ] {
            let refused = run(&arguments);
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success(), "{case}");
            assert!(
                said.contains("this cluster has a maesh already (release first in namespace maesh"),
                "{case}: {said}"
            );
        }
        assert_eq!(first, inventory(&server), "something of the second one is there");
        succeeded("upgrade", &run(&["upgrade", "first", &chart, "--namespace=maesh", "--set=dns.replicas=3"]));
        succeeded("uninstall", &run(&["uninstall", "first", "--namespace=maesh", "--no-hooks"]));
        assert_eq!(before, inventory(&server), "{}", helm.display());
    }
}

/// `addressing: auto` needs no further value, whoever writes the stanza: the controller may list the pods and Services that
/// say which software the cluster's DNS is. With `coredns.mode: manual` it still may not read its configuration.
#[test]
fn chart_lets_the_controller_find_out_about_the_clusters_dns() {
    let (Some(helm), Some(server)) = (newest(), ApiServer::start_or_skip()) else { return };
    server.apply(NAMESPACE).unwrap();
    for (mode, may_read) in [("manual", "no"), ("auto", "yes")] {
        let options = ["--set", &format!("addressing=auto,coredns.mode={mode}")].map(str::to_owned);
        let all = objects(&template(&helm, &options).unwrap());
        for object in all.iter().filter(|object| text(object, "/apiVersion").starts_with("rbac.")) {
            server.apply(&object.to_string()).unwrap();
        }
        for (verb, what, want) in
            [("list", "pods", "yes"), ("list", "services", "yes"), ("get", "configmaps/coredns", may_read)]
        {
            let mut kubectl = server.kubectl();
            kubectl.args(["auth", "can-i", verb, what, "--namespace=kube-system"]);
            let output = kubectl.arg("--as=system:serviceaccount:maesh:maesh-controller").output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), want, "{mode}: {verb} {what}");
        }
    }
}

/// The command that the notes print gives a stanza.
#[test]
fn chart_notes_print_a_stanza() {
    let (Some(helm), Some(server)) = (newest(), ApiServer::start_or_skip()) else { return };
    server.apply(NAMESPACE).unwrap();
    let mut install = administrator(&server, &helm);
    install.args(["install", "maesh"]).arg(chart());
    let values = "dns.clusterIP=10.96.0.53,coredns.mode=manual,dns.tls.enabled=true";
    let install = install.args(["--namespace", "maesh", "--set", values]);
    let notes = succeeded("helm install", &install.output().unwrap());
    let over_tls = "\n\ndns answers over TLS too, on port 853 of Service maesh-dns. Its certificate is for\nmaesh-dns.maesh.svc. To verify \
                    it, clients need the CA certificates:\n   kubectl -n maesh get configmap maesh-ca -o \
                    jsonpath='{.data.ca\\.crt}'\n";
    assert!(notes.contains(over_tls), "{notes}");
    let from = notes.find("kubectl -n maesh get service").unwrap();
    let to = from + notes[from..].find("   and put it at the beginning of the Corefile").unwrap();
    let kubectl = server.kubectl();
    let mut shell = server.namespace().command("sh");
    shell.env("KUBECONFIG", server.kubeconfig()).arg("-c");
    let script = notes[from..to].replacen("kubectl", &kubectl_path(&kubectl), 1);
    let stanza = succeeded("the command of the notes", &shell.arg(script).output().unwrap());
    let words: Vec<&str> = stanza.split_whitespace().collect();
    assert_eq!(
        words.join(" "),
        "maesh:53 traefik.mesh:53 { errors rewrite edns0 subnet set 32 128 forward . 10.96.0.53 }"
    );
}

/// Helm as the server's administrator.
fn administrator(server: &ApiServer, helm: &Path) -> Command {
    let mut command = server.namespace().command(helm);
    isolate(&mut command, server.namespace().folder());
    command.env("KUBECONFIG", server.kubeconfig());
    command
}

/// kubectl itself, past what puts it into the namespace.
fn kubectl_path(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let path = words.map(Path::new).find(|word| word.file_name().is_some_and(|name| name == "kubectl"));
    path.expect("kubectl is in its command").display().to_string()
}

/// Name and kind of everything in the namespace and of our rights, those in kube-system too.
fn inventory(server: &ApiServer) -> String {
    let ours = "all,secrets,configmaps,serviceaccounts,poddisruptionbudgets,clusterroles,clusterrolebindings,roles,rolebindings";
    let there = [("maesh", ours), ("kube-system", "roles,rolebindings,configmaps")].map(|(namespace, kinds)| {
        let get = ["--namespace", namespace, "get", kinds, "--output", "name"];
        succeeded("kubectl get", &server.kubectl().args(get).output().expect("kubectl starts"))
    });
    there.concat()
}

/// Applies `object` without effect, on the server; it must be admitted, and without a warning.
fn dry_run(server: &ApiServer, object: &Value, case: &str) {
    let namespace = Some(text(object, "/metadata/namespace")).filter(|namespace| !namespace.is_empty());
    let output = apply_in(server, namespace.unwrap_or("maesh"), &object.to_string()).output().expect("kubectl starts");
    let name = format!("{case}: {} {}", text(object, "/kind"), text(object, "/metadata/name"));
    succeeded(&name, &output);
    assert!(output.stderr.is_empty(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

fn apply(server: &ApiServer, object: &str) -> Command {
    apply_in(server, "maesh", object)
}

fn apply_in(server: &ApiServer, namespace: &str, object: &str) -> Command {
    let file = server.namespace().folder().join("dry-run.json");
    fs::write(&file, object).expect("a file for kubectl");
    let mut command = server.kubectl();
    command.args(["--namespace", namespace, "apply", "--server-side", "--dry-run=server", "--filename"]).arg(file);
    command
}
