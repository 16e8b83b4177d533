//! What the acknowledgements of many proxies cost the compiler: `cargo xtask bench acks`, or
//! `cargo run --release -p maesh-controller --example acks -- 1000 10000` for 1,000 proxies with 10,000 listeners.
//!
//! Prints JSON: how long one proxy's leaving and coming back take on the compiler's thread, and what all sets take.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use maesh_compiler::{
    compile::{Compiler, Config, ConnectedProxy},
    kinds::{Object, ObjectKind},
};
use maesh_config::model::{ListenerId, ListenerSet};
use maesh_controller::source::Event;
use serde_json::json;

/// Proxies that leave and come back.
const RECONNECTS: usize = 50;

/// Resident memory, in MiB.
fn memory() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4096.0 / f64::from(1 << 20)
}

/// What proxy `number` says: its names are its own copies, as they come off the wire, until the registry has seen that
/// another one says the same.
fn proxy(number: usize, listeners: usize, others: &[ConnectedProxy]) -> ConnectedProxy {
    let mut listening: ListenerSet =
        (1..=listeners).map(|port| ListenerId(format!("shared/{port}/tcp").into())).collect();
    others.iter().rev().any(|other| listening.share(&other.listening));
    ConnectedProxy {
        id: format!("proxy-{number:05}").into(),
        node: Some(format!("node-{number}").as_str().into()),
        addresses: vec![std::net::Ipv4Addr::from_bits(0x0a00_0000 + number as u32).into()],
        ready: true,
        listening,
        failed: Arc::default(),
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse().ok());
    let (proxies, listeners) = (arguments.next().unwrap_or(1_000), arguments.next().unwrap_or(10_000_usize));
    let mut compiler = Compiler::new(Config::default());
    let door = compiler.door();
    for port in 1..=listeners {
        // The range of the pool is not shared.
        let service = json!({"metadata": {"name": format!("s{port}"), "namespace": "shop"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": port}]}});
        if let Ok(object) = Object::read(ObjectKind::Service, &service, &door) {
            compiler.take(Event::Apply(object));
        }
    }
    compiler.complete_proxies();
    compiler.compile(Instant::now());
    let before = memory();
    let mut all = Vec::new();
    for number in 0..proxies {
        let new = proxy(number, listeners, &all);
        all.push(new);
    }
    let timed = |compiler: &mut Compiler, all: &[ConnectedProxy]| {
        let all = all.to_vec();
        let begun = Instant::now();
        compiler.proxies(all);
        let output = compiler.compile(Instant::now());
        (begun.elapsed(), output.change.upserts.len() + output.change.removed.len())
    };
    let (first, _) = timed(&mut compiler, &all);
    let held = memory() - before;
    let mut took = Vec::new();
    for round in 0..RECONNECTS {
        let gone = all.remove(round % proxies);
        let (left, changed) = timed(&mut compiler, &all);
        assert_eq!(changed, 1, "only the proxy's own resource");
        let back = ConnectedProxy { listening: proxy(0, listeners, &all).listening, ..gone };
        all.insert(round % proxies, back);
        let (came, changed) = timed(&mut compiler, &all);
        assert_eq!(changed, 1, "only the proxy's own resource");
        took.push(left + came);
    }
    took.sort_unstable();
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    let [median, longest] = [took[took.len() / 2], took[took.len() - 1]].map(millis);
    println!(
        "{}",
        json!({"proxies": proxies, "listeners": listeners, "firstMillis": millis(first), "reconnectMedianMillis": median,
            "reconnectLongestMillis": longest, "heldMiB": held})
    );
}
