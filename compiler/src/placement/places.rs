//! Where Services stand that have an own address in a cluster: what the Services `maesh-own-N` say, and which of their
//! ports the EndpointSlices lead to a ready proxy.
//!
//! Both are objects like all others, so every replica says the same of them, and knows all of it when it has read
//! everything once. Only how long a port has been listed is a matter of time: kube-proxy on the callers' nodes needs a
//! moment to do as the slices say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use ahash::AHashMap;
use maesh_config::{ServiceName, model::Transport};

use crate::{
    kinds::{self, EndpointSlice},
    own_address::{self, AddressRequest},
    plan::service::Plan,
};

/// One port of the proxies behind an own address, for callers of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct ProxyPort {
    number: u32,
    listen: u16,
    transport: Transport,
    v6: bool,
}

/// An own address, as its Service says.
#[derive(Debug, Default, PartialEq, Eq)]
struct OwnAddress {
    addresses: Vec<IpAddr>,
    ports: own_address::Ports,
}

/// Where a Service stands with all of its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnAddressPlace {
    number: u32,
    /// The proxies' ports, in the order of the Service's.
    listens: Vec<(u16, Transport)>,
}

impl OwnAddressPlace {
    /// Whether `of` is one of its ports.
    pub(crate) fn has(&self, of: Listen) -> bool {
        self.listens.contains(&(of.listen, of.transport))
    }
}

/// A port of a Service to which a port of the proxies belongs, still or yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listen {
    pub(crate) listen: u16,
    pub(crate) transport: Transport,
    pub(crate) number: u16,
}

/// Whether callers can be sent somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// At these addresses; of a family that is to follow, from then on.
    At(Vec<IpAddr>, Option<Instant>),
    /// Not before then; `None`: not before the slices say so.
    NotBefore(Option<Instant>),
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct OwnAddresses {
    given: BTreeMap<u32, OwnAddress>,
    /// Own addresses that mention a Service.
    of: AHashMap<ServiceName, BTreeSet<u32>>,
    /// Since when a port is listed.
    listed: BTreeMap<ProxyPort, Instant>,
}

impl OwnAddresses {
    /// Takes in an own address's Service; `None` if it is gone. Returns the Services for which that is news.
    pub(crate) fn given(&mut self, number: u32, service: Option<&kinds::Service>) -> BTreeSet<ServiceName> {
        let ports = service.and_then(|service| own_address::read_ports(service.own_ports.as_deref()?));
        let mut new = OwnAddress { ports: ports.unwrap_or_default(), addresses: Vec::new() };
        new.addresses.extend(service.iter().flat_map(|service| service.cluster_ips.iter().copied()));
        new.addresses.sort_unstable();
        let old = self.given.insert(number, new).unwrap_or_default();
        let new = &self.given[&number];
        let moved = old.addresses != new.addresses;
        let differ = |of: &own_address::Ports, other: &own_address::Ports| {
            let differ = of.iter().filter(|(port, entry)| moved || other.get(port) != Some(entry));
            differ.map(|(_, entry)| entry.service.clone()).collect::<BTreeSet<_>>()
        };
        let mut news = differ(&old.ports, &new.ports);
        news.extend(differ(&new.ports, &old.ports));
        for service in &news {
            let mentions = new.ports.values().any(|entry| entry.service == *service);
            let of = self.of.entry(service.clone()).or_default();
            if mentions {
                of.insert(number);
            } else {
                of.remove(&number);
            }
            if of.is_empty() {
                self.of.remove(service);
            }
        }
        if new.ports.is_empty() {
            self.given.remove(&number);
        }
        news
    }

