//! What is rolled out: that it is complete, that pods do not fail again and again, that they are of one version, and that
//! one of them may go.

use std::collections::{BTreeMap, BTreeSet};

use maesh_compiler::own_address::POOL;
use serde_json::Value;

use super::{
    context::{Context, is_alive, items, name, role, some_of, text},
    outcome::Outcome,
};
use crate::version::VERSION;

/// Restarts of a container from which on somebody should look at it.
const MANY_RESTARTS: u64 = 5;
/// The roles that run in Deployments.
const REPLICATED: [&str; 2] = ["controller", "dns"];

/// The Deployments and the DaemonSet are rolled out, and no container fails again and again.
pub async fn rollouts(context: &Context) -> Outcome {
    let (deployments, daemons) = (context.of_mesh("deployments").await, context.of_mesh("daemonsets").await);
    match (&*deployments, &*daemons, &*context.mesh_pods().await) {
        (Ok(deployments), Ok(daemons), Ok(pods)) => {
            let workloads: Vec<_> = items(deployments).iter().chain(items(daemons)).collect();
            judge_rollouts(&workloads, items(pods), context.namespace())
        }
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => Outcome::unread(error),
    }
}

fn judge_rollouts(workloads: &[&Value], pods: &[Value], namespace: &str) -> Outcome {
    let failing: Vec<_> = pods.iter().filter_map(|pod| Some((name(pod), cannot_start(pod)?))).collect();
    if let Some((first, _)) = failing.first() {
        let fix = format!(
            "see why: kubectl -n {namespace} describe pod {first}; kubectl -n {namespace} logs {first} --all-containers --previous"
        );
        let all: Vec<_> = failing.iter().map(|(pod, why)| format!("{pod} ({why})")).collect();
        return Outcome::fail(format!("pods cannot run: {}", some_of(all.iter().map(String::as_str))), fix);
    }
    let on_the_way: Vec<_> = workloads.iter().filter(|workload| !is_complete(workload)).map(|it| name(it)).collect();
    if let Some(first) = on_the_way.first() {
        let fix = format!(
            "watch it: kubectl -n {namespace} get pods -w; kubectl -n {namespace} describe pods shows why {first} waits"
        );
        return Outcome::warn(format!("not rolled out yet: {}", some_of(on_the_way)), fix);
    }
    let restarted: Vec<_> = pods.iter().filter(|pod| restarts(pod) >= MANY_RESTARTS).map(name).collect();
    if let Some(first) = restarted.first() {
        let fix = format!(
            "see why: kubectl -n {namespace} logs {first} --all-containers --previous; OOMKilled needs a higher memory limit"
        );
        return Outcome::warn(
            format!("containers were restarted {MANY_RESTARTS} times or more: {}", some_of(restarted)),
            fix,
        );
    }
    match workloads {
        [] => Outcome::skip(format!("namespace {namespace} has no Deployment and no DaemonSet of the mesh")),
        all => Outcome::pass(format!("{} are rolled out, and no pod fails", some_of(all.iter().map(|it| name(it))))),
    }
}

/// The newest template runs everywhere.
fn is_complete(workload: &Value) -> bool {
    let number = |pointer: &str| workload.pointer(pointer).and_then(Value::as_u64);
    let of_status = |field: &str| number(&format!("/status/{field}")).unwrap_or(0);
    let seen = of_status("observedGeneration") >= number("/metadata/generation").unwrap_or(0);
    let new = match number("/status/desiredNumberScheduled") {
        Some(desired) => of_status("updatedNumberScheduled") >= desired,
        None => {
            let desired = number("/spec/replicas").unwrap_or(1);
            of_status("updatedReplicas") >= desired && of_status("replicas") <= desired
        }
    };
    seen && new
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let of = |list: &str| pod["status"][list].as_array().into_iter().flatten();
    of("initContainerStatuses").chain(of("containerStatuses"))
}

/// Why a container of the pod does not start, where it tried.
fn cannot_start(pod: &Value) -> Option<&str> {
    let reasons = containers(pod).map(|container| text(container, "/state/waiting/reason"));
    reasons.into_iter().find(|reason| !matches!(*reason, "" | "ContainerCreating" | "PodInitializing"))
}

fn restarts(pod: &Value) -> u64 {
    containers(pod).filter_map(|container| container["restartCount"].as_u64()).max().unwrap_or(0)
}

/// Pods that name the same image run the same image.
pub async fn images(context: &Context) -> Outcome {
    match &*context.mesh_pods().await {
        Ok(pods) => judge_images(items(pods)),
        Err(error) => Outcome::unread(error),
    }
}

fn judge_images(pods: &[Value]) -> Outcome {
    let mut by_image: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| is_alive(pod)) {
        for container in containers(pod).filter(|container| !text(container, "/imageID").is_empty()) {
            by_image.entry(text(container, "/image")).or_default().insert(text(container, "/imageID"));
        }
    }
    if let Some((image, ids)) = by_image.iter().find(|(_, ids)| ids.len() > 1) {
        return Outcome::warn(
            format!("{image} is {} different images on different nodes", ids.len()),
            "it was pushed again under the same tag: name the image by its digest (value image.digest), or give each build a tag",
        );
    }
    match by_image.len() {
        0 => Outcome::skip("no pod says which image it runs"),
        1 => Outcome::pass("all pods run the same image"),
        count => Outcome::warn(
            format!("pods run {count} different images: {}", some_of(by_image.into_keys())),
            "wait for the upgrade to be rolled out; the checks `rollouts` and `versions` say more",
        ),
    }
}

