//! Access control through `maesh dev --acl`: TrafficTargets of SMI decide who reaches whom. Callers are pods by the address that they
//! call from.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
};

use crate::support::{
    Dev, PATIENCE, await_condition,
    backend::Backend,
    command,
    http::{Answer, Client, connect_from, get},
    manifest::{save, service, slices},
    named::{Datagrams, named},
    page::{blocks, page, section},
};

/// Where callers call from.
const ANN: &str = "127.0.33.1";
const CYD: &str = "127.0.33.2";
const OTHER_ANN: &str = "127.0.33.3";
const HOST: &str = "127.0.33.4";
const NOBODY: &str = "127.0.33.5";

fn pod(namespace: &str, name: &str, account: &str, address: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{serviceAccountName: {account}{more}}}\nstatus: {{podIP: {address}}}\n---\n"
    )
}

fn callers() -> String {
    pod("shop", "ann", "ann", ANN, "")
        + &pod("shop", "cyd", "cyd", CYD, "")
        + &pod("other", "ann", "ann", OTHER_ANN, "")
        + &pod("shop", "host", "ann", HOST, ", hostNetwork: true")
}

fn target(version: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: access.smi-spec.io/{version}\nkind: TrafficTarget\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{destination: {{kind: ServiceAccount, name: bob}}, {spec}}}\n---\n"
    )
}

/// `ann` may call `bob` with this rule.
fn ann_may(rules: &str) -> String {
    target("v1alpha3", "ann", &format!("rules: [{rules}], sources: [{{kind: ServiceAccount, name: ann}}]"))
}

fn group(name: &str, matches: &str) -> String {
    format!(
        "apiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{matches: [{matches}]}}\n---\n"
    )
}

fn route(kind: &str, name: &str, ports: &str) -> String {
    format!(
        "apiVersion: specs.smi-spec.io/v1alpha4\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{matches: {{ports: [{ports}]}}}}\n---\n"
    )
}

const GROUP: &str = "{kind: HTTPRouteGroup, name: g}";
const TCP: &str = "{kind: TCPRoute, name: t}";

/// Service shop/b on port 8080 with a pod that runs as `bob`, and the callers.
struct Shop {
    folder: tempfile::TempDir,
    backend: Backend,
}

impl Shop {
    fn new() -> Self {
        let backend = Backend::http_at("b", "127.0.34.1");
        let this = Self { folder: tempfile::tempdir().unwrap(), backend };
        let text = service("shop", "b", 8080, "") + &slices("shop", "b", &[this.backend.address]) + "---\n";
        save(this.folder.path(), "shop.yaml", &(text + &pod("shop", "b-1", "bob", "127.0.34.1", "") + &callers()));
        this
    }

    fn save(&self, objects: &str) {
        save(self.folder.path(), "acl.yaml", objects);
    }

    fn start(&self, objects: &str) -> Dev {
        self.save(objects);
        Dev::start_with(self.folder.path(), &["--acl"])
    }
}

fn ask(from: &str, at: SocketAddr, method: &str, path: &str, fields: &str) -> Answer {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: b.shop.maesh\r\n{fields}\r\n");
    let mut client = Client::connect_from(from.parse().unwrap(), at).unwrap();
    client.send(request.as_bytes()).unwrap()
}

/// What becomes of a request: `200`, or the reason.
fn outcome(answer: &Answer) -> String {
    answer
        .field("x-maesh-reason")
        .map_or_else(|| answer.status.to_string(), |reason| format!("{} {reason}", answer.status))
}

fn get_from(from: &str, at: SocketAddr, path: &str) -> String {
    outcome(&ask(from, at, "GET", path, ""))
}

