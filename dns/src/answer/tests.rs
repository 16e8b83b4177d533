//! Tables of questions and answers, read and written by an implementation that is not ours.

mod edges;
mod properties;

use std::sync::Arc;

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        Name, Record, RecordType,
        rdata::opt::{ClientSubnet, EdnsCode, EdnsOption},
    },
};
use maesh_config::{
    Kind, Resource,
    model::{Answer, Mesh, Proxy},
};
use maesh_discovery::update::Update;

use super::*;
use crate::{
    fixture::{ip, mesh, name, proxy, removal, update, world},
    snapshot_of,
};

/// The responder's own addresses.
const US: [&str; 2] = ["10.96.0.53", "fd00:96::53"];
/// A source that is known to be the cluster's DNS.
const RESOLVER: &str = "10.1.1.53";

fn snapshot(more: impl IntoIterator<Item = Update>) -> Arc<Snapshot> {
    snapshot_of(world().into_iter().chain(more), &US.map(ip))
}

/// A question as hickory writes it.
fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message
}

fn with_subnet(mut message: Message, address: &str, source: u8) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    edns.options_mut().insert(EdnsOption::Subnet(ClientSubnet::new(ip(address), source, 0)));
    message.set_edns(edns);
    message
}

/// The bytes of the answer to the bytes of a query.
fn raw(snapshot: &Snapshot, query: &[u8], source: &str, transport: Transport, rotation: usize) -> Option<Vec<u8>> {
    let mut out = b"what was there before".to_vec();
    match answer(query, ip(source), snapshot, transport, rotation, &mut out) {
        Action::Reply(_) => Some(out),
        Action::Drop => None,
    }
}

fn ask(snapshot: &Snapshot, query: &Message, source: &str) -> Message {
    let bytes = query.to_vec().expect("encodes");
    let reply = raw(snapshot, &bytes, source, Transport::Udp, 0).expect("a reply");
    Message::from_vec(&reply).expect("hickory reads the reply")
}

fn data(records: &[Record]) -> String {
    let texts = records.iter().map(|record| format!("{} {}", record.record_type(), record.data));
    texts.collect::<Vec<_>>().join(", ")
}

/// Code, then answers, authority and additional records.
fn summary(reply: &Message) -> String {
    let code = reply.metadata.response_code;
    let code = match code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        other => other.to_string(),
    };
    let mut text = code;
    for (sign, records) in [(" :", &reply.answers), (" !", &reply.authorities), (" +", &reply.additionals)] {
        if !records.is_empty() {
            text.push_str(&format!("{sign} {}", data(records)));
        }
    }
    // The SOA of every negative answer is checked once, in `negative_answers_carry_the_zones_soa`.
    let soa = text.find("! SOA").map(|at| at + 5);
    text.truncate(soa.unwrap_or(text.len()));
    text
}

