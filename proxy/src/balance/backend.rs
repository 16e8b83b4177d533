//! Ports of Services as backends, and their endpoints.
//!
//! An endpoint keeps its identity while its address stays: what was learnt of it and the connections to it survive
//! every change of the set around it. One that leaves the set is retired at once: nothing idle is kept to it, and
//! nothing is put back.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use arc_swap::ArcSwap;
use maesh_config::{
    NodeName, ServiceName,
    model::{self, BackendPolicy, Scheme},
    policy::{EndpointTls, TlsRoots},
};
use smallvec::SmallVec;

use super::{Latency, Shares, WaitingRequests};
use crate::{
    access::{Access, AccessFacts},
    policy::{BackendEvent, Breaker, Counts, EjectedUntil, Ejection},
    upstream::{Peer, Tls},
};

/// Where the proxy is, as the hints of endpoints name it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Locality {
    /// Its node.
    pub(crate) node: Option<NodeName>,
    /// Zone of that node.
    pub(crate) zone: Option<Arc<str>>,
}

/// A port of a Service that requests are sent to.
pub(crate) struct BackendPort {
    /// The Service.
    pub(crate) service: ServiceName,
    /// Policy and endpoints, as of one moment.
    pub(crate) upstreams: ArcSwap<Upstreams>,
    /// Requests in flight.
    in_flight: AtomicU32,
    /// The same, of each caller.
    pub(crate) shares: Arc<Shares>,
    /// Whether any endpoint is ejected.
    ejected: EjectedUntil,
    /// Whose turn it is.
    turn: Arc<AtomicU32>,
    /// Requests that wait for a place among those in flight.
    pub(crate) queue: Arc<WaitingRequests>,
    /// Its circuit breaker.
    pub(crate) breaker: Breaker,
    /// How often policies acted.
    pub(crate) counts: Counts,
}

/// What happens on a backend port at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackendSeen {
    /// Requests in flight.
    pub(crate) in_flight: u32,
    /// Endpoints that may be used, without those that are ejected.
    pub(crate) usable: usize,
    /// Endpoints that are ejected.
    pub(crate) ejected: usize,
}

/// Policy and endpoints of a backend port.
pub(crate) struct Upstreams {
    /// How endpoints are spoken to and picked.
    pub(crate) policy: Arc<BackendPolicy>,
    /// Whom they have to be, if they are spoken to over TLS.
    pub(crate) tls: Option<Arc<Tls>>,
    /// Who may reach them, where access control is on.
    pub(crate) access: Arc<Access>,
    /// Those that may be used now: the ready ones, or while there is none those that still serve.
    pub(crate) usable: Vec<Candidate>,
    /// How many of them are IPv4; those come first.
    ipv4: usize,
    /// Some candidate is meant for some callers only.
    pub(crate) hinted: bool,
    /// Whether any of them is ejected.
    pub(crate) ejected: EjectedUntil,
    /// Whose turn it is.
    pub(crate) turn: Arc<AtomicU32>,
    /// Every endpoint of the set, usable or not, so that none loses its identity by a change of condition; with the place of its
    /// ServiceAccount. Sorted by address.
    all: Vec<(Arc<Endpoint>, Option<u16>)>,
}

impl Upstreams {
    /// The place of the ServiceAccount that an endpoint belongs to; `None` where there is no such endpoint.
    pub(crate) fn account_of(&self, address: SocketAddr) -> Option<Option<u16>> {
        let found = self.all.binary_search_by_key(&address, |(endpoint, _)| endpoint.address);
        found.ok().map(|at| self.all[at].1)
    }

    /// Whether one of the endpoints has this address, on any port.
    pub(crate) fn has_endpoint_at(&self, address: IpAddr) -> bool {
        self.all.iter().any(|(endpoint, _)| endpoint.address.ip().to_canonical() == address)
    }
}

/// An endpoint, and who should use it.
pub(crate) struct Candidate {
    /// The endpoint.
    pub(crate) endpoint: Arc<Endpoint>,
    /// Node it runs on.
    pub(crate) node: Option<NodeName>,
    /// It is hinted to this proxy's own node, or zone; see [`Hints`].
    pub(crate) near: bool,
    /// Place in the [`Access`] of the ServiceAccount that it belongs to.
    pub(crate) account: Option<u16>,
}

