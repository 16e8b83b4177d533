//! h2spec: a client that does, one after the other, what RFC 9113 and RFC 7541 forbid, and looks what the server does.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use maesh_test_support::{TOOLS, tool};

use super::mesh::{Mesh, endpoint};
use crate::command::collect;

/// A case that fails on purpose.
struct Deviation {
    /// Its part of the suite and its name.
    case: (&'static str, &'static str),
    /// What happens instead.
    what: &'static str,
    /// Why.
    why: &'static str,
}

const DEVIATIONS: &[Deviation] = &[Deviation {
    case: ("http2/3.5", "Sends invalid connection preface"),
    what: "The connection is closed, after an HTTP/1.1 response with status 400",
    why: "The port serves HTTP/1.1 too, so what is not the preface is a request of HTTP/1.1, and a malformed one here",
}];

/// One case of the suite.
#[derive(Debug, PartialEq, Eq)]
struct Case {
    part: String,
    name: String,
    has_passed: bool,
}

/// Runs the suite and returns its page.
pub(super) fn run(maesh: &Path) -> Result<String> {
    let known = TOOLS.iter().find(|tool| tool.name == "h2spec").context("h2spec is no tool")?;
    let mesh = Mesh::start(maesh, endpoint()?, "http")?;
    let report = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(tool("h2spec")?);
    command.args(["--strict", "--timeout", "10", "--host", &mesh.address.ip().to_string()]);
    command.args(["--port", &mesh.address.port().to_string(), "--junit-report"]).arg(report.path());
    let ran = collect("h2spec", &mut command)?;
    let cases = cases(&std::fs::read_to_string(report.path())?);
    let faults: Vec<&Case> = cases.iter().filter(|case| !case.has_passed && deviation(case).is_none()).collect();
    if cases.is_empty() || !faults.is_empty() {
        bail!("{} of {} cases failed:\n{}", faults.len(), cases.len(), ran.output);
    }
    Ok(page(known.version, &cases))
}

fn deviation(case: &Case) -> Option<&'static Deviation> {
    DEVIATIONS.iter().find(|deviation| deviation.case == (&case.part, &case.name))
}

/// Reads the cases of a JUnit report: a case that failed has something in it.
fn cases(report: &str) -> Vec<Case> {
    let cases = report.split("<testcase ").skip(1).filter_map(|case| {
        let (head, rest) = case.split_once('>')?;
        let value = |name: &str| Some(head.split_once(&format!("{name}=\""))?.1.split_once('"')?.0.to_owned());
        let has_passed = head.ends_with('/') || rest.trim_start().starts_with("</testcase>");
        Some(Case { part: value("package")?, name: value("classname")?, has_passed })
    });
    cases.collect()
}

fn page(version: &str, cases: &[Case]) -> String {
    let mut page = format!(
        "<!-- Written by `MAESH_WRITE=1 cargo xtask conformance h2spec`; do not edit. -->\n\
         # HTTP/2: h2spec\n\n\
         [h2spec](https://github.com/summerwind/h2spec) {version} with `--strict`, against `maesh dev` and an endpoint that speaks\n\
         HTTP/1.1. `cargo xtask conformance h2spec` runs it again, and fails if the result differs from this page.\n\n\
         | cases | passed | of |\n|---|---|---|\n"
    );
    let parts = [("generic", "what every server must accept"), ("http2", "RFC 9113"), ("hpack", "RFC 7541")];
    for (part, name) in parts {
        let of_part: Vec<&Case> = cases.iter().filter(|case| case.part.split('/').next() == Some(part)).collect();
        let passed = of_part.iter().filter(|case| case.has_passed).count();
        page += &format!("| {part} ({name}) | {passed} | {} |\n", of_part.len());
    }
    page += "\n## What is otherwise on purpose\n\n| case | what happens | why |\n|---|---|---|\n";
    for (case, deviation) in
        cases.iter().filter(|case| !case.has_passed).filter_map(|case| Some((case, deviation(case)?)))
    {
        page += &format!("| {}: {} | {} | {} |\n", case.part, case.name, deviation.what, deviation.why);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let report = "<testsuites>\n<testsuite name=\"3.5. Preface\" package=\"http2/3.5\" errors=\"1\">\n\
             <testcase package=\"http2/3.5\" classname=\"Sends a &#34;good&#34; one\" time=\"0.1\"></testcase>\n\
             <testcase package=\"http2/3.5\" classname=\"Sends a bad one\" time=\"0.1\">\n<error>Connection closed</error>\n\
             </testcase>\n</testsuite>\n</testsuites>\n";
        let case = |name: &str, has_passed| Case { part: "http2/3.5".to_owned(), name: name.to_owned(), has_passed };
        assert_eq!(cases(report), [case("Sends a &#34;good&#34; one", true), case("Sends a bad one", false)]);
    }
}
