//! Checks as the XML of JUnit, which pipelines show.

use std::fmt::Write as _;

use maesh_compiler::diagnostic::escaped;

use super::outcome::{Checked, Verdict};

/// The document. `strict`: a warning is a failure.
pub fn document(all: &[Checked], strict: bool) -> String {
    let fails = |checked: &Checked| match checked.outcome.verdict {
        Verdict::Fail => true,
        Verdict::Warn => strict,
        Verdict::Pass | Verdict::Skip => false,
    };
    let count = |wanted: &dyn Fn(&Checked) -> bool| all.iter().filter(|checked| wanted(checked)).count();
    let skipped = count(&|checked| checked.outcome.verdict == Verdict::Skip);
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"maesh check\" tests=\"{}\" failures=\"{}\" errors=\"0\" \
         skipped=\"{skipped}\">\n",
        all.len(),
        count(&fails),
    );
    for checked in all {
        let (message, fix) = (&checked.outcome.message, checked.outcome.fix.as_deref().unwrap_or_default());
        // Writing to a String cannot fail.
        let _ = write!(text, "  <testcase classname=\"{}\" name=\"{}\">", checked.group, checked.id);
        let _ = match checked.outcome.verdict {
            Verdict::Skip => write!(text, "<skipped message=\"{}\"/>", xml(message)),
            _ if fails(checked) => write!(text, "<failure message=\"{}\">fix: {}</failure>", xml(message), xml(fix)),
            Verdict::Warn => write!(text, "<system-out>warning: {}\nfix: {}</system-out>", xml(message), xml(fix)),
            _ => write!(text, "<system-out>{}</system-out>", xml(message)),
        };
        text += "</testcase>\n";
    }
    text + "</testsuite>\n"
}

/// Text of XML: no characters that it cannot have, nothing that is markup.
fn xml(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(escaped).collect();
    let text = lines.join("\n").replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // These two are not valid XML either.
    text.replace('"', "&quot;").replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::{super::outcome::Outcome, *};

    #[test]
    fn verdicts_in_xml() {
        let one = |id, outcome| Checked { id, group: "api", outcome };
        let all = [
            one("a", Outcome::pass("fine")),
            one("b", Outcome::warn("odd", "mend it")),
            one("c", Outcome::fail("<bad> & \"worse\"\u{1b}", "one\ntwo")),
            one("d", Outcome::skip("not here")),
        ];
        let want = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
            <testsuite name=\"maesh check\" tests=\"4\" failures=\"1\" errors=\"0\" skipped=\"1\">\n  \
            <testcase classname=\"api\" name=\"a\"><system-out>fine</system-out></testcase>\n  \
            <testcase classname=\"api\" name=\"b\"><system-out>warning: odd\nfix: mend it</system-out></testcase>\n  \
            <testcase classname=\"api\" name=\"c\"><failure message=\"&lt;bad&gt; &amp; &quot;worse&quot;\\u{1b}\">fix: \
            one\ntwo</failure></testcase>\n  \
            <testcase classname=\"api\" name=\"d\"><skipped message=\"not here\"/></testcase>\n</testsuite>\n";
        assert_eq!(document(&all, false), want);
        assert!(document(&all, true).contains("failures=\"2\""));
    }
}
