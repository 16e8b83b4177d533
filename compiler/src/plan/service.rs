//! What a Service means to the mesh, by itself and its Namespace alone.

use std::{net::IpAddr, sync::Arc};

use ahash::{AHashMap, AHashSet};
use jiff::Timestamp;
use maesh_config::{
    ServiceName,
    model::{self, BackendPolicy, CalledPolicy, Protocol, Scheme},
    rule::Matcher,
};

use super::{
    annotations::{
        self, InForce, WrittenAnnotation,
        address::{ADDRESS, ADDRESSING, BYPASS},
        protocol::{SCHEME, TRAFFIC_TYPE},
        routes::{ROUTES, RoutesReader},
        tls::{CA, SERVER_NAME},
    },
    policy::PolicyReader,
    routes, splits,
};
use crate::{
    compile::{Addressing, Config},
    diagnostic::{Diagnostic, Reason, did_you_mean, distance, shortened},
    kinds::{Annotations, Meta, Number, Service, ServicePort, Transport},
    step::Step,
};

/// Orders Services by age: the oldest first, ties by name; without a time of creation is oldest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Age {
    created: Option<Timestamp>,
    pub(crate) name: ServiceName,
}

/// A meshed Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) age: Age,
    /// Meshed ports, sorted by number, then protocol.
    pub(crate) ports: Vec<Port>,
    /// It needs an address of its own.
    pub(crate) own: bool,
    /// It shares an address, and its name answers one for everybody: addressing mode `service` of a cluster.
    pub(crate) one_address: bool,
    /// Its name answers the plain addresses on purpose.
    pub(crate) bypass: bool,
    pub(crate) cluster_ips: Vec<IpAddr>,
    /// It is headless on purpose, not just without an address yet.
    pub(crate) headless: bool,
    pub(crate) publish_not_ready: bool,
}

/// A meshed port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) number: u16,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) protocol: Protocol,
    /// TCP that is TLS and says its name by SNI.
    pub(crate) sni: bool,
    /// Number or name of the pods' port.
    pub(crate) target: Number,
    /// Where requests go, in order of precedence.
    pub(crate) routes: Vec<model::Route>,
    /// Where each of `routes` is written.
    pub(crate) origins: Vec<RouteOrigin>,
    /// Hosts, or server names of TLS, that its routes claim; sorted, once each.
    pub(crate) claims: Vec<Arc<str>>,
    /// Policies for every request to the port.
    pub(crate) called: Arc<CalledPolicy>,
    /// Policies that hold when it is chosen as a backend.
    pub(crate) policy: Arc<BackendPolicy>,
}

/// The object, or the part of the Service, that a route is written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RouteOrigin {
    /// The annotation of the Service that has this key.
    Annotation(Arc<str>),
    /// The TrafficSplit of this name, in the namespace of the Service.
    TrafficSplit(Arc<str>),
}

impl Port {
    /// Whether its routes ask for the server name that callers of TLS say.
    pub(crate) fn asks_server_names(&self) -> bool {
        let asks = |matcher: &Matcher| match matcher {
            Matcher::HostSni(name) => &**name != "*",
            Matcher::HostSniRegexp(_) => true,
            _ => false,
        };
        let mut rules = self.routes.iter().filter_map(|route| route.rule.as_ref());
        self.protocol == Protocol::Tcp && rules.any(|rule| rule.conditions().into_iter().any(asks))
    }
}

impl Plan {
    pub(crate) fn name(&self) -> &ServiceName {
        &self.age.name
    }

    /// The resource with routes and policies; `leaving` are ports that are reached in the old way for a while.
    pub(crate) fn resource<'a>(&'a self, leaving: impl Iterator<Item = &'a Port>) -> model::Service {
        let port = |port: &Port, leaving| model::ServicePort {
            number: port.number,
            name: port.name.clone(),
            protocol: port.protocol,
            leaving,
            routes: port.routes.clone(),
            called: port.called.clone(),
            backend: port.policy.clone(),
        };
        let now = self.ports.iter().map(|it| port(it, false));
        let mut ports: Vec<_> = now.chain(leaving.map(|it| port(it, true))).collect();
        ports.sort_unstable_by_key(|port| (port.number, port.protocol));
        model::Service { name: self.name().clone(), ports }
    }
}

