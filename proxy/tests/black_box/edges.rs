//! The proxy's edges: who its callers are, what it never dials, and what each of them may occupy.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{
    Fed, LOCAL, Raw, ask, config, echoing_with, endpoint, endpoints, free_port, get, policy, refusing, service, within,
};
use maesh_config::{
    Kind,
    model::{BackendPolicy, Endpoint, Protocol, Scheme},
};
use maesh_discovery::update::Demand;
use maesh_proxy::{Config, Limits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// A connection from an address of loopback.
async fn from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    attempt_from(source, to).await.expect("connected")
}

/// The same to whom it may be reset before this side has seen that it is there.
async fn attempt_from(source: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((source, 0))).expect("bound");
    socket.connect(to).await
}

/// The status line and reason of one request from `source`; empty where the connection is closed.
async fn ask_from(source: [u8; 4], to: SocketAddr, request: &str) -> String {
    let mut stream = from(source, to).await;
    // Refused connections may be reset before this is written.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut bytes = [0; 4096];
    let mut text = String::new();
    while !text.contains("\r\n\r\n") {
        match within(stream.read(&mut bytes)).await {
            Ok(read @ 1..) => text += &String::from_utf8_lossy(&bytes[..read]),
            _ => break,
        }
    }
    text
}

#[tokio::test]
async fn a_host_of_one_label_is_of_the_callers_namespace() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let address = fed.listen(&[]).await;
    let mut servers = Vec::new();
    for (name, namespace, pod) in [("web.a", "a", [127, 0, 0, 11]), ("web.b", "b", [127, 0, 0, 12])] {
        let server = endpoints::echo(false, namespace).await;
        fed.define(name, address.port(), Protocol::Http, policy(Scheme::Http), Vec::new());
        fed.define_endpoints(name, address.port(), Protocol::Http, vec![endpoint(server.address)]);
        fed.name(name, address.port(), address.port(), Protocol::Http, &[]).await;
        fed.define_pod(IpAddr::from(pod), namespace, "n1");
        servers.push(server);
    }
    for (source, want) in [([127, 0, 0, 11], "a GET"), ([127, 0, 0, 12], "b GET"), ([127, 0, 0, 13], "unknown_host")] {
        for host in ["web", "web:8080", "WEB."] {
            let text = ask_from(source, address, &get(host, "/")).await;
            assert!(text.contains(want), "{host} from {source:?}: {text}");
        }
    }
}

#[tokio::test]
async fn traffic_that_stays_on_the_callers_node_waits_for_its_node() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let servers = [endpoints::echo(false, "n1").await, endpoints::echo(false, "n2").await];
    let policy = BackendPolicy { local_only: true, ..policy(Scheme::Http) };
    let address = fed.listen(&[]).await;
    fed.define("web.shop", address.port(), Protocol::Http, policy, Vec::new());
    let on = |server: &endpoints::Server, node: &str| Endpoint { node: Some(node.into()), ..endpoint(server.address) };
    let both = vec![on(&servers[0], "n1"), on(&servers[1], "n2")];
    fed.define_endpoints("web.shop", address.port(), Protocol::Http, both);
    fed.name("web.shop", address.port(), address.port(), Protocol::Http, &[]).await;
    for (pod, node) in [([127, 0, 0, 11], "n1"), ([127, 0, 0, 12], "n2")] {
        fed.define_pod(IpAddr::from(pod), "shop", node);
        for _ in 0..8 {
            let text = ask_from(pod, address, &get("web.shop", "/")).await;
            assert!(text.contains(&format!("{node} GET")), "a caller on {node}: {text}");
        }
    }
}

