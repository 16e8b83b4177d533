use std::net::SocketAddr;

use maesh_config::{
    Resource,
    model::{Answer, Endpoints, NamePort, PortEndpoints, Protocol, Service, ServicePort, Transport},
};
use maesh_discovery::update::Ack;
use prometheus_client::registry::Registry;

use super::*;
use crate::{
    admission::{Admission, Budget},
    config::{Config, Limits},
    fixtures,
    state::{InFlight, Shared},
    telemetry::Telemetry,
};

/// No ports at all.
struct NoPorts;

impl Ports for NoPorts {
    fn open(&mut self, _: &Listener) -> Result<(), NotOpened> {
        Ok(())
    }

    fn close(&mut self, _: &str) {}

    fn take_changed(&mut self) -> Option<HashSet<SocketAddr>> {
        None
    }
}

fn apply() -> Apply {
    let telemetry = Telemetry::new(&mut Registry::default());
    let budget = Budget::new(20_000, 1, &Limits::default()).expect("enough files");
    let (shared, _) = Shared::new(Config::default(), telemetry, (None, None), Admission::new(budget));
    Apply::new(shared, Interest::new().0)
}

fn set(apply: &mut Apply, kind: Kind, resource: Resource) {
    let update =
        Update { kind, upserts: vec![Arc::new(resource)], removed: Vec::new(), complete: true, ack: Ack::unheard() };
    apply.update(update, &mut NoPorts);
}

fn web() -> ServiceName {
    ServiceName::new("shop", "web")
}

fn service(ports: &[u16], concurrency: u32) -> Resource {
    let port = |number: &u16| ServicePort {
        number: *number,
        name: None,
        protocol: Protocol::Http,
        leaving: false,
        routes: Vec::new(),
        called: Arc::default(),
        backend: fixtures::policy(concurrency),
    };
    Resource::Service(Service { name: web(), ports: ports.iter().map(port).collect() })
}

fn endpoints(hosts: &[u8]) -> Resource {
    let endpoints = hosts.iter().map(|host| fixtures::endpoint(*host, 8080)).collect();
    let ports =
        vec![PortEndpoints { number: 80, protocol: Protocol::Http, endpoints, access: Vec::new(), open: false }];
    Resource::Endpoints(Endpoints { service: web(), ports })
}

fn name() -> Resource {
    let ports = vec![NamePort { number: 80, protocol: Protocol::Http, name: None, listen: 80, scheme: None }];
    Resource::Name(Name { service: web(), answer: Answer::Node, plain: Vec::new(), headless: false, ports })
}

/// In-flight counts and latencies are of the endpoint and the port, not of a version of the configuration.
#[tokio::test]
async fn run_time_state_survives_every_change_of_the_configuration() {
    let mut apply = apply();
    set(&mut apply, Kind::Name, name());
    set(&mut apply, Kind::Service, service(&[80], 2));
    set(&mut apply, Kind::Endpoints, endpoints(&[1, 2]));
    let id = BackendId { service: web(), port: 80, transport: Transport::Tcp };
    let found = |apply: &Apply| apply.runtime.get(&id).expect("in force");
    let one = |apply: &Apply| {
        let upstreams = found(apply).upstreams.load_full();
        let mut usable = upstreams.usable.iter();
        usable.find(|it| it.endpoint.address.ip() == IpAddr::from([10, 0, 0, 1])).expect("one").endpoint.clone()
    };
    let mut in_flight = InFlight::enter(&found(&apply), 2).expect("room");
    in_flight.on(one(&apply));
    one(&apply).latency.record(1_000, Duration::from_millis(700));

    for (case, kind, resource, limit) in [
        ("a policy changes", Kind::Service, service(&[80], 3), 3),
        ("a port is added", Kind::Service, service(&[80, 81], 3), 3),
        ("an endpoint comes", Kind::Endpoints, endpoints(&[1, 2, 3]), 3),
        ("another one goes", Kind::Endpoints, endpoints(&[1, 3]), 3),
        ("they come in another order", Kind::Endpoints, endpoints(&[3, 2, 1]), 3),
        ("the name says the same again", Kind::Name, name(), 3),
    ] {
        set(&mut apply, kind, resource);
        let called = apply.names[&web()].serving.load_full().expect("in force");
        let port = called.port(80, Protocol::Http).expect("the port");
        assert!(Arc::ptr_eq(&port.own, &found(&apply)), "{case}: requests use the state that is kept");
        assert_eq!(port.own.upstreams.load().policy.concurrency, limit, "{case}: by the newest policy");
        let one = one(&apply);
        assert_eq!(one.in_flight.load(Ordering::Relaxed), 1, "{case}: the request is in flight on its endpoint");
        assert!(one.latency.micros(1_000) > 600_000.0, "{case}: the latency is known");
        assert!(InFlight::enter(&port.own, 1).is_none(), "{case}: the request is in flight on the port");
        assert!(InFlight::enter(&port.own, 2).is_some(), "{case}: and no other one");
    }
    assert_eq!(apply.runtime.len(), 2, "the port that was added");

    set(&mut apply, Kind::Service, service(&[81], 3));
    assert!(apply.runtime.get(&id).is_none(), "the state goes with its port");
    assert_eq!(apply.runtime.len(), 1);
    let gone = Update {
        kind: Kind::Name,
        upserts: Vec::new(),
        removed: vec![web().to_string().into()],
        complete: true,
        ack: Ack::unheard(),
    };
    apply.update(gone, &mut NoPorts);
    assert_eq!(apply.runtime.len(), 0, "and with its Service");
}
