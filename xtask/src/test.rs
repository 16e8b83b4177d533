//! `cargo xtask test`: every check, in the order in which a mistake costs least to find.
//!
//! What cannot run here is named with its reason and never counted as passed; `--strict` makes it a failure. The last
//! line is `N passed, N failed`: tests as the test runner counts them, and one for each other check.

mod count;
mod stages;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::setup;

/// What to check, and how strictly.
#[derive(Args)]
pub(crate) struct Options {
    /// Install what is missing first: Debian packages (their services are not started) and programs built into the
    /// cache
    #[arg(long)]
    setup: bool,
    /// Count what had to be skipped as failed
    #[arg(long)]
    strict: bool,
    /// With --strict: do not count this skip as failed. WHAT is what the skip begins with, such as `advisories`; may be
    /// given several times
    #[arg(long, value_name = "WHAT", requires = "strict")]
    may_skip: Vec<String>,
    /// Only format, clippy and the unit tests: what is worth running after every change
    #[arg(long, conflicts_with_all = ["all", "only"])]
    quick: bool,
    /// Also the long suites, against real programs; they take much longer
    #[arg(long)]
    all: bool,
    /// Only this stage; may be given several times
    #[arg(long, value_name = "STAGE")]
    only: Vec<Stage>,
    /// Run the tests of the mesh on a cluster on this one instead, a context of your kubeconfig. Its nodes must have the
    /// images of `cargo xtask cluster images`; the tests make and remove the namespaces maesh, shop and callers
    #[arg(long, value_name = "NAME")]
    on_context: Option<String>,
}

/// The stages, in order.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// rustfmt
    Format,
    /// clippy on everything, the fuzz targets too, warnings denied
    Clippy,
    /// rustdoc on everything, warnings denied
    Docs,
    /// Licences, bans and sources of third-party crates
    Deny,
    /// Unit and property tests
    Unit,
    /// Examples in the documentation
    Examples,
    /// Tests that run the built programs, beside real programs of others
    BlackBox,
    /// The Helm chart: rendered, checked against schemas and a real API server
    Chart,
    /// The mesh on a real Kubernetes of three nodes, which is made and removed
    Cluster,
    /// The demo, checking itself
    Demo,
    /// What protocols ask for, asked of the built binary
    Conformance,
    /// Instructions that the parts of a request's work take, beside those that are written down
    Instructions,
    /// The image that is shipped: built, started, its size judged (`--all` only)
    Image,
    /// Tests marked as long (`--all` only)
    Long,
}

impl Stage {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// What came of a stage.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Tests that this run leaves to `--all`.
    pub(crate) ignored: usize,
    /// What could not run here, and why.
    pub(crate) skipped: Vec<String>,
    /// Shown when something failed.
    pub(crate) output: String,
}

/// Runs the checks and prints the counts; an error when one failed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let since = Instant::now();
    let (mut passed, mut failed, mut skipped, mut strictly) = (0, 0, Vec::new(), 0);
    let mut times = Vec::new();
    if options.setup {
        // A program that cannot be had is a skip of the tests that need it, which say so themselves.
        for missing in setup::install() {
            println!("NOT INSTALLED: {missing}");
        }
    }
    for stage in Stage::value_variants().iter().copied().filter(|stage| options.wants(*stage)) {
        let name = stage.name();
        println!("{name} ...");
        let since = Instant::now();
        let outcome = stages::run(stage, options.on_context.as_deref()).unwrap_or_else(|error| Outcome {
            failed: 1,
            output: format!("{error:#}"),
            ..Outcome::default()
        });
        passed += outcome.passed;
        failed += outcome.failed;
        if outcome.failed > 0 {
            println!("{}", outcome.output.trim_end());
        }
        for skip in &outcome.skipped {
            println!("SKIPPED: {skip}");
        }
        let seconds = since.elapsed().as_secs();
        println!("{name}: {}, {seconds} s", outcome.summary());
        times.push(format!("{name} {seconds}"));
        strictly += outcome.skipped.iter().filter(|skip| !options.may_skip(skip)).count();
        skipped.extend(outcome.skipped.into_iter().map(|skip| format!("{name}: {skip}")));
    }
    println!("all stages: {} s ({})", since.elapsed().as_secs(), times.join(", "));
    if !skipped.is_empty() {
        let counted = if options.strict { format!(", {strictly} of them counted as failed") } else { String::new() };
        println!("{} skipped{counted}:", skipped.len());
        for skip in &skipped {
            println!("  {skip}");
        }
    }
    if options.strict {
        failed += strictly;
    }
    if failed == 0 && passed == 0 {
        failed = 1;
        println!("nothing was checked");
    }
    println!("{passed} passed, {failed} failed");
    if failed > 0 { bail!(crate::Reported) } else { Ok(()) }
}

impl Options {
    fn wants(&self, stage: Stage) -> bool {
        if self.quick {
            return matches!(stage, Stage::Format | Stage::Clippy | Stage::Unit);
        }
        let is_long = matches!(stage, Stage::Image | Stage::Long);
        if self.only.is_empty() { !is_long || self.all } else { self.only.contains(&stage) }
    }

    /// Whether `--strict` lets this skip pass.
    fn may_skip(&self, skip: &str) -> bool {
        skip.split_once(':').is_some_and(|(what, _)| self.may_skip.iter().any(|may| may == what))
    }
}

impl Outcome {
    /// This and `other` as one.
    fn and(mut self, other: Self) -> Self {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.skipped.extend(other.skipped);
        self.output.push_str(&other.output);
        self
    }

    fn summary(&self) -> String {
        let mut text = format!("{} passed, {} failed", self.passed, self.failed);
        for (count, word) in [(self.skipped.len(), "skipped"), (self.ignored, "left to --all")] {
            if count > 0 {
                text.push_str(&format!(", {count} {word}"));
            }
        }
        text
    }
}
