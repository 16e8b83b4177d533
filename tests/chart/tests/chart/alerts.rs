//! The alerts, as Prometheus's own program judges them: each fires when it should and at no other time, says what to do next,
//! and is in the documentation.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod cases;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use maesh_test_support::{need_tool, repository};
use serde_json::{Map, Value, json};

use crate::helm::{chart, newest, objects, succeeded, template, values};
use crate::queries::run;
use crate::render::text;
use cases::{CASES, Case, Firing, HEALTHY};

/// The groups of alerts that the chart installs.
pub(crate) fn alerts(helm: &Path) -> Value {
    let all = objects(&template(helm, &values("everything")).unwrap());
    let rule = all.iter().find(|object| text(object, "/kind") == "PrometheusRule").expect("a PrometheusRule");
    rule["spec"].clone()
}

/// The alerts themselves.
pub(crate) fn rules(groups: &Value) -> Vec<&Value> {
    groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()).collect()
}

/// What promtool expects of a rule that fires with these labels: `name=value` in a row, separated by commas.
fn expected(rule: &Value, labels: &str) -> Value {
    let mut all = rule["labels"].as_object().unwrap().clone();
    all.extend(labels.split_terminator(',').map(|label| {
        let (name, value) = label.split_once('=').unwrap();
        (name.to_owned(), json!(value))
    }));
    json!({"exp_annotations": filled(&rule["annotations"], &all), "exp_labels": all})
}

/// Annotations with the labels in their places.
fn filled(annotations: &Value, labels: &Map<String, Value>) -> Value {
    let fill = |text: &str| {
        labels.iter().fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{{ $labels.{name} }}}}"), value.as_str().unwrap())
        })
    };
    annotations
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, text)| (name.clone(), json!(fill(text.as_str().unwrap()))))
        .collect()
}

/// A case as a test of promtool.
fn test((case, series, moments): &Case<'_>, rules: &[&Value]) -> Value {
    let replaced = |name: &str| series.iter().any(|(series, _)| *series == name);
    let kept = HEALTHY.iter().filter(|(name, _)| !replaced(name));
    let input: Vec<Value> =
        kept.chain(*series).map(|(name, values)| json!({"series": name, "values": values})).collect();
    let mut judged = Vec::new();
    for (minute, firing) in *moments {
        for rule in rules {
            let name = text(rule, "/alert");
            let of_rule = firing.iter().filter(|(alert, _)| *alert == name);
            let alerts: Vec<Value> = of_rule.map(|(_, labels)| expected(rule, labels)).collect();
            judged.push(json!({"eval_time": format!("{minute}m"), "alertname": name, "exp_alerts": alerts}));
        }
    }
    json!({"name": case, "interval": "1m", "input_series": input, "alert_rule_test": judged})
}

/// The alerts fire when they should and at no other time.
#[test]
fn chart_alerts_fire_when_they_should() {
    let (Some(helm), Some(promtool)) = (newest(), need_tool("promtool")) else { return };
    let alerts = alerts(&helm);
    let rules = rules(&alerts);
    let tests: Vec<Value> = CASES.iter().map(|case| test(case, &rules)).collect();
    let judge = |tests: &[Value]| {
        let folder = tempfile::tempdir().unwrap();
        let rules = folder.path().join("rules.yaml");
        fs::write(&rules, alerts.to_string()).unwrap();
        let file = json!({"rule_files": [rules.display().to_string()], "evaluation_interval": "1m", "tests": tests});
        run(&promtool, &["test", "rules"], &file)
    };
    succeeded("the alerts", &judge(&tests));
    let moments = CASES.iter().flat_map(|(_, _, moments)| *moments);
    let fired: BTreeSet<&str> = moments.flat_map(|(_, firing)| *firing).map(|(alert, _): &Firing<'_>| *alert).collect();
    let named: BTreeSet<&str> = rules.iter().map(|rule| text(rule, "/alert")).collect();
    assert_eq!(fired, named, "every alert fires in some case");
    let mut wrong = tests[0].clone();
    wrong["input_series"] = json!([]);
    assert!(!judge(&[wrong]).status.success(), "an alert that is not expected passes, so this test shows nothing");
}

#[test]
fn chart_alerts_say_what_to_do_and_are_documented() {
    let Some(helm) = newest() else { return };
    let page = fs::read_to_string(repository().join("docs/operations.md")).unwrap();
    let alerts = alerts(&helm);
    let file = fs::read_to_string(chart().join("alerts.yaml")).unwrap();
    assert_eq!(objects(&file), std::slice::from_ref(&alerts), "Prometheus can read the file as it is");
    for rule in rules(&alerts) {
        let name = text(rule, "/alert");
        for part in ["summary", "description"] {
            let said = text(rule, &format!("/annotations/{part}"));
            assert!(
                said.ends_with('.') && !said.contains('\n'),
                "{name}: its {part} is not one line of sentences: {said:?}"
            );
        }
        assert!(["info", "warning", "critical"].contains(&text(rule, "/labels/severity")), "{name}: how bad is it?");
        assert!(page.contains(&format!("| `{name}` |")), "{name} is not in docs/operations.md");
    }
}
