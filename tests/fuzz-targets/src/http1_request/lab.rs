//! A proxy with one Service, and the endpoint of that, which reads as carefully as it can.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use maesh_config::{
    Kind, Resource, ServiceName,
    model::{
        Answer, Bind, Endpoint, Endpoints, Listener, ListenerId, Mesh, Name, NamePort, PortEndpoints, Protocol,
        Service, ServicePort, Transport,
    },
};
use maesh_discovery::update::{Ack, Demand, Interest, Update};
use maesh_proxy::{Config, Proxy, start};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream as AsyncStream,
    runtime::Runtime,
    sync::{mpsc, watch},
};

use super::reader::{ENDPOINT, Request, read};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// No exchange takes longer.
const LONGEST: Duration = Duration::from_secs(4);

/// What HTTP/2 begins with: calls of gRPC get it, whatever else the endpoint speaks.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What an endpoint and a caller heard of each other.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Whole requests that the endpoint got, by their numbers.
    pub(super) requests: Vec<(u64, Request)>,
    /// What it got that is none.
    pub(super) violations: Vec<String>,
    /// The bytes that the caller got.
    pub(super) answers: Vec<u8>,
}

/// What the endpoint notes.
#[derive(Debug, Default)]
struct Notes {
    count: u64,
    heard: Heard,
}

pub(super) struct Lab {
    address: SocketAddr,
    notes: Arc<Mutex<Notes>>,
    _running: (Runtime, Proxy),
}

pub(super) static LAB: LazyLock<Lab> = LazyLock::new(Lab::start);

impl Lab {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("threads");
        let notes = Arc::<Mutex<Notes>>::default();
        let (proxy, address) = runtime.block_on(async {
            let endpoint = endpoint(notes.clone()).await;
            // Nobody else takes it before the proxy does, but by bad luck.
            let port = TcpListener::bind((LOCAL, 0)).and_then(|it| it.local_addr()).expect("a port").port();
            (proxy(port, endpoint).await, SocketAddr::new(LOCAL, port))
        });
        Self { address, notes, _running: (runtime, proxy) }
    }

    /// Sends `segments` to the proxy, ends, and waits for the end.
    pub(super) fn ask(&self, segments: &[&[u8]]) -> Heard {
        let mut stream = TcpStream::connect(self.address).expect("connected");
        stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(LONGEST))).expect("set");
        // The proxy may end the connection at any time: at the first thing that is not HTTP, say.
        let _ = segments.iter().try_for_each(|segment| stream.write_all(segment));
        let _ = stream.shutdown(Shutdown::Write);
        let mut answers = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answers) {
            let is_late = matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
            assert!(!is_late, "no end after {:?}", String::from_utf8_lossy(&answers));
        }
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        Heard { answers, ..std::mem::take(&mut notes.heard) }
    }
}

/// Starts the endpoint.
async fn endpoint(notes: Arc<Mutex<Notes>>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((LOCAL, 0)).await.expect("bound");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, notes.clone()));
        }
    });
    address
}

