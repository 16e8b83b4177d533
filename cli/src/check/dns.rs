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
    query::{DnsTransport, ask},
};

/// Where CoreDNS tells its metrics.
const METRICS: u16 = 9153;
/// Longest time that a negative answer may be kept, in seconds: so long a new Service stays unknown.
const NEGATIVE: u32 = 30;
/// Nobody answers the zone yet.
pub async fn zone_is_free(context: &Context) -> Outcome {
    let there = context.cluster_dns().await;
    let server = match &*there {
        Ok(there) => there.place.service,
        Err(error) => return Outcome::no_cluster_dns(error),
    };
    let zone = zone(context).await;
    match ask(server, DnsTransport::Udp, &zone, RecordType::SOA).await {
        Ok(answer) => judge_zone(&answer, &zone),
        Err(error) => unreachable(&format!("the cluster's DNS at {server}"), &error),
    }
}

fn judge_zone(answer: &Message, zone: &str) -> Outcome {
    if answer.answers.is_empty() {
        return Outcome::pass(format!("nobody answers the zone {zone} yet"));
    }
    Outcome::fail(
        format!("the cluster's DNS already answers the zone {zone}"),
        "take out the stanza of an earlier mesh, or choose other zones (value zones) if it is a zone of yours",
    )
}

/// Every CoreDNS has loaded the same Corefile.
pub async fn coredns_loaded(context: &Context) -> Outcome {
    let there = context.cluster_dns().await;
    let servers = match &*there {
        Ok(there) => &there.place.servers,
        Err(error) => return Outcome::no_cluster_dns(error),
    };
    let (mut seen, mut why) = (Vec::new(), "no pod of the cluster's DNS has an address".to_owned());
    for (pod, _) in servers {
        match context.cluster.of_pod("kube-system", pod, METRICS, "/metrics").await {
            Ok(metrics) => seen.push((pod.clone(), loaded(&metrics))),
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
    let there = context.cluster_dns().await;
    let servers = match &*there {
        Ok(there) => &there.place.servers,
        Err(error) => return Outcome::no_cluster_dns(error),
    };
    let probe = format!("ns.dns.{}", zone(context).await);
    let mut wrong = Vec::new();
    for (pod, server) in servers {
        match ask(*server, DnsTransport::Udp, &probe, RecordType::A).await {
            Ok(answer) if answer.metadata.response_code == ResponseCode::NoError => {}
            Ok(answer) => wrong.push(format!("{pod} ({})", answer.metadata.response_code)),
            Err(error) => return unreachable(&format!("CoreDNS pod {pod} at {server}"), &error),
        }
    }
    if !wrong.is_empty() {
        return Outcome::fail(
            format!("{probe} is not answered by {}", some_of(wrong.iter().map(String::as_str))),
            "see the check `stanza`; once it is there, CoreDNS takes up to two minutes (--wait 2m)",
        );
    }
    match servers.len() {
        0 => Outcome::skip("no pod of the cluster's DNS has an address"),
        1 => Outcome::pass(format!("1 pod of the cluster's DNS answers {probe}")),
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
        for over in [DnsTransport::Udp, DnsTransport::Tcp] {
            let who = || format!("the mesh's DNS at {server} over {}", over.as_str());
            match ask(server, over, &zone, RecordType::SOA).await {
                Ok(answer) if answer.metadata.response_code == ResponseCode::NoError => {}
                Ok(answer) => {
                    return Outcome::fail(
                        format!("{} answers {}", who(), answer.metadata.response_code),
                        format!(
                            "see kubectl -n {} logs -l app.kubernetes.io/component=dns; SERVFAIL means that it is not \
                             synced yet",
                            context.namespace()
                        ),
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
    match ask(server, DnsTransport::Udp, &probe, RecordType::A).await {
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
pub async fn mesh_service(context: &Context) -> Result<Vec<IpAddr>, Outcome> {
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

/// The mesh's own zone.
async fn zone(context: &Context) -> String {
    context.zones().await.first().map_or_else(|| "maesh".to_owned(), ToString::to_string)
}

/// Nothing came back. From outside of the cluster's network that says nothing.
pub(super) fn unreachable(who: &str, error: &anyhow::Error) -> Outcome {
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
