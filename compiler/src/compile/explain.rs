//! What the controller knows of a Service and of a caller: the cluster's side of why a caller is answered what it is.
//!
//! Read from what the compiler keeps, by the functions that compile. It changes nothing.

mod concerns;

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use maesh_config::{
    ServiceName,
    model::{ListenerId, Workload, WorkloadKind},
};
use serde::{Deserialize, Serialize};

use super::{Addressing, Compiler, ConnectedProxy};
use crate::{
    diagnostic::{Diagnostic, Severity, did_you_mean},
    facts::View,
    kinds::{Pod, Service},
    placement::ServicePlacement,
    plan::{
        endpoints,
        service::{LeftOut, Plan, left_out},
        workload,
    },
    publication::name::answers_endpoints,
};

/// Entries of one list that are shown at most.
const MOST: usize = 100;
/// Findings that are shown at most.
const MOST_FINDINGS: usize = 20;

/// What somebody wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// A mesh name, `service.namespace`, `namespace/service`, or a ClusterIP.
    pub name: String,
    /// An address, `namespace/pod`, or the name of a pod.
    pub from: Option<String>,
}

/// What is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Zones answered; the first one is the mesh's own.
    pub zones: Vec<String>,
    /// The Service meant, `namespace/name`.
    pub service: Option<String>,
    /// Its mesh name.
    pub name: Option<String>,
    /// Why it is not in the mesh, and what to do.
    pub not_meshed: Option<String>,
    /// There is no such Service. What may have been meant is for others to find out: it takes long.
    #[serde(skip)]
    pub unknown: Option<ServiceName>,
    /// How it is meshed.
    pub meshed: Option<Meshed>,
    /// Its endpoints, 100 at most.
    pub endpoints: Vec<EndpointSeen>,
    /// How many there are.
    pub endpoints_in_all: usize,
    /// The caller.
    pub caller: Option<CallerSeen>,
    /// Why the caller cannot be placed, and what to do.
    pub caller_unknown: Option<String>,
    /// Proxies that are connected, 100 at most.
    pub proxies: Vec<ProxySeen>,
    /// What is wrong with the Service, with the objects that decide about requests to it, and with what delivers them.
    pub findings: Vec<Finding>,
}

/// How a Service is meshed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meshed {
    /// It is bypassed by its annotation.
    pub bypass: bool,
    /// The global switch is on.
    pub bypass_all: bool,
    /// It needs an address on which its ports are its alone.
    pub own: bool,
    /// That address, once it has one.
    pub own_address: Option<IpAddr>,
    /// It has no ClusterIP.
    pub headless: bool,
    /// Its plain addresses.
    pub plain: Vec<IpAddr>,
    /// Its meshed ports.
    pub ports: Vec<PortSeen>,
    /// Every ready proxy listens on all it needs.
    pub acknowledged: bool,
}

/// A meshed port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortSeen {
    /// Its number.
    pub port: u16,
    /// Its name.
    pub name: Option<String>,
    /// `http`, `tcp` or `udp`.
    pub protocol: String,
    /// The port on which the address in the answer listens; `None` where none could be given.
    pub listen: Option<u16>,
}

/// An endpoint with its conditions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSeen {
    /// The Service's port that leads to it.
    pub port: u16,
    /// Address and target port.
    pub address: std::net::SocketAddr,
    /// The pod at that address.
    pub pod: Option<String>,
    /// Node it runs on.
    pub node: Option<String>,
    /// It accepts new work.
    pub ready: bool,
    /// It still answers.
    pub serving: bool,
    /// Its pod is being deleted.
    pub terminating: bool,
    /// Zones whose callers should use it.
    pub for_zones: Vec<String>,
    /// Nodes whose callers should use it.
    pub for_nodes: Vec<String>,
}

/// Whose the caller's address is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallerSeen {
    /// The address.
    pub address: IpAddr,
    /// `pod`, `resolver`, `node`, `podrange`, `unknown`.
    pub kind: String,
    /// The pod `namespace/name`, the node, or the range.
    pub name: Option<String>,
    /// The pod's ServiceAccount.
    pub service_account: Option<String>,
    /// The node.
    pub node: Option<String>,
}

