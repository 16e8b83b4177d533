//! Whatever happens, in whatever order: what was said piece by piece is what is said at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
    time::Duration,
};

use maesh_config::{Key, model::ListenerId};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    diagnostic::{Diagnostic, ObjectRef, Reason},
    kinds::{Object, ObjectId},
    own_address,
};

/// Everything that was said so far.
#[derive(Debug, Default, PartialEq)]
struct Said {
    resources: BTreeMap<Key, Resource>,
    table: BTreeMap<ServiceName, TableEntry>,
    diagnostics: BTreeSet<Diagnostic>,
    wants: own_address::AddressRequests,
}

impl Said {
    fn add(&mut self, output: Output) {
        for key in output.change.removed {
            assert!(self.resources.remove(&key).is_some(), "{key:?} was removed and not there");
        }
        for resource in output.change.upserts {
            let key = resource.key();
            let old = self.resources.insert(key.clone(), resource);
            assert_ne!(old.as_ref(), self.resources.get(&key), "{key:?} was said again and is the same");
        }
        if let Some(wants) = output.wants {
            self.wants = wants;
        }
        for service in output.removed {
            self.table.remove(&service);
        }
        self.table.extend(output.services.into_iter().map(|entry| (entry.service.clone(), entry)));
        for cleared in output.cleared {
            assert!(self.diagnostics.remove(&cleared), "{cleared} was cleared and not there");
        }
        for found in output.found {
            assert!(self.diagnostics.insert(found.clone()), "{found} was found and there already");
        }
    }
}

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    Apply(Value),
    Delete(ObjectKind, &'static str, &'static str),
    Reset(ObjectKind, Vec<Value>),
    Problems(Vec<&'static str>),
    Proxies(Vec<ConnectedProxy>),
    Settle,
    Later(u64),
    Compile,
}

const NAMESPACES: [&str; 3] = ["a", "b", "kube-system"];
const NAMES: [&str; 4] = ["web", "db", "kube-dns", "x"];

fn namespace() -> impl Strategy<Value = &'static str> + Clone {
    prop::sample::select(&NAMESPACES[..])
}

fn name() -> impl Strategy<Value = &'static str> + Clone {
    prop::sample::select(&NAMES[..])
}

fn metadata(annotated: bool) -> impl Strategy<Value = Value> {
    let annotation = prop::sample::select(
        &[
            ("traffic-type", "tcp"),
            ("traffic-type", "many"),
            ("80.traffic-type", "tcp"),
            ("address", "own"),
            ("addressing", "service"),
            ("addressing", "node"),
            ("bypass", "true"),
            ("shceme", "h2c"),
            ("scheme", "h2c"),
            ("scheme", "https"),
            ("tls-ca", "web"),
            ("80.tls-ca", "x"),
            ("routes", "Host(`a.example`) => web\nPath(`/`) => web"),
            ("routes", "Host(`a.example`) || Host(`b.example`) => x\nHostSNI(`a.example`) => web"),
            ("80.routes", "Path(`/` => web"),
            ("endpoints-for", "a"),
            ("endpoints-for", "b"),
        ][..],
    );
    let annotations = prop::collection::vec(annotation, 0..if annotated { 3 } else { 1 });
    let label = prop::sample::select(&["", "web", "kube-dns"][..]);
    let created = prop::sample::select(&["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"][..]);
    (namespace(), name(), annotations, label, created).prop_map(|(namespace, name, annotations, label, created)| {
        let annotations =
            annotations.into_iter().map(|(key, value)| (format!("maesh.containo.us/{key}"), value.into()));
        let annotations: serde_json::Map<String, Value> = annotations.collect();
        let created = if created.is_empty() { Value::Null } else { created.into() };
        json!({
            "namespace": namespace, "name": name, "annotations": annotations, "creationTimestamp": created,
            "labels": {"app": label, "k8s-app": label, "kubernetes.io/service-name": label},
            "ownerReferences": [{"kind": "ReplicaSet"}],
        })
    })
}

