//! Objects of SMI through `maesh dev`. The numbers are those of the cases that other meshes and the SMI conformance suite gave
//! rise to; the steps of that suite are named after it.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    collections::BTreeMap,
    io::Read as _,
    net::{SocketAddr, TcpStream, UdpSocket},
};

use crate::support::{
    Dev, PATIENCE, await_condition,
    backend::Backend,
    http::{Answer, Client, get},
    manifest::{save, service, slices},
    named::{Datagrams, named},
    page::{blocks, page, section},
};

/// Services `web`, `v1` and `v2` of shop on port 8080, each with a backend of its name.
struct Shop {
    folder: tempfile::TempDir,
    backends: BTreeMap<&'static str, Backend>,
}

impl Shop {
    fn new() -> Self {
        let backends = ["web", "v1", "v2"].map(|name| (name, Backend::http(name)));
        let this = Self { folder: tempfile::tempdir().unwrap(), backends: backends.into() };
        let one = |(name, backend): (&&str, &Backend)| {
            service("shop", name, 8080, "") + &slices("shop", name, &[backend.address]) + "---\n"
        };
        save(this.folder.path(), "shop.yaml", &this.backends.iter().map(one).collect::<String>());
        this
    }

    /// Writes the objects of SMI.
    fn save(&self, objects: &str) {
        save(self.folder.path(), "smi.yaml", objects);
    }

    fn start(&self, objects: &str) -> Dev {
        self.save(objects);
        Dev::start(self.folder.path())
    }
}

/// TrafficSplit shop/NAME of this version, with this below `spec`.
fn split(version: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: split.smi-spec.io/{version}\nkind: TrafficSplit\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{{spec}}}\n---\n"
    )
}

/// `web` is split between `v1` and `v2`.
fn shares(v1: u32, v2: u32) -> String {
    let spec = format!("service: web, backends: [{{service: v1, weight: {v1}}}, {{service: v2, weight: {v2}}}]");
    split("v1alpha4", "web", &spec)
}

fn group(name: &str, matches: &str) -> String {
    format!(
        "apiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{matches: [{matches}]}}\n---\n"
    )
}

/// How many of so many requests to `web` each backend answered.
fn answered(at: SocketAddr, requests: usize) -> BTreeMap<String, usize> {
    let mut client = Client::connect(at).unwrap();
    let mut by = BTreeMap::new();
    for _ in 0..requests {
        let answer = client.get("web.shop.maesh", "/").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        *by.entry(answer.by().to_owned()).or_default() += 1;
    }
    by
}

fn ask(at: SocketAddr, method: &str, path: &str, fields: &str) -> Answer {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: web.shop.maesh\r\n{fields}\r\n");
    Client::connect(at).and_then(|mut client| client.send(request.as_bytes())).unwrap()
}

