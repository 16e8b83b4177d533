//! The endpoints that fit a caller, and the choice among them.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
};

use maesh_config::{NodeName, model::Balance};
use smallvec::SmallVec;

use super::{Candidate, Endpoint, Upstreams};
use super::{
    p2c::{Load, cheaper_of_two},
    source::by_source,
};

/// Picks an endpoint for `caller`, whose node is `node`, not one of `avoided` if there is another. The caller's address family and the hints are
/// preferences: once all that they allow have failed, another is picked all the same. `local_only` is a rule.
pub(crate) fn pick(
    upstreams: &Upstreams,
    caller: IpAddr,
    node: impl FnOnce() -> Option<NodeName>,
    avoided: &[Arc<Endpoint>],
    now: u32,
    draw: u64,
) -> Option<Arc<Endpoint>> {
    let balance = upstreams.policy.balance;
    if avoided.is_empty() && !upstreams.hinted && !upstreams.policy.local_only {
        return among(upstreams.of_family_of(caller), balance, caller, now, draw);
    }
    let mut fitting = fitting(upstreams, caller, node);
    let is_avoided = |candidate: &Candidate| avoided.iter().any(|avoided| Arc::ptr_eq(avoided, &candidate.endpoint));
    if !upstreams.policy.local_only && fitting.iter().all(|candidate| is_avoided(candidate)) {
        fitting = upstreams.usable.iter().collect();
    }
    if fitting.iter().any(|candidate| !is_avoided(candidate)) {
        fitting.retain(|candidate| !is_avoided(candidate));
    }
    among(&fitting, balance, caller, now, draw)
}

/// Those of the usable endpoints that are meant for this caller: of its address family where there is one, on its node
/// where the policy says so, near where hints say so.
pub(crate) fn fitting(
    upstreams: &Upstreams,
    caller: IpAddr,
    node: impl FnOnce() -> Option<NodeName>,
) -> SmallVec<[&Candidate; 16]> {
    let family = upstreams.of_family_of(caller);
    if upstreams.policy.local_only {
        // The node is unknown only for callers that are no pods; they get any endpoint.
        let Some(node) = node() else { return family.iter().collect() };
        let on_node = |candidate: &&Candidate| candidate.node.as_ref() == Some(&node);
        let here: SmallVec<_> = family.iter().filter(on_node).collect();
        return if here.is_empty() { upstreams.usable.iter().filter(on_node).collect() } else { here };
    }
    if upstreams.hinted {
        let near: SmallVec<_> = family.iter().filter(|candidate| candidate.near).collect();
        if !near.is_empty() {
            return near;
        }
    }
    family.iter().collect()
}

fn among<T: Load + AsRef<Candidate>>(
    items: &[T],
    balance: Balance,
    caller: IpAddr,
    now: u32,
    draw: u64,
) -> Option<Arc<Endpoint>> {
    let picked = match balance {
        Balance::P2c => cheaper_of_two(items, now, draw),
        Balance::SourceHash { .. } => by_source(items, caller, |item| item.as_ref().endpoint.address),
    };
    picked.map(|item| item.as_ref().endpoint.clone())
}

impl Load for Candidate {
    #[allow(clippy::cast_precision_loss)]
    fn cost(&self, now: u32) -> f32 {
        let in_flight = self.endpoint.in_flight.load(Ordering::Relaxed);
        self.endpoint.latency.micros(now) * (in_flight + 1) as f32
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
