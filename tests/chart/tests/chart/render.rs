//! What can be said of the chart without a cluster.

use std::fs;
use std::process::Command;

use maesh_test_support::{generated::is_current, need_program, need_tool, repository};
use serde_json::{Value, json};

use crate::helm::{both, chart, command, newest, objects, succeeded, template, values};
use crate::{VALUES, VERSIONS};

/// What writes the files that are rendered from the chart.
const WRITE_FILES: &str = "MAESH_WRITE=1 cargo xtask test --only chart";

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
            ("access control of Traefik Mesh", "acl=true", "set acl.enabled to true"),
            ("a source without a prefix", "acl.sources[0].cidr=10.0.0.1", "acl"),
            ("a range without a prefix", "api.allowFrom={10.0.7.1}", "10.0.7.1/32 for one address"),
            ("a prefix that is too long", "api.allowFrom={10.0.7.0/33}", "\"10.0.7.0/33\" is no range of addresses"),
            ("an address that is none", "api.allowFrom={10.0.300.0/24}", "is no range of addresses"),
            ("a name instead of a range", "api.allowFrom={office.example/24}", "is no range of addresses"),
            ("a range that is no list", "api.allowFrom=10.0.7.0/24", "allowFrom"),
            ("a stanza that nobody writes", "coredns.mode=corefile", "mode"),
            ("a tag that moves", "image.tag=latest", "latest"),
            ("two families with one listened on", "ipFamilyPolicy=PreferDualStack", "listenAddress"),
            ("a drain that the kubelet ends", "proxy.drainHorizon=1m30s", "terminationGracePeriodSeconds"),
            ("a flag that is none", "controller.extraArgs={controller}", "extraArgs"),
            ("the cluster's own zone", "zones={cluster.local}", "zones: cluster.local overlaps the cluster domain"),
            ("a zone in the cluster's", "zones={mesh.cluster.local}", "overlaps the cluster domain"),
            (
                "a zone around the cluster's",
                "zones={internal},clusterDomain=example.internal",
                "overlaps the cluster domain",
            ),
            ("multicast DNS", "zones={local},clusterDomain=example.internal", "local is reserved"),
            ("reverse lookup", "zones={10.in-addr.arpa}", "is reserved"),
            ("a zone in another", "zones={maesh,shop.maesh}", "shop.maesh lies within maesh"),
            ("a probe of something else", "proxy.livenessProbe.exec.command={true}", "livenessProbe"),
            ("sysctls of all pods", "podSecurityContext.sysctls[0].name=a", "podSecurityContext"),
            ("a name that is none", "fullnameOverride=Mesh", "fullnameOverride"),
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
        is_current("tests/chart/rights.json", &rights, WRITE_FILES);
    }
}

/// Certificate authorities that Services name: of all names, of some, or of none.
#[test]
fn chart_has_the_controller_read_only_the_config_maps_that_are_allowed() {
    let Some(helm) = newest() else { return };
    for (options, want) in [
        (&[][..], json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]}])),
        (
            &["tlsCa.configMaps={internal-ca,other}"],
            json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["internal-ca", "other"], "verbs": ["list", "watch"]}]),
        ),
        (&["tlsCa.enabled=false"], json!([])),
    ] {
        let options: Vec<_> = options.iter().flat_map(|option| ["--set".to_owned(), (*option).to_owned()]).collect();
        let all = objects(&template(&helm, &options).unwrap());
        let everywhere = all.iter().filter(|object| {
            text(object, "/kind") == "ClusterRole" && text(object, "/metadata/name").ends_with("controller")
        });
        let rules: Vec<&Value> = everywhere.flat_map(|role| role["rules"].as_array().unwrap()).collect();
        let of_config_maps: Vec<_> =
            rules.into_iter().filter(|rule| rule["resources"] == json!(["configmaps"])).collect();
        assert_eq!(json!(of_config_maps), want, "{options:?}");
    }
}

