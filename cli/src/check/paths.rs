//! The way of a request: to the proxy of the caller's node, and that each proxy answers.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    context::{Context, is_ready, items, name, role, some_of, text},
    dns,
    outcome::Outcome,
};

/// Longest wait for the answer of a proxy.
const PATIENCE: Duration = Duration::from_secs(2);
/// A host that no Service has: the proxy itself answers, and no backend is asked.
const NOBODY: &str = "maesh-check.invalid";

/// A Service whose name leads to the proxy of the caller's node.
struct SharedService {
    name: String,
    port: u16,
}

/// An HTTP Service on the addresses that all such Services share.
fn shared_service(services: &Value) -> Option<SharedService> {
    let all = services["services"].as_array().into_iter().flatten();
    let shared = |service: &&Value| service["address"].is_null() && service["bypass"] != true;
    all.filter(shared).find_map(|service| {
        let port = service["ports"].as_array()?.iter().find(|port| port["protocol"] == "http")?["listen"].as_u64()?;
        Some(SharedService { name: text(service, "/name").to_owned(), port: u16::try_from(port).ok()? })
    })
}

async fn any_shared_service(context: &Context) -> Result<SharedService, Outcome> {
    let told = context.answers_of("controller", "/api/services").await?;
    let Some((_, services)) = told.first() else { return Err(Outcome::skip("no controller could be asked")) };
    shared_service(services).ok_or_else(|| Outcome::skip("no HTTP Service is meshed on the proxies' shared addresses"))
}

/// The ready proxies that say where they are, with their nodes.
fn ready_proxies(pods: &[Value]) -> Vec<(&str, &str, IpAddr)> {
    let ready = pods.iter().filter(|pod| role(pod) == "proxy" && is_ready(pod));
    let place = |pod| Some((name(pod), text(pod, "/spec/nodeName"), text(pod, "/status/podIP").parse().ok()?));
    ready.filter_map(place).collect()
}

/// Every proxy answers requests.
pub async fn proxy_request(context: &Context) -> Outcome {
    let service = match any_shared_service(context).await {
        Ok(service) => service,
        Err(outcome) => return outcome,
    };
    let pods = context.mesh_pods().await;
    let pods = match &*pods {
        Ok(pods) => ready_proxies(items(pods)),
        Err(error) => return Outcome::unread(error),
    };
    let mut wrong = Vec::new();
    for (pod, _, address) in &pods {
        let server = SocketAddr::new(*address, service.port);
        match request(server).await {
            Ok(answer) if is_of_proxy(&answer) => {}
            Ok(answer) => wrong.push(format!("{pod} ({})", answer.lines().next().unwrap_or("an empty answer"))),
            Err(error) => return dns::unreachable(&format!("proxy {pod} at {server}"), &error.into()),
        }
    }
    judge_requests(pods.len(), &wrong, context.namespace())
}