/// The cases of HTTP. Each request is `METHOD PATH [field:value ...]`, first those that pass, then those that are denied.
#[test]
fn requests_pass_as_targets_say() {
    for (case, objects, pass, denied) in [
        ("1 nothing is granted", String::new(), &[][..], &["GET /"][..]),
        ("3 a TCPRoute for all ports", route("TCPRoute", "t", "") + &ann_may(TCP), &["GET /", "POST /x"], &[]),
        (
            "5 a path",
            group("g", "{name: m, pathRegex: /metrics, methods: [\"*\"]}")
                + &ann_may("{kind: HTTPRouteGroup, name: g, matches: [m]}"),
            &["GET /metrics"],
            &["GET /echo"],
        ),
        (
            "6 a method",
            group("g", "{pathRegex: \".*\", methods: [GET]}") + &ann_may(GROUP),
            &["GET /any"],
            &["POST /any"],
        ),
        ("7 every method", group("g", "{methods: [GET, \"*\"]}") + &ann_may(GROUP), &["GET /", "POST /"], &[]),
        ("8 no method is every method", group("g", "{pathRegex: /api}") + &ann_may(GROUP), &["PUT /api"], &["PUT /"]),
        (
            "9 the beginning",
            group("g", "{pathRegex: /api}") + &ann_may(GROUP),
            &["GET /api/v1", "GET /apix"],
            &["GET /x/api"],
        ),
        (
            "10 to the end",
            group("g", "{pathRegex: /api$}") + &ann_may(GROUP),
            &["GET /api", "GET /api?q=1"],
            &["GET /api/v1"],
        ),
        (
            "11 what is two paths",
            group("g", "{pathRegex: /public}") + &ann_may(GROUP),
            &["GET /public/x", "GET /public/./x", "GET /public//x", "GET /%70ublic/x"],
            &[
                "GET /public/../admin",
                "GET /public%2f..%2fadmin",
                "GET /public/%2e%2e/admin",
                "GET /public/..%252fadmin",
                "GET /public/..;/admin",
                "GET /public;/../admin",
                "GET /public/..%5cadmin",
                "GET //admin",
                "GET http://b.shop.maesh/admin",
                "GET /x/../public/../admin",
            ],
        ),
        ("12 no slash", group("g", "{pathRegex: metrics}") + &ann_may(GROUP), &["GET /metrics"], &["GET /xmetrics"]),
        (
            "13 a bad expression",
            group("g", "{pathRegex: \"(\"}, {pathRegex: /ok}") + &ann_may(GROUP),
            &["GET /ok"],
            &["GET /("],
        ),
        (
            "14 both headers",
            group("g", "{headers: {x-a: \"1\", x-b: \"2\"}}") + &ann_may(GROUP),
            &["GET / X-A:1 X-B:2"],
            &["GET / X-A:1", "GET /"],
        ),
        (
            "15 headers as a list",
            group("g", "{headers: [{x-a: \"1\"}, {x-b: \"2\"}]}") + &ann_may(GROUP),
            &["GET / X-A:1 X-B:2"],
            &["GET / X-B:2"],
        ),
        ("18 the host", group("g", "{headers: {host: \"^b\\\\.\"}}") + &ann_may(GROUP), &["GET /"], &[]),
        ("19 a name alone", group("g", "{name: any}") + &ann_may(GROUP), &["GET /", "DELETE /x"], &[]),
        ("20 a group without matches", group("g", "") + &ann_may(GROUP), &[], &["GET /"]),
        (
            "21 either match",
            group("g", "{name: a, pathRegex: /a}, {name: b, pathRegex: /b}") + &ann_may(GROUP),
            &["GET /a", "GET /b"],
            &["GET /c"],
        ),
        (
            "22 a name that there is not",
            group("g", "{name: ok, pathRegex: /a}") + &ann_may("{kind: HTTPRouteGroup, name: g, matches: [ok, typo]}"),
            &["GET /a"],
            &["GET /b"],
        ),
        (
            "24 no rules, an old version",
            target("v1alpha2", "x", "sources: [{kind: ServiceAccount, name: ann}]"),
            &["GET /"],
            &[],
        ),
        (
            "24 no rules, today",
            target("v1alpha3", "x", "sources: [{kind: ServiceAccount, name: ann}]"),
            &[],
            &["GET /"],
        ),
        (
            "29 the port of the oldest version",
            target("v1alpha1", "x", "sources: [{kind: ServiceAccount, name: ann}]")
                .replace("name: bob}", "name: bob, port: 8080}"),
            &["GET /"],
            &[],
        ),
        (
            "29 another port",
            target("v1alpha1", "x", "sources: [{kind: ServiceAccount, name: ann}]")
                .replace("name: bob}", "name: bob, port: 9090}"),
            &[],
            &["GET /"],
        ),
        (
            "31 requests on other ports",
            group("g", "{name: any}") + &route("TCPRoute", "t", "9090") + &ann_may(&format!("{GROUP}, {TCP}")),
            &[],
            &["GET /"],
        ),
    ] {
        let shop = Shop::new();
        let dev = shop.start(&objects);
        let at = dev.served_at("b.shop.maesh");
        for (requests, want) in [(pass, "200"), (denied, "403 denied")] {
            for request in requests {
                let mut parts = request.split(' ');
                let (method, path) = (parts.next().unwrap(), parts.next().unwrap());
                let mut fields: String = parts.map(|field| format!("{}\r\n", field.replacen(':', ": ", 1))).collect();
                if matches!(method, "POST" | "PUT") {
                    fields += "Content-Length: 0\r\n";
                }
                let before = shop.backend.arrived();
                let answer = ask(ANN, at, method, path, &fields);
                assert_eq!(outcome(&answer), want, "{case}: {request}");
                assert_eq!(shop.backend.arrived() - before, usize::from(want == "200"), "{case}: {request} arrived");
            }
        }
        // Nobody else is meant, whatever they say of themselves.
        for from in [CYD, OTHER_ANN, HOST, NOBODY] {
            let fields = format!("X-Forwarded-For: {ANN}\r\nX-Real-Ip: {ANN}\r\nForwarded: for={ANN}\r\n");
            for path in ["/", "/api", "/metrics", "/a", "/ok"] {
                assert_eq!(outcome(&ask(from, at, "GET", path, &fields)), "403 denied", "{case}: {path} from {from}");
            }
        }
    }
}

/// Case 2: without `--acl` targets are ignored, and that is said.
#[test]
fn without_access_control_targets_are_ignored_and_that_is_said() {
    let shop = Shop::new();
    shop.save(&(route("TCPRoute", "t", "") + &ann_may(TCP)));
    let dev = Dev::start(shop.folder.path());
    let said = dev
        .early
        .iter()
        .any(|event| event["message"].as_str().is_some_and(|text| text.contains("access control is off")));
    assert!(said, "{:#?}", dev.early);
    assert_eq!(get_from(NOBODY, dev.served_at("b.shop.maesh"), "/"), "200");
}

