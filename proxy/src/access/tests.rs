use std::sync::Arc;

use http::{HeaderName, HeaderValue, Request};
use maesh_config::{
    model::{Grant, WorkloadKind},
    rule::parse_checked,
};

use super::*;

fn pod(namespace: &str, account: Option<&str>) -> Workload {
    Workload {
        address: "10.1.0.9/32".parse().expect("an address"),
        kind: WorkloadKind::Pod,
        namespace: Some(namespace.into()),
        name: "pod".into(),
        service_account: account.map(Into::into),
        node: None,
        zone: None,
    }
}

/// Who has the address of this pod, where no sources are named.
fn who(workload: Option<&Workload>) -> Option<Account> {
    account([10, 1, 0, 9].into(), workload, &[])
}

fn grant(sources: &[(&str, &str)], rules: &[&str]) -> Grant {
    let source = |(namespace, name): &(&str, &str)| Arc::new(Account::new(*namespace, *name));
    Grant {
        target: "t".into(),
        sources: sources.iter().map(source).collect(),
        rules: rules.iter().map(|text| parse_checked(text).expect("a rule")).collect(),
    }
}

/// Endpoints of B and of D.
fn access(of_b: Vec<Grant>, of_d: Vec<Grant>) -> Access {
    let account = |name: &str, grants| AccountAccess { account: Arc::new(Account::new("shop", name)), grants };
    let accounts = vec![account("b", of_b), account("d", of_d)];
    Access::default().replaced_by(AccessFacts { accounts, open: false }, 0)
}

fn places(admitted: &Admitted) -> Vec<u16> {
    match admitted {
        Admitted::All => panic!("access control is on"),
        Admitted::Of(places) => places.to_vec(),
    }
}

#[test]
fn a_caller_reaches_what_its_own_grants_say() {
    let access = access(
        vec![
            grant(&[("shop", "a")], &["PathRegexp(`^/a`)"]),
            grant(&[("shop", "c"), ("x", "a")], &["PathRegexp(`^/c`)"]),
        ],
        vec![grant(&[("shop", "a")], &[])],
    );
    for (case, caller, path, want) in [
        ("its own path", Some(pod("shop", Some("a"))), "/a", &[0, 1][..]),
        ("that of another one", Some(pod("shop", Some("a"))), "/c", &[1]),
        ("another caller", Some(pod("shop", Some("c"))), "/c", &[0]),
        ("the path of the first", Some(pod("shop", Some("c"))), "/a", &[]),
        ("the same name elsewhere", Some(pod("x", Some("a"))), "/c", &[0]),
        ("and elsewhere still", Some(pod("y", Some("a"))), "/c", &[]),
        ("nobody", None, "/a", &[]),
        ("a pod of the host's network", Some(pod("shop", None)), "/a", &[]),
        ("a path that is two", Some(pod("shop", Some("c"))), "/c/../a", &[]),
    ] {
        let (head, ()) = Request::get(path).body(()).expect("a request").into_parts();
        let request = AskedRequest::of(&head);
        assert_eq!(places(&access.admitted(who(caller.as_ref()).as_ref(), Some(request))), want, "{case}");
    }
    // A connection is no request.
    assert_eq!(places(&access.admitted(Some(&Account::new("shop", "a")), None)), [1]);
}

#[test]
fn methods_fields_and_hosts_count() {
    let access = access(
        vec![grant(&[("shop", "a")], &["Method(`GET`) && HeaderRegexp(`x-a`, `1`)", "HostRegexp(`^b\\.`)"])],
        vec![],
    );
    let caller = Account::new("shop", "a");
    for (method, host, value, want) in [
        ("GET", "web", Some("1"), true),
        ("POST", "web", Some("1"), false),
        ("GET", "web", Some("2"), false),
        ("GET", "web", None, false),
        ("POST", "b.shop", None, true),
    ] {
        let (mut head, ()) = Request::builder().method(method).body(()).expect("a request").into_parts();
        head.headers.extend(value.map(|value| (HeaderName::from_static("x-a"), HeaderValue::from_static(value))));
        let host = HeaderValue::from_static(host);
        let admitted = access.admitted(Some(&caller), Some(AskedRequest::new(Some(&host), &head)));
        assert_eq!((admitted.has(Some(0)), admitted.is_none()), (want, !want), "{method} {host:?} {value:?}");
    }
}

