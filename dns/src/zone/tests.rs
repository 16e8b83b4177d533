use maesh_config::{
    ServiceName,
    model::{NamePort, Protocol},
};

use super::*;

fn wire(name: &str) -> Vec<u8> {
    let mut wire: Vec<u8> = name.split('.').filter(|label| !label.is_empty()).filter_map(label).flatten().collect();
    wire.push(0);
    wire
}

fn content() -> ZoneContent {
    let zones = ["sub.traefik.mesh", "traefik.mesh", "maesh"].into_iter().map(|zone| wire(zone).into()).collect();
    let mut content = ZoneContent { zones, ..ZoneContent::default() };
    let name = Name {
        service: ServiceName::new("shop", "web"),
        answer: Answer::Plain,
        plain: vec![],
        headless: false,
        ports: vec![
            NamePort { number: 80, protocol: Protocol::Http, name: Some("http".into()), listen: 8080, scheme: None },
            NamePort { number: 81, protocol: Protocol::Tcp, name: None, listen: 81, scheme: None },
        ],
    };
    let (key, namespace) = key(&name.service).expect("a good name");
    content.services.insert(key, Arc::new(ZoneEntry::new(&name, 0)));
    content.namespaces.insert(namespace, 1);
    content
}

#[test]
fn names_and_what_they_are() {
    let content = content();
    for (name, want) in [
        ("maesh", "apex 0"),
        ("traefik.mesh", "apex 0"),
        ("sub.traefik.mesh", "apex 0"),
        ("web.shop.sub.traefik.mesh", "service 9"),
        ("dns-version.maesh", "version 12"),
        ("dns.maesh", "empty 4"),
        ("ns.dns.maesh", "name server 7"),
        ("x.dns.maesh", "missing 6"),
        ("shop.maesh", "empty 5"),
        ("web.maesh", "missing 4"),
        ("web.shop.maesh", "service 9"),
        ("web.shop.traefik.mesh", "service 9"),
        ("api.shop.maesh", "missing 9"),
        ("x.web.shop.maesh", "missing 11"),
        ("_tcp.web.shop.maesh", "ports 14"),
        ("_udp.web.shop.maesh", "missing 14"),
        ("_http._tcp.web.shop.maesh", "port 80 at 11 20"),
        ("_http._udp.web.shop.maesh", "missing 20"),
        ("_x._tcp.web.shop.maesh", "missing 17"),
        ("_tcp.api.shop.maesh", "missing 14"),
        ("a._http._tcp.web.shop.maesh", "missing 22"),
        ("a.b.c.d.e.f.g.maesh", "missing 14"),
        ("xmaesh", "none"),
        ("mesh", "none"),
        ("svc.cluster.local", "none"),
        ("", "none"),
    ] {
        let got = match content.find(&wire(name)) {
            None => "none".to_owned(),
            Some((apex, node)) => match node {
                Node::Apex => format!("apex {apex}"),
                Node::Version => format!("version {apex}"),
                Node::NameServer => format!("name server {apex}"),
                Node::Empty => format!("empty {apex}"),
                Node::Service(_) => format!("service {apex}"),
                Node::Ports(_) => format!("ports {apex}"),
                Node::Port { port, target, .. } => format!("port {} at {target} {apex}", port.number),
                Node::Missing => format!("missing {apex}"),
            },
        };
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn a_zone_is_not_matched_inside_a_label() {
    // A label of six bytes whose last ones spell the zone with its length.
    assert_eq!(content().find(b"\x07x\x05maesh\x00"), None);
}

#[test]
fn names_that_cannot_be() {
    let long = "a".repeat(64);
    for (namespace, name, good) in [("shop", "web", true), ("shop", "", false), ("shop", &*long, false)] {
        assert_eq!(key(&ServiceName::new(namespace, name)).is_ok(), good, "{namespace}/{name}");
    }
}
