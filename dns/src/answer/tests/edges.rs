//! Bytes that no good resolver sends.

use super::*;

/// Header flags of an ordinary query.
const RD: u16 = 0x0100;
const WEB: &[u8] = b"\x03web\x04shop\x05maesh\x00";

/// A message from its parts: flags, counts, and everything after the header.
fn message(flags: u16, counts: [u16; 4], body: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34];
    bytes.extend(flags.to_be_bytes());
    bytes.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    bytes.extend(body.concat());
    bytes
}

/// A question of class IN.
fn asks(name: &[u8], kind: u16) -> Vec<u8> {
    [name, &kind.to_be_bytes(), &[0, 1]].concat()
}

/// An OPT record with a UDP size, the extended flags, and options.
fn opt(size: u16, ttl: [u8; 4], options: &[u8]) -> Vec<u8> {
    let length = (options.len() as u16).to_be_bytes();
    [&[0, 0, 41][..], &size.to_be_bytes(), &ttl, &length, options].concat()
}

/// A client subnet option from family, lengths and address.
fn subnet(family: u16, source: u8, scope: u8, address: &[u8]) -> Vec<u8> {
    let length = (4 + address.len() as u16).to_be_bytes();
    [&[0, 8][..], &length, &family.to_be_bytes(), &[source, scope], address].concat()
}

/// Code (with OPT's upper bits), then which of question, OPT (the only additional record here), AA, TC and answers
/// there are.
fn shape(reply: &[u8]) -> String {
    let word = |at: usize| u16::from_be_bytes([reply[at], reply[at + 1]]);
    let parsed = Message::from_vec(reply);
    let high = parsed.as_ref().ok().and_then(|m| m.edns.as_ref()).map_or(0, |edns| edns.rcode_high());
    let code = match u16::from(high) << 4 | (word(2) & 0xf) {
        0 => "NOERROR",
        1 => "FORMERR",
        4 => "NOTIMP",
        5 => "REFUSED",
        16 => "BADVERS",
        _ => "other",
    };
    let mut text = code.to_owned();
    for (sign, there) in [
        (" Q", word(4) > 0),
        (" OPT", word(10) > 0),
        (" AA", word(2) & 0x0400 != 0),
        (" TC", word(2) & 0x0200 != 0),
        (" data", word(6) > 0),
    ] {
        if there {
            text.push_str(sign);
        }
    }
    text
}

