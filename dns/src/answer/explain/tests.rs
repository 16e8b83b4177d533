use std::sync::Arc;

use maesh_config::{
    Kind, Resource,
    model::{Mesh, Proxy},
};
use maesh_discovery::update::Update;

use super::*;
use crate::{
    fixture::{ip, ips, mesh, proxy, removal, update, world},
    snapshot_of,
};

fn snapshot(more: impl IntoIterator<Item = Update>) -> Arc<Snapshot> {
    snapshot_of(world().into_iter().chain(more), &[])
}

fn of(more: impl IntoIterator<Item = Update>, name: &str, caller: Caller) -> Explanation {
    explain(&snapshot(more), name, caller).expect("a name")
}

fn behind(address: &str) -> Caller {
    Caller::Behind(ip(address))
}

/// A proxy that is known and not ready.
fn down(id: &str, node: &str, addresses: &str) -> Resource {
    Resource::Proxy(Proxy { ready: false, ..proxy(id, node, addresses) })
}

#[test]
fn the_rule_that_decided() {
    let off = || update(Kind::Mesh, [Resource::Mesh(Mesh { bypass: true, ..mesh() })]);
    let strict = || update(Kind::Mesh, [Resource::Mesh(Mesh { fail_to_plain: false, ..mesh() })]);
    let n1_down = || update(Kind::Proxy, [down("p1", "n1", "10.1.1.2 fd00:1::2")]);
    let all_gone = || -> Vec<Update> { ["p1", "p2", "p3"].map(|id| removal(Kind::Proxy, id)).into() };
    for (case, more, name, caller, code, rule, addresses) in [
        ("pod", vec![], "web.shop.maesh", behind("10.1.2.10"), "NOERROR", Some(Rule::Local), "10.1.2.2"),
        (
            "both families",
            vec![],
            "web.shop.maesh",
            behind("10.1.1.10"),
            "NOERROR",
            Some(Rule::Local),
            "10.1.1.2 fd00:1::2",
        ),
        (
            "trailing dot, case",
            vec![],
            "WEB.shop.Maesh.",
            behind("10.1.2.10"),
            "NOERROR",
            Some(Rule::Local),
            "10.1.2.2",
        ),
        ("direct", vec![], "web.shop.maesh", Caller::Direct(ip("10.1.2.10")), "NOERROR", Some(Rule::Local), "10.1.2.2"),
        (
            "own node not ready",
            vec![n1_down()],
            "web.shop.maesh",
            behind("10.1.1.10"),
            "NOERROR",
            Some(Rule::Spread),
            "10.1.2.2 10.1.3.2 fd00:3::2",
        ),
        (
            "nobody listens on 9999",
            vec![],
            "unheard.shop.maesh",
            behind("10.1.1.10"),
            "NOERROR",
            Some(Rule::FailToPlain),
            "10.96.0.3",
        ),
        (
            "the same, strictly",
            vec![strict()],
            "unheard.shop.maesh",
            behind("10.1.1.10"),
            "NOERROR",
            Some(Rule::LastKnown),
            "10.1.1.2 fd00:1::2",
        ),
        (
            "own address",
            vec![],
            "db.shop.maesh",
            behind("10.1.1.10"),
            "NOERROR",
            Some(Rule::Fixed),
            "10.200.0.7 fd00:200::7",
        ),
        ("plain by itself", vec![], "off.shop.maesh", behind("10.1.1.10"), "NOERROR", Some(Rule::Plain), "10.96.0.2"),
        (
            "global switch",
            vec![off()],
            "web.shop.maesh",
            behind("10.1.1.10"),
            "NOERROR",
            Some(Rule::Plain),
            "10.96.0.1 fd00:96::1",
        ),
        (
            "no proxy at all",
            all_gone(),
            "web.shop.maesh",
            behind("10.1.1.10"),
            "NOERROR",
            Some(Rule::FailToPlain),
            "10.96.0.1 fd00:96::1",
        ),
        ("unknown Service", vec![], "nobody.shop.maesh", behind("10.1.1.10"), "NXDOMAIN", None, ""),
        ("other zone", vec![], "example.com", behind("10.1.1.10"), "REFUSED", None, ""),
        ("a namespace", vec![], "shop.maesh", behind("10.1.1.10"), "NOERROR", None, ""),
    ] {
        let why = of(more, name, caller);
        assert_eq!((why.code.as_str(), why.rule, why.addresses), (code, rule, ips(addresses)), "{case}");
    }
}

#[test]
fn where_the_caller_lies() {
    let node = |name: &str| Some(name.to_owned());
    for (caller, want) in [
        (behind("10.1.1.10"), Some(Located::Address { node: node("n1") })),
        (behind("192.168.0.2"), Some(Located::Address { node: node("n2") })),
        (behind("10.1.3.77"), Some(Located::Range { range: "10.1.3.0/24".into(), node: node("n3") })),
        (behind("10.1.1.53"), Some(Located::Resolver)),
        (behind("203.0.113.9"), Some(Located::Unknown)),
        (Caller::Direct(ip("fd00:1::10")), Some(Located::Address { node: node("n1") })),
        (Caller::Anybody, None),
    ] {
        assert_eq!(of([], "web.shop.maesh", caller).located, want, "{caller:?}");
    }
}

#[test]
fn proxies_come_in_the_order_of_interest() {
    let late = Proxy { listening: vec![], ..proxy("p3", "n3", "10.1.3.2") };
    let why = of([update(Kind::Proxy, [Resource::Proxy(late)])], "web.shop.maesh", behind("10.1.3.77"));
    let seen: Vec<_> =
        why.proxies.iter().map(|proxy| (proxy.id.as_str(), proxy.serves, proxy.answered, proxy.local)).collect();
    assert_eq!(
        seen,
        [("p1", Some(true), true, false), ("p2", Some(true), true, false), ("p3", Some(false), false, true)]
    );
    assert_eq!((why.ready_proxies, why.known_proxies, why.zones.len()), (3, 3, 2));
    let many = (0..100).map(|n| down(&format!("q{n}"), "n9", "")).collect::<Vec<_>>();
    let why = of([update(Kind::Proxy, many)], "web.shop.maesh", Caller::Anybody);
    assert!(why.proxies.len() <= MOST_PROXIES + SPREAD, "{}", why.proxies.len());
}

#[test]
fn before_everything_is_there() {
    let why = explain(&snapshot_of([], &[]), "web.shop.maesh", behind("10.1.1.10")).expect("a name");
    assert_eq!((why.code.as_str(), why.synced), ("SERVFAIL", false));
}

#[test]
fn what_is_no_name() {
    let long = "a".repeat(64);
    let longer = "a.".repeat(128);
    for name in ["", ".", "a..b", long.as_str(), longer.as_str()] {
        let refused = explain(&snapshot([]), name, Caller::Anybody).expect_err(name);
        assert!(refused.to_string().contains("is no DNS name"), "{refused}");
    }
}