/// A proxy that is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxySeen {
    /// The pod's name.
    pub id: String,
    /// Node it serves.
    pub node: Option<String>,
    /// Where callers reach it.
    pub addresses: Vec<IpAddr>,
    /// It takes new work.
    pub ready: bool,
    /// Listeners of the Service that it has not acknowledged.
    pub lacks: Vec<String>,
    /// Those that it could not open, with the reason.
    pub failed: Vec<(String, String)>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// `warning` or `error`.
    pub severity: String,
    /// Why, as one stable word.
    pub reason: String,
    /// For people: object, value, what happens instead, next step.
    pub message: String,
    /// `file:line`, for objects from manifests.
    pub place: Option<String>,
}

impl Compiler {
    /// Says what is known of a Service and a caller.
    pub fn explain(&self, question: &Question) -> Explanation {
        let (caller, caller_unknown) = match question.from.as_deref().map(|from| self.caller(from)) {
            None => (None, None),
            Some(Ok(caller)) => (Some(caller), None),
            Some(Err(why)) => (None, Some(why)),
        };
        let mut explanation = Explanation {
            zones: self.config.zones.iter().map(ToString::to_string).collect(),
            service: None,
            name: None,
            not_meshed: None,
            unknown: None,
            meshed: None,
            endpoints: Vec::new(),
            endpoints_in_all: 0,
            caller,
            caller_unknown,
            proxies: Vec::new(),
            findings: Vec::new(),
        };
        match self.resolve_name(&question.name, explanation.caller.as_ref()) {
            Ok(name) => self.explain_service(&name, &mut explanation),
            Err(why) => {
                explanation.not_meshed = Some(why);
                explanation.findings = findings(&self.concerning_unknown(&question.name));
            }
        }
        if explanation.meshed.is_none()
            && let Some(why) = self.why_claimed(&question.name)
        {
            (explanation.unknown, explanation.not_meshed) = (None, Some(why));
        }
        let name = explanation.service.as_deref().and_then(|name| name.parse().ok());
        explanation.proxies =
            self.publication.proxies().iter().take(MOST).map(|proxy| self.proxy_seen(proxy, name.as_ref())).collect();
        explanation
    }

    /// What a name means that is no Service's, but a host of some Service's routes.
    fn why_claimed(&self, name: &str) -> Option<String> {
        let host = name.trim_end_matches('.').to_ascii_lowercase();
        let service = self.placement.listeners.claimed_by(&host)?;
        let called = service.in_zone(self.config.zones.first()?);
        Some(format!(
            "{host} is no mesh name, so the mesh's DNS does not answer it; routes of Service {service} claim it, for requests \
             and TLS that reach {called} under this host. Ask about those with: maesh explain http://{called}/ -H 'Host: {host}', \
             or tls://{called}:PORT --server-name {host}"
        ))
    }

    fn explain_service(&self, name: &ServiceName, explanation: &mut Explanation) {
        explanation.service = Some(name.to_string());
        explanation.name = self.config.zones.first().map(|zone| name.in_zone(zone));
        match self.plans.get(name) {
            Some(plan) => {
                explanation.meshed = Some(self.meshed(plan));
                (explanation.endpoints, explanation.endpoints_in_all) = self.endpoints_seen(plan);
            }
            None => {
                explanation.unknown = (!self.index.services.contains_key(name)).then(|| name.clone());
                explanation.not_meshed = Some(self.why_not(name));
            }
        }
        explanation.findings = findings(&self.concerning(name));
    }

    fn meshed(&self, plan: &Plan) -> Meshed {
        let (name, view) = (plan.name(), View::new(&self.index));
        let none = ServicePlacement::default();
        let placed = self.placement.get(name).unwrap_or(&none);
        let headless = answers_endpoints(plan, self.config.bypass);
        let own_address = match &self.config.addressing {
            Addressing::Range(_) => self.placement.own_address(name, &view),
            Addressing::Cluster => {
                let standing = placed.standing.as_ref();
                standing.and_then(|standing| self.placement.addresses(standing).first().copied())
            }
        };
        let ports = plan.ports.iter().zip(&placed.listens).map(|(port, listen)| PortSeen {
            port: port.number,
            name: port.name.as_deref().map(str::to_owned),
            protocol: port.protocol.to_string(),
            listen: *listen,
        });
        Meshed {
            bypass: plan.bypass,
            bypass_all: self.config.bypass,
            own: plan.own,
            own_address: own_address.filter(|_| plan.own),
            headless,
            plain: if headless { self.publication.ready_addresses(name).to_vec() } else { plan.cluster_ips.clone() },
            ports: ports.collect(),
            acknowledged: self.publication.acknowledged(placed, &view),
        }
    }

