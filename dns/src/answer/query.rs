//! Reads a query.
//!
//! By hand, because what the answer needs of it is little: the question, to be repeated byte for byte, and two facts
//! from the OPT record. Nothing is allocated and nothing is trusted: every length is checked before it is followed, and
//! compression, which no query needs, is not followed at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{locality::masked, zone::MAX_NAME};

/// Length of a DNS header.
pub(super) const HEADER: usize = 12;

/// Type of the pseudo record of EDNS, RFC 6891.
pub(super) const OPT: u16 = 41;
/// Code of the client subnet option, RFC 7871.
pub(super) const CLIENT_SUBNET: u16 = 8;

/// The fixed part of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    /// Two bytes after the id: QR, opcode, flags, rcode.
    pub(super) flags: u16,
    questions: u16,
    answers: u16,
    authorities: u16,
    additionals: u16,
}

impl Header {
    /// The header of `message`; `None` if it is too short to have one.
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let head: &[u8; HEADER] = message.first_chunk()?;
        let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        Some(Self { flags: word(2), questions: word(4), answers: word(6), authorities: word(8), additionals: word(10) })
    }

    /// It is a response itself.
    pub(super) fn is_response(self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// What is asked for: 0 is a query.
    pub(super) fn opcode(self) -> u16 {
        (self.flags >> 11) & 0xf
    }

    /// Number of questions it claims to have.
    pub(super) fn questions(self) -> u16 {
        self.questions
    }

    /// Number of answers it claims to have.
    pub(super) fn answers(self) -> u16 {
        self.answers
    }
}

/// The one question of a query.
#[derive(Debug)]
pub(super) struct Question {
    /// The name in wire format and lower case; as much as `length` says.
    lower: [u8; MAX_NAME],
    length: usize,
    /// Type asked for.
    pub(super) kind: u16,
    /// Class asked for.
    pub(super) class: u16,
}

impl Question {
    /// Reads the question after the header. `None` if it is cut short, or its name is compressed, too long or has a
    /// label of unknown type.
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let body = message.get(HEADER..)?;
        let mut at = 0;
        loop {
            let label = usize::from(*body.get(at)?);
            at += 1 + label;
            if label == 0 {
                break;
            }
            if label > 63 || at >= MAX_NAME {
                return None;
            }
        }
        let mut lower = [0; MAX_NAME];
        lower[..at].copy_from_slice(body.get(..at)?);
        // Lengths are below 64 and letters above, so lengths stay what they are.
        lower[..at].make_ascii_lowercase();
        let rest: &[u8; 4] = body.get(at..)?.first_chunk()?;
        Some(Self {
            lower,
            length: at,
            kind: u16::from_be_bytes([rest[0], rest[1]]),
            class: u16::from_be_bytes([rest[2], rest[3]]),
        })
    }

    /// The name asked for, in wire format and lower case.
    pub(super) fn name(&self) -> &[u8] {
        &self.lower[..self.length]
    }

    /// Where the message goes on after it.
    pub(super) fn end(&self) -> usize {
        HEADER + self.length + 4
    }
}

/// What the OPT record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edns {
    /// Largest UDP answer the caller takes, as it came.
    pub(super) size: u16,
    /// Version; we know 0.
    pub(super) version: u8,
    /// The DO bit.
    pub(super) dnssec_ok: bool,
    /// Where the caller is.
    pub(super) subnet: Option<Subnet>,
    /// Its options cannot be read, or the client subnet breaks the rules of RFC 7871 section 6.
    pub(super) malformed: bool,
}

/// A client subnet option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subnet {
    /// 1 for IPv4, 2 for IPv6, 0 for nothing with a length of 0.
    pub(super) family: u16,
    /// Number of bits of the address that were given.
    pub(super) source: u8,
    /// The address, zeros after those bits.
    pub(super) address: IpAddr,
}

impl Subnet {
    /// Length of a full address in bits.
    pub(super) fn full(self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// The address, if all of it was given.
    pub(super) fn whole(self) -> Option<IpAddr> {
        (self.family != 0 && self.source == self.full()).then_some(self.address)
    }
}

/// The sections after the question cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// What was read of an OPT record before.
    pub(super) edns: Option<Edns>,
}

