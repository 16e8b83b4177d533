//! What becomes of the annotation `routes`.

use serde_json::json;

use super::*;
use crate::compile::routes::RouteBackend;

/// Service shop/NAME with these lines as its routes, created on this day of the month.
fn routed(name: &str, day: u32, lines: &str, ports: &str) -> String {
    let annotations = json!({"maesh.containo.us/routes": lines});
    let metadata = format!("creationTimestamp: \"2026-01-{day:02}T00:00:00Z\", annotations: {annotations}");
    service(name, &metadata, ports)
}

const HTTP: &str = "ports: [{port: 80}]";

/// Which names are whose, on all listeners.
fn claims(output: &Output) -> Vec<String> {
    let listeners = output.change.upserts.iter().filter_map(|resource| match resource {
        Resource::Listener(listener) => Some(listener),
        _ => None,
    });
    let all = listeners.flat_map(|listener| {
        let hosts = listener.hosts.iter().map(|claim| ("http", claim));
        let sni = listener.sni.iter().map(|claim| ("sni", claim));
        hosts.chain(sni).map(move |(of, claim)| format!("{} {of} {} {}", listener.port, claim.host, claim.service.name))
    });
    let mut all: Vec<_> = all.collect();
    all.sort();
    all
}

#[test]
fn the_longest_rule_is_the_first() {
    let lines = "PathPrefix(`/`) => a\nHost(`x.example`) && PathPrefix(`/api`) => b.other:8080 3, c 1\nPathPrefix(`/b`) => c\nPathPrefix(`/c`) => a";
    let yaml = routed("web", 1, lines, HTTP) + &service("a", "", HTTP) + &service("c", "", HTTP);
    let output = compiled(dev(), &yaml);
    let want = [
        "80: Host(`x.example`) && PathPrefix(`/api`) => b.other:8080 3, c.shop:80 1",
        "80: PathPrefix(`/b`) => c.shop:80 1",
        "80: PathPrefix(`/c`) => a.shop:80 1",
        "80: PathPrefix(`/`) => a.shop:80 1",
    ];
    assert_eq!(routes(&output), want);
    // The one target that does not exist.
    let found: Vec<_> = output.found.iter().map(|found| found.message.to_string()).collect();
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].contains("line 2: the backend b.other:8080 is Service other/b, which does not exist"),
        "{found:#?}"
    );
}

#[test]
fn each_port_takes_the_lines_that_fit_it() {
    let lines = "Path(`/a`) => web:81\nHostSNI(`a.example`) => web:80\nClientIP(`10.0.0.0/8`) => web:80\nHostSNI(`b`) && Path(`/`) => web\nPath(`/b`";
    let ports =
        "ports: [{port: 80, name: a}, {port: 81, name: b, appProtocol: tcp}, {port: 82, name: c, protocol: UDP}]";
    let output = compiled(dev(), &routed("web", 1, lines, ports));
    let want = [
        "80: ClientIP(`10.0.0.0/8`) => web.shop:80 1",
        "80: Path(`/a`) => web.shop:81 1",
        "81: ClientIP(`10.0.0.0/8`) => web.shop:80 1",
        "81: HostSNI(`a.example`) => web.shop:80 1",
        "82: ClientIP(`10.0.0.0/8`) => web.shop:80 1",
    ];
    assert_eq!(routes(&output), want);
    let found: Vec<_> = output.found.iter().map(|found| found.message.to_string()).collect();
    assert_eq!(found.len(), 3, "{found:#?}");
    let of_udp = "line 3: the backend web:80 is port 80 of Service shop/web, which carries TCP, not UDP;";
    assert!(found.iter().any(|text| text.contains(of_udp)), "{found:#?}");
    assert!(
        found.iter().any(|text| text.contains("line 4: no port that it is for has all that the rule asks for")),
        "{found:#?}"
    );
    assert!(found.iter().any(|text| text.contains("line 5, column 10: expected , or )")), "{found:#?}");
}

