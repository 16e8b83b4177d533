//! The Kubernetes API as a source, against a real kube-apiserver and etcd.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use crate::support::{Kept, PATIENCE, kubectl, runtime};
use maesh_compiler::{
    compile::{Compiler, Config},
    diagnostic::Reason,
    kinds::{Names, Object, ObjectKind, Registration},
};
use maesh_config::{Key, Kind, Resource, ServiceName};
use maesh_controller::{
    serve::{Controller, State},
    source::kubernetes::{self, Options, Watches},
};
use maesh_test_support::{tool, until};
use maesh_testkube::ApiServer;
use tokio::{runtime::Runtime, sync::watch};

const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, annotations: {maesh.containo.us/shceme: h2c}}
spec:
  ipFamilyPolicy: RequireDualStack
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec:
  clusterIP: None
  ports: [{name: sql, port: 5432, appProtocol: postgresql}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.244.1.7]}, {addresses: [10.244.1.8], conditions: {ready: false}}]
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop}
spec: {serviceAccountName: buyer, nodeName: n1, containers: [{name: web, image: web}]}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDR: 10.244.1.0/24}
"#;

/// A controller that watches a server.
pub(crate) struct Watching {
    pub(crate) kept: Kept,
    pub(crate) state: Arc<State>,
    pub(crate) watches: Watches,
    _controller: Controller,
    pub(crate) proxies: watch::Sender<Vec<maesh_compiler::compile::ConnectedProxy>>,
    runtime: Runtime,
}

impl Watching {
    fn new(server: &ApiServer, kubeconfig: &Path, options: Options) -> Self {
        Self::with(server, kubeconfig, options, Config { config_maps_on_demand: true, ..Config::default() })
    }

    pub(crate) fn with(server: &ApiServer, kubeconfig: &Path, options: Options, config: Config) -> Self {
        let (ask, config_maps) = watch::channel(BTreeSet::new());
        let options = Options { config_maps, ..options };
        let runtime = runtime(server);
        let kubeconfig = kubeconfig.to_owned();
        let kept = Kept::default();
        let sink = kept.clone();
        let started = runtime.spawn(async move {
            let client = kubernetes::client(Some(&kubeconfig), None).await.unwrap();
            let compiler = Compiler::new(config);
            let (batches, watches) = kubernetes::start(&client, &options, &compiler.door());
            let (proxies, watched) = watch::channel(Vec::new());
            let (controller, _) = Controller::start(compiler, batches, watched, Duration::ZERO, sink).unwrap();
            controller.forward_config_maps(ask);
            (watches, proxies, controller)
        });
        let (done, started_) = std::sync::mpsc::channel();
        runtime.spawn(async move { done.send(started.await.unwrap()) });
        let (watches, proxies, controller) = started_.recv().unwrap();
        Self { kept, state: controller.state(), watches, _controller: controller, proxies, runtime }
    }

    pub(crate) fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let seen = until(PATIENCE, || holds(self));
        assert!(seen, "{what}: not seen; {:#?} {:#?}", self.kept.0.lock(), self.watches.states());
    }

    fn resource(&self, kind: Kind, name: &str) -> Option<Resource> {
        let key = Key { kind, name: name.into() };
        self.kept.0.lock().resources.get(&key).cloned()
    }

    /// Addresses of the endpoints of a Service, ready or not.
    fn endpoints(&self, service: &str) -> Vec<String> {
        let Some(Resource::Endpoints(endpoints)) = self.resource(Kind::Endpoints, service) else { return Vec::new() };
        let all = endpoints.ports.iter().flat_map(|port| &port.endpoints);
        all.map(|endpoint| format!("{}{}", endpoint.address, if endpoint.ready { "" } else { " not ready" })).collect()
    }

    fn lists(&self, kind: ObjectKind) -> u64 {
        self.watches.states()[&kind].lists
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let runtime =
            std::mem::replace(&mut self.runtime, tokio::runtime::Builder::new_current_thread().build().unwrap());
        runtime.shutdown_background();
    }
}

