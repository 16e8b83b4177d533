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
    leader::{Candidate, Leadership},
    source::kubernetes,
};
use maesh_testkube::ApiServer;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use crate::support::{PATIENCE, TERMS, eventually, on, runtime, with_client};

/// Name of the marker.
const MARKER: &str = "maesh-uninstall";

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

impl Dns {
    fn new(script: Script) -> Self {
        Self(Arc::new(Mutex::new(script)))
    }

    /// What it was asked since the last look.
    fn take_log(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap().log)
    }
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
        marker: MARKER.into(),
        horizon: Duration::from_millis(200),
        dns_deadline: PATIENCE,
        regret: Duration::from_millis(300),
    }
}

fn uninstall(client: &Client, options: Options, dns: &Dns, leadership: Option<Leadership>) -> Uninstall {
    Uninstall { client: client.clone(), options, dns: Box::new(dns.clone()), leadership, owner: None }
}

/// Whether an uninstallation is wanted, from now on.
fn following(client: &Client, options: Options) -> (watch::Receiver<bool>, JoinHandle<()>) {
    let (sender, wanted) = watch::channel(false);
    let client = client.clone();
    (wanted, tokio::spawn(async move { follow(client, &options, sender).await }))
}

async fn until(what: &str, receiver: &mut watch::Receiver<bool>, wanted: bool) {
    let found = timeout(PATIENCE, receiver.wait_for(|now| *now == wanted)).await;
    drop(found.unwrap_or_else(|_| panic!("{what}")).unwrap());
}

/// The ConfigMap by which an uninstallation is asked for, as Helm makes it, and others like it.
struct Marker(Api<ConfigMap>);

impl Marker {
    fn new(client: &Client) -> Self {
        Self(Api::namespaced(client.clone(), "default"))
    }

    async fn create(&self) {
        self.create_as(MARKER).await;
    }

    async fn create_as(&self, name: &str) {
        let mut marker = ConfigMap::default();
        marker.metadata.name = Some(name.into());
        self.0.create(&PostParams::default(), &marker).await.unwrap();
    }

    async fn delete(&self) {
        self.delete_as(MARKER).await;
    }

    async fn delete_as(&self, name: &str) {
        self.0.delete(name, &DeleteParams::default()).await.unwrap();
    }

    async fn write_progress(&self, text: &str) {
        let note = serde_json::json!({ "metadata": { "annotations": { PROGRESS: text } } });
        self.0.patch(MARKER, &PatchParams::default(), &Patch::Merge(&note)).await.unwrap();
    }

    async fn progress(&self) -> String {
        let marker = self.0.get(MARKER).await.unwrap();
        marker.metadata.annotations.unwrap_or_default().remove(PROGRESS).unwrap_or_default()
    }

    /// Waits until it says that all is done.
    async fn until_done(&self) {
        eventually("it is done", || self.progress(), |progress| progress == DONE).await;
    }

    async fn until_refused(&self) {
        eventually("it is refused", || self.progress(), |progress| progress.starts_with(hooks::REFUSED)).await;
    }
}

async fn ours(client: &Client) -> usize {
    let services = Api::<Service>::namespaced(client.clone(), "default");
    services.list(&ListParams::default().labels("maesh.containo.us/own-address")).await.unwrap().items.len()
}

#[test]
fn the_mesh_goes_in_order_over_failures_and_comes_back_when_the_marker_goes() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let spec = "spec: {ports: [{port: 1}]}";
    let label = "labels: {maesh.containo.us/own-address: 'true'}";
    let service = |name: &str, labels: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default, {labels}}}\n{spec}\n---\n"
        )
    };
    server.apply(&(service("maesh-own-0", label) + &service("maesh-own-7", label) + &service("mine", ""))).unwrap();
    with_client(&server, |client| async move {
        let marker = Marker::new(&client);
        let candidate = Candidate::start(client.clone(), "default", "maesh", "first", TERMS);
        let (mut wanted, following) = following(&client, options());
        let dns = Dns::new(Script { failures: 1, asks: 2, takes: 2 * TERMS.longest_write(), ..Script::default() });
        let duty = uninstall(&client, options(), &dns, Some(candidate.leadership()));
        let duty = tokio::spawn(duty.whenever(wanted.clone()));

        assert_eq!(ours(&client).await, 2);
        marker.create().await;
        until("the marker is seen", &mut wanted, true).await;
        marker.until_done().await;
        assert_eq!(ours(&client).await, 0);
        assert!(Api::<Service>::namespaced(client.clone(), "default").get("mine").await.is_ok());
        assert_eq!(dns.take_log(), ["not removed", "removed", "asked", "asked", "not asked"]);

        marker.delete().await;
        until("the marker is gone", &mut wanted, false).await;
        marker.create().await;
        marker.until_done().await;
        assert_eq!(dns.take_log(), ["removed", "not asked"], "wanted again, done again");

        // Without a controller, by hand: what is gone already is no failure.
        uninstall(&client, options(), &dns, None).run(false).await.unwrap();
        duty.abort();
        following.abort();
        candidate.stop().await;
    });
}