#[test]
fn every_kind_of_name() {
    let snapshot = snapshot([]);
    for (question_, want) in [
        // The zone itself.
        ("SOA maesh.", "NOERROR : SOA ns.dns.maesh. hostmaster.maesh. 1 7200 1800 86400 5"),
        ("NS maesh.", "NOERROR : NS ns.dns.maesh. + A 10.96.0.53, AAAA fd00:96::53"),
        ("NS traefik.mesh.", "NOERROR : NS ns.dns.traefik.mesh. + A 10.96.0.53, AAAA fd00:96::53"),
        ("A maesh.", "NOERROR ! SOA"),
        ("ANY maesh.", "NOERROR : SOA ns.dns.maesh. hostmaster.maesh. 1 7200 1800 86400 5"),
        ("A ns.dns.maesh.", "NOERROR : A 10.96.0.53"),
        ("AAAA ns.dns.maesh.", "NOERROR : AAAA fd00:96::53"),
        ("TXT ns.dns.maesh.", "NOERROR ! SOA"),
        ("TXT dns-version.maesh.", "NOERROR : TXT 1.1.0"),
        ("ANY dns-version.maesh.", "NOERROR : TXT 1.1.0"),
        ("A dns-version.maesh.", "NOERROR ! SOA"),
        // Services.
        ("A web.shop.maesh.", "NOERROR : A 10.1.1.2"),
        ("AAAA web.shop.maesh.", "NOERROR : AAAA fd00:1::2"),
        ("A WEB.sHop.MAESH.", "NOERROR : A 10.1.1.2"),
        ("A web.shop.traefik.mesh.", "NOERROR : A 10.1.1.2"),
        ("MX web.shop.maesh.", "NOERROR ! SOA"),
        ("HTTPS web.shop.maesh.", "NOERROR ! SOA"),
        ("CNAME web.shop.maesh.", "NOERROR ! SOA"),
        ("SRV web.shop.maesh.", "NOERROR ! SOA"),
        ("ANY web.shop.maesh.", "NOERROR : A 10.1.1.2"),
        ("A db.shop.maesh.", "NOERROR : A 10.200.0.7"),
        ("AAAA db.shop.maesh.", "NOERROR : AAAA fd00:200::7"),
        ("A off.shop.maesh.", "NOERROR : A 10.96.0.2"),
        ("AAAA off.shop.maesh.", "NOERROR ! SOA"),
        ("A pending.shop.maesh.", "NOERROR ! SOA"),
        ("ANY pending.shop.maesh.", "NOERROR : HINFO RFC8482 "),
        ("A unheard.shop.maesh.", "NOERROR : A 10.96.0.3"),
        ("A pods.data.maesh.", "NOERROR : A 10.1.1.2"),
        ("A none.data.maesh.", "NXDOMAIN ! SOA"),
        ("SRV _http._tcp.none.data.maesh.", "NXDOMAIN ! SOA"),
        // What is not there, and what lies above what is.
        ("A nope.shop.maesh.", "NXDOMAIN ! SOA"),
        ("A web.nope.maesh.", "NXDOMAIN ! SOA"),
        ("A shop.maesh.", "NOERROR ! SOA"),
        ("A dns.maesh.", "NOERROR ! SOA"),
        ("A nope.maesh.", "NXDOMAIN ! SOA"),
        ("A web.maesh.", "NXDOMAIN ! SOA"),
        ("A x.web.shop.maesh.", "NXDOMAIN ! SOA"),
        ("A *.shop.maesh.", "NXDOMAIN ! SOA"),
        ("A pod.pods.data.maesh.", "NXDOMAIN ! SOA"),
        ("HINFO 123.456.maesh.", "NXDOMAIN ! SOA"),
        // Ports.
        ("SRV _http._tcp.web.shop.maesh.", "NOERROR : SRV 0 100 80 web.shop.maesh. + A 10.1.1.2, AAAA fd00:1::2"),
        ("SRV _http._tcp.moved.shop.maesh.", "NOERROR : SRV 0 100 8080 moved.shop.maesh. + A 10.1.1.2, AAAA fd00:1::2"),
        ("SRV _sql._tcp.db.shop.maesh.", "NOERROR : SRV 0 100 5432 db.shop.maesh. + A 10.200.0.7, AAAA fd00:200::7"),
        ("SRV _udp._udp.db.shop.maesh.", "NOERROR : SRV 0 100 53 db.shop.maesh. + A 10.200.0.7, AAAA fd00:200::7"),
        ("ANY _http._tcp.off.shop.maesh.", "NOERROR : SRV 0 100 80 off.shop.maesh. + A 10.96.0.2"),
        ("A _http._tcp.web.shop.maesh.", "NOERROR ! SOA"),
        ("SRV _tcp.web.shop.maesh.", "NOERROR ! SOA"),
        ("SRV _udp.web.shop.maesh.", "NXDOMAIN ! SOA"),
        ("SRV _https._tcp.web.shop.maesh.", "NXDOMAIN ! SOA"),
        ("SRV _http._udp.web.shop.maesh.", "NXDOMAIN ! SOA"),
        // Not ours.
        ("NS .", "REFUSED"),
        ("A web.shop.svc.cluster.local.", "REFUSED"),
        ("A xmaesh.", "REFUSED"),
        ("PTR 2.1.1.10.in-addr.arpa.", "REFUSED"),
        ("AXFR maesh.", "REFUSED"),
        ("IXFR maesh.", "REFUSED"),
    ] {
        let (kind, name) = question_.split_once(' ').expect("type and name");
        let kind = if kind == "IXFR" { RecordType::from(251) } else { kind.parse().expect("a type") };
        let reply = ask(&snapshot, &question(name, kind), "10.1.1.10");
        assert_eq!(summary(&reply), want, "{question_}");
        let ours = !want.starts_with("REFUSED");
        assert_eq!(reply.metadata.authoritative, ours, "{question_}: AA");
        assert!(!reply.metadata.recursion_available && reply.metadata.recursion_desired, "{question_}: flags");
        assert!(reply.all_sections().all(|record| record.ttl == 5), "{question_}: TTL");
        assert_eq!(reply.queries[0].name().to_ascii(), name, "{question_}: the question comes back in its own case");
        assert!(reply.edns.is_none(), "{question_}: no OPT unasked");
    }
}

