//! Where a caller is.
//!
//! CoreDNS asks on behalf of pods, so the source of a packet is mostly the cluster's DNS; the caller's own address comes
//! in the EDNS Client Subnet that the stanza sets. An address is looked up as a pod or node, then by the longest pod
//! range that holds it. Two CoreDNS pods must not attract every caller to their two nodes: a source that is known to be
//! a resolver says nothing.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ahash::RandomState;
use ipnet::IpNet;

use crate::sharded::Sharded;

/// What is known of one address, in four bytes: the number of its node, or one of two special values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressNode(u32);

impl AddressNode {
    /// A resolver of the cluster, which asks for callers everywhere.
    pub(crate) const RESOLVER: Self = Self(u32::MAX);
    /// Known, but on no node.
    pub(crate) const NOWHERE: Self = Self(u32::MAX - 1);

    /// On the node of this number.
    pub(crate) fn node(number: u32) -> Self {
        Self(number)
    }

    /// The number of its node.
    pub(crate) fn on(self) -> Option<u32> {
        (self.0 < Self::NOWHERE.0).then_some(self.0)
    }
}

/// How the caller's node was determined: the label `found` of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallerLookup {
    /// By the client subnet of the query.
    Subnet,
    /// By the source of the packet.
    Source,
    /// A client subnet came, and nothing is known of its address.
    UnknownSubnet,
    /// No client subnet came, and nothing is known of the packet's source, or it is a resolver.
    NoSubnet,
}

impl CallerLookup {
    /// Every outcome, with its name in the metrics.
    pub(crate) const ALL: [(Self, &'static str); 4] = [
        (Self::Subnet, "subnet"),
        (Self::Source, "source"),
        (Self::UnknownSubnet, "unknown_subnet"),
        (Self::NoSubnet, "no_subnet"),
    ];
}

/// The node of an address, and how it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressLocation {
    /// On this node: the address itself is known.
    Known(u32),
    /// On this node, by the range that holds it, which has a prefix of this length.
    InRange(u32, u8),
    /// It is a resolver's: who asks through it may be anywhere.
    Resolver,
    /// Nothing is known of it.
    Nowhere,
}

/// Every address and range whose node is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressNodes {
    v4: Sharded<u32, AddressNode>,
    v6: Sharded<u128, AddressNode>,
    ranges: Arc<Ranges>,
}

/// Pod ranges by prefix length, longest first. Clusters use one or two lengths, so a lookup is one or two probes.
#[derive(Clone, Debug, Default)]
struct Ranges {
    v4: Vec<(u8, HashMap<u32, u32, RandomState>)>,
    v6: Vec<(u8, HashMap<u128, u32, RandomState>)>,
}

impl AddressNodes {
    /// Finds the caller's node: by `subnet`, the address of a client subnet of full length, if there is one, else by
    /// the packet's `source`.
    pub(crate) fn caller(&self, subnet: Option<IpAddr>, source: IpAddr) -> (Option<u32>, CallerLookup) {
        match subnet {
            Some(address) => match self.node_of(address.to_canonical()) {
                Some(node) => (Some(node), CallerLookup::Subnet),
                None => (None, CallerLookup::UnknownSubnet),
            },
            None => match self.node_of(source.to_canonical()) {
                Some(node) => (Some(node), CallerLookup::Source),
                None => (None, CallerLookup::NoSubnet),
            },
        }
    }

    /// The node of a canonical address.
    fn node_of(&self, address: IpAddr) -> Option<u32> {
        match self.locate(address) {
            AddressLocation::Known(node) | AddressLocation::InRange(node, _) => Some(node),
            AddressLocation::Resolver | AddressLocation::Nowhere => None,
        }
    }

    /// Where a canonical address is. What is known of exactly this address comes first; a resolver is nowhere that
    /// matters.
    pub(crate) fn locate(&self, address: IpAddr) -> AddressLocation {
        let exact = match address {
            IpAddr::V4(v4) => self.v4.get(&v4.to_bits()),
            IpAddr::V6(v6) => self.v6.get(&v6.to_bits()),
        };
        match exact.map(|place| (*place, place.on())) {
            Some((AddressNode::RESOLVER, _)) => AddressLocation::Resolver,
            Some((_, Some(node))) => AddressLocation::Known(node),
            _ => self
                .ranges
                .longest(address)
                .map_or(AddressLocation::Nowhere, |(node, length)| AddressLocation::InRange(node, length)),
        }
    }

    /// Sets what is known of one address; returns what was.
    pub(crate) fn set(&mut self, address: IpAddr, place: AddressNode) -> Option<AddressNode> {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.insert(v4.to_bits(), place),
            IpAddr::V6(v6) => self.v6.insert(v6.to_bits(), place),
        }
    }

    /// Forgets one address; returns what was known.
    pub(crate) fn unset(&mut self, address: IpAddr) -> Option<AddressNode> {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.remove(&v4.to_bits()),
            IpAddr::V6(v6) => self.v6.remove(&v6.to_bits()),
        }
    }

    /// Says that the addresses of `range` are on `node`; returns the node that it had.
    pub(crate) fn set_range(&mut self, range: IpNet, node: u32) -> Option<u32> {
        let ranges = Arc::make_mut(&mut self.ranges);
        match range {
            IpNet::V4(net) => of_length(&mut ranges.v4, net.prefix_len()).insert(net.network().to_bits(), node),
            IpNet::V6(net) => of_length(&mut ranges.v6, net.prefix_len()).insert(net.network().to_bits(), node),
        }
    }

    /// Forgets a range; returns the node that it had.
    pub(crate) fn unset_range(&mut self, range: IpNet) -> Option<u32> {
        let ranges = Arc::make_mut(&mut self.ranges);
        match range {
            IpNet::V4(net) => of_length(&mut ranges.v4, net.prefix_len()).remove(&net.network().to_bits()),
            IpNet::V6(net) => of_length(&mut ranges.v6, net.prefix_len()).remove(&net.network().to_bits()),
        }
    }

    /// Number of single addresses known.
    pub(crate) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }
}

