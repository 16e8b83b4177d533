//! Objects at random: few names, so that they meet, and values that are good, odd and bad.

use std::sync::LazyLock;

use maesh_compiler::kinds::ObjectKind;
use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Map, Value, json};

/// The namespaces that objects are in. `kube-system` is left alone by the mesh, and `maesh` is its own.
pub(crate) const NAMESPACES: [&str; 4] = ["a", "b", "kube-system", "maesh"];
const NAMES: [&str; 4] = ["web", "db", "kube-dns", "x"];
const ACCOUNTS: [&str; 3] = ["default", "ann", "bob"];

/// Keys and values of annotations, without the prefix.
const ANNOTATIONS: [(&str, &str); 25] = [
    ("traffic-type", "tcp"),
    ("traffic-type", "http"),
    ("traffic-type", "many"),
    ("80.traffic-type", "tcp"),
    ("9999.traffic-type", "tcp"),
    ("address", "own"),
    ("addressing", "service"),
    ("addressing", "node"),
    ("bypass", "true"),
    ("bypass", "maybe"),
    ("shceme", "h2c"),
    ("scheme", "h2c"),
    ("scheme", "https"),
    ("tls-ca", "web"),
    ("tls-ca", "x"),
    ("80.tls-ca", "db"),
    ("retry-attempts", "3"),
    ("retry-attempts", "many"),
    ("timeout-request", "5s"),
    ("ratelimit-average", "-1"),
    ("concurrency", "7"),
    ("endpoints-for", "a, b"),
    ("endpoints-for", "*"),
    ("routes", "Host(`a.example`) => web\nPath(`/`) => db.b 1, x"),
    ("routes", "Path(`/` => web"),
];

pub(crate) fn pick<'t, T>(rng: &mut StdRng, from: &'t [T]) -> &'t T {
    &from[rng.random_range(0..from.len())]
}

/// Up to so many values.
fn several<T>(rng: &mut StdRng, most: usize, one: impl Fn(&mut StdRng) -> T) -> Vec<T> {
    (0..rng.random_range(0..=most)).map(|_| one(rng)).collect()
}

/// An object of a kind: its namespace and name, and all of it but kind and version. What is below `status` is set by itself.
pub(crate) fn object(kind: ObjectKind, rng: &mut StdRng) -> (String, String, Value) {
    let namespace = (*pick(rng, &NAMESPACES)).to_owned();
    let name = match kind {
        // That of the cluster's DNS, and the mesh's own, come back by themselves or never.
        ObjectKind::Namespace => (*pick(rng, &["a", "b"])).to_owned(),
        ObjectKind::Node => (*pick(rng, &["n1", "n2"])).to_owned(),
        ObjectKind::Service | ObjectKind::EndpointSlice if namespace == "maesh" => (*pick(rng, &OWN)).to_owned(),
        _ => (*pick(rng, &NAMES)).to_owned(),
    };
    let mut object = match kind {
        ObjectKind::Namespace | ObjectKind::ServiceAccount => json!({}),
        ObjectKind::Node => node(rng),
        ObjectKind::ConfigMap => config_map(rng),
        ObjectKind::Pod => pod(rng),
        ObjectKind::Service if namespace == "maesh" => own_address(rng),
        ObjectKind::Service => service(rng),
        ObjectKind::EndpointSlice => slice(rng, namespace == "maesh"),
        ObjectKind::HttpRouteGroup => json!({"spec": {"matches": several(rng, 3, one_match)}}),
        ObjectKind::TcpRoute | ObjectKind::UdpRoute => port_route(rng),
        ObjectKind::TrafficSplit => split(rng),
        ObjectKind::TrafficTarget => target(rng),
    };
    let metadata = &mut object["metadata"];
    metadata["name"] = name.clone().into();
    if kind.registration().namespaced {
        metadata["namespace"] = namespace.clone().into();
    }
    if metadata["labels"].is_null() {
        metadata["labels"] =
            json!({"app": pick(rng, &["web", "kube-dns"]), "k8s-app": pick(rng, &["web", "kube-dns"])});
    }
    if matches!(kind, ObjectKind::Namespace | ObjectKind::Service) && metadata["annotations"].is_null() {
        metadata["annotations"] = annotations(rng);
    }
    // What no schema keeps away.
    let is_free = matches!(kind, ObjectKind::HttpRouteGroup | ObjectKind::TrafficSplit | ObjectKind::TrafficTarget);
    if is_free && rng.random_range(0..12) == 0 {
        object["spec"] =
            pick(rng, &[json!("none"), json!([1]), json!({"matches": 7, "service": {}}), Value::Null]).clone();
    }
    (namespace, name, object)
}