    fn endpoints_seen(&self, plan: &Plan) -> (Vec<EndpointSeen>, usize) {
        let endpoints = endpoints::of(plan, &self.plans.forbidden, &View::new(&self.index));
        let all = endpoints.ports.iter().flat_map(|port| port.endpoints.iter().map(|one| (port.number, one)));
        let seen = all.clone().take(MOST).map(|(port, one)| EndpointSeen {
            port,
            address: one.address,
            pod: self.pod_at(one.address.ip()),
            node: one.node.as_ref().map(ToString::to_string),
            ready: one.ready,
            serving: one.serving,
            terminating: one.terminating,
            for_zones: one.for_zones().iter().map(ToString::to_string).collect(),
            for_nodes: one.for_nodes().iter().map(ToString::to_string).collect(),
        });
        (seen.collect(), all.count())
    }

    fn pod_at(&self, address: IpAddr) -> Option<String> {
        let workload = workload::of_address(&View::new(&self.index), address)?;
        Some(format!("{}/{}", workload.namespace?, workload.name))
    }

    /// The Service that `text` means, or why it means none.
    fn resolve_name(&self, text: &str, caller: Option<&CallerSeen>) -> Result<ServiceName, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let has = |service: &&Arc<Service>| service.cluster_ips.contains(&address);
            // No two have one, but in manifests that somebody wrote.
            let found = self.index.services.values().filter(has).min_by(|a, b| a.meta.name.cmp(&b.meta.name));
            let found =
                found.map(|service| ServiceName::new(service.meta.namespace.clone(), service.meta.name.clone()));
            return found.ok_or_else(|| format!("no Service has the ClusterIP {address}"));
        }
        if let Ok(name) = text.parse::<ServiceName>() {
            return Ok(name);
        }
        let lower = text.trim_end_matches('.').to_ascii_lowercase();
        let cluster = format!(".svc.{}", self.config.cluster_domain.trim_end_matches('.').to_ascii_lowercase());
        let zones = self.config.zones.iter().map(|zone| format!(".{zone}"));
        let suffixes: Vec<String> = zones.chain([cluster, ".svc".to_owned()]).collect();
        let bare = suffixes.iter().find_map(|suffix| lower.strip_suffix(suffix.as_str())).unwrap_or(&lower);
        let own = caller.and_then(|caller| caller.name.as_deref()?.split_once('/')).map(|(namespace, _)| namespace);
        match (bare.split_once('.'), own) {
            (Some((name, namespace)), _) if !namespace.contains('.') => Ok(ServiceName::new(namespace, name)),
            (None, Some(namespace)) if !bare.is_empty() => Ok(ServiceName::new(namespace, bare)),
            _ => {
                let zone = self.config.zones.first().map_or("maesh", |zone| zone.as_str());
                Err(format!("{text:?} names no Service; write SERVICE.NAMESPACE.{zone} or NAMESPACE/SERVICE"))
            }
        }
    }

    fn why_not(&self, name: &ServiceName) -> String {
        let Some(service) = self.index.services.get(name) else { return unknown(name, &[], None) };
        match left_out(service, &self.config) {
            Some(LeftOut::Ignored) => format!(
                "Service {name} exists, but the mesh leaves it alone: its namespace is ignored or not watched; see \
                 --ignore-namespace and --watch-namespace of the controller"
            ),
            Some(LeftOut::ExternalName) => {
                format!("Service {name} is of type ExternalName, which cannot be meshed; call {} itself", name.name)
            }
            Some(LeftOut::NameServer) => format!(
                "Service {name} exists, but its mesh name is that of the mesh's own name server; call it without the mesh, \
                 or give it another name"
            ),
            Some(LeftOut::WithoutAnnotation) | None => format!(
                "Service {name} carries no annotation of the mesh, and --require-annotation asks for one; for instance \
                 maesh.containo.us/traffic-type: http"
            ),
        }
    }

    /// The caller that `text` means.
    fn caller(&self, text: &str) -> Result<CallerSeen, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(self.caller_at(address.to_canonical()));
        }
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        let mut pods = self.index.pods_named(namespace, name);
        let Some(pod) = pods.next() else {
            return Err(format!(
                "no pod {text} is known; give an address, or NAMESPACE/POD as `kubectl get pods -A` shows it"
            ));
        };
        if let Some(other) = pods.next() {
            return Err(format!(
                "pods {}/{name} and {}/{name} are both called so; say which, as NAMESPACE/POD",
                pod.meta.namespace, other.meta.namespace
            ));
        }
        self.caller_of(pod)
    }

    fn caller_of(&self, pod: &Pod) -> Result<CallerSeen, String> {
        match pod.addresses.first() {
            Some(address) if !pod.ended => Ok(self.caller_at(*address)),
            _ => Err(format!(
                "pod {}/{} has no address yet, or has ended; wait until it runs, or give an address",
                pod.meta.namespace, pod.meta.name
            )),
        }
    }

    fn caller_at(&self, address: IpAddr) -> CallerSeen {
        let ranges = self.index.ranges().filter(|range| range.contains(&address));
        let workload = workload::of_address(&View::new(&self.index), address).or_else(|| {
            let range: IpNet = ranges.max_by_key(IpNet::prefix_len)?;
            workload::of_range(&View::new(&self.index), range)
        });
        let Some(found) = workload else {
            return CallerSeen { address, kind: "unknown".into(), name: None, service_account: None, node: None };
        };
        let Workload { address: of, kind, namespace, name, service_account, node, .. } = found;
        let (kind, name) = match kind {
            WorkloadKind::Pod => ("pod", pod_name(namespace, &name)),
            WorkloadKind::Resolver => ("resolver", pod_name(namespace, &name)),
            WorkloadKind::Node => ("node", name.to_string()),
            WorkloadKind::PodRange => ("podrange", of.to_string()),
        };
        CallerSeen {
            address,
            kind: kind.to_owned(),
            name: Some(name),
            service_account: service_account.map(|account| account.to_string()),
            node: node.map(|node| node.to_string()),
        }
    }

    fn proxy_seen(&self, proxy: &ConnectedProxy, service: Option<&ServiceName>) -> ProxySeen {
        let needed: Vec<&ListenerId> = service
            .into_iter()
            .flat_map(|name| self.placement.listeners.of(name))
            .map(|listener| &listener.id)
            .collect();
        let lacks = needed.iter().filter(|id| !proxy.listening.contains(id)).map(ToString::to_string);
        let failed = needed.iter().filter_map(|id| proxy.failed.get_key_value(*id));
        ProxySeen {
            id: proxy.id.to_string(),
            node: proxy.node.as_ref().map(ToString::to_string),
            addresses: proxy.addresses.clone(),
            ready: proxy.ready,
            lacks: lacks.collect(),
            failed: failed.map(|(id, why)| (id.to_string(), why.to_string())).collect(),
        }
    }
}

