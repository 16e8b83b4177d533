//! Rules, as tables: YAML in, compiled out.

use std::fmt::Write as _;

use maesh_config::model::ListenerId;
use maesh_config::update::{Identity, Role};

use super::*;
use crate::kinds::Object;

/// Objects from a few lines of YAML: documents apart by `---`.
pub(crate) fn objects(yaml: &str) -> Vec<Object> {
    let mut objects = Vec::new();
    for document in yaml.split("---\n").filter(|document| !document.trim().is_empty()) {
        let value: serde_json::Value = serde_saphyr::from_str(document).unwrap();
        let kind = ObjectKind::ALL.into_iter().find(|kind| kind.as_str() == value["kind"]).unwrap();
        objects.push(Object::read(kind, &value, &Door { selects_pods: true, ..Door::default() }).unwrap());
    }
    objects
}

fn dev() -> Config {
    Config {
        addressing: Addressing::Range(Range::new("127.77.0.0/16".parse().unwrap()).unwrap()),
        selects_pods: true,
        ..Config::default()
    }
}

fn compiled(config: Config, yaml: &str) -> Output {
    let mut compiler = Compiler::new(config);
    objects(yaml).into_iter().for_each(|object| compiler.take(Event::Apply(object)));
    compiler.compile()
}

/// A Service with these lines below `metadata` and `spec`.
fn service(name: &str, metadata: &str, spec: &str) -> String {
    format!(
        "kind: Service\nmetadata: {{namespace: shop, name: {name}, {metadata}}}\nspec: {{clusterIP: 10.0.0.1, {spec}}}\n---\n"
    )
}

/// The ports of the only Service, as `80/http/h2c`, with what was said.
fn ports(output: &Output) -> String {
    let mut text = String::new();
    for resource in &output.change.upserts {
        if let Resource::Service(service) = resource {
            for port in &service.ports {
                let scheme = format!("{:?}", port.backend.scheme).to_lowercase();
                write!(text, "{}/{}/{scheme} ", port.number, port.protocol).unwrap();
            }
        }
    }
    for found in &output.found {
        write!(text, "{} ", found.reason).unwrap();
    }
    text.trim_end().to_owned()
}

#[test]
fn what_a_port_carries() {
    for (case, metadata, spec, want) in [
        ("nothing said", "", "ports: [{port: 80}]", "80/http/http"),
        ("UDP", "", "ports: [{port: 53, protocol: UDP}]", "53/udp/http"),
        ("appProtocol http", "", "ports: [{port: 80, appProtocol: http}]", "80/http/http"),
        ("appProtocol h2c", "", "ports: [{port: 80, appProtocol: kubernetes.io/h2c}]", "80/http/h2c"),
        ("appProtocol grpc", "", "ports: [{port: 80, appProtocol: grpc}]", "80/http/h2c"),
        ("appProtocol of a database", "", "ports: [{port: 1, appProtocol: postgresql}]", "1/tcp/http"),
        ("appProtocol nobody knows", "", "ports: [{port: 1, appProtocol: acme.io/x}]", "1/http/http"),
        (
            "annotation wins over appProtocol",
            "annotations: {maesh.containo.us/traffic-type: tcp}",
            "ports: [{port: 80, appProtocol: http}]",
            "80/tcp/http",
        ),
        ("old prefix", "annotations: {mesh.traefik.io/traffic-type: tcp}", "ports: [{port: 80}]", "80/tcp/http"),
        (
            "narrowed by number and by name",
            "annotations: {maesh.containo.us/1.traffic-type: tcp, maesh.containo.us/b.scheme: h2c}",
            "ports: [{port: 1, name: a}, {port: 2, name: b}, {port: 3, name: c}]",
            "1/tcp/http 2/http/h2c 3/http/http",
        ),
        (
            "bad value, unknown name, unknown port, not supported yet",
            "annotations: {maesh.containo.us/scheme: ftp, maesh.containo.us/shceme: h2c, \
             maesh.containo.us/81.scheme: h2c, maesh.containo.us/retry-attempts: '2'}",
            "ports: [{port: 80}]",
            "80/http/http UnknownAnnotation UnknownAnnotation InvalidAnnotation UnsupportedAnnotation",
        ),
        (
            "a type for the whole Service passes over ports that cannot have it",
            "annotations: {maesh.containo.us/traffic-type: tcp}",
            "ports: [{port: 53, name: a}, {port: 53, name: b, protocol: UDP}]",
            "53/tcp/http 53/udp/http",
        ),
        (
            "udp on a TCP port",
            "annotations: {maesh.containo.us/traffic-type: udp}",
            "ports: [{port: 80}]",
            "80/http/http InvalidAnnotation",
        ),
        (
            "ports that cannot be",
            "",
            "ports: [{port: 0}, {port: 65536}, {port: -1}, {port: x}, {port: 80}, {port: 80}, {port: 9, protocol: SCTP}]",
            "80/http/http InvalidPort InvalidPort InvalidPort InvalidPort InvalidPort UnsupportedProtocol",
        ),
    ] {
        let output = compiled(dev(), &service("web", metadata, spec));
        let mut got: Vec<_> = ports(&output).split(' ').map(str::to_owned).collect();
        let mut want: Vec<_> = want.split(' ').map(str::to_owned).collect();
        got.sort();
        want.sort();
        assert_eq!(got, want, "{case}: {:#?}", output.found);
    }
}

