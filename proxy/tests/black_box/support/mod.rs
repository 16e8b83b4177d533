//! A proxy fed by hand, and endpoints that are real sockets on loopback.
#![allow(unreachable_pub)]

pub mod caller;
pub mod endpoints;
pub mod frames;
pub mod tls;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use maesh_config::{
    Kind, Resource, ServiceName,
    model::{
        AccessControl, AccessSource, Answer, Backend, BackendPolicy, Bind, CalledPolicy, Claim, Endpoint, Endpoints,
        Listener, ListenerId, Mesh, Name, NamePort, PortEndpoints, Protocol, Route, Scheme, Service, ServicePort,
        Transport, Workload, WorkloadKind,
    },
};
use maesh_discovery::update::{Ack, Demand, Interest, Rejected, Update};
use maesh_proxy::{Config, Limits, Proxy, start};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
};

pub const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What the mesh is made of, as a controller would compile it.
#[derive(Default)]
pub struct World {
    services: Vec<Service>,
    endpoints: Vec<Endpoints>,
    workloads: Vec<Workload>,
}

/// A proxy and what feeds it.
pub struct Fed {
    pub proxy: Option<Proxy>,
    updates: mpsc::Sender<Update>,
    pub demands: Arc<Mutex<Vec<Demand>>>,
    world: Arc<Mutex<World>>,
    pub connected: watch::Sender<bool>,
    pub report: watch::Receiver<bool>,
    /// Resources are delivered on demand.
    pub answering: watch::Sender<bool>,
}

pub fn service(name: &str) -> ServiceName {
    let (name, namespace) = name.split_once('.').expect("service.namespace");
    ServiceName::new(namespace, name)
}

pub fn policy(scheme: Scheme) -> BackendPolicy {
    BackendPolicy { scheme, ..BackendPolicy::default() }
}

pub fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint { address, ready: true, serving: true, terminating: false, node: None, account: None, hints: None }
}

pub fn config() -> Config {
    Config {
        shared: vec![LOCAL],
        loopback_endpoints: true,
        workers: 2,
        drain_horizon: Duration::ZERO,
        drain_timeout: Duration::from_secs(5),
        ..Config::default()
    }
}

/// A proxy with the Service `web.shop`, the address of that, and its endpoint, which says what it was asked.
pub async fn echoing() -> (Fed, SocketAddr, endpoints::Server) {
    echoing_with(config()).await
}

/// The same with another configuration.
pub async fn echoing_with(config: Config) -> (Fed, SocketAddr, endpoints::Server) {
    let fed = Fed::new(config).await;
    fed.begin().await;
    let server = endpoints::echo(false, "one").await;
    let address = fed.http("web.shop", Scheme::Http, &[server.address]).await;
    (fed, address, server)
}

/// One worker, and little patience with idle connections while a port is leaving.
pub fn hasty() -> Config {
    let limits = Limits { keep_alive_leaving: Duration::from_millis(100), ..Limits::default() };
    Config { workers: 1, limits, ..config() }
}

/// An address that refuses every connection, for as long as the tests run: its port belongs to a socket that does not listen,
/// so that no other test gets it.
pub fn refusing(ip: IpAddr) -> SocketAddr {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(SocketAddr::new(ip, 0)), socket2::Type::STREAM, None)
            .expect("a socket");
    socket.bind(&SocketAddr::new(ip, 0).into()).expect("bound");
    let address = socket.local_addr().expect("bound").as_socket().expect("an address");
    std::mem::forget(socket);
    address
}

/// A port that nobody uses at this moment, for TCP or for UDP. It is none of those that the system gives to whoever asks for any, or
/// another test might get it before it is used.
pub fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    for _ in 0..20_000 {
        let next = std::process::id().wrapping_mul(997).wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + u16::try_from(next % 20_000).expect("small");
        let (tcp, udp) = (std::net::TcpListener::bind((LOCAL, port)), std::net::UdpSocket::bind((LOCAL, port)));
        if tcp.is_ok() && udp.is_ok() {
            return port;
        }
    }
    panic!("no port is free for both TCP and UDP");
}