/// A Service that is there and not in the mesh gets nothing, and that is said wherever another one names it.
#[test]
fn what_is_not_in_the_mesh_is_no_backend() {
    let ignored = Config { ignored_namespaces: vec!["legacy".into()], ..dev() };
    let asking = Config { require_annotation: true, ..dev() };
    for (case, config, other, name, why) in [
        (
            "an ignored namespace",
            ignored,
            service("old", "", HTTP).replace("namespace: shop", "namespace: legacy"),
            "old.legacy",
            "Service legacy/old, which is not in the mesh: its namespace is not meshed",
        ),
        (
            "another name",
            dev(),
            service("old", "", "type: ExternalName, externalName: old.example, ports: [{port: 80}]"),
            "old",
            "Service shop/old, which is not in the mesh: it is of type ExternalName",
        ),
        (
            "no annotation",
            asking,
            service("old", "", HTTP),
            "old",
            "Service shop/old, which is not in the mesh: it has no annotation of the mesh",
        ),
        (
            "another transport",
            dev(),
            service("old", "", "ports: [{port: 80, protocol: UDP}]"),
            "old",
            "port 80 of Service shop/old, which carries UDP, not TCP",
        ),
    ] {
        for annotation in [
            format!("maesh.containo.us/routes: 'PathPrefix(`/`) => {name}'"),
            format!("maesh.containo.us/mirror: {name} 10%"),
            format!("maesh.containo.us/fallback: {name}"),
        ] {
            let web = service("web", &format!("annotations: {{{annotation}}}"), HTTP);
            let output = compiled(config.clone(), &(web + &other));
            let found: Vec<_> = output.found.iter().filter(|found| &*found.object.name == "web").collect();
            assert!(
                matches!(&found[..], [only] if only.message.contains(why)),
                "{case}: {annotation}: {:#?}",
                output.found
            );
        }
    }
}

#[test]
fn a_host_is_the_oldest_services() {
    let lines = "Host(`shop.example`) => web\nHost(`web.shop.maesh`) => web\nHost(`old.shop.maesh`) => web";
    let web = routed("web", 2, lines, HTTP);
    let old = routed("old", 1, "Host(`Shop.example`) || Host(`old.example`) => old", HTTP);
    let output = compiled(dev(), &web);
    assert_eq!(claims(&output), ["80 http shop.example web"]);
    let output = compiled(dev(), &(web + &old));
    assert_eq!(claims(&output), ["80 http old.example old", "80 http shop.example old"]);
    let found: Vec<_> = output.found.iter().map(|found| found.message.to_string()).collect();
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        found.iter().any(|text| text.contains("routes, line 1: the older Service shop/old has the host shop.example"))
    );
    assert!(
        found.iter().any(|text| text.contains("line 3: the host old.shop.maesh is a name of the mesh")),
        "{found:#?}"
    );
}

#[test]
fn what_has_no_effect_is_said() {
    let tcp = "ports: [{port: 5432, appProtocol: tcp}]";
    for (lines, ports, want) in [
        ("HostSNI(`a.b.c`) => web", HTTP, "line 1: no port that it is for has all"),
        ("Path(`/x`) => web", tcp, "line 1: no port that it is for has all"),
        ("Path(`/x`) => web 0, web 0", HTTP, "line 1: all weights are 0"),
        ("Host(`api.shop`) => web", HTTP, "line 1: the host api.shop is a name of the mesh or of the cluster"),
    ] {
        let output = compiled(dev(), &(routed("web", 1, lines, ports) + &service("api", "", HTTP)));
        let found: Vec<_> = output.found.iter().map(|found| found.message.to_string()).collect();
        assert!(found.len() == 1 && found[0].contains(want), "{lines}: {found:#?}");
    }
    // Without such a Service, it is a name like any other.
    let output = compiled(dev(), &routed("web", 1, "Host(`api.shop`) => web", HTTP));
    assert!(output.found.is_empty(), "{:#?}", output.found);
    assert_eq!(claims(&output), ["80 http api.shop web"]);
}

#[test]
fn a_line_that_another_one_hides_is_named() {
    let lines =
        "PathPrefix(`/a`) => web\nPathPrefix(`/b`) => web\n# PathPrefix(`/a`) => web\nPathPrefix(`/a`) => web 0, web 1";
    let output = compiled(dev(), &routed("web", 1, lines, HTTP));
    let found: Vec<_> = output.found.iter().map(|found| found.message.to_string()).collect();
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("line 4: line 1 has the same rule and takes its requests"), "{found:#?}");
}