fn annotations(rng: &mut StdRng) -> Value {
    let all = several(rng, 3, |rng| *pick(rng, &ANNOTATIONS));
    let named = |(key, value): (&str, &str)| (format!("maesh.containo.us/{key}"), value.into());
    Value::Object(all.into_iter().map(named).collect::<Map<_, _>>())
}

fn service(rng: &mut StdRng) -> Value {
    let mut ports = Vec::new();
    for (number, protocol) in [(53, "UDP"), (53, "TCP"), (80, "TCP"), (443, "TCP"), (8080, "TCP"), (9000, "SCTP")] {
        if rng.random_range(0..3) == 0 {
            let mut port = json!({"name": format!("{}{number}", protocol.to_lowercase()), "port": number, "protocol": protocol,
                "targetPort": pick(rng, &[json!("http"), json!(8080), json!(number)])});
            if rng.random_bool(0.3) {
                port["appProtocol"] = (*pick(rng, &["https", "redis", "kubernetes.io/h2c"])).into();
            }
            ports.push(port);
        }
    }
    let mut spec = json!({"ports": ports, "publishNotReadyAddresses": rng.random_bool(0.2),
        "selector": {"app": pick(rng, &["web", "kube-dns", "none"])}});
    match rng.random_range(0..6) {
        0 => spec["clusterIP"] = "None".into(),
        1 => (spec["type"], spec["externalName"]) = ("ExternalName".into(), "example.com".into()),
        _ => {}
    }
    json!({"spec": spec})
}

/// Services of the mesh that are own addresses, and one that is none.
const OWN: [&str; 4] = ["maesh-own-0", "maesh-own-1", "maesh-shared", "web"];

/// An own address that says whose its ports are.
fn own_address(rng: &mut StdRng) -> Value {
    let entries = several(rng, 3, |rng| {
        let service = if rng.random_bool(0.2) {
            "/".to_owned()
        } else {
            format!("{}/{}", pick(rng, &["a", "b"]), pick(rng, &NAMES))
        };
        let port = *pick(rng, &[53, 80, 443, 8080]);
        let mut entry = json!({"service": service, "port": port, "udp": rng.random_bool(0.3), "listen": 33_000 + rng.random_range(0..4)});
        if rng.random_bool(0.3) {
            entry["leaving"] = 1.into();
        }
        entry
    });
    json!({"metadata": {"labels": {"maesh.containo.us/own-address": "true"},
        "annotations": {"maesh.containo.us/own-ports": Value::from(entries).to_string()}},
        "spec": {"ports": [{"name": "a", "port": 1}]}})
}

fn slice(rng: &mut StdRng, of_mesh: bool) -> Value {
    let endpoints = several(rng, 3, |rng| {
        let conditions = json!({"ready": rng.random_bool(0.7), "serving": rng.random_bool(0.8), "terminating": rng.random_bool(0.2)});
        let mut endpoint = json!({"addresses": [address(rng)], "conditions": conditions});
        if rng.random_bool(0.3) {
            endpoint["nodeName"] = (*pick(rng, &["n1", "n2"])).into();
            endpoint["hints"] = json!({"forZones": [{"name": "z1"}]});
        }
        endpoint
    });
    let (service, ports) = match of_mesh {
        true => (
            *pick(rng, &OWN),
            json!([{"name": "a", "port": 33_000}, {"name": "b", "port": 33_001}, {"name": "c", "port": 80}]),
        ),
        false => (
            *pick(rng, &NAMES),
            json!([{"name": "tcp80", "port": 8080}, {"name": "udp53", "port": 53, "protocol": "UDP"}, {"name": "tcp443", "port": 443}]),
        ),
    };
    let mut object = json!({"addressType": "IPv4", "endpoints": endpoints, "ports": ports,
        "metadata": {"labels": {"kubernetes.io/service-name": service}}});
    if rng.random_range(0..8) == 0 {
        object["metadata"]["labels"] = json!({"app": "web"});
    }
    object
}

