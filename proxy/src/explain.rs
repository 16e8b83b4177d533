//! What the proxy would do with a request, and why.
//!
//! Host and SNI look-up, port, backends and the choice of endpoints are the functions that requests pass, on the same
//! snapshots. Nothing is asked for, counted or changed: a Service that nobody called yet is said to be so.

mod policies;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::Ordering},
};

use arc_swap::ArcSwap;
use maesh_config::model::{NamePort, Protocol};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

pub use self::policies::PolicySeen;
use crate::{
    access::Admitted,
    balance::{Candidate, Upstreams, fitting},
    http::{Host, find_called, named, port_on},
    listener::Opened,
    reason::Reason,
    state::{BackendPort, Claims, Destination, Facts, Phase, Port, ServiceEntry, Shared, directory_name},
};

/// Endpoints of one backend that are shown at most.
const MOST_ENDPOINTS: usize = 50;

/// A request that somebody might make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its `Host`, or the server name of its TLS.
    pub host: String,
    /// Who makes it.
    pub caller: Option<IpAddr>,
    /// The Service's port; `None` for all of them.
    pub port: Option<u16>,
}

/// What would become of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The host as it is looked up.
    pub host: String,
    /// The proxy takes new work.
    pub ready: bool,
    /// Names and listeners are complete; before, an unknown name is `not_synced`.
    pub synced: bool,
    /// The Service that the host means, `namespace/name`.
    pub service: Option<String>,
    /// What the proxy answers by itself instead, where it does so for every port.
    pub refusal: Option<Refusal>,
    /// What becomes of it on each port asked about.
    pub ports: Vec<PortSeen>,
}

/// An answer that the proxy makes by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The code in `x-maesh-reason`.
    pub reason: String,
    /// The status for callers of HTTP.
    pub status: u16,
    /// One sentence.
    pub explanation: String,
}

/// One port of the Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortSeen {
    /// The Service's port number.
    pub port: u16,
    /// `http`, `tcp` or `udp`.
    pub protocol: String,
    /// The port number that the proxy should listen on.
    pub listen: u16,
    /// The listener that takes it; `None` while none is open.
    pub listener: Option<ListenerSeen>,
    /// Whether the routes and endpoints of the Service are here.
    pub held: ServiceState,
    /// Policies of every request to it, where they differ from a port without annotations.
    #[serde(default)]
    pub policies: Vec<PolicySeen>,
    /// Where requests go, in order of precedence. The first one that matches has them all.
    pub routes: Vec<RouteSeen>,
    /// What the proxy answers by itself instead.
    pub refusal: Option<Refusal>,
}

/// An open listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerSeen {
    /// Its identity: `shared/8080/tcp`.
    pub id: String,
    /// The addresses it is bound to.
    pub addresses: Vec<SocketAddr>,
    /// Several Services share it, and the request says whose it is.
    pub shared: bool,
}

/// Whether the configuration of a Service is in the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceState {
    /// It is in force.
    InForce,
    /// Nobody called it through this proxy lately: it is asked for at the next call.
    Unused,
    /// It was asked for and has not arrived.
    Awaited,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteSeen {
    /// It is the Service itself, because no rule says otherwise.
    pub own: bool,
    /// What a request or connection has to be, where it has to be anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Where it sends to.
    pub backends: Vec<BackendSeen>,
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendSeen {
    /// The Service, `namespace/name`; `None` for one that does not exist.
    pub service: Option<String>,
    /// Its share, relative to its siblings.
    pub weight: u32,
    /// The protocol spoken to its endpoints.
    pub scheme: Option<String>,
    /// Whom endpoints have to be, if that is `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSeen>,
    /// How one is picked, as the annotation `balance` has it: `p2c`, `hash:source`.
    pub balance: Option<String>,
    /// Policies of what is sent to it, where they differ from a port without annotations.
    #[serde(default)]
    pub policies: Vec<PolicySeen>,
    /// Number of endpoints that may be used now.
    pub usable: usize,
    /// Only endpoints on the caller's node are used.
    pub local_only: bool,
    /// The first of them, 50 at most.
    pub endpoints: Vec<EndpointSeen>,
}

/// What certificates of endpoints are verified against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsSeen {
    /// The name that they must have.
    pub server_name: String,
    /// Who may have issued them: `system roots`, `2 certificates`, or none and why.
    pub roots: String,
}

/// One endpoint that may be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSeen {
    /// Address and target port.
    pub address: SocketAddr,
    /// Node it runs on.
    pub node: Option<String>,
    /// It is among those that this caller's requests are spread over.
    pub chosen: bool,
    /// Requests in flight from this proxy.
    pub in_flight: u32,
    /// Why the last TLS handshake with it failed, and what to do, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_failure: Option<String>,
}

