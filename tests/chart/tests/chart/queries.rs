//! The queries of the alerts and of the dashboard: Prometheus's own program reads and runs them, and they name only what
//! the mesh exports.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use maesh_test_support::{need_tool, repository};
use serde_json::{Value, json};

use crate::helm::{chart, newest, objects, succeeded, template, values};
use crate::promql::{Names, names};
use crate::render::text;

/// The groups of alerts that the chart installs.
fn alerts(helm: &Path) -> Value {
    let all = objects(&template(helm, &values("everything")).unwrap());
    let rule = all.iter().find(|object| text(object, "/kind") == "PrometheusRule").expect("a PrometheusRule");
    rule["spec"].clone()
}

/// The alerts themselves.
fn rules(groups: &Value) -> Vec<&Value> {
    groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()).collect()
}

/// Every query of every dashboard, and where it is.
fn panels() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for file in fs::read_dir(chart().join("dashboards")).unwrap() {
        let file = file.unwrap().path();
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            let place = format!("{}: {}", file.file_name().unwrap().display(), text(panel, "/title"));
            for target in panel["targets"].as_array().unwrap() {
                queries.push((place.clone(), text(target, "/expr").to_owned()));
                // What a legend shows has to be a label of the result.
                let legend = text(target, "/legendFormat");
                for label in legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")).map(|(it, _)| it) {
                    let query = text(target, "/expr");
                    assert!(names(query).labels.contains(label), "{place}: the legend's {label} is not in {query}");
                }
            }
        }
    }
    assert!(queries.len() >= 5, "{queries:?}");
    queries
}

/// promtool, on `file` with this content.
fn run(promtool: &Path, arguments: &[&str], content: &Value) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file.yaml");
    fs::write(&file, content.to_string()).unwrap();
    Command::new(promtool).args(arguments).arg(&file).output().unwrap()
}

#[test]
fn chart_queries_are_read_by_prometheus() {
    let (Some(helm), Some(promtool)) = (newest(), need_tool("promtool")) else { return };
    let check = |groups: &Value| run(&promtool, &["check", "rules", "--lint=all", "--lint-fatal"], groups);
    succeeded("the alerts", &check(&alerts(&helm)));
    let recorded = |queries: &[(String, String)]| {
        let rule = |(index, (_, query)): (usize, &(String, String))| json!({"record": format!("panel:{index}"), "expr": query});
        json!({"groups": [{"name": "panels", "rules": queries.iter().enumerate().map(rule).collect::<Vec<_>>()}]})
    };
    succeeded("the dashboards", &check(&recorded(&panels())));
    let wrong = [("wrong".to_owned(), "sum by (code) (rate(maesh_http_requests_total))".to_owned())];
    assert!(
        !check(&recorded(&wrong)).status.success(),
        "a rate of no range is not refused, so this test shows nothing"
    );
}

/// Every metric and its labels, from the page that is generated from the code.
fn exported() -> BTreeMap<String, BTreeSet<String>> {
    let page = fs::read_to_string(repository().join("docs/reference/metrics.md")).unwrap();
    let words = |cell: &str| -> BTreeSet<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let mut metrics = BTreeMap::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let (name, kind, labels) = (words(cells[0]).pop_first().unwrap(), cells[1], words(cells[2]));
        if kind == "histogram" {
            let with_bound = labels.iter().cloned().chain(["le".to_owned()]).collect();
            metrics.insert(format!("{name}_bucket"), with_bound);
            metrics.extend(["sum", "count"].map(|part| (format!("{name}_{part}"), labels.clone())));
        } else {
            metrics.insert(name, labels);
        }
    }
    metrics
}

/// What is wrong with the names of a query; nothing if all of them are exported.
fn unknown(query: &str, exported: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let Names { metrics, labels } = names(query);
    let known: BTreeSet<&String> = metrics.iter().filter_map(|metric| exported.get(metric)).flatten().collect();
    let metrics = metrics.iter().filter(|metric| !exported.contains_key(*metric)).cloned();
    metrics.chain(labels.iter().filter(|label| !known.contains(label)).cloned()).collect()
}

#[test]
fn chart_queries_name_only_metrics_and_labels_that_exist() {
    let exported = exported();
    assert!(exported.len() > 30, "{exported:?}");
    for (query, want) in [
        ("sum(rate(maesh_dns_responses_total{rcode=\"SERVFAIL\"}[5m])) > 0", &[][..]),
        ("sum by (le) (rate(maesh_http_request_duration_seconds_bucket[2m]))", &[]),
        ("maesh_dns_response_total", &["maesh_dns_response_total"]),
        ("sum by (type) (maesh_dns_responses_total{code=\"2\"})", &["code", "type"]),
        ("maesh_http_request_duration_seconds", &["maesh_http_request_duration_seconds"]),
        ("sum by (le) (maesh_http_request_duration_seconds_count)", &["le"]),
    ] {
        assert_eq!(unknown(query, &exported), want, "{query}");
    }
    let Some(helm) = newest() else { return };
    let alerts = alerts(&helm);
    let of_alerts =
        rules(&alerts).into_iter().map(|rule| (text(rule, "/alert").to_owned(), text(rule, "/expr").to_owned()));
    for (place, query) in panels().into_iter().chain(of_alerts) {
        let unknown = unknown(&query, &exported);
        assert!(unknown.is_empty(), "{place}: {query} names {unknown:?}, which the mesh does not export");
        assert!(!names(&query).metrics.is_empty(), "{place}: {query} names no metric");
    }
}

