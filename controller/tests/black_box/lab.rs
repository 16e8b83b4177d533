//! A cluster's DNS without a cluster: a real API server, CoreDNS as its pods, another CoreDNS as the mesh's dns.
#![allow(dead_code, reason = "each of the tests that share it needs a part of it")]

use std::{
    fs,
    net::{IpAddr, UdpSocket},
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{Name, RecordType},
};
use kube::Client;
use maesh_controller::source::kubernetes;
use maesh_test_support::{need_tool, until};
use maesh_testkube::{ApiServer, Process};
use serde_json::Value;
use tokio::runtime::Runtime;

/// What the cluster's DNS reads.
pub(crate) const COREFILE: &str = ".:53 {
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        kubeconfig /KUBECONFIG test
    }
    forward . 10.89.0.99
    reload 2s
    loadbalance
}
";

/// The mesh's dns: any name, and who is responsible for the zone. And whom CoreDNS asks about the rest of the world: every
/// address there is local, so without an answer of its own CoreDNS would ask itself, again and again.
const DNS: &str = r#"maesh:53 {
    bind 10.96.0.53 10.96.0.54
    template IN A maesh {
        answer "{{ .Name }} 5 IN A 10.1.2.3"
    }
    template IN SOA maesh {
        answer "maesh. 5 IN SOA ns.dns.maesh. hostmaster.maesh. 1 60 60 60 5"
    }
}
.:53 {
    bind 10.89.0.99
    template ANY ANY . {
        rcode NXDOMAIN
    }
}
"#;

/// The user that the controller is.
pub(crate) const USER: &str = "system:serviceaccount:maesh:maesh-controller";

/// The rights that the chart gives.
pub(crate) const RIGHTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: maesh}
rules:
- {apiGroups: [""], resources: [services, pods], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
- {apiGroups: [events.k8s.io], resources: [events], verbs: [create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: maesh}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: maesh}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: "system:serviceaccount:maesh:maesh-controller"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: maesh, namespace: kube-system}
rules:
- {apiGroups: [""], resources: [configmaps], resourceNames: [coredns, coredns-custom, kube-dns], verbs: [get, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: maesh, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: maesh}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: "system:serviceaccount:maesh:maesh-controller"}]
"#;

const OBJECTS: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: maesh}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: kube-system}}
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  clusterIP: 10.96.0.10
  selector: {k8s-app: kube-dns}
  ports: [{name: dns, port: 53, protocol: UDP, targetPort: dns}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: maesh-dns-1, namespace: maesh, labels: {kubernetes.io/service-name: maesh-dns}}
addressType: IPv4
endpoints: [{addresses: [10.244.3.3], conditions: {ready: true}}]
ports: []
"#;

/// What a test has of it. Dropped, all of it ends.
pub(crate) struct Lab {
    stop: Arc<AtomicBool>,
    hold: Arc<AtomicBool>,
    kill: Arc<AtomicBool>,
    kubelet: Option<JoinHandle<()>>,
    _dns: Process,
    server: Arc<ApiServer>,
}

impl Lab {
    pub(crate) fn start_or_skip() -> Option<Self> {
        let coredns = need_tool("coredns")?;
        let server = Arc::new(ApiServer::start_or_skip()?);
        server.namespace().make_local("10.96.0.0/24").unwrap();
        server.apply(OBJECTS).unwrap();
        server.apply(RIGHTS).unwrap();
        let folder = server.namespace().folder().to_owned();
        fs::write(folder.join("dns"), DNS).unwrap();
        let mut dns = server.namespace().command(&coredns);
        dns.arg("-conf").arg(folder.join("dns"));
        let dns = Process::start(dns, &folder.join("dns.log")).unwrap();
        let [stop, hold, kill] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
        let mut lab = Self { stop, hold, kill, kubelet: None, _dns: dns, server };
        lab.dns_service("10.96.0.53");
        lab.create_corefile(COREFILE);
        lab.pods(&[]);
        lab.kubelet = Some(lab.kubelet(coredns));
        let up = until(Duration::from_secs(60), || {
            lab.ask("10.96.0.10", "kubernetes.default.svc.cluster.local") == "10.96.0.1"
                && lab.ask("10.96.0.53", "web.shop.maesh") == "10.1.2.3"
        });
        assert!(up, "CoreDNS: {}", fs::read_to_string(folder.join("coredns.log")).unwrap_or_default());
        Some(lab)
    }

