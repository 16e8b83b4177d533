//! `maesh migrate`: each kind of outcome with its exit code, text that somebody else wrote, the commands of its page, and what it
//! prints applied to a real API server.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use maesh_test_support::tool;
use maesh_testkube::ApiServer;
use serde_json::Value;

use crate::support::{
    await_condition, command,
    page::{blocks, lines, page, typed},
};

/// The page whose commands these are.
const PAGE: &str = "docs/tasks/migrate.md";

fn service(name: &str, annotations: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop, annotations: {{{annotations}}}}}\n\
         spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80}}]}}\n---\n"
    )
}

fn split(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: split.smi-spec.io/v1alpha3\nkind: TrafficSplit\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{service: web, {spec}}}\n---\n"
    )
}

const BOTH: &str = "backends: [{service: v1, weight: 9}, {service: v2, weight: 1}]";

/// Runs it on this text as standard input.
fn migrate(objects: &str, flags: &[&str]) -> Output {
    let mut command = command(&["migrate", "-"]);
    let piped = command.args(flags).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(objects.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The objects that were printed.
fn printed(output: &Output) -> Vec<Value> {
    let all = text(&output.stdout);
    let documents = all.split("\n---\n").skip(1);
    documents.map(|it| serde_saphyr::from_str(it).unwrap_or_else(|bad| panic!("{bad}:\n{all}"))).collect()
}

#[test]
fn each_outcome_has_its_exit_code() {
    let kept = service("web", "maesh.containo.us/retry-attempts: '2'");
    let translated = service("web", "mesh.traefik.io/scheme: h2c");
    let not_kept = service("web", "mesh.traefik.io/retry-attempts: '0'");
    let services = service("web", "") + &service("v1", "") + &service("v2", "");
    for (case, objects, code, added, said) in [
        ("nothing", service("web", ""), 0, None, "# nothing of Traefik Mesh or SMI was found"),
        ("kept", kept, 0, None, "#   kept            maesh.containo.us/retry-attempts: it means the same"),
        (
            "translated",
            translated,
            0,
            Some(("maesh.containo.us/scheme", "h2c")),
            "#   translated      mesh.traefik.io/scheme",
        ),
        (
            "a split",
            services.clone() + &split("web", BOTH),
            0,
            Some(("maesh.containo.us/routes", "PathRegexp(`^`) => v1 9, v2 1")),
            "kubectl -n shop delete trafficsplit web",
        ),
        (
            "a split that stays",
            services.clone()
                + &service("v3", "")
                + &split("web", "backends: [{service: v1, weight: 3000.001}, {service: v2, weight: 1}]"),
            0,
            None,
            "#   kept            it is read as it is: the weights are finer",
        ),
        (
            "a split without its backend",
            services + &split("web", "backends: [{service: gone, weight: 1}]"),
            3,
            None,
            "#   cannot be kept  spec.backends[0].service: backend gone does not exist; the others get its share",
        ),
        (
            "not kept",
            not_kept,
            3,
            None,
            "#   cannot be kept  mesh.traefik.io/retry-attempts: \"0\" made Traefik Mesh refuse",
        ),
        ("a bad object", service("Web", ""), 3, None, "#   cannot be kept  metadata.name"),
        (
            "kinds that are not read",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n---\n".repeat(3),
            0,
            None,
            "# warning: Deployment a: the mesh does not read Deployment of apps/v1; skipped, and 2 more of its kind.",
        ),
    ] {
        let commands = text(&migrate(&objects, &[]).stdout);
        assert_eq!(commands.contains("\nkubectl -n shop annotate service web "), added.is_some(), "{case}: {commands}");
        let output = migrate(&objects, &["-o", "yaml"]);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{case}: {out}{err}");
        assert!(err.contains(said), "{case}: {err}");
        assert!(err.lines().all(|line| line.starts_with('#')), "both streams together are what one is: {err}");
        assert!(err.matches("warning:").count() <= 1, "one warning for each kind: {err}");
        let objects = printed(&output);
        assert_eq!(objects.len(), usize::from(added.is_some()), "{case}: {out}");
        if let Some((key, value)) = added {
            assert_eq!(objects[0]["metadata"]["annotations"], serde_json::json!({ key: value }), "{case}");
            assert_eq!(objects[0].as_object().unwrap().len(), 3, "nothing but annotations: {out}");
            assert_eq!(objects[0]["metadata"].as_object().unwrap().len(), 3, "nothing but annotations: {out}");
        } else {
            assert_eq!(out, "# No annotation has to be added.\n", "{case}");
        }
    }
}

#[test]
fn a_split_that_is_not_read_in_full_is_not_translated() {
    let many: Vec<_> = (0..70).map(|at| format!("{{service: b{at}, weight: 1}}")).collect();
    let all: String = (0..70).map(|at| service(&format!("b{at}"), "")).collect();
    let group = "apiVersion: specs.smi-spec.io/v1alpha3\nkind: HTTPRouteGroup\nmetadata: {name: g, namespace: shop}\n\
                 spec: {matches: [{name: a, pathRegex: /a}, {name: b, pathRegex: '('}]}\n---\n";
    for (case, spec, field, why, next) in [
        (
            "too heavy",
            "backends: [{service: v1, weight: 4000001}, {service: v2, weight: 1}]",
            "spec.backends[0].weight",
            "it is 4000001, not a weight such as 90, from 0 to 4000000; the backend is left out",
            "correct the field",
        ),
        (
            "below zero",
            "backends: [{service: v1, weight: 1}, {service: v2, weight: -5}]",
            "spec.backends[1].weight",
            "it is -5, not a weight such as 90, from 0 to 4000000; the backend is left out",
            "correct the field",
        ),
        (
            "a misspelt weight",
            "backends: [{service: v1, weigth: 9}, {service: v2, weight: 1}]",
            "spec.backends[0].weigth",
            "it is no field that may stand there: service, weight; it is ignored",
            "did you mean weight?",
        ),
        (
            "misspelt matches",
            "matchs: [{name: g}], backends: [{service: v1, weight: 1}]",
            "spec.matchs",
            "it is no field that may stand there: service, backends, matches; the object is left out",
            "did you mean matches?",
        ),
        (
            "too many",
            &format!("backends: [{}]", many.join(", ")),
            "spec.backends",
            "it has 70 entries; the first 64 are used",
            "correct the field",
        ),
        (
            "a group that is not read in full",
            "matches: [{kind: HTTPRouteGroup, name: g}], backends: [{service: v1, weight: 1}]",
            "spec.matches",
            "some of HTTPRouteGroup g is not used",
            "correct g",
        ),
    ] {
        let services = service("web", "") + &service("v1", "") + &service("v2", "");
        // Without a namespace: the one is meant that kubectl takes.
        let objects = (services + &all + group + &split("s", spec)).replace(", namespace: shop", "");
        let output = migrate(&objects, &["-o", "json"]);
        assert_eq!(output.status.code(), Some(3), "{case}");
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["objects"], serde_json::json!([]), "{case}: {json}");
        let about = json["findings"].as_array().unwrap().iter().filter(|it| it["object"]["name"] == "s");
        let about: Vec<_> = about.collect();
        let [finding] = about[..] else { panic!("{case}: {about:#?}") };
        let want = serde_json::json!({
            "object": finding["object"], "what": field, "verdict": "notKept", "why": why, "next": next,
        });
        assert_eq!(*finding, want, "{case}");
        let output = migrate(&objects, &[]);
        let both = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{case}: {both}");
        assert!(both.contains(&format!("#   cannot be kept  {field}: {why}\n")), "{case}: {both}");
        assert!(!both.contains("delete trafficsplit") && !both.contains("warning:"), "{case}: {both}");
    }
}

#[test]
fn what_cannot_be_read_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (broken, list) = (path("broken.yaml", "a: [b"), path("list.yaml", "[1, 2]"));
    let two = path("two.yaml", "acl: true\n---\nacl: false\n");
    let config = path("config", "apiVersion: v1\nkind: Config\ncurrent-context: none\n");
    let (empty, web) = (path("empty.yaml", "---\n# none\n"), path("web.yaml", &service("web", "")));
    let nothing = tempfile::tempdir().unwrap();
    let nothing = nothing.path().display().to_string();
    for (arguments, code, said) in [
        (&["/nowhere/at/all"][..], 1, "/nowhere/at/all does not exist"),
        (&[&broken], 1, "is not valid YAML"),
        (&["--values", &list], 1, "is no map of values"),
        (&["--values", &broken], 1, "is not YAML"),
        (&["--values", &two], 1, "two.yaml has 2 YAML documents, and values are one; name a file with one document\n"),
        (&["--values", "/nowhere"], 1, "cannot be read"),
        (&["--values", &empty], 1, "empty.yaml is empty; see whether the command that writes it succeeded"),
        (&["--values", "-"], 1, "standard input is empty; see whether"),
        (&["-"], 1, "there is no manifest in standard input; see whether the command that writes it succeeded"),
        (&[&nothing], 1, "no manifest was found in"),
        (&[&empty], 1, "empty.yaml; see whether what writes it succeeded"),
        (&["-n", "nosuch", &web], 1, "--namespace \"nosuch\": no given object is in this namespace; correct the name"),
        (&["--kubeconfig", &config], 1, "kubeconfig"),
        (&["--values", &list, &broken], 2, "cannot be used with"),
        (&["--context", "none", &broken], 2, "cannot be used with"),
    ] {
        let output = command(&["migrate"]).args(arguments).stdin(Stdio::null()).output().unwrap();
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {err}");
        assert!(err.contains(said) && output.stdout.is_empty(), "{arguments:?}: {err}");
    }
}

