//! The way a pod asks: a stub resolver with a pod's resolv.conf, a real CoreDNS with the stanza, and our responder
//! behind it. Each caller has an address of its own, which must arrive with us, and be sent to the proxy of its node.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use maesh_dns_suite::{Process, Responder, by_node, pod, proxy};
use maesh_test_support::{Namespace, need_program, need_root, need_tool, repository, until};

/// What every resolver is asked.
const NAMES: [&str; 4] = ["web.shop.maesh", "web.shop.maesh.", "v4.shop.maesh", "nope.shop.maesh"];
/// A lookup that takes longer has waited for an answer that did not come; resolvers wait 5 s.
const LIMIT: u64 = 4000;

/// Callers: what they are, their address of the family of their name server, and what `web` and `v4` are for them.
const CALLERS: [(&str, &str, &[&str], &[&str]); 5] = [
    ("pod of n1", "10.244.1.10", &["10.244.1.2", "fd00:10:244:1::2"], &["10.89.7.4"]),
    ("pod of n2, whose proxy has no IPv6", "10.244.2.10", &["10.244.2.2"], &["10.89.7.4"]),
    ("nobody knows", "10.244.9.9", &["10.244.1.2", "10.244.2.2", "fd00:10:244:1::2"], &["10.89.7.4"]),
    ("pod of n1, over IPv6", "fd00:10:244:1::10", &["10.244.1.2", "fd00:10:244:1::2"], &["10.89.7.4"]),
    ("pod of n2, over IPv6", "fd00:10:244:2::10", &["10.244.2.2"], &["10.89.7.4"]),
];

/// Where CoreDNS answers, by family.
const CLUSTER_DNS: [&str; 2] = ["10.89.0.10", "fd00:10:89::10"];
const RESPONDER: &str = "10.89.0.53:53";

#[test]
#[ignore = "long: builds programs for five resolvers"]
fn every_resolver_finds_the_proxy_of_its_callers_node() {
    if !need_root() {
        return;
    }
    let Some(coredns) = need_tool("coredns") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let Some(resolvers) = resolvers(folder.path()) else { return };
    let namespace = Namespace::new().expect("a namespace");
    namespace
        .run(|| {
            let names =
                vec![by_node("shop/web", &["10.89.7.3"]), maesh_dns_suite::fixed("v4.shop", &["10.89.7.4"], &[])];
            let pods = ["10.244.1.10", "fd00:10:244:1::10", "10.244.2.10", "fd00:10:244:2::10"].map(|address| {
                pod(address, if address.contains(":2::") || address.contains(".2.") { "n2" } else { "n1" })
            });
            let proxies = vec![proxy("p1", "n1", "10.244.1.2 fd00:10:244:1::2"), proxy("p2", "n2", "10.244.2.2")];
            let address = RESPONDER.parse().expect("an address");
            let responder = Responder::with(address, names, pods.to_vec(), proxies);
            let _coredns = start(&coredns, folder.path(), responder.address());
            ask_all(&namespace, folder.path(), &resolvers);
        })
        .expect("it runs in the namespace");
}

/// CoreDNS as a cluster has it, with the stanza; the other names of the search path do not exist.
fn start(coredns: &Path, folder: &Path, responder: SocketAddr) -> Process {
    let corefile = folder.join("Corefile");
    let bind = format!("bind {} {}", CLUSTER_DNS[0], CLUSTER_DNS[1]);
    let text = format!(
        "maesh:53 {{\n    {bind}\n    errors\n    rewrite edns0 subnet set 32 128\n    forward . {}\n}}\n\
         .:53 {{\n    {bind}\n    errors\n    template ANY ANY {{\n        rcode NXDOMAIN\n    }}\n}}\n",
        responder.ip()
    );
    fs::write(&corefile, text).expect("written");
    let process = Process::start(Command::new(coredns).arg("-conf").arg(corefile)).expect("CoreDNS starts");
    let listens = |address: &str| {
        let address = SocketAddr::new(address.parse().expect("an address"), 53);
        TcpStream::connect(address).is_ok()
    };
    assert!(until(Duration::from_secs(30), || CLUSTER_DNS.iter().all(|address| listens(address))), "CoreDNS listens");
    process
}