/// All roles and this program are of one version.
pub async fn versions(context: &Context) -> Outcome {
    let controllers = context.answers_of("controller", "/api/status").await;
    let subscribers = context.answers_of("controller", "/api/subscribers").await;
    match (controllers, subscribers) {
        (Ok(controllers), Ok(subscribers)) => {
            let mut seen: BTreeSet<(String, String)> =
                controllers.iter().map(|(pod, said)| (text(said, "/version").to_owned(), pod.clone())).collect();
            for one in subscribers.iter().flat_map(|(_, said)| said["subscribers"].as_array().into_iter().flatten()) {
                seen.insert((text(one, "/version").to_owned(), text(one, "/id").to_owned()));
            }
            judge_versions(&seen, VERSION)
        }
        (Err(unread), _) | (_, Err(unread)) => unread,
    }
}

fn judge_versions(seen: &BTreeSet<(String, String)>, own: &str) -> Outcome {
    let mut by_version: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (version, pod) in seen.iter().filter(|(version, _)| !version.is_empty()) {
        by_version.entry(version).or_default().push(pod);
    }
    match by_version.len() {
        0 => Outcome::skip("no controller could be asked for its version"),
        1 if by_version.contains_key(own) => Outcome::pass(format!("all roles and this program are version {own}")),
        1 => {
            let mesh = by_version.into_keys().next().unwrap_or_default();
            Outcome::warn(
                format!("this program is version {own}, and the mesh is version {mesh}"),
                format!(
                    "use the program of version {mesh}: checks and `maesh explain` may read what others say wrongly"
                ),
            )
        }
        _ => {
            let one = |(version, pods): (&str, Vec<&str>)| format!("{version} ({})", some_of(pods));
            let all: Vec<_> = by_version.into_iter().map(one).collect();
            Outcome::warn(
                format!("the mesh has several versions: {}", all.join("; ")),
                "wait for the upgrade to be rolled out, or finish it with helm upgrade",
            )
        }
    }
}

/// A pod of each role may go without stopping anything.
pub async fn replicas(context: &Context) -> Outcome {
    let url = format!("/apis/policy/v1/namespaces/{}/poddisruptionbudgets", context.namespace());
    let budgets = context.get(&url, "list poddisruptionbudgets").await;
    let nodes = context.get("/api/v1/nodes", "list nodes").await;
    match (&*context.of_mesh("deployments").await, &*budgets, &*nodes) {
        (Ok(deployments), Ok(budgets), Ok(nodes)) => {
            judge_replicas(items(deployments), items(budgets), items(nodes).len())
        }
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => Outcome::unread(error),
    }
}

fn judge_replicas(deployments: &[Value], budgets: &[Value], nodes: usize) -> Outcome {
    let replicas = |it: &Value| it.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
    let of_roles: Vec<_> = deployments.iter().filter(|it| REPLICATED.contains(&role(it))).collect();
    if of_roles.is_empty() {
        return Outcome::skip("there is no Deployment of controller or dns");
    }
    if nodes < 2 {
        return Outcome::pass("the cluster has one node, so more replicas would not help");
    }
    let alone: Vec<_> = of_roles.iter().filter(|it| replicas(it) < 2).map(|it| role(it)).collect();
    if let Some(first) = alone.first() {
        return Outcome::warn(
            format!("one replica only of {}: while it restarts, nothing does its work", some_of(alone.iter().copied())),
            format!("set {first}.replicas to 2 or more"),
        );
    }
    let blocks = |budget: &&Value| {
        budget.pointer("/status/disruptionsAllowed").and_then(Value::as_u64) == Some(0)
            && budget.pointer("/status/expectedPods").and_then(Value::as_u64) > Some(0)
    };
    if let Some(budget) = budgets.iter().find(blocks) {
        return Outcome::warn(
            format!("PodDisruptionBudget {} allows no pod to go, so a drain of its node waits", name(budget)),
            "see that all its pods are ready; the check `roles` names those that are not",
        );
    }
    Outcome::pass("controller and dns have several replicas, and one of each may go")
}

/// There are ports of the proxies left for Services with own addresses.
pub async fn own_ports(context: &Context) -> Outcome {
    match context.answers_of("controller", "/api/services").await {
        Ok(told) => match told.first() {
            Some((_, said)) => judge_own_ports(said["services"].as_array().map_or(&[], Vec::as_slice), POOL.len()),
            None => Outcome::skip("no controller could be asked"),
        },
        Err(unread) => unread,
    }
}

fn judge_own_ports(services: &[Value], all: usize) -> Outcome {
    let own = services.iter().filter(|service| service["address"].is_string() && service["bypass"] != true);
    let used: usize = own.map(|service| service["ports"].as_array().map_or(0, Vec::len)).sum();
    let message = format!("Services with own addresses use {used} of {all} ports of the proxies");
    match all.saturating_sub(used) * 10 < all {
        true => Outcome::warn(
            message,
            "set traffic-type to http where it is HTTP, or bypass Services that need no mesh: those beyond resolve to ClusterIPs",
        ),
        false => Outcome::pass(message),
    }
}

#[cfg(test)]
mod tests;