#[test]
fn a_kind_that_is_misspelt_is_not_kept() {
    let kind = "kind: TrafficSplit";
    let good = split("s", BOTH) + &service("web", "") + &service("v1", "") + &service("v2", "");
    for (case, objects, code, says) in [
        ("right", good.clone(), 0, "translated"),
        (
            "misspelt",
            good.replace(kind, "kind: TraficSplit"),
            3,
            "cannot be kept  cannot be read: the mesh does not read TraficSplit of split.smi-spec.io/v1alpha3; skipped\n",
        ),
        ("unlike any", good.replace(kind, "kind: Split"), 3, "cannot be read: the mesh does not read Split"),
        ("a Service", good.replacen("kind: Service", "kind: Sevice", 1), 3, "next: did you mean Service?"),
        (
            "of Gateway API",
            service("web", "") + "apiVersion: gateway.networking.k8s.io/v1\nkind: TLSRoute\nmetadata: {name: s}\n",
            0,
            "nothing of Traefik Mesh or SMI was found",
        ),
        (
            "another kind",
            service("web", "") + "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: s}\n",
            0,
            "nothing",
        ),
    ] {
        let output = migrate(&objects, &["-o", "report"]);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{case}: {out}{err}");
        assert!(out.contains(says), "{case}: {out}{err}");
    }
}

