//! Which route a request takes: what the explanation says, beside what the endpoint says that got the request.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderName, HeaderValue, Method, Response, uri::PathAndQuery};
use maesh_config::{
    Kind, Resource,
    model::{Claim, Protocol, Route, Scheme},
    rule::parse,
};
use maesh_proxy::explain::{Explanation, PortSeen, Question, Sent, SentRequest};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng, seq::IndexedRandom as _};
use tokio::io::AsyncWriteExt as _;

use crate::{
    server_names::opening,
    support::{Fed, LOCAL, Raw, config, endpoint, endpoints, free_port, listener, policy, service, to, within},
};

/// Requests of the property below.
const REQUESTS: usize = 2500;

/// In order of precedence. Each fits some requests that a later one fits, too.
const RULES: [&str; 20] = [
    "Host(`shop.example`) && (PathPrefix(`/api`) || Cookie(`beta`, `1`)) && !Method(`DELETE`)",
    "Path(`/a`) && Header(`x-user`, `ann`)",
    "(Path(`/a`) || Path(`/b`)) && Query(`q`, `1`)",
    "PathPrefix(`/api/v2`) && !(Header(`x-user`, `bob`) || Cookie(`user`, `17`))",
    "PathPrefix(`/api`) && Method(`POST`)",
    r"HostRegexp(`^api\.`) && !(PathPrefix(`/a`) || PathPrefix(`/i`))",
    "PathRegexp(`^/items/[0-9]+$`) && (Query(`page`, `2`) || Method(`PUT`))",
    "HeaderRegexp(`x-user`, `^a`) && PathPrefix(`/items`)",
    "CookieRegexp(`user`, `^1`) && Path(`/`)",
    "QueryRegexp(`page`, `^[0-9]$`) && Host(`api.example`)",
    "Method(`DELETE`) && !(Host(`web.shop.maesh`) || Host(`shop.example`))",
    "Path(`/a b`)",
    "!(PathPrefix(`/`) && !Path(`/ä`))",
    "Query(`q`, `a b`) && PathPrefix(`/b`)",
    "Cookie(`beta`, `1`) && Cookie(`user`, `17`)",
    "ClientIP(`127.0.0.0/8`) && Path(`/caller`)",
    "ClientIP(`10.0.0.0/8`) || (Path(`/b`) && Method(`PUT`))",
    "Host(`web.shop`) && (PathPrefix(`/api`) && (Method(`GET`) || !Query(`q`, `2`)))",
    "(Method(`GET`) && Header(`host`, `web.shop.maesh`) && Path(`/other`)) || Path(`//api`)",
    "PathPrefix(`/it`)",
];
const HOSTS: [&str; 8] = [
    "web.shop.maesh",
    "WEB.Shop.Maesh.",
    "web.shop.maesh:8080",
    "web.shop",
    "shop.example",
    "SHOP.example.:80",
    "api.example",
    "api.example:1",
];
const PATHS: [&str; 18] = [
    "/",
    "/a",
    "/b",
    "/%61",
    "/a%20b",
    "/%C3%A4",
    "/api",
    "/api/v2/x",
    "/%61pi/v2",
    "/%2Fapi",
    "//api",
    "/items",
    "/items/17",
    "/items/x",
    "/caller",
    "/caller/x",
    "/other",
    "/o%74her",
];
const QUERIES: [&str; 8] = ["", "", "?", "?q=1", "?q=2&page=3", "?page=2", "?q=a+b", "?x=y&q=a%20b&page=x"];
const METHODS: [Method; 4] = [Method::GET, Method::POST, Method::PUT, Method::DELETE];
const FIELDS: [&[(&str, &str)]; 9] = [
    &[],
    &[],
    &[("x-user", "ann")],
    &[("X-User", "bob")],
    &[("x-user", "bob"), ("x-user", "ann")],
    &[("cookie", "beta=1")],
    &[("cookie", "a=b; user=17"), ("accept", "*/*")],
    &[("cookie", "user=\"17\""), ("cookie", "beta=1")],
    &[("cookie", "beta=1;user=18"), ("x-user", "ann")],
];

fn rules(texts: &[&str], number: u16) -> Vec<Route> {
    let route = |(at, text): (usize, &&str)| {
        let rule = parse(text).unwrap_or_else(|bad| panic!("{text}: {bad}")).rule;
        Route { rule: Some(rule), backends: vec![to(&format!("r{at}.shop"), number, 1)], not_understood: None }
    };
    texts.iter().enumerate().map(route).collect()
}

