//! Names, from the mesh's own responder to the cluster's DNS that passes questions on.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, RecordType},
};
use serde_json::Value;

use super::{
    context::{Context, items, name, some_of, text},
    outcome::Outcome,
    query::{Over, ask},
};

/// Zone of the mesh, where no controller says another.
const ZONE: &str = "maesh";
/// Longest time that a negative answer may be kept, in seconds: so long a new Service stays unknown.
const NEGATIVE: u32 = 30;
/// The cluster's DNS.
const CLUSTER_DNS: &str = "/api/v1/namespaces/kube-system/services/kube-dns";
/// Pods of the cluster's DNS.
const CLUSTER_DNS_PODS: &str = "/api/v1/namespaces/kube-system/pods?labelSelector=k8s-app%3Dkube-dns";
/// NodeLocal DNSCache.
const NODE_LOCAL: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets?labelSelector=k8s-app%3Dnode-local-dns";

/// Nobody answers the zone yet.
pub async fn zone_is_free(context: &Context) -> Outcome {
    let service = context.get(CLUSTER_DNS, "get services in kube-system").await;
    let service = match &*service {
        Ok(service) => service,
        Err(error) => return Outcome::unread(error),
    };
    let Some(server) = addresses(service).first().map(|ip| SocketAddr::new(*ip, 53)) else {
        return Outcome::skip("Service kube-system/kube-dns has no address");
    };
    match ask(server, Over::Udp, ZONE, RecordType::SOA).await {
        Ok(answer) => judge_zone(&answer),
        Err(error) => unreachable(&format!("the cluster's DNS at {server}"), &error),
    }
}

fn judge_zone(answer: &Message) -> Outcome {
    if answer.answers.is_empty() {
        return Outcome::pass(format!("nobody answers the zone {ZONE} yet"));
    }
    Outcome::fail(
        format!("the cluster's DNS already answers the zone {ZONE}"),
        "take out the stanza of an earlier mesh, or choose other zones (value zones) if it is a zone of yours",
    )
}

/// NodeLocal DNSCache is noticed.
pub async fn node_local(context: &Context) -> Outcome {
    match &*context.get(NODE_LOCAL, "list daemonsets in kube-system").await {
        Ok(list) if items(list).is_empty() => Outcome::pass("NodeLocal DNSCache does not run"),
        Ok(_) => Outcome::warn(
            "NodeLocal DNSCache runs: pods ask it, and it passes only the cluster's own zones to CoreDNS",
            "after the installation, name the mesh's zones in stubDomains of ConfigMap kube-system/kube-dns \
             (coredns-snippet/kube-dns.yaml)",
        ),
        Err(error) => Outcome::unread(error),
    }
}

/// NodeLocal DNSCache passes the mesh's zone to the mesh.
pub async fn node_local_stub(context: &Context) -> Outcome {
    match &*context.get(NODE_LOCAL, "list daemonsets in kube-system").await {
        Ok(list) if items(list).is_empty() => return Outcome::pass("NodeLocal DNSCache does not run"),
        Ok(_) => {}
        Err(error) => return Outcome::unread(error),
    }
    let service = mesh_service(context).await;
    let service = match &service {
        Ok(addresses) => addresses,
        Err(outcome) => return outcome.clone(),
    };
    let map = context.get("/api/v1/namespaces/kube-system/configmaps/kube-dns", "get configmaps in kube-system").await;
    let stubs = match &*map {
        Ok(map) => text(map, "/data/stubDomains").to_owned(),
        Err(error) if error.code() == 404 => String::new(),
        Err(error) => return Outcome::unread(error),
    };
    judge_stub(&stubs, &zone(context).await, service)
}