/// Answers what is a request, and ends at the first thing that is none.
async fn serve(mut stream: AsyncStream, notes: Arc<Mutex<Notes>>) {
    let mut bytes = Vec::new();
    loop {
        let answer = match read(&bytes, &ENDPOINT) {
            Ok(None) => {
                if bytes.starts_with(PREFACE) || !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                    return;
                }
                continue;
            }
            Ok(Some((request, []))) => {
                let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
                notes.count += 1;
                let number = notes.count;
                notes.heard.requests.push((number, request));
                format!("HTTP/1.1 200 OK\r\nx-number: {number}\r\ncontent-length: 0\r\n\r\n")
            }
            Ok(Some((_, more))) => {
                let more = String::from_utf8_lossy(more);
                return note_violation(&notes, format!("{more:?} after a request"));
            }
            Err(_) if bytes.starts_with(&PREFACE[..PREFACE.len().min(bytes.len())]) => return,
            Err(why) => return note_violation(&notes, format!("{why}: {:?}", String::from_utf8_lossy(&bytes))),
        };
        bytes.clear();
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn note_violation(notes: &Mutex<Notes>, what: String) {
    notes.lock().unwrap_or_else(PoisonError::into_inner).heard.violations.push(what);
}

/// Starts a proxy on whose `port` everything is for one Service.
async fn proxy(port: u16, endpoint: SocketAddr) -> Proxy {
    let config = Config {
        shared: vec![LOCAL],
        loopback_endpoints: true,
        workers: 1,
        drain_horizon: Duration::ZERO,
        ..Config::default()
    };
    let (sender, updates) = mpsc::channel(16);
    let (interest, demands) = Interest::new();
    let (report, _) = watch::channel(false);
    let (_, connected) = watch::channel(true);
    let proxy = start(config, updates, interest, report, connected).await.expect("started");
    let service = ServiceName::new("shop", "web");
    tokio::spawn(answer_demands(demands, sender.clone(), on_demand(&service, endpoint)));
    for (kind, resource) in known(&service, port) {
        let (ack, answer) = Ack::new();
        let update = Update { kind, upserts: vec![Arc::new(resource)], removed: Vec::new(), complete: true, ack };
        sender.send(update).await.expect("the proxy runs");
        assert_eq!(answer.await.expect("answered"), Vec::new());
    }
    proxy
}

/// Delivers what there is, and says of all else that there is none.
async fn answer_demands(
    mut demands: mpsc::UnboundedReceiver<Demand>,
    sender: mpsc::Sender<Update>,
    known: Vec<Resource>,
) {
    while let Some(demand) = demands.recv().await {
        let Demand::Subscribe(kind, name) = demand else { continue };
        let found = known.iter().find(|it| it.kind() == kind && it.key().name == name).cloned();
        let (upserts, removed) = match found {
            Some(resource) => (vec![Arc::new(resource)], Vec::new()),
            None => (Vec::new(), vec![name]),
        };
        if sender.send(Update { kind, upserts, removed, complete: false, ack: Ack::unheard() }).await.is_err() {
            return;
        }
    }
}

/// What every proxy knows.
fn known(service: &ServiceName, port: u16) -> [(Kind, Resource); 3] {
    let mesh = Mesh {
        zones: vec!["maesh".parse().expect("a zone")],
        cluster_domain: "cluster.local".into(),
        fail_to_plain: true,
        bypass: false,
        access_control: maesh_config::model::AccessControl::Off,
        access_sources: Vec::new(),
        controllers: Vec::new(),
    };
    let bind = Bind::Address(LOCAL);
    let listener = Listener {
        id: ListenerId::new(bind, port, Transport::Tcp),
        bind,
        port,
        transport: Transport::Tcp,
        owner: Some((service.clone(), 80)),
        http: true,
        tls: false,
        hosts: Vec::new(),
        sni: Vec::new(),
    };
    let ports = vec![NamePort { number: 80, protocol: Protocol::Http, name: None, listen: port, scheme: None }];
    let name = Name { service: service.clone(), answer: Answer::Node, plain: Vec::new(), headless: false, ports };
    [
        (Kind::Mesh, Resource::Mesh(mesh)),
        (Kind::Listener, Resource::Listener(listener)),
        (Kind::Name, Resource::Name(name)),
    ]
}

/// What a proxy asks for once the Service is called.
fn on_demand(service: &ServiceName, endpoint: SocketAddr) -> Vec<Resource> {
    let port = ServicePort {
        number: 80,
        name: None,
        protocol: Protocol::Http,
        leaving: false,
        routes: Vec::new(),
        called: Arc::default(),
        backend: Arc::default(),
    };
    let endpoint = Endpoint {
        address: endpoint,
        ready: true,
        serving: true,
        terminating: false,
        node: None,
        account: None,
        hints: None,
    };
    let ports = vec![PortEndpoints {
        number: 80,
        protocol: Protocol::Http,
        endpoints: vec![endpoint],
        access: Vec::new(),
        open: false,
    }];
    vec![
        Resource::Service(Service { name: service.clone(), ports: vec![port] }),
        Resource::Endpoints(Endpoints { service: service.clone(), ports }),
    ]
}
