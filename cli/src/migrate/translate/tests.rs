use maesh_compiler::kinds::{ObjectKind, ReadContext};

use super::*;

fn objects(yaml: &str) -> Vec<Object> {
    let documents = yaml.split("---\n").filter(|document| !document.trim().is_empty());
    let read = documents.map(|document| {
        let value: serde_json::Value = serde_saphyr::from_str(document).expect("YAML");
        let kind = ObjectKind::ALL.into_iter().find(|kind| kind.as_str() == value["kind"]).expect("a kind");
        Object::read(kind, &value, &ReadContext::default()).expect("an object")
    });
    read.collect()
}

fn service(name: &str, annotations: &str) -> String {
    format!(
        "kind: Service\nmetadata: {{namespace: shop, name: {name}, annotations: {{{annotations}}}}}\nspec: {{ports: [{{port: 80}}]}}\n---\n"
    )
}

fn split(name: &str, spec: &str) -> String {
    format!("kind: TrafficSplit\nmetadata: {{namespace: shop, name: {name}}}\nspec: {{{spec}}}\n---\n")
}

fn group(matches: &str) -> String {
    format!("kind: HTTPRouteGroup\nmetadata: {{namespace: shop, name: g}}\nspec: {{matches: [{matches}]}}\n---\n")
}

fn of(yaml: &str) -> Migration {
    translate(&objects(yaml), &[], Protocol::Http)
}

const BOTH: &str = "service: web, backends: [{service: v1, weight: 9}, {service: v2, weight: 1}]";

#[test]
fn what_becomes_of_a_split() {
    use Verdict::{Kept, NotKept, Translated};
    let services = || service("web", "") + &service("v1", "") + &service("v2", "");
    let without_v2 = service("web", "") + &service("v1", "");
    let nested = split("b", "service: v2, backends: [{service: v1, weight: 1}]");
    let circle = split("b", "service: v2, backends: [{service: web, weight: 1}]");
    let into = split("b", "service: v2, backends: [{service: v2, weight: 1}]");
    let testers = "service: web, matches: [{name: g}], backends: [{service: v1, weight: 1}]";
    let lines = "maesh.containo.us/routes: \"Path(`/`) => v1\"";
    let said = "maesh.containo.us/routes: \"PathRegexp(`^`) => v1 9, v2 1\"";
    let break_in_it = group("{pathRegex: \"/a\\nb\"}");
    let many: String = (0..64).map(|at| format!("{{headers: {{a: '{at}', b: '{at}'}}}}, ")).collect();
    for (case, objects, want) in [
        (
            "two backends",
            services() + &split("s", BOTH),
            &[(Translated, "now maesh.containo.us/routes of Service web")][..],
        ),
        ("no Service", split("s", BOTH), &[(NotKept, "Service shop/web does not exist; there is nothing to split")]),
        ("a missing backend", without_v2 + &split("s", BOTH), &[(NotKept, "backend v2 does not exist")]),
        (
            "a Service that is not of the mesh",
            service("web", "").replace("spec: {", "spec: {type: ExternalName, externalName: a.example, ")
                + &service("v1", "")
                + &service("v2", "")
                + &split("s", BOTH),
            &[(NotKept, "so the split is not used")],
        ),
        (
            "routes are there",
            service("web", lines) + &service("v1", "") + &service("v2", "") + &split("s", BOTH),
            &[(NotKept, "has the annotation routes for port 80, which comes first; the split is not used there")],
        ),
        (
            "routes that say the same are there",
            service("web", said) + &service("v1", "") + &service("v2", "") + &split("s", BOTH),
            &[(Verdict::NotNeeded, "the annotation routes of Service web says the same")],
        ),
        ("a missing group", services() + &split("s", testers), &[(NotKept, "HTTPRouteGroup shop/g does not exist")]),
        ("a line break", services() + &break_in_it + &split("s", testers), &[(Kept, "an expression has a line break")]),
        (
            "more expressions than the annotation takes",
            services() + &group(&many) + &split("s", testers),
            &[(Kept, "its matches are more or larger than the annotation routes takes")],
        ),
        (
            "no weight",
            services() + &split("s", "service: web, backends: [{service: v1, weight: 0}]"),
            &[(NotKept, "Traefik Mesh answered 500, this mesh answers 503")],
        ),
        (
            "nested",
            services() + &split("s", BOTH) + &nested,
            &[(Translated, ""), (NotKept, "the split of backend v2 applied")],
        ),
        (
            "a circle",
            services() + &split("s", BOTH) + &circle,
            &[(Translated, ""), (NotKept, "so Traefik Mesh did not apply it")],
        ),
        (
            "a circle with a missing group",
            services() + &split("s", "service: web, matches: [{name: g}], backends: [{service: web, weight: 1}]"),
            &[(NotKept, "HTTPRouteGroup shop/g does not exist; the split is not used")],
        ),
        (
            "into a circle",
            services() + &split("s", BOTH) + &into,
            &[(Translated, ""), (NotKept, "so Traefik Mesh did not apply it")],
        ),
        (
            "policies of a backend",
            service("web", "")
                + &service("v1", "mesh.traefik.io/retry-attempts: '2'")
                + &service("v2", "")
                + &split("s", BOTH),
            &[(Translated, ""), (NotKept, "mesh.traefik.io/retry-attempts of backend v1 applied to its share")],
        ),
    ] {
        let migration = of(&objects);
        let mut said: Vec<_> = migration.findings.iter().filter(|it| *it.object.name == *"s").collect();
        said.sort();
        said.sort_by_key(|it| it.verdict);
        assert_eq!(said.len(), want.len(), "{case}: {said:#?}");
        for (finding, (verdict, why)) in said.iter().zip(want) {
            assert!(finding.verdict == *verdict && finding.why.contains(why), "{case}: {finding:#?}");
        }
        let routes = migration.objects.iter().find(|it| it.metadata.name == "web");
        let has = routes.is_some_and(|it| it.metadata.annotations.keys().any(|key| key.ends_with("/routes")));
        assert_eq!(has, want[0].0 == Translated, "{case}: {routes:?}");
    }
}

