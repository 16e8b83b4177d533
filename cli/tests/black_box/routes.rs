//! The annotation `routes` through `maesh dev`: requests go by what they are, and each case has its twin that does not fit.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    cell::Cell,
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use rustls::{ClientConnection, RootCertStore, pki_types::ServerName};

use crate::support::{
    Dev, PATIENCE, await_condition,
    backend::Backend,
    command,
    dns_tls::client,
    http::{Answer, Client, get},
    manifest::{save, service, slices},
    named::named,
    served_at,
};

/// Services `web`, `api` and `next` of shop on port 8080, each with a backend of its name.
struct Shop {
    folder: tempfile::TempDir,
    backends: BTreeMap<&'static str, Backend>,
}

impl Shop {
    fn new() -> Self {
        let backends = ["web", "api", "next"].map(|name| (name, Backend::http(name)));
        Self { folder: tempfile::tempdir().unwrap(), backends: backends.into() }
    }

    /// Writes the manifests; `routes` are the lines of `web`.
    fn save(&self, routes: &str) {
        let annotation = format!("maesh.containo.us/routes: {}", serde_json::Value::from(routes));
        let one = |(name, backend): (&&str, &Backend)| {
            let annotations = if *name == "web" { annotation.as_str() } else { "" };
            service("shop", name, 8080, annotations) + &slices("shop", name, &[backend.address]) + "---\n"
        };
        save(self.folder.path(), "shop.yaml", &self.backends.iter().map(one).collect::<String>());
    }

    fn start(&self, routes: &str) -> Dev {
        self.save(routes);
        Dev::start(self.folder.path())
    }
}

fn ask(at: SocketAddr, method: &str, target: &str, host: &str, fields: &str) -> Answer {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
    Client::connect(at).and_then(|mut client| client.send(request.as_bytes())).unwrap()
}

#[test]
fn requests_go_by_what_they_are() {
    for (rule, fits, others) in [
        ("Path(`/api`)", ("GET", "/api?x=1", ""), &[("GET", "/api/", ""), ("GET", "/", "")][..]),
        ("PathPrefix(`/api`)", ("GET", "/%61pi/x", ""), &[("GET", "/ap", ""), ("GET", "/x/api", "")]),
        ("PathRegexp(`^/items/[0-9]+$`)", ("GET", "/items/17", ""), &[("GET", "/items/x", "")]),
        ("Method(`POST`)", ("POST", "/", "Content-Length: 0\r\n"), &[("GET", "/", "")]),
        (
            "Header(`X-Beta`, `yes`)",
            ("GET", "/", "x-beta: yes\r\n"),
            &[("GET", "/", "x-beta: no\r\n"), ("GET", "/", "")],
        ),
        ("HeaderRegexp(`X-Beta`, `^y`)", ("GET", "/", "X-Beta: yes\r\n"), &[("GET", "/", "X-Beta: my\r\n")]),
        ("Query(`beta`, `1`)", ("GET", "/?a=b&beta=1", ""), &[("GET", "/?beta=2", ""), ("GET", "/", "")]),
        ("QueryRegexp(`beta`, `^1`)", ("GET", "/?beta=17", ""), &[("GET", "/?beta=21", "")]),
        ("Cookie(`beta`, `1`)", ("GET", "/", "Cookie: a=b; beta=1\r\n"), &[("GET", "/", "Cookie: beta=2\r\n")]),
        ("CookieRegexp(`user`, `^1`)", ("GET", "/", "Cookie: user=17\r\n"), &[("GET", "/", "Cookie: user=71\r\n")]),
        ("ClientIP(`127.0.0.0/8`) && Path(`/a`)", ("GET", "/a", ""), &[("GET", "/", "")]),
        ("Path(`/a`) || !PathPrefix(`/`)", ("GET", "/a", ""), &[("GET", "/b", "")]),
    ] {
        let shop = Shop::new();
        let dev = shop.start(&format!("{rule} => api"));
        assert!(dev.early.is_empty(), "{rule}: {:#?}", dev.early);
        let at = dev.served_at("web.shop.maesh");
        let by = |(method, target, fields): (&str, &str, &str)| {
            let answer = ask(at, method, target, "web.shop.maesh", fields);
            assert_eq!(answer.status, 200, "{rule}: {answer:?}");
            answer.by().to_owned()
        };
        assert_eq!(by(fits), "api", "{rule}");
        for other in others {
            assert_eq!(by(*other), "web", "{rule} {other:?}");
        }
        // The target's own name is not led anywhere.
        assert_eq!(get(at, "api.shop.maesh", "/").unwrap().by(), "api");
    }
}