/// A mesh without trouble, a minute between values. Cases replace single series.
const HEALTHY: [(&str, &str); 7] = [
    ("maesh_controller_services", "12x60"),
    ("maesh_controller_proxies_connected", "3x60"),
    ("maesh_controller_proxies_ready", "3x60"),
    ("maesh_controller_nacks_total", "0x60"),
    (r#"maesh_dns_responses_total{rcode="NOERROR"}"#, "0+600x60"),
    (r#"maesh_dns_responses_total{rcode="SERVFAIL"}"#, "0x60"),
    (EXPIRY, "2592000x60"),
];
const EXPIRY: &str = "maesh_dns_tls_certificate_expiry_timestamp_seconds";

/// What is tried, the series that differ from [`HEALTHY`], and at which minutes which alerts fire.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [(u32, &'a [&'a str])]);

/// The alerts fire when they should and at no other time.
#[test]
fn chart_alerts_fire_when_they_should() {
    let (Some(helm), Some(promtool)) = (newest(), need_tool("promtool")) else { return };
    let alerts = alerts(&helm);
    let servfail = r#"maesh_dns_responses_total{rcode="SERVFAIL"}"#;
    let (away, unready) = ("MaeshControllerAway", "MaeshProxiesNotReady");
    let (refused, fails) = ("MaeshConfigurationRefused", "MaeshDnsFails");
    let expires = "MaeshDnsCertificateExpires";
    let cases: &[Case<'_>] = &[
        ("nothing is wrong", &[], &[(1, &[]), (30, &[]), (60, &[])]),
        (
            "no controller from minute 10 to 30; a series is stale after 5 minutes, at the latest",
            &[
                ("maesh_controller_services", "12x9 stale _x20 12x30"),
                ("maesh_controller_proxies_connected", "3x9 stale _x20 3x30"),
                ("maesh_controller_proxies_ready", "3x9 stale _x20 3x30"),
                ("maesh_controller_nacks_total", "0x9 stale _x20 0x30"),
            ],
            &[(14, &[]), (16, &[away]), (30, &[away]), (32, &[])],
        ),
        ("a proxy that is replaced", &[("maesh_controller_proxies_ready", "3x9 2x5 3x50")], &[(12, &[]), (25, &[])]),
        (
            "a proxy that stays unready for half an hour",
            &[("maesh_controller_proxies_ready", "3x9 2x29 3x30")],
            &[(18, &[]), (21, &[unready]), (39, &[unready]), (41, &[])],
        ),
        (
            "the other replica of the controller knows fewer proxies",
            &[
                (r#"maesh_controller_proxies_ready{pod="other"}"#, "2x60"),
                (r#"maesh_controller_proxies_connected{pod="other"}"#, "2x60"),
            ],
            &[(30, &[])],
        ),
        (
            "configuration refused once",
            &[("maesh_controller_nacks_total", "0x9 1x60")],
            &[(8, &[]), (12, &[refused]), (25, &[])],
        ),
        (
            "SERVFAIL again and again from minute 10 to 30",
            &[(servfail, "0x9 1+1x20 21x30")],
            &[(9, &[]), (18, &[fails]), (30, &[fails]), (40, &[])],
        ),
        (
            // The clock of these tests begins in 1970.
            "a certificate that is replaced seven days and half an hour before its end",
            &[(EXPIRY, "606600x30 2592000x30")],
            &[(29, &[]), (31, &[]), (60, &[])],
        ),
        (
            "one of two pods serves with a certificate that ends in less than seven days",
            &[(r#"maesh_dns_tls_certificate_expiry_timestamp_seconds{pod="other"}"#, "605400x60")],
            &[(10, &[]), (27, &[expires])],
        ),
        ("no certificate that can be used", &[(EXPIRY, "0x60")], &[(5, &[]), (20, &[expires])]),
        ("no DNS over TLS", &[(EXPIRY, "_x60")], &[(30, &[])]),
        ("SERVFAIL for a moment", &[(servfail, "0x9 3x60")], &[(11, &[]), (14, &[]), (20, &[])]),
    ];
    let mut fired = BTreeSet::new();
    let tests = cases.iter().map(|(case, series, expected)| {
        let replaced = |name: &str| series.iter().any(|(series, _)| *series == name);
        let kept = HEALTHY.iter().filter(|(name, _)| !replaced(name));
        let input: Vec<Value> =
            kept.chain(*series).map(|(name, values)| json!({"series": name, "values": values})).collect();
        let mut judged = Vec::new();
        for (minute, firing) in *expected {
            fired.extend(firing.iter().copied());
            for rule in rules(&alerts) {
                let name = text(rule, "/alert");
                let alert = json!({"exp_labels": rule["labels"], "exp_annotations": rule["annotations"]});
                let alerts = if firing.contains(&name) { vec![alert] } else { Vec::new() };
                judged.push(json!({"eval_time": format!("{minute}m"), "alertname": name, "exp_alerts": alerts}));
            }
        }
        json!({"name": case, "interval": "1m", "input_series": input, "alert_rule_test": judged})
    });
    let tests: Vec<Value> = tests.collect();
    let judge = |tests: &[Value]| {
        let folder = tempfile::tempdir().unwrap();
        let rules = folder.path().join("rules.yaml");
        fs::write(&rules, alerts.to_string()).unwrap();
        let file = json!({"rule_files": [rules.display().to_string()], "evaluation_interval": "1m", "tests": tests});
        run(&promtool, &["test", "rules"], &file)
    };
    succeeded("the alerts", &judge(&tests));
    let named: BTreeSet<&str> = rules(&alerts).into_iter().map(|rule| text(rule, "/alert")).collect();
    assert_eq!(fired, named, "every alert fires in some case");
    let mut wrong = tests[0].clone();
    wrong["input_series"] = json!([]);
    assert!(!judge(&[wrong]).status.success(), "an alert that is not expected passes, so this test shows nothing");
}
