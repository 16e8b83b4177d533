//! What the proxy would do with a request, and why.
//!
//! Host and SNI look-up, port, rules, backends and the choice of endpoints are the functions that requests pass, on the same
//! snapshots. Nothing is counted or changed. What a request would need is fetched first, as for that request, if one is asked about:
//! a proxy has the routes of those Services alone that somebody calls.

mod access;
mod asked;
mod decide;
mod policies;
mod seen;

use std::sync::{Arc, atomic::Ordering};

use arc_swap::ArcSwap;
use maesh_config::model::{NamePort, Protocol};
use smallvec::SmallVec;

use self::decide::Decision;
pub use self::{
    asked::{Question, Sent, SentRequest, TooLarge},
    decide::first_rules,
    policies::PolicySeen,
    seen::{
        AccessSeen, BackendSeen, EndpointSeen, Explanation, FallbackSeen, ListenerSeen, PortSeen, Refusal, RouteSeen,
        ServiceState, TlsSeen,
    },
};
use crate::{
    access::Admitted,
    balance::{Candidate, Upstreams, fitting},
    host::Host,
    http::{find_called, named, port_on},
    listener::Opened,
    reason::Reason,
    state::{
        BackendPort, Claims, Destination, Facts, Phase, Port, ServiceEntry, Shared, WeightedRoute, directory_name,
        fetch,
    },
};

