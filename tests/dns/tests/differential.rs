//! The same packets to us, to Knot and to NSD, which serve the same zone: what differs must be expected, each with its
//! reason, and what is expected to differ must.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record};
use maesh_dns_suite::{Responder, Rival, ask_tcp, ask_udp, message, opt, question, subnet};

/// Names asked for with every type.
const NAMES: &[&str] = &[
    "maesh",
    "ns.dns.maesh",
    "dns.maesh",
    "x.dns.maesh",
    "dns-version.maesh",
    "x.dns-version.maesh",
    "web.shop.maesh",
    "WEB.Shop.mAesh",
    "v4.shop.maesh",
    "v6.shop.maesh",
    "three.data.maesh",
    "many.data.maesh",
    "shop.maesh",
    "data.maesh",
    "_tcp.web.shop.maesh",
    "_udp.web.shop.maesh",
    "_http._tcp.web.shop.maesh",
    "_HTTP._TCP.web.shop.maesh",
    "_admin._tcp.web.shop.maesh",
    "_https._tcp.web.shop.maesh",
    "_http._udp.web.shop.maesh",
    "_http._tcp.v4.shop.maesh",
    "x._http._tcp.web.shop.maesh",
    "x.web.shop.maesh",
    "nope.shop.maesh",
    "web.nope.maesh",
    "nope.maesh",
    "*.shop.maesh",
    "a.b.c.d.e.maesh",
    "",
    "mesh",
    "xmaesh",
    "example.com",
    "1.0.0.127.in-addr.arpa",
];

/// A, NS, CNAME, SOA, PTR, HINFO, MX, TXT, AAAA, SRV, DS, DNSKEY, HTTPS, CAA, one that is not assigned.
const TYPES: &[u16] = &[1, 2, 5, 6, 12, 13, 15, 16, 28, 33, 43, 48, 65, 257, 1000];

/// Who differs in what, by the reason; a `*` stands for any end.
const EXPECTED: &[(&str, &str)] = &[
    // Refused, not 'not implemented' or 'not authoritative': the zone is ours and nobody may take it whole.
    ("knot", "AXFR"),
    ("knot", "AXFR of a name"),
    ("knot", "IXFR"),
    ("nsd", "AXFR"),
    ("nsd", "AXFR of a name"),
    // Any one set of records will do (RFC 8482); ours is the SOA.
    ("knot", "ANY of the apex"),
    // It says which server it is; we do not.
    ("knot", "EDNS, NSID"),
    ("knot", "version.bind CH"),
    ("knot", "id.server CH"),
    ("nsd", "version.bind CH"),
    ("nsd", "id.server CH"),
    // There is no class but IN here.
    ("both", "class ANY"),
    // It leaves out OPT or question where it cannot read all; CoreDNS passes on no reply without the question.
    ("knot", "EDNS, half an option"),
    ("knot", "EDNS, options cut short"),
    ("knot", "two OPT"),
    ("nsd", "EDNS, half an option"),
    ("nsd", "EDNS, options cut short"),
    ("nsd", "two OPT"),
    ("nsd", "OPT as an answer"),
    ("nsd", "OPT longer than the message"),
    ("nsd", "OPT of a name"),
    ("nsd", "a record promised"),
    ("nsd", "class 0"),
    ("nsd", "class HS"),
    ("nsd", "class NONE"),
    ("nsd", "opcode IQUERY"),
    ("nsd", "opcode STATUS"),
    ("nsd", "opcode 3"),
    ("nsd", "opcode DSO"),
    ("nsd", "opcode 15"),
    // OPT belongs to the root (RFC 6891 section 6.1.2).
    ("knot", "OPT of a name"),
    // It is silent; silence costs a caller seconds.
    ("knot", "a label of type 0x40"),
    ("knot", "a label of type 0x80"),
    ("knot", "a name of 256 bytes"),
    ("knot", "a name that points ahead"),
    ("knot", "a name that points to itself"),
    ("knot", "a name without end"),
    ("knot", "a question cut short"),
    ("knot", "a question promised"),
    ("knot", "two questions"),
    ("nsd", "a header alone, TCP"),
    ("nsd", "a name without end, TCP"),
    ("nsd", "a question promised, TCP"),
    ("nsd", "opcode 15, a header alone, TCP"),
    // What comes after the message is nobody's business.
    ("knot", "bytes after the end"),
    // No question is a bad question.
    ("nsd", "no question, OPT"),
    // Nobody may notify or update; no zone is transferred or changed here.
    ("both", "opcode NOTIFY"),
    ("both", "opcode UPDATE"),
    // It does not know the client subnet.
    ("both", "subnet"),
    ("both", "subnet of IPv6"),
    ("both", "subnet of length 0"),
    ("both", "subnet with a scope"),
    ("both", "subnet too long"),
    ("both", "subnet with bits beyond its length"),
    ("both", "subnet with too few bytes"),
    ("both", "subnet with too many bytes"),
    // Type 0 is a type without data, as NSD has it.
    ("knot", "type 0"),
    // With minimal responses it leaves out the addresses of an SRV over UDP.
    ("nsd", "_http._tcp.web.shop.maesh type 33*"),
    ("nsd", "_HTTP._TCP.web.shop.maesh type 33*"),
    ("nsd", "_admin._tcp.web.shop.maesh type 33*"),
    ("nsd", "_http._tcp.v4.shop.maesh type 33*"),
    // A query's code means nothing.
    ("nsd", "a code in a query"),
    // Records in a query are skipped, as Knot does.
    ("nsd", "a record before OPT"),
    ("nsd", "an answer in a query"),
    ("nsd", "an authority in a query"),
    // It does not repeat RD.
    ("nsd", "two questions"),
];

