//! Taking the mesh away, on a real kube-apiserver: the order, failures on the way, and a change of mind.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Service},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use maesh_controller::{
    duties::{
        stanza::{Cluster, Leave, Mesh, Right},
        uninstall::{ClusterDns, DONE, DnsFuture, Options, PROGRESS, Removed, Uninstall, follow, hooks},
    },
    leader::{Candidate, Terms},
    source::kubernetes,
};
use maesh_testkube::ApiServer;
use tokio::{sync::watch, time::timeout};

const PATIENCE: Duration = Duration::from_secs(30);
const TERMS: Terms =
    Terms { lease: Duration::from_secs(3), right: Duration::from_secs(2), retry: Duration::from_millis(300) };

/// A cluster's DNS that fails as often as it is told, and writes down what it was asked.
#[derive(Clone, Debug, Default)]
struct Dns(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    /// What comes of taking the stanza out, the last of it for ever; nothing: it is taken out.
    removals: Vec<Removed>,
    failures: usize,
    /// How long the removal takes, which is many requests.
    takes: Duration,
    asks: usize,
    log: Vec<&'static str>,
}

impl ClusterDns for Dns {
    fn remove(&self) -> DnsFuture<'_, Removed> {
        let mut script = self.0.lock().unwrap();
        let failed = script.failures > 0;
        script.failures = script.failures.saturating_sub(1);
        let removed = match script.removals.len() {
            0 => Removed::Gone,
            1 => script.removals[0].clone(),
            _ => script.removals.remove(0),
        };
        let gone = !failed && removed == Removed::Gone;
        script.log.push(if gone { "removed" } else { "not removed" });
        let takes = script.takes;
        Box::pin(async move {
            tokio::time::sleep(takes).await;
            if failed { Err("somebody else wrote".to_owned()) } else { Ok(removed) }
        })
    }

    fn kept<'a>(&'a self, _: &'a str) -> DnsFuture<'a, ()> {
        self.0.lock().unwrap().log.push("kept");
        Box::pin(std::future::ready(Ok(())))
    }

    fn asks_the_mesh(&self) -> DnsFuture<'_, bool> {
        let mut script = self.0.lock().unwrap();
        let asks = script.asks > 0;
        script.asks = script.asks.saturating_sub(1);
        script.log.push(if asks { "asked" } else { "not asked" });
        Box::pin(async move { Ok(asks) })
    }
}

fn options() -> Options {
    Options {
        namespace: "default".into(),
        marker: "maesh-uninstall".into(),
        horizon: Duration::from_millis(200),
        dns_deadline: PATIENCE,
        regret: Duration::from_millis(300),
    }
}

async fn mark(markers: &Api<ConfigMap>) {
    let mut marker = ConfigMap::default();
    marker.metadata.name = Some("maesh-uninstall".into());
    markers.create(&PostParams::default(), &marker).await.unwrap();
}

async fn progress(markers: &Api<ConfigMap>) -> String {
    let marker = markers.get("maesh-uninstall").await.unwrap();
    marker.metadata.annotations.unwrap_or_default().remove(PROGRESS).unwrap_or_default()
}

async fn until(what: &str, receiver: &mut watch::Receiver<bool>, wanted: bool) {
    let found = timeout(PATIENCE, receiver.wait_for(|now| *now == wanted)).await;
    drop(found.unwrap_or_else(|_| panic!("{what}")).unwrap());
}

