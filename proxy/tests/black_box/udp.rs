//! Datagrams: flows of callers, the endpoints behind them, and peers that mean no good.

mod bounds;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use maesh_config::{
    Kind, Resource,
    model::{BackendPolicy, Balance, Bind, Listener, ListenerId, Protocol, Transport},
};
use maesh_proxy::{Config, Limits};
use tokio::{net::UdpSocket, task::JoinHandle};

use crate::support::{Fed, LOCAL, Raw, config, endpoint, endpoints, free_port, listener, within};

const NAME: &str = "syslog.shop";
const NUMBER: u16 = 514;

/// The policy of a UDP port without annotations.
fn policy() -> BackendPolicy {
    BackendPolicy { idle_timeout: Some(Duration::from_secs(60)), ..BackendPolicy::default() }
}

fn udp_listener(bind: Bind, port: u16, name: &str) -> Listener {
    Listener {
        id: ListenerId::new(bind, port, Transport::Udp),
        bind,
        transport: Transport::Udp,
        ..listener(port, Some((name, NUMBER)), false, &[])
    }
}

async fn socket(at: IpAddr) -> UdpSocket {
    UdpSocket::bind((at, 0)).await.expect("bound")
}

/// A proxy with the Service [`NAME`] on a UDP port, and these endpoints.
async fn serving(config: Config, policy: BackendPolicy, endpoints: &[SocketAddr]) -> (Fed, SocketAddr) {
    let fed = Fed::new(config).await;
    fed.begin().await;
    fed.define(NAME, NUMBER, Protocol::Udp, policy, Vec::new());
    fed.define_endpoints(NAME, NUMBER, Protocol::Udp, endpoints.iter().map(|at| endpoint(*at)).collect());
    let port = free_port();
    fed.name(NAME, NUMBER, port, Protocol::Udp, &[]).await;
    let bind = Bind::Address(LOCAL);
    let rejected = fed.push(Kind::Listener, vec![Resource::Listener(udp_listener(bind, port, NAME))], vec![]).await;
    assert_eq!(rejected, Vec::new());
    (fed, SocketAddr::new(LOCAL, port))
}

/// An endpoint that says who it is and to whom it replies, and what it was sent.
struct Echo {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn echo(name: &'static str) -> Echo {
    let socket = socket(LOCAL).await;
    let address = socket.local_addr().expect("bound");
    let task = tokio::spawn(async move {
        let mut bytes = vec![0; 1 << 16];
        while let Ok((length, from)) = socket.recv_from(&mut bytes).await {
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            let _ = socket.send_to(format!("{name} {from} {text}").as_bytes(), from).await;
        }
    });
    Echo { address, task }
}

/// A caller of one port of the proxy, which hears only from there.
struct Caller(UdpSocket);

impl Caller {
    async fn to(address: SocketAddr) -> Self {
        Self::from(if address.is_ipv4() { LOCAL } else { Ipv6Addr::LOCALHOST.into() }, address).await
    }

    async fn from(own: IpAddr, address: SocketAddr) -> Self {
        let socket = socket(own).await;
        socket.connect(address).await.expect("connected");
        Self(socket)
    }

    async fn say(&self, bytes: &[u8]) {
        self.0.send(bytes).await.expect("sent");
    }

    async fn hear(&self) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 16];
        let length = within(self.0.recv(&mut bytes)).await.expect("received");
        bytes.truncate(length);
        bytes
    }

    /// What is answered to `text`: who answered, and whom it saw.
    async fn ask(&self, text: &str) -> (String, SocketAddr) {
        self.say(text.as_bytes()).await;
        answer(&self.hear().await, text)
    }

    /// As [`Self::ask`], and asks again while a datagram may have been lost.
    async fn ask_until_answered(&self, text: &str) -> (String, SocketAddr) {
        let mut bytes = vec![0; 1 << 16];
        within(async {
            loop {
                self.say(text.as_bytes()).await;
                if let Ok(Ok(length)) = tokio::time::timeout(Duration::from_millis(200), self.0.recv(&mut bytes)).await
                {
                    return answer(&bytes[..length], text);
                }
            }
        })
        .await
    }
}

