//! Who may reach which endpoints.

use super::*;

/// Service shop/b on ports 80 (target port 8080) and 90 (9090), and 5432 of TCP and 53 of UDP under the pods' numbers, with a pod that
/// runs as bob.
const SERVICE: &str = "kind: Service
metadata: {namespace: shop, name: b}
spec:
  clusterIP: 10.0.0.1
  ports:
    - {name: http, port: 80}
    - {name: more, port: 90}
    - {name: db, port: 5432, appProtocol: tcp}
    - {name: dns, port: 53, protocol: UDP}
---
kind: EndpointSlice
metadata: {namespace: shop, name: b-1, labels: {kubernetes.io/service-name: b}}
ports: [{name: http, port: 8080}, {name: more, port: 9090}, {name: db, port: 5432}, {name: dns, port: 53, protocol: UDP}]
endpoints: [{addresses: [10.1.0.1]}]
---
kind: Pod
metadata: {namespace: shop, name: b-1}
spec: {serviceAccountName: bob}
status: {podIP: 10.1.0.1}
---
";

fn acl() -> Config {
    Config { access_control: model::AccessControl::On, ..dev() }
}

fn target(name: &str, version: &str, body: &str) -> String {
    format!(
        "kind: TrafficTarget\napiVersion: access.smi-spec.io/{version}\nmetadata: {{namespace: shop, name: {name}}}\n\
         spec: {{destination: {{kind: ServiceAccount, name: bob}}, {body}}}\n---\n"
    )
}

fn rules(rules: &str) -> String {
    format!("rules: [{rules}], sources: [{{kind: ServiceAccount, name: ann}}]")
}

fn group(name: &str, matches: &str) -> String {
    format!("kind: HTTPRouteGroup\nmetadata: {{namespace: shop, name: {name}}}\nspec: {{matches: [{matches}]}}\n---\n")
}

fn route(kind: &str, name: &str, ports: &str) -> String {
    format!("kind: {kind}\nmetadata: {{namespace: shop, name: {name}}}\nspec: {{matches: {{ports: [{ports}]}}}}\n---\n")
}

/// What is granted on each port of shop/b, in words: `80 shop/bob: t by shop/ann with /api`.
fn granted(output: &Output) -> Vec<String> {
    let mut all = Vec::new();
    for resource in &output.change.upserts {
        let Resource::Endpoints(endpoints) = resource else { continue };
        for port in &endpoints.ports {
            for access in &port.access {
                for grant in &access.grants {
                    let by: Vec<_> = grant.sources.iter().map(ToString::to_string).collect();
                    let with: Vec<_> = grant.rules.iter().map(ToString::to_string).collect();
                    let with = if with.is_empty() { "all".to_owned() } else { with.join(" or ") };
                    all.push(format!(
                        "{} {}: {} by {} with {with}",
                        port.number,
                        access.account,
                        grant.target,
                        by.join(",")
                    ));
                }
            }
        }
    }
    all
}

const HTTP_RULE: &str = "{kind: HTTPRouteGroup, name: g}";
const TCP_RULE: &str = "{kind: TCPRoute, name: t}";