#[test]
fn the_longest_rule_wins_and_weights_share() {
    let shop = Shop::new();
    let dev = shop.start(
        "# short before long\nPathPrefix(`/`) => next\nPathPrefix(`/api`) => api\nPathPrefix(`/both`) => api 1, next 3\n\
         PathPrefix(`/none`) => api 0, next",
    );
    assert!(dev.early.is_empty(), "{:#?}", dev.early);
    let mut client = Client::connect(dev.served_at("web.shop.maesh")).unwrap();
    let mut by = |path: &str| client.get("web.shop.maesh", path).unwrap().by().to_owned();
    assert_eq!((by("/api/x").as_str(), by("/other").as_str()), ("api", "next"));
    let to_api = (0..400).filter(|_| by("/both") == "api").count();
    assert!((60..140).contains(&to_api), "{to_api} of 400 went to a quarter");
    assert!((0..50).all(|_| by("/none") == "next"), "a weight of 0 gets nothing");
}

#[test]
fn a_host_of_ones_own_leads_to_the_service_that_claims_it() {
    let shop = Shop::new();
    let dev = shop.start("Host(`Shop.Example`) && PathPrefix(`/api`) => api\nHost(`shop.example`) => web");
    assert!(dev.early.is_empty(), "{:#?}", dev.early);
    let at = dev.served_at("web.shop.maesh");
    for (host, path, status, by) in [
        ("shop.example", "/", 200, "web"),
        ("SHOP.example.:8080", "/api", 200, "api"),
        ("web.shop.maesh", "/api", 200, "web"),
        ("other.example", "/", 404, "maesh:"),
    ] {
        let answer = get(at, host, path).unwrap();
        assert_eq!((answer.status, answer.by()), (status, by), "{host}{path}: {answer:?}");
    }
}

#[test]
fn a_bad_line_is_named_and_the_others_hold() {
    let shop = Shop::new();
    let dev = shop.start(
        "PathPrefix(`/api`) => api\nPathPrefx(`/next`) => next\nPath(`/gone`) => gone\nHeaders(`a`, `b`) => api",
    );
    let warnings: Vec<_> =
        dev.early.iter().map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect();
    for want in [
        "line 2, column 1: PathPrefx is no matcher (did you mean PathPrefix?). The line is ignored, the others hold.",
        "line 3: the backend gone is Service shop/gone, which does not exist",
        "line 4, column 1: this is how Traefik 2 writes it, and it is understood. Write Header(`a`, `b`) today.",
    ] {
        assert!(warnings.iter().any(|text| text.contains(want)), "{want}: {warnings:#?}");
    }
    let at = dev.served_at("web.shop.maesh");
    assert_eq!(get(at, "web.shop.maesh", "/api").unwrap().by(), "api");
    assert_eq!(get(at, "web.shop.maesh", "/next").unwrap().by(), "web");
    let gone = get(at, "web.shop.maesh", "/gone").unwrap();
    assert_eq!((gone.status, gone.field("x-maesh-reason").as_deref()), (500, Some("bad_backend")), "{gone:?}");
    assert_eq!(ask(at, "GET", "/", "web.shop.maesh", "A: b\r\n").by(), "api");
}

#[test]
fn routes_change_while_requests_pass() {
    let shop = Shop::new();
    let dev = shop.start("PathPrefix(`/a`) => api");
    let mut client = Client::connect(dev.served_at("web.shop.maesh")).unwrap();
    let mut by = |path: &str| {
        let answer = client.get("web.shop.maesh", path).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.by().to_owned()
    };
    assert_eq!((by("/a").as_str(), by("/b").as_str()), ("api", "web"));
    shop.save("PathPrefix(`/b`) => next");
    await_condition("the new route is in force", || (by("/b") == "next").then_some(()));
    assert_eq!(by("/a"), "web");
    shop.save("");
    await_condition("no route is left", || (by("/b") == "web").then_some(()));
}