/// Cases 4, 23, 25 to 28: grants come and go, and each has its own callers.
#[test]
fn grants_come_and_go() {
    let shop = Shop::new();
    let both = group("a", "{pathRegex: /a}")
        + &group("c", "{pathRegex: /c}")
        + &target(
            "v1alpha3",
            "a",
            "rules: [{kind: HTTPRouteGroup, name: a}], sources: [{kind: ServiceAccount, name: ann}]",
        )
        + &target(
            "v1alpha3",
            "c",
            "rules: [{kind: HTTPRouteGroup, name: c}], sources: [{kind: ServiceAccount, name: cyd, namespace: shop}, \
             {kind: ServiceAccount, name: ann, namespace: other}]",
        );
    let dev = shop.start(&both);
    let at = dev.served_at("b.shop.maesh");
    for (from, path, want) in [
        (ANN, "/a", "200"),
        (ANN, "/c", "403 denied"),
        (CYD, "/c", "200"),
        (CYD, "/a", "403 denied"),
        (OTHER_ANN, "/c", "200"),
        (OTHER_ANN, "/a", "403 denied"),
        (HOST, "/a", "403 denied"),
        (NOBODY, "/a", "403 denied"),
    ] {
        assert_eq!(get_from(from, at, path), want, "{from} {path}");
    }
    // The group goes, and comes again.
    let without = both.replace("name: a, namespace: shop", "name: gone, namespace: shop");
    shop.save(&without);
    await_condition("the group is missing", || (get_from(ANN, at, "/a") == "403 denied").then_some(()));
    assert_eq!(get_from(CYD, at, "/c"), "200");
    shop.save(&both);
    await_condition("the group is back", || (get_from(ANN, at, "/a") == "200").then_some(()));
    // All targets go.
    shop.save("# none\n");
    await_condition("nothing is granted", || (get_from(CYD, at, "/c") == "403 denied").then_some(()));
    // The pod of an address is another one.
    shop.save(&(both + &pod("shop", "eve", "eve", NOBODY, "")));
    await_condition("granted again", || (get_from(ANN, at, "/a") == "200").then_some(()));
    assert_eq!(get_from(NOBODY, at, "/a"), "403 denied");
    let of_target = target(
        "v1alpha3",
        "x",
        "rules: [{kind: HTTPRouteGroup, name: a}], sources: [{kind: ServiceAccount, name: ann}]",
    );
    let elsewhere = of_target.replace("name: bob}", "name: bob, namespace: other}");
    shop.save(&(group("a", "{pathRegex: /a}") + &elsewhere));
    await_condition("a target for another namespace grants nothing", || {
        (get_from(ANN, at, "/a") == "403 denied").then_some(())
    });
}

/// Case 34: a caller reaches those pods of a Service that it is admitted to, and what is nobody's is nobody's.
#[test]
fn pods_of_one_service_differ() {
    let folder = tempfile::tempdir().unwrap();
    let backends = [("bob", "127.0.34.2"), ("dan", "127.0.34.3"), ("nobody", "127.0.34.4"), ("far", "127.0.34.5")]
        .map(|(name, address)| (name, address, Backend::http_at(name, address)));
    let addresses: Vec<_> = backends.iter().map(|(.., backend)| backend.address).collect();
    let text = service("shop", "b", 8080, "") + &slices("shop", "b", &addresses) + "---\n" + &callers();
    let text = text + &pod("shop", "bob", "bob", "127.0.34.2", "") + &pod("shop", "dan", "dan", "127.0.34.3", "");
    // A pod of the same name of account in another namespace, by a slice that somebody wrote by hand.
    let text = text + &pod("far", "bob", "bob", "127.0.34.5", "");
    save(folder.path(), "all.yaml", &(text + &route("TCPRoute", "t", "") + &ann_may(TCP)));
    let dev = Dev::start_with(folder.path(), &["--acl"]);
    let at = dev.served_at("b.shop.maesh");
    for _ in 0..40 {
        let answer = ask(ANN, at, "GET", "/", "");
        assert_eq!((answer.status, answer.by()), (200, "bob"));
    }
    assert_eq!(get_from(CYD, at, "/"), "403 denied");
}