#[test]
fn reactions() {
    let snapshot = snapshot([]);
    let q = asks(WEB, 1);
    let plain = opt(1232, [0; 4], &[]);
    let with_opt = |options: &[u8]| message(RD, [1, 0, 0, 1], &[&q, &opt(1232, [0; 4], options)]);
    let good = "NOERROR Q OPT AA data";
    let bad = "FORMERR Q OPT";
    let opcode = |code: u16| message(RD | code << 11, [1, 0, 0, 0], &[&q]);
    let class = |class: u8| message(RD, [1, 0, 0, 0], &[WEB, &[0, 1, 0, class]]);
    let long: Vec<u8> = b"\x3fxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx".repeat(4);
    let rows: Vec<(&str, Vec<u8>, Option<&str>)> = vec![
        ("an ordinary query", message(RD, [1, 0, 0, 0], &[&q]), Some("NOERROR Q AA data")),
        ("with OPT", with_opt(&[]), Some(good)),
        ("a response", message(0x8000, [1, 0, 0, 0], &[&q]), None),
        ("nothing", vec![], None),
        ("half a header", vec![0; 11], None),
        ("a header alone", message(RD, [0; 4], &[]), Some("FORMERR")),
        ("no question", message(RD, [0, 0, 0, 1], &[&plain]), Some("FORMERR OPT")),
        ("two questions", message(RD, [2, 0, 0, 0], &[&q, &q]), Some("FORMERR")),
        ("a question promised", message(RD, [1, 0, 0, 0], &[]), Some("FORMERR")),
        ("a question cut short", message(RD, [1, 0, 0, 0], &[&q[..q.len() - 1]]), Some("FORMERR")),
        ("a name without end", message(RD, [1, 0, 0, 0], &[b"\x03web"]), Some("FORMERR")),
        ("a compressed name", message(RD, [1, 0, 0, 0], &[b"\xc0\x0c\x00\x01\x00\x01"]), Some("FORMERR")),
        ("a label of type 0x40", message(RD, [1, 0, 0, 0], &[b"\x41x\x00\x00\x01\x00\x01"]), Some("FORMERR")),
        ("a name of 257 bytes", message(RD, [1, 0, 0, 0], &[&long, &[0, 0, 1, 0, 1]]), Some("FORMERR")),
        (
            "a name of 255 bytes",
            message(RD, [1, 0, 0, 0], &[&long[..192], b"\x3d", &long[1..62], &[0, 0, 1, 0, 1]]),
            Some("REFUSED Q"),
        ),
        (
            "a name of 256 bytes",
            message(RD, [1, 0, 0, 0], &[&long[..192], b"\x3e", &long[1..63], &[0, 0, 1, 0, 1]]),
            Some("FORMERR"),
        ),
        ("bytes after the end", message(RD, [1, 0, 0, 0], &[&q, b"garbage"]), Some("NOERROR Q AA data")),
        ("records promised", message(RD, [1, 0, 0, 1], &[&q]), Some("FORMERR Q")),
        ("two OPT", message(RD, [1, 0, 0, 2], &[&q, &plain, &plain]), Some(bad)),
        (
            "OPT longer than the message",
            message(RD, [1, 0, 0, 1], &[&q, b"\0\0\x29\x04\xd0\0\0\0\0\0\x05"]),
            Some("FORMERR Q"),
        ),
        ("OPT of a name", message(RD, [1, 0, 0, 1], &[&q, b"\x01x", &plain]), Some("FORMERR Q")),
        ("OPT as an answer", message(RD, [1, 1, 0, 0], &[&q, &plain]), Some("FORMERR Q")),
        (
            "a record before OPT",
            message(RD, [1, 0, 0, 2], &[&q, b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x7f\0\0\x01", &plain]),
            Some(good),
        ),
        ("a record of a bad label", message(RD, [1, 0, 0, 1], &[&q, b"\x80"]), Some("FORMERR Q")),
        ("EDNS version 1", message(RD, [1, 0, 0, 1], &[&q, &opt(1232, [0, 1, 0, 0], &[])]), Some("BADVERS Q OPT")),
        (
            "EDNS version 255, bad options",
            message(RD, [1, 0, 0, 1], &[&q, &opt(1232, [0, 255, 0, 0], &[9])]),
            Some("BADVERS Q OPT"),
        ),
        ("an unknown option", with_opt(b"\xff\xee\x00\x02hi"), Some(good)),
        ("a cookie", with_opt(b"\x00\x0a\x00\x0812345678"), Some(good)),
        ("options cut short", with_opt(b"\xff\xee\x00\x09hi"), Some(bad)),
        ("half an option", with_opt(b"\xff"), Some(bad)),
        ("all extended flags", message(RD, [1, 0, 0, 1], &[&q, &opt(1232, [0, 0, 0xff, 0xff], &[])]), Some(good)),
        ("subnet", with_opt(&subnet(1, 32, 0, &[10, 1, 1, 10])), Some(good)),
        ("subnet with a scope", with_opt(&subnet(1, 32, 24, &[10, 1, 1, 10])), Some(good)),
        ("subnet of nothing", with_opt(&subnet(0, 0, 0, &[])), Some(good)),
        ("subnet of nothing with a length", with_opt(&subnet(0, 8, 0, &[1])), Some(bad)),
        ("subnet of a family unknown", with_opt(&subnet(3, 8, 0, &[1])), Some(good)),
        ("subnet too long", with_opt(&subnet(1, 33, 0, &[10, 1, 1, 10, 0])), Some(bad)),
        ("subnet with too few bytes", with_opt(&subnet(1, 32, 0, &[10, 1, 1])), Some(bad)),
        ("subnet with too many bytes", with_opt(&subnet(1, 24, 0, &[10, 1, 1, 10])), Some(bad)),
        ("subnet with bits beyond its length", with_opt(&subnet(1, 23, 0, &[10, 1, 1])), Some(bad)),
        ("subnet cut short", with_opt(b"\0\x08\0\x03\0\x01\x20"), Some(bad)),
        ("IQUERY", opcode(1), Some("NOTIMP Q")),
        ("STATUS", opcode(2), Some("NOTIMP Q")),
        ("NOTIFY", opcode(4), Some("NOTIMP Q")),
        ("UPDATE", opcode(5), Some("REFUSED Q")),
        ("opcode 15", opcode(15), Some("NOTIMP Q")),
        ("opcode 15, a header alone", message(15 << 11, [0; 4], &[]), Some("NOTIMP")),
        ("class CH", class(3), Some("REFUSED Q")),
        ("class ANY", class(255), Some("REFUSED Q")),
        ("class 0", class(0), Some("REFUSED Q")),
    ];
    for (case, query, want) in rows {
        let reply = raw(&snapshot, &query, "10.1.1.10", Transport::Udp, 0);
        assert_eq!(reply.as_deref().map(shape).as_deref(), want, "{case}");
        if let Some(reply) = reply {
            assert_eq!(reply[..2], query[..2], "{case}: id");
            assert_eq!(reply[2] & 0x78, query[2] & 0x78, "{case}: opcode");
            assert_eq!(reply[2] & 1, query[2] & 1, "{case}: RD");
            assert_eq!(reply[3] & 0xf0, 0, "{case}: RA, Z, AD, CD");
        }
    }
}

#[test]
fn the_opt_of_a_reply() {
    let snapshot = snapshot([]);
    for (case, ttl, want) in
        [("DO", [0, 0, 0x80, 0], true), ("all flags", [0, 0, 0xff, 0xff], true), ("none", [0; 4], false)]
    {
        let query = message(RD, [1, 0, 0, 1], &[&asks(WEB, 1), &opt(4096, ttl, b"\x00\x0a\x00\x0812345678")]);
        let reply = raw(&snapshot, &query, "10.1.1.10", Transport::Udp, 0).expect("a reply");
        let want = opt(1232, [0, 0, if want { 0x80 } else { 0 }, 0], &[]);
        assert!(reply.ends_with(&want), "{case}: size ours, DO copied, Z cleared, cookie not echoed");
    }
}

#[test]
fn what_does_not_fit_is_cut() {
    let snapshot = snapshot([]);
    let name = b"\x04many\x04data\x05maesh\x00";
    for (case, size, transport, longest, cut) in [
        ("no OPT", None, Transport::Udp, 512, true),
        ("OPT with less", Some(100), Transport::Udp, 512, true),
        ("OPT with 600", Some(600), Transport::Udp, 600, true),
        ("OPT with more than we send", Some(65535), Transport::Udp, 1232, true),
        ("TCP", None, Transport::Tcp, 65535, false),
        ("TCP with a small OPT", Some(512), Transport::Tcp, 65535, false),
    ] {
        let query = match size {
            None => message(RD, [1, 0, 0, 0], &[&asks(name, 1)]),
            Some(size) => {
                message(RD, [1, 0, 0, 1], &[&asks(name, 1), &opt(size, [0; 4], &subnet(1, 32, 0, &[10, 0, 0, 1]))])
            }
        };
        let reply = raw(&snapshot, &query, RESOLVER, transport, 0).expect("a reply");
        assert!(
            reply.len() <= longest && reply.len() + 16 > longest.min(12 + 20 + 100 * 16),
            "{case}: {}",
            reply.len()
        );
        let parsed = Message::from_vec(&reply).expect("hickory reads it");
        assert_eq!(parsed.metadata.truncation, cut, "{case}");
        assert_eq!(parsed.edns.is_some(), size.is_some(), "{case}: OPT has room");
        let unique: std::collections::BTreeSet<_> = parsed.answers.iter().map(|r| r.data.to_string()).collect();
        assert_eq!(unique.len(), parsed.answers.len(), "{case}: each address once");
    }
}

#[test]
fn a_long_srv_and_its_addresses() {
    let snapshot = snapshot([]);
    let name = b"\x05_http\x04_tcp\x04many\x04data\x05maesh\x00";
    let reply = raw(&snapshot, &message(RD, [1, 0, 0, 0], &[&asks(name, 33)]), RESOLVER, Transport::Udp, 0);
    let reply = Message::from_vec(&reply.expect("a reply")).expect("hickory reads it");
    assert_eq!(reply.answers.len(), 1);
    assert!(!reply.metadata.truncation, "addresses that do not fit are not missed");
    assert!(reply.additionals.len() > 20);
}