#[test]
fn files_of_a_chart_are_said_to_be_that() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\n"),
        ("values.yaml", "image: web\n"),
        ("a.yaml", "b: c\n"),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    for command_name in ["migrate", "analyze"] {
        let output = command(&[command_name, "."]).current_dir(folder.path()).output().unwrap();
        let both = text(&output.stdout) + &text(&output.stderr);
        assert!(!output.status.success(), "{both}");
        for (says, count) in [("a file of a chart of Helm, not an object", 2), ("no apiVersion or no kind", 1)] {
            assert_eq!(both.matches(says).count(), count, "{command_name}: {both}");
        }
        for says in ["Chart.yaml", "values.yaml", "ender the chart first, for instance with helm template"] {
            assert!(both.contains(says), "{command_name}: nothing says {says} in {both}");
        }
    }
}

#[test]
fn values_from_a_pipe() {
    for (values, want) in [("null\n", "# Values"), ("{}\n", "# Values"), ("acl: true\n", "acl:\n  enabled: true\n")] {
        let mut command = command(&["migrate", "--values", "-"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(values.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let out = text(&output.stdout);
        assert!(output.status.code() == Some(0) && out.contains(want), "{values}: {out}");
    }
}

#[test]
fn files_folders_and_formats() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("pay")).unwrap();
    let old = "mesh.traefik.io/scheme: h2c";
    fs::write(folder.path().join("shop.yml"), service("web", old)).unwrap();
    fs::write(folder.path().join("pay/pay.yaml"), service("api", old).replace("namespace: shop", "namespace: pay"))
        .unwrap();
    fs::write(folder.path().join("notes.txt"), "no: [manifest").unwrap();
    let path = folder.path().display().to_string();
    let run = |flags: &[&str]| command(&["migrate", "-o", "yaml", &path]).args(flags).output().unwrap();
    let names = |output: &Output| {
        let name = |it: &Value| it["metadata"]["name"].as_str().unwrap().to_owned();
        printed(output).iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names(&run(&[])), ["api", "web"]);
    assert_eq!(names(&run(&["-n", "pay"])), ["api"]);
    let run_as = |output: &str| command(&["migrate", "-o", output, &path]).output().unwrap();
    let output = run_as("report");
    assert!(text(&output.stdout).starts_with("Service pay/api\n  translated ") && output.stderr.is_empty());
    let output = run_as("json");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["objects"][0]["apiVersion"], "v1");
    assert_eq!(json["findings"][1]["object"]["name"], "web");
    assert_eq!(json["findings"][1]["verdict"], "translated");
    // By what a port carries nothing of HTTP has an effect.
    let output = run(&["--default-mode", "tcp"]);
    assert!(names(&output).is_empty() && text(&output.stderr).contains("not needed"));
}

