//! What the cluster's DNS is, and how what it reads stands to the mesh: found and judged by what installs the stanza.

use std::net::{IpAddr, Ipv4Addr};

use maesh_controller::duties::stanza::{ClusterError, FileState, MapName, Software, StanzaState, There, Unplaced};

use serde_json::Value;

use super::{
    context::{Context, counted, text},
    dns::mesh_service,
    outcome::{Outcome, Verdict},
};

/// Whom the stanza would lead to, before there is a mesh.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The cluster's DNS is one that the mesh can be added to.
pub async fn provider(context: &Context) -> Outcome {
    match &*context.cluster_dns().await {
        Ok(there) => judge_software(&there.place.software, there.place.servers.len()),
        Err(ClusterError::Unplaced(unplaced)) => judge_unplaced(unplaced),
        Err(error) => Outcome::no_cluster_dns(error),
    }
}

fn judge_software(software: &Software, servers: usize) -> Outcome {
    let pods = counted(servers, "pod");
    match software {
        Software::CoreDns { map, key, .. } => Outcome::pass(format!("CoreDNS, {pods}, reads {map}, key {key}")),
        Software::KubeDns { map } => Outcome::warn(
            format!("kube-dns, {pods}, reads stub domains from {map} and does not say who asks"),
            "set addressing=auto: names then resolve to one address, and the node's kube-proxy chooses the proxy",
        ),
    }
}

fn judge_unplaced(unplaced: &Unplaced) -> Outcome {
    match unplaced {
        Unplaced::NoPods(_) => Outcome::fail(unplaced.to_string(), "see kubectl -n kube-system get pods"),
        Unplaced::OpenShift | Unplaced::NoService | Unplaced::NoCorefile(_) => Outcome::warn(
            unplaced.to_string(),
            "add the mesh's zones by hand, as the file for your platform in coredns-snippet/ shows",
        ),
    }
}

/// The Corefile is understood, and changes of it are taken up.
pub async fn corefile(context: &Context) -> Outcome {
    let there = context.cluster_dns().await;
    let there = match &*there {
        Ok(there) => there,
        Err(error) => return Outcome::no_cluster_dns(error),
    };
    let zones = context.zones().await;
    let forward = mesh_service(context).await.map_or(NOBODY, |found| first(&found));
    // What would be written is worked out and thrown away: so it is known that it could be.
    let changes = there.additions(&zones, forward);
    let missing = changes.as_ref().map(|changes| there.missing(changes)).unwrap_or_default();
    let imported = missing.iter().find(|map| there.place.node_local.as_ref() != Some(map));
    match changes.and_then(|_| there.report(&zones, forward)) {
        Err(refusal) => Outcome::fail(refusal.to_string(), "mend it, then check again"),
        Ok(report) if report.stanza.is_none() => Outcome::skip("the cluster's DNS has no Corefile"),
        Ok(report) if !report.reloads => Outcome::warn(
            "the Corefile has no plugin reload: CoreDNS does not take up changes by itself",
            "add `reload` to the block of the zone \".\", and restart CoreDNS once after that",
        ),
        Ok(_) if let Some(map) = imported => {
            Outcome::warn(format!("{map}, which the Corefile imports and the stanza goes to, is not there"), made(map))
        }
        Ok(_) => Outcome::pass("the Corefile is understood, and CoreDNS takes up changes by itself"),
    }
}

/// How a ConfigMap comes to be that no controller may make.
fn made(map: &MapName) -> String {
    let MapName { namespace, name } = map;
    format!("make it, empty, as a controller may not: kubectl -n {namespace} create configmap {name}")
}

/// NodeLocal DNSCache is noticed.
pub async fn node_local(context: &Context) -> Outcome {
    match &*context.cluster_dns().await {
        Err(error) => Outcome::no_cluster_dns(error),
        Ok(there) => match &there.place.node_local {
            None => Outcome::pass("NodeLocal DNSCache does not run"),
            Some(map) if !there.is_there(map) => Outcome::warn(
                format!("NodeLocal DNSCache runs, and {map}, which tells it about the mesh's zones, is not there"),
                made(map),
            ),
            Some(map) => Outcome::warn(
                "NodeLocal DNSCache runs: pods ask it, and it passes only the cluster's own zones to CoreDNS",
                format!(
                    "nothing to do with coredns.mode=auto; with manual, name the mesh's zones in stubDomains of {map} after the \
                     installation (coredns-snippet/kube-dns.yaml)"
                ),
            ),
        },
    }
}

/// The stanza is there, and leads to the mesh.
pub async fn stanza(context: &Context) -> Outcome {
    let mut outcome = look(context, false).await;
    if outcome.verdict == Verdict::Fail
        && let Some(why) = reason_from_controllers(context).await
    {
        outcome.message += &format!("; the controller that leads says: {why}");
    }
    outcome
}

/// Why the stanza is not as it should be, by the controllers.
async fn reason_from_controllers(context: &Context) -> Option<String> {
    // Who does not answer does not lead, or is spoken of by the check `roles`.
    let answers = context.answers_of("controller", "/api/stanza").await.ok()?;
    answers.iter().find_map(|(_, said)| why(said))
}

fn why(said: &Value) -> Option<String> {
    matches!(text(said, "/phase"), "blocked" | "reverted").then(|| text(said, "/message").to_owned())
}

/// The caches on the nodes pass the mesh's zones to the mesh.
pub async fn node_local_stub(context: &Context) -> Outcome {
    look(context, true).await
}

