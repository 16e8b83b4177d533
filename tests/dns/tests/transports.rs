//! UDP, TCP and TLS give the same answers, but for what does not fit into a datagram.

use std::collections::BTreeSet;
use std::fmt::Debug;

use hickory_proto::op::Message;
use hickory_proto::rr::Record;
use maesh_dns_suite::{Responder, ask_tcp, ask_tls, ask_udp, message, odd, opt, probes, question, subnet};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// The truncation flag, in the third byte.
const TC: u8 = 0x02;

/// Asks over all three, and says what is wrong with the answers.
fn compare(us: &Responder, query: &[u8]) -> Result<(), String> {
    let (at, certificate) = us.tls();
    let failed = |error: std::io::Error| error.to_string();
    let udp = ask_udp(us.address(), query).map_err(failed)?;
    let tcp = ask_tcp(us.address(), query).map_err(failed)?;
    let tls = ask_tls(at, certificate, query).map_err(failed)?;
    same("answered", &[udp.is_some(), tls.is_some()], &[tcp.is_some(); 2])?;
    let (Some(udp), Some(tcp), Some(tls)) = (&udp, &tcp, &tls) else { return Ok(()) };
    let readable = [udp, tcp, tls].map(|reply| Message::from_vec(reply).ok());
    let [Some(in_udp), Some(in_tcp), Some(in_tls)] = &readable else {
        return same("TLS", tls, tcp).and_then(|()| same("UDP", udp, tcp));
    };
    // Addresses take turns, so their order may differ.
    same("length over TLS", &tls.len(), &tcp.len())?;
    same("header over TLS", &tls[..12], &tcp[..12])?;
    same("records over TLS", &records(in_tls), &records(in_tcp))?;
    let cut = udp[2] & TC != 0;
    let mut whole = udp[..4].to_vec();
    whole[2] &= !TC;
    same("flags", &whole[..], &tcp[..4])?;
    same("questions", &in_udp.queries, &in_tcp.queries)?;
    let [udp_records, tcp_records] = [in_udp, in_tcp].map(records);
    for (section, (less, more)) in
        ["answer", "authority", "additional"].iter().zip(udp_records.iter().zip(&tcp_records))
    {
        // Addresses beside an SRV are left out without saying so (RFC 2181 section 9).
        if !cut && *section != "additional" || udp.len() == tcp.len() {
            same(section, less, more)?;
        } else if !less.is_subset(more) {
            return Err(format!("{section}: {less:?} is not among {more:?}"));
        }
    }
    Ok(())
}

fn same<T: PartialEq + Debug + ?Sized>(what: &str, have: &T, want: &T) -> Result<(), String> {
    if have == want { Ok(()) } else { Err(format!("{what}: {have:?}, and over TCP {want:?}")) }
}

fn records(message: &Message) -> [BTreeSet<String>; 3] {
    [&message.answers, &message.authorities, &message.additionals]
        .map(|section| section.iter().map(Record::to_string).collect())
}

#[test]
fn ordinary_and_odd_queries() {
    let us = Responder::start("127.0.0.1:0".parse().expect("an address"));
    let ordinary = probes().into_iter().filter(|probe| !probe.tcp).map(|probe| (probe.name, probe.query));
    let cut = message(0, [1, 0, 0, 0], &[&question("many.data.maesh", 1)]);
    assert!(ask_udp(us.address(), &cut).expect("asked").is_some_and(|reply| reply[2] & TC != 0), "one is truncated");
    let mut asked = 0;
    let wrong: Vec<String> = ordinary
        .inspect(|_| asked += 1)
        .filter_map(|(name, query)| Some(format!("{name}: {}", compare(&us, &query).err()?)))
        .collect();
    assert!(asked > 1000 && asked > odd().len(), "{asked}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Messages of all kinds: names that exist and long ones, any type and class, opcodes and flags, OPT records of any version
/// with any options, more questions than promised and fewer, and damage.
fn queries() -> impl Strategy<Value = Vec<u8>> {
    let labels = vec!["web", "WEB", "shop", "three", "many", "data", "ns", "dns", "_http", "_tcp", "x"];
    let long = "y".repeat(63);
    let label = select(labels).prop_map(str::to_owned).boxed();
    let label = prop_oneof![8 => label, 1 => Just(long)];
    let name = (vec(label, 0..5), select(vec!["maesh", "traefik.mesh", "Maesh", "example"]))
        .prop_map(|(labels, zone)| labels.into_iter().chain([zone.to_owned()]).collect::<Vec<_>>().join("."));
    let kind = prop_oneof![select(vec![1_u16, 28, 33, 6, 252, 251, 255]), any::<u16>()];
    let class = prop_oneof![9 => Just(1_u16), 1 => any::<u16>()];
    let flags = prop_oneof![5 => Just(0x0100_u16), 1 => any::<u16>()];
    let edns = (any::<u16>(), prop_oneof![Just([0; 4]), any::<[u8; 4]>()], options());
    let edns = proptest::option::of(edns.prop_map(|(size, ttl, options)| opt(size, ttl, &options)));
    let counts = prop_oneof![9 => Just(None), 1 => any::<[u8; 4]>().prop_map(Some)];
    let damage = proptest::option::weighted(0.3, (any::<Index>(), any::<u8>()));
    (name, kind, class, flags, edns, counts, damage).prop_map(|(name, kind, class, flags, edns, counts, damage)| {
        let mut asked = question(&name, kind);
        let end = asked.len() - 2;
        asked[end..].copy_from_slice(&class.to_be_bytes());
        let right = [1, 0, 0, u16::from(edns.is_some())];
        let counts = counts.map_or(right, |counts| counts.map(|count| u16::from(count % 3)));
        let mut query = message(flags, counts, &[&asked, edns.as_deref().unwrap_or_default()]);
        if let Some((at, byte)) = damage {
            let at = at.index(query.len());
            query[at] = byte;
        }
        query
    })
}

fn options() -> impl Strategy<Value = Vec<u8>> {
    let client = (0_u8..=33, any::<[u8; 5]>())
        .prop_map(|(length, address)| subnet(1, length, 0, &address[..usize::from(length.div_ceil(8)).min(5)]));
    prop_oneof![Just(vec![]), client, vec(any::<u8>(), 0..40)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1, ..ProptestConfig::default() })]

    /// One case is many queries, to one responder.
    #[test]
    fn generated_queries(queries in vec(prop_oneof![9 => queries().boxed(), 1 => vec(any::<u8>(), 0..300).boxed()], 500)) {
        let us = Responder::start("127.0.0.1:0".parse().expect("an address"));
        for query in queries {
            if let Err(wrong) = compare(&us, &query) {
                prop_assert!(false, "{query:02x?}: {wrong}");
            }
        }
    }
}