fn service() -> impl Strategy<Value = Value> {
    let port = (prop::sample::select(&[53, 80, 443, 8080, 8443, 0][..]), prop::bool::ANY, 0..3usize);
    let port = port.prop_map(|(number, udp, app)| {
        let protocol = if udp { "UDP" } else { "TCP" };
        json!({"name": format!("p{number}"), "port": number, "protocol": protocol,
               "appProtocol": ([Value::Null, "https".into(), "redis".into()][app]), "targetPort": "http"})
    });
    let spec = (prop::collection::vec(port, 0..4), 0..3usize, prop::bool::ANY, 0..3usize);
    (metadata(true), spec).prop_map(|(metadata, (ports, ip, publish, selector))| {
        json!({"kind": "Service", "metadata": metadata, "spec": {
            "ports": ports, "clusterIP": ([Value::Null, "None".into(), "10.0.0.1".into()][ip]),
            "publishNotReadyAddresses": publish, "selector": {"app": (["web", "kube-dns", "none"][selector])},
        }})
    })
}

/// An own address: a Service of the mesh's that says whose its ports are.
fn own_address() -> impl Strategy<Value = Value> {
    let entry = (namespace(), name(), prop::sample::select(&[53, 80, 443, 8080][..]), prop::bool::ANY, 0..4u16, 0..3u8);
    let entry = entry.prop_map(|(namespace, name, port, udp, listen, leaving)| {
        let leaving = if leaving == 0 { json!(1) } else { Value::Null };
        json!({"service": format!("{namespace}/{name}"), "port": port, "udp": udp, "listen": 33_000 + listen, "leaving": leaving})
    });
    let shared = (prop::sample::select(&[80, 443, 8080][..]), 0..3u8).prop_map(|(port, leaving)| {
        let leaving = if leaving == 0 { json!(1) } else { Value::Null };
        json!({"service": "/", "port": port, "udp": false, "listen": port, "leaving": leaving})
    });
    let entries = prop_oneof![3 => entry.boxed(), 1 => shared.boxed()];
    (0..3u8, prop::collection::vec(entries, 0..4), prop::bool::ANY).prop_map(|(number, entries, addressed)| {
        let address =
            if addressed { json!([format!("10.96.0.{number}"), format!("fd00::{number}")]) } else { Value::Null };
        json!({"kind": "Service", "metadata": {"namespace": "maesh", "name": own_name(number),
            "labels": {"maesh.containo.us/own-address": "true"},
            "annotations": {"maesh.containo.us/own-ports": Value::from(entries).to_string()}},
            "spec": {"clusterIPs": address, "ports": [{"port": 1}]}})
    })
}

fn own_name(number: u8) -> String {
    if number == 2 { "maesh-shared".into() } else { format!("maesh-own-{number}") }
}

/// A slice of an own address.
fn own_slice() -> impl Strategy<Value = Value> {
    let port = prop::sample::select(&[33_000, 33_001, 33_002, 33_003, 80, 443, 8080][..]);
    let port = (port, prop::bool::ANY)
        .prop_map(|(port, udp)| json!({"port": port, "protocol": if udp { "UDP" } else { "TCP" }}));
    let endpoint = (prop::sample::select(&["10.1.0.1", "fd00:1::1"][..]), prop::bool::ANY)
        .prop_map(|(address, ready)| json!({"addresses": [address], "conditions": {"ready": ready}}));
    let lists = (prop::collection::vec(endpoint, 0..3), prop::collection::vec(port, 0..4));
    (0..3u8, name(), lists).prop_map(|(number, name, (endpoints, ports))| {
        json!({"kind": "EndpointSlice", "metadata": {"namespace": "maesh", "name": name,
            "labels": {"kubernetes.io/service-name": own_name(number)}},
            "endpoints": endpoints, "ports": ports})
    })
}

fn address() -> impl Strategy<Value = String> {
    (1..5u8).prop_map(|last| if last == 4 { "127.0.0.4".to_owned() } else { format!("10.9.0.{last}") })
}

fn slice() -> impl Strategy<Value = Value> {
    let endpoint = (address(), prop::bool::ANY, prop::bool::ANY).prop_map(|(address, ready, terminating)| {
        json!({"addresses": [address], "conditions": {"ready": ready, "terminating": terminating}})
    });
    let ports = json!([{"name": "p80", "port": 8080}, {"name": "p53", "port": 53, "protocol": "UDP"}]);
    (metadata(false), prop::collection::vec(endpoint, 0..3)).prop_map(move |(metadata, endpoints)| {
        json!({"kind": "EndpointSlice", "metadata": metadata, "endpoints": endpoints, "ports": ports})
    })
}