/// Finds the OPT record in what follows the question at `at`. Other records are skipped, as is what comes after the
/// last one.
pub(super) fn edns(message: &[u8], header: Header, at: usize) -> Result<Option<Edns>, Unreadable> {
    let before = u32::from(header.answers) + u32::from(header.authorities);
    let total = before + u32::from(header.additionals);
    let mut found = None;
    let mut at = at;
    for number in 0..total {
        let unreadable = Unreadable { edns: found };
        let Some(record) = Record::read(message, at) else { return Err(unreadable) };
        at = record.end;
        if record.kind == OPT {
            if found.is_some() || number < before || !record.of_root {
                return Err(unreadable);
            }
            found = Some(Edns::new(&record));
        }
    }
    Ok(found)
}

/// A record of any section.
pub(super) struct Record<'a> {
    of_root: bool,
    /// Its type.
    pub(super) kind: u16,
    class: u16,
    /// Its time to live.
    pub(super) ttl: [u8; 4],
    /// What it says.
    pub(super) data: &'a [u8],
    /// Where the message goes on after it.
    pub(super) end: usize,
}

impl<'a> Record<'a> {
    /// The record at `from`; `None` if it is cut short or its name cannot be read.
    pub(super) fn read(message: &'a [u8], from: usize) -> Option<Self> {
        let mut at = from;
        loop {
            match *message.get(at)? {
                0 => break at += 1,
                length @ 1..=63 => at += 1 + usize::from(length),
                // A compressed rest; where it leads does not matter to us.
                0xc0..=0xff => break at += 2,
                _ => return None,
            }
        }
        let fixed: &[u8; 10] = message.get(at..)?.first_chunk()?;
        let data = at + 10;
        let end = data + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        Some(Self {
            of_root: at == from + 1,
            kind: u16::from_be_bytes([fixed[0], fixed[1]]),
            class: u16::from_be_bytes([fixed[2], fixed[3]]),
            ttl: [fixed[4], fixed[5], fixed[6], fixed[7]],
            data: message.get(data..end)?,
            end,
        })
    }
}

impl Edns {
    fn new(record: &Record<'_>) -> Self {
        let (subnet, malformed) = match subnet(record.data) {
            Ok(subnet) => (subnet, false),
            Err(Malformed) => (None, true),
        };
        let [_, version, flags, _] = record.ttl;
        Self { size: record.class, version, dnssec_ok: flags & 0x80 != 0, subnet, malformed }
    }
}

/// Options that break their own rules.
struct Malformed;

/// The first client subnet among `options`. A family we do not know is as if it were not there.
fn subnet(options: &[u8]) -> Result<Option<Subnet>, Malformed> {
    let mut found = None;
    let mut rest = options;
    while !rest.is_empty() {
        let (head, body) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (data, next) = body.split_at_checked(length).ok_or(Malformed)?;
        rest = next;
        if u16::from_be_bytes([head[0], head[1]]) == CLIENT_SUBNET && found.is_none() {
            found = Some(Subnet::read(data)?);
        }
    }
    Ok(found.flatten())
}

impl Subnet {
    /// Reads the option's data; the scope a query carries is ignored.
    fn read(data: &[u8]) -> Result<Option<Self>, Malformed> {
        let (head, given) = data.split_first_chunk::<4>().ok_or(Malformed)?;
        let (family, source) = (u16::from_be_bytes([head[0], head[1]]), head[2]);
        let full = match family {
            0 if source == 0 && given.is_empty() => 0,
            1 => 32,
            2 => 128,
            0 => return Err(Malformed),
            _ => return Ok(None),
        };
        if source > full || given.len() != usize::from(source.div_ceil(8)) {
            return Err(Malformed);
        }
        let address: IpAddr = if family == 2 {
            let mut bytes = [0; 16];
            bytes[..given.len()].copy_from_slice(given);
            Ipv6Addr::from(bytes).into()
        } else {
            let mut bytes = [0; 4];
            bytes[..given.len()].copy_from_slice(given);
            Ipv4Addr::from(bytes).into()
        };
        if masked(address, source) != address {
            return Err(Malformed);
        }
        Ok(Some(Self { family, source, address }))
    }
}
