use std::time::Duration;

use maesh_config::model::{Balance, Scheme};

use super::*;

fn policy() -> BackendPolicy {
    BackendPolicy {
        scheme: Scheme::Http,
        balance: Balance::P2c,
        local_only: false,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: None,
        concurrency: 1024,
    }
}

fn facts(last: u8, zones: &[&str]) -> model::Endpoint {
    model::Endpoint {
        address: SocketAddr::from(([10, 0, 0, last], 80)),
        ready: true,
        serving: true,
        terminating: false,
        node: None,
        for_zones: zones.iter().map(|zone| Arc::from(*zone)).collect(),
        for_nodes: Vec::new(),
    }
}

fn terminating(last: u8) -> model::Endpoint {
    model::Endpoint { ready: false, terminating: true, ..facts(last, &[]) }
}

fn place() -> Place {
    Place { zone: Some("a".into()), node: None }
}

#[test]
fn which_endpoints_are_usable_and_whether_hints_hold() {
    for (case, endpoints, usable, hinted) in [
        ("none", vec![], &[][..], false),
        ("ready ones", vec![facts(1, &[]), facts(2, &[])], &[1, 2], false),
        ("terminating beside ready", vec![facts(1, &[]), terminating(2)], &[1], false),
        ("terminating alone", vec![terminating(2)], &[2], false),
        ("hints for us", vec![facts(1, &["a"]), facts(2, &["b"])], &[1, 2], true),
        ("one without hints", vec![facts(1, &["a"]), facts(2, &[])], &[1, 2], false),
        ("hints for others only", vec![facts(1, &["b"]), facts(2, &["c"])], &[1, 2], false),
        ("hints of one that is not usable do not matter", vec![facts(1, &["a"]), terminating(2)], &[1], true),
    ] {
        let backend = BackendPort::new(ServiceName::new("ns", "web"), policy());
        backend.replace(policy(), &endpoints, &place(), 1);
        let upstreams = backend.upstreams.load();
        let got: Vec<u8> = upstreams.usable.iter().map(|one| one.endpoint.address.to_string()).map(last).collect();
        assert_eq!((&got[..], upstreams.hinted), (usable, hinted), "{case}");
    }
}

fn last(address: String) -> u8 {
    let host = address.split(':').next().expect("an address");
    host.rsplit('.').next().and_then(|last| last.parse().ok()).expect("IPv4")
}

#[test]
fn an_endpoint_keeps_its_identity_while_its_address_stays() {
    let backend = Arc::new(BackendPort::new(ServiceName::new("ns", "web"), policy()));
    backend.replace(policy(), &[facts(1, &[]), facts(2, &[])], &place(), 1);
    let first = |of: &BackendPort| of.upstreams.load().usable.first().map(|one| one.endpoint.clone());
    let one = first(&backend).expect("two are there");
    let mut in_flight = InFlight::enter(&backend, 1).expect("room for one");
    assert!(InFlight::enter(&backend, 1).is_none(), "and no other");
    in_flight.on(one.clone());

    backend.replace(policy(), &[facts(1, &[])], &place(), 1);
    assert!(Arc::ptr_eq(&one, &first(&backend).expect("one is there")));
    assert!(!one.is_gone());

    let busy = backend.replace(policy(), &[terminating(1), facts(2, &[])], &place(), 1);
    assert!(one.is_gone(), "it is not usable any more");
    assert_eq!(busy.len(), 1, "and a request is in flight on it");

    backend.replace(policy(), &[facts(1, &[])], &place(), 1);
    assert!(Arc::ptr_eq(&one, &first(&backend).expect("it is back")));
    assert!(!one.is_gone(), "as the same");
    drop(in_flight);
    assert!(InFlight::enter(&backend, 1).is_some());
    assert!(backend.replace(policy(), &[], &place(), 1).is_empty(), "nothing is in flight on what left");
    assert!(one.is_gone());
}