/// Explains, for as long as its proxy runs; clones share it.
#[derive(Clone)]
pub struct Explainer {
    shared: Arc<Shared>,
    opened: Arc<ArcSwap<Vec<Opened>>>,
}

impl Explainer {
    pub(crate) fn new(shared: Arc<Shared>, opened: Arc<ArcSwap<Vec<Opened>>>) -> Self {
        Self { shared, opened }
    }

    /// Says what would become of a request now.
    pub fn explain(&self, question: &Question) -> Explanation {
        let shared = &*self.shared;
        let host = Host::parse(question.host.as_bytes());
        let mut explanation = Explanation {
            host: host.as_ref().map_or(&*question.host, Host::as_str).to_owned(),
            ready: shared.phase() == Phase::Serving && shared.complete.load(Ordering::Acquire),
            synced: shared.complete.load(Ordering::Acquire),
            service: None,
            refusal: None,
            ports: Vec::new(),
        };
        let found = host.ok_or(Reason::BadRequest).and_then(|host| self.called(&host, question));
        match found {
            Err(reason) => explanation.refusal = Some(reason.into()),
            Ok(called) => {
                explanation.service = Some(called.name.to_string());
                let facts = called.facts.load();
                let asked = |port: &&NamePort| question.port.is_none_or(|number| port.number == number);
                explanation.ports =
                    facts.ports.iter().filter(asked).map(|it| self.port(&called, it, question)).collect();
                if explanation.ports.is_empty() {
                    explanation.refusal = Some(Reason::NoRoute.into());
                }
            }
        }
        explanation
    }

    /// The Service that the host means: by its name, or because a route claims it on a listener.
    fn called(&self, host: &Host<'_>, question: &Question) -> Result<Arc<ServiceEntry>, Reason> {
        let caller = address(question);
        find_called(&self.shared, &Claims::default(), host, caller).or_else(|reason| {
            let opened = self.opened.load();
            let claims = opened.iter().filter_map(|open| {
                let facts = open.listening.facts.load();
                let asked = question.port.is_none_or(|port| port == facts.port);
                let by = |claims| find_called(&self.shared, claims, host, caller).ok();
                asked.then(|| by(&facts.hosts).or_else(|| by(&facts.sni))).flatten()
            });
            claims.into_iter().next().ok_or(reason)
        })
    }

    fn port(&self, called: &Arc<ServiceEntry>, port: &NamePort, question: &Question) -> PortSeen {
        let (listener, refusal) = match self.listener(called, port) {
            None => (None, None),
            Some((seen, facts)) => (Some(seen), self.reaches(called, port, &facts, question).err()),
        };
        let serving = called.serving.load();
        let served = serving.as_ref().map(|serving| serving.port(port.number, port.protocol));
        let mut seen = PortSeen {
            port: port.number,
            protocol: port.protocol.to_string(),
            listen: port.listen,
            listener,
            held: match served {
                Some(_) => ServiceState::InForce,
                None if called.is_wanted() => ServiceState::Awaited,
                None => ServiceState::Unused,
            },
            policies: Vec::new(),
            routes: Vec::new(),
            refusal: refusal.map(Refusal::from),
        };
        match served {
            Some(Some(port)) => {
                seen.policies = policies::called(&port.called);
                seen.routes = self.routes(port, question);
                let refusal = self.refuses(port, question).map(Refusal::from);
                seen.refusal = seen.refusal.or(refusal);
            }
            Some(None) => seen.refusal = seen.refusal.or_else(|| Some(Reason::NoRoute.into())),
            None => {}
        }
        seen
    }

    /// The open listener that takes what is sent to this port.
    fn listener(&self, called: &ServiceEntry, port: &NamePort) -> Option<(ListenerSeen, Arc<Facts>)> {
        let own = (directory_name(&called.name), port.number);
        let opened = self.opened.load();
        let with_facts = opened.iter().map(|open| (open, open.listening.facts.load_full()));
        let owned = |facts: &Facts| facts.owner.as_ref() == Some(&own) && facts.transport == port.protocol.transport();
        let shares = |facts: &Facts| {
            let carries = if port.protocol == Protocol::Http { facts.http } else { facts.tls };
            facts.owner.is_none() && facts.port == port.listen && carries
        };
        let (open, facts) = with_facts
            .clone()
            .find(|(_, facts)| owned(facts))
            .or_else(|| with_facts.clone().find(|(_, f)| shares(f)))?;
        let seen =
            ListenerSeen { id: open.id.to_string(), addresses: open.addresses.clone(), shared: facts.owner.is_none() };
        Some((seen, facts))
    }