fn answer(bytes: &[u8], asked: &str) -> (String, SocketAddr) {
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<&str> = text.splitn(3, ' ').collect();
    assert_eq!(words[2], asked, "{text}");
    (words[0].to_owned(), words[1].parse().expect("an address"))
}

/// The value of a metric, by its name and labels as they are written.
fn metric(fed: &Fed, name: &str) -> u64 {
    let text = fed.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().expect("a number"))
}

fn of_service(name: &str) -> String {
    format!("maesh_udp_{name}_total{{service=\"syslog\",namespace=\"shop\",port=\"{NUMBER}\"}}")
}

fn dropped(fed: &Fed, reason: &str) -> u64 {
    let labels = format!("service=\"syslog\",namespace=\"shop\",port=\"{NUMBER}\",reason=\"{reason}\"");
    metric(fed, &format!("maesh_udp_dropped_datagrams_total{{{labels}}}"))
}

fn ended(fed: &Fed, cause: &str) -> u64 {
    metric(fed, &format!("maesh_udp_flows_ended_total{{cause=\"{cause}\"}}"))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "not in time: {what}");
}

#[tokio::test]
async fn datagrams_of_every_size_come_back_from_where_they_were_sent_to() {
    let endpoint = socket(LOCAL).await;
    let (fed, address) = serving(config(), policy(), &[endpoint.local_addr().expect("bound")]).await;
    let caller = Caller::to(address).await;
    let mut bytes = vec![0; 1 << 16];
    let lengths = [0, 1, 512, 1472, 9000, 65_506, 65_507];
    for length in lengths {
        let sent: Vec<u8> = (0..length).map(|at: usize| u8::try_from(at % 251).expect("small")).collect();
        caller.say(&sent).await;
        let (received, from) = within(endpoint.recv_from(&mut bytes)).await.expect("received");
        assert_eq!(bytes[..received], sent, "{length} bytes to the endpoint");
        endpoint.send_to(&sent, from).await.expect("sent");
        assert_eq!(caller.hear().await, sent, "{length} bytes to the caller");
    }
    let bytes: usize = lengths.iter().sum();
    for (name, want) in [
        ("flows", 1),
        ("received_datagrams", lengths.len()),
        ("sent_datagrams", lengths.len()),
        ("received_bytes", bytes),
        ("sent_bytes", bytes),
    ] {
        until(name, || metric(&fed, &of_service(name)) == want as u64).await;
    }
    assert_eq!(metric(&fed, "maesh_udp_flows_open"), 1);
}

/// On a wildcard address the system would choose the source of a reply by itself.
#[tokio::test]
async fn replies_come_from_the_address_that_was_called_on_every_address_of_the_proxy() {
    let far = IpAddr::from([127, 0, 0, 9]);
    let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
    for (shared, served, left_out) in [
        (vec![IpAddr::from(Ipv6Addr::UNSPECIFIED)], vec![LOCAL, far, v6], vec![]),
        (vec![IpAddr::from(Ipv4Addr::UNSPECIFIED)], vec![LOCAL, far], vec![]),
        (vec![LOCAL, v6], vec![LOCAL, v6], vec![far]),
        (vec![far], vec![far], vec![]),
    ] {
        let case = format!("{shared:?}");
        let endpoint = echo("one").await;
        let fed = Fed::new(Config { shared, ..config() }).await;
        fed.begin().await;
        fed.define(NAME, NUMBER, Protocol::Udp, policy(), Vec::new());
        fed.define_endpoints(NAME, NUMBER, Protocol::Udp, vec![crate::support::endpoint(endpoint.address)]);
        let port = free_port();
        fed.name(NAME, NUMBER, port, Protocol::Udp, &[]).await;
        let listener = Resource::Listener(udp_listener(Bind::Shared, port, NAME));
        assert_eq!(fed.push(Kind::Listener, vec![listener], vec![]).await, Vec::new(), "{case}");
        for at in left_out {
            // It is the first one, so it would be the first to be answered.
            Caller::to(SocketAddr::new(at, port)).await.say(b"left out").await;
        }
        for at in &served {
            let caller = socket(if at.is_ipv4() { LOCAL } else { v6 }).await;
            caller.send_to(b"hello", (*at, port)).await.expect("sent");
            let mut bytes = [0; 100];
            let (length, from) = within(caller.recv_from(&mut bytes)).await.expect("received");
            assert_eq!(from, SocketAddr::new(*at, port), "{case}");
            assert_eq!(answer(&bytes[..length], "hello").0, "one", "{case}");
        }
        assert_eq!(metric(&fed, &of_service("flows")), served.len() as u64, "{case}");
    }
}