#[test]
fn who_asks_for_a_claimed_host_is_told_whose_it_is() {
    let mut compiler = Compiler::new(dev());
    let yaml = routed("web", 2, "# shop.example\nHost(`Shop.example`) => web", HTTP) + &routed("old", 1, "", HTTP);
    objects(&yaml).into_iter().for_each(|object| compiler.take(Event::Apply(object)));
    compiler.compile(Instant::now());
    for (asked, claimed) in [("SHOP.example.", true), ("other.example", false), ("shop.example.org", false)] {
        let explained = compiler.explain(&explain::Question { name: asked.into(), from: None });
        let why = explained.not_meshed.unwrap();
        assert_eq!(why.contains("routes of Service shop/web claim it"), claimed, "{asked}: {why}");
        assert_eq!(
            why.contains("maesh explain http://web.shop.maesh/ -H 'Host: shop.example'"),
            claimed,
            "{asked}: {why}"
        );
    }
}

#[test]
fn server_names_of_tls_are_claimed_too() {
    let ports = "ports: [{port: 443, appProtocol: https}]";
    let output = compiled(dev(), &routed("web", 1, "HostSNI(`pay.example`) => web\nHostSNI(`*`) => web", ports));
    assert_eq!(claims(&output), ["443 sni pay.example web"]);
    assert!(output.found.is_empty(), "{:#?}", output.found);
}

#[test]
fn routes_are_listed_with_where_they_are_written() {
    let split = "kind: TrafficSplit\nmetadata: {namespace: shop, name: canary}\nspec: {service: web, backends: [{service: a, \
                 weight: 3}, {service: b, weight: 1}]}\n---\n";
    let lines = json!({"maesh.containo.us/80.routes": "Path(`/x\u{1b}`) => a\nHost(`x.example`) => b.other:81 3, a 1"});
    let web = service("web", &format!("annotations: {lines}"), "ports: [{port: 80, name: one}, {port: 81, name: two}]");
    let ports = "ports: [{port: 80, name: one}, {port: 81, name: two}]";
    let mut compiler = Compiler::new(dev());
    let yaml = web + &service("a", "", ports) + &service("b", "", ports) + split;
    objects(&yaml).into_iter().for_each(|object| compiler.take(Event::Apply(object)));
    compiler.compile(Instant::now());
    let names = ["a", "web", "none"].map(|name| ServiceName::new("shop", name));
    let list = compiler.routes(&names);
    let said = list.routes.iter().map(|route| {
        let to = |to: &RouteBackend| format!("{}:{} {}", to.service, to.port, to.weight);
        let backends: Vec<_> = route.backends.iter().map(to).collect();
        let (origin, rule) = (&route.origin, route.rule.as_deref().unwrap_or("any"));
        format!(
            "{} {}/{} {} {}: {rule} => {}",
            route.service,
            route.port,
            route.protocol,
            origin.kind,
            origin.name,
            backends.join(", ")
        )
    });
    let want = [
        "shop/web 80/http annotation maesh.containo.us/80.routes: Host(`x.example`) => other/b:81 3, shop/a:80 1",
        "shop/web 80/http annotation maesh.containo.us/80.routes: Path(`/x\u{1b}`) => shop/a:80 1",
        "shop/web 81/http TrafficSplit shop/canary: any => shop/a:81 3, shop/b:81 1",
    ];
    assert_eq!(said.collect::<Vec<_>>(), want);
    assert_eq!(list.next, None);
}

#[test]
fn a_list_of_routes_ends_at_a_size() {
    let lines: String = (0..500).map(|line| format!("Path(`/{line}/{}`) => web\n", "x".repeat(1500))).collect();
    let yaml: String = ["a", "b", "c"].map(|name| routed(name, 1, &lines, HTTP)).concat();
    let mut compiler = Compiler::new(dev());
    objects(&yaml).into_iter().for_each(|object| compiler.take(Event::Apply(object)));
    compiler.compile(Instant::now());
    let names = ["a", "b", "c"].map(|name| ServiceName::new("shop", name));
    let list = compiler.routes(&names);
    assert_eq!((list.routes.len(), list.next.as_deref()), (1000, Some("shop/b")));
    let rest = compiler.routes(&names[2..]);
    assert_eq!((rest.routes.len(), rest.next), (500, None));
}

#[test]
fn targets_that_do_not_exist_are_counted() {
    for (missing, says) in [
        (11, "1 more backend does not exist; its share of the requests is answered 500 `bad_backend`. Create it, or"),
        (12, "2 more backends do not exist; their share of the requests is answered 500 `bad_backend`. Create them"),
    ] {
        let lines: Vec<_> = (0..missing).map(|number| format!("Path(`/{number}`) => absent-{number}")).collect();
        let output = compiled(dev(), &routed("web", 1, &lines.join("\n"), HTTP));
        assert!(output.found.iter().any(|found| found.message.contains(says)), "{:#?}", output.found);
    }
}