#[tokio::test]
async fn callers_are_asked_for_once_and_let_go_of_when_unused() {
    let (fed, address, _server) = echoing_with(Config { idle_service: Duration::from_millis(300), ..config() }).await;
    for _ in 0..3 {
        assert!(ask(address, &get("web.shop", "/")).await.0.starts_with("http/1.1 200"));
    }
    let (asked, released) = (
        Demand::Subscribe(Kind::Workload, "127.0.0.1".into()),
        Demand::Unsubscribe(Kind::Workload, "127.0.0.1".into()),
    );
    let count = |wanted: &Demand| fed.demands.lock().expect("lock").iter().filter(|it| *it == wanted).count();
    assert_eq!(count(&asked), 1);
    within(async {
        while count(&released) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(ask(address, &get("web.shop", "/")).await.0.starts_with("http/1.1 200"));
    assert_eq!(count(&asked), 2, "and asked for again");
}

#[tokio::test]
async fn nothing_is_dialled_that_is_the_proxys_own_or_no_endpoint() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let address = fed.listen(&[]).await;
    let tcp = fed.listen_on(free_port(), Some(("db.shop", 5432)), false, &[]).await;
    fed.name("web.shop", address.port(), address.port(), Protocol::Http, &[]).await;
    fed.name("db.shop", 5432, tcp.port(), Protocol::Tcp, &[]).await;
    fed.define("web.shop", address.port(), Protocol::Http, policy(Scheme::Http), Vec::new());
    fed.define("db.shop", 5432, Protocol::Tcp, policy(Scheme::Http), Vec::new());
    let mapped = |at: SocketAddr| SocketAddr::new("::ffff:127.0.0.1".parse().expect("an address"), at.port());
    let port = address.port();
    for (case, endpoints) in [
        ("its own listener", vec![address, tcp]),
        ("the same, mapped", vec![mapped(address), mapped(tcp)]),
        (
            "unspecified",
            vec![SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port), SocketAddr::from(([0, 1, 2, 3], port))],
        ),
        ("unspecified, IPv6", vec![SocketAddr::new("::".parse().expect("an address"), port)]),
        ("link-local", vec![SocketAddr::from(([169, 254, 169, 254], 80))]),
        ("multicast", vec![SocketAddr::from(([224, 0, 0, 1], port))]),
    ] {
        let endpoints: Vec<_> = endpoints.into_iter().map(endpoint).collect();
        fed.push_endpoints("web.shop", port, Protocol::Http, endpoints.clone()).await;
        fed.push_endpoints("db.shop", 5432, Protocol::Tcp, endpoints).await;
        let (head, _) = ask(address, &get("web.shop", "/")).await;
        assert!(head.contains("x-maesh-reason: no_endpoints"), "{case}: {head}");
        // The reset may come as early as the end of the handshake.
        if let Ok(mut stream) = TcpStream::connect(tcp).await {
            let read = within(stream.read(&mut [0; 8])).await;
            assert!(read.is_err(), "{case}: {read:?}");
        }
    }
    assert!(fed.metrics().contains("maesh_proxy_upstream_connects_total{outcome=\"ok\"} 0"), "{}", fed.metrics());
    // A port that the proxy opens later is its own from then on.
    let later = free_port();
    fed.push_endpoints("web.shop", port, Protocol::Http, vec![endpoint(SocketAddr::new(LOCAL, later))]).await;
    fed.listen_on(later, None, true, &[]).await;
    let (head, _) = ask(address, &get("web.shop", "/")).await;
    assert!(head.contains("x-maesh-reason: no_endpoints"), "{head}");
}

#[tokio::test]
async fn a_proxy_outside_of_dev_does_not_dial_loopback() {
    let (_fed, address, _server) = echoing_with(Config { loopback_endpoints: false, ..config() }).await;
    let (head, _) = ask(address, &get("web.shop", "/")).await;
    assert!(head.contains("x-maesh-reason: no_endpoints"), "{head}");
}

/// A process at `at` that hands every connection on to `to`; its address, and how many there were.
async fn relay(at: [u8; 4], to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind(SocketAddr::from((at, 0))).await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let count = Arc::new(AtomicUsize::new(0));
    let counting = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counting.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                if let Ok(mut onwards) = attempt_from(at, to).await {
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut onwards).await;
                }
            });
        }
    });
    (address, count)
}

