//! Writes a reply.
//!
//! The question is repeated as it came, and every name in the reply points into it where the format allows, so the
//! case a caller chose is kept (its check against forgery) and an answer with one address is 48 bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::query::{CLIENT_SUBNET, Edns, HEADER, Subnet};
use crate::zone::Addresses;

/// Seconds that any answer may be kept, positive or negative.
const TTL: u32 = 5;
/// UDP payload that we take and send at most: what passes every network unfragmented.
pub(super) const UDP_SIZE: u16 = 1232;

/// Record types that we know.
pub(super) mod kind {
    pub(in crate::answer) const A: u16 = 1;
    pub(in crate::answer) const NS: u16 = 2;
    pub(in crate::answer) const SOA: u16 = 6;
    pub(in crate::answer) const HINFO: u16 = 13;
    pub(in crate::answer) const TXT: u16 = 16;
    pub(in crate::answer) const AAAA: u16 = 28;
    pub(in crate::answer) const SRV: u16 = 33;
    pub(in crate::answer) const IXFR: u16 = 251;
    pub(in crate::answer) const AXFR: u16 = 252;
    pub(in crate::answer) const ANY: u16 = 255;
}

const IN: u16 = 1;

/// Bits of the flags.
const QR: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const AA: u16 = 0x0400;
const TC: u16 = 0x0200;
const RD: u16 = 0x0100;

/// Response codes, RFC 6895 section 2.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rcode {
    /// Answered, perhaps with no data.
    NoError = 0,
    /// The query cannot be read.
    FormErr = 1,
    /// Nothing is known yet.
    ServFail = 2,
    /// No such name.
    NxDomain = 3,
    /// An opcode that we do not serve.
    NotImp = 4,
    /// A name, class or transfer that we do not serve.
    Refused = 5,
    /// An EDNS version that we do not know.
    BadVers = 16,
}

impl Rcode {
    /// Every code, with its name in the metrics.
    pub(crate) const ALL: [(Self, &'static str); 7] = [
        (Self::NoError, "NOERROR"),
        (Self::FormErr, "FORMERR"),
        (Self::ServFail, "SERVFAIL"),
        (Self::NxDomain, "NXDOMAIN"),
        (Self::NotImp, "NOTIMP"),
        (Self::Refused, "REFUSED"),
        (Self::BadVers, "BADVERS"),
    ];
}

/// Sections of a reply, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Answer = 6,
    Authority = 8,
    Additional = 10,
}

/// Who owns a record: a place in the message that is pointed at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner(u16);

impl Owner {
    /// The name asked for.
    pub(super) const QUESTION: Self = Self(0xc000 | HEADER as u16);

    /// The part of the name asked for that starts `offset` bytes into it.
    pub(super) fn suffix(offset: usize) -> Self {
        Self(0xc000 | (HEADER + offset) as u16)
    }
}

/// A reply being written.
#[derive(Debug)]
pub(super) struct Reply<'a> {
    out: &'a mut Vec<u8>,
    /// Largest length, with room for the OPT record taken off.
    limit: usize,
    edns: Option<Edns>,
}

/// The record does not fit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

