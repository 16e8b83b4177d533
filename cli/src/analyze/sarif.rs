//! Findings as a log of SARIF 2.1.0, which the code scanning of forges shows beside the lines of a change.

use std::{
    collections::HashMap,
    fmt::Write as _,
    path::{Component, Path, PathBuf},
};

use maesh_compiler::diagnostic::{Diagnostic, Reason};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::report::{Finding, Level, Report};
use crate::version::VERSION;

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
/// Name of the fingerprints; another way to make them needs another name.
const FINGERPRINT: &str = "maeshFinding/v1";

/// The log; paths are told from `folder`.
pub fn log(report: &Report, folder: &Path) -> Value {
    let mut fingerprints = Fingerprints::default();
    let results: Vec<Value> = report.findings.iter().map(|found| result(found, folder, &mut fingerprints)).collect();
    let notes = report.notes.iter().map(|note| json!({ "level": "note", "message": { "text": note } }));
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "maesh", "semanticVersion": VERSION, "rules": Reason::ALL.map(rule) } },
            "columnKind": "unicodeCodePoints",
            "invocations": [{
                "executionSuccessful": !report.has_unreadable_file(),
                "toolExecutionNotifications": notes.collect::<Vec<_>>(),
            }],
            "results": results,
        }],
    })
}

fn rule(reason: Reason) -> Value {
    let markdown = reason.meaning();
    let text = markdown.replace('`', "");
    json!({
        "id": reason.to_string(),
        "shortDescription": { "text": text },
        "help": { "text": text, "markdown": markdown },
    })
}

fn result(finding: &Finding, folder: &Path, fingerprints: &mut Fingerprints) -> Value {
    let found = &finding.diagnostic;
    let level = match finding.severity {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Info => "note",
    };
    let mut location = json!({ "logicalLocations": [{ "fullyQualifiedName": found.object.to_string() }] });
    if let Some(file) = &found.file {
        location["physicalLocation"] = json!({ "artifactLocation": { "uri": uri(file, folder) } });
    }
    if let Some(line) = found.line.filter(|_| found.file.is_some()) {
        location["physicalLocation"]["region"] = match found.column {
            Some(column) => json!({ "startLine": line, "startColumn": column }),
            None => json!({ "startLine": line }),
        };
    }
    let mut properties = json!({});
    for (name, text) in [("field", &found.field), ("value", &found.value), ("using", &found.using)] {
        if let Some(text) = text {
            properties[name] = (**text).into();
        }
    }
    json!({
        "ruleId": found.reason.to_string(),
        "ruleIndex": Reason::ALL.iter().position(|reason| *reason == found.reason),
        "level": level,
        "message": { "text": &*found.message },
        "locations": [location],
        "partialFingerprints": { FINGERPRINT: fingerprints.of(found) },
        "properties": properties,
    })
}

/// What tells findings apart, whatever the lines are on which they stand.
#[derive(Default)]
struct Fingerprints(HashMap<u64, usize>);

impl Fingerprints {
    /// That of a finding. Of those that are alike, each has a number.
    fn of(&mut self, found: &Diagnostic) -> String {
        let object = &found.object;
        let parts = [
            &found.reason.to_string(),
            &*object.kind,
            object.namespace.as_deref().unwrap_or_default(),
            &*object.name,
            found.field.as_deref().unwrap_or_default(),
            found.value.as_deref().unwrap_or_default(),
        ];
        let hash = xxh3_64(parts.join("\0").as_bytes());
        let number = self.0.entry(hash).or_default();
        *number += 1;
        format!("{hash:016x}:{number}")
    }
}

/// A path as a reference to a URI: from `folder` where it is below it, else in full.
fn uri(path: &str, folder: &Path) -> String {
    let whole = without_dots(&folder.join(path));
    match whole.strip_prefix(without_dots(folder)) {
        Ok(below) => encoded(&below.to_string_lossy()),
        Err(_) => format!("file://{}", encoded(&whole.to_string_lossy())),
    }
}

fn without_dots(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean
}

fn encoded(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => text.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use maesh_compiler::{diagnostic::ObjectRef, kinds::Place};

    use super::*;

    #[test]
    fn paths_as_references() {
        for (path, want) in [
            ("a/web.yaml", "a/web.yaml"),
            ("./a/../web.yaml", "web.yaml"),
            ("/work/repo/a/web.yaml", "a/web.yaml"),
            ("/else/web.yaml", "file:///else/web.yaml"),
            ("../web.yaml", "file:///work/web.yaml"),
            ("a:b/ü #1.yaml", "a%3Ab/%C3%BC%20%231.yaml"),
            ("standard input", "standard%20input"),
        ] {
            assert_eq!(uri(path, Path::new("/work/repo")), want, "{path}");
        }
    }

    #[test]
    fn fingerprints_stay_when_lines_move() {
        let file = std::sync::Arc::from("web.yaml");
        let at = |name: &str, value: &str, line| {
            let object = ObjectRef::new("Service", "shop", name);
            let found = Diagnostic::warning(Reason::InvalidAnnotation, object, format!("line {line}"));
            found.field("f").value(value).at(&file, Place { line, column: 1 })
        };
        let of = |all: &[Diagnostic]| -> Vec<String> {
            let mut fingerprints = Fingerprints::default();
            all.iter().map(|found| fingerprints.of(found)).collect()
        };
        let before = of(&[at("a", "x", 1), at("a", "y", 2), at("b", "x", 3), at("a", "x", 4)]);
        let after = of(&[at("b", "x", 30), at("a", "x", 10), at("a", "y", 20), at("a", "x", 40)]);
        assert_eq!(after, [&before[2], &before[0], &before[1], &before[3]].map(Clone::clone));
        let distinct: std::collections::BTreeSet<_> = before.iter().collect();
        assert_eq!(distinct.len(), 4, "{before:?}");
    }
}