fn patch(server: &ApiServer, addresses: &[&str]) {
    let endpoints: Vec<_> = addresses.iter().map(|address| format!(r#"{{"addresses":["{address}"]}}"#)).collect();
    let patch = format!(r#"{{"endpoints":[{}]}}"#, endpoints.join(","));
    kubectl(server, &format!("--namespace shop patch endpointslice web-1 --type merge --patch {patch}"));
}

#[test]
fn objects_come_change_and_go() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let mesh = Watching::new(&server, server.kubeconfig(), Options::default());
    mesh.until("a first configuration", |mesh| mesh.kept.0.lock().complete);
    // Pages instead of streams, and small ones, come to the same.
    let pages = Options { page: 2, stream_lists: false, ..Options::default() };
    server.apply(SHOP).unwrap();
    let status = r#"{"status":{"podIP":"10.244.1.7","podIPs":[{"ip":"10.244.1.7"}],"phase":"Running"}}"#;
    kubectl(&server, &format!("-n shop patch pod web-1 --subresource status --type merge -p {status}"));
    mesh.until("the endpoints", |mesh| mesh.endpoints("shop/web") == ["10.244.1.7:8080", "10.244.1.8:8080 not ready"]);
    mesh.until("the pod", |mesh| mesh.resource(Kind::Workload, "10.244.1.7").is_some());
    let Some(Resource::Workload(pod)) = mesh.resource(Kind::Workload, "10.244.1.7") else { panic!() };
    assert_eq!(pod.service_account.as_deref(), Some("buyer"));
    assert_eq!(pod.node, Some("n1".into()));
    mesh.until("the range", |mesh| mesh.resource(Kind::Workload, "10.244.1.0/24").is_some());
    let Some(Resource::Name(web)) = mesh.resource(Kind::Name, "shop/web") else { panic!() };
    assert_eq!(web.plain.len(), 2, "dual stack");
    let Some(Resource::Name(db)) = mesh.resource(Kind::Name, "shop/db") else { panic!() };
    assert!(db.headless && db.plain.is_empty());
    assert!(mesh.resource(Kind::Name, "default/kubernetes").is_none());
    let said = mesh.state.diagnostics();
    assert!(matches!(&said[..], [one] if one.reason == Reason::UnknownAnnotation), "{said:#?}");

    let paged = Watching::new(&server, server.kubeconfig(), pages);
    paged.until("the same by pages", |paged| paged.kept.0.lock().resources == mesh.kept.0.lock().resources);

    patch(&server, &["10.244.1.9"]);
    for mesh in [&mesh, &paged] {
        mesh.until("the change", |mesh| mesh.endpoints("shop/web") == ["10.244.1.9:8080"]);
    }
    // A pod that ended has no address any longer, although it is still there.
    let ended = r#"{"status":{"phase":"Succeeded"}}"#;
    kubectl(&server, &format!("-n shop patch pod web-1 --subresource status --type merge -p {ended}"));
    mesh.until("the end of the pod", |mesh| mesh.resource(Kind::Workload, "10.244.1.7").is_none());
    kubectl(&server, "-n shop delete service web");
    mesh.until("the deletion", |mesh| mesh.resource(Kind::Name, "shop/web").is_none());
    assert!(mesh.state.table().iter().all(|entry| entry.service != ServiceName::new("shop", "web")));
    assert!(mesh.state.diagnostics().is_empty());
}

#[test]
fn an_api_server_that_was_away_is_caught_up_with_by_differences() {
    let Some(mut server) = ApiServer::start_or_skip() else { return };
    server.apply(SHOP).unwrap();
    let mesh = Watching::new(&server, server.kubeconfig(), Options::default());
    mesh.until("the endpoints", |mesh| mesh.endpoints("shop/web").len() == 2);
    mesh.until("the Service", |mesh| mesh.resource(Kind::Name, "shop/db").is_some());
    let everything = mesh.kept.0.lock().resources.len();

    // Killed in the middle of changes: all that it took is seen.
    patch(&server, &["10.244.1.10"]);
    server.kill_apiserver();
    mesh.until("the outage", |mesh| mesh.watches.states()[&ObjectKind::Service].error.is_some());
    mesh.until("what is said of it", |mesh| mesh.state.diagnostics().iter().any(|d| d.reason == Reason::WatchFailed));
    assert_eq!(mesh.kept.0.lock().resources.len(), everything, "nothing changes while it is away");
    server.start_apiserver().unwrap();
    patch(&server, &["10.244.1.11"]);
    mesh.until("the change after", |mesh| mesh.endpoints("shop/web") == ["10.244.1.11:8080"]);
    let well = |mesh: &Watching| mesh.watches.states().values().all(|watch| watch.error.is_none());
    mesh.until("all well", well);
    mesh.until("nothing to say", |mesh| mesh.state.diagnostics().iter().all(|d| d.reason != Reason::WatchFailed));

    // Away, and its history forgotten, and a slice gone meanwhile: seen by listing again.
    let lists = mesh.lists(ObjectKind::EndpointSlice);
    server.kill_apiserver();
    let gone = ["del", "/registry/endpointslices/shop/web-1"];
    let output = server.namespace().command(tool("etcdctl").unwrap()).args(gone).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "1", "{output:?}");
    server.compact().unwrap();
    server.start_apiserver().unwrap();
    mesh.until("the missed deletion", |mesh| mesh.endpoints("shop/web").is_empty());
    mesh.until("another list", |mesh| mesh.lists(ObjectKind::EndpointSlice) > lists);
    mesh.until("all well again", well);

    // Never less than that in between: one Endpoints lost its addresses, and nothing was taken away.
    assert_eq!(mesh.kept.0.lock().fewest, everything);
    assert_eq!(mesh.kept.0.lock().resources.len(), everything);
}

/// The kinds of SMI, which this cluster does not have.
const SMI_RIGHTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: smi}
rules:
- {apiGroups: [split.smi-spec.io, specs.smi-spec.io, access.smi-spec.io], resources: ["*"], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: smi}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: smi}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: mesh}]
"#;

