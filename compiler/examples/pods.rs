//! What a changed pod costs the compiler where access control is on: `cargo xtask bench pods`, or
//! `cargo run --release -p maesh-compiler --example pods -- 10000 1000` for 10,000 Services and 1,000 TrafficTargets.
//!
//! Prints JSON: how long a change takes on the compiler's thread, and how many resources it changes. That neither depends on the
//! number of Services and targets is counted by a test (`compile/tests/scale.rs`).

use std::time::{Duration, Instant};

use maesh_compiler::{
    compile::{Compiler, Config},
    event::Event,
    kinds::{Object, ObjectId, ObjectKind, ReadContext},
};
use maesh_config::model::AccessControl;
use serde_json::{Value, json};

/// Changes of each sort.
const CHANGES: usize = 200;
/// Targets of the ServiceAccount of which there are many.
const OF_BUSY: usize = 100;

struct Cluster {
    compiler: Compiler,
    door: ReadContext,
}

fn namespace_of(i: usize) -> String {
    format!("n{}", i % 10)
}

fn address_of(i: usize) -> String {
    format!("10.{}.{}.{}", i / 60_000 + 1, i / 250 % 240, i % 250 + 1)
}

fn account_of(i: usize) -> String {
    if i == 0 { "busy".into() } else { format!("a{i}") }
}

fn pod(i: usize, address: &str, ready: bool) -> Value {
    let ready = if ready { "True" } else { "False" };
    json!({"metadata": {"namespace": namespace_of(i), "name": format!("p{i}")},
        "spec": {"serviceAccountName": account_of(i), "nodeName": "n1"},
        "status": {"podIP": address, "phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}})
}

fn target(name: &str, namespace: &str, destination: &str) -> Value {
    let source = json!({"kind": "ServiceAccount", "name": "source", "namespace": "n0"});
    json!({"apiVersion": "access.smi-spec.io/v1alpha3", "metadata": {"namespace": namespace, "name": name}, "spec": {
        "destination": {"kind": "ServiceAccount", "name": destination}, "sources": [source],
        "rules": [{"kind": "HTTPRouteGroup", "name": "reads"}]}})
}

impl Cluster {
    fn new(services: usize, targets: usize) -> Self {
        let compiler = Compiler::new(Config { access_control: AccessControl::On, ..Config::default() });
        let mut this = Self { door: compiler.door(), compiler };
        this.compiler.complete_proxies();
        for i in 0..services {
            let (namespace, name) = (namespace_of(i), format!("s{i}"));
            this.take(
                ObjectKind::Service,
                &json!({"metadata": {"namespace": namespace, "name": name},
                    "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}}),
            );
            this.take(
                ObjectKind::EndpointSlice,
                &json!({"metadata": {"namespace": namespace, "name": name, "labels": {"kubernetes.io/service-name": name}},
                    "ports": [{"port": 8080}], "endpoints": [{"addresses": [address_of(i)]}]}),
            );
            this.take(ObjectKind::Pod, &pod(i, &address_of(i), true));
        }
        for namespace in 0..10 {
            this.take(
                ObjectKind::HttpRouteGroup,
                &json!({"metadata": {"namespace": namespace_of(namespace), "name": "reads"},
                    "spec": {"matches": [{"methods": ["GET"], "pathRegex": "/api"}]}}),
            );
        }
        for i in 0..targets {
            let value = match i {
                0..OF_BUSY => target(&format!("busy-{i}"), "n0", "busy"),
                _ => target(&format!("t{i}"), &namespace_of(i), &account_of(i)),
            };
            this.take(ObjectKind::TrafficTarget, &value);
        }
        this.compiler.compile(Instant::now());
        this
    }

    fn take(&mut self, kind: ObjectKind, value: &Value) {
        // Every object here can be read.
        if let Ok(object) = Object::read(kind, value, &self.door) {
            self.compiler.take(Event::Apply(object));
        }
    }

    /// Median and longest time of changes, each made by `change`, and resources that one of them changes.
    fn measure(&mut self, mut change: impl FnMut(&mut Self, usize)) -> Value {
        let (mut times, mut resources) = (Vec::new(), 0);
        for number in 0..CHANGES {
            let begun = Instant::now();
            change(self, number);
            let output = self.compiler.compile(begun);
            times.push(begun.elapsed());
            resources = resources.max(output.change.upserts.len() + output.change.removed.len());
        }
        times.sort_unstable();
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        json!({"medianMicros": micros(times[CHANGES / 2]), "longestMicros": micros(times[CHANGES - 1]), "resources": resources})
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse().ok());
    let (services, targets) = (arguments.next().unwrap_or(10_000), arguments.next().unwrap_or(1_000));
    let mut cluster = Cluster::new(services, targets);
    let toggled = |i: usize| {
        move |it: &mut Cluster, number: usize| {
            it.take(ObjectKind::Pod, &pod(i, &address_of(i), !number.is_multiple_of(2)));
        }
    };
    let moved = |i: usize| {
        move |it: &mut Cluster, number: usize| {
            let address = if number.is_multiple_of(2) { "10.250.0.1".to_owned() } else { address_of(i) };
            it.take(ObjectKind::Pod, &pod(i, &address, true));
        }
    };
    let gone = |i: usize| {
        move |it: &mut Cluster, number: usize| match number % 2 {
            0 => it.compiler.take(Event::Delete(ObjectId::new(ObjectKind::Pod, namespace_of(i), format!("p{i}")))),
            _ => it.take(ObjectKind::Pod, &pod(i, &address_of(i), true)),
        }
    };
    let cases = json!([
        {"case": "is ready or not, an endpoint", "cost": cluster.measure(toggled(OF_BUSY + 1))},
        {"case": "has another address, an endpoint", "cost": cluster.measure(moved(OF_BUSY + 1))},
        {"case": "is gone or new, an endpoint", "cost": cluster.measure(gone(OF_BUSY + 1))},
        {"case": "has another address, no endpoint", "cost": cluster.measure(moved(services + 5))},
        {"case": "has another address, an endpoint of a ServiceAccount with 100 TrafficTargets", "cost": cluster.measure(moved(0))},
    ]);
    println!("{cases}");
}
