//! Own addresses as Services, on a real kube-apiserver that gives them their ClusterIPs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client, api::ListParams};
use maesh_controller::source::kubernetes;
use maesh_testkube::ApiServer;
use tokio::time::sleep;

use crate::{
    replica::{Replica, owning, want},
    support::{PATIENCE, eventually, kubectl, on, runtime, with_client},
};

/// More than any test has.
const BUDGET: u32 = 20_000;

/// Where users' Services stand: their addresses, by name.
type Standing = BTreeMap<String, BTreeSet<String>>;

/// Reads it from the cluster, and checks that ports and what is said of them agree.
async fn standing(client: &Client) -> Standing {
    let services = Api::<Service>::namespaced(client.clone(), "default");
    let ours = ListParams::default().labels("maesh.containo.us/own-address");
    let mut standing = Standing::new();
    for service in services.list(&ours).await.unwrap() {
        let spec = service.spec.unwrap();
        let Some(text) = service.metadata.annotations.unwrap_or_default().remove("maesh.containo.us/own-ports") else {
            continue;
        };
        let said: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let served: BTreeSet<_> = spec.ports.unwrap().iter().map(|port| i64::from(port.port)).collect();
        assert_eq!(served, said.iter().map(|entry| entry["port"].as_i64().unwrap()).collect());
        for entry in said.iter().filter(|entry| entry.get("leaving").is_none()) {
            let addresses = standing.entry(entry["service"].as_str().unwrap().to_owned()).or_default();
            addresses.extend(spec.cluster_ips.clone().unwrap());
        }
    }
    standing
}

impl Replica {
    async fn until(&self, what: &str, holds: impl Fn(&Standing) -> bool) -> Standing {
        eventually(what, || standing(&self.client), holds).await
    }
}

fn services(server: &ApiServer) -> String {
    kubectl(server, "get services --output name")
}

#[test]
fn own_addresses_are_given_kept_and_taken_back() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let runtime = runtime(&server);
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
        let first = Replica::start(&client, "first", None, 20, BUDGET);
        first.leads().await;
        first.wants.send_replace(Some(owning(given)));
        let standing = first.until("all three stand", |now| now.len() == 3).await;
        (client, first, standing)
    });
    let long_ = format!("{long}/{long}");
    assert_eq!(before["shop/db"], before["shop/cache"], "different ports share an address");
    assert_ne!(before["shop/db"], before[&long_], "the same port does not");
    let gone = maesh_test_support::until(PATIENCE, || !services(&server).contains("maesh-own-7"));
    assert!(gone, "the orphan is gone: {}", services(&server));
    assert!(services(&server).contains("maesh-own-9"), "what is not ours is not touched");

    // Another leads: nothing moves.
    let (again, stood) = (wants.clone(), before.clone());
    let second = on(&runtime, async move {
        first.stop().await;
        let second = Replica::start(&client, "second", Some(again), 20, BUDGET);
        second.leads().await;
        second.until("the same as before", |now| *now == stood).await;
        second
    });
    // Somebody deletes one: it is back, though at another address.
    kubectl(&server, "delete service maesh-own-1");
    let second = on(&runtime, async move {
        second.until("back", |now| now.len() == 3 && now["shop/db"] == before["shop/db"]).await;
        let shop = wants.into_iter().filter(|want| &*want.service.namespace == "shop").collect();
        second.wants.send_replace(Some(owning(shop)));
        second.until("no longer wanted", |now| now.len() == 2).await;
        second
    });
    let gone = maesh_test_support::until(PATIENCE, || !services(&server).contains("maesh-own-1"));
    assert!(gone, "removed after the horizon: {}", services(&server));

    // While somebody takes the mesh away, nothing is given, whatever is wanted; if he thinks better of it, it is again.
    second.leaving.send_replace(true);
    kubectl(&server, "delete service maesh-own-0");
    on(&runtime, async move {
        second.wants.send_replace(Some(owning(vec![want("shop", "new", &[80])])));
        sleep(Duration::from_secs(2)).await;
        assert_eq!(standing(&second.client).await, Standing::new());
        second.leaving.send_replace(false);
        second.until("given again", |now| now.len() == 1).await;
        second.stop().await;
    });
}

/// How often this verb was used on Services so far, by anybody.
fn requests(server: &ApiServer, verb: &str) -> usize {
    let text = kubectl(server, "get --raw /metrics");
    let wanted = |line: &&str| {
        line.starts_with("apiserver_request_total{")
            && line.contains(r#"resource="services""#)
            && line.contains(&format!("verb=\"{verb}\""))
    };
    let counts = text.lines().filter(wanted).map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap());
    counts.sum::<f64>() as usize
}

/// Twelve hundred Services on two hundred own addresses: the writes are no faster than they may be, and cost no list of all
/// Services each. Once each event of the watch made a list and a pass over everything, so the more Services there were, the
/// longer a change took.
#[test]
fn twelve_hundred_at_once_take_two_hundred_paced_writes_and_few_lists() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let before = ["LIST", "APPLY"].map(|verb| requests(&server, verb));
    let mut wants: Vec<_> = (0..200).map(|n| want("shop", &format!("same-{n}"), &[5432])).collect();
    wants.extend((0..1000).map(|n| want("shop", &format!("other-{n}"), &[10_000 + n])));
    let (took, looks) = with_client(&server, |client| async move {
        let begun = Instant::now();
        let replica = Replica::start(&client, "first", Some(wants), 50, BUDGET);
        let looks = AtomicUsize::new(0);
        let all = |now: &Standing| {
            looks.fetch_add(1, Ordering::Relaxed);
            now.len() == 1200
        };
        replica.until("all stand", all).await;
        let took = begun.elapsed();
        replica.stop().await;
        (took, looks.into_inner())
    });
    let [lists, writes] =
        [("LIST", before[0]), ("APPLY", before[1])].map(|(verb, before)| requests(&server, verb) - before);
    let lists = lists - looks;
    println!(
        "1,200 Services stood after {took:?}, with {writes} writes and {lists} lists besides {looks} of this test"
    );
    assert!(took > Duration::from_secs(1), "200 writes at 50 in a second, 100 of them at once: {took:?}");
    let given = services(&server).matches("maesh-own-").count();
    assert_eq!(given, 200, "one address for six Services");
    // A replica that loses its lease on a busy machine writes once more what it was writing.
    assert!((200..210).contains(&writes), "one write for each address, not {writes} for 200");
    assert!(lists < 40, "{lists} lists for 200 writes");
}