#[test]
fn what_a_target_grants() {
    let api = || group("g", "{name: api, pathRegex: /api}, {name: get, methods: [GET]}");
    let all = |of: &str| vec![format!("{of} shop/bob: x by shop/ann with all")];
    for (case, objects, want) in [
        ("nothing", String::new(), vec![]),
        (
            "every match of a group",
            api() + &target("x", "v1alpha3", &rules(HTTP_RULE)),
            vec![
                "80 shop/bob: x by shop/ann with PathRegexp(`^(?:/api)`) or Method(`GET`)".to_owned(),
                "90 shop/bob: x by shop/ann with PathRegexp(`^(?:/api)`) or Method(`GET`)".to_owned(),
            ],
        ),
        (
            "named matches, one of which there is not",
            api() + &target("x", "v1alpha3", &rules("{kind: HTTPRouteGroup, name: g, matches: [get, typo]}")),
            vec![
                "80 shop/bob: x by shop/ann with Method(`GET`)".to_owned(),
                "90 shop/bob: x by shop/ann with Method(`GET`)".to_owned(),
            ],
        ),
        ("a group that is missing", target("x", "v1alpha3", &rules(HTTP_RULE)), vec![]),
        ("a group without matches", group("g", "") + &target("x", "v1alpha3", &rules(HTTP_RULE)), vec![]),
        ("a bad expression", group("g", "{pathRegex: \"(\"}") + &target("x", "v1alpha3", &rules(HTTP_RULE)), vec![]),
        (
            "a match with only a name",
            group("g", "{name: any}") + &target("x", "v1alpha3", &rules(HTTP_RULE)),
            [all("80"), all("90")].concat(),
        ),
        (
            "TCPRoute for all ports",
            route("TCPRoute", "t", "") + &target("x", "v1alpha3", &rules(TCP_RULE)),
            [all("80"), all("90"), all("5432")].concat(),
        ),
        (
            "TCPRoute for a port of the pods",
            route("TCPRoute", "t", "8080") + &target("x", "v1alpha3", &rules(TCP_RULE)),
            all("80"),
        ),
        (
            "TCPRoute for a port of the Service",
            route("TCPRoute", "t", "90, 5432") + &target("x", "v1alpha3", &rules(TCP_RULE)),
            [all("90"), all("5432")].concat(),
        ),
        (
            "requests on some ports",
            group("g", "{pathRegex: /api}")
                + &route("TCPRoute", "t", "8080")
                + &target("x", "v1alpha3", &rules(&format!("{HTTP_RULE}, {TCP_RULE}"))),
            vec!["80 shop/bob: x by shop/ann with PathRegexp(`^(?:/api)`)".to_owned()],
        ),
        (
            "UDPRoute",
            route("UDPRoute", "u", "53") + &target("x", "v1alpha3", &rules("{kind: UDPRoute, name: u}")),
            all("53"),
        ),
        ("no rules, today", target("x", "v1alpha3", &rules("")), vec![]),
        (
            "no rules, in an old version",
            target("x", "v1alpha2", &rules("")),
            [all("53"), all("80"), all("90"), all("5432")].concat(),
        ),
        (
            "the port of the oldest version",
            target("x", "v1alpha1", &rules("")).replace("name: bob}", "name: bob, port: 8080}"),
            all("80"),
        ),
        ("nobody", route("TCPRoute", "t", "") + &target("x", "v1alpha3", "rules: [{kind: TCPRoute, name: t}]"), vec![]),
        (
            "another destination",
            route("TCPRoute", "t", "") + &target("x", "v1alpha3", &rules(TCP_RULE)).replace("name: bob}", "name: dan}"),
            vec![],
        ),
        (
            "two targets, each with its own sources",
            group("g", "{pathRegex: /a}")
                + &group("h", "{pathRegex: /c}")
                + &target("x", "v1alpha3", &rules(HTTP_RULE))
                + &target(
                    "z",
                    "v1alpha3",
                    &rules("{kind: HTTPRouteGroup, name: h}").replace("name: ann}", "name: cyd, namespace: other}"),
                ),
            vec![
                "80 shop/bob: x by shop/ann with PathRegexp(`^(?:/a)`)".to_owned(),
                "80 shop/bob: z by other/cyd with PathRegexp(`^(?:/c)`)".to_owned(),
                "90 shop/bob: x by shop/ann with PathRegexp(`^(?:/a)`)".to_owned(),
                "90 shop/bob: z by other/cyd with PathRegexp(`^(?:/c)`)".to_owned(),
            ],
        ),
    ] {
        let output = compiled(acl(), &(SERVICE.to_owned() + &objects));
        assert_eq!(granted(&output), want, "{case}");
        let off = compiled(dev(), &(SERVICE.to_owned() + &objects));
        assert!(granted(&off).is_empty(), "{case}: without access control");
    }
}

