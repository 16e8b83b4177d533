//! What one change costs in a large cluster with access control: counted, and the same as in a small one.

use std::ops::Range;

use serde_json::{Value, json};

use super::*;
use crate::kinds::ObjectId;

/// How many Services there are, each with a slice and a pod; there is a TrafficTarget for every tenth.
const SMALL: usize = 100;
const LARGE: usize = 10_000;

/// Further targets whose destination is the ServiceAccount `busy`, in both.
const OF_BUSY: usize = 50;

/// What was done for a change.
#[derive(Debug, PartialEq, Eq)]
struct Work {
    /// Units that ran, by kind.
    units: Vec<String>,
    facts: usize,
    /// Resources that changed.
    resources: Vec<String>,
}

struct Large {
    compiler: Compiler,
    door: ReadContext,
    now: Instant,
}

fn namespace_of(i: usize) -> String {
    format!("n{}", i % 10)
}

fn address_of(i: usize) -> String {
    format!("10.{}.{}.{}", i / 60_000 + 1, i / 250 % 240, i % 250 + 1)
}

/// Whom the pod of Service `i` runs as: the first ones as `busy`, further ones as `source`, others as themselves.
fn account_of(i: usize) -> String {
    match i {
        0..10 => "busy".into(),
        10..20 => "source".into(),
        _ => format!("a{i}"),
    }
}

