//! Watches that end, lists that lag behind, and objects that cannot be read.

use std::{sync::Arc, time::Duration};

use maesh_compiler::{
    event::Event,
    kinds::{ObjectId, ObjectKind, ReadContext},
};
use maesh_controller::{
    api::Limits,
    source::{
        Batches,
        kubernetes::{self, Options, Watches},
    },
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    peer::{Asked, Peer, Reply},
    within,
};

fn service(name: &str, version: u64, ports: &Value) -> Value {
    json!({"metadata": {"namespace": "shop", "name": name, "resourceVersion": version.to_string()},
        "spec": {"ports": ports}})
}

fn event(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}

/// The end of a streamed list.
fn listed(version: u64) -> Value {
    let annotations = json!({"k8s.io/initial-events-end": "true"});
    event(
        "BOOKMARK",
        &json!({"kind": "Service", "apiVersion": "v1",
        "metadata": {"resourceVersion": version.to_string(), "annotations": annotations}}),
    )
}

/// A server of Services. Each watch of them is taken by the test: what was asked, and what is to be said.
async fn server() -> (Peer, mpsc::UnboundedReceiver<(Asked, mpsc::UnboundedSender<Value>)>) {
    server_of("/api/v1/services").await
}

/// A server of one kind. Each watch of it is taken by the test.
async fn server_of(path: &'static str) -> (Peer, mpsc::UnboundedReceiver<(Asked, mpsc::UnboundedSender<Value>)>) {
    let (watches, taken) = mpsc::unbounded_channel();
    let others = Arc::new(Mutex::new(Vec::new()));
    let peer = Peer::start(move |asked| {
        let (sender, events) = mpsc::unbounded_channel();
        if asked.path == path {
            watches.send((asked, sender)).unwrap();
        } else {
            // There is nothing of the other kinds.
            sender.send(listed(1)).unwrap();
            others.lock().push(sender);
        }
        Reply::Events(events)
    })
    .await;
    (peer, taken)
}

fn watching(peer: &Peer) -> (Batches, Watches) {
    let options = Options { confirm_after: Duration::from_millis(50), ..Options::default() };
    kubernetes::start(&peer.client(Limits::default()), &options, &ReadContext::default())
}

/// The next thing that is said of Services, problems aside.
async fn next(batches: &mut Batches) -> Event {
    next_of(ObjectKind::Service, batches).await
}

/// The next thing that is said of a kind, problems aside.
async fn next_of(wanted: ObjectKind, batches: &mut Batches) -> Event {
    loop {
        for event in batches.recv().await.unwrap() {
            let is_wanted = match &event {
                Event::Apply(object) => object.kind() == wanted,
                Event::Delete(id) => id.kind == wanted,
                Event::Reset(kind, _) => *kind == wanted,
                _ => false,
            };
            if is_wanted {
                return event;
            }
        }
    }
}

#[tokio::test]
async fn a_list_after_a_lost_place_is_as_new_as_the_cluster() {
    let (peer, mut watches) = server().await;
    let (mut batches, _watches) = watching(&peer);
    let (first, events) = within("a first list", watches.recv()).await.unwrap();
    assert!(first.query.contains("resourceVersion=0&") || first.query.ends_with("resourceVersion=0"), "{first:?}");
    events.send(event("ADDED", &service("web", 5, &json!([{"port": 80}])))).unwrap();
    events.send(listed(10)).unwrap();
    assert!(matches!(within("the list", next(&mut batches)).await, Event::Reset(_, all) if all.len() == 1));
    events
        .send(event("ERROR", &json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})))
        .unwrap();
    let (again, events) = within("another list", watches.recv()).await.unwrap();
    let asked_for: Vec<_> = again.query.split('&').filter(|part| part.starts_with("resourceVersion=")).collect();
    assert_eq!(asked_for, ["resourceVersion="], "any version would do: a server that lags would go back in time");
    assert!(again.query.contains("sendInitialEvents=true"), "{again:?}");
    events.send(listed(20)).unwrap();
    assert!(matches!(within("the list", next(&mut batches)).await, Event::Reset(_, all) if all.is_empty()));
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_left_out_by_watches_as_by_lists() {
    let (peer, mut asked) = server().await;
    let (mut batches, watches) = watching(&peer);
    let (_, events) = within("a list", asked.recv()).await.unwrap();
    events.send(event("ADDED", &service("web", 5, &json!([{"port": 80}])))).unwrap();
    events.send(event("ADDED", &service("bad", 6, &json!("none")))).unwrap();
    events.send(listed(10)).unwrap();
    assert!(matches!(within("the list", next(&mut batches)).await, Event::Reset(_, all) if all.len() == 1));
    let bad = || watches.states()[&ObjectKind::Service].bad_objects;
    assert_eq!(bad(), 1);
    for version in 11..14 {
        events.send(event("MODIFIED", &service("web", version, &json!("none")))).unwrap();
        let web = ObjectId::new(ObjectKind::Service, "shop", "web");
        assert_eq!(within("it is left out", next(&mut batches)).await, Event::Delete(web));
    }
    events.send(event("MODIFIED", &service("web", 14, &json!([{"port": 81}])))).unwrap();
    assert!(matches!(within("it is back", next(&mut batches)).await, Event::Apply(_)));
    assert_eq!(bad(), 1, "objects are counted, not events");
}

