//! Rules, as tables: YAML in, compiled out.

use maesh_config::model::{self, Answer, ListenerId, Name, WorkloadKind};

mod access;
mod addresses;
mod bounds;
mod cluster;
mod concerns;
mod endpoints;
mod names;
mod policies;
mod ports;
mod routes;
mod scale;
mod splits;
mod tls;
mod units;
mod workloads;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::*;
use crate::{diagnostic::Reason, kinds::Object, own_address};

/// Objects from a few lines of YAML: documents apart by `---`.
pub(crate) fn objects(yaml: &str) -> Vec<Object> {
    let mut objects = Vec::new();
    for document in yaml.split("---\n").filter(|document| !document.trim().is_empty()) {
        let value: serde_json::Value = serde_saphyr::from_str(document).unwrap();
        let kind = ObjectKind::ALL.into_iter().find(|kind| kind.as_str() == value["kind"]).unwrap();
        objects
            .push(Object::read(kind, &value, &ReadContext { selects_pods: true, ..ReadContext::default() }).unwrap());
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
    compiler.compile(Instant::now())
}

/// A Service with these lines below `metadata` and `spec`.
fn service(name: &str, metadata: &str, spec: &str) -> String {
    format!(
        "kind: Service\nmetadata: {{namespace: shop, name: {name}, {metadata}}}\nspec: {{clusterIP: 10.0.0.1, {spec}}}\n---\n"
    )
}

fn proxy(listening: &[&str]) -> ConnectedProxy {
    ConnectedProxy {
        id: "p".into(),
        node: Some("n".into()),
        addresses: vec!["127.77.0.1".parse().unwrap()],
        ready: true,
        listening: listening.iter().map(|id| ListenerId((*id).into())).collect(),
        failed: Arc::default(),
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

/// The routes of each port of shop/web, in words.
fn routes(output: &Output) -> Vec<String> {
    let service = output.change.upserts.iter().find_map(|resource| match resource {
        Resource::Service(service) if &*service.name.name == "web" => Some(service),
        _ => None,
    });
    let to = |backend: &model::Backend| {
        format!("{}.{}:{} {}", backend.service.name, backend.service.namespace, backend.port, backend.weight)
    };
    let routes = service.into_iter().flat_map(|service| &service.ports).flat_map(|port| {
        port.routes.iter().map(move |route| {
            let rule = route.rule.as_ref().map_or_else(|| "any".into(), ToString::to_string);
            let backends: Vec<_> = route.backends.iter().map(to).collect();
            format!("{}: {rule} => {}", port.number, backends.join(", "))
        })
    });
    routes.collect()
}
