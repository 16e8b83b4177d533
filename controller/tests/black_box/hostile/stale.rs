//! A replica that is cut off from the API server, beside one that is not: whom subscribers follow.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use maesh_compiler::compile::{Compiler, Config, ConnectedProxy};
use maesh_config::{Change, Kind};
use maesh_controller::{
    api::Limits,
    serve::{Controller, Sink},
    source::kubernetes::{self, Freshness, Options},
};
use maesh_discovery::{
    Connect, Progress, Server, ServerOptions, Store, Subscribed, SubscriberConfig, Timing, Token, start,
    update::{Identity, Role},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::{
    peer::{Asked, Peer, Reply},
    within,
};

/// What one cluster says, to whoever asks.
#[derive(Default)]
struct Cluster {
    watchers: Mutex<Vec<(String, mpsc::UnboundedSender<Value>)>>,
}

impl Cluster {
    fn answer(&self, asked: &Asked) -> Reply {
        let (sender, events) = mpsc::unbounded_channel();
        let annotations = json!({"k8s.io/initial-events-end": "true"});
        let metadata = json!({"resourceVersion": "10", "annotations": annotations});
        sender
            .send(json!({"type": "BOOKMARK", "object": {"kind": "X", "apiVersion": "v1", "metadata": metadata}}))
            .unwrap();
        self.watchers.lock().push((asked.path.clone(), sender));
        Reply::Events(events)
    }

    fn add_service(&self, name: &str, version: u64) {
        let metadata = json!({"namespace": "shop", "name": name, "resourceVersion": version.to_string()});
        let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]});
        let event = json!({"type": "ADDED", "object": {"metadata": metadata, "spec": spec}});
        for (_, watcher) in self.watchers.lock().iter().filter(|(path, _)| path == "/api/v1/services") {
            // The one that is cut off has gone.
            let _ = watcher.send(event.clone());
        }
    }
}

struct IntoStore(Arc<Store>, &'static str);

impl Sink for IntoStore {
    fn apply(&mut self, change: &Change) -> u64 {
        self.0.apply(change)
    }

    fn reached(&mut self, version: u64) {
        self.0.set_progress(Progress { replica: self.1.into(), reached: version });
    }

    fn configured(&mut self) {}

    fn complete(&mut self) {
        self.0.mark_complete();
    }
}

/// One replica of the controller.
struct Replica {
    cut: Arc<AtomicBool>,
    server: Server,
    store: Arc<Store>,
    _held: (Peer, Controller, watch::Sender<Vec<ConnectedProxy>>, tokio::task::JoinSet<()>),
}

impl Replica {
    async fn start(cluster: &Arc<Cluster>, name: &'static str) -> Self {
        let cut = Arc::new(AtomicBool::new(false));
        let (cluster, is_cut) = (cluster.clone(), cut.clone());
        let peer = Peer::start(
            move |asked| {
                if is_cut.load(Ordering::Acquire) { Reply::Nothing } else { cluster.answer(&asked) }
            },
        )
        .await;
        let short = Duration::from_millis(500);
        let client = peer.client(Limits { answer: short, silence: short, slack: short });
        let options = Options { watch_for: Duration::from_secs(1), ..Options::default() };
        let compiler = Compiler::new(Config { config_maps_on_demand: true, ..Config::default() });
        let (batches, watches) = kubernetes::start(&client, &options, &compiler.door());
        let store = Arc::new(Store::new());
        let (proxies, watched) = watch::channel(Vec::new());
        let sink = IntoStore(store.clone(), name);
        let (controller, _) = Controller::start(compiler, batches, watched, Duration::ZERO, sink).unwrap();
        let fresh = Freshness {
            failing: Duration::from_secs(2),
            silent: Duration::from_secs(4),
            look: Duration::from_millis(20),
        };
        let refusing = store.clone();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(kubernetes::follow_staleness(watches, fresh, move |why| refusing.set_refusing(why)));
        let server = Server::new(store.clone(), ServerOptions::default());
        Self { cut, server, store, _held: (peer, controller, proxies, tasks) }
    }

    async fn has(&self, what: &str, count: usize) {
        let there = async {
            while self.store.len() < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within(what, there).await;
    }
}

fn subscribe(replica: &Replica, behind: Duration) -> Subscribed {
    start(SubscriberConfig {
        identity: Identity { role: Role::Dns, id: "dns".into(), node: None, addresses: vec![], version: "0".into() },
        wildcard: vec![Kind::Name],
        on_demand: vec![],
        connect: Connect::InProcess(replica.server.in_process()),
        token: Token::None,
        state: None,
        timing: Timing { behind, ..Timing::default() },
    })
}

/// The names that a subscriber is told first.
async fn names(subscribed: &mut Subscribed) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    loop {
        let update = subscribed.updates.recv().await.unwrap();
        names.extend(update.upserts.iter().map(|resource| resource.key().name.to_string()));
        if update.complete {
            return names;
        }
    }
}

#[tokio::test]
async fn a_replica_that_is_cut_off_refuses_until_nobody_knows_better() {
    let cluster = Arc::new(Cluster::default());
    let (cut_off, other) = (Replica::start(&cluster, "a").await, Replica::start(&cluster, "b").await);
    let nothing = cut_off.store.len();
    for replica in [&cut_off, &other] {
        replica.has("a first configuration", 1).await;
    }
    cluster.add_service("web", 11);
    for replica in [&cut_off, &other] {
        replica.has("the Service", nothing.max(1) + 3).await;
    }
    let mut early = subscribe(&cut_off, Duration::from_secs(3600));
    assert!(within("served while fresh", names(&mut early)).await.contains("shop/web"));

    cut_off.cut.store(true, Ordering::Release);
    let refused = async {
        loop {
            let mut late = subscribe(&cut_off, Duration::from_secs(3600));
            let status = late.status.clone();
            let refused = async {
                while !status.last_error().is_some_and(|error| error.contains("were last heard of")) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::select! {
                // Still fresh: once more.
                _ = names(&mut late) => tokio::time::sleep(Duration::from_millis(100)).await,
                () = refused => return,
            }
        }
    };
    within("new subscribers are refused", refused).await;
    let mut elsewhere = subscribe(&other, Duration::from_secs(3600));
    assert!(within("the other one serves", names(&mut elsewhere)).await.contains("shop/web"));

    // Where no replica is better, it serves what it has.
    let mut patient = subscribe(&cut_off, Duration::from_secs(1));
    assert!(within("served after a while", names(&mut patient)).await.contains("shop/web"));

    // Fresh again, it serves at once.
    cut_off.cut.store(false, Ordering::Release);
    let mut back = subscribe(&cut_off, Duration::from_secs(3600));
    within("served again", names(&mut back)).await;
}
