//! Own addresses past their budget, on a real kube-apiserver: the leader writes their EndpointSlices itself.
//!
//! The cluster's endpoints controller does not run; the test writes what it would.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "own/replica.rs"]
mod replica;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use maesh_controller::source::kubernetes;
use maesh_testkube::ApiServer;
use serde_json::json;
use tokio::time::sleep;

use self::replica::{PATIENCE, Replica, on, owning, runtime, want};

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Three ports times ten proxies are more, one port times ten less than four fifths of it.
const BUDGET: u32 = 25;
/// Proxies of the cluster, half of them in each of two zones.
const PROXIES: usize = 10;

/// The cluster, and what the test does in it.
struct Lab {
    services: Api<Service>,
    slices: Api<EndpointSlice>,
    pods: Api<Pod>,
    nodes: Api<Node>,
}

/// A slice as the test looks at it.
#[derive(Debug, PartialEq)]
struct Slice {
    version: String,
    ready: BTreeSet<String>,
}

impl Lab {
    fn new(client: &Client) -> Self {
        let default = "default";
        Self {
            services: Api::namespaced(client.clone(), default),
            slices: Api::namespaced(client.clone(), default),
            pods: Api::namespaced(client.clone(), default),
            nodes: Api::all(client.clone()),
        }
    }

    /// A proxy's pod that is ready, on a node of its own.
    async fn add_proxy(&self, number: usize) {
        let (node, pod) = (format!("node-{number}"), format!("proxy-{number}"));
        let zone = ["here", "there"][number % 2];
        let labels = json!({"topology.kubernetes.io/zone": zone});
        let body = serde_json::from_value(json!({"metadata": {"name": node, "labels": labels}})).unwrap();
        self.nodes.create(&PostParams::default(), &body).await.unwrap();
        let body = json!({
            "metadata": {"name": pod, "labels": {"app.kubernetes.io/component": "proxy"}},
            "spec": {"nodeName": node, "containers": [{"name": "proxy", "image": "maesh"}]},
        });
        self.pods.create(&PostParams::default(), &serde_json::from_value(body).unwrap()).await.unwrap();
        self.set_ready(number, true).await;
    }

