//! `maesh explain` from outside: from a `maesh dev`, and from a cluster through port-forwards of a real API server.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
};

use crate::support::{
    Dev, PATIENCE, await_condition,
    backend::Backend,
    command,
    http::get,
    manifest::{save, service, slices},
    resolver::ask,
    roles::{Mesh, Role},
};
use hickory_proto::rr::RecordType;
use maesh_testkube::{ApiServer, Kubelet};
use serde_json::Value;

const POD: &str = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: client, namespace: shop}\nspec: {serviceAccountName: \
                   client, nodeName: local, containers: []}\nstatus: {podIP: 127.0.0.9, phase: Running}\n";

/// Exit code and what was printed.
fn run(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn explain(dev: &Dev, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = command(&["explain"]);
    command.args(arguments).args(["--admin", &dev.admin().to_string()]);
    run(command)
}

fn report(dev: &Dev, name: &str) -> Value {
    let (_, text) = explain(dev, &[name, "-o", "json"]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_dev_explains_names_that_work_and_names_that_do_not() {
    let web = Backend::http("web");
    let folder = tempfile::tempdir().unwrap();
    let misspelt = "maesh.containo.us/scheme: htp";
    let manifests = [
        service("shop", "web", 8080, misspelt).replace("10.96.0.77", "10.96.0.78")
            + &slices("shop", "web", &[web.address])
            + POD,
        service("shop", "empty", 8081, ""),
        service("shop", "db", 5432, "maesh.containo.us/traffic-type: tcp") + &slices("shop", "db", &[web.address]),
        service("shop", "log", 5514, "").replace("port: 5514", "port: 5514\n    protocol: UDP")
            + &slices("shop", "log", &[web.address]).replace("- name: main", "- name: main\n  protocol: UDP"),
        service("shop", "off", 8082, "maesh.containo.us/bypass: \"true\"") + &slices("shop", "off", &[web.address]),
        service("shop", "spare", 8083, "maesh.containo.us/fallback: web:8080"),
        service("kube-system", "kube-dns", 53, ""),
        "apiVersion: v1\nkind: Service\nmetadata: {name: slip, namespace: shop}\nspec: {selector: {app: slip}, port: [{port: \
         80}]}\n"
            .to_owned(),
    ];
    for (number, text) in manifests.iter().enumerate() {
        save(folder.path(), &format!("{number}.yaml"), text);
    }
    let dev = Dev::start(folder.path());
    let spare = "spare.shop.maesh";
    assert_eq!(get(dev.served_at(spare), spare, "/").unwrap().status, 200);
    for (arguments, code, says) in [
        (&["web.shop.maesh"][..], 0, &["Service shop/web", "listener shared/8080/tcp", "try: curl", "\"htp\""][..]),
        (&["web.shop.traefik.mesh"], 0, &["Service shop/web"]),
        (
            &["shop/web", "--from", "shop/client"],
            0,
            &["pod shop/client (127.0.0.9), node local", "pod is on node local"],
        ),
        (&["web", "--from", "client"], 0, &["Service shop/web"]),
        (&["10.96.0.78"], 0, &["Service shop/web"]),
        (&["empty.shop.maesh"], 1, &["has no endpoint; add an EndpointSlice"]),
        (
            &["spare.shop.maesh"],
            0,
            &["so requests go to the fallback shop/web, 1 usable", "so its requests go to the fallback shop/web; add"],
        ),
        (
            &["slip.shop.maesh"],
            1,
            &["the name has no address, so nobody can connect: the Service has no port", "Is spec.ports missing?"],
        ),
        (&["db.shop.maesh"], 0, &["Service's alone", "5432/tcp"]),
        (&["log.shop.maesh"], 0, &["Service's alone", "5514/udp", "/5514/udp at", "try: send a datagram to"]),
        (&["off.shop.maesh"], 0, &["bypassed (annotation bypass)", "around the mesh"]),
        (&["wb.shop.maesh"], 1, &["NXDOMAIN", "did you mean shop/web?"]),
        (&["web.elsewhere.maesh"], 1, &["did you mean shop/web?"]),
        (&["kube-dns.kube-system.maesh"], 1, &["leaves it alone"]),
        (&["example.com.org"], 1, &["names no Service", "REFUSED"]),
        (&["web.shop.maesh", "--port", "99"], 1, &["no meshed port 99; it has 8080"]),
        (&["web.shop.maesh", "--from", "nobody"], 1, &["no pod nobody is known"]),
        (&["web.shop.maesh", "--from", "203.0.113.9"], 0, &["203.0.113.9 (no pod or node is known there)"]),
    ] {
        let (ended, text) = explain(&dev, arguments);
        assert_eq!(ended, Some(code), "{arguments:?}\n{text}");
        for part in says {
            assert!(text.contains(part), "{arguments:?}: nothing says {part:?} in\n{text}");
        }
    }
}

/// A request by the `Host` of another Service is that Service's, and so is what is said of it.
#[test]
fn the_service_that_gets_the_request_is_shown() {
    let (web, api) = (Backend::http("web"), Backend::http("api"));
    let folder = tempfile::tempdir().unwrap();
    for (name, backend, ip) in [("web", &web, "10.96.0.78"), ("api", &api, "10.96.0.79")] {
        let text =
            service("shop", name, 8080, "").replace("10.96.0.77", ip) + &slices("shop", name, &[backend.address]);
        save(folder.path(), &format!("{name}.yaml"), &text);
    }
    let dev = Dev::start(folder.path());
    let own = ["POST", "http://web.shop.maesh:8080/a?b&c", "-H", "Cookie: a=b"];
    let other = [&own[..], &["-H", "Host: api.shop.maesh"]].concat();
    for (arguments, host, shown, not) in
        [(&own[..], "web.shop.maesh", &web, &api), (&other, "api.shop.maesh", &api, &web)]
    {
        let (code, text) = explain(&dev, arguments);
        let at = dev.served_at("web.shop.maesh");
        let command = format!("try: curl -X POST 'http://{at}/a?b&c' -H 'Host: {host}' -H 'cookie: a=b'");
        assert!(code == Some(0) && text.contains(&command), "{command} is not in\n{text}");
        let has = |backend: &Backend| text.contains(&format!("  {}  ", backend.address));
        assert!(has(shown) && !has(not), "{host}: {text}");
        assert_eq!(text.contains("of Service shop/api, which gets the request:"), host != "web.shop.maesh", "{text}");
    }
}

#[test]
fn bad_values_of_objects_of_the_service_are_named_and_no_others() {
    let web = Backend::http("web");
    let folder = tempfile::tempdir().unwrap();
    let bad = "- addresses: [bad]\n- addresses: [127.0.0.8]\n  conditions: {ready: \"true\"}\n";
    let slice = slices("shop", "w2", &[web.address]).replace("endpoints:\n", &format!("endpoints:\n{bad}"));
    save(folder.path(), "w2.yaml", &(service("shop", "w2", 8080, "") + &slice));
    let other = service("shop", "other", 8081, "").replace("10.96.0.77", "10.96.0.78");
    save(folder.path(), "other.yaml", &(other + &slices("shop", "other", &[web.address])));
    let gone = service("shop", "gone", 8082, "").replace("ports:\n  - name: main\n    port: 8082\n", "ports: 5\n");
    save(folder.path(), "gone.yaml", &gone);
    let dev = Dev::start(folder.path());
    let slice = ["endpoints[0].addresses", "endpoints[1].conditions.ready"];
    for (name, says, not) in [
        ("w2.shop.maesh", &slice[..], &["nothing is wrong", "shop/gone"][..]),
        ("other.shop.maesh", &["nothing is wrong"], &["EndpointSlice", "shop/gone"]),
        ("gone.shop.maesh", &["Service shop/gone: spec.ports is 5"], &["EndpointSlice"]),
    ] {
        let (_, text) = explain(&dev, &[name]);
        assert!(says.iter().all(|part| text.contains(part)), "{name}: not all of {says:?} in\n{text}");
        assert!(!not.iter().any(|part| text.contains(part)), "{name}: one of {not:?} in\n{text}");
    }
}

/// Every policy by annotation, in the words in which it can be written.
const POLICIES: [(&str, &str); 21] = [
    ("retry-attempts", "3"),
    ("retry-on", "connect-failure,5xx"),
    ("retry-budget", "30%,5/s"),
    ("timeout-request", "10s"),
    ("timeout-try", "2s500ms"),
    ("ratelimit-average", "1000"),
    ("ratelimit-burst", "2000"),
    ("ratelimit-by", "header:x-user"),
    ("hedge-after", "p95"),
    ("mirror", "plain.shop:8080 10%"),
    ("fault-delay", "1ms 5%"),
    ("fault-abort", "503 0.01%"),
    ("fault-until", "2999-01-01T00:00:00Z"),
    ("timeout-connect", "1s"),
    ("timeout-idle", "10m"),
    ("concurrency", "100,50"),
    ("eject", "3"),
    ("eject-max", "30%"),
    ("circuit-breaker-expression", "NetworkErrorRatio() > 0.3"),
    ("fallback", "plain.shop:8080"),
    ("balance", "round-robin"),
];

#[test]
fn the_policies_in_force_are_named_by_their_annotations() {
    let web = Backend::http("web");
    let folder = tempfile::tempdir().unwrap();
    let annotations = POLICIES.map(|(name, value)| format!("maesh.containo.us/{name}: '{value}'")).join(", ");
    for (name, annotations) in [("all", &*annotations), ("plain", "")] {
        let manifest = service("shop", name, 8080, annotations).replace("10.96.0.77", "None");
        save(folder.path(), &format!("{name}.yaml"), &(manifest + &slices("shop", name, &[web.address])));
    }
    let dev = Dev::start(folder.path());
    for name in ["all.shop.maesh", "plain.shop.maesh"] {
        assert!(get(dev.served_at(name), name, "/").unwrap().status != 404);
    }
    let (_, text) = explain(&dev, &["all.shop.maesh"]);
    for (name, value) in POLICIES {
        let line = format!("  policy   {name}: {value}");
        let found = text.lines().any(|said| said.starts_with(&line)) || (name == "balance" && text.contains(value));
        assert!(found, "nothing says {line:?} in\n{text}");
    }
    assert!(text.contains("NetworkErrorRatio() > 0.3 (closed)"), "{text}");
    let (_, text) = explain(&dev, &["plain.shop.maesh"]);
    assert!(!text.contains("policy"), "{text}");
}

#[test]
fn what_is_explained_is_what_happens() {
    let web = Backend::http("web");
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "web.yaml", &(service("shop", "web", 8080, "") + &slices("shop", "web", &[web.address])));
    let mut dev = Dev::start(folder.path());
    let before = report(&dev, "web.shop.maesh");
    assert_eq!(before["proxy"]["ports"][0]["held"], "unused", "asking is no use: {before}");
    let answer = ask("127.0.0.1".parse().unwrap(), dev.dns(), "web.shop.maesh", RecordType::A, PATIENCE).unwrap();
    let addresses: Vec<IpAddr> = serde_json::from_value(before["dns"]["addresses"].clone()).unwrap();
    assert_eq!(addresses, answer.addresses);
    assert_eq!(get(dev.served_at("web.shop.maesh"), "web.shop.maesh", "/").unwrap().status, 200);
    let after = report(&dev, "web.shop.maesh");
    let route = &after["proxy"]["ports"][0]["routes"][0]["backends"][0];
    assert_eq!((&route["usable"], &route["endpoints"][0]["address"]), (&1.into(), &web.address.to_string().into()));
    assert_eq!((&after["served"], &after["problems"]), (&true.into(), &serde_json::json!([])));

    // The endpoint is not ready any more: the proxy says so in both ways.
    let gone = slices("shop", "web", &[web.address]).replace("ready: true", "ready: false, serving: false");
    save(folder.path(), "web.yaml", &(service("shop", "web", 8080, "") + &gone));
    dev.await_changed("web.shop.maesh");
    let refused = get(dev.served_at("web.shop.maesh"), "web.shop.maesh", "/").unwrap();
    let reason = refused.field("x-maesh-reason").unwrap_or_else(|| panic!("answered: {refused:?}"));
    let now = report(&dev, "web.shop.maesh");
    assert_eq!(now["proxy"]["ports"][0]["refusal"]["reason"], reason.as_str(), "{now}");
    assert_eq!(now["served"], false);
}

#[test]
fn what_cannot_be_asked_is_said_with_the_next_step() {
    let nowhere = tempfile::tempdir().unwrap();
    let bad = nowhere.path().join("bad");
    std::fs::write(&bad, "clusters: [").unwrap();
    let refused = nowhere.path().join("refused");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: \
                'http://127.0.0.1:1'}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\n";
    std::fs::write(&refused, text).unwrap();
    let (bad, refused) = (bad.display().to_string(), refused.display().to_string());
    for (arguments, code, says) in [
        (&["--admin", "127.0.0.1:1"][..], 1, &["no `maesh dev` answers at 127.0.0.1:1", "--admin"][..]),
        (&["--kubeconfig", "/nowhere/config"], 1, &["/nowhere/config", "--kubeconfig"]),
        (&["--kubeconfig", &bad], 1, &[&bad, "--kubeconfig"]),
        (&["--kubeconfig", &refused], 1, &["http://127.0.0.1:1 was not reached", "check that the cluster runs"]),
        (&["--kubeconfig", &refused, "--context", "x"], 1, &["--context"]),
        (&["--port", "0"], 2, &["--port"]),
        (&["--port", "http"], 2, &["write the number of the Service's port, 1 to 65535"]),
        (&["--admin", "127.0.0.1:1", "--context", "x"], 2, &["cannot be used with"]),
    ] {
        let mut command = command(&["explain", "web.shop.maesh"]);
        command.args(arguments).env("HOME", nowhere.path());
        let (ended, text) = run(command);
        assert_eq!(ended, Some(code), "{arguments:?}\n{text}");
        for part in says {
            assert!(text.contains(part), "{arguments:?}: nothing says {part:?} in\n{text}");
        }
    }
}

#[test]
fn questions_to_the_admin_endpoint_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path());
    let ask = |path: &str| get(dev.admin(), "localhost", path).unwrap();
    for path in ["/api/explain/dns", "/api/explain/dns?name=a&from=b", "/api/explain/proxy?name=a&port=x"] {
        assert_eq!(ask(path).status, 400, "{path}");
    }
    for (path, status, says) in [
        (format!("dns?name={}", "a".repeat(3000)), 414, "too long"),
        (format!("proxy?name=a.b&target=/{}", "a".repeat(3000)), 200, "unknown_host"),
        (format!("proxy?name=a.b&target=/{}", "a".repeat(64_000)), 414, "too long"),
        (format!("proxy?name=a.b&method=GET&fields={}", "a:%0A".repeat(129)), 400, "fields: a request has 128 fields"),
        ("proxy?name=a.b&method=G%20T".into(), 400, "method is \"G T\""),
        ("proxy?name=a.b&target=/a%20b".into(), 400, "target is \"/a b\""),
        ("proxy?name=a.b&fields=a".into(), 200, "unknown_host"),
    ] {
        let answer = ask(&format!("/api/explain/{path}"));
        assert_eq!((answer.status, answer.body.contains(says)), (status, true), "{path:.60}: {answer:?}");
    }
    let index = ask("/api").body;
    for path in ["/api/explain/controller", "/api/explain/dns", "/api/explain/proxy"] {
        assert!(index.contains(path), "{index}");
    }
}

