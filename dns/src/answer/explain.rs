//! Why a caller is answered what it is answered.
//!
//! The question is put to [`answer()`] itself, as the packet that the cluster's DNS would send, so nothing said here can
//! differ from what callers get. What surrounds the answer (which address is where, which proxies there are) is read from the
//! same snapshot. It changes nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{
    Action, AnswerSource, Facts, Rcode, Transport, answer,
    query::{CLIENT_SUBNET, Header, OPT, Question, Record},
    reply::kind,
};
use crate::{
    locality::AddressLocation,
    proxies::SPREAD,
    snapshot::{ProxyRecord, Snapshot},
    zone::{NameAnswer, Node, ZoneEntry},
};

/// Proxies shown at most, besides those answered.
const MOST_PROXIES: usize = 20;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A pod, through the cluster's DNS with the stanza: its address is in the query.
    Behind(IpAddr),
    /// Somebody who asks us directly from this address.
    Direct(IpAddr),
    /// Somebody of whom nothing is known.
    Anybody,
}

impl Caller {
    fn address(self) -> Option<IpAddr> {
        match self {
            Self::Behind(address) | Self::Direct(address) => Some(address.to_canonical()),
            Self::Anybody => None,
        }
    }
}

/// A name that cannot be asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no DNS name: labels of 1 to 63 characters, 253 in all")]
pub struct BadQuestion(String);

/// Which rule chose the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The proxy on the caller's own node.
    Local,
    /// Some of the ready proxies.
    Spread,
    /// Proxies that do not serve the name at present, because plain is not allowed.
    LastKnown,
    /// Addresses that are the same for every caller.
    Fixed,
    /// The plain addresses, on purpose or because nothing serves the name yet.
    Plain,
    /// The plain addresses, because no proxy serves the name.
    FailToPlain,
    /// Nobody: no proxy serves the name, and plain is not allowed.
    Withheld,
}

/// How the caller's node is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "by")]
pub enum Located {
    /// The address itself is known: a pod's or a node's.
    Address {
        /// Its node, where a proxy on it is known.
        node: Option<String>,
    },
    /// It is in the range of a node's pods.
    Range {
        /// The range.
        range: String,
        /// Its node, where a proxy on it is known.
        node: Option<String>,
    },
    /// It is a resolver of the cluster: who asks through it may be anywhere.
    Resolver,
    /// Nothing is known of it.
    Unknown,
}

/// A proxy, as dns sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxySeen {
    /// The pod's name.
    pub id: String,
    /// Node it serves.
    pub node: String,
    /// Where callers reach it.
    pub addresses: Vec<IpAddr>,
    /// It says that it takes new work.
    pub ready: bool,
    /// Our own probes do not reach it.
    pub unreachable: bool,
    /// It listens on all ports of the name; `None` where the name needs no proxy.
    pub serves: Option<bool>,
    /// It is in the answer.
    pub answered: bool,
    /// It is on the caller's node.
    pub local: bool,
}

/// What a caller is answered, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The name asked for.
    pub name: String,
    /// The response code.
    pub code: String,
    /// Addresses of both families, in the order in which they are answered.
    pub addresses: Vec<IpAddr>,
    /// Seconds for which the answer may be kept.
    pub ttl: Option<u32>,
    /// The name is a Service's.
    pub service: bool,
    /// Which rule chose the addresses; `None` where no Service is answered.
    pub rule: Option<Rule>,
    /// Where the caller is; `None` without one.
    pub located: Option<Located>,
    /// The global switch is on: every name answers plain addresses.
    pub bypass: bool,
    /// So few proxies are ready that every name answers plain addresses.
    pub collapsed: bool,
    /// Number of proxies that are ready.
    pub ready_proxies: usize,
    /// Number of proxies known.
    pub known_proxies: usize,
    /// Proxies, the answered ones first, then those of the caller's node; 20 at most besides.
    pub proxies: Vec<ProxySeen>,
    /// Everything was delivered once; before, everything is SERVFAIL.
    pub synced: bool,
    /// The zones answered.
    pub zones: Vec<String>,
}

