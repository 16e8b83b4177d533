//! NetworkPolicies before pods that the mesh sends requests to: which there are, and those that let only proxies in.
//!
//! A backend sees the address of a proxy, not that of the caller. Pure, but for the command.

pub mod carried;
mod policies;

use std::{net::IpAddr, process::ExitCode};

use anyhow::{bail, ensure};
use ipnet::IpNet;
use serde_json::{Map, Value};

use self::policies::Asked;
use crate::{
    args::NetworkPolicyArgs,
    check::{items, name, text},
    inspect::{self, Cluster, ClusterError},
    terminal,
};

/// Prints a policy for the pods of each Service.
pub async fn run(args: NetworkPolicyArgs) -> anyhow::Result<ExitCode> {
    let cluster = inspect::open(&args.cluster).await?;
    let mesh = cluster.namespace();
    let mut notes = String::new();
    let pods = format!("/api/v1/namespaces/{mesh}/pods?labelSelector=app.kubernetes.io%2Fname%3Dmaesh");
    let pods = match cluster.get(&pods, "list pods").await {
        Ok(found) => items(&found).to_vec(),
        Err(error) => {
            notes += &policies::comment(&allowed(error, "Settings of the mesh were not read, so the defaults count")?);
            Vec::new()
        }
    };
    // Where they may not be read, nobody can say whether they are there.
    ensure!(
        !notes.is_empty() || pods.iter().any(is_proxy),
        "{}",
        no_proxies(&cluster, args.cluster.written_namespace())
    );
    let (below, namespaces) = match &args.of {
        Some(namespace) => (format!("namespaces/{namespace}/"), format!("namespaces/{namespace}")),
        None => (String::new(), "namespaces".to_owned()),
    };
    let services = cluster.get(&format!("/api/v1/{below}services"), "list services").await?;
    let namespaces = match cluster.get(&format!("/api/v1/{namespaces}"), "get and list namespaces").await {
        Ok(found) if args.of.is_some() => vec![found],
        Ok(found) => items(&found).to_vec(),
        Err(error) if error.code() == 404 => Vec::new(),
        Err(error) => {
            notes +=
                &policies::comment(&allowed(error, "Annotations of Namespaces were not read, and count as absent")?);
            Vec::new()
        }
    };
    let around = carried::reasons_against(items(&services), &namespaces, carried::settings(&pods, mesh)?);
    let asked = Asked { namespace: args.of.as_deref(), names: &args.services };
    let printed = policies::policies(items(&services), &around, mesh, &asked);
    if !printed.text.is_empty() {
        terminal::out(format_args!("{notes}{}", printed.text));
    }
    if !printed.missing.is_empty() {
        bail!("{}", printed.missing.join("; "));
    }
    Ok(ExitCode::SUCCESS)
}

fn is_proxy(pod: &Value) -> bool {
    let has = |label: &str, value: &str| pod["metadata"]["labels"][label] == value;
    has("app.kubernetes.io/name", "maesh") && has("app.kubernetes.io/component", "proxy")
}

/// Why nothing is printed: a policy that lets only proxies in would lock out everybody.
fn no_proxies(cluster: &Cluster, written: Option<&str>) -> String {
    let meant = written.unwrap_or("NAMESPACE");
    format!(
        "no proxy of a mesh in {}: no pod there has the label app.kubernetes.io/component=proxy and that of the mesh, \
         app.kubernetes.io/name=maesh, so the policies would lock out everybody; install the mesh, or name its namespace \
         with --namespace. The namespace of the Services is the argument: maesh print network-policy {meant}",
        cluster.describe()
    )
}

/// What is said where a right is missing that the command can do without; any other error is its end.
fn allowed(error: ClusterError, then: &str) -> Result<String, ClusterError> {
    if error.code() == 403 { Ok(format!("{then}: {error}")) } else { Err(error) }
}

/// The proxies, as policies see them.
pub struct Proxies<'a> {
    /// Labels of the mesh's namespace.
    pub namespace: &'a Value,
    /// Name of it.
    pub mesh: &'a str,
    /// Labels of their pods.
    pub labels: Value,
    /// Their addresses.
    pub addresses: Vec<IpAddr>,
}

/// What policies do to requests that come through the mesh.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Services whose pods no proxy may connect to, with a policy that keeps them out.
    pub shut: Vec<String>,
    /// Services that admit all proxies, with a policy that tells callers apart by who they are.
    pub blind: Vec<String>,
    /// A policy for the proxies, where none lets pods of other namespaces connect to them.
    pub proxies_shut: Option<String>,
}

