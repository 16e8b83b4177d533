//! The dashboards of the chart, as far as pictures need them.

use std::fs;

use anyhow::{Context, Result, bail};
use maesh_test_support::repository;
use serde_json::Value;

/// What stands for the variables of dashboards.
pub(super) const VARIABLES: [(&str, &str); 2] = [("namespace", "shop"), ("service", "web")];

/// One dashboard.
#[derive(Debug)]
pub(super) struct Dashboard {
    /// The name of its file, without extension.
    pub(super) name: String,
    pub(super) title: String,
    pub(super) variables: Vec<Variable>,
    pub(super) panels: Vec<Panel>,
}

/// A variable that is chosen among the values of a label.
#[derive(Debug)]
pub(super) struct Variable {
    /// What it is called on the dashboard.
    pub(super) title: String,
    /// What is chosen here.
    pub(super) value: String,
    /// The label, and the series that have it.
    pub(super) label: String,
    pub(super) series: String,
}

/// One panel.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) kind: Kind,
    /// Column, row, width and height, in units of the dashboard's grid: 24 columns.
    pub(super) place: [f64; 4],
    /// As Grafana calls it.
    pub(super) unit: String,
    pub(super) targets: Vec<Target>,
}

/// How a panel shows its lines.
#[derive(Debug)]
pub(super) enum Kind {
    /// The last value, coloured by thresholds: from which value on which colour.
    Stat(Vec<(f64, String)>),
    /// Lines over time, stacked or not.
    TimeSeries { is_stacked: bool },
}

/// A query, and what its lines are called.
#[derive(Debug)]
pub(super) struct Target {
    /// With values in the places of variables.
    pub(super) expr: String,
    legend: String,
}

impl Dashboard {
    /// All of them, in the order of their names.
    pub(super) fn all() -> Result<Vec<Self>> {
        let folder = repository().join("charts/maesh/dashboards");
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            files.push(entry?.path());
        }
        files.sort();
        let read = |file: &std::path::PathBuf| {
            let text = fs::read_to_string(file)?;
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Self::read(name, &serde_json::from_str(&text)?).with_context(|| file.display().to_string())
        };
        files.iter().map(read).collect()
    }

    fn read(name: String, json: &Value) -> Result<Self> {
        Ok(Self {
            name,
            title: text(&json["title"]),
            variables: list(&json["templating"]["list"]).iter().filter_map(Variable::read).collect::<Result<_>>()?,
            panels: list(&json["panels"]).iter().map(Panel::read).collect::<Result<_>>()?,
        })
    }
}

impl Variable {
    /// None for the variable that chooses the Prometheus.
    fn read(json: &Value) -> Option<Result<Self>> {
        if json["type"] == "datasource" {
            return None;
        }
        let read = || {
            let name = VARIABLES.iter().find(|(name, _)| json["name"] == *name);
            let (_, value) = name.with_context(|| format!("no value is known for {}", json["name"]))?;
            let query = text(&json["definition"]);
            let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (series, label) = inside.and_then(|inside| inside.rsplit_once(", ")).with_context(|| query.clone())?;
            Ok(Self {
                title: text(&json["label"]),
                value: (*value).to_owned(),
                label: label.to_owned(),
                series: filled(series),
            })
        };
        Some(read())
    }
}

impl Panel {
    fn read(json: &Value) -> Result<Self> {
        let defaults = &json["fieldConfig"]["defaults"];
        let threshold = |step: &Value| (step["value"].as_f64().unwrap_or(f64::NEG_INFINITY), text(&step["color"]));
        let kind = match json["type"].as_str() {
            Some("stat") => Kind::Stat(list(&defaults["thresholds"]["steps"]).iter().map(threshold).collect()),
            Some("timeseries") => Kind::TimeSeries { is_stacked: defaults["custom"]["stacking"]["mode"] == "normal" },
            other => bail!("panels of type {other:?} cannot be drawn yet"),
        };
        let place = &json["gridPos"];
        Ok(Self {
            title: text(&json["title"]),
            kind,
            place: ["x", "y", "w", "h"].map(|side| place[side].as_f64().unwrap_or_default()),
            unit: text(&defaults["unit"]),
            targets: list(&json["targets"]).iter().map(Target::read).collect(),
        })
    }
}

impl Target {
    fn read(json: &Value) -> Self {
        Self { expr: filled(&text(&json["expr"])), legend: text(&json["legendFormat"]) }
    }

    /// What a line with these labels is called.
    pub(super) fn named(&self, labels: &Value) -> String {
        let fill = |name: String, (label, value): (&String, &Value)| {
            name.replace(&format!("{{{{{label}}}}}"), value.as_str().unwrap_or_default())
        };
        let mut name = labels.as_object().into_iter().flatten().fold(self.legend.clone(), fill);
        // A label that the line does not have is empty, as in Grafana.
        while let Some((begin, end)) = name.find("{{").zip(name.find("}}")).filter(|(begin, end)| begin < end) {
            name.replace_range(begin..end + 2, "");
        }
        name
    }
}

/// A query with values in the places of variables.
fn filled(query: &str) -> String {
    let fill = |text: String, (name, value): &(&str, &str)| text.replace(&format!("${name}"), value);
    VARIABLES.iter().fold(query.to_owned(), fill)
}

fn text(json: &Value) -> String {
    json.as_str().unwrap_or_default().to_owned()
}

fn list(json: &Value) -> &[Value] {
    json.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn variables_and_legends_are_filled_in() {
        let target = Target::read(&json!({"expr": "a{n=\"$namespace\"}", "legendFormat": "{{code}} of {{x}}"}));
        assert_eq!(target.expr, "a{n=\"shop\"}");
        assert_eq!(target.named(&json!({"code": "200", "x": "y"})), "200 of y");
        assert_eq!(target.named(&json!({"code": "200"})), "200 of ");
        for target in Dashboard::all().unwrap().iter().flat_map(|one| &one.panels).flat_map(|panel| &panel.targets) {
            assert!(!target.expr.contains('$'), "{}", target.expr);
        }
    }
}
