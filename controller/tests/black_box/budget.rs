//! Own addresses past their budget, on a real kube-apiserver: the leader writes their EndpointSlices itself.
//!
//! In the first test no controller of the cluster runs, and the test writes what it would; in the second they all do.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::{Endpoint, EndpointSlice},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use maesh_testkube::{ApiServer, Process};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    replica::{Replica, owning, want},
    support::{PATIENCE, eventually, with_client},
};

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Three ports times ten proxies are more, one port times ten less than four fifths of it.
const BUDGET: u32 = 25;
/// Proxies of the cluster, half of them in each of two zones.
const PROXIES: usize = 10;

/// How long nobody else may write in between.
const CALM: Duration = Duration::from_secs(3);
const CLUSTERS: &str = "endpointslice-controller.k8s.io";
const CONTROLLERS: &str = "--controllers=endpoints-controller,endpointslice-controller,endpointslice-mirroring-controller,\
                           garbage-collector-controller";

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

    /// Who writes the slices of own addresses, and whether the first of the addresses leads to a ready proxy.
    async fn written_by(&self) -> (BTreeSet<String>, bool) {
        let (mut writers, mut served) = (BTreeSet::new(), false);
        for slice in self.slices.list(&ListParams::default()).await.unwrap() {
            let mut labels = slice.metadata.labels.unwrap_or_default();
            let Some(service) = labels.remove("kubernetes.io/service-name").filter(|name| name.contains("own")) else {
                continue;
            };
            writers.extend(labels.remove(MANAGED_BY));
            let ready = |endpoint: &Endpoint| endpoint.conditions.as_ref().is_some_and(|now| now.ready == Some(true));
            served |= service == "maesh-own-0" && slice.endpoints.iter().flatten().any(ready);
        }
        (writers, served)
    }

    /// Waits until `writer` alone has written the slices, and it stays so. All the time the first address is served.
    async fn until_written_by(&self, writer: &str) {
        let (begun, mut since) = (Instant::now(), None);
        loop {
            let (writers, served) = self.written_by().await;
            assert!(served, "{writer}: the address leads to nobody; written by {writers:?}");
            match since {
                _ if !writers.iter().eq([writer]) => since = None,
                None => since = Some(Instant::now()),
                Some(since) if since.elapsed() > CALM => return,
                Some(_) => {}
            }
            assert!(begun.elapsed() < PATIENCE, "{writer}: written by {writers:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until these have a selector, and of the others none.
    async fn until_selecting(&self, what: &str, count: usize, selecting: &[&str]) {
        let are_selecting = |there: &BTreeMap<String, (String, bool)>| {
            let with: Vec<_> = there.iter().filter(|(_, (_, with))| *with).map(|(name, _)| name).collect();
            there.len() == count && with == selecting
        };
        eventually(what, || self.services(), are_selecting).await;
    }

    async fn until_ours(
        &self,
        what: &str,
        holds: impl Fn(&BTreeMap<String, Slice>) -> bool,
    ) -> BTreeMap<String, Slice> {
        eventually(what, || self.ours(), holds).await
    }

    async fn until_gone(&self, slice: &str) {
        let there = || async { self.slices.get_opt(slice).await.unwrap().is_some() };
        eventually(&format!("{slice} goes"), there, |there| !there).await;
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
    with_client(&server, |client| async move {
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

/// What the cluster's controllers do meanwhile: they leave their slices behind, write them anew where they have not seen
/// the selector go, mirror old `Endpoints`, and collect what has no owner.
#[test]
fn with_the_clusters_controllers_an_address_is_served_all_the_time() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let mut command = server.namespace().command(maesh_test_support::tool("kube-controller-manager").unwrap());
    command.args([CONTROLLERS, "--leader-elect=false", "--secure-port=0", "--kubeconfig"]).arg(server.kubeconfig());
    let _manager = Process::start(command, &server.namespace().folder().join("manager.log")).unwrap();
    with_client(&server, |client| async move {
        let lab = Lab::new(&client);
        for number in 0..4 {
            lab.add_proxy(number).await;
        }
        let wants: Vec<_> = (0..5).map(|n| want("shop", &format!("s{n}"), &[5432])).collect();
        let leader = Replica::start(&client, "first", Some(wants.clone()), 50, BUDGET);
        let stand = || async { (lab.services().await.len(), lab.written_by().await) };
        eventually("all are served", stand, |(there, (_, served))| *there == wants.len() && *served).await;
        for round in 0..2 {
            for number in 0..4 {
                lab.add_proxy(4 + 4 * round + number).await;
            }
            lab.until_written_by("maesh-controller").await;
            // With one port it is below again.
            leader.wants.send_replace(Some(owning(wants[..1].to_vec())));
            lab.until_written_by(CLUSTERS).await;
            leader.wants.send_replace(Some(owning(wants.clone())));
        }
        lab.until_written_by("maesh-controller").await;
        leader.stop().await;
    });
}
