//! The network: an outer namespace with a bridge, and one namespace a node plugged into it. The machine's own
//! namespace sees nothing of it, and nothing in it has a way out.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::Options;
use crate::command::{checked, line};

/// The outer namespace; the nodes' are called `LAB-n1` and so on.
pub(crate) const LAB: &str = "maesh-cluster";

/// Where the API server listens, and the nodes' way to everything.
pub(crate) const GATEWAY: &str = "10.89.0.1";

const FORWARD: &str = "for s in net/ipv4/ip_forward net/ipv6/conf/all/forwarding; do echo 1 > /proc/sys/$s; done
for s in all default; do echo 0 > /proc/sys/net/ipv4/conf/$s/rp_filter; done
for s in iptables ip6tables; do echo \"$1\" > /proc/sys/net/bridge/bridge-nf-call-$s; done";

/// Name of node `index`, counted from 1.
pub(crate) fn node(index: u8) -> String {
    format!("n{index}")
}

/// Addresses of node `index`.
pub(crate) fn addresses(index: u8, dual: bool) -> Vec<String> {
    families(dual, &format!("10.89.0.1{index}"), &format!("fd00:10:89::1{index}"))
}

/// Networks of the pods on node `index`.
pub(crate) fn pod_networks(index: u8, dual: bool) -> Vec<String> {
    families(dual, &format!("10.244.{index}.0/24"), &format!("fd00:10:244:{index}::/64"))
}

/// `four`, and `six` when both are wanted.
pub(crate) fn families(dual: bool, four: &str, six: &str) -> Vec<String> {
    if dual { vec![four.to_owned(), six.to_owned()] } else { vec![four.to_owned()] }
}

/// The file of a namespace.
pub(crate) fn file(namespace: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(namespace)
}

/// A command that becomes `program` inside `namespace`.
pub(crate) fn inside(namespace: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", file(namespace).display())).arg("--").arg(program);
    command
}

/// Makes all namespaces, links and routes.
pub(crate) fn make(options: &Options) -> Result<()> {
    line(&format!("ip netns add {LAB}"))?;
    for rest in ["set lo up", "add br0 type bridge", "set br0 up"] {
        line(&format!("ip -n {LAB} link {rest}"))?;
    }
    line(&format!("ip -n {LAB} address add {GATEWAY}/24 dev br0"))?;
    line(&format!("ip -n {LAB} address add fd00:10:89::1/64 dev br0 nodad"))?;
    checked(inside(LAB, "sh").args(["-ec", FORWARD, "forward", "0"]))?;
    for index in 1..=options.nodes {
        plug(index)?;
    }
    for from in 1..=options.nodes {
        for to in 1..=options.nodes {
            let (name, networks) = (node(from), pod_networks(to, true));
            for (network, gateway) in networks.iter().zip(addresses(to, true)) {
                if from == 1 {
                    line(&format!("ip -n {LAB} route add {network} via {gateway}"))?;
                }
                if from != to {
                    line(&format!("ip -n {LAB}-{name} route add {network} via {gateway}"))?;
                }
            }
        }
    }
    // So that whoever works beside the API server reaches Services as well.
    line(&format!("ip -n {LAB} route add 10.96.0.0/16 via 10.89.0.11"))?;
    line(&format!("ip -n {LAB} route add fd00:10:96::/112 via fd00:10:89::11"))?;
    Ok(())
}

/// Makes the namespace of one node and its link to the bridge.
fn plug(index: u8) -> Result<()> {
    let name = format!("{LAB}-{}", node(index));
    line(&format!("ip netns add {name}"))?;
    line(&format!("ip -n {LAB} link add v{index} type veth peer name eth0 netns {name}"))?;
    line(&format!("ip -n {LAB} link set v{index} master br0 up"))?;
    line(&format!("ip -n {name} link set lo up"))?;
    line(&format!("ip -n {name} link set eth0 up"))?;
    checked(inside(&name, "sh").args(["-ec", FORWARD, "forward", "1"]))?;
    line(&format!("ip -n {name} address add 10.89.0.1{index}/24 dev eth0"))?;
    line(&format!("ip -n {name} address add fd00:10:89::1{index}/64 dev eth0 nodad"))?;
    line(&format!("ip -n {name} route add default via {GATEWAY}"))?;
    line(&format!("ip -n {name} -6 route add default via fd00:10:89::1"))?;
    Ok(())
}
