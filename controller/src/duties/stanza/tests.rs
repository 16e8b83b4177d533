#![allow(clippy::unwrap_used, reason = "tests")]

use maesh_config::Zone;
use proptest::prelude::*;

use super::*;

fn zones() -> Vec<Zone> {
    ["maesh", "traefik.mesh"].map(|zone| zone.parse().unwrap()).to_vec()
}

fn stanza() -> Stanza {
    Stanza { zones: zones(), port: 53, forward: [10, 96, 0, 53].into() }
}

fn before() -> Stanza {
    Stanza { forward: [10, 96, 0, 9].into(), ..stanza() }
}

/// As kubeadm writes it.
const KUBEADM: &str = ".:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30
    loop
    reload
    loadbalance
}
";

/// As Traefik Mesh left it.
const TRAEFIK: &str = "
#### Begin Traefik Mesh Block
traefik.mesh:53 {
    errors
    rewrite name regex ([a-zA-Z0-9-_]*)\\.([a-zv0-9-_]*)\\.traefik\\.mesh maesh-{1}-6d61657368-{2}.maesh.svc.cluster.local
    kubernetes cluster.local {
        pods insecure
        fallthrough
    }
    forward . /etc/resolv.conf
    cache 30
    loop
    reload
    loadbalance
}
#### End Traefik Mesh Block
";

#[test]
fn the_stanza_is_these_lines() {
    assert_eq!(
        stanza().text(),
        "# maesh begin: changes up to the end mark are undone; `maesh dns uninstall` takes it out\n\
         maesh:53 traefik.mesh:53 {\n    errors\n    rewrite edns0 subnet set 32 128\n    forward . 10.96.0.53\n}\n\
         # maesh end\n"
    );
}

#[test]
fn the_state_of_a_corefile_is_told() {
    let (ours, old) = (stanza().text(), before().text());
    for (case, corefile, want) in [
        ("as kubeadm writes it", KUBEADM.to_owned(), StanzaState::Absent),
        ("empty", String::new(), StanzaState::Absent),
        ("ours at the beginning", format!("{ours}{KUBEADM}"), StanzaState::Present),
        ("ours moved to the end", format!("{KUBEADM}{ours}"), StanzaState::Present),
        ("ours with other ends of lines", format!("{ours}{KUBEADM}").replace('\n', "\r\n"), StanzaState::Present),
        ("by hand", format!("{KUBEADM}{}", stanza().block()), StanzaState::Present),
        ("by hand, another address", format!("{KUBEADM}{}", before().block()), StanzaState::Outdated),
        ("another address", format!("{old}{KUBEADM}"), StanzaState::Outdated),
        (
            "another plugin",
            format!("{}{KUBEADM}", ours.replace("    errors", "    errors\n    cache 30")),
            StanzaState::Outdated,
        ),
        ("two of it", format!("{ours}{KUBEADM}{ours}"), StanzaState::Broken),
        ("its end mark is gone", format!("{}{KUBEADM}", ours.replace(END, "")), StanzaState::Broken),
        ("its begin mark is gone", format!("{}{KUBEADM}", &ours[ours.find('\n').unwrap() + 1..]), StanzaState::Broken),
        ("Traefik Mesh came back beside it", format!("{ours}{KUBEADM}{TRAEFIK}"), StanzaState::Broken),
        ("only marks", format!("{BEGIN}\n{END}\n{KUBEADM}"), StanzaState::Outdated),
    ] {
        assert_eq!(state(&corefile, &stanza()), Ok(want), "{case}");
        let after = add(&corefile, &stanza()).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(after == corefile, want == StanzaState::Present, "{case}: {after}");
        assert_eq!(state(&after, &stanza()), Ok(StanzaState::Present), "{case}");
    }
}

#[test]
fn what_is_left_of_ours_goes_and_nothing_else() {
    let ours = stanza().text();
    let lines: Vec<&str> = ours.split_inclusive('\n').collect();
    for (case, left) in [
        ("the first half", lines[..3].concat()),
        ("the first half with all of the block", lines[..6].concat()),
        ("the second half", lines[3..].concat()),
        ("the closing brace is gone", [&lines[..5], &lines[6..]].concat().concat()),
        ("garbage in it", ours.replace("forward .", "forward } .")),
        ("another set of zones", ours.replace("traefik.mesh", "mesh.example")),
        ("an end mark alone", lines[6].to_owned()),
        ("a begin mark alone", lines[0].to_owned()),
        ("two copies", format!("{ours}{ours}")),
        ("one in half of another", [&lines[..2], &lines].concat().concat()),
    ] {
        for (place, corefile) in [("before", format!("{left}{KUBEADM}")), ("behind", format!("{KUBEADM}{left}"))] {
            assert_eq!(remove(&corefile, &zones()).as_deref(), Ok(KUBEADM), "{case}, {place}");
            let after = add(&corefile, &stanza());
            assert_eq!(after, Ok(format!("{ours}{KUBEADM}")), "{case}, {place}");
        }
    }
}

