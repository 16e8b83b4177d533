//! What is printed routes every request as the originals do, and the compiler has nothing to say against it.

use http::request::Parts;
use maesh_compiler::{
    diagnostic::Diagnostic,
    kinds::{Object, ObjectKind, ReadContext},
};
use maesh_config::{
    ServiceName,
    model::{Protocol, ServicePort},
};
use maesh_proxy::explain::first_rules;
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};

use super::{
    outcome::{Migration, Verdict},
    translate::{annotated, compile, translate},
};

/// Names of Services: the first one is called.
const SERVICES: [&str; 4] = ["web", "v1", "v2", "v3"];

fn one_match() -> impl Strategy<Value = Value> {
    let path = select(&["/api", "/api/x$", "^/beta", "items", "/(a|b)", "/[0-9]+", "/a`b", "/"][..]);
    let methods = vec(select(&["GET", "POST", "OPTIONS", "*"][..]), 1..3);
    let header = (select(&["x-beta", "user-agent", "host"][..]), select(&["yes", "^y", "Fire|Chrome", "b\\.", ""][..]));
    (option::of(path), option::of(methods), option::weighted(0.4, header)).prop_map(|(path, methods, header)| {
        let mut one = json!({ "name": "m" });
        path.into_iter().for_each(|path| one["pathRegex"] = path.into());
        methods.into_iter().for_each(|methods| one["methods"] = methods.into());
        header.into_iter().for_each(|(name, value)| one["headers"] = json!({ name: value }));
        one
    })
}

fn split() -> impl Strategy<Value = Value> {
    // The Service itself is no backend that SMI foresees.
    let service = prop_oneof![9 => select(&SERVICES[1..]), 1 => Just(SERVICES[0])];
    let backend = (service, prop_oneof![Just(json!(0)), (1..100).prop_map(|it| json!(it)), Just(json!("500m"))]);
    let groups = prop_oneof![Just(vec![]), vec(0..3_usize, 1..3)];
    (vec(backend, 1..4), groups).prop_map(|(backends, groups)| {
        let backends: Vec<_> =
            backends.into_iter().map(|(service, weight)| json!({ "service": service, "weight": weight })).collect();
        let groups: Vec<_> =
            groups.iter().map(|group| json!({ "kind": "HTTPRouteGroup", "name": format!("g{group}") })).collect();
        json!({ "service": "web", "backends": backends, "matches": groups })
    })
}

/// Ports that all Services have; the last one may lack the last of them.
fn ports() -> impl Strategy<Value = Vec<Value>> {
    let http = json!({ "name": "http", "port": 80 });
    let tcp = json!({ "name": "tcp", "port": 5432, "appProtocol": "tcp" });
    let (dns, udp) = (
        json!({ "name": "dns", "port": 53, "appProtocol": "tcp" }),
        json!({ "name": "udp", "port": 53, "protocol": "UDP" }),
    );
    select(vec![
        vec![http.clone()],
        vec![http.clone(), json!({ "name": "other", "port": 8080 })],
        vec![http, tcp.clone()],
        vec![tcp],
        vec![dns, udp.clone()],
        vec![udp],
    ])
}

fn objects() -> impl Strategy<Value = Vec<Object>> {
    let groups = vec(vec(one_match(), 1..4), 3);
    (ports(), prop::bool::weighted(0.2), vec(split(), 1..4), groups).prop_map(|(ports, lacks, splits, groups)| {
        let mut all = Vec::new();
        let meta = |name: String| json!({ "namespace": "shop", "name": name });
        for name in SERVICES {
            let own = if lacks && name == "v3" { &ports[..ports.len() - 1] } else { &ports[..] };
            let spec = json!({ "clusterIP": "10.0.0.1", "ports": own });
            all.push(read(ObjectKind::Service, json!({ "metadata": meta(name.into()), "spec": spec })));
        }
        for (number, matches) in groups.into_iter().enumerate() {
            let group = json!({ "metadata": meta(format!("g{number}")), "spec": { "matches": matches } });
            all.push(read(ObjectKind::HttpRouteGroup, group));
        }
        for (number, spec) in splits.into_iter().enumerate() {
            let mut metadata = meta(format!("s{number}"));
            metadata["creationTimestamp"] = format!("2026-01-0{}T00:00:00Z", 9 - number).into();
            all.push(read(ObjectKind::TrafficSplit, json!({ "metadata": metadata, "spec": spec })));
        }
        all
    })
}

fn read(kind: ObjectKind, mut value: Value) -> Object {
    value["apiVersion"] = "x/v1alpha3".into();
    Object::read(kind, &value, &ReadContext::default()).unwrap_or_else(|bad| panic!("{bad}: {value}"))
}

