//! What endpoints that are spoken to over TLS are verified against.

use maesh_config::policy::{EndpointTls, TlsRoots};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::json;

use super::*;
use crate::kinds::ObjectId;

/// An authority's certificate, in PEM.
fn authority() -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

fn config_map(data: &serde_json::Value) -> String {
    format!("kind: ConfigMap\nmetadata: {{namespace: shop, name: ca}}\ndata: {data}\n---\n")
}

/// Service shop/web with these annotations.
fn web(annotations: &[(&str, &str)]) -> String {
    let all: Vec<_> =
        annotations.iter().map(|(name, value)| format!("maesh.containo.us/{name}: {}", json!(value))).collect();
    service("web", &format!("annotations: {{{}}}", all.join(", ")), "ports: [{port: 443}]")
}

const WITH_CA: [(&str, &str); 2] = [("scheme", "https"), ("tls-ca", "ca")];

fn tls(output: &Output) -> Option<Box<EndpointTls>> {
    let service = output.change.upserts.iter().find_map(|resource| match resource {
        Resource::Service(service) if &*service.name.name == "web" => Some(service),
        _ => None,
    });
    service?.ports[0].backend.tls.clone()
}

/// The value of `roots` in words, and the messages.
fn roots(yaml: &str) -> (String, Vec<String>) {
    let output = compiled(dev(), yaml);
    let found = output.found.iter().map(|found| found.message.to_string()).collect();
    (tls(&output).unwrap().roots.to_string(), found)
}

#[test]
fn names_and_roots() {
    for (annotations, name, roots) in [
        (&[("scheme", "https")][..], "web.shop.svc", "system roots"),
        (&[("scheme", "https"), ("tls-server-name", "Pay.Example.com")], "pay.example.com", "system roots"),
        (&[("scheme", "https"), ("tls-server-name", "no name")], "web.shop.svc", "system roots"),
        (&WITH_CA, "web.shop.svc", "2 certificates"),
        (&[("scheme", "https"), ("443.tls-ca", "ca")], "web.shop.svc", "2 certificates"),
    ] {
        let map = config_map(&json!({"ca.crt": authority() + &authority(), "other": "x"}));
        let tls = tls(&compiled(dev(), &(map + &web(annotations)))).unwrap();
        assert_eq!((&*tls.server_name, &*tls.roots.to_string()), (name, roots), "{annotations:?}");
    }
    for annotations in [&[][..], &[("scheme", "http")], &[("scheme", "h2c")]] {
        assert_eq!(tls(&compiled(dev(), &web(annotations))), None, "{annotations:?}");
    }
}

/// Never other authorities than those that were asked for, and a message that says what happens.
#[test]
fn without_good_roots_nobody_is_trusted() {
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let many = authority().repeat(257);
    for (data, why) in [
        (None, "ConfigMap shop/ca does not exist"),
        (Some(json!({"tls.crt": authority()})), "has no ca.crt"),
        (Some(json!({"ca.crt": "hello"})), "has a ca.crt that is not PEM"),
        (Some(json!({"ca.crt": "-----BEGIN CERTIFICATE-----\nü\n-----END CERTIFICATE-----\n"})), "that is not PEM"),
        (Some(json!({"ca.crt": KeyPair::generate().unwrap().serialize_pem()})), "without a certificate"),
        (Some(json!({"ca.crt": authority() + garbage})), "whose certificate 2 cannot be read"),
        (Some(json!({"ca.crt": many})), "more than 256 certificates"),
    ] {
        let map = data.as_ref().map(config_map).unwrap_or_default();
        let output = compiled(dev(), &(map + &web(&WITH_CA)));
        let roots = tls(&output).unwrap().roots.to_string();
        assert!(roots.starts_with("none: ConfigMap shop/ca"), "{roots}");
        let [found] = &output.found[..] else { panic!("{why}: {:#?}", output.found) };
        let said = found.to_string();
        for part in ["Service shop/web", "tls-ca is \"ca\"", why, "requests to port 443 are answered 502"] {
            assert!(said.contains(part), "{why}: {said}");
        }
    }
    let (roots, found) = roots(&web(&[("scheme", "https"), ("tls-ca", "Not/One")]));
    assert!(roots.starts_with("none: "), "{roots}");
    assert!(found[0].contains("not the name of a ConfigMap; using no authority"), "{found:?}");
}

