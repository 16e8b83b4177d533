//! Configuration: what of others is there, and whether everybody has the newest of ours.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    context::{Context, is_alive, items, name, role, some_of, text},
    outcome::Outcome,
};
use crate::network_policy::{self, carried};

/// A change may be on its way for so long.
const ON_ITS_WAY: f64 = 5.0;

/// What NetworkPolicies do to requests that come through the mesh, whose pods see the address of a proxy.
pub async fn network_policies(context: &Context) -> Outcome {
    let policies = context.get("/apis/networking.k8s.io/v1/networkpolicies", "list networkpolicies").await;
    let services = context.get("/api/v1/services", "list services").await;
    let namespaces = context.get("/api/v1/namespaces", "list namespaces").await;
    let pods = context.mesh_pods().await;
    match (&*policies, &*services, &*namespaces, &*pods) {
        (Ok(policies), Ok(services), Ok(namespaces), Ok(pods)) => {
            let mesh = items(namespaces).iter().find(|namespace| name(namespace) == context.namespace());
            let of_proxies = items(pods).iter().filter(|pod| role(pod) == "proxy");
            let address = |pod: &Value| text(pod, "/status/podIP").parse().ok();
            let proxies = network_policy::Proxies {
                namespace: mesh.map_or(&Value::Null, |mesh| &mesh["metadata"]["labels"]),
                mesh: context.namespace(),
                labels: of_proxies.clone().next().map(|pod| pod["metadata"]["labels"].clone()).unwrap_or_default(),
                addresses: of_proxies.filter_map(address).collect(),
            };
            let settings = match carried::settings(items(pods), context.namespace()) {
                Ok(settings) => settings,
                Err(error) => return Outcome::skip(format!("the settings of the mesh cannot be read: {error:#}")),
            };
            let around = carried::reasons_against(items(services), items(namespaces), settings);
            let services = items(services).iter().zip(&around).filter(|(_, around)| around.is_none());
            let services: Vec<_> = services.map(|(service, _)| service).collect();
            judge_policies(&network_policy::effects(&services, items(policies), &proxies))
        }
        (Err(error), ..) | (_, Err(error), ..) | (_, _, Err(error), _) | (.., Err(error)) => Outcome::unread(error),
    }
}

fn judge_policies(effects: &network_policy::Effects) -> Outcome {
    let of = |services: &[String]| some_of(services.iter().map(String::as_str));
    if let Some(policy) = &effects.proxies_shut {
        return Outcome::warn(
            format!(
                "no pod of another namespace may connect to the proxies (NetworkPolicy {policy} of the mesh's namespace)"
            ),
            "admit callers to the pods of the proxies; docs/tasks/network-policies.md says to which ports",
        );
    }
    match (&*effects.shut, &*effects.blind) {
        ([], []) => {
            Outcome::pass("no NetworkPolicy keeps proxies from pods, or tells callers apart that come through them")
        }
        ([], blind) => Outcome::warn(
            format!(
                "pods see proxies as callers, so policies that select callers do not apply through the mesh: {}",
                of(blind)
            ),
            "decide who may call with access control, or take these Services out of the mesh (annotation bypass); see \
             docs/tasks/network-policies.md",
        ),
        (shut, _) => Outcome::warn(
            format!("proxies may not connect to the pods of {}", of(shut)),
            "admit the proxies; docs/tasks/network-policies.md has the policy",
        ),
    }
}

/// No Traefik Mesh, or Maesh of before, is left in the cluster.
pub async fn traefik_mesh(context: &Context) -> Outcome {
    let shadows = context.get(&selecting("/api/v1/services"), "list services").await;
    let deployments = context.get(&selecting("/apis/apps/v1/deployments"), "list deployments").await;
    let maps = context.get("/api/v1/namespaces/kube-system/configmaps", "list configmaps in kube-system").await;
    match (&*shadows, &*deployments) {
        (Ok(shadows), Ok(deployments)) => {
            let maps = maps.as_ref().as_ref().ok();
            judge_traefik_mesh(items(shadows), items(deployments), maps.map(items).unwrap_or_default())
        }
        (Err(error), _) | (_, Err(error)) => Outcome::unread(error),
    }
}

/// Objects that carry the labels of the old mesh.
fn selecting(url: &str) -> String {
    format!("{url}?labelSelector=app%20in%20%28maesh%2Ctraefik-mesh%29")
}