/// One address and target port.
pub(crate) struct Endpoint {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Requests in flight on it.
    pub(crate) in_flight: AtomicU32,
    /// What is learnt of its answers.
    pub(crate) latency: Latency,
    /// What is learnt of its failures.
    pub(crate) ejection: Ejection,
    /// When it joined others that were there already (milliseconds of a clock that wraps).
    joined: Option<u32>,
    /// Connections to it.
    pub(crate) peer: Arc<Peer>,
}

/// How long an endpoint that joined others gets fewer requests than they, in milliseconds.
const SLOW_START: u32 = 10_000;

impl Endpoint {
    fn new(address: SocketAddr, joined: Option<u32>) -> Arc<Self> {
        Arc::new(Self {
            address,
            joined,
            in_flight: AtomicU32::new(0),
            latency: Latency::default(),
            ejection: Ejection::default(),
            peer: Peer::new(address),
        })
    }

    /// How many times dearer it counts than it is, because it has only just started and may have to warm up: 10 at first,
    /// 1 in the end.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn slow_start(&self, now: u32) -> f32 {
        let Some(joined) = self.joined else { return 1.0 };
        let age = now.wrapping_sub(joined);
        if age >= SLOW_START { 1.0 } else { SLOW_START as f32 / age.max(SLOW_START / 10) as f32 }
    }

    /// It left its Service, or is about to: nothing new is sent to it.
    pub(crate) fn is_gone(&self) -> bool {
        self.peer.is_retired()
    }
}

impl Upstreams {
    fn new(
        policy: Arc<BackendPolicy>,
        usable: Vec<Candidate>,
        hinted: bool,
        all: Vec<(Arc<Endpoint>, Option<u16>)>,
        (ejected, turn): (EjectedUntil, Arc<AtomicU32>),
        tls: Option<Arc<Tls>>,
        access: Arc<Access>,
    ) -> Self {
        let ipv4 = usable.partition_point(|candidate| candidate.endpoint.address.is_ipv4());
        Self { policy, tls, access, usable, ipv4, hinted, ejected, turn, all }
    }

    /// The usable endpoints of the caller's address family; where there is none, all of them.
    pub(crate) fn of_family_of(&self, caller: IpAddr) -> &[Candidate] {
        let (ipv4, ipv6) = self.usable.split_at(self.ipv4);
        let family = if caller.is_ipv4() { ipv4 } else { ipv6 };
        if family.is_empty() { &self.usable } else { family }
    }
}

impl BackendPort {
    /// A backend port without endpoints.
    pub(crate) fn new(service: ServiceName, policy: Arc<BackendPolicy>) -> Self {
        let (ejected, turn) = (EjectedUntil::default(), Arc::<AtomicU32>::default());
        let tls = identity(&policy, None);
        let shared = (ejected.clone(), turn.clone());
        let upstreams = Upstreams::new(policy, Vec::new(), false, Vec::new(), shared, tls, Arc::default());
        Self {
            service,
            upstreams: ArcSwap::from_pointee(upstreams),
            in_flight: AtomicU32::new(0),
            shares: Arc::default(),
            ejected,
            turn,
            queue: Arc::default(),
            breaker: Breaker::default(),
            counts: Counts::default(),
        }
    }

    /// What happens on it at `now`.
    pub(crate) fn seen(&self, now: u32) -> BackendSeen {
        let upstreams = self.upstreams.load();
        let ejected = upstreams.usable.iter().filter(|candidate| candidate.endpoint.ejection.is_ejected(now)).count();
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        BackendSeen { in_flight, usable: upstreams.usable.len() - ejected, ejected }
    }

    /// Connections to its endpoints that are kept for further requests: unused ones of HTTP/1.1, and all of HTTP/2.
    pub(crate) fn kept_connections(&self) -> (usize, usize) {
        let upstreams = self.upstreams.load();
        let kept = upstreams.all.iter().map(|(endpoint, _)| endpoint.peer.kept());
        kept.fold((0, 0), |(h1, h2), (more1, more2)| (h1 + more1, h2 + more2))
    }