/// Case 50, fallbacks, mirrors and routes: every backend is asked.
#[test]
fn every_backend_is_checked() {
    for (case, annotation, extra, want, reaches) in [
        ("a share for one that is not granted", "routes: \"PathPrefix(`/`) => b 9, d 1\"", "", "403 denied", "b"),
        ("a share of nothing", "routes: \"PathPrefix(`/`) => b 9, d 0\"", "", "200", "b"),
        ("a route to one that is not granted", "routes: \"PathPrefix(`/`) => d\"", "", "403 denied", "d"),
        (
            "a split",
            "",
            "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {name: s, namespace: shop}\n\
             spec: {service: top, backends: [{service: b, weight: 1}, {service: d, weight: 1}]}\n---\n",
            "403 denied",
            "b",
        ),
        ("a mirror", "mirror: d", "", "200", "d"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (b, d) = (Backend::http_at("b", "127.0.34.6"), Backend::http_at("d", "127.0.34.7"));
        let annotations = if annotation.is_empty() { String::new() } else { format!("maesh.containo.us/{annotation}") };
        let mut text = service("shop", "top", 8080, &annotations) + &slices("shop", "top", &[b.address]) + "---\n";
        text += &(service("shop", "b", 8080, "") + &slices("shop", "b", &[b.address]) + "---\n");
        text += &(service("shop", "d", 8080, "") + &slices("shop", "d", &[d.address]) + "---\n");
        text +=
            &(pod("shop", "bob", "bob", "127.0.34.6", "") + &pod("shop", "dan", "dan", "127.0.34.7", "") + &callers());
        text += &(route("TCPRoute", "t", "") + &ann_may(TCP) + extra);
        save(folder.path(), "all.yaml", &text);
        let dev = Dev::start_with(folder.path(), &["--acl"]);
        let at = dev.served_at("top.shop.maesh");
        let ask = || {
            let request = "GET / HTTP/1.1\r\nHost: top.shop.maesh\r\n\r\n";
            let mut client = Client::connect_from(ANN.parse().unwrap(), at).unwrap();
            outcome(&client.send(request.as_bytes()).unwrap())
        };
        assert!((0..20).all(|_| ask() == want), "{case}: {}", ask());
        let reached = [("b", b.arrived()), ("d", d.arrived())].into_iter().find(|(name, _)| *name == reaches);
        assert_eq!(reached.unwrap().1 > 0, want == "200" && reaches == "b", "{case}");
        assert_eq!(d.arrived(), 0, "{case}: nothing reaches what is not granted");
    }
}

/// A fallback takes requests only of those who are granted it; the others hear why it was needed.
#[test]
fn a_fallback_is_checked_when_it_is_used() {
    let d = Backend::http_at("d", "127.0.34.7");
    let nobody_listens = TcpListener::bind("127.0.34.6:0").unwrap().local_addr().unwrap();
    let mut text = service("shop", "top", 8080, "maesh.containo.us/fallback: d")
        + &slices("shop", "top", &[nobody_listens])
        + "---\n"
        + &service("shop", "d", 8080, "")
        + &slices("shop", "d", &[d.address])
        + "---\n";
    text += &(pod("shop", "bob", "bob", "127.0.34.6", "") + &pod("shop", "dan", "dan", "127.0.34.7", "") + &callers());
    text += &(route("TCPRoute", "t", "") + &ann_may(TCP));
    let to_dan =
        ann_may(TCP).replace("name: bob", "name: dan").replace("name: ann, namespace", "name: ann-dan, namespace");
    for (case, more, want) in [("not granted", "", "502 connect_failed"), ("granted", &*to_dan, "200")] {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), "all.yaml", &format!("{text}{more}"));
        let dev = Dev::start_with(folder.path(), &["--acl"]);
        let at = dev.served_at("top.shop.maesh");
        for _ in 0..5 {
            let request = "GET / HTTP/1.1\r\nHost: top.shop.maesh\r\n\r\n";
            let mut client = Client::connect_from(ANN.parse().unwrap(), at).unwrap();
            assert_eq!(outcome(&client.send(request.as_bytes()).unwrap()), want, "{case}");
        }
        assert_eq!(d.arrived() > 0, want == "200", "{case}");
    }
}

/// Cases 32 and 33: connections are reset before an endpoint is called, datagrams are dropped.
#[test]
fn connections_and_datagrams_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let udp = Datagrams::start("log");
    let db = named("db");
    let mut text =
        service("shop", "db", 5432, "maesh.containo.us/traffic-type: tcp") + &slices("shop", "db", &[db]) + "---\n";
    text += &service("shop", "log", 5140, "").replace("port: 5140\n", "port: 5140\n    protocol: UDP\n");
    text += &slices("shop", "log", &[udp.at]).replace("- name: main\n", "- name: main\n  protocol: UDP\n");
    text += "---\n";
    // Both listen on this address.
    text += &(pod("shop", "b", "bob", "127.0.0.1", "") + &callers());
    text += &(route("TCPRoute", "t", "5432")
        + &route("UDPRoute", "u", "5140")
        + &ann_may(&format!("{TCP}, {{kind: UDPRoute, name: u}}")));
    save(folder.path(), "all.yaml", &text);
    let dev = Dev::start_with(folder.path(), &["--acl"]);

    let at = dev.served_at("db.shop.maesh");
    let hear = |from: &str| {
        let mut heard = String::new();
        let mut stream = connect_from(from.parse().unwrap(), at).unwrap();
        let read = stream.read_to_string(&mut heard);
        read.map(|_| heard).map_err(|error| error.kind())
    };
    assert_eq!(hear(ANN), Ok("db".to_owned()));
    for from in [CYD, OTHER_ANN, HOST, NOBODY] {
        assert_eq!(hear(from), Err(ErrorKind::ConnectionReset), "{from}");
    }
    let mut stream = connect_from(ANN.parse().unwrap(), at).unwrap();
    stream.write_all(b"x").unwrap();

    let at = dev.served_at("log.shop.maesh");
    let answers = |from: &str, times: usize| {
        let socket = UdpSocket::bind((from.parse::<IpAddr>().unwrap(), 0)).unwrap();
        socket.set_read_timeout(Some(if times == 1 { PATIENCE } else { PATIENCE / 100 })).unwrap();
        let mut bytes = [0; 16];
        socket.send_to(b"!", at).unwrap();
        socket.recv(&mut bytes).is_ok()
    };
    assert!(answers(ANN, 1), "granted");
    for from in [CYD, OTHER_ANN, HOST, NOBODY] {
        assert!(!answers(from, 2), "{from}");
    }
}

