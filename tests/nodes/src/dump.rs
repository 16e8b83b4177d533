//! Everything that is in a cluster, for comparing what it was with what it is.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::kube::Kube;

/// Kinds that come and go by themselves.
const KINDS: &[&str] = &["events", "events.events.k8s.io", "leases.coordination.k8s.io"];

/// Fields that the API server or the nodes write by themselves; the first of a pair is the kind, where it matters.
const FIELDS: &[(&str, &str)] = &[
    ("", "/status"),
    ("", "/metadata/managedFields"),
    ("", "/metadata/resourceVersion"),
    ("", "/metadata/generation"),
];

/// Every object by `Kind.group namespace/name`, without what changes by itself.
pub type Objects = BTreeMap<String, Value>;

/// Reads every object of every kind that the cluster can list.
///
/// # Errors
/// When a kind cannot be read.
pub fn objects(kube: &Kube) -> Result<Objects> {
    let kinds = kube.run("api-resources --verbs=list --output=name")?;
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !KINDS.contains(kind)).collect();
    let mut all = Objects::new();
    for mut object in kube.list(&format!("{} --all-namespaces --show-managed-fields=false", kinds.join(",")))? {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, version) = (text("/kind"), text("/apiVersion"));
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let id = format!("{kind}.{group} {}/{}", text("/metadata/namespace"), text("/metadata/name"));
        for (of, pointer) in FIELDS {
            if of.is_empty() || *of == kind {
                remove(&mut object, pointer);
            }
        }
        all.insert(id, object);
    }
    anyhow::ensure!(all.len() > 50, "only {} objects were found", all.len());
    Ok(all)
}

fn remove(object: &mut Value, pointer: &str) {
    if let Some((parent, field)) = pointer.rsplit_once('/')
        && let Some(Value::Object(fields)) = object.pointer_mut(parent)
    {
        fields.remove(field);
    }
}

/// What differs between two dumps, one line each, sorted: `+ ID`, `- ID`, or `~ ID: POINTER`.
pub fn differences(before: &Objects, after: &Objects) -> Vec<String> {
    let mut lines: Vec<String> =
        before.keys().filter(|id| !after.contains_key(*id)).map(|id| format!("- {id}")).collect();
    for (id, now) in after {
        match before.get(id) {
            None => lines.push(format!("+ {id}")),
            Some(then) => compare(then, now, String::new(), &mut |pointer| lines.push(format!("~ {id}: {pointer}"))),
        }
    }
    lines.sort();
    lines
}

fn compare(then: &Value, now: &Value, at: String, differs: &mut dyn FnMut(&str)) {
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => {
            let mut keys: Vec<&String> = then.keys().chain(now.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                let (then, now) = (then.get(key), now.get(key));
                let (then, now) = (then.unwrap_or(&Value::Null), now.unwrap_or(&Value::Null));
                compare(then, now, format!("{at}/{key}"), differs);
            }
        }
        (then, now) if then != now => differs(&at),
        _ => {}
    }
}

/// Names and uids of all pods with how often their containers restarted.
///
/// # Errors
/// When pods cannot be read.
pub fn pods(kube: &Kube) -> Result<BTreeMap<String, (String, u64)>> {
    let mut all = BTreeMap::new();
    for pod in kube.list("pods --all-namespaces")? {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let containers = pod["status"]["containerStatuses"].as_array().context("a pod without containers")?;
        let restarts = containers.iter().filter_map(|status| status["restartCount"].as_u64()).sum();
        let name = format!("{}/{}", text("/metadata/namespace"), text("/metadata/name"));
        all.insert(name, (text("/metadata/uid"), restarts));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_name_the_field() {
        let dump = |objects: Value| -> Objects { serde_json::from_value(objects).unwrap() };
        let before = dump(json!({ "a": { "x": 1, "y": { "z": [1] } }, "b": {}, "same": { "q": 1 } }));
        let after = dump(json!({ "a": { "x": 1, "y": { "z": [2] }, "w": 1 }, "c": {}, "same": { "q": 1 } }));
        assert_eq!(differences(&before, &after), ["+ c", "- b", "~ a: /w", "~ a: /y/z"]);
    }
}
