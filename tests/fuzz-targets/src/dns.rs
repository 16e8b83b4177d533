//! Packets from anybody: what the DNS responder answers is read, and judged, by hickory-proto.
//!
//! The first byte chooses the transport and the source, the rest is the packet.

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use maesh_config::{
    Kind, Resource, ServiceName,
    model::{Answer, Mesh, Name, NamePort, Protocol, Proxy, Workload, WorkloadKind},
};
use maesh_discovery::update::{Ack, Update};
use maesh_dns::{Action, Snapshot, Transport, answer, snapshot_of};

static SNAPSHOT: LazyLock<Arc<Snapshot>> = LazyLock::new(|| {
    let mesh = Mesh {
        zones: ["maesh", "traefik.mesh"].map(|zone| zone.parse().expect("a zone")).to_vec(),
        cluster_domain: "cluster.local".into(),
        fail_to_plain: true,
        bypass: false,
        access_control: maesh_config::model::AccessControl::Off,
        access_sources: Vec::new(),
        controllers: Vec::new(),
    };
    let name = |service: &str, answer| {
        let port =
            NamePort { number: 80, protocol: Protocol::Http, name: Some("http".into()), listen: 80, scheme: None };
        let service: ServiceName = service.parse().expect("namespace/name");
        Resource::Name(Name { service, answer, plain: ips(40), headless: true, ports: vec![port] })
    };
    let proxy = |number: u8| {
        let (id, node) = (format!("p{number}").into(), format!("n{number}").as_str().into());
        let addresses = vec![[10, 0, number, 1].into(), format!("fd00::{number}").parse().expect("an address")];
        Resource::Proxy(Proxy { id, node, addresses, ready: true, listening: vec![80], failed: vec![] })
    };
    let range = Resource::Workload(Workload {
        address: "10.0.1.0/24".parse().expect("a range"),
        kind: WorkloadKind::PodRange,
        namespace: None,
        name: "n1".into(),
        service_account: None,
        node: Some("n1".into()),
        zone: None,
    });
    let names =
        vec![name("shop/web", Answer::Node), name("shop/own", Answer::Fixed(ips(2))), name("a/b", Answer::Plain)];
    let updates = [
        (Kind::Mesh, vec![Resource::Mesh(mesh)]),
        (Kind::Proxy, (1..6).map(proxy).collect()),
        (Kind::Workload, vec![range]),
        (Kind::Name, names),
    ];
    let updates = updates.map(|(kind, upserts)| {
        let upserts = upserts.into_iter().map(Arc::new).collect();
        Update { kind, upserts, removed: vec![], complete: true, ack: Ack::unheard() }
    });
    snapshot_of(updates, &ips(1))
});

fn ips(count: u8) -> Vec<IpAddr> {
    (0..count).flat_map(|n| [[10, 9, 0, n].into(), format!("fd00:9::{n}").parse().expect("an address")]).collect()
}

pub(crate) fn run(data: &[u8]) {
    let Some((choice, query)) = data.split_first() else { return };
    let transport = [Transport::Udp, Transport::Tcp, Transport::Udp, Transport::Tls][usize::from(choice & 3)];
    let source: IpAddr = [10, 0, choice >> 4, 7].into();
    let mut out = Vec::new();
    if answer(query, source, &SNAPSHOT, transport, usize::from(*choice), &mut out) == Action::Drop {
        assert!(query.len() < 12 || query[2] & 0x80 != 0, "silence only for what is no query");
        return;
    }
    assert_eq!(out[..2], query[..2], "the id");
    let asked = Message::from_vec(query);
    let edns = asked.as_ref().ok().and_then(|asked| asked.edns.as_ref());
    match transport {
        Transport::Tcp | Transport::Tls => {}
        Transport::Udp => assert!(out.len() <= 1232),
    }
    if let (Transport::Udp, Ok(_), None) = (transport, &asked, edns) {
        assert!(out.len() <= 512, "{} bytes without OPT", out.len());
    }
    let reply = match Message::from_vec(&out) {
        Ok(reply) => reply,
        // An empty client subnet of no family is right (RFC 7871 section 7.1.2), and hickory cannot read it.
        Err(_) if out.ends_with(&[0, 8, 0, 4, 0, 0, 0, 0]) => return,
        Err(error) => panic!("{error}: {out:x?}"),
    };
    assert_eq!(reply.metadata.message_type, MessageType::Response);
    let Ok(asked) = asked else { return };
    assert_eq!(reply.metadata.op_code, asked.metadata.op_code);
    if asked.metadata.op_code != OpCode::Query || asked.queries.len() != 1 {
        assert_ne!(reply.metadata.response_code, ResponseCode::NoError);
        assert!(reply.answers.is_empty());
        return;
    }
    if !reply.queries.is_empty() {
        assert_eq!(reply.queries, asked.queries, "the question");
    }
    assert_eq!(reply.metadata.recursion_desired, asked.metadata.recursion_desired);
    assert!(!reply.metadata.recursion_available);
    match reply.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {
            assert!(reply.metadata.authoritative);
            assert_eq!(reply.edns.is_some(), asked.edns.is_some(), "OPT for OPT");
            let negative = reply.answers.is_empty() && !reply.metadata.truncation;
            assert_eq!(negative, !reply.authorities.is_empty(), "an SOA where there is no answer");
            assert!(reply.answers.iter().all(|record| record.name == *asked.queries[0].name()), "the owner");
        }
        _ => assert!(reply.answers.is_empty() && reply.authorities.is_empty()),
    }
}
