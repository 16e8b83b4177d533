//! A small mesh that tests ask about.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use maesh_config::{
    Kind, Resource, ServiceName,
    model::{Answer, Mesh, Name, NamePort, Protocol, Proxy, Workload, WorkloadKind},
};
use maesh_discovery::update::{Ack, Update};

/// An address from its text.
pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Addresses from their texts, separated by spaces.
pub(crate) fn ips(text: &str) -> Vec<IpAddr> {
    text.split_whitespace().map(ip).collect()
}

/// Zones `maesh` and `traefik.mesh`, fail-to-plain on.
pub(crate) fn mesh() -> Mesh {
    Mesh {
        zones: ["maesh", "traefik.mesh"].map(|zone| zone.parse().expect("a zone")).to_vec(),
        cluster_domain: "cluster.local".into(),
        fail_to_plain: true,
        bypass: false,
        access_control: maesh_config::model::AccessControl::Off,
        access_sources: Vec::new(),
        controllers: Vec::new(),
    }
}

/// Service `namespace/name` with HTTP port 80 named `http`.
pub(crate) fn name(service: &str, answer: Answer, plain: &str) -> Name {
    let service: ServiceName = service.parse().expect("namespace/name");
    Name { service, answer, plain: ips(plain), headless: false, ports: vec![port(80, Protocol::Http, Some("http"))] }
}

/// A port that is listened on under its own number.
pub(crate) fn port(number: u16, protocol: Protocol, name: Option<&str>) -> NamePort {
    NamePort { number, protocol, name: name.map(Into::into), listen: number, scheme: None }
}

/// A ready proxy that listens on 80 and 8080.
pub(crate) fn proxy(id: &str, node: &str, addresses: &str) -> Proxy {
    Proxy {
        id: id.into(),
        node: node.into(),
        addresses: ips(addresses),
        ready: true,
        listening: vec![80, 8080],
        failed: vec![],
    }
}

/// What `address` is, on `node`.
pub(crate) fn workload(kind: WorkloadKind, address: &str, node: &str) -> Workload {
    let address = address.parse::<IpNet>().unwrap_or_else(|_| ip(address).into());
    let (namespace, service_account) = (None, None);
    Workload { address, kind, namespace, name: "w".into(), service_account, node: Some(node.into()), zone: None }
}

/// One update of everything in `upserts`, which are of one kind.
pub(crate) fn update(kind: Kind, upserts: impl IntoIterator<Item = Resource>) -> Update {
    let upserts = upserts.into_iter().map(Arc::new).collect();
    Update { kind, upserts, removed: vec![], complete: true, ack: Ack::unheard() }
}

/// One update that removes `name`.
pub(crate) fn removal(kind: Kind, name: &str) -> Update {
    Update { kind, upserts: vec![], removed: vec![name.into()], complete: false, ack: Ack::unheard() }
}

/// The complete set: three nodes with a dual-stack proxy each, pods on two of them, a resolver, a range.
pub(crate) fn world() -> Vec<Update> {
    let tcp = Name {
        ports: vec![port(5432, Protocol::Tcp, Some("sql")), port(53, Protocol::Udp, Some("udp"))],
        ..name("shop/db", Answer::Fixed(ips("10.200.0.7 fd00:200::7")), "10.96.0.7")
    };
    let headless = |service, plain| Name { headless: true, ..name(service, Answer::Node, plain) };
    let moved = Name {
        ports: vec![NamePort { listen: 8080, ..port(80, Protocol::Http, Some("http")) }],
        ..name("shop/moved", Answer::Node, "10.96.0.9")
    };
    let names = [
        name("shop/web", Answer::Node, "10.96.0.1 fd00:96::1"),
        tcp,
        moved,
        name("shop/off", Answer::Plain, "10.96.0.2"),
        name("shop/pending", Answer::Plain, ""),
        Name {
            ports: vec![port(25, Protocol::Tcp, Some("smtp"))],
            ..name("shop/unserved", Answer::Unserved, "10.96.0.4")
        },
        Name { ports: vec![port(9999, Protocol::Http, None)], ..name("shop/unheard", Answer::Node, "10.96.0.3") },
        headless("data/pods", "10.1.1.10 10.1.2.10"),
        Name { answer: Answer::Plain, ..headless("data/none", "") },
        Name { answer: Answer::Plain, ..headless("data/many", &many()) },
    ];
    let workloads = [
        workload(WorkloadKind::Pod, "10.1.1.10", "n1"),
        workload(WorkloadKind::Pod, "10.1.2.10", "n2"),
        workload(WorkloadKind::Pod, "fd00:1::10", "n1"),
        workload(WorkloadKind::Node, "192.168.0.2", "n2"),
        workload(WorkloadKind::Resolver, "10.1.1.53", "n1"),
        workload(WorkloadKind::PodRange, "10.1.3.0/24", "n3"),
    ];
    let proxies = [
        proxy("p1", "n1", "10.1.1.2 fd00:1::2"),
        proxy("p2", "n2", "10.1.2.2"),
        proxy("p3", "n3", "10.1.3.2 fd00:3::2"),
    ];
    vec![
        update(Kind::Mesh, [Resource::Mesh(mesh())]),
        update(Kind::Proxy, proxies.map(Resource::Proxy)),
        update(Kind::Workload, workloads.map(Resource::Workload)),
        update(Kind::Name, names.map(Resource::Name)),
    ]
}

/// A hundred addresses.
fn many() -> String {
    (0..100).map(|n| format!("10.7.0.{n} ")).collect()
}
