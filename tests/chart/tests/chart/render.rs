//! What can be said of the chart without a cluster.

use std::fs;
use std::process::Command;

use maesh_test_support::{need_program, need_tool, repository};
use serde_json::Value;

use crate::helm::{both, chart, command, newest, objects, succeeded, template, values};
use crate::{VALUES, VERSIONS};

#[test]
fn chart_is_linted_by_both_helms() {
    for helm in both() {
        for name in VALUES {
            let home = tempfile::tempdir().unwrap();
            let mut lint = command(&helm, home.path());
            let output = lint.args(["lint", "--strict"]).arg(chart()).args(values(name)).output().unwrap();
            succeeded(&format!("{} lint, values {name:?}", helm.display()), &output);
        }
    }
}

#[test]
fn chart_renders_the_same_with_both_helms() {
    let rendered: Vec<String> = both().iter().map(|helm| template(helm, &values("everything")).unwrap()).collect();
    for pair in rendered.windows(2) {
        assert_eq!(objects(&pair[0]), objects(&pair[1]));
    }
}

#[test]
fn chart_fits_the_schemas_of_kubernetes() {
    let (Some(helm), Some(python)) = (newest(), need_program("python3", "python3")) else { return };
    let Some(packages) = need_tool("kubernetes-validate") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for name in VALUES {
        let file = folder.path().join(format!("values-{name}.yaml"));
        let known = objects(&template(&helm, &values(name)).unwrap());
        // Kinds of the Prometheus operator are not in the schemas.
        let known = known.iter().filter(|object| !text(object, "/apiVersion").starts_with("monitoring.coreos.com/"));
        let documents: Vec<String> = known.map(ToString::to_string).collect();
        assert!(documents.len() > 10, "{name}");
        fs::write(&file, documents.join("\n---\n")).unwrap();
        files.push(file);
    }
    let validate = |version: &str| {
        let mut validate = Command::new(&python);
        validate.env("PYTHONPATH", &packages).args(["-m", "kubernetes_validate", "--strict", "-k", version]);
        validate
    };
    for version in VERSIONS {
        let output = validate(version).args(&files).output().unwrap();
        succeeded(&format!("Kubernetes {version}"), &output);
    }
    // It finds what it should find.
    let wrong = folder.path().join("wrong.yaml");
    fs::write(&wrong, fs::read_to_string(&files[0]).unwrap().replace("\"replicas\":2", "\"replica\":2")).unwrap();
    assert!(!validate("1.35").arg(&wrong).output().unwrap().status.success());
}

#[test]
fn chart_refuses_values_that_it_does_not_know_or_cannot_keep() {
    for helm in both() {
        for (case, option, said) in [
            ("a typo", "proxy.resource.limits.cpu=1", "resource"),
            ("a typo on the top level", "zone=maesh", "zone"),
            ("a wrong type", "dns.replicas=many", "replicas"),
            ("not a mode", "defaultMode=grpc", "defaultMode"),
            ("no zone", "zones=null", "zones"),
            ("a duration without unit", "proxy.drainHorizon=45", "drainHorizon"),
            ("a digest that is none", "image.digest=1.0", "digest"),
            ("access control", "acl=true", "access control is not part of this version"),
            ("a stanza that nobody writes", "coredns.mode=corefile", "mode"),
            ("a tag that moves", "image.tag=latest", "latest"),
            ("two families with one listened on", "ipFamilyPolicy=PreferDualStack", "listenAddress"),
            ("a drain that the kubelet ends", "proxy.drainHorizon=1m30s", "terminationGracePeriodSeconds"),
            ("a flag that is none", "controller.extraArgs={controller}", "extraArgs"),
        ] {
            let refused = template(&helm, &["--set".to_owned(), option.to_owned()]);
            let message = refused.expect_err(case);
            assert!(message.contains(said), "{case}: {message}");
        }
    }
}

#[test]
fn chart_has_the_rights_that_are_written_down() {
    let Some(helm) = newest() else { return };
    for name in VALUES {
        let rights: Vec<Value> = objects(&template(&helm, &values(name)).unwrap())
            .into_iter()
            .filter(|object| text(object, "/apiVersion").starts_with("rbac."))
            .map(|mut object| {
                object["metadata"].as_object_mut().unwrap().remove("labels");
                object
            })
            .collect();
        if name == "kubectl" {
            // Those of `helm test` exist while it runs.
            let mut lasting =
                rights.iter().filter(|right| text(right, "/metadata/annotations/helm.sh~1hook") != "test");
            assert!(lasting.all(|right| text(right, "/metadata/namespace") != "kube-system"), "manual");
            continue;
        }
        let rights = serde_json::to_string_pretty(&rights).unwrap() + "\n";
        // The same, whatever the values.
        same("tests/chart/rights.json", &rights, name);
    }
}

#[test]
fn chart_may_change_the_named_config_maps_of_the_clusters_dns_only() {
    let Some(helm) = newest() else { return };
    let all = objects(&template(&helm, &["--set".to_owned(), "coredns.configMaps={my-dns}".to_owned()]).unwrap());
    let rights = all
        .iter()
        .filter(|object| text(object, "/kind") == "Role" && text(object, "/metadata/namespace") == "kube-system");
    let named: Vec<_> = rights.filter_map(|role| role.pointer("/rules/0/resourceNames")).collect();
    assert_eq!(named, [&serde_json::json!(["my-dns"])]);
}