/// Has an endpoint for a Service, which answers with the name of it.
async fn stand_for(fed: &Fed, name: &str, number: u16) -> endpoints::Server {
    let says = name.to_owned();
    let server = endpoints::serve(false, move |_| {
        let says = says.clone();
        async move { Response::new(endpoints::full(says)) }
    });
    let server = server.await;
    fed.define(name, number, Protocol::Http, policy(Scheme::Http), Vec::new());
    fed.define_endpoints(name, number, Protocol::Http, vec![endpoint(server.address)]);
    server
}

/// The Service `web.shop` with these routes, each of which leads to a Service of its own.
async fn routed(texts: &[&str], hosts: &[(&str, &str)]) -> (Fed, SocketAddr, Vec<endpoints::Server>) {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let at = fed.listen(hosts).await;
    let number = at.port();
    let mut servers = vec![stand_for(&fed, "web.shop", number).await];
    for route in 0..texts.len() {
        servers.push(stand_for(&fed, &format!("r{route}.shop"), number).await);
    }
    fed.define("web.shop", number, Protocol::Http, policy(Scheme::Http), rules(texts, number));
    fed.name("web.shop", number, number, Protocol::Http, &[]).await;
    (fed, at, servers)
}

fn request(method: &Method, target: &str, fields: &[(&str, &str)]) -> Sent {
    let field = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).expect("a name"), HeaderValue::from_str(value).expect("a value"))
    };
    let target = PathAndQuery::try_from(target).expect("a target");
    Sent::Request(SentRequest::new(method.clone(), target, fields.iter().map(field)).expect("small"))
}

fn explain(fed: &Fed, host: &str, caller: Option<IpAddr>, sent: Sent) -> Explanation {
    let explainer = fed.proxy.as_ref().expect("running").explainer();
    explainer.explain(&Question { host: host.into(), caller, port: None, sent: Some(sent) })
}

/// The Service to which the route leads that is said to take the request, as its endpoint says its name.
fn taken(port: &PortSeen) -> Option<String> {
    let service = port.routes[port.taken?].backends[0].service.as_ref()?;
    service.split_once('/').map(|(namespace, name)| format!("{name}.{namespace}"))
}

fn written(method: &Method, target: &str, host: &str, fields: &[(&str, &str)]) -> String {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}Content-Length: 0\r\n\r\n")
}

#[tokio::test]
async fn what_is_said_is_where_requests_go() {
    let claims = [("shop.example", "web.shop"), ("api.example", "web.shop")];
    let (fed, at, _servers) = routed(&RULES, &claims).await;
    let mut chance = SmallRng::seed_from_u64(0x6d61_6573_6800);
    let mut caller = Raw::to(at).await;
    // The first request brings the routes.
    caller.say(&written(&Method::GET, "/unused", "web.shop.maesh", &[])).await;
    assert_eq!(within(caller.hear()).await.1, "web.shop");
    let mut seen = [0; RULES.len() + 1];
    for number in 0..REQUESTS {
        let host = *HOSTS.choose(&mut chance).expect("some");
        let target =
            format!("{}{}", PATHS.choose(&mut chance).expect("some"), QUERIES.choose(&mut chance).expect("some"));
        let method = METHODS.choose(&mut chance).expect("some");
        let fields = *FIELDS.choose(&mut chance).expect("some");
        // Half of the questions are about the name, where the request says another, as with `curl -H Host:`.
        let named = if chance.random() { host } else { "web.shop.maesh" };
        let sent = request(method, &target, &[&[("host", host)], fields].concat());
        let said = explain(&fed, named, Some(LOCAL), sent);
        let bytes = written(method, &target, host, fields);
        caller.say(&bytes).await;
        let (head, by) = within(caller.hear()).await;
        assert!(head.starts_with("http/1.1 200"), "{number}: {bytes}{head}");
        let [port] = &said.ports[..] else { panic!("{number}: {bytes}{said:?}") };
        assert_eq!(taken(port).as_deref(), Some(&*by), "{number}: {bytes}{port:#?}");
        assert_eq!(port.refusal, None, "{number}: {bytes}");
        seen[port.taken.expect("taken")] += 1;
    }
    assert!(seen.iter().all(|count| *count > 0), "some route took no request: {seen:?}");
}