fn pod(i: usize, more: &Value) -> Value {
    let mut pod = json!({"kind": "Pod",
        "metadata": {"namespace": namespace_of(i), "name": format!("p{i}"), "labels": {"app": format!("s{i}")}},
        "spec": {"serviceAccountName": account_of(i), "nodeName": "n1"},
        "status": {"podIP": address_of(i), "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    merge(&mut pod, more);
    pod
}

fn merge(into: &mut Value, more: &Value) {
    match more {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| merge(&mut into[name], value)),
        other => *into = other.clone(),
    }
}

fn service(i: usize) -> [Value; 2] {
    let (namespace, name) = (namespace_of(i), format!("s{i}"));
    [
        json!({"kind": "Service", "metadata": {"namespace": namespace, "name": name},
            "spec": {"clusterIP": "10.0.0.1", "selector": {"app": name}, "ports": [{"port": 80}, {"port": 443}]}}),
        json!({"kind": "EndpointSlice", "metadata": {"namespace": namespace, "name": format!("{name}-x"),
            "labels": {"kubernetes.io/service-name": name}}, "ports": [{"port": 8080}],
            "endpoints": [{"addresses": [address_of(i)], "conditions": {"ready": true}}]}),
    ]
}

/// A target for the pod of the tenth Service, the twentieth and so on. Every target has `source` of n0 among its sources.
fn target(number: usize) -> [Value; 2] {
    target_for(&format!("t{number}"), &namespace_of(number * 10), &account_of(number * 10))
}

fn target_for(name: &str, namespace: &str, destination: &str) -> [Value; 2] {
    let metadata = json!({"namespace": namespace, "name": name});
    let source = |name: &str, namespace: &str| json!({"kind": "ServiceAccount", "name": name, "namespace": namespace});
    [
        json!({"kind": "HTTPRouteGroup", "metadata": metadata, "spec": {"matches": [{"methods": ["GET"]}]}}),
        json!({"kind": "TrafficTarget", "apiVersion": "access.smi-spec.io/v1alpha3", "metadata": metadata, "spec": {
            "destination": {"kind": "ServiceAccount", "name": destination},
            "rules": [{"kind": "HTTPRouteGroup", "name": name}],
            "sources": [source("source", "n0"), source(&format!("of-{name}"), "n1")]}}),
    ]
}

impl Large {
    fn of(services: Range<usize>) -> Self {
        let compiler = Compiler::new(Config { access_control: model::AccessControl::On, ..Config::default() });
        let mut this = Self { door: compiler.door(), compiler, now: Instant::now() };
        this.compiler.complete_proxies();
        let targets = services.len() / 10;
        let objects = services.flat_map(|i| service(i).into_iter().chain([pod(i, &json!({}))]));
        let of_busy = (0..OF_BUSY).flat_map(|i| target_for(&format!("busy-{i}"), "n0", "busy"));
        objects.chain((2..targets).flat_map(target)).chain(of_busy).for_each(|value| this.take(&value));
        this.work();
        this
    }

    fn take(&mut self, value: &Value) {
        let kind = ObjectKind::ALL.into_iter().find(|kind| kind.as_str() == value["kind"]).expect("a kind");
        self.compiler.take(Event::Apply(Object::read(kind, value, &self.door).expect("an object")));
    }

    fn work(&mut self) -> Work {
        let (mut units, mut facts) = (Vec::new(), 0);
        while let Some(unit) = self.compiler.graph.pop() {
            facts += self.compiler.run(&unit, self.now);
            units.push(units::unit_name(&unit));
        }
        let change = self.compiler.out.take().change;
        let there = change.upserts.iter().map(Resource::key).chain(change.removed);
        Work { units, facts, resources: there.map(|key| format!("{key:?}")).collect() }
    }

    fn apply(&mut self, value: &Value) -> Work {
        self.take(value);
        self.work()
    }

    fn delete(&mut self, i: usize) -> Work {
        self.compiler.take(Event::Delete(ObjectId::new(ObjectKind::Pod, namespace_of(i), format!("p{i}"))));
        self.work()
    }
}

#[test]
fn a_changed_pod_costs_the_same_in_a_small_and_in_a_large_cluster() {
    let mut clusters = [Large::of(0..SMALL), Large::of(0..LARGE)];
    let moved = "10.250.0.1";
    // Whose pod it is, and how many units its changes may need at most, and facts.
    for (whose, i, most) in [
        ("a ServiceAccount that many targets name as their destination", 0, 200),
        ("one that all targets name as a source", 10, 20),
        ("one that a target names as its destination", 50, 20),
        ("one that no target names", 55, 20),
        ("no endpoint of anything", SMALL + LARGE + 5, 20),
    ] {
        let changes = [
            ("comes, or stays as it is", json!({})),
            ("has another label", json!({"metadata": {"labels": {"app": "other"}}})),
            ("is not ready", json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}})),
            ("runs as another one", json!({"spec": {"serviceAccountName": "another"}})),
            ("has another address", json!({"status": {"podIP": moved}})),
            ("has ended", json!({"status": {"phase": "Succeeded"}})),
            ("runs again", json!({})),
        ];
        let mut compare = |what: &str, change: &mut dyn FnMut(&mut Large) -> Work| {
            let [small, large] = clusters.each_mut().map(change);
            assert_eq!(small, large, "a pod of {whose} {what}");
            assert!(large.units.len() <= 8 && large.facts <= most, "a pod of {whose} {what}: {large:#?}");
        };
        for (what, change) in &changes {
            compare(what, &mut |cluster| cluster.apply(&pod(i, change)));
        }
        compare("is gone", &mut |cluster| cluster.delete(i));
        compare("is new", &mut |cluster| cluster.apply(&pod(i, &json!({}))));
    }
}

/// The other side: what the change of a target costs depends on the endpoints of its ServiceAccount alone.
#[test]
fn a_changed_target_costs_the_same_in_a_small_and_in_a_large_cluster() {
    let mut clusters = [Large::of(0..SMALL), Large::of(0..LARGE)];
    for [group, target] in [target_for("busy-7", "n0", "busy"), target(5)] {
        let mut group = group;
        merge(&mut group, &json!({"spec": {"matches": [{"methods": ["PUT"]}]}}));
        for object in [&group, &target] {
            let [small, large] = clusters.each_mut().map(|cluster| cluster.apply(object));
            assert_eq!(small, large, "{object}");
        }
    }
}