    /// What its snapshots have in common.
    fn shared(&self) -> (EjectedUntil, Arc<AtomicU32>) {
        (self.ejected.clone(), self.turn.clone())
    }

    /// Notes, at `now`, that `endpoint` failed. Returns whether it is ejected for it.
    pub(crate) fn failed(&self, endpoint: &Endpoint, now: u32) -> bool {
        let upstreams = self.upstreams.load();
        let eject = upstreams.policy.eject;
        if !endpoint.ejection.failed(eject.failures, now) {
            return false;
        }
        let ejected = upstreams.usable.iter().filter(|candidate| candidate.endpoint.ejection.is_ejected(now)).count();
        if (ejected + 1) * 100 > upstreams.usable.len() * eject.most_percent as usize {
            return false;
        }
        self.ejected.note(endpoint.ejection.eject(now));
        self.counts.add(BackendEvent::Ejected);
        true
    }

    /// Puts a policy and a set of endpoints, with who may reach them, in force at `now`, as a proxy at `place` uses them, and
    /// retires the endpoints that are no longer usable.
    ///
    /// Returns the retired endpoints that still have requests in flight.
    pub(crate) fn replace(
        &self,
        policy: Arc<BackendPolicy>,
        (endpoints, access): (&[model::Endpoint], &AccessFacts),
        place: &Locality,
        now: u32,
    ) -> SmallVec<[Arc<Endpoint>; 4]> {
        let old = self.upstreams.load_full();
        let any_ready = endpoints.iter().any(|endpoint| endpoint.ready);
        let hints = Hints::of(endpoints, place);
        let usable = |endpoint: &model::Endpoint| if any_ready { endpoint.ready } else { endpoint.serving };
        let mut all = Vec::with_capacity(endpoints.len());
        let mut candidates = Vec::with_capacity(endpoints.len());
        for facts in endpoints {
            // Both lists are sorted by address.
            let endpoint = match old.all.binary_search_by_key(&facts.address, |(endpoint, _)| endpoint.address) {
                Ok(found) => old.all[found].0.clone(),
                Err(_) => Endpoint::new(facts.address, (!old.all.is_empty()).then_some(now)),
            };
            if usable(facts) {
                endpoint.peer.reinstate();
                candidates.push(Candidate {
                    endpoint: endpoint.clone(),
                    node: facts.node.clone(),
                    near: hints.are_for(facts, place),
                    account: facts.account,
                });
            }
            all.push((endpoint, facts.account));
        }
        all.sort_unstable_by_key(|(endpoint, _)| endpoint.address);
        candidates.sort_unstable_by_key(|candidate| candidate.endpoint.address);
        let stays = |endpoint: &Arc<Endpoint>| {
            candidates.binary_search_by_key(&endpoint.address, |candidate| candidate.endpoint.address).is_ok()
        };
        let leaving: SmallVec<[Arc<Endpoint>; 4]> =
            old.usable.iter().map(|candidate| &candidate.endpoint).filter(|old| !stays(old)).cloned().collect();
        let tls = identity(&policy, old.tls.as_ref());
        let (hinted, shared) = (hints != Hints::Ignored, self.shared());
        // Endpoints change more often than who may reach them.
        let access = match old.access.is_of(access) {
            true => old.access.clone(),
            false => Arc::new(old.access.replaced_by(access.clone(), now)),
        };
        self.upstreams.store(Arc::new(Upstreams::new(policy, candidates, hinted, all, shared, tls, access)));
        for endpoint in &leaving {
            endpoint.peer.retire();
        }
        leaving.into_iter().filter(|endpoint| endpoint.in_flight.load(Ordering::Relaxed) > 0).collect()
    }

    /// Retires every endpoint: the Service is gone, or no longer in use.
    pub(crate) fn retire(&self) {
        for candidate in &self.upstreams.load().usable {
            candidate.endpoint.peer.retire();
        }
    }
}

