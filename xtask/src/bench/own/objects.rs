//! The objects of the cluster: what there is at first, how proxies are replaced, and what came of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{
    super::scale::{
        cluster::{API, Progress, in_parallel},
        http::Client,
    },
    get,
};

/// The mesh's namespace.
const MESH: &str = "maesh";
/// That of the Services.
const SHOP: &str = "shop";
const ZONES: usize = 3;
/// Proxies of each zone that an address lists past the budget.
const OF_EACH_ZONE: usize = 3;
/// How long a proxy that was replaced serves on. A real one does for 45 s; this is enough for it to be written.
const DRAIN: Duration = Duration::from_secs(2);
/// Slices in one answer.
const PAGE: usize = 200;

/// Whether these can be done.
pub(super) fn check(services: usize, proxies: usize, rollout: usize, at_once: usize) -> Result<()> {
    // Two generations of addresses in 10.244.0.0/16; the pool of the proxies' ports has 17,000.
    let (most_services, most_proxies) = (15_000, 30_000);
    if services == 0 || services > most_services || proxies == 0 || proxies > most_proxies {
        bail!("--services must be 1 to {most_services}, --proxies 1 to {most_proxies}");
    }
    if rollout > proxies || at_once == 0 {
        bail!("--rollout must be at most {proxies} (--proxies), --at-once at least 1");
    }
    Ok(())
}

/// Writes that the API server did so far.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Writes {
    pub(super) slices: u64,
    pub(super) services: u64,
}

impl Writes {
    /// As the API server counts them.
    pub(super) fn read() -> Result<Self> {
        let text = get(&mut Client::connect(API)?, "/metrics")?;
        Ok(Self { slices: written(&text, "endpointslices"), services: written(&text, "services") })
    }
}

/// Writes of a resource in the API server's metrics.
fn written(metrics: &str, resource: &str) -> u64 {
    let of = |line: &str| {
        let (labels, count) = line.strip_prefix("apiserver_request_total{")?.rsplit_once("} ")?;
        let has = |label: &str, value: &str| labels.split(',').any(|pair| pair == format!("{label}=\"{value}\""));
        let write = ["POST", "PUT", "PATCH", "APPLY", "DELETE"].iter().any(|verb| has("verb", verb));
        let agreed = ["200", "201"].iter().any(|code| has("code", code));
        (write && agreed && has("resource", resource)).then(|| count.trim().parse::<f64>().ok()).flatten()
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    metrics.lines().filter_map(of).map(|count| count as u64).sum()
}

/// The own addresses and what leads to them.
pub(super) struct Objects {
    pub(super) services: usize,
    pub(super) slices: usize,
    pub(super) endpoints: usize,
    /// Ready endpoints' addresses, by Service.
    ready: BTreeMap<String, BTreeSet<String>>,
}

impl Objects {
    pub(super) fn read() -> Result<Self> {
        let mut client = Client::connect(API)?;
        let mut all = Self { services: 0, slices: 0, endpoints: 0, ready: BTreeMap::new() };
        let labelled = "labelSelector=maesh.containo.us%2Fown-address";
        let path = format!("/api/v1/namespaces/{MESH}/services?{labelled}");
        let services: Value = serde_json::from_str(&get(&mut client, &path)?)?;
        all.services = services["items"].as_array().map_or(0, Vec::len);
        let mut next = String::new();
        loop {
            let path = format!("/apis/discovery.k8s.io/v1/namespaces/{MESH}/endpointslices");
            let page: Value =
                serde_json::from_str(&get(&mut client, &format!("{path}?{labelled}&limit={PAGE}&continue={next}"))?)?;
            for slice in page["items"].as_array().into_iter().flatten() {
                all.add(slice);
            }
            match page["metadata"]["continue"].as_str().filter(|next| !next.is_empty()) {
                Some(more) => more.clone_into(&mut next),
                None => return Ok(all),
            }
        }
    }

    fn add(&mut self, slice: &Value) {
        self.slices += 1;
        let service = slice["metadata"]["labels"]["kubernetes.io/service-name"].as_str().unwrap_or_default();
        let ready = self.ready.entry(service.to_owned()).or_default();
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            self.endpoints += 1;
            if endpoint["conditions"]["ready"] == true {
                ready.extend(endpoint["addresses"][0].as_str().map(str::to_owned));
            }
        }
    }
}

/// The cluster as it should be.
pub(super) struct TestObjects {
    services: usize,
    /// How often the proxy of each node was replaced.
    generations: Vec<usize>,
}