fn address(rng: &mut StdRng) -> String {
    format!("10.244.1.{}", rng.random_range(1..6))
}

fn pod(rng: &mut StdRng) -> Value {
    let ready = if rng.random_bool(0.7) { "True" } else { "False" };
    let mut spec = json!({"serviceAccountName": pick(rng, &ACCOUNTS), "containers": [{"name": "c", "image": "i",
        "ports": [{"name": "http", "containerPort": 80}]}]});
    if rng.random_bool(0.6) {
        spec["nodeName"] = (*pick(rng, &["n1", "n2"])).into();
    }
    if rng.random_range(0..6) == 0 {
        spec["hostNetwork"] = true.into();
        spec["containers"][0]["ports"] = json!([]);
    }
    let ip = address(rng);
    json!({"spec": spec, "status": {"phase": pick(rng, &["Pending", "Running", "Running", "Succeeded"]), "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": ready}]}})
}

fn node(rng: &mut StdRng) -> Value {
    let range = *pick(rng, &["10.244.1.0/24", "10.244.2.0/24"]);
    json!({"metadata": {"labels": {"topology.kubernetes.io/zone": pick(rng, &["z1", "z2"])}},
        "spec": {"podCIDR": range, "podCIDRs": [range]},
        "status": {"addresses": [{"type": "InternalIP", "address": address(rng)}]}})
}

/// With an authority, without one, or with something else in its place.
fn config_map(rng: &mut StdRng) -> Value {
    static AUTHORITY: LazyLock<String> = LazyLock::new(|| {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").pem()
    });
    match rng.random_range(0..3) {
        0 => json!({"data": {"other": "x"}}),
        1 => json!({"data": {"ca.crt": "none"}}),
        _ => json!({"data": {"ca.crt": AUTHORITY.as_str()}}),
    }
}

fn one_match(rng: &mut StdRng) -> Value {
    let all = [
        json!({"name": "any"}),
        json!({"name": "api", "pathRegex": "/api", "methods": ["GET"]}),
        json!({"name": "web", "pathRegex": "/web", "headers": {"x-a": "^1$"}}),
        json!({"name": "bad", "pathRegex": "("}),
        json!({"name": "odd", "pathRegexp": "/api"}),
    ];
    pick(rng, &all).clone()
}

fn port_route(rng: &mut StdRng) -> Value {
    json!({"spec": {"matches": {"ports": several(rng, 2, |rng| *pick(rng, &[53, 80, 8080, 443]))}}})
}

fn split(rng: &mut StdRng) -> Value {
    let backends = several(rng, 3, |rng| json!({"service": pick(rng, &NAMES), "weight": rng.random_range(-1..4)}));
    let mut spec = json!({"service": pick(rng, &NAMES), "backends": backends});
    if rng.random_bool(0.4) {
        spec["matches"] = json!([{"kind": "HTTPRouteGroup", "name": pick(rng, &NAMES)}]);
    }
    json!({"spec": spec})
}

fn target(rng: &mut StdRng) -> Value {
    let rules = several(rng, 3, |rng| {
        let kind = *pick(rng, &["HTTPRouteGroup", "HTTPRouteGroup", "TCPRoute", "UDPRoute", "GRPCRoute"]);
        let mut rule = json!({"kind": kind, "name": pick(rng, &NAMES)});
        if kind == "HTTPRouteGroup" && rng.random_bool(0.3) {
            rule["matches"] = json!([pick(rng, &["any", "api", "bad", "typo"])]);
        }
        rule
    });
    let sources = several(
        rng,
        3,
        |rng| json!({"kind": "ServiceAccount", "name": pick(rng, &ACCOUNTS), "namespace": pick(rng, &["a", "b", "A B"])}),
    );
    json!({"spec": {"destination": {"kind": "ServiceAccount", "name": pick(rng, &ACCOUNTS)}, "rules": rules, "sources": sources}})
}
