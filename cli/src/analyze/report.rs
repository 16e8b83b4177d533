//! What was found, in the order of the files.

use maesh_compiler::diagnostic::{Diagnostic, Reason, Severity};
use serde::Serialize;

use crate::args::FailOn;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing is wrong, but the mesh does not read it.
    Info,
    /// Something is used in place of what is written.
    Warning,
    /// An object or document cannot be used at all.
    Error,
}

impl Level {
    /// How people call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Level,
    /// What it is.
    #[serde(flatten)]
    pub diagnostic: Diagnostic,
    /// It names an object that is not among those that were read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
}

impl Finding {
    fn of(diagnostic: Diagnostic) -> Self {
        let severity = match diagnostic.severity {
            Severity::Error => Level::Error,
            Severity::Warning if is_of_others(&diagnostic) => Level::Info,
            Severity::Warning => Level::Warning,
        };
        Self { severity, absent: names_absent(&diagnostic), diagnostic }
    }
}

/// Whether it is about an object of a kind that is none of the mesh's business: a Deployment beside its Service.
fn is_of_others(found: &Diagnostic) -> bool {
    found.reason == Reason::UnknownKind && !found.message.contains("Did you mean")
}

/// Whether it says that an object does not exist.
fn names_absent(found: &Diagnostic) -> bool {
    !matches!(found.reason, Reason::UnknownAnnotation | Reason::UnreadableFile)
        && ["does not exist", "do not exist"].iter().any(|text| found.message.contains(text))
}

/// How many findings there are of each severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub error: usize,
    pub warning: usize,
    pub info: usize,
}

/// Most findings that are told one by one; forges take no more of one log, and nobody reads as many.
const MOST_TOLD: usize = 10_000;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Files that were looked at, standard input among them.
    pub files: usize,
    /// Objects in them that the mesh reads.
    pub objects: usize,
    /// Findings by severity.
    pub counts: Counts,
    /// By file and place. Beyond 10,000, the gravest of them.
    pub findings: Vec<Finding>,
    /// What has to be known to judge them.
    pub notes: Vec<String>,
}

impl Report {
    /// Of these diagnostics. `alone`: nothing but the files was known.
    pub fn new(found: Vec<Diagnostic>, files: usize, objects: usize, alone: bool, mut notes: Vec<String>) -> Self {
        let mut findings: Vec<_> = found.into_iter().map(Finding::of).collect();
        findings.sort_by(|one, other| place(one).cmp(&place(other)));
        findings.dedup_by(|one, other| one.diagnostic == other.diagnostic);
        let count = |level| findings.iter().filter(|finding| finding.severity == level).count();
        let counts = Counts { error: count(Level::Error), warning: count(Level::Warning), info: count(Level::Info) };
        let absent = findings.iter().filter(|finding| finding.absent).count();
        if alone && absent > 0 {
            let (findings, name) = if absent == 1 { ("finding", "names") } else { ("findings", "name") };
            notes.push(format!(
                "{absent} {findings} {name} what is not among the given files. Only these were looked at; with --cluster, the \
                 objects of the cluster count too."
            ));
        }
        if findings.len() > MOST_TOLD {
            notes.push(format!(
                "{} findings are counted, and the {MOST_TOLD} gravest of them are told. Correct those first.",
                findings.len()
            ));
            findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
            findings.truncate(MOST_TOLD);
            findings.sort_by(|one, other| place(one).cmp(&place(other)));
        }
        Self { files, objects, counts, findings, notes }
    }

    /// Whether a file could not be read at all.
    pub fn has_unreadable_file(&self) -> bool {
        let unreadable =
            |finding: &Finding| finding.severity == Level::Error && finding.diagnostic.reason == Reason::UnreadableFile;
        self.findings.iter().any(unreadable)
    }

    /// Whether something was found that is as bad as this.
    pub fn fails(&self, on: FailOn) -> bool {
        let least = match on {
            FailOn::Error => Level::Error,
            FailOn::Warning => Level::Warning,
            FailOn::Info => Level::Info,
            FailOn::Never => return false,
        };
        self.findings.iter().any(|finding| finding.severity >= least)
    }
}

