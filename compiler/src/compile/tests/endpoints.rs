//! Endpoints: which addresses, with which conditions.

use super::*;

/// Endpoints of the only Service: `80: 10.1.0.1:8080 ready`, and its plain addresses.
fn endpoints(yaml: &str) -> String {
    let output = compiled(dev(), yaml);
    let mut text = Vec::new();
    for resource in &output.change.upserts {
        match resource {
            Resource::Endpoints(endpoints) => {
                for port in &endpoints.ports {
                    text.push(format!("{}:", port.number));
                    for endpoint in &port.endpoints {
                        text.push(endpoint.address.to_string());
                        let flags = [
                            (endpoint.ready, "ready"),
                            (endpoint.serving, "serving"),
                            (endpoint.terminating, "terminating"),
                        ];
                        text.extend(flags.iter().filter(|(on, _)| *on).map(|(_, name)| (*name).to_owned()));
                    }
                }
            }
            Resource::Name(name) if name.headless => text.push(format!("plain {:?}", name.plain)),
            _ => {}
        }
    }
    text.extend(output.found.iter().map(|found| found.reason.to_string()));
    text.join(" ")
}

fn slice(name: &str, ports: &str, endpoints: &str) -> String {
    format!(
        "kind: EndpointSlice\nmetadata: {{namespace: shop, name: {name}, labels: {{kubernetes.io/service-name: web}}}}\n\
         ports: [{ports}]\nendpoints: [{endpoints}]\n---\n"
    )
}

fn pod(name: &str, spec: &str, status: &str) -> String {
    format!(
        "kind: Pod\nmetadata: {{namespace: shop, name: {name}, labels: {{app: web, x: z}}}}\n\
         spec: {{{spec}}}\nstatus: {{{status}}}\n---\n"
    )
}