    /// Takes in the EndpointSlices of an own address's Service. Returns the Services for which that is news.
    pub(crate) fn sliced<'a>(
        &mut self,
        number: u32,
        slices: impl Iterator<Item = &'a EndpointSlice>,
        now: Instant,
    ) -> BTreeSet<ServiceName> {
        let mut listed = BTreeSet::new();
        for slice in slices {
            for v6 in [false, true] {
                if slice.endpoints.iter().any(|endpoint| endpoint.ready && endpoint.address.is_ipv6() == v6) {
                    let behind = |port: &kinds::SlicePort| {
                        let transport = match &port.transport {
                            kinds::Transport::Tcp => Transport::Tcp,
                            kinds::Transport::Udp => Transport::Udp,
                            kinds::Transport::Other(_) => return None,
                        };
                        Some(ProxyPort { number, listen: port.number, transport, v6 })
                    };
                    listed.extend(slice.ports.iter().filter_map(behind));
                }
            }
        }
        let all = ProxyPort { number, listen: 0, transport: Transport::Tcp, v6: false }..=ProxyPort {
            number,
            listen: u16::MAX,
            transport: Transport::Udp,
            v6: true,
        };
        let before: BTreeSet<_> = self.listed.range(all).map(|(behind, _)| *behind).collect();
        for gone in before.difference(&listed) {
            self.listed.remove(gone);
        }
        for new in listed.difference(&before) {
            self.listed.insert(*new, now);
        }
        let differ: BTreeSet<_> =
            before.symmetric_difference(&listed).map(|behind| (behind.listen, behind.transport)).collect();
        let ports = self.given.get(&number).into_iter().flat_map(|given| &given.ports);
        let touched = ports.filter(|((_, transport), entry)| differ.contains(&(entry.listen, *transport)));
        touched.map(|(_, entry)| entry.service.clone()).collect()
    }

    /// Where `plan` stands with all of its ports.
    pub(crate) fn standing(&self, plan: &Plan) -> Option<OwnAddressPlace> {
        let owner = owner(plan)?;
        let ports = want(plan).ports;
        self.of.get(&owner)?.iter().find_map(|number| {
            let given = self.given.get(number)?;
            let listen = |port: &(u16, Transport)| {
                let entry = given.ports.get(port)?;
                (entry.leaving.is_none() && entry.service == owner).then_some((entry.listen, port.1))
            };
            let listens = ports.iter().map(listen).collect::<Option<Vec<_>>>()?;
            (!listens.is_empty() && !given.addresses.is_empty()).then_some(OwnAddressPlace { number: *number, listens })
        })
    }

    /// The addresses of where a Service stands, whether or not callers can be sent there.
    pub(crate) fn addresses(&self, standing: &OwnAddressPlace) -> &[IpAddr] {
        self.given.get(&standing.number).map(|given| &given.addresses[..]).unwrap_or_default()
    }

    /// All ports of the proxies that lead to `service`, or did within the horizon.
    pub(crate) fn listens(&self, service: &ServiceName) -> BTreeSet<Listen> {
        let given = self.of.get(service).into_iter().flatten().filter_map(|number| self.given.get(number));
        let entries = given.flat_map(|given| &given.ports).filter(|(_, entry)| entry.service == *service);
        entries
            .map(|((number, transport), entry)| Listen { listen: entry.listen, transport: *transport, number: *number })
            .collect()
    }

    /// Whether callers can be sent to where a Service stands: each port has been listed for `settle`.
    pub(crate) fn served(&self, standing: &OwnAddressPlace, settle: Duration, now: Instant) -> Served {
        let Some(given) = self.given.get(&standing.number) else { return Served::NotBefore(None) };
        let (mut addresses, mut later) = (Vec::new(), None);
        for v6 in [false, true] {
            let listed = |(listen, transport): &(u16, Transport)| {
                let behind = ProxyPort { number: standing.number, listen: *listen, transport: *transport, v6 };
                self.listed.get(&behind).copied()
            };
            let since = standing.listens.iter().map(listed).collect::<Option<Vec<_>>>();
            let Some(since) = since.and_then(|since| since.into_iter().max()) else { continue };
            let of_family = given.addresses.iter().filter(|address| address.is_ipv6() == v6);
            if since + settle <= now {
                addresses.extend(of_family);
            } else if of_family.count() > 0 {
                later = Some(later.map_or(since + settle, |later: Instant| later.min(since + settle)));
            }
        }
        if addresses.is_empty() { Served::NotBefore(later) } else { Served::At(addresses, later) }
    }
}

/// In whose name a Service stands on an own address of a cluster; `None` if it needs none.
pub(crate) fn owner(plan: &Plan) -> Option<ServiceName> {
    match (plan.own, plan.one_address) {
        (true, _) => Some(plan.name().clone()),
        (false, true) => Some(own_address::everybody()),
        (false, false) => None,
    }
}

/// What a Service needs on an own address.
pub(crate) fn want(plan: &Plan) -> AddressRequest {
    let ports = plan.ports.iter().map(|port| (port.number, port.protocol.transport())).collect();
    AddressRequest { service: plan.name().clone(), ports }
}