#[test]
fn the_younger_of_two_splits_is_not_kept() {
    let mut all = objects(
        &(service("web", "") + &service("v1", "") + &service("v2", "") + &split("a", BOTH) + &split("b", BOTH)),
    );
    for (object, day) in all.iter_mut().filter(|it| matches!(it, Object::TrafficSplit(_))).zip(1_i64..) {
        object.meta_mut().created = jiff::Timestamp::from_second(day * 86_400).ok();
    }
    let migration = translate(&all, &[], Protocol::Http);
    assert!(migration.objects.is_empty(), "{:?}", migration.objects);
    let [a, b] = &migration.findings[..] else { panic!("{:#?}", migration.findings) };
    assert_eq!((&*a.object.name, a.verdict), ("a", Verdict::Kept));
    assert_eq!(a.why, "it is read as it is: TrafficSplit b of the same Service cannot be translated");
    assert_eq!((&*b.object.name, b.verdict), ("b", Verdict::NotKept));
    assert!(b.why.contains("TrafficSplit a is older") && b.why.ends_with("this one is not used"), "{b:#?}");
    assert_eq!(b.next.as_deref(), Some("delete one of them"));
}

#[test]
fn an_annotation_without_effect_is_not_kept() {
    use Verdict::{NotKept, NotNeeded};
    for (annotations, found) in [
        ("maesh.containo.us/retry-attempts: '2'", &[(NotKept, "is for ports that carry http")][..]),
        (
            "maesh.containo.us/retry-attempts: '2', mesh.traefik.io/retry-attempts: '2'",
            &[(NotKept, "is for ports that carry http")],
        ),
        ("maesh.containo.us/foo: a", &[(NotNeeded, "neither Traefik Mesh nor this mesh reads it")]),
        ("maesh.containo.us/timeout-request: x", &[]),
    ] {
        let migration = of(&service("redis", annotations).replace("port: 80", "port: 80, appProtocol: redis"));
        assert!(migration.objects.is_empty(), "{annotations}: {:?}", migration.objects);
        let said = &migration.findings;
        assert_eq!(said.len(), found.len(), "{annotations}: {said:#?}");
        for (finding, (verdict, why)) in said.iter().zip(found) {
            assert!(finding.verdict == *verdict && finding.why.contains(why), "{annotations}: {finding:#?}");
        }
    }
}

