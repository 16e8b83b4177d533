//! `maesh analyze`: what it finds in bad manifests, in each form, with which exit code, and that it is what `maesh dev` finds.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod cluster;
mod hostile;
mod page;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::Path,
    process::{Output, Stdio},
};

use maesh_test_support::{need_program, need_tool};
use serde_json::{Value, json};

use crate::support::{
    Dev, command,
    manifest::{save, service},
    page::blocks,
};

/// Two Services, one with bad values, a document that is no YAML, a split that leads nowhere, and another kind.
const BAD: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  annotations:
    maesh.containo.us/traffic-type: pigeon
spec:
  ports:
  - {name: http, port: 8080}
  - {name: zero, port: 0}
---
kind: [
---
apiVersion: v1
kind: Service
metadata: {name: good, namespace: shop}
spec:
  ports: [{name: http, port: 8080}]
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: web, namespace: shop}
spec:
  service: nowhere
  backends: [{service: web, weight: 1}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
";

/// Runs it in `folder` on these arguments, with this as its standard input.
fn run_on(folder: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = command(&["analyze"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // It may end without having read all of it.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    run_on(folder, arguments, b"")
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The report in JSON, and the exit code.
fn report(folder: &Path, arguments: &[&str]) -> (Value, Option<i32>) {
    let output = run(folder, &[arguments, &["-o", "json"]].concat());
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (report, output.status.code())
}

fn folder_with(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "all.yaml", text);
    folder
}

#[test]
fn a_service_without_ports_is_named() {
    let why = "Service shop/web: has no ports, so no proxy carries it. Is spec.ports missing?";
    for (spec, says) in [
        ("port: [{port: 80}]", why),
        ("selector: {app: web}", why),
        ("ports: []", why),
        ("ports: [{port: 80}]", ""),
        ("clusterIP: None", ""),
        ("{type: ExternalName, externalName: example.com}", ""),
    ] {
        let spec = if spec.starts_with('{') { spec.to_owned() } else { format!("{{{spec}}}") };
        let text = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec: {spec}\n");
        let (report, code) = report(folder_with(&text).path(), &["."]);
        let said = report["findings"][0]["message"].as_str().unwrap_or_default();
        assert_eq!((said.contains(says), code), (true, Some(if says.is_empty() { 0 } else { 79 })), "{spec}: {report}");
    }
}

/// Where only the group is misspelt, that is said, and not that the mesh has no use for such objects.
#[test]
fn a_misspelt_group_of_smi_is_named() {
    for (version, kind, known) in [
        ("access.smi.io/v1alpha3", "TrafficTarget", true),
        ("spec.smi-spec.io/v1alpha4", "HTTPRouteGroup", true),
        ("split.smi-spec.com/v1alpha2", "TrafficSplit", true),
        ("traffic.example.com/v1", "TrafficSplit", false),
    ] {
        let text = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x, namespace: shop}}\n");
        let (report, code) = report(folder_with(&text).path(), &["."]);
        let said = report["findings"][0]["message"].as_str().unwrap_or_default();
        assert_eq!(
            (said.contains("apiVersion is"), code),
            (known, Some(if known { 79 } else { 0 })),
            "{kind}: {report}"
        );
    }
}

#[test]
fn findings_for_people() {
    let folder = folder_with(BAD);
    let output = run(folder.path(), &["."]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(79), "{text}");
    let want = [
        "./all.yaml:7:37: warning: Service shop/web: annotation maesh.containo.us/traffic-type is \"pigeon\"",
        "    InvalidAnnotation  metadata.annotations[maesh.containo.us/traffic-type] = \"pigeon\"  used instead: http",
        "./all.yaml:11:24: warning: Service shop/web: port 0 is not a number from 1 to 65535",
        "./all.yaml:13:",
        "./all.yaml:25:12: warning: TrafficSplit shop/web: Service shop/nowhere does not exist",
        "./all.yaml:28:1: info: Deployment shop/web: the mesh does not read Deployment of apps/v1",
        "note: 1 finding names what is not among the given files. Only these were looked at; with --cluster, the objects of the \
         cluster count too.",
        "1 error, 3 warnings, 1 info; looked at 3 objects in 1 file",
    ];
    let mut lines = text.lines();
    for want in want {
        assert!(lines.any(|line| line.starts_with(want)), "not in this order: {want:?} in\n{text}");
    }
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn findings_for_scripts() {
    let folder = folder_with(BAD);
    let (report, code) = report(folder.path(), &["all.yaml"]);
    assert_eq!(code, Some(79));
    assert_eq!(report["counts"], json!({ "error": 1, "warning": 3, "info": 1 }), "{report}");
    assert_eq!((&report["files"], &report["objects"]), (&json!(1), &json!(3)));
    assert_eq!(report["notes"].as_array().unwrap().len(), 1);
    let first = &report["findings"][0];
    let message = first["message"].as_str().unwrap();
    assert!(message.starts_with("Service shop/web: annotation maesh.containo.us/traffic-type"), "{message}");
    let want = json!({
        "severity": "warning", "object": { "kind": "Service", "namespace": "shop", "name": "web" },
        "field": "metadata.annotations[maesh.containo.us/traffic-type]", "value": "pigeon", "using": "http",
        "reason": "InvalidAnnotation", "file": "all.yaml", "line": 7, "column": 37, "message": message,
    });
    assert_eq!(first, &want);
    let absent: Vec<_> = report["findings"].as_array().unwrap().iter().filter(|it| it["absent"] == true).collect();
    assert!(absent.len() == 1 && absent[0]["value"] == "nowhere", "{absent:#?}");
}

/// What the schema of SARIF asks for, and what code scanning needs besides.
#[test]
fn findings_for_code_scanning() {
    let folder = folder_with(BAD);
    let arguments = [folder.path().to_str().unwrap(), "-o", "sarif"];
    let output = run(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(79));
    let log: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&log["version"], log["runs"].as_array().unwrap().len()), (&json!("2.1.0"), 1));
    let rules = log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
    let results = log["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), 5, "{results:#?}");
    for result in results {
        let rule = &rules[usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()];
        assert_eq!(rule["id"], result["ruleId"]);
        assert!(rule["help"]["text"].as_str().is_some_and(|text| text.len() > 20 && !text.contains('`')), "{rule}");
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "all.yaml", "below the working directory: {result}");
        assert!(place["region"]["startLine"].as_u64().is_some_and(|line| line > 0), "{result}");
    }
    let levels: Vec<_> = results.iter().map(|result| result["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["warning", "warning", "error", "warning", "note"]);
    let fingerprints = |log: &Value| -> BTreeSet<String> {
        let results = log["runs"][0]["results"].as_array().unwrap().iter();
        results.map(|result| result["partialFingerprints"]["maeshFinding/v1"].to_string()).collect()
    };
    save(folder.path(), "all.yaml", &format!("# Moved\n\n{BAD}"));
    let moved = run(folder.path(), &arguments);
    let moved: Value = serde_json::from_slice(&moved.stdout).unwrap();
    assert_eq!(moved["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"]["startLine"], 9);
    assert_eq!(fingerprints(&log).len(), 5);
    assert_eq!(fingerprints(&moved), fingerprints(&log));
    if let (Some(schema), Some(node)) = (need_tool("sarif-schema"), need_program("node", "nodejs")) {
        save(folder.path(), "log.json", std::str::from_utf8(&output.stdout).unwrap());
        let script = "const Ajv = require('ajv'); const ajv = new Ajv({schemaId: 'auto', unknownFormats: 'ignore'});\n\
                      ajv.addMetaSchema(require('ajv/lib/refs/json-schema-draft-04.json'));\n\
                      const schema = require('@microsoft/jest-sarif/lib/schemas/sarif-2.1.0-rtm.5.json');\n\
                      const log = JSON.parse(require('fs').readFileSync(process.argv[1]));\n\
                      if (!ajv.validate(schema, log)) { console.log(ajv.errorsText()); process.exit(1); }\n\
                      log.runs[0].results[0].level = 'bad'; if (ajv.validate(schema, log)) process.exit(2);";
        let modules = schema.ancestors().find(|folder| folder.ends_with("node_modules")).unwrap();
        let file = folder.path().join("log.json");
        let mut node = std::process::Command::new(node);
        let output = node.args(["-e", script]).arg(file).env("NODE_PATH", modules).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn exit_codes() {
    let good = service("shop", "web", 8080, "");
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n";
    let warned = service("shop", "web", 8080, "maesh.containo.us/traffic-type: pigeon");
    for (case, text, flags, want) in [
        ("nothing", good.as_str(), &[][..], 0),
        ("another kind", deployment, &[], 0),
        ("another kind, which matters", deployment, &["--fail-on", "info"], 79),
        ("a warning", &warned, &[], 79),
        ("a warning, where only errors matter", &warned, &["--fail-on", "error"], 0),
        ("an error", "kind: [", &["--fail-on", "error"], 79),
        ("an error that does not matter", "kind: [", &["--fail-on", "never"], 0),
        ("an unknown flag", &good, &["--fail-at", "error"], 2),
        ("a path that does not exist", &good, &["/nowhere/at-all"], 1),
        ("a flag of the mesh", &warned, &["--ignore-namespace", "shop"], 0),
    ] {
        let folder = folder_with(text);
        let output = run(folder.path(), &[&["all.yaml"], flags].concat());
        assert_eq!(output.status.code(), Some(want), "{case}: {output:?}");
    }
    let empty = tempfile::tempdir().unwrap();
    let output = run(empty.path(), &["."]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains("no manifest was found"), "{output:?}");
}

#[test]
fn standard_input_is_a_stream_of_documents_and_lists() {
    let folder = tempfile::tempdir().unwrap();
    let annotated = |name: &str, value: &str| {
        json!({ "apiVersion": "v1", "kind": "Service", "spec": { "ports": [{ "port": 8080 }] }, "metadata": {
            "name": name, "namespace": "shop", "annotations": { "maesh.containo.us/traffic-type": value } } })
    };
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [annotated("b", "owl"), annotated("c", "tcp")] });
    let yaml = service("shop", "a", 8080, "maesh.containo.us/traffic-type: pigeon");
    let input = format!("{yaml}---\n{list}\n---\n{}\n", annotated("d", "crow"));
    let output = run_on(folder.path(), &["-", "-o", "json"], input.as_bytes());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["objects"], &report["files"]), (Some(79), &json!(4), &json!(1)));
    let found: Vec<_> = report["findings"].as_array().unwrap().iter().collect();
    let values: Vec<_> = found.iter().map(|finding| finding["value"].as_str().unwrap()).collect();
    assert_eq!(values, ["pigeon", "owl", "crow"]);
    assert!(found.iter().all(|finding| finding["file"] == "standard input"), "{found:#?}");
}

/// Every manifest of the task pages, each in a namespace of its own, and a bad value of every annotation.
fn corpus(folder: &Path) {
    let tasks = maesh_test_support::repository().join("docs/tasks");
    for entry in std::fs::read_dir(tasks).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let all = blocks(&text, "yaml").join("\n---\n").replace("namespace: shop", &format!("namespace: {name}"));
        save(folder, &format!("{name}.yaml"), &all);
    }
    let reference = crate::support::page::page("docs/reference/annotations.md");
    let names: BTreeSet<&str> = crate::support::page::spans(&reference)
        .into_iter()
        .filter(|code| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'))
        .collect();
    assert!(names.contains("retry-attempts") && names.len() > 20, "{names:?}");
    let one = |(number, name): (usize, &&str)| {
        service("bad", &format!("s{number}"), 8080, &format!("maesh.containo.us/{name}: \"\\u001b nonsense\""))
    };
    save(folder, "values.yaml", &names.iter().enumerate().map(one).collect::<Vec<_>>().join("---\n"));
    save(folder, "z-bad.yaml", BAD);
}

/// What depends on the addresses of `maesh dev`, or of a cluster.
const OF_ADDRESSES: [&str; 4] = ["ForbiddenEndpoint", "ListenFailed", "ListenPortExhausted", "AddressRangeExhausted"];

/// A diagnostic without what only one of the two says of it.
fn bare(mut found: Value) -> String {
    for key in ["event", "time", "severity", "absent"] {
        found.as_object_mut().unwrap().remove(key);
    }
    found.to_string()
}

#[test]
fn it_finds_what_dev_finds() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path());
    let dev = Dev::start_with(folder.path(), &["--acl"]);
    let (report, _) = report(folder.path(), &[folder.path().to_str().unwrap(), "--acl"]);
    let of_manifests = |found: &&Value| !OF_ADDRESSES.contains(&found["reason"].as_str().unwrap());
    let by_severity = |all: &mut dyn Iterator<Item = (&str, &Value)>| -> BTreeMap<String, String> {
        all.filter(|(_, found)| of_manifests(found))
            .map(|(severity, found)| (bare(found.clone()), severity.replace("info", "warning")))
            .collect()
    };
    let dev_found = by_severity(&mut dev.early.iter().map(|event| (event["event"].as_str().unwrap(), event)));
    let findings = report["findings"].as_array().unwrap();
    let found = by_severity(&mut findings.iter().map(|finding| (finding["severity"].as_str().unwrap(), finding)));
    assert!(found.len() > 25, "{found:#?}");
    assert_eq!(found, dev_found);
}