/// A ServiceAccount. The first one is that of pods that name none.
fn account() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&["default", "ann"][..])
}

fn pod() -> impl Strategy<Value = Value> {
    let phase = prop::sample::select(&["Running", "Succeeded"][..]);
    let account = prop::option::of(account());
    (metadata(false), address(), phase, prop::bool::ANY, prop::bool::ANY, account).prop_map(
        |(metadata, ip, phase, host_network, ready, account)| {
            let ready = if ready { "True" } else { "False" };
            json!({"kind": "Pod", "metadata": metadata,
                "spec": {"hostNetwork": host_network, "serviceAccountName": account,
                    "containers": [{"ports": [{"name": "http", "containerPort": 80}]}]},
                "status": {"podIP": ip, "phase": phase, "conditions": [{"type": "Ready", "status": ready}]}})
        },
    )
}

/// A pod of the mesh's own.
fn mesh_pod() -> impl Strategy<Value = Value> {
    pod().prop_map(|mut pod| {
        pod["metadata"]["namespace"] = "maesh".into();
        pod
    })
}

fn node() -> impl Strategy<Value = Value> {
    (metadata(false), address()).prop_map(|(metadata, ip)| {
        json!({"kind": "Node", "metadata": metadata, "spec": {"podCIDR": "10.1.0.0/24"},
            "status": {"addresses": [{"type": "InternalIP", "address": ip}]}})
    })
}

fn config_map() -> impl Strategy<Value = Value> {
    static AUTHORITY: LazyLock<String> = LazyLock::new(|| {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    });
    let ca = prop::sample::select(&[None, Some(false), Some(true)][..]);
    (metadata(false), ca).prop_map(|(metadata, ca)| {
        let ca = ca.map(|good| if good { AUTHORITY.as_str() } else { "none" });
        json!({"kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": ca}})
    })
}