#[test]
fn annotations_without_effect() {
    for (annotations, message) in [
        (&[("tls-ca", "ca")][..], "has no effect without scheme: https"),
        (&[("tls-server-name", "a.b")], "has no effect without scheme: https"),
        (&[("tls-ca", "ca"), ("traffic-type", "tcp")], "is for ports that carry http"),
    ] {
        let output = compiled(dev(), &web(annotations));
        let found: Vec<_> = output.found.iter().map(|found| found.message.to_string()).collect();
        assert!(matches!(&found[..], [only] if only.contains(message)), "{annotations:?}: {found:#?}");
    }
}

fn apply(compiler: &mut Compiler, yaml: &str) -> Output {
    objects(yaml).into_iter().for_each(|object| compiler.take(Event::Apply(object)));
    compiler.compile(Instant::now())
}

#[test]
fn a_config_map_that_comes_changes_and_goes() {
    let mut compiler = Compiler::new(dev());
    let roots = |output: &Output| tls(output).map(|tls| tls.roots);
    let first = apply(&mut compiler, &web(&WITH_CA));
    assert!(matches!(roots(&first), Some(TlsRoots::Unusable(_))));
    let one = apply(&mut compiler, &config_map(&json!({"ca.crt": authority()})));
    assert!(matches!(roots(&one), Some(TlsRoots::Certificates(all)) if all.len() == 1));
    assert_eq!((one.found.len(), one.cleared.len()), (0, 1));
    let two = apply(&mut compiler, &config_map(&json!({"ca.crt": authority() + &authority()})));
    assert!(matches!(roots(&two), Some(TlsRoots::Certificates(all)) if all.len() == 2));
    compiler.take(Event::Delete(ObjectId::new(ObjectKind::ConfigMap, "shop", "ca")));
    assert!(matches!(roots(&compiler.compile(Instant::now())), Some(TlsRoots::Unusable(_))));
}

/// From an API server, a ConfigMap is read once somebody names it; until then the plan of before holds.
#[test]
fn config_maps_on_demand() {
    let mut compiler = Compiler::new(Config { config_maps_on_demand: true, ..dev() });
    let wanted = |compiler: &mut Compiler| {
        compiler.take_wanted_config_maps().map(|all| Vec::from_iter(all.iter().map(ToString::to_string)))
    };
    apply(&mut compiler, &web(&[("scheme", "https")]));
    assert!(compiler.is_synced(ObjectKind::ConfigMap), "nobody wants any");
    assert_eq!(wanted(&mut compiler), None);

    let asked = apply(&mut compiler, &web(&WITH_CA));
    assert_eq!(wanted(&mut compiler), Some(vec!["shop/ca".to_owned()]));
    assert!(!compiler.is_synced(ObjectKind::ConfigMap), "one is wanted and not known");
    assert_eq!(tls(&asked), None, "as before, until it is known");
    let there = apply(&mut compiler, &config_map(&json!({"ca.crt": authority()})));
    assert_eq!(tls(&there).unwrap().roots.to_string(), "1 certificate");
    assert!(compiler.is_synced(ObjectKind::ConfigMap));

    let id = ObjectId::new(ObjectKind::ConfigMap, "shop", "ca");
    compiler.take(Event::Unreadable(id.clone(), "forbidden".into()));
    let refused = compiler.compile(Instant::now());
    assert!(refused.found.iter().any(|found| found.message.contains("cannot be read (forbidden)")));
    assert!(tls(&refused).unwrap().roots.to_string().starts_with("none: "));

    apply(&mut compiler, &web(&[("scheme", "https")]));
    assert_eq!(wanted(&mut compiler), Some(Vec::new()));
    assert_eq!(compiler.count(ObjectKind::ConfigMap), 0, "forgotten, as nobody names it");
    compiler.take(Event::Delete(id));
    assert!(compiler.compile(Instant::now()).is_empty());
}
