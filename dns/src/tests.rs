//! The whole responder on loopback: what arrives at its sockets, and how it starts, changes and ends.

mod connections;
mod tls;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use maesh_config::{
    Kind, Resource,
    model::{Answer, Mesh, WorkloadKind},
};
use maesh_discovery::{
    ConnectionLimits,
    update::{Ack, Update},
};
use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{
    Config, Dns, Probe, ProbeKind, StreamLimits,
    fixture::{mesh, name, proxy, update, workload, world},
    start,
};

/// Longer than anything here takes, so that a hang is a failure and nothing else is.
const PATIENCE: Duration = Duration::from_secs(20);

struct Responder {
    dns: Dns,
    updates: mpsc::Sender<Update>,
    connected: watch::Sender<bool>,
    registry: Registry,
}

fn config() -> Config {
    Config {
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        lameduck: Duration::from_millis(300),
        ..Config::default()
    }
}

fn responder(config: Config) -> Responder {
    let (updates, receiver) = mpsc::channel(16);
    let (connected, is_connected) = watch::channel(true);
    let mut registry = Registry::default();
    let dns = start(config, receiver, is_connected, &mut registry).expect("starts");
    Responder { dns, updates, connected, registry }
}

impl Responder {
    fn at(&self) -> SocketAddr {
        self.dns.addresses()[0]
    }

    /// Applies an update; returns once it is in force.
    async fn apply(&self, mut update: Update) -> Vec<maesh_discovery::update::Rejected> {
        let (ack, done) = Ack::new();
        update.ack = ack;
        self.updates.send(update).await.expect("it listens");
        timeout(PATIENCE, done).await.expect("in time").expect("an answer")
    }

    async fn synced(config: Config) -> Self {
        let responder = responder(config);
        for update in world() {
            assert_eq!(responder.apply(update).await, []);
        }
        responder
    }

    /// Waits until so many proxies are said to be unreachable.
    async fn unreachable(&self, want: u64) {
        let becomes = async {
            while self.metric("maesh_dns_proxies_unreachable") != Some(want) {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, becomes).await.unwrap_or_else(|_| panic!("never {want} unreachable"));
    }

    fn metric(&self, line: &str) -> Option<u64> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("encodes");
        text.lines().find_map(|have| have.strip_prefix(line)?.strip_prefix(' ')?.parse().ok())
    }
}

