//! Access control through `maesh dev --acl`: TrafficTargets of SMI decide who reaches whom. Callers are pods by the address that they
//! call from.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod bounds;
mod no_pods;
mod streams;
mod told;

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
    let matches = if ports.is_empty() { String::new() } else { format!("matches: {{ports: [{ports}]}}") };
    format!(
        "apiVersion: specs.smi-spec.io/v1alpha4\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{{matches}}}\n---\n"
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
                let is_unclear = ["%2f", "%5c", "..;"].iter().any(|sign| path.contains(sign));
                let want_now = if want != "200" && is_unclear { "400 bad_request" } else { want };
                assert_eq!(outcome(&answer), want_now, "{case}: {request}");
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