#[tokio::test]
async fn a_request_that_goes_in_circles_is_ended() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let address = fed.listen(&[]).await;
    let (relay, count) = relay([127, 0, 0, 1], address).await;
    fed.define("web.shop", address.port(), Protocol::Http, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("web.shop", address.port(), Protocol::Http, vec![endpoint(relay)]);
    fed.name("web.shop", address.port(), address.port(), Protocol::Http, &[]).await;
    let (head, _) = ask(address, &get("web.shop", "/")).await;
    assert!(head.starts_with("http/1.1 508") && head.contains("x-maesh-reason: loop_detected"), "{head}");
    assert!(count.load(Ordering::Relaxed) <= 16, "{count:?}");
    // What a caller writes there harms nobody else, and an honest chain goes through.
    let hops = |text: &str| format!("GET / HTTP/1.1\r\nHost: one.shop\r\nX-Maesh-Hops: {text}\r\n\r\n");
    let server = endpoints::echo(false, "one").await;
    let one = fed.http("one.shop", Scheme::Http, &[server.address]).await;
    let (_, body) = ask(one, &hops("3")).await;
    assert!(body.contains("x-maesh-hops: 4\n"), "{body}");
    // What is no number was not written by a proxy of the mesh, which could have been counted again and again.
    for text in ["200", "nonsense", "-1", ""] {
        let (head, _) = ask(one, &hops(text)).await;
        assert!(head.starts_with("http/1.1 508"), "{text}: {head}");
    }
}

#[tokio::test]
async fn a_stream_that_goes_in_circles_holds_no_more_than_one_callers_share() {
    let limits = Limits { connections_per_caller: 10, ..Limits::default() };
    let fed = Fed::new(Config { limits, ..config() }).await;
    fed.begin().await;
    let tcp = fed.listen_on(free_port(), Some(("db.shop", 5432)), false, &[]).await;
    let (relay, count) = relay([127, 0, 0, 1], tcp).await;
    fed.define("db.shop", 5432, Protocol::Tcp, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("db.shop", 5432, Protocol::Tcp, vec![endpoint(relay)]);
    fed.name("db.shop", 5432, tcp.port(), Protocol::Tcp, &[]).await;
    let mut stream = TcpStream::connect(tcp).await.expect("connected");
    // The last one in the circle is refused, which ends all of them.
    let ended = within(stream.read(&mut [0; 8])).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert!(count.load(Ordering::Relaxed) <= 10, "{count:?}");
    let server = endpoints::echo(false, "one").await;
    let address = fed.http("web.shop", Scheme::Http, &[server.address]).await;
    assert!(ask_from([127, 0, 0, 2], address, &get("web.shop", "/")).await.contains("one GET"));
}

#[tokio::test]
async fn a_stream_that_a_relay_leads_back_is_counted_as_a_loop_of_its_service() {
    let limits = Limits { connections_per_caller: 6, ..Limits::default() };
    let fed = Fed::new(Config { limits, ..config() }).await;
    fed.begin().await;
    let tcp = fed.listen_on(free_port(), Some(("db.shop", 5432)), false, &[]).await;
    let (relay, _) = relay([127, 0, 0, 9], tcp).await;
    fed.define("db.shop", 5432, Protocol::Tcp, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("db.shop", 5432, Protocol::Tcp, vec![endpoint(relay)]);
    fed.name("db.shop", 5432, tcp.port(), Protocol::Tcp, &[]).await;
    let mut stream = from([127, 0, 0, 2], tcp).await;
    let ended = within(stream.read(&mut [0; 8])).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    let metrics = fed.metrics();
    let loops: Vec<_> = metrics.lines().filter(|line| line.contains("loop")).collect();
    assert!(loops.contains(&"maesh_proxy_loops_total 1"), "{loops:#?}");
    let of_service = |line: &&str| line.contains("service=\"db\"") && line.contains("reason=\"loop_detected\"");
    let refused: Vec<_> = loops.iter().filter(|line| of_service(line)).collect();
    assert!(refused.len() == 1 && refused[0].ends_with("} 1"), "{loops:#?}");
}

#[tokio::test]
async fn one_caller_leaves_room_for_others() {
    let limits = Limits { connections_per_caller: 6, ..Limits::default() };
    let fed = Fed::new(Config { limits, ..config() }).await;
    fed.begin().await;
    let silent = endpoints::raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 1]).await;
    })
    .await;
    let tcp = fed.listen_on(free_port(), Some(("db.shop", 5432)), false, &[]).await;
    fed.define("db.shop", 5432, Protocol::Tcp, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("db.shop", 5432, Protocol::Tcp, vec![endpoint(silent)]);
    fed.name("db.shop", 5432, tcp.port(), Protocol::Tcp, &[]).await;
    let server = endpoints::echo(false, "one").await;
    let web = fed.http("web.shop", Scheme::Http, &[server.address]).await;
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(from([127, 0, 0, 2], tcp).await);
    }
    let open = || fed.proxy.as_ref().expect("running").status().connections;
    within(async {
        while open() != 6 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let text = ask_from([127, 0, 0, 2], web, &get("web.shop", "/")).await;
    assert!(text.contains("x-maesh-reason: overloaded"), "it holds its share: {text}");
    assert!(ask_from([127, 0, 0, 3], web, &get("web.shop", "/")).await.contains("one GET"));
    drop(held);
    within(async { while !ask_from([127, 0, 0, 2], web, &get("web.shop", "/")).await.contains("one GET") {} }).await;
}

/// An HTTP/2 connection of one caller can need a connection to an endpoint for each of its streams.
#[tokio::test]
async fn streams_that_need_a_connection_each_are_charged_to_their_caller() {
    let limits = Limits { connections_per_caller: 8, ..Limits::default() };
    let fed = Fed::new(Config { limits, ..config() }).await;
    fed.begin().await;
    let slow = endpoints::serve(false, |_| std::future::pending()).await;
    let address = fed.http("web.shop", Scheme::Http, &[slow.address]).await;
    let stream = TcpStream::connect(address).await.expect("connected");
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, String>(executor, io).await.expect("a handshake");
    tokio::spawn(connection);
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let mut sender = sender.clone();
        let request = http::Request::get("http://web.shop/").body(String::new()).expect("a request");
        running.spawn(async move { sender.send_request(request).await.expect("answered") });
    }
    // Two descriptors for each of eight connections: this one, and 15 exchanges.
    for _ in 0..25 {
        let refused = within(running.join_next()).await.expect("refused").expect("no panic");
        assert_eq!(refused.headers()["x-maesh-reason"], "overloaded");
    }
    let server = endpoints::echo(false, "one").await;
    let other = fed.http("other.shop", Scheme::Http, &[server.address]).await;
    assert!(ask_from([127, 0, 0, 2], other, &get("other.shop", "/")).await.contains("one GET"));
}

