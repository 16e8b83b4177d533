//! Events on a real kube-apiserver: one for what stands, however often it is said and whoever leads.

use k8s_openapi::api::events::v1::Event;
use kube::{Api, Client, api::ListParams};
use maesh_compiler::diagnostic::{Diagnostic, ObjectRef, Reason};
use maesh_controller::{
    duties::events::{self, Note, Options, Recorder, Tone},
    leader::Candidate,
};
use maesh_testkube::ApiServer;
use tokio::{task::JoinHandle, time::timeout};

use crate::support::{PATIENCE, TERMS, eventually, kubectl, with_client};

const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
";

/// A replica's part in Events.
struct Replica {
    candidate: Candidate,
    recorder: Recorder,
    keeping: JoinHandle<()>,
}

impl Replica {
    fn start(client: &Client, me: &str) -> Self {
        let candidate = Candidate::start(client.clone(), "default", "maesh", me, TERMS);
        let (recorder, notes) = events::recorder();
        let options = Options { namespace: "maesh".into(), replica: me.into() };
        let keeping = tokio::spawn(events::keep(client.clone(), options, candidate.leadership(), notes));
        Self { candidate, recorder, keeping }
    }

    async fn leads(&self) {
        timeout(PATIENCE, self.candidate.leadership().watch().wait_for(|now| *now)).await.unwrap().unwrap();
    }
}

fn bad(object: ObjectRef, value: &str) -> Diagnostic {
    Diagnostic::warning(Reason::InvalidAnnotation, object, format!("annotation scheme is {value:?}; using http"))
}

/// All Events of ours, once there are so many.
async fn events_of(client: &Client, count: usize) -> Vec<Event> {
    let events = Api::<Event>::all(client.clone());
    let ours = || async {
        let all = events.list(&ListParams::default()).await.unwrap().items.into_iter();
        let is_ours = |event: &Event| event.reporting_controller.as_deref() == Some("maesh.containo.us/controller");
        all.filter(is_ours).collect::<Vec<Event>>()
    };
    eventually(&format!("{count} Events"), ours, |ours| ours.len() >= count).await
}

#[test]
fn one_bad_annotation_is_one_event_whoever_leads() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    server.apply(OBJECTS).unwrap();
    with_client(&server, |client| async move {
        let web = || ObjectRef::new("Service", "shop", "web");
        let (first, second) = (Replica::start(&client, "first"), Replica::start(&client, "second"));
        timeout(PATIENCE, async {
            tokio::select! { () = first.leads() => {}, () = second.leads() => {} }
        })
        .await
        .unwrap();
        // Every replica finds the same, again and again.
        for replica in [&first, &second] {
            for _ in 0..20 {
                replica.recorder.found(&bad(web(), "many"));
            }
            replica.recorder.found(&bad(ObjectRef::new("Service", "shop", "gone"), "many"));
            replica.recorder.found(&bad(ObjectRef::file("x.yaml"), "many"));
        }
        let found = events_of(&client, 1).await;
        let event = &found[0];
        assert_eq!(event.metadata.namespace.as_deref(), Some("shop"));
        assert_eq!(event.reason.as_deref(), Some("InvalidAnnotation"));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert!(event.note.as_deref().unwrap().contains("using http"), "{event:?}");
        assert!(event.regarding.as_ref().unwrap().uid.is_some(), "kubectl describe finds it by that");

        // Another leads: what stands is not said again, what is new is.
        let (leader, next) = if first.candidate.leadership().may_write() { (first, second) } else { (second, first) };
        leader.keeping.abort();
        leader.candidate.stop().await;
        next.leads().await;
        next.recorder.cleared(&bad(web(), "many"));
        next.recorder.found(&bad(web(), "many"));
        next.recorder.found(&bad(ObjectRef::new("Node", "", "n1"), "odd"));
        let happened = Note {
            object: ObjectRef::new("Node", "", "n1"),
            uid: None,
            tone: Tone::Normal,
            reason: "StanzaMended".into(),
            text: "ü".repeat(2000).into(),
        };
        next.recorder.happened(happened.clone());
        next.recorder.happened(happened.clone());
        // After all that is due at once, so that everything before it was tried.
        next.recorder.happened(Note { object: web(), reason: "ZoneChanged".into(), ..happened });
        let found = events_of(&client, 4).await;
        let mut reasons: Vec<_> = found.iter().map(|event| event.reason.clone().unwrap()).collect();
        reasons.sort();
        assert_eq!(reasons, ["InvalidAnnotation", "InvalidAnnotation", "StanzaMended", "ZoneChanged"]);
        assert!(found.iter().all(|event| event.series.is_none()), "none was repeated: {found:?}");
        let node = found.iter().find(|event| event.reason.as_deref() == Some("StanzaMended")).unwrap();
        assert_eq!(node.metadata.namespace.as_deref(), Some("default"), "of an object without namespace");
        next.keeping.abort();
    });
    let described = kubectl(&server, "--namespace shop describe service web");
    assert_eq!(described.matches("InvalidAnnotation").count(), 1, "{described}");
}