fn warnings(dev: &Dev) -> Vec<String> {
    dev.early.iter().map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Cases 37 and 38; traffic-split steps 2 to 11: default, 1/0, 0/1, 75/25, 25/75, and back.
#[test]
fn shares_follow_the_weights_and_changes_of_them() {
    let shop = Shop::new();
    let dev = shop.start("# nothing yet\n");
    let at = dev.served_at("web.shop.maesh");
    assert_eq!(answered(at, 20), BTreeMap::from([("web".to_owned(), 20)]), "the Service itself");
    for (v1, v2, low, high) in [(1, 0, 400, 400), (0, 1, 0, 0), (75, 25, 250, 350), (25, 75, 50, 150)] {
        shop.save(&shares(v1, v2));
        let mut of_v1 = 0;
        await_condition("the split is in force", || {
            let by = answered(at, 400);
            of_v1 = by.get("v1").copied().unwrap_or_default();
            (!by.contains_key("web") && (low..=high).contains(&of_v1)).then_some(())
        });
        let again = answered(at, 400).get("v1").copied().unwrap_or_default();
        assert!((low..=high).contains(&again), "{v1}/{v2}: {again} of 400 went to v1");
    }
    std::fs::remove_file(shop.folder.path().join("smi.yaml")).unwrap();
    await_condition("the Service itself again", || (answered(at, 20).get("web") == Some(&20)).then_some(()));
}

/// Cases 39 and 40.
#[test]
fn matches_decide_and_what_is_none_goes_to_the_service() {
    let shop = Shop::new();
    let objects =
        group("beta", "{name: firefox, headers: [{User-Agent: Firefox}]}, {pathRegex: /beta, methods: [GET]}")
            + &split(
                "v1alpha3",
                "web",
                "service: web, matches: [{kind: HTTPRouteGroup, name: beta}], backends: [{service: v2, weight: 1}]",
            );
    let dev = shop.start(&objects);
    assert_eq!(warnings(&dev), Vec::<String>::new());
    let at = dev.served_at("web.shop.maesh");
    for (method, path, fields, want) in [
        ("GET", "/", "User-Agent: Mozilla Firefox 140\r\n", "v2"),
        ("GET", "/", "User-Agent: curl\r\n", "web"),
        ("GET", "/", "", "web"),
        ("GET", "/beta/x", "", "v2"),
        ("GET", "/betax", "", "v2"),
        ("GET", "/x/beta", "", "web"),
        ("GET", "/%62eta", "", "v2"),
        ("POST", "/beta", "Content-Length: 0\r\n", "web"),
        ("get", "/beta", "", "web"),
    ] {
        let answer = ask(at, method, path, fields);
        assert_eq!((answer.status, answer.by()), (200, want), "{method} {path} {fields:?}: {answer:?}");
    }
}

/// Cases 9, 10, 12, 14 to 19: what a match says of a request.
#[test]
fn what_a_match_says() {
    for (one, fits, others) in [
        ("{pathRegex: /api}", &["GET /api/v1", "GET /apix"][..], &["GET /x/api"][..]),
        ("{pathRegex: /api$}", &["GET /api", "GET /api?q=1"], &["GET /api/v1"]),
        ("{pathRegex: metrics}", &["GET /metrics"], &["GET /xmetrics"]),
        ("{pathRegex: \".*\", methods: [GET]}", &["GET /any"], &["DELETE /any"]),
        ("{methods: [GET, \"*\"]}", &["GET /", "DELETE /"], &[]),
        ("{headers: {x-a: \"1\", x-b: \"2\"}}", &["GET / X-A:1 X-B:2"], &["GET / X-A:1", "GET /"]),
        ("{headers: [{x-a: \"1\"}, {x-b: \"2\"}]}", &["GET / X-A:1 X-B:2"], &["GET / X-B:2"]),
        ("{headers: {X-Demo: Fire}}", &["GET / x-demo:xFirefoxy"], &["GET / x-demo:fire"]),
        ("{headers: {x-demo: ^Fire$}}", &["GET / x-demo:Fire"], &["GET / x-demo:xFirefoxy"]),
        ("{headers: {host: \"^web\\\\.\"}}", &["GET /"], &[]),
        ("{headers: {host: \"^shop\\\\.\"}}", &[], &["GET /"]),
        ("{name: everything}", &["GET /", "DELETE /x"], &[]),
    ] {
        let shop = Shop::new();
        let objects = group("g", one)
            + &split("v1alpha4", "web", "service: web, matches: [{name: g}], backends: [{service: v2, weight: 1}]");
        let dev = shop.start(&objects);
        assert_eq!(warnings(&dev), Vec::<String>::new(), "{one}");
        let at = dev.served_at("web.shop.maesh");
        for (requests, want) in [(fits, "v2"), (others, "web")] {
            for request in requests {
                let mut parts = request.split(' ');
                let (method, path) = (parts.next().unwrap(), parts.next().unwrap());
                let fields: String = parts.map(|field| format!("{}\r\n", field.replacen(':', ": ", 1))).collect();
                let answer = ask(at, method, path, &fields);
                assert_eq!((answer.status, answer.by()), (200, want), "{one}: {request}: {answer:?}");
            }
        }
    }
}

/// Cases 41 to 43, 45, 47, 48, 20 and 23: what is odd is said, and what happens then.
#[test]
fn what_cannot_be_is_said_and_harms_nothing_else() {
    for (case, objects, want, says) in [
        ("all weights 0", shares(0, 0), &[("503 no_endpoints", 1.0)][..], "no backend has a weight above 0"),
        (
            "a backend that is missing",
            split("v1alpha4", "web", "service: web, backends: [{service: v1, weight: 1}, {service: v3, weight: 9}]"),
            &[("200 v1", 1.0)],
            "backend v3 does not exist; the others get its share",
        ),
        (
            "the Service itself",
            split("v1alpha4", "web", "service: web, backends: [{service: web, weight: 1}, {service: v1, weight: 1}]"),
            &[("200 web", 0.5), ("200 v1", 0.5)],
            "backend web is the Service itself",
        ),
        (
            "quantities of the oldest version",
            split(
                "v1alpha1",
                "web",
                "service: web, backends: [{service: v1, weight: \"1\"}, {service: v2, weight: 500m}]",
            ),
            &[("200 v1", 0.667), ("200 v2", 0.333)],
            "",
        ),
        (
            "two splits",
            shares(1, 0) + &split("v1alpha4", "zzz", "service: web, backends: [{service: v2, weight: 1}]"),
            &[("200 v1", 1.0)],
            "TrafficSplit shop/zzz: TrafficSplit web is older",
        ),
        (
            "a group without matches",
            group("g", "")
                + &split("v1alpha4", "web", "service: web, matches: [{name: g}], backends: [{service: v1, weight: 1}]"),
            &[("200 web", 1.0)],
            "its HTTPRouteGroups have no match that can be used",
        ),
        (
            "a bad expression beside a good match",
            group("g", "{pathRegex: \"(\"}, {pathRegex: /}")
                + &split("v1alpha4", "web", "service: web, matches: [{name: g}], backends: [{service: v1, weight: 1}]"),
            &[("200 v1", 1.0)],
            "spec.matches[0].pathRegex is \"(\", not a regular expression",
        ),
        (
            "a weight below 0",
            split("v1alpha4", "web", "service: web, backends: [{service: v1, weight: -1}, {service: v2, weight: 1}]"),
            &[("200 v2", 1.0)],
            "spec.backends[0].weight is -1, not a weight such as 90",
        ),
    ] {
        let shop = Shop::new();
        let dev = shop.start(&objects);
        let found = warnings(&dev);
        assert_eq!(found.len(), usize::from(!says.is_empty()), "{case}: {found:#?}");
        assert!(found.iter().all(|text| text.contains(says)), "{case}: {found:#?}");
        let at = dev.served_at("web.shop.maesh");
        let mut client = Client::connect(at).unwrap();
        let mut got = BTreeMap::<String, u32>::new();
        for _ in 0..300 {
            let answer = client.get("web.shop.maesh", "/").unwrap();
            let by = answer.field("x-maesh-reason").unwrap_or_else(|| answer.by().to_owned());
            *got.entry(format!("{} {by}", answer.status)).or_default() += 1;
        }
        assert_eq!(got.len(), want.len(), "{case}: {got:?}");
        for (outcome, share) in want {
            let count = f64::from(got.get(*outcome).copied().unwrap_or_default());
            assert!((count / 300.0 - share).abs() < 0.15, "{case}: {outcome} in {got:?}");
        }
    }
}

/// Case 23 for splits, and a backend that comes later (43): nothing has to be written again.
#[test]
fn what_was_missing_takes_effect_once_it_is_there() {
    let shop = Shop::new();
    let to_v3 = split("v1alpha4", "web", "service: web, matches: [{name: g}], backends: [{service: v3, weight: 1}]");
    let dev = shop.start(&to_v3);
    let at = dev.served_at("web.shop.maesh");
    let by = || {
        let answer = get(at, "web.shop.maesh", "/").unwrap();
        (answer.status, answer.by().to_owned())
    };
    assert!(warnings(&dev).iter().any(|text| text.contains("HTTPRouteGroup shop/g does not exist")));
    assert_eq!(by(), (200, "web".to_owned()));
    shop.save(&(to_v3.clone() + &group("g", "{name: any}")));
    await_condition("its one backend is missing", || (by().0 == 503).then_some(()));
    let v3 = Backend::http("v3");
    save(shop.folder.path(), "v3.yaml", &(service("shop", "v3", 8080, "") + &slices("shop", "v3", &[v3.address])));
    await_condition("the backend", || (by() == (200, "v3".to_owned())).then_some(()));
}

/// Case 46: the routes and splits of a backend are not followed.
#[test]
fn splits_do_not_nest() {
    let shop = Shop::new();
    let objects = split("v1alpha4", "web", "service: web, backends: [{service: v1, weight: 1}]")
        + &split("v1alpha4", "v1", "service: v1, backends: [{service: v2, weight: 1}]");
    let dev = shop.start(&objects);
    let at = dev.served_at("web.shop.maesh");
    assert_eq!(get(at, "web.shop.maesh", "/").unwrap().by(), "v1");
    assert_eq!(get(at, "v1.shop.maesh", "/").unwrap().by(), "v2");
}

/// Case 42: a backend counts on the ports that it has. (44, another target port, is in every case: each backend has its own.)
#[test]
fn a_backend_counts_on_the_ports_that_it_has() {
    let shop = Shop::new();
    let two = |name: &str, ports: &[(&str, u16, SocketAddr)]| {
        let listed: String = ports.iter().map(|(of, port, _)| format!("{{name: {of}, port: {port}}}, ")).collect();
        let slice = |(of, _, at): &(&str, u16, SocketAddr)| {
            format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-{of}, namespace: shop, \
                 labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\n\
                 endpoints: [{{addresses: [{}]}}]\nports: [{{name: {of}, port: {}}}]\n",
                at.ip(),
                at.port()
            )
        };
        let slices: String = ports.iter().map(slice).collect();
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{clusterIP: 10.96.0.9, ports: [{listed}]}}\n{slices}---\n"
        )
    };
    let (root, leaf) = (shop.backends["web"].address, shop.backends["v1"].address);
    let text = two("two", &[("a", 8080, root), ("b", 9090, root)]) + &two("one", &[("a", 8080, leaf)]);
    save(shop.folder.path(), "two.yaml", &text);
    let dev = shop.start(&split(
        "v1alpha4",
        "two",
        "service: two, backends: [{service: one, weight: 1}, {service: two, weight: 0}]",
    ));
    let found = warnings(&dev);
    assert!(found.iter().any(|text| text.contains("backend one has no port 9090 as Service two has")), "{found:#?}");
    let ports = dev.entry("two.shop.maesh")["ports"].as_array().unwrap().clone();
    let host = dev.served_at("two.shop.maesh").ip();
    let by = |number: u64| {
        let port = ports.iter().find(|port| port["port"] == number).unwrap();
        let listen = u16::try_from(port["listen"].as_u64().unwrap()).unwrap();
        let answer = get(SocketAddr::new(host, listen), "two.shop.maesh", "/").unwrap();
        (answer.status, answer.field("x-maesh-reason").unwrap_or_else(|| answer.by().to_owned()))
    };
    assert_eq!(by(8080), (200, "v1".to_owned()));
    assert_eq!(by(9090), (503, "no_endpoints".to_owned()), "no backend with a weight has the port");
}