/// How the files of CoreDNS, or those of the caches on the nodes, stand to the mesh.
async fn look(context: &Context, caches: bool) -> Outcome {
    let there = context.cluster_dns().await;
    let there = match &*there {
        Ok(there) if caches && there.place.node_local.is_none() => {
            return Outcome::pass("NodeLocal DNSCache does not run");
        }
        Ok(there) => there,
        Err(error) => return Outcome::no_cluster_dns(error),
    };
    let forward = match mesh_service(context).await {
        Ok(found) => first(&found),
        Err(outcome) => return outcome,
    };
    let report = match there.report(&context.zones().await, forward) {
        Ok(report) => report,
        Err(refusal) => return Outcome::fail(refusal.to_string(), "mend it, then check again"),
    };
    let block = report.stanza.as_ref().filter(|_| !caches).map(|stanza| stanza.block());
    let of_caches = |standing: &&FileState| is_of_caches(there, &standing.file.map) == caches;
    let standings: Vec<_> = report.standings.iter().filter(of_caches).collect();
    judge_standings(&standings, forward, block.as_deref())
}

fn is_of_caches(there: &There, map: &MapName) -> bool {
    let of_kube_dns = matches!(&there.place.software, Software::KubeDns { map: own } if own == map);
    there.place.node_local.as_ref() == Some(map) && !of_kube_dns
}

fn judge_standings(standings: &[&FileState], forward: IpAddr, block: Option<&str>) -> Outcome {
    for standing in standings {
        let file = format!("{}, key {}", standing.file.map, standing.file.key);
        let fix = match block {
            Some(block) => format!("let {file} have this, and nothing else for these zones:\n{block}"),
            None => {
                format!("let the mesh's zones lead to {forward} in {file}; coredns-snippet/kube-dns.yaml shows how")
            }
        };
        match &standing.state {
            Ok(StanzaState::Present) => {}
            Ok(StanzaState::Absent) => return Outcome::fail(format!("{file}: nothing leads to the mesh"), fix),
            Ok(StanzaState::Outdated) => {
                return Outcome::fail(format!("{file}: the mesh's part leads elsewhere, or was changed"), fix);
            }
            Ok(StanzaState::Broken) => {
                return Outcome::fail(format!("{file}: the mesh's part is there in pieces, or more than once"), fix);
            }
            Err(refusal) => return Outcome::fail(refusal.to_string(), "mend it, then check again"),
        }
    }
    match standings.first() {
        None => Outcome::skip("nothing that the cluster's DNS reads could have the mesh's zones"),
        Some(standing) => Outcome::pass(format!(
            "{}, key {} leads the mesh's zones to {forward}",
            standing.file.map, standing.file.key
        )),
    }
}

fn first(found: &[IpAddr]) -> IpAddr {
    found.first().copied().unwrap_or(NOBODY)
}

#[cfg(test)]
mod tests {
    use maesh_controller::duties::stanza::CorefileRef;

    use super::*;

    #[test]
    fn how_files_stand() {
        let standing = |state| FileState {
            file: CorefileRef {
                map: MapName { namespace: "kube-system".into(), name: "coredns".into() },
                key: "Corefile".into(),
            },
            state: Ok(state),
        };
        let forward = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 53));
        for (states, want) in [
            (&[StanzaState::Present][..], Verdict::Pass),
            (&[StanzaState::Present, StanzaState::Absent], Verdict::Fail),
            (&[StanzaState::Outdated], Verdict::Fail),
            (&[StanzaState::Broken], Verdict::Fail),
            (&[], Verdict::Skip),
        ] {
            let standings: Vec<_> = states.iter().map(|state| standing(*state)).collect();
            let outcome = judge_standings(&standings.iter().collect::<Vec<_>>(), forward, Some("maesh:53 {\n}\n"));
            assert_eq!(outcome.verdict, want, "{states:?}");
            assert!(outcome.fix.is_none_or(|fix| fix.contains("maesh:53 {")), "{states:?}");
        }
    }

    #[test]
    fn controllers_say_why_only_where_something_is_wrong() {
        let said = |phase| serde_json::json!({ "phase": phase, "message": "x" });
        for (phase, want) in [("blocked", Some("x")), ("reverted", Some("x")), ("present", None), ("idle", None)] {
            assert_eq!(why(&said(phase)).as_deref(), want, "{phase}");
        }
        assert_eq!(why(&Value::Null), None, "another version");
    }

    #[test]
    fn what_the_clusters_dns_can_be() {
        let map = || MapName { namespace: "kube-system".into(), name: "x".into() };
        let coredns =
            Software::CoreDns { map: map(), key: "Corefile".into(), folder: "/etc/coredns".into(), mounts: vec![] };
        assert_eq!(judge_software(&coredns, 2).verdict, Verdict::Pass);
        assert_eq!(judge_software(&Software::KubeDns { map: map() }, 2).verdict, Verdict::Warn);
        for (unplaced, want) in [
            (Unplaced::NoPods("kube-system/kube-dns".into()), Verdict::Fail),
            (Unplaced::OpenShift, Verdict::Warn),
            (Unplaced::NoService, Verdict::Warn),
            (Unplaced::NoCorefile("x".into()), Verdict::Warn),
        ] {
            assert_eq!(judge_unplaced(&unplaced).verdict, want, "{unplaced}");
        }
    }
}