#[test]
fn objects_of_smi_that_stay() {
    use Verdict::{Kept, NotKept};
    let target = |version: &str, rules: &str| {
        format!(
            "apiVersion: access.smi-spec.io/{version}\nkind: TrafficTarget\nmetadata: {{namespace: shop, name: t}}\n\
             spec: {{destination: {{kind: ServiceAccount, name: a}}, sources: [{{kind: ServiceAccount, name: b}}], rules: {rules}}}\n---\n"
        )
    };
    for (object, verdict, why) in [
        (group("{name: a, pathRegex: /a}"), Kept, "read in every version"),
        (group(""), NotKept, "a group without matches for every request"),
        (group("{name: a}"), Kept, "read in every version"),
        (group("{name: a}, {name: b, pathRegex: /b}"), NotKept, "match a asks for nothing"),
        (group("{name: a, pathRegex: ^/a}"), NotKept, "begins with ^"),
        (group("{name: a, headers: {host: b}}"), NotKept, "asks for the header host"),
        (target("v1alpha2", "[]"), Kept, "read in every version"),
        (target("v1alpha3", "[]"), NotKept, "without rules Traefik Mesh admitted every request"),
        (target("v1alpha2", "[{kind: TCPRoute, name: x}]"), Kept, "On TCP its sources count"),
        ("kind: TCPRoute\nmetadata: {namespace: shop, name: x}\n".to_owned(), Kept, "read in every version"),
    ] {
        let migration = of(&object);
        let [finding] = &migration.findings[..] else { panic!("{object}: {:#?}", migration.findings) };
        assert!(finding.verdict == verdict && finding.why.contains(why), "{object}: {finding:#?}");
    }
}

#[test]
fn what_the_compiler_refuses_is_not_printed() {
    // The port is no HTTP, though the Service was.
    let redis =
        service("redis", "mesh.traefik.io/retry-attempts: '2'").replace("port: 80", "port: 80, appProtocol: redis");
    let migration = of(&redis);
    assert!(migration.objects.is_empty(), "{:?}", migration.objects);
    let [finding] = &migration.findings[..] else { panic!("{:#?}", migration.findings) };
    assert!(
        finding.verdict == Verdict::NotKept && finding.why.contains("is for ports that carry http"),
        "{finding:#?}"
    );
}

#[test]
fn shadow_services_are_left_alone() {
    let shadow = |name: &str| service(name, "mesh.traefik.io/traffic-type: x");
    let migration = of(&(shadow("maesh-a-6d61657368-shop") + &shadow("maesh-b-6d61657368-shop")));
    assert!(migration.objects.is_empty());
    let [finding] = &migration.findings[..] else { panic!("{:#?}", migration.findings) };
    assert_eq!((finding.what.as_str(), finding.verdict), ("shadow Services (2)", Verdict::NotNeeded));
}

#[test]
fn what_cannot_be_seen_is_not_printed() {
    let hidden = group("{headers: {a: \"\\u202e\"}}")
        + &split("s", "service: web, matches: [{name: g}], backends: [{service: v1, weight: 1}]");
    let migration = of(&(service("web", "") + &service("v1", "") + &hidden));
    assert!(migration.objects.is_empty(), "{:?}", migration.objects);
    assert!(migration.findings.iter().all(|finding| finding.verdict == Verdict::Kept), "{:#?}", migration.findings);
}