/// Whom endpoints have to be, as `policy` says: the `old` identity where that is the same, with its connections and sessions.
fn identity(policy: &BackendPolicy, old: Option<&Arc<Tls>>) -> Option<Arc<Tls>> {
    if policy.scheme != Scheme::Https {
        return None;
    }
    // A controller of an earlier version says nothing of it, so nobody can be verified.
    let unknown = || EndpointTls {
        server_name: "unknown".into(),
        roots: TlsRoots::Unusable("the controller is older than this proxy and does not say whom to trust".into()),
    };
    let asked = policy.tls.as_deref().cloned().unwrap_or_else(unknown);
    Some(old.filter(|old| *old.asked() == asked).cloned().unwrap_or_else(|| Tls::new(asked)))
}

/// Which hints of a set of endpoints hold, as kube-proxy reads them: those of nodes before those of zones, and either only
/// where every ready endpoint has some and one of them is for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hints {
    Ignored,
    Nodes,
    Zones,
}

impl Hints {
    fn of(endpoints: &[model::Endpoint], place: &Locality) -> Self {
        let hold = |hint: fn(&model::Endpoint, &Locality) -> Option<bool>| {
            let mut ready = endpoints.iter().filter(|facts| facts.ready).map(|facts| hint(facts, place));
            ready.try_fold(false, |any, here| here.map(|here| any | here)).unwrap_or(false)
        };
        if hold(to_node) {
            Self::Nodes
        } else if hold(to_zone) {
            Self::Zones
        } else {
            Self::Ignored
        }
    }

    fn are_for(self, facts: &model::Endpoint, place: &Locality) -> bool {
        let here = match self {
            Self::Ignored => None,
            Self::Nodes => to_node(facts, place),
            Self::Zones => to_zone(facts, place),
        };
        here.unwrap_or(false)
    }
}

/// Whether an endpoint is hinted to our node; `None` if to no node.
fn to_node(facts: &model::Endpoint, place: &Locality) -> Option<bool> {
    let here = || place.node.as_ref().is_some_and(|node| facts.for_nodes().contains(node));
    (!facts.for_nodes().is_empty()).then(here)
}

/// Whether an endpoint is hinted to our zone; `None` if to no zone.
fn to_zone(facts: &model::Endpoint, place: &Locality) -> Option<bool> {
    let here = || place.zone.as_ref().is_some_and(|zone| facts.for_zones().contains(zone));
    (!facts.for_zones().is_empty()).then(here)
}

/// A request in flight on a backend port and one of its endpoints; over when dropped.
pub(crate) struct InFlight {
    backend: Arc<BackendPort>,
    endpoint: Option<Arc<Endpoint>>,
}

impl BackendPort {
    /// Whether a request or stream is in flight.
    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }
}

impl InFlight {
    /// Counts a request in, unless `backend` has `limit` in flight already.
    pub(crate) fn enter(backend: &Arc<BackendPort>, limit: u32) -> Option<Self> {
        if backend.in_flight.fetch_add(1, Ordering::Relaxed) >= limit {
            backend.in_flight.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self { backend: backend.clone(), endpoint: None })
    }

    /// Counts a second attempt of the request in, on this endpoint; `None` where the backend has no place left.
    pub(crate) fn beside(&self, endpoint: Arc<Endpoint>) -> Option<Self> {
        let mut second = Self::enter(&self.backend, self.backend.upstreams.load().policy.concurrency)?;
        second.on(endpoint);
        Some(second)
    }

    /// The second attempt is the one that counts.
    pub(crate) fn take_over(&mut self, mut second: Self) {
        std::mem::swap(&mut self.endpoint, &mut second.endpoint);
    }

    /// The Service whose endpoints it is for.
    pub(crate) fn service(&self) -> &ServiceName {
        &self.backend.service
    }

    /// Where it is.
    pub(crate) fn endpoint(&self) -> Option<SocketAddr> {
        self.endpoint.as_ref().map(|endpoint| endpoint.address)
    }

    /// The request is on this endpoint from now on.
    pub(crate) fn on(&mut self, endpoint: Arc<Endpoint>) {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        if let Some(before) = self.endpoint.replace(endpoint) {
            before.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.backend.in_flight.fetch_sub(1, Ordering::Relaxed);
        if let Some(endpoint) = &self.endpoint {
            endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        self.backend.queue.wake_one();
    }
}

#[cfg(test)]
mod tests;
