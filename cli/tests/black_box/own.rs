//! Own addresses on a real Kubernetes API with a real kube-proxy and a real EndpointSlice controller: a Service goes
//! from the shared address to one of its own and back while callers use it, those too who remember an answer for its
//! whole life, and none of them fails.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::support::{
    await_condition,
    backend::Backend,
    manifest::slices,
    resolver::resolve,
    roles::{Mesh, Role, outage},
};
use hickory_proto::rr::RecordType;
use maesh_test_support::tool;
use maesh_testkube::{ApiServer, Process};

/// How long dns answers plain addresses beside a proxy that was dead, once its stream is back.
const CATCH_UP: Duration = Duration::from_secs(150);
/// How long callers may remember an answer: its TTL.
const TTL: Duration = Duration::from_secs(5);
/// The horizon that the controller is told.
const HORIZON: Duration = Duration::from_secs(8);
/// Pause of a caller between two connections.
const PACE: Duration = Duration::from_millis(10);
const NAME: &str = "db.shop.maesh";
const PLAIN: &str = "10.96.0.103";

fn objects(db: SocketAddr) -> String {
    let mut text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n\
                    ---\napiVersion: v1\nkind: Namespace\nmetadata: {name: maesh}\n"
        .to_owned();
    for number in [1, 2] {
        text += &format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: n{number}}}\n\
             spec: {{podCIDR: 10.244.{number}.0/24, podCIDRs: [10.244.{number}.0/24]}}\n\
             ---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: proxy-{number}\n  namespace: maesh\n  \
             labels: {{app.kubernetes.io/name: maesh, app.kubernetes.io/component: proxy}}\n\
             spec: {{nodeName: n{number}, containers: [{{name: proxy, image: none}}]}}\n"
        );
    }
    text += &format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: db, namespace: shop}}\n\
         spec:\n  clusterIP: {PLAIN}\n  ports:\n  - {{name: main, port: 8080}}\n"
    );
    text + &slices("shop", "db", &[db])
}

#[test]
#[ignore = "long: two horizons of eight seconds"]
fn a_service_gets_an_own_address_and_gives_it_back_and_nobody_fails() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    server.namespace().run(|| everything(&server)).unwrap();
}

fn everything(server: &ApiServer) {
    // What kube-proxy does not lead elsewhere is refused, not lost.
    server.namespace().make_local("10.96.0.0/16").unwrap();
    let db = Backend::http_at("db", "10.244.1.8");
    server.apply(&objects(db.address)).unwrap();
    for number in [1, 2] {
        ready(server, number);
    }
    let _control = control(server);
    let horizon = format!("{}s", HORIZON.as_secs());
    let mut mesh = Mesh::start_with(server, &["--id", "controller", "--horizon", &horizon]);
    mesh.await_ready();
    await_condition("kube-proxy leads to the plain address", || exchange(caller(1), PLAIN.parse().unwrap()).ok());
    await_answer(&mesh, Role::Proxy1.address());

    let load = Load::start(&mesh);
    outage(TTL);
    annotate(server, "maesh.containo.us/traffic-type=tcp");
    let begun = Instant::now();
    let own = await_condition("the name answers an own address", || {
        answer(&mesh).filter(|address| *address != Role::Proxy1.address() && address.to_string() != PLAIN)
    });
    println!("{own} is answered {:?} after the annotation", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    outage(HORIZON + 2 * TTL);

    annotate(server, "maesh.containo.us/traffic-type-");
    await_answer(&mesh, Role::Proxy1.address());
    outage(HORIZON + 2 * TTL);
    let used = load.finish();
    for address in [own, Role::Proxy1.address()] {
        assert!(used.iter().any(|(at, count)| *at == address && *count > 100), "{address} was used: {used:?}");
    }
    await_condition("the own address is given back", || {
        let gone = server.kubectl().args(["get", "service", "--namespace", "maesh", "maesh-own-0"]).output();
        (!gone.unwrap().status.success()).then_some(())
    });
    plain_when_it_must_be(server, &mut mesh);
}

/// An own address is answered neither by bypass nor while no proxy is there, with the controller or without.
fn plain_when_it_must_be(server: &ApiServer, mesh: &mut Mesh) {
    let plain: IpAddr = PLAIN.parse().unwrap();
    let own = |mesh: &Mesh| {
        await_condition("an own address", || {
            answer(mesh).filter(|address| *address != Role::Proxy1.address() && *address != plain)
        })
    };
    annotate(server, "maesh.containo.us/traffic-type=tcp");
    own(mesh);
    annotate(server, "maesh.containo.us/bypass=true");
    await_answer(mesh, plain);
    annotate(server, "maesh.containo.us/bypass-");
    own(mesh);
    mesh.kill(Role::Controller);
    let begun = Instant::now();
    for proxy in [Role::Proxy1, Role::Proxy2] {
        mesh.kill(proxy);
    }
    await_answer(mesh, plain);
    println!("no proxy and no controller: the plain address is answered after {:?}", begun.elapsed());
    for role in [Role::Proxy1, Role::Proxy2, Role::Controller] {
        mesh.start_role(role);
        mesh.await_role(role);
    }
    // Beside a proxy that was dead the plain address is answered until kube-proxy has surely caught up.
    let begun = Instant::now();
    while begun.elapsed() < CATCH_UP && answer(mesh).is_none_or(|address| address == plain) {
        std::thread::park_timeout(Duration::from_millis(100));
    }
    own(mesh);
}

/// The controller of EndpointSlices, and kube-proxy of node n1. Their last words are printed where the test fails.
struct Control([Process; 2]);

impl Drop for Control {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.iter().for_each(|process| eprintln!("---\n{}", process.last_words()));
        }
    }
}