fn ask_all(namespace: &Namespace, folder: &Path, resolvers: &[(&str, Vec<PathBuf>)]) {
    let mut wrong = Vec::new();
    for (caller, source, web, v4) in CALLERS {
        let source: IpAddr = source.parse().expect("an address");
        let server = CLUSTER_DNS[usize::from(source.is_ipv6())];
        let conf = folder.join("resolv.conf");
        let text = "search shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";
        fs::write(&conf, format!("nameserver {server}\n{text}")).expect("written");
        // Whoever asks the cluster's DNS from now on has this address.
        if source.is_ipv6() {
            // What is preferred must belong to an interface in this family.
            ip(&["-6", "address", "replace", &source.to_string(), "dev", "lo", "nodad"]);
        }
        let family = if source.is_ipv6() { "-6" } else { "-4" };
        ip(&[family, "route", "replace", "local", server, "dev", "lo", "src", &source.to_string()]);
        for (resolver, command) in resolvers {
            let output = namespace
                .command("unshare")
                .args(["--mount", "--", "sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\""])
                .arg(&conf)
                .args(command)
                .args(NAMES)
                .output()
                .expect("it runs");
            let text = String::from_utf8_lossy(&output.stdout);
            for (name, want) in NAMES.iter().zip([web, web, v4, &["none"]]) {
                let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
                let (millis, found) = line.and_then(|line| line.split_once(' ')).unwrap_or(("", "nothing"));
                let found: BTreeSet<String> = found.split(' ').map(canonical).collect();
                let want: BTreeSet<String> = want.iter().map(|word| (*word).to_owned()).collect();
                if found != want || millis.parse().unwrap_or(u64::MAX) > LIMIT {
                    let errors = String::from_utf8_lossy(&output.stderr);
                    wrong.push(format!(
                        "{resolver}, {caller}: {name} is {found:?} after {millis} ms, not {want:?} {errors}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Sets up the namespace's network.
fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An address as Rust writes it (the JVM writes IPv6 in full); other words as they are.
fn canonical(word: &str) -> String {
    word.parse::<IpAddr>().map_or_else(|_| word.to_owned(), |address| address.to_string())
}

/// Builds a program for each resolver: its name, and the command without the names to look up.
fn resolvers(folder: &Path) -> Option<Vec<(&'static str, Vec<PathBuf>)>> {
    let (cc, musl) = (need_program("cc", "gcc")?, need_program("musl-gcc", "musl-tools")?);
    let (go, node) = (need_program("go", "golang")?, need_program("node", "nodejs")?);
    let (javac, java) = (need_program("javac", "default-jdk-headless")?, need_program("java", "default-jdk-headless")?);
    let source = |name: &str| repository().join("tests/dns/clients").join(name);
    let file = |name: &str| folder.join(name);
    let build = |command: &mut Command| {
        let output = command.output().expect("the compiler runs");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    build(Command::new(cc).arg("-o").arg(file("glibc")).arg(source("lookup.c")));
    build(Command::new(musl).args(["-static", "-o"]).arg(file("musl")).arg(source("lookup.c")));
    build(Command::new(go).env("CGO_ENABLED", "0").args(["build", "-o"]).arg(file("go")).arg(source("lookup.go")));
    build(Command::new(javac).arg("-d").arg(folder).arg(source("Lookup.java")));
    Some(vec![
        ("glibc", vec![file("glibc")]),
        ("musl", vec![file("musl")]),
        ("Go", vec![file("go")]),
        ("Node (c-ares)", vec![node, source("lookup.js")]),
        ("JVM", vec![java, "-cp".into(), folder.to_owned(), "Lookup".into()]),
    ])
}
