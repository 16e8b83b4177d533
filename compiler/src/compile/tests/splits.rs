//! What becomes of TrafficSplits.

use super::*;

const HTTP: &str = "ports: [{port: 80}]";

/// TrafficSplit shop/NAME with this below `spec`, created on this day of the month.
fn split(name: &str, day: u32, spec: &str) -> String {
    format!(
        "kind: TrafficSplit\nmetadata: {{namespace: shop, name: {name}, creationTimestamp: \"2026-01-{day:02}T00:00:00Z\"}}\n\
         spec: {{{spec}}}\n---\n"
    )
}

/// HTTPRouteGroup shop/NAME with these matches.
fn group(name: &str, matches: &str) -> String {
    format!("kind: HTTPRouteGroup\nmetadata: {{namespace: shop, name: {name}}}\nspec: {{matches: [{matches}]}}\n---\n")
}

/// The Services web, v1 and v2 of namespace shop, with these ports.
fn services(ports: &str) -> String {
    ["web", "v1", "v2"].map(|name| service(name, "", ports)).concat()
}

fn messages(output: &Output) -> Vec<String> {
    output.found.iter().map(|found| found.message.to_string()).collect()
}

#[test]
fn traffic_is_split() {
    let both = "service: web, backends: [{service: v1, weight: 75}, {service: v2, weight: 25}]";
    let beta = "service: web, matches: [{kind: HTTPRouteGroup, name: beta}], backends: [{service: v2, weight: 1}]";
    let firefox = group("beta", "{name: firefox, headers: {user-agent: Firefox}}, {pathRegex: /beta, methods: [GET]}");
    let any = group("beta", "{name: any}");
    let milli = "service: web, backends: [{service: v1, weight: 500m}, {service: v2, weight: \"1\"}]";
    let none = "service: web, backends: [{service: v1, weight: 0}, {service: v2}]";
    let own = "service: web, backends: [{service: web, weight: 1}, {service: v1, weight: 1}]";
    let gone = "service: web, backends: [{service: v1, weight: 9}, {service: v3, weight: 1}]";
    for (case, objects, want, says) in [
        ("two backends", split("s", 1, both), &["80: any => v1.shop:80 75, v2.shop:80 25"][..], &[][..]),
        (
            "matches before all",
            firefox + &split("all", 1, both) + &split("s", 2, beta),
            &[
                "80: HeaderRegexp(`user-agent`, `Firefox`) => v2.shop:80 1",
                "80: Method(`GET`) && PathRegexp(`^(?:/beta)`) => v2.shop:80 1",
                "80: any => v1.shop:80 75, v2.shop:80 25",
            ],
            &[],
        ),
        ("a match of everything", any + &split("s", 1, beta), &["80: any => v2.shop:80 1"], &[]),
        (
            "a group that is missing",
            split("s", 1, beta),
            &[],
            &["TrafficSplit shop/s: HTTPRouteGroup shop/beta does not exist; the split is not used"],
        ),
        (
            "a group without matches",
            group("beta", "") + &split("s", 1, beta),
            &[],
            &["TrafficSplit shop/s: its HTTPRouteGroups have no match that can be used"],
        ),
        ("thousandths", split("s", 1, milli), &["80: any => v1.shop:80 500, v2.shop:80 1000"], &[]),
        (
            "no weight",
            split("s", 1, none),
            &["80: any => v1.shop:80 0, v2.shop:80 0"],
            &["no backend has a weight above 0, so what it takes is answered 503"],
        ),
        (
            "the Service itself",
            split("s", 1, own),
            &["80: any => web.shop:80 1, v1.shop:80 1"],
            &["backend web is the Service itself; its share goes to its own endpoints"],
        ),
        (
            "a backend that is missing",
            split("s", 1, gone),
            &["80: any => v1.shop:80 9"],
            &["backend v3 does not exist; the others get its share"],
        ),
        (
            "a backend that is not in the mesh",
            split("s", 1, gone)
                + &service("v3", "", "type: ExternalName, externalName: v3.example, ports: [{port: 80}]"),
            &["80: any => v1.shop:80 9"],
            &["backend v3 is not in the mesh: it is of type ExternalName; the others get its share"],
        ),
        (
            "two for one Service",
            split("b", 2, own) + &split("a", 1, both),
            &["80: any => v1.shop:80 75, v2.shop:80 25"],
            &["TrafficSplit shop/b: TrafficSplit a is older and splits all traffic of Service web already"],
        ),
    ] {
        let output = compiled(dev(), &(services(HTTP) + &objects));
        assert_eq!(routes(&output), want, "{case}");
        let found = messages(&output);
        assert_eq!(found.len(), says.len(), "{case}: {found:#?}");
        assert!(says.iter().all(|says| found.iter().any(|found| found.contains(says))), "{case}: {found:#?}");
    }
}

#[test]
fn a_backend_counts_on_the_ports_that_it_has() {
    let root =
        "ports: [{port: 80, name: a}, {port: 53, name: b, protocol: UDP}, {port: 5432, name: c, appProtocol: tcp}]";
    let all = "service: web, backends: [{service: v1, weight: 1}, {service: v2, weight: 1}]";
    let objects = service("web", "", root)
        + &service("v1", "", root)
        + &service("v2", "", "ports: [{port: 80}, {port: 53, name: t}]")
        + &split("s", 1, all);
    let output = compiled(dev(), &objects);
    let want = ["53: any => v1.shop:53 1", "80: any => v1.shop:80 1, v2.shop:80 1", "5432: any => v1.shop:5432 1"];
    assert_eq!(routes(&output), want);
    let found = messages(&output);
    assert!(found.len() == 1 && found[0].contains("backend v2 has no port 53, 5432 as Service web has"), "{found:#?}");
}

#[test]
fn matches_are_for_requests() {
    let ports = "ports: [{port: 80, name: a}, {port: 5432, name: c, appProtocol: tcp}]";
    let beta = group("beta", "{pathRegex: /beta}")
        + &split("s", 1, "service: web, matches: [{name: beta}], backends: [{service: v2, weight: 1}]");
    let output = compiled(dev(), &(services(ports) + &beta));
    assert_eq!(routes(&output), ["80: PathRegexp(`^(?:/beta)`) => v2.shop:80 1"]);
    assert_eq!(messages(&output), Vec::<String>::new());
    let output = compiled(dev(), &(services("ports: [{port: 5432, appProtocol: tcp}]") + &beta));
    let found = messages(&output);
    assert!(routes(&output).is_empty() && found.len() == 1, "{found:#?}");
    assert!(found[0].contains("no port of Service web carries it"), "{found:#?}");
}

#[test]
fn routes_of_the_service_come_first() {
    let annotated = service("web", "annotations: {maesh.containo.us/routes: \"Path(`/x`) => v1\"}", HTTP)
        + &service("v1", "", HTTP)
        + &split("s", 1, "service: web, backends: [{service: v1, weight: 1}]");
    let output = compiled(dev(), &annotated);
    assert_eq!(routes(&output), ["80: Path(`/x`) => v1.shop:80 1"]);
    let found = messages(&output);
    assert!(
        found.len() == 1 && found[0].contains("has the annotation routes for port 80, which comes first"),
        "{found:#?}"
    );
    assert_eq!(output.found[0].reason, Reason::Shadowed);
}

#[test]
fn a_split_without_its_service_is_said() {
    let output = compiled(dev(), &split("s", 1, "service: web, backends: [{service: v1, weight: 1}]"));
    let found = messages(&output);
    assert!(
        found.len() == 1 && found[0].contains("Service shop/web does not exist; there is nothing to split"),
        "{found:#?}"
    );
}
