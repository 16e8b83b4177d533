//! Who a caller is, under access control: known late, unknown for good, and trusted for a time while no controller answers.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use maesh_config::{
    Kind, Resource,
    model::{
        AccessControl, AccessSource, Account, AccountAccess, Endpoints, Grant, PortEndpoints, Protocol, Scheme,
        Workload, WorkloadKind,
    },
};
use maesh_discovery::update::Demand;
use maesh_proxy::Config;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::sleep,
};

use crate::support::{Fed, LOCAL, Raw, ask, config, endpoint, endpoints, get, policy, service, within};

/// A proxy with access control, the Service `web.shop` that `shop/caller` may call, and its address.
async fn controlled(config: Config) -> (Fed, SocketAddr, endpoints::Server) {
    let server = endpoints::echo(false, "web").await;
    let (fed, listen) = controlled_to(config, server.address).await;
    (fed, listen, server)
}

/// The same, with this endpoint.
async fn controlled_to(config: Config, server: SocketAddr) -> (Fed, SocketAddr) {
    let fed = Fed::new(config).await;
    fed.begin().await;
    let listen = fed.listen(&[]).await;
    let number = listen.port();
    fed.define("web.shop", number, Protocol::Http, policy(Scheme::Http), Vec::new());
    fed.define_endpoints("web.shop", number, Protocol::Http, Vec::new());
    fed.name("web.shop", number, number, Protocol::Http, &[]).await;
    // The Service is in use, so that what is pushed stays.
    ask(listen, &get("web.shop", "/")).await;
    fed.mesh(true).await;
    grant_only(&fed, listen, server, vec![grant_to_caller()]).await;
    (fed, listen)
}

/// Says who may call `web.shop`.
async fn grant_only(fed: &Fed, listen: SocketAddr, server: SocketAddr, grants: Vec<Grant>) {
    let access = vec![AccountAccess { account: Arc::new(Account::new("shop", "web")), grants }];
    let account = Some(0);
    push_endpoint(fed, listen, maesh_config::model::Endpoint { account, ..endpoint(server) }, access, false).await;
}

/// What a controller says that was told of no access control.
async fn open_to_all(fed: &Fed, listen: SocketAddr, server: SocketAddr) {
    push_endpoint(fed, listen, endpoint(server), Vec::new(), true).await;
}

async fn push_endpoint(
    fed: &Fed,
    listen: SocketAddr,
    endpoint: maesh_config::model::Endpoint,
    access: Vec<AccountAccess>,
    open: bool,
) {
    let (number, protocol) = (listen.port(), Protocol::Http);
    let ports = vec![PortEndpoints { number, protocol, endpoints: vec![endpoint], access, open }];
    let all = Endpoints { service: service("web.shop"), ports };
    fed.push(Kind::Endpoints, vec![Resource::Endpoints(all)], vec![]).await;
}

fn grant_to_caller() -> Grant {
    Grant { target: "target".into(), sources: vec![Arc::new(Account::new("shop", "caller"))], rules: Vec::new() }
}

fn caller() -> Resource {
    caller_at(LOCAL)
}

fn caller_at(address: IpAddr) -> Resource {
    Resource::Workload(Workload {
        address: address.into(),
        kind: WorkloadKind::Pod,
        namespace: Some("shop".into()),
        name: "caller-1".into(),
        service_account: Some("caller".into()),
        node: None,
        zone: None,
    })
}

/// The API server hears of a pod's address some time after the pod has begun to run.
#[tokio::test]
async fn a_caller_that_nobody_has_heard_of_is_held_until_it_is_known() {
    let (fed, listen, _server) = controlled(Config { identity_hold: Duration::from_secs(600), ..config() }).await;
    // Nobody has the address, says the controller; that was asked when the Service was called first.
    assert!(fed.demands.lock().expect("lock").contains(&Demand::Subscribe(Kind::Workload, "127.0.0.1".into())));
    for pods in ["the first", "a later one with its address"] {
        let asked = tokio::spawn(async move { ask(listen, &get("web.shop", "/")).await });
        sleep(Duration::from_millis(300)).await;
        assert!(!asked.is_finished(), "{pods}: it was answered before its pod was known");
        fed.push(Kind::Workload, vec![caller()], vec![]).await;
        let (head, body) = within(asked).await.expect("no panic");
        assert!(head.starts_with("http/1.1 200") && body.starts_with("web "), "{pods}: {head}{body}");
        fed.push(Kind::Workload, vec![], vec!["127.0.0.1"]).await;
    }
}

#[tokio::test]
async fn nobody_is_denied_after_it_was_held() {
    let (fed, listen, _server) = controlled(Config { identity_hold: Duration::from_millis(100), ..config() }).await;
    for _ in 0..3 {
        let (head, _) = ask(listen, &get("web.shop", "/")).await;
        assert!(head.starts_with("http/1.1 403") && head.contains("x-maesh-reason: denied"), "{head}");
    }
    fed.push(Kind::Workload, vec![caller()], vec![]).await;
    assert!(ask(listen, &get("web.shop", "/")).await.0.starts_with("http/1.1 200"));
}

