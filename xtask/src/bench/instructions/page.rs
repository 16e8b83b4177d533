//! The page with the counts, which says what is expected.

use std::fmt;
use std::fs;

use anyhow::{Context, Result};
use maesh_test_support::repository;

use super::{Compared, program::WHOLE};

/// The page.
pub(super) const PAGE: &str = "docs/instructions.md";

/// A count may differ by so much of what is expected, and by so many instructions in any case.
const TOLERANCE: f64 = 0.01;
const FEW: f64 = 8.0;

/// So much where a whole request or connection passes: threads that wait for sockets and clocks do not do the same twice.
const TOLERANCE_OF_WHOLE: f64 = 0.03;

/// What one part takes, on average.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Count {
    pub(super) part: String,
    pub(super) instructions: f64,
    /// How often it asks for memory, where that is counted.
    pub(super) allocations: Option<f64>,
}

/// What all parts take.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Page {
    /// Name and version of the compiler that they were built with.
    pub(super) compiler: String,
    pub(super) counts: Vec<Count>,
}

impl Page {
    /// What is checked in.
    pub(super) fn read() -> Result<Self> {
        let text = fs::read_to_string(repository().join(PAGE)).with_context(|| format!("reading {PAGE}"))?;
        Self::parse(&text).with_context(|| format!("{PAGE} has no compiler or no counts in it"))
    }

    fn parse(text: &str) -> Option<Self> {
        let compiler = text.split_once(BEFORE_COMPILER)?.1.split_once(BEHIND_COMPILER)?.0.to_owned();
        let counts: Vec<Count> = text.lines().filter_map(Count::parse).collect();
        (!counts.is_empty()).then_some(Self { compiler, counts })
    }

    /// The table of the counts.
    pub(super) fn table(&self) -> String {
        let rows: Vec<String> = self.counts.iter().map(|count| format!("{count}\n")).collect();
        format!("| part | instructions | allocations |\n|---|---:|---:|\n{}", rows.concat())
    }

    /// Compares what was `counted` with this, which is expected.
    pub(super) fn compare(&self, counted: &Self) -> Compared {
        let of = |page: &Self, part: &str| page.counts.iter().find(|count| count.part == part).cloned();
        let mut compared = Compared { same: 0, differences: Vec::new() };
        for now in &counted.counts {
            match of(self, &now.part).map(|expected| expected.difference(now)) {
                None => compared.differences.push(format!("{}: not on the page", now.part)),
                Some(Some(difference)) => compared.differences.push(difference),
                Some(None) => compared.same += 1,
            }
        }
        let gone = self.counts.iter().filter(|expected| of(counted, &expected.part).is_none());
        compared.differences.extend(gone.map(|count| format!("{}: there is no such part any more", count.part)));
        compared
    }
}

const BEFORE_COMPILER: &str = "Counted with ";
const BEHIND_COMPILER: &str = ":\n";

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (percent, of_whole) = (TOLERANCE * 100.0, TOLERANCE_OF_WHOLE * 100.0);
        write!(
            f,
            "<!-- Written by `MAESH_WRITE=1 cargo xtask bench instructions`; do not edit. -->\n\
             # Instructions\n\n\
             How many instructions the parts of a request's work take, and how often they ask for memory, on average.\n\
             `cargo xtask bench instructions` counts again, and so does `cargo xtask test`. Both fail when a part takes {percent} %\n\
             more or fewer than this page says (and {FEW} at least; {of_whole} % where a whole request or connection passes), or\n\
             asks for memory more or less often. What is counted, and what to do then:\n\
             [Performance](performance.md#instructions).\n\n\
             {BEFORE_COMPILER}{}{BEHIND_COMPILER}\n{}",
            self.compiler,
            self.table()
        )
    }
}

impl Count {
    /// A row of the table.
    fn parse(row: &str) -> Option<Self> {
        let mut cells = row.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
        let part = cells.next()?.to_owned();
        let instructions = cells.next()?.parse().ok()?;
        Some(Self { part, instructions, allocations: cells.next()?.parse().ok() })
    }

    /// What is to be said if `now` is not as expected here.
    fn difference(&self, now: &Self) -> Option<String> {
        let more = now.instructions - self.instructions;
        let tolerance = if self.part.starts_with(WHOLE) { TOLERANCE_OF_WHOLE } else { TOLERANCE };
        let is_same = more.abs() <= (self.instructions * tolerance).max(FEW);
        let (memory, memory_now) = (self.allocations.unwrap_or(0.0), now.allocations.unwrap_or(0.0));
        if is_same && (memory - memory_now).abs() < 0.1 {
            return None;
        }
        let percent = more / self.instructions * 100.0;
        let (part, then, now) = (&self.part, self.instructions, now.instructions);
        Some(format!(
            "{part}: {now:.0} instructions, not {then:.0} ({percent:+.1} %); {memory_now:.1} allocations, not {memory:.1}"
        ))
    }
}

/// As a row of the table.
impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, instructions, allocations } = self;
        let allocations = allocations.map_or_else(|| "not counted".to_owned(), |count| format!("{count:.1}"));
        write!(f, "| {part} | {instructions:.0} | {allocations} |")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(counts: &[(&str, f64, f64)]) -> Page {
        let count = |(part, instructions, allocations): &(&str, f64, f64)| Count {
            part: (*part).to_owned(),
            instructions: *instructions,
            allocations: Some(*allocations),
        };
        Page { compiler: "rustc 1.2.3".to_owned(), counts: counts.iter().map(count).collect() }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut page = page(&[("a: one thing", 1_234.0, 2.0), ("b", 56.0, 0.1), ("c", 7.0, 0.0)]);
        page.counts[2].allocations = None;
        assert_eq!(Page::parse(&page.to_string()), Some(page));
        assert_eq!(Page::parse("# Instructions\n"), None);
    }

    #[test]
    fn a_count_that_is_not_expected_is_a_difference() {
        let expected = page(&[("part", 1_000.0, 2.0)]);
        for (case, counted, want) in [
            ("the same", &[("part", 1_000.0, 2.0)][..], ""),
            ("nearly", &[("part", 1_010.0, 2.0)], ""),
            ("more", &[("part", 1_030.0, 2.0)], "part: 1030 instructions, not 1000 (+3.0 %); 2.0 allocations, not 2.0"),
            ("fewer", &[("part", 900.0, 2.0)], "part: 900 instructions, not 1000 (-10.0 %); 2.0 allocations, not 2.0"),
            (
                "memory",
                &[("part", 1_000.0, 3.0)],
                "part: 1000 instructions, not 1000 (+0.0 %); 3.0 allocations, not 2.0",
            ),
            ("a new part", &[("part", 1_000.0, 2.0), ("other", 1.0, 0.0)], "other: not on the page"),
            ("a part is gone", &[], "part: there is no such part any more"),
        ] {
            let compared = expected.compare(&page(counted));
            assert_eq!(compared.differences.join(", "), want, "{case}");
            assert_eq!(compared.same + compared.differences.len(), counted.len().max(1), "{case}");
        }
    }
}
