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
    let matches = if ports.is_empty() { String::new() } else { format!("matches: {{ports: [{ports}]}}") };
    format!("kind: {kind}\nmetadata: {{namespace: shop, name: {name}}}\nspec: {{{matches}}}\n---\n")
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
            "no rules in an old version",
            target("x", "v1alpha2", &rules("")),
            "no rule is named, which in this version of TrafficTarget admits every request",
        ),
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

/// Targets `t0`, `t1` and so on, one a minute, each for another caller.
fn many(range: std::ops::Range<usize>) -> String {
    let one = |i: usize| {
        target(&format!("t{i}"), "v1alpha3", &rules(TCP_RULE))
            .replace("name: ann}", &format!("name: ann-{i}}}"))
            .replace(
                "metadata: {",
                &format!(
                    "metadata: {{creationTimestamp: '2026-01-{:02}T{:02}:{:02}:00Z', ",
                    i / 1440 + 1,
                    i / 60 % 24,
                    i % 60
                ),
            )
    };
    range.map(one).collect()
}

/// A compiler to which objects come one after the other.
struct Many(Compiler);

impl Many {
    fn apply(&mut self, yaml: &str) -> Output {
        objects(yaml).into_iter().for_each(|object| self.0.take(Event::Apply(object)));
        self.0.compile(Instant::now())
    }

    fn delete(&mut self, name: &str) -> Output {
        self.0.take(Event::Delete(crate::kinds::ObjectId::new(ObjectKind::TrafficTarget, "shop", name)));
        self.0.compile(Instant::now())
    }
}

fn on_port_80(output: &Output) -> Vec<String> {
    let all = granted(output);
    let names = all.iter().filter_map(|line| Some(line.strip_prefix("80 shop/bob: ")?.split(' ').next()?.to_owned()));
    names.collect()
}

#[test]
fn the_oldest_targets_of_a_service_account_count() {
    let most = crate::index::MOST_TARGETS;
    let mut all = Many(Compiler::new(acl()));
    let output = all.apply(&(SERVICE.to_owned() + &route("TCPRoute", "t", "") + &many(1..most + 3)));
    let names = on_port_80(&output);
    assert_eq!((names.len(), names[0].as_str(), names[most - 1].clone()), (most, "t1", format!("t{most}")));
    let found: Vec<_> = output.found.iter().map(|found| found.object.to_string()).collect();
    assert_eq!(found, [format!("TrafficTarget shop/t{}", most + 1), format!("TrafficTarget shop/t{}", most + 2)]);
    assert!(
        output.found[0].message.contains("ServiceAccount shop/bob has 1000 older targets"),
        "{}",
        output.found[0].message
    );

    let output = all.apply(&many(most + 3..most + 4));
    assert_eq!((output.change.upserts.len(), output.found.len()), (0, 1), "one that does not count changes nothing");
    let output = all.apply(&many(0..1));
    let names = on_port_80(&output);
    assert_eq!((names.len(), names[0].as_str(), names[most - 1].clone()), (most, "t0", format!("t{}", most - 1)));
    assert_eq!(output.found.len(), 1, "the youngest of those that counted is said to count no longer");
    let output = all.delete("t5");
    let names = on_port_80(&output);
    assert_eq!(
        (names.len(), names.contains(&"t5".to_owned()), names[most - 1].clone()),
        (most, false, format!("t{most}"))
    );
    assert_eq!((output.found.len(), output.cleared.len()), (0, 1), "and counts again");
    let output = all.delete(&format!("t{}", most + 2));
    assert_eq!((output.change.upserts.len(), output.cleared.len()), (0, 1));
}

/// The bytes that `shop/b` takes on the way to a proxy.
fn size(output: &Output) -> usize {
    let endpoints = output.change.upserts.iter().find(|it| matches!(it, Resource::Endpoints(_)));
    maesh_config::wire::encode(endpoints.expect("endpoints")).len()
}