#[test]
fn blocks_of_traefik_mesh_rest_and_come_back() {
    let corefile = format!("{KUBEADM}{TRAEFIK}");
    let after = add(&corefile, &stanza()).unwrap();
    assert!(after.contains("\n# maesh keeps: traefik.mesh:53 {\n"), "{after}");
    let words = lexer::lex(&after).words;
    let blocks = corefile::parse(&words).unwrap().blocks;
    let mut served: Vec<_> = blocks.iter().flat_map(corefile::Block::addresses).map(|address| address.zone).collect();
    served.sort_unstable();
    assert_eq!(served, ["", "maesh", "traefik.mesh"], "no zone twice");
    assert_eq!(remove(&after, &zones()), Ok(corefile.clone()));
    // For another zone it is nobody's business.
    let other = Stanza { zones: vec!["mesh.example".parse().unwrap()], ..stanza() };
    assert_eq!(add(&corefile, &other), Ok(format!("{}{corefile}", other.text())));
    // The zones change: it comes back.
    assert_eq!(add(&after, &other), Ok(format!("{}{corefile}", other.text())));
}

#[test]
fn both_blocks_of_traefik_mesh_rest_and_come_back() {
    // As Traefik Mesh 1.4 writes them: for two zones, with an empty line before each.
    let blocks = include_str!("../../../../tests/nodes/manifests/traefik-mesh.corefile");
    assert_eq!(blocks.matches("#### Begin").count(), 2);
    for corefile in [
        format!("{KUBEADM}{blocks}"),
        format!("{blocks}{KUBEADM}"),
        // Its cleanup, or a person, left one of the two.
        format!("{KUBEADM}{}", &blocks[..blocks.find("\n#### Begin Traefik").unwrap()]),
        // A person's editor took the last end of a line.
        format!("{KUBEADM}{}", blocks.trim_end()),
        format!("{KUBEADM}{blocks}").replace('\n', "\r\n"),
    ] {
        let after = add(&corefile, &stanza()).unwrap_or_else(|error| panic!("{corefile}: {error}"));
        assert_eq!(state(&after, &stanza()), Ok(StanzaState::Present), "{corefile}");
        assert!(!after.lines().any(|line| line.starts_with("maesh:53 {") || line.starts_with("####")), "{after}");
        assert_eq!(add(&after, &stanza()), Ok(after.clone()), "once is enough");
        assert_eq!(remove(&after, &zones()), Ok(corefile), "byte for byte");
    }
}

#[test]
fn what_is_not_understood_is_left_alone() {
    let ours = stanza().text();
    for (case, corefile, want) in [
        (
            "a zone of ours, by somebody else",
            format!("{KUBEADM}Maesh.:53 {{\n forward . 1.1.1.1\n}}\n"),
            "line 20: zone maesh is served",
        ),
        (
            "with another key",
            format!("{KUBEADM}shop.example dns://traefik.mesh {{\n}}\n"),
            "line 20: zone traefik.mesh is",
        ),
        ("no braces", ".:53\nforward . /etc/resolv.conf\n".to_owned(), "line 1: a server block without braces"),
        ("not closed", KUBEADM[..KUBEADM.len() - 2].to_owned(), "is not closed"),
        ("a key of the environment", "{$ZONE} {\n}\n".to_owned(), "line 1: the zone {$ZONE} is set by an environment"),
        (
            "a block between our marks",
            ours.replace(END, &format!("shop:53 {{\n}}\n{END}")),
            "line 7: a block that is not",
        ),
        ("the same, unclosed", ours.replace(END, &format!("shop:53 {{\n{END}")), "line 7: a block that is not"),
        (
            "an end mark in quotes",
            format!("{}{KUBEADM}", ours.replace("10.96", "\"10.96")),
            "line 1: a mark of the mesh",
        ),
        (
            "half a stanza of another shape",
            format!("{BEGIN}\nmaesh:53 {{\n cache\n{KUBEADM}"),
            "line 1: a mark of the mesh",
        ),
        (
            "Traefik Mesh's mark in a block",
            ". {\n#### Begin Maesh Block\n}\nmaesh {\n}\n#### End Maesh Block\n".to_owned(),
            "line 1: a mark of Traefik Mesh",
        ),
    ] {
        let error = add(&corefile, &stanza()).expect_err(case).to_string();
        assert!(error.contains(want), "{case}: {error}");
    }
}

