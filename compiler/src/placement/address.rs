//! Which address and which listening port a Service has.
//!
//! Everything here is a function of the set of Services alone, oldest first: so a new Service never moves an older
//! one, and a restart moves nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ahash::{AHashMap, AHashSet};
use ipnet::IpNet;
use maesh_config::ServiceName;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    facts::{Fact, View},
    plan::service::{Age, Plan},
};

/// Where names lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// One range on this machine: its first host is the shared address, the rest are own addresses.
    Range(Range),
    /// Proxies of a cluster; own addresses are Services there.
    Cluster,
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range(IpNet);

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a range cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRange {
    /// It has too few addresses.
    #[error("{0} is too small for own addresses: use a /24 or wider (/120 for IPv6), for example 127.77.0.0/16")]
    TooSmall(IpNet),
    /// It is an address in a range, and not the range.
    #[error("{0} is an address and not a range: write {range}", range = .0.trunc())]
    NotTruncated(IpNet),
}

impl Range {
    /// A range of at least 256 addresses.
    ///
    /// # Errors
    /// If it is smaller, or does not begin with its first address.
    pub fn new(net: IpNet) -> Result<Self, BadRange> {
        if net != net.trunc() {
            return Err(BadRange::NotTruncated(net));
        }
        if net.max_prefix_len() - net.prefix_len() < 8 { Err(BadRange::TooSmall(net)) } else { Ok(Self(net)) }
    }

    /// The addresses by which it can be told whether all of them are one machine's: the shared one, the first and the last
    /// own one.
    pub fn samples(&self) -> [IpAddr; 3] {
        [self.shared(), self.at(1), self.at(self.slots())]
    }

    /// All of it.
    pub(crate) fn net(&self) -> IpNet {
        self.0
    }

    /// The shared address.
    pub fn shared(&self) -> IpAddr {
        self.at(0)
    }

    /// How many own addresses there are: all but network, shared and the last one; at most 2^24.
    fn slots(&self) -> u64 {
        let bits = (self.0.max_prefix_len() - self.0.prefix_len()).min(24);
        (1 << bits) - 3
    }

    /// The host at `index`, from 0.
    fn at(&self, index: u64) -> IpAddr {
        match self.0 {
            // At most 2^24 hosts, so neither cast cuts anything off.
            IpNet::V4(net) => Ipv4Addr::from(u32::from(net.network()) + 1 + index as u32).into(),
            IpNet::V6(net) => Ipv6Addr::from(u128::from(net.network()) + 1 + u128::from(index)).into(),
        }
    }
}

/// Own addresses of these Services: by hash of namespace/name, further on where an older one has it. A Service that
/// is not in the result found none.
pub(crate) fn own_addresses<'a>(
    range: &Range,
    oldest_first: impl Iterator<Item = &'a Age>,
) -> AHashMap<ServiceName, IpAddr> {
    let slots = range.slots();
    let mut taken = AHashSet::new();
    let mut given = AHashMap::new();
    for age in oldest_first {
        if taken.len() as u64 == slots {
            break;
        }
        let mut slot = xxh3_64(age.name.to_string().as_bytes()) % slots;
        while !taken.insert(slot) {
            slot = (slot + 1) % slots;
        }
        given.insert(age.name.clone(), range.at(1 + slot));
    }
    given
}

/// Distances at which a listening port is looked for in place of one that the system refuses.
fn elsewhere(port: u16) -> impl Iterator<Item = u16> {
    (0..6).filter_map(move |step| port.checked_add(8_000 + step * 10_000))
}

/// Listening ports of the shared address, where its Services' ports meet.
#[derive(Debug, Default)]
pub(crate) struct SharedPorts {
    /// Who has which port number, oldest first.
    holders: BTreeMap<u16, BTreeSet<Age>>,
    /// Listening port of each number that cannot be bound itself.
    moved: BTreeMap<u16, u16>,
}

impl SharedPorts {
    pub(crate) fn add(&mut self, plan: &Plan) {
        for port in &plan.ports {
            self.holders.entry(port.number).or_default().insert(plan.age.clone());
        }
    }

    pub(crate) fn remove(&mut self, plan: &Plan) {
        for port in &plan.ports {
            if let Some(holders) = self.holders.get_mut(&port.number) {
                holders.remove(&plan.age);
                if holders.is_empty() {
                    self.holders.remove(&port.number);
                }
            }
        }
    }

    /// Decides where the numbers below `first_bindable` listen. Returns the numbers that listen elsewhere than before.
    pub(crate) fn assign_ports(&mut self, first_bindable: u16) -> BTreeSet<u16> {
        if first_bindable == 0 {
            return BTreeSet::new();
        }
        let oldest = |(number, holders): (&u16, &BTreeSet<Age>)| Some((holders.first()?.clone(), *number));
        let mut by_age: Vec<_> = self.holders.iter().filter_map(oldest).collect();
        // Within one Service, a port that needs no replacement goes first.
        by_age.sort_unstable_by(|(a, m), (b, n)| (a, *m < first_bindable, m).cmp(&(b, *n < first_bindable, n)));
        let mut used = BTreeSet::new();
        let mut moved = BTreeMap::new();
        for (_, number) in by_age {
            if number >= first_bindable {
                used.insert(number);
            } else if let Some(free) = elsewhere(number).find(|port| *port >= first_bindable && used.insert(*port)) {
                moved.insert(number, free);
            }
        }
        let differs = |number: &u16| moved.get(number) != self.moved.get(number);
        let changed = moved.keys().chain(self.moved.keys()).copied().filter(differs).collect();
        self.moved = moved;
        changed
    }

    /// Listening ports of `plan`, in the order of its ports; `None` where there is none left.
    pub(crate) fn listens(&self, plan: &Plan, first_bindable: u16, view: &View<'_>) -> Vec<Option<u16>> {
        listens(plan, first_bindable, |number| {
            view.note(Fact::MovedPort(number));
            self.moved.get(&number).copied()
        })
    }
}

/// Listening ports of a Service on an address that is its alone.
pub(crate) fn own_listens(plan: &Plan, first_bindable: u16) -> Vec<Option<u16>> {
    listens(plan, first_bindable, |_| None)
}

fn listens(plan: &Plan, first_bindable: u16, usual: impl Fn(u16) -> Option<u16>) -> Vec<Option<u16>> {
    let mut used: BTreeSet<_> = plan
        .ports
        .iter()
        .filter(|port| port.number >= first_bindable)
        .map(|port| (port.protocol.transport(), port.number))
        .collect();
    let mut listen = |number: u16, transport| {
        if number >= first_bindable {
            return Some(number);
        }
        let mut candidates = usual(number).into_iter().chain(elsewhere(number));
        candidates.find(|port| *port >= first_bindable && used.insert((transport, *port)))
    };
    plan.ports.iter().map(|port| listen(port.number, port.protocol.transport())).collect()
}
