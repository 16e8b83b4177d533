//! Own addresses as Services, on a real kube-apiserver that gives them their ClusterIPs.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use kube::Client;
use maesh_config::{ServiceName, model::Transport};
use maesh_controller::{
    leader::{Candidate, Terms},
    own::{self, Options, Placements, Want},
    source::kubernetes,
};
use maesh_testkube::ApiServer;
use tokio::{runtime::Runtime, sync::watch, task::JoinHandle, time::timeout};

const PATIENCE: Duration = Duration::from_secs(30);
const HORIZON: Duration = Duration::from_secs(3);

fn want(namespace: &str, name: &str, ports: &[u16]) -> Want {
    let service = ServiceName::new(namespace, name);
    Want { service, ports: ports.iter().map(|port| (*port, Transport::Tcp)).collect() }
}

/// A replica's part in own addresses.
struct Replica {
    candidate: Candidate,
    wants: watch::Sender<Option<Vec<Want>>>,
    placements: watch::Receiver<Placements>,
    keeping: JoinHandle<()>,
}

impl Replica {
    fn start(client: &Client, me: &str, wants: Option<Vec<Want>>) -> Self {
        let terms =
            Terms { lease: Duration::from_secs(3), right: Duration::from_secs(2), retry: Duration::from_millis(300) };
        let candidate = Candidate::start(client.clone(), "default", "maesh", me, terms);
        let (wants, wanted) = watch::channel(wants);
        let (told, placements) = watch::channel(Placements::new());
        let selector = [("app.kubernetes.io/component".to_owned(), "proxy".to_owned())].into();
        let options = Options { namespace: "default".into(), selector, horizon: HORIZON };
        let keeping = tokio::spawn(own::keep(client.clone(), options, wanted, candidate.leadership(), told));
        Self { candidate, wants, placements, keeping }
    }

    async fn until(&mut self, what: &str, holds: impl FnMut(&Placements) -> bool) -> Placements {
        let found = timeout(PATIENCE, self.placements.wait_for(holds)).await.map(|found| found.unwrap().clone());
        found.unwrap_or_else(|_| panic!("{what}: {:?}", self.placements.borrow()))
    }

    async fn stop(self) {
        self.keeping.abort();
        let _ = self.keeping.await;
        self.candidate.stop().await;
    }
}

/// Runs `work` on the runtime's own threads.
fn on<T: Send + 'static>(runtime: &Runtime, work: impl Future<Output = T> + Send + 'static) -> T {
    runtime.block_on(runtime.spawn(work)).unwrap()
}

fn services(server: &ApiServer) -> String {
    let output = server
        .kubectl()
        .args(["get", "services", "--output", "jsonpath={range .items[*]}{.metadata.name} {end}"])
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

#[test]
fn own_addresses_are_given_kept_and_taken_back() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    // Its threads belong to the server's network namespace; this one does not.
    let runtime = server
        .namespace()
        .run(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
    let runtime = runtime.unwrap();
    // An orphan of ours that says nothing, and a Service that is not ours.
    let spec = "spec: {ports: [{port: 1}]}";
    let orphan = "metadata: {name: maesh-own-7, labels: {maesh.containo.us/own-address: \"true\"}}";
    let foreign = "metadata: {name: maesh-own-9}";
    for metadata in [orphan, foreign] {
        server.apply(&format!("apiVersion: v1\nkind: Service\n{metadata}\n{spec}\n")).unwrap();
    }
    let long = "n".repeat(63);
    let wants = vec![want("shop", "db", &[5432]), want("shop", "cache", &[6379]), want(&long, &long, &[5432, 5433])];
    let kubeconfig = server.kubeconfig().to_owned();
    let given = wants.clone();
    let (client, first, before) = on(&runtime, async move {
        let client = kubernetes::client(Some(&kubeconfig), None).await.unwrap();
        let mut first = Replica::start(&client, "first", None);
        let mut leads = first.candidate.leadership().watch();
        timeout(PATIENCE, leads.wait_for(|now| *now)).await.unwrap().unwrap();
        first.wants.send_replace(Some(given));
        let placements = first.until("all three stand", |now| now.len() == 3).await;
        (client, first, placements)
    });
    let address = |placements: &Placements, name: &str| {
        placements.iter().find(|(service, _)| &*service.name == name).map(|(_, placed)| placed.addresses.clone())
    };
    assert_eq!(address(&before, "db"), address(&before, "cache"), "different ports share an address");
    assert_ne!(address(&before, "db"), address(&before, &long), "the same port does not");
    let there = maesh_test_support::until(PATIENCE, || !services(&server).contains("maesh-own-7"));
    assert!(there, "the orphan is gone: {}", services(&server));
    assert!(services(&server).contains("maesh-own-9"), "what is not ours is not touched");

    // Another leads: nothing moves, and a standby says the same.
    let (again, stood, client2) = (wants.clone(), before.clone(), client.clone());
    let second = on(&runtime, async move {
        first.stop().await;
        let mut second = Replica::start(&client2, "second", Some(again));
        let mut leads = second.candidate.leadership().watch();
        timeout(PATIENCE, leads.wait_for(|now| *now)).await.unwrap().unwrap();
        second.until("the same as before", |now| *now == stood).await;
        let mut standby = Replica::start(&client2, "standby", None);
        standby.until("a standby sees it too", |now| *now == stood).await;
        standby.stop().await;
        second
    });
    // Somebody deletes one: it is back, though at another address.
    assert!(server.kubectl().args(["delete", "service", "maesh-own-1"]).status().unwrap().success());
    let stood = before.clone();
    let (mut second, long_) = (second, long.clone());
    let second = on(&runtime, async move {
        second.until("back", |now| now.len() == 3 && address(now, "db") == address(&stood, "db")).await;
        let (shop, rest): (Vec<_>, Vec<_>) = wants.into_iter().partition(|want| &*want.service.namespace == "shop");
        assert_eq!(&*rest[0].service.name, long_);
        second.wants.send_replace(Some(shop));
        second.until("no longer wanted", |now| now.len() == 2).await;
        second
    });
    let gone = maesh_test_support::until(PATIENCE, || !services(&server).contains("maesh-own-1"));
    assert!(gone, "removed after the horizon: {}", services(&server));
    on(&runtime, second.stop());
}
