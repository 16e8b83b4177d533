use maesh_compiler::kinds::{Object, ObjectKind, ReadContext};
use serde_json::{Value, json};

use super::*;

/// An annotation, its verdict, why, and the next step.
type Said = (String, Verdict, String, Option<String>);

/// What becomes of annotations, with O standing for the prefix of Traefik Mesh and N for ours: what is added, and for each
/// annotation of which anything is said, what that is.
fn of(annotations: &Value, ports: &Value, default: Protocol) -> (Vec<String>, Vec<Said>) {
    let long = |key: &str| key.replace("O/", OLD_PREFIX).replace("N/", PREFIX);
    let short = |key: &str| key.replace(OLD_PREFIX, "O/").replace(PREFIX, "N/");
    let all = annotations.as_object().expect("a map").iter();
    let annotations: serde_json::Map<_, _> = all.map(|(key, value)| (long(key), value.clone())).collect();
    let service = json!({
        "metadata": { "name": "web", "namespace": "shop", "annotations": annotations }, "spec": { "ports": ports },
    });
    let read = Object::read(ObjectKind::Service, &service, &ReadContext::default());
    let Ok(Object::Service(service)) = read else { panic!("{read:?}") };
    let Translated { add, findings } = of_service(&service, default);
    let add = add.iter().map(|(key, value)| format!("{}={value}", short(key))).collect();
    (add, findings.into_iter().map(|it| (short(&it.what), it.verdict, it.why, it.next)).collect())
}

#[test]
fn each_value_is_kept_translated_or_named() {
    use Verdict::{Kept, NotKept, NotNeeded, Translated};
    let (tcp, mixed) = (json!([{ "port": 80 }]), json!([{ "port": 80 }, { "port": 53, "protocol": "UDP" }]));
    for (annotations, ports, add, verdict, why) in [
        (
            json!({"O/traffic-type": "tcp"}),
            &tcp,
            &["N/traffic-type=tcp"][..],
            Translated,
            "now maesh.containo.us/traffic-type",
        ),
        (json!({"O/traffic-type": "udp"}), &mixed, &["N/traffic-type=udp"], Translated, "left port 80 out"),
        (json!({"O/traffic-type": "udp"}), &tcp, &[], NotKept, "no port of the Service is UDP"),
        (json!({"O/traffic-type": "HTTP"}), &tcp, &[], NotKept, "did not serve a Service of type \"HTTP\""),
        (json!({"O/scheme": "h2c"}), &tcp, &["N/scheme=h2c"], Translated, ""),
        (json!({"O/scheme": "https"}), &tcp, &["N/scheme=https"], NotKept, "verifies it for web.shop.svc"),
        (json!({"O/scheme": "https", "N/tls-ca": "ca"}), &tcp, &["N/scheme=https"], Translated, ""),
        (json!({"O/scheme": "grpc"}), &tcp, &[], NotKept, "of scheme \"grpc\""),
        (json!({"O/retry-attempts": "2"}), &tcp, &["N/retry-attempts=2"], Translated, ""),
        (json!({"O/retry-attempts": "+03"}), &tcp, &["N/retry-attempts=3"], Translated, ""),
        (json!({"O/retry-attempts": "0"}), &tcp, &[], NotKept, "made Traefik Mesh refuse all requests"),
        (json!({"O/retry-attempts": "many"}), &tcp, &[], NotKept, "made Traefik Mesh refuse all requests"),
        (json!({"O/retry-attempts": "20"}), &tcp, &["N/retry-attempts=10"], NotKept, "tried 10 times at most"),
        (
            json!({"O/circuit-breaker-expression": "NetworkErrorRatio() > .5"}),
            &tcp,
            &["N/circuit-breaker-expression=NetworkErrorRatio() > .5"],
            Translated,
            "",
        ),
        (json!({"O/circuit-breaker-expression": "Errors() > 1"}), &tcp, &[], NotKept, "column 1: expected Latency"),
        (json!({"O/ratelimit-average": "10"}), &tcp, &[], NotKept, "this mesh lets 10 requests a second pass"),
        (json!({"O/ratelimit-average": "x"}), &tcp, &[], NotKept, "this mesh uses no limit"),
        (json!({"O/ratelimit-average": "0"}), &tcp, &[], NotKept, "this mesh uses no limit"),
        (json!({"N/ratelimit-average": "-1"}), &tcp, &[], NotKept, "this mesh uses no limit"),
        (json!({"N/ratelimit-average": "+10"}), &tcp, &[], NotKept, "this mesh uses no limit"),
        (json!({"O/ratelimit-burst": "10"}), &tcp, &[], NotNeeded, "neither limits"),
        // The way of Maesh 1.
        (json!({"N/retry-attempts": "2"}), &tcp, &[], Kept, "it means the same"),
        (
            json!({"N/retry-attempts": "+2"}),
            &tcp,
            &[],
            NotKept,
            "\"+2\" is not read here: this mesh tries each request once",
        ),
        (
            json!({"N/retry-attempts": "11"}),
            &tcp,
            &[],
            NotKept,
            "\"11\" is not read here: this mesh tries each request once",
        ),
        (
            json!({"N/ratelimit-average": "10"}),
            &tcp,
            &[],
            NotKept,
            "without ratelimit-burst Traefik Mesh did not limit",
        ),
        // Both.
        (json!({"O/scheme": "h2c", "N/scheme": "h2c"}), &tcp, &[], Kept, "says the same already"),
        (json!({"O/scheme": "h2c", "N/scheme": "http"}), &tcp, &[], NotKept, "this mesh takes \"http\" of"),
        // Names that only this mesh has, or nobody.
        (json!({"O/timeout-request": "1s"}), &tcp, &[], NotKept, "Traefik Mesh did not read it, and this mesh does"),
        (json!({"O/80.scheme": "h2c"}), &tcp, &[], NotKept, "Traefik Mesh did not read it, and this mesh does"),
        (json!({"O/colour": "red"}), &tcp, &[], NotNeeded, "neither Traefik Mesh nor this mesh reads it"),
        (json!({"N/colour": "red"}), &tcp, &[], NotNeeded, "neither Traefik Mesh nor this mesh reads it"),
        (json!({"N/traffic-typ": "tcp"}), &tcp, &[], NotNeeded, "neither Traefik Mesh nor this mesh reads it"),
    ] {
        let (added, found) = of(&annotations, ports, Protocol::Http);
        assert_eq!(added, add, "{annotations}");
        assert_eq!(found.len(), 1, "{annotations}: {found:?}");
        assert!(found[0].1 == verdict && found[0].2.contains(why), "{annotations}: {found:?}");
        assert!(found[0].1 != NotKept || found[0].3.is_some(), "a next step: {annotations}: {found:?}");
    }
}

