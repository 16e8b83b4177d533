//! Nothing in the cluster is touched but what is the mesh's, and nothing is left of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use maesh_test_support::{repository, until};
use maesh_testcluster::dump::{Objects, differences, objects, pods};
use maesh_testcluster::process::Signal;
use maesh_testcluster::{Daemon, MESH, MESH_IMAGE, chart, helm};

use crate::shared::{Cluster, PATIENCE, automatic, cluster, our_cluster};
use crate::stanza;

/// The page that says how to clean up.
const README: &str = "charts/maesh/README.md";

/// The page that says how to take the stanza out at once.
const CLUSTER_DNS: &str = "docs/cluster-dns.md";

/// The commands of this page below the words `case`: what a person runs there is what the tests run.
fn documented(page: &str, case: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository().join(page)).unwrap();
    let below = text.split_once(case).unwrap_or_else(|| panic!("{page} does not say {case:?}")).1;
    let block =
        below.split_once("```sh\n").and_then(|(_, rest)| rest.split_once("```")).expect("a block of commands").0;
    block.lines().map(str::to_owned).collect()
}

/// The mesh's program as a person with all rights runs it.
const CLEANER: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: cleaner, namespace: callers}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: cleaner}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: cleaner, namespace: callers}]
---
apiVersion: v1
kind: Pod
metadata: {name: cleaner, namespace: callers}
spec:
  serviceAccountName: cleaner
  restartPolicy: Never
  containers:
  - name: cleaner
    image: IMAGE
    args: [dns, uninstall]
";

/// A value with which controllers end at once.
const CRASHES: &str = "controller.extraArgs={--no-such-flag}";

/// A value with which no new pod starts.
const NO_IMAGE: &str = "image.digest=sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// Whether a difference is the mesh's own: in its namespace, its rights, or what the cluster notes for its Services.
fn is_ours(line: &str, now: &Objects) -> bool {
    let Some((_, id)) = line.split_once(' ') else { return false };
    let id = id.split(": ").next().unwrap_or_default();
    let (kind, name) = id.split_once(' ').unwrap_or((id, ""));
    let rights = ["ClusterRole.rbac.authorization.k8s.io", "ClusterRoleBinding.rbac.authorization.k8s.io"];
    let address = kind == "IPAddress.networking.k8s.io"
        && now.get(id).is_some_and(|object| object["spec"]["parentRef"]["namespace"] == MESH);
    name.starts_with(&format!("{MESH}/"))
        || (rights.contains(&kind) && name.starts_with(&format!("/{MESH}-")))
        || address
}

impl Cluster {
    /// Waits until nothing differs from `before`, and no pod was touched.
    #[track_caller]
    fn is_as(&self, before: &Objects, pods_before: &impl PartialEq<std::collections::BTreeMap<String, (String, u64)>>) {
        let mut left = Vec::new();
        // Controllers of the cluster collect what belonged to something that is gone.
        until(PATIENCE, || {
            left = differences(before, &objects(&self.kube).unwrap());
            left.is_empty()
        });
        assert!(left.is_empty(), "not as before: {left:#?}");
        assert!(*pods_before == pods(&self.kube).unwrap(), "a pod was started or restarted");
    }

    /// Runs the commands of this page below `case`, as somebody who may do anything.
    fn does(&self, page: &str, case: &str) {
        let commands = documented(page, case);
        assert!(!commands.is_empty(), "{page} names no command below {case:?}");
        for command in commands {
            match command.split_once(' ').expect("a program and its arguments") {
                ("maesh", "dns uninstall") => self.cleans_up_the_dns(),
                ("kubectl", arguments) => drop(self.kube.run(arguments).unwrap()),
                ("helm", arguments) => {
                    let chart = repository().join("charts/maesh").display().to_string();
                    let arguments = arguments.replace(" --namespace maesh", "").replace("charts/maesh", &chart);
                    let waits: &[&str] =
                        if arguments.starts_with("uninstall") { &["--wait", "--timeout=120s"] } else { &[] };
                    let arguments: Vec<&str> = arguments.split(' ').chain(waits.iter().copied()).collect();
                    helm(&self.kube, &arguments).unwrap();
                }
                _ => panic!("{case}: {command:?} is nothing that this test can run"),
            }
        }
    }