/// An endpoint that reads a head, writes these bytes, and then says nothing more.
fn saying(bytes: &'static [u8], address: &str) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).and_then(|_| stream.write_all(bytes));
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            });
        }
    });
    at
}

/// Streams that have begun end when the grant, or the identity of their caller, is gone; others go on.
#[test]
fn streams_end_with_their_grant() {
    let upgrade = "Connection: upgrade\r\nUpgrade: chat\r\n";
    for (case, revoke) in [("the grant", ""), ("the identity", "eve")] {
        let folder = tempfile::tempdir().unwrap();
        let endpoints = [
            ("silent", saying(b"", "127.0.34.8")),
            ("begun", saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin", "127.0.34.8")),
            (
                "upgraded",
                saying(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\nbegin",
                    "127.0.34.8",
                ),
            ),
        ];
        let (db, udp) = (Backend::echo_at("127.0.34.8"), Datagrams::start("log"));
        let mut text = pod("shop", "bob", "bob", "127.0.34.8", "") + &pod("shop", "log", "bob", "127.0.0.1", "");
        for (name, at) in endpoints {
            text += &(service("shop", name, 8080, "") + &slices("shop", name, &[at]) + "---\n");
        }
        text += &(service("shop", "db", 5432, "maesh.containo.us/traffic-type: tcp")
            + &slices("shop", "db", &[db.address])
            + "---\n");
        text += &service("shop", "log", 5140, "").replace("port: 5140\n", "port: 5140\n    protocol: UDP\n");
        text += &slices("shop", "log", &[udp.at]).replace("- name: main\n", "- name: main\n  protocol: UDP\n");
        save(folder.path(), "all.yaml", &text);
        save(folder.path(), "callers.yaml", &callers());
        let grants = |who: &str| {
            let rules = format!(
                "rules: [{TCP}, {{kind: UDPRoute, name: u}}], sources: [{{kind: ServiceAccount, name: {who}}}]"
            );
            target("v1alpha3", who, &rules)
        };
        let routes = route("TCPRoute", "t", "") + &route("UDPRoute", "u", "");
        save(folder.path(), "acl.yaml", &(routes.clone() + &grants("ann") + &grants("cyd")));
        let dev = Dev::start_with(folder.path(), &["--acl"]);
        let at = |name: &str| dev.served_at(&format!("{name}.shop.maesh"));
        let open = |from: &str, name: &str, fields: &str| {
            let mut stream = connect_from(from.parse().unwrap(), at(name)).unwrap();
            write!(stream, "GET / HTTP/1.1\r\nHost: {name}.shop.maesh\r\n{fields}\r\n").unwrap();
            stream
        };
        let begun = |mut stream: TcpStream| {
            let mut head = Vec::new();
            while !head.ends_with(b"begin") {
                let mut byte = [0];
                assert_eq!(stream.read(&mut byte).unwrap(), 1, "{case}: {}", String::from_utf8_lossy(&head));
                head.push(byte[0]);
            }
            stream
        };
        let echo = |stream: &mut TcpStream| {
            let mut bytes = [0; 2];
            stream.write_all(b"hi").and_then(|()| stream.read_exact(&mut bytes))
        };
        let mut silent = open(ANN, "silent", "");
        let mut streams = vec![begun(open(ANN, "begun", "")), begun(open(ANN, "upgraded", upgrade))];
        let mut connection = connect_from(ANN.parse().unwrap(), at("db")).unwrap();
        echo(&mut connection).unwrap();
        let mut other = connect_from(CYD.parse().unwrap(), at("db")).unwrap();
        echo(&mut other).unwrap();
        let flow = UdpSocket::bind((ANN, 0)).unwrap();
        flow.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = [0; 16];
        flow.send_to(b"!", at("log")).unwrap();
        flow.recv(&mut bytes).unwrap();

        if revoke.is_empty() {
            save(folder.path(), "acl.yaml", &(routes + &grants("cyd")));
        } else {
            let other_pod = callers().replacen("name: ann, namespace: shop", "name: eve, namespace: shop", 1);
            save(
                folder.path(),
                "callers.yaml",
                &other_pod.replacen("serviceAccountName: ann", "serviceAccountName: eve", 1),
            );
        }
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(silent.read(&mut byte).unwrap(), 1, "{case}: {}", String::from_utf8_lossy(&answer));
            answer.push(byte[0]);
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("x-maesh-reason: denied"), "{case}: {answer}");
        for stream in &mut streams {
            let ended = stream.read(&mut bytes);
            assert!(
                matches!(ended, Ok(0)) || ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
                "{case}"
            );
        }
        let ended = connection.read(&mut bytes).map_err(|error| error.kind());
        assert_eq!(ended, Err(ErrorKind::ConnectionReset), "{case}");
        flow.set_read_timeout(Some(PATIENCE / 100)).unwrap();
        flow.send_to(b"!", at("log")).unwrap();
        assert!(flow.recv(&mut bytes).is_err(), "{case}: a datagram of a flow that had begun");
        echo(&mut other).unwrap_or_else(|error| panic!("{case}: {error}"));
    }
}

