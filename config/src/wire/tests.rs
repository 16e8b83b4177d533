use proptest::{collection::vec, prelude::*};

use super::*;

proptest! {
    #[test]
    fn every_resource_survives_the_wire(resource in arbitrary::resource()) {
        let bytes = encode(&resource);
        prop_assert_eq!(encode(&resource), bytes.clone(), "the same bytes every time");
        let key = resource.key();
        prop_assert_eq!(decode_named(key.kind, &key.name, &bytes), Ok(resource));
    }

    #[test]
    fn fields_of_newer_versions_are_skipped(resource in arbitrary::resource(), value in vec(any::<u8>(), 0..9)) {
        let mut bytes = encode(&resource).to_vec();
        prost::encoding::bytes::encode(900, &value, &mut bytes);
        prost::encoding::uint64::encode(901, &7, &mut bytes);
        prop_assert_eq!(decode(resource.kind(), &bytes), Ok(resource));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
        for kind in Kind::ALL {
            let _ = decode(kind, &bytes);
        }
    }

    #[test]
    fn no_damage_makes_it_panic(resource in arbitrary::resource(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut bytes = encode(&resource).to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
        }
        let _ = decode(resource.kind(), &bytes);
    }
}

#[test]
fn type_urls_name_kinds() {
    for kind in Kind::ALL {
        assert_eq!(Kind::of_type_url(kind.type_url()), Some(kind));
        assert!(kind.type_url().ends_with(&format!("{kind:?}")), "{kind:?}");
    }
    assert_eq!(Kind::of_type_url("type.googleapis.com/envoy.config.cluster.v3.Cluster"), None);
}

#[test]
fn versions() {
    let version = Version::of(b"x");
    assert_eq!(Version::parse(&version.to_string()), Some(version));
    for foreign in ["", "1", "+0000000000000000000000000000000", "0000000000000000000000000000000A"] {
        assert_eq!(Version::parse(foreign), None, "{foreign:?}");
    }
}

#[test]
fn what_cannot_be_understood_says_why() {
    /// The first fields of a Name, by hand: service, answer, a plain address, a port's number.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Name {
        #[prost(string, tag = "1")]
        service: String,
        #[prost(int32, tag = "2")]
        answer: i32,
        #[prost(bytes = "vec", repeated, tag = "4")]
        plain: Vec<Vec<u8>>,
    }
    for (case, service, answer, plain, want) in [
        ("understood", "a/b", 1, vec![1, 2, 3, 4], None),
        ("an answer of a newer version", "a/b", 9, vec![1, 2, 3, 4], Some("answer has the value 9")),
        ("an answer left out", "a/b", 0, vec![1, 2, 3, 4], Some("answer has the value 0")),
        ("five bytes of address", "a/b", 1, vec![1, 2, 3, 4, 5], Some("plain address is missing or impossible")),
        ("no namespace", "b", 1, vec![1, 2, 3, 4], Some("service is missing or impossible")),
        ("another name", "a/c", 1, vec![1, 2, 3, 4], Some("it describes \"a/c\" instead")),
    ] {
        let bytes = Name { service: service.to_owned(), answer, plain: vec![plain] }.encode_to_vec();
        let error = decode_named(Kind::Name, "a/b", &bytes).err().map(|error| error.to_string());
        match (&error, want) {
            (None, None) => {}
            (Some(error), Some(want)) if error.contains(want) => {}
            _ => panic!("{case}: {error:?} instead of {want:?}"),
        }
    }
}

/// A Service as a newer controller might write it: the usual fields, with others beside them.
#[test]
fn what_an_older_version_does_with_a_newer_service() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Service {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, repeated, tag = "2")]
        ports: Vec<Port>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Port {
        #[prost(uint32, tag = "1")]
        number: u32,
        #[prost(int32, tag = "3")]
        protocol: i32,
        #[prost(message, repeated, tag = "4")]
        routes: Vec<Route>,
        #[prost(message, optional, tag = "5")]
        backend: Option<Policy>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Route {
        #[prost(string, optional, tag = "63")]
        may_be_ignored: Option<String>,
        #[prost(string, optional, tag = "64")]
        must_be_understood: Option<String>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Policy {
        #[prost(int32, tag = "1")]
        scheme: i32,
        #[prost(int32, tag = "2")]
        balance: i32,
        #[prost(uint32, optional, tag = "63")]
        may_be_ignored: Option<u32>,
        #[prost(uint32, optional, tag = "900")]
        must_be_understood: Option<u32>,
    }
    let policy = |scheme, balance| Policy { scheme, balance, may_be_ignored: None, must_be_understood: None };
    let route = || Route { may_be_ignored: None, must_be_understood: None };
    let (ignored, usual) = (Some("x".to_owned()), policy(1, 1));
    for (case, protocol, route, policy, want) in [
        ("as it is now", 1, route(), policy(1, 1), Some((None, None))),
        (
            "an unknown route field",
            1,
            Route { may_be_ignored: ignored.clone(), ..route() },
            policy(1, 1),
            Some((None, None)),
        ),
        (
            "one to understand",
            1,
            Route { must_be_understood: ignored, ..route() },
            policy(1, 1),
            Some((Some(64), None)),
        ),
        ("an unknown policy", 1, route(), Policy { may_be_ignored: Some(1), ..policy(1, 1) }, Some((None, None))),
        (
            "one to understand",
            1,
            route(),
            Policy { must_be_understood: Some(1), ..policy(1, 1) },
            Some((None, Some(900))),
        ),
        ("an unknown balance", 1, route(), policy(1, 9), Some((None, None))),
        ("an unknown scheme", 1, route(), policy(9, 1), Some((None, Some(1)))),
        ("an unknown protocol of the port", 9, route(), policy(1, 1), None),
    ] {
        let port =
            |number, protocol, route, policy| Port { number, protocol, routes: vec![route], backend: Some(policy) };
        let other = port(81, 1, Route { may_be_ignored: None, must_be_understood: None }, usual.clone());
        let service = Service { name: "a/b".to_owned(), ports: vec![port(80, protocol, route, policy), other] };
        let read = decode_named(Kind::Service, "a/b", &service.encode_to_vec());
        let Ok(Resource::Service(read)) = read else { panic!("{case}: {read:?}") };
        let got = read.ports.iter().find(|port| port.number == 80);
        assert_eq!(got.map(|port| (port.routes[0].not_understood, port.backend.not_understood)), want, "{case}");
        let other = read.ports.iter().find(|port| port.number == 81).expect(case);
        assert_eq!(
            (other.routes[0].not_understood, other.backend.not_understood),
            (None, None),
            "{case}: the other port"
        );
    }
}