/// Whether the caller shop/`name` reaches this path.
fn reaches(access: &Access, name: &str, path: &str) -> bool {
    let (head, ()) = Request::get(path).body(()).expect("a request").into_parts();
    let request = AskedRequest::of(&head);
    !access.admitted(Some(&Account::new("shop", name)), Some(request)).is_none()
}

#[test]
fn rules_are_made_ready_by_who_asks_for_them_and_stay_so() {
    let of_a = || grant(&[("shop", "a")], &["PathRegexp(`^/a`)", "PathRegexp(`^/aa`)"]);
    let of_c = || grant(&[("shop", "c")], &["PathRegexp(`^/a`)", "PathRegexp(`^/c`)"]);
    let first = access(vec![of_a(), of_c()], vec![of_a()]);
    let is_ready = |access: &Access, text: &str| {
        let rule = parse_checked(text).expect("a rule");
        access.rules.get(&rule).is_some_and(|rule| rule.is_ready())
    };
    let ready = |access: &Access| {
        ["PathRegexp(`^/a`)", "PathRegexp(`^/aa`)", "PathRegexp(`^/c`)"].map(|it| is_ready(access, it))
    };
    assert_eq!(
        (first.rules.len(), ready(&first)),
        (3, [false; 3]),
        "equal ones are one, and none is made ready by an update"
    );
    assert!(reaches(&first, "a", "/a") && !reaches(&first, "x", "/c"));
    assert_eq!(ready(&first), [true, false, false], "as far as somebody had to know");
    assert!(reaches(&first, "c", "/c"));

    let then = first.replaced_by(access(vec![of_c()], vec![grant(&[("shop", "a")], &["PathRegexp(`^/d`)"])]).told, 0);
    assert_eq!((then.rules.len(), ready(&then)), (3, [true, false, true]), "what stays is ready, what goes is dropped");
    assert!(reaches(&then, "c", "/a") && !reaches(&then, "a", "/a") && reaches(&then, "a", "/d"));
}

#[test]
fn a_rule_that_cannot_be_used_grants_nothing() {
    let access = access(
        vec![
            grant(&[("shop", "a")], &["PathRegexp(`(`)"]),
            grant(&[("shop", "c")], &["PathRegexp(`(`)", "PathRegexp(`^/c`)"]),
        ],
        vec![],
    );
    for (caller, path, want) in [("a", "/", false), ("a", "/c", false), ("c", "/", false), ("c", "/c", true)] {
        assert_eq!(reaches(&access, caller, path), want, "{caller} {path}");
    }
}

#[test]
fn an_endpoint_of_nobody_is_reached_by_nobody() {
    let access = access(vec![grant(&[("shop", "a")], &[])], vec![]);
    let admitted = access.admitted(Some(&Account::new("shop", "a")), None);
    assert!(admitted.has(Some(0)) && !admitted.has(Some(1)) && !admitted.has(None));
    assert!(Admitted::All.has(None) && Admitted::All.is_all() && !Admitted::All.is_none());
}

#[test]
fn only_what_is_no_pod_counts_as_a_source() {
    let source = |range: &str, name| AccessSource {
        range: range.parse().expect("a range"),
        account: Account::new("ingress", name),
    };
    let sources = [source("10.0.0.0/8", "wide"), source("10.1.0.9/32", "narrow"), source("fd00::/16", "other")];
    let of_kind = |kind, service_account| Workload { kind, ..pod("shop", service_account) };
    for (case, workload, want) in [
        ("outside of the cluster: the narrowest range", None, Some("ingress/narrow")),
        ("a node", Some(of_kind(WorkloadKind::Node, None)), Some("ingress/narrow")),
        ("a pod is itself", Some(of_kind(WorkloadKind::Pod, Some("a"))), Some("shop/a")),
        ("so is one of the cluster's DNS", Some(of_kind(WorkloadKind::Resolver, Some("a"))), Some("shop/a")),
        ("a pod without a ServiceAccount", Some(of_kind(WorkloadKind::Pod, None)), None),
        ("the address of a pod that is not known", Some(of_kind(WorkloadKind::PodRange, None)), None),
    ] {
        let account = account([10, 1, 0, 9].into(), workload.as_ref(), &sources);
        assert_eq!(account.map(|account| account.to_string()).as_deref(), want, "{case}");
    }
    assert_eq!(account([11, 0, 0, 1].into(), None, &sources), None, "in no range");
}