    async fn set_ready(&self, number: usize, ready: bool) {
        let (address, ready) = (format!("10.244.0.{}", number + 1), if ready { "True" } else { "False" });
        let status = json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": ready}],
        }});
        let patch = Patch::Merge(&status);
        self.pods.patch_status(&format!("proxy-{number}"), &PatchParams::default(), &patch).await.unwrap();
    }

    /// A slice of Service `name`: the cluster's controller's, or nobody's.
    async fn write_slice(&self, slice: &str, name: Option<&str>, port: &str) {
        let labels =
            name.map(|name| json!({"kubernetes.io/service-name": name, MANAGED_BY: "endpointslice-controller.k8s.io"}));
        let body = json!({
            "metadata": {"name": slice, "labels": labels}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.244.0.1"], "conditions": {"ready": true}}],
            "ports": [{"name": port, "protocol": "TCP", "port": 33_000}],
        });
        self.slices.create(&PostParams::default(), &serde_json::from_value(body).unwrap()).await.unwrap();
    }

    /// The slices that the leader wrote, by name.
    async fn ours(&self) -> BTreeMap<String, Slice> {
        let ours = ListParams::default().labels(&format!("{MANAGED_BY}=maesh-controller"));
        let read = |slice: EndpointSlice| {
            let ready = slice.endpoints.into_iter().flatten().filter(|endpoint| {
                endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true))
            });
            let ready = ready
                .map(|endpoint| format!("{} {}", endpoint.zone.unwrap(), endpoint.target_ref.unwrap().name.unwrap()));
            let version = slice.metadata.resource_version.unwrap();
            (slice.metadata.name.unwrap(), Slice { version, ready: ready.collect() })
        };
        self.slices.list(&ours).await.unwrap().into_iter().map(read).collect()
    }

    /// Own addresses with their versions, and whether they have a selector.
    async fn services(&self) -> BTreeMap<String, (String, bool)> {
        let ours = ListParams::default().labels("maesh.containo.us/own-address");
        let read = |service: Service| {
            let selector = service.spec.unwrap().selector.is_some();
            (service.metadata.name.unwrap(), (service.metadata.resource_version.unwrap(), selector))
        };
        self.services.list(&ours).await.unwrap().into_iter().map(read).collect()
    }

    /// Waits until these have a selector, and of the others none.
    async fn until_selecting(&self, what: &str, count: usize, selecting: &[&str]) {
        let begun = Instant::now();
        loop {
            let there = self.services().await;
            let with: Vec<_> = there.iter().filter(|(_, (_, with))| *with).map(|(name, _)| name).collect();
            if there.len() == count && with == selecting {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: {there:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn until_ours(
        &self,
        what: &str,
        holds: impl Fn(&BTreeMap<String, Slice>) -> bool,
    ) -> BTreeMap<String, Slice> {
        let begun = Instant::now();
        loop {
            let ours = self.ours().await;
            if holds(&ours) {
                return ours;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: {ours:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn until_gone(&self, slice: &str) {
        let begun = Instant::now();
        while self.slices.get_opt(slice).await.unwrap().is_some() {
            assert!(begun.elapsed() < PATIENCE, "{slice} is there still");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Whether these addresses have three ready proxies of each zone.
fn all_served(ours: &BTreeMap<String, Slice>, names: &[&str]) -> bool {
    let three = |slice: &Slice| {
        let of = |zone| slice.ready.iter().filter(|proxy| proxy.starts_with(zone)).count();
        (of("here "), of("there ")) == (3, 3)
    };
    ours.keys().eq(names) && ours.values().all(three)
}

#[test]
fn past_the_budget_addresses_list_a_few_proxies() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let runtime = runtime(&server);
    let kubeconfig = server.kubeconfig().to_owned();
    on(&runtime, async move {
        let client = kubernetes::client(Some(&kubeconfig), None).await.unwrap();
        let lab = Lab::new(&client);
        there_and_back(&client, &lab).await;
    });
}

async fn there_and_back(client: &Client, lab: &Lab) {
    let (all, slices) =
        (["maesh-own-0", "maesh-own-1", "maesh-own-2"], ["maesh-own-0-v4", "maesh-own-1-v4", "maesh-own-2-v4"]);
    let wants: Vec<_> = ["a", "b", "c"].map(|name| want("shop", name, &[5432])).into();
    for number in 0..4 {
        lab.add_proxy(number).await;
    }
    let first = Replica::start(client, "first", Some(wants.clone()), 20, BUDGET);
    lab.until_selecting("few proxies are no reason", 3, &all).await;
    assert_eq!(lab.ours().await, BTreeMap::new());

    // Somebody else's slice is in the way of the last one.
    lab.write_slice(slices[2], None, "p33000").await;
    lab.write_slice("maesh-own-0-x7k2p", Some(all[0]), "p33000").await;
    for number in 4..PROXIES {
        lab.add_proxy(number).await;
    }
    lab.until_selecting("past the budget", 3, &all[2..]).await;
    let ours = lab.ours().await;
    assert!(all_served(&ours, &slices[..2]), "served before the selector went: {ours:?}");
    lab.until_gone("maesh-own-0-x7k2p").await;
    lab.slices.delete(slices[2], &DeleteParams::default()).await.unwrap();
    lab.until_selecting("nothing is in the way", 3, &[]).await;
    let before = lab.until_ours("all of them", |ours| all_served(ours, &slices)).await;
    let uid = lab.services.get(all[0]).await.unwrap().metadata.uid;
    let owner = lab.slices.get(slices[0]).await.unwrap().metadata.owner_references.unwrap().remove(0);
    assert_eq!((owner.kind.as_str(), Some(owner.uid)), ("Service", uid), "a slice goes with its Service");

    let after = one_goes(lab, &before).await;
    let stood = lab.services().await;

    // Another leads, and a proxy is ready again: as it was before, and no Service was touched.
    first.stop().await;
    let second = Replica::start(client, "second", Some(wants.clone()), 20, BUDGET);
    second.leads().await;
    lab.set_ready(gone(&before, &after), true).await;
    let ready = |ours: &BTreeMap<String, Slice>| ours.values().map(|slice| slice.ready.clone()).collect::<Vec<_>>();
    lab.until_ours("as before", |ours| ready(ours) == ready(&before)).await;
    assert_eq!(lab.services().await, stood);

    // Fewer ports, so selectors again; ours stay until the cluster's controller has written its own.
    second.wants.send_replace(Some(owning(wants[..1].to_vec())));
    lab.until_selecting("back", 1, &all[..1]).await;
    sleep(Duration::from_secs(2)).await;
    assert!(lab.ours().await.contains_key(slices[0]), "nothing else leads to it yet");
    lab.write_slice("maesh-own-0-b8d4f", Some(all[0]), "p33000").await;
    lab.until_gone(slices[0]).await;
    assert!(lab.slices.get_opt("maesh-own-0-b8d4f").await.unwrap().is_some());
    second.stop().await;
}

/// One proxy of the first address is no longer ready: another takes its place, there and nowhere else.
async fn one_goes(lab: &Lab, before: &BTreeMap<String, Slice>) -> BTreeMap<String, Slice> {
    let proxy = before["maesh-own-0-v4"].ready.first().unwrap().clone();
    lab.set_ready(number(&proxy), false).await;
    let without = |ours: &BTreeMap<String, Slice>| ours.values().all(|slice| !slice.ready.contains(&proxy));
    let served =
        |ours: &BTreeMap<String, Slice>| all_served(ours, &["maesh-own-0-v4", "maesh-own-1-v4", "maesh-own-2-v4"]);
    let after = lab.until_ours("replaced", |ours| without(ours) && served(ours)).await;
    for (name, slice) in before {
        let had = slice.ready.contains(&proxy);
        assert_eq!(slice.version != after[name].version, had, "{name}: {slice:?}, {:?}", after[name]);
        assert_eq!(after[name].ready.difference(&slice.ready).count(), usize::from(had), "{name}");
    }
    after
}

/// The proxy that was there before and is not after.
fn gone(before: &BTreeMap<String, Slice>, after: &BTreeMap<String, Slice>) -> usize {
    let name = "maesh-own-0-v4";
    number(before[name].ready.difference(&after[name].ready).next().unwrap())
}

fn number(proxy: &str) -> usize {
    proxy.rsplit('-').next().unwrap().parse().unwrap()
}
