//! The queries of the alerts and of the dashboard: Prometheus's own program reads and runs them, and they name only what
//! the mesh exports.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use maesh_test_support::{need_tool, repository};
use serde_json::{Value, json};

use crate::alerts::{alerts, rules};
use crate::helm::{chart, newest, succeeded};
use crate::promql::{Names, names};
use crate::render::text;

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
pub(crate) fn run(promtool: &Path, arguments: &[&str], content: &Value) -> Output {
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