/// The pods of the mesh, as a cluster has them.
fn pods() -> String {
    let mut text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: maesh}\n".to_owned();
    for (role, name, component, node) in PODS {
        text += &format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: maesh\n  labels: \
             {{app.kubernetes.io/name: maesh, app.kubernetes.io/component: {component}}}\nspec:\n  nodeName: {node}\n  \
             containers:\n  - name: {component}\n    image: maesh\n    ports: [{{name: admin, containerPort: {}}}]\n",
            role.admin().port()
        );
    }
    text
}

const PODS: [(Role, &str, &str, &str); 5] = [
    (Role::Controller, "controller", "controller", "n1"),
    (Role::Dns1, "dns-1", "dns", "n1"),
    (Role::Dns2, "dns-2", "dns", "n2"),
    (Role::Proxy1, "proxy-1", "proxy", "n1"),
    (Role::Proxy2, "proxy-2", "proxy", "n2"),
];

/// The nodes, and their addresses.
const NODES: [(&str, IpAddr); 2] =
    [("n1", IpAddr::V4(Ipv4Addr::new(10, 89, 4, 1))), ("n2", IpAddr::V4(Ipv4Addr::new(10, 89, 4, 2)))];

fn tell_status(server: &ApiServer, namespace: &str, pod: &str, address: IpAddr) {
    let status = format!(
        r#"{{"status":{{"podIP":"{address}","podIPs":[{{"ip":"{address}"}}],"phase":"Running","conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
    );
    let mut kubectl = server.kubectl();
    kubectl.args(["-n", namespace, "patch", "pod", pod, "--subresource", "status", "--type", "merge", "-p", &status]);
    let output = kubectl.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn nodes() -> String {
    let node = |number: u8| {
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: n{number}}}\n\
             spec: {{podCIDR: 10.244.{number}.0/24, podCIDRs: [10.244.{number}.0/24]}}\n"
        )
    };
    node(1) + &node(2)
}

