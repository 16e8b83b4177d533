use std::{collections::BTreeSet, net::IpAddr};

use maesh_compiler::own_address::Entry;
use maesh_config::{ServiceName, model::Transport};
use proptest::prelude::*;

use super::*;

/// `name zone state`, where the state is one of ready, waiting, leaving; a zone `-` is none.
fn proxy(number: usize, text: &str) -> Proxy {
    let mut words = text.split(' ');
    let (name, zone, state) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    Proxy {
        name: format!("proxy-{name}"),
        uid: format!("uid-{name}"),
        node: Some(format!("node-{name}")),
        zone: (zone != "-").then(|| zone.to_owned()),
        addresses: vec![
            IpAddr::from([10, 0, u8::try_from(number / 256).unwrap(), u8::try_from(number % 256).unwrap()]),
            format!("fd00::{number:x}").parse().unwrap(),
        ],
        serving: state != "waiting",
        leaving: state == "leaving",
    }
}

fn proxies(texts: &[&str]) -> Vec<Proxy> {
    texts.iter().enumerate().map(|(number, text)| proxy(number, text)).collect()
}

fn ports(listens: &[(u16, u16, Transport)]) -> Ports {
    let entry = |(port, listen, transport): &(u16, u16, Transport)| {
        ((*port, *transport), Entry { service: ServiceName::new("shop", "db"), listen: *listen, leaving: None })
    };
    listens.iter().map(entry).collect()
}

fn slices(number: u32, ports: &Ports, proxies: &[Proxy]) -> Vec<EndpointSlice> {
    let name = maesh_compiler::own_address::name(number);
    let address = WantedSlices { number, name: &name, uid: "1", ports };
    Candidates::new(proxies, "mesh", true).slices(&address)
}

/// `pod@zone` of each endpoint, with a mark for each hint, and `!` for one that is not ready.
fn endpoints(slice: &EndpointSlice) -> BTreeSet<String> {
    let text = |endpoint: &Endpoint| {
        let pod = endpoint.target_ref.as_ref().unwrap().name.clone().unwrap();
        let ready = endpoint.conditions.as_ref().unwrap().ready.unwrap();
        let (ready, zone) = (if ready { "" } else { "!" }, endpoint.zone.as_deref().unwrap_or("-"));
        let hints = endpoint.hints.as_ref();
        let of_zone = hints.and_then(|hints| hints.for_zones.as_ref()).map_or("", |_| " zone");
        let of_node = hints.and_then(|hints| hints.for_nodes.as_ref()).map_or("", |_| " node");
        format!("{}@{zone}{ready}{of_zone}{of_node}", pod.trim_start_matches("proxy-"))
    };
    slice.endpoints.iter().flatten().map(text).collect()
}

#[test]
fn each_zone_has_its_proxies() {
    for (case, all, want) in [
        ("ready ones only", &["a x ready", "b x waiting", "c x leaving"][..], &["a@x zone node"][..]),
        ("of every zone", &["a x ready", "b y ready"], &["a@x zone node", "b@y zone node"]),
        ("a zone without a ready one is left out", &["a x ready", "b y waiting"], &["a@x zone node"]),
        ("without zones no hints", &["a - ready", "b - ready"], &["a@-", "b@-"]),
        ("one without is left out beside others", &["a x ready", "b - ready"], &["a@x zone node"]),
        ("nobody ready", &["a x waiting", "b y leaving"], &["b@y!"]),
        ("nobody serves", &["a x waiting", "b y waiting"], &["a@x!", "b@y!"]),
        ("nobody there", &[], &[]),
    ] {
        let slices = slices(0, &ports(&[(80, 33_000, Transport::Tcp)]), &proxies(all));
        assert_eq!(slices.len(), if all.is_empty() { 0 } else { 2 }, "{case}: one of each family");
        for slice in slices {
            assert_eq!(endpoints(&slice), want.iter().map(|&text| text.to_owned()).collect(), "{case}");
        }
    }
}

#[test]
fn a_slice_says_what_kube_proxy_needs() {
    let two = ports(&[(80, 33_000, Transport::Tcp), (53, 33_001, Transport::Udp)]);
    let [v4, v6]: [EndpointSlice; 2] = slices(7, &two, &proxies(&["a x ready"])).try_into().unwrap();
    assert_eq!((v4.address_type.as_str(), v6.address_type.as_str()), ("IPv4", "IPv6"));
    assert_eq!(v4.metadata.name.as_deref(), Some("maesh-own-7-v4"));
    assert_eq!(service(&v4.metadata), Some("maesh-own-7"));
    let said: Vec<_> = v4.ports.iter().flatten().map(|p| (p.name.as_deref(), p.port, p.protocol.as_deref())).collect();
    assert_eq!(said, [(Some("p33001"), Some(33_001), Some("UDP")), (Some("p33000"), Some(33_000), Some("TCP"))]);
    let address = |slice: &EndpointSlice| slice.endpoints.as_ref().unwrap()[0].addresses.clone();
    assert_eq!((address(&v4), address(&v6)), (vec!["10.0.0.0".to_owned()], vec!["fd00::".to_owned()]));
    let name = |slices: Vec<EndpointSlice>| slices.into_iter().next().unwrap().metadata.name.unwrap();
    assert_eq!(name(slices(maesh_compiler::own_address::SHARED, &two, &proxies(&["a x ready"]))), "maesh-shared-v4");
}

