//! What annotations make of the policies of a port.

use serde_json::{Value, json};

use super::*;

/// The first port of Service shop/web as JSON, and the messages about it.
fn port(yaml: &str) -> (Value, Vec<String>) {
    let output = compiled(dev(), yaml);
    let service = output.change.upserts.iter().find_map(|resource| match resource {
        Resource::Service(service) if &*service.name.name == "web" => Some(service),
        _ => None,
    });
    let port = serde_json::to_value(&service.unwrap().ports[0]).unwrap();
    (port, output.found.iter().map(|found| found.message.to_string()).collect())
}

/// Service shop/web with one port of this protocol and these annotations, and Service shop/api.
fn web(annotations: &[(&str, &str)], protocol: &str) -> String {
    let all: Vec<_> =
        annotations.iter().map(|(name, value)| format!("maesh.containo.us/{name}: {}", json!(value))).collect();
    let metadata = format!("annotations: {{{}}}", all.join(", "));
    service("web", &metadata, &format!("ports: [{{port: 80, {protocol}}}]"))
        + &service("api", "", "ports: [{port: 80}]")
}

#[test]
fn a_value_becomes_a_policy() {
    for (annotations, pointer, want) in [
        (&[("retry-attempts", "3")][..], "/called/retry/attempts", json!(3)),
        (&[("retry-attempts", "2"), ("retry-on", "5xx, reset")], "/called/retry/on", json!(["reset", "5xx"])),
        (&[("retry-budget", "5%,2/s")], "/called/retry/budget/percent", json!(5)),
        (&[("timeout-request", "1m30s")], "/called/request_timeout/secs", json!(90)),
        (&[("timeout-request", "0s")], "/called/request_timeout", Value::Null),
        (&[("timeout-try", "500ms")], "/called/try_timeout/nanos", json!(500_000_000)),
        (&[("timeout-connect", "1s")], "/backend/connect_timeout/secs", json!(1)),
        (&[("timeout-idle", "10m")], "/backend/idle_timeout/secs", json!(600)),
        (&[("timeout-idle", "0s")], "/backend/idle_timeout", Value::Null),
        (
            &[("ratelimit-average", "100"), ("ratelimit-by", "header:X-Key")],
            "/called/rate_limit",
            json!({"average": 100, "burst": 100, "by": "header:x-key"}),
        ),
        (&[("ratelimit-average", "10"), ("ratelimit-burst", "50")], "/called/rate_limit/burst", json!(50)),
        (
            &[("circuit-breaker-expression", "NetworkErrorRatio()>0.3")],
            "/backend/breaker",
            json!("NetworkErrorRatio() > 0.3"),
        ),
        (&[("concurrency", "100,50")], "/backend/concurrency", json!(100)),
        (&[("concurrency", "100,50")], "/backend/queue/length", json!(50)),
        (&[("concurrency", "100")], "/backend/queue", Value::Null),
        (&[("balance", "hash:cookie:Lane")], "/backend/balance", json!("hash:cookie:Lane")),
        (&[("eject", "0")], "/backend/eject/failures", json!(0)),
        (&[("eject-max", "30%")], "/backend/eject/most_percent", json!(30)),
        (&[("hedge-after", "p95")], "/called/hedge", json!("p95")),
        (&[("fallback", "api")], "/backend/fallback", json!({"service": "shop/api", "port": 80})),
        (
            &[("mirror", "api 10%")],
            "/called/mirror",
            json!({"to": {"service": "shop/api", "port": 80}, "share": "10%"}),
        ),
        (
            &[("fault-delay", "200ms 5%"), ("fault-until", "2030-01-31T12:00:00Z")],
            "/called/fault",
            json!({"delay": "200ms 5%", "abort": null, "until": 1_896_091_200}),
        ),
    ] {
        let (port, found) = port(&web(annotations, ""));
        assert_eq!(port.pointer(pointer).unwrap_or(&Value::Null), &want, "{annotations:?}: {port:#}");
        assert!(found.is_empty(), "{annotations:?}: {found:?}");
    }
}