/// `helm template | kubectl apply` makes the objects of all hooks at once, the marker too.
#[test]
fn a_marker_that_was_applied_with_all_hooks_is_refused() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    with_client(&server, |client| async move {
        let marker = Marker::new(&client);
        let (mut wanted, following) = following(&client, options());
        let applied = hooks::applied_name(MARKER);
        let never_wanted = wanted.clone();

        marker.create_as(&applied).await;
        marker.create().await;
        marker.until_refused().await;
        marker.delete_as(&applied).await;
        assert!(!never_wanted.has_changed().unwrap(), "refused, and that the other one goes changes nothing");

        // What Helm makes for an uninstallation.
        marker.delete().await;
        marker.create().await;
        until("a marker by itself is obeyed", &mut wanted, true).await;

        // The other object may come last; the next word on the marker finds it.
        marker.create_as(&applied).await;
        marker.write_progress("waiting").await;
        until("the marker is refused after all", &mut wanted, false).await;
        marker.until_refused().await;

        // Helm makes the other one for a moment when the mesh is gone.
        marker.write_progress(DONE).await;
        until("an uninstallation that is done stays done", &mut wanted, true).await;
        following.abort();
    });
}

#[test]
fn a_stanza_that_cannot_be_taken_out_keeps_the_mesh_only_while_it_is_asked() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    with_client(&server, |client| async move {
        let marker = Marker::new(&client);
        marker.create().await;
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
            let dns = Dns::new(Script { removals, asks, ..Script::default() });
            let options = Options { dns_deadline: Duration::from_secs(1), ..options() };
            let said = match uninstall(&client, options, &dns, None).run(true).await {
                Ok(()) => marker.progress().await,
                Err(error) => error.to_string(),
            };
            assert!(said.ends_with(want), "{case}: {said}");
            assert_eq!(dns.take_log(), log, "{case}");
        }
    });
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
    serde_json::from_value(serde_json::json!({"metadata": {"name": MARKER}, "spec": spec})).unwrap()
}

#[test]
#[ignore = "long: a Job is ended after five seconds, and a beat is ten"]
fn who_waits_hears_that_it_goes_on_and_a_second_helm_uninstall_ends() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    with_client(&server, |client| async move {
        let marker = Marker::new(&client);
        let jobs = Api::<Job>::namespaced(client.clone(), "default");
        let candidate = Candidate::start(client.clone(), "default", "maesh", "first", TERMS);
        let options = Options { regret: Duration::from_secs(60), ..options() };
        let dns = Dns::new(Script { asks: 7, ..Script::default() });
        let (wanted, following) = following(&client, options.clone());
        let duty = uninstall(&client, options, &dns, Some(candidate.leadership()));
        let duty = tokio::spawn(duty.whenever(wanted));
        let completions = || async { jobs.get(MARKER).await.unwrap().spec.unwrap().completions };
        marker.create().await;
        jobs.create(&PostParams::default(), &job()).await.unwrap();
        let beat = "waiting until the cluster's DNS no longer asks the mesh (for 10s so far)";
        eventually("a sign of life", || marker.progress(), |progress| progress == beat).await;
        marker.until_done().await;
        eventually("the Job ends", &completions, |completions| *completions == Some(0)).await;
        // Helm begins anew before it is believed that the marker is gone.
        jobs.delete(MARKER, &DeleteParams::background()).await.unwrap();
        marker.delete().await;
        marker.create().await;
        jobs.create(&PostParams::default(), &job()).await.unwrap();
        marker.until_done().await;
        eventually("the second Job ends", &completions, |completions| *completions == Some(0)).await;
        let removals = dns.take_log().into_iter().filter(|line| *line == "removed").count();
        assert_eq!(removals, 1, "what is done stays done");
        duty.abort();
        following.abort();
        candidate.stop().await;
    });
}

#[test]
fn what_the_mesh_cannot_have_written_is_not_waited_for() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let runtime = runtime(&server);
    let leave = |user: &str| {
        let groups: &[&str] = if user == "admin" { &["system:masters"] } else { &[] };
        let kubeconfig = server.kubeconfig_for(user, groups).unwrap();
        on(&runtime, async move {
            let client = kubernetes::client(Some(&kubeconfig), None).await.unwrap();
            let zones = vec!["maesh".parse().unwrap()];
            let mesh = Mesh { namespace: "maesh".into(), service: "maesh-dns".into(), zones };
            let leave = Leave { cluster: Cluster::new(client), mesh, right: Right::Person, recorder: None };
            (leave.remove().await, leave.asks_the_mesh().await)
        })
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