/// What a Service came to.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    /// `None` if it is not of the mesh.
    pub(crate) plan: Option<Plan>,
    /// What is wrong with the Service.
    pub(crate) found: Vec<Diagnostic>,
    /// Something that it depends on has not been read yet. The plan of before holds meanwhile, if there is one.
    pub(crate) waits: bool,
}

impl Draft {
    fn not_meshed(found: Vec<Diagnostic>) -> Self {
        Self { found, ..Self::default() }
    }
}

/// Why the mesh leaves a Service out, whatever else it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeftOut {
    Ignored,
    ExternalName,
    NameServer,
    WithoutAnnotation,
}

impl LeftOut {
    /// In words that follow the Service's name.
    pub(crate) fn why(self) -> &'static str {
        match self {
            Self::Ignored => "its namespace is not meshed",
            Self::ExternalName => "it is of type ExternalName",
            Self::NameServer => "its mesh name is that of the mesh's own name server",
            Self::WithoutAnnotation => "it has no annotation of the mesh, and --require-annotation asks for one",
        }
    }
}

/// Why the mesh leaves a Service out; `None` if it does not.
pub(crate) fn left_out(service: &Service, config: &Config) -> Option<LeftOut> {
    let Meta { namespace, name, .. } = &service.meta;
    match () {
        () if config.ignores(namespace, name) => Some(LeftOut::Ignored),
        () if service.external_name => Some(LeftOut::ExternalName),
        () if is_name_server(namespace, name) => Some(LeftOut::NameServer),
        () if config.require_annotation && service.annotations.is_empty() => Some(LeftOut::WithoutAnnotation),
        () => None,
    }
}

/// Plans one Service.
pub(crate) fn plan(service: &Service, step: &Step<'_>) -> Draft {
    let config = step.config;
    if let Some(why) = left_out(service, config) {
        return Draft::not_meshed(match why {
            LeftOut::ExternalName => external_name(service),
            LeftOut::NameServer => vec![name_server(service)],
            LeftOut::Ignored | LeftOut::WithoutAnnotation => Vec::new(),
        });
    }
    let none = Annotations::default();
    let namespace = step.view.namespace(&service.meta.namespace).map_or(&none, |namespace| &namespace.annotations);
    let routes_reader = RoutesReader::default();
    let in_force = InForce { service: &service.annotations, namespace, routes: &routes_reader };
    let mut found = Vec::new();
    let name = ServiceName::new(service.meta.namespace.clone(), service.meta.name.clone());
    let mut waits = false;
    let mut ports = ports(service, in_force, step, &mut found, &mut waits);
    found.extend(routes::without_effect(service, &ports, in_force));
    splits::apply(service, &mut ports, in_force.routes, step, &mut found);
    let needs_own = ports.iter().any(|port| port.protocol != Protocol::Http && !port.sni)
        || ports.iter().any(|port| config.reserves(port.number));
    let asked = in_force.get(&ADDRESS);
    let wants_own = asked.and_then(|asked| asked.value);
    if let (Some(asked), Some(false), true) = (asked, wants_own, needs_own)
        && asked.written.on_service
    {
        found.push(shared_is_impossible(service, asked.written));
    }
    let bypass = in_force.get(&BYPASS).and_then(|asked| asked.value).unwrap_or(false);
    let mut cluster_ips = service.cluster_ips.to_vec();
    cluster_ips.sort_unstable();
    cluster_ips.dedup();
    if service.ports.is_empty() && !service.headless {
        found.push(without_ports(service));
    }
    if service.headless {
        headless_ports(service, &ports, &mut found);
    }
    let own = !ports.is_empty() && (needs_own || wants_own == Some(true));
    let addressing = in_force.get(&ADDRESSING);
    let one_address = addressing.and_then(|asked| asked.value).unwrap_or(config.one_address);
    let cluster = config.addressing == Addressing::Cluster;
    if let (Some(asked), true, true, false) = (addressing, own, cluster, one_address)
        && asked.written.on_service
        && asked.value.is_some()
    {
        found.push(node_is_impossible(service, asked.written));
    }
    let plan = Plan {
        age: Age { created: service.meta.created, name },
        own,
        one_address: cluster && one_address && !own && !ports.is_empty(),
        ports,
        bypass,
        cluster_ips,
        headless: service.headless,
        publish_not_ready: service.publish_not_ready,
    };
    found.extend(annotations::check_service(service, &plan, in_force));
    Draft { plan: Some(plan), found, waits }
}