/// Whoever may write a Service must not stop the others: its lines are cut, and what is wrong is not said a thousand times.
#[test]
fn an_annotation_of_many_targets_stops_nobody() {
    let shop = Shop::new();
    let mut dev = shop.start("PathPrefix(`/a`) => api");
    let warnings = Cell::new(0);
    let many = |count: usize, between: &str| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>().join(between);
    for (round, lines) in [
        format!("PathPrefix(`/a`) => {}", many(20_000, ",")),
        format!("PathPrefix(`/a`) => {}", many(8_000, "\nPathPrefix(`/a`) => ")),
        "Path(`/a`) => web 0\n".repeat(8_000),
        "Headers(`a`, `b`) => web\n".repeat(8_000),
        "Path(`/a`) = web\n".repeat(8_000),
    ]
    .into_iter()
    .enumerate()
    {
        shop.save(&lines);
        // Another Service, which nobody called before.
        let name = format!("new-{round}");
        let text = service("other", &name, 8080, "") + &slices("other", &name, &[shop.backends["web"].address]);
        save(shop.folder.path(), &format!("{name}.yaml"), &text);
        let host = format!("{name}.other.maesh");
        let changed = dev.await_event(&host, |event| {
            warnings.set(warnings.get() + usize::from(event["event"] == "warning"));
            event["services"].as_array().is_some_and(|all| all.iter().any(|entry| entry["name"] == *host))
        });
        let entry = changed["services"].as_array().unwrap().iter().find(|entry| entry["name"] == *host);
        let at = served_at(entry.unwrap());
        await_condition("it is served", || get(at, &host, "/").is_ok_and(|answer| answer.status == 200).then_some(()));
    }
    shop.save("PathPrefix(`/a`) => next");
    let at = dev.served_at("web.shop.maesh");
    await_condition("the routes are good again", || {
        get(at, "web.shop.maesh", "/a").is_ok_and(|answer| answer.by() == "next").then_some(())
    });
    assert!((5..100).contains(&warnings.get()), "{} warnings", warnings.get());
}

/// The first bytes of TLS for this name.
fn client_hello(name: &str) -> Vec<u8> {
    let config = client(RootCertStore::empty());
    let mut hello = Vec::new();
    let mut tls = ClientConnection::new(config, ServerName::try_from(name.to_owned()).unwrap()).unwrap();
    tls.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn connections_go_by_the_server_name_of_tls() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "HostSNI(`one.example`) => one\nHostSNIRegexp(`^t`) => two\nClientIP(`10.0.0.0/8`) => two";
    let key = |name: &str, value: &str| format!("maesh.containo.us/{name}: {}", serde_json::Value::from(value));
    let tcp = key("traffic-type", "tcp");
    let mut text = String::new();
    for (name, more) in [("db", key("routes", lines)), ("one", String::new()), ("two", String::new())] {
        let annotations = if more.is_empty() { tcp.clone() } else { format!("{tcp}, {more}") };
        text += &(service("shop", name, 5432, &annotations) + &slices("shop", name, &[named(name)]) + "---\n");
    }
    save(folder.path(), "db.yaml", &text);
    let dev = Dev::start(folder.path());
    assert!(dev.early.is_empty(), "{:#?}", dev.early);
    let at = dev.served_at("db.shop.maesh");
    let explain = |arguments: &[&str]| {
        let output = command(&["explain", "--admin", &dev.admin().to_string()]).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for (case, bytes, want) in [
        ("a name", client_hello("one.example"), "one"),
        ("an expression", client_hello("two.example"), "two"),
        ("a name that no rule has", client_hello("db.example"), "db"),
        ("no TLS", b"hello".to_vec(), "db"),
        ("a server that speaks first", Vec::new(), "db"),
    ] {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // In pieces, as networks bring it.
        for piece in bytes.chunks(100) {
            stream.write_all(piece).unwrap();
        }
        let mut heard = String::new();
        stream.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, want, "{case}");
    }
    let named = |name| ["tls://db.shop.maesh:5432", "--server-name", name];
    for (arguments, says) in [
        (&named("one.example")[..], "this connection takes: HostSNI(`one.example`) => shop/one"),
        (&named("two.example"), "this connection takes: HostSNIRegexp(`^t`) => shop/two"),
        (&["tls://db.shop.maesh:5432"], "this connection takes: no rule matches; the Service itself"),
        (&["tcp://db.shop.maesh:5432"], "this connection takes: no rule matches; the Service itself"),
        (&["tcp://db.shop.maesh:5432", "--from", "10.1.2.3"], "takes: ClientIP(`10.0.0.0/8`) => shop/two"),
    ] {
        let text = explain(arguments);
        assert!(text.contains(says), "{arguments:?}: nothing says {says:?} in\n{text}");
    }
}

#[test]
fn explain_shows_the_rules_in_their_order() {
    let shop = Shop::new();
    let dev = shop.start("PathPrefix(`/`) && Method(`POST`) => api 1, next 3\nPath(`/a`) => gone");
    // A proxy fetches the routes of a Service when it is called.
    assert_eq!(get(dev.served_at("web.shop.maesh"), "web.shop.maesh", "/").unwrap().by(), "web");
    let explained = command(&["explain", "web.shop.maesh:8080", "--admin", &dev.admin().to_string()]).output().unwrap();
    let text = String::from_utf8(explained.stdout).unwrap();
    let mut from = 0;
    for part in [
        "PathPrefix(`/`) && Method(`POST`) => 25 %: shop/api",
        "PathPrefix(`/`) && Method(`POST`) => 75 %: shop/next",
        "Path(`/a`) => 100 %: a backend that does not exist",
        "all others => shop/web",
    ] {
        let at = text[from..].find(part);
        from += at.unwrap_or_else(|| panic!("{part:?} is not there, or before the others:\n{text}"));
    }
}