/// Says that there is no Service `name`, and which was probably meant: of those `here` in its namespace one that is
/// spelled alike, or one `elsewhere` of the same name.
pub fn unknown(name: &ServiceName, here: &[Arc<str>], elsewhere: Option<&ServiceName>) -> String {
    let said = |other: String| format!("no Service {name} is known; did you mean {other}?");
    match (did_you_mean(&name.name, here.iter().map(|other| &**other)), elsewhere) {
        (Some(other), _) => said(format!("{}/{other}", name.namespace)),
        (None, Some(other)) => said(other.to_string()),
        (None, None) => format!("no Service {name} is known; is it created, and in a namespace that the mesh watches?"),
    }
}

fn pod_name(namespace: Option<Arc<str>>, name: &str) -> String {
    format!("{}/{name}", namespace.as_deref().unwrap_or_default())
}

/// The first of these, as they are sent.
fn findings(found: &[Diagnostic]) -> Vec<Finding> {
    found.iter().take(MOST_FINDINGS).map(Finding::of).collect()
}

impl Finding {
    fn of(found: &Diagnostic) -> Self {
        let line = |file: &Arc<str>| found.line.map_or_else(|| file.to_string(), |line| format!("{file}:{line}"));
        Self {
            severity: match found.severity {
                Severity::Warning => "warning",
                Severity::Error => "error",
            }
            .to_owned(),
            reason: found.reason.to_string(),
            message: found.message.to_string(),
            place: found.file.as_ref().map(line),
        }
    }
}