struct Probe {
    name: String,
    query: Vec<u8>,
    tcp: bool,
}

/// Recursion desired, as every stub resolver asks.
const RD: u16 = 0x0100;

fn probes() -> Vec<Probe> {
    let mut probes = Vec::new();
    let mut add = |name: String, query: Vec<u8>, tcp: bool| probes.push(Probe { name, query, tcp });
    for name in NAMES {
        for kind in TYPES {
            let q = question(name, *kind);
            add(format!("{name} type {kind}"), message(RD, [1, 0, 0, 0], &[&q]), false);
            let edns = message(0, [1, 0, 0, 1], &[&q, &opt(1232, [0, 0, 0x80, 0], &[])]);
            add(format!("{name} type {kind}, EDNS, DO"), edns, false);
            add(format!("{name} type {kind}, TCP"), message(RD, [1, 0, 0, 0], &[&q]), true);
        }
    }
    for (name, query) in odd() {
        add(name.to_owned(), query.clone(), false);
        add(format!("{name}, TCP"), query, true);
    }
    probes
}

/// What no good resolver sends.
fn odd() -> Vec<(&'static str, Vec<u8>)> {
    let q = question("v4.shop.maesh", 1);
    let name = &q[..q.len() - 4];
    let plain = opt(1232, [0; 4], &[]);
    let asks = |kind: u16| message(RD, [1, 0, 0, 0], &[&question("v4.shop.maesh", kind)]);
    let apex = |kind: u16| message(RD, [1, 0, 0, 0], &[&question("maesh", kind)]);
    let with_opt = |options: &[u8]| message(RD, [1, 0, 0, 1], &[&q, &opt(1232, [0; 4], options)]);
    let version = |version: u8| message(RD, [1, 0, 0, 1], &[&q, &opt(1232, [0, version, 0, 0], &[])]);
    let opcode = |code: u16| message(RD | code << 11, [1, 0, 0, 0], &[&q]);
    let class = |class: u8| message(RD, [1, 0, 0, 0], &[name, &[0, 1, 0, class]]);
    let chaos = |text: &str| {
        let mut q = question(text, 16);
        *q.last_mut().expect("a class") = 3;
        message(RD, [1, 0, 0, 0], &[&q])
    };
    let label = |length: u8| [&[length][..], &vec![b'x'; usize::from(length)]].concat();
    vec![
        ("AXFR", apex(252)),
        ("IXFR", apex(251)),
        ("AXFR of a name", asks(252)),
        ("ANY of the apex", apex(255)),
        ("ANY of a name", asks(255)),
        ("ANY of nothing", message(RD, [1, 0, 0, 0], &[&question("nope.maesh", 255)])),
        ("type 0", asks(0)),
        ("type OPT", asks(41)),
        ("type MAILB", asks(253)),
        ("type TSIG", asks(250)),
        ("type 65535", asks(65535)),
        ("class CH", class(3)),
        ("class HS", class(4)),
        ("class NONE", class(254)),
        ("class ANY", class(255)),
        ("class 0", class(0)),
        ("version.bind CH", chaos("version.bind")),
        ("id.server CH", chaos("id.server")),
        ("opcode IQUERY", opcode(1)),
        ("opcode STATUS", opcode(2)),
        ("opcode 3", opcode(3)),
        ("opcode NOTIFY", opcode(4)),
        ("opcode UPDATE", opcode(5)),
        ("opcode DSO", opcode(6)),
        ("opcode 15", opcode(15)),
        ("opcode 15, a header alone", message(15 << 11, [0; 4], &[])),
        ("all flags of a query", message(0x07f0, [1, 0, 0, 0], &[&q])),
        ("CD", message(0x0010, [1, 0, 0, 0], &[&q])),
        ("AD", message(0x0020, [1, 0, 0, 0], &[&q])),
        ("Z", message(0x0040, [1, 0, 0, 0], &[&q])),
        ("a code in a query", message(0x0005, [1, 0, 0, 0], &[&q])),
        ("a response", message(0x8000, [1, 0, 0, 0], &[&q])),
        ("nothing", vec![]),
        ("half a header", vec![0; 11]),
        ("a header alone", message(RD, [0; 4], &[])),
        ("no question, OPT", message(RD, [0, 0, 0, 1], &[&plain])),
        ("two questions", message(RD, [2, 0, 0, 0], &[&q, &q])),
        ("a question promised", message(RD, [1, 0, 0, 0], &[])),
        ("a question cut short", message(RD, [1, 0, 0, 0], &[&q[..q.len() - 1]])),
        ("a name without end", message(RD, [1, 0, 0, 0], &[b"\x03web"])),
        ("a name that points to itself", message(RD, [1, 0, 0, 0], &[b"\xc0\x0c\0\x01\0\x01"])),
        ("a name that points ahead", message(RD, [1, 0, 0, 0], &[b"\xc0\x20\0\x01\0\x01"])),
        ("a label of type 0x40", message(RD, [1, 0, 0, 0], &[b"\x41x\0\0\x01\0\x01"])),
        ("a label of type 0x80", message(RD, [1, 0, 0, 0], &[b"\x81x\0\0\x01\0\x01"])),
        ("a name of 255 bytes", message(RD, [1, 0, 0, 0], &[&label(63).repeat(3), &label(61), &[0, 0, 1, 0, 1]])),
        ("a name of 256 bytes", message(RD, [1, 0, 0, 0], &[&label(63).repeat(3), &label(62), &[0, 0, 1, 0, 1]])),
        ("bytes after the end", message(RD, [1, 0, 0, 0], &[&q, b"garbage"])),
        ("a record promised", message(RD, [1, 0, 0, 1], &[&q])),
        ("an answer in a query", message(RD, [1, 1, 0, 0], &[&q, b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x7f\0\0\x01"])),
        (
            "an authority in a query",
            message(RD, [1, 0, 1, 0], &[&q, b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x7f\0\0\x01"]),
        ),
        (
            "a record before OPT",
            message(RD, [1, 0, 0, 2], &[&q, b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x7f\0\0\x01", &plain]),
        ),
        ("two OPT", message(RD, [1, 0, 0, 2], &[&q, &plain, &plain])),
        ("OPT longer than the message", message(RD, [1, 0, 0, 1], &[&q, b"\0\0\x29\x04\xd0\0\0\0\0\0\x05"])),
        ("OPT of a name", message(RD, [1, 0, 0, 1], &[&q, b"\x01x", &plain])),
        ("OPT as an answer", message(RD, [1, 1, 0, 0], &[&q, &plain])),
        ("EDNS version 1", version(1)),
        ("EDNS version 255", version(255)),
        ("EDNS, size 0", message(RD, [1, 0, 0, 1], &[&q, &opt(0, [0; 4], &[])])),
        ("EDNS, code 5", message(RD, [1, 0, 0, 1], &[&q, &opt(1232, [5, 0, 0, 0], &[])])),
        ("EDNS, all flags", message(RD, [1, 0, 0, 1], &[&q, &opt(1232, [0, 0, 0xff, 0xff], &[])])),
        ("EDNS, an unknown option", with_opt(b"\xff\xee\0\x02hi")),
        ("EDNS, a cookie", with_opt(b"\0\x0a\0\x0812345678")),
        ("EDNS, a cookie of a wrong length", with_opt(b"\0\x0a\0\x03123")),
        ("EDNS, NSID", with_opt(b"\0\x03\0\0")),
        ("EDNS, padding", with_opt(b"\0\x0c\0\x04\0\0\0\0")),
        ("EDNS, options cut short", with_opt(b"\xff\xee\0\x09hi")),
        ("EDNS, half an option", with_opt(b"\xff")),
        ("subnet", with_opt(&subnet(1, 24, 0, &[10, 1, 1]))),
        ("subnet of IPv6", with_opt(&subnet(2, 56, 0, &[0xfd, 0, 0, 0, 0, 0, 0]))),
        ("subnet of length 0", with_opt(&subnet(1, 0, 0, &[]))),
        ("subnet with a scope", with_opt(&subnet(1, 24, 24, &[10, 1, 1]))),
        ("subnet of a family unknown", with_opt(&subnet(3, 8, 0, &[1]))),
        ("subnet too long", with_opt(&subnet(1, 33, 0, &[10, 1, 1, 10, 0]))),
        ("subnet with too few bytes", with_opt(&subnet(1, 32, 0, &[10, 1, 1]))),
        ("subnet with too many bytes", with_opt(&subnet(1, 24, 0, &[10, 1, 1, 10]))),
        ("subnet with bits beyond its length", with_opt(&subnet(1, 23, 0, &[10, 1, 1]))),
    ]
}

/// What a reply says, without what may differ between two right ones: order, serial, and what was cut.
fn shape(reply: Option<&[u8]>) -> String {
    let Some(reply) = reply else { return "silence".into() };
    let word = |at: usize| reply.get(at..at + 2).map_or(0, |word| u16::from_be_bytes([word[0], word[1]]));
    let flags = word(2);
    let Ok(parsed) = Message::from_vec(reply) else {
        return format!("code {} questions {} answers {} (not readable)", flags & 0xf, word(4), word(6));
    };
    let code = match parsed.metadata.response_code {
        ResponseCode::BADVERS => 16,
        _ => flags & 0xf,
    };
    let mut text = format!("code {code} opcode {}", flags >> 11 & 0xf);
    for (bit, name) in
        [(0x0400, "AA"), (0x0200, "TC"), (0x0100, "RD"), (0x80, "RA"), (0x40, "Z"), (0x20, "AD"), (0x10, "CD")]
    {
        if flags & bit != 0 {
            let _ = write!(text, " {name}");
        }
    }
    for query in &parsed.queries {
        let _ = write!(text, "; {} {}", query.name(), query.query_type());
    }
    let cut = parsed.metadata.truncation;
    for (section, records) in
        [("answer", &parsed.answers), ("authority", &parsed.authorities), ("additional", &parsed.additionals)]
    {
        if !records.is_empty() && !cut {
            let lines: BTreeSet<String> = records.iter().map(line).collect();
            let _ = write!(text, "; {section}: {}", lines.into_iter().collect::<Vec<_>>().join(", "));
        }
    }
    if let Some(edns) = &parsed.edns {
        let _ = write!(text, "; OPT version {} flags {:?}", edns.version(), edns.flags());
        // Knot explains its codes (RFC 8914); that is an extra.
        for code in edns.options().as_ref().iter().map(|(code, _)| u16::from(*code)).filter(|code| *code != 15) {
            let _ = write!(text, " option {code}");
        }
    }
    text
}

fn line(record: &Record) -> String {
    let data = match &record.data {
        RData::SOA(soa) => {
            format!("{} {} {} {} {} {}", soa.mname, soa.rname, soa.refresh, soa.retry, soa.expire, soa.minimum)
        }
        other => other.to_string(),
    };
    format!("{} {} {} {data}", record.name.to_lowercase(), record.ttl, record.record_type()).to_lowercase()
}

fn ask(server: SocketAddr, probe: &Probe) -> String {
    let reply = if probe.tcp { ask_tcp(server, &probe.query) } else { ask_udp(server, &probe.query) };
    shape(reply.expect("it takes queries").as_deref())
}

#[test]
fn what_others_answer() {
    let (Some(knot), Some(nsd)) = (Rival::knot(), Rival::nsd()) else { return };
    let us = Responder::start("127.0.0.1:0".parse().expect("an address"));
    let mut found: BTreeMap<(&str, String), String> = BTreeMap::new();
    let (mut compared, mut silent) = (0, 0);
    for probe in probes() {
        let ours = ask(us.address(), &probe);
        silent += usize::from(ours == "silence");
        for rival in [&knot, &nsd] {
            compared += 1;
            let theirs = ask(rival.address, &probe);
            if ours != theirs {
                found.insert((rival.name, probe.name.clone()), format!("ours   {ours}\ntheirs {theirs}"));
            }
        }
    }
    assert!(compared > 3000 && silent < 20, "{compared} compared, {silent} times silent");
    let explains = |(server, probe): &(&str, &str), (rival, name): &(&str, String)| {
        (server == rival || *server == "both")
            && match probe.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == probe || name.strip_suffix(", TCP") == Some(probe),
            }
    };
    let unexplained: Vec<String> = found
        .iter()
        .filter(|(which, _)| !EXPECTED.iter().any(|row| explains(row, which)))
        .map(|((rival, name), both)| format!("{rival}: {name}\n{both}"))
        .collect();
    let gone: Vec<_> = EXPECTED.iter().filter(|row| !found.keys().any(|which| explains(row, which))).collect();
    assert!(unexplained.is_empty() && gone.is_empty(), "{}\nno longer different: {gone:#?}", unexplained.join("\n"));
}