fn say(reason: Reason, service: &Service, field: &str, text: String) -> Diagnostic {
    Diagnostic::of(reason, "Service", &service.meta, field, text)
}

fn external_name(service: &Service) -> Vec<Diagnostic> {
    if service.annotations.is_empty() {
        return Vec::new();
    }
    let text = "type ExternalName cannot be meshed; its annotations are ignored. Use a Service with endpoints.";
    vec![say(Reason::UnsupportedService, service, "spec.type", text.into()).value("ExternalName").using("nothing")]
}

/// `ns.dns.ZONE` is the name of the zone's own server.
fn is_name_server(namespace: &str, name: &str) -> bool {
    (namespace, name) == ("dns", "ns")
}

fn name_server(service: &Service) -> Diagnostic {
    let text = "its mesh name would be that of the mesh's own name server, so it is not meshed. Call it without the mesh, \
                or give it another name.";
    say(Reason::UnsupportedService, service, "metadata.name", text.into()).value("ns").using("nothing")
}

fn shared_is_impossible(service: &Service, asked: WrittenAnnotation<'_>) -> Diagnostic {
    let text = format!(
        "annotation {} is {:?}, but a port of it is not HTTP, or is one of the proxy's own; using an own address. \
         Remove the annotation, or set traffic-type to http.",
        asked.key, asked.text
    );
    say(Reason::InvalidAnnotation, service, &annotations::field(asked.key), text).value(asked.text).using("own")
}

fn node_is_impossible(service: &Service, asked: WrittenAnnotation<'_>) -> Diagnostic {
    let text = format!(
        "annotation {} is {:?}, but the Service has an own address, which is the same for callers of every node; it is \
         ignored. Remove the annotation.",
        asked.key, asked.text
    );
    say(Reason::InvalidAnnotation, service, &annotations::field(asked.key), text).value(asked.text).using("service")
}

/// Kubernetes refuses such a Service; manifests may have it.
fn without_ports(service: &Service) -> Diagnostic {
    let text = "has no ports, so no proxy carries it. Is spec.ports missing?";
    say(Reason::InvalidObject, service, "spec.ports", text.into()).using("nothing")
}

/// A headless Service is reached plainly at its pods, under the pods' port numbers.
fn headless_ports(service: &Service, ports: &[Port], found: &mut Vec<Diagnostic>) {
    for written in &service.ports {
        let i = written.index;
        let Some(port) = written.number.port().and_then(|number| ports.iter().find(|port| port.number == number))
        else {
            continue;
        };
        if let Number::Int(target) = port.target
            && target != i64::from(port.number)
        {
            let number = port.number;
            let text = format!(
                "headless, and port {number} leads to target port {target}: without the mesh, nothing answers on \
                 {number}. Give both the same number, or expect failures while the mesh is bypassed."
            );
            let field = format!("spec.ports[{i}].targetPort");
            found.push(say(Reason::HeadlessPortDiffers, service, &field, text).value(target.to_string()));
        }
    }
}