/// Case 49: connections and flows are shared one by one.
#[test]
fn connections_and_flows_are_split() {
    let folder = tempfile::tempdir().unwrap();
    let udp = [("web", Datagrams::start("web")), ("v1", Datagrams::start("v1")), ("v2", Datagrams::start("v2"))];
    let mut text =
        split("v1alpha4", "db", "service: db, backends: [{service: one, weight: 3}, {service: two, weight: 1}]")
            + &split("v1alpha2", "log", "service: web, backends: [{service: v1, weight: 3}, {service: v2, weight: 1}]");
    for name in ["db", "one", "two"] {
        text += &(service("shop", name, 5432, "maesh.containo.us/traffic-type: tcp")
            + &slices("shop", name, &[named(name)])
            + "---\n");
    }
    for (name, datagrams) in &udp {
        text += &service("shop", name, 5140, "").replace("port: 5140\n", "port: 5140\n    protocol: UDP\n");
        text += &slices("shop", name, &[datagrams.at]).replace("- name: main\n", "- name: main\n  protocol: UDP\n");
        text += "---\n";
    }
    save(folder.path(), "all.yaml", &text);
    let dev = Dev::start(folder.path());
    assert_eq!(warnings(&dev), Vec::<String>::new());

    let at = dev.served_at("db.shop.maesh");
    let mut by = BTreeMap::<String, u32>::new();
    for _ in 0..200 {
        let mut heard = String::new();
        TcpStream::connect(at).unwrap().read_to_string(&mut heard).unwrap();
        *by.entry(heard).or_default() += 1;
    }
    let of_one = by.get("one").copied().unwrap_or_default();
    assert!(by.len() == 2 && (110..=190).contains(&of_one), "{by:?}");

    let at = dev.served_at("web.shop.maesh");
    let mut by = BTreeMap::<String, u32>::new();
    for _ in 0..200 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answers = Vec::new();
        for _ in 0..2 {
            let mut bytes = [0; 64];
            socket.send_to(b"!", at).unwrap();
            let length = socket.recv(&mut bytes).unwrap();
            answers.push(String::from_utf8_lossy(&bytes[..length]).trim_end_matches('!').to_owned());
        }
        assert_eq!(answers[0], answers[1], "a flow stays where it is");
        *by.entry(answers.swap_remove(0)).or_default() += 1;
    }
    let of_v1 = by.get("v1").copied().unwrap_or_default();
    assert!(by.len() == 2 && (110..=190).contains(&of_v1), "{by:?}");
}

