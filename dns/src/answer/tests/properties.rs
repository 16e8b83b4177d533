//! What holds for every packet.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

/// A query that is nearly always good: labels from those that exist and others, any type, sometimes an OPT.
fn queries() -> impl Strategy<Value = Vec<u8>> {
    let labels = ["web", "WEB", "shop", "db", "many", "data", "none", "ns", "dns", "_http", "_tcp", "dns-version", "x"];
    let zone = select(vec!["maesh", "traefik.mesh", "Maesh", "example"]);
    let kind = select(vec![1_u16, 28, 33, 16, 6, 2, 255, 65, 12345]);
    let subnet = proptest::option::of((any::<[u8; 4]>(), 0..=32_u8));
    (vec(select(labels.to_vec()), 0..5), zone, kind, subnet).prop_map(|(labels, zone, kind, subnet)| {
        let name = labels.into_iter().chain([zone]).collect::<Vec<_>>().join(".") + ".";
        let mut query = question(&name, RecordType::from(kind));
        if let Some((address, length)) = subnet {
            let address = crate::locality::masked(IpAddr::from(address), length);
            query = with_subnet(query, &address.to_string(), length);
        }
        query.to_vec().expect("encodes")
    })
}

/// Whether hickory reads it, but for a client subnet of no family, which is right and which hickory cannot read.
fn readable(reply: &[u8]) -> bool {
    Message::from_vec(reply).is_ok() || reply.ends_with(&[0, 8, 0, 4, 0, 0, 0, 0])
}

proptest! {
    #[test]
    fn random_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..600), tcp: bool) {
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        if let Some(reply) = raw(&snapshot([]), &bytes, RESOLVER, transport, 0) {
            prop_assert!(readable(&reply));
        }
    }

    #[test]
    fn a_good_query_that_was_damaged_does_no_harm(query in queries(), at in any::<prop::sample::Index>(), to: u8) {
        let mut query = query;
        let at = at.index(query.len());
        query[at] = to;
        if let Some(reply) = raw(&snapshot([]), &query, RESOLVER, Transport::Udp, 0) {
            prop_assert!(readable(&reply));
            prop_assert_eq!(&reply[..2], &query[..2]);
        }
    }

    #[test]
    fn every_query_is_answered_with_its_question(query in queries(), rotation: usize) {
        let reply = raw(&snapshot([]), &query, "10.1.2.10", Transport::Udp, rotation).expect("a reply");
        let asked = Message::from_vec(&query).expect("hickory wrote it");
        let end = 12 + asked.queries[0].name().to_ascii().len().max(1) + 1 + 4;
        let end = if asked.queries[0].name().is_root() { 12 + 1 + 4 } else { end };
        prop_assert_eq!(&reply[12..end], &query[12..end], "byte for byte");
        let read = Message::from_vec(&reply).expect("hickory reads it");
        prop_assert_eq!(read.edns.is_some(), asked.edns.is_some());
        let longest = if asked.edns.is_some() { 1232 } else { 512 };
        prop_assert!(reply.len() <= longest);
        // What hickory read, it writes again, and we agree with ourselves about it.
        let again = Message::from_vec(&read.to_vec().expect("hickory writes it")).expect("and reads it");
        prop_assert_eq!(&again.answers, &read.answers);
        let owned = read.answers.iter().all(|record| record.name == *asked.queries[0].name());
        prop_assert!(owned, "answers belong to the name asked for");
    }
}