/// Endpoints of one backend that are shown at most.
const MOST_ENDPOINTS: usize = 50;

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

    /// Gets what the request of a question needs, as its first use would, and waits for it as long. A question about a name alone
    /// gets nothing.
    pub async fn fetch(&self, question: &Question) {
        if question.sent.is_none() {
            return;
        }
        if let Some(caller) = question.caller {
            self.shared.wait_for_workload(caller).await;
        }
        if let Ok(called) = self.service(question) {
            fetch(&self.shared, &called).await;
        }
    }

    /// Says what would become of a request now.
    pub fn explain(&self, question: &Question) -> Explanation {
        let shared = &*self.shared;
        let written = question.shared_host();
        let mut explanation = Explanation {
            host: Host::parse(written.as_bytes()).as_ref().map_or(written, Host::as_str).to_owned(),
            ready: shared.phase() == Phase::Serving && shared.complete.load(Ordering::Acquire),
            synced: shared.complete.load(Ordering::Acquire),
            service: None,
            access_control: self.access_control(),
            account: question.caller.and_then(|caller| shared.account_of(caller)).map(|account| account.to_string()),
            refusal: None,
            ports: Vec::new(),
        };
        match self.service(question) {
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

    /// The Service that the caller reaches: the one that it calls or, where that shares its port with others, the one whose
    /// name it says.
    fn service(&self, question: &Question) -> Result<Arc<ServiceEntry>, Reason> {
        let named = |host: &str| {
            let host = Host::parse(host.as_bytes()).ok_or(Reason::BadRequest)?;
            self.called(&host, question)
        };
        let called = named(&question.host)?;
        let said = question.shared_host();
        if said == question.host || self.has_own_listener(&called) { Ok(called) } else { named(said) }
    }

    fn has_own_listener(&self, called: &ServiceEntry) -> bool {
        let is_own = |port| self.listener(called, port).is_some_and(|(seen, _)| !seen.shared);
        called.facts.load().ports.iter().any(is_own)
    }

    /// The Service that the host means: by its name, or because a route claims it on a listener.
    fn called(&self, host: &Host<'_>, question: &Question) -> Result<Arc<ServiceEntry>, Reason> {
        let caller = question.address();
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
        let (listener, facts) = self.listener(called, port).unzip();
        let refusal = facts.as_ref().and_then(|facts| self.reaches(called, port, facts, question).err());
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
            taken: None,
            undecided: None,
            refusal: refusal.map(Refusal::from),
        };
        let mut refused = None;
        match served {
            Some(Some(port)) => {
                seen.policies = policies::called(&port.called);
                seen.routes = self.routes(port, question);
                if let Some(sent) = question.sent.as_ref().filter(|_| refusal.is_none()) {
                    match self.decide(port, facts.as_deref(), sent, question) {
                        Decision::Taken(number) => seen.taken = Some(number),
                        Decision::Refused(reason) => refused = Some(reason),
                        Decision::Undecided(why) => seen.undecided = Some(why.to_owned()),
                    }
                }
                refused = refused.or_else(|| self.denies(port, &seen, question));
                refused = refused.or_else(|| self.refuses(port, seen.taken, question));
            }
            Some(None) => refused = Some(Reason::NoRoute),
            None => seen.undecided = question.sent.as_ref().map(|_| decide::UNUSED.to_owned()),
        }
        seen.refusal = seen.refusal.or_else(|| refused.map(Refusal::from));
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
        let caller = question.address();
        let said = question.shared_host().as_bytes();
        let by_host = port.protocol == Protocol::Http && question.server_name().is_none();
        let (found, number) = if facts.owner.is_some() || by_host {
            named(&self.shared, facts, Some(said), caller)?
        } else {
            let host = Host::parse(said).ok_or(Reason::BadRequest)?;
            let found = find_called(&self.shared, &facts.sni, &host, caller)?;
            let on = |protocol| port_on(&found, facts.port, protocol);
            let number = on(Protocol::Tcp).or_else(|| on(Protocol::Http)).ok_or(Reason::NoRoute)?;
            (found, number)
        };
        if Arc::ptr_eq(&found, called) && number == port.number { Ok(()) } else { Err(Reason::NoRoute) }
    }

    fn routes(&self, port: &Port, question: &Question) -> Vec<RouteSeen> {
        let seen = |weight, backend: Option<&Arc<BackendPort>>| {
            let access = backend.and_then(|backend| self.access(port.protocol, backend, question));
            let fallback = backend.and_then(|backend| self.fallback(port, backend, question));
            BackendSeen { access, fallback, ..self.backend(weight, backend, question) }
        };
        let own = || RouteSeen { own: true, rule: None, backends: vec![seen(1, Some(&port.own))] };
        if port.routes.is_empty() {
            return vec![own()];
        }
        let seen = |(weight, to): &(u32, Destination<Arc<BackendPort>>)| seen(*weight, to.backend());
        let route = |route: &WeightedRoute| RouteSeen {
            own: false,
            rule: route.rule.as_ref().map(ToString::to_string),
            backends: route.backends().iter().map(seen).collect(),
        };
        // Requests that no rule fits go to the Service itself.
        let rest = port.routes.iter().all(|route| route.rule.is_some()).then(own);
        port.routes.iter().map(route).chain(rest).collect()
    }

    fn fallback(&self, port: &Port, backend: &Arc<BackendPort>, question: &Question) -> Option<FallbackSeen> {
        let to = port.fallback_of(backend)?;
        Some(FallbackSeen {
            service: to.service.to_string(),
            usable: self.fitting(&to.upstreams.load(), question).len(),
            access: self.access(port.protocol, to, question),
        })
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
                access: None,
                fallback: None,
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
            access: None,
            fallback: None,
        }
    }

    /// The endpoints that the caller may be sent to.
    fn fitting<'a>(&self, upstreams: &'a Upstreams, question: &Question) -> SmallVec<[&'a Candidate; 16]> {
        let caller = question.address();
        fitting(upstreams, caller, || self.shared.node_of(caller), &Admitted::All)
    }

    /// What the proxy answers by itself, where every request to this port ends so, or every one that this route takes.
    fn refuses(&self, port: &Port, taken: Option<usize>, question: &Question) -> Option<Reason> {
        let is_usable = |backend: &BackendPort| !self.fitting(&backend.upstreams.load(), question).is_empty();
        let refuses = |backend: &Arc<BackendPort>| {
            let used = is_usable(backend) || port.fallback_of(backend).is_some_and(|to| is_usable(to));
            (!used).then_some(Reason::NoEndpoints)
        };
        let number = match taken {
            Some(number) => number,
            // What a request is decides.
            None if port.routes.iter().any(|route| route.rule.is_some()) => return None,
            None => 0,
        };
        let Some(route) = port.routes.get(number) else {
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
