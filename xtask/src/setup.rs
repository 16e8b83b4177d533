//! `cargo xtask test --setup`: installs what the tests need, and nothing else ever does.
//!
//! Debian packages come without their services being started: a policy that forbids it is put in place for the time of
//! the installation. Everything else goes into the cache.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use maesh_test_support::{TOOLS, program};

use crate::command::{collect, quietly};
use crate::pictures::PROMETHEUS;
use crate::tool;

/// Programs of the system, the Debian packages that have them, and what they are for.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("cc", "gcc libc6-dev", "building"),
    ("c++", "g++", "fuzzing"),
    ("make", "make", "building"),
    ("ip", "iproute2", "network namespaces"),
    ("nsenter", "util-linux", "network namespaces"),
    ("taskset", "util-linux", "benches on one core"),
    ("curl", "curl", "requests by a client that is not ours"),
    ("dig", "bind9-dnsutils", "queries by a client that is not ours"),
    ("kdig", "knot-dnsutils", "queries by a client that is not ours"),
    ("knotd", "knot", "a DNS server to compare with"),
    ("nsd", "nsd", "a DNS server to compare with"),
    ("dnsperf", "dnsperf", "DNS load"),
    ("haproxy", "haproxy", "a proxy to compare with"),
    ("nginx", "nginx-light", "a proxy to compare with"),
    ("h2load", "nghttp2-client", "HTTP load"),
    ("wrk", "wrk", "HTTP load"),
    ("musl-gcc", "musl-tools", "a resolver of another C library"),
    ("containerd", "containerd", "the nodes of the test cluster"),
    ("runc", "runc", "the nodes of the test cluster"),
    ("nft", "nftables", "the nodes of the test cluster"),
    ("conntrack", "conntrack", "the nodes of the test cluster"),
    ("iptables", "iptables", "the nodes of the test cluster"),
    ("tini", "tini", "the nodes of the test cluster"),
    ("valgrind", "valgrind", "instruction counts"),
    ("python3", "python3", "Envoy and an independent DNS decoder"),
    ("node", "nodejs", "a resolver of another runtime"),
    ("javac", "default-jdk-headless", "a resolver of another runtime"),
];

/// Programs of the system that single suites need, and that not every Debian has: one that cannot be had keeps nothing else
/// from being installed.
const FURTHER: &[(&str, &str, &str)] =
    &[("npm", "npm", "libraries of Node.js"), ("chromium", "chromium", "WebSocket from a browser")];

/// Starts no service while packages are installed; see policy-rc.d(8).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs whatever is missing, one line each; returns what could not be had, with the reason.
pub(crate) fn install() -> Vec<String> {
    let mut missing = Vec::new();
    if let Err(error) = packages() {
        missing.push(format!("Debian packages: {error:#}"));
    }
    for further @ (name, packages, reason) in FURTHER.iter().filter(|(name, ..)| program(name).is_none()) {
        println!("{name}: missing, needed for {reason}: installing {packages}");
        if let Err(error) = debian(packages.split(' ').collect()).and_then(|()| still_missing(&[*further])) {
            missing.push(format!("{name} (needed for {reason}): {error:#}"));
        }
    }
    if let Some(rustup) = program("rustup")
        && let Err(error) = quietly(Command::new(rustup).args(["target", "add", crate::image::TARGET]))
    {
        missing.push(format!("{} (needed for the pods of the test cluster): {error:#}", crate::image::TARGET));
    }
    for wanted in TOOLS.iter().filter(|tool| tool.name != PROMETHEUS) {
        if let Err(error) = tool::ensure(wanted) {
            missing.push(format!("{} (needed for {}): {error:#}", wanted.name, wanted.needed_for));
        }
    }
    missing
}

/// Installs the Debian packages of the programs that are not there.
fn packages() -> Result<()> {
    let mut wanted: Vec<&str> = Vec::new();
    for (name, packages, reason) in PROGRAMS {
        if program(name).is_none() {
            println!("{name}: missing, needed for {reason}: installing {packages}");
            wanted.extend(packages.split(' '));
        }
    }
    let pip = program("python3").is_some_and(|python| {
        Command::new(python).args(["-m", "pip", "--version"]).output().is_ok_and(|output| output.status.success())
    });
    if !pip {
        println!("pip: missing, needed for Python packages: installing python3-pip");
        wanted.push("python3-pip");
    }
    if !Path::new(maesh_testcluster::CNI).join("bridge").exists() {
        println!("CNI plugins: missing, needed for the test cluster: installing containernetworking-plugins");
        wanted.push("containernetworking-plugins");
    }
    debian(wanted)?;
    still_missing(PROGRAMS)
}

/// What only benches need.
const OF_BENCHES: &[(&str, &str, &str)] = &[
    ("iperf3", "iperf3", "bulk streams"),
    ("nghttpd", "nghttp2-server", "endpoints that speak HTTP/2"),
    ("nginx", "libnginx-mod-stream", "a relay to compare with"),
];

/// Installs the Debian packages that benches need besides those of the tests.
pub(crate) fn for_benches() -> Result<()> {
    packages()?;
    let stream = Path::new(crate::bench::NGINX_STREAM);
    let is_there = |name: &str| program(name).is_some() && (name != "nginx" || stream.is_file());
    debian(OF_BENCHES.iter().filter(|(name, ..)| !is_there(name)).map(|(_, package, _)| *package).collect())?;
    still_missing(OF_BENCHES)
}

fn still_missing(programs: &[(&str, &str, &str)]) -> Result<()> {
    for (name, packages, _) in programs {
        if program(name).is_none() {
            bail!("{name} is still missing after installing {packages}");
        }
    }
    Ok(())
}

/// Installs Debian packages without starting their services.
fn debian(mut wanted: Vec<&str>) -> Result<()> {
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install {}", wanted.join(" "));
    let Some(apt) = program("apt-get") else { bail!("this is no Debian; there it would be: {install}") };
    if !rustix::process::geteuid().is_root() {
        bail!("only root can install them: sudo {install}");
    }
    let _policy = NoServices::decree()?;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&apt);
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["--quiet", "--yes", "--option", "DPkg::Lock::Timeout=300"])
            .args(arguments);
        command
    };
    let arguments = [&["install", "--no-install-recommends"][..], &wanted].concat();
    if !collect("apt-get install", &mut run(&arguments))?.success {
        // The list of packages may be missing or old.
        quietly(&mut run(&["update"]))?;
        quietly(&mut run(&arguments))?;
    }
    println!("installed: {}", wanted.join(" "));
    Ok(())
}

/// While this lives, packages do not start their services. Dropped, the policy that was there before is back.
struct NoServices {
    before: Option<(Vec<u8>, Permissions)>,
}

impl NoServices {
    fn decree() -> Result<Self> {
        let path = Path::new(POLICY);
        let before = match fs::read(path) {
            Ok(content) => Some((content, fs::metadata(path)?.permissions())),
            Err(_) => None,
        };
        fs::write(path, "#!/bin/sh\nexit 101\n").context(POLICY)?;
        fs::set_permissions(path, Permissions::from_mode(0o755))?;
        Ok(Self { before })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        let restored = match &self.before {
            Some((content, permissions)) => {
                fs::write(POLICY, content).and_then(|()| fs::set_permissions(POLICY, permissions.clone()))
            }
            None => fs::remove_file(POLICY),
        };
        if let Err(error) = restored {
            eprintln!("{POLICY} could not be restored: {error}");
        }
    }
}
