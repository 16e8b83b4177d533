//! The endpoints that fit a caller, and the choice among them.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
};

use maesh_config::{NodeName, model::Balance};
use smallvec::SmallVec;

use super::{
    Affinity, Candidate, Endpoint, Upstreams,
    hash::{by_hash, of_endpoint},
    least::least,
    p2c::{Load, cheaper_of_two},
    spill::spills,
};
use crate::access::Admitted;

/// Picks an endpoint for `caller`, whose node is `node`, one of those that it is `admitted`
/// to, not one of `avoided` and no ejected one if there is another. The caller's address family and the hints are preferences: once all that they allow have failed, another is picked all the same. `local_only` is a rule.
pub(crate) fn pick(
    upstreams: &Upstreams,
    caller: IpAddr,
    affinity: Affinity,
    node: impl FnOnce() -> Option<NodeName>,
    (avoided, admitted): (&[Arc<Endpoint>], &Admitted),
    now: u32,
    draw: u64,
) -> Option<Arc<Endpoint>> {
    let choice = Choice { upstreams, affinity, now, draw };
    let ejected = upstreams.ejected.is_any(now);
    if avoided.is_empty() && !ejected && !upstreams.hinted && !upstreams.policy.local_only && admitted.is_all() {
        return choice.among(upstreams.of_family_of(caller));
    }
    let mut fitting = fitting(upstreams, caller, node, admitted);
    let may = |candidate: &&Candidate| admitted.has(candidate.account);
    let is_ejected = |candidate: &Candidate| ejected && candidate.endpoint.ejection.is_ejected(now);
    let is_avoided = |candidate: &Candidate| {
        is_ejected(candidate) || avoided.iter().any(|avoided| Arc::ptr_eq(avoided, &candidate.endpoint))
    };
    // Who has a place of its own keeps it while it is usable.
    if ejected && upstreams.hinted && !upstreams.policy.local_only && affinity == Affinity::None {
        let well = fitting.iter().filter(|candidate| !is_ejected(candidate)).count();
        if spills(well, fitting.len(), draw) {
            let far = upstreams.of_family_of(caller).iter().filter(may).filter(|it| !it.near && !is_avoided(it));
            let far: SmallVec<[&Candidate; 16]> = far.collect();
            if !far.is_empty() {
                fitting = far;
            }
        }
    }
    if !upstreams.policy.local_only && fitting.iter().all(|candidate| is_avoided(candidate)) {
        fitting = upstreams.usable.iter().filter(may).collect();
    }
    if fitting.iter().any(|candidate| !is_avoided(candidate)) {
        fitting.retain(|candidate| !is_avoided(candidate));
    }
    choice.among(&fitting)
}

/// Those of the usable endpoints that are meant for this caller: of its address family where there is one, on its node
/// where the policy says so, near where hints say so.
pub(crate) fn fitting<'a>(
    upstreams: &'a Upstreams,
    caller: IpAddr,
    node: impl FnOnce() -> Option<NodeName>,
    admitted: &Admitted,
) -> SmallVec<[&'a Candidate; 16]> {
    let may = |candidate: &&Candidate| admitted.has(candidate.account);
    let family = || upstreams.of_family_of(caller).iter().filter(may);
    if upstreams.policy.local_only {
        // The node is unknown only for callers that are no pods; they get any endpoint.
        let Some(node) = node() else { return family().collect() };
        let on_node = |candidate: &&Candidate| candidate.node.as_ref() == Some(&node);
        let here: SmallVec<_> = family().filter(on_node).collect();
        return if here.is_empty() { upstreams.usable.iter().filter(may).filter(on_node).collect() } else { here };
    }
    if upstreams.hinted {
        let near: SmallVec<_> = family().filter(|candidate| candidate.near).collect();
        if !near.is_empty() {
            return near;
        }
    }
    let family: SmallVec<_> = family().collect();
    // Of another family than all that it may reach.
    if family.is_empty() { upstreams.usable.iter().filter(may).collect() } else { family }
}

/// One choice by the strategy of the backend.
struct Choice<'a> {
    upstreams: &'a Upstreams,
    affinity: Affinity,
    now: u32,
    draw: u64,
}

impl Choice<'_> {
    fn among<T: Load + AsRef<Candidate>>(&self, items: &[T]) -> Option<Arc<Endpoint>> {
        let address = |item: &T| item.as_ref().endpoint.address;
        let picked = match (&self.upstreams.policy.balance, self.affinity) {
            (_, Affinity::Key(key)) => by_hash(items, key, address),
            (Balance::RoundRobin, _) => self.next(items),
            (Balance::LeastRequest, _) => {
                least(items, self.draw, |item| item.as_ref().endpoint.in_flight.load(Ordering::Relaxed))
            }
            (_, Affinity::Endpoint(number)) => {
                let named = items.iter().find(|item| of_endpoint(address(item)) == number);
                named.or_else(|| cheaper_of_two(items, self.now, self.draw))
            }
            _ => cheaper_of_two(items, self.now, self.draw),
        };
        picked.map(|item| item.as_ref().endpoint.clone())
    }

    /// The one whose turn it is.
    fn next<'i, T>(&self, items: &'i [T]) -> Option<&'i T> {
        let turn = self.upstreams.turn.fetch_add(1, Ordering::Relaxed) as usize;
        items.get(turn.checked_rem(items.len())?)
    }
}

impl Load for Candidate {
    #[allow(clippy::cast_precision_loss)]
    fn cost(&self, now: u32) -> f32 {
        let in_flight = self.endpoint.in_flight.load(Ordering::Relaxed);
        self.endpoint.latency.micros(now) * (in_flight + 1) as f32 * self.endpoint.slow_start(now)
    }
}

impl Load for &Candidate {
    fn cost(&self, now: u32) -> f32 {
        Candidate::cost(self, now)
    }
}

impl AsRef<Self> for Candidate {
    fn as_ref(&self) -> &Self {
        self
    }
}
