use http::{HeaderMap, HeaderName, HeaderValue};
use maesh_config::rule::parse;
use proptest::prelude::*;

use super::*;

fn rules(texts: &[&str]) -> Vec<Rule> {
    texts.iter().map(|text| parse(text).unwrap_or_else(|bad| panic!("{text}: {bad}")).rule).collect()
}

fn index(rules: &[Rule]) -> RouteIndex {
    RouteIndex::new(rules.iter().map(Some)).unwrap_or_else(|number| panic!("{} cannot be used", rules[number]))
}

/// A request with this host, target and fields.
fn asked<'a>(host: &'a str, method: &'a str, target: &'a str, fields: &'a HeaderMap) -> RouteFacts<'a> {
    let (sent_path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let caller = [10, 1, 2, 3].into();
    let sent_host = Some(host.as_bytes());
    RouteFacts { sent_host, sent_path, query, method, fields, caller, every_line: false, read: ReadFacts::default() }
}

#[test]
fn what_a_rule_asks_is_found_in_a_request() {
    let mut fields = HeaderMap::new();
    for (name, value) in
        [("x-user", "ann"), ("x-user", "bob"), ("cookie", "a=1; beta=yes"), ("cookie", "c=3; q=\"a b\"")]
    {
        fields.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    for (rule, holds) in [
        ("Host(`shop.example`)", true),
        ("Host(`example`)", false),
        ("HostRegexp(`^[a-z]+\\.example$`)", true),
        ("HostRegexp(`^example`)", false),
        ("Path(`/api/items`)", true),
        ("Path(`/api`)", false),
        ("PathPrefix(`/api`)", true),
        ("PathPrefix(`/api/items/`)", false),
        ("PathRegexp(`items$`)", true),
        ("Method(`GET`)", true),
        ("Method(`POST`)", false),
        ("Header(`X-User`, `bob`)", true),
        ("Header(`X-User`, `bo`)", false),
        ("HeaderRegexp(`X-User`, `^b`)", true),
        ("HeaderRegexp(`X-Other`, ``)", false),
        ("Query(`a`, `1 2`)", true),
        ("Query(`a`, `1`)", false),
        ("Query(`flag`)", true),
        ("Query(`flag`, `1`)", false),
        ("QueryRegexp(`a`, `2$`)", true),
        ("Cookie(`beta`, `yes`)", true),
        ("Cookie(`c`, `3`)", true),
        ("Cookie(`q`, `a b`)", true),
        ("Cookie(`eta`, `yes`)", false),
        ("CookieRegexp(`beta`, `^y`)", true),
        ("ClientIP(`10.1.0.0/16`)", true),
        ("ClientIP(`10.1.2.4`)", false),
        ("HostSNI(`*`)", true),
    ] {
        let found = index(&rules(&[rule])).find(&asked("shop.example", "GET", "/%61pi/items?a=1+2&flag", &fields));
        assert_eq!(found.is_some(), holds, "{rule}");
    }
}

#[test]
fn the_first_rule_that_holds_is_taken() {
    let all = rules(&[
        "Host(`a.example`) && PathPrefix(`/api/v1`)",
        "PathPrefix(`/api/v1`)",
        "Path(`/api`) || Host(`b.example`)",
        "Host(`a.example`)",
        "PathPrefix(`/api`)",
        "Method(`POST`)",
        "PathPrefix(`/`)",
    ]);
    let (index, none) = (index(&all), HeaderMap::new());
    for (host, method, path, want) in [
        ("a.example", "GET", "/api/v1/x", Some(0)),
        ("c.example", "GET", "/api/v1/x", Some(1)),
        ("c.example", "GET", "/api", Some(2)),
        ("b.example", "GET", "/x", Some(2)),
        ("a.example", "GET", "/x", Some(3)),
        ("c.example", "GET", "/api/v2", Some(4)),
        ("c.example", "POST", "/x", Some(5)),
        ("c.example", "GET", "/x", Some(6)),
        ("c.example", "OPTIONS", "*", None),
    ] {
        assert_eq!(index.find(&asked(host, method, path, &none)), want, "{method} {host} {path}");
    }
}

#[test]
fn a_route_without_a_rule_takes_what_is_left() {
    let all = rules(&["Path(`/a`)"]);
    let index = RouteIndex::new([Some(&all[0]), None]).unwrap_or_else(|_| panic!("it can be used"));
    let none = HeaderMap::new();
    assert_eq!(index.find(&asked("a", "GET", "/a", &none)), Some(0));
    assert_eq!(index.find(&asked("a", "GET", "/b", &none)), Some(1));
}

#[test]
fn a_path_is_written_as_it_is_sent_or_as_it_is_seen() {
    let none = HeaderMap::new();
    for (rule, target, holds) in [
        ("Path(`/%61`)", "/a", true),
        ("Path(`/a`)", "/%61", true),
        ("Path(`/a%20b`)", "/a%20b", true),
        ("Path(`/a b`)", "/a%20b", true),
        ("PathPrefix(`/%61/`)", "/a/b", true),
        ("Path(`/a%2Fb`)", "/a%2Fb", true),
        ("Path(`/a%2Fb`)", "/a/b", false),
        ("!Path(`/%61`)", "/a", false),
    ] {
        let found = index(&rules(&[rule])).find(&asked("a", "GET", target, &none));
        assert_eq!(found.is_some(), holds, "{rule} {target}");
    }
}

/// Each request is held against the rules that ask for what it has, and of that the first 256 parameters and cookies.
#[test]
fn many_parameters_and_cookies_are_cut() {
    let all = rules(&["Query(`last`, `1`)", "Cookie(`last`, `1`)", "Query(`first`, `1`)", "Cookie(`first`, `1`)"]);
    let index = index(&all);
    let many = |between: &str, count: usize| {
        let middle: Vec<String> = (0..count).map(|number| format!("x{number}=1")).collect();
        format!("first=1{between}{}{between}last=1", middle.join(between))
    };
    for (count, query, cookie) in [(254, Some(0), Some(1)), (255, Some(2), Some(3))] {
        let mut fields = HeaderMap::new();
        let target = format!("/?{}", many("&", count));
        assert_eq!(index.find(&asked("a", "GET", &target, &fields)), query, "{count} parameters between");
        fields.append("cookie", many("; ", count).parse().expect("a value"));
        assert_eq!(index.find(&asked("a", "GET", "/", &fields)), cookie, "{count} cookies between");
    }
}

fn some_rule() -> impl Strategy<Value = Rule> {
    let leaf = prop_oneof![
        prop::sample::select(vec!["Host(`a`)", "Host(`b`)", "HostRegexp(`[ab]`)"]),
        prop::sample::select(vec![
            "Path(`/a`)",
            "Path(`/a/b`)",
            "PathPrefix(`/a`)",
            "PathPrefix(`/a/b`)",
            "PathPrefix(`/`)"
        ]),
        prop::sample::select(vec!["Method(`GET`)", "PathRegexp(`b$`)"]),
        prop::sample::select(vec!["Query(`a`, `1`)", "Query(`a`, `2`)", "Query(`b`)", "QueryRegexp(`a`, `^2`)"]),
        prop::sample::select(vec!["Cookie(`a`, `1`)", "Cookie(`b`, `1`)", "CookieRegexp(`a`, `2`)"]),
        prop::sample::select(vec!["Header(`x`, `1`)", "Header(`x`, `2`)", "HeaderRegexp(`x`, `^2`)"]),
    ];
    let leaf = leaf.prop_map(|text| parse(text).expect("a rule").rule);
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Rule::Any),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Rule::All),
            inner.prop_map(|part| Rule::Not(Box::new(part))),
        ]
    })
}