/// The ServiceAccount of each endpoint of port 80.
fn owners(yaml: &str) -> Vec<String> {
    let output = compiled(acl(), yaml);
    let endpoints = output.change.upserts.iter().find_map(|resource| match resource {
        Resource::Endpoints(endpoints) => Some(endpoints),
        _ => None,
    });
    let port = &endpoints.unwrap().ports[0];
    let owner = |endpoint: &model::Endpoint| {
        let account = endpoint.account.map(|place| port.access[usize::from(place)].account.to_string());
        format!("{} {}", endpoint.address.ip(), account.unwrap_or_else(|| "nobody".into()))
    };
    port.endpoints.iter().map(owner).collect()
}

#[test]
fn an_endpoint_belongs_to_whom_its_address_does() {
    let slice = "kind: Service\nmetadata: {namespace: shop, name: b}\nspec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}\n---\n\
                 kind: EndpointSlice\nmetadata: {namespace: shop, name: b-1, labels: {kubernetes.io/service-name: b}}\n\
                 ports: [{port: 80}]\nendpoints: [{addresses: [10.1.0.1]}, {addresses: [10.1.0.2], conditions: {ready: false}}, \
                 {addresses: [10.1.0.3]}, {addresses: [10.1.0.4]}, {addresses: [10.1.0.5]}]\n---\n";
    let pod = |namespace: &str, name: &str, account: &str, address: &str, more: &str| {
        format!(
            "kind: Pod\nmetadata: {{namespace: {namespace}, name: {name}}}\nspec: {{serviceAccountName: {account}{more}}}\n\
             status: {{podIP: {address}}}\n---\n"
        )
    };
    let yaml = slice.to_owned()
        + &pod("shop", "one", "bob", "10.1.0.1", "")
        + &pod("shop", "two", "dan", "10.1.0.2", "")
        + &pod("other", "three", "bob", "10.1.0.3", "")
        + &pod("shop", "four", "bob", "10.1.0.4", ", hostNetwork: true");
    let want = ["10.1.0.1 shop/bob", "10.1.0.2 shop/dan", "10.1.0.4 nobody", "10.1.0.5 nobody"];
    assert_eq!(owners(&yaml), want, "a pod of another namespace is no endpoint");
    let allowed =
        "kind: Namespace\nmetadata: {name: other, annotations: {maesh.containo.us/endpoints-for: shop}}\n---\n";
    assert!(
        owners(&(yaml + allowed)).contains(&"10.1.0.3 other/bob".to_owned()),
        "it belongs to its own ServiceAccount"
    );
}

#[test]
fn what_grants_nothing_is_said() {
    for (case, objects, want) in [
        ("a missing group", target("x", "v1alpha3", &rules(HTTP_RULE)), "HTTPRouteGroup shop/g does not exist"),
        (
            "a match that there is not",
            group("g", "{name: a}")
                + &target("x", "v1alpha3", &rules("{kind: HTTPRouteGroup, name: g, matches: [typo]}")),
            "HTTPRouteGroup shop/g has no match typo",
        ),
        (
            "an empty group",
            group("g", "") + &target("x", "v1alpha3", &rules(HTTP_RULE)),
            "has no match that can be used",
        ),
        ("no rules", target("x", "v1alpha3", &rules("")), "no rule is named, so nothing is admitted by it"),
        (
            "nobody",
            route("TCPRoute", "t", "") + &target("x", "v1alpha3", "rules: [{kind: TCPRoute, name: t}]"),
            "no source is named, so nobody is admitted",
        ),
    ] {
        let output = compiled(acl(), &(SERVICE.to_owned() + &objects));
        let found: Vec<_> = output.found.iter().map(|found| found.message.to_string()).collect();
        assert!(found.len() == 1 && found[0].contains(want), "{case}: {found:#?}");
        let off = compiled(dev(), &(SERVICE.to_owned() + &objects));
        assert!(
            off.found.len() == 1 && off.found[0].message.contains("access control is off"),
            "{case}: {:#?}",
            off.found
        );
    }
}
