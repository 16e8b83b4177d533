//! What goes wrong between a controller and its subscribers, and what each does then.

use tokio_util::sync::CancellationToken;

use super::*;

/// A way to `server` that passes nothing on any more once `stopped`, as if one of the two ends hung.
fn relay(server: &Server, stopped: CancellationToken) -> InProcess {
    let (way, mut connections) = InProcess::new();
    let server = server.in_process();
    tokio::spawn(async move {
        while let Some(mut from) = connections.recv().await {
            let (server, stopped) = (server.clone(), stopped.clone());
            tokio::spawn(async move {
                let mut to = server.connect().await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
                    // Both connections stay open.
                    () = stopped.cancelled() => std::future::pending().await,
                }
            });
        }
    });
    way
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_hangs_is_noticed_by_both_ends() {
    let store = store_with(&[name("shop/web", 1)], 0);
    let server = serve(&store);
    let stopped = CancellationToken::new();
    let mut config = config(&server, &[Kind::Name], &[]);
    config.connect = Connect::InProcess(relay(&server, stopped.clone()));
    let mut role = role(config);
    role.step().await;
    seen(&server, |all| !all.is_empty()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(role.subscribed.status.connects(), 1, "a quiet stream stays open");
    stopped.cancel();
    let since = tokio::time::Instant::now();
    seen(&server, <[_]>::is_empty).await;
    assert!(since.elapsed() <= Duration::from_secs(3), "the server noticed after {:?}", since.elapsed());
    let mut connected = role.subscribed.connected.clone();
    connected.wait_for(|connected| !connected).await.unwrap();
    assert!(since.elapsed() <= Duration::from_secs(4), "the subscriber noticed after {:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_rejected_listener_is_acknowledged_once_it_is_asked_for_again() {
    let store = store_with(&[listener(80, true), listener(81, true)], 0);
    let server = serve(&store);
    let mut role = role(config(&server, &[Kind::Listener], &[]));
    let update = role.next().await;
    let id: Arc<str> = "shared/80/tcp".into();
    let refused = |message: &str| vec![Rejected { name: id.clone(), message: message.to_owned() }];
    role.apply(update, refused("taken"));
    let all = seen(&server, |all| all.iter().any(|it| !it.failed.is_empty())).await;
    assert_eq!(all[0].listening.len(), 1);
    for again in 0..2 {
        role.subscribed.interest.again(Kind::Listener, id.clone());
        let update = role.next().await;
        assert_eq!(update.upserts.len(), 1, "only this one, try {again}");
        role.apply(update, if again == 0 { refused("still taken") } else { Vec::new() });
    }
    let all = seen(&server, |all| all.iter().any(|it| it.failed.is_empty())).await;
    assert_eq!(all[0].listening.len(), 2);
}

fn store_with(resources: &[Resource], reached: u64) -> Arc<Store> {
    let store = complete(resources);
    store.set_progress(Progress { replica: format!("c{reached}").into(), reached });
    store
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..600 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what}: not within a minute");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_does_not_answer_is_dropped_and_resumes() {
    let store = store_with(&[name("shop/web", 1)], 0);
    let server = serve(&store);
    let mut role = role(config(&server, &[Kind::Name], &[]));
    let update = role.next().await;
    for plain in 2..200 {
        store.apply(&upserts([name("shop/web", plain), name("shop/api", plain)]));
    }
    until("dropped", || server.counters().dropped() == 1).await;
    assert_eq!(server.counters().pushes(), 1, "what changed meanwhile waits for nobody");
    role.apply(update, Vec::new());
    while role.has.len() < 2 || role.has.values().any(|it| **it != name(&it.key().name, 199)) {
        role.step().await;
    }
    assert_eq!(server.counters().pushes(), 2, "the newest, once");
}

#[tokio::test(start_paused = true)]
async fn a_change_after_a_long_quiet_drops_nobody() {
    let store = store_with(&[name("shop/web", 1)], 0);
    let server = serve(&store);
    let mut role = role(config(&server, &[Kind::Name], &[]));
    role.next().await;
    for plain in 2..10 {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        store.apply(&upserts([name("shop/web", plain)]));
        role.next().await;
    }
    let counters = server.counters();
    assert_eq!((counters.streams(), counters.dropped()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_is_behind_is_not_followed_at_first() {
    let ahead = store_with(&[name("shop/web", 1), name("shop/api", 1)], 10);
    let behind = store_with(&[name("shop/web", 1)], 5);
    let server = serve(&ahead);
    let (way, door) = door(&server);
    let mut config = config(&server, &[Kind::Name], &[]);
    config.connect = Connect::InProcess(way);
    let behind_for = config.timing.behind;
    let mut role = role(config);
    role.step().await;
    let late = serve(&behind);
    *door.lock() = late.in_process();
    server.shutdown();
    let since = tokio::time::Instant::now();
    role.step().await;
    assert!(since.elapsed() >= behind_for, "believed after {:?}", since.elapsed());
    assert_eq!(role.names(Kind::Name), ["shop/web"], "it was not behind, the cluster was put back");
    let error = role.subscribed.status.last_error().unwrap();
    assert!(error.starts_with("c5 has seen the cluster up to 5 only"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_catches_up_is_followed_at_once() {
    let ahead = store_with(&[name("shop/web", 1)], 10);
    let behind = store_with(&[], 5);
    let server = serve(&ahead);
    let (way, door) = door(&server);
    let mut config = config(&server, &[Kind::Name], &[]);
    config.connect = Connect::InProcess(way);
    let mut role = role(config);
    role.step().await;
    let late = serve(&behind);
    *door.lock() = late.in_process();
    server.shutdown();
    until("refused", || role.subscribed.status.failures() >= 2).await;
    behind.apply(&upserts([name("shop/web", 2)]));
    behind.set_progress(Progress { replica: "c".into(), reached: 11 });
    let since = tokio::time::Instant::now();
    role.step().await;
    assert!(since.elapsed() < Duration::from_secs(5), "after {:?}", since.elapsed());
    assert_eq!(role.has.values().map(|it| (**it).clone()).collect::<Vec<_>>(), [name("shop/web", 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_controller_with_stale_watches_refuses_new_streams_and_keeps_the_open_ones() {
    let store = store_with(&[name("shop/web", 1)], 0);
    let server = serve(&store);
    let mut open = role(config(&server, &[Kind::Name], &[]));
    open.step().await;
    store.set_refusing(Some("watches are stale".into()));
    let mut late = role(config(&server, &[Kind::Name], &[]));
    until("refused", || late.subscribed.status.failures() > 0).await;
    assert!(late.subscribed.status.last_error().unwrap().contains("watches are stale"));
    store.apply(&upserts([name("shop/web", 2)]));
    open.step().await;
    store.set_refusing(None);
    late.step().await;
    assert_eq!(late.names(Kind::Name), ["shop/web"]);
}

#[tokio::test(start_paused = true)]
async fn where_every_controller_is_stale_they_are_followed_after_a_while() {
    let store = store_with(&[name("shop/web", 1)], 0);
    store.set_refusing(Some("watches are stale".into()));
    let server = serve(&store);
    let config = config(&server, &[Kind::Name], &[]);
    let behind = config.timing.behind;
    let since = tokio::time::Instant::now();
    let mut role = role(config);
    role.step().await;
    assert!(since.elapsed() >= behind, "followed after {:?}", since.elapsed());
    assert_eq!(role.names(Kind::Name), ["shop/web"]);
}

#[tokio::test(start_paused = true)]
async fn one_subscriber_more_than_is_served_is_refused() {
    let store = store_with(&[name("shop/web", 1)], 0);
    let server = Server::new(store, ServerOptions { subscribers: 1, ..ServerOptions::default() });
    let mut first = role(config(&server, &[Kind::Name], &[]));
    first.step().await;
    let mut second = role(config(&server, &[Kind::Name], &[]));
    until("refused", || server.counters().refused() > 0).await;
    drop(first);
    second.step().await;
}