/// Being held is no pause: who waits for each answer before the next request is held once.
#[tokio::test]
async fn a_caller_that_waits_for_its_answers_is_held_once() {
    let hold = Duration::from_secs(6);
    let (_fed, listen, _server) = controlled(Config { identity_hold: hold, ..config() }).await;
    let ask = async || {
        let (head, _) = ask(listen, &get("web.shop", "/")).await;
        assert!(head.starts_with("http/1.1 403"), "{head}");
    };
    ask().await;
    let all = async {
        for _ in 0..3 {
            ask().await;
        }
    };
    tokio::time::timeout(hold, all).await.expect("none is held for as long as the first");
}

#[tokio::test]
async fn what_is_known_of_callers_is_trusted_for_a_time_without_a_controller() {
    for (trust, status) in [(Duration::from_secs(900), "200"), (Duration::ZERO, "503")] {
        let (fed, listen, _server) = controlled(Config { identity_trust: trust, ..config() }).await;
        fed.push(Kind::Workload, vec![caller()], vec![]).await;
        assert!(ask(listen, &get("web.shop", "/")).await.0.starts_with("http/1.1 200"));
        fed.connected.send_replace(false);
        let answers = |want: &'static str| async move {
            let mut head = ask(listen, &get("web.shop", "/")).await.0;
            while !head.starts_with(&format!("http/1.1 {want}")) {
                head = ask(listen, &get("web.shop", "/")).await.0;
            }
            head
        };
        let head = within(answers(status)).await;
        assert_eq!(head.contains("x-maesh-reason: not_synced"), status == "503", "{head}");
        fed.connected.send_replace(true);
        within(answers("200")).await;
    }
}

/// The switch and the grants come in several messages, in either order.
#[tokio::test]
async fn who_is_admitted_is_not_denied_while_access_control_is_turned_on_or_off() {
    let (fed, listen, server) = controlled(Config { identity_hold: Duration::from_millis(10), ..config() }).await;
    let server = server.address;
    fed.push(Kind::Workload, vec![caller()], vec![]).await;
    let passes = async |when: &str| {
        let head = ask(listen, &get("web.shop", "/")).await.0;
        assert!(head.starts_with("http/1.1 200"), "{when}: {head}");
    };
    passes("on").await;
    open_to_all(&fed, listen, server).await;
    passes("the grants are taken back before the switch").await;
    fed.mesh(false).await;
    passes("off").await;
    fed.mesh(true).await;
    passes("the switch comes before the grants").await;
    grant_only(&fed, listen, server, vec![grant_to_caller()]).await;
    passes("on again").await;
    fed.mesh(false).await;
    passes("the switch is taken back before the grants").await;
    open_to_all(&fed, listen, server).await;
    passes("off again").await;
    fed.mesh(true).await;
    grant_only(&fed, listen, server, Vec::new()).await;
    let head = ask(listen, &get("web.shop", "/")).await.0;
    assert!(head.starts_with("http/1.1 403"), "on, and nobody is admitted: {head}");
}