/// What one rule restricts, another one must not open because it cannot be read.
#[test]
fn a_rule_that_cannot_be_read_opens_nothing() {
    let shop = Shop::new();
    let good = group("g", "{pathRegex: /only, methods: [GET]}") + &route("TCPRoute", "t", "8080");
    let dev = shop.start(&good);
    let at = dev.served_at("b.shop.maesh");
    for rules in [
        "{kind: HttpRouteGroup, name: g}, {kind: TCPRoute, name: t}",
        "{kind: HTTPRouteGroup, name: g, matches: all}, {kind: TCPRoute, name: t}",
        "{kind: HTTPRouteGroup}, {kind: TCPRoute, name: t}",
        "{name: g}, {kind: TCPRoute, name: t}",
        "5, {kind: TCPRoute, name: t}",
        "{kind: TcpRoute, name: t}, {kind: HTTPRouteGroup, name: g}",
    ] {
        shop.save(&(good.clone() + &ann_may("{kind: HTTPRouteGroup, name: g}, {kind: TCPRoute, name: t}")));
        await_condition("the good form", || (get_from(ANN, at, "/only") == "200").then_some(()));
        shop.save(&(good.clone() + &ann_may(rules)));
        await_condition(rules, || (get_from(ANN, at, "/only") == "403 denied").then_some(()));
        assert_eq!(outcome(&ask(ANN, at, "DELETE", "/admin", "")), "403 denied", "{rules}");
    }
}

/// More targets of one ServiceAccount than count, each with an expression of its own, and more of these than count.
#[test]
fn targets_beyond_the_limits_open_nothing_and_keep_nobody_waiting() {
    let shop = Shop::new();
    let other = Backend::http_at("other", "127.0.34.2");
    let text = service("shop", "other", 8080, "") + &slices("shop", "other", &[other.address]) + "---\n";
    save(shop.folder.path(), "other.yaml", &(text + &pod("shop", "other-1", "oth", "127.0.34.2", "")));
    let one = |i: usize| {
        let rules =
            format!("rules: [{{kind: HTTPRouteGroup, name: g{i:04}}}], sources: [{{kind: ServiceAccount, name: ann}}]");
        group(&format!("g{i:04}"), &format!("{{pathRegex: /p{i:04}$}}"))
            + &target("v1alpha3", &format!("t{i:04}"), &rules)
    };
    let to_other = route("TCPRoute", "t", "") + &ann_may(TCP).replace("name: bob", "name: oth");
    let dev = shop.start(&((0..1_002).map(one).collect::<String>() + &to_other));
    let at = dev.served_at("b.shop.maesh");
    for (path, want) in [("/p0000", "200"), ("/p0255", "200"), ("/p0256", "403 denied"), ("/p1001", "403 denied")] {
        assert_eq!(get_from(ANN, at, path), want, "{path}");
    }
    let says =
        |what: &str| dev.early.iter().filter(|it| it["message"].as_str().unwrap_or_default().contains(what)).count();
    assert_eq!(says("has 1000 older targets"), 2);
    assert_eq!(says("TrafficTarget shop/t0256: with it, the TrafficTargets for Service shop/b have more than 256"), 1);
    // The first use of another Service, while nothing of the one above is at rest.
    shop.save(&((1..1_002).map(one).collect::<String>() + &to_other));
    let mut client = Client::connect_from(ANN.parse().unwrap(), dev.served_at("other.shop.maesh")).unwrap();
    assert_eq!(outcome(&client.get("other.shop.maesh", "/").unwrap()), "200");
    await_condition("the oldest target is gone, and one more counts", || {
        (get_from(ANN, at, "/p0256") == "200").then_some(())
    });
    assert_eq!(get_from(ANN, at, "/p0000"), "403 denied");
}

/// Servers differ in which of several lines of a field they take.
#[test]
fn each_line_of_a_field_has_to_fit() {
    let shop = Shop::new();
    let matches =
        "{pathRegex: /neg, headers: {x-tenant: \"^[^b]*$\"}}, {pathRegex: /hdr, headers: {x-role: \"^admin$\"}}";
    let dev = shop.start(&(group("g", matches) + &ann_may(GROUP)));
    let at = dev.served_at("b.shop.maesh");
    for (path, fields, want) in [
        ("/neg", "x-tenant: a\r\n", "200"),
        ("/neg", "x-tenant: a\r\nx-tenant: c\r\n", "200"),
        ("/neg", "x-tenant: a\r\nx-tenant: b\r\n", "403 denied"),
        ("/neg", "x-tenant: b\r\nx-tenant: a\r\n", "403 denied"),
        ("/hdr", "x-role: admin\r\n", "200"),
        ("/hdr", "x-role: root\r\nx-role: admin\r\n", "403 denied"),
        ("/hdr", "x-role: admin\r\nx-role: admin\r\n", "403 denied"),
        ("/hdr", "x-role: admin, root\r\n", "403 denied"),
        ("/hdr", "", "403 denied"),
    ] {
        assert_eq!(outcome(&ask(ANN, at, "GET", path, fields)), want, "{path} {fields:?}");
    }
}