/// Every replica must come to the same list, whatever it is to itself.
#[test]
fn the_mesh_says_where_the_replicas_of_the_controller_are() {
    let config = Config {
        replicas: Some(ServiceName::new("shop", "web")),
        ignored_namespaces: vec!["shop".into()],
        ..Config::default()
    };
    let mut compiler = Compiler::new(config);
    let mut said = |yaml: &str| {
        objects(yaml).into_iter().for_each(|object| compiler.take(Event::Apply(object)));
        let output = compiler.compile(Instant::now());
        let mesh = output.change.upserts.into_iter().find_map(|resource| match resource {
            Resource::Mesh(mesh) => {
                Some(mesh.controllers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
            }
            _ => None,
        });
        mesh.unwrap_or_else(|| "nothing new".to_owned())
    };
    let port = "{name: discovery, port: 5390}";
    assert_eq!(said(""), "");
    let two = "{addresses: [10.1.0.2]}, {addresses: [10.1.0.1], conditions: {ready: false}}";
    assert_eq!(said(&slice("a", port, two)), "10.1.0.1:5390 10.1.0.2:5390");
    assert_eq!(said(&slice("a", port, two)), "nothing new");
    let leaving = "{addresses: [10.1.0.2], conditions: {ready: false, serving: true, terminating: true}}";
    assert_eq!(said(&slice("a", port, &format!("{leaving}, {{addresses: [10.1.0.3]}}"))), "10.1.0.3:5390");
}

#[test]
fn from_slices() {
    let web = service("web", "", "ports: [{port: 80, name: http, targetPort: 8080}]");
    let http = "{name: http, port: 8080}";
    for (case, yaml, want) in [
        ("none", web.clone(), "80:"),
        (
            "absent conditions are ready",
            web.clone() + &slice("a", http, "{addresses: [10.1.0.1]}"),
            "80: 10.1.0.1:8080 ready serving",
        ),
        (
            "ready, serving, terminating",
            web.clone()
                + &slice(
                    "a",
                    http,
                    "{addresses: [10.1.0.2], conditions: {ready: false}}, \
                     {addresses: [10.1.0.1], conditions: {ready: false, serving: true, terminating: true}}",
                ),
            "80: 10.1.0.1:8080 serving terminating 10.1.0.2:8080",
        ),
        (
            "several slices, both families, one address twice",
            web.clone()
                + &slice("a", http, "{addresses: [10.1.0.1], conditions: {ready: false}}, {addresses: ['fd00::1']}")
                + &slice("b", "{name: http, port: 8080}", "{addresses: [10.1.0.1]}"),
            "80: 10.1.0.1:8080 ready serving [fd00::1]:8080 ready serving",
        ),
        (
            "another target port in another slice",
            web.clone()
                + &slice("a", http, "{addresses: [10.1.0.1]}")
                + &slice("b", "{name: http, port: 9090}", "{addresses: [10.1.0.2]}"),
            "80: 10.1.0.1:8080 ready serving 10.1.0.2:9090 ready serving",
        ),
        (
            "another port's, another transport's, and no number",
            web.clone()
                + &slice("a", "{name: other, port: 1}", "{addresses: [10.1.0.1]}")
                + &slice("b", "{name: http, port: 1, protocol: UDP}", "{addresses: [10.1.0.1]}")
                + &slice("c", "{name: http}", "{addresses: [10.1.0.1]}"),
            "80: InvalidPort InvalidPort",
        ),
        (
            "an address that is none, and more than one",
            web.clone() + &slice("a", http, "{addresses: [x]}, {addresses: [10.1.0.1, 10.1.0.2]}"),
            // Said by the reader.
            "80: 10.1.0.1:8080 ready serving",
        ),
        (
            "addresses that are not ready are published",
            service("web", "", "publishNotReadyAddresses: true, ports: [{port: 80, name: http}]")
                + &slice("a", http, "{addresses: [10.1.0.1], conditions: {ready: false}}"),
            "80: 10.1.0.1:8080 ready",
        ),
    ] {
        assert_eq!(endpoints(&yaml), want, "{case}");
    }
}

#[test]
fn from_pods_where_there_are_no_slices() {
    let web = service("web", "", "selector: {app: web}, ports: [{port: 80, targetPort: http}]");
    let http = "containers: [{ports: [{name: http, containerPort: 8080}]}]";
    let not_ready = "podIP: 10.1.0.1, conditions: [{type: Ready, status: 'False'}]";
    for (case, yaml, want) in [
        ("absent conditions are ready", pod("a", http, "podIP: 10.1.0.1"), "80: 10.1.0.1:8080 ready serving"),
        ("not ready", pod("a", http, not_ready), "80: 10.1.0.1:8080"),
        ("without such a port", pod("a", "containers: [{}]", "podIP: 10.1.0.1"), "80:"),
        ("ended", pod("a", http, "podIP: 10.1.0.1, phase: Failed"), "80:"),
        ("without address", pod("a", http, "phase: Pending"), "80:"),
        (
            "a slice counts alone",
            pod("a", http, "podIP: 10.1.0.1") + &slice("a", "{port: 9}", "{addresses: [10.1.0.9]}"),
            "80: 10.1.0.9:9 ready serving",
        ),
    ] {
        assert_eq!(endpoints(&(web.clone() + &yaml)), want, "{case}");
    }
    let elsewhere = web.replace("app: web", "app: other");
    assert_eq!(endpoints(&(elsewhere + &pod("a", http, "podIP: 10.1.0.1"))), "80:");
}

#[test]
fn without_a_cluster_ip_the_ready_endpoints_are_the_plain_addresses() {
    let headless = |port: &str| service("web", "", port).replace("10.0.0.1", "None");
    let both = "{addresses: [10.1.0.2]}, {addresses: [10.1.0.1]}, {addresses: [10.1.0.3], conditions: {ready: false}}";
    let yaml = headless("ports: [{port: 80}]") + &slice("a", "{port: 80}", both);
    let want = "plain [10.1.0.1, 10.1.0.2] 80: 10.1.0.1:80 ready serving 10.1.0.2:80 ready serving 10.1.0.3:80";
    assert_eq!(endpoints(&yaml), want);
    let differing = headless("ports: [{port: 80, targetPort: 8080}]");
    assert_eq!(endpoints(&differing), "plain [] 80: HeadlessPortDiffers");
}

#[test]
fn hints_and_nodes() {
    let endpoint =
        "{addresses: [10.1.0.1], nodeName: n1, hints: {forZones: [{name: b}, {name: a}], forNodes: [{name: n1}]}}";
    let yaml = service("web", "", "ports: [{port: 80}]") + &slice("a", "{port: 80}", endpoint);
    let output = compiled(dev(), &yaml);
    let endpoint = output.change.upserts.iter().find_map(|resource| match resource {
        Resource::Endpoints(endpoints) => endpoints.ports[0].endpoints.first(),
        _ => None,
    });
    let endpoint = endpoint.unwrap();
    assert_eq!(endpoint.node, Some("n1".into()));
    assert_eq!(endpoint.for_zones(), ["a".into(), "b".into()]);
    assert_eq!(endpoint.for_nodes(), ["n1".into()]);
}
