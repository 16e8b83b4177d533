#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

const COREFILE: &str = ".:53 {\n    errors\n    kubernetes cluster.local\n    reload\n}\n";
const TRAEFIK: &str = "#### Begin Traefik Mesh Block\ntraefik.mesh:53 {\n}\n#### End Traefik Mesh Block\n";
const FORWARD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 53));

fn zones() -> Vec<Zone> {
    ["maesh", "traefik.mesh"].map(|zone| zone.parse().unwrap()).to_vec()
}

fn map(name: &str) -> MapName {
    MapName { namespace: "kube-system".into(), name: name.into() }
}

fn coredns(node_local: bool) -> Place {
    let software = Software::CoreDns {
        map: map("coredns"),
        key: "Corefile".into(),
        folder: "/etc/coredns".into(),
        mounts: vec![("/etc/coredns/custom".into(), map("coredns-custom"))],
    };
    let node_local = node_local.then(|| map("kube-dns"));
    Place { service: "10.96.0.10:53".parse().unwrap(), servers: Vec::new(), software, node_local }
}

fn data(keys: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
    Some(keys.iter().map(|&(key, text)| (key.to_owned(), text.to_owned())).collect())
}

/// `maps` with `changes` made.
fn changed(maps: &Maps, changes: &[Change]) -> Maps {
    let mut maps = maps.clone();
    for Change { file, before, after } in changes {
        let data = maps.entry(file.map.clone()).or_default().get_or_insert_default();
        assert_eq!(data.get(&file.key), before.as_ref(), "{file:?}");
        match after {
            Some(text) => data.insert(file.key.clone(), text.clone()),
            None => data.remove(&file.key),
        };
    }
    // A map without keys is one that the API server leaves out, or that we made.
    maps.values_mut().for_each(|data| drop(data.take_if(|data| data.is_empty())));
    maps
}

#[test]
fn every_platform_is_served_and_left_as_it_was() {
    let imports = format!("{COREFILE}import custom/*.server\n");
    let coredns_only = |text: &str| Maps::from([(map("coredns"), data(&[("Corefile", text)]))]);
    let with = |mut maps: Maps, name: &str, keys: Option<BTreeMap<String, String>>| {
        maps.insert(map(name), keys);
        maps
    };
    let kube_dns = Place { software: Software::KubeDns { map: map("kube-dns") }, ..coredns(false) };
    for (case, place, maps, touched) in [
        ("kubeadm", coredns(false), coredns_only(COREFILE), &["coredns Corefile"][..]),
        (
            "imports, no ConfigMap",
            coredns(false),
            with(coredns_only(&imports), "coredns-custom", None),
            &["coredns-custom maesh.server"],
        ),
        (
            "imports, another key",
            coredns(false),
            with(coredns_only(&imports), "coredns-custom", data(&[("a.server", "a {\n}\n")])),
            &["coredns-custom maesh.server"],
        ),
        (
            "Traefik Mesh in the same key",
            coredns(false),
            with(coredns_only(&imports), "coredns-custom", data(&[("maesh.server", TRAEFIK)])),
            &["coredns-custom maesh.server"],
        ),
        (
            "Traefik Mesh in another key and in the Corefile",
            coredns(false),
            with(
                coredns_only(&format!("{imports}{}", TRAEFIK.replace("traefik.mesh:", "maesh:"))),
                "coredns-custom",
                data(&[("t.server", TRAEFIK), ("t.override", TRAEFIK)]),
            ),
            &["coredns-custom t.server", "coredns Corefile", "coredns-custom maesh.server"],
        ),
        (
            "NodeLocal DNSCache",
            coredns(true),
            with(coredns_only(COREFILE), "kube-dns", None),
            &["coredns Corefile", "kube-dns stubDomains"],
        ),
        (
            "kube-dns",
            kube_dns,
            Maps::from([(map("kube-dns"), data(&[("stubDomains", "{\"a\": [\"1.1.1.1\"]}")]))]),
            &["kube-dns stubDomains"],
        ),
    ] {
        let before = report(&place, &maps, &zones(), FORWARD).unwrap();
        assert!(
            before.standings.iter().all(|standing| standing.state == Ok(StanzaState::Absent)),
            "{case}: {before:?}"
        );
        let changes = additions(&place, &maps, &zones(), FORWARD).unwrap();
        let files: Vec<_> =
            changes.iter().map(|change| format!("{} {}", change.file.map.name, change.file.key)).collect();
        assert_eq!(files, touched, "{case}");
        let there = changed(&maps, &changes);
        let after = report(&place, &there, &zones(), FORWARD).unwrap();
        assert!(after.standings.iter().all(|standing| standing.state == Ok(StanzaState::Present)), "{case}: {after:?}");
        assert_eq!(additions(&place, &there, &zones(), FORWARD), Ok(Vec::new()), "{case}");
        let other = report(&place, &there, &zones(), [10, 96, 0, 54].into()).unwrap();
        assert!(
            other.standings.iter().all(|standing| standing.state == Ok(StanzaState::Outdated)),
            "{case}: {other:?}"
        );
        for forward in [Some(FORWARD), None] {
            let (changes, refusal) = removals(&place, &there, &zones(), forward);
            assert_eq!(refusal, None, "{case}");
            assert_eq!(changed(&there, &changes), changed(&maps, &[]), "{case}");
        }
    }
}