async fn done(markers: &Api<ConfigMap>) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while progress(markers).await != DONE {
        assert!(tokio::time::Instant::now() < end, "stuck at {:?}", progress(markers).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ours(client: &Client) -> usize {
    let services = Api::<Service>::namespaced(client.clone(), "default");
    services.list(&ListParams::default().labels("maesh.containo.us/own-address")).await.unwrap().items.len()
}

#[test]
fn the_mesh_goes_in_order_over_failures_and_comes_back_when_the_marker_goes() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    // Its threads belong to the server's network namespace; this one does not.
    let runtime = server
        .namespace()
        .run(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
    let kubeconfig = server.kubeconfig().to_owned();
    let spec = "spec: {ports: [{port: 1}]}";
    let label = "labels: {maesh.containo.us/own-address: 'true'}";
    let service = |name: &str, labels: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default, {labels}}}\n{spec}\n---\n"
        )
    };
    server.apply(&(service("maesh-own-0", label) + &service("maesh-own-7", label) + &service("mine", ""))).unwrap();
    let runtime = runtime.unwrap();
    let everything = async move {
        let client = kubernetes::client(Some(&kubeconfig), None).await.unwrap();
        let markers = Api::<ConfigMap>::namespaced(client.clone(), "default");
        let candidate = Candidate::start(client.clone(), "default", "maesh", "first", TERMS);
        let (sender, mut wanted) = watch::channel(false);
        let following = tokio::spawn({
            let client = client.clone();
            async move { follow(client, &options(), sender).await }
        });
        let dns = Dns::default();
        *dns.0.lock().unwrap() = Script { failures: 1, asks: 2, takes: 2 * TERMS.longest_write(), ..Script::default() };
        let (client_of, leadership, boxed) = (client.clone(), candidate.leadership(), Box::new(dns.clone()));
        let uninstall =
            Uninstall { client: client_of, options: options(), dns: boxed, leadership: Some(leadership), owner: None };
        let duty = tokio::spawn(uninstall.whenever(wanted.clone()));

        assert_eq!(ours(&client).await, 2);
        mark(&markers).await;
        until("the marker is seen", &mut wanted, true).await;
        done(&markers).await;
        assert_eq!(ours(&client).await, 0);
        assert!(Api::<Service>::namespaced(client.clone(), "default").get("mine").await.is_ok());
        let log = std::mem::take(&mut dns.0.lock().unwrap().log);
        assert_eq!(log, ["not removed", "removed", "asked", "asked", "not asked"]);

        markers.delete("maesh-uninstall", &DeleteParams::default()).await.unwrap();
        until("the marker is gone", &mut wanted, false).await;
        mark(&markers).await;
        done(&markers).await;
        assert_eq!(dns.0.lock().unwrap().log, ["removed", "not asked"], "wanted again, done again");

        // Without a controller, by hand: what is gone already is no failure.
        let by_hand = Uninstall {
            client: client.clone(),
            options: options(),
            dns: Box::new(dns.clone()),
            leadership: None,
            owner: None,
        };
        by_hand.run(false).await.unwrap();
        duty.abort();
        following.abort();
        candidate.stop().await;
    };
    runtime.block_on(runtime.spawn(everything)).unwrap();
}

