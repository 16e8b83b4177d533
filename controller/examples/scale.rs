//! How long compilation takes, and how much memory the controller's state needs, at a given size:
//! `cargo run --release -p maesh-controller --example scale -- 10000 10`.

use std::time::{Duration, Instant};

use maesh_compiler::{
    compile::{Compiler, Config},
    kinds::{Object, ObjectKind, ReadContext},
};
use maesh_controller::source::Event;
use serde_json::{Value, json};

fn service(number: usize) -> Value {
    json!({
        "metadata": {"name": format!("s{number}"), "namespace": format!("n{}", number % 100), "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "x"}, "managedFields": [{"manager": "kubectl"}]},
        "spec": {"clusterIP": format!("10.{}.{}.{}", 96 + number / 65536, number / 256 % 256, number % 256),
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "admin", "port": 8081}]},
    })
}

fn address(pod: usize) -> String {
    format!("10.{}.{}.{}", 128 + pod / 65536, pod / 256 % 256, pod % 256)
}

fn slice(number: usize, endpoints: usize, seed: usize) -> Value {
    let endpoint = |i: usize| {
        let pod = number * endpoints + i;
        json!({"addresses": [address(pod)], "conditions": {"ready": !(pod + seed).is_multiple_of(10), "serving": true, "terminating": false},
            "nodeName": format!("node-{}", pod % 500), "zone": "a", "targetRef": {"kind": "Pod", "name": format!("p{pod}")}})
    };
    json!({
        "metadata": {"name": format!("s{number}-abcde"), "namespace": format!("n{}", number % 100),
            "labels": {"kubernetes.io/service-name": format!("s{number}")}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}, {"name": "admin", "port": 8081}],
        "endpoints": (0..endpoints).map(endpoint).collect::<Vec<_>>(),
    })
}

fn pod(number: usize) -> Value {
    json!({
        "metadata": {"name": format!("p{number}"), "namespace": format!("n{}", number % 100)},
        "spec": {"nodeName": format!("node-{}", number % 500), "serviceAccountName": format!("sa{}", number % 300)},
        "status": {"podIP": address(number), "phase": "Running"},
    })
}

/// Resident memory, in MiB.
fn memory() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4096.0 / f64::from(1 << 20)
}

fn take(compiler: &mut Compiler, door: &ReadContext, kind: ObjectKind, value: &Value) {
    if let Ok(object) = Object::read(kind, value, door) {
        compiler.take(Event::Apply(object));
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().unwrap_or(0));
    let services: usize = arguments.next().unwrap_or(10_000);
    let each: usize = arguments.next().unwrap_or(10);
    let mut compiler = Compiler::new(Config::default());
    let door = compiler.door();
    println!("at start: {:.0} MiB", memory());
    let begun = Instant::now();
    for number in 0..services {
        take(&mut compiler, &door, ObjectKind::Service, &service(number));
        take(&mut compiler, &door, ObjectKind::EndpointSlice, &slice(number, each, 0));
    }
    for number in 0..services * each {
        take(&mut compiler, &door, ObjectKind::Pod, &pod(number));
    }
    println!(
        "{services} Services, {} endpoints and pods read: {:?}, {:.0} MiB",
        services * each,
        begun.elapsed(),
        memory()
    );
    let begun = Instant::now();
    let output = compiler.compile(Instant::now());
    println!(
        "first compilation: {} resources in {:?}, {:.0} MiB",
        output.change.upserts.len(),
        begun.elapsed(),
        memory()
    );
    drop(output);
    println!("after it: {:.0} MiB", memory());

    let mut times = Vec::new();
    for round in 0..1000 {
        let number = round * 7 % services.max(1);
        let Ok(object) = Object::read(ObjectKind::EndpointSlice, &slice(number, each, round + 1), &door) else {
            continue;
        };
        let begun = Instant::now();
        compiler.take(Event::Apply(object));
        let output = compiler.compile(Instant::now());
        times.push(begun.elapsed());
        assert!(output.change.upserts.len() <= 1, "one slice, one resource");
    }
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(Duration::ZERO);
    println!("one slice: p50 {:?}, p99 {:?}", at(0.5), at(0.99));
}