fn route_group() -> impl Strategy<Value = Value> {
    let one = prop::sample::select(
        &[r#"{"name": "any"}"#, r#"{"pathRegex": "/api", "methods": ["GET"]}"#, r#"{"pathRegex": "("}"#][..],
    );
    let one = one.prop_map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
    (metadata(false), prop::collection::vec(one, 0..3)).prop_map(
        |(metadata, matches)| json!({"kind": "HTTPRouteGroup", "metadata": metadata, "spec": {"matches": matches}}),
    )
}

fn split() -> impl Strategy<Value = Value> {
    let backend = (name(), 0..3u8).prop_map(|(name, weight)| json!({"service": name, "weight": weight}));
    let matches = prop::collection::vec(name().prop_map(|name| json!({"name": name})), 0..2);
    let parts = (name(), prop::collection::vec(backend, 0..3), matches);
    (metadata(false), parts).prop_map(|(metadata, (service, backends, matches))| {
        json!({"kind": "TrafficSplit", "metadata": metadata,
            "spec": {"service": service, "backends": backends, "matches": matches}})
    })
}

/// A TrafficTarget. In some versions one without rules admits everything, and one names a port.
fn target() -> impl Strategy<Value = Value> {
    let rule = (prop::sample::select(&["HTTPRouteGroup", "TCPRoute", "UDPRoute"][..]), name(), prop::bool::ANY);
    let rule = rule.prop_map(|(kind, name, named)| {
        let mut rule = json!({"kind": kind, "name": name});
        if named {
            rule["matches"] = json!(["any"]);
        }
        rule
    });
    let source = (account(), namespace())
        .prop_map(|(name, namespace)| json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
    let version = prop::sample::select(&["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"][..]);
    let port = prop::option::of(prop::sample::select(&[80, 8080][..]));
    let parts = (prop::collection::vec(rule, 0..3), prop::collection::vec(source, 0..2));
    (metadata(false), account(), version, port, parts).prop_map(|(metadata, account, version, port, (rules, sources))| {
        let mut destination = json!({"kind": "ServiceAccount", "name": account});
        if let Some(port) = port {
            destination["port"] = port.into();
        }
        json!({"kind": "TrafficTarget", "apiVersion": format!("access.smi-spec.io/{version}"), "metadata": metadata, "spec": {
            "destination": destination, "rules": rules, "sources": sources}})
    })
}

fn port_route() -> impl Strategy<Value = Value> {
    let ports = prop::collection::vec(prop::sample::select(&[53, 80, 8080][..]), 0..2);
    (metadata(false), prop::bool::ANY, ports).prop_map(|(metadata, udp, ports)| {
        let kind = if udp { "UDPRoute" } else { "TCPRoute" };
        let spec = if ports.is_empty() { json!({}) } else { json!({"matches": {"ports": ports}}) };
        json!({"kind": kind, "metadata": metadata, "spec": spec})
    })
}

fn object() -> impl Strategy<Value = Value> {
    let namespace = metadata(true).prop_map(|mut metadata| {
        metadata["name"] = metadata["namespace"].clone();
        json!({"kind": "Namespace", "metadata": metadata})
    });
    prop_oneof![
        4 => service(), 3 => slice(), 3 => pod(), 1 => mesh_pod(), 1 => node(), 1 => namespace, 2 => own_address(), 1 => own_slice(),
        2 => config_map(), 1 => route_group(), 2 => split(), 2 => target(), 1 => port_route()
    ]
}

fn proxies() -> impl Strategy<Value = Vec<ConnectedProxy>> {
    let listener = prop::sample::select(&["shared/80/tcp", "shared/8080/tcp", "shared/8443/tcp", "all"][..]);
    let address = prop::sample::select(&["127.77.0.1", "10.9.0.1"][..]);
    let proxy = (name(), prop::bool::ANY, prop::collection::vec(listener, 0..4), address);
    let proxy = proxy.prop_map(|(id, ready, listening, address)| ConnectedProxy {
        id: id.into(),
        node: Some("n".into()),
        addresses: vec![address.parse().unwrap()],
        ready,
        // What "all" means is filled in when the step is taken.
        listening: listening.into_iter().map(|id| ListenerId(id.into())).collect(),
        failed: Arc::new([(ListenerId("shared/443/tcp".into()), "in use".into())].into()),
    });
    prop::collection::vec(proxy, 0..3)
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop::sample::select(&ObjectKind::ALL[..]);
    let resets = (kind.clone(), prop::collection::vec(object(), 0..6));
    prop_oneof![
        20 => object().prop_map(Step::Apply),
        6 => (kind, namespace(), name()).prop_map(|(kind, namespace, name)| {
            let name = if kind == ObjectKind::Namespace { namespace } else { name };
            Step::Delete(kind, if kind.namespaced() { namespace } else { "" }, name)
        }),
        2 => resets.prop_map(|(kind, objects)| Step::Reset(kind, objects)),
        3 => proxies().prop_map(Step::Proxies),
        3 => prop::collection::vec(name(), 0..3).prop_map(Step::Problems),
        1 => Just(Step::Settle),
        3 => (0..30u64).prop_map(Step::Later),
        6 => Just(Step::Compile),
    ]
}

fn read(value: &Value, door: &ReadContext) -> Object {
    let kind = ObjectKind::ALL.into_iter().find(|kind| kind.as_str() == value["kind"]).unwrap();
    Object::read(kind, value, door).unwrap()
}

fn problems_of(names: &[&str]) -> Vec<Diagnostic> {
    let problem = |name: &&str| Diagnostic::error(Reason::UnparsableFile, ObjectRef::file(name), "is bad");
    names.iter().map(problem).collect()
}

/// Goes through a history, and then says at once what it came to.
fn check(config: &Config, steps: Vec<Step>) {
    let mut compiler = Compiler::new(config.clone());
    let door = compiler.door();
    let mut said = Said::default();
    let mut now = Instant::now();
    let mut objects: BTreeMap<ObjectId, Object> = BTreeMap::new();
    let (mut problems, mut proxies) = (Vec::new(), Vec::new());
    for step in steps {
        match step {
            Step::Apply(value) => {
                let object = read(&value, &door);
                objects.insert(object.id(), object.clone());
                compiler.take(Event::Apply(object));
            }
            Step::Delete(kind, namespace, name) => {
                let id = ObjectId::new(kind, namespace, name);
                objects.remove(&id);
                compiler.take(Event::Delete(id));
            }
            Step::Reset(kind, values) => {
                let new: BTreeMap<_, _> = values
                    .iter()
                    .map(|value| read(value, &door))
                    .filter(|object| object.kind() == kind)
                    .map(|object| (object.id(), object))
                    .collect();
                objects.retain(|id, _| id.kind != kind);
                objects.extend(new.clone());
                compiler.take(Event::Reset(kind, new.into_values().collect()));
            }
            Step::Proxies(mut new) => {
                let listeners = said.resources.keys().filter(|key| key.kind == Kind::Listener);
                let listeners: Vec<_> = listeners.map(|key| ListenerId(key.name.clone())).collect();
                for proxy in &mut new {
                    if proxy.listening.iter().any(|id| &*id.0 == "all") {
                        proxy.listening.extend(listeners.clone());
                    } else {
                        Arc::make_mut(&mut proxy.failed)
                            .extend(listeners.iter().map(|id| (id.clone(), "in use".into())));
                    }
                }
                proxies.clone_from(&new);
                compiler.proxies(new);
            }
            Step::Problems(names) => {
                problems = problems_of(&names);
                compiler.take(Event::Problems(problems.clone()));
            }
            Step::Settle => compiler.complete_proxies(),
            Step::Later(seconds) => now += Duration::from_secs(seconds),
            Step::Compile => said.add(compiler.compile(now)),
        }
    }
    said.add(compiler.compile(now));
    // Before, what is told of proxies and own addresses depends on what was.
    compiler.complete_proxies();
    said.add(compiler.compile(now));
    let horizon = run_out(&mut compiler, &mut said, now);
    assert!(horizon <= now + config.horizon, "nothing outlives the horizon");

    let mut fresh = Compiler::new(config.clone());
    objects.into_values().rev().for_each(|object| fresh.take(Event::Apply(object)));
    fresh.take(Event::Problems(problems));
    fresh.proxies(proxies);
    fresh.complete_proxies();
    let mut at_once = Said::default();
    at_once.add(fresh.compile(now));
    let later = run_out(&mut fresh, &mut at_once, now);
    assert_eq!(said, at_once);
    assert!(fresh.compile(later).is_empty(), "nothing happened, and something was said");

    // Once all objects are gone, only what is there without any is read.
    for kind in ObjectKind::ALL {
        compiler.take(Event::Reset(kind, Vec::new()));
    }
    compiler.compile(later);
    run_out(&mut compiler, &mut Said::default(), later);
    let mut empty = Compiler::new(config.clone());
    empty.proxies(compiler.publication.proxies().to_vec());
    empty.complete_proxies();
    empty.compile(later);
    assert_eq!(compiler.graph.size(), empty.graph.size(), "what is gone leaves no edges");
}

/// Lets time pass until nothing changes by time alone any more; returns when that was.
fn run_out(compiler: &mut Compiler, said: &mut Said, mut now: Instant) -> Instant {
    while let Some(due) = compiler.due() {
        assert!(due > now, "what is due was not done");
        now = due;
        said.add(compiler.compile(now));
    }
    now
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn piece_by_piece_is_at_once(
        steps in prop::collection::vec(step(), 1..60),
        dev in prop::bool::ANY,
        access_control in prop::bool::ANY,
    ) {
        let addressing = match dev {
            // The smallest range, so that addresses collide.
            true => Addressing::Range(Range::new("127.77.0.0/24".parse().unwrap()).unwrap()),
            false => Addressing::Cluster,
        };
        let config = Config {
            addressing,
            first_bindable_port: if dev { 1024 } else { 0 },
            selects_pods: dev,
            horizon: Duration::from_secs(if dev { 0 } else { 45 }),
            own_settle: Duration::from_secs(2),
            // So few that some Services have no room.
            ports_per_namespace: 4,
            access_control: if access_control { maesh_config::model::AccessControl::On } else { maesh_config::model::AccessControl::Off },
            ..Config::default()
        };
        check(&config, steps);
    }
}