/// As docs/dns.md shows it.
fn over_tls() -> String {
    "maesh:53 traefik.mesh:53 {\n    errors\n    rewrite edns0 subnet set 32 128\n    forward . tls://10.96.0.53 {\n        \
     tls /etc/maesh/ca.crt\n        tls_servername maesh-dns.maesh.svc\n    }\n}\n"
        .to_owned()
}

#[test]
fn a_stanza_of_a_person_over_tls_is_as_good_and_is_taken_out() {
    let block = over_tls();
    for (case, block) in [
        ("as it is shown", block.clone()),
        ("with another plugin", block.replace("    errors\n", "    errors\n    log\n")),
        ("with its port", block.replace("tls://10.96.0.53", "tls://10.96.0.53:853")),
        ("with the name to verify", block.replace("tls://10.96.0.53", "tls://10.96.0.53%maesh-dns.maesh.svc")),
        ("other order of zones", block.replace("maesh:53 traefik.mesh:53", "traefik.mesh maesh")),
        ("between our marks", format!("{BEGIN}: note\n{block}{END}\n")),
    ] {
        for corefile in [format!("{block}{KUBEADM}"), format!("{KUBEADM}{block}")] {
            assert_eq!(state(&corefile, &stanza()), Ok(StanzaState::Present), "{case}");
            assert_eq!(add(&corefile, &stanza()).as_ref(), Ok(&corefile), "{case}: nothing is written");
            assert!(beside(&corefile, &stanza()).is_err(), "{case}: not beside another");
            assert_eq!(remove(&corefile, &zones()).as_deref(), Ok(KUBEADM), "{case}");
        }
    }
}

#[test]
fn a_stanza_over_tls_that_is_not_right_is_its_owners() {
    let (block, ours) = (over_tls(), stanza().text());
    for (case, corefile) in [
        ("another address", block.replace("10.96.0.53", "10.96.0.9")),
        ("a zone is missing", block.replace(" traefik.mesh:53", "")),
        ("another port", block.replace("maesh:53 traefik.mesh:53", "maesh:5300 traefik.mesh:5300")),
        ("beside ours", format!("{block}{ours}")),
        ("twice", format!("{block}{block}")),
    ] {
        let corefile = format!("{corefile}{KUBEADM}");
        let told = [state(&corefile, &stanza()).map(drop), add(&corefile, &stanza()).map(drop)];
        for told in told {
            let why = told.expect_err(case).to_string();
            assert!(
                why.starts_with("line 1: the stanza there forwards over TLS") && why.contains("10.96.0.53"),
                "{why}"
            );
        }
        assert_eq!(remove(&corefile, &zones()).as_deref(), Ok(KUBEADM), "{case}");
    }
    // Not a stanza: whoever does not tell who asks is somebody else.
    let other = format!("maesh:53 {{\n    forward . tls://1.1.1.1\n}}\n{KUBEADM}");
    assert_eq!(remove(&other, &zones()).as_ref(), Ok(&other));
    assert!(add(&other, &stanza()).expect_err("taken").to_string().contains("served by a block that is not"));
}

#[test]
fn hostile_text_is_text() {
    let ours = stanza().text();
    for (case, corefile) in [
        ("marks in quotes", format!(". {{\n log \"\n{ours}\"\n}}\n")),
        ("marks behind words", format!(". {{ {BEGIN}\n errors {END}\n}} {END}\n")),
        ("marks that are longer", format!("{BEGIN}s at dawn\n{END}less\n. {{\n}}\n")),
        ("kept lines behind words", format!(". {{\n errors {KEPT}x\n}}\n")),
        ("a zone of ours on another port", "maesh:5300 {\n}\n.:53 {\n}\n".to_owned()),
        ("a zone of ours by another transport", "tls://maesh {\n}\n".to_owned()),
        ("a zone below ours", "shop.maesh:53 {\n}\n".to_owned()),
    ] {
        assert_eq!(state(&corefile, &stanza()), Ok(StanzaState::Absent), "{case}");
        let after = add(&corefile, &stanza()).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(after, format!("{ours}{corefile}"), "{case}");
        assert_eq!(remove(&after, &zones()), Ok(corefile), "{case}");
    }
}