#[test]
fn text_of_others_stays_text() {
    // As YAML has it.
    let hostile = r#""\u001b[2J\u009b31m\u202e\r\n# forged\n---\nkind: Secret\nrm x\u0085\ufeff""#;
    let annotations = format!(
        "mesh.traefik.io/circuit-breaker-expression: {hostile}, mesh.traefik.io/scheme: {hostile}, mesh.traefik.io/retry-attempts: '2'"
    );
    let matches = format!("{{name: {hostile}, headers: {{x-a: \"it's $(touch x) `\\\" # \\\\\\\\ ü\"}}}}");
    let group = format!(
        "apiVersion: specs.smi-spec.io/v1alpha3\nkind: HTTPRouteGroup\nmetadata: {{name: g, namespace: shop}}\n\
         spec: {{matches: [{matches}]}}\n---\n"
    );
    let objects = service("web", &annotations)
        + &service("v1", "")
        + &service(hostile, "mesh.traefik.io/retry-attempts: '2'")
        + &group
        + &split("s", "matches: [{kind: HTTPRouteGroup, name: g}], backends: [{service: v1, weight: 1}]");
    for flags in [&[][..], &["-o", "yaml"], &["-o", "report"], &["-o", "json"]] {
        let output = migrate(&objects, flags);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(3), "{err}");
        let harmful = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!out.contains(harmful) && !err.contains(harmful), "{out:?}{err:?}");
        let mut lines = out.lines().chain(err.lines());
        assert!(!lines.any(|line| ["# forged", "kind: Secret", "rm x"].iter().any(|text| line.starts_with(text))));
    }
    let want = "HeaderRegexp(`x-a`, \"it's $(touch x) `\\\" # \\\\\\\\ ü\") => v1 1";
    let output = migrate(&objects, &["-o", "yaml"]);
    let read = printed(&output);
    let [web] = &read[..] else { panic!("{read:#?}") };
    assert_eq!(web["metadata"]["annotations"]["maesh.containo.us/routes"], want);

    let folder = tempfile::tempdir().unwrap();
    program(folder.path(), "kubectl", "printf '%s\\n' \"$@\"");
    let script = folder.path().join("annotate.sh");
    fs::write(&script, migrate(&objects, &[]).stdout).unwrap();
    let output = with_path(folder.path(), "sh annotate.sh");
    let want = format!(
        "-n\nshop\nannotate\nservice\nweb\nmaesh.containo.us/retry-attempts=2\nmaesh.containo.us/routes={want}\n"
    );
    assert_eq!(text(&output.stdout), want);
}

/// Puts a program into a folder.
fn program(folder: &Path, name: &str, script: &str) {
    fs::write(folder.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(folder.join(name), Permissions::from_mode(0o755)).unwrap();
}

/// Runs a line of a shell in a folder whose programs come first.
fn with_path(folder: &Path, line: &str) -> Output {
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    Command::new("sh").args(["-c", line]).env("PATH", path).current_dir(folder).output().unwrap()
}

#[test]
fn the_page_shows_what_happens() {
    let page = page(PAGE);
    let folder = tempfile::tempdir().unwrap();
    let manifests = blocks(&page, "yaml");
    let [objects, values] = manifests[..] else { panic!("{PAGE} has other manifests") };
    fs::write(folder.path().join("shop.yaml"), objects).unwrap();
    fs::write(folder.path().join("old.yaml"), values).unwrap();
    program(folder.path(), "maesh", &format!("exec {} \"$@\"", env!("CARGO_BIN_EXE_maesh")));
    let commands: Vec<_> = blocks(&page, "console").into_iter().flat_map(typed).collect();
    assert_eq!(commands.len(), 3, "{PAGE}: {commands:?}");
    for (line, shown) in commands {
        let output = with_path(folder.path(), line);
        assert_eq!(lines(&text(&output.stdout)), shown, "`{line}` in {PAGE}");
    }
}

/// A kind of SMI, as a cluster that had another mesh has it.
const SPLITS: &str = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: trafficsplits.split.smi-spec.io}\n\
    spec:\n  group: split.smi-spec.io\n  scope: Namespaced\n  names: {kind: TrafficSplit, plural: trafficsplits, singular: trafficsplit}\n  \
    versions:\n  - name: v1alpha3\n    served: true\n    storage: true\n    \
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}\n";

/// A cluster with a shop that a Traefik Mesh carried.
struct Shop(ApiServer);

