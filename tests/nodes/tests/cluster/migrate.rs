//! From a Traefik Mesh to this mesh and back, by the commands of its page.
//!
//! The programs of Traefik Mesh are not here. What it leaves in a cluster is: its blocks in the Corefile, shadow Services,
//! annotations and objects of SMI.

use std::fs;
use std::process::Command;

use maesh_test_support::{repository, until};
use maesh_testcluster::{ECHO_IMAGE, Kube, MESH, MESH_IMAGE, chart, helm};
use serde_json::{Value, json};

use crate::shared::{Cluster, PATIENCE, automatic, cluster};
use crate::splits::{install_smi, remove_smi};
use crate::stanza::{corefile, is_automatic, write};

/// The page.
const PAGE: &str = "docs/tasks/migrate.md";

/// Its commands for the chart of a Traefik Mesh, which is not here.
const OF_ITS_CHART: [&str; 3] = [
    "helm get values traefik-mesh --namespace traefik-mesh -o yaml > old.yaml",
    "maesh migrate --values old.yaml > values.yaml",
    "helm uninstall traefik-mesh --namespace traefik-mesh",
];

/// What Traefik Mesh wrote into the Corefile.
const BLOCKS: &str = include_str!("../../manifests/traefik-mesh.corefile");

/// Whose rights the commands have.
const PERSON: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: person, namespace: callers}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: person}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: person, namespace: callers}]
";

/// The pods of a version of the shop's front.
fn front(version: &str) -> String {
    format!(
        r"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web-{version}, namespace: shop}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web-{version}}}}}
  template:
    metadata: {{labels: {{app: web-{version}}}}}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
      - name: echo
        image: {ECHO_IMAGE}
        args: [echo, --grace=5]
        readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
        env:
        - {{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
---
"
    )
}

/// The commands in the section of the page under this heading.
fn documented(heading: &str) -> Vec<String> {
    let text = fs::read_to_string(repository().join(PAGE)).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("{PAGE} has no section {heading:?}"));
    let blocks = section.split("```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    let commands: Vec<String> = blocks.flat_map(str::lines).map(str::to_owned).collect();
    assert!(!commands.is_empty(), "{PAGE} has no command under {heading:?}");
    commands
}

/// `kubectl` as a function of a shell, for lines as people type them.
fn shell(kube: &Kube, script: &str) -> String {
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap());
    let kubectl = kube.kubectl().unwrap();
    let set = kubectl.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let environment = set.map(|(name, value)| format!("{}={}", name.to_str().unwrap(), quoted(value)));
    let words: Vec<_> = environment
        .chain(std::iter::once(quoted(kubectl.get_program())))
        .chain(kubectl.get_args().map(quoted))
        .collect();
    let script = format!("kubectl() {{ env {} \"$@\"; }}\n{script}", words.join(" "));
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{script}\n{said}");
    said
}

/// What somebody does who follows the page.
struct Person<'a> {
    cluster: &'a Cluster,
    /// The Corefile before anything.
    corefile: String,
    /// What `maesh migrate` printed.
    script: String,
}

impl<'a> Person<'a> {
    /// A cluster with what a Traefik Mesh leaves.
    fn new(cluster: &'a Cluster) -> Self {
        let kube = &cluster.kube;
        let person = Self { cluster, corefile: corefile(kube), script: String::new() };
        install_smi(kube);
        kube.apply(include_str!("../../manifests/traefik-mesh.yaml")).unwrap();
        kube.apply(&(front("v1") + &front("v2") + PERSON)).unwrap();
        write(kube, &(person.corefile.clone() + BLOCKS));
        for deployment in ["deployment/web-v1", "deployment/web-v2"] {
            kube.settled("shop", deployment, PATIENCE).unwrap();
        }
        // As it was with Traefik Mesh: the name is that of the shadow Service.
        for zone in ["maesh", "traefik.mesh"] {
            cluster.when_asked(&format!("web.shop.{zone}."), |answer| answer["addresses"].is_array());
        }
        person
    }

    /// Follows the section under this heading.
    fn follows(&mut self, heading: &str) {
        let kube = &self.cluster.kube;
        for command in documented(heading) {
            println!("$ {command}");
            match command.as_str() {
                other if OF_ITS_CHART.contains(&other) => {}
                "maesh migrate > annotate.sh" => {
                    let (ended_well, said) = self.maesh("migrate");
                    assert!(ended_well, "everything here can be kept: {said}");
                    self.script = said;
                }
                "sh annotate.sh" => println!("{}", shell(kube, &self.script)),
                "helm install maesh charts/maesh --namespace maesh --create-namespace" => {
                    chart(kube, "install", &automatic(&[])).unwrap();
                    self.cluster.mesh_settled();
                }
                "helm uninstall maesh --namespace maesh" => self.cluster.uninstall(),
                // It finds the blocks of the old mesh.
                "maesh check --pre" => {
                    let (_, said) = self.maesh("check --pre");
                    assert!(said.contains("blocks of a Traefik Mesh are left in ConfigMap coredns"), "{said}");
                }
                other => match other.split_once(' ') {
                    Some(("maesh", arguments)) => {
                        let (ended_well, said) = self.maesh(arguments);
                        println!("{said}");
                        assert!(ended_well, "{other}: {said}");
                    }
                    Some(("kubectl", _)) => println!("{}", shell(kube, other)),
                    _ => panic!("{other:?} is nothing that this test can run"),
                },
            }
        }
    }