impl Fed {
    pub async fn new(config: Config) -> Self {
        let (updates, received) = mpsc::channel(16);
        let (interest, mut wanted) = Interest::new();
        let (report, reported) = watch::channel(false);
        let (connected, connection) = watch::channel(true);
        let (answering, _) = watch::channel(true);
        let proxy = start(config, received, interest, report, connection).await.expect("started");
        let (demands, world) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(World::default())));
        let fed = Self {
            proxy: Some(proxy),
            updates: updates.clone(),
            demands: demands.clone(),
            world: world.clone(),
            connected,
            report: reported,
            answering: answering.clone(),
        };
        let mut answers = answering.subscribe();
        tokio::spawn(async move {
            while let Some(demand) = wanted.recv().await {
                demands.lock().expect("lock").push(demand.clone());
                let Demand::Subscribe(kind, name) = demand else { continue };
                if answers.wait_for(|answering| *answering).await.is_err() {
                    return;
                }
                let found = find(&world.lock().expect("lock"), kind, &name);
                let (upserts, removed) = match found {
                    Some(resource) => (vec![Arc::new(resource)], Vec::new()),
                    None => (Vec::new(), vec![name]),
                };
                let update = Update { kind, upserts, removed, complete: false, ack: Ack::unheard() };
                if updates.send(update).await.is_err() {
                    return;
                }
            }
        });
        fed
    }

    pub async fn push(&self, kind: Kind, upserts: Vec<Resource>, removed: Vec<&str>) -> Vec<Rejected> {
        let (ack, answer) = Ack::new();
        let update = Update {
            kind,
            upserts: upserts.into_iter().map(Arc::new).collect(),
            removed: removed.into_iter().map(Arc::from).collect(),
            complete: true,
            ack,
        };
        self.updates.send(update).await.expect("the proxy runs");
        answer.await.expect("answered")
    }

    /// The mesh without any Service, complete.
    pub async fn begin(&self) {
        self.mesh(false).await;
        self.push(Kind::Listener, Vec::new(), Vec::new()).await;
        self.push(Kind::Name, Vec::new(), Vec::new()).await;
    }

    pub async fn mesh(&self, access_control: bool) {
        let control = if access_control { AccessControl::On } else { AccessControl::Off };
        self.mesh_with(control, Vec::new()).await;
    }

    /// The same, with ServiceAccounts for addresses that are no pods'.
    pub async fn mesh_with(&self, access_control: AccessControl, access_sources: Vec<AccessSource>) {
        let zones = ["maesh", "traefik.mesh"].iter().map(|zone| zone.parse().expect("zone")).collect();
        let mesh = Mesh {
            zones,
            cluster_domain: "cluster.local".into(),
            fail_to_plain: true,
            bypass: false,
            access_control,
            access_sources,
            controllers: Vec::new(),
        };
        self.push(Kind::Mesh, vec![Resource::Mesh(mesh)], Vec::new()).await;
    }

    /// Opens a shared HTTP listener and returns its address.
    pub async fn listen(&self, hosts: &[(&str, &str)]) -> SocketAddr {
        self.listen_on(free_port(), None, true, hosts).await
    }

    pub async fn listen_on(
        &self,
        port: u16,
        owner: Option<(&str, u16)>,
        http: bool,
        hosts: &[(&str, &str)],
    ) -> SocketAddr {
        let listener = listener(port, owner, http, hosts);
        let rejected = self.push(Kind::Listener, vec![Resource::Listener(listener)], Vec::new()).await;
        assert_eq!(rejected, Vec::new());
        SocketAddr::new(LOCAL, port)
    }

    /// Names a Service whose port `number` is reached on `listen`.
    pub async fn name(&self, name: &str, number: u16, listen: u16, protocol: Protocol, plain: &[IpAddr]) {
        self.name_with(name, number, listen, (protocol, None), plain).await;
    }

    /// The same, where the endpoints of the port are spoken to in some scheme.
    pub async fn name_with(
        &self,
        name: &str,
        number: u16,
        listen: u16,
        (protocol, scheme): (Protocol, Option<Scheme>),
        plain: &[IpAddr],
    ) {
        let name = Name {
            service: service(name),
            answer: Answer::Node,
            plain: plain.to_vec(),
            headless: false,
            ports: vec![NamePort { number, protocol, name: None, listen, scheme }],
        };
        self.push(Kind::Name, vec![Resource::Name(name)], Vec::new()).await;
    }

    /// Puts a pod in the world; delivered when it is asked for.
    pub fn define_pod(&self, address: IpAddr, namespace: &str, node: &str) {
        let workload = Workload {
            address: address.into(),
            kind: WorkloadKind::Pod,
            namespace: Some(namespace.into()),
            name: "caller".into(),
            service_account: Some("default".into()),
            node: Some(node.into()),
            zone: None,
        };
        self.world.lock().expect("lock").workloads.push(workload);
    }

    /// Puts a Service in the world; delivered when it is asked for, or at once with `push`.
    pub fn define(&self, name: &str, number: u16, protocol: Protocol, policy: BackendPolicy, routes: Vec<Route>) {
        let (called, backend) = (Arc::default(), policy.into());
        let leaving = false;
        self.define_port(name, ServicePort { number, name: None, protocol, leaving, routes, called, backend });
    }

    /// A Service that is served in this way not for much longer.
    pub fn define_leaving(&self, name: &str, number: u16, protocol: Protocol) {
        let (routes, called, backend) = (Vec::new(), Arc::default(), policy(Scheme::Http).into());
        self.define_port(name, ServicePort { number, name: None, protocol, leaving: true, routes, called, backend });
    }

    fn define_port(&self, name: &str, port: ServicePort) {
        let made = Service { name: service(name), ports: vec![port] };
        let mut world = self.world.lock().expect("lock");
        world.services.retain(|old| old.name != made.name);
        world.services.push(made);
    }

    pub fn define_endpoints(&self, name: &str, number: u16, protocol: Protocol, endpoints: Vec<Endpoint>) -> Endpoints {
        let mut endpoints = endpoints;
        endpoints.sort();
        let made = Endpoints {
            service: service(name),
            ports: vec![PortEndpoints { number, protocol, endpoints, access: Vec::new(), open: false }],
        };
        let mut world = self.world.lock().expect("lock");
        world.endpoints.retain(|old| old.service != made.service);
        world.endpoints.push(made.clone());
        made
    }

    /// A Service whose port `number` carries TCP and UDP, with an endpoint for each.
    pub fn define_both(&self, name: &str, number: u16, backend: BackendPolicy, (tcp, udp): (SocketAddr, SocketAddr)) {
        let port = |protocol| ServicePort {
            number,
            name: None,
            protocol,
            leaving: false,
            routes: Vec::new(),
            called: Arc::default(),
            backend: backend.clone().into(),
        };
        let behind = |protocol, at| PortEndpoints {
            number,
            protocol,
            endpoints: vec![endpoint(at)],
            access: Vec::new(),
            open: false,
        };
        let ports = [Protocol::Tcp, Protocol::Udp];
        let mut world = self.world.lock().expect("lock");
        world.services.push(Service { name: service(name), ports: ports.map(port).into() });
        let ports = vec![behind(Protocol::Tcp, tcp), behind(Protocol::Udp, udp)];
        world.endpoints.push(Endpoints { service: service(name), ports });
    }

    /// Names such a Service.
    pub async fn name_both(&self, name: &str, number: u16, listen: u16) {
        let ports = [Protocol::Tcp, Protocol::Udp]
            .map(|protocol| NamePort { number, protocol, name: None, listen, scheme: None })
            .into();
        let name = Name { service: service(name), answer: Answer::Node, plain: Vec::new(), headless: false, ports };
        self.push(Kind::Name, vec![Resource::Name(name)], Vec::new()).await;
    }

    pub async fn push_service(&self, name: &str) {
        let found = find(&self.world.lock().expect("lock"), Kind::Service, &service(name).to_string());
        self.push(Kind::Service, vec![found.expect("defined")], Vec::new()).await;
    }

    /// Changes the endpoints of a Service; in force when this returns.
    pub async fn push_endpoints(&self, name: &str, number: u16, protocol: Protocol, endpoints: Vec<Endpoint>) {
        let made = self.define_endpoints(name, number, protocol, endpoints);
        self.push(Kind::Endpoints, vec![Resource::Endpoints(made)], Vec::new()).await;
    }

    /// A whole HTTP Service with these endpoints on a shared listener of its own; returns the listener's address.
    pub async fn http(&self, name: &str, scheme: Scheme, endpoints: &[SocketAddr]) -> SocketAddr {
        let address = self.listen(&[]).await;
        self.define(name, address.port(), Protocol::Http, policy(scheme), Vec::new());
        let endpoints = endpoints.iter().map(|address| endpoint(*address)).collect();
        self.define_endpoints(name, address.port(), Protocol::Http, endpoints);
        self.name(name, address.port(), address.port(), Protocol::Http, &[]).await;
        address
    }

    /// As [`Self::http`], with these policies.
    pub async fn http_with(
        &self,
        name: &str,
        called: CalledPolicy,
        backend: BackendPolicy,
        endpoints: &[SocketAddr],
    ) -> SocketAddr {
        let address = self.listen(&[]).await;
        let (number, routes) = (address.port(), Vec::new());
        let (protocol, called, backend) = (Protocol::Http, called.into(), backend.into());
        self.define_port(name, ServicePort { number, name: None, protocol, leaving: false, routes, called, backend });
        let endpoints = endpoints.iter().map(|address| endpoint(*address)).collect();
        self.name(name, number, number, protocol, &[]).await;
        // Another version of it may be in force.
        self.push_service(name).await;
        self.push_endpoints(name, number, protocol, endpoints).await;
        address
    }

    pub fn metrics(&self) -> String {
        let registry = self.proxy.as_ref().expect("running").registry();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry.lock()).expect("encoded");
        text
    }

    /// The sum of the series of this name that have all of these labels (`cause="policy"`).
    pub fn counted(&self, name: &str, labels: &[&str]) -> u64 {
        let text = self.metrics();
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let wanted = text.lines().filter(of_name).filter(|line| labels.iter().all(|label| line.contains(label)));
        let number = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse::<u64>().ok());
        wanted.map(|line| number(line).unwrap_or_else(|| panic!("{line}"))).sum()
    }
}