    /// `maesh dns uninstall`.
    fn cleans_up_the_dns(&self) {
        self.kube.apply(&CLEANER.replace("IMAGE", MESH_IMAGE)).unwrap();
        let done = "--namespace=callers wait pod/cleaner --for=jsonpath={.status.phase}=Succeeded --timeout=290s";
        let done = self.kube.run(done);
        println!("{}", self.kube.run("--namespace=callers logs pod/cleaner").unwrap_or_default());
        self.kube
            .run("--namespace=callers delete pod/cleaner serviceaccount/cleaner clusterrolebinding/cleaner")
            .unwrap();
        done.unwrap();
    }

    /// Waits until a pod of the mesh fails in this way.
    fn fails(&self, how: &str) -> bool {
        let pods = || self.kube.run(&format!("--namespace={MESH} get pods")).unwrap_or_default();
        until(PATIENCE, || pods().contains(how))
    }
}

#[test]
#[ignore = "long: every object of every kind before, during and after an installation"]
fn cluster_nothing_else_is_touched_and_nothing_is_left() {
    let Some(cluster) = cluster() else { return };
    cluster.without_mesh();
    let (before, pods_before) = (objects(&cluster.kube).unwrap(), pods(&cluster.kube).unwrap());
    println!("{} objects before", before.len());

    cluster.with_automatic_mesh();
    let during = objects(&cluster.kube).unwrap();
    let changed = differences(&before, &during);
    let others: Vec<&String> = changed.iter().filter(|line| !is_ours(line, &during)).collect();
    println!(
        "{} objects during; {} differences, of which not in our namespace: {others:?}",
        during.len(),
        changed.len()
    );
    // The right to write that one ConfigMap, and what was written.
    assert_eq!(
        others,
        [
            "+ Role.rbac.authorization.k8s.io kube-system/maesh-maesh-dns",
            "+ RoleBinding.rbac.authorization.k8s.io kube-system/maesh-maesh-dns",
            "~ ConfigMap. kube-system/coredns: /data/Corefile"
        ]
    );
    let id = "ConfigMap. kube-system/coredns";
    let corefile = |objects: &Objects| objects[id]["data"]["Corefile"].as_str().unwrap().to_owned();
    let stanza = corefile(&during).strip_suffix(&corefile(&before)).map(str::to_owned);
    let stanza = stanza.expect("the rest of the Corefile is as it was");
    assert!(
        stanza.contains(&stanza::block()) && stanza.lines().count() == stanza::block().lines().count() + 2,
        "{stanza}"
    );
    let mut pods_now = pods(&cluster.kube).unwrap();
    pods_now.retain(|name, _| !name.starts_with(&format!("{MESH}/")));
    assert_eq!(pods_now, pods_before, "a pod that is not ours was started or restarted");

    println!("the emergency exit");
    cluster.does(CLUSTER_DNS, "With Helm. The next upgrade keeps this state:");
    cluster.when_asked("web.shop.maesh.", |answer| answer["error"] == "NXDOMAIN");
    cluster.mesh_settled();
    let out = objects(&cluster.kube).unwrap();
    let others: Vec<String> = differences(&before, &out).into_iter().filter(|line| !is_ours(line, &out)).collect();
    assert!(others.is_empty(), "neither a right nor a stanza is left in kube-system: {others:?}");
    println!("and back");
    cluster.does(CLUSTER_DNS, "To go back from either way.");
    cluster.mesh_settled();
    cluster.when_asked("web.shop.maesh.", |answer| answer["addresses"].is_array());

    cluster.uninstall();
    cluster.is_as(&before, &pods_before);
}