/// Octets of which servers make different things open no path.
#[test]
fn paths_that_servers_read_in_ways_of_their_own_are_not_admitted() {
    let shop = Shop::new();
    let dev = shop.start(&(group("g", "{pathRegex: /prices}") + &ann_may(GROUP)));
    let at = dev.served_at("b.shop.maesh");
    assert_eq!(get_from(ANN, at, "/prices/caf%c3%a9"), "200");
    for path in [
        "/prices/%c0%ae%c0%ae%c0%afadmin",
        "/prices/..%c0%afadmin",
        "/prices/%e0%80%ae%e0%80%ae/admin",
        "/prices/..%00/admin",
        "/prices/%u002e%u002e/admin",
        "/prices/%25252e%25252e%25252fadmin",
    ] {
        let got = get_from(ANN, at, path);
        assert!(got == "403 denied" || got == "400 bad_request", "{path}: {got}");
    }
}

/// Each ServiceAccount that a dry run would deny is named, and so is what would happen to mirrors and fallbacks.
#[test]
fn a_dry_run_names_everybody_and_looks_at_mirrors_and_fallbacks() {
    let shop = Shop::new();
    let (secret, nothing) = (Backend::http_at("secret", "127.0.34.2"), "127.0.34.3:9");
    let text = service("shop", "secret", 8080, "").replace("10.96.0.77", "10.96.0.79")
        + &slices("shop", "secret", &[secret.address])
        + "---\n"
        + &service("shop", "away", 8080, "maesh.containo.us/fallback: secret").replace("10.96.0.77", "10.96.0.78")
        + &slices("shop", "away", &[nothing.parse().unwrap()])
        + "---\n"
        + &pod("shop", "secret-1", "secret", "127.0.34.2", "")
        + &pod("shop", "away-1", "bob", "127.0.34.3", "");
    save(shop.folder.path(), "more.yaml", &text);
    shop.save(&(group("g", "{pathRegex: /api}") + &ann_may(GROUP)));
    let dev = Dev::start_with(shop.folder.path(), &["--acl-dry-run"]);
    let at = dev.served_at("b.shop.maesh");
    dev.served_at("away.shop.maesh");
    let ask_away = || {
        let mut client = Client::connect_from(ANN.parse().unwrap(), at).unwrap();
        client.send(b"GET /api/x HTTP/1.1\r\nHost: away.shop.maesh\r\n\r\n").unwrap()
    };
    for from in [ANN, CYD, OTHER_ANN, NOBODY] {
        assert_eq!(get_from(from, at, "/other"), "200", "{from}");
    }
    assert_eq!(outcome(&ask_away()), "200", "the fallback");
    await_condition("all are named", || {
        let logs = dev.logs();
        let of = |account: &str| logs.lines().any(|line| line.contains("would deny") && line.contains(account));
        let named = ["shop/ann", "shop/cyd", "other/ann", NOBODY].iter().all(|account| of(account));
        let fallback = logs.lines().any(|line| line.contains("would deny") && line.contains("backend=shop/secret"));
        (named && fallback).then_some(())
    });
}

