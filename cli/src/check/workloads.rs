//! The mesh's pods: that they may run, that they do, and that every node has its proxy.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    context::{Context, counted, is_alive, is_ready, items, name, role, some_of, text},
    outcome::Outcome,
    placement::runs_on,
};

/// Who mends pods that do not run.
const DESCRIBE: &str = "see why";

/// A pod like ours would be let in.
pub async fn pod_security(context: &Context) -> Outcome {
    match try_pod(context, None).await {
        PodAdmission::In => Outcome::pass("pods like the mesh's are let in (Pod Security, quotas, admission policies)"),
        PodAdmission::Refused(why) => Outcome::fail(
            format!("pods of the mesh would be refused: {why}"),
            format!(
                "relax what refuses them for namespace {}; they meet Pod Security's profile restricted",
                context.namespace()
            ),
        ),
        PodAdmission::Unknown(why) => Outcome::skip(why),
    }
}

/// Pods may have the priorities that ours have.
pub async fn priority(context: &Context) -> Outcome {
    for class in ["system-node-critical", "system-cluster-critical"] {
        match try_pod(context, Some(class)).await {
            PodAdmission::In => {}
            PodAdmission::Refused(why) => {
                return Outcome::fail(
                    format!("pods with priority class {class} are refused: {why}"),
                    format!(
                        "allow it by a ResourceQuota in namespace {} whose scopeSelector names PriorityClass {class}, \
                         or install with proxy.priorityClassName and the like set to another",
                        context.namespace()
                    ),
                );
            }
            PodAdmission::Unknown(why) => return Outcome::skip(why),
        }
    }
    Outcome::pass("priority classes system-node-critical and system-cluster-critical may be used")
}

enum PodAdmission {
    In,
    Refused(String),
    Unknown(String),
}

/// Has the API server decide on a pod of the shape of a proxy's, which is not kept.
async fn try_pod(context: &Context, priority: Option<&str>) -> PodAdmission {
    let namespace = context.namespace();
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "maesh-check", "namespace": namespace },
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                "seccompProfile": { "type": "RuntimeDefault" },
                "sysctls": [
                    { "name": "net.ipv4.ip_unprivileged_port_start", "value": "0" },
                    { "name": "net.ipv4.ip_local_port_range", "value": "51000 65535" },
                ],
            },
            "containers": [{
                "name": "proxy",
                "image": "maesh",
                "resources": {
                    "requests": { "cpu": "50m", "memory": "64Mi" },
                    "limits": { "cpu": "1", "memory": "256Mi" },
                },
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
            }],
        },
    });
    if let Some(priority) = priority {
        pod["spec"]["priorityClassName"] = priority.into();
    }
    let url = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    match context.cluster.try_out(&url, &pod, "create pods").await {
        Ok(_) => PodAdmission::In,
        Err(error) => judge_refusal(error.code(), &error.to_string(), namespace),
    }
}

fn judge_refusal(code: u16, why: &str, namespace: &str) -> PodAdmission {
    match code {
        404 => {
            PodAdmission::Unknown(format!("namespace {namespace} does not exist yet, so nothing in it refuses pods"))
        }
        // Its name is taken, which is found out last.
        409 => PodAdmission::In,
        403 if why.contains("cannot create resource") => {
            PodAdmission::Unknown(format!("you may not create pods in namespace {namespace}, not even for a trial"))
        }
        400 if why.contains("does not support dry run") => {
            PodAdmission::Unknown(format!("an admission webhook cannot be asked without consequences: {why}"))
        }
        _ => PodAdmission::Refused(why.to_owned()),
    }
}

/// Every role has pods, and they are ready.
pub async fn roles(context: &Context) -> Outcome {
    match &*context.mesh_pods().await {
        Ok(pods) => judge_roles(items(pods), context.namespace()),
        Err(error) => Outcome::unread(error),
    }
}

fn judge_roles(pods: &[Value], namespace: &str) -> Outcome {
    let mut found = Vec::new();
    for wanted in ["controller", "dns", "proxy"] {
        let of_role: Vec<_> = pods.iter().filter(|pod| role(pod) == wanted && is_alive(pod)).collect();
        let unready: Vec<_> = of_role.iter().filter(|pod| !is_ready(pod)).map(|pod| name(pod)).collect();
        let fix = |what: &str| format!("{DESCRIBE}: kubectl -n {namespace} describe {what}");
        if of_role.is_empty() {
            return Outcome::fail(
                format!("no {wanted} runs in namespace {namespace}"),
                "install the mesh, or name its namespace with --namespace",
            );
        }
        if unready.len() == of_role.len() {
            let select = format!("pods -l app.kubernetes.io/component={wanted}");
            return Outcome::fail(format!("no {wanted} is ready ({})", some_of(unready)), fix(&select));
        }
        if let Some(first) = unready.first() {
            found.push((some_of(unready.iter().copied()), fix(&format!("pod {first}"))));
        }
    }
    match found.into_iter().next() {
        Some((names, fix)) => Outcome::warn(format!("not ready: {names}"), fix),
        None => Outcome::pass(format!("controller, dns and proxy run; all {} are ready", counted(pods.len(), "pod"))),
    }
}