#[test]
fn explain_says_which_route_a_request_takes() {
    let shop = Shop::new();
    let dev = shop.start(
        "PathPrefix(`/api`) => api\nPath(`/half`) => api 1, next 3\nPath(`/gone`) => gone\nMethod(`POST`) && \
         (Cookie(`preview`, `on`) || Query(`beta`, `1`)) => next\nHost(`shop.example`) && Path(`/docs`) => next",
    );
    let at = dev.served_at("web.shop.maesh");
    assert_eq!(get(at, "web.shop.maesh", "/").unwrap().by(), "web");
    let explain = |arguments: &[&str]| {
        let output = command(&["explain", "--admin", &dev.admin().to_string()]).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let url = |target: &str| format!("http://web.shop.maesh:8080{target}");
    for (arguments, (method, target, host, fields), by, says) in [
        (&[&*url("/api/items")][..], ("GET", "/api/items", "", ""), "api", "takes: PathPrefix(`/api`) => shop/api"),
        (&[&url("/%61pi?x=1#y")], ("GET", "/%61pi?x=1", "", ""), "api", "takes: PathPrefix(`/api`) => shop/api"),
        (&[&url("/")], ("GET", "/", "", ""), "web", "takes: no rule matches; the Service itself"),
        (&["POST", &url("/")], ("POST", "/", "", "Content-Length: 0\r\n"), "web", "takes: no rule matches"),
        (
            &["POST", &url("/"), "-H", "Cookie: a=b; preview=on"],
            ("POST", "/", "", "Cookie: a=b; preview=on\r\nContent-Length: 0\r\n"),
            "next",
            "Query(`beta`, `1`)) => shop/next",
        ),
        (
            &["-H", "Cookie: preview=off", "POST", &url("/?a=b&beta=1")],
            ("POST", "/?a=b&beta=1", "", "Cookie: preview=off\r\nContent-Length: 0\r\n"),
            "next",
            "Query(`beta`, `1`)) => shop/next",
        ),
        (
            &["GET", &url("/docs"), "-H", "Host: Shop.example:8080"],
            ("GET", "/docs", "Shop.example:8080", ""),
            "next",
            "Path(`/docs`) => shop/next",
        ),
        (&[&url("/docs")], ("GET", "/docs", "", ""), "web", "takes: no rule matches"),
        (
            &["http://api.shop.maesh:8080/api"],
            ("GET", "/api", "api.shop.maesh", ""),
            "api",
            "this request goes to the Service itself, which has no routes",
        ),
        (&[&url("/gone")], ("GET", "/gone", "", ""), "maesh:", "Path(`/gone`) => a backend that does not exist"),
    ] {
        let host = if host.is_empty() { "web.shop.maesh:8080" } else { host };
        let answer = ask(at, method, target, host, fields);
        assert_eq!(answer.by(), by, "{arguments:?}: {answer:?}");
        let (code, text) = explain(arguments);
        let says_it = |line: &str| line.starts_with("           this request ") && line.contains(says);
        assert!(text.lines().any(says_it), "{arguments:?}: nothing says {says:?} in\n{text}");
        assert_eq!(code, Some(i32::from(answer.status != 200)), "{arguments:?}: {text}");
        assert_eq!(text.contains("500 on port 8080 with reason bad_backend"), answer.status == 500, "{text}");
        let (_, json) = explain(&[arguments, &["-o", "json"]].concat());
        let report: serde_json::Value = serde_json::from_str(&json).unwrap();
        let port = &report["proxy"]["ports"][0];
        let route = &port["routes"][usize::try_from(port["taken"].as_u64().unwrap()).unwrap()];
        let to =
            route["backends"][0]["service"].as_str().map_or("maesh:", |service| service.trim_start_matches("shop/"));
        assert_eq!(to, by, "{arguments:?}: {json}");
    }
    let (_, text) = explain(&[&url("/half")]);
    assert!(text.contains("this request takes: Path(`/half`) => 25 %: shop/api, 75 %: shop/next\n"), "{text}");
    let (_, text) = explain(&["web.shop.maesh:8080"]);
    assert!(!text.contains("this request"), "only a name was given: {text}");
    // So asks an older command, and says an older proxy.
    let asked = get(dev.admin(), "localhost", "/api/explain/proxy?name=web.shop.maesh&from=127.0.0.1").unwrap();
    assert!(asked.status == 200 && asked.body.contains("routes") && !asked.body.contains("taken"), "{asked:?}");
}