#[test]
fn chart_without_helm_is_current() {
    let Some(helm) = newest() else { return };
    let options = [values("kubectl"), ["--skip-tests", "--no-hooks"].map(str::to_owned).to_vec()].concat();
    let rendered = template(&helm, &options).unwrap();
    let head = fs::read_to_string(repository().join("tests/chart/maesh.yaml.head")).unwrap();
    same("maesh.yaml", &(head + &rendered.replace("managed-by: Helm", "managed-by: kubectl")), "rendered");
}

#[test]
fn chart_gives_tokens_and_keys_only_to_who_needs_them() {
    let Some(helm) = newest() else { return };
    let mut seen = 0;
    for object in objects(&template(&helm, &[]).unwrap()) {
        let Some(pod) = object.pointer("/spec/template/spec") else { continue };
        seen += 1;
        let name = text(&object, "/metadata/name");
        let controller = name == "maesh-controller";
        assert_eq!(pod["automountServiceAccountToken"], controller || name == "maesh-uninstall", "{name}");
        let none = Vec::new();
        let volumes = pod["volumes"].as_array().unwrap_or(&none);
        assert!(volumes.iter().all(|volume| volume.get("hostPath").is_none()), "{name}");
        assert!(volumes.iter().all(|volume| volume.get("secret").is_none()), "{name}: nobody mounts a Secret");
        let sources = volumes.iter().filter_map(|volume| volume.pointer("/projected/sources")?.as_array()).flatten();
        let tokens: Vec<&str> =
            sources.map(|source| text(source, "/serviceAccountToken/audience")).filter(|it| !it.is_empty()).collect();
        let subscribes = ["maesh-dns", "maesh-proxy"].contains(&name);
        assert_eq!(tokens, if subscribes { vec!["maesh"] } else { vec![] }, "{name}");
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod.get(field).is_none(), "{name}: {field}");
        }
        let containers = pod["containers"].as_array().unwrap();
        for port in containers.iter().filter_map(|container| container["ports"].as_array()).flatten() {
            assert!(port.get("hostPort").is_none(), "{name}");
        }
    }
    assert_eq!(seen, 4, "three roles and the end");
}

/// The hooks' pods are no part of the roles, and still go where the controller may: elsewhere they might never run.
#[test]
fn chart_has_pods_of_hooks_run_where_the_controller_may() {
    let Some(helm) = newest() else { return };
    let options = ["--set=controller.nodeSelector.pool=system", "--set=controller.tolerations[0].operator=Exists"];
    let rendered = objects(&template(&helm, &options.map(str::to_owned)).unwrap());
    for (name, pod) in [("maesh-test", "/spec"), ("maesh-uninstall", "/spec/template/spec")] {
        let of_name = |object: &&Value| text(object, "/metadata/name") == name && object.pointer(pod).is_some();
        let pod = rendered.iter().find(of_name).and_then(|object| object.pointer(pod)).expect(name);
        assert_eq!(text(pod, "/nodeSelector/pool"), "system", "{name}");
        assert_eq!(text(pod, "/tolerations/0/operator"), "Exists", "{name}");
    }
}

/// Every flag that the chart sets is known to the binary, and every role starts to read its files with them.
#[test]
fn chart_sets_flags_that_exist() {
    let Some(helm) = newest() else { return };
    let folder = fs::read_dir(repository().join("cli/src/args")).unwrap();
    let files = folder.map(|entry| entry.unwrap().path()).chain([repository().join("cli/src/args.rs")]);
    let source: String = files.map(|file| fs::read_to_string(file).unwrap()).collect();
    for object in objects(&template(&helm, &values("everything")).unwrap()) {
        let containers = object.pointer("/spec/template/spec/containers").and_then(Value::as_array);
        let arguments = containers.into_iter().flatten().filter_map(|container| container["args"].as_array());
        for argument in arguments.flatten().filter_map(Value::as_str) {
            let Some(flag) = argument.strip_prefix("--") else { continue };
            let flag = flag.split('=').next().unwrap();
            let known = source.contains(&format!("pub {}:", flag.replace('-', "_")))
                || source.contains(&format!("long = \"{flag}\""));
            assert!(known, "--{flag} is no flag of maesh");
        }
    }
}

/// The text at `pointer`, empty where there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Compares `now` with a file of the repository; writes it when `MAESH_WRITE` is set.
#[track_caller]
fn same(file: &str, now: &str, case: &str) {
    let path = repository().join(file);
    if std::env::var_os("MAESH_WRITE").is_some() {
        fs::write(&path, now).expect("the repository can be written");
    }
    let before = fs::read_to_string(&path).unwrap_or_default();
    let line = before.lines().zip(now.lines()).position(|(before, now)| before != now);
    assert!(
        before == now,
        "{file} is not what the chart gives ({case}), from line {:?}: see whether that is meant, then \
         MAESH_WRITE=1 cargo xtask test --only chart",
        line.map(|line| line + 1)
    );
}
