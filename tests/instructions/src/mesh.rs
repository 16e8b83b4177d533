//! A running proxy with one Service, and the Service's endpoint.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use maesh_config::{
    Resource, ServiceName,
    model::{
        AccessControl, Account, AccountAccess, Answer, Bind, Endpoint, Endpoints, Grant, Listener, ListenerId, Mesh,
        Name, NamePort, PortEndpoints, Protocol, Service, ServicePort, Transport, Workload, WorkloadKind,
    },
};
use maesh_discovery::update::{Ack, Interest, Update};
use maesh_proxy::{Config, Proxy, start};
use tokio::sync::{mpsc, watch};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What the endpoint answers, with a body of 128 bytes.
pub(crate) const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nserver: nginx\r\ndate: Fri, 01 Jan 2027 00:00:00 GMT\r\n\
    content-type: text/plain\r\ncontent-length: 128\r\nconnection: keep-alive\r\n\r\n\
    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// Who is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody: access control is off.
    Off,
    /// The caller, to everything.
    Everything,
    /// The caller, to requests of two methods below a path.
    ByPath,
}

impl Access {
    /// The grants of the Service's endpoints.
    fn grants(self) -> Vec<AccountAccess> {
        let rules = match self {
            Self::Off => return Vec::new(),
            Self::Everything => Vec::new(),
            Self::ByPath => {
                let rule = "(Method(`GET`) || Method(`HEAD`)) && PathRegexp(`^(?:/)`)";
                vec![maesh_config::rule::parse(rule).expect("a rule").rule]
            }
        };
        let sources = vec![Arc::new(Account::new("shop", "caller"))];
        let grants = vec![Grant { target: "callers".into(), sources, rules }];
        vec![AccountAccess { account: Arc::new(Account::new("shop", "web")), grants }]
    }
}

/// A proxy that carries `web.shop` to an endpoint of this process.
pub(crate) struct RunningMesh {
    /// Where callers reach the Service.
    pub(crate) address: SocketAddr,
    _proxy: Proxy,
    _updates: mpsc::Sender<Update>,
}

impl RunningMesh {
    /// One worker carries what callers send.
    pub(crate) async fn start(protocol: Protocol, access: Access) -> Result<Self> {
        let (updates, received) = mpsc::channel(1);
        let config = Config { shared: vec![LOCAL], loopback_endpoints: true, workers: 1, ..Config::default() };
        let (report, connected) = (watch::channel(false).0, watch::channel(true).1);
        let proxy = start(config, received, Interest::new().0, report, connected).await?;
        let port = TcpListener::bind((LOCAL, 0))?.local_addr()?.port();
        for resource in resources(protocol, access, port, endpoint()?) {
            let (ack, answer) = Ack::new();
            let (kind, upserts) = (resource.kind(), vec![Arc::new(resource)]);
            updates.send(Update { kind, upserts, removed: Vec::new(), complete: true, ack }).await?;
            ensure!(answer.await?.is_empty(), "{kind:?} was refused");
        }
        Ok(Self { address: SocketAddr::new(LOCAL, port), _proxy: proxy, _updates: updates })
    }
}

/// A thread that answers every request on one connection after the other with [`ANSWER`].
fn endpoint() -> Result<SocketAddr> {
    let listener = TcpListener::bind((LOCAL, 0))?;
    let address = listener.local_addr()?;
    std::thread::Builder::new().name("endpoint".to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks off is over.
            let _ = answer(stream);
        }
    })?;
    Ok(address)
}

/// Requests come whole, because they are small and their senders wait for the answer.
fn answer(mut stream: TcpStream) -> Result<()> {
    let mut request = [0; 4096];
    loop {
        let read = stream.read(&mut request)?;
        if read == 0 {
            return Ok(());
        }
        ensure!(request[..read].ends_with(b"\r\n\r\n"), "half a request");
        stream.write_all(ANSWER).context("answering")?;
    }
}

fn resources(protocol: Protocol, access: Access, port: u16, endpoint: SocketAddr) -> [Resource; 6] {
    let service = ServiceName::new("shop", "web");
    let owner = (protocol != Protocol::Http).then(|| (service.clone(), port));
    let bind = Bind::Shared;
    let mesh = Mesh {
        zones: vec!["maesh".parse().expect("a zone")],
        cluster_domain: "cluster.local".into(),
        fail_to_plain: true,
        bypass: false,
        access_control: if access == Access::Off { AccessControl::Off } else { AccessControl::On },
        access_sources: Vec::new(),
        controllers: Vec::new(),
    };
    let (transport, http) = (Transport::Tcp, owner.is_none());
    let listener = Listener {
        id: ListenerId::new(bind, port, transport),
        bind,
        port,
        transport,
        owner,
        http,
        tls: false,
        hosts: Vec::new(),
        sni: Vec::new(),
    };
    let ports = vec![NamePort { number: port, protocol, name: None, listen: port, scheme: None }];
    let name = Name { service: service.clone(), answer: Answer::Node, plain: Vec::new(), headless: false, ports };
    let of_service = ServicePort {
        number: port,
        name: None,
        protocol,
        leaving: false,
        routes: Vec::new(),
        called: Arc::default(),
        backend: Arc::default(),
    };
    let ready = Endpoint {
        address: endpoint,
        ready: true,
        serving: true,
        terminating: false,
        node: None,
        account: (access != Access::Off).then_some(0),
        hints: None,
    };
    let behind = PortEndpoints { number: port, protocol, endpoints: vec![ready], access: access.grants(), open: false };
    let caller = Workload {
        address: LOCAL.into(),
        kind: WorkloadKind::Pod,
        namespace: Some("shop".into()),
        name: "caller-1".into(),
        service_account: Some("caller".into()),
        node: None,
        zone: None,
    };
    [
        Resource::Mesh(mesh),
        Resource::Workload(caller),
        Resource::Endpoints(Endpoints { service: service.clone(), ports: vec![behind] }),
        Resource::Service(Service { name: service, ports: vec![of_service] }),
        Resource::Name(name),
        Resource::Listener(listener),
    ]
}
