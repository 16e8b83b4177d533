//! The status API of each role, held against its document: `docs/reference/status-api.yaml`.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
};

use crate::support::{
    Dev, await_condition,
    backend::Backend,
    http::{Client, get},
    local::{Part, Roles},
    manifest::{save, service, slices},
    openapi::{Document, Kind, seen_shapes},
    roles::{Mesh, Role},
};
use maesh_testkube::ApiServer;
use serde_json::Value;

/// What is asked of each path: what stands behind it, one question each.
const QUESTIONS: [(&str, &[&str]); 16] = [
    ("/api", &[""]),
    ("/api/openapi.json", &[""]),
    ("/api/status", &[""]),
    ("/api/services", &[""]),
    ("/api/diagnostics", &[""]),
    ("/api/subscribers", &[""]),
    ("/api/watches", &[""]),
    ("/api/leader", &[""]),
    ("/api/stanza", &[""]),
    ("/api/log-level", &[""]),
    ("/api/get/services", &["", "?namespace=shop", "?name=web", "?after=shop/web", "?name=nobody"]),
    ("/api/get/routes", &["", "?namespace=shop&name=web", "?after=shop/web", "?namespace=nowhere"]),
    (
        "/api/explain/controller",
        &[
            "?name=web.shop.maesh&from=shop/client",
            "?name=db.shop.maesh&from=10.244.1.9",
            "?name=wb.shop",
            "?name=shop/off",
        ],
    ),
    ("/api/explain/access", &["", "?namespace=shop", "?after=shop/web"]),
    (
        "/api/explain/dns",
        &[
            "?name=web.shop.maesh&from=127.0.0.9",
            "?name=web.shop.maesh&from=10.244.1.9",
            "?name=web.shop.maesh&from=203.0.113.1",
            "?name=off.shop.maesh",
            "?name=nobody.shop.maesh",
            "?name=example.org",
        ],
    ),
    (
        "/api/explain/proxy",
        &[
            "?name=web.shop.maesh&from=127.0.0.9",
            "?name=web.shop.maesh&method=GET&target=/api&from=127.0.0.9",
            "?name=web.shop.maesh&method=GET&target=/api",
            "?name=db.shop.maesh&server-name=db.example&from=127.0.0.9",
            "?name=safe.shop.maesh",
            "?name=nobody.shop.maesh",
            "?name=web.shop.maesh&port=9",
        ],
    ),
];

/// Objects that give each part of the API something to say.
fn world(folder: &Path, web: SocketAddr) {
    let bad = "maesh.containo.us/scheme: htp, maesh.containo.us/retry-attempts: '3', \
               maesh.containo.us/circuit-breaker-expression: 'NetworkErrorRatio() > 0.3', \
               maesh.containo.us/routes: 'PathPrefix(`/api`) => split'";
    let objects = [
        service("shop", "web", 8080, bad) + &slices("shop", "web", &[web]),
        service("shop", "split", 8080, "") + &slices("shop", "split", &[web]),
        service("shop", "safe", 8443, "maesh.containo.us/scheme: https") + &slices("shop", "safe", &[web]),
        service("shop", "off", 8082, "maesh.containo.us/bypass: 'true'") + &slices("shop", "off", &[web]),
        service("shop", "db", 5432, "maesh.containo.us/traffic-type: tcp") + &slices("shop", "db", &[web]),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: client, namespace: shop}\nspec: {serviceAccountName: client, nodeName: \
         local, containers: []}\nstatus: {podIP: 127.0.0.9, phase: Running}\n"
            .to_owned(),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\nspec: {serviceAccountName: web, nodeName: \
         local, containers: []}\nstatus: {podIP: 127.0.0.1, phase: Running}\n"
            .to_owned(),
        "apiVersion: v1\nkind: Node\nmetadata: {name: local}\nspec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24]}\n"
            .to_owned(),
        "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {name: canary, namespace: shop}\nspec: \
         {service: split, backends: [{service: web, weight: 1}]}\n"
            .to_owned(),
        "apiVersion: access.smi-spec.io/v1alpha3\nkind: TrafficTarget\nmetadata: {name: read, namespace: shop}\nspec:\n  \
         destination: {kind: ServiceAccount, name: web, namespace: shop}\n  sources: [{kind: ServiceAccount, name: client, \
         namespace: shop}]\n  rules: [{kind: HTTPRouteGroup, name: api, matches: [get]}]\n---\napiVersion: \
         specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\nmetadata: {name: api, namespace: shop}\nspec: {matches: [{name: get, \
         methods: [GET], pathRegex: /api}]}\n"
            .to_owned(),
        "kind: [".to_owned(),
    ];
    for (number, text) in objects.iter().enumerate() {
        save(folder, &format!("{number:02}.yaml"), text);
    }
}

fn ask(at: SocketAddr, path: &str) -> Value {
    // Questions to the compiler are rationed.
    let answer = await_condition(path, || {
        let answer = get(at, "localhost", path).unwrap();
        (!answer.body.starts_with("too many questions")).then_some(answer)
    });
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{path}: {error}: {}", answer.body))
}

