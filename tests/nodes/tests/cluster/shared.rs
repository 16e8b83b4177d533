//! The one cluster that all tests of this program share, one at a time.

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use maesh_test_support::{need_root, need_tool, skip, until};
use maesh_testcluster::{Guard, Kube, MESH, Options, archive, chart, helm, images, load_image, up};
use serde_json::Value;

/// For anything that a cluster does by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Address of the mesh's DNS Service, the same in every installation.
pub(crate) const DNS: &str = "10.96.0.53";

/// Values for every installation, with a horizon that tests have the time to wait for. The tests put the stanza in and
/// out when they need it.
pub(crate) const VALUES: [&str; 4] = [
    "dns.clusterIP=10.96.0.53",
    "proxy.drainHorizon=8s",
    "proxy.terminationGracePeriodSeconds=20",
    "coredns.mode=manual",
];

/// [`VALUES`], but the mesh puts the stanza in and out by itself; and `further` ones.
pub(crate) fn automatic<'a>(further: &[&'a str]) -> Vec<&'a str> {
    let values = VALUES.iter().copied().filter(|value| !value.starts_with("coredns"));
    values.chain(["coredns.mode=auto"]).chain(further.iter().copied()).collect()
}

/// The namespace of the mesh, in which Pod Security `restricted` is enforced.
const NAMESPACE: &str = r#"
apiVersion: v1
kind: Namespace
metadata:
  name: maesh
  labels:
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/enforce-version: latest
"#;

/// A cluster with Services to call and pods that call.
pub(crate) struct Cluster {
    pub(crate) kube: Kube,
    /// The mesh is there as [`Cluster::with_mesh`] leaves it.
    meshed: Cell<bool>,
    /// The stanza is in force in every CoreDNS pod.
    pub(crate) forwarded: Cell<bool>,
    /// Both families of addresses, IPv4 first.
    dual_stack: bool,
    /// Takes it down with this process.
    _guard: Option<Guard>,
}

static SHARED: Mutex<Option<Cluster>> = Mutex::new(None);

/// A test's turn with the cluster.
pub(crate) struct Turn(MutexGuard<'static, Option<Cluster>>);

impl std::ops::Deref for Turn {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.0.as_ref().expect("made before a turn begins")
    }
}

/// The cluster, made by the first test that asks; `None` when this machine cannot have one, which is noted as a skip.
pub(crate) fn cluster() -> Option<Turn> {
    turn(false)
}

/// A cluster of ours with addresses of both families. It takes the place of the other one, until that is asked for.
pub(crate) fn dual_stack_cluster() -> Option<Turn> {
    if Kube::named().is_some() {
        skip("it makes a cluster of its own");
        return None;
    }
    turn(true)
}

fn turn(dual_stack: bool) -> Option<Turn> {
    let mut shared = SHARED.lock().unwrap_or_else(|failed| {
        // A test that failed says nothing of the next one, which finds a cluster without a mesh.
        SHARED.clear_poison();
        let shared = failed.into_inner();
        shared.iter().for_each(Cluster::without_mesh);
        shared
    });
    if shared.as_ref().is_none_or(|cluster| cluster.dual_stack != dual_stack && cluster.kube.is_ours()) {
        // The old one goes first: there is room for one.
        *shared = None;
        *shared = Some(make(dual_stack)?);
    }
    Some(Turn(shared))
}

/// The cluster, when it is ours: for tests that take its parts away.
pub(crate) fn our_cluster() -> Option<Turn> {
    let turn = cluster()?;
    if !turn.kube.is_ours() {
        skip("it takes parts of the cluster away, which only ours survives");
        return None;
    }
    Some(turn)
}

fn make(dual_stack: bool) -> Option<Cluster> {
    need_tool("helm4")?;
    let named = Kube::named();
    let mut options = Options { nodes: 3, dual_stack, images: Vec::new() };
    let mut guard = None;
    if named.is_none() {
        if !need_root() {
            return None;
        }
        let Some(images) = images() else {
            skip("the images of the test cluster are not built, cargo xtask cluster images builds them");
            return None;
        };
        options.images = images;
        guard = Some(Guard::new(&[env!("CARGO_BIN_EXE_maesh-testcluster").into()]).unwrap());
        up(&options).unwrap();
    }
    let kube = named.unwrap_or_else(Kube::ours);
    kube.apply(include_str!("../../manifests/shop.yaml")).unwrap();
    kube.apply(include_str!("../../manifests/callers.yaml")).unwrap();
    kube.settled("shop", "deployment/web", PATIENCE).unwrap();
    kube.settled("callers", "daemonset/caller", PATIENCE).unwrap();
    kube.settled("callers", "daemonset/caller-glibc", PATIENCE).unwrap();
    let cluster = Cluster { kube, meshed: Cell::new(false), forwarded: Cell::new(false), dual_stack, _guard: guard };
    cluster.without_mesh();
    Some(cluster)
}

