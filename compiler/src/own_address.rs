//! Which Service stands on which own address, at which port of the proxies: a function of what is wanted, of what is
//! there, and of the time.
//!
//! What stands stays where it is. A Service that is new, or whose ports changed, goes as a whole to the first address
//! on which its ports are free; what it leaves serves on for the DNS horizon, and is free only then.

mod annotation;

use std::collections::{BTreeMap, BTreeSet};

use maesh_config::{ServiceName, model::Transport};

pub use self::annotation::{name, number, read_ports, write_ports};

/// Ports of the proxies that own addresses lead to.
pub const POOL: std::ops::RangeInclusive<u16> = 33_000..=49_999;
/// Ports on one address: its entries have to fit into one annotation, names of 63 and 63 characters included.
const MOST_PORTS: usize = 500;

/// Ports of one Service.
type PortSet = BTreeSet<(u16, Transport)>;

/// A Service that needs an address on which its ports are its alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRequest {
    /// The Service.
    pub service: ServiceName,
    /// Its ports.
    pub ports: BTreeSet<(u16, Transport)>,
}

/// A port of an own address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is.
    pub service: ServiceName,
    /// The proxies' port behind it.
    pub listen: u16,
    /// Since when it is no longer wanted, in seconds of Unix time.
    pub leaving: Option<u64>,
}

/// What is needed of own addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRequests {
    /// Services that need one, oldest first.
    pub own: Vec<AddressRequest>,
    /// TCP ports of the one address that all names of addressing mode `service` share.
    pub shared: BTreeSet<u16>,
}

/// Number of the address that all names of addressing mode `service` share: each of its ports leads to the proxies'
/// port of the same number, and is nobody's alone.
pub const SHARED: u32 = u32::MAX;

/// Whose the ports of [`SHARED`] are.
pub fn everybody() -> ServiceName {
    ServiceName::new("", "")
}

/// The ports of one own address.
pub type Ports = BTreeMap<(u16, Transport), Entry>;
/// The own addresses, by number.
pub type Addresses = BTreeMap<u32, Ports>;

/// Gives `wants`, oldest first, their places. Returns the addresses, and the Services for which no port of the pool is
/// left. Numbers in `taken` are somebody else's. `now` and `horizon` are seconds: what was left that long ago is freed.
pub fn allocate(
    mut addresses: Addresses,
    wants: &[AddressRequest],
    taken: &BTreeSet<u32>,
    now: u64,
    horizon: u64,
) -> (Addresses, Vec<ServiceName>) {
    addresses.retain(|number, _| !taken.contains(number));
    for ports in addresses.values_mut() {
        ports.retain(|_, entry| entry.leaving.is_none_or(|since| now.saturating_sub(since) < horizon));
    }
    let mut homes = unmoved(&addresses, wants);
    let mut pool = Pool::of(&addresses);
    let mut without = Vec::new();
    for want in wants.iter().filter(|want| !want.ports.is_empty()) {
        if homes.contains_key(&want.service) {
            continue;
        }
        let Some(listens) = pool.take(want) else {
            without.push(want.service.clone());
            continue;
        };
        let fits = |ports: &Ports| {
            ports.len() + want.ports.len() <= MOST_PORTS && want.ports.iter().all(|port| !ports.contains_key(port))
        };
        let first = addresses.iter().find(|(_, ports)| !ports.is_empty() && fits(ports)).map(|(number, _)| *number);
        let is_unused = |number: &u32| addresses.get(number).is_none_or(BTreeMap::is_empty) && !taken.contains(number);
        let unused = || (0..).find(is_unused).unwrap_or(u32::MAX);
        let home = first.unwrap_or_else(unused);
        let entries = want
            .ports
            .iter()
            .zip(listens)
            .map(|(port, listen)| (*port, Entry { service: want.service.clone(), listen, leaving: None }));
        addresses.entry(home).or_default().extend(entries);
        homes.insert(want.service.clone(), home);
    }
    let wanted: BTreeMap<_, _> = wants.iter().map(|want| (&want.service, &want.ports)).collect();
    for (number, ports) in &mut addresses {
        for (port, entry) in ports {
            let here = homes.get(&entry.service) == Some(number);
            let stays = here && wanted.get(&entry.service).is_some_and(|ports| ports.contains(port));
            entry.leaving = if stays { None } else { Some(entry.leaving.unwrap_or(now)) };
        }
    }
    addresses.retain(|_, ports| !ports.is_empty());
    (addresses, without)
}