#[test]
fn a_cluster_explains_through_its_api_server() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    let web: SocketAddr = "10.244.1.7:8080".parse().unwrap();
    let client = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: client, namespace: shop}\nspec: {nodeName: n2, \
                  containers: [{name: c, image: c}]}\n";
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
    let web = "---\n".to_owned() + &service("shop", "web", 8080, "") + &slices("shop", "web", &[web]);
    server.apply(&(namespace.to_owned() + &nodes() + &web + client)).unwrap();
    server.apply(&pods()).unwrap();
    tell_status(&server, "shop", "client", "10.244.2.20".parse().unwrap());
    for (role, pod, ..) in PODS {
        tell_status(&server, "maesh", pod, role.address());
    }
    let _kubelet = Kubelet::start(&server, &NODES, &PODS.map(|(role, pod, ..)| (pod, Some(role.address())))).unwrap();
    let explain = |arguments: &[&str]| {
        let mut command = server.namespace().command(env!("CARGO_BIN_EXE_maesh"));
        command.args(["explain", "web.shop.maesh"]).args(arguments).arg("--kubeconfig").arg(server.kubeconfig());
        run(command)
    };
    // Nobody runs yet: each role is named, with what to do.
    let (code, text) = explain(&[]);
    assert_eq!(code, Some(1), "{text}");
    for pod in ["controller", "dns-1", "dns-2"] {
        let says = format!("pod maesh/{pod} (port 5380): error forwarding port 5380 to pod {pod}: Connection refused");
        assert!(text.contains(&says), "{text}");
    }

    let _mesh = server.namespace().run(|| {
        let mut mesh = Mesh::start(&server);
        mesh.await_ready();
        mesh
    });
    let by_proxy = |from: &str, proxy: &str| {
        await_condition(&format!("{from} is sent to {proxy}"), || {
            let (code, text) = explain(&["--from", from]);
            (code == Some(0) && text.contains(&format!("(proxy {proxy} on "))).then_some(text)
        })
    };
    let text = by_proxy("shop/client", "proxy-2");
    for part in [
        "pod shop/client (10.244.2.20), node n2",
        "because: the caller's pod is on node n2; the proxy there listens on every port of the name",
        "proxy      proxy-2, ready",
        "listener shared/8080/tcp at 10.89.1.2:8080",
        "10.244.1.7:8080",
        "nothing is wrong",
    ] {
        assert!(text.contains(part), "nothing says {part:?} in\n{text}");
    }
    let text = by_proxy("10.244.1.99", "proxy-1");
    assert!(text.contains("lies in 10.244.1.0/24, the pod range of node n1"), "{text}");
    let (_, text) = explain(&["-o", "json", "--from", "10.89.200.1"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&report["dns"]["rule"], &report["dns"]["located"]["by"]),
        (&"spread".into(), &"unknown".into()),
        "{text}"
    );

    // The other commands that ask the same pods.
    let maesh = |arguments: &[&str]| {
        let mut command = server.namespace().command(env!("CARGO_BIN_EXE_maesh"));
        command.args(arguments).arg("--kubeconfig").arg(server.kubeconfig());
        run(command)
    };
    let (code, text) = maesh(&["status", "--wait", "20s"]);
    assert_eq!(code, Some(0), "{text}");
    for part in [
        "  controller      leads, revision",
        "controllers       1 of 1 ready",
        "dns               2 of 2 ready",
        "proxies           2 of 2 ready",
        "stanza            idle: --coredns-mode is manual",
    ] {
        assert!(text.contains(part), "nothing says {part:?} in\n{text}");
    }
    assert_eq!(maesh(&["get", "proxies", "-o", "name"]), (Some(0), "proxy-1\nproxy-2\n".to_owned()));
    let (_, text) = maesh(&["get", "services", "-n", "shop", "--no-headers"]);
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["web.shop.maesh", "10.89.77.1", "8080/http", "1/1", "no"]);
    let (code, text) = maesh(&["get", "services", "--mesh-namespace", "shop"]);
    assert!(code == Some(1) && text.contains("looking for the mesh in namespace shop (--mesh-namespace)"), "{text}");

    let (code, text) = explain(&["--namespace", "shop"]);
    assert!(code == Some(1) && text.contains("no pod there has the label"), "{text}");
    let nobody = server.kubeconfig_for("nobody", &[]).unwrap();
    let mut command = server.namespace().command(env!("CARGO_BIN_EXE_maesh"));
    command.args(["explain", "web.shop.maesh", "--kubeconfig"]).arg(nobody);
    let (code, text) = run(command);
    assert!(code == Some(1) && text.contains("ask for the right to list pods"), "{text}");
}

