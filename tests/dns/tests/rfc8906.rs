//! The checks of RFC 8906 section 8 as its command lines, typed into dig.

use std::net::SocketAddr;
use std::process::Command;

use maesh_dns_suite::Responder;
use maesh_test_support::need_program;

/// Section, arguments of dig, and what its output must have, or with `!` must not have.
const CHECKS: &[(&str, &str, &[&str])] = &[
    ("8.1.1 minimal DNS", "+noedns +noad +norec soa maesh.", &[OK, SOA, AA, "!OPT"]),
    ("8.1.2 unknown types", "+noedns +noad +norec type1000 maesh.", &[OK, AA, "ANSWER: 0"]),
    ("8.1.3.1 CD=1", "+noedns +noad +norec +cd soa maesh.", &[OK, SOA, AA]),
    ("8.1.3.2 AD=1", "+noedns +norec +ad soa maesh.", &[OK, SOA, AA]),
    ("8.1.3.3 reserved bit", "+noedns +noad +norec +zflag soa maesh.", &[OK, SOA, AA, "!MBZ"]),
    ("8.1.3.4 recursive queries", "+noedns +noad +rec soa maesh.", &[OK, SOA, AA, "flags: qr aa rd;"]),
    (
        "8.1.4 unknown opcodes",
        "+noedns +noad +opcode=15 +norec +header-only",
        &["status: NOTIMP", "opcode: RESERVED15", "QUERY: 0, ANSWER: 0, AUTHORITY: 0, ADDITIONAL: 0", "flags: qr;"],
    ),
    ("8.1.5 TCP", "+noedns +noad +norec +tcp soa maesh.", &[OK, SOA, AA]),
    ("8.2.1 minimal EDNS", "+nocookie +edns=0 +noad +norec soa maesh.", &[OK, SOA, AA, OPT]),
    (
        "8.2.2 EDNS version negotiation",
        "+nocookie +edns=1 +noednsneg +noad +norec soa maesh.",
        &[BADVERS, "ANSWER: 0", "!flags: qr aa", OPT],
    ),
    (
        "8.2.3 unknown EDNS options",
        "+nocookie +edns=0 +noad +norec +ednsopt=100 soa maesh.",
        &[OK, SOA, AA, OPT, "!OPT=100"],
    ),
    (
        "8.2.4 unknown EDNS flags",
        "+nocookie +edns=0 +noad +norec +ednsflags=0x40 soa maesh.",
        &[OK, SOA, AA, OPT, "!MBZ"],
    ),
    (
        "8.2.5 version negotiation with unknown flags",
        "+nocookie +edns=1 +noednsneg +noad +norec +ednsflags=0x40 soa maesh.",
        &[BADVERS, "ANSWER: 0", "!flags: qr aa", OPT, "!MBZ"],
    ),
    (
        "8.2.6 version negotiation with unknown options",
        "+nocookie +edns=1 +noednsneg +noad +norec +ednsopt=100 soa maesh.",
        &[BADVERS, "ANSWER: 0", OPT, "!OPT=100"],
    ),
    (
        "8.2.7 truncated responses",
        "+norec +dnssec +bufsize=512 +ignore a many.data.maesh.",
        &[OK, OPT, "flags: qr aa tc;"],
    ),
    (
        "8.2.8 DNSSEC",
        "+nocookie +edns=0 +noad +norec +dnssec soa maesh.",
        &[OK, SOA, AA, "EDNS: version: 0, flags: do;"],
    ),
    (
        "8.2.9 version negotiation with DNSSEC",
        "+nocookie +edns=1 +noednsneg +noad +norec +dnssec soa maesh.",
        &[BADVERS, "ANSWER: 0", "!flags: qr aa", "EDNS: version: 0, flags: do;"],
    ),
    (
        "8.2.10 several defined EDNS options",
        "+edns=0 +noad +norec +cookie +nsid +expire +subnet=0.0.0.0/0 soa maesh.",
        &[OK, SOA, AA, OPT],
    ),
];

const OK: &str = "status: NOERROR";
const BADVERS: &str = "status: BADVERS";
const SOA: &str = "maesh.\t\t\t5\tIN\tSOA\tns.dns.maesh. hostmaster.maesh.";
const AA: &str = "flags: qr aa";
const OPT: &str = "EDNS: version: 0";

#[test]
fn every_check_of_section_8() {
    let Some(dig) = need_program("dig", "bind9-dnsutils") else { return };
    let responder = Responder::start("127.0.0.1:0".parse().expect("an address"));
    let mut failed = Vec::new();
    for (check, arguments, wants) in CHECKS {
        let output = run(&dig, responder.address(), arguments);
        for want in *wants {
            let good = match want.strip_prefix('!') {
                Some(unwanted) => !output.contains(unwanted),
                None => output.contains(want),
            };
            if !good {
                failed.push(format!("{check}: {want:?} is not so in\n{output}"));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn run(dig: &std::path::Path, server: SocketAddr, arguments: &str) -> String {
    let output = Command::new(dig)
        // Nobody's ~/.digrc.
        .arg("-r")
        .arg(format!("@{}", server.ip()))
        .args(["-p", &server.port().to_string(), "+tries=1", "+time=5"])
        .args(arguments.split(' '))
        .output()
        .expect("dig runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