/// Says what `policies` do to the requests of `services`, which the mesh carries.
pub fn effects(services: &[&Value], policies: &[Value], proxies: &Proxies<'_>) -> Effects {
    let mut effects = Effects { proxies_shut: proxies_shut(policies, proxies), ..Effects::default() };
    for service in services {
        let namespace = text(service, "/metadata/namespace");
        let labels = &service["spec"]["selector"];
        if labels.as_object().is_none_or(Map::is_empty) {
            continue;
        }
        let selecting = |policy: &&Value| {
            text(policy, "/metadata/namespace") == namespace
                && is_ingress(policy)
                && selects(&policy["spec"]["podSelector"], labels)
        };
        let selecting: Vec<_> = policies.iter().filter(selecting).collect();
        let said = |policy: &Value| format!("Service {namespace}/{} (NetworkPolicy {})", name(service), name(policy));
        let tells_callers =
            |policy: &&&Value| peers(policy).any(|peer| peer.get("ipBlock").is_none()) && !admits(policy, proxies);
        if !selecting.is_empty() && !selecting.iter().any(|policy| admits(policy, proxies)) {
            effects.shut.extend(selecting.first().map(|policy| said(policy)));
        } else if let Some(policy) = selecting.iter().find(tells_callers) {
            effects.blind.push(said(policy));
        }
    }
    effects
}

/// A policy that selects the proxies, where all that do keep out pods of other namespaces.
fn proxies_shut(policies: &[Value], proxies: &Proxies<'_>) -> Option<String> {
    let selecting = |policy: &&Value| {
        text(policy, "/metadata/namespace") == proxies.mesh
            && is_ingress(policy)
            && selects(&policy["spec"]["podSelector"], &proxies.labels)
    };
    let is_outside = |peer: &Value| peer.get("namespaceSelector").is_some() || peer.get("ipBlock").is_some();
    let lets_in = |policy: &&Value| {
        let mut rules = policy["spec"]["ingress"].as_array().into_iter().flatten();
        rules.any(|rule| rule["from"].as_array().is_none_or(|from| from.is_empty() || from.iter().any(is_outside)))
    };
    let selecting: Vec<_> = policies.iter().filter(selecting).collect();
    let first = selecting.first().filter(|_| !selecting.iter().any(lets_in))?;
    Some(name(first).to_owned())
}

/// Whether it is about who may connect to pods. Without a word it is.
fn is_ingress(policy: &Value) -> bool {
    let types = policy["spec"]["policyTypes"].as_array();
    types.is_none_or(|types| types.iter().any(|it| it == "Ingress"))
}

/// The peers that it names in all of its rules.
fn peers(policy: &Value) -> impl Iterator<Item = &Value> {
    policy["spec"]["ingress"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|rule| rule["from"].as_array().into_iter().flatten())
}

/// Whether a rule of it admits the proxies to some port.
fn admits(policy: &Value, proxies: &Proxies<'_>) -> bool {
    let rules = policy["spec"]["ingress"].as_array().into_iter().flatten();
    rules.into_iter().any(|rule| match rule["from"].as_array() {
        None => true,
        Some(from) if from.is_empty() => true,
        Some(from) => from.iter().any(|peer| is_peer(peer, text(policy, "/metadata/namespace"), proxies)),
    })
}

/// Whether the proxies are this peer.
fn is_peer(peer: &Value, of: &str, proxies: &Proxies<'_>) -> bool {
    if let Some(block) = peer.get("ipBlock") {
        let range = |value: &Value| value.as_str().and_then(|text| text.parse::<IpNet>().ok());
        let has = |range: &IpNet| proxies.addresses.iter().all(|address| range.contains(address));
        let except = block["except"].as_array().into_iter().flatten().filter_map(range);
        let outside =
            except.into_iter().all(|except| !proxies.addresses.iter().any(|address| except.contains(address)));
        return !proxies.addresses.is_empty() && range(&block["cidr"]).as_ref().is_some_and(has) && outside;
    }
    let in_namespace = match peer.get("namespaceSelector") {
        Some(selector) => selects(selector, proxies.namespace),
        None => of == proxies.mesh,
    };
    in_namespace && peer.get("podSelector").is_none_or(|selector| selects(selector, &proxies.labels))
}