/// The ports of [`SHARED`], of which `wanted` are needed now: what was left serves on for the horizon.
pub fn share(mut ports: Ports, wanted: &BTreeSet<u16>, now: u64, horizon: u64) -> Ports {
    for port in wanted {
        let entry = Entry { service: everybody(), listen: *port, leaving: None };
        ports.insert((*port, Transport::Tcp), entry);
    }
    for ((port, _), entry) in &mut ports {
        if !wanted.contains(port) {
            entry.leaving.get_or_insert(now);
        }
    }
    ports.retain(|_, entry| entry.leaving.is_none_or(|since| now.saturating_sub(since) < horizon));
    ports
}

/// The Services that need not move, because all the ports they want are theirs on one address: where they stand, or
/// else what they left and still serves.
fn unmoved(addresses: &Addresses, wants: &[AddressRequest]) -> BTreeMap<ServiceName, u32> {
    // Whether it stands there, and its ports there, left or not.
    let mut there: BTreeMap<(&ServiceName, u32), (bool, PortSet)> = BTreeMap::new();
    for (number, ports) in addresses {
        for (port, entry) in ports {
            let (stands, ports) = there.entry((&entry.service, *number)).or_default();
            *stands |= entry.leaving.is_none();
            ports.insert(*port);
        }
    }
    let mut homes = BTreeMap::new();
    for want in wants.iter().filter(|want| !want.ports.is_empty()) {
        let of = there.range((&want.service, 0)..=(&want.service, u32::MAX));
        let fit = of.filter(|(_, (_, ports))| want.ports.is_subset(ports));
        if let Some(((_, number), _)) = fit.min_by_key(|((_, number), (stands, _))| (!stands, *number)) {
            homes.insert(want.service.clone(), *number);
        }
    }
    homes
}

/// The proxies' ports.
struct Pool {
    of: BTreeMap<(ServiceName, u16, Transport), u16>,
    used: BTreeSet<u16>,
    next: u16,
}

impl Pool {
    fn of(addresses: &Addresses) -> Self {
        let mut this = Self { of: BTreeMap::new(), used: BTreeSet::new(), next: *POOL.start() };
        for ((port, transport), entry) in addresses.values().flatten() {
            this.of.insert((entry.service.clone(), *port, *transport), entry.listen);
            this.used.insert(entry.listen);
        }
        this
    }

