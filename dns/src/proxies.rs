//! Which proxies a caller may be sent to.
//!
//! The answer is the ready proxy of the caller's own node, one address: resolvers reorder lists, so a list cannot
//! express a preference. Where the caller's node is unknown or has none, it is a few of the others, taken in turn. A
//! proxy counts for a name only once it listens on all ports of that name: nobody is sent to what does not serve yet.
//!
//! Everything is worked out when proxies change, so a query reads one slice.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

/// Proxies named in an answer that cannot be local. Small enough for 512 bytes, large enough to survive two failures.
pub(crate) const SPREAD: usize = 3;

/// One proxy as answers name it: at most one address of each family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Number of its node.
    pub(crate) node: u32,
    /// Number of the set of ports that it listens on.
    pub(crate) class: u32,
    /// Its IPv4 address.
    pub(crate) v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub(crate) v6: Option<Ipv6Addr>,
}

/// The proxies of one moment, as queries need them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    /// Ready ones, by node.
    ready: Arc<[Target]>,
    /// Where the proxies of node `n` lie in `ready`: from `starts[n]` to `starts[n + 1]`.
    starts: Box<[u32]>,
    /// By number of a set of ports: which of the ready ones listen on all of it.
    usable: Box<[Usable]>,
    /// While none is ready: the last ones that were; all known ones if none ever was.
    last: Arc<[Target]>,
    /// Number of proxies known, ready or not.
    known: usize,
}

/// Who listens on one set of ports.
#[derive(Clone, Debug, Default)]
struct Usable {
    /// By class: its proxies do.
    classes: Box<[bool]>,
    /// Those of `ready` that do.
    targets: Arc<[Target]>,
}

/// A set of ports by its number, sorted.
pub(crate) type Ports<'a> = (u32, &'a [u16]);

/// The proxies chosen for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice<'a> {
    /// The one on the caller's node.
    Local(&'a Target),
    /// Up to [`SPREAD`] of these, taken in turn.
    Spread(&'a [Target]),
    /// None listens on what is needed.
    Nobody,
}

impl Proxies {
    /// Works out everything from the ready proxies, the names' `sets` of ports, and the `classes` of ports listened on.
    pub(crate) fn new<'a>(
        mut ready: Vec<Target>,
        known: usize,
        last: Arc<[Target]>,
        sets: impl Iterator<Item = Ports<'a>>,
        classes: &[Ports<'_>],
    ) -> Self {
        // Stable: of two proxies on one node (a rollout) every query gets the same.
        ready.sort_by_key(|target| target.node);
        let nodes = ready.last().map_or(0, |target| target.node as usize + 1);
        let mut starts = vec![0; nodes + 1];
        for target in &ready {
            starts[target.node as usize + 1] += 1;
        }
        for node in 0..nodes {
            starts[node + 1] += starts[node];
        }
        let ready: Arc<[Target]> = ready.into();
        let bound = classes.iter().map(|(class, _)| *class as usize + 1).max().unwrap_or(0);
        let mut usable = Vec::new();
        for (set, ports) in sets {
            let mut listens = vec![false; bound].into_boxed_slice();
            for (class, listening) in classes {
                listens[*class as usize] = ports.iter().all(|port| listening.binary_search(port).is_ok());
            }
            let does = |target: &Target| listens.get(target.class as usize).copied().unwrap_or(false);
            // Nearly always all of them do; then the list is shared.
            let targets = if ready.iter().all(does) {
                ready.clone()
            } else {
                ready.iter().filter(|t| does(t)).cloned().collect()
            };
            if usable.len() <= set as usize {
                usable.resize(set as usize + 1, Usable::default());
            }
            usable[set as usize] = Usable { classes: listens, targets };
        }
        Self { ready, starts: starts.into(), usable: usable.into(), last, known }
    }

    /// The proxies that serve everything in the set of ports `set` for a caller on `node`.
    pub(crate) fn nearest(&self, set: u32, node: Option<u32>) -> Choice<'_> {
        let Some(usable) = self.usable.get(set as usize) else { return Choice::Nobody };
        let does = |target: &&Target| usable.classes.get(target.class as usize).copied().unwrap_or(false);
        if let Some(local) = node.and_then(|node| self.on(node).iter().find(does)) {
            return Choice::Local(local);
        }
        spread(&usable.targets)
    }

    /// Whether `target` listens on everything in the set of ports `set`.
    pub(crate) fn serves(&self, set: u32, target: &Target) -> bool {
        let usable = self.usable.get(set as usize);
        usable.is_some_and(|usable| usable.classes.get(target.class as usize).copied().unwrap_or(false))
    }

    /// The proxies to name when [`Proxies::nearest`] knows nobody and the plain address is not allowed: ready ones
    /// that may not listen yet, else the last known ones. A refused connection, not an unprotected one.
    pub(crate) fn last_known(&self, node: Option<u32>) -> Choice<'_> {
        if let Some(local) = node.and_then(|node| self.on(node).first()) {
            return Choice::Local(local);
        }
        if !self.ready.is_empty() {
            return spread(&self.ready);
        }
        match node.and_then(|node| self.last.iter().find(|target| target.node == node)) {
            Some(local) => Choice::Local(local),
            None => spread(&self.last),
        }
    }

    /// So few are ready that they would be crushed: none, or fewer than a tenth of those known.
    pub(crate) fn collapsed(&self) -> bool {
        self.ready.is_empty() || self.ready.len() * 10 < self.known
    }

    /// The ready ones.
    pub(crate) fn ready(&self) -> &Arc<[Target]> {
        &self.ready
    }

    /// Number of proxies known, ready or not.
    pub(crate) fn known(&self) -> usize {
        self.known
    }

    /// The ready ones of a node.
    fn on(&self, node: u32) -> &[Target] {
        let node = node as usize;
        match (self.starts.get(node), self.starts.get(node + 1)) {
            (Some(&from), Some(&to)) => self.ready.get(from as usize..to as usize).unwrap_or_default(),
            _ => &[],
        }
    }
}