/// A surprise test: the annotation comes first, and the split is back when it goes.
#[test]
fn routes_of_the_service_come_first_and_the_split_returns() {
    let shop = Shop::new();
    let routed = |lines: &str| {
        let annotation = format!("maesh.containo.us/routes: {}", serde_json::Value::from(lines));
        let text = service("shop", "top", 8080, &annotation) + &slices("shop", "top", &[shop.backends["web"].address]);
        save(shop.folder.path(), "top.yaml", &text);
    };
    routed("Path(`/x`) => v1");
    let dev = shop.start(&split("v1alpha4", "top", "service: top, backends: [{service: v2, weight: 1}]"));
    let found = warnings(&dev);
    assert!(
        found.iter().any(|text| text.contains("Service top has the annotation routes for port 8080")),
        "{found:#?}"
    );
    let at = dev.served_at("top.shop.maesh");
    let by = |path: &str| get(at, "top.shop.maesh", path).unwrap().by().to_owned();
    assert_eq!((by("/x").as_str(), by("/").as_str()), ("v1", "web"), "no request falls through to the split");
    routed("");
    await_condition("the split", || (by("/x") == "v2").then_some(()));
}

/// The manifest of docs/tasks/split.md does what the page says.
#[test]
fn the_page_about_splits_holds() {
    let backends = ["web", "web-next", "web-old"].map(|name| (name, Backend::http(name)));
    let folder = tempfile::tempdir().unwrap();
    let one = |(name, backend): &(&str, Backend)| {
        service("shop", name, 8080, "") + &slices("shop", name, &[backend.address]) + "---\n"
    };
    save(folder.path(), "shop.yaml", &backends.iter().map(one).collect::<String>());
    let text = page("docs/tasks/split.md");
    let manifests = blocks(section(&text, "A TrafficSplit of SMI"), "yaml");
    save(folder.path(), "smi.yaml", manifests[0]);
    let dev = Dev::start(folder.path());
    assert_eq!(warnings(&dev), Vec::<String>::new());
    let at = dev.served_at("web.shop.maesh");
    let by = |path: &str, fields: &str| ask(at, "GET", path, fields).by().to_owned();
    assert!((0..20).all(|_| by("/", "") == "web"));
    for (path, fields) in [("/", "User-Agent: Firefox/140\r\n"), ("/preview/x", "")] {
        let of_next = (0..100).filter(|_| by(path, fields) == "web-next").count();
        assert!((70..=99).contains(&of_next), "{path} {fields:?}: {of_next} of 100");
    }
}
