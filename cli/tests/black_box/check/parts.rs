//! Checks of an installed mesh, beyond its names.

use super::{Installed, daemon, kubectl};

/// Rollouts, images, versions, replicas, and the controllers.
pub(super) fn what_runs(mesh: &Installed) {
    let server = &mesh.server;
    mesh.assert("rollouts", "warn", "not rolled out yet: maesh-proxy");
    let status = r#"{"status":{"observedGeneration":1,"desiredNumberScheduled":1,"updatedNumberScheduled":1,"currentNumberScheduled":1,"numberMisscheduled":0,"numberReady":1}}"#;
    kubectl(
        server,
        &[
            "-n",
            "maesh",
            "patch",
            "daemonset",
            "maesh-proxy",
            "--subresource",
            "status",
            "--type",
            "merge",
            "-p",
            status,
        ],
    );
    mesh.assert("rollouts", "pass", "maesh-proxy are rolled out");
    let container = |pod: &str, image: &str, id: &str, waits: &str| {
        let status = format!(
            r#"{{"status":{{"containerStatuses":[{{"name":"c","image":"{image}","imageID":"{id}","ready":true,"restartCount":0,"state":{{{waits}}}}}]}}}}"#
        );
        kubectl(
            server,
            &["-n", "maesh", "patch", "pod", pod, "--subresource", "status", "--type", "merge", "-p", &status],
        );
    };
    mesh.assert("images", "skip", "no pod says which image");
    container("dns-1", "maesh:1", "sha256:a", "");
    mesh.assert("images", "pass", "the same image");
    container("proxy-1", "maesh:1", "sha256:b", r#""waiting":{"reason":"CrashLoopBackOff"}"#);
    mesh.assert("images", "warn", "maesh:1 is 2 different images");
    mesh.assert("rollouts", "fail", "proxy-1 (CrashLoopBackOff)");
    container("proxy-1", "maesh:1", "sha256:a", "\"waiting\":null");
    mesh.assert("versions", "pass", "all roles and this program are version");
    mesh.assert("replicas", "skip", "no Deployment");
    let labels = "app.kubernetes.io/component: dns";
    server.apply(&daemon("maesh", "maesh-dns", labels).replace("DaemonSet", "Deployment")).unwrap();
    mesh.assert("replicas", "pass", "one node");
    server.apply("apiVersion: v1\nkind: Node\nmetadata: {name: n9}\n").unwrap();
    mesh.assert("replicas", "warn", "one replica only of dns");
    kubectl(server, &["delete", "node", "n9"]);
    kubectl(server, &["-n", "maesh", "delete", "deployment", "maesh-dns"]);
    mesh.assert("leader", "skip", "--read-only");
    mesh.assert("watches", "pass", "1 controller sees every kind");
    mesh.assert("permissions", "fail", "ServiceAccount maesh/default may not list namespaces, watch namespaces");
    let binding = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: controllers}\nroleRef: \
                   {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}\nsubjects:\n- {kind: \
                   ServiceAccount, name: default, namespace: maesh}\n";
    server.apply(binding).unwrap();
    mesh.await_check("permissions", "pass", "has the rights");
}

/// What a request meets, from the name to the endpoints.
pub(super) fn the_way_of_requests(mesh: &Installed) {
    let server = &mesh.server;
    mesh.assert("proxy-request", "skip", "no HTTP Service is meshed");
    mesh.assert("objects", "pass", "nothing is wrong");
    mesh.assert("own-ports", "pass", "use 0 of 17000 ports");
    server.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: way}\n").unwrap();
    let web = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: way}\nspec: {selector: {app: web}, ports: [{name: \
               main, port: 8088}]}\n";
    server.apply(web).unwrap();
    mesh.await_check("proxy-request", "pass", "1 proxies answer a request");
    mesh.await_check("same-node", "pass", "callers on the only node get its proxy");
    mesh.assert("endpoints", "warn", "1 of 1 Services of the mesh have no endpoint that is ready: way/web");
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-1, namespace: way, labels: \
                 {kubernetes.io/service-name: web}}\naddressType: IPv4\nendpoints: [{addresses: [10.89.7.1]}]\nports: [{name: \
                 main, port: 8088}]\n";
    server.apply(slice).unwrap();
    mesh.assert("endpoints", "pass", "all 1 Services");
    kubectl(server, &["-n", "way", "annotate", "service", "web", "maesh.containo.us/traffic-type=pigeon"]);
    mesh.await_check("objects", "warn", "1 finding in 1 object: Service way/web.");
    mesh.assert("access-sources", "pass", "no addresses stand for ServiceAccounts");
    let source = "apiVersion: v1\nkind: Pod\nmetadata: {name: source, namespace: maesh, labels: {app.kubernetes.io/name: maesh}}\n\
                  spec: {nodeName: n1, containers: [{name: c, image: c, args: [--acl-source=10.89.2.0/24=ingress/nginx]}]}\n";
    server.apply(source).unwrap();
    mesh.assert("access-sources", "warn", "10.89.2.0/24 of acl.sources has addresses of pods: maesh/dns-1 (10.89.2.1)");
    kubectl(
        server,
        &["patch", "node", "n1", "-p", r#"{"spec":{"podCIDR":"10.89.0.0/16","podCIDRs":["10.89.0.0/16"]}}"#],
    );
    mesh.assert("access-sources", "warn", "10.89.2.0/24 of acl.sources overlaps 10.89.0.0/16");
    kubectl(server, &["-n", "maesh", "delete", "pod", "source", "--force", "--grace-period=0"]);
    kubectl(server, &["delete", "namespace", "way", "--wait=false"]);
    kubectl(server, &["-n", "way", "delete", "service", "web"]);
}