#[test]
fn negative_answers_carry_the_zones_soa() {
    let snapshot = snapshot([]);
    for (asked, zone) in
        [("nope.shop.maesh.", "maesh."), ("shop.maesh.", "maesh."), ("nope.a.traefik.mesh.", "traefik.mesh.")]
    {
        let reply = ask(&snapshot, &question(asked, RecordType::A), RESOLVER);
        let soa = &reply.authorities[0];
        assert_eq!(
            (soa.name.to_ascii(), soa.ttl, soa.data.to_string()),
            (zone.to_owned(), 5, format!("ns.dns.{zone} hostmaster.{zone} 1 7200 1800 86400 5")),
            "{asked}"
        );
    }
}

#[test]
fn before_everything_is_known_nothing_is() {
    let complete = world();
    for missing in [Kind::Mesh, Kind::Name, Kind::Workload, Kind::Proxy] {
        let updates: Vec<_> = world().into_iter().filter(|update| update.kind != missing).collect();
        let snapshot = snapshot_of(updates, &[]);
        for name in ["web.shop.maesh.", "nope.maesh.", "."] {
            let reply = ask(&snapshot, &question(name, RecordType::A), RESOLVER);
            assert_eq!(summary(&reply), "SERVFAIL", "{name} without {missing:?}");
        }
    }
    let snapshot = snapshot_of(complete, &[]);
    assert_eq!(
        summary(&ask(&snapshot, &question("web.shop.maesh.", RecordType::A), "10.1.1.10")),
        "NOERROR : A 10.1.1.2"
    );
}

#[test]
fn a_caller_is_sent_to_its_own_node() {
    let snapshot = snapshot([]);
    let spread = "A 10.1.1.2, A 10.1.2.2, A 10.1.3.2";
    for (case, subnet, source, want, scope) in [
        ("pod by subnet", Some(("10.1.2.10", 32)), RESOLVER, "A 10.1.2.2", Some(32)),
        ("pod by IPv6 subnet", Some(("fd00:1::10", 128)), RESOLVER, "A 10.1.1.2", Some(128)),
        ("node by subnet", Some(("192.168.0.2", 32)), RESOLVER, "A 10.1.2.2", Some(32)),
        ("range by subnet", Some(("10.1.3.77", 32)), RESOLVER, "A 10.1.3.2", Some(32)),
        ("unknown by subnet", Some(("10.9.9.9", 32)), "10.1.2.10", spread, Some(32)),
        ("a part of an address is not enough", Some(("10.1.2.0", 24)), RESOLVER, spread, Some(32)),
        ("then the source may be", Some(("10.1.2.0", 24)), "10.1.2.10", "A 10.1.2.2", Some(32)),
        ("a caller that hides", Some(("0.0.0.0", 0)), RESOLVER, spread, Some(0)),
        ("by source", None, "10.1.2.10", "A 10.1.2.2", None),
        ("by mapped source", None, "::ffff:10.1.2.10", "A 10.1.2.2", None),
        ("a resolver is everywhere", None, RESOLVER, spread, None),
    ] {
        let mut query = question("web.shop.maesh.", RecordType::A);
        if let Some((address, length)) = subnet {
            query = with_subnet(query, address, length);
        }
        let reply = ask(&snapshot, &query, source);
        assert_eq!(data(&reply.answers), want, "{case}");
        let echoed = reply.edns.as_ref().and_then(|edns| edns.option(EdnsCode::Subnet)).map(|option| match option {
            EdnsOption::Subnet(subnet) => (subnet.addr(), subnet.source_prefix(), subnet.scope_prefix()),
            other => panic!("{other:?} is no subnet"),
        });
        let wanted = subnet.zip(scope).map(|((address, length), scope)| (ip(address), length, scope));
        assert_eq!(echoed, wanted, "{case}: echo");
    }
}

#[test]
fn what_does_not_depend_on_the_caller_says_so() {
    let snapshot = snapshot([]);
    for name in
        ["db.shop.maesh.", "off.shop.maesh.", "nope.shop.maesh.", "shop.maesh.", "unheard.shop.maesh.", "maesh."]
    {
        let reply = ask(&snapshot, &with_subnet(question(name, RecordType::A), "10.1.1.10", 32), RESOLVER);
        let edns = reply.edns.expect("an OPT");
        let Some(EdnsOption::Subnet(subnet)) = edns.option(EdnsCode::Subnet) else { panic!("{name}: no echo") };
        assert_eq!(subnet.scope_prefix(), 0, "{name}");
    }
}