fn judge_traefik_mesh(services: &[Value], deployments: &[Value], maps: &[Value]) -> Outcome {
    // Where this mesh put them to rest, something stands before the marks.
    let begins = |line: &str| ["#### Begin Maesh Block", "#### Begin Traefik Mesh Block"].contains(&line.trim());
    let blocks = maps.iter().filter(|map| {
        let texts = map["data"].as_object().into_iter().flatten().filter_map(|(_, text)| text.as_str());
        texts.into_iter().any(|text| text.lines().any(begins))
    });
    let blocks: Vec<_> = blocks.map(name).collect();
    let place = |object: &Value| format!("{}/{}", text(object, "/metadata/namespace"), name(object));
    if let Some(running) = deployments.first() {
        return Outcome::fail(
            format!("a Traefik Mesh runs: Deployment {}", place(running)),
            "uninstall it first (helm uninstall); both would write the same zone into the cluster's DNS",
        );
    }
    if !blocks.is_empty() {
        return Outcome::warn(
            format!("blocks of a Traefik Mesh are left in ConfigMap {} of kube-system", some_of(blocks)),
            "take out what stands between #### Begin and #### End (Traefik) Maesh Block: a zone that is there twice keeps \
             CoreDNS from starting",
        );
    }
    let shadow = services.iter().find(|service| text(service, "/metadata/labels/type") == "shadow");
    match shadow {
        Some(shadow) => Outcome::warn(
            format!("shadow Services of a Traefik Mesh are left, for instance {}", place(shadow)),
            "kubectl delete services -A -l 'type=shadow,app in (maesh,traefik-mesh)'",
        ),
        None => Outcome::pass("nothing of a Traefik Mesh is left"),
    }
}

/// Names lead to the mesh: it is not bypassed as a whole, on purpose or by an uninstallation that was left off.
pub async fn bypass(context: &Context) -> Outcome {
    let zones = context.zones().await;
    let asked = zones.first().map(|zone| format!("/api/explain/dns?name=ns.dns.{zone}")).unwrap_or_default();
    match context.answers_of("dns", &asked).await {
        Ok(told) => match told.first() {
            Some((_, said)) => judge_bypass(said, marker(context).await.as_deref(), context.namespace()),
            None => Outcome::skip("no dns could be asked"),
        },
        Err(unread) => unread,
    }
}

/// The ConfigMap that says that the mesh is to go.
async fn marker(context: &Context) -> Option<String> {
    let url = format!("/api/v1/namespaces/{}/configmaps", context.namespace());
    let maps = context.get(&url, "list configmaps").await;
    let maps = maps.as_ref().as_ref().map(items).unwrap_or_default();
    maps.iter().map(name).find(|name| name.ends_with("-uninstall")).map(str::to_owned)
}

fn judge_bypass(said: &Value, marker: Option<&str>, namespace: &str) -> Outcome {
    match (&said["bypass"], marker) {
        (Value::Bool(false), _) => Outcome::pass("names lead to the mesh"),
        (Value::Bool(true), Some(marker)) => Outcome::warn(
            "an uninstallation was begun: names answer ClusterIPs or endpoint addresses, and the stanza goes",
            format!(
                "end it (helm uninstall), or take it back: kubectl -n {namespace} delete configmap {marker}, and wait a minute"
            ),
        ),
        (Value::Bool(true), None) => Outcome::warn(
            "the mesh is bypassed as a whole: names answer ClusterIPs or endpoint addresses",
            "helm upgrade with bypass=false; or ConfigMap maesh-uninstall of an uninstallation that was begun is there",
        ),
        _ => Outcome::skip("dns does not say whether the mesh is bypassed"),
    }
}

/// The namespaces that the mesh is to watch exist.
pub async fn namespaces(context: &Context) -> Outcome {
    let watched = context.flags("--watch-namespace").await;
    if watched.is_empty() {
        return Outcome::pass("the mesh watches all namespaces");
    }
    match &*context.get("/api/v1/namespaces", "list namespaces").await {
        Ok(all) => judge_namespaces(&watched, &items(all).iter().map(name).collect()),
        Err(error) => Outcome::unread(error),
    }
}