impl TestObjects {
    /// Writes all there is before the mesh.
    pub(super) fn write(services: usize, proxies: usize) -> Result<Self> {
        let mut client = Client::connect(API)?;
        for name in [MESH, SHOP] {
            let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            client.write("POST", "/api/v1/namespaces", &body.to_string())?;
        }
        in_parallel("Nodes", proxies, |client, number| {
            let name = node(number);
            let labels = json!({"topology.kubernetes.io/zone": zone(number), "kubernetes.io/hostname": name});
            let body = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
            client.write("POST", "/api/v1/nodes", &body.to_string())?;
            let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 89, 64, 0)) + u32::try_from(number)?);
            let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
            client.merge(&format!("/api/v1/nodes/{name}/status"), &status.to_string())
        })?;
        let this = Self { services, generations: vec![0; proxies] };
        in_parallel("Pods", proxies, |client, number| this.write_proxy(client, number, 0))?;
        in_parallel("Services", services, |client, number| {
            let body = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("db-{number}")},
                "spec": {"selector": {"app": format!("db-{number}")}, "ports": [{"port": 5432}]},
            });
            client.write("POST", &format!("/api/v1/namespaces/{SHOP}/services"), &body.to_string())
        })?;
        Ok(this)
    }

    /// A proxy that is ready.
    fn write_proxy(&self, client: &mut Client, number: usize, generation: usize) -> Result<()> {
        let name = pod(number, generation);
        let labels = json!({"app.kubernetes.io/name": "maesh", "app.kubernetes.io/component": "proxy"});
        let body = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
            "spec": {"nodeName": node(number), "containers": [{"name": "proxy", "image": "example/maesh:1"}]},
        });
        client.write("POST", &pods(), &body.to_string())?;
        let address = self.address(number, generation);
        let status = json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        client.merge(&format!("{}/{name}/status", pods()), &status.to_string())
    }

    /// No two generations that follow one another share any.
    fn address(&self, number: usize, generation: usize) -> Ipv4Addr {
        let offset = 1 + generation % 2 * self.generations.len() + number;
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 0, 0)) + u32::try_from(offset).unwrap_or_default())
    }

    /// Replaces the proxies of the first `count` nodes, as a DaemonSet does that starts the new one first.
    pub(super) fn roll_out(&mut self, count: usize, at_once: usize) -> Result<()> {
        let mut client = Client::connect(API)?;
        let mut progress = Progress::new("proxies replaced", count);
        for first in (0..count).step_by(at_once) {
            let some = first..count.min(first + at_once);
            let generations: Vec<_> = self.generations[some.clone()].to_vec();
            for (number, generation) in some.clone().zip(&generations) {
                self.write_proxy(&mut client, number, generation + 1)?;
            }
            // Asked to end, and gone.
            for (grace, pause) in [(60, DRAIN), (0, Duration::ZERO)] {
                let body =
                    json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": grace}).to_string();
                for (number, generation) in some.clone().zip(&generations) {
                    client.write("DELETE", &format!("{}/{}", pods(), pod(number, *generation)), &body)?;
                }
                std::thread::park_timeout(pause);
            }
            for number in some {
                self.generations[number] += 1;
                progress.one_more();
            }
        }
        Ok(())
    }

    /// Whether every own address leads to the proxies of now, to as many as it should.
    pub(super) fn is_served(&self, few: bool) -> Result<bool> {
        let now = self.generations.iter().enumerate();
        let now: BTreeSet<_> = now.map(|(number, generation)| self.address(number, *generation).to_string()).collect();
        let in_zone = |zone| (zone..self.generations.len()).step_by(ZONES).count();
        let wanted = if few { (0..ZONES).map(|zone| in_zone(zone).min(OF_EACH_ZONE)).sum() } else { now.len() };
        let there = Objects::read().context("what there is")?;
        let served = there.ready.values().filter(|ready| ready.len() == wanted && ready.is_subset(&now)).count();
        let done = there.services == self.services && served == self.services && there.ready.len() == self.services;
        if !done {
            eprintln!("{} own addresses of {}, {served} of them served as they should", there.services, self.services);
        }
        Ok(done)
    }
}

fn node(number: usize) -> String {
    format!("node-{number}")
}

fn zone(number: usize) -> String {
    format!("zone-{}", number % ZONES)
}

fn pod(number: usize, generation: usize) -> String {
    format!("proxy-{number}-{generation}")
}

fn pods() -> String {
    format!("/api/v1/namespaces/{MESH}/pods")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_writes_that_were_done_count() {
        let line = |code, resource, verb, count| {
            format!("apiserver_request_total{{code=\"{code}\",resource=\"{resource}\",verb=\"{verb}\"}} {count}\n")
        };
        let metrics = [
            "# TYPE apiserver_request_total counter\n".to_owned(),
            line("200", "endpointslices", "APPLY", "3"),
            line("201", "endpointslices", "POST", "1e+03"),
            line("409", "endpointslices", "PUT", "7"),
            line("200", "endpointslices", "WATCH", "9"),
            line("200", "services", "DELETE", "2"),
        ]
        .concat();
        assert_eq!((written(&metrics, "endpointslices"), written(&metrics, "services")), (1003, 2));
    }

    #[test]
    fn generations_that_follow_share_no_address() {
        let cluster = TestObjects { services: 1, generations: vec![0; 500] };
        let all: BTreeSet<_> = (0..2).flat_map(|g| (0..500).map(move |n| (n, g))).collect();
        let addresses: BTreeSet<_> = all.iter().map(|(n, g)| cluster.address(*n, *g)).collect();
        assert_eq!(addresses.len(), 1000);
    }
}