#[test]
fn both_families_lead_to_one_node() {
    let snapshot = snapshot([]);
    for (caller, a, aaaa) in [("10.1.1.10", "A 10.1.1.2", "AAAA fd00:1::2"), ("10.1.2.10", "A 10.1.2.2", "")] {
        for (kind, want) in [(RecordType::A, a), (RecordType::AAAA, aaaa)] {
            let reply = ask(&snapshot, &question("web.shop.maesh.", kind), caller);
            assert_eq!(data(&reply.answers), want, "{kind} for {caller}");
            assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        }
    }
}

#[test]
fn callers_of_unknown_node_take_turns() {
    let more = (4..=9).map(|n| Resource::Proxy(proxy(&format!("p{n}"), &format!("n{n}"), &format!("10.1.{n}.2"))));
    let snapshot = snapshot([update(Kind::Proxy, more)]);
    let query = question("web.shop.maesh.", RecordType::A).to_vec().expect("encodes");
    let mut counts = std::collections::BTreeMap::new();
    for rotation in 0..90 {
        let reply = raw(&snapshot, &query, RESOLVER, Transport::Udp, rotation).expect("a reply");
        let reply = Message::from_vec(&reply).expect("hickory reads it");
        assert_eq!(reply.answers.len(), 3);
        for record in reply.answers {
            *counts.entry(record.data.to_string()).or_insert(0) += 1;
        }
    }
    assert_eq!(counts.len(), 9);
    assert!(counts.values().all(|count| *count == 30), "{counts:?}");
}

#[test]
fn what_holds_when_proxies_are_missing() {
    let off = |id: &str, node: &str, addresses: &str| Proxy { ready: false, ..proxy(id, node, addresses) };
    let none = || {
        update(
            Kind::Proxy,
            [off("p1", "n1", "10.1.1.2 fd00:1::2"), off("p2", "n2", "10.1.2.2"), off("p3", "n3", "10.1.3.2 fd00:3::2")]
                .map(Resource::Proxy),
        )
    };
    let one = || update(Kind::Proxy, [Resource::Proxy(off("p1", "n1", "10.1.1.2 fd00:1::2"))]);
    let with = |mesh| update(Kind::Mesh, [Resource::Mesh(mesh)]);
    let acl = || with(Mesh { access_control: maesh_config::model::AccessControl::On, ..mesh() });
    let strict = || with(Mesh { fail_to_plain: false, ..mesh() });
    let bypass = || with(Mesh { bypass: true, access_control: maesh_config::model::AccessControl::On, ..mesh() });
    let many = || {
        let more = (10..30).map(|n| Resource::Proxy(off(&format!("p{n}"), &format!("n{n}"), &format!("10.1.{n}.2"))));
        update(Kind::Proxy, more)
    };
    let two = || {
        let gone = [off("p2", "n2", "10.1.2.2"), off("p3", "n3", "10.1.3.2")];
        update(Kind::Proxy, gone.map(Resource::Proxy))
    };
    let web = "web.shop.maesh.";
    for (case, updates, name, want) in [
        ("local one not ready: others", vec![one()], web, "A 10.1.2.2, A 10.1.3.2"),
        ("local one gone: others", vec![removal(Kind::Proxy, "p1")], web, "A 10.1.2.2, A 10.1.3.2"),
        ("none ready: plain", vec![none()], web, "A 10.96.0.1"),
        ("none ready: fixed names too", vec![none()], "db.shop.maesh.", "A 10.96.0.7"),
        ("none ready: headless", vec![none()], "pods.data.maesh.", "A 10.1.1.10, A 10.1.2.10"),
        ("none ready, with access control: those last known", vec![acl(), none()], web, "A 10.1.1.2"),
        ("the same, without fail-to-plain", vec![strict(), none()], web, "A 10.1.1.2"),
        ("the same for fixed names", vec![acl(), none()], "db.shop.maesh.", "A 10.200.0.7"),
        ("nobody listens, with access control", vec![acl()], "unheard.shop.maesh.", "A 10.1.1.2"),
        ("fewer than a tenth ready: plain", vec![many(), two()], web, "A 10.96.0.1"),
        ("the same with access control", vec![acl(), many(), two()], web, "A 10.1.1.2"),
        ("not served: plain", vec![], "unserved.shop.maesh.", "A 10.96.0.4"),
        ("not served, without fail-to-plain: nobody", vec![strict()], "unserved.shop.maesh.", ""),
        ("not served, with access control: nobody", vec![acl()], "unserved.shop.maesh.", ""),
        ("not served, but the mesh is bypassed", vec![bypass()], "unserved.shop.maesh.", "A 10.96.0.4"),
        ("bypassed by itself", vec![strict()], "off.shop.maesh.", "A 10.96.0.2"),
        ("bypass", vec![bypass()], web, "A 10.96.0.1"),
        ("bypass of fixed names", vec![bypass()], "db.shop.maesh.", "A 10.96.0.7"),
    ] {
        let snapshot = snapshot(updates);
        let reply = ask(&snapshot, &question(name, RecordType::A), "10.1.1.10");
        assert_eq!(data(&reply.answers), want, "{case}");
    }
}

