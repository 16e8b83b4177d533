//! Own addresses that are refused one by one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use maesh_compiler::own_address::{AddressRequest, AddressRequests};
use maesh_config::{ServiceName, model::Transport};
use maesh_controller::{
    api::Limits,
    duties::{
        addresses::{self, Options},
        events::{self, Recorder},
    },
    leader::{Candidate, LeaseTimes},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    peer::{Asked, Peer, Reply},
    silence::Leases,
    within,
};

const SERVICES: &str = "/api/v1/namespaces/maesh/services";

/// Services as they are kept, and Events as they are written.
#[derive(Default)]
struct Cluster {
    services: Mutex<BTreeMap<String, Value>>,
    events: Mutex<Vec<Value>>,
    leases: Leases,
    /// Watches that are open, by path.
    open: Mutex<Vec<(String, tokio::sync::mpsc::UnboundedSender<Value>)>>,
    /// Requests but for watches and Leases: `GET /api/v1/namespaces/maesh/services`.
    asked: Mutex<Vec<String>>,
}

impl Cluster {
    /// `maesh-own-0` is somebody else's, `maesh-own-2` exceeds a quota.
    fn answer(&self, asked: &Asked) -> Reply {
        let list = |items: Vec<Value>| {
            Reply::Json(200, json!({"kind": "List", "metadata": {"resourceVersion": "1"}, "items": items}))
        };
        if asked.path.contains("/leases") {
            return self.leases.answer(asked);
        }
        if asked.is_watch() {
            let (sender, events) = tokio::sync::mpsc::unbounded_channel();
            self.open.lock().push((asked.path.clone(), sender));
            return Reply::Events(events);
        }
        self.asked.lock().push(asked.line());
        if asked.path == "/version" {
            let version = json!({"major": "1", "minor": "35", "gitVersion": "v1.35.0", "gitCommit": "", "gitTreeState": "",
                "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
            return Reply::Json(200, version);
        }
        if asked.path == "/api/v1/namespaces/shop/services" {
            return list(vec![json!({"metadata": {"name": "any", "uid": "1"}})]);
        }
        if asked.method == "POST" {
            self.events.lock().push(asked.body.clone());
            return Reply::Json(201, asked.body.clone());
        }
        let Some(name) = asked.path.strip_prefix(SERVICES).and_then(|rest| rest.strip_prefix('/')) else {
            let all = self.services.lock();
            let all = all.values().filter(|_| asked.path == SERVICES && asked.query.contains("labelSelector"));
            return list(all.cloned().collect());
        };
        match (asked.method.as_str(), name) {
            ("GET", "maesh-own-0") => Reply::Json(200, json!({"metadata": {"name": name, "labels": {"app": "other"}}})),
            ("PATCH", "maesh-own-2") => Reply::refusal(403, "Forbidden", "exceeded quota: services"),
            ("PATCH", _) => {
                let mut service = asked.body.clone();
                service["metadata"]["uid"] = json!(name);
                self.services.lock().insert(name.to_owned(), service.clone());
                Reply::Json(200, service)
            }
            _ => Reply::refusal(404, "NotFound", "not found"),
        }
    }
}

/// A replica that leads and keeps own addresses in a cluster that answers so.
struct Replica {
    cluster: Arc<Cluster>,
    want: watch::Sender<Option<AddressRequests>>,
    peer: Peer,
    candidate: Candidate,
    _leaving: watch::Sender<bool>,
    duties: tokio::task::JoinSet<()>,
}

impl Replica {
    async fn start(wants: AddressRequests, writes_per_second: u32, recorder: Option<Recorder>) -> Self {
        let cluster = Arc::new(Cluster::default());
        let answers = cluster.clone();
        let peer = Peer::start(move |asked| answers.answer(&asked)).await;
        let client = peer.client(Limits::default());
        let terms = LeaseTimes {
            lease: Duration::from_secs(30),
            right: Duration::from_secs(20),
            retry: Duration::from_millis(300),
        };
        let candidate = Candidate::start(client.clone(), "maesh", "maesh", "me", terms);
        let (want, wanted) = watch::channel(Some(wants));
        let (leaving, is_leaving) = watch::channel(false);
        let options = Options {
            namespace: "maesh".into(),
            selector: [("app".to_owned(), "proxy".to_owned())].into(),
            horizon: Duration::from_secs(3600),
            writes_per_second,
            budget: 0,
            owner: None,
            recorder,
        };
        let mut duties = tokio::task::JoinSet::new();
        duties.spawn(addresses::keep(client, options, wanted, candidate.leadership(), is_leaving));
        Self { cluster, want, peer, candidate, _leaving: leaving, duties }
    }

    /// Waits until the cluster is as said.
    async fn until(&self, what: &str, holds: impl Fn(&Cluster) -> bool) {
        within(what, async {
            while !holds(&self.cluster) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// So many Services with the same port: each has an address of its own.
fn wants(count: usize) -> AddressRequests {
    let of = |n: usize| AddressRequest {
        service: ServiceName::new("shop", format!("s{n}")),
        ports: [(5432, Transport::Tcp)].into(),
    };
    AddressRequests { own: (0..count).map(of).collect(), shared: BTreeSet::new() }
}

#[tokio::test]
async fn one_refused_address_does_not_keep_others_from_being_written() {
    let (recorder, notes) = events::recorder();
    let mut replica = Replica::start(wants(4), 20, Some(recorder)).await;
    let who = events::Options { namespace: "maesh".into(), replica: "me".into() };
    let client = replica.peer.client(Limits::default());
    replica.duties.spawn(events::keep(client, who, replica.candidate.leadership(), notes));
    let names = |cluster: &Cluster| cluster.services.lock().keys().cloned().collect::<Vec<_>>().join(" ");
    let written = |cluster: &Cluster| names(cluster) == "maesh-own-1 maesh-own-3 maesh-own-4";
    replica.until("all but the refused one are written, beside the name that is taken", written).await;
    let said = |cluster: &Cluster| {
        let events = cluster.events.lock();
        events.iter().map(|event| (event["regarding"]["name"].clone(), event["note"].clone())).collect::<Vec<_>>()
    };
    replica.until("the Service on the refused one is told", |cluster| !said(cluster).is_empty()).await;
    let said = said(&replica.cluster);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].1.as_str().unwrap().contains("exceeded quota"), "{said:?}");
    for service in replica.cluster.services.lock().values() {
        assert_eq!(service["spec"]["trafficDistribution"], "PreferSameNode");
    }
    replica.duties.shutdown().await;
}

/// Somebody took `trafficDistribution` out of an own address: it is put back.
#[tokio::test]
async fn traffic_distribution_is_part_of_an_address() {
    let mut replica = Replica::start(wants(1), 20, None).await;
    let prefers = |cluster: &Cluster| {
        let services = cluster.services.lock();
        services.get("maesh-own-1").is_some_and(|service| service["spec"]["trafficDistribution"] == "PreferSameNode")
    };
    replica.until("it prefers the caller's node", prefers).await;
    let cluster = replica.cluster.clone();
    let mut changed = cluster.services.lock()["maesh-own-1"].clone();
    changed["spec"].as_object_mut().unwrap().remove("trafficDistribution");
    changed["metadata"]["resourceVersion"] = json!("2");
    cluster.services.lock().insert("maesh-own-1".into(), changed.clone());
    let event = json!({"type": "MODIFIED", "object": changed});
    let open = cluster.open.lock().clone();
    open.iter().filter(|(path, _)| path == SERVICES).for_each(|(_, watch)| drop(watch.send(event.clone())));
    replica.until("it prefers it again", prefers).await;
    replica.duties.shutdown().await;
}

/// Where there are many addresses, one that changes is one write, and nothing is read.
#[tokio::test]
async fn a_change_of_one_address_reads_no_other() {
    // Those two that the cluster refuses are among them.
    let mut replica = Replica::start(wants(40), 1000, None).await;
    let stand = |count: usize| move |cluster: &Cluster| cluster.services.lock().len() >= count;
    replica.until("all but the refused one stand", stand(39)).await;
    for more in 1..=3 {
        // What the pass before did last belongs to it.
        tokio::time::sleep(Duration::from_secs(1)).await;
        replica.cluster.asked.lock().clear();
        replica.want.send_replace(Some(wants(40 + more)));
        replica.until("one more stands", stand(39 + more)).await;
        let asked = std::mem::take(&mut *replica.cluster.asked.lock());
        let name = format!("{SERVICES}/maesh-own-{}", 40 + more);
        // It is asked whether somebody else has the name.
        assert_eq!(asked, [format!("GET {name}"), format!("PATCH {name}")]);
    }
    replica.duties.shutdown().await;
}