#[tokio::test]
async fn each_address_of_a_caller_is_a_flow() {
    let (one, two) = (echo("one").await, echo("two").await);
    let round_robin = BackendPolicy { balance: Balance::RoundRobin, ..policy() };
    let (fed, address) = serving(config(), round_robin, &[one.address, two.address]).await;
    let callers = [Caller::to(address).await, Caller::to(address).await];
    let mut seen = Vec::new();
    for caller in &callers {
        let first = caller.ask("first").await;
        for text in ["second", "third"] {
            assert_eq!(caller.ask(text).await, first, "it stays with its endpoint, from the same port");
        }
        seen.push(first);
    }
    assert_ne!(seen[0].0, seen[1].0, "the next flow went to the other endpoint");
    assert_ne!(seen[0].1, seen[1].1);
    assert_eq!(metric(&fed, &of_service("flows")), 2);
}

#[tokio::test]
async fn callers_stay_with_an_endpoint_where_the_policy_says_so() {
    let (one, two) = (echo("one").await, echo("two").await);
    let hash = BackendPolicy { balance: Balance::SourceHash { timeout: Duration::from_secs(60) }, ..policy() };
    let (_fed, address) = serving(config(), hash, &[one.address, two.address]).await;
    let mut used = std::collections::BTreeSet::new();
    for last in 1..=20 {
        let own = IpAddr::from([127, 0, 3, last]);
        let first = Caller::from(own, address).await.ask("a").await.0;
        for _ in 0..3 {
            assert_eq!(Caller::from(own, address).await.ask("b").await.0, first, "another port of {own}");
        }
        used.insert(first);
    }
    assert_eq!(used.len(), 2, "different callers use different endpoints");
}

#[tokio::test]
async fn a_silent_flow_ends_and_what_comes_late_reaches_nobody() {
    let endpoint = socket(LOCAL).await;
    let short = BackendPolicy { idle_timeout: Some(Duration::from_millis(300)), ..policy() };
    let (fed, address) = serving(config(), short, &[endpoint.local_addr().expect("bound")]).await;
    let caller = Caller::to(address).await;
    caller.say(b"first").await;
    let mut bytes = [0; 100];
    let (_, first) = within(endpoint.recv_from(&mut bytes)).await.expect("received");
    until("the flow ends", || ended(&fed, "idle") == 1 && metric(&fed, "maesh_udp_flows_open") == 0).await;
    endpoint.send_to(b"late", first).await.expect("sent");
    caller.say(b"second").await;
    let (length, second) = within(endpoint.recv_from(&mut bytes)).await.expect("received");
    assert_eq!(bytes[..length], *b"second");
    endpoint.send_to(b"in time", second).await.expect("sent");
    assert_eq!(caller.hear().await, b"in time", "nothing else came before it");
    until("one is counted", || metric(&fed, &of_service("sent_datagrams")) > 0).await;
    assert_eq!(metric(&fed, &of_service("sent_datagrams")), 1);
}

