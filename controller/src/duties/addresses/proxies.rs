//! The proxies' pods, for addresses that list a few of them.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client, api::ListParams};
use maesh_compiler::kinds::NODE_ZONE;
use tokio::time::{Instant, timeout};

use super::{Options, READ, ReconcileError, listed::Listed};

/// How often nodes without a zone are looked at: the cloud's controller may say it after the node came.
pub(super) const ZONES_AGAIN: Duration = Duration::from_secs(60);

/// A pod of the proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proxy {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) node: Option<String>,
    /// The zone of its node, where that was looked up and has one.
    pub(super) zone: Option<String>,
    pub(super) addresses: Vec<IpAddr>,
    /// Its containers say so.
    pub(super) serving: bool,
    /// It is being deleted.
    pub(super) leaving: bool,
}

impl Proxy {
    /// Whether new connections may be sent there.
    pub(super) fn is_ready(&self) -> bool {
        self.serving && !self.leaving
    }

    /// Its address of one family.
    pub(super) fn address(&self, v6: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv6() == v6)
    }

    /// `None` for a pod that ended for ever.
    fn read(pod: Pod) -> Option<Self> {
        let status = pod.status.unwrap_or_default();
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return None;
        }
        let addresses = status.pod_ips.unwrap_or_default().into_iter().filter_map(|address| address.ip.parse().ok());
        let ready = |condition: &k8s_openapi::api::core::v1::PodCondition| {
            condition.type_ == "Ready" && condition.status == "True"
        };
        Some(Self {
            name: pod.metadata.name?,
            uid: pod.metadata.uid?,
            node: pod.spec.and_then(|spec| spec.node_name),
            zone: None,
            addresses: addresses.collect(),
            serving: status.conditions.unwrap_or_default().iter().any(ready),
            leaving: pod.metadata.deletion_timestamp.is_some(),
        })
    }
}

/// All of them, and the zones of their nodes once these were asked for.
pub(super) struct Proxies {
    pods: Listed<Pod, Proxy>,
    nodes: Api<Node>,
    zones: BTreeMap<String, Option<String>>,
    asked: Option<Instant>,
}

impl Proxies {
    /// Watches them while [`Self::changed`] is awaited.
    pub(super) fn new(client: &Client, options: &Options) -> Self {
        let labels: Vec<_> = options.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let pods = Api::namespaced(client.clone(), &options.namespace);
        let pods = Listed::new("pods of the proxies", pods, &labels.join(","), Proxy::read, |_, _| None);
        Self { pods, nodes: Api::all(client.clone()), zones: BTreeMap::new(), asked: None }
    }

    /// Waits for news of them.
    pub(super) async fn changed(&mut self) {
        self.pods.changed().await;
    }

    /// How many there are; `None` until they were listed once.
    pub(super) fn count(&self) -> Option<usize> {
        Some(self.pods.there()?.values().filter(|proxy| !proxy.leaving).count())
    }

    /// All of them with their zones. Also says when it may be worth asking again.
    pub(super) async fn with_zones(&mut self) -> Result<(Vec<Proxy>, Option<Instant>), ReconcileError> {
        let mut proxies: Vec<_> = self.pods.there().into_iter().flat_map(BTreeMap::values).cloned().collect();
        // Who is not ready is not chosen, and its node may be too young to have a zone.
        let nodes: Vec<_> =
            proxies.iter().filter(|proxy| proxy.is_ready()).filter_map(|proxy| proxy.node.clone()).collect();
        let stale = self.asked.is_none_or(|asked| asked.elapsed() >= ZONES_AGAIN);
        let missing = |node: &String| self.zones.get(node).is_none_or(|zone| stale && zone.is_none());
        if nodes.iter().any(missing) {
            self.ask().await?;
            for node in &nodes {
                self.zones.entry(node.clone()).or_default();
            }
        }
        for proxy in &mut proxies {
            proxy.zone = proxy.node.as_ref().and_then(|node| self.zones.get(node)?.clone());
        }
        let unknown = nodes.iter().any(|node| self.zones.get(node).is_none_or(Option::is_none));
        let again = self.asked.filter(|_| unknown).map(|asked| asked + ZONES_AGAIN);
        Ok((proxies, again))
    }

    async fn ask(&mut self) -> Result<(), ReconcileError> {
        let nodes = timeout(READ, self.nodes.list_metadata(&ListParams::default())).await??;
        self.asked = Some(Instant::now());
        let zone = |labels: Option<BTreeMap<String, String>>| labels?.remove(NODE_ZONE).filter(|zone| !zone.is_empty());
        let metadata = nodes.items.into_iter().map(|node| node.metadata);
        self.zones = metadata.filter_map(|metadata| Some((metadata.name?, zone(metadata.labels)))).collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_pod_is_as_its_conditions_say() {
        let ready = json!([{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]);
        let waiting = json!([{"type": "Ready", "status": "False"}]);
        let two = json!([{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]);
        for (case, deleted, status, want) in [
            ("ready", Value::Null, json!({"conditions": ready, "podIPs": two}), Some((true, true, 2))),
            ("not ready", Value::Null, json!({"conditions": waiting, "podIPs": two}), Some((false, false, 2))),
            (
                "leaving",
                json!("2026-01-01T00:00:00Z"),
                json!({"conditions": ready, "podIPs": two}),
                Some((true, false, 2)),
            ),
            ("not even started", Value::Null, json!({}), Some((false, false, 0))),
            ("ended", Value::Null, json!({"phase": "Failed", "conditions": ready}), None),
        ] {
            let metadata = json!({"name": "proxy-a", "uid": "1", "deletionTimestamp": deleted});
            let pod = json!({"metadata": metadata, "spec": {"nodeName": "n1", "containers": []}, "status": status});
            let proxy = Proxy::read(serde_json::from_value(pod).unwrap());
            let said = proxy.map(|proxy| (proxy.serving, proxy.is_ready(), proxy.addresses.len()));
            assert_eq!(said, want, "{case}");
        }
    }
}
