//! The Kubernetes source on a real API server: what is created, changed and deleted arrives; nothing is forgotten when
//! the server is killed under change, or has dropped its history.

use std::{
    collections::BTreeMap,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use maesh_controller::{
    kinds::{Door, Object, ObjectId, ObjectKind},
    source::{
        Batches, Event,
        kubernetes::{self, Watches},
    },
};
use maesh_testkube::ApiServer;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a compiler would know, and how often it was told to begin anew.
struct Known {
    batches: Batches,
    watches: Watches,
    objects: BTreeMap<ObjectId, Object>,
    synced: Vec<ObjectKind>,
    resets: usize,
    problems: Vec<String>,
    /// The fewest Services that were known since this was last reset.
    fewest: usize,
}

impl Known {
    async fn watch(server: &ApiServer) -> Self {
        let client = kubernetes::client(Some(server.kubeconfig()), None).await.unwrap();
        let (batches, watches) = kubernetes::start(client, Door::default());
        let objects = BTreeMap::new();
        Self { batches, watches, objects, synced: vec![], resets: 0, problems: vec![], fewest: usize::MAX }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Apply(object) => {
                self.objects.insert(object.id(), object);
            }
            Event::Delete(id) => {
                self.objects.remove(&id);
            }
            Event::Reset(kind, objects) => {
                self.resets += 1;
                self.objects.retain(|id, _| id.kind != kind);
                self.objects.extend(objects.into_iter().map(|object| (object.id(), object)));
            }
            Event::Synced(kind) => self.synced.push(kind),
            Event::Problems(problems) => {
                self.problems = problems.iter().map(|found| found.message.to_string()).collect()
            }
        }
    }

    /// Takes batches until this holds.
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds(self) {
            let left = end.saturating_duration_since(Instant::now());
            let batch = tokio::time::timeout(left, self.batches.recv()).await;
            let batch = batch.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}; {:#?}", self.objects.keys()));
            for event in batch.expect("the source goes on") {
                self.apply(event);
            }
            self.fewest = self.fewest.min(self.services());
        }
    }

    fn has(&self, kind: ObjectKind, name: &str) -> bool {
        self.objects.keys().any(|id| id.kind == kind && &*id.name == name)
    }

    fn services(&self) -> usize {
        self.objects.keys().filter(|id| id.kind == ObjectKind::Service && &*id.namespace == "shop").count()
    }

    fn ports(&self, service: &str) -> Vec<String> {
        let of = |object: &Object| match object {
            Object::Service(found) if &*found.meta.name == service => Some(found.ports.clone()),
            _ => None,
        };
        let ports = self.objects.values().find_map(of).unwrap_or_default();
        ports.iter().map(|port| port.number.to_string()).collect()
    }
}

/// Runs `test` where the API server is, with sockets that belong to its network namespace.
fn on_an_api_server(test: impl AsyncFnOnce(&mut ApiServer) + Send) {
    let Some(mut server) = ApiServer::start_or_skip() else { return };
    let namespace = std::fs::File::open(server.namespace().file()).unwrap();
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test(&mut server));
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn service(name: &str, port: u16) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{ports: [{{name: main, port: {port}}}]}}\n"
    )
}

const NAMESPACE: &str = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";

#[test]
fn what_is_created_changed_and_deleted_arrives() {
    on_an_api_server(async |server| {
        let slice = "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-1, namespace: shop, \
                     labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{name: main, port: 8080}]\n\
                     endpoints: [{addresses: [10.244.1.7], conditions: {ready: true}}]\n";
        let node = "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1}\nspec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24]}\n";
        let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: web-1, namespace: shop}\n\
                   spec: {nodeName: n1, containers: [{name: web, image: web}]}\n";
        server.apply(&format!("{NAMESPACE}{}{slice}{node}{pod}", service("web", 80))).unwrap();
        let mut known = Known::watch(server).await;
        known.until("everything is synced", |known| known.synced.len() == 6).await;
        for (kind, name) in [
            (ObjectKind::Namespace, "shop"),
            (ObjectKind::Node, "n1"),
            (ObjectKind::Pod, "web-1"),
            (ObjectKind::Service, "web"),
            (ObjectKind::EndpointSlice, "web-1"),
        ] {
            assert!(known.has(kind, name), "{kind} {name}: {:?}", known.objects.keys());
        }
        server.apply(&service("api", 81)).unwrap();
        known.until("a created Service arrives", |known| known.has(ObjectKind::Service, "api")).await;
        server.apply(&service("api", 82)).unwrap();
        known.until("a changed Service arrives", |known| known.ports("api").contains(&"82".to_owned())).await;
        let deleted = server.kubectl().args(["delete", "service", "web", "--namespace", "shop"]).output().unwrap();
        assert!(deleted.status.success());
        known.until("a deleted Service goes", |known| !known.has(ObjectKind::Service, "web")).await;
        assert_eq!(known.problems, Vec::<String>::new());
    });
}