/// `maesh explain` says who is admitted, by what, and who is not; and what it says is what happens.
#[test]
fn explain_says_who_is_admitted() {
    let shop = Shop::new();
    let objects = group("g", "{pathRegex: /api, methods: [GET]}") + &ann_may(GROUP);
    let dev = shop.start(&objects);
    let at = dev.served_at("b.shop.maesh");
    get_from(ANN, at, "/api");
    let url = |path: &str| format!("http://b.shop.maesh:8080{path}");
    let explain = |arguments: &[&str]| {
        let mut command = command(&["explain", "--admin", &dev.admin().to_string()]);
        let output = command.args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let admitted = "shop/ann is admitted by shop/ann";
    let nobody = "denied: the caller is nobody";
    for (from, method, path, code, said) in [
        (ANN, "GET", "/api/7", 0, admitted),
        (ANN, "GET", "/other", 1, "denied: no TrafficTarget admits shop/ann with this"),
        (ANN, "GET", "/api/..%2fother", 1, "denied: no TrafficTarget admits shop/ann"),
        (ANN, "POST", "/api/7", 1, "denied: no TrafficTarget admits shop/ann"),
        (CYD, "GET", "/api/7", 1, "denied: no TrafficTarget admits shop/cyd"),
        (HOST, "GET", "/api/7", 1, nobody),
        (NOBODY, "GET", "/api/7", 1, nobody),
    ] {
        let answer = ask(from, at, method, path, "");
        assert_eq!(answer.status == 200, code == 0, "{from} {method} {path}: {}", outcome(&answer));
        let (left, text) = explain(&["--from", from, method, &url(path)]);
        assert!(left == Some(code) && text.contains(said), "{from} {method} {path}: {left:?} {text}");
        assert_eq!(text.contains("answers 403 on port 8080 with reason denied"), code != 0, "{text}");
    }
    let (_, text) = explain(&["--from", ANN, "b.shop.maesh"]);
    assert!(text.contains("depends on who calls what"), "{text}");
}

/// `maesh access matrix` lists who may call whom, a part at a time.
#[test]
fn the_matrix_says_who_may_call_whom() {
    let shop = Shop::new();
    let many: String = (0..205)
        .map(|number| {
            let name = format!("many-{number:03}");
            let more = service("zoo", &name, 9000, "").replace("10.96.0.77", &format!("10.96.1.{}", number + 1));
            more + &slices("zoo", &name, &["127.0.34.77:80".parse().unwrap()]) + "---\n"
        })
        .collect();
    save(shop.folder.path(), "many.yaml", &(many + &pod("zoo", "animal", "animal", "127.0.34.77", "")));
    let objects = group("g", "{pathRegex: /api, methods: [GET]}") + &ann_may(GROUP);
    let dev = shop.start(&objects);
    let matrix = |arguments: &[&str]| {
        let mut command = command(&["access", "matrix", "--admin", &dev.admin().to_string()]);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = matrix(&["shop"]);
    assert!(text.starts_with("access control is on in maesh dev"), "{text}");
    let line = text.lines().find(|line| line.starts_with("shop/b ")).unwrap_or_else(|| panic!("{text}"));
    let cells: Vec<&str> = line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect();
    assert_eq!(cells[..4], ["shop/b", "8080/http", "shop/bob", "shop/ann"], "{line}");
    assert!(cells[4].contains("GET") && cells[4].contains("/api") && cells[5] == "shop/ann", "{line}");
    let all: serde_json::Value = serde_json::from_str(&matrix(&["-o", "json"])).unwrap();
    let rows = all["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &all["next"]), (206, &serde_json::Value::Null));
    assert_eq!(rows[205]["account"], "zoo/animal");
    assert!(rows[205]["grants"].as_array().unwrap().is_empty());
}

/// What is no pod with an address of its own can be given a ServiceAccount; a pod stays who it is.
#[test]
fn addresses_outside_of_the_pods_count_as_what_is_said() {
    let shop = Shop::new();
    shop.save(&(route("TCPRoute", "t", "") + &ann_may(TCP)));
    let sources = format!("127.0.33.0/24=shop/ann,{NOBODY}/32=shop/other");
    let dev = Dev::start_with(shop.folder.path(), &["--acl", "--acl-source", &sources]);
    let at = dev.served_at("b.shop.maesh");
    for (case, from, want) in [
        ("a pod on the network of its node", HOST, "200"),
        ("an address that nobody has", "127.0.33.77", "200"),
        ("one in a narrower range", NOBODY, "403 denied"),
        ("a pod of another ServiceAccount", CYD, "403 denied"),
        ("the same name in another namespace", OTHER_ANN, "403 denied"),
    ] {
        assert_eq!(get_from(from, at, "/"), want, "{case}");
    }
}

/// Nothing is denied in a dry run, and what would be is counted and logged.
#[test]
fn a_dry_run_denies_nothing_and_says_what_it_would() {
    let shop = Shop::new();
    shop.save(&(group("g", "{pathRegex: /api}") + &ann_may(GROUP)));
    let dev = Dev::start_with(shop.folder.path(), &["--acl-dry-run"]);
    let at = dev.served_at("b.shop.maesh");
    for (from, path) in [(ANN, "/api"), (ANN, "/other"), (CYD, "/api"), (NOBODY, "/")] {
        assert_eq!(get_from(from, at, path), "200", "{from} {path}");
    }
    let metrics = get(dev.admin(), "localhost", "/metrics").unwrap().body;
    let line = "maesh_proxy_access_dry_run_denials_total{service=\"b\",namespace=\"shop\"} 3";
    assert!(metrics.contains(line), "{metrics}");
    await_condition("it is logged", || {
        let logs = dev.logs();
        (logs.contains("access control would deny this") && logs.contains("/other") && logs.contains("shop/ann"))
            .then_some(())
    });
}

/// The manifest of docs/tasks/access-control.md does what the page says.
#[test]
fn the_page_about_access_control_holds() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Backend::http_at("prices", "127.0.34.9");
    let mut text = service("shop", "b", 8080, "") + &slices("shop", "b", &[backend.address]) + "---\n";
    text += &(pod("shop", "prices", "prices", "127.0.34.9", "")
        + &pod("shop", "web", "web", ANN, "")
        + &pod("shop", "cyd", "cyd", CYD, ""));
    save(folder.path(), "shop.yaml", &text);
    let text = page("docs/tasks/access-control.md");
    save(folder.path(), "acl.yaml", blocks(section(&text, "## The objects"), "yaml")[0]);
    let dev = Dev::start_with(folder.path(), &["--acl"]);
    assert!(dev.early.is_empty(), "{:#?}", dev.early);
    let at = dev.served_at("b.shop.maesh");
    for (from, method, path, want) in [
        (ANN, "GET", "/prices/7", "200"),
        (ANN, "DELETE", "/prices/7", "403 denied"),
        (ANN, "GET", "/admin", "403 denied"),
        (ANN, "GET", "/prices/..%2fadmin", "403 denied"),
        (CYD, "GET", "/prices/7", "403 denied"),
    ] {
        assert_eq!(outcome(&ask(from, at, method, path, "")), want, "{from} {method} {path}");
    }
}