#[tokio::test]
async fn only_the_endpoint_can_answer() {
    let endpoint = socket(LOCAL).await;
    let (_fed, address) = serving(config(), policy(), &[endpoint.local_addr().expect("bound")]).await;
    let caller = Caller::to(address).await;
    caller.say(b"question").await;
    let (_, from) = within(endpoint.recv_from(&mut [0; 100])).await.expect("received");
    for stranger in [socket(LOCAL).await, socket(IpAddr::from([127, 0, 0, 8])).await] {
        stranger.send_to(b"from another port", from).await.expect("sent");
    }
    endpoint.send_to(b"answer", from).await.expect("sent");
    assert_eq!(caller.hear().await, b"answer");
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_left_for_another() {
    let (live, gone) = (echo("live").await, socket(LOCAL).await.local_addr().expect("bound"));
    let policy = BackendPolicy { balance: Balance::RoundRobin, ..policy() };
    let (fed, address) = serving(config(), policy, &[live.address, gone]).await;
    let mut refused = 0;
    for number in 0..6 {
        let caller = Caller::to(address).await;
        caller.say(b"lost or not").await;
        let mut bytes = [0; 100];
        let answered = tokio::select! {
            answer = caller.0.recv(&mut bytes) => answer.is_ok(),
            () = until("answered or refused", || ended(&fed, "refused") > refused) => false,
        };
        if !answered {
            refused += 1;
            assert_eq!(caller.ask("again").await.0, "live", "caller {number}: the next datagram goes elsewhere");
        }
    }
    assert!(refused > 0, "the endpoint that is not there was tried");
    assert_eq!(ended(&fed, "refused"), refused);
}

#[tokio::test]
async fn an_endpoint_that_is_never_there_is_ejected() {
    let (live, gone) = (echo("live").await, socket(LOCAL).await.local_addr().expect("bound"));
    let policy = BackendPolicy { balance: Balance::RoundRobin, ..policy() };
    let (fed, address) = serving(config(), policy, &[live.address, gone]).await;
    let ejections = || fed.counted("maesh_proxy_ejections_total", &["service=\"syslog\"", "transport=\"udp\""]);
    within(async {
        while ejections() == 0 {
            Caller::to(address).await.say(b"anything").await;
            tokio::task::yield_now().await;
        }
    })
    .await;
    for _ in 0..10 {
        assert_eq!(Caller::to(address).await.ask("hello").await.0, "live");
    }
}

#[tokio::test]
async fn flows_move_when_their_endpoint_leaves() {
    let (one, two) = (echo("one").await, echo("two").await);
    let (fed, address) = serving(config(), policy(), &[one.address]).await;
    let caller = Caller::to(address).await;
    assert_eq!(caller.ask("a").await.0, "one");
    fed.push_endpoints(NAME, NUMBER, Protocol::Udp, vec![endpoint(two.address)]).await;
    assert_eq!(caller.ask("b").await.0, "two");
    fed.push_endpoints(NAME, NUMBER, Protocol::Udp, vec![]).await;
    caller.say(b"c").await;
    until("there is no endpoint", || dropped(&fed, "no_endpoints") == 1).await;
    fed.push_endpoints(NAME, NUMBER, Protocol::Udp, vec![endpoint(one.address)]).await;
    assert_eq!(caller.ask("d").await.0, "one");
    until("the flows that moved have ended", || metric(&fed, "maesh_udp_flows_open") == 1).await;
    assert_eq!(ended(&fed, "moved"), 2);
}

/// What depends on the node of a caller waits until that is known.
#[tokio::test]
async fn traffic_stays_on_the_callers_node_where_the_service_says_so() {
    let (here, there) = (echo("here").await, echo("there").await);
    let local = BackendPolicy { local_only: true, ..policy() };
    let (fed, address) = serving(Config { node: Some("n1".into()), ..config() }, local, &[]).await;
    let on = |node: &str, at| maesh_config::model::Endpoint { node: Some(node.into()), ..endpoint(at) };
    let endpoints = vec![on("n1", here.address), on("n2", there.address)];
    fed.define_endpoints(NAME, NUMBER, Protocol::Udp, endpoints);
    for (last, node, want) in [(1, "n1", "here"), (2, "n2", "there"), (3, "n1", "here"), (4, "n2", "there")] {
        let own = IpAddr::from([127, 0, 7, last]);
        fed.define_pod(own, "shop", node);
        let caller = Caller::from(own, address).await;
        assert_eq!(caller.ask("first").await.0, want, "{own} on {node}");
        assert_eq!(caller.ask("second").await.0, want, "{own} on {node}");
    }
    let stranger = Caller::from(IpAddr::from([127, 0, 7, 9]), address).await;
    assert_eq!(stranger.ask("who is no pod").await.0, "here", "the proxy's own node");
}

#[tokio::test]
async fn the_first_datagrams_wait_for_the_configuration_of_the_service() {
    let server = echo("one").await;
    let fed = Fed::new(config()).await;
    fed.begin().await;
    fed.answering.send_replace(false);
    fed.define(NAME, NUMBER, Protocol::Udp, policy(), Vec::new());
    fed.define_endpoints(NAME, NUMBER, Protocol::Udp, vec![endpoint(server.address)]);
    let port = free_port();
    fed.name(NAME, NUMBER, port, Protocol::Udp, &[]).await;
    let listener = udp_listener(Bind::Address(LOCAL), port, NAME);
    fed.push(Kind::Listener, vec![Resource::Listener(listener)], vec![]).await;
    let caller = Caller::to(SocketAddr::new(LOCAL, port)).await;
    for text in ["first", "second"] {
        caller.say(text.as_bytes()).await;
    }
    until("it is asked for", || !fed.demands.lock().expect("lock").is_empty()).await;
    fed.answering.send_replace(true);
    for text in ["first", "second"] {
        assert_eq!(answer(&caller.hear().await, text).0, "one");
    }
}

#[tokio::test]
async fn a_port_that_is_closed_is_free_at_once_and_others_stay() {
    let server = echo("one").await;
    let (fed, address) = serving(config(), policy(), &[server.address]).await;
    // The same port carries TCP, for the same Service.
    let streams = endpoints::raw(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    fed.define("tcp.shop", NUMBER, Protocol::Tcp, BackendPolicy::default(), Vec::new());
    fed.define_endpoints("tcp.shop", NUMBER, Protocol::Tcp, vec![endpoint(streams)]);
    fed.name("tcp.shop", NUMBER, address.port(), Protocol::Tcp, &[]).await;
    fed.listen_on(address.port(), Some(("tcp.shop", NUMBER)), false, &[]).await;
    let caller = Caller::to(address).await;
    assert_eq!(caller.ask("a").await.0, "one");
    let id = ListenerId::new(Bind::Address(LOCAL), address.port(), Transport::Udp).0;
    fed.push(Kind::Listener, vec![], vec![&id]).await;
    within(async {
        while UdpSocket::bind(address).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    until("the flow is over", || ended(&fed, "closed") == 1).await;
    let mut stream = Raw::to(address).await;
    stream.say("still here").await;
    tokio::io::AsyncWriteExt::shutdown(&mut stream.stream).await.expect("half closed");
    assert_eq!(stream.rest().await, "still here");
}

#[tokio::test]
async fn one_number_of_a_service_can_carry_both() {
    let (datagrams, fed) = (echo("udp").await, Fed::new(config()).await);
    fed.begin().await;
    let streams = endpoints::raw(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let port = free_port();
    fed.define_both(NAME, NUMBER, policy(), (streams, datagrams.address));
    fed.name_both(NAME, NUMBER, port).await;
    let both = [udp_listener(Bind::Address(LOCAL), port, NAME), listener(port, Some((NAME, NUMBER)), false, &[])];
    assert_eq!(fed.push(Kind::Listener, both.map(Resource::Listener).into(), vec![]).await, Vec::new());
    let address = SocketAddr::new(LOCAL, port);
    assert_eq!(Caller::to(address).await.ask("a").await.0, "udp");
    let mut stream = Raw::to(address).await;
    stream.say("tcp").await;
    tokio::io::AsyncWriteExt::shutdown(&mut stream.stream).await.expect("half closed");
    assert_eq!(stream.rest().await, "tcp");
}

#[tokio::test]
async fn flows_go_on_while_the_proxy_drains_until_they_are_silent() {
    let server = echo("one").await;
    let (mut fed, address) = serving(config(), policy(), &[server.address]).await;
    let (old, new) = (Caller::to(address).await, Caller::to(address).await);
    let before = old.ask("before").await;
    let registry = fed.proxy.as_ref().expect("running").registry();
    let drained = tokio::spawn(fed.proxy.take().expect("running").drain());
    let mut report = fed.report.clone();
    within(report.wait_for(|ready| !ready)).await.expect("the proxy leaves");
    let listeners = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry.lock()).expect("encoded");
        text.lines().find_map(|line| line.strip_prefix("maesh_proxy_listeners ").map(str::to_owned))
    };
    until("no listener is open", || listeners().as_deref() == Some("0")).await;
    new.say(b"too late").await;
    for _ in 0..3 {
        assert_eq!(old.ask("meanwhile").await, before);
    }
    // It is not cut after five seconds: it ends because it is silent.
    assert_eq!(within(drained).await.expect("drained"), 0);
    let mut bytes = [0; 100];
    assert!(new.0.try_recv(&mut bytes).is_err(), "no new flow was opened");
}