fn judge_namespaces(watched: &[String], there: &BTreeSet<&str>) -> Outcome {
    let missing: Vec<_> = watched.iter().map(String::as_str).filter(|name| !there.contains(name)).collect();
    if missing.is_empty() {
        return Outcome::pass(format!(
            "all namespaces to watch exist: {}",
            some_of(watched.iter().map(String::as_str))
        ));
    }
    Outcome::warn(
        format!("namespaces to watch that do not exist: {}; nothing is meshed for them", some_of(missing)),
        "correct the names in the value namespaces.watch, or create the namespaces",
    )
}

/// Every dns and proxy has the newest configuration, and put all of it in force.
pub async fn in_force(context: &Context) -> Outcome {
    let (statuses, subscribers) = (
        context.answers_of("controller", "/api/status").await,
        context.answers_of("controller", "/api/subscribers").await,
    );
    let pods = context.mesh_pods().await;
    match (statuses, subscribers, &*pods) {
        (Ok(statuses), Ok(subscribers), Ok(pods)) => {
            let of = |(pod, status)| Some((status, subscribers.iter().find(|(of, _)| *of == pod)?.1.clone()));
            let controllers: Vec<_> = statuses.into_iter().filter_map(of).collect();
            judge_config(&controllers, items(pods), context.namespace())
        }
        (Err(unread), ..) | (_, Err(unread), _) => unread,
        (.., Err(error)) => Outcome::unread(error),
    }
}