/// Whatever the type and the state of the proxies, no answer has the ClusterIP of a Service that is not bypassed.
#[test]
fn nothing_goes_around_a_mesh_that_does_not_allow_it() {
    let off = |id: &str| Proxy { ready: false, ..proxy(id, "n1", "10.1.1.2") };
    let ids = ["p1", "p2", "p3"];
    let dead = || vec![update(Kind::Proxy, ids.map(|id| Resource::Proxy(off(id))))];
    let gone = || ids.map(|id| removal(Kind::Proxy, id)).into();
    let proxies: [(_, &dyn Fn() -> Vec<Update>); 3] = [("ready", &Vec::new), ("none ready", &dead), ("none", &gone)];
    for (case, proxies) in proxies {
        for strict in [
            Mesh { fail_to_plain: false, ..mesh() },
            Mesh { access_control: maesh_config::model::AccessControl::On, ..mesh() },
        ] {
            let mesh = update(Kind::Mesh, [Resource::Mesh(strict)]);
            let snapshot = snapshot(std::iter::once(mesh).chain(proxies()));
            for name in ["web.shop", "db.shop", "unserved.shop", "unheard.shop", "_smtp._tcp.unserved.shop"] {
                for kind in [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::ANY] {
                    let reply = ask(&snapshot, &question(&format!("{name}.maesh."), kind), "10.1.1.10");
                    let said = data(&reply.answers) + &data(&reply.additionals);
                    assert!(!said.contains("10.96.0.") && !said.contains("fd00:96::"), "{case}: {name} {kind}: {said}");
                    assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{case}: {name} {kind}");
                }
            }
        }
    }
}

#[test]
fn a_plain_srv_carries_the_services_own_port() {
    let snapshot = snapshot([update(Kind::Mesh, [Resource::Mesh(Mesh { bypass: true, ..mesh() })])]);
    let reply = ask(&snapshot, &question("_http._tcp.moved.shop.maesh.", RecordType::SRV), RESOLVER);
    assert_eq!(data(&reply.answers), "SRV 0 100 80 moved.shop.maesh.");
}

#[test]
fn an_ipv6_cluster() {
    let proxies = ["p1", "p2", "p3"].map(|id| removal(Kind::Proxy, id));
    let snapshot = snapshot(proxies.into_iter().chain([
        update(Kind::Proxy, [Resource::Proxy(proxy("v6", "n1", "fd00:1::2"))]),
        update(Kind::Name, [Resource::Name(name("shop/web", Answer::Node, "fd00:96::1"))]),
    ]));
    for (kind, want) in [(RecordType::A, "NOERROR ! SOA"), (RecordType::AAAA, "NOERROR : AAAA fd00:1::2")] {
        assert_eq!(summary(&ask(&snapshot, &question("web.shop.maesh.", kind), "fd00:1::10")), want);
    }
}

#[test]
fn the_answer_is_short() {
    let snapshot = snapshot([]);
    let query = question("web.shop.maesh.", RecordType::A).to_vec().expect("encodes");
    let reply = raw(&snapshot, &query, "10.1.1.10", Transport::Udp, 0).expect("a reply");
    assert_eq!(reply.len(), 12 + 16 + 4 + 16);
}

#[test]
fn a_removed_name_is_gone() {
    let without = |names: &[&str]| snapshot(names.iter().map(|name| removal(Kind::Name, name)));
    for (case, removed, name, want) in [
        ("gone", &["data/pods"][..], "pods.data.maesh.", "NXDOMAIN ! SOA"),
        ("others of its namespace are left", &["data/pods"], "data.maesh.", "NOERROR ! SOA"),
        ("none is left", &["data/pods", "data/none", "data/many"], "data.maesh.", "NXDOMAIN ! SOA"),
    ] {
        let reply = ask(&without(removed), &question(name, RecordType::A), RESOLVER);
        assert_eq!(summary(&reply), want, "{case}");
    }
}
