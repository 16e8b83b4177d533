use maesh_config::model::EndpointHints;

use super::*;
use crate::{
    access::{AccessFacts, Admitted},
    balance::{Affinity, pick},
    fixtures,
};

fn policy() -> Arc<BackendPolicy> {
    fixtures::policy(1024)
}

fn facts(last: u8, zones: &[&str]) -> model::Endpoint {
    let zones = zones.iter().map(|zone| Arc::from(*zone)).collect();
    model::Endpoint { hints: EndpointHints::new(zones, Vec::new()), ..fixtures::endpoint(last, 80) }
}

fn terminating(last: u8) -> model::Endpoint {
    model::Endpoint { ready: false, terminating: true, ..facts(last, &[]) }
}

/// Ready, and hinted to this zone and node.
fn hinted(last: u8, zone: &str, node: &str) -> model::Endpoint {
    let hints = EndpointHints::new(vec![zone.into()], vec![node.into()]);
    model::Endpoint { hints, ..fixtures::endpoint(last, 80) }
}

fn place() -> Locality {
    Locality { zone: Some("a".into()), node: Some("n1".into()) }
}

#[test]
fn which_endpoints_are_usable_and_whether_hints_hold() {
    let terminating_here =
        || model::Endpoint { hints: EndpointHints::new(vec!["a".into()], Vec::new()), ..terminating(2) };
    for (case, endpoints, usable, near) in [
        ("none", vec![], &[][..], &[][..]),
        ("ready ones", vec![facts(1, &[]), facts(2, &[])], &[1, 2], &[]),
        ("terminating beside ready", vec![facts(1, &[]), terminating(2)], &[1], &[]),
        ("terminating alone", vec![terminating(2)], &[2], &[]),
        ("terminating alone, whose hints count for nothing", vec![terminating_here()], &[2], &[]),
        ("hints for us", vec![facts(1, &["a"]), facts(2, &["b"])], &[1, 2], &[1]),
        ("one without hints", vec![facts(1, &["a"]), facts(2, &[])], &[1, 2], &[]),
        ("hints for others only", vec![facts(1, &["b"]), facts(2, &["c"])], &[1, 2], &[]),
        ("hints of one that is not usable do not matter", vec![facts(1, &["a"]), terminating(2)], &[1], &[1]),
        ("our node before our zone", vec![hinted(1, "a", "n1"), hinted(2, "a", "n2")], &[1, 2], &[1]),
        ("our zone where no node is ours", vec![hinted(1, "a", "n3"), hinted(2, "b", "n2")], &[1, 2], &[1]),
        (
            "one that is for no node",
            vec![hinted(1, "a", "n1"), facts(2, &["a"]), facts(3, &["b"])],
            &[1, 2, 3],
            &[1, 2],
        ),
    ] {
        let backend = BackendPort::new(ServiceName::new("ns", "web"), policy());
        backend.replace(policy(), (&endpoints, &AccessFacts::default()), &place(), 0);
        let upstreams = backend.upstreams.load();
        let numbers = |of: &mut dyn Iterator<Item = &Candidate>| -> Vec<u8> {
            of.map(|one| one.endpoint.address.to_string()).map(last).collect()
        };
        assert_eq!(numbers(&mut upstreams.usable.iter()), usable, "{case}");
        assert_eq!(numbers(&mut upstreams.usable.iter().filter(|one| one.near)), near, "{case}");
        assert_eq!(upstreams.hinted, !near.is_empty(), "{case}");
    }
}

#[test]
fn others_help_where_many_near_endpoints_are_ejected() {
    let backend = BackendPort::new(ServiceName::new("ns", "web"), policy());
    let endpoints = [(1, "a"), (2, "a"), (3, "b"), (4, "b")].map(|(number, zone)| facts(number, &[zone]));
    backend.replace(policy(), (&endpoints, &AccessFacts::default()), &place(), 0);
    let upstreams = backend.upstreams.load();
    let far = |affinity: Affinity| {
        let draws = (1..=10_000_u64).map(|n| n.wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(17));
        let picked = draws.filter_map(|draw| {
            pick(&upstreams, [10, 9, 9, 9].into(), affinity, || None, (&[], &Admitted::All), 1, draw)
        });
        picked.filter(|endpoint| last(endpoint.address.to_string()) > 2).count() as f64 / 10_000.0
    };
    assert!(far(Affinity::None) < 1e-9, "all are well");
    let near = &upstreams.usable[0].endpoint;
    upstreams.ejected.note(near.ejection.eject(0));
    let share = far(Affinity::None);
    assert!((share - 2.0 / 7.0).abs() < 0.02, "half of what is near is left: {share}");
    assert!(far(Affinity::Endpoint(7)) < 1e-9, "who has a place does not leave");
    upstreams.ejected.note(upstreams.usable[1].endpoint.ejection.eject(0));
    assert!((far(Affinity::None) - 1.0).abs() < 1e-9, "nothing near is left");
}

fn last(address: String) -> u8 {
    let host = address.split(':').next().expect("an address");
    host.rsplit('.').next().and_then(|last| last.parse().ok()).expect("IPv4")
}

#[test]
fn an_endpoint_keeps_its_identity_while_its_address_stays() {
    let backend = Arc::new(BackendPort::new(ServiceName::new("ns", "web"), policy()));
    backend.replace(policy(), (&[facts(1, &[]), facts(2, &[])], &AccessFacts::default()), &place(), 0);
    let first = |of: &BackendPort| of.upstreams.load().usable.first().map(|one| one.endpoint.clone());
    let one = first(&backend).expect("two are there");
    let mut in_flight = InFlight::enter(&backend, 1).expect("room for one");
    assert!(InFlight::enter(&backend, 1).is_none(), "and no other");
    in_flight.on(one.clone());

    backend.replace(policy(), (&[facts(1, &[])], &AccessFacts::default()), &place(), 0);
    assert!(Arc::ptr_eq(&one, &first(&backend).expect("one is there")));
    assert!(!one.is_gone());

    let busy = backend.replace(policy(), (&[terminating(1), facts(2, &[])], &AccessFacts::default()), &place(), 0);
    assert!(one.is_gone(), "it is not usable any more");
    assert_eq!(busy.len(), 1, "and a request is in flight on it");

    backend.replace(policy(), (&[facts(1, &[])], &AccessFacts::default()), &place(), 0);
    assert!(Arc::ptr_eq(&one, &first(&backend).expect("it is back")));
    assert!(!one.is_gone(), "as the same");
    drop(in_flight);
    assert!(InFlight::enter(&backend, 1).is_some());
    assert!(
        backend.replace(policy(), (&[], &AccessFacts::default()), &place(), 0).is_empty(),
        "nothing is in flight on what left"
    );
    assert!(one.is_gone());
}