impl Ranges {
    /// The node of the longest range that holds `address`, and the length of its prefix.
    fn longest(&self, address: IpAddr) -> Option<(u32, u8)> {
        match address {
            IpAddr::V4(v4) => {
                let at = |length: u8| v4.to_bits() & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                self.v4.iter().find_map(|(length, nets)| Some((*nets.get(&at(*length))?, *length)))
            }
            IpAddr::V6(v6) => {
                let at = |length: u8| v6.to_bits() & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                self.v6.iter().find_map(|(length, nets)| Some((*nets.get(&at(*length))?, *length)))
            }
        }
    }
}

/// The table of one prefix length, made in its place if there is none.
fn of_length<N>(tables: &mut Vec<(u8, HashMap<N, u32, RandomState>)>, length: u8) -> &mut HashMap<N, u32, RandomState> {
    let at = match tables.binary_search_by(|(have, _)| length.cmp(have)) {
        Ok(at) => at,
        Err(at) => {
            tables.insert(at, (length, HashMap::default()));
            at
        }
    };
    &mut tables[at].1
}

/// `address` with everything after the first `length` bits cleared.
pub(crate) fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn places() -> AddressNodes {
        let mut places = AddressNodes::default();
        places.set(ip("10.1.0.9"), AddressNode::node(1));
        places.set(ip("10.9.9.9"), AddressNode::node(2));
        places.set(ip("10.1.0.53"), AddressNode::RESOLVER);
        places.set(ip("10.1.0.60"), AddressNode::NOWHERE);
        places.set(ip("fd00::9"), AddressNode::node(4));
        for (range, node) in [("10.1.0.0/16", 5), ("10.1.0.0/24", 6), ("fd00:7::/64", 7), ("0.0.0.0/0", 8)] {
            places.set_range(range.parse().expect("a range"), node);
        }
        places
    }

    #[test]
    fn a_callers_node() {
        let places = places();
        let (resolver, pod) = ("10.1.0.53", "10.9.9.9");
        for (case, subnet, source, want) in [
            ("pod by subnet", Some("10.1.0.9"), resolver, (Some(1), CallerLookup::Subnet)),
            ("subnet beats source", Some("10.1.0.9"), pod, (Some(1), CallerLookup::Subnet)),
            ("pod by source", None, pod, (Some(2), CallerLookup::Source)),
            ("a resolver's place says nothing", None, resolver, (None, CallerLookup::NoSubnet)),
            ("not even as subnet", Some(resolver), pod, (None, CallerLookup::UnknownSubnet)),
            ("longest range", Some("10.1.0.77"), resolver, (Some(6), CallerLookup::Subnet)),
            ("shorter range", Some("10.1.7.77"), resolver, (Some(5), CallerLookup::Subnet)),
            ("a pod on no node yet is found by range", Some("10.1.0.60"), resolver, (Some(6), CallerLookup::Subnet)),
            ("the range of everything", Some("192.0.2.1"), resolver, (Some(8), CallerLookup::Subnet)),
            ("v6 pod", Some("fd00::9"), resolver, (Some(4), CallerLookup::Subnet)),
            ("v6 range", Some("fd00:7::1"), resolver, (Some(7), CallerLookup::Subnet)),
            ("v6 unknown", Some("fd00:8::1"), pod, (None, CallerLookup::UnknownSubnet)),
            ("mapped source", None, "::ffff:10.9.9.9", (Some(2), CallerLookup::Source)),
            ("mapped subnet", Some("::ffff:10.1.0.9"), resolver, (Some(1), CallerLookup::Subnet)),
        ] {
            assert_eq!(places.caller(subnet.map(ip), ip(source)), want, "{case}");
        }
    }

    #[test]
    fn what_is_removed_is_unknown() {
        let mut places = places();
        assert_eq!(places.unset_range("10.1.0.0/24".parse().expect("a range")), Some(6));
        assert_eq!(places.unset(ip("::ffff:10.9.9.9")), Some(AddressNode::node(2)));
        assert_eq!(places.caller(Some(ip("10.1.0.77")), ip("10.9.9.9")), (Some(5), CallerLookup::Subnet));
    }

    #[test]
    fn masks() {
        for (address, length, want) in [
            ("10.1.2.3", 32, "10.1.2.3"),
            ("10.1.2.3", 20, "10.1.0.0"),
            ("10.1.2.3", 0, "0.0.0.0"),
            ("fd00::1:2", 112, "fd00::1:0"),
            ("fd00::1:2", 0, "::"),
        ] {
            assert_eq!(masked(ip(address), length), ip(want), "{address}/{length}");
        }
    }
}