#[test]
fn what_may_not_be_read_is_said_with_what_to_do() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    server.apply(SHOP).unwrap();
    let kubeconfig = server.kubeconfig_for("mesh", &[]).unwrap();
    let role = |name: &str, kinds: &str| {
        kubectl(&server, &format!("create clusterrole {name} --verb=list,watch --resource={kinds}"));
        kubectl(&server, &format!("create clusterrolebinding {name} --clusterrole={name} --user=mesh"));
    };
    role("some", "services,namespaces");
    server.apply(SMI_RIGHTS).unwrap();
    let mesh = Watching::new(&server, &kubeconfig, Options::default());
    mesh.until("the refusals", |mesh| {
        mesh.state.synced().borrow().eq(&false) && {
            let watches = mesh.watches.states();
            watches[&ObjectKind::Service].synced && watches[&ObjectKind::EndpointSlice].error.is_some()
        }
    });
    assert!(!mesh.kept.0.lock().complete, "slices are required");
    role("slices", "endpointslices.discovery.k8s.io");
    mesh.until("what is required", |mesh| mesh.kept.0.lock().complete);
    let refused = |mesh: &Watching| {
        let said = mesh.state.diagnostics();
        let refused = said.iter().filter(|d| d.reason == Reason::WatchFailed);
        refused.map(|d| (d.object.kind.to_string(), d.message.to_string())).collect::<Vec<_>>()
    };
    mesh.until("the rest refused", |mesh| refused(mesh).len() == 2);
    assert!(refused(&mesh)[1].1.contains("Allow verbs list and watch on pods"), "{:#?}", refused(&mesh));
    assert_eq!(mesh.endpoints("shop/web").len(), 2);
    role("rest", "pods,nodes");
    mesh.until("all allowed", |mesh| refused(mesh).is_empty());
    mesh.until("the node", |mesh| mesh.resource(Kind::Workload, "10.244.1.0/24").is_some());
}

/// An authority's certificate, in PEM.
fn authority() -> String {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

fn config_map(name: &str, ca: &str) -> String {
    let ca = serde_json::Value::from(ca);
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: shop}}\ndata: {{ca.crt: {ca}}}\n---\n"
    )
}

/// What the endpoints of shop/web are verified against, in words.
fn roots(mesh: &Watching) -> Option<String> {
    let Some(Resource::Service(service)) = mesh.resource(Kind::Service, "shop/web") else { return None };
    Some(service.ports[0].backend.tls.as_ref()?.roots.to_string())
}