#[test]
fn what_the_stanza_must_know_is_read() {
    for (case, corefile, port, imports, reloads, domain) in [
        ("kubeadm", KUBEADM, Some(53), &[][..], true, Some("cluster.local")),
        ("Gardener", ".:8053 {\n}\nimport custom/*.server\n", Some(8053), &["custom/*.server"], false, None),
        ("several", ".:5353 tls://. {\n}\n. {\n reload\n}\n", Some(53), &[], true, None),
        ("no root", "a:1 {\n}\nx.local:5353 {\n kubernetes {\n }\n}\n", Some(5353), &[], false, Some("x.local")),
        ("none", "a:1 {\n}\n", None, &[], false, None),
    ] {
        let imports = imports.iter().map(|&pattern| pattern.to_owned()).collect();
        let cluster_domain = domain.map(str::to_owned);
        assert_eq!(facts(corefile).unwrap(), Facts { port, imports, reloads, cluster_domain }, "{case}");
    }
}

/// A piece of a Corefile, or of what is in the way in one.
fn piece() -> impl Strategy<Value = String> {
    let ours = stanza().text();
    let lines: Vec<String> = ours.split_inclusive('\n').map(str::to_owned).collect();
    let whole = prop::sample::select(vec![
        KUBEADM.to_owned(),
        TRAEFIK.to_owned(),
        TRAEFIK.replace("Traefik Mesh", "Maesh").replace("traefik.mesh", "maesh"),
        ours,
        before().text(),
        stanza().block(),
        over_tls(),
        "maesh:53 {\n    cache 30\n}\n".to_owned(),
        "a.example:53 b.example {\n    forward . 1.1.1.1 {\n        max_fails 0\n        x {\n        }\n    }\n}\n"
            .to_owned(),
        "import custom/*.server\n".to_owned(),
        "(snippet) {\n    errors\n}\n".to_owned(),
        format!("{KEPT}x\n"),
        format!("# about {BEGIN}\n"),
        "# } a comment {\n".to_owned(),
        ".:53 {\n    log \"a\n# maesh begin\nb\"\n}\n".to_owned(),
    ]);
    let line = prop::sample::select(lines);
    let noise = "[ \t\n\r{}\"\\\\#a:,.]{0,6}";
    prop_oneof![6 => whole, 2 => line, 1 => noise.prop_map(|text: String| text)]
}

fn corefile() -> impl Strategy<Value = String> {
    let ends = prop::sample::select(vec!["as it is", "no final newline", "CRLF", "byte order mark"]);
    (prop::collection::vec(piece(), 0..6), ends).prop_map(|(pieces, ends)| {
        let text = pieces.concat();
        match ends {
            "no final newline" => text.trim_end().to_owned(),
            "CRLF" => text.replace('\n', "\r\n"),
            "byte order mark" => format!("\u{feff}{text}"),
            _ => text,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn what_was_added_is_taken_out_to_the_byte(corefile in corefile()) {
        holds_for(&corefile)?;
    }

    #[test]
    fn no_text_is_too_strange(corefile in "(?s).{0,80}") {
        holds_for(&corefile)?;
    }
}

/// What holds for every text.
fn holds_for(corefile: &str) -> Result<(), TestCaseError> {
    let was = state(corefile, &stanza());
    let Ok(after) = add(corefile, &stanza()) else {
        prop_assert_ne!(was, Ok(StanzaState::Present));
        return Ok(());
    };
    prop_assert_eq!(was == Ok(StanzaState::Present), after == corefile);
    prop_assert_eq!(state(&after, &stanza()), Ok(StanzaState::Present));
    prop_assert_eq!(&add(&after, &stanza()).unwrap(), &after);
    // Whatever else stands in it stays; and where nothing of ours was, that is all of it.
    let removed = remove(&after, &zones()).unwrap();
    prop_assert_eq!(&removed, &remove(corefile, &zones()).unwrap());
    if was == Ok(StanzaState::Absent) {
        prop_assert_eq!(&removed, corefile);
    }
    // It comes and goes with another address as well.
    let moved = match add(&after, &before()) {
        // A person's stanza over TLS is its owner's to change.
        Err(NotUnderstood::Tls { .. }) if after == corefile => return Ok(()),
        moved => moved.unwrap(),
    };
    prop_assert_eq!(state(&moved, &stanza()), Ok(StanzaState::Outdated));
    prop_assert_eq!(remove(&moved, &zones()).unwrap(), removed);
    Ok(())
}