    /// Runs the program of the mesh in a pod; whether it exited with 0, and what it said.
    fn maesh(&self, arguments: &str) -> (bool, String) {
        let kube = &self.cluster.kube;
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "person", "namespace": "callers" },
            "spec": {
                "serviceAccountName": "person", "restartPolicy": "Never",
                "containers": [{ "name": "maesh", "image": MESH_IMAGE, "args": arguments.split(' ').collect::<Vec<_>>() }],
            },
        });
        kube.apply(&pod.to_string()).unwrap();
        let phase = || {
            let pod = kube.get("pod person --namespace=callers").unwrap();
            pod["status"]["phase"].as_str().unwrap_or_default().to_owned()
        };
        // `maesh check` may wait for three minutes itself.
        let over = until(PATIENCE * 2, || matches!(phase().as_str(), "Succeeded" | "Failed"));
        let said = kube.run("--namespace=callers logs pod/person").unwrap();
        assert!(over, "maesh {arguments} does not end: {said}");
        let ended_well = phase() == "Succeeded";
        kube.run("--namespace=callers delete pod person --now").unwrap();
        (ended_well, said)
    }

    /// Waits until requests from every node by both names are answered by both versions, and by no other pod.
    fn is_split(&self) {
        for caller in self.cluster.pods("callers", "caller") {
            for zone in ["maesh", "traefik.mesh"] {
                let ask = || {
                    let url = format!("get http://web.shop.{zone}/ --patience=5");
                    let answer: Value = self.cluster.kube.ask("callers", &caller.name, &url).ok()?;
                    let pod = answer["answer"]["pod"].as_str()?;
                    Some(pod.splitn(3, '-').take(2).collect::<Vec<_>>().join("-"))
                };
                let mut last = Vec::new();
                let is_so = until(PATIENCE, || {
                    last = (0..40).filter_map(|_| ask()).collect();
                    let count = |version: &str| last.iter().filter(|it| *it == version).count();
                    let (first, second) = (count("web-v1"), count("web-v2"));
                    last.len() == 40 && first + second == 40 && first > second && second > 0
                });
                assert!(is_so, "{zone} from {caller:?}: {last:?}");
            }
        }
    }
}

impl Drop for Person<'_> {
    /// Leaves the cluster as it was, also for the tests after one that failed: nothing here may fail.
    fn drop(&mut self) {
        let kube = &self.cluster.kube;
        if is_automatic(kube) {
            let _ = helm(kube, &["uninstall", MESH, "--ignore-not-found", "--timeout=290s"]);
        }
        let patch = json!({ "data": { "Corefile": self.corefile } }).to_string();
        if let Ok(mut command) = kube.kubectl() {
            let flags = ["--namespace=kube-system", "patch", "configmap", "coredns", "--type=merge", "--patch", &patch];
            let _ = command.args(flags).output();
        }
        for arguments in [
            "delete clusterrolebinding person --ignore-not-found",
            "--namespace=callers delete serviceaccount,pod person --ignore-not-found --now",
            "delete namespace traefik-mesh --ignore-not-found --wait=false",
            "--namespace=shop delete deployment web-v1 web-v2 --ignore-not-found --wait=false",
            "--namespace=shop delete service web-v1 web-v2 --ignore-not-found",
            "--namespace=shop annotate service web maesh.containo.us/routes- maesh.containo.us/retry-attempts-",
            "--namespace=shop annotate service db maesh.containo.us/traffic-type-",
            "delete crd --selector=smi=yes --ignore-not-found --wait",
        ] {
            let _ = kube.run(arguments);
        }
        let _ = kube.apply(include_str!("../../manifests/shop.yaml"));
    }
}

#[test]
#[ignore = "long: CoreDNS takes up three changes"]
fn cluster_a_traefik_mesh_is_left_as_its_page_says_and_come_back_to() {
    let Some(cluster) = cluster() else { return };
    let kube = &cluster.kube;
    cluster.without_mesh();
    remove_smi(kube);
    let mut person = Person::new(&cluster);
    let before = corefile(kube);

    person.follows("1. See what becomes of your objects");
    assert_eq!(corefile(kube), before, "nothing is changed");
    person.follows("2. Add the annotations");
    let web = kube.get("service web --namespace=shop").unwrap();
    let annotations = &web["metadata"]["annotations"];
    assert_eq!(annotations["maesh.containo.us/routes"], "PathRegexp(`^`) => web-v1 80, web-v2 20");
    assert_eq!(annotations["mesh.traefik.io/retry-attempts"], "2", "it stays");
    person.follows("3. Uninstall Traefik Mesh");
    person.follows("4. Install maesh");
    assert!(corefile(kube).contains("# maesh keeps: #### Begin Traefik Mesh Block\n"), "{}", corefile(kube));
    person.is_split();
    let caller = &cluster.pods("callers", "caller")[0].name;
    for zone in ["maesh", "traefik.mesh"] {
        kube.ask("callers", caller, &format!("get tcp://db.shop.{zone}:9000 --patience=8")).unwrap();
    }
    person.follows("5. Look");
    person.follows("6. Remove what is left");
    let shadows = kube.list("services --namespace=traefik-mesh").unwrap();
    assert!(shadows.is_empty(), "{shadows:#?}");
    assert!(kube.list("trafficsplits --namespace=shop").unwrap().is_empty());
    person.is_split();

    person.follows("Going back");
    assert_eq!(corefile(kube), before, "byte for byte");
}
