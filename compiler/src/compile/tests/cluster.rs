//! Own addresses in a cluster: nobody is sent to one that does not serve yet, and what is left serves on.

use std::{collections::BTreeMap, time::Duration};

use super::*;

const HORIZON: Duration = Duration::from_secs(45);
const SETTLE: Duration = Duration::from_secs(2);
const TCP: &str = "annotations: {maesh.containo.us/traffic-type: tcp}";

/// A cluster as the compiler sees it, and what it said so far.
struct Cluster {
    compiler: Compiler,
    now: Instant,
    resources: BTreeMap<maesh_config::Key, Resource>,
    wants: own_address::AddressRequests,
}

impl Cluster {
    fn new() -> Self {
        let config = Config { horizon: HORIZON, own_settle: SETTLE, ..Config::default() };
        let mut compiler = Compiler::new(config);
        compiler.complete_proxies();
        Self {
            compiler,
            now: Instant::now(),
            resources: BTreeMap::new(),
            wants: own_address::AddressRequests::default(),
        }
    }

    fn apply(&mut self, yaml: &str) {
        objects(yaml).into_iter().for_each(|object| self.compiler.take(Event::Apply(object)));
        self.compile();
    }

    fn compile(&mut self) {
        let output = self.compiler.compile(self.now);
        for key in output.change.removed {
            self.resources.remove(&key);
        }
        self.resources.extend(output.change.upserts.into_iter().map(|resource| (resource.key(), resource)));
        self.wants = output.wants.unwrap_or_else(|| std::mem::take(&mut self.wants));
    }

    fn later(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.compiler.due().filter(|due| *due <= until) {
            self.now = due;
            self.compile();
        }
        self.now = until;
    }

    /// All proxies listen on all there is.
    fn acknowledge(&mut self) {
        let listeners = self.resources.keys().filter(|key| key.kind == Kind::Listener);
        let listeners: Vec<_> = listeners.map(|key| key.name.to_string()).collect();
        self.compiler.proxies(vec![proxy(&listeners.iter().map(String::as_str).collect::<Vec<_>>())]);
        self.compile();
    }

    /// How the names are answered that anybody hears of.
    fn heard_of(&self) -> Vec<String> {
        let name = |resource: &Resource| match resource {
            Resource::Name(name) => Some(format!("{}: {:?}", name.service.name, name.answer)),
            _ => None,
        };
        self.resources.values().filter_map(name).collect()
    }

    /// How the name of `shop/db` is answered, the ports under which it is known, and who listens.
    fn said(&self) -> (String, String, String) {
        let name = self.resources.values().find_map(|resource| match resource {
            Resource::Name(name) => Some(name),
            _ => None,
        });
        let name = name.unwrap();
        let answer = match &name.answer {
            Answer::Fixed(addresses) => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            other => format!("{other:?}").to_lowercase(),
        };
        let ports = name.ports.iter().map(|port| format!("{}/{}", port.number, port.protocol));
        let service = self.resources.values().find_map(|resource| match resource {
            Resource::Service(service) => Some(service),
            _ => None,
        });
        let of_service: Vec<_> =
            service.unwrap().ports.iter().map(|port| format!("{}/{}", port.number, port.protocol)).collect();
        assert_eq!(ports.clone().collect::<Vec<_>>(), of_service, "both know the same ports");
        let listeners = self.resources.values().filter_map(|resource| match resource {
            Resource::Listener(listener) => Some((listener, if listener.http { " http" } else { "" })),
            _ => None,
        });
        let listeners = listeners.map(|(listener, http)| format!("{}{http}", listener.id));
        (answer, ports.collect::<Vec<_>>().join(" "), listeners.collect::<Vec<_>>().join(", "))
    }
}