/// Those of `targets`, unless there are none.
fn spread(targets: &[Target]) -> Choice<'_> {
    if targets.is_empty() { Choice::Nobody } else { Choice::Spread(targets) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: u32 = 0;
    const ALL: u32 = 1;

    /// Proxies given as node and class; class 0 listens on 80, class 1 on 80 and 90.
    fn proxies(ready: &[(u32, u32)], last: &[(u32, u32)], known: usize) -> Proxies {
        let target = |&(node, class): &(u32, u32)| Target {
            node,
            class,
            v4: Some(Ipv4Addr::new(10, 0, node as u8, class as u8)),
            v6: None,
        };
        let sets: [Ports<'_>; 2] = [(WEB, &[80]), (ALL, &[80, 90])];
        Proxies::new(
            ready.iter().map(target).collect(),
            known,
            last.iter().map(target).collect(),
            sets.into_iter(),
            &[(0, &[80]), (1, &[80, 90])],
        )
    }

    fn nodes(choice: Choice<'_>) -> (&'static str, Vec<u32>) {
        match choice {
            Choice::Local(target) => ("local", vec![target.node]),
            Choice::Spread(targets) => ("spread", targets.iter().map(|target| target.node).collect()),
            Choice::Nobody => ("nobody", vec![]),
        }
    }

    #[test]
    fn nearest_prefers_the_callers_node() {
        for (case, ready, set, node, want) in [
            ("local one ready", &[(0, 0), (1, 0)][..], WEB, Some(1), ("local", vec![1])),
            ("local one not ready", &[(0, 0), (2, 0)], WEB, Some(1), ("spread", vec![0, 2])),
            ("local one lacks a port", &[(0, 1), (1, 0), (2, 1)], ALL, Some(1), ("spread", vec![0, 2])),
            ("two on a node, one has the port", &[(1, 0), (1, 1)], ALL, Some(1), ("local", vec![1])),
            ("caller unknown", &[(0, 0), (2, 0)], WEB, None, ("spread", vec![0, 2])),
            ("node beyond the table", &[(0, 0)], WEB, Some(7), ("spread", vec![0])),
            ("nobody listens", &[(0, 0)], ALL, Some(0), ("nobody", vec![])),
            ("nobody ready", &[], WEB, Some(0), ("nobody", vec![])),
            ("a set that is not known yet", &[(0, 0)], 9, Some(0), ("nobody", vec![])),
        ] {
            assert_eq!(nodes(proxies(ready, &[], 3).nearest(set, node)), want, "{case}");
        }
    }

    #[test]
    fn last_known_ones() {
        for (case, ready, last, node, want) in [
            ("ready on the node, whatever its ports", &[(0, 0), (1, 0)][..], &[][..], Some(1), ("local", vec![1])),
            ("ready elsewhere", &[(0, 0)], &[(1, 0)], Some(1), ("spread", vec![0])),
            ("was ready on the node", &[], &[(0, 0), (1, 0)], Some(1), ("local", vec![1])),
            ("was ready elsewhere", &[], &[(0, 0), (2, 0)], Some(1), ("spread", vec![0, 2])),
            ("never any", &[], &[], Some(1), ("nobody", vec![])),
        ] {
            assert_eq!(nodes(proxies(ready, last, 3).last_known(node)), want, "{case}");
        }
    }

    #[test]
    fn collapse() {
        for (ready, known, want) in [(0, 0, true), (0, 5, true), (1, 1, false), (1, 10, false), (1, 11, true)] {
            let ready: Vec<_> = (0..ready).map(|node| (node, 0)).collect();
            assert_eq!(proxies(&ready, &[], known).collapsed(), want, "{} of {known}", ready.len());
        }
    }
}