fn judge_config(controllers: &[(Value, Value)], pods: &[Value], namespace: &str) -> Outcome {
    if controllers.is_empty() {
        return Outcome::fail(
            "no controller could be asked, so nobody knows whether changes arrive",
            format!("see kubectl -n {namespace} logs -l app.kubernetes.io/component=controller"),
        );
    }
    // Sets: every replica tells of the same subscribers.
    let (mut connected, mut behind, mut rejecting) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (status, subscribers) in controllers {
        let revision = status["revision"].as_u64().unwrap_or(0);
        let settled = status["secondsSinceChange"].as_f64().is_some_and(|age| age > ON_ITS_WAY);
        for one in subscribers["subscribers"].as_array().into_iter().flatten() {
            let id = text(one, "/id");
            connected.insert(id);
            if settled && one["acknowledged"].as_u64().unwrap_or(0) < revision {
                behind.insert(id);
            }
            let some = |list: &str| match &one[list] {
                Value::Array(list) => !list.is_empty(),
                Value::Object(list) => !list.is_empty(),
                _ => false,
            };
            if some("rejected") || some("failed") {
                rejecting.insert(id);
            }
        }
    }
    let wanted = pods.iter().filter(|pod| matches!(role(pod), "dns" | "proxy") && is_alive(pod)).map(name);
    let missing: Vec<_> = wanted.filter(|pod| !connected.contains(pod)).collect();
    let logs = |pod: &str| format!("see kubectl -n {namespace} logs {pod}: why it has no stream, or does not answer");
    if let Some(first) = missing.first() {
        let fix = logs(first);
        return Outcome::fail(format!("not connected to any controller: {}", some_of(missing)), fix);
    }
    if let Some(first) = behind.first() {
        let fix = logs(first);
        return Outcome::fail(format!("behind the controller for more than {ON_ITS_WAY} s: {}", some_of(behind)), fix);
    }
    if !rejecting.is_empty() {
        return Outcome::warn(
            format!("could not put everything in force: {}", some_of(rejecting)),
            "see what and why in /api/subscribers of the controller; `maesh explain NAME` says which names suffer",
        );
    }
    let subscribers = match connected.len() {
        1 => "1 subscriber has".to_owned(),
        count => format!("{count} subscribers have"),
    };
    Outcome::pass(format!("{subscribers} put the newest configuration in force"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::outcome::Verdict, *};

    #[test]
    fn namespaces_to_watch() {
        let watched = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (names, want, says) in
            [(&["shop"][..], Verdict::Pass, "exist: shop"), (&["shop", "shpo"], Verdict::Warn, "do not exist: shpo;")]
        {
            let outcome = judge_namespaces(&watched(names), &BTreeSet::from(["default", "shop"]));
            assert_eq!(outcome.verdict, want, "{names:?}");
            assert!(outcome.message.contains(says), "{names:?}: {outcome:?}");
        }
    }

    #[test]
    fn a_mesh_that_is_bypassed() {
        let said = |bypass: Value| json!({ "bypass": bypass });
        for (case, said, marker, verdict, message) in [
            ("not", said(json!(false)), None, Verdict::Pass, "lead to the mesh"),
            ("by the value", said(json!(true)), None, Verdict::Warn, "bypassed as a whole"),
            ("by an uninstallation", said(json!(true)), Some("maesh-uninstall"), Verdict::Warn, "was begun"),
            ("nobody knows", json!({}), None, Verdict::Skip, "does not say"),
        ] {
            let outcome = judge_bypass(&said, marker, "maesh");
            assert_eq!(outcome.verdict, verdict, "{case}");
            assert!(outcome.message.contains(message), "{case}: {outcome:?}");
        }
    }

    /// As Traefik Mesh 1.4 writes them.
    const OLD_BLOCKS: &str = include_str!("../../../tests/nodes/manifests/traefik-mesh.corefile");

    #[test]
    fn what_an_old_mesh_left() {
        let object = |labels: Value| json!({ "metadata": { "name": "x", "namespace": "y", "labels": labels } });
        let shadow = || vec![object(json!({ "app": "maesh", "type": "shadow" }))];
        let map = |text: &str| vec![json!({ "metadata": { "name": "coredns" }, "data": { "Corefile": text } })];
        let block = "#### Begin Maesh Block\nmaesh:53 {}\n#### End Maesh Block";
        let at_rest = OLD_BLOCKS.lines().map(|line| format!("# maesh keeps: {line}\n")).collect::<String>();
        for (case, services, deployments, maps, want) in [
            ("nothing", vec![], vec![], map(".:53 {}"), Verdict::Pass),
            ("shadows", shadow(), vec![], vec![], Verdict::Warn),
            ("blocks", vec![], vec![], map(block), Verdict::Warn),
            ("blocks of every version", vec![], vec![], map(OLD_BLOCKS), Verdict::Warn),
            ("blocks at rest", vec![], vec![], map(&at_rest), Verdict::Pass),
            ("it runs", shadow(), vec![object(json!({ "app": "traefik-mesh" }))], vec![], Verdict::Fail),
        ] {
            assert_eq!(judge_traefik_mesh(&services, &deployments, &maps).verdict, want, "{case}");
        }
    }

    #[test]
    fn who_has_the_newest() {
        let pods = |names: &[&str]| -> Vec<Value> {
            let pod = |name: &&str| {
                let role = name.split('-').next();
                json!({ "metadata": { "name": name, "labels": { "app.kubernetes.io/component": role } } })
            };
            names.iter().map(pod).collect()
        };
        let controller = |age: f64, subscribers: Value| {
            (json!({ "revision": 9, "secondsSinceChange": age }), json!({ "subscribers": subscribers }))
        };
        let one = |id: &str, acknowledged: u64, rejected: Value| json!({ "id": id, "acknowledged": acknowledged, "rejected": rejected, "failed": {} });
        let good = |id: &str| one(id, 9, json!([]));
        for (case, controllers, names, want) in [
            ("nobody to ask", vec![], &["dns-1"][..], Verdict::Fail),
            (
                "all",
                vec![controller(60.0, json!([good("dns-1"), good("proxy-1")]))],
                &["dns-1", "proxy-1"],
                Verdict::Pass,
            ),
            (
                "shared by two",
                vec![controller(60.0, json!([good("dns-1")])), controller(60.0, json!([good("proxy-1")]))],
                &["dns-1", "proxy-1"],
                Verdict::Pass,
            ),
            ("one is missing", vec![controller(60.0, json!([good("dns-1")]))], &["dns-1", "proxy-1"], Verdict::Fail),
            ("on its way", vec![controller(1.0, json!([one("dns-1", 8, json!([]))]))], &["dns-1"], Verdict::Pass),
            ("behind", vec![controller(60.0, json!([one("dns-1", 8, json!([]))]))], &["dns-1"], Verdict::Fail),
            ("rejects", vec![controller(60.0, json!([one("dns-1", 9, json!([{}]))]))], &["dns-1"], Verdict::Warn),
        ] {
            assert_eq!(judge_config(&controllers, &pods(names), "mesh").verdict, want, "{case}");
        }
    }
}