#[test]
fn what_cannot_be_is_said_and_something_else_used() {
    let udp = "protocol: UDP";
    let tcp = "appProtocol: tcp";
    for (annotations, protocol, pointer, want, message) in [
        (
            &[("retry-attempts", "many")][..],
            "",
            "/called/retry/attempts",
            json!(1),
            "not a whole number from 1 to 10; using 1",
        ),
        (&[("retry-on", "5xx")], "", "/called/retry/attempts", json!(1), "no effect without retry-attempts above 1"),
        (
            &[("retry-attempts", "3"), ("retry-on", "reset, 6xx,5xx")],
            "",
            "/called/retry/on",
            json!(["connect-failure"]),
            "(\"6xx\" is none of them)",
        ),
        (&[("ratelimit-burst", "50")], "", "/called/rate_limit", Value::Null, "no effect without ratelimit-average"),
        (&[("retry-attempts", "11")], "", "/called/retry/attempts", json!(1), "Set it to a whole number from 1 to 10"),
        (&[("retry-attempts", "3")], tcp, "/called/retry/attempts", json!(1), "port 80 is tcp; it is ignored"),
        (&[("balance", "sticky")], tcp, "/backend/balance", json!("p2c"), "which has no header fields; using p2c"),
        (&[("fallback", "api")], udp, "/backend/fallback", Value::Null, "port 80 is udp; it is ignored"),
        (
            &[("fallback", "nobody")],
            "",
            "/backend/fallback/port",
            json!(80),
            "Service shop/nobody, which does not exist",
        ),
        (&[("fallback", "api:81")], "", "/backend/fallback/port", json!(81), "which has no such port"),
        (&[("fallback", "web")], "", "/backend/fallback", Value::Null, "is this port itself"),
        (&[("mirror", "api 10")], "", "/called/mirror", Value::Null, "not a Service such as"),
        (&[("fault-abort", "503")], "", "/called/fault", Value::Null, "fault-until is missing"),
        (
            &[("circuit-breaker-expression", "NetworkErrorRatio() > ")],
            "",
            "/backend/breaker",
            Value::Null,
            "(column 22: expected a number such as 0.25); using none",
        ),
        (&[("timeout-connect", "0s")], "", "/backend/connect_timeout/secs", json!(5), "using 5s"),
    ] {
        let (port, found) = port(&web(annotations, protocol));
        assert_eq!(port.pointer(pointer).unwrap_or(&Value::Null), &want, "{annotations:?}: {port:#}");
        assert!(matches!(&found[..], [only] if only.contains(message)), "{annotations:?}: {found:#?}");
    }
}

/// A Service that a policy refers to comes later, and the message goes.
#[test]
fn a_service_that_is_referred_to_may_come_later() {
    let mut compiler = Compiler::new(dev());
    let text = web(&[("fallback", "late")], "");
    objects(&text).into_iter().for_each(|object| compiler.take(Event::Apply(object)));
    assert_eq!(compiler.compile(Instant::now()).found.len(), 1);
    let late = objects(&service("late", "", "ports: [{port: 80}]"));
    late.into_iter().for_each(|object| compiler.take(Event::Apply(object)));
    assert_eq!(compiler.compile(Instant::now()).found, []);
}

#[test]
fn a_namespace_gives_defaults() {
    let namespace = "kind: Namespace\nmetadata: {name: shop, annotations: {maesh.containo.us/retry-attempts: '4', \
                     maesh.containo.us/timeout-request: 5s}}\n---\n";
    let (given, found) = port(&(namespace.to_owned() + &web(&[("retry-attempts", "2")], "")));
    assert_eq!((given.pointer("/called/retry/attempts"), &*found), (Some(&json!(2)), &[][..]), "{given:#}");
    assert_eq!(given.pointer("/called/request_timeout/secs"), Some(&json!(5)), "{given:#}");
    // It is meant for the Services that can have it.
    let (_, found) = port(&(namespace.to_owned() + &web(&[], "appProtocol: tcp")));
    assert_eq!(found, Vec::<String>::new());
}