pub fn listener(port: u16, owner: Option<(&str, u16)>, http: bool, hosts: &[(&str, &str)]) -> Listener {
    let bind = if owner.is_some() { Bind::Address(LOCAL) } else { Bind::Shared };
    Listener {
        id: ListenerId::new(bind, port, Transport::Tcp),
        bind,
        port,
        transport: Transport::Tcp,
        owner: owner.map(|(name, number)| (service(name), number)),
        http,
        tls: false,
        hosts: hosts.iter().map(|(host, name)| Claim { host: (*host).into(), service: service(name) }).collect(),
        sni: Vec::new(),
    }
}

pub fn to(name: &str, port: u16, weight: u32) -> Backend {
    Backend { service: service(name), port, weight }
}

fn find(world: &World, kind: Kind, name: &str) -> Option<Resource> {
    match kind {
        Kind::Service => {
            let found = world.services.iter().find(|service| service.name.to_string() == name)?;
            Some(Resource::Service(found.clone()))
        }
        Kind::Endpoints => {
            let found = world.endpoints.iter().find(|endpoints| endpoints.service.to_string() == name)?;
            Some(Resource::Endpoints(found.clone()))
        }
        Kind::Workload => {
            let found = world.workloads.iter().find(|workload| &*workload.resource_name() == name)?;
            Some(Resource::Workload(found.clone()))
        }
        _ => None,
    }
}