/// Where another program has the port on one more address of the machine, there are two sockets: so this is tried with
/// several ports.
#[tokio::test]
async fn a_port_of_both_families_is_one_socket() {
    let six: IpAddr = "::1".parse().expect("an address");
    let fed = Fed::new(Config { shared: vec![LOCAL, six], ..config() }).await;
    fed.begin().await;
    let server = endpoints::echo(false, "one").await;
    let mut sockets = Vec::new();
    while sockets.len() < 20 && !sockets.contains(&1) {
        let name = format!("web{}.shop", sockets.len());
        let address = fed.http(&name, Scheme::Http, &[server.address]).await;
        let port = address.port();
        let served = [address, SocketAddr::new(six, port)];
        for to in served {
            assert!(ask(to, &get(&name, "/")).await.1.starts_with("one "), "{to}");
        }
        let bound = fed.proxy.as_ref().expect("running").bound();
        assert!(bound.iter().any(|bound| bound.addresses == served), "{served:?}");
        // Other addresses of the machine are not served.
        if let Ok(mut stream) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 9], port))).await {
            let read = within(stream.read(&mut [0; 8])).await;
            assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        }
        sockets.push(listening("/proc/self/net/tcp", port) + listening("/proc/self/net/tcp6", port));
    }
    assert!(sockets.contains(&1), "{sockets:?}");
}

/// How many sockets a table of the kernel has that listen on `port`.
fn listening(table: &str, port: u16) -> usize {
    let text = std::fs::read_to_string(table).expect("a table of the kernel");
    let is_it = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().is_some_and(|local| local.ends_with(&format!(":{port:04X}")));
        // The state of a socket that listens.
        local && fields.nth(1) == Some("0A")
    };
    text.lines().filter(is_it).count()
}