/// Puts the question for `name` (with or without a trailing dot) to the responder, and says why it answers so.
///
/// # Errors
/// When `name` is no DNS name.
pub fn explain(snapshot: &Snapshot, name: &str, caller: Caller) -> Result<Explanation, BadQuestion> {
    let wire = wire(name).ok_or_else(|| BadQuestion(name.to_owned()))?;
    let v4 = ask(snapshot, &wire, kind::A, caller);
    let v6 = ask(snapshot, &wire, kind::AAAA, caller);
    let facts = v4.facts.or(v6.facts);
    let node = snapshot.content.find(&wire.to_ascii_lowercase()).map(|(_, node)| node);
    let entry = match node {
        Some(Node::Service(entry)) => Some(entry),
        _ => None,
    };
    let addresses: Vec<IpAddr> = v4.addresses.into_iter().chain(v6.addresses).collect();
    let location = caller.address().map(|address| (address, snapshot.places.locate(address)));
    let on = location.and_then(|(_, location)| match location {
        AddressLocation::Known(node) | AddressLocation::InRange(node, _) => Some(node),
        AddressLocation::Resolver | AddressLocation::Nowhere => None,
    });
    Ok(Explanation {
        name: name.trim_end_matches('.').to_owned(),
        code: facts.map_or("SERVFAIL", |facts| code(facts.rcode)).to_owned(),
        ttl: v4.ttl.or(v6.ttl),
        service: entry.is_some(),
        rule: facts.and_then(|facts| facts.named).map(Rule::from),
        located: location.map(|(address, location)| located(snapshot, address, location)),
        bypass: snapshot.bypass,
        collapsed: snapshot.plain_everywhere,
        ready_proxies: snapshot.proxies.ready().len(),
        known_proxies: snapshot.proxies.known(),
        proxies: proxies(snapshot, entry, on, &addresses),
        addresses,
        synced: snapshot.synced,
        zones: snapshot.content.zones.iter().map(|zone| text(zone)).collect(),
    })
}

/// One reply, read again.
#[derive(Default)]
struct ReadReply {
    facts: Option<Facts>,
    addresses: Vec<IpAddr>,
    ttl: Option<u32>,
}

fn ask(snapshot: &Snapshot, wire: &[u8], kind: u16, caller: Caller) -> ReadReply {
    let (source, subnet) = match caller {
        Caller::Behind(address) => (Ipv4Addr::UNSPECIFIED.into(), Some(address.to_canonical())),
        Caller::Direct(address) => (address, None),
        Caller::Anybody => (Ipv4Addr::UNSPECIFIED.into(), None),
    };
    let mut out = Vec::new();
    let query = query(wire, kind, subnet);
    match answer(&query, source, snapshot, Transport::Tcp, 0, &mut out) {
        Action::Reply(facts) => ReadReply { facts: Some(facts), ..read(&out) },
        Action::Drop => ReadReply::default(),
    }
}