    /// A port for each of a Service's; the one it had where it moves, so that nothing is bound twice for it.
    fn take(&mut self, want: &AddressRequest) -> Option<Vec<u16>> {
        let (mut taken, mut fresh) = (Vec::new(), Vec::new());
        for (port, transport) in &want.ports {
            let had = self.of.get(&(want.service.clone(), *port, *transport)).copied();
            let listen = match had {
                Some(listen) => listen,
                None => {
                    let free = (self.next..=*POOL.end()).find(|port| !self.used.contains(port));
                    let Some(free) = free else {
                        // The rest of what was taken for it is free again.
                        for port in fresh {
                            self.used.remove(&port);
                            self.next = self.next.min(port);
                        }
                        return None;
                    };
                    self.next = free;
                    self.used.insert(free);
                    fresh.push(free);
                    free
                }
            };
            taken.push(listen);
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HORIZON: u64 = 45;

    fn want(service: usize, ports: &[u16]) -> AddressRequest {
        let service = ServiceName::new("shop", format!("s{service}"));
        AddressRequest { service, ports: ports.iter().map(|port| (*port, Transport::Tcp)).collect() }
    }

    /// The address of each Service that has one, as `service@address`.
    fn standing(addresses: &Addresses) -> Vec<String> {
        let all = addresses.iter().flat_map(|(number, ports)| ports.values().map(move |entry| (number, entry)));
        let stays = all.filter(|(_, entry)| entry.leaving.is_none());
        let all: BTreeSet<_> = stays.map(|(number, entry)| format!("{}@{number}", entry.service.name)).collect();
        all.into_iter().collect()
    }

    #[test]
    fn services_share_what_they_can_and_move_as_a_whole() {
        let mut addresses = Addresses::new();
        for (case, now, wants, want, count) in [
            ("different ports share", 0, vec![want(1, &[1]), want(2, &[2])], vec!["s1@0", "s2@0"], 1),
            (
                "the same port does not",
                1,
                vec![want(1, &[1]), want(2, &[2]), want(3, &[2])],
                vec!["s1@0", "s2@0", "s3@1"],
                2,
            ),
            (
                "one that grows moves",
                2,
                vec![want(1, &[1, 3]), want(2, &[2]), want(3, &[2])],
                vec!["s1@1", "s2@0", "s3@1"],
                2,
            ),
            (
                "one that shrinks stays",
                3,
                vec![want(1, &[1]), want(2, &[2]), want(3, &[2])],
                vec!["s1@1", "s2@0", "s3@1"],
                2,
            ),
            ("what was left is not given away", 4, vec![want(2, &[2]), want(4, &[1])], vec!["s2@0", "s4@2"], 3),
            (
                "until the horizon has passed",
                60,
                vec![want(2, &[2]), want(4, &[1]), want(5, &[1])],
                vec!["s2@0", "s4@2", "s5@0"],
                2,
            ),
        ] {
            addresses = allocate(addresses, &wants, &BTreeSet::new(), now, HORIZON).0;
            assert_eq!(standing(&addresses), want, "{case}: {addresses:?}");
            assert_eq!(addresses.len(), count, "{case}: {addresses:?}");
        }
    }

    #[test]
    fn numbers_of_others_are_left_out() {
        let wants = [want(1, &[1]), want(2, &[1]), want(3, &[1])];
        let (addresses, _) = allocate(Addresses::new(), &wants, &BTreeSet::new(), 0, HORIZON);
        assert_eq!(standing(&addresses), ["s1@0", "s2@1", "s3@2"]);
        // Found out only when they were to be written.
        let (addresses, without) = allocate(addresses, &wants, &[0, 2, 3].into(), 1, HORIZON);
        assert_eq!(standing(&addresses), ["s1@4", "s2@1", "s3@5"]);
        assert_eq!(without, []);
    }

    #[test]
    fn the_shared_one_has_what_is_wanted_and_what_was_within_the_horizon() {
        let mut ports = Ports::new();
        for (now, wanted, want) in [
            (0, &[80, 443][..], "80 443"),
            (10, &[80], "80 443-"),
            (20, &[80, 443], "80 443"),
            (30, &[], "80- 443-"),
            (30 + HORIZON, &[90], "90"),
        ] {
            ports = share(ports, &wanted.iter().copied().collect(), now, HORIZON);
            let text = |((port, _), entry): (&(u16, Transport), &Entry)| {
                format!("{port}{}", if entry.leaving.is_some() { "-" } else { "" })
            };
            assert_eq!(ports.iter().map(text).collect::<Vec<_>>().join(" "), want, "at {now}");
        }
    }

    #[test]
    fn without_a_port_left_the_youngest_get_none() {
        let wants: Vec<_> = (0..40).map(|n| want(n, &(1..=450).collect::<Vec<_>>())).collect();
        let (addresses, without) = allocate(Addresses::new(), &wants, &BTreeSet::new(), 0, HORIZON);
        assert_eq!(addresses.len(), 37, "17,000 ports hold 37 times 450");
        assert_eq!(without.len(), 3);
        assert_eq!(without[0], wants[37].service);
    }

    proptest! {
        /// Whatever is wanted when: who stands has all its ports on one address, no two Services have one port of
        /// the pool, who stood and wants the same stays, what is left serves for the horizon, doing it again changes
        /// nothing, and there are no more addresses than Services on the busiest port once all is settled.
        #[test]
        fn places_hold(
            rounds in prop::collection::vec(
                (0..60_u64, prop::collection::btree_map(0..6_usize, prop::collection::btree_set(1..5_u16, 1..3), 0..6)), 1..12)
        ) {
            let (mut addresses, mut now) = (Addresses::new(), 0);
            for (later, wanted) in rounds {
                now += later;
                let wants: Vec<_> = wanted.iter().map(|(s, ports)| want(*s, &ports.iter().copied().collect::<Vec<_>>())).collect();
                let before = addresses.clone();
                let (after, without) = allocate(addresses, &wants, &BTreeSet::new(), now, HORIZON);
                prop_assert!(without.is_empty());
                let mut listens = BTreeMap::new();
                for ((port, _), entry) in after.values().flatten() {
                    let owner = listens.entry(entry.listen).or_insert((&entry.service, *port));
                    prop_assert_eq!(*owner, (&entry.service, *port));
                }
                for want in &wants {
                    let homes: Vec<_> = after.values().filter(|ports| {
                        want.ports.iter().all(|port| ports.get(port).is_some_and(|e| e.service == want.service && e.leaving.is_none()))
                    }).collect();
                    prop_assert_eq!(homes.len(), 1, "{:?} in {:?}", want, after);
                }
                for (number, ports) in &before {
                    for (port, entry) in ports {
                        let serves = entry.leaving.is_none_or(|since| now - since < HORIZON);
                        let still = after.get(number).and_then(|ports| ports.get(port));
                        if serves {
                            prop_assert!(still.is_some_and(|still| still.service == entry.service && still.listen == entry.listen));
                        }
                    }
                }
                prop_assert_eq!(&allocate(after.clone(), &wants, &BTreeSet::new(), now, HORIZON).0, &after, "once more changes nothing");
                addresses = after;
            }
        }
    }
}