fn judge_stub(stubs: &str, zone: &str, service: &[IpAddr]) -> Outcome {
    let parsed: Value = serde_json::from_str(stubs).unwrap_or(Value::Null);
    let listed = parsed[zone].as_array().into_iter().flatten().filter_map(|ip| ip.as_str()?.parse::<IpAddr>().ok());
    let listed: Vec<IpAddr> = listed.collect();
    let wanted = some_of(service.iter().map(ToString::to_string).collect::<Vec<_>>().iter().map(String::as_str));
    let fix = format!(
        "set stubDomains in ConfigMap kube-system/kube-dns so that it has {{\"{zone}\": [\"{wanted}\"]}}; \
         coredns-snippet/kube-dns.yaml shows how"
    );
    match listed.as_slice() {
        [] => Outcome::fail(format!("NodeLocal DNSCache runs, and its stubDomains do not name the zone {zone}"), fix),
        some if some.iter().all(|ip| service.contains(ip)) => {
            Outcome::pass(format!("NodeLocal DNSCache passes the zone {zone} to the mesh"))
        }
        other => {
            let other = other.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            Outcome::fail(format!("stubDomains pass the zone {zone} to {other}, and the mesh is at {wanted}"), fix)
        }
    }
}

/// Every CoreDNS has loaded the same Corefile.
pub async fn coredns_loaded(context: &Context) -> Outcome {
    let pods = context.get(CLUSTER_DNS_PODS, "list pods in kube-system").await;
    let pods = match &*pods {
        Ok(pods) => items(pods),
        Err(error) => return Outcome::unread(error),
    };
    let mut seen = Vec::new();
    let mut why = "no pod of the cluster's DNS (label k8s-app=kube-dns) was found".to_owned();
    for pod in pods {
        match context.cluster.of_pod("kube-system", name(pod), port(pod, "metrics", 9153), "/metrics").await {
            Ok(metrics) => seen.push((name(pod).to_owned(), loaded(&metrics))),
            Err(error) => why = error.to_string(),
        }
    }
    if seen.is_empty() { Outcome::skip(why) } else { judge_loaded(&seen) }
}

/// What the metrics of a CoreDNS say of its Corefile.
#[derive(Clone, Debug, Default, PartialEq)]
struct Loaded {
    /// Which version is in force; `None` before its first reload, and without the plugin `reload`.
    version: Option<String>,
    /// How many reloads failed since its start.
    failed: f64,
}

fn loaded(metrics: &str) -> Loaded {
    let line = |name: &str| metrics.lines().find(|line| line.starts_with(name));
    let version =
        line("coredns_reload_version_info{").and_then(|line| line.split("value=\"").nth(1)?.split('"').next());
    let failed = line("coredns_reload_failed_total").and_then(|line| line.rsplit(' ').next()?.parse().ok());
    Loaded { version: version.map(str::to_owned), failed: failed.unwrap_or(0.0) }
}

fn judge_loaded(seen: &[(String, Loaded)]) -> Outcome {
    let logs =
        "see kubectl -n kube-system logs -l k8s-app=kube-dns; do not restart CoreDNS before its Corefile is right";
    let failing: Vec<_> = seen.iter().filter(|(_, loaded)| loaded.failed > 0.0).map(|(pod, _)| pod.as_str()).collect();
    // One that has not reloaded since its start says no version: it has what was there then.
    let versions: BTreeSet<_> = seen.iter().filter_map(|(_, loaded)| loaded.version.as_ref()).collect();
    match (versions.len(), failing.as_slice()) {
        (0 | 1, []) => Outcome::pass(format!(
            "no pod of CoreDNS is known to have another Corefile than the others ({})",
            seen.len()
        )),
        (0 | 1, failing) => Outcome::warn(
            format!(
                "a Corefile could not be loaded at some time since the start of {}",
                some_of(failing.iter().copied())
            ),
            logs,
        ),
        (_, []) => Outcome::warn(
            "the pods of CoreDNS have not loaded the same Corefile yet",
            "wait two minutes, and check again (--wait 2m)",
        ),
        (_, failing) => {
            Outcome::fail(format!("{} cannot load the Corefile of the others", some_of(failing.iter().copied())), logs)
        }
    }
}

