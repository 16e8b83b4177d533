//! What is said of names that are not the usual ones.

use super::*;

const ENDPOINTS: &str = "kind: EndpointSlice
metadata: {namespace: shop, name: peers-1, labels: {kubernetes.io/service-name: peers}}
endpoints:
- {addresses: [10.1.0.1]}
- {addresses: [10.1.0.2], conditions: {ready: false}}
- {addresses: [10.1.0.3]}
";

fn said(output: &Output) -> Vec<&str> {
    output.found.iter().map(|found| &*found.message).collect()
}

/// How a name is answered without the mesh: of a Service with this `spec`, and `ports` in its slice.
fn plain(metadata: &str, spec: &str, ports: &str) -> (bool, String) {
    let service =
        format!("kind: Service\nmetadata: {{namespace: shop, name: peers, {metadata}}}\nspec: {{{spec}}}\n---\n");
    let output = compiled(dev(), &format!("{service}{ENDPOINTS}ports: {ports}\n"));
    let name = name(&output, "shop/peers");
    (name.headless, name.plain.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
}

#[test]
fn plain_addresses_are_those_of_endpoints_only_where_callers_can_use_them() {
    const BYPASS: &str = "annotations: {maesh.containo.us/bypass: 'true'}";
    let http = "[{port: 80}]";
    for (case, metadata, spec, ports, want) in [
        ("headless", "", "clusterIP: None, ports: [{port: 80}]", http, (true, "10.1.0.1 10.1.0.3")),
        ("headless without ports", "", "clusterIP: None", "[]", (true, "10.1.0.1 10.1.0.3")),
        (
            "headless without ports, and all are published",
            "",
            "clusterIP: None, publishNotReadyAddresses: yes",
            "[]",
            (true, "10.1.0.1 10.1.0.2 10.1.0.3"),
        ),
        ("a ClusterIP", "", "clusterIP: 10.96.0.1, ports: [{port: 80}]", http, (false, "10.96.0.1")),
        ("no ClusterIP yet", "", "ports: [{port: 80}]", http, (false, "")),
        ("none, and bypassed on purpose", BYPASS, "ports: [{port: 80}]", http, (true, "10.1.0.1 10.1.0.3")),
    ] {
        let (headless, plain) = plain(metadata, spec, ports);
        assert_eq!((headless, &*plain), want, "{case}");
    }
}

#[test]
fn what_is_for_a_whole_service_cannot_be_narrowed_to_a_port() {
    for annotation in ["80.bypass", "http.bypass", "80.address", "http.addressing"] {
        for prefix in ["maesh.containo.us/", "mesh.traefik.io/"] {
            let value = if annotation.ends_with("bypass") { "true" } else { "own" };
            let metadata = format!("annotations: {{{prefix}{annotation}: '{value}'}}");
            let output = compiled(dev(), &service("web", &metadata, "ports: [{port: 80, name: http}]"));
            let said = said(&output);
            let for_all = annotation.split_once('.').unwrap().1;
            assert!(said.len() == 1 && said[0].contains(&format!("Write maesh.containo.us/{for_all}.")), "{said:#?}");
            assert_ne!(name(&output, "shop/web").answer, Answer::Plain, "{annotation}");
        }
    }
}

#[test]
fn the_name_of_the_zones_own_server_is_no_services() {
    let yaml =
        "kind: Service\nmetadata: {namespace: dns, name: ns}\nspec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}\n";
    let output = compiled(dev(), yaml);
    assert!(said(&output)[0].contains("name server"), "{:#?}", output.found);
    assert!(output.services.is_empty(), "it is not in the table: {:#?}", output.services);
}