/// Rights in the namespace of the mesh: to list pods, and these on port-forwards.
fn rights(verbs: &str) -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: viewer, namespace: maesh}}\nrules:\n\
         - {{apiGroups: [\"\"], resources: [pods], verbs: [list]}}\n\
         - {{apiGroups: [\"\"], resources: [pods/portforward], verbs: [{verbs}]}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: viewer, namespace: maesh}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: viewer}}\n\
         subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: viewer}}]\n"
    )
}

/// Every way in which a port-forward fails is said with the pod and what to do.
#[test]
fn a_pod_that_cannot_be_asked_is_said_with_the_next_step() {
    let Some(server) = ApiServer::start_or_skip() else { return };
    server.apply(&nodes()).unwrap();
    server.apply(&pods()).unwrap();
    let viewer = server.kubeconfig_for("viewer", &[]).unwrap();
    // It asks one controller, the first by name.
    let matrix = || {
        let mut command = server.namespace().command(env!("CARGO_BIN_EXE_maesh"));
        command.args(["access", "matrix", "--kubeconfig"]).arg(&viewer);
        let (code, text) = run(command);
        assert_eq!(code, Some(1), "{text}");
        text
    };
    let await_words = |case: &str, parts: &[&str]| {
        let mut last = String::new();
        // The API server notices rights and nodes a little later.
        let said = maesh_test_support::until(PATIENCE, || {
            last = matrix();
            parts.iter().all(|part| last.contains(part))
        });
        assert!(said, "{case}: not all of {parts:?} in\n{last}");
    };
    let needed = "ask for the right to get and create pods/portforward in namespace maesh";
    for (case, verbs, missing) in [
        ("no right", "delete", "cannot get resource \"pods/portforward\""),
        ("one verb of two", "get", "you may get pods/portforward, and not create it"),
    ] {
        server.apply(&rights(verbs)).unwrap();
        await_words(case, &["pod maesh/controller (port 5380): ", missing, needed]);
    }
    server.apply(&rights("get, create")).unwrap();
    await_words("no kubelet", &["pod maesh/controller (port 5380): ", "kubectl get nodes"]);
    for (case, address, says, next) in [
        ("nothing listens", Some(Role::Controller.address()), "controller: Connection refused", "logs controller"),
        ("nothing is answered", None, "no answer within 5 s through the API server", "get pod controller -o wide"),
    ] {
        let _kubelet = Kubelet::start(&server, &NODES, &[("controller", address)]).unwrap();
        await_words(case, &["pod maesh/controller (port 5380): ", says, "kubectl -n maesh ", next]);
    }
    let _kubelet = Kubelet::start(&server, &NODES, &[]).unwrap();
    await_words("a pod that its node does not have", &["pod maesh/controller (port 5380): ", "no such pod runs here"]);
}