/// Asks a process for everything that it says it has, and holds the answers against the document.
fn check(document: &Document, kind: Kind, at: SocketAddr) -> BTreeMap<String, Vec<Value>> {
    let index = ask(at, "/api");
    let listed = ["paths", "queries"].iter().flat_map(|list| index[list].as_array().unwrap());
    let mut has: BTreeSet<String> = listed.map(|path| path.as_str().unwrap().to_owned()).collect();
    has.insert("/api".to_owned());
    assert_eq!(has, document.paths(kind), "{kind:?}: the paths that it has, and those of the document");
    let mut answers = BTreeMap::<String, Vec<Value>>::new();
    for path in &has {
        let questions = QUESTIONS.iter().find(|(of, _)| of == path).map(|(_, questions)| *questions);
        for question in questions.unwrap_or_else(|| panic!("nothing is asked of {path}")) {
            let answer = ask(at, &format!("{path}{question}"));
            document.check(path, &answer);
            answers.entry(path.clone()).or_default().push(answer);
        }
    }
    answers
}

fn set_log_level(at: SocketAddr, level: &str) -> Value {
    let head = format!("PUT /api/log-level HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", level.len());
    let answer = Client::connect(at).unwrap().send((head + level).as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

#[test]
fn a_dev_answers_as_the_document_says() {
    let (document, web) = (Document::read(), Backend::http("web"));
    let folder = tempfile::tempdir().unwrap();
    world(folder.path(), web.address);
    let dev = Dev::start_with(folder.path(), &["--acl-dry-run"]);
    for name in ["web.shop.maesh", "safe.shop.maesh"] {
        // Only what was called once is in the proxy.
        get(dev.served_at(name), name, "/api").unwrap();
    }
    let answers = check(&document, Kind::Dev, dev.admin());
    assert_eq!(ask(dev.admin(), "/api/openapi.json"), document.0, "the document that is served is the committed one");
    let answer = set_log_level(dev.admin(), "info");
    assert_eq!(document.errors("/api/log-level", "put", &answer), [""; 0]);
    // The world above is there so that no list of the document is looked at only while it is empty.
    let seen = seen_shapes(&answers);
    for field in [
        "diagnostic",
        "using",
        "line",
        "readyEndpoints",
        "origin",
        "weight",
        "grants",
        "rules",
        "meshed",
        "serviceAccount",
        "forZones",
        "lacks",
        "reason",
        "range",
        "answered",
        "annotation",
        "chosen",
        "taken",
        "state",
        "tls",
        "access",
        "bypass",
        "targets",
        "listener",
        "listening",
    ] {
        assert!(seen.contains(field), "no answer has a field {field}");
    }
}

#[test]
fn each_role_answers_as_the_document_says() {
    let (document, web) = (Document::read(), Backend::http("web"));
    let folder = tempfile::tempdir().unwrap();
    world(folder.path(), web.address);
    let roles = Roles::start(folder.path());
    for (kind, part) in [(Kind::Controller, Part::Controller), (Kind::Dns, Part::Dns), (Kind::Proxy, Part::Proxy1)] {
        check(&document, kind, roles.admin(part));
    }
}

#[test]
fn a_controller_of_a_cluster_answers_as_the_document_says() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let document = Document::read();
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: maesh}\n---\napiVersion: v1\nkind: Namespace\nmetadata: \
                     {name: shop}\n---\n";
    let web: SocketAddr = "10.244.1.7:8080".parse().unwrap();
    server.apply(&(namespace.to_owned() + &service("shop", "web", 8080, "") + &slices("shop", "web", &[web]))).unwrap();
    let done = server.namespace().run(|| {
        let mut mesh = Mesh::start(&server);
        mesh.await_ready();
        let at = Role::Controller.admin();
        let answers = check(&document, Kind::ClusterController, at);
        assert!(!answers["/api/watches"][0]["watches"].as_array().unwrap().is_empty());
        check(&document, Kind::Dns, Role::Dns1.admin());
        check(&document, Kind::Proxy, Role::Proxy2.admin());
    });
    done.unwrap();
}

#[test]
fn every_path_of_the_document_is_one_of_some_process() {
    let document = Document::read();
    let kinds = [Kind::Dev, Kind::ClusterController, Kind::Dns, Kind::Proxy];
    let all: BTreeSet<String> = kinds.into_iter().flat_map(|kind| document.paths(kind)).collect();
    let written: BTreeSet<String> = document.0["paths"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(all, written);
    let asked: BTreeSet<String> = QUESTIONS.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(asked, written);
}

/// A schema that takes any further field, or asks for none, would take answers that are not as it says.
#[test]
fn schemas_are_strict() {
    let document = Document::read();
    let mut rest: Vec<(&str, &Value)> =
        vec![("paths", &document.0["paths"]), ("schemas", &document.0["components"]["schemas"])];
    let mut looked_at = 0;
    while let Some((name, value)) = rest.pop() {
        if value["properties"].is_object() && value["type"] == "object" {
            let fields: BTreeSet<_> = value["properties"].as_object().unwrap().keys().collect();
            let required = value["required"].as_array().unwrap().iter().map(|field| field.as_str().unwrap());
            assert_eq!(value["additionalProperties"], false, "{name}");
            assert!(
                required.clone().count() > 0 && required.into_iter().all(|it| fields.contains(&it.to_owned())),
                "{name}"
            );
            looked_at += 1;
        }
        match value {
            Value::Object(fields) => rest.extend(fields.iter().map(|(name, value)| (name.as_str(), value))),
            Value::Array(items) => rest.extend(items.iter().map(|value| (name, value))),
            _ => {}
        }
    }
    assert!(looked_at > 40, "{looked_at}");
}