#[tokio::test]
async fn refusals_and_what_cannot_be_said() {
    let rules = ["Path(`/gone`)", "Path(`/caller`) && ClientIP(`127.0.0.1`)", "PathPrefix(`/`)"];
    let (fed, at, _servers) = routed(&rules, &[]).await;
    let number = at.port();
    let mut routes = self::rules(&rules, number);
    routes[0].backends = vec![to("nobody.shop", number, 1)];
    fed.define("web.shop", number, Protocol::Http, policy(Scheme::Http), routes);
    let get = |target: &str| request(&Method::GET, target, &[]);
    let first = explain(&fed, "web.shop.maesh", Some(LOCAL), get("/"));
    let (port, unused) = (&first.ports[0], "until somebody calls it");
    assert_eq!(port.taken, None);
    assert!(port.undecided.as_ref().is_some_and(|why| why.contains(unused)), "{port:?}");

    let long = format!("/{}", "x".repeat(17_000));
    let known = Some(LOCAL);
    for (case, method, target, fields, caller, want, reason) in [
        ("a route", Method::GET, "/", &[][..], known, Some(2), None),
        ("no such backend", Method::GET, "/gone", &[], known, Some(0), Some("bad_backend")),
        ("a long target", Method::GET, &*long, &[], known, None, Some("uri_too_long")),
        (
            "a coding that nobody knows",
            Method::POST,
            "/",
            &[("transfer-encoding", "x")],
            known,
            None,
            Some("not_implemented"),
        ),
        ("PRI is no method", Method::from_bytes(b"PRI").expect("a token"), "/", &[], known, None, Some("bad_request")),
        ("a caller that a rule asks for", Method::GET, "/caller", &[], known, Some(1), None),
        (
            "nobody knows the caller, and no rule before asks",
            Method::GET,
            "/gone",
            &[],
            None,
            Some(0),
            Some("bad_backend"),
        ),
        ("nobody knows the caller", Method::GET, "/", &[], None, None, None),
    ] {
        let mut raw = Raw::to(at).await;
        let sent = request(&method, target, fields);
        let length = if fields.is_empty() { "Content-Length: 0\r\n" } else { "" };
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        raw.say(&format!("{method} {target} HTTP/1.1\r\nHost: web.shop.maesh\r\n{fields}{length}\r\n")).await;
        let (head, _) = within(raw.hear()).await;
        let answered = head.lines().find_map(|line| line.strip_prefix("x-maesh-reason: "));
        assert_eq!(answered, reason, "{case}: {head}");
        let said = explain(&fed, "web.shop.maesh", caller, sent);
        let port = said.ports.first();
        let refusal = said.refusal.as_ref().or_else(|| port?.refusal.as_ref());
        assert_eq!(refusal.map(|refusal| &*refusal.reason), reason, "{case}: {said:?}");
        assert_eq!(port.and_then(|port| port.taken), want, "{case}: {said:?}");
        let undecided = port.and_then(|port| port.undecided.as_deref());
        assert_eq!(undecided.is_some(), want.is_none() && reason.is_none(), "{case}: {undecided:?}");
        assert!(undecided.is_none_or(|why| why.contains("--from")), "{case}: {undecided:?}");
    }
    let explainer = fed.proxy.as_ref().expect("running").explainer();
    let unasked = explainer.explain(&Question { host: "web.shop.maesh".into(), ..Question::default() });
    assert_eq!((unasked.ports[0].taken, &unasked.ports[0].undecided), (None, &None), "nothing was asked");
}

#[tokio::test]
async fn a_host_that_another_service_claims_leads_to_that_one() {
    let (fed, at, _servers) =
        routed(&["Host(`shop.example`)"], &[("shop.example", "web.shop"), ("b.example", "b.shop")]).await;
    let number = at.port();
    let _server = stand_for(&fed, "b.shop", number).await;
    fed.name("b.shop", number, number, Protocol::Http, &[]).await;
    for (host, service, by) in [
        ("shop.example", Some("shop/web"), Some("r0.shop")),
        ("b.example", Some("shop/b"), Some("b.shop")),
        ("web.shop.maesh", Some("shop/web"), Some("web.shop")),
        ("nobody.example", None, None),
    ] {
        let mut raw = Raw::to(at).await;
        raw.say(&written(&Method::GET, "/", host, &[])).await;
        let (head, body) = within(raw.hear()).await;
        assert_eq!(by, head.starts_with("http/1.1 200").then_some(&*body), "{host}: {head}");
        let said = explain(&fed, "web.shop.maesh", Some(LOCAL), request(&Method::GET, "/", &[("host", host)]));
        assert_eq!(said.service.as_deref(), service, "{host}: {said:?}");
        assert_eq!(said.ports.first().and_then(taken).as_deref(), by, "{host}: {said:?}");
    }
}