#[test]
#[ignore = "long: uninstalls installations that never worked, and one whose namespace was deleted"]
fn cluster_nothing_is_left_of_what_never_worked() {
    let Some(cluster) = cluster() else { return };
    cluster.without_mesh();
    let (before, pods_before) = (objects(&cluster.kube).unwrap(), pods(&cluster.kube).unwrap());
    println!("controllers that crash");
    chart(&cluster.kube, "install", &automatic(&[CRASHES])).unwrap();
    assert!(cluster.fails("CrashLoopBackOff"));
    cluster.uninstall();
    cluster.is_as(&before, &pods_before);

    println!("an image that is not there");
    chart(&cluster.kube, "install", &automatic(&[NO_IMAGE])).unwrap();
    assert!(cluster.fails("ErrImageNeverPull"));
    // Nothing of the mesh can run, so Helm waits for its hook in vain.
    helm(&cluster.kube, &["uninstall", MESH, "--timeout=20s"]).unwrap_err();
    cluster.does(README, "**No controller runs either**");
    cluster.is_as(&before, &pods_before);

    println!("a namespace that was deleted");
    cluster.with_automatic_mesh();
    cluster.kube.run(&format!("delete namespace {MESH} --timeout=120s")).unwrap();
    cluster.does(README, "**The namespace was deleted instead of the release**");
    let mut without = before.clone();
    without.retain(|id, _| !id.contains(&format!(" {MESH}/")) && id != &format!("Namespace. /{MESH}"));
    cluster.is_as(&without, &pods_before);
    cluster.without_mesh();
}

#[test]
#[ignore = "long: uninstalls installations that changed the cluster's DNS and were broken afterwards"]
fn cluster_nothing_is_left_of_what_broke_later() {
    let Some(cluster) = cluster() else { return };
    cluster.without_mesh();
    let (before, pods_before) = (objects(&cluster.kube).unwrap(), pods(&cluster.kube).unwrap());
    println!("controllers that crash: the hook's pod does it");
    cluster.with_automatic_mesh();
    cluster.kube.run(&format!("--namespace={MESH} scale deployment/maesh-controller --replicas=0")).unwrap();
    assert!(until(PATIENCE, || cluster.mesh_pods("controller").is_empty()));
    chart(&cluster.kube, "upgrade", &automatic(&[CRASHES])).unwrap();
    assert!(cluster.fails("CrashLoopBackOff"));
    cluster.uninstall();
    cluster.is_as(&before, &pods_before);

    println!("an image that is not there for the hook's pod: the controllers do it");
    cluster.with_automatic_mesh();
    chart(&cluster.kube, "upgrade", &automatic(&[NO_IMAGE])).unwrap();
    assert!(cluster.fails("ErrImageNeverPull"));
    cluster.uninstall();
    cluster.is_as(&before, &pods_before);
    cluster.without_mesh();
}

#[test]
#[ignore = "long: installs and uninstalls while the API server hardly answers"]
fn cluster_nothing_is_left_while_the_api_server_is_slow() {
    let Some(cluster) = our_cluster() else { return };
    cluster.without_mesh();
    let (before, pods_before) = (objects(&cluster.kube).unwrap(), pods(&cluster.kube).unwrap());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // It works a fifth of the time.
            while !over.load(Ordering::Acquire) {
                Daemon::ApiServer.signal(Signal::STOP).unwrap();
                thread::park_timeout(Duration::from_millis(400));
                Daemon::ApiServer.signal(Signal::CONT).unwrap();
                thread::park_timeout(Duration::from_millis(100));
            }
        });
        cluster.with_automatic_mesh();
        cluster.uninstall();
        over.store(true, Ordering::Release);
    });
    cluster.is_as(&before, &pods_before);
    cluster.without_mesh();
}