proptest! {
    /// Whatever is looked up, it is what trying one after the other finds.
    #[test]
    fn looking_up_is_trying_all(
        all in prop::collection::vec(some_rule(), 0..12),
        host in "[abc]",
        path in prop::sample::select(vec!["/", "/a", "/a/b", "/a/bc", "/c", "*"]),
        method in prop::sample::select(vec!["GET", "POST"]),
        query in prop::collection::vec(prop::sample::select(vec!["a=1", "a=2", "b", "c=1", "%61=1"]), 0..4),
        cookies in prop::collection::vec(prop::sample::select(vec!["a=1", "a=2", "b=\"1\"", "c", ""]), 0..4),
        values in prop::collection::vec(prop::sample::select(vec!["1", "2", "3"]), 0..3),
    ) {
        let mut fields = HeaderMap::new();
        for value in values {
            fields.append("x", HeaderValue::from_static(value));
        }
        for half in cookies.chunks(2) {
            fields.append("cookie", half.join("; ").parse().expect("a value"));
        }
        let target = format!("{path}?{}", query.join("&"));
        let facts = asked(&host, method, &target, &fields);
        let one_by_one = all.iter().position(|rule| {
            CompiledRule::of(Some(rule)).is_ok_and(|compiled| compiled.holds(&facts))
        });
        prop_assert_eq!(index(&all).find(&facts), one_by_one);
    }
}
