//! What a query is answered.
//!
//! One pure function over the bytes that came, where they came from, and a snapshot. It allocates nothing and waits for
//! nothing, so every listener calls it in line. It answers whatever can be answered: CoreDNS passes on a reply only
//! with the question in it, and takes silence for a dead server. Silence is only for what is no query at all.

mod explain;
mod query;
mod reply;

use std::net::IpAddr;

pub use explain::{BadQuestion, Caller, Explanation, Located, ProxySeen, Rule, explain};
use query::{Edns, HEADER, Header, Question, Subnet, Unreadable};
pub(crate) use reply::Rcode;
use reply::{NoRoom, Owner, Reply, Section, UDP_SIZE, kind};

use crate::{
    locality::CallerLookup,
    proxies::{Choice, SPREAD, Target},
    snapshot::Snapshot,
    zone::{Addresses, NameAnswer, Node, ZoneEntry},
};

/// Version of the Kubernetes DNS specification that the names follow.
const SPECIFICATION: &str = "1.1.0";

/// What carries a query, which decides how long the answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams: 512 bytes, or what the query's OPT record allows up to 1232.
    Udp,
    /// Streams: 65,535 bytes.
    Tcp,
    /// The same, encrypted.
    Tls,
}

/// What to do with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send what was written.
    Reply(Facts),
    /// Say nothing: it is no query (a response, or too short for a header).
    Drop,
}

/// What a reply was about, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Type asked for; `None` if the question cannot be read.
    pub(crate) kind: Option<u16>,
    /// The reply's code.
    pub(crate) rcode: Rcode,
    /// How the caller's node was determined, if the answer depended on it.
    pub(crate) found: Option<CallerLookup>,
    /// Who was named, if a Service was asked for.
    pub(crate) named: Option<AnswerSource>,
    /// Something did not fit.
    pub(crate) truncated: bool,
}

/// Who an answer about a Service names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerSource {
    /// The proxy of the caller's node.
    Local,
    /// Some of the other proxies.
    Spread,
    /// Proxies that do not serve the name at present, because plain is not allowed.
    LastKnown,
    /// Fixed addresses.
    Fixed,
    /// The plain addresses, as the name says or the switch does.
    Plain,
    /// The plain addresses, because no proxy serves the name.
    FailToPlain,
    /// Nobody: no proxy serves the name, and plain is not allowed.
    Withheld,
}

impl AnswerSource {
    /// Every case, with its name in the metrics.
    pub(crate) const ALL: [(Self, &'static str); 7] = [
        (Self::Local, "local"),
        (Self::Spread, "spread"),
        (Self::LastKnown, "last_known"),
        (Self::Fixed, "fixed"),
        (Self::Plain, "plain"),
        (Self::FailToPlain, "fail_to_plain"),
        (Self::Withheld, "withheld"),
    ];
}

/// Answers `query`, which came from `source` over `transport`, from `snapshot`, into `out`, whose content is replaced.
/// `rotation` spreads callers whose node is unknown: pass a counter.
pub fn answer(
    query: &[u8],
    source: IpAddr,
    snapshot: &Snapshot,
    transport: Transport,
    rotation: usize,
    out: &mut Vec<u8>,
) -> Action {
    let Some(header) = Header::read(query).filter(|header| !header.is_response()) else { return Action::Drop };
    let question = if header.questions() == 1 { Question::read(query) } else { None };
    let (edns, readable) = match question.as_ref().map(|question| query::edns(query, header, question.end())) {
        // Without a question, what follows the header can still be read.
        None if header.questions() == 0 => (query::edns(query, header, HEADER).unwrap_or(None), false),
        None => (None, false),
        Some(Ok(edns)) => (edns, true),
        Some(Err(Unreadable { edns })) => (edns, false),
    };
    let limit = match transport {
        Transport::Udp => usize::from(edns.map_or(512, |edns| edns.size.clamp(512, UDP_SIZE))),
        Transport::Tcp | Transport::Tls => usize::from(u16::MAX),
    };
    let length = question.as_ref().map_or(0, |question| question.end() - HEADER);
    let reply = Reply::new(out, query, header.flags, length, edns, limit);
    let kind = question.as_ref().map(|question| question.kind);
    let refuse = |reply: Reply<'_>, rcode| {
        reply.finish(rcode, 0);
        Action::Reply(Facts { kind, rcode, found: None, named: None, truncated: false })
    };
    match (header.opcode(), &question) {
        (5, _) => refuse(reply, Rcode::Refused),
        (1.., _) => refuse(reply, Rcode::NotImp),
        (0, None) => refuse(reply, Rcode::FormErr),
        (0, Some(_)) if !readable => refuse(reply, Rcode::FormErr),
        (0, Some(_)) if edns.is_some_and(|edns| edns.version > 0) => refuse(reply, Rcode::BadVers),
        (0, Some(_)) if edns.is_some_and(|edns| edns.malformed) => refuse(reply, Rcode::FormErr),
        (0, Some(question)) if question.class != 1 => refuse(reply, Rcode::Refused),
        (0, Some(question)) if matches!(question.kind, kind::AXFR | kind::IXFR) => refuse(reply, Rcode::Refused),
        (0, Some(_)) if !snapshot.synced => refuse(reply, Rcode::ServFail),
        (0, Some(question)) => match snapshot.content.find(question.name()) {
            None => refuse(reply, Rcode::Refused),
            Some((apex, node)) => {
                let asked = ZoneQuestion { snapshot, question, apex, source, edns, rotation };
                Action::Reply(asked.reply(reply, node))
            }
        },
    }
}