/// A server that says its name to whoever connects.
async fn says(name: &'static str) -> SocketAddr {
    endpoints::raw(move |mut stream| async move {
        // The caller may be gone.
        let _ = stream.write_all(name.as_bytes()).await;
        let _ = stream.shutdown().await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await
}

#[tokio::test]
async fn streams_go_by_their_server_name() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let (own, shared) = (free_port(), free_port());
    let mut alone = listener(own, Some(("db.shop", own)), false, &[]);
    let mut both = listener(shared, None, true, &[]);
    (alone.tls, both.tls) = (true, true);
    both.sni = vec![Claim { host: "two.example".into(), service: service("tls.shop") }];
    let listeners = vec![Resource::Listener(alone), Resource::Listener(both)];
    assert_eq!(fed.push(Kind::Listener, listeners, Vec::new()).await, Vec::new());
    let texts = ["HostSNI(`one.example`)", "HostSNIRegexp(`^t`)"];
    for (name, number, protocol, endpoint_says) in [
        ("r0.shop", own, Protocol::Tcp, "r0.shop"),
        ("r1.shop", own, Protocol::Tcp, "r1.shop"),
        ("db.shop", own, Protocol::Tcp, "db.shop"),
        ("tls.shop", shared, Protocol::Tcp, "tls.shop"),
        ("web.shop", shared, Protocol::Http, "web.shop"),
    ] {
        let routes = if name == "db.shop" { rules(&texts, own) } else { Vec::new() };
        fed.define(name, number, protocol, policy(Scheme::Http), routes);
        fed.define_endpoints(name, number, protocol, vec![endpoint(says(endpoint_says).await)]);
        fed.name(name, number, number, protocol, &[]).await;
    }
    let tls = |name: &str| (Sent::Stream(Some(name.to_owned())), opening(name));
    let none = || (Sent::Stream(None), b"hello".to_vec());
    let http = || (request(&Method::GET, "/", &[]), b"GET / HTTP/1.1\r\nHost: db.shop.maesh\r\n\r\n".to_vec());
    for (case, called, at, (sent, bytes), want) in [
        ("a name", "db.shop.maesh", own, tls("one.example"), Some("r0.shop")),
        ("a name in capitals", "db.shop.maesh", own, tls("ONE.example"), Some("r0.shop")),
        ("an expression", "db.shop.maesh", own, tls("two.example"), Some("r1.shop")),
        ("its own name", "db.shop.maesh", own, tls("db.shop.maesh"), Some("db.shop")),
        ("no TLS", "db.shop.maesh", own, none(), Some("db.shop")),
        ("HTTP on a port of TCP", "db.shop.maesh", own, http(), Some("db.shop")),
        ("a shared port", "tls.shop.maesh", shared, tls("tls.shop.maesh"), Some("tls.shop")),
        ("a name that a Service claims there", "web.shop.maesh", shared, tls("two.example"), Some("tls.shop")),
        ("TLS on a port of HTTP", "web.shop.maesh", shared, tls("web.shop.maesh"), Some("web.shop")),
        ("no TLS on a shared port", "tls.shop.maesh", shared, none(), None),
    ] {
        let mut raw = Raw::to(SocketAddr::new(LOCAL, at)).await;
        raw.stream.write_all(&bytes).await.expect("written");
        raw.stream.shutdown().await.expect("ended");
        let heard = raw.rest().await;
        let said = explain(&fed, called, Some(LOCAL), sent);
        let [port] = &said.ports[..] else { panic!("{case}: {said:?}") };
        match want {
            Some(want) => assert!(heard == want, "{case}: {heard}"),
            None => assert!(!heard.contains("shop"), "{case}: {heard}"),
        }
        assert_eq!(taken(port).as_deref(), want, "{case}: {port:?}");
        assert_eq!(port.undecided.is_some(), want.is_none(), "{case}: {port:?}");
    }
}