    /// Copies the Corefile from its ConfigMap, as a kubelet does, and keeps CoreDNS running.
    fn kubelet(&self, coredns: std::path::PathBuf) -> JoinHandle<()> {
        let folder = self.server.namespace().folder().to_owned();
        let (stop, hold, kill) = (self.stop.clone(), self.hold.clone(), self.kill.clone());
        let server = self.server.clone();
        thread::spawn(move || {
            let mut process = None;
            while !stop.load(Ordering::Relaxed) {
                let text = corefile(&server);
                if let Some(text) = text.filter(|_| !hold.load(Ordering::Relaxed)) {
                    let text = text.replace("/KUBECONFIG", &server.kubeconfig().display().to_string());
                    if kill.load(Ordering::Relaxed) && text.contains("# maesh begin") {
                        process = None;
                    } else if process.is_none() {
                        fs::write(folder.join("Corefile"), &text).unwrap();
                        let mut command = server.namespace().command(&coredns);
                        command.arg("-conf").arg(folder.join("Corefile"));
                        process = Some(Process::start(command, &folder.join("coredns.log")).unwrap());
                    } else if fs::read_to_string(folder.join("Corefile")).unwrap() != text {
                        fs::write(folder.join("Corefile.new"), &text).unwrap();
                        fs::rename(folder.join("Corefile.new"), folder.join("Corefile")).unwrap();
                    }
                }
                until(Duration::from_millis(500), || stop.load(Ordering::Relaxed));
            }
        })
    }

    /// A folder for the test.
    pub(crate) fn folder(&self) -> &Path {
        self.server.namespace().folder()
    }