/// A stream has no words for its caller: why it was reset is counted.
#[tokio::test]
async fn streams_that_are_refused_are_counted_by_service_and_reason() {
    let limits = Limits { connections_per_caller: 3, ..Limits::default() };
    let fed = Fed::new(Config { limits, ..config() }).await;
    fed.begin().await;
    let silent = endpoints::raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 1]).await;
    })
    .await;
    let closed = refusing(LOCAL);
    let mut ports = Vec::new();
    for (name, endpoints) in
        [("none.shop", vec![]), ("refuse.shop", vec![endpoint(closed)]), ("full.shop", vec![endpoint(silent)])]
    {
        let address = fed.listen_on(free_port(), Some((name, 5432)), false, &[]).await;
        fed.define(name, 5432, Protocol::Tcp, policy(Scheme::Http), Vec::new());
        fed.define_endpoints(name, 5432, Protocol::Tcp, endpoints);
        fed.name(name, 5432, address.port(), Protocol::Tcp, &[]).await;
        ports.push(address);
    }
    let mut held = Vec::new();
    for (last, address, name, reason) in [
        (2, ports[0], "none", "no_endpoints"),
        (3, ports[1], "refuse", "connect_failed"),
        (4, ports[2], "full", "overloaded"),
    ] {
        for _ in 0..4 {
            held.extend(attempt_from([127, 0, 0, last], address).await.ok());
        }
        let series = format!("service=\"{name}\",namespace=\"shop\",port=\"5432\",reason=\"{reason}\"");
        let counted = || fed.metrics().lines().any(|line| line.contains("tcp_refused_total") && line.contains(&series));
        until_true(counted).await;
    }
    // One over HTTP is counted as well, though no Service is known.
    let http = fed.listen(&[]).await;
    for _ in 0..4 {
        held.extend(attempt_from([127, 0, 0, 5], http).await.ok());
    }
    until_true(|| fed.metrics().contains("maesh_http_refused_total{reason=\"overloaded\"} 1")).await;
    fed.push(Kind::Name, Vec::new(), vec!["shop/none"]).await;
    assert!(!fed.metrics().contains("service=\"none\""), "{}", fed.metrics());
}

#[tokio::test]
async fn connections_that_say_nothing_are_counted() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let address = fed.listen(&[]).await;
    let unknown = |count: usize| {
        let series = format!("maesh_proxy_connections_open{{protocol=\"unknown\"}} {count}\n");
        move |fed: &Fed| fed.metrics().contains(&series)
    };
    let silent = [from([127, 0, 0, 2], address).await, from([127, 0, 0, 3], address).await];
    until_true(|| unknown(2)(&fed)).await;
    drop(silent);
    until_true(|| unknown(0)(&fed)).await;
}

async fn until_true(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_series_of_deleted_services_and_ports_go() {
    const SERVICES: usize = 1_000;
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let server = endpoints::echo(false, "one").await;
    let address = fed.listen(&[]).await;
    let kept = fed.http("kept.shop", Scheme::Http, &[server.address]).await;
    assert!(ask(kept, &get("kept.shop", "/")).await.0.starts_with("http/1.1 200"));
    let before = fed.metrics().lines().count();
    let mut raw = Raw::to(address).await;
    for i in 0..SERVICES {
        let name = format!("s{i}.shop");
        fed.define(&name, address.port(), Protocol::Http, policy(Scheme::Http), Vec::new());
        fed.define_endpoints(&name, address.port(), Protocol::Http, vec![endpoint(server.address)]);
        fed.name(&name, address.port(), address.port(), Protocol::Http, &[]).await;
        raw.say(&get(&name, "/")).await;
        assert!(raw.hear().await.0.starts_with("http/1.1 200"), "{name}");
    }
    assert!(fed.metrics().lines().count() > before + 15 * SERVICES);
    let names: Vec<_> = (0..SERVICES).map(|i| service(&format!("s{i}.shop")).to_string()).collect();
    fed.push(Kind::Name, Vec::new(), names.iter().map(String::as_str).collect()).await;
    let after = fed.metrics();
    assert!(!after.contains("service=\"s1\""), "{after}");
    assert!(after.contains("service=\"kept\""));
    assert_eq!(after.lines().count(), before);
    // A port that leaves its Service takes its series along as well.
    fed.define("kept.shop", 1, Protocol::Http, policy(Scheme::Http), Vec::new());
    fed.push_service("kept.shop").await;
    assert!(!fed.metrics().contains(&format!("port=\"{}\"", kept.port())));
}