/// Every node on which pods can run has a ready proxy.
pub async fn proxy_nodes(context: &Context) -> Outcome {
    let namespace = context.namespace();
    let url =
        format!("/apis/apps/v1/namespaces/{namespace}/daemonsets?labelSelector=app.kubernetes.io%2Fcomponent%3Dproxy");
    let daemons = context.get(&url, "list daemonsets").await;
    let (nodes, pods) = (context.get("/api/v1/nodes", "list nodes").await, context.mesh_pods().await);
    match (&*daemons, &*nodes, &*pods) {
        (Ok(daemons), Ok(nodes), Ok(pods)) => match items(daemons).first() {
            Some(daemon) => judge_nodes(daemon, items(nodes), items(pods), namespace),
            None => Outcome::fail(
                format!("namespace {namespace} has no DaemonSet of proxies"),
                "install the mesh, or name its namespace with --namespace",
            ),
        },
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => Outcome::unread(error),
    }
}

fn judge_nodes(daemon: &Value, nodes: &[Value], pods: &[Value], namespace: &str) -> Outcome {
    let spec = &daemon["spec"]["template"]["spec"];
    let wanted: BTreeSet<&str> = nodes.iter().filter(|node| is_up(node) && runs_on(spec, node)).map(name).collect();
    let ready = pods.iter().filter(|pod| role(pod) == "proxy" && is_ready(pod));
    let have: BTreeSet<&str> = ready.map(|pod| text(pod, "/spec/nodeName")).collect();
    let missing: Vec<&str> = wanted.difference(&have).copied().collect();
    let fix = format!("see what keeps them: kubectl -n {namespace} describe daemonset {}", name(daemon));
    if missing.is_empty() {
        return Outcome::pass(match wanted.len() {
            1 => "a proxy is ready on the only node".to_owned(),
            count => format!("a proxy is ready on all {count} nodes"),
        });
    }
    if missing.len() == wanted.len() {
        return Outcome::fail("no node has a ready proxy, so names answer ClusterIPs or endpoint addresses", fix);
    }
    let nodes = match missing.len() {
        1 => "1 node has no ready proxy, and uses those of others".to_owned(),
        count => format!("{count} nodes have no ready proxy, and use those of others"),
    };
    Outcome::warn(format!("{nodes}: {}", some_of(missing)), fix)
}

/// The node is not known to be down.
fn is_up(node: &Value) -> bool {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    let down = |condition: &Value| condition["type"] == "Ready" && condition["status"] != "True";
    !conditions.is_some_and(|conditions| conditions.iter().any(down))
}

#[cfg(test)]
mod tests {
    use super::{super::outcome::Verdict, *};

    fn pod(role: &str, node: &str, ready: bool) -> Value {
        let status = if ready { "True" } else { "False" };
        json!({
            "metadata": { "name": format!("{role}-{node}"), "labels": { "app.kubernetes.io/component": role } },
            "spec": { "nodeName": node },
            "status": { "conditions": [{ "type": "Ready", "status": status }] },
        })
    }

    #[test]
    fn roles_that_run() {
        let all = |dns: &[bool], proxy: &[bool]| {
            let of = |role: &'static str, ready: &[bool]| {
                ready.iter().enumerate().map(|(n, ready)| pod(role, &n.to_string(), *ready)).collect::<Vec<_>>()
            };
            [of("controller", &[true]), of("dns", dns), of("proxy", proxy)].concat()
        };
        for (dns, proxy, want) in [
            (&[true, true][..], &[true, true][..], Verdict::Pass),
            (&[true, false], &[true], Verdict::Warn),
            (&[false], &[true], Verdict::Fail),
            (&[], &[true], Verdict::Fail),
        ] {
            assert_eq!(judge_roles(&all(dns, proxy), "maesh").verdict, want, "{dns:?} {proxy:?}");
        }
    }

    #[test]
    fn nodes_with_and_without_a_proxy() {
        let node = |name: &str, taint: Value| json!({ "metadata": { "name": name }, "spec": { "taints": taint } });
        let open = |name: &str| node(name, json!([]));
        let gpu = || json!([{ "key": "gpu", "value": "yes", "effect": "NoSchedule" }]);
        let cordoned = || json!([{ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" }]);
        let daemon = |tolerations: Value| json!({ "spec": { "template": { "spec": { "tolerations": tolerations } } } });
        let everything = || json!([{ "operator": "Exists" }]);
        let down = |name: &str| {
            let mut node = open(name);
            node["status"] = json!({ "conditions": [{ "type": "Ready", "status": "Unknown" }] });
            node
        };
        for (case, tolerations, nodes, on, want) in [
            ("all", json!([]), vec![open("n1"), open("n2")], &["n1", "n2"][..], Verdict::Pass),
            ("one missing", json!([]), vec![open("n1"), open("n2")], &["n1"], Verdict::Warn),
            ("none", json!([]), vec![open("n1")], &[], Verdict::Fail),
            ("kept out by a taint", json!([]), vec![open("n1"), node("n2", gpu())], &["n1"], Verdict::Pass),
            ("tolerated", everything(), vec![open("n1"), node("n2", gpu())], &["n1"], Verdict::Warn),
            ("cordoned", json!([]), vec![open("n1"), node("n2", cordoned())], &["n1"], Verdict::Warn),
            ("down", json!([]), vec![open("n1"), down("n2")], &["n1"], Verdict::Pass),
        ] {
            let pods: Vec<_> = on.iter().map(|node| pod("proxy", node, true)).collect();
            assert_eq!(judge_nodes(&daemon(tolerations), &nodes, &pods, "maesh").verdict, want, "{case}");
        }
    }
}