/// An own address that has port 5432 of `shop/db`.
fn own_address(number: u32, leaving: bool) -> String {
    let leaving = if leaving { r#","leaving":1"# } else { "" };
    format!(
        "kind: Service\nmetadata:\n  namespace: maesh\n  name: maesh-own-{number}\n  labels: {{maesh.containo.us/own-address: 'true'}}\n  \
         annotations:\n    maesh.containo.us/own-ports: '[{{\"service\":\"shop/db\",\"port\":5432,\"udp\":false,\"listen\":33000{leaving}}}]'\n\
         spec: {{clusterIPs: [10.96.9.{number}, 'fd00::{number}'], ports: [{{port: 5432}}]}}\n---\n"
    )
}

/// A slice of an own address with proxies of one family.
fn own_slice(number: u32, name: &str, address: &str, ready: bool) -> String {
    format!(
        "kind: EndpointSlice\nmetadata: {{namespace: maesh, name: {name}, labels: {{kubernetes.io/service-name: maesh-own-{number}}}}}\n\
         endpoints: [{{addresses: ['{address}'], conditions: {{ready: {ready}}}}}]\nports: [{{port: 33000}}]\n---\n"
    )
}

#[test]
fn a_new_name_is_heard_of_once_something_serves_it() {
    let mut cluster = Cluster::new();
    // Without a proxy there is nothing to wait for.
    cluster.apply(&service("a", "", "ports: [{port: 80}]"));
    assert_eq!(cluster.heard_of(), ["a: Node"]);
    cluster.acknowledge();
    cluster.apply(&service("b", "", "ports: [{port: 80}]"));
    assert_eq!(cluster.heard_of(), ["a: Node", "b: Node"], "all listen on its port already");
    cluster.apply(&service("c", "", "ports: [{port: 81}]"));
    assert_eq!(cluster.heard_of(), ["a: Node", "b: Node"], "nobody listens yet");
    cluster.acknowledge();
    assert_eq!(cluster.heard_of(), ["a: Node", "b: Node", "c: Node"]);
    cluster.apply(&service("c", "", "ports: [{port: 82}]"));
    assert_eq!(cluster.heard_of().len(), 3, "what was heard of stays");
    cluster.apply(&service("d", TCP, "ports: [{port: 83}]"));
    cluster.later(SETTLE - Duration::from_millis(1));
    assert_eq!(cluster.heard_of().len(), 3);
    cluster.later(Duration::from_millis(1));
    assert_eq!(cluster.heard_of()[3], "d: Unserved", "by now kube-proxy serves its plain address");
}

#[test]
fn a_name_follows_its_listeners_there_and_back() {
    let ports = "ports: [{port: 5432}]";
    let mut cluster = Cluster::new();
    cluster.apply(&service("db", "", ports));
    cluster.acknowledge();
    let shared = "shared/5432/tcp http";
    let own = "own/33000/tcp/shop/db/5432";
    let both = format!("{own}, {shared}");
    let say = |answer: &str, ports: &str, listeners: &str| (answer.into(), ports.into(), listeners.into());
    assert_eq!(cluster.said(), say("node", "5432/http", shared));
    assert_eq!(cluster.wants, own_address::AddressRequests::default());

    cluster.apply(&service("db", TCP, ports));
    assert_eq!(
        cluster.said(),
        say("unserved", "5432/http 5432/tcp", shared),
        "who remembers the proxy still gets through"
    );
    assert_eq!(cluster.wants.own.len(), 1);
    cluster.apply(&own_address(0, false));
    assert_eq!(cluster.said(), say("unserved", "5432/http 5432/tcp", &both));
    cluster.apply(&own_slice(0, "a", "10.1.0.1", true));
    cluster.later(2 * SETTLE);
    assert_eq!(cluster.said().0, "unserved", "listed and settled, but nobody listens");
    cluster.acknowledge();
    assert_eq!(cluster.said(), say("10.96.9.0", "5432/http 5432/tcp", &both), "proxies have IPv4 only");
    cluster.apply(&own_slice(0, "b", "fd00:1::1", true));
    assert_eq!(cluster.said().0, "10.96.9.0");
    cluster.later(SETTLE);
    assert_eq!(cluster.said().0, "10.96.9.0 fd00::0".replace("fd00::0", "fd00::"));
    cluster.later(HORIZON);
    assert_eq!(cluster.said(), say("10.96.9.0 fd00::", "5432/tcp", own), "nobody remembers the proxy any more");

    cluster.apply(&own_slice(0, "b", "fd00:1::1", false));
    assert_eq!(cluster.said().0, "10.96.9.0", "no proxy is ready for IPv6");
    cluster.apply(&own_slice(0, "a", "10.1.0.1", false));
    assert_eq!(cluster.said().0, "unserved");
    cluster.apply(&own_slice(0, "a", "10.1.0.1", true));
    assert_eq!(cluster.said().0, "unserved", "kube-proxy may not know yet");
    cluster.later(SETTLE);
    assert_eq!(cluster.said().0, "10.96.9.0");

    cluster.apply(&service("db", "", ports));
    assert_eq!(cluster.wants, own_address::AddressRequests::default());
    assert_eq!(cluster.said(), say("node", "5432/http 5432/tcp", &both), "who remembers the own address gets through");
    cluster.apply(&own_address(0, true));
    assert_eq!(cluster.said(), say("node", "5432/http 5432/tcp", &both));
    cluster.later(HORIZON);
    cluster.compiler.take(Event::Delete(crate::kinds::ObjectId::new(ObjectKind::Service, "maesh", "maesh-own-0")));
    cluster.compile();
    assert_eq!(cluster.said(), say("node", "5432/http", shared));
}

#[test]
fn a_port_that_goes_to_another_service_is_another_listener() {
    let mut cluster = Cluster::new();
    cluster.apply(&(service("db", TCP, "ports: [{port: 5432}]") + &own_address(0, false)));
    cluster.acknowledge();
    let other = own_address(0, false).replace("shop/db", "shop/cache");
    cluster.apply(&(service("cache", TCP, "ports: [{port: 5432}]") + &other + &own_slice(0, "a", "10.1.0.1", true)));
    cluster.later(2 * SETTLE);
    let answer = |cluster: &Cluster, name: &str| {
        let key = maesh_config::Key::of_service(Kind::Name, &ServiceName::new("shop", name));
        match &cluster.resources[&key] {
            Resource::Name(name) => name.answer.clone(),
            _ => unreachable!("a name"),
        }
    };
    assert_eq!(answer(&cluster, "cache"), Answer::Unserved, "the proxies still give it to the other one");
    assert_eq!(answer(&cluster, "db"), Answer::Unserved, "it stands nowhere");
    cluster.acknowledge();
    assert_eq!(answer(&cluster, "cache"), Answer::Fixed(vec!["10.96.9.0".parse().unwrap()]));
}

#[test]
fn before_all_had_the_time_to_come_back_an_own_address_is_not_given_up() {
    let mut compiler = Compiler::new(Config { own_settle: SETTLE, ..Config::default() });
    let start = Instant::now();
    let yaml =
        service("db", TCP, "ports: [{port: 5432}]") + &own_address(0, false) + &own_slice(0, "a", "10.1.0.1", true);
    objects(&yaml).into_iter().for_each(|object| compiler.take(Event::Apply(object)));
    compiler.proxies(vec![proxy(&["own/33000/tcp/shop/db/5432"])]);
    let names =
        |output: &Output| output.change.upserts.iter().filter(|resource| matches!(resource, Resource::Name(_))).count();
    assert_eq!(names(&compiler.compile(start)), 0);
    let output = compiler.compile(start + SETTLE);
    assert_eq!(name(&output, "shop/db").answer, Answer::Fixed(vec!["10.96.9.0".parse().unwrap()]));
}

#[test]
fn one_address_for_everybody_by_mode_or_annotation() {
    let ports = "ports: [{port: 80}]";
    let shared = |ports: &str| {
        format!(
            "kind: Service\nmetadata:\n  namespace: maesh\n  name: maesh-shared\n  labels: {{maesh.containo.us/own-address: 'true'}}\n  \
             annotations: {{maesh.containo.us/own-ports: '[{ports}]'}}\nspec: {{clusterIPs: [10.96.9.9], ports: [{{port: 80}}]}}\n---\n\
             kind: EndpointSlice\nmetadata: {{namespace: maesh, name: s, labels: {{kubernetes.io/service-name: maesh-shared}}}}\n\
             endpoints: [{{addresses: [10.1.0.1]}}]\nports: [{{port: 80}}, {{port: 81}}]\n---\n"
        )
    };
    let port = |number: u16| format!(r#"{{"service":"/","port":{number},"udp":false,"listen":{number}}}"#);
    let annotated = |value: &str| format!("annotations: {{maesh.containo.us/addressing: {value}}}");
    for (case, mode, metadata, want, answer) in [
        ("mode node", false, String::new(), vec![], "node"),
        ("mode service", true, String::new(), vec![80], "10.96.9.9"),
        ("annotated service", false, annotated("service"), vec![80], "10.96.9.9"),
        ("annotated node", true, annotated("node"), vec![], "node"),
        ("annotated badly", true, annotated("some"), vec![80], "10.96.9.9"),
        ("bypassed", true, "annotations: {maesh.containo.us/bypass: 'true'}".into(), vec![80], "plain"),
    ] {
        let mut cluster = Cluster::new();
        cluster.compiler = Compiler::new(Config { one_address: mode, own_settle: SETTLE, ..Config::default() });
        cluster.compiler.complete_proxies();
        cluster.apply(&service("web", &metadata, ports));
        assert_eq!(cluster.wants.shared.iter().copied().collect::<Vec<_>>(), want, "{case}");
        cluster.apply(&shared(&port(80)));
        cluster.later(SETTLE);
        cluster.acknowledge();
        assert_eq!(cluster.said().0, answer, "{case}");
        if answer == "10.96.9.9" {
            cluster.apply(&service("web", &metadata, "ports: [{port: 80, name: a}, {port: 81, name: b}]"));
            assert_eq!(cluster.said().0, "unserved", "{case}: its new port is not there yet");
            cluster.apply(&shared(&format!("{},{}", port(80), port(81))));
            cluster.later(SETTLE);
            cluster.acknowledge();
            assert_eq!(cluster.said().0, answer, "{case}: with its new port");
        }
    }
}

#[test]
fn more_ports_than_the_pool_has_are_said() {
    let many = |name: &str| {
        let ports: Vec<_> = (1..=9_000).map(|port| format!("{{port: {port}, name: p{port}}}")).collect();
        service(name, TCP, &format!("ports: [{}]", ports.join(", ")))
    };
    let mut compiler = Compiler::new(Config { ports_per_namespace: usize::MAX, ..Config::default() });
    let said = |compiler: &mut Compiler| {
        let output = compiler.compile(Instant::now());
        (output.found.len(), output.cleared.len())
    };
    objects(&many("a")).into_iter().for_each(|object| compiler.take(Event::Apply(object)));
    assert_eq!(said(&mut compiler), (0, 0));
    objects(&many("b")).into_iter().for_each(|object| compiler.take(Event::Apply(object)));
    assert_eq!(said(&mut compiler), (2, 0), "none stands yet");
    compiler.take(Event::Delete(crate::kinds::ObjectId::new(ObjectKind::Service, "shop", "b")));
    assert_eq!(said(&mut compiler), (0, 2));
}

/// A pod of the proxies named `p`, as its kubelet reports it.
fn proxy_pod(ready: &str) -> String {
    let status = format!("{{podIP: 127.77.0.1, conditions: [{{type: Ready, status: '{ready}'}}]}}");
    format!("kind: Pod\nmetadata: {{namespace: maesh, name: p}}\nspec: {{nodeName: n1}}\nstatus: {status}\n")
}

#[test]
fn a_proxy_is_ready_when_its_stream_and_its_pod_say_so() {
    let mut cluster = Cluster::new();
    cluster.apply(&service("web", "", "ports: [{port: 80}]"));
    let ready = |cluster: &Cluster| {
        let proxy = |resource: &Resource| matches!(resource, Resource::Proxy(proxy) if proxy.ready);
        cluster.resources.values().any(proxy)
    };
    cluster.acknowledge();
    assert!(ready(&cluster), "nothing is known of its pod");
    for (status, want) in [("False", false), ("True", true), ("Unknown", false), ("True", true)] {
        cluster.apply(&proxy_pod(status));
        assert_eq!(ready(&cluster), want, "Ready is {status}");
        assert_eq!(cluster.compiler.count_proxies(), (1, usize::from(want)), "Ready is {status}");
    }
    cluster.compiler.proxies(vec![ConnectedProxy { ready: false, ..proxy(&[]) }]);
    cluster.compile();
    assert!(!ready(&cluster), "its stream says that it is leaving");
}

/// A proxy that hangs cannot take up listeners. It must not keep other proxies from serving new Services.
#[test]
fn a_proxy_whose_pod_is_not_ready_keeps_no_name_from_being_served() {
    let mut cluster = Cluster::new();
    cluster.apply(&(service("web", "", "ports: [{port: 80}]") + &proxy_pod("False")));
    let mut other = proxy(&["shared/80/tcp"]);
    other.id = "other".into();
    cluster.compiler.proxies(vec![proxy(&[]), other]);
    cluster.compile();
    let explained = cluster.compiler.explain(&explain::Question { name: "shop/web".into(), from: None });
    assert!(explained.meshed.is_some_and(|meshed| meshed.acknowledged));
}