/// The certificate of DNS over TLS: the controller keeps one, and has rights on its Secret, only where you give none.
#[test]
fn chart_has_the_controller_keep_a_certificate_for_dns_only_if_asked() {
    let Some(helm) = newest() else { return };
    let rights_of = |all: &[Value]| -> Vec<Value> {
        let rights = all.iter().filter(|object| text(object, "/apiVersion").starts_with("rbac.")).cloned();
        let unlabelled = rights.map(|mut object| {
            object["metadata"].as_object_mut().unwrap().remove("labels");
            object
        });
        unlabelled.collect()
    };
    let without = rights_of(&objects(&template(&helm, &[]).unwrap()));
    for (case, options, kept, mounted) in [
        ("off", "dns.tls.enabled=false", None, None),
        ("off, with a Secret", "dns.tls.secretName=mine", None, None),
        ("your own", "dns.tls.enabled=true,dns.tls.secretName=mine", None, Some("mine")),
        ("the mesh's", "dns.tls.enabled=true", Some("maesh-dns-tls"), Some("maesh-dns-tls")),
        (
            "the mesh's, under another name",
            "dns.tls.enabled=true,fullnameOverride=net",
            Some("net-dns-tls"),
            Some("net-dns-tls"),
        ),
    ] {
        let all = objects(&template(&helm, &["--set".to_owned(), options.to_owned()]).unwrap());
        let pod = |role: &str| {
            let found = all
                .iter()
                .find(|object| text(object, "/kind") == "Deployment" && text(object, "/metadata/name").ends_with(role));
            found.unwrap_or_else(|| panic!("no {role}")).pointer("/spec/template/spec").unwrap()
        };
        let flags = pod("controller").pointer("/containers/0/args").unwrap().as_array().unwrap();
        let flag = flags.iter().find_map(|flag| flag.as_str()?.strip_prefix("--dns-certificate-secret="));
        assert_eq!(flag, kept, "{case}");
        let volumes = pod("dns")["volumes"].as_array().unwrap();
        let secrets: Vec<_> = volumes.iter().filter_map(|volume| volume.get("secret")).collect();
        assert_eq!(secrets.first().map(|secret| text(secret, "/secretName")), mounted, "{case}");
        assert!(secrets.iter().all(|secret| secret["optional"] == true), "{case}: dns waits for it");
        if case != "the mesh's" {
            let more = rights_of(&all).len() - without.len();
            assert_eq!(more, if kept.is_some() { 2 } else { 0 }, "{case}");
            continue;
        }
        let more: Vec<Value> = rights_of(&all).into_iter().filter(|right| !without.contains(right)).collect();
        let more = serde_json::to_string_pretty(&more).unwrap() + "\n";
        is_current("tests/chart/rights-dns-tls.json", &more, WRITE_FILES);
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
    let current = head + &rendered.replace("managed-by: Helm", "managed-by: kubectl");
    is_current("maesh.yaml", &current, WRITE_FILES);
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

/// `helm template | kubectl apply` applies all hooks. What tells that from an uninstallation has to be there first, and Helm
/// must not make it before the mesh is gone.
#[test]
fn chart_renders_what_tells_applied_hooks_before_the_marker() {
    for helm in both() {
        let rendered = objects(&template(&helm, &[]).unwrap());
        let of_name = |name: &str| {
            let found = rendered
                .iter()
                .position(|object| text(object, "/kind") == "ConfigMap" && text(object, "/metadata/name") == name);
            found.unwrap_or_else(|| panic!("no ConfigMap {name}"))
        };
        let (applied, marker) = (of_name("maesh-uninstall-applied"), of_name("maesh-uninstall"));
        assert!(applied < marker, "{}", helm.display());
        let hook = |at: usize| text(&rendered[at], "/metadata/annotations/helm.sh~1hook");
        assert_eq!((hook(applied), hook(marker)), ("post-delete", "pre-delete"));
        let without = objects(&template(&helm, &["--no-hooks".to_owned()]).unwrap());
        assert!(without.iter().all(|object| object.pointer("/metadata/annotations/helm.sh~1hook").is_none()));
    }
}

/// A new version of the chart alone must not replace a pod.
#[test]
fn chart_does_not_name_its_version_in_pods() {
    let Some(helm) = newest() else { return };
    let mut pods = 0;
    for object in objects(&template(&helm, &values("everything")).unwrap()) {
        let Some(template) = object.pointer("/spec/template") else { continue };
        pods += 1;
        assert!(!template.to_string().contains("helm.sh/chart"), "{}", text(&object, "/metadata/name"));
        assert!(object["metadata"].to_string().contains("helm.sh/chart"));
    }
    assert_eq!(pods, 4, "three roles and the end");
}

#[test]
fn chart_lets_a_person_change_what_a_platform_asks_for() {
    let Some(helm) = newest() else { return };
    let rendered = |options: &str| objects(&template(&helm, &["--set".to_owned(), options.to_owned()]).unwrap());
    let find = |all: &[Value], kind: &str, name: &str| {
        let found = all.iter().find(|object| text(object, "/kind") == kind && text(object, "/metadata/name") == name);
        found.cloned().unwrap_or_else(|| panic!("no {kind} {name}"))
    };
    let container = "/spec/template/spec/containers/0";
    for (options, kind, name, pointer, want) in [
        (
            "nameOverride=net",
            "DaemonSet",
            "maesh-net-proxy",
            "/spec/selector/matchLabels/app.kubernetes.io~1name",
            "maesh",
        ),
        ("fullnameOverride=net", "DaemonSet", "net-proxy", "/metadata/name", "net-proxy"),
        ("dns.serviceAccountAnnotations.a=b", "ServiceAccount", "maesh-dns", "/metadata/annotations/a", "b"),
        ("dns.serviceAnnotations.a=b", "Service", "maesh-dns", "/metadata/annotations/a", "b"),
        (
            "proxy.updateStrategy.type=OnDelete",
            "DaemonSet",
            "maesh-proxy",
            "/spec/updateStrategy",
            r#"{"type":"OnDelete"}"#,
        ),
        (
            "proxy.updateStrategy.rollingUpdate.maxSurge=10%",
            "DaemonSet",
            "maesh-proxy",
            "/spec/updateStrategy/rollingUpdate/maxSurge",
            "10%",
        ),
        ("dns.updateStrategy.type=Recreate", "Deployment", "maesh-dns", "/spec/strategy", r#"{"type":"Recreate"}"#),
        (
            "controller.livenessProbe.timeoutSeconds=9",
            "Deployment",
            "maesh-controller",
            &format!("{container}/livenessProbe/timeoutSeconds"),
            "9",
        ),
        (
            "podSecurityContext.runAsUser=null",
            "Deployment",
            "maesh-dns",
            "/spec/template/spec/securityContext",
            r#"{"fsGroup":65532,"runAsGroup":65532,"runAsNonRoot":true,"seccompProfile":{"type":"RuntimeDefault"}}"#,
        ),
        (
            "securityContext.privileged=false",
            "Job",
            "maesh-uninstall",
            &format!("{container}/securityContext/privileged"),
            "false",
        ),
        (
            "proxy.extraEnv[0].name=A,proxy.extraEnv[0].value=b",
            "DaemonSet",
            "maesh-proxy",
            &format!("{container}/env/4"),
            r#"{"name":"A","value":"b"}"#,
        ),
    ] {
        let object = find(&rendered(options), kind, name);
        let found = object.pointer(pointer).unwrap_or_else(|| panic!("{options}: nothing at {pointer} of {object}"));
        let found = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
        assert_eq!(found, want, "{options}");
    }
}

/// Every value has a line in the schema, and what the schema knows is in values.yaml.
#[test]
fn chart_documents_every_value() {
    let file = |name: &str| fs::read_to_string(chart().join(name)).unwrap();
    let values = objects(&file("values.yaml")).remove(0);
    let schema: Value = serde_json::from_str(&file("values.schema.json")).unwrap();
    documented(&schema, &schema, &values, "");
}

fn documented(root: &Value, schema: &Value, values: &Value, path: &str) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for (name, property) in properties {
        let path = format!("{path}/{name}");
        assert!(property["description"].as_str().is_some_and(|it| it.ends_with('.')), "{path} has no description");
        // What a user writes into the objects of Kubernetes is not listed in values.yaml.
        let reference = property.pointer("/allOf/0/$ref").and_then(Value::as_str);
        let found = reference.and_then(|it| root.pointer(it.trim_start_matches('#')));
        if path != "/global" && path != "/imagePullSecrets/name" {
            assert!(values.get(name).is_some(), "{path} is not in values.yaml");
        }
        match found {
            Some(shared) => described(shared, &path),
            None => documented(root, property, &values[name.as_str()], &path),
        }
    }
}

/// Definitions that several values share.
fn described(schema: &Value, path: &str) {
    let properties = schema["properties"].as_object().into_iter().flatten();
    for (name, property) in properties.chain(schema["items"]["properties"].as_object().into_iter().flatten()) {
        let path = format!("{path}/{name}");
        assert!(property["description"].as_str().is_some_and(|it| it.ends_with('.')), "{path} has no description");
        described(property, &path);
    }
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

/// The text at `pointer`, empty where there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
