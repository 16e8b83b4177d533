//! Several replicas of a controller: a proxy is configured by one, and every one of them knows it.

use std::{net::SocketAddr, time::Duration};

use tokio::net::TcpListener;

use super::{
    tcp::{End, listen, over_tcp},
    *,
};
use crate::auth::NoAuthentication;
use maesh_config::model::Mesh;

fn mesh(controllers: &[SocketAddr]) -> Resource {
    Resource::Mesh(Mesh {
        zones: Vec::new(),
        cluster_domain: "cluster.local".into(),
        fail_to_plain: true,
        bypass: false,
        access_control: maesh_config::model::AccessControl::Off,
        access_sources: Vec::new(),
        controllers: controllers.to_vec(),
    })
}

/// A replica that listens.
struct Replica {
    store: Arc<Store>,
    server: Server,
    address: SocketAddr,
    _end: End,
}

async fn replica(at: &str) -> Replica {
    let store = complete(&[mesh(&[]), listener(80, true), listener(81, true)]);
    let server = serve(&store);
    let (address, _end) = listen(&server, None, Arc::new(NoAuthentication::loopback()), at).await;
    Replica { store, server, address: address.parse().unwrap(), _end }
}

/// Takes whatever comes, for ever; cannot listen on port 81.
fn follow(mut role: Applied) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let update = role.next().await;
            let taken = update.upserts.iter().filter(|it| &*it.key().name == "shared/81/tcp");
            let taken = taken.map(|it| Rejected { name: it.key().name, message: "the port is taken".to_owned() });
            let rejected = taken.collect();
            role.apply(update, rejected);
            role.subscribed.report.send_replace(role.complete.len() == 2 && role.names(Kind::Listener).len() < 3);
        }
    })
}

fn knows(all: &[Subscriber], listeners: usize, ready: bool) -> bool {
    all.first().is_some_and(|it| it.listening.len() + it.failed.len() == listeners && it.ready == ready)
}

#[tokio::test]
async fn every_replica_knows_a_proxy_that_one_of_them_configures() {
    let (one, two) = (replica("127.0.0.1:0").await, replica("127.0.0.1:0").await);
    let config = over_tcp(&one.server, &[&one.address.to_string()], None, Token::None);
    let running = follow(role(SubscriberConfig { wildcard: vec![Kind::Mesh, Kind::Listener], ..config }));
    seen(&one.server, |all| knows(all, 2, true)).await;
    assert!(two.server.subscribers().borrow().is_empty(), "nobody said that there are two");

    for replica in [&one, &two] {
        replica.store.apply(&upserts([mesh(&[one.address, two.address])]));
    }
    let there = seen(&two.server, |all| knows(all, 2, true)).await;
    assert!(there[0].elsewhere);
    assert_eq!(there[0].listening.iter().map(ToString::to_string).collect::<Vec<_>>(), ["shared/80/tcp"]);
    assert_eq!(*there[0].failed[&ListenerId("shared/81/tcp".into())], *"the port is taken");
    let here = seen(&one.server, |all| knows(all, 2, true)).await;
    assert!(!here[0].elsewhere, "its own stream counts where both are");

    // What it puts in force, and that it takes no work any more, is known everywhere.
    one.store.apply(&upserts([listener(82, true), listener(83, true)]));
    seen(&two.server, |all| knows(all, 4, false)).await;

    running.abort();
    seen(&two.server, <[_]>::is_empty).await;
}

#[tokio::test]
async fn a_replica_that_is_replaced_is_told_anew() {
    let (one, two) = (replica("127.0.0.1:0").await, replica("127.0.0.1:0").await);
    one.store.apply(&upserts([mesh(&[two.address])]));
    let config = over_tcp(&one.server, &[&one.address.to_string()], None, Token::None);
    let _running = follow(role(SubscriberConfig { wildcard: vec![Kind::Mesh, Kind::Listener], ..config }));
    seen(&two.server, |all| knows(all, 2, true)).await;

    // Not named any more, it is still told, as long as it is there.
    let three = replica("127.0.0.1:0").await;
    one.store.apply(&upserts([mesh(&[three.address])]));
    seen(&three.server, |all| knows(all, 2, true)).await;
    assert!(knows(&two.server.subscribers().borrow(), 2, true));
    two.server.shutdown();
    seen(&two.server, <[_]>::is_empty).await;
    let streams = two.server.counters().streams();

    // Back at its address, but not named, it is left alone; the one that is named and comes back is told.
    let (address, three) = (three.address.to_string(), three);
    three.server.shutdown();
    seen(&three.server, <[_]>::is_empty).await;
    drop(three);
    let again = loop {
        match TcpListener::bind(&address).await {
            Ok(free) => break free,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    drop(again);
    let again = replica(&address).await;
    seen(&again.server, |all| knows(all, 2, true)).await;
    assert_eq!(two.server.counters().streams(), streams);
}