#[test]
fn what_others_add_does_not_count() {
    let wanted = slices(0, &ports(&[(80, 33_000, Transport::Tcp)]), &proxies(&["a x ready"])).remove(0);
    let mut there = wanted.clone();
    there.metadata.uid = Some("1".into());
    there.metadata.resource_version = Some("2".into());
    there.metadata.labels.as_mut().unwrap().insert("team".into(), "shop".into());
    there.endpoints.as_mut().unwrap()[0].hints.as_mut().unwrap().for_nodes = None;
    let wanted = essence(wanted);
    assert_eq!(essence(there.clone()), wanted);
    there.metadata.labels.as_mut().unwrap().insert(OWN_ADDRESS.into(), "no".into());
    assert_ne!(essence(there), wanted);
}

#[test]
fn ours_may_go_once_others_lead_where_they_do() {
    let (one, two) = (ports(&[(80, 1, Transport::Tcp)]), ports(&[(80, 1, Transport::Tcp), (81, 2, Transport::Tcp)]));
    let (ready, waiting) = (proxies(&["a x ready"]), proxies(&["a x waiting"]));
    let of = |ports, proxies| slices(0, ports, proxies);
    for (case, ours, theirs, wanted, want) in [
        ("nothing there yet", of(&one, &ready), vec![], &one, false),
        ("all there", of(&one, &ready), of(&one, &ready), &one, true),
        ("not ready yet", of(&one, &ready), of(&one, &waiting), &one, false),
        ("one family only", of(&one, &ready), of(&one, &ready)[..1].to_vec(), &one, false),
        ("a port is missing", of(&two, &ready), of(&one, &ready), &two, false),
        ("one that nobody wants", of(&two, &ready), of(&one, &ready), &one, true),
        ("ours lead nowhere", of(&one, &waiting), vec![], &one, true),
    ] {
        assert_eq!(covered(ours.iter(), &theirs, wanted), want, "{case}");
    }
}

#[test]
fn addresses_share_the_proxies_evenly() {
    let all: Vec<_> = (0..100).map(|n| proxy(n, &format!("{n} x ready"))).collect();
    let mut carries = BTreeMap::<String, u32>::new();
    for number in 0..1000 {
        for endpoint in endpoints(&slices(number, &ports(&[(80, 1, Transport::Tcp)]), &all)[0]) {
            *carries.entry(endpoint).or_default() += 1;
        }
    }
    assert_eq!(carries.len(), 100, "3 of 100 for each of 1,000: 30 each");
    assert!(carries.values().all(|count| (10..=60).contains(count)), "{carries:?}");
}

proptest! {
    /// Whatever proxies there are: every zone with a ready one is there with as many as it has, three at most; the order
    /// of the pods does not matter; and who goes or comes changes only those addresses that had or get it.
    #[test]
    fn choices_hold(states in prop::collection::vec((0..4_usize, 0..3_usize), 0..40), gone in any::<prop::sample::Index>()) {
        let text = |(n, (zone, state)): (usize, &(usize, usize))| {
            proxy(n, &format!("{n} {} {}", ["x", "y", "z", "-"][*zone], ["ready", "waiting", "leaving"][*state]))
        };
        let all: Vec<_> = states.iter().enumerate().map(text).collect();
        let ports = ports(&[(80, 33_000, Transport::Tcp)]);
        let (mut turned, mut fewer) = (all.clone(), all.clone());
        turned.reverse();
        let gone = (!all.is_empty()).then(|| fewer.remove(gone.index(all.len())));
        for number in 0..20 {
            let now = slices(number, &ports, &all);
            prop_assert_eq!(&slices(number, &ports, &turned), &now, "in any order");
            let listed: BTreeSet<_> = now.iter().take(1).flat_map(endpoints).collect();
            let zoned = all.iter().any(|proxy| proxy.is_ready() && proxy.zone.is_some());
            if all.iter().any(Proxy::is_ready) {
                for zone in ["x", "y", "z", "-"].iter().filter(|zone| !zoned || **zone != "-") {
                    let ready = all.iter().filter(|p| p.is_ready() && p.zone.as_deref().unwrap_or("-") == *zone).count();
                    let there = listed.iter().filter(|text| text.contains(&format!("@{zone}"))).count();
                    prop_assert_eq!(there, ready.min(3), "{} of {:?}", zone, &listed);
                }
            }
            // Who goes as the last of its kind is more than one of many.
            let kind = |proxy: &Proxy| (proxy.serving, proxy.leaving, proxy.zone.is_some());
            let one_of_many = |gone: &&Proxy| fewer.iter().any(|other| kind(other) == kind(gone));
            if let Some(gone) = gone.as_ref().filter(one_of_many) {
                let after: BTreeSet<_> = slices(number, &ports, &fewer).iter().take(1).flat_map(endpoints).collect();
                let had = listed.iter().any(|text| text.starts_with(&format!("{}@", gone.name.trim_start_matches("proxy-"))));
                prop_assert!(had || after == listed, "{:?} gone: {:?}, {:?}", gone, listed, after);
                prop_assert!(after.difference(&listed).count() <= 1, "{:?} gone: {:?}, {:?}", gone, listed, after);
            }
        }
    }
}