    /// Whether the listener's own look-up leads to this port.
    fn reaches(
        &self,
        called: &Arc<ServiceEntry>,
        port: &NamePort,
        facts: &Facts,
        question: &Question,
    ) -> Result<(), Reason> {
        let caller = address(question);
        let (found, number) = if facts.owner.is_some() || port.protocol == Protocol::Http {
            named(&self.shared, facts, Some(question.host.as_bytes()), caller)?
        } else {
            let host = Host::parse(question.host.as_bytes()).ok_or(Reason::BadRequest)?;
            let found = find_called(&self.shared, &facts.sni, &host, caller)?;
            let number = port_on(&found, facts.port, Protocol::Tcp).ok_or(Reason::NoRoute)?;
            (found, number)
        };
        if Arc::ptr_eq(&found, called) && number == port.number { Ok(()) } else { Err(Reason::NoRoute) }
    }

    fn routes(&self, port: &Port, question: &Question) -> Vec<RouteSeen> {
        let own = || RouteSeen { own: true, rule: None, backends: vec![self.backend(1, Some(&port.own), question)] };
        if port.routes.is_empty() {
            return vec![own()];
        }
        let seen = |(weight, to): &(u32, Destination<Arc<BackendPort>>)| self.backend(*weight, to.backend(), question);
        let route = |route: &crate::state::WeightedRoute| RouteSeen {
            own: false,
            rule: route.rule.as_ref().map(ToString::to_string),
            backends: route.backends().iter().map(seen).collect(),
        };
        // Requests that no rule fits go to the Service itself.
        let rest = port.routes.iter().all(|route| route.rule.is_some()).then(own);
        port.routes.iter().map(route).chain(rest).collect()
    }

    fn backend(&self, weight: u32, backend: Option<&Arc<BackendPort>>, question: &Question) -> BackendSeen {
        let Some(backend) = backend else {
            return BackendSeen {
                service: None,
                weight,
                scheme: None,
                tls: None,
                balance: None,
                policies: Vec::new(),
                usable: 0,
                local_only: false,
                endpoints: Vec::new(),
            };
        };
        let upstreams = backend.upstreams.load();
        let chosen = self.fitting(&upstreams, question);
        let endpoints = upstreams.usable.iter().take(MOST_ENDPOINTS).map(|candidate| EndpointSeen {
            address: candidate.endpoint.address,
            node: candidate.node.as_ref().map(ToString::to_string),
            chosen: chosen.iter().any(|one| std::ptr::eq(*one, candidate)),
            in_flight: candidate.endpoint.in_flight.load(Ordering::Relaxed),
            tls_failure: upstreams.tls.as_ref().and_then(|tls| {
                let failure = candidate.endpoint.peer.tls_failure()?;
                Some(failure.advice(&tls.asked().server_name))
            }),
        });
        BackendSeen {
            service: Some(backend.service.to_string()),
            weight,
            scheme: Some(upstreams.policy.scheme.to_string()),
            tls: upstreams.tls.as_ref().map(|tls| TlsSeen {
                server_name: tls.asked().server_name.to_string(),
                roots: tls.asked().roots.to_string(),
            }),
            balance: Some(upstreams.policy.balance.to_string()),
            policies: policies::backend(backend, self.shared.clock.coarse()),
            usable: upstreams.usable.len(),
            local_only: upstreams.policy.local_only,
            endpoints: endpoints.collect(),
        }
    }

    /// The endpoints that the caller may be sent to.
    fn fitting<'a>(&self, upstreams: &'a Upstreams, question: &Question) -> SmallVec<[&'a Candidate; 16]> {
        let caller = address(question);
        fitting(upstreams, caller, || self.shared.node_of(caller), &Admitted::All)
    }

    /// What the proxy answers by itself, where every request to this port ends so.
    fn refuses(&self, port: &Port, question: &Question) -> Option<Reason> {
        let refuses = |backend: &Arc<BackendPort>| {
            let upstreams = backend.upstreams.load();
            self.fitting(&upstreams, question).is_empty().then_some(Reason::NoEndpoints)
        };
        if port.routes.iter().any(|route| route.rule.is_some()) {
            // What a request is decides.
            return None;
        }
        let Some(route) = port.routes.first() else {
            return if port.own_refuses { Some(Reason::UnsupportedPolicy) } else { refuses(&port.own) };
        };
        let mut used = route.backends().iter().filter(|(weight, _)| *weight > 0).peekable();
        if used.peek().is_none() {
            return Some(Reason::NoEndpoints);
        }
        let mut first = None;
        for (_, to) in used {
            let reason = match to {
                Destination::Backend(backend) => refuses(backend),
                Destination::Missing => Some(Reason::BadBackend),
                Destination::NotUnderstood => Some(Reason::UnsupportedPolicy),
            };
            first = Some(reason?);
        }
        first
    }
}

fn address(question: &Question) -> IpAddr {
    question.caller.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical()
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self {
            reason: reason.code().to_owned(),
            status: reason.status().as_u16(),
            explanation: reason.explanation().to_owned(),
        }
    }
}
