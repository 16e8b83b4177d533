//! A mesh of 1,024 Services, without sockets.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use arc_swap::ArcSwap;
use maesh_config::{
    Kind, Resource, ServiceName,
    model::{
        Answer, Backend, Bind, Claim, Endpoint, Endpoints, Listener, ListenerId, Mesh, Name, NamePort, PortEndpoints,
        Protocol, Route, Service, ServicePort, Transport, Workload, WorkloadKind,
    },
};
use maesh_discovery::update::{Ack, Interest, Update};
use prometheus_client::registry::Registry;

use crate::{
    admission::{Admission, Budget},
    config::{Config, Limits},
    state::{Apply, Facts, Listening, NotOpened, Ports, Shared, WantedResource},
    telemetry::Telemetry,
};

/// Services that callers can name.
const NAMES: u16 = 1_024;
/// Every so many of them is in use.
const IN_USE: u16 = 16;
/// The port of all of them.
const PORT: u16 = 80;

/// What a proxy knows.
pub(crate) struct MeasuredMesh {
    pub(crate) shared: Arc<Shared>,
    /// A shared port, on which each Service in use claims a name such as `*.web-16.example.com`.
    pub(crate) listening: Listening,
    /// A pod of the namespace `shop`.
    pub(crate) caller: IpAddr,
}

/// Opens no ports.
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

impl MeasuredMesh {
    /// The Services `web-0` to `web-1023` of the namespace `shop`, and a caller there.
    pub(crate) fn new() -> Self {
        let budget = Budget::new(20_000, 1, &Limits::default()).expect("enough files");
        let telemetry = Telemetry::new(&mut Registry::default());
        let config = Config { workers: 1, ..Config::default() };
        let (shared, _) = Shared::new(config, telemetry, (None, None), Admission::new(budget));
        let mut apply = Apply::new(shared.clone(), Interest::new().0);
        let caller = IpAddr::from([10, 1, 0, 1]);
        put(&mut apply, Kind::Mesh, vec![mesh()]);
        put(&mut apply, Kind::Workload, vec![pod(caller)]);
        put(&mut apply, Kind::Name, (0..NAMES).map(name).collect());
        for number in used() {
            let entry = shared.directory.service(&service(number)).expect("a name");
            apply.demand(&WantedResource::Service(entry), &mut NoPorts);
        }
        put(&mut apply, Kind::Endpoints, used().map(endpoints).collect());
        put(&mut apply, Kind::Service, used().map(routed).collect());
        let listening = Listening { facts: ArcSwap::from_pointee(Facts::from(&listener())) };
        Self { shared, listening, caller }
    }

    /// The name of a Service in use, another one for each step.
    pub(crate) fn used(step: u64) -> String {
        let number = crate::instructions::draw(step) % u64::from(NAMES / IN_USE) * u64::from(IN_USE);
        format!("web-{number}")
    }
}

/// The endpoint 10.0.x.y, ready and meant for everybody.
pub(crate) fn endpoint(number: u16) -> Endpoint {
    let [high, low] = number.to_be_bytes();
    Endpoint {
        address: SocketAddr::from(([10, 0, high, low], 8080)),
        ready: true,
        serving: true,
        terminating: false,
        node: None,
        account: None,
        hints: None,
    }
}

fn put(apply: &mut Apply, kind: Kind, resources: Vec<Resource>) {
    let upserts = resources.into_iter().map(Arc::new).collect();
    let update = Update { kind, upserts, removed: Vec::new(), complete: true, ack: Ack::unheard() };
    apply.update(update, &mut NoPorts);
}

/// The Services in use.
fn used() -> impl Iterator<Item = u16> {
    (0..NAMES).step_by(usize::from(IN_USE))
}

fn service(number: u16) -> ServiceName {
    ServiceName::new("shop", format!("web-{number}"))
}

fn mesh() -> Resource {
    Resource::Mesh(Mesh {
        zones: ["maesh", "traefik.mesh"].iter().map(|zone| zone.parse().expect("a zone")).collect(),
        cluster_domain: "cluster.local".into(),
        fail_to_plain: true,
        bypass: false,
        access_control: maesh_config::model::AccessControl::Off,
        access_sources: Vec::new(),
        controllers: Vec::new(),
    })
}

fn pod(address: IpAddr) -> Resource {
    Resource::Workload(Workload {
        address: address.into(),
        kind: WorkloadKind::Pod,
        namespace: Some("shop".into()),
        name: "caller".into(),
        service_account: Some("default".into()),
        node: Some("n1".into()),
        zone: None,
    })
}

fn name(number: u16) -> Resource {
    let ports = vec![NamePort { number: PORT, protocol: Protocol::Http, name: None, listen: PORT, scheme: None }];
    let service = service(number);
    Resource::Name(Name { service, answer: Answer::Node, plain: Vec::new(), headless: false, ports })
}

/// A Service that sends a part of its requests to itself and the rest to two others.
fn routed(number: u16) -> Resource {
    let weights = [(number, 80), ((number + IN_USE) % NAMES, 15), ((number + 2 * IN_USE) % NAMES, 5)];
    let backends = weights.map(|(number, weight)| Backend { service: service(number), port: PORT, weight }).into();
    let port = ServicePort {
        number: PORT,
        name: None,
        protocol: Protocol::Http,
        leaving: false,
        routes: vec![Route { rule: None, backends, not_understood: None }],
        called: Arc::default(),
        backend: Arc::default(),
    };
    Resource::Service(Service { name: service(number), ports: vec![port] })
}

fn endpoints(number: u16) -> Resource {
    let endpoints = (0..3).map(|place| endpoint(number * 3 + place)).collect();
    let ports =
        vec![PortEndpoints { number: PORT, protocol: Protocol::Http, endpoints, access: Vec::new(), open: false }];
    Resource::Endpoints(Endpoints { service: service(number), ports })
}

fn listener() -> Listener {
    let claim = |number| Claim { host: format!("*.web-{number}.example.com").into(), service: service(number) };
    Listener {
        id: ListenerId::new(Bind::Shared, PORT, Transport::Tcp),
        bind: Bind::Shared,
        port: PORT,
        transport: Transport::Tcp,
        owner: None,
        http: true,
        tls: false,
        hosts: used().map(claim).collect(),
        sni: Vec::new(),
    }
}