#[test]
fn nothing_is_written_when_one_file_is_not_understood() {
    let imports = format!("{COREFILE}import custom/*.server\n");
    for (case, corefile, custom, want) in [
        ("broken", ".:53 {\n", None, "ConfigMap kube-system/coredns, key Corefile, line 1: the block"),
        ("no port", "a:1 {\n}\n", None, "key Corefile, no block for the zone"),
        (
            "a neighbour with a zone of ours",
            &imports,
            data(&[("b.server", "maesh {\n}\n")]),
            "coredns-custom, key b.server, line 1: zone maesh",
        ),
    ] {
        let maps = Maps::from([(map("coredns"), data(&[("Corefile", corefile)])), (map("coredns-custom"), custom)]);
        let refusal = additions(&coredns(false), &maps, &zones(), FORWARD).expect_err(case).to_string();
        assert!(refusal.contains(want) && refusal.ends_with("It was left as it is"), "{case}: {refusal}");
        assert_eq!(removals(&coredns(false), &maps, &zones(), None), (Vec::new(), None), "{case}");
    }
    let gone = additions(&coredns(false), &Maps::new(), &zones(), FORWARD).unwrap_err();
    assert!(gone.to_string().contains("is not there"), "{gone}");
}

#[test]
fn what_is_not_understood_keeps_nothing_else() {
    let corefile = |text: &str| Maps::from([(map("coredns"), data(&[("Corefile", text)])), (map("kube-dns"), None)]);
    let written = additions(&coredns(true), &corefile(COREFILE), &zones(), FORWARD).unwrap();
    let there = changed(&corefile(COREFILE), &written);
    let between = format!("# maesh begin\nacme:53 {{\n}}\n# maesh end\n{COREFILE}");
    for (case, name, key, broken, left, want) in [
        ("a note as stub domains", "kube-dns", "stubDomains", "see the wiki", "coredns", "is not a JSON object"),
        ("a block between our marks", "coredns", "Corefile", &between, "kube-dns", "stands between the mesh's marks"),
    ] {
        let mut maps = there.clone();
        maps.insert(map(name), data(&[(key, broken)]));
        let (changes, refusal) = removals(&coredns(true), &maps, &zones(), None);
        let files: Vec<_> = changes.iter().map(|change| change.file.map.name.as_str()).collect();
        assert_eq!(files, [left], "{case}");
        let refusal = refusal.expect(case).to_string();
        assert!(refusal.contains(want) && refusal.contains(key), "{case}: {refusal}");
    }
}

#[test]
fn a_stanza_over_tls_in_an_imported_file_is_enough() {
    let block = "maesh:53 traefik.mesh:53 {\n    errors\n    rewrite edns0 subnet set 32 128\n    forward . tls://10.96.0.53 {\n        \
                 tls_servername maesh-dns.maesh.svc\n    }\n}\n";
    let imports = format!("{COREFILE}import custom/*.server\n");
    let maps = Maps::from([
        (map("coredns"), data(&[("Corefile", imports.as_str())])),
        (map("coredns-custom"), data(&[("by-hand.server", block), ("maesh.server", "")])),
    ]);
    let there = report(&coredns(false), &maps, &zones(), FORWARD).unwrap();
    let standings: Vec<_> = there.standings.iter().map(|it| (it.file.key.as_str(), it.state.clone())).collect();
    assert_eq!(standings, [("by-hand.server", Ok(StanzaState::Present))]);
    assert_eq!(additions(&coredns(false), &maps, &zones(), FORWARD), Ok(Vec::new()));
    let (changes, refusal) = removals(&coredns(false), &maps, &zones(), Some(FORWARD));
    assert_eq!((changes.len(), refusal), (1, None));
    assert_eq!((changes[0].file.key.as_str(), &changes[0].after), ("by-hand.server", &None));
    // The address of the mesh's dns is another by now: only its owner can correct it.
    let moved = additions(&coredns(false), &maps, &zones(), [10, 96, 0, 54].into());
    assert!(moved.is_err_and(|why| why.to_string().contains("forwards over TLS")));
}
