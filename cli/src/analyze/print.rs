//! Findings for people.

use std::fmt::Write as _;

use maesh_compiler::diagnostic::escaped;

use super::report::{Counts, Finding, Report};
use crate::{check::counted, terminal};

/// Prints every finding, notes, and how many there are.
pub fn text(report: &Report) {
    terminal::out(format_args!("{}", rendered(report)));
}

fn rendered(report: &Report) -> String {
    let mut text = report.findings.iter().map(finding).collect::<String>();
    for note in &report.notes {
        text += &format!("note: {note}\n");
    }
    let Counts { error, warning, info } = report.counts;
    let found = match report.findings.is_empty() {
        true => "nothing found".to_owned(),
        false => format!("{}, {}, {info} info", counted(error, "error"), counted(warning, "warning")),
    };
    text + &format!("{found}; looked at {} in {}\n", counted(report.objects, "object"), counted(report.files, "file"))
}

/// The place and the message, and on a second line what a script would want to know.
fn finding(finding: &Finding) -> String {
    let found = &finding.diagnostic;
    let mut text = String::new();
    if let Some(file) = &found.file {
        text += &escaped(file);
        for number in [found.line, found.column].into_iter().flatten() {
            // Writing to a String cannot fail.
            let _ = write!(text, ":{number}");
        }
        text += ": ";
    }
    // The place stands before it: no need to name the file again.
    let of_file = format!("{}: ", found.object);
    let message = if &*found.object.kind == "File" { found.message.strip_prefix(&of_file) } else { None };
    let _ = write!(text, "{}: {}\n    {}", finding.severity.as_str(), message.unwrap_or(&found.message), found.reason);
    if let Some(field) = &found.field {
        let _ = write!(text, "  {field}");
    }
    if let Some(value) = &found.value {
        let _ = write!(text, " = {value:?}");
    }
    if let Some(using) = &found.using {
        let _ = write!(text, "  used instead: {using}");
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use maesh_compiler::{
        diagnostic::{Diagnostic, ObjectRef, Reason},
        kinds::Place,
    };

    use super::*;

    #[test]
    fn findings_for_people() {
        let file = std::sync::Arc::from("web.yaml");
        let bad =
            Diagnostic::warning(Reason::InvalidAnnotation, ObjectRef::new("Service", "shop", "web"), "x is \"y\".");
        let bad =
            bad.field("metadata.annotations[x]").value("y\n").using("http").at(&file, Place { line: 7, column: 3 });
        let broken = Diagnostic::error(Reason::UnparsableFile, ObjectRef::file(&file), "line 2 is bad.").file(&file);
        let odd = std::sync::Arc::from("x\n::error::y.yaml");
        let odd = Diagnostic::error(Reason::UnreadableFile, ObjectRef::file(&odd), "cannot be read.").file(&odd);
        let report = Report::new(vec![bad, broken, odd], 1, 2, true, vec!["look.".into()]);
        let want = "\
web.yaml: error: line 2 is bad.
    UnparsableFile
web.yaml:7:3: warning: Service shop/web: x is \"y\".
    InvalidAnnotation  metadata.annotations[x] = \"y\\n\"  used instead: http
x\\n::error::y.yaml: error: cannot be read.
    UnreadableFile
note: look.
2 errors, 1 warning, 0 info; looked at 2 objects in 1 file
";
        assert_eq!(rendered(&report), want);
        let nothing = Report::new(Vec::new(), 2, 1, true, Vec::new());
        assert_eq!(rendered(&nothing), "nothing found; looked at 1 object in 2 files\n");
    }
}