fn proxy(listening: &[&str]) -> ConnectedProxy {
    ConnectedProxy {
        identity: Identity {
            role: Role::Proxy,
            id: "p".into(),
            node: Some("n".into()),
            addresses: vec!["127.77.0.1".parse().unwrap()],
            version: "0".into(),
        },
        ready: true,
        listening: listening.iter().map(|id| ListenerId((*id).into())).collect(),
        failed: Vec::new(),
    }
}

fn listeners(output: &Output) -> Vec<String> {
    let mut all = Vec::new();
    for resource in &output.change.upserts {
        if let Resource::Listener(listener) = resource {
            let owner =
                listener.owner.as_ref().map_or_else(String::new, |(service, port)| format!(" {service}:{port}"));
            let http = if listener.http { " http" } else { "" };
            let tls = if listener.tls { " tls" } else { "" };
            all.push(format!("{}{owner}{http}{tls}", listener.id));
        }
    }
    all
}

fn name<'a>(output: &'a Output, service: &str) -> &'a Name {
    let names = output.change.upserts.iter().filter_map(|resource| match resource {
        Resource::Name(name) => Some(name),
        _ => None,
    });
    names.into_iter().find(|name| name.service.to_string() == service).unwrap()
}

#[test]
fn an_own_address_is_answered_once_it_is_listened_on() {
    let mut compiler = Compiler::new(dev());
    let yaml = service("db", "", "ports: [{port: 5432, appProtocol: postgres}]")
        + &service("web", "", "ports: [{port: 8080}, {port: 443, appProtocol: https}]");
    objects(&yaml).into_iter().for_each(|object| compiler.take(Event::Apply(object)));
    let first = compiler.compile();
    let own = first.services.iter().find(|entry| &*entry.service.name == "db").unwrap().address.unwrap();
    let listener = format!("{own}/5432/tcp");
    assert_eq!(
        listeners(&first),
        [format!("{listener} shop/db:5432"), "shared/443/tcp tls".into(), "shared/8080/tcp http".into()]
    );
    assert_eq!(name(&first, "shop/db").answer, Answer::Plain);
    assert_eq!(name(&first, "shop/web").answer, Answer::Node);

    compiler.proxies(vec![proxy(&[&listener])]);
    let second = compiler.compile();
    assert_eq!(name(&second, "shop/db").answer, Answer::Fixed(vec![own]));
    assert!(second.services.iter().all(|entry| entry.serving));
    assert!(!second.change.upserts.iter().any(|resource| matches!(resource, Resource::Proxy(_))), "not settled");
    compiler.settle();
    assert!(matches!(&compiler.compile().change.upserts[..], [Resource::Proxy(_)]));

    let mut broken = proxy(&[]);
    broken.failed.push((ListenerId(listener.into()), "in use".into()));
    compiler.proxies(vec![broken]);
    let third = compiler.compile();
    assert_eq!(name(&third, "shop/db").answer, Answer::Plain);
    assert_eq!(third.found.len(), 1, "{:?}", third.found);
}