/// With rights on that one name: a list of all ConfigMaps would be refused.
#[test]
fn a_config_map_is_read_while_a_service_names_it() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    server.apply(SHOP).unwrap();
    server.apply(&(config_map("ca", &authority()) + &config_map("other", &authority()))).unwrap();
    let kubeconfig = server.kubeconfig_for("mesh", &[]).unwrap();
    for (name, rights) in [
        ("mesh", "--resource=services,namespaces,pods,nodes,endpointslices.discovery.k8s.io"),
        ("cas", "--resource=configmaps --resource-name=ca --resource-name=late"),
    ] {
        kubectl(&server, &format!("create clusterrole {name} --verb=list,watch {rights}"));
        kubectl(&server, &format!("create clusterrolebinding {name} --clusterrole={name} --user=mesh"));
    }
    let annotate = |what: &str| kubectl(&server, &format!("-n shop annotate --overwrite service web {what}"));
    let mesh = Watching::new(&server, &kubeconfig, Options::default());
    let is_watched = |mesh: &Watching| mesh.watches.states().contains_key(&ObjectKind::ConfigMap);
    mesh.until("a first configuration", |mesh| mesh.resource(Kind::Service, "shop/web").is_some());
    assert!(!is_watched(&mesh), "nobody names any");

    annotate("maesh.containo.us/scheme=https maesh.containo.us/tls-ca=ca");
    mesh.until("the authority", |mesh| roots(mesh).as_deref() == Some("1 certificate"));
    server.apply(&config_map("ca", &(authority() + &authority()))).unwrap();
    mesh.until("another one", |mesh| roots(mesh).as_deref() == Some("2 certificates"));
    mesh.until("one ConfigMap", |mesh| mesh.state.counts().objects[&ObjectKind::ConfigMap] == 1);

    let says = |mesh: &Watching, what: &str| mesh.state.diagnostics().iter().any(|found| found.message.contains(what));
    annotate("maesh.containo.us/tls-ca=other");
    mesh.until("that it may not be read", |mesh| {
        says(mesh, "cannot be read (the API server does not let the controller)")
    });
    assert!(roots(&mesh).unwrap().starts_with("none: "));
    annotate("maesh.containo.us/tls-ca=late");
    mesh.until("that it does not exist", |mesh| says(mesh, "ConfigMap shop/late does not exist"));
    server.apply(&config_map("late", &authority())).unwrap();
    mesh.until("that it was made", |mesh| roots(mesh).as_deref() == Some("1 certificate"));

    // A controller that starts anew says nothing before it has read it.
    let again = Watching::new(&server, &kubeconfig, Options::default());
    again.until("a configuration", |again| again.resource(Kind::Service, "shop/web").is_some());
    assert_eq!(roots(&again).as_deref(), Some("1 certificate"));

    kubectl(&server, "-n shop delete configmap late");
    mesh.until("its end", |mesh| says(mesh, "ConfigMap shop/late does not exist"));
    annotate("maesh.containo.us/tls-ca-");
    mesh.until("the end of the watch", |mesh| !is_watched(mesh));
    mesh.until("the roots of the system", |mesh| roots(mesh).as_deref() == Some("system roots"));
    mesh.until("nothing to say of it", |mesh| !says(mesh, "ConfigMap"));
}

/// A kind that not every cluster serves. Its name is that of a kind of another group. It is counted as ServiceAccounts,
/// which are not watched.
static TEST_KIND: Registration = Registration {
    kind: ObjectKind::ServiceAccount,
    group: "test.maesh.example",
    name: "Service",
    plural: "services",
    versions: &["v2", "v1"],
    namespaced: true,
    always_served: false,
    names: Names::Subdomain,
    read: |meta, _, _, _| Ok(Object::ServiceAccount(meta)),
};

fn definition(version: &str) -> String {
    format!(
        r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: services.test.maesh.example}}
spec:
  group: test.maesh.example
  scope: Namespaced
  names: {{kind: Service, plural: services, singular: service}}
  versions:
  - name: {version}
    served: true
    storage: true
    schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}
"#
    )
}

#[test]
fn a_kind_appears_and_vanishes() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    server.apply(SHOP).unwrap();
    let mut options = Options::default();
    options.kinds.push(&TEST_KIND);
    let mesh = Watching::new(&server, server.kubeconfig(), options);
    mesh.until("a configuration without the kind", |mesh| mesh.kept.0.lock().complete);
    let count = |mesh: &Watching| mesh.state.counts().objects[&ObjectKind::ServiceAccount];
    for version in ["v1", "v2"] {
        assert_eq!(count(&mesh), 0, "before {version}");
        server.apply(&definition(version)).unwrap();
        let object = format!(
            "apiVersion: test.maesh.example/{version}\nkind: Service\nmetadata: {{name: web, namespace: shop}}\n"
        );
        // The server takes a moment to serve what was just defined.
        assert!(until(PATIENCE, || server.apply(&object).is_ok()), "{version} is not served");
        mesh.until("its object", |mesh| count(mesh) == 1);
        kubectl(&server, "delete customresourcedefinition services.test.maesh.example");
        mesh.until("the end of its object", |mesh| count(mesh) == 0);
    }
    let said = mesh.state.diagnostics();
    assert!(said.iter().all(|found| found.reason != Reason::WatchFailed), "{said:#?}");
    assert!(mesh.resource(Kind::Name, "shop/web").is_some(), "the core kind of that name is another one");
}