impl Shop {
    fn maesh(&self, arguments: &[&str]) -> Output {
        let mut command = self.0.namespace().command(env!("CARGO_BIN_EXE_maesh"));
        command.env_remove("KUBERNETES_SERVICE_HOST");
        command.arg("migrate").args(arguments).arg("--kubeconfig").arg(self.0.kubeconfig()).output().unwrap()
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.0.kubectl().args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs what was printed.
    fn run(&self, printed: &Output, folder: &Path) -> Output {
        program(folder, "kubectl", &format!("exec {} \"$@\"", tool("kubectl").unwrap().display()));
        // Both streams, as `> file 2>&1` would have them.
        fs::write(folder.join("annotate.sh"), [&printed.stdout[..], &printed.stderr].concat()).unwrap();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        let mut shell = self.0.namespace().command("sh");
        shell.arg(folder.join("annotate.sh")).env("PATH", path).output().unwrap()
    }

    fn web(&self) -> Value {
        serde_json::from_str(&self.kubectl(&["-n", "shop", "get", "service", "web", "-o", "json"])).unwrap()
    }
}

#[test]
fn a_cluster_gets_annotations_and_nothing_else_changes() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let (shop, folder) = (Shop(server), tempfile::tempdir().unwrap());
    let none = shop.maesh(&[]);
    assert!(none.status.success(), "no kinds of SMI: {}", text(&none.stderr));
    assert!(printed(&none).is_empty());

    let manifests = folder.path().join("shop.yaml");
    let old = "mesh.traefik.io/retry-attempts: '2', example.org/team: a";
    fs::write(&manifests, service("web", old) + &service("v1", "") + &service("v2", "")).unwrap();
    shop.kubectl(&["create", "namespace", "shop"]);
    // As most people do it: with an annotation that says what they applied.
    shop.kubectl(&["apply", "-f", manifests.to_str().unwrap()]);
    shop.0.apply(SPLITS).unwrap();
    await_condition("the kind is served", || shop.0.apply(&split("web", BOTH)).is_ok().then_some(()));

    let before = shop.web();
    let first = shop.maesh(&[]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let run = shop.run(&first, folder.path());
    assert!(run.status.success(), "{}", text(&run.stderr));
    let after = shop.web();
    assert_eq!(after["spec"], before["spec"]);
    let annotation = |object: &Value, key: &str| object["metadata"]["annotations"][key].as_str().map(str::to_owned);
    let routes = annotation(&after, "maesh.containo.us/routes");
    assert_eq!(routes.as_deref(), Some("PathRegexp(`^`) => v1 9, v2 1"));
    assert_eq!(annotation(&after, "maesh.containo.us/retry-attempts").as_deref(), Some("2"));
    for (key, value) in before["metadata"]["annotations"].as_object().unwrap() {
        assert_eq!(&after["metadata"]["annotations"][key], value, "{key} is as it was");
    }

    // Once more: there is nothing to do. Run once more: it changes nothing.
    let again = shop.maesh(&["-n", "shop", "-o", "yaml"]);
    assert!(printed(&again).is_empty() && again.status.success(), "{}", text(&again.stderr));
    assert!(text(&again.stderr).contains("#   not needed      the annotation routes of Service web says the same"));
    assert!(shop.run(&first, folder.path()).status.success());
    assert_eq!(shop.web()["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);

    // What somebody wrote meanwhile is not overwritten.
    shop.kubectl(&["-n", "shop", "annotate", "--overwrite", "service", "web", "maesh.containo.us/retry-attempts=3"]);
    let refused = shop.run(&first, folder.path());
    assert!(!refused.status.success() && text(&refused.stderr).contains("already has a value"), "{refused:?}");
    assert_eq!(annotation(&shop.web(), "maesh.containo.us/retry-attempts").as_deref(), Some("3"));
    let differs = shop.maesh(&[]);
    assert_eq!(differs.status.code(), Some(3));
    shop.kubectl(&["-n", "shop", "annotate", "--overwrite", "service", "web", "maesh.containo.us/retry-attempts=2"]);

    // Whoever applies the manifests next takes nothing of it away either.
    shop.kubectl(&["apply", "-f", manifests.to_str().unwrap()]);
    assert_eq!(shop.web()["metadata"]["annotations"], after["metadata"]["annotations"]);

    let nobody = shop.0.kubeconfig_for("nobody", &[]).unwrap();
    let mut command = shop.0.namespace().command(env!("CARGO_BIN_EXE_maesh"));
    let output = command.args(["migrate", "--kubeconfig"]).arg(nobody).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("list services"), "{}", text(&output.stderr));
}
