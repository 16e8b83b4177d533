//! Queries for comparing answers: ordinary ones, and all kinds of odd ones.

use crate::packet::{message, opt, question, subnet};

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

/// One query.
#[derive(Debug)]
pub struct Probe {
    /// What is odd about it.
    pub name: String,
    /// The message.
    pub query: Vec<u8>,
    /// Over TCP rather than UDP.
    pub tcp: bool,
}

/// Recursion desired, as every stub resolver asks.
const RD: u16 = 0x0100;

/// Every name with every type, with and without EDNS, over both transports; then [`odd`] ones.
pub fn probes() -> Vec<Probe> {
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

/// Queries that no good resolver sends, each with what is odd about it.
///
/// # Panics
/// Never.
pub fn odd() -> Vec<(&'static str, Vec<u8>)> {
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