/// Sends a request that the proxy itself answers.
async fn request(server: SocketAddr) -> io::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        let head = format!("GET / HTTP/1.1\r\nhost: {NOBODY}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Whether a proxy said that it knows no such host.
fn is_of_proxy(answer: &str) -> bool {
    let mut head = answer.split("\r\n\r\n").next().unwrap_or_default().lines();
    head.any(|line| {
        line.split_once(':').is_some_and(|(field, value)| {
            field.eq_ignore_ascii_case("x-maesh-reason") && value.trim() == "unknown_host"
        })
    })
}

fn judge_requests(asked: usize, wrong: &[String], namespace: &str) -> Outcome {
    match (asked, wrong) {
        (0, _) => Outcome::skip("no proxy is ready"),
        (asked, []) => Outcome::pass(format!("{asked} proxies answer a request")),
        (_, wrong) => Outcome::fail(
            format!("proxies do not answer as they should: {}", some_of(wrong.iter().map(String::as_str))),
            format!(
                "see kubectl -n {namespace} logs -l app.kubernetes.io/component=proxy; `maesh explain NAME` shows what they know"
            ),
        ),
    }
}

/// Callers get the address of the proxy on their own node.
pub async fn same_node(context: &Context) -> Outcome {
    let service = match any_shared_service(context).await {
        Ok(service) => service,
        Err(outcome) => return outcome,
    };
    let pods = context.mesh_pods().await;
    let pods = match &*pods {
        Ok(pods) => ready_proxies(items(pods)),
        Err(error) => return Outcome::unread(error),
    };
    let mut seen = Vec::new();
    for (_, node, address) in pods {
        // A proxy is a pod of its node as any other, and there is one on each.
        let path = format!("/api/explain/dns?name={}&from={address}", service.name);
        match context.answers_of("dns", &path).await {
            Ok(told) => seen.extend(told.into_iter().map(|(_, said)| (node.to_owned(), address, said))),
            Err(unread) => return unread,
        }
    }
    judge_same_node(&seen, &service.name)
}

fn judge_same_node(seen: &[(String, IpAddr, Value)], service: &str) -> Outcome {
    if seen.iter().any(|(_, _, said)| text(said, "/rule") == "fixed") {
        return Outcome::skip("names resolve to one address for all nodes (addressing: service)");
    }
    let own = |address: &IpAddr, said: &Value| {
        let answered = said["addresses"].as_array().into_iter().flatten().filter_map(|it| it.as_str()?.parse().ok());
        text(said, "/rule") == "local" && answered.into_iter().any(|it: IpAddr| it == *address)
    };
    let wrong: Vec<_> = seen.iter().filter(|(_, address, said)| !own(address, said)).collect();
    match (seen.len(), wrong.first()) {
        (0, _) => Outcome::skip("no dns could be asked about a ready proxy's node"),
        (_, None) => Outcome::pass(match count_nodes(seen) {
            1 => "callers on the only node get its proxy".to_owned(),
            count => format!("callers on each of {count} nodes get the proxy of their node"),
        }),
        (_, Some((node, address, said))) => Outcome::warn(
            format!(
                "callers on node {node} do not get its own proxy for {service}: dns answers by the rule {}",
                shown(said)
            ),
            format!(
                "maesh explain {service} --from {address} says why; a proxy that just became ready is used within seconds"
            ),
        ),
    }
}

fn count_nodes(seen: &[(String, IpAddr, Value)]) -> usize {
    seen.iter().map(|(node, ..)| node).collect::<std::collections::BTreeSet<_>>().len()
}

fn shown(said: &Value) -> &str {
    match text(said, "/rule") {
        "" => "none",
        rule => rule,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::outcome::Verdict, *};

    #[test]
    fn a_service_on_shared_addresses() {
        let service = |address: Value, bypass: bool, protocol: &str| {
            json!({ "name": "web.shop.maesh", "address": address, "bypass": bypass,
                "ports": [{ "listen": 8080, "protocol": protocol }] })
        };
        for (case, service, want) in [
            ("shared", service(json!(null), false, "http"), true),
            ("own", service(json!("10.96.0.1"), false, "http"), false),
            ("bypassed", service(json!(null), true, "http"), false),
            ("TCP", service(json!(null), false, "tcp"), false),
        ] {
            let found = shared_service(&json!({ "services": [service] }));
            assert_eq!(found.map(|it| (it.name, it.port)), want.then(|| ("web.shop.maesh".into(), 8080)), "{case}");
        }
    }

    #[test]
    fn answers_of_proxies() {
        for (answer, want) in [
            ("HTTP/1.1 404 Not Found\r\nX-Maesh-Reason: unknown_host\r\n\r\n", true),
            ("HTTP/1.1 503 x\r\nx-maesh-reason: not_synced\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\n\r\nx-maesh-reason: unknown_host", false),
            ("", false),
        ] {
            assert_eq!(is_of_proxy(answer), want, "{answer:?}");
        }
        assert_eq!(judge_requests(0, &[], "maesh").verdict, Verdict::Skip);
        assert_eq!(judge_requests(2, &[], "maesh").verdict, Verdict::Pass);
        assert_eq!(judge_requests(2, &["proxy-1 (HTTP/1.1 503 x)".into()], "maesh").verdict, Verdict::Fail);
    }

    #[test]
    fn proxies_of_the_callers_node() {
        let said = |rule: &str, address: &str| {
            let at: IpAddr = "10.1.0.2".parse().unwrap();
            ("n1".to_owned(), at, json!({ "rule": rule, "addresses": [address] }))
        };
        for (case, seen, want) in [
            ("its own", vec![said("local", "10.1.0.2")], Verdict::Pass),
            ("another's", vec![said("local", "10.1.0.2"), said("local", "10.2.0.2")], Verdict::Warn),
            ("some", vec![said("spread", "10.1.0.2")], Verdict::Warn),
            ("plain", vec![said("fail-to-plain", "10.96.0.1")], Verdict::Warn),
            ("one for all", vec![said("fixed", "10.96.0.1")], Verdict::Skip),
            ("nobody to ask", vec![], Verdict::Skip),
        ] {
            assert_eq!(judge_same_node(&seen, "web.shop.maesh").verdict, want, "{case}");
        }
    }
}