#[test]
fn a_rate_limit_needs_both_numbers() {
    let ports = json!([{ "port": 80 }]);
    for (annotations, add, verdicts) in [
        (
            json!({"O/ratelimit-average": "10", "O/ratelimit-burst": "20"}),
            &["N/ratelimit-average=10", "N/ratelimit-burst=20"][..],
            &[Verdict::Translated; 2],
        ),
        (
            json!({"O/ratelimit-average": "10", "N/ratelimit-burst": "20"}),
            &["N/ratelimit-average=10"],
            &[Verdict::Kept, Verdict::Translated],
        ),
        (
            json!({"O/ratelimit-average": "0", "O/ratelimit-burst": "20"}),
            &["N/ratelimit-burst=20"],
            &[Verdict::NotKept, Verdict::Translated],
        ),
    ] {
        let (added, found) = of(&annotations, &ports, Protocol::Http);
        assert_eq!(added, add, "{annotations}");
        let said: Vec<_> = found.iter().map(|(_, verdict, ..)| *verdict).collect();
        assert_eq!(said, verdicts, "{annotations}: {found:?}");
    }
}

#[test]
fn what_is_for_http_had_no_effect_elsewhere() {
    let ports = json!([{ "port": 80 }]);
    let asked = json!({"O/retry-attempts": "2"});
    let (added, found) = of(&asked, &ports, Protocol::Tcp);
    assert!(added.is_empty() && found[0].1 == Verdict::NotNeeded, "by the default: {found:?}");
    let (added, found) = of(&json!({"O/retry-attempts": "2", "O/traffic-type": "tcp"}), &ports, Protocol::Http);
    assert_eq!(added, ["N/traffic-type=tcp"]);
    assert_eq!(found[0].1, Verdict::NotNeeded, "by the annotation: {found:?}");
}

#[test]
fn a_namespace_had_no_annotations() {
    let namespace = json!({ "metadata": { "name": "shop", "annotations": {
        "mesh.traefik.io/retry-attempts": "2", "mesh.traefik.io/scheme": "h2c", "maesh.containo.us/retry-attempts": "2",
        "mesh.traefik.io/foo": "a", "maesh.containo.us/foo": "a",
    } } });
    let read = Object::read(ObjectKind::Namespace, &namespace, &ReadContext::default());
    let Ok(Object::Namespace(namespace)) = read else { panic!("{read:?}") };
    let found = of_namespace(&namespace.meta, &namespace.annotations);
    let said: Vec<_> = found.iter().map(|it| (it.what.as_str(), it.verdict)).collect();
    assert_eq!(
        said,
        [
            ("maesh.containo.us/foo", Verdict::NotNeeded),
            ("mesh.traefik.io/foo", Verdict::NotNeeded),
            ("mesh.traefik.io/retry-attempts", Verdict::NotKept),
            ("mesh.traefik.io/scheme", Verdict::NotNeeded)
        ]
    );
}

#[test]
fn a_misspelt_name_is_proposed_under_both_prefixes() {
    let service = json!({ "metadata": { "name": "web", "namespace": "shop", "annotations": {
        "mesh.traefik.io/traffic-typ": "tcp", "maesh.containo.us/traffic-typ": "tcp",
    } }, "spec": { "ports": [{ "port": 80 }] } });
    let Ok(Object::Service(service)) = Object::read(ObjectKind::Service, &service, &ReadContext::default()) else {
        panic!("a Service")
    };
    let found = of_service(&service, Protocol::Http).findings;
    let next: Vec<_> = found.iter().map(|it| it.next.as_deref()).collect();
    let want = |key: &str| {
        format!("did you mean maesh.containo.us/traffic-type? If not: kubectl -n shop annotate service web {key}-")
    };
    let want = [want("maesh.containo.us/traffic-typ"), want("mesh.traefik.io/traffic-typ")];
    assert_eq!(next, want.each_ref().map(|it| Some(&**it)));
}
