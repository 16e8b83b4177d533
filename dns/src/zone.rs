//! What the mesh zones hold: which names exist, and of what kind each is.
//!
//! Names are compared in wire format and lower case. A Service is found by the two labels before the zone, so it exists
//! once, however many zones there are. There are no wildcards, and what lies above an existing name exists too
//! (RFC 8020).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use maesh_config::{
    Zone,
    model::{Answer, Name, Transport},
};

use crate::sharded::Sharded;

/// The longest name in wire format, RFC 1035 section 2.3.4.
pub(crate) const MAX_NAME: usize = 255;

/// Addresses of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// IPv4.
    pub(crate) v4: Box<[Ipv4Addr]>,
    /// IPv6.
    pub(crate) v6: Box<[Ipv6Addr]>,
}

impl Addresses {
    /// `addresses` by family.
    pub(crate) fn new(addresses: &[IpAddr]) -> Self {
        let canonical = || addresses.iter().map(IpAddr::to_canonical);
        Self {
            v4: canonical().filter_map(|a| if let IpAddr::V4(v4) = a { Some(v4) } else { None }).collect(),
            v6: canonical().filter_map(|a| if let IpAddr::V6(v6) = a { Some(v6) } else { None }).collect(),
        }
    }

    /// Whether there is none of either family.
    pub(crate) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// How a Service's name is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NameAnswer {
    /// By proxies that listen on all of the set of ports of this number.
    Node(u32),
    /// By these addresses.
    Fixed(Addresses),
    /// By the plain addresses.
    Plain,
    /// By the plain addresses where these are allowed, because no proxy serves it.
    Unserved,
}

/// One Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ZoneEntry {
    /// How its name is answered.
    pub(crate) how: NameAnswer,
    /// Its plain addresses.
    pub(crate) plain: Addresses,
    /// It has no ClusterIP.
    pub(crate) headless: bool,
    /// Its named ports.
    pub(crate) ports: Box<[Port]>,
}

/// A named port, which has an SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// `_http` as a label, with its length.
    label: Box<[u8]>,
    transport: Transport,
    /// Where the Service itself listens.
    pub(crate) number: u16,
    /// Where the mesh's address listens.
    pub(crate) listen: u16,
}

/// Why a Service cannot have a name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{label:?} is not a DNS label of 1 to 63 bytes, so {service} has no mesh name; rename it to use it by name")]
pub(crate) struct BadName {
    service: String,
    label: String,
}

impl ZoneEntry {
    /// The entry of `name`; `set` is the number of [`listen_ports`].
    pub(crate) fn new(name: &Name, set: u32) -> Self {
        let ports = name.ports.iter().filter_map(|port| {
            let label = label(&format!("_{}", port.name.as_deref()?))?;
            Some(Port {
                label: label.into(),
                transport: port.protocol.transport(),
                number: port.number,
                listen: port.listen,
            })
        });
        Self {
            how: match &name.answer {
                Answer::Node => NameAnswer::Node(set),
                Answer::Fixed(addresses) => NameAnswer::Fixed(Addresses::new(addresses)),
                Answer::Plain => NameAnswer::Plain,
                Answer::Unserved => NameAnswer::Unserved,
            },
            plain: Addresses::new(&name.plain),
            headless: name.headless,
            ports: ports.collect(),
        }
    }
}

/// The ports on which a proxy must listen before it may be named for `name`: sorted, each once. UDP ports are never
/// on a shared address.
pub(crate) fn listen_ports(name: &Name) -> Arc<[u16]> {
    let tcp = name.ports.iter().filter(|port| port.protocol.transport() == Transport::Tcp);
    let mut ports: Vec<u16> = tcp.map(|port| port.listen).collect();
    ports.sort_unstable();
    ports.dedup();
    ports.into()
}

/// A label or labels in wire format and lower case.
pub(crate) type Labels = Arc<[u8]>;

/// The two labels of a Service, and the second of them.
pub(crate) fn key(name: &maesh_config::ServiceName) -> Result<(Labels, Labels), BadName> {
    let part = |text: &str| label(text).ok_or_else(|| BadName { service: name.to_string(), label: text.to_owned() });
    let (service, namespace) = (part(&name.name)?, part(&name.namespace)?);
    Ok((service.iter().chain(&namespace).copied().collect(), namespace.into()))
}