/// A good question for a name in one of the zones.
struct ZoneQuestion<'a> {
    snapshot: &'a Snapshot,
    question: &'a Question,
    /// Where the zone starts in the name.
    apex: usize,
    source: IpAddr,
    edns: Option<Edns>,
    rotation: usize,
}

/// The addresses chosen for a Service.
#[derive(Clone, Copy)]
enum Chosen<'a> {
    Proxies(Choice<'a>),
    Addresses(&'a Addresses),
}

/// No address at all.
const NOBODY: Chosen<'static> = Chosen::Proxies(Choice::Nobody);

/// Everything decided about a Service for one caller.
struct Decision<'a> {
    chosen: Chosen<'a>,
    named: AnswerSource,
    found: Option<CallerLookup>,
}

impl ZoneQuestion<'_> {
    /// Writes the reply for `node`.
    fn reply(&self, mut reply: Reply<'_>, node: Node<'_>) -> Facts {
        reply.authoritative();
        let kind = self.question.kind;
        let asks = |wanted: u16| kind == wanted || kind == kind::ANY;
        let mut decision = None;
        let mut rcode = Rcode::NoError;
        // Whether the type asked for exists; whether all of it fitted.
        let (has, fits) = match node {
            Node::Missing => {
                rcode = Rcode::NxDomain;
                (false, Ok(()))
            }
            Node::Empty => (false, Ok(())),
            Node::Apex if asks(kind::SOA) => (true, reply.soa(Section::Answer, self.apex, self.snapshot.revision)),
            Node::Apex if kind == kind::NS => (true, reply.ns(self.apex, &self.snapshot.name_server)),
            Node::Apex => (false, Ok(())),
            Node::Version if asks(kind::TXT) => (true, reply.txt(SPECIFICATION)),
            Node::Version => (false, Ok(())),
            Node::NameServer => {
                let us = Chosen::Addresses(&self.snapshot.name_server);
                self.addresses(&mut reply, us)
            }
            Node::Service(entry) | Node::Ports(entry) | Node::Port { entry, .. } => {
                let decided = self.decide(entry);
                if decided.exists(entry) {
                    let written = match node {
                        Node::Service(_) => self.addresses(&mut reply, decided.chosen),
                        Node::Port { port, target, .. }
                            if asks(kind::SRV) && decided.named != AnswerSource::Withheld =>
                        {
                            let plain = matches!(decided.named, AnswerSource::Plain | AnswerSource::FailToPlain);
                            let number = if plain { port.number } else { port.listen };
                            (true, self.srv(&mut reply, number, target, decided.chosen))
                        }
                        _ => (false, Ok(())),
                    };
                    decision = Some(decided);
                    written
                } else {
                    rcode = Rcode::NxDomain;
                    (false, Ok(()))
                }
            }
        };
        let mut fits = fits.is_ok();
        if !has {
            fits &= reply.soa(Section::Authority, self.apex, self.snapshot.revision).is_ok();
        }
        if !fits {
            reply.truncated();
        }
        let found = if has { decision.as_ref().and_then(|decision| decision.found) } else { None };
        let scope = if found.is_some() { self.scope() } else { 0 };
        reply.finish(rcode, scope);
        Facts { kind: Some(kind), rcode, found, named: decision.map(|decision| decision.named), truncated: !fits }
    }

    /// Bits of the client subnet on which an answer depends that differs from caller to caller: all, even where fewer
    /// were given (RFC 7871 section 7.2.1), unless the caller keeps its place to itself with a length of zero.
    fn scope(&self) -> u8 {
        match self.edns.and_then(|edns| edns.subnet) {
            Some(subnet) if subnet.source > 0 => subnet.full(),
            _ => 0,
        }
    }

    /// Chooses the addresses of a Service for this caller.
    fn decide<'s>(&'s self, entry: &'s ZoneEntry) -> Decision<'s> {
        let snapshot = self.snapshot;
        let plain = |named| Decision { chosen: Chosen::Addresses(&entry.plain), named, found: None };
        if snapshot.bypass {
            return plain(AnswerSource::Plain);
        }
        let caller = || {
            let subnet = self.edns.and_then(|edns| edns.subnet).and_then(Subnet::whole);
            snapshot.places.caller(subnet, self.source)
        };
        let set = match &entry.how {
            NameAnswer::Plain => return plain(AnswerSource::Plain),
            NameAnswer::Unserved if snapshot.plain_allowed => return plain(AnswerSource::Plain),
            NameAnswer::Unserved => return Decision { chosen: NOBODY, named: AnswerSource::Withheld, found: None },
            _ if snapshot.plain_everywhere => return plain(AnswerSource::FailToPlain),
            NameAnswer::Fixed(addresses) => {
                let fixed = Decision { chosen: Chosen::Addresses(addresses), named: AnswerSource::Fixed, found: None };
                if snapshot.stranded.is_empty() || entry.plain.is_empty() {
                    return fixed;
                }
                // From here on the answer differs from caller to caller.
                let (node, found) = caller();
                let stranded = node.is_some_and(|node| snapshot.stranded.binary_search(&node).is_ok());
                let decision = if stranded { plain(AnswerSource::FailToPlain) } else { fixed };
                return Decision { found: Some(found), ..decision };
            }
            NameAnswer::Node(set) => *set,
        };
        let (node, found) = caller();
        let proxies = |choice, named| Decision { chosen: Chosen::Proxies(choice), named, found: Some(found) };
        match snapshot.proxies.nearest(set, node) {
            local @ Choice::Local(_) => proxies(local, AnswerSource::Local),
            spread @ Choice::Spread(_) => proxies(spread, AnswerSource::Spread),
            Choice::Nobody if snapshot.plain_allowed => plain(AnswerSource::FailToPlain),
            Choice::Nobody => proxies(snapshot.proxies.last_known(node), AnswerSource::LastKnown),
        }
    }

    /// Writes the addresses of the type asked for as the answer: whether there are any, and whether all fitted.
    fn addresses(&self, reply: &mut Reply<'_>, chosen: Chosen<'_>) -> (bool, Result<(), NoRoom>) {
        let (section, owner) = (Section::Answer, Owner::QUESTION);
        match self.question.kind {
            kind::A => self.v4(reply, section, owner, chosen),
            kind::AAAA => self.v6(reply, section, owner, chosen),
            kind::ANY => match self.v4(reply, section, owner, chosen) {
                (false, Ok(())) => match self.v6(reply, section, owner, chosen) {
                    (false, Ok(())) => (true, reply.hinfo()),
                    some => some,
                },
                some => some,
            },
            _ => (false, Ok(())),
        }
    }

    /// Writes an SRV for the Service whose name starts at `target`, and its addresses with it.
    fn srv(&self, reply: &mut Reply<'_>, port: u16, target: usize, chosen: Chosen<'_>) -> Result<(), NoRoom> {
        reply.srv(port, &self.question.name()[target..])?;
        let (section, owner) = (Section::Additional, Owner::suffix(target));
        // What does not fit here is left out without a word (RFC 2181 section 9).
        if self.v4(reply, section, owner, chosen).1.is_ok() {
            let _ = self.v6(reply, section, owner, chosen);
        }
        Ok(())
    }

    fn v4(
        &self,
        reply: &mut Reply<'_>,
        section: Section,
        owner: Owner,
        chosen: Chosen<'_>,
    ) -> (bool, Result<(), NoRoom>) {
        match chosen {
            Chosen::Addresses(list) => (!list.v4.is_empty(), reply.v4(section, owner, &list.v4, self.rotation)),
            Chosen::Proxies(choice) => {
                self.each(choice, |target| target.v4, |address| reply.v4(section, owner, &[address], 0))
            }
        }
    }

    fn v6(
        &self,
        reply: &mut Reply<'_>,
        section: Section,
        owner: Owner,
        chosen: Chosen<'_>,
    ) -> (bool, Result<(), NoRoom>) {
        match chosen {
            Chosen::Addresses(list) => (!list.v6.is_empty(), reply.v6(section, owner, &list.v6, self.rotation)),
            Chosen::Proxies(choice) => {
                self.each(choice, |target| target.v6, |address| reply.v6(section, owner, &[address], 0))
            }
        }
    }

    /// Calls `write` with one family's address of each proxy chosen. A proxy without one is passed over only in a
    /// spread: on the caller's own node the two families must not lead to different nodes.
    fn each<A>(
        &self,
        choice: Choice<'_>,
        family: impl Fn(&Target) -> Option<A>,
        mut write: impl FnMut(A) -> Result<(), NoRoom>,
    ) -> (bool, Result<(), NoRoom>) {
        match choice {
            Choice::Nobody => (false, Ok(())),
            Choice::Local(target) => match family(target) {
                Some(address) => (true, write(address)),
                None => (false, Ok(())),
            },
            Choice::Spread(targets) => {
                let (end, start) = targets.split_at(self.rotation.checked_rem(targets.len()).unwrap_or(0));
                let mut any = false;
                for address in start.iter().chain(end).filter_map(family).take(SPREAD) {
                    any = true;
                    if write(address).is_err() {
                        return (true, Err(NoRoom));
                    }
                }
                (any, Ok(()))
            }
        }
    }
}

impl Decision<'_> {
    /// A headless Service without endpoints has no name, as in the cluster's own zone, where the answer would be those.
    fn exists(&self, entry: &ZoneEntry) -> bool {
        match self.named {
            AnswerSource::Plain | AnswerSource::FailToPlain => !(entry.headless && entry.plain.is_empty()),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests;
