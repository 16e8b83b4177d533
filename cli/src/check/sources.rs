//! Addresses that stand for ServiceAccounts under access control (`acl.sources`): none of them may be a pod's.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use maesh_config::model::AccessSource;
use serde_json::Value;

use super::{
    context::{Context, is_alive, items, name, some_of, text},
    outcome::Outcome,
};
use crate::args::access_source;

/// Pods that are named as an example.
const NAMED: usize = 5;

/// No entry of `acl.sources` has addresses of pods.
pub async fn access_sources(context: &Context) -> Outcome {
    let written = context.flags("--acl-source").await;
    let sources: Vec<AccessSource> = written.iter().filter_map(|source| access_source(source).ok()).collect();
    if sources.is_empty() {
        return Outcome::pass("no addresses stand for ServiceAccounts (acl.sources)");
    }
    let nodes = match &*context.get("/api/v1/nodes", "list nodes").await {
        Ok(nodes) => ranges_of_nodes(items(nodes)),
        Err(error) => return Outcome::unread(error),
    };
    let mut pods = Vec::new();
    let read = context.each("/api/v1/pods", "list pods", |pod| note_pod(&mut pods, &sources, pod)).await;
    let unread = match read {
        Ok(()) => None,
        Err(error) if matches!(error.code(), 401 | 403) => Some("list pods in all namespaces"),
        Err(error) => return Outcome::unread(&error),
    };
    judge_sources(&sources, &nodes, &pods, unread)
}

/// The ranges that nodes give their pods' addresses from.
fn ranges_of_nodes(nodes: &[Value]) -> Vec<(String, IpNet)> {
    let of = |node: &Value| {
        let several = node["spec"]["podCIDRs"].as_array().into_iter().flatten().filter_map(Value::as_str);
        // The first of several, or the only one.
        let all: BTreeSet<&str> = several.chain(node["spec"]["podCIDR"].as_str()).collect();
        let node = name(node).to_owned();
        all.into_iter().filter_map(move |range| Some((node.clone(), range.parse().ok()?))).collect::<Vec<_>>()
    };
    nodes.iter().flat_map(of).collect()
}

/// Notes a pod whose address a source has. One on its node's network has the node's address, which may be meant.
fn note_pod(pods: &mut Vec<(String, IpAddr)>, sources: &[AccessSource], pod: &Value) {
    if pods.len() >= NAMED || pod["spec"]["hostNetwork"] == true || !is_alive(pod) {
        return;
    }
    let several = pod["status"]["podIPs"].as_array().into_iter().flatten().map(|entry| text(entry, "/ip"));
    let addresses = several.chain([text(pod, "/status/podIP")]).filter_map(|address| address.parse::<IpAddr>().ok());
    let inside = |address: &IpAddr| sources.iter().any(|source| source.range.contains(address));
    if let Some(address) = addresses.into_iter().find(inside) {
        pods.push((format!("{}/{}", text(pod, "/metadata/namespace"), name(pod)), address));
    }
}

fn judge_sources(
    sources: &[AccessSource],
    nodes: &[(String, IpNet)],
    pods: &[(String, IpAddr)],
    unread: Option<&str>,
) -> Outcome {
    let overlap = |one: &IpNet, other: &IpNet| one.contains(other) || other.contains(one);
    let of_node = |address: &IpAddr| nodes.iter().any(|(_, range)| range.contains(address));
    for source in sources {
        let (range, account) = (source.range, &source.account);
        let has = |(_, address): &&(String, IpAddr)| range.contains(address) && !of_node(address);
        if let Some((pod, address)) = pods.iter().find(has) {
            return Outcome::warn(
                format!("{range} of acl.sources has addresses of pods: {pod} ({address})"),
                format!(
                    "make the range smaller: a pod in it whom the mesh does not know yet, or no longer, has the rights of \
                     ServiceAccount {account}"
                ),
            );
        }
        let of_nodes: Vec<_> = nodes.iter().filter(|(_, other)| overlap(&range, other)).collect();
        if let Some((_, other)) = of_nodes.first() {
            let names = some_of(of_nodes.iter().map(|(node, _)| node.as_str()));
            return Outcome::warn(
                format!(
                    "{range} of acl.sources overlaps {other}, from which pods have their addresses (nodes: {names})"
                ),
                "make the range smaller: the entry does not hold for addresses of pods, whose own ServiceAccounts count, and would \
                 hold for them if a node no longer names its range",
            );
        }
    }
    let count = sources.len();
    match unread {
        Some(right) => Outcome::pass(format!(
            "no range of {count} in acl.sources overlaps the nodes' ranges of pods; addresses of pods not checked: needs the right to \
             {right}"
        )),
        None => Outcome::pass(format!("no range of {count} in acl.sources has addresses of pods")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::outcome::Verdict, *};

    #[test]
    fn sources_that_are_pods() {
        let nodes = ranges_of_nodes(&[json!({ "metadata": { "name": "n1" }, "spec": { "podCIDR": "10.244.1.0/24",
            "podCIDRs": ["10.244.1.0/24", "fd00:1::/64"] } })]);
        let pod = |address: &str, host: bool| {
            json!({ "metadata": { "namespace": "shop", "name": "web" }, "spec": { "hostNetwork": host },
                "status": { "podIP": address } })
        };
        for (case, source, pod, want, says) in [
            ("outside", "192.168.1.7/32", pod("10.9.0.1", false), Verdict::Pass, "has addresses of pods"),
            ("a node's range", "10.244.0.0/16", pod("10.9.0.1", false), Verdict::Warn, "overlaps 10.244.1.0/24"),
            ("a part of it", "10.244.1.7/32", pod("10.9.0.1", false), Verdict::Warn, "(nodes: n1)"),
            ("the other family", "fd00:1::5/128", pod("10.9.0.1", false), Verdict::Warn, "overlaps fd00:1::/64"),
            ("a pod's address", "10.9.0.0/16", pod("10.9.0.1", false), Verdict::Warn, "of pods: shop/web (10.9.0.1)"),
            ("a pod's, of a node", "10.244.1.7/32", pod("10.244.1.7", false), Verdict::Warn, "overlaps 10.244.1.0/24"),
            ("a node's address", "10.9.0.0/16", pod("10.9.0.1", true), Verdict::Pass, "no range"),
        ] {
            let sources = [access_source(&format!("{source}=ingress/nginx")).unwrap()];
            let mut pods = Vec::new();
            note_pod(&mut pods, &sources, &pod);
            let outcome = judge_sources(&sources, &nodes, &pods, None);
            assert_eq!(outcome.verdict, want, "{case}: {outcome:?}");
            assert!(outcome.message.contains(says), "{case}: {outcome:?}");
            let refused = judge_sources(&sources, &nodes, &[], Some("list pods in all namespaces"));
            assert_eq!(refused.message.contains("needs the right to list pods"), refused.verdict == Verdict::Pass);
        }
    }
}