impl<'a> Reply<'a> {
    /// Starts a reply with the header and the question, `question` bytes long, of `query`.
    pub(super) fn new(
        out: &'a mut Vec<u8>,
        query: &[u8],
        flags: u16,
        question: usize,
        edns: Option<Edns>,
        limit: usize,
    ) -> Self {
        out.clear();
        let question = query.get(HEADER..HEADER + question).unwrap_or_default();
        let [high, low] = (QR | (flags & (OPCODE | RD))).to_be_bytes();
        let [id_high, id_low] = [query[0], query[1]];
        out.extend_from_slice(&[id_high, id_low, high, low, 0, u8::from(!question.is_empty()), 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(question);
        let reserved = edns.map_or(0, |edns| 11 + edns.subnet.map_or(0, |subnet| 8 + octets(subnet)));
        Self { out, limit: limit.saturating_sub(reserved), edns }
    }

    /// The answer is ours to give.
    pub(super) fn authoritative(&mut self) {
        self.out[2] |= (AA >> 8) as u8;
    }

    /// Not everything fitted.
    pub(super) fn truncated(&mut self) {
        self.out[2] |= (TC >> 8) as u8;
    }

    /// Ends the reply: response code, and OPT if the query had one. `used` is how many bits of the client subnet the
    /// answer depends on.
    pub(super) fn finish(self, rcode: Rcode, used: u8) {
        let code = rcode as u16;
        self.out[3] |= (code & 0xf) as u8;
        let Some(edns) = self.edns else { return };
        self.out[11] += 1;
        let [size_high, size_low] = UDP_SIZE.to_be_bytes();
        let length = edns.subnet.map_or(0, |subnet| 8 + octets(subnet));
        self.out.extend_from_slice(&[
            0,
            0,
            41,
            size_high,
            size_low,
            (code >> 4) as u8,
            0,
            if edns.dnssec_ok { 0x80 } else { 0 },
            0,
            0,
            length as u8,
        ]);
        if let Some(subnet) = edns.subnet {
            let given = octets(subnet);
            let family = subnet.family as u8;
            let head = [0, CLIENT_SUBNET as u8, 0, (4 + given) as u8, 0, family, subnet.source, used];
            self.out.extend_from_slice(&head);
            match subnet.address {
                IpAddr::V4(v4) => self.out.extend_from_slice(&v4.octets()[..given]),
                IpAddr::V6(v6) => self.out.extend_from_slice(&v6.octets()[..given]),
            }
        }
    }

    /// Adds an address.
    fn address(&mut self, section: Section, owner: Owner, address: IpAddr) -> Result<(), NoRoom> {
        match address {
            IpAddr::V4(v4) => self.record(section, owner, kind::A, |out| out.extend_from_slice(&v4.octets())),
            IpAddr::V6(v6) => self.record(section, owner, kind::AAAA, |out| out.extend_from_slice(&v6.octets())),
        }
    }

    /// Adds IPv4 addresses from the one at `first` on, around.
    pub(super) fn v4(&mut self, section: Section, owner: Owner, list: &[Ipv4Addr], first: usize) -> Result<(), NoRoom> {
        turned(list, first).try_for_each(|address| self.address(section, owner, (*address).into()))
    }

    /// Adds IPv6 addresses from the one at `first` on, around.
    pub(super) fn v6(&mut self, section: Section, owner: Owner, list: &[Ipv6Addr], first: usize) -> Result<(), NoRoom> {
        turned(list, first).try_for_each(|address| self.address(section, owner, (*address).into()))
    }

    /// Adds the zone's SOA, where the zone starts `apex` bytes into the name asked for.
    pub(super) fn soa(&mut self, section: Section, apex: usize, serial: u32) -> Result<(), NoRoom> {
        let zone = Owner::suffix(apex).0.to_be_bytes();
        self.record(section, Owner::suffix(apex), kind::SOA, |out| {
            out.extend_from_slice(b"\x02ns\x03dns");
            out.extend_from_slice(&zone);
            out.extend_from_slice(b"\x0ahostmaster");
            out.extend_from_slice(&zone);
            for number in [serial, 7200, 1800, 86400, TTL] {
                out.extend_from_slice(&number.to_be_bytes());
            }
        })
    }

    /// Adds the zone's NS, and our addresses.
    pub(super) fn ns(&mut self, apex: usize, addresses: &Addresses) -> Result<(), NoRoom> {
        let zone = Owner::suffix(apex).0.to_be_bytes();
        let mut server = 0;
        self.record(Section::Answer, Owner::suffix(apex), kind::NS, |out| {
            server = out.len();
            out.extend_from_slice(b"\x02ns\x03dns");
            out.extend_from_slice(&zone);
        })?;
        let owner = Owner(0xc000 | server as u16);
        // What does not fit here is left out without a word (RFC 2181 section 9).
        let _ = self
            .v4(Section::Additional, owner, &addresses.v4, 0)
            .and_then(|()| self.v6(Section::Additional, owner, &addresses.v6, 0));
        Ok(())
    }

    /// Adds a TXT with one string.
    pub(super) fn txt(&mut self, text: &str) -> Result<(), NoRoom> {
        self.record(Section::Answer, Owner::QUESTION, kind::TXT, |out| string(out, text))
    }

    /// Adds the record that stands for "ask for a type, not for any", RFC 8482 section 4.2.
    pub(super) fn hinfo(&mut self) -> Result<(), NoRoom> {
        self.record(Section::Answer, Owner::QUESTION, kind::HINFO, |out| {
            string(out, "RFC8482");
            string(out, "");
        })
    }

    /// Adds an SRV; the target is written in full (RFC 2782).
    pub(super) fn srv(&mut self, port: u16, target: &[u8]) -> Result<(), NoRoom> {
        self.record(Section::Answer, Owner::QUESTION, kind::SRV, |out| {
            // Priority 0, weight 100: there is one target.
            out.extend_from_slice(&[0, 0, 0, 100]);
            out.extend_from_slice(&port.to_be_bytes());
            out.extend_from_slice(target);
        })
    }

    /// Adds one record, whose data `write` appends, or nothing if it does not fit.
    fn record(
        &mut self,
        section: Section,
        owner: Owner,
        kind: u16,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), NoRoom> {
        let start = self.out.len();
        let ([o0, o1], [k0, k1], [c0, c1]) = (owner.0.to_be_bytes(), kind.to_be_bytes(), IN.to_be_bytes());
        let [t0, t1, t2, t3] = TTL.to_be_bytes();
        self.out.extend_from_slice(&[o0, o1, k0, k1, c0, c1, t0, t1, t2, t3, 0, 0]);
        write(self.out);
        if self.out.len() > self.limit {
            self.out.truncate(start);
            return Err(NoRoom);
        }
        let length = (self.out.len() - start - 12) as u16;
        self.out[start + 10..start + 12].copy_from_slice(&length.to_be_bytes());
        let at = section as usize;
        let count = u16::from_be_bytes([self.out[at], self.out[at + 1]]) + 1;
        self.out[at..at + 2].copy_from_slice(&count.to_be_bytes());
        Ok(())
    }
}

/// Number of address bytes a client subnet carries.
fn octets(subnet: Subnet) -> usize {
    usize::from(subnet.source.div_ceil(8))
}

/// A character string, RFC 1035 section 3.3.
fn string(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

/// `list` from `first` on, around.
fn turned<T>(list: &[T], first: usize) -> impl Iterator<Item = &T> {
    let (end, start) = list.split_at(first.checked_rem(list.len()).unwrap_or(0));
    start.iter().chain(end)
}