fn ports(
    service: &Service,
    in_force: InForce<'_>,
    step: &Step<'_>,
    found: &mut Vec<Diagnostic>,
    waits: &mut bool,
) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::with_capacity(service.ports.len());
    let (mut numbers, mut names) = (AHashSet::new(), AHashMap::new());
    for written in &service.ports {
        let i = written.index;
        let field = |name: &str| format!("spec.ports[{i}].{name}");
        let Some(number) = written.number.port() else {
            let shown = &written.number;
            let text = match shown {
                Number::Text(text) if text.parse::<u16>().is_ok() => {
                    format!("port {text:?} is in quotes, so it is no number; the port is left out. Remove the quotes.")
                }
                Number::Text(text) => format!(
                    "port {:?} is not a number from 1 to 65535; the port is left out. Write a number.",
                    shortened(text)
                ),
                Number::Int(number) => {
                    format!("port {number} is not a number from 1 to 65535; the port is left out. Correct the number.")
                }
            };
            let bad = say(Reason::InvalidPort, service, &field("port"), text);
            found.push(bad.value(shown.to_string()).using("nothing"));
            continue;
        };
        if let Transport::Other(transport) = &written.transport {
            let text = format!(
                "port {number} is {transport}, which the mesh does not carry; the port is left out. Call it without \
                 the mesh."
            );
            let bad = say(Reason::UnsupportedProtocol, service, &field("protocol"), text);
            found.push(bad.value(transport).using("nothing"));
            continue;
        }
        let udp = written.transport == Transport::Udp;
        if !numbers.insert((number, udp)) {
            let text = format!("port {number} is there twice; the first one is used. Remove one of them.");
            let bad = say(Reason::InvalidPort, service, &field("port"), text);
            found.push(bad.value(number.to_string()).using("the first"));
            continue;
        }
        if let Some(name) = written.name.as_deref()
            && let Some(other) = names.insert(name, number)
        {
            let text = format!(
                "ports {other} and {number} are both named {name:?}, which Kubernetes refuses; both lead to the endpoints' port of \
                 that name. Give each port a name of its own."
            );
            let bad = say(Reason::InvalidPort, service, &field("name"), text);
            found.push(bad.value(name).using("the same endpoints"));
        }
        ports.push(port(service, written, number, in_force, step, (found, waits)));
    }
    ports.sort_unstable_by_key(|port| (port.number, port.protocol));
    ports
}

fn port(
    service: &Service,
    written: &ServicePort,
    number: u16,
    in_force: InForce<'_>,
    step: &Step<'_>,
    (found, waits): (&mut Vec<Diagnostic>, &mut bool),
) -> Port {
    let named = written.name.as_deref();
    let said = AppProtocol::of(written.app_protocol.as_deref());
    if said == AppProtocol::Unknown
        && let Some(written_as) = written.app_protocol.as_deref()
        && let Some(meant) = AppProtocol::meant_by(written_as)
    {
        let text = format!(
            "appProtocol of port {number} is {written_as:?}, which the mesh does not know; it counts as if it were absent. \
             Did you mean {meant}?"
        );
        let field = format!("spec.ports[{}].appProtocol", written.index);
        found.push(say(Reason::InvalidPort, service, &field, text).value(written_as).using("the default"));
    }
    let asked = in_force.of_port(&TRAFFIC_TYPE, number, named);
    let wanted = asked.and_then(|asked| asked.value);
    let udp = written.transport == Transport::Udp;
    let fallback = match (udp, said, step.config.default_protocol) {
        (true, ..) => Protocol::Udp,
        (false, AppProtocol::Http | AppProtocol::H2c, _) => Protocol::Http,
        (false, AppProtocol::Tls | AppProtocol::Tcp, _) => Protocol::Tcp,
        (false, AppProtocol::Unknown, Protocol::Http) => Protocol::Http,
        (false, AppProtocol::Unknown, _) => Protocol::Tcp,
    };
    let protocol = match wanted {
        Some(wanted) if (wanted == Protocol::Udp) == udp => wanted,
        _ => fallback,
    };
    if let (Some(asked), Some(wanted)) = (asked.map(|asked| asked.written), wanted)
        && wanted != protocol
        && mismatch_is_worth_saying(service, asked, wanted)
    {
        let transport = if udp { "UDP" } else { "TCP" };
        let text = format!(
            "annotation {} is {wanted:?}, but port {number} is {transport}; using {protocol}. Narrow the annotation to \
             the ports it is meant for, or change the port's protocol.",
            asked.key,
            wanted = asked.text
        );
        let bad = say(Reason::InvalidAnnotation, service, &annotations::field(asked.key), text);
        found.push(bad.value(asked.text).using(protocol.to_string()));
    }
    let says_tls =
        in_force.of_port(&SERVER_NAME, number, named).is_some() || in_force.of_port(&CA, number, named).is_some();
    let asked = in_force.of_port(&SCHEME, number, named);
    let default = match asked {
        // Whoever meant TLS and misspelt it must not be given plain text.
        Some(_) if says_tls => Scheme::Https,
        _ if said == AppProtocol::H2c => Scheme::H2c,
        _ => Scheme::Http,
    };
    let scheme = asked.and_then(|asked| asked.value).unwrap_or(default);
    let scheme = if protocol == Protocol::Http { scheme } else { Scheme::Http };
    let mut reader = PolicyReader { service, number, name: named, protocol, in_force, step, found, waits };
    let (called, backend) = reader.read(scheme);
    let (routes, claims) = reader.routes();
    let origin = in_force.of_port(&ROUTES, number, named).filter(|_| !routes.is_empty());
    let origins =
        origin.map_or_else(Vec::new, |asked| vec![RouteOrigin::Annotation(asked.written.key.into()); routes.len()]);
    Port {
        number,
        name: written.name.clone(),
        protocol,
        sni: protocol == Protocol::Tcp && wanted != Some(Protocol::Tcp) && said == AppProtocol::Tls,
        target: written.target.clone().unwrap_or_else(|| Number::Int(number.into())),
        routes,
        origins,
        claims,
        called: called.into(),
        policy: backend.into(),
    }
}