/// Grants that never come admit nobody for long.
#[tokio::test]
async fn what_was_never_told_who_may_reach_it_is_closed_in_the_end() {
    let (fed, listen, server) = controlled(Config { identity_hold: Duration::from_millis(10), ..config() }).await;
    fed.push(Kind::Workload, vec![caller()], vec![]).await;
    open_to_all(&fed, listen, server.address).await;
    within(async {
        while !ask(listen, &get("web.shop", "/")).await.0.starts_with("http/1.1 403") {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

/// A dry run holds nothing, and where the mesh is told who calls from an address, no pod is waited for.
#[tokio::test]
async fn nobody_is_held_in_a_dry_run_or_where_the_mesh_is_told_who_calls() {
    let source = AccessSource { range: LOCAL.into(), account: Account::new("shop", "caller") };
    for (control, sources) in [(AccessControl::DryRun, Vec::new()), (AccessControl::On, vec![source])] {
        let (fed, listen, _server) = controlled(Config { identity_hold: Duration::from_secs(600), ..config() }).await;
        fed.mesh_with(control, sources).await;
        let head = ask(listen, &get("web.shop", "/")).await.0;
        assert!(head.starts_with("http/1.1 200"), "{control:?}: {head}");
    }
}

/// Answers requests for `/hang` with the beginning of a body, and nothing more; others with `ok`.
async fn hanging(mut stream: TcpStream) {
    let mut heard = Vec::new();
    while stream.read_buf(&mut heard).await.is_ok_and(|read| read > 0) {
        let Some(end) = heard.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let answer: &[u8] = match heard.starts_with(b"GET /hang ") {
            true => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin",
            false => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        };
        heard.drain(..end + 4);
        stream.write_all(answer).await.expect("written");
    }
}

async fn connect_from(address: [u8; 4], to: SocketAddr) -> Raw {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((address, 0))).expect("bound");
    let stream = within(socket.connect(to)).await.expect("connected");
    Raw::of(stream)
}

fn is_released(fed: &Fed, kind: Kind, name: &str) -> bool {
    fed.demands.lock().expect("lock").contains(&Demand::Unsubscribe(kind, name.into()))
}

async fn released(fed: &Fed, kind: Kind, name: &str) {
    within(async {
        while !is_released(fed, kind, name) {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Another caller comes and goes, and is let go of: so is everybody else who is not in use.
async fn a_round_of_releases(fed: &Fed, listen: SocketAddr, other: [u8; 4]) {
    let mut raw = connect_from(other, listen).await;
    raw.say(&get("web.shop", "/")).await;
    assert!(raw.hear().await.0.contains("x-maesh-reason: denied"));
    drop(raw);
    released(fed, Kind::Workload, &IpAddr::from(other).to_string()).await;
}

fn hasty() -> Config {
    Config { idle_service: Duration::from_millis(200), identity_hold: Duration::from_millis(10), ..config() }
}

/// A pool of connections to a database, a WebSocket or a stream of gRPC may go on for hours without a new connection of its pod.
#[tokio::test]
async fn who_has_something_open_stays_known_and_what_it_depends_on_too() {
    let server = endpoints::raw(hanging).await;
    let (fed, listen) = controlled_to(hasty(), server).await;
    fed.push(Kind::Workload, vec![caller()], vec![]).await;
    let (mut open, mut hangs) = (Raw::to(listen).await, Raw::to(listen).await);
    hangs.say(&get("web.shop", "/hang")).await;
    hangs.until("begin").await;
    open.say(&get("web.shop", "/")).await;
    assert!(open.hear().await.0.starts_with("http/1.1 200"));
    for other in [9, 10] {
        a_round_of_releases(&fed, listen, [127, 0, 0, other]).await;
    }
    let all = [(Kind::Workload, "127.0.0.1"), (Kind::Endpoints, "shop/web"), (Kind::Service, "shop/web")];
    let gone: Vec<_> = all.into_iter().filter(|(kind, name)| is_released(&fed, *kind, name)).collect();
    assert!(gone.is_empty(), "in use, and let go of: {gone:?}");
    open.say(&get("web.shop", "/")).await;
    let head = open.hear().await.0;
    assert!(head.starts_with("http/1.1 200"), "{head}");

    // So the end of a grant is heard of.
    grant_only(&fed, listen, server, Vec::new()).await;
    hangs.rest().await;
    drop(open);
    for (kind, name) in all {
        released(&fed, kind, name).await;
    }
}

/// The address of the proxy's own node stays asked for, so what is known of it stays, too.
#[tokio::test]
async fn the_proxys_own_node_stays_known() {
    let node = IpAddr::from([127, 0, 0, 11]);
    let server = endpoints::raw(hanging).await;
    let (fed, listen) = controlled_to(Config { node_address: Some(node), ..hasty() }, server).await;
    let of_the_node = Resource::Workload(Workload {
        address: node.into(),
        kind: WorkloadKind::Node,
        namespace: None,
        name: "n1".into(),
        service_account: None,
        node: Some("n1".into()),
        zone: None,
    });
    fed.push(Kind::Workload, vec![caller(), of_the_node], vec![]).await;
    let source = AccessSource { range: node.into(), account: Account::new("shop", "caller") };
    fed.mesh_with(AccessControl::On, vec![source]).await;
    // The Service stays in use.
    let mut hangs = Raw::to(listen).await;
    hangs.say(&get("web.shop", "/hang")).await;
    hangs.until("begin").await;
    let ask = async || {
        let mut raw = connect_from([127, 0, 0, 11], listen).await;
        raw.say(&get("web.shop", "/")).await;
        raw.hear().await.0
    };
    assert!(ask().await.starts_with("http/1.1 200"));
    for other in [9, 10] {
        a_round_of_releases(&fed, listen, [127, 0, 0, other]).await;
    }
    let head = ask().await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
}

/// What is let go of cannot be asked for again while no controller answers.
#[tokio::test]
async fn nothing_is_let_go_of_while_no_controller_answers() {
    let (fed, listen, _server) = controlled(hasty()).await;
    fed.push(Kind::Workload, vec![caller()], vec![]).await;
    assert!(ask(listen, &get("web.shop", "/")).await.0.starts_with("http/1.1 200"));
    fed.connected.send_replace(false);
    // Longer than anything is kept that is not used.
    sleep(Duration::from_secs(3)).await;
    let head = ask(listen, &get("web.shop", "/")).await.0;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    fed.connected.send_replace(true);
    released(&fed, Kind::Workload, "127.0.0.1").await;
}