fn control(server: &ApiServer) -> Control {
    let kubeconfig = format!("--kubeconfig={}", server.kubeconfig().display());
    let mut manager = server.namespace().command(tool("kube-controller-manager").unwrap());
    manager.args([&kubeconfig, "--controllers=endpointslice-controller", "--leader-elect=false"]);
    let mut proxy = server.namespace().command(tool("kube-proxy").unwrap());
    proxy.args([&kubeconfig, "--proxy-mode=nftables", "--hostname-override=n1", "--cluster-cidr=10.244.0.0/16"]);
    proxy.args(["--conntrack-max-per-core=0", "--conntrack-min=0"]);
    let start = |command, name: &str| Process::start(command, &server.namespace().folder().join(name)).unwrap();
    Control([start(manager, "kube-controller-manager.log"), start(proxy, "kube-proxy.log")])
}

/// Says what a kubelet says of its node, without which kube-proxy does not begin, and of a proxy's pod that is ready.
fn ready(server: &ApiServer, number: u8) {
    let address = [Role::Proxy1, Role::Proxy2][usize::from(number) - 1].address();
    let node = format!(r#"{{"status":{{"addresses":[{{"type":"InternalIP","address":"10.89.0.{number}"}}]}}}}"#);
    let pod = format!(
        r#"{{"status":{{"phase":"Running","podIP":"{address}","podIPs":[{{"ip":"{address}"}}],"conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
    );
    for (kind, name, status) in [("node", format!("n{number}"), node), ("pod", format!("proxy-{number}"), pod)] {
        let patch = ["patch", kind, "--namespace", "maesh", "--subresource", "status", "--patch", &status, &name];
        assert!(server.kubectl().args(patch).status().unwrap().success());
    }
}

fn annotate(server: &ApiServer, annotation: &str) {
    let annotate = ["annotate", "service", "--namespace", "shop", "db", annotation];
    assert!(server.kubectl().args(annotate).status().unwrap().success());
}

fn caller(number: usize) -> IpAddr {
    format!("10.244.1.{}", 30 + number).parse().unwrap()
}

fn answer(mesh: &Mesh) -> Option<IpAddr> {
    let answer = resolve(caller(1), &mesh.resolvers(), NAME, RecordType::A).ok()?;
    answer.addresses.first().copied()
}

fn await_answer(mesh: &Mesh, address: IpAddr) {
    await_condition(&format!("the name answers {address}"), || (answer(mesh)? == address).then_some(()));
}

/// A connection of its own, over which a request goes and an answer comes back: through an HTTP proxy as well as
/// through one that only carries bytes.
fn exchange(from: IpAddr, to: IpAddr) -> std::io::Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&SocketAddr::new(to, 8080).into(), Duration::from_secs(3))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n").as_bytes())?;
    let mut text = Vec::new();
    let mut part = [0; 4096];
    while !text.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut part)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => text.extend_from_slice(&part[..length]),
        }
    }
    match text.starts_with(b"HTTP/1.1 200 ") {
        true => Ok(()),
        false => Err(std::io::Error::other(String::from_utf8_lossy(&text).into_owned())),
    }
}

/// Callers that ask for the name, each time or once in the life of an answer, and connect to what they were told.
struct Load {
    over: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    callers: Vec<JoinHandle<Vec<(IpAddr, usize)>>>,
}

impl Load {
    fn start(mesh: &Mesh) -> Self {
        let mut load =
            Self { over: Arc::default(), count: Arc::default(), failures: Arc::default(), callers: Vec::new() };
        for number in 0..4 {
            let remembers = if number % 2 == 0 { Duration::ZERO } else { TTL };
            let (over, count, failures) = (load.over.clone(), load.count.clone(), load.failures.clone());
            let (resolvers, from) = (mesh.resolvers(), caller(number));
            load.callers.push(std::thread::spawn(move || {
                let mut used: Vec<(IpAddr, usize)> = Vec::new();
                let mut told: Option<(IpAddr, Instant)> = None;
                let fail = |what: String| failures.lock().unwrap().push(what);
                while !over.load(Ordering::Acquire) {
                    outage(PACE);
                    count.fetch_add(1, Ordering::Relaxed);
                    if told.is_none_or(|(_, at)| at.elapsed() >= remembers) {
                        match resolve(from, &resolvers, NAME, RecordType::A) {
                            Ok(answer) if !answer.addresses.is_empty() => {
                                told = Some((answer.addresses[0], Instant::now()));
                            }
                            other => {
                                fail(format!("{NAME}: {other:?}"));
                                continue;
                            }
                        }
                    }
                    let Some((address, at)) = told else { continue };
                    match exchange(from, address) {
                        Ok(()) => match used.iter_mut().find(|(known, _)| *known == address) {
                            Some((_, count)) => *count += 1,
                            None => used.push((address, 1)),
                        },
                        Err(error) => fail(format!("{address}, told {:?} ago: {error}", at.elapsed())),
                    }
                }
                used
            }));
        }
        load
    }

    /// Ends it. Returns how often which address was used.
    fn finish(self) -> Vec<(IpAddr, usize)> {
        self.over.store(true, Ordering::Release);
        let used: Vec<_> = self.callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
        let failures = self.failures.lock().unwrap();
        println!("{} connections, {} failed; {used:?}", self.count.load(Ordering::Relaxed), failures.len());
        assert!(failures.is_empty(), "{} failed, at first: {:#?}", failures.len(), &failures[..failures.len().min(9)]);
        used
    }
}
