//! The same packets to us, to Knot and to NSD, which serve the same zone: what differs must be expected, each with its
//! reason, and what is expected to differ must.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record};
use maesh_dns_suite::{Probe, Responder, Rival, ask_tcp, ask_udp, probes};

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