/// The objects as they are once what is printed was applied and what it replaces was deleted.
fn applied(objects: &[Object], migration: &Migration) -> Vec<Object> {
    let is_replaced = |name: &str| {
        let about = |it: &&super::outcome::Finding| &*it.object.kind == "TrafficSplit" && &*it.object.name == name;
        migration.findings.iter().filter(about).any(|it| it.verdict == Verdict::Translated)
    };
    let one = |object: &Object| match object {
        Object::Service(service) => {
            let patch = migration.objects.iter().find(|patch| patch.metadata.name == *service.meta.name);
            Some(patch.map_or_else(|| object.clone(), |patch| annotated(service, &patch.metadata.annotations)))
        }
        Object::TrafficSplit(split) if is_replaced(&split.meta.name) => None,
        other => Some(other.clone()),
    };
    objects.iter().filter_map(one).collect()
}

/// Every request of a kind that some rule may be about.
fn requests() -> Vec<Option<Parts>> {
    let mut all = Vec::new();
    for method in ["GET", "POST", "OPTIONS"] {
        for path in
            ["/", "/api", "/api/x", "/api/xy", "/%61pi", "/beta", "/items", "/a", "/a%60b", "/17", "/other?x=/api", "*"]
        {
            for (name, value) in [("accept", "*/*"), ("x-beta", "yes"), ("x-beta", "my"), ("user-agent", "Firefox")] {
                for host in ["web.shop.maesh", "b.example"] {
                    let request =
                        http::Request::builder().method(method).uri(path).header("host", host).header(name, value);
                    all.push(Some(request.body(()).expect("a request").into_parts().0));
                }
            }
        }
    }
    all
}

/// Where a request to a port goes: names with weights in lowest terms, or nowhere else.
type Way = Option<Vec<(String, f64)>>;

fn ways(port: &ServicePort, requests: &[Option<Parts>]) -> Vec<Way> {
    let connection = [None];
    let sent = if port.protocol == Protocol::Http { requests } else { &connection };
    let rules = port.routes.iter().map(|route| route.rule.as_ref());
    let found = first_rules(rules, sent, [10, 1, 2, 3].into()).expect("rules that can be used");
    let way = |number: &usize| {
        let backends = &port.routes[*number].backends;
        let sum: f64 = backends.iter().map(|it| f64::from(it.weight)).sum();
        let to = backends.iter().map(|it| (format!("{}:{}", it.service, it.port), f64::from(it.weight) / sum));
        to.filter(|(_, share)| *share > 0.0).collect()
    };
    found.iter().map(|number| number.as_ref().map(way)).collect()
}

/// Fails where what is printed differs. Returns how many splits were translated.
fn same(objects: &[Object]) -> Result<usize, TestCaseError> {
    let migration = translate(objects, &[], Protocol::Http);
    let after = applied(objects, &migration);
    let (before, after) = (compile(objects.iter().cloned(), Protocol::Http), compile(after, Protocol::Http));
    // One that has no ports has none before.
    let is_against =
        |found: &&Diagnostic| &*found.object.kind == "Service" && found.field.as_deref() != Some("spec.ports");
    let against: Vec<_> = after.found.iter().filter(is_against).collect();
    prop_assert!(against.is_empty(), "{against:#?}");
    let (web, requests) = (ServiceName::new("shop", "web"), requests());
    let (before, after) = (&before.services[&web], &after.services[&web]);
    for (before, after) in before.ports.iter().zip(&after.ports) {
        prop_assert_eq!((before.number, before.protocol), (after.number, after.protocol));
        let ways = ways(before, &requests).into_iter().zip(ways(after, &requests)).enumerate();
        for (number, (before, after)) in ways {
            prop_assert_eq!(before, after, "{:?} {:?}", requests[number], migration.objects);
        }
    }
    let is_translated =
        |it: &&super::outcome::Finding| &*it.object.kind == "TrafficSplit" && it.verdict == Verdict::Translated;
    Ok(migration.findings.iter().filter(is_translated).count())
}

proptest! {
    #[test]
    fn what_is_printed_routes_as_the_originals_do(objects in objects()) {
        same(&objects)?;
    }
}

#[test]
fn splits_are_translated_at_all() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut translated = 0;
    for _ in 0..100 {
        let objects = objects().new_tree(&mut runner).expect("objects").current();
        translated += same(&objects).unwrap_or_else(|error| panic!("{error}"));
    }
    assert!(translated >= 20, "{translated} splits of 100 clusters");
}