/// A server may tell changes of what it is just listing before it says that the list ends.
#[tokio::test]
async fn what_happens_while_a_list_is_streamed_counts() {
    let (peer, mut asked) = server().await;
    let (mut batches, watches) = watching(&peer);
    let (_, events) = within("a list", asked.recv()).await.unwrap();
    let (good, bad) = (json!([{"port": 80}]), json!("none"));
    for (what, name, version, ports) in [
        ("ADDED", "deleted", 5, &good),
        ("ADDED", "spoilt", 6, &good),
        ("ADDED", "mended", 7, &bad),
        ("ADDED", "again", 8, &good),
        ("DELETED", "deleted", 11, &good),
        ("MODIFIED", "spoilt", 12, &bad),
        ("MODIFIED", "mended", 13, &good),
        ("DELETED", "again", 14, &good),
        ("ADDED", "again", 15, &good),
    ] {
        events.send(event(what, &service(name, version, ports))).unwrap();
    }
    events.send(listed(20)).unwrap();
    let Event::Reset(_, all) = within("the list", next(&mut batches)).await else { panic!("no list") };
    let mut names: Vec<_> = all.iter().map(|object| object.id().name.to_string()).collect();
    names.sort();
    assert_eq!(names, ["again", "mended"]);
    assert_eq!(watches.states()[&ObjectKind::Service].bad_objects, 1, "the spoilt one");
}

/// etcd may say how far it is before it says what happened up to there: a list of a kind whose cache the API server has just
/// made lacks an object, and no event ever brings it.
#[tokio::test]
async fn a_kind_that_need_not_be_served_is_listed_once_more() {
    let (peer, mut asked) = server_of("/apis/specs.smi-spec.io/v1alpha4/tcproutes").await;
    let (mut batches, _watches) = watching(&peer);
    let route = json!({"metadata": {"namespace": "shop", "name": "web", "resourceVersion": "9"},
        "spec": {"matches": {"ports": [80]}}});
    let next = async |batches: &mut Batches| within("a list", next_of(ObjectKind::TcpRoute, batches)).await;
    let (_, events) = within("a first list", asked.recv()).await.unwrap();
    events.send(listed(10)).unwrap();
    assert!(matches!(next(&mut batches).await, Event::Reset(_, all) if all.is_empty()));

    let (again, events) = within("another list", asked.recv()).await.unwrap();
    assert!(again.query.contains("sendInitialEvents=true"), "{again:?}");
    events.send(event("ADDED", &route)).unwrap();
    events.send(listed(20)).unwrap();
    assert!(matches!(next(&mut batches).await, Event::Reset(_, all) if all.len() == 1));

    // Not for ever: the watch goes on where it was.
    drop(events);
    let (watch, events) = within("a watch", asked.recv()).await.unwrap();
    assert!(watch.query.contains("resourceVersion=20"), "{watch:?}");
    events.send(event("DELETED", &route)).unwrap();
    assert!(matches!(next(&mut batches).await, Event::Delete(_)));
}
