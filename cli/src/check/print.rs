//! Checks for people as they are made, and for scripts once all are.

use std::io::{self, IsTerminal as _, Write as _};

use maesh_compiler::diagnostic::escaped;
use serde_json::json;

use super::{
    junit,
    outcome::{Checked, Counts, Verdict},
};
use crate::{args::CheckOutput, terminal};

/// Width of the column of names.
const NAMES: usize = 16;

/// Prints checks.
pub struct CheckPrinter {
    output: CheckOutput,
    /// Warnings are failures.
    strict: bool,
    group: &'static str,
    /// Checks begun, and all of them: progress for a person who waits.
    begun: usize,
    all: usize,
    live: bool,
    colours: bool,
}

impl CheckPrinter {
    /// For so many checks.
    pub fn new(output: CheckOutput, strict: bool, all: usize) -> Self {
        let people = matches!(output, CheckOutput::Text | CheckOutput::Short);
        let colours = people
            && io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|no_colour| no_colour.is_empty());
        Self { output, strict, group: "", begun: 0, all, live: io::stderr().is_terminal(), colours }
    }

    /// A check begins.
    pub fn begin(&mut self, id: &str) {
        self.begun += 1;
        if self.live {
            // Overwritten by what comes next; who does not look at a terminal never sees it.
            terminal::err_raw(format_args!("\r\x1b[K[{}/{}] {id} ...", self.begun, self.all));
        }
    }

    /// A check was made.
    pub fn end(&mut self, checked: &Checked) {
        if self.live {
            terminal::err_raw(format_args!("\r\x1b[K"));
        }
        match self.output {
            CheckOutput::Text => self.print(checked),
            CheckOutput::Short => self.print_short(checked),
            CheckOutput::Json | CheckOutput::Junit => {}
        }
    }

    /// What is to be mended, on one line.
    fn print_short(&self, checked: &Checked) {
        let outcome = &checked.outcome;
        let Some(fix) = &outcome.fix else { return };
        let (mark, message) = (self.mark(outcome.verdict), escaped(&outcome.message));
        let line = format!("{mark}  {}: {message}; fix: {}", checked.id, escaped(fix));
        // A closed standard output ends nothing.
        let _ = writeln!(io::stdout().lock(), "{line}");
    }

    fn print(&mut self, checked: &Checked) {
        let mut out = io::stdout().lock();
        if self.group != checked.group {
            let gap = if self.group.is_empty() { "" } else { "\n" };
            let _ = writeln!(out, "{gap}{}", checked.group);
            self.group = checked.group;
        }
        let outcome = &checked.outcome;
        // A closed standard output ends nothing.
        let _ = writeln!(out, "  {}  {:NAMES$}{}", self.mark(outcome.verdict), checked.id, escaped(&outcome.message));
        if let Some(fix) = &outcome.fix {
            for (at, line) in fix.lines().enumerate() {
                let label = if at == 0 { "fix: " } else { "     " };
                let _ = writeln!(out, "        {:NAMES$}{label}{}", "", escaped(line));
            }
        }
    }

    /// All were made.
    pub fn finish(&self, all: &[Checked], counts: Counts) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        let Counts { pass, warn, fail, skip } = counts;
        match self.output {
            CheckOutput::Json => {
                let report = json!({ "success": fail == 0, "counts": counts, "checks": all });
                writeln!(out, "{}", terminal::printable_json(&report.to_string()))?;
            }
            CheckOutput::Junit => out.write_all(junit::document(all, self.strict).as_bytes())?,
            CheckOutput::Text | CheckOutput::Short => {
                let gap = if self.output == CheckOutput::Text { "\n" } else { "" };
                writeln!(out, "{gap}{pass} passed, {warn} warned, {fail} failed, {skip} skipped")?;
            }
        }
        Ok(())
    }

    fn mark(&self, verdict: Verdict) -> String {
        let (word, colour) = match verdict {
            Verdict::Pass => ("pass", 32),
            Verdict::Warn => ("warn", 33),
            Verdict::Fail => ("FAIL", 31),
            Verdict::Skip => ("skip", 90),
        };
        if self.colours { format!("\x1b[{colour}m{word}\x1b[0m") } else { word.to_owned() }
    }
}