/// Every CoreDNS passes the mesh's names on.
pub async fn coredns_query(context: &Context) -> Outcome {
    let pods = context.get(CLUSTER_DNS_PODS, "list pods in kube-system").await;
    let pods = match &*pods {
        Ok(pods) => items(pods),
        Err(error) => return Outcome::unread(error),
    };
    let probe = format!("ns.dns.{}", zone(context).await);
    let (mut asked, mut wrong) = (0, Vec::new());
    for pod in pods {
        let Ok(ip) = text(pod, "/status/podIP").parse::<IpAddr>() else { continue };
        let server = SocketAddr::new(ip, port(pod, "dns", 53));
        match ask(server, Over::Udp, &probe, RecordType::A).await {
            Ok(answer) if answer.metadata.response_code == ResponseCode::NoError => asked += 1,
            Ok(answer) => wrong.push(format!("{} ({})", name(pod), answer.metadata.response_code)),
            Err(error) => return unreachable(&format!("CoreDNS pod {} at {server}", name(pod)), &error),
        }
    }
    if !wrong.is_empty() {
        return Outcome::fail(
            format!("{probe} is not answered by {}", some_of(wrong.iter().map(String::as_str))),
            "add the stanza to the cluster's DNS (the notes of helm print it), and give CoreDNS two minutes",
        );
    }
    match asked {
        0 => Outcome::skip("no pod of the cluster's DNS (label k8s-app=kube-dns) has an address"),
        count => Outcome::pass(format!("{count} pods of the cluster's DNS answer {probe}")),
    }
}

/// The mesh's own responder answers, over UDP and TCP, in every family that its Service has.
pub async fn mesh_dns(context: &Context) -> Outcome {
    let servers = match mesh_service(context).await {
        Ok(servers) => servers,
        Err(outcome) => return outcome,
    };
    let zone = zone(context).await;
    for ip in &servers {
        let server = SocketAddr::new(*ip, 53);
        for over in [Over::Udp, Over::Tcp] {
            let who = || format!("the mesh's DNS at {server} over {}", over.as_str());
            match ask(server, over, &zone, RecordType::SOA).await {
                Ok(answer) if answer.metadata.response_code == ResponseCode::NoError => {}
                Ok(answer) => {
                    return Outcome::fail(
                        format!("{} answers {}", who(), answer.metadata.response_code),
                        "see kubectl logs -l app.kubernetes.io/component=dns; SERVFAIL means that it is not synced yet",
                    );
                }
                Err(error) => return unreachable(&who(), &error),
            }
        }
    }
    let all = some_of(servers.iter().map(ToString::to_string).collect::<Vec<_>>().iter().map(String::as_str));
    Outcome::pass(format!("the mesh's DNS answers at {all} over UDP and TCP"))
}

/// That there is no such name is kept for a short time only.
pub async fn negative(context: &Context) -> Outcome {
    let servers = match mesh_service(context).await {
        Ok(servers) => servers,
        Err(outcome) => return outcome,
    };
    let Some(server) = servers.first().map(|ip| SocketAddr::new(*ip, 53)) else {
        return Outcome::skip("the mesh's DNS has no address");
    };
    let probe = format!("no-such-service.no-such-namespace.{}", zone(context).await);
    match ask(server, Over::Udp, &probe, RecordType::A).await {
        Ok(answer) => judge_negative(&answer),
        Err(error) => unreachable(&format!("the mesh's DNS at {server}"), &error),
    }
}

fn judge_negative(answer: &Message) -> Outcome {
    let fix = "use images of one version for all roles, and report it if they are";
    let code = answer.metadata.response_code;
    if code != ResponseCode::NXDomain {
        return Outcome::fail(format!("a name that does not exist is answered {code}"), fix);
    }
    let soa = answer.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    });
    match soa {
        None => Outcome::warn("that a name does not exist is answered without SOA, so caches decide how long", fix),
        Some(ttl) if ttl > NEGATIVE => Outcome::warn(format!("that a name does not exist is kept for {ttl} s"), fix),
        Some(ttl) => Outcome::pass(format!("that a name does not exist is kept for {ttl} s")),
    }
}