/// `helm template | kubectl apply` makes the objects of all hooks at once, the marker too.
#[test]
fn a_marker_that_was_applied_with_all_hooks_is_refused() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let runtime = server
        .namespace()
        .run(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
    let kubeconfig = server.kubeconfig().to_owned();
    let everything = async move {
        let client = kubernetes::client(Some(&kubeconfig), None).await.unwrap();
        let markers = Api::<ConfigMap>::namespaced(client.clone(), "default");
        let (sender, mut wanted) = watch::channel(false);
        let following = tokio::spawn({
            let client = client.clone();
            async move { follow(client, &options(), sender).await }
        });
        let refused = async || {
            let end = tokio::time::Instant::now() + PATIENCE;
            while !progress(&markers).await.starts_with(hooks::REFUSED) {
                assert!(tokio::time::Instant::now() < end, "not refused: {:?}", progress(&markers).await);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let mut applied = ConfigMap::default();
        applied.metadata.name = Some(hooks::applied_name("maesh-uninstall"));
        let applied_name = applied.metadata.name.clone().unwrap();
        let never_wanted = wanted.clone();

        markers.create(&PostParams::default(), &applied).await.unwrap();
        mark(&markers).await;
        refused().await;
        markers.delete(&applied_name, &DeleteParams::default()).await.unwrap();
        assert!(!never_wanted.has_changed().unwrap(), "refused, and that the other one goes changes nothing");

        // What Helm makes for an uninstallation.
        markers.delete("maesh-uninstall", &DeleteParams::default()).await.unwrap();
        mark(&markers).await;
        until("a marker by itself is obeyed", &mut wanted, true).await;

        // The other object may come last; the next word on the marker finds it.
        markers.create(&PostParams::default(), &applied).await.unwrap();
        let note = serde_json::json!({ "metadata": { "annotations": { PROGRESS: "waiting" } } });
        markers.patch("maesh-uninstall", &PatchParams::default(), &Patch::Merge(&note)).await.unwrap();
        until("the marker is refused after all", &mut wanted, false).await;
        refused().await;

        // Helm makes the other one for a moment when the mesh is gone.
        let note = serde_json::json!({ "metadata": { "annotations": { PROGRESS: DONE } } });
        markers.patch("maesh-uninstall", &PatchParams::default(), &Patch::Merge(&note)).await.unwrap();
        until("an uninstallation that is done stays done", &mut wanted, true).await;
        following.abort();
    };
    let runtime = runtime.unwrap();
    runtime.block_on(runtime.spawn(everything)).unwrap();
}

#[test]
fn a_stanza_that_cannot_be_taken_out_keeps_the_mesh_only_while_it_is_asked() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let runtime = server
        .namespace()
        .run(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
    let kubeconfig = server.kubeconfig().to_owned();
    let everything = async move {
        let client = kubernetes::client(Some(&kubeconfig), None).await.unwrap();
        let markers = Api::<ConfigMap>::namespaced(client.clone(), "default");
        mark(&markers).await;
        let never = Removed::NeverWritten("an operator writes it".into());
        let not_yet = Removed::NotYet("no pod runs".into());
        for (case, removals, asks, want, log) in [
            ("never written", vec![never.clone()], 0, DONE, &["not removed", "not asked"][..]),
            ("never, but by hand", vec![never], 9, "an operator writes it", &["not removed", "asked", "asked"]),
            ("not yet", vec![not_yet.clone(), Removed::Gone], 0, DONE, &["not removed", "removed", "not asked"]),
            ("not in time", vec![not_yet.clone()], 0, DONE, &["not removed", "not removed", "kept", "not asked"]),
            (
                "in force all the time",
                vec![not_yet],
                9,
                "no pod runs",
                &["not removed", "not removed", "kept", "asked", "asked"],
            ),
        ] {
            let dns = Dns::default();
            *dns.0.lock().unwrap() = Script { removals, asks, ..Script::default() };
            let options = Options { dns_deadline: Duration::from_secs(1), ..options() };
            let (client, boxed) = (client.clone(), Box::new(dns.clone()));
            let ended = Uninstall { client, options, dns: boxed, leadership: None, owner: None }.run(true).await;
            let said = match ended {
                Ok(()) => progress(&markers).await,
                Err(error) => error.to_string(),
            };
            assert!(said.ends_with(want), "{case}: {said}");
            assert_eq!(dns.0.lock().unwrap().log, log, "{case}");
        }
    };
    let runtime = runtime.unwrap();
    runtime.block_on(runtime.spawn(everything)).unwrap();
}

/// What the chart gives the user `job` in kube-system.
const ROLE: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: job, namespace: kube-system}
rules: [{apiGroups: [""], resources: [pods, services], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: job, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: job}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: job}]
"#;

/// As the chart makes it.
fn job() -> Job {
    let container = serde_json::json!({"name": "uninstall", "image": "maesh"});
    let pod = serde_json::json!({"spec": {"restartPolicy": "Never", "containers": [container]}});
    let spec = serde_json::json!({"completionMode": "Indexed", "completions": 1, "parallelism": 1, "template": pod});
    serde_json::from_value(serde_json::json!({"metadata": {"name": "maesh-uninstall"}, "spec": spec})).unwrap()
}

