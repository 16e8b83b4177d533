//! What becomes of each object, for people and scripts.

use std::fmt::Write as _;

use maesh_compiler::diagnostic::{Diagnostic, ObjectRef, escaped};
use serde::Serialize;

use super::patch::ServicePatch;

/// What the command exits with when something cannot be kept.
pub const NOT_KEPT: u8 = 3;

/// What becomes of a part of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It stays as it is, and means the same.
    Kept,
    /// It means the same in the form that is printed.
    Translated,
    /// Nothing of the kind is needed, or it had no effect.
    NotNeeded,
    /// The mesh does not do the same. A person has to look.
    NotKept,
}

impl Verdict {
    fn words(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Translated => "translated",
            Self::NotNeeded => "not needed",
            Self::NotKept => "cannot be kept",
        }
    }
}

/// What becomes of a part of one object, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The object.
    pub object: ObjectRef,
    /// The annotation, field or value that it is about; empty for the whole object.
    pub what: String,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Why; empty where there is nothing to explain.
    pub why: String,
    /// What a person can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Finding {
    /// A finding about `what` of an object.
    pub fn new(object: ObjectRef, what: impl Into<String>, verdict: Verdict, why: impl Into<String>) -> Self {
        Self { object, what: what.into(), verdict, why: why.into(), next: None }
    }

    /// What the mesh does not use as it is written.
    pub fn not_used(found: &Diagnostic) -> Self {
        let field = found.field.as_deref().unwrap_or_default();
        let what = annotation_at(field).unwrap_or(field);
        let text = about_itself(found, field, what);
        let (why, next) = match text.rsplit_once(". ") {
            // The last sentence is the next step. A dot within it, or within a value, has no capital behind it.
            Some((why, next)) if next.starts_with(|first: char| first.is_ascii_uppercase()) => (why, Some(next)),
            _ => (text.trim_end_matches('.'), None),
        };
        let finding = Self::new(found.object.clone(), what, Verdict::NotKept, why);
        match next {
            Some(next) => finding.next(next[..1].to_ascii_lowercase() + next[1..].trim_end_matches('.')),
            None => finding,
        }
    }

    /// An object that may be one of those that are looked at, and is of a kind that nobody reads.
    pub fn cannot_be_read(found: &Diagnostic) -> Self {
        let this = Self::not_used(found);
        Self { what: String::new(), why: format!("cannot be read: {}", this.why), ..this }
    }

    /// With what to do.
    #[must_use]
    pub fn next(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }
}

/// The key of the annotation at this path.
pub fn annotation_at(field: &str) -> Option<&str> {
    field.strip_prefix("metadata.annotations[")?.strip_suffix(']')
}

/// What is said of an object, without its name.
pub fn own_text(found: &Diagnostic) -> &str {
    let object = found.object.to_string();
    let own = found.message.strip_prefix(&*escaped(&object)).and_then(|text| text.strip_prefix(": "));
    own.unwrap_or(&found.message)
}

/// The same without the field that stands before it in a report.
fn about_itself(found: &Diagnostic, field: &str, what: &str) -> String {
    let text = own_text(found);
    let names = [format!("annotation {what} "), format!("{field} ")];
    let rest = names.iter().filter(|_| !what.is_empty()).find_map(|name| text.strip_prefix(&**name));
    rest.map_or_else(|| text.to_owned(), |rest| format!("it {rest}"))
}

/// All that was found and translated.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Migration {
    /// Annotations to add.
    pub objects: Vec<ServicePatch>,
    /// What becomes of each object.
    pub findings: Vec<Finding>,
}

impl Migration {
    /// Whether everything means the same as before.
    pub fn is_kept(&self) -> bool {
        is_kept(&self.findings)
    }

    /// Leaves out what is of other namespaces.
    pub fn keep_only(&mut self, namespace: &str) {
        self.objects.retain(|object| object.metadata.namespace == namespace);
        let of_namespace = |object: &ObjectRef| match (&*object.kind, &object.namespace) {
            ("Namespace", _) => &*object.name == namespace,
            (_, Some(own)) => &**own == namespace,
            (_, None) => true,
        };
        self.findings.retain(|finding| of_namespace(&finding.object));
    }
}

/// Whether nothing is among them that cannot be kept.
pub fn is_kept(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.verdict != Verdict::NotKept)
}

/// The findings for people, by object.
pub fn report(findings: &[Finding]) -> String {
    let mut out = String::new();
    let mut about: Option<&ObjectRef> = None;
    // Writing to a String cannot fail.
    for finding in findings {
        if about != Some(&finding.object) {
            let _ = writeln!(out, "{}", finding.object);
            about = Some(&finding.object);
        }
        let parts = [finding.what.as_str(), finding.why.as_str()];
        let said: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).map(escaped).collect();
        let _ = writeln!(out, "  {:<14}  {}", finding.verdict.words(), said.join(": "));
        if let Some(next) = &finding.next {
            let _ = writeln!(out, "  {:<14}  next: {}", "", escaped(next));
        }
    }
    let _ = writeln!(out, "{}", summary(findings));
    out
}

/// How many became what.
fn summary(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing of Traefik Mesh or SMI was found".to_owned();
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let all = [Verdict::Translated, Verdict::Kept, Verdict::NotNeeded, Verdict::NotKept];
    let counted = all.into_iter().map(|verdict| format!("{} {}", count(verdict), verdict.words()));
    counted.collect::<Vec<_>>().join(", ")
}

/// A text as comments, of YAML and of shells: where both streams end up in one file, it is still what it should be.
pub fn as_comments(text: &str) -> String {
    text.lines().map(|line| format!("# {line}").trim_end().to_owned() + "\n").collect()
}