    /// What CoreDNS said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder().join("coredns.log")).unwrap_or_default()
    }

    /// The kubelet's copies stay as they are.
    pub(crate) fn hold_files(&self, hold: bool) {
        self.hold.store(hold, Ordering::Relaxed);
    }

    /// CoreDNS dies of the stanza.
    pub(crate) fn kill_on_stanza(&self, kill: bool) {
        self.kill.store(kill, Ordering::Relaxed);
    }

    /// CoreDNS ends, and is started with the Corefile as it is by now.
    pub(crate) fn restart(&self) {
        self.kill_on_stanza(true);
        self.hold_files(false);
        let ended = until(Duration::from_secs(30), || {
            self.ask("10.96.0.10", "kubernetes.default.svc.cluster.local") != "10.96.0.1"
        });
        assert!(ended, "CoreDNS runs on");
        self.kill_on_stanza(false);
    }

    pub(crate) fn runtime(&self) -> Runtime {
        let build = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        self.server.namespace().run(build).unwrap()
    }

    pub(crate) fn client(&self, runtime: &Runtime, user: &str) -> Client {
        let groups: &[&str] = if user == "admin" { &["system:masters"] } else { &["system:authenticated"] };
        let kubeconfig = self.server.kubeconfig_for(user, groups).unwrap();
        let client = async move { kubernetes::client(Some(&kubeconfig), None).await.unwrap() };
        runtime.block_on(runtime.spawn(client)).unwrap()
    }

    /// A program in the API server's network, as its administrator.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = self.server.namespace().command(program);
        command.env("KUBECONFIG", self.server.kubeconfig());
        command
    }

    pub(crate) fn apply(&self, manifests: &str) {
        self.server.apply(manifests).unwrap();
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Output {
        let output = self.server.kubectl().args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    pub(crate) fn output(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.kubectl(arguments).stdout).unwrap()
    }

    pub(crate) fn coredns_map(&self) -> Value {
        let map = self.output(&["--namespace", "kube-system", "get", "configmap", "coredns", "--output", "json"]);
        serde_json::from_str(&map).unwrap()
    }

    /// What Events of ours say of the ConfigMap of the cluster's DNS: reason and text.
    pub(crate) fn events(&self) -> String {
        self.events_of("coredns")
    }

    /// What Events of ours say of an object in kube-system.
    pub(crate) fn events_of(&self, name: &str) -> String {
        let events = self.output(&["--namespace", "kube-system", "get", "events.events.k8s.io", "--output", "json"]);
        // The API server writes some too: it repairs addresses of Services, for instance.
        let events: Value = serde_json::from_str(&events).unwrap_or_default();
        let is_ours = |event: &&Value| {
            event["regarding"]["name"] == name && event["reportingController"] == "maesh.containo.us/controller"
        };
        let text = |event: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (reason, note) = (text(&event["reason"]), text(&event["note"]));
            format!("{reason}: {note} ({})\n", text(&event["regarding"]["uid"]))
        };
        events["items"].as_array().into_iter().flatten().filter(is_ours).map(text).collect()
    }

    /// Empty while it is not there.
    pub(crate) fn corefile(&self) -> String {
        corefile(&self.server).unwrap_or_default()
    }

    pub(crate) fn create_corefile(&self, text: &str) {
        let map = serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "coredns", "namespace": "kube-system", "annotations": {"owner": "somebody"}},
            "data": {"Corefile": text, "other": "x"},
        });
        let file = self.server.namespace().folder().join("coredns.json");
        fs::write(&file, map.to_string()).unwrap();
        self.kubectl(&["create", "--filename", &file.display().to_string()]);
    }

    pub(crate) fn write_corefile(&self, text: &str) {
        let patch = serde_json::json!({"data": {"Corefile": text}}).to_string();
        self.kubectl(&[
            "--namespace",
            "kube-system",
            "patch",
            "configmap",
            "coredns",
            "--type=merge",
            "--patch",
            &patch,
        ]);
    }

    /// The Service of the mesh's dns, made anew with another address.
    pub(crate) fn dns_service(&self, address: &str) {
        self.kubectl(&["--namespace", "maesh", "delete", "service", "maesh-dns", "--ignore-not-found"]);
        self.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: maesh-dns, namespace: maesh}}\n\
             spec: {{clusterIP: {address}, ports: [{{port: 53, protocol: UDP}}]}}\n"
        ));
    }

    /// The pods of the cluster's DNS have the ConfigMap `extra` in the place of their own.
    pub(crate) fn mount_extra(&self) {
        self.pods(&[("config-volume", "extra", "/etc/coredns")]);
    }

    /// The pods of the cluster's DNS may have a ConfigMap of imports.
    pub(crate) fn mount_custom(&self) {
        self.pods(&[("custom", "coredns-custom", "/etc/coredns/custom")]);
    }

    fn pods(&self, more: &[(&str, &str, &str)]) {
        self.kubectl(&["--namespace", "kube-system", "delete", "pods", "--all", "--grace-period=0", "--force"]);
        let mut mounts = vec![("config-volume", "coredns", "/etc/coredns")];
        mounts.retain(|(name, ..)| more.iter().all(|(other, ..)| name != other));
        mounts.extend(more);
        for (name, address) in [("coredns-a", "10.244.1.7"), ("coredns-b", "10.244.2.7")] {
            self.pod(name, address, &mounts);
        }
    }

    fn pod(&self, name: &str, address: &str, mounts: &[(&str, &str, &str)]) {
        let volumes: Vec<_> = mounts
            .iter()
            .map(|(name, map, _)| serde_json::json!({"name": name, "configMap": {"name": map, "optional": true}}))
            .collect();
        let mounted: Vec<_> =
            mounts.iter().map(|(name, _, path)| serde_json::json!({"name": name, "mountPath": path})).collect();
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
            "spec": {"nodeName": "n1", "automountServiceAccountToken": false, "volumes": volumes, "containers": [{
                "name": "coredns", "image": "coredns", "args": ["-conf", "/etc/coredns/Corefile"],
                "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}], "volumeMounts": mounted,
            }]},
        });
        self.apply(&pod.to_string());
        let status = serde_json::json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
        let patch = status.to_string();
        let pod = ["patch", "pod", name, "--subresource=status", "--type=merge", "--patch", &patch];
        self.kubectl(&[&["--namespace", "kube-system"], &pod[..]].concat());
    }

    /// NodeLocal DNSCache runs; nobody needs to answer there.
    pub(crate) fn node_local(&self) {
        self.apply(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: cache, namespace: kube-system, labels: {k8s-app: \
             node-local-dns}}\nspec: {nodeName: n1, containers: [{name: cache, image: cache}]}\n",
        );
        let status = r#"{"status": {"phase": "Running"}}"#;
        let patch = ["patch", "pod", "cache", "--subresource=status", "--type=merge", "--patch", status];
        self.kubectl(&[&["--namespace", "kube-system"], &patch[..]].concat());
    }

    /// The controller may only `verbs` in kube-system's ConfigMap `map`, and what the chart allows with the Corefile's.
    pub(crate) fn limit(&self, map: &str, verbs: &str) {
        let rule = "- {apiGroups: [\"\"], resources: [configmaps], resourceNames: ";
        self.apply(&format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: maesh, namespace: \
             kube-system}}\nrules:\n{rule}[{map}], verbs: [{verbs}]}}\n{}",
            if map == "coredns" { String::new() } else { format!("{rule}[coredns], verbs: [get, patch]}}\n") }
        ));
    }

    /// A pod of the cluster's DNS gives way to one at another address; nobody answers at its own any more.
    pub(crate) fn replace_pod(&self) {
        self.pod("coredns-c", "10.244.3.7", &[("config-volume", "coredns", "/etc/coredns")]);
        self.kubectl(&["--namespace", "kube-system", "delete", "pod", "coredns-b", "--grace-period=0", "--force"]);
        let mut ip = self.server.namespace().command("ip");
        let silenced = ip.args(["route", "add", "blackhole", "10.244.2.7/32", "table", "local"]).output().unwrap();
        assert!(silenced.status.success(), "{}", String::from_utf8_lossy(&silenced.stderr));
        assert_ne!(self.ask("10.244.2.7", "kubernetes.default.svc.cluster.local"), "10.96.0.1");
    }

    /// The first address of `name`, or what came instead.
    pub(crate) fn ask(&self, server: &str, name: &str) -> String {
        let server: IpAddr = server.parse().unwrap();
        let asked = self.server.namespace().run(|| -> std::io::Result<Message> {
            let mut question = Message::new(7, MessageType::Query, OpCode::Query);
            question.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), RecordType::A));
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            socket.connect((server, 53))?;
            socket.send(&question.to_vec().unwrap())?;
            let mut packet = [0; 4096];
            let length = socket.recv(&mut packet)?;
            Ok(Message::from_vec(&packet[..length]).unwrap())
        });
        match asked.unwrap() {
            Ok(answer) => answer
                .answers
                .first()
                .map_or_else(|| answer.metadata.response_code.to_string(), |record| record.data.to_string()),
            Err(error) => error.to_string(),
        }
    }
}

fn corefile(server: &ApiServer) -> Option<String> {
    let mut get = server.kubectl();
    get.args(["--namespace", "kube-system", "get", "configmap", "coredns", "--output", "jsonpath={.data.Corefile}"]);
    let output = get.output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(kubelet) = self.kubelet.take() {
            let _ = kubelet.join();
        }
    }
}