#[test]
fn what_targets_say_for_one_service_has_a_bound() {
    let sources: String =
        (0..250).map(|i| format!("{{kind: ServiceAccount, name: a-source-with-a-name-{i}}}, ")).collect();
    let of = |i: usize, rule: &str, sources: &str| {
        many(i..i + 1).replace(TCP_RULE, rule).replace("sources: [", &format!("sources: [{sources}"))
    };
    let head = "/".to_owned() + &"x".repeat(1000);
    let paths = |group: usize, count: usize| {
        let one = |i: usize| format!("{{pathRegex: '{head}{group}-{i}'}}");
        self::group(&format!("g{group}"), &(0..count).map(one).collect::<Vec<_>>().join(", "))
    };
    let short = |group: usize, count: usize| paths(group, count).replace(&head, "/");
    let http = |i: usize| of(i, &format!("{{kind: HTTPRouteGroup, name: g{i}}}"), "");
    for (case, objects, counted, says) in [
        (
            "many sources",
            (0..200).map(|i| of(i, TCP_RULE, &sources)).collect::<String>(),
            10..60,
            "take more than 512 KiB",
        ),
        (
            "many expressions",
            (0..8).map(|i| short(i, 60) + &http(i)).collect(),
            4..5,
            "have more than 256 different regular expressions",
        ),
        (
            "the same expressions in many targets",
            short(0, 60) + &(0..100).map(|i| of(i, "{kind: HTTPRouteGroup, name: g0}", "")).collect::<String>(),
            100..101,
            "",
        ),
        (
            "the same long expressions in many targets",
            paths(0, 30) + &(0..100).map(|i| of(i, "{kind: HTTPRouteGroup, name: g0}", "")).collect::<String>(),
            5..10,
            "take more than 512 KiB",
        ),
        (
            "routes with many ports, none of which is one of these",
            route("TCPRoute", "u", &vec!["9"; 1024].join(", "))
                + &(0..100).map(|i| of(i, &vec!["{kind: TCPRoute, name: u}"; 200].join(", "), "")).collect::<String>()
                + &of(900, TCP_RULE, ""),
            0..1,
            "take more than 512 KiB",
        ),
    ] {
        let output = compiled(acl(), &(SERVICE.to_owned() + &route("TCPRoute", "t", "") + &objects));
        let names = on_port_80(&output);
        assert!(counted.contains(&names.len()), "{case}: {} targets count", names.len());
        let oldest: Vec<_> = (0..names.len()).map(|i| format!("t{i}")).collect();
        assert_eq!(names, oldest, "{case}: the oldest ones");
        assert!(size(&output) < 600 * 1024, "{case}: {} bytes", size(&output));
        let found: Vec<_> = output.found.iter().filter(|it| &*it.object.kind == "TrafficTarget").collect();
        assert_eq!(found.len(), usize::from(!says.is_empty()), "{case}: {found:#?}");
        assert!(
            found.iter().all(|found| found.message.contains(says) && found.message.contains("it admits nobody there")),
            "{case}: {found:#?}"
        );
    }
}

#[test]
fn what_was_too_much_counts_once_there_is_room() {
    let sources: String =
        (0..250).map(|i| format!("{{kind: ServiceAccount, name: {}-{i}}}, ", "a".repeat(50))).collect();
    let large = |i: usize| many(i..i + 1).replace("sources: [", &format!("sources: [{sources}"));
    let mut all = Many(Compiler::new(acl()));
    let output =
        all.apply(&(SERVICE.to_owned() + &route("TCPRoute", "t", "") + &(0..15).map(large).collect::<String>()));
    let (before, found) = (on_port_80(&output), output.found.len());
    assert!(before.len() < 15 && found == 1, "{before:?} {:#?}", output.found);
    let output = all.apply(&many(0..10));
    let (after, cleared) = (on_port_80(&output), output.cleared.len());
    assert_eq!((after.len(), cleared), (15, 1), "{:#?}", output.found);
}