/// A connection that says and hears bytes.
pub struct Raw {
    pub stream: TcpStream,
    heard: Vec<u8>,
}

impl Raw {
    pub async fn to(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).await.expect("connected"))
    }

    pub fn of(stream: TcpStream) -> Self {
        Self { stream, heard: Vec::new() }
    }

    pub async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("written");
    }

    /// Reads one response with a Content-Length (or none): head and body.
    pub async fn hear(&mut self) -> (String, String) {
        let head = self.head().await;
        let mut bytes = std::mem::take(&mut self.heard);
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.trim().parse::<usize>().expect("a number"));
        while bytes.len() < length {
            let mut some = [0; 1024];
            let read = within(self.stream.read(&mut some)).await.expect("read");
            assert!(read > 0, "closed within the body");
            bytes.extend_from_slice(&some[..read]);
        }
        self.heard = bytes.split_off(length);
        (head, String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Reads the head of a response.
    pub async fn head(&mut self) -> String {
        let mut bytes = std::mem::take(&mut self.heard);
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let mut some = [0; 1024];
            let read = within(self.stream.read(&mut some)).await.expect("read");
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&some[..read]);
        };
        self.heard = bytes.split_off(end);
        String::from_utf8(bytes).expect("text").to_ascii_lowercase()
    }

    /// Reads until `text` has come.
    pub async fn until(&mut self, text: &str) {
        while !self.heard.windows(text.len()).any(|part| part == text.as_bytes()) {
            let read = within(self.stream.read_buf(&mut self.heard)).await.expect("read");
            assert!(read > 0, "closed before {text:?}: {:?}", String::from_utf8_lossy(&self.heard));
        }
    }

    /// Reads until the other side closes.
    pub async fn rest(&mut self) -> String {
        let mut bytes = std::mem::take(&mut self.heard);
        // A reset is an end too.
        let _ = within(self.stream.read_to_end(&mut bytes)).await;
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// One request on a connection of its own.
pub async fn ask(address: SocketAddr, request: &str) -> (String, String) {
    let mut raw = Raw::to(address).await;
    raw.say(request).await;
    raw.hear().await
}

pub fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// No wait of a test is longer than this.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}