/// As somebody reads who goes through the files: `rules[2]` before `rules[10]`.
fn place(finding: &Finding) -> impl Ord {
    let Diagnostic { file, line, column, message, .. } = &finding.diagnostic;
    (file.clone(), *line, *column, by_number(message), message.clone())
}

/// A text in pieces that compare by number where they are digits.
fn by_number(text: &str) -> Vec<(u64, String)> {
    let pieces = text.as_bytes().chunk_by(|one, next| one.is_ascii_digit() == next.is_ascii_digit());
    let piece = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.parse().map_or_else(|_| (0, text.into_owned()), |number| (number, String::new()))
    };
    pieces.map(piece).collect()
}

#[cfg(test)]
mod tests {
    use maesh_compiler::diagnostic::ObjectRef;

    use super::*;

    fn found(reason: Reason, severity: Severity, text: &str) -> Diagnostic {
        Diagnostic { severity, ..Diagnostic::warning(reason, ObjectRef::new("Service", "shop", "web"), text) }
    }

    #[test]
    fn severities_and_what_fails() {
        for (case, reason, severity, text, want, absent) in [
            ("another kind", Reason::UnknownKind, Severity::Warning, "skipped.", Level::Info, false),
            ("a slip", Reason::UnknownKind, Severity::Warning, "skipped. Did you mean Service?", Level::Warning, false),
            ("a value", Reason::InvalidAnnotation, Severity::Warning, "is bad", Level::Warning, false),
            ("a name", Reason::SplitBackend, Severity::Warning, "backend b does not exist; x", Level::Warning, true),
            (
                "names",
                Reason::InvalidAnnotation,
                Severity::Warning,
                "7 more backends do not exist; x",
                Level::Warning,
                true,
            ),
            ("an annotation", Reason::UnknownAnnotation, Severity::Warning, "does not exist", Level::Warning, false),
            ("an object", Reason::InvalidObject, Severity::Error, "is bad", Level::Error, false),
        ] {
            let report = Report::new(vec![found(reason, severity, text)], 1, 1, true, Vec::new());
            let finding = &report.findings[0];
            assert_eq!((finding.severity, finding.absent), (want, absent), "{case}");
            assert_eq!(report.notes.len(), usize::from(absent), "{case}");
            let fails = [FailOn::Error, FailOn::Warning, FailOn::Info, FailOn::Never].map(|on| report.fails(on));
            let expected = [want >= Level::Error, want >= Level::Warning, true, false];
            assert_eq!(fails, expected, "{case}");
        }
        assert!(!Report::new(Vec::new(), 1, 1, true, Vec::new()).fails(FailOn::Info));
    }

    #[test]
    fn entries_of_a_list_are_in_their_order() {
        let found = ["rules[10].name is bad", "rules[9].name is bad", "rules[9].kind is bad", "rules is bad"]
            .map(|text| found(Reason::InvalidObject, Severity::Warning, text));
        let report = Report::new(found.to_vec(), 1, 1, true, Vec::new());
        let texts: Vec<_> = report.findings.iter().map(|finding| &*finding.diagnostic.message).collect();
        let want = ["rules is bad", "rules[9].kind is bad", "rules[9].name is bad", "rules[10].name is bad"];
        assert_eq!(texts, want.map(|text| format!("Service shop/web: {text}")));
    }

    #[test]
    fn of_very_many_the_gravest_are_told() {
        let one = |i: usize| {
            let severity = if i % 1000 == 999 { Severity::Error } else { Severity::Warning };
            found(Reason::InvalidObject, severity, &format!("{i:05} is bad"))
        };
        let report = Report::new((0..MOST_TOLD + 5).map(one).collect(), 1, 1, true, Vec::new());
        assert_eq!((report.findings.len(), report.counts.error, report.counts.warning), (MOST_TOLD, 10, MOST_TOLD - 5));
        assert_eq!(report.findings.iter().filter(|finding| finding.severity == Level::Error).count(), 10);
        assert!(report.findings.is_sorted_by_key(|finding| finding.diagnostic.message.clone()));
        assert!(report.notes[0].starts_with("10005 findings are counted"), "{:?}", report.notes);
        assert_eq!(Report::new((0..MOST_TOLD).map(one).collect(), 1, 1, true, Vec::new()).notes, [""; 0]);
    }
}
