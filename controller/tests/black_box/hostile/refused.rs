//! Own addresses that are refused one by one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use maesh_compiler::own_address::{Want, Wants};
use maesh_config::{ServiceName, model::Transport};
use maesh_controller::{
    api::Limits,
    duties::{
        addresses::{self, Options},
        events,
    },
    leader::{Candidate, Terms},
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

#[tokio::test]
async fn one_refused_address_does_not_keep_others_from_being_written() {
    let cluster = Arc::new(Cluster::default());
    let answers = cluster.clone();
    let peer = Peer::start(move |asked| answers.answer(&asked)).await;
    let client = peer.client(Limits::default());
    let terms =
        Terms { lease: Duration::from_secs(30), right: Duration::from_secs(20), retry: Duration::from_millis(300) };
    let candidate = Candidate::start(client.clone(), "maesh", "maesh", "me", terms);
    let (recorder, notes) = events::recorder();
    let want = |name: &str| Want {
        service: ServiceName::new("shop", name),
        // All the same, so each needs an address of its own.
        ports: [(5432, Transport::Tcp)].into(),
    };
    let wants = Wants { own: ["a", "b", "c", "d"].map(want).into(), shared: BTreeSet::new() };
    let (_wants, wanted) = watch::channel(Some(wants));
    let (_leaving, leaving) = watch::channel(false);
    let options = Options {
        namespace: "maesh".into(),
        selector: [("app".to_owned(), "proxy".to_owned())].into(),
        horizon: Duration::from_secs(3600),
        writes_per_second: 20,
        budget: 0,
        owner: None,
        recorder: Some(recorder),
    };
    let leadership = candidate.leadership();
    let mut duties = tokio::task::JoinSet::new();
    duties.spawn(addresses::keep(client.clone(), options, wanted, leadership.clone(), leaving));
    let who = events::Options { namespace: "maesh".into(), replica: "me".into() };
    duties.spawn(events::keep(client, who, leadership, notes));

    let names = || cluster.services.lock().keys().cloned().collect::<Vec<_>>().join(" ");
    let written = async {
        while names() != "maesh-own-1 maesh-own-3 maesh-own-4" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("all but the refused one are written, beside the name that is taken", written).await;
    let said = || {
        let events = cluster.events.lock();
        events.iter().map(|event| (event["regarding"]["name"].clone(), event["note"].clone())).collect::<Vec<_>>()
    };
    let told = async {
        while said().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("the Service on the refused one is told", told).await;
    let said = said();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].1.as_str().unwrap().contains("exceeded quota"), "{said:?}");
    for service in cluster.services.lock().values() {
        assert_eq!(service["spec"]["trafficDistribution"], "PreferSameNode");
    }
    duties.shutdown().await;
}

/// Somebody took `trafficDistribution` out of an own address: it is put back.
#[tokio::test]
async fn traffic_distribution_is_part_of_an_address() {
    let cluster = Arc::new(Cluster::default());
    let answers = cluster.clone();
    let peer = Peer::start(move |asked| answers.answer(&asked)).await;
    let client = peer.client(Limits::default());
    let terms =
        Terms { lease: Duration::from_secs(30), right: Duration::from_secs(20), retry: Duration::from_millis(300) };
    let candidate = Candidate::start(client.clone(), "maesh", "maesh", "me", terms);
    let wants = |n: usize| {
        let of = |n: usize| Want {
            service: ServiceName::new("shop", format!("s{n}")),
            ports: [(5432 + n as u16, Transport::Tcp)].into(),
        };
        Some(Wants { own: (0..n).map(of).collect(), shared: BTreeSet::new() })
    };
    let (want, wanted) = watch::channel(wants(1));
    let (_leaving, leaving) = watch::channel(false);
    let options = Options {
        namespace: "maesh".into(),
        selector: [("app".to_owned(), "proxy".to_owned())].into(),
        horizon: Duration::from_secs(3600),
        writes_per_second: 20,
        budget: 0,
        owner: None,
        recorder: None,
    };
    let mut duties = tokio::task::JoinSet::new();
    duties.spawn(addresses::keep(client, options, wanted, candidate.leadership(), leaving));
    let prefers = || {
        let services = cluster.services.lock();
        services.get("maesh-own-1").map(|service| service["spec"]["trafficDistribution"] == "PreferSameNode")
    };
    let until = async |holds: &dyn Fn() -> bool| {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("it prefers the caller's node", until(&|| prefers() == Some(true))).await;
    let mut changed = cluster.services.lock()["maesh-own-1"].clone();
    changed["spec"].as_object_mut().unwrap().remove("trafficDistribution");
    changed["metadata"]["resourceVersion"] = json!("2");
    cluster.services.lock().insert("maesh-own-1".into(), changed.clone());
    let event = json!({"type": "MODIFIED", "object": changed});
    let open = cluster.open.lock().clone();
    open.iter().filter(|(path, _)| path == SERVICES).for_each(|(_, watch)| drop(watch.send(event.clone())));
    within("it prefers it again", until(&|| prefers() == Some(true))).await;
    drop(want);
    duties.shutdown().await;
}

/// Where there are many addresses, one that changes is one write, and nothing is read.
#[tokio::test]
async fn a_change_of_one_address_reads_no_other() {
    let cluster = Arc::new(Cluster::default());
    let answers = cluster.clone();
    let peer = Peer::start(move |asked| answers.answer(&asked)).await;
    let client = peer.client(Limits::default());
    let terms =
        Terms { lease: Duration::from_secs(30), right: Duration::from_secs(20), retry: Duration::from_millis(300) };
    let candidate = Candidate::start(client.clone(), "maesh", "maesh", "me", terms);
    // All the same port, so each has an address of its own; those two that the cluster refuses are among them.
    let wants = |count: usize| {
        let of = |n: usize| Want {
            service: ServiceName::new("shop", format!("s{n}")),
            ports: [(5432, Transport::Tcp)].into(),
        };
        Some(Wants { own: (0..count).map(of).collect(), shared: BTreeSet::new() })
    };
    let (want, wanted) = watch::channel(wants(40));
    let (_leaving, leaving) = watch::channel(false);
    let options = Options {
        namespace: "maesh".into(),
        selector: [("app".to_owned(), "proxy".to_owned())].into(),
        horizon: Duration::from_secs(3600),
        writes_per_second: 1000,
        budget: 0,
        owner: None,
        recorder: None,
    };
    let mut duties = tokio::task::JoinSet::new();
    duties.spawn(addresses::keep(client, options, wanted, candidate.leadership(), leaving));
    let until = async |count: usize| {
        while cluster.services.lock().len() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("all but the refused one stand", until(39)).await;
    for more in 1..=3 {
        // What the pass before did last belongs to it.
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.asked.lock().clear();
        want.send_replace(wants(40 + more));
        within("one more stands", until(39 + more)).await;
        let asked = std::mem::take(&mut *cluster.asked.lock());
        let name = format!("{SERVICES}/maesh-own-{}", 40 + more);
        // It is asked whether somebody else has the name.
        assert_eq!(asked, [format!("GET {name}"), format!("PATCH {name}")]);
    }
    duties.shutdown().await;
}