/// Nobody else applies the Corefile as a whole.
pub async fn corefile_owner(context: &Context) -> Outcome {
    match &*context.get("/api/v1/namespaces/kube-system/configmaps", "list configmaps in kube-system").await {
        Ok(maps) => judge_owner(items(maps)),
        Err(error) => Outcome::unread(error),
    }
}

fn judge_owner(maps: &[Value]) -> Outcome {
    let with_corefile: Vec<_> = maps.iter().filter(|map| map["data"]["Corefile"].is_string()).collect();
    for map in &with_corefile {
        let fields = map["metadata"]["managedFields"].as_array().into_iter().flatten();
        let applies =
            |entry: &&Value| entry["operation"] == "Apply" && entry.pointer("/fieldsV1/f:data/f:Corefile").is_some();
        if let Some(entry) = fields.into_iter().find(applies) {
            return Outcome::warn(
                format!("{} applies ConfigMap kube-system/{} as a whole", text(entry, "/manager"), name(map)),
                "put the stanza where that manager reads it (its values, or a *-custom ConfigMap that the Corefile \
                 imports): its next apply conflicts with, or takes away, what others wrote",
            );
        }
    }
    match with_corefile.as_slice() {
        [] => Outcome::skip("no ConfigMap of kube-system has a Corefile"),
        _ => Outcome::pass("nobody applies the Corefile as a whole"),
    }
}

/// Addresses of the mesh's DNS Service.
async fn mesh_service(context: &Context) -> Result<Vec<IpAddr>, Outcome> {
    let namespace = context.namespace();
    let url = format!("/api/v1/namespaces/{namespace}/services?labelSelector=app.kubernetes.io%2Fcomponent%3Ddns");
    let services = context.get(&url, "list services").await;
    let found = match &*services {
        Ok(services) => items(services).first().map(addresses).unwrap_or_default(),
        Err(error) => return Err(Outcome::unread(error)),
    };
    if found.is_empty() {
        return Err(Outcome::fail(
            format!("namespace {namespace} has no Service of the mesh's DNS with an address"),
            "install the mesh, or name its namespace with --namespace",
        ));
    }
    Ok(found)
}

/// The ClusterIPs of a Service.
fn addresses(service: &Value) -> Vec<IpAddr> {
    let all = service["spec"]["clusterIPs"].as_array().into_iter().flatten();
    all.filter_map(|ip| ip.as_str()?.parse().ok()).collect()
}

/// The mesh's own zone, by what its pods are started with.
async fn zone(context: &Context) -> String {
    let pods = context.mesh_pods().await;
    let said = pods.as_ref().as_ref().ok().and_then(|pods| {
        let containers = items(pods).iter().flat_map(|pod| pod["spec"]["containers"].as_array().into_iter().flatten());
        let mut arguments = containers.flat_map(|container| container["args"].as_array().into_iter().flatten());
        arguments.find_map(|argument| argument.as_str()?.strip_prefix("--zone=")).map(str::to_owned)
    });
    said.unwrap_or_else(|| ZONE.to_owned())
}

/// A port of a pod by name.
fn port(pod: &Value, name: &str, otherwise: u16) -> u16 {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let found = ports.find(|port| port["name"] == name).and_then(|port| port["containerPort"].as_u64());
    found.and_then(|port| u16::try_from(port).ok()).unwrap_or(otherwise)
}

/// Nothing came back. From outside of the cluster's network that says nothing.
fn unreachable(who: &str, error: &anyhow::Error) -> Outcome {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() {
        return Outcome::skip(format!("{who} cannot be asked from here ({error:#}); make this check in a pod"));
    }
    Outcome::fail(
        format!("{who} does not answer: {error:#}"),
        "see that its pods are ready, and that no NetworkPolicy keeps port 53 from them",
    )
}

#[cfg(test)]
mod tests;
