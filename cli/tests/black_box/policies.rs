//! Policies by annotation through `maesh dev`: every example of the reference is accepted and serves, and the promises of the
//! announcement act on real requests.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use maesh_config::model::Protocol;

use crate::support::{
    Dev,
    backend::Backend,
    http::get,
    manifest::{config_map, save, service, slices},
    tls::Authority,
};

/// A Service in shop with this annotation, on port 8080, and its endpoint.
fn annotated(name: &str, annotations: &str, web: &Backend) -> String {
    service("shop", name, 8080, annotations) + &slices("shop", name, &[web.address]) + "---\n"
}

fn key(name: &str, value: &str) -> String {
    format!("maesh.containo.us/{name}: {}", serde_json::Value::from(value))
}

/// Examples with which plain HTTP to the shared address is not how the Service is reached.
const OTHERS: [&str; 5] = ["traffic-type", "scheme", "bypass", "tls-ca", "tls-server-name"];

/// What stands on a Namespace alone.
const OF_NAMESPACES: [&str; 1] = ["endpoints-for"];

#[test]
fn every_example_of_the_reference_is_accepted_and_serves() {
    let folder = tempfile::tempdir().unwrap();
    let web = Backend::http("web");
    let mut text = String::new();
    let mut names = Vec::new();
    for about in maesh_compiler::plan::annotations::all() {
        let mut annotations = key(about.name, about.example);
        if OF_NAMESPACES.contains(&about.name) {
            text += &format!(
                "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, annotations: {{{annotations}}}}}\n---\n"
            );
            continue;
        }
        // Some have an effect only together with another one.
        let with = match about.name {
            "fault-abort" | "fault-delay" => Some(("fault-until", "2020-01-01T00:00:00Z")),
            "fault-until" => Some(("fault-delay", "1ms")),
            "retry-on" => Some(("retry-attempts", "3")),
            "tls-ca" | "tls-server-name" => Some(("scheme", "https")),
            "ratelimit-burst" | "ratelimit-by" => Some(("ratelimit-average", "1000")),
            _ => None,
        };
        if let Some((name, value)) = with {
            annotations = format!("{annotations}, {}", key(name, value));
        }
        text += &annotated(about.name, &annotations, &web);
        names.push((about.name, about.protocols.contains(&Protocol::Http)));
    }
    // Services and a ConfigMap that examples name.
    text += &config_map("internal-ca", &Authority::new().pem());
    for other in ["web-static", "web-next", "api"] {
        text += &annotated(other, "", &web);
    }
    save(folder.path(), "all.yaml", &text);
    let dev = Dev::start(folder.path());
    assert!(dev.early.is_empty(), "{:#?}", dev.early);
    for (name, http) in names.into_iter().filter(|(name, _)| !OTHERS.contains(name)) {
        assert!(http, "{name}");
        let host = format!("{name}.shop.maesh");
        let answer = get(dev.served_at(&host), &host, "/").unwrap();
        assert_eq!((answer.status, answer.by()), (200, "web"), "{name}: {answer:?}");
    }
}

/// Twins: the same endpoints with and without the annotation.
#[test]
fn promises_act_on_requests() {
    let folder = tempfile::tempdir().unwrap();
    let (web, spare) = (Backend::http("web"), Backend::http("spare"));
    let refusing = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.local_addr().unwrap()
    };
    let mut text =
        annotated("limited", &format!("{}, {}", key("ratelimit-average", "1"), key("ratelimit-burst", "2")), &web);
    text += &annotated("unlimited", "", &web);
    for (name, annotations) in [("falls-back", key("fallback", "spare")), ("fails", String::new())] {
        text += &(service("shop", name, 8080, &annotations) + &slices("shop", name, &[refusing]) + "---\n");
    }
    text += &annotated("spare", "", &spare);
    let abort = format!("{}, {}", key("fault-abort", "418"), key("fault-until", "2999-01-01T00:00:00Z"));
    text += &annotated("faulty", &abort, &web);
    save(folder.path(), "all.yaml", &text);
    let dev = Dev::start(folder.path());
    let ask = |name: &str| {
        let host = format!("{name}.shop.maesh");
        let answer = get(dev.served_at(&host), &host, "/").unwrap();
        (answer.status, answer.field("x-maesh-reason").unwrap_or_default(), answer.by().to_owned())
    };
    let refused = |name: &str| (0..6).filter(|_| ask(name).0 == 429).count();
    assert!((2..=4).contains(&refused("limited")));
    assert_eq!(refused("unlimited"), 0);
    assert_eq!(ask("falls-back"), (200, String::new(), "spare".into()));
    assert_eq!((ask("fails").0, ask("fails").1.as_str()), (502, "connect_failed"));
    assert_eq!((ask("faulty").0, ask("faulty").1.as_str()), (418, "fault_injected"));
}