/// A query as the cluster's DNS passes it on: recursion desired, with OPT, and the caller's address where it is known.
fn query(wire: &[u8], kind: u16, subnet: Option<IpAddr>) -> Vec<u8> {
    let mut query = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    query.extend_from_slice(wire);
    query.extend_from_slice(&kind.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    let mut option = Vec::new();
    if let Some(subnet) = subnet {
        let (family, bits, octets) = match subnet {
            IpAddr::V4(v4) => (1, 32, v4.octets().to_vec()),
            IpAddr::V6(v6) => (2, 128, v6.octets().to_vec()),
        };
        option.extend_from_slice(&CLIENT_SUBNET.to_be_bytes());
        option.extend_from_slice(&[0, 4 + (bits / 8), 0, family, bits, 0]);
        option.extend_from_slice(&octets);
    }
    query.push(0);
    query.extend_from_slice(&OPT.to_be_bytes());
    query.extend_from_slice(&[0x04, 0xd0, 0, 0, 0, 0, 0, option.len() as u8]);
    query.extend_from_slice(&option);
    query
}

/// The addresses in the answer section of a reply.
fn read(reply: &[u8]) -> ReadReply {
    let mut asked = ReadReply::default();
    let (Some(header), Some(question)) = (Header::read(reply), Question::read(reply)) else { return asked };
    let mut at = question.end();
    for _ in 0..header.answers() {
        let Some(record) = Record::read(reply, at) else { return asked };
        at = record.end;
        let address = match (record.kind, record.data.len()) {
            (kind::A, 4) => record.data.first_chunk().map(|octets: &[u8; 4]| Ipv4Addr::from(*octets).into()),
            (kind::AAAA, 16) => record.data.first_chunk().map(|octets: &[u8; 16]| Ipv6Addr::from(*octets).into()),
            _ => None,
        };
        if let Some(address) = address {
            asked.addresses.push(address);
            asked.ttl = Some(u32::from_be_bytes(record.ttl));
        }
    }
    asked
}

fn located(snapshot: &Snapshot, address: IpAddr, location: AddressLocation) -> Located {
    let name = |number: u32| {
        let on = snapshot.members.iter().find(|member| member.target.node == number)?;
        Some(on.proxy.node.to_string())
    };
    match location {
        AddressLocation::Known(node) => Located::Address { node: name(node) },
        AddressLocation::InRange(node, length) => {
            Located::Range { range: format!("{}/{length}", crate::locality::masked(address, length)), node: name(node) }
        }
        AddressLocation::Resolver => Located::Resolver,
        AddressLocation::Nowhere => Located::Unknown,
    }
}

fn proxies(snapshot: &Snapshot, entry: Option<&ZoneEntry>, on: Option<u32>, answered: &[IpAddr]) -> Vec<ProxySeen> {
    let set = entry.and_then(|entry| match entry.how {
        NameAnswer::Node(set) => Some(set),
        NameAnswer::Fixed(_) | NameAnswer::Plain | NameAnswer::Unserved => None,
    });
    let seen = |member: &ProxyRecord| ProxySeen {
        id: member.proxy.id.to_string(),
        node: member.proxy.node.to_string(),
        addresses: member.proxy.addresses.clone(),
        ready: member.proxy.ready,
        unreachable: member.dead,
        serves: set.map(|set| snapshot.proxies.serves(set, &member.target)),
        answered: member.proxy.addresses.iter().any(|address| answered.contains(address)),
        local: on == Some(member.target.node),
    };
    let mut all: Vec<ProxySeen> = snapshot.members.iter().map(seen).collect();
    all.sort_by_key(|proxy| (!proxy.answered, !proxy.local));
    all.truncate(MOST_PROXIES + SPREAD);
    all
}

impl From<AnswerSource> for Rule {
    fn from(named: AnswerSource) -> Self {
        match named {
            AnswerSource::Local => Self::Local,
            AnswerSource::Spread => Self::Spread,
            AnswerSource::LastKnown => Self::LastKnown,
            AnswerSource::Fixed => Self::Fixed,
            AnswerSource::Plain => Self::Plain,
            AnswerSource::FailToPlain => Self::FailToPlain,
            AnswerSource::Withheld => Self::Withheld,
        }
    }
}

fn code(rcode: Rcode) -> &'static str {
    Rcode::ALL.iter().find(|(known, _)| *known == rcode).map_or("?", |(_, name)| name)
}

/// A name in wire format; `None` if it is none.
fn wire(name: &str) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        wire.push(length);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    (wire.len() <= crate::zone::MAX_NAME).then_some(wire)
}

/// A zone in wire format as people write it.
fn text(wire: &[u8]) -> String {
    let mut labels = Vec::new();
    let mut rest = wire;
    while let Some((&length, after)) = rest.split_first() {
        let Some((label, next)) = after.split_at_checked(usize::from(length)).filter(|_| length > 0) else { break };
        labels.push(String::from_utf8_lossy(label).into_owned());
        rest = next;
    }
    labels.join(".")
}

#[cfg(test)]
mod tests;