#[test]
fn nothing_is_forgotten_when_the_server_is_killed_under_change() {
    on_an_api_server(async |server| {
        let many: String = (0..50).map(|number| service(&format!("s{number}"), 80)).collect();
        server.apply(&format!("{NAMESPACE}{many}")).unwrap();
        let mut known = Known::watch(server).await;
        known.until("everything is synced", |known| known.synced.len() == 6).await;
        known.fewest = usize::MAX;
        server.restart_apiserver().unwrap();
        server.apply(&service("after", 80)).unwrap();
        known
            .until("a Service created after the restart arrives", |known| known.has(ObjectKind::Service, "after"))
            .await;
        assert!(known.fewest >= 50, "only {} of 50 Services were known in between", known.fewest);
        let well = |known: &Known| known.watches.states(Instant::now()).iter().all(|state| state.failure.is_none());
        server.apply(&service("later", 80)).unwrap();
        known.until("another one arrives", |known| known.has(ObjectKind::Service, "later")).await;
        let touch = ["annotate", "namespace", "shop", "a=b"];
        assert!(server.kubectl().args(touch).output().unwrap().status.success());
        let deadline = Instant::now() + PATIENCE;
        while !well(&known) && Instant::now() < deadline {
            let _ = tokio::time::timeout(Duration::from_millis(100), known.batches.recv()).await;
        }
        assert!(well(&known), "{:?}", known.watches.states(Instant::now()));
    });
}

/// The server dropped its history (410 Gone): what happened meanwhile is found by listing, as one difference.
#[test]
fn a_watch_that_expired_lists_anew_without_forgetting() {
    on_an_api_server(async |server| {
        let many: String = (0..20).map(|number| service(&format!("s{number}"), 80)).collect();
        server.apply(&format!("{NAMESPACE}{many}")).unwrap();
        let mut known = Known::watch(server).await;
        known.until("everything is synced", |known| known.synced.len() == 6).await;
        let resets = known.resets;
        known.fewest = usize::MAX;
        // All of this happens out of the watches' sight: nothing is awaited, so they cannot come back in between. The
        // last server's memory begins after the changes, and its store has no history.
        server.restart_apiserver().unwrap();
        server.apply(&service("after", 80)).unwrap();
        let deleted = server.kubectl().args(["delete", "service", "s0", "--namespace", "shop"]).output().unwrap();
        assert!(deleted.status.success());
        server.compact().unwrap();
        server.restart_apiserver().unwrap();
        known
            .until("the difference arrives", |known| {
                known.has(ObjectKind::Service, "after") && !known.has(ObjectKind::Service, "s0")
            })
            .await;
        assert!(known.fewest >= 19, "only {} Services were known in between", known.fewest);
        assert!(known.resets > resets, "the watches went on, so nothing had expired");
    });
}

/// A user who may read Services only: they arrive, and what is missing is said with the next step.
#[test]
fn what_may_not_be_watched_is_told_and_the_rest_arrives() {
    on_an_api_server(async |server| {
        let role = "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: services}\n\
                    rules: [{apiGroups: [''], resources: [services], verbs: [get, list, watch]}]\n\
                    ---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: services}\n\
                    roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: services}\n\
                    subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: somebody}]\n";
        server.apply(&format!("{NAMESPACE}{}{role}", service("web", 80))).unwrap();
        let kubeconfig = server.kubeconfig_for("somebody", &[]).unwrap();
        let client = kubernetes::client(Some(&kubeconfig), None).await.unwrap();
        let mut known = Known::watch(server).await;
        let (batches, watches) = kubernetes::start(client, Door::default());
        (known.batches, known.watches) = (batches, watches);
        known
            .until("Services arrive and the others are told", |known| {
                known.has(ObjectKind::Service, "web") && known.problems.len() == 4
            })
            .await;
        for plural in ["namespaces", "nodes", "pods", "endpointslices"] {
            let told = known.problems.iter().find(|message| message.contains(plural));
            assert!(told.is_some_and(|message| message.contains("grant")), "{plural}: {:?}", known.problems);
        }
    });
}