/// Whether a selector (`matchLabels` and `matchExpressions`) holds for what has these labels. An empty one holds for all.
fn selects(selector: &Value, labels: &Value) -> bool {
    let none = Map::new();
    let labels = labels.as_object().unwrap_or(&none);
    let has = |key: &str, value: &Value| labels.get(key) == Some(value);
    let all = selector["matchLabels"].as_object().into_iter().flatten().all(|(key, value)| has(key, value));
    let holds = |expression: &Value| {
        let key = text(expression, "/key");
        let among = expression["values"].as_array().into_iter().flatten().any(|value| has(key, value));
        match text(expression, "/operator") {
            "In" => among,
            "NotIn" => !among,
            "Exists" => labels.contains_key(key),
            "DoesNotExist" => !labels.contains_key(key),
            _ => false,
        }
    };
    all && selector["matchExpressions"].as_array().into_iter().flatten().all(holds)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(namespace: &str, name: &str, selector: Value) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"selector": selector}})
    }

    fn policy(name: &str, selector: Value, ingress: Value) -> Value {
        json!({"metadata": {"namespace": "shop", "name": name},
            "spec": {"podSelector": selector, "policyTypes": ["Ingress"], "ingress": ingress}})
    }

    fn seen(policies: &[Value]) -> Effects {
        let namespace = json!({"kubernetes.io/metadata.name": "maesh"});
        let labels = json!({"app.kubernetes.io/name": "maesh", "app.kubernetes.io/component": "proxy"});
        let addresses = vec!["10.1.0.5".parse().unwrap()];
        let proxies = Proxies { namespace: &namespace, mesh: "maesh", labels, addresses };
        let services = [service("shop", "web", json!({"app": "web"})), service("shop", "none", json!({}))];
        effects(&services.iter().collect::<Vec<_>>(), policies, &proxies)
    }

    #[test]
    fn what_policies_do_to_requests_through_the_mesh() {
        let web = || json!({"matchLabels": {"app": "web"}});
        let proxies = || {
            json!([{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "maesh"}},
                "podSelector": {"matchLabels": {"app.kubernetes.io/component": "proxy"}}}]}])
        };
        let callers = || json!([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]);
        let block = |cidr: &str, except: Value| json!([{"from": [{"ipBlock": {"cidr": cidr, "except": except}}]}]);
        for (case, policies, shut, blind) in [
            ("none", vec![], 0, 0),
            ("of other pods", vec![policy("a", json!({"matchLabels": {"app": "db"}}), callers())], 0, 0),
            ("by caller", vec![policy("a", web(), callers())], 1, 0),
            ("of all pods", vec![policy("a", json!({}), json!([]))], 1, 0),
            ("for the proxies", vec![policy("a", web(), proxies())], 0, 0),
            (
                "for the proxies, and by caller",
                vec![policy("a", web(), callers()), policy("b", web(), proxies())],
                0,
                1,
            ),
            ("for everybody", vec![policy("a", web(), json!([{}]))], 0, 0),
            ("by address", vec![policy("a", web(), block("10.1.0.0/16", json!([])))], 0, 0),
            ("by address, but not theirs", vec![policy("a", web(), block("10.0.0.0/8", json!(["10.1.0.0/24"])))], 1, 0),
            ("by other addresses", vec![policy("a", web(), block("10.2.0.0/16", json!([])))], 1, 0),
            (
                "by expressions",
                vec![policy(
                    "a",
                    json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "x"]}]}),
                    callers(),
                )],
                1,
                0,
            ),
            (
                "by expressions that do not hold",
                vec![policy("a", json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}), callers())],
                0,
                0,
            ),
        ] {
            let effects = seen(&policies);
            assert_eq!((effects.shut.len(), effects.blind.len()), (shut, blind), "{case}: {effects:?}");
        }
        let egress = json!({"metadata": {"namespace": "shop", "name": "a"},
            "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": []}});
        assert_eq!(seen(&[egress]), Effects::default());
        assert_eq!(seen(&[policy("a", web(), callers())]).shut, ["Service shop/web (NetworkPolicy a)"]);
    }

    #[test]
    fn policies_for_the_proxies_themselves() {
        let of_mesh = |ingress: Value| {
            let mut policy = policy("own", json!({}), ingress);
            policy["metadata"]["namespace"] = "maesh".into();
            policy
        };
        let own_pods = json!([{"from": [{"podSelector": {}}]}]);
        for (case, policies, want) in [
            ("none", vec![], false),
            ("nobody", vec![of_mesh(json!([]))], true),
            ("its own namespace", vec![of_mesh(own_pods.clone())], true),
            ("everybody", vec![of_mesh(json!([{"ports": [{"port": 80}]}]))], false),
            ("other namespaces", vec![of_mesh(json!([{"from": [{"namespaceSelector": {}}]}]))], false),
            ("addresses", vec![of_mesh(json!([{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]))], false),
            ("one of two", vec![of_mesh(own_pods), of_mesh(json!([{}]))], false),
        ] {
            assert_eq!(seen(&policies).proxies_shut.is_some(), want, "{case}");
        }
    }
}
