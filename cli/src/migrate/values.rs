//! Values of the chart of Traefik Mesh, as values of our chart.

mod accepted;

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;
use maesh_compiler::diagnostic::{ObjectRef, shortened};
use maesh_controller::source::manifests::STANDARD_INPUT;
use serde_json::{Map, Value, json};

use self::accepted::{are_namespaces, are_tolerations, is_affinity, is_domain, is_mode, is_text_of_key, is_truth};
use super::{
    outcome::{Finding, NOT_KEPT, Verdict, as_comments, is_kept, report},
    patch,
};
use crate::{args::MigrateOutput, terminal};

/// Largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// What a value becomes.
enum Becomes {
    /// A value of this name, if it is one that our chart takes; what is below keeps its own.
    Same(&'static str, fn(&[&str], &Value) -> bool),
    /// A value of this name, made from it.
    Made(&'static str, fn(&Value) -> Option<Value>),
    /// Nothing of the kind is needed.
    NotNeeded(&'static str),
    /// There is nothing that does the same, and what to do.
    NotKept(&'static str, &'static str),
}
use Becomes::{Made, NotKept, NotNeeded, Same};

const PUSHED: &str = "the controller sends changes to the proxies at once";
const OWN_SIZE: &str = "it was measured for another program";
const OWN_IMAGE: &str = "it is of another program";
const NO_LIMIT: &str = "there is no limit of this kind";
const OF_TRAEFIK: (&str, &str) = ("it is for Traefik, which is not part of this mesh", "see maesh proxy --help");
const OTLP: (&str, &str) =
    ("the proxies send spans by OTLP", "set proxy.traces.endpoint to a collector that passes them on");
const SCRAPED: (&str, &str) =
    ("the mesh's metrics are scraped by Prometheus", "see docs/operations.md#metrics, or let a collector scrape them");
const NOT_INSTALLED: (&str, &str) =
    ("the chart installs no Prometheus and no Grafana", "use your own: monitoring.podMonitor, monitoring.dashboard");
const TIMEOUTS: (&str, &str) = ("timeouts are annotations of Services and Namespaces", "see docs/tasks/timeouts.md");

/// What becomes of each value, by its path or the beginning of that. The longest path counts.
const RULES: &[(&str, Becomes)] = &[
    ("acl", Made("acl.enabled", truth)),
    ("smi.enable", Made("acl.enabled", truth)),
    ("smi.deploycrds", NotNeeded("the kinds of SMI stay if they are there, and are not needed")),
    ("kubedns", Made("addressing", of_kube_dns)),
    ("clusterDomain", Same("clusterDomain", is_domain)),
    ("defaultMode", Same("defaultMode", is_mode)),
    ("mesh.defaultMode", Same("defaultMode", is_mode)),
    ("mesh.logging", Made("logs.level", level)),
    ("mesh.annotations", NotKept("there are no annotations for all objects", "see podAnnotations of the roles")),
    ("mesh.pollInterval", NotNeeded(PUSHED)),
    ("mesh.pollTimeout", NotNeeded(PUSHED)),
    ("debug", Made("logs.level", of_debug)),
    ("logLevel", Made("logs.level", level)),
    ("logFormat", Made("logs.format", format)),
    ("controller.logLevel", Made("logs.level", level)),
    ("controller.logFormat", Made("logs.format", format)),
    ("controller.logging", Made("logs.level", level)),
    ("proxy.logLevel", Made("logs.level", level)),
    ("proxy.logFormat", Made("logs.format", format)),
    ("limits", NotNeeded(NO_LIMIT)),
    ("controller.ignoreNamespaces", Same("namespaces.ignore", are_namespaces)),
    ("controller.watchNamespaces", Same("namespaces.watch", are_namespaces)),
    ("image", NotNeeded(OWN_IMAGE)),
    ("controller.image", NotNeeded(OWN_IMAGE)),
    ("proxy.image", NotNeeded(OWN_IMAGE)),
    ("image.pullSecret", Made("imagePullSecrets", secret)),
    ("controller.image.pullSecret", Made("imagePullSecrets", secret)),
    ("proxy.image.pullSecret", Made("imagePullSecrets", secret)),
    ("controller.resources", NotNeeded(OWN_SIZE)),
    ("proxy.resources", NotNeeded(OWN_SIZE)),
    ("controller.nodeSelector", Same("controller.nodeSelector", is_text_of_key)),
    ("controller.tolerations", Same("controller.tolerations", are_tolerations)),
    ("controller.affinity", Same("controller.affinity", is_affinity)),
    ("controller.podAnnotations", Same("controller.podAnnotations", is_text_of_key)),
    ("proxy.nodeSelector", Same("proxy.nodeSelector", is_text_of_key)),
    ("proxy.tolerations", Same("proxy.tolerations", are_tolerations)),
    ("proxy.podAnnotations", Same("proxy.podAnnotations", is_text_of_key)),
    (
        "proxy.annotations",
        NotKept("there are no annotations of the DaemonSet itself", "set them with kubectl annotate"),
    ),
    ("proxy.pollInterval", NotNeeded(PUSHED)),
    ("proxy.pollTimeout", NotNeeded(PUSHED)),
    ("proxy.forwardingTimeouts", NotKept(TIMEOUTS.0, TIMEOUTS.1)),
    ("proxy.env", NotKept(OF_TRAEFIK.0, OF_TRAEFIK.1)),
    ("proxy.envFrom", NotKept(OF_TRAEFIK.0, OF_TRAEFIK.1)),
    ("proxy.additionalArguments", NotKept(OF_TRAEFIK.0, OF_TRAEFIK.1)),
    ("tracing", NotKept(OTLP.0, OTLP.1)),
    ("metrics", NotKept(NOT_INSTALLED.0, NOT_INSTALLED.1)),
    ("metrics.prometheus.enabled", Same("monitoring.annotations", is_truth)),
    ("metrics.prometheus.addEntrypointsLabels", NotNeeded("the metrics have labels of their own")),
    ("metrics.prometheus.addServiceLabels", NotNeeded("the metrics have the Service as labels")),
    ("metrics.prometheus.buckets", NotNeeded("there are native histograms beside fixed buckets")),
    ("metrics.datadog", NotKept(SCRAPED.0, SCRAPED.1)),
    ("metrics.influxdb", NotKept(SCRAPED.0, SCRAPED.1)),
    ("metrics.statsd", NotKept(SCRAPED.0, SCRAPED.1)),
];

/// Reads a file, translates it and prints the values.
pub fn run(file: &Path, output: MigrateOutput) -> anyhow::Result<ExitCode> {
    let is_input = file == Path::new(STANDARD_INPUT);
    let shown = if is_input { "standard input".to_owned() } else { file.display().to_string() };
    let read = if is_input { read(io::stdin()) } else { File::open(file).and_then(read) };
    let text = read.with_context(|| format!("{shown} cannot be read"))?;
    anyhow::ensure!(text.len() as u64 <= LARGEST, "{shown} is larger than 1 MiB; name a file of values");
    anyhow::ensure!(
        !is_empty(&text),
        "{shown} is empty; see whether the command that writes it succeeded: helm get values RELEASE -o yaml"
    );
    let mut documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).with_context(|| format!("{shown} is not YAML"))?;
    anyhow::ensure!(
        documents.len() < 2,
        "{shown} has {} YAML documents, and values are one; name a file with one document",
        documents.len()
    );
    let old = documents.pop().unwrap_or_default();
    anyhow::ensure!(
        old.is_object() || old.is_null(),
        "{shown} is no map of values; see helm get values RELEASE -o yaml"
    );
    let (values, findings) = translate(&old);
    let said = report(&findings);
    match output {
        MigrateOutput::Json => terminal::json(&json!({ "values": values, "findings": findings }))?,
        MigrateOutput::Report => terminal::out(format_args!("{said}")),
        MigrateOutput::Sh | MigrateOutput::Yaml => {
            terminal::out(format_args!("# Values for the chart of this mesh.\n{}", patch::tree(&values, 0)));
            terminal::err(format_args!("{}", as_comments(&said)));
        }
    }
    Ok(if is_kept(&findings) { ExitCode::SUCCESS } else { ExitCode::from(NOT_KEPT) })
}

/// The text, and a byte more of one that is too large.
fn read(from: impl Read) -> io::Result<String> {
    let mut text = String::new();
    from.take(LARGEST + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether there is nothing in it, not even `null`, which helm prints where there are no values.
fn is_empty(text: &str) -> bool {
    text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#') || line == "---")
}

/// Our values, and what becomes of each of theirs.
fn translate(old: &Value) -> (Value, Vec<Finding>) {
    let (mut values, mut findings) = (json!({}), Vec::new());
    let mut leaves = Vec::new();
    collect(old, &mut Vec::new(), &mut leaves);
    for (path, value) in leaves {
        findings.push(one(&path, value, &mut values));
    }
    (values, findings)
}

/// All values that are no maps, with their paths.
fn collect<'a>(value: &'a Value, path: &mut Vec<&'a str>, leaves: &mut Vec<(Vec<&'a str>, &'a Value)>) {
    match value {
        Value::Null => {}
        Value::Object(entries) => {
            for (key, value) in entries {
                path.push(key);
                collect(value, path, leaves);
                path.pop();
            }
        }
        _ => leaves.push((path.clone(), value)),
    }
}

fn one(path: &[&str], value: &Value, values: &mut Value) -> Finding {
    let what = path.join(".");
    let say = |verdict, why: String| {
        Finding::new(ObjectRef::new("Values", "", "of Traefik Mesh"), what.clone(), verdict, why)
    };
    let begins = |rule: &&(&str, Becomes)| {
        rule.0.split('.').count() <= path.len() && rule.0.split('.').zip(path).all(|(a, b)| a == *b)
    };
    let Some((rule, becomes)) = RULES.iter().filter(begins).max_by_key(|(rule, _)| rule.split('.').count()) else {
        return say(Verdict::NotKept, "it is no value that is known".to_owned()).next("see the values of this chart");
    };
    let below = &path[rule.split('.').count()..];
    let (to, made) = match becomes {
        NotNeeded(why) => return say(Verdict::NotNeeded, (*why).to_owned()),
        NotKept(..) if is_off(value) => return say(Verdict::NotNeeded, "it is off".to_owned()),
        NotKept(why, next) => return say(Verdict::NotKept, (*why).to_owned()).next(*next),
        Same(to, is_value) => (to, Some(value.clone()).filter(|value| is_value(below, value))),
        Made(to, make) => (to, make(value).filter(|_| below.is_empty())),
    };
    let keys: Vec<&str> = to.split('.').chain(below.iter().copied()).collect();
    let Some(made) = made else {
        let why = format!(
            "{} is none of its values, so {} is not set and the chart's own value counts",
            shortened(&value.to_string()),
            keys.join(".")
        );
        return say(Verdict::NotKept, why)
            .next(format!("set {} yourself; charts/maesh/values.yaml says what it may be", keys.join(".")));
    };
    set(values, &keys, made.clone());
    let finding = say(Verdict::Translated, format!("now {}: {}", keys.join("."), shortened(&made.to_string())));
    match *to {
        "acl.enabled" if made == true => {
            finding.next("try it with acl.dryRun: true before; it says who would be denied")
        }
        _ => finding,
    }
}

/// Whether a value asks for nothing.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Bool(is_on) => !is_on,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// Puts a value into a tree of maps. The chattiest of several log levels counts.
fn set(values: &mut Value, keys: &[&str], made: Value) {
    let mut at = values;
    for key in keys {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[*key];
    }
    let chatty = |value: &Value| ["error", "warn", "info", "debug"].iter().position(|level| value == level);
    if at.is_null() || chatty(&made) >= chatty(at) {
        *at = made;
    }
}

fn truth(value: &Value) -> Option<Value> {
    value.as_bool().map(Value::from)
}

/// kube-dns does not say who asks, so names answer one address.
fn of_kube_dns(value: &Value) -> Option<Value> {
    value.as_bool().map(|is| if is { "auto" } else { "node" }.into())
}

fn of_debug(value: &Value) -> Option<Value> {
    value.as_bool().map(|is| if is { "debug" } else { "error" }.into())
}

fn level(value: &Value) -> Option<Value> {
    let level = match value.as_str()?.to_ascii_lowercase().as_str() {
        "panic" | "fatal" | "error" => "error",
        "warn" | "warning" => "warn",
        "info" => "info",
        "debug" => "debug",
        _ => return None,
    };
    Some(level.into())
}

fn format(value: &Value) -> Option<Value> {
    match value.as_str()?.to_ascii_lowercase().as_str() {
        "common" => Some("text".into()),
        "json" => Some("json".into()),
        _ => None,
    }
}

fn secret(value: &Value) -> Option<Value> {
    let name = value.as_str().filter(|name| !name.is_empty())?;
    Some(json!([{ "name": name }]))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends where something is missing")]
mod tests {
    use std::fs;

    use maesh_test_support::repository;

    use super::*;

    fn of(old: &str) -> (Value, Vec<(String, Verdict)>) {
        let (values, findings) = translate(&serde_saphyr::from_str(old).unwrap());
        (values, findings.into_iter().map(|finding| (finding.what, finding.verdict)).collect())
    }

    #[test]
    fn values_become_ours() {
        for (old, want, verdict) in [
            ("acl: true", json!({"acl": {"enabled": true}}), Verdict::Translated),
            ("smi: {enable: true}", json!({"acl": {"enabled": true}}), Verdict::Translated),
            ("kubedns: true", json!({"addressing": "auto"}), Verdict::Translated),
            ("clusterDomain: a.b", json!({"clusterDomain": "a.b"}), Verdict::Translated),
            ("defaultMode: tcp", json!({"defaultMode": "tcp"}), Verdict::Translated),
            ("logLevel: WARNING", json!({"logs": {"level": "warn"}}), Verdict::Translated),
            ("logLevel: loud", json!({}), Verdict::NotKept),
            ("logFormat: common", json!({"logs": {"format": "text"}}), Verdict::Translated),
            ("limits: {tcp: 25}", json!({}), Verdict::NotNeeded),
            ("controller: {ignoreNamespaces: [a]}", json!({"namespaces": {"ignore": ["a"]}}), Verdict::Translated),
            ("controller: {image: {pullSecret: x}}", json!({"imagePullSecrets": [{"name": "x"}]}), Verdict::Translated),
            ("proxy: {image: {name: traefik}}", json!({}), Verdict::NotNeeded),
            (
                "proxy: {nodeSelector: {a.b/c: d}}",
                json!({"proxy": {"nodeSelector": {"a.b/c": "d"}}}),
                Verdict::Translated,
            ),
            ("proxy: {additionalArguments: [--x]}", json!({}), Verdict::NotKept),
            ("tracing: {jaeger: {enabled: true}}", json!({}), Verdict::NotKept),
            (
                "metrics: {prometheus: {enabled: true}}",
                json!({"monitoring": {"annotations": true}}),
                Verdict::Translated,
            ),
            ("metrics: {deploy: true}", json!({}), Verdict::NotKept),
            ("metrics: {deploy: false}", json!({}), Verdict::NotNeeded),
            ("acl: [1]", json!({}), Verdict::NotKept),
            ("else: 1", json!({}), Verdict::NotKept),
        ] {
            let (values, found) = of(old);
            assert_eq!(values, want, "{old}");
            assert_eq!(found.iter().map(|(_, verdict)| *verdict).collect::<Vec<_>>(), [verdict], "{old}");
        }
        let (values, _) = of("{logLevel: error, proxy: {logLevel: debug}, controller: {logLevel: info}}");
        assert_eq!(values, json!({"logs": {"level": "debug"}}), "the chattiest");
    }

    #[test]
    fn what_the_chart_refuses_is_not_translated() {
        let schema = fs::read_to_string(repository().join("charts/maesh/values.schema.json")).unwrap();
        let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
        for (old, verdict) in [
            ("acl: \"maybe\"", Verdict::NotKept),
            ("clusterDomain: \"x y\"", Verdict::NotKept),
            ("clusterDomain: a..b", Verdict::NotKept),
            ("clusterDomain: 5", Verdict::NotKept),
            ("clusterDomain: cluster.local", Verdict::Translated),
            ("defaultMode: quic", Verdict::NotKept),
            ("mesh: {defaultMode: {a: b}}", Verdict::NotKept),
            ("defaultMode: udp", Verdict::Translated),
            ("controller: {ignoreNamespaces: legacy}", Verdict::NotKept),
            ("controller: {ignoreNamespaces: [\"a\\\"b\\n\", 5]}", Verdict::NotKept),
            ("controller: {watchNamespaces: [A]}", Verdict::NotKept),
            ("controller: {watchNamespaces: {a: b}}", Verdict::NotKept),
            ("controller: {watchNamespaces: [a, b-1]}", Verdict::Translated),
            ("controller: {nodeSelector: linux}", Verdict::NotKept),
            ("proxy: {nodeSelector: {a: 5}}", Verdict::NotKept),
            ("proxy: {podAnnotations: {a: {b: c}}}", Verdict::NotKept),
            ("proxy: {podAnnotations: {a: b}}", Verdict::Translated),
            ("proxy: {tolerations: all}", Verdict::NotKept),
            ("proxy: {tolerations: [{operator: Any}]}", Verdict::NotKept),
            (
                "proxy: {tolerations: [{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 5}]}",
                Verdict::Translated,
            ),
            ("controller: {affinity: hard}", Verdict::NotKept),
            ("controller: {affinity: {nodeAffinity: hard}}", Verdict::NotKept),
            (
                "controller: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: []}}}}",
                Verdict::Translated,
            ),
            ("metrics: {prometheus: {enabled: \"yes\"}}", Verdict::NotKept),
        ] {
            let (values, findings) = translate(&serde_saphyr::from_str(old).unwrap());
            assert!(schema.is_valid(&values), "{old}: {values}");
            let [finding] = &findings[..] else { panic!("{old}: {findings:#?}") };
            assert_eq!(finding.verdict, verdict, "{old}: {finding:#?}");
            assert_eq!(finding.verdict == Verdict::NotKept, values == json!({}), "{old}: {values}");
            if verdict == Verdict::NotKept {
                assert!(finding.why.ends_with("is not set and the chart's own value counts"), "{old}: {finding:#?}");
                assert!(finding.next.as_deref().is_some_and(|next| next.starts_with("set ")), "{old}: {finding:#?}");
            }
        }
    }

    #[test]
    fn the_chart_has_the_values() {
        let chart: Value =
            serde_saphyr::from_str(&fs::read_to_string(repository().join("charts/maesh/values.yaml")).unwrap())
                .unwrap();
        for (rule, becomes) in RULES {
            if let Same(to, _) | Made(to, _) = becomes {
                assert!(chart.pointer(&format!("/{}", to.replace('.', "/"))).is_some(), "{rule}: {to}");
            }
        }
    }
}