/// A label with its length before it, in lower case.
fn label(text: &str) -> Option<Vec<u8>> {
    let length = u8::try_from(text.len()).ok().filter(|length| (1..=63).contains(length))?;
    let mut wire = vec![length];
    wire.extend(text.to_ascii_lowercase().bytes());
    Some(wire)
}

/// A mesh zone in wire format, with the root's zero at its end.
pub(crate) fn wire_of(zone: &Zone) -> Box<[u8]> {
    let mut wire: Vec<u8> = zone.as_str().split('.').filter_map(label).flatten().collect();
    wire.push(0);
    wire.into()
}

/// Everything in the zones.
#[derive(Clone, Debug, Default)]
pub(crate) struct ZoneContent {
    /// The zones in wire format, longest first, so that of nested ones the inner answers.
    pub(crate) zones: Arc<[Box<[u8]>]>,
    /// Services by their two labels.
    pub(crate) services: Sharded<Labels, Arc<ZoneEntry>>,
    /// How many Services each namespace has, by its label.
    pub(crate) namespaces: Sharded<Labels, u32>,
}

/// What a name in a zone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node<'a> {
    /// The zone itself.
    Apex,
    /// `dns-version.ZONE`
    Version,
    /// `ns.dns.ZONE`: ourselves.
    NameServer,
    /// Nothing itself, but names lie below it.
    Empty,
    /// A Service.
    Service(&'a ZoneEntry),
    /// `_tcp.SERVICE`: nothing itself, but ports of the Service lie below it.
    Ports(&'a ZoneEntry),
    /// `_PORT._tcp.SERVICE`; the Service's name starts at `target` in the name asked for.
    Port {
        /// Its Service.
        entry: &'a ZoneEntry,
        /// The port.
        port: &'a Port,
        /// Where the Service's name starts.
        target: usize,
    },
    /// No such name.
    Missing,
}

impl ZoneContent {
    /// Finds `name`, in wire format and lower case: where its zone starts in it, and what it is. `None` if it is in
    /// none of the zones.
    pub(crate) fn find(&self, name: &[u8]) -> Option<(usize, Node<'_>)> {
        self.zones.iter().find_map(|zone| {
            let apex = name.len().checked_sub(zone.len()).filter(|&at| name[at..] == **zone)?;
            Some((apex, self.below(name.get(..apex)?)?))
        })
    }

    /// What the labels before a zone mean. `None` if they do not end where the zone begins (`xmaesh.`).
    fn below(&self, labels: &[u8]) -> Option<Node<'_>> {
        let mut starts = [0; 4];
        let (mut count, mut at) = (0, 0);
        while at < labels.len() {
            if let Some(start) = starts.get_mut(count) {
                *start = at;
            }
            count += 1;
            at += usize::from(labels[at]) + 1;
        }
        if at != labels.len() {
            return None;
        }
        let service = |from: usize| self.services.get(&labels[from..]).map(|entry| &**entry);
        Some(match count {
            0 => Node::Apex,
            1 if labels == b"\x0bdns-version" => Node::Version,
            1 if labels == b"\x03dns" || self.namespaces.get(labels).is_some() => Node::Empty,
            2 if labels == b"\x02ns\x03dns" => Node::NameServer,
            2 => service(0).map_or(Node::Missing, Node::Service),
            3 => Self::port_of(&labels[..starts[1]], None, service(starts[1]), starts[1]),
            4 => {
                Self::port_of(&labels[starts[1]..starts[2]], Some(&labels[..starts[1]]), service(starts[2]), starts[2])
            }
            _ => Node::Missing,
        })
    }

    /// The port of `entry` that `transport` and `label` name, or the name above its ports if there is no `label`.
    fn port_of<'a>(transport: &[u8], label: Option<&[u8]>, entry: Option<&'a ZoneEntry>, target: usize) -> Node<'a> {
        let transport = match transport {
            b"\x04_tcp" => Transport::Tcp,
            b"\x04_udp" => Transport::Udp,
            _ => return Node::Missing,
        };
        let Some(entry) = entry else { return Node::Missing };
        let mut ports = entry.ports.iter().filter(|port| port.transport == transport);
        match label {
            None => ports.next().map_or(Node::Missing, |_| Node::Ports(entry)),
            Some(label) => ports.find(|port| *port.label == *label).map_or(Node::Missing, |port| Node::Port {
                entry,
                port,
                target,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
