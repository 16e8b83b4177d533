//! What `maesh explain` says is wrong: what concerns the Service that is asked for, and nothing else.

use super::*;
use crate::{
    diagnostic::{Diagnostic, ObjectRef},
    kinds::Object,
};

/// As a source says it: what could be read of the objects, and what is wrong with them.
fn told(compiler: &mut Compiler, yaml: &str, others: Vec<Diagnostic>) {
    let mut problems = others;
    for document in yaml.split("---\n").filter(|document| !document.trim().is_empty()) {
        let value: serde_json::Value = serde_saphyr::from_str(document).unwrap();
        let kind = ObjectKind::ALL.into_iter().find(|kind| kind.as_str() == value["kind"]).unwrap();
        let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
        let object = ObjectRef::new(kind.as_str(), text("namespace"), text("name"));
        match kind.registration().read(&value, &compiler.door()) {
            Ok((read, bad)) => {
                compiler.take(Event::Apply(Object::clone(&read)));
                problems.extend(bad.iter().map(|bad| bad.diagnostic(object.clone(), false)));
            }
            Err(bad) => problems.push(bad.diagnostic(object, true)),
        }
    }
    compiler.take(Event::Problems(problems));
    compiler.compile(Instant::now());
}

/// The objects that are named for `asked`, once each.
fn named(compiler: &Compiler, asked: &str) -> String {
    let explained = compiler.explain(&explain::Question { name: asked.into(), from: None });
    let object = |message: &str| message.split(": ").next().unwrap_or_default().to_owned();
    let all: BTreeSet<_> = explained.findings.iter().map(|finding| object(&finding.message)).collect();
    Vec::from_iter(all).join(", ")
}

fn slice(name: &str, service: &str, endpoint: &str) -> String {
    format!(
        "kind: EndpointSlice\nmetadata: {{namespace: shop, name: {name}, labels: {{kubernetes.io/service-name: {service}}}}}\n\
         addressType: IPv4\nports: [{{port: 80}}]\nendpoints: [{{addresses: [10.1.0.1]}}, {endpoint}]\n---\n"
    )
}

const ACCESS: &str = "\
kind: Pod
metadata: {namespace: shop, name: web-1}
spec: {serviceAccountName: web, containers: []}
status: {podIP: 10.1.0.1, phase: Running}
---
kind: HTTPRouteGroup
metadata: {namespace: shop, name: reads}
spec: {matches: [{name: get, methods: [5]}]}
---
kind: HTTPRouteGroup
metadata: {namespace: shop, name: others}
spec: {matches: [{name: get, methods: [5]}]}
---
kind: TrafficTarget
metadata: {namespace: shop, name: to-web}
spec: {destination: {kind: ServiceAccount, name: web}, sources: [{kind: ServiceAccount, name: ui, namespace: 5}], \
 rules: [{kind: HTTPRouteGroup, name: reads}]}
---
kind: TrafficTarget
metadata: {namespace: shop, name: to-pay}
spec: {destination: {kind: ServiceAccount, name: pay}, sources: [{kind: ServiceAccount, name: ui, namespace: 5}]}
---
";

const SPLITS: &str = "\
kind: TrafficSplit
metadata: {namespace: shop, name: halves}
spec: {service: web, backends: [{service: web, weight: many}, {service: pay, weight: 1}]}
---
kind: TrafficSplit
metadata: {namespace: shop, name: of-pay}
spec: {service: pay, backends: [{service: pay, weight: many}, {service: web, weight: 1}]}
---
";

#[test]
fn bad_values_of_objects_of_the_service_are_named() {
    for (case, yaml, web, pay) in [
        ("an address", slice("web-1", "web", "{addresses: [bad]}"), "EndpointSlice shop/web-1", ""),
        (
            "a condition",
            slice("web-1", "web", "{addresses: [10.1.0.2], conditions: {ready: \"true\"}}"),
            "EndpointSlice shop/web-1",
            "",
        ),
        ("called otherwise", slice("pay-1", "web", "{addresses: [bad]}"), "EndpointSlice shop/pay-1", ""),
        ("nothing", slice("web-1", "web", "{addresses: [10.1.0.2]}"), "", ""),
        (
            "a slice that is left out, by its name",
            "kind: EndpointSlice\nmetadata: {namespace: shop, name: web-x7f2k}\naddressType: IPv4\nendpoints: 5\n".to_owned(),
            "EndpointSlice shop/web-x7f2k",
            "",
        ),
        (
            "a slice that is left out, of a Service with a longer name",
            "kind: EndpointSlice\nmetadata: {namespace: shop, name: web-admin-x7f2k}\naddressType: IPv4\nendpoints: 5\n".to_owned(),
            "",
            "",
        ),
        (
            "access control",
            slice("web-1", "web", "{addresses: [10.1.0.2]}") + ACCESS,
            "HTTPRouteGroup shop/reads, TrafficTarget shop/to-web",
            "",
        ),
        (
            "splits",
            SPLITS.to_owned(),
            "TrafficSplit shop/halves",
            "TrafficSplit shop/of-pay",
        ),
    ] {
        let mut compiler = Compiler::new(Config { access_control: model::AccessControl::On, ..Config::default() });
        let services = ["web", "web-admin", "pay"].map(|name| service(name, "", "ports: [{port: 80}]")).concat();
        told(&mut compiler, &(services + &yaml), Vec::new());
        assert_eq!(named(&compiler, "web.shop.maesh"), web, "{case}");
        assert_eq!(named(&compiler, "pay.shop.maesh"), pay, "{case}");
    }
}

#[test]
fn why_a_service_is_unknown_is_named_alone() {
    let warning = |reason, object| Diagnostic::warning(reason, object, "something.");
    let others = vec![
        warning(Reason::UnparsableFile, ObjectRef::file("shop.yaml")),
        warning(Reason::WatchFailed, ObjectRef::new("EndpointSlice", "", "*")),
        warning(Reason::WatchFailed, ObjectRef::new("TrafficSplit", "", "*")),
        warning(Reason::UnknownKind, ObjectRef::new("Servic", "shop", "a")),
        warning(Reason::UnknownKind, ObjectRef::new("Deployment", "shop", "gone")),
        warning(Reason::InvalidObject, ObjectRef::new("Service", "pay", "")),
    ];
    let mut compiler = Compiler::new(Config::default());
    let gone = service("gone", "", "ports: 5") + &service("lost", "", "ports: 5");
    let web = service("web", "", "ports: [{port: 80}]") + &slice("web-abc", "web", "{addresses: [bad]}");
    told(&mut compiler, &(gone + &web), others);
    let everybody = "EndpointSlice *, File shop.yaml, Servic shop/a";
    for (asked, want) in [
        ("gone.shop.maesh", format!("{everybody}, Service shop/gone")),
        ("lost.shop.maesh", format!("{everybody}, Service shop/lost")),
        ("web.shop.maesh", "EndpointSlice *, EndpointSlice shop/web-abc".to_owned()),
        (
            "10.0.0.9",
            "EndpointSlice *, File shop.yaml, Service shop/gone, Service shop/lost, Service without a name in pay"
                .to_owned(),
        ),
        ("nothing", "EndpointSlice *".to_owned()),
    ] {
        assert_eq!(named(&compiler, asked), want, "{asked}");
    }
}