/// A traffic type for the whole Service is meant for those of its ports that can have it, if there are any.
fn mismatch_is_worth_saying(service: &Service, asked: WrittenAnnotation<'_>, wanted: Protocol) -> bool {
    let transport = if wanted == Protocol::Udp { Transport::Udp } else { Transport::Tcp };
    asked.narrowed || (asked.on_service && !service.ports.iter().any(|port| port.transport == transport))
}

/// What `appProtocol` says of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AppProtocol {
    Http,
    H2c,
    Tls,
    Tcp,
    Unknown,
}

/// Values of `appProtocol` for what HTTP, HTTP/2, TLS, and opaque protocols are.
const HTTP: [&str; 3] = ["http", "kubernetes.io/ws", "kubernetes.io/wss"];
const H2C: [&str; 5] = ["kubernetes.io/h2c", "h2c", "http2", "grpc", "kubernetes.io/grpc"];
const TLS: [&str; 2] = ["https", "tls"];
const TCP: [&str; 35] = [
    "tcp",
    "amqp",
    "amqps",
    "cassandra",
    "cql",
    "ftp",
    "imap",
    "imaps",
    "kafka",
    "ldap",
    "ldaps",
    "memcache",
    "memcached",
    "mongo",
    "mongodb",
    "mqtt",
    "mqtts",
    "mssql",
    "mysql",
    "nats",
    "nfs",
    "oracle",
    "pop3",
    "pop3s",
    "postgres",
    "postgresql",
    "redis",
    "rediss",
    "sftp",
    "smtp",
    "smtps",
    "ssh",
    "telnet",
    "thrift",
    "zookeeper",
];

impl AppProtocol {
    fn of(text: Option<&str>) -> Self {
        let Some(text) = text.map(str::to_ascii_lowercase) else { return Self::Unknown };
        let text = text.as_str();
        match () {
            () if HTTP.contains(&text) => Self::Http,
            () if H2C.contains(&text) => Self::H2c,
            () if TLS.contains(&text) => Self::Tls,
            () if TCP.contains(&text) => Self::Tcp,
            () => Self::Unknown,
        }
    }

    /// The known value that somebody meant who wrote `text`: one letter away, with the same first one. Names of other
    /// protocols are as short, so no more is taken for a slip.
    fn meant_by(text: &str) -> Option<&'static str> {
        let all = HTTP.into_iter().chain(H2C).chain(TLS).chain(TCP);
        let near = |known: &&str| known.get(..1) == text.get(..1) && distance(text, known) == 1;
        did_you_mean(text, all.filter(near))
    }
}