impl Cluster {
    /// Removes whatever there is of a mesh and of a load, and makes the namespace of the mesh.
    pub(crate) fn without_mesh(&self) {
        self.meshed.set(false);
        if crate::stanza::is_automatic(&self.kube) {
            // A test that failed: the mesh takes it out by itself, and would put it back in.
            let _ = helm(&self.kube, &["uninstall", MESH, "--ignore-not-found", "--timeout=290s"]);
        }
        self.without_stanza();
        let _ = helm(&self.kube, &["uninstall", MESH, "--wait", "--ignore-not-found", "--timeout=120s"]);
        // Helm waits for what it made, which is gone while its pods still drain.
        until(PATIENCE, || self.selected(MESH, "").is_empty());
        self.kube.run("--namespace=callers delete daemonset --selector=load=yes --wait --ignore-not-found").unwrap();
        self.kube.apply(NAMESPACE).unwrap();
    }

    /// Installs the mesh with [`VALUES`], unless it is there from an earlier test, and waits until every part of it is
    /// ready.
    pub(crate) fn with_mesh(&self) {
        if !self.meshed.get() {
            chart(&self.kube, "install", &VALUES).unwrap();
            self.mesh_settled();
        }
    }

    /// Installs the mesh as users do: it puts its stanza in by itself. Waits until that is in force.
    pub(crate) fn with_automatic_mesh(&self) {
        chart(&self.kube, "install", &automatic(&[])).unwrap();
        self.mesh_settled();
        for (pod, took) in self.when_asked("web.shop.maesh.", |answer| answer["addresses"].is_array()) {
            println!("stanza live in {pod} {:.1} s after the mesh was", took.as_secs_f32());
        }
    }

    /// As users do: the stanza goes by itself, before anything else.
    pub(crate) fn uninstall(&self) {
        helm(&self.kube, &["uninstall", MESH, "--wait", "--timeout=290s"]).unwrap();
        self.meshed.set(false);
    }

    /// Waits until the mesh is as it was told to be.
    pub(crate) fn mesh_settled(&self) {
        for workload in ["deployment/maesh-controller", "deployment/maesh-dns", "daemonset/maesh-proxy"] {
            self.kube.settled(MESH, workload, PATIENCE).unwrap();
        }
        self.meshed.set(true);
    }

    /// Gives the nodes an image that they do not have from the beginning; if it is not built, that is noted as a skip.
    pub(crate) fn has_further(&self, image: &str) -> bool {
        let file = archive(image);
        if !file.exists() {
            skip(&format!("the image {image} is not built, cargo xtask cluster images --all builds it"));
            return false;
        }
        load_image(&file).unwrap();
        true
    }

    /// Pods of the DaemonSet or Deployment `name`, whose label `app` that is, in a namespace of ours.
    pub(crate) fn pods(&self, namespace: &str, name: &str) -> Vec<Pod> {
        self.selected(namespace, &format!("app={name}"))
    }

    /// Pods of a role of the mesh.
    pub(crate) fn mesh_pods(&self, role: &str) -> Vec<Pod> {
        self.selected(MESH, &format!("app.kubernetes.io/component={role}"))
    }

    pub(crate) fn selected(&self, namespace: &str, labels: &str) -> Vec<Pod> {
        let pods = self.kube.list(&format!("pods --namespace={namespace} --selector={labels}")).unwrap();
        let mut pods: Vec<Pod> = pods.iter().map(Pod::read).collect();
        pods.sort_by(|a, b| (&a.node, &a.name).cmp(&(&b.node, &b.name)));
        pods
    }
}

/// A pod, as far as tests care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) address: String,
}

impl Pod {
    fn read(pod: &Value) -> Self {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self { name: text("/metadata/name"), node: text("/spec/nodeName"), address: text("/status/podIP") }
    }
}
