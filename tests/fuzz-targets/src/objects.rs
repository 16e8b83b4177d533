//! A small cluster, as Kubernetes describes it, and what the compiler makes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
    time::Instant,
};

use maesh_compiler::{
    compile::{Compiler, Config, ConnectedProxy, Output},
    diagnostic::Diagnostic,
    event::Event,
    kinds::{Object, ObjectKind, ReadContext},
};
use maesh_config::{Key, Kind, Resource, model::ListenerId};
use serde_json::{Value, json};

/// Everything that the compiler said, and did not take back.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Said {
    pub(crate) resources: BTreeMap<Key, Resource>,
    pub(crate) diagnostics: BTreeSet<Diagnostic>,
}

impl Said {
    /// Adds what is new.
    pub(crate) fn add(&mut self, output: Output) {
        for key in output.change.removed {
            assert!(self.resources.remove(&key).is_some(), "{key:?} was removed and not there");
        }
        self.resources.extend(output.change.upserts.into_iter().map(|resource| (resource.key(), resource)));
        for cleared in output.cleared {
            assert!(self.diagnostics.remove(&cleared), "{cleared} was cleared and not there");
        }
        self.diagnostics.extend(output.found);
    }
}

/// A compiler that knows of no proxy but that there are no others.
pub(crate) fn compiler() -> Compiler {
    let mut compiler = Compiler::new(Config::default());
    compiler.complete_proxies();
    compiler
}

/// Hands `objects` over and adds what comes of them to `said`.
pub(crate) fn apply(compiler: &mut Compiler, objects: impl IntoIterator<Item = Object>, said: &mut Said) {
    objects.into_iter().for_each(|object| compiler.take(Event::Apply(object)));
    said.add(compiler.compile(Instant::now()));
}

/// Reads an object.
pub(crate) fn read(value: &Value) -> Object {
    let kind = ObjectKind::ALL.into_iter().find(|kind| kind.as_str() == value["kind"]).expect("a kind");
    Object::read(kind, value, &ReadContext::default()).unwrap_or_else(|bad| panic!("{bad:?}: {value}"))
}

/// A Service with these annotations; the others were created before one whose name is `fuzzed`.
pub(crate) fn service(namespace: &str, name: &str, annotations: Value) -> Value {
    let created = if name == "fuzzed" { "2026-02-01T00:00:00Z" } else { "2026-01-01T00:00:00Z" };
    json!({
        "kind": "Service",
        "metadata": {
            "namespace": namespace, "name": name, "annotations": annotations, "creationTimestamp": created,
        },
        "spec": {"clusterIP": "10.96.1.1", "ports": [
            {"name": "web", "port": 80, "targetPort": 8080},
            {"name": "tls", "port": 443, "appProtocol": "https"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ]},
    })
}

/// The endpoints of such a Service.
pub(crate) fn slice(namespace: &str, name: &str, address: &str) -> Value {
    json!({
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace, "name": format!("{name}-1"), "labels": {"kubernetes.io/service-name": name},
        },
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}, "nodeName": "n1", "zone": "z1"}],
        "ports": [
            {"name": "web", "port": 8080}, {"name": "tls", "port": 8443}, {"name": "dns", "port": 53, "protocol": "UDP"},
        ],
    })
}

/// What such a cluster has besides: two Services that nobody means ill, a pod and a node.
pub(crate) fn others() -> Vec<Object> {
    static OTHERS: LazyLock<Vec<Object>> = LazyLock::new(|| {
        let policies = json!({
            "maesh.containo.us/retry-attempts": "3",
            "maesh.containo.us/circuit-breaker-expression": "NetworkErrorRatio() > 0.3",
            "maesh.containo.us/ratelimit-average": "100",
            "maesh.containo.us/mirror": "beside.test 10%",
            "maesh.containo.us/fallback": "beside.test",
            "maesh.containo.us/hedge-after": "p95",
            "maesh.containo.us/fault-delay": "200ms 5%",
            "maesh.containo.us/fault-until": "2030-01-31T12:00:00Z",
            "maesh.containo.us/443.scheme": "https",
            "maesh.containo.us/443.tls-server-name": "web.example.com",
            "maesh.containo.us/balance": "hash:header:x-user",
            "maesh.containo.us/concurrency": "100,50",
        });
        let pod = json!({
            "kind": "Pod", "metadata": {"namespace": "shop", "name": "web-1"},
            "spec": {"nodeName": "n1", "serviceAccountName": "web"},
            "status": {"podIP": "10.9.0.1", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        let node = json!({
            "kind": "Node",
            "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z1"}},
            "spec": {"podCIDR": "10.9.0.0/24"},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}]},
        });
        let values = [
            service("shop", "web", policies),
            slice("shop", "web", "10.9.0.1"),
            service("test", "beside", json!({})),
            slice("test", "beside", "10.9.0.2"),
            pod,
            node,
        ];
        values.iter().map(read).collect()
    });
    OTHERS.clone()
}

/// Resources of every kind.
pub(crate) fn resources() -> &'static [Resource] {
    static RESOURCES: LazyLock<Vec<Resource>> = LazyLock::new(|| {
        let (mut compiler, mut said) = (compiler(), Said::default());
        apply(&mut compiler, others(), &mut said);
        let listening = said.resources.keys().filter(|key| key.kind == Kind::Listener);
        compiler.proxies(vec![ConnectedProxy {
            id: "p1".into(),
            node: Some("n1".into()),
            addresses: vec![[10, 9, 0, 9].into()],
            ready: true,
            listening: listening.map(|key| ListenerId(key.name.clone())).collect(),
            failed: Arc::new(BTreeMap::from([(ListenerId("shared/81/tcp".into()), "in use".into())])),
        }]);
        apply(&mut compiler, [], &mut said);
        said.resources.into_values().collect()
    });
    &RESOURCES
}
