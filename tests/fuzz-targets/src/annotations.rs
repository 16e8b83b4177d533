//! Annotations that people write on Services and Namespaces: whatever they are, they are judged one by one, what is said of
//! them can be shown to anybody, and no other Service is served differently for them.
//!
//! A line for each: `s` for the Service or `n` for its Namespace, in capitals with the prefix of Traefik Mesh; then the name,
//! `=` and the value.

mod values;

use std::collections::BTreeMap;

use maesh_compiler::{
    diagnostic::{Diagnostic, Reason, escaped, shortened},
    event::Event,
    kinds::{OLD_PREFIX, Object, PREFIX},
    plan::annotations::all,
};
use maesh_config::{Key, Kind, ServiceName};
use serde_json::json;

use crate::{
    objects::{Said, apply, compiler, others, read, service, slice},
    wire_form,
};

/// Annotations of an object, by their keys.
type Annotations = BTreeMap<String, String>;

/// Longest message, besides what the annotation's name takes in it: its characters may be escaped.
const LONGEST: usize = 8 << 10;

pub(crate) fn run(bytes: &[u8]) {
    let [on_service, on_namespace] = written(crate::text(bytes));
    let namespace = read(&json!({"kind": "Namespace", "metadata": {"name": "test", "annotations": on_namespace}}));
    let fuzzed = read(&service("test", "fuzzed", json!(on_service)));
    let said = beside_others(&namespace, &fuzzed);
    said.resources.values().for_each(wire_form::survives);
    for found in &said.diagnostics {
        is_presentable(found, &on_service, &on_namespace);
    }
    for key in on_service.keys().filter(|key| !is_declared(key)) {
        let is_it = |found: &&Diagnostic| found.field.as_deref() == Some(&*format!("metadata.annotations[{key}]"));
        let found = said.diagnostics.iter().find(is_it).unwrap_or_else(|| panic!("nothing is said of {key:?}"));
        assert_eq!(found.reason, Reason::UnknownAnnotation, "{found}");
    }
}

/// The annotations of the Service and of its Namespace.
fn written(text: &str) -> [Annotations; 2] {
    let mut all = [Annotations::new(), Annotations::new()];
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let mut key = key.chars();
        let (object, prefix) = match key.next() {
            Some('s') => (0, PREFIX),
            Some('S') => (0, OLD_PREFIX),
            Some('n') => (1, PREFIX),
            Some('N') => (1, OLD_PREFIX),
            _ => continue,
        };
        all[object].insert(format!("{prefix}{}", key.as_str()), value.to_owned());
        values::survive(value.trim());
    }
    all
}

/// Whether there is an annotation of this name.
fn is_declared(key: &str) -> bool {
    let rest = key.strip_prefix(PREFIX).or_else(|| key.strip_prefix(OLD_PREFIX)).unwrap_or(key);
    let name = rest.rsplit('.').next().unwrap_or(rest);
    all().any(|about| about.name == name)
}

/// What there is of a Service.
fn keys(namespace: &str, name: &str) -> [Key; 3] {
    let name = ServiceName::new(namespace, name);
    [Kind::Name, Kind::Service, Kind::Endpoints].map(|kind| Key::of_service(kind, &name))
}

/// The Service comes to others, and goes. Returns what is said while it is there.
fn beside_others(namespace: &Object, fuzzed: &Object) -> Said {
    let endpoints = read(&slice("test", "fuzzed", "10.9.0.3"));
    let (mut compiler, mut said) = (compiler(), Said::default());
    apply(&mut compiler, others().into_iter().chain([namespace.clone(), endpoints.clone()]), &mut said);
    let before = said.clone();
    apply(&mut compiler, [fuzzed.clone()], &mut said);
    for key in keys("shop", "web").iter().chain(&keys("test", "beside")) {
        assert!(before.resources.contains_key(key), "{key:?}: what its Namespace says took it away");
        assert_eq!(said.resources.get(key), before.resources.get(key), "{key:?} is another one's");
    }
    for key in keys("test", "fuzzed") {
        assert!(said.resources.contains_key(&key), "{key:?}: what is written on it took it away");
    }
    assert!(said.diagnostics.is_superset(&before.diagnostics), "what is wrong elsewhere still is");
    let present = said.clone();
    compiler.take(Event::Delete(fuzzed.id()));
    apply(&mut compiler, [], &mut said);
    assert_eq!(said, before, "without it, everything is as it was");
    let mut at_once = Said::default();
    let objects = [fuzzed.clone(), endpoints, namespace.clone()].into_iter().chain(others().into_iter().rev());
    apply(&mut crate::objects::compiler(), objects, &mut at_once);
    assert_eq!(at_once, present, "the order does not matter");
    present
}

/// A diagnostic is about what was written, fits on a screen, and changes nothing but what it says there.
fn is_presentable(found: &Diagnostic, on_service: &Annotations, on_namespace: &Annotations) {
    assert_eq!(escaped(&found.message), *found.message, "{found:?}");
    let of_annotations =
        [Reason::InvalidAnnotation, Reason::UnknownAnnotation, Reason::UnsupportedAnnotation].contains(&found.reason);
    let field = found.field.as_deref().unwrap_or_default();
    let Some(key) = field.strip_prefix("metadata.annotations[").and_then(|rest| rest.strip_suffix(']')) else {
        assert!(!of_annotations && found.message.len() <= LONGEST, "{found:?}");
        return;
    };
    assert!(found.message.len() <= LONGEST + 12 * key.len(), "{} bytes: {found:?}", found.message.len());
    assert!(found.message.contains(&*escaped(key)), "it does not name {key:?}: {found:?}");
    let written = match (&*found.object.kind, &*found.object.name) {
        ("Service", "fuzzed") => on_service.get(key),
        ("Namespace", "test") => on_namespace.get(key),
        _ => return,
    };
    let written = written.unwrap_or_else(|| panic!("{key:?} was not written: {found:?}"));
    let is_written = |value: &str| value == shortened(written) || value == shortened(written.trim());
    assert!(found.value.as_deref().is_none_or(is_written), "{found:?}");
}