#[test]
#[ignore = "long: a Job is ended after five seconds, and a beat is ten"]
fn who_waits_hears_that_it_goes_on_and_a_second_helm_uninstall_ends() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let runtime = server
        .namespace()
        .run(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
    let runtime = runtime.unwrap();
    let kubeconfig = server.kubeconfig().to_owned();
    let everything = async move {
        let client = kubernetes::client(Some(&kubeconfig), None).await.unwrap();
        let markers = Api::<ConfigMap>::namespaced(client.clone(), "default");
        let jobs = Api::<Job>::namespaced(client.clone(), "default");
        let candidate = Candidate::start(client.clone(), "default", "maesh", "first", TERMS);
        let options = Options { regret: Duration::from_secs(60), ..options() };
        let (sender, wanted) = watch::channel(false);
        let dns = Dns::default();
        *dns.0.lock().unwrap() = Script { asks: 7, ..Script::default() };
        let following = tokio::spawn({
            let (client, options) = (client.clone(), options.clone());
            async move { follow(client, &options, sender).await }
        });
        let leadership = Some(candidate.leadership());
        let uninstall = Uninstall { client, options, dns: Box::new(dns.clone()), leadership, owner: None };
        let duty = tokio::spawn(uninstall.whenever(wanted));
        let ended = async || {
            let end = tokio::time::Instant::now() + PATIENCE;
            while jobs.get("maesh-uninstall").await.unwrap().spec.unwrap().completions != Some(0) {
                assert!(tokio::time::Instant::now() < end, "the Job waits on");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        mark(&markers).await;
        jobs.create(&PostParams::default(), &job()).await.unwrap();
        let beat = "waiting until the cluster's DNS no longer asks the mesh (for 10s so far)";
        let end = tokio::time::Instant::now() + PATIENCE;
        while progress(&markers).await != beat {
            assert!(tokio::time::Instant::now() < end, "silent at {:?}", progress(&markers).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        done(&markers).await;
        ended().await;
        // Helm begins anew before it is believed that the marker is gone.
        jobs.delete("maesh-uninstall", &DeleteParams::background()).await.unwrap();
        markers.delete("maesh-uninstall", &DeleteParams::default()).await.unwrap();
        mark(&markers).await;
        jobs.create(&PostParams::default(), &job()).await.unwrap();
        done(&markers).await;
        ended().await;
        let asked = dns.0.lock().unwrap().log.iter().filter(|line| **line == "removed").count();
        assert_eq!(asked, 1, "what is done stays done");
        duty.abort();
        following.abort();
        candidate.stop().await;
    };
    runtime.block_on(runtime.spawn(everything)).unwrap();
}

#[test]
fn what_the_mesh_cannot_have_written_is_not_waited_for() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let runtime = server
        .namespace()
        .run(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
    let runtime = runtime.unwrap();
    let leave = |user: &str| {
        let groups: &[&str] = if user == "admin" { &["system:masters"] } else { &[] };
        let kubeconfig = server.kubeconfig_for(user, groups).unwrap();
        let removal = async move {
            let client = kubernetes::client(Some(&kubeconfig), None).await.unwrap();
            let zones = vec!["maesh".parse().unwrap()];
            let mesh = Mesh { namespace: "maesh".into(), service: "maesh-dns".into(), zones };
            let leave = Leave { cluster: Cluster::new(client), mesh, right: Right::Person, recorder: None };
            (leave.remove().await, leave.asks_the_mesh().await)
        };
        runtime.block_on(runtime.spawn(removal)).unwrap()
    };
    let service = |namespace: &str, name: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{selector: {{a: b}}, ports: [{{port: 53, protocol: UDP}}]}}\n"
        )
    };
    let assert = |user: &str, want: fn(&Removed) -> bool, says: &str| {
        let (removed, asked) = leave(user);
        let removed = removed.unwrap();
        assert!(want(&removed) && format!("{removed:?}").contains(says), "{says}: {removed:?}");
        assert_eq!(asked, Ok(false), "{says}");
    };
    let never = |removed: &Removed| matches!(removed, Removed::NeverWritten(_));
    let not_yet = |removed: &Removed| matches!(removed, Removed::NotYet(_));
    assert("admin", never, "no Service of the cluster's DNS was found in kube-system, so the mesh wrote nothing");
    server.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: openshift-dns}\n").unwrap();
    server.apply(&service("openshift-dns", "dns-default")).unwrap();
    assert("admin", never, "take them out of dns.operator.openshift.io/default");
    assert("somebody", not_yet, "listing services of namespace kube-system: ");
    // The Job of an uninstallation may look in kube-system only.
    server.apply(ROLE).unwrap();
    assert("job", never, "no Service of the cluster's DNS was found in kube-system, so the mesh wrote nothing");
    server.apply(&service("kube-system", "kube-dns")).unwrap();
    assert("admin", not_yet, "no pod runs behind Service kube-system/kube-dns");
}