/// A query for type A.
fn query(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// The code of a reply, and its last four bytes, which are the last address of an answer.
fn told(reply: &[u8]) -> (u8, [u8; 4]) {
    (reply[3] & 0xf, *reply.last_chunk().expect("a reply"))
}

async fn over_udp(at: SocketAddr, query: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind((at.ip(), 0)).await.expect("a socket");
    socket.connect(at).await.expect("an address");
    socket.send(query).await.expect("sent");
    let mut reply = vec![0; 2048];
    let length = timeout(PATIENCE, socket.recv(&mut reply)).await.expect("in time").expect("a reply");
    reply.truncate(length);
    reply
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

async fn next(stream: &mut TcpStream) -> Vec<u8> {
    let read = async {
        let mut reply = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut reply).await?;
        std::io::Result::Ok(reply)
    };
    timeout(PATIENCE, read).await.expect("in time").expect("a reply")
}

/// Whether the other end closed the connection.
async fn closed(stream: &mut TcpStream) -> bool {
    // A reset is as good as an end.
    timeout(PATIENCE, stream.read_u8()).await.expect("in time").is_err()
}

#[tokio::test]
async fn both_transports_from_start_to_stop() {
    let responder = responder(config());
    let at = responder.at();
    assert_eq!(told(&over_udp(at, &query(1, "db.shop.maesh")).await).0, 2, "SERVFAIL before anything is known");
    let mut ready = responder.dns.ready();
    assert!(!*ready.borrow());
    for update in world() {
        assert_eq!(responder.apply(update).await, []);
    }
    timeout(PATIENCE, ready.wait_for(|ready| *ready)).await.expect("in time").expect("it lives");

    let want = (0, [10, 200, 0, 7]);
    assert_eq!(told(&over_udp(at, &query(1, "db.shop.maesh")).await), want);
    let mut stream = TcpStream::connect(at).await.expect("connects");
    stream.write_all(&framed(&query(1, "db.shop.maesh"))).await.expect("sent");
    assert_eq!(told(&next(&mut stream).await), want);
    assert_eq!(responder.metric("maesh_dns_queries_total{transport=\"udp\",type=\"A\"}"), Some(2));
    assert_eq!(responder.metric("maesh_dns_queries_total{transport=\"tcp\",type=\"A\"}"), Some(1));
    assert_eq!(responder.metric("maesh_dns_responses_total{rcode=\"SERVFAIL\"}"), Some(1));
    assert_eq!(responder.metric("maesh_dns_connections"), Some(1));
    assert_eq!(responder.metric("maesh_dns_services"), Some(10));

    let stopping = tokio::spawn(responder.dns.stop());
    timeout(PATIENCE, ready.wait_for(|ready| !*ready)).await.expect("in time").expect("it lives");
    assert_eq!(told(&over_udp(at, &query(2, "db.shop.maesh")).await), want, "it answers while it leaves");
    stream.write_all(&framed(&query(2, "db.shop.maesh"))).await.expect("sent");
    assert_eq!(told(&next(&mut stream).await), want);
    timeout(PATIENCE, stopping).await.expect("in time").expect("it ended");
    assert!(closed(&mut stream).await);
    assert!(std::net::UdpSocket::bind(at).is_ok(), "its port is free");
}

#[tokio::test]
async fn a_wildcard_answers_from_the_address_that_was_asked() {
    for (listen, asked) in [("0.0.0.0:0", "127.0.0.9"), ("[::]:0", "::1")] {
        let listen = vec![listen.parse().expect("an address")];
        let responder = Responder::synced(Config { listen, ..config() }).await;
        let at = SocketAddr::new(asked.parse().expect("an address"), responder.at().port());
        // The socket is connected: an answer from another address would not reach it.
        assert_eq!(told(&over_udp(at, &query(1, "db.shop.maesh")).await), (0, [10, 200, 0, 7]), "{asked}");
    }
}

#[tokio::test]
async fn many_queries_at_once() {
    let responder = Responder::synced(config()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    socket.connect(responder.at()).await.expect("an address");
    for id in 0..200 {
        socket.send(&query(id, "db.shop.maesh")).await.expect("sent");
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut reply = [0; 2048];
    while seen.len() < 200 {
        let length = timeout(PATIENCE, socket.recv(&mut reply)).await.expect("in time").expect("a reply");
        assert_eq!(told(&reply[..length]), (0, [10, 200, 0, 7]));
        seen.insert(u16::from_be_bytes([reply[0], reply[1]]));
    }
}

#[tokio::test]
async fn a_stream_of_queries() {
    let responder = Responder::synced(config()).await;
    let mut stream = TcpStream::connect(responder.at()).await.expect("connects");
    let queries: Vec<u8> = (0..500).flat_map(|id| framed(&query(id, "db.shop.maesh"))).collect();
    let (mut reader, mut writer) = stream.split();
    let write = async {
        writer.write_all(&queries).await.expect("sent");
    };
    let read = async {
        for id in 0..500_u16 {
            let mut reply = vec![0; usize::from(reader.read_u16().await.expect("a length"))];
            reader.read_exact(&mut reply).await.expect("a reply");
            assert_eq!((&reply[..2], told(&reply)), (&id.to_be_bytes()[..], (0, [10, 200, 0, 7])));
        }
    };
    timeout(PATIENCE, async { tokio::join!(write, read) }).await.expect("in time");

    for byte in framed(&query(7, "db.shop.maesh")) {
        stream.write_all(&[byte]).await.expect("sent");
        stream.flush().await.expect("sent");
    }
    assert_eq!(told(&next(&mut stream).await).0, 0, "byte by byte");
}

#[tokio::test]
async fn connections_that_end() {
    let limits = StreamLimits { idle: Duration::from_millis(200), ..StreamLimits::of(1024) };
    let responder = Responder::synced(Config { tcp: limits, ..config() }).await;
    let too_long = [&[0xff, 0xff][..], &[0; 100]].concat();
    let response = framed(&[0, 1, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for (case, sent) in [
        ("nothing for too long", &[][..]),
        ("a part for too long", &framed(&query(1, "db.shop.maesh"))[..9]),
        ("a message of no length", &[0, 0]),
        ("a message longer than any query", &too_long),
        ("a response", &response),
    ] {
        let mut stream = TcpStream::connect(responder.at()).await.expect("connects");
        stream.write_all(sent).await.expect("sent");
        assert!(closed(&mut stream).await, "{case}");
    }
    let mut stream = TcpStream::connect(responder.at()).await.expect("connects");
    let last = [framed(&query(1, "db.shop.maesh")), vec![0, 0]].concat();
    stream.write_all(&last).await.expect("sent");
    assert_eq!(told(&next(&mut stream).await).0, 0, "what came before a bad message is answered");
    assert!(closed(&mut stream).await);
    assert_eq!(responder.metric("maesh_dns_connections_closed_total{reason=\"idle\"}"), Some(2));
}

#[tokio::test]
async fn where_there_are_too_many_connections_the_oldest_makes_room() {
    for (case, all, per_source) in [("in all", 2, 9), ("of one source", 9, 2)] {
        let limits = StreamLimits { connections: ConnectionLimits { all, per_source }, ..StreamLimits::of(9) };
        let responder = Responder::synced(Config { tcp: limits, ..config() }).await;
        let mut open = Vec::new();
        for _ in 0..3 {
            let mut stream = TcpStream::connect(responder.at()).await.expect("connects");
            stream.write_all(&framed(&query(1, "db.shop.maesh"))).await.expect("sent");
            assert_eq!(told(&next(&mut stream).await).0, 0, "{case}");
            open.push(stream);
        }
        assert!(closed(&mut open[0]).await, "{case}");
        for stream in &mut open[1..] {
            stream.write_all(&framed(&query(1, "db.shop.maesh"))).await.expect("sent");
            assert_eq!(told(&next(stream).await).0, 0, "{case}");
        }
        assert_eq!(responder.metric("maesh_dns_connections_closed_total{reason=\"crowded_out\"}"), Some(1), "{case}");
    }
}

#[tokio::test]
async fn an_update_is_in_force_once_it_is_answered() {
    let responder = Responder::synced(config()).await;
    for last in 1..50 {
        let moved = name("shop/moving", Answer::Fixed(vec![[10, 5, 0, last].into()]), "");
        assert_eq!(responder.apply(update(Kind::Name, [Resource::Name(moved)])).await, []);
        assert_eq!(told(&over_udp(responder.at(), &query(1, "moving.shop.maesh")).await), (0, [10, 5, 0, last]));
    }
}

#[tokio::test]
async fn what_cannot_be_applied_is_named_and_the_rest_holds() {
    let responder = Responder::synced(config()).await;
    let long = format!("shop/{}", "x".repeat(64));
    let names = [name(&long, Answer::Plain, "10.0.0.1"), name("shop/good", Answer::Plain, "10.0.0.2")];
    let rejected = responder.apply(update(Kind::Name, names.map(Resource::Name))).await;
    assert_eq!(rejected.len(), 1);
    assert_eq!(&*rejected[0].name, &*long);
    assert!(rejected[0].message.contains("1 to 63 bytes"), "{}", rejected[0].message);
    assert_eq!(told(&over_udp(responder.at(), &query(1, "good.shop.maesh")).await), (0, [10, 0, 0, 2]));

    let none = Mesh { zones: vec![], ..mesh() };
    let rejected = responder.apply(update(Kind::Mesh, [Resource::Mesh(none)])).await;
    assert_eq!(rejected.len(), 1);
    assert_eq!(told(&over_udp(responder.at(), &query(1, "good.shop.maesh")).await), (0, [10, 0, 0, 2]));
}

#[tokio::test]
async fn dead_proxies_are_left_out_while_the_stream_is_down() {
    let relief = Duration::from_millis(300);
    let probe = Probe { how: ProbeKind::Connect, every: Duration::from_millis(20), relief, ..Probe::default() };
    let responder = Responder::synced(Config { probe, ..config() }).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let mut lone = proxy("p1", "n1", "127.0.0.1");
    lone.listening = vec![port];
    let mut lonely = name("shop/lonely", Answer::Node, "10.96.0.77");
    lonely.ports[0].listen = port;
    for gone in ["p2", "p3"] {
        responder.apply(crate::fixture::removal(Kind::Proxy, gone)).await;
    }
    responder.apply(update(Kind::Proxy, [Resource::Proxy(lone)])).await;
    responder.apply(update(Kind::Name, [Resource::Name(lonely)])).await;
    let at = responder.at();
    let asked = query(1, "lonely.shop.maesh");
    let becomes = async |want: [u8; 4]| {
        let waiting = async { while told(&over_udp(at, &asked).await).1 != want {} };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never {want:?}"));
    };
    becomes([127, 0, 0, 1]).await;
    drop(listener);
    responder.connected.send_replace(false);
    becomes([10, 96, 0, 77]).await;
    assert_eq!(responder.metric("maesh_dns_proxies_unreachable"), Some(1));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("the port again");
    becomes([127, 0, 0, 1]).await;
    drop(listener);
    becomes([10, 96, 0, 77]).await;
    // What the stream last said may be as old as the outage: it has time to say something else, or it says the same.
    let since = Instant::now();
    responder.connected.send_replace(true);
    becomes([127, 0, 0, 1]).await;
    assert!(since.elapsed() >= relief);
    responder.connected.send_replace(false);
    becomes([10, 96, 0, 77]).await;
    responder.connected.send_replace(true);
    let mut again = proxy("p1", "n1", "127.0.0.1");
    again.listening = vec![port];
    responder.apply(update(Kind::Proxy, [Resource::Proxy(again)])).await;
    becomes([127, 0, 0, 1]).await;
}

/// Whatever else happens at the moment when the stream returns, that it did is noticed.
#[tokio::test]
async fn a_stream_that_returns_with_an_update_is_noticed() {
    let relief = Duration::from_millis(10);
    let probe = Probe { how: ProbeKind::Connect, every: Duration::from_millis(10), relief, ..Probe::default() };
    let responder = Responder::synced(Config { probe, ..config() }).await;
    for gone in ["p2", "p3"] {
        responder.apply(crate::fixture::removal(Kind::Proxy, gone)).await;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut lone = proxy("p1", "n1", "127.0.0.1");
    lone.listening = vec![listener.local_addr().expect("its address").port()];
    drop(listener);
    responder.apply(update(Kind::Proxy, [Resource::Proxy(lone)])).await;
    // Which of the two is seen first is chance.
    for _ in 0..16 {
        responder.connected.send_replace(false);
        responder.unreachable(1).await;
        responder.updates.try_send(update(Kind::Name, [])).expect("room");
        responder.connected.send_replace(true);
        responder.unreachable(0).await;
    }
}

#[tokio::test]
async fn beside_a_dead_proxy_fixed_addresses_give_way_while_the_stream_is_down() {
    let (relief, catch_up) = (Duration::from_millis(50), Duration::from_millis(300));
    let probe =
        Probe { how: ProbeKind::Connect, every: Duration::from_millis(20), relief, catch_up, ..Probe::default() };
    let responder = Responder::synced(Config { probe, ..config() }).await;
    let listener = async |address: &str| tokio::net::TcpListener::bind((address, 0)).await.expect("a port");
    let (dying, living) = (listener("127.0.0.1").await, listener("127.0.0.2").await);
    let proxies = [("p1", "n1", &dying), ("p2", "n2", &living)].map(|(id, node, listener)| {
        let address = listener.local_addr().expect("its address");
        let listening = vec![address.port()];
        Resource::Proxy(maesh_config::model::Proxy { listening, ..proxy(id, node, &address.ip().to_string()) })
    });
    responder.apply(crate::fixture::removal(Kind::Proxy, "p3")).await;
    responder.apply(update(Kind::Proxy, proxies)).await;
    let pods = [("127.0.0.1", "n1"), ("127.0.0.2", "n2")];
    let pods = pods.map(|(address, node)| Resource::Workload(workload(WorkloadKind::Pod, address, node)));
    responder.apply(update(Kind::Workload, pods)).await;
    let (at, asked) = (responder.at(), query(1, "db.shop.maesh"));
    let becomes = async |from: &str, want: [u8; 4]| {
        let socket = UdpSocket::bind((from, 0)).await.expect("a socket");
        socket.connect(at).await.expect("an address");
        let waiting = async {
            loop {
                socket.send(&asked).await.expect("sent");
                let mut reply = vec![0; 512];
                let length = socket.recv(&mut reply).await.expect("a reply");
                if told(&reply[..length]).1 == want {
                    return;
                }
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never {want:?} from {from}"));
    };
    let (fixed, plain) = ([10, 200, 0, 7], [10, 96, 0, 7]);
    becomes("127.0.0.1", fixed).await;
    drop(dying);
    responder.connected.send_replace(false);
    becomes("127.0.0.1", plain).await;
    becomes("127.0.0.2", fixed).await;
    let since = Instant::now();
    responder.connected.send_replace(true);
    becomes("127.0.0.1", fixed).await;
    assert!(since.elapsed() >= catch_up, "it gives kube-proxy time");

    // Made anew in the next outage, which ends and goes on: that it lives does not say that kube-proxy leads to it.
    responder.connected.send_replace(false);
    becomes("127.0.0.1", plain).await;
    let anew = listener("127.0.0.1").await;
    let listening = vec![anew.local_addr().expect("its address").port()];
    let since = Instant::now();
    responder.connected.send_replace(true);
    responder.unreachable(0).await;
    let anew = maesh_config::model::Proxy { listening, ..proxy("p1", "n1", "127.0.0.1") };
    responder.apply(update(Kind::Proxy, [Resource::Proxy(anew)])).await;
    responder.connected.send_replace(false);
    becomes("127.0.0.1", fixed).await;
    assert!(since.elapsed() >= catch_up, "it gives kube-proxy time, whatever the stream does");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let (_updates, receiver) = mpsc::channel(1);
    let (_connected, is_connected) = watch::channel(true);
    let config = Config { listen: vec![address], ..config() };
    let error = start(config, receiver, is_connected, &mut Registry::default()).expect_err("it is taken");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn snapshots_are_shared_not_copied() {
    let responder = Responder::synced(config()).await;
    let before = responder.dns.snapshot.load_full();
    responder.apply(update(Kind::Name, [Resource::Name(name("shop/new", Answer::Plain, ""))])).await;
    let after = responder.dns.snapshot.load_full();
    assert_eq!(after.revision, before.revision + 1);
    assert!(Arc::ptr_eq(&before.proxies, &after.proxies));
}

/// As `getaddrinfo` asks: for A and AAAA in pairs.
#[tokio::test]
async fn who_asks_in_pairs_is_answered_every_proxy_first() {
    let one_thread = Config { threads: std::num::NonZeroUsize::MIN, ..config() };
    let responder = Responder::synced(one_thread).await;
    responder.apply(crate::fixture::removal(Kind::Proxy, "p3")).await;
    let a = query(7, "web.shop.maesh");
    let mut aaaa = a.clone();
    let at = aaaa.len() - 3;
    aaaa[at] = 28;
    let mut last = std::collections::BTreeSet::new();
    for _ in 0..20 {
        last.insert(told(&over_udp(responder.at(), &a).await).1);
        over_udp(responder.at(), &aaaa).await;
    }
    assert_eq!(last.len(), 2, "always in the same order: {last:?}");
}
