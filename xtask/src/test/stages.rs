//! One function a stage.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use maesh_test_support::{SKIPS, ToolError, repository, tool};
use maesh_testcluster::ON_CONTEXT;

use super::count::{counts, skips};
use super::{Outcome, Stage};
use crate::{bench::instructions, command::collect};

/// `on_context` is the cluster that a person named for the tests of the mesh on one.
pub(super) fn run(stage: Stage, on_context: Option<&str>) -> Result<Outcome> {
    match stage {
        Stage::Format => {
            let fuzz = check(cargo(&["fmt", "--manifest-path", "tests/fuzz/Cargo.toml", "--", "--check"]))?;
            Ok(check(cargo(&["fmt", "--all", "--", "--check"]))?.and(fuzz))
        }
        Stage::Clippy => {
            let workspace =
                ["clippy", "--workspace", "--all-targets", "--locked", "--keep-going", "--", "-D", "warnings"];
            Ok(check(cargo(&workspace))?.and(check(crate::fuzz::clippy(&target())?)?))
        }
        Stage::Docs => {
            let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
            // These pages are for who works on maesh: they have private items, and links to them are right.
            doc.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links");
            check(doc)
        }
        Stage::Deny => deny(),
        Stage::Unit => tests(&["--lib", "--bins"], &[], None),
        Stage::Examples => tests(&["--doc"], &[], None),
        // Of the names in there, those of the chart and of the cluster have stages of their own.
        Stage::BlackBox => tests(&["--test", "*"], &[&side_by_side(), "--skip", "chart_", "--skip", "cluster_"], None),
        Stage::Cluster => {
            crate::cluster::images()?;
            // There is one cluster on a machine.
            tests(&["--test", "cluster"], &["--test-threads=1"], on_context)
        }
        Stage::Image => {
            crate::image::run(&crate::image::Options::default())?;
            Ok(Outcome { passed: 1, ..Outcome::default() })
        }
        Stage::Chart => tests(&["--test", "chart"], &[&side_by_side()], None),
        // One at a time: they measure, and fill the machine by themselves.
        Stage::Long => {
            crate::cluster::images()?;
            if let Err(error) = crate::cluster::further_images(None) {
                // The tests that need them say that they are skipped.
                eprintln!("images that some tests need could not be built: {error:#}");
            }
            tests(&["--tests"], &["--ignored", "--test-threads=1"], on_context)
        }
        Stage::Demo => demo(),
        Stage::Conformance => conformance(),
        Stage::Instructions => counted_instructions(),
    }
}

/// How many tests of a program run at the same time: more than there are cores, because tests beside real programs mostly
/// wait for a timer or for a program to start.
fn side_by_side() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("--test-threads={}", cores.max(6))
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repository()).args(arguments);
    command
}

/// A command that is one check.
fn check(mut command: Command) -> Result<Outcome> {
    let name = command.get_args().next().unwrap_or_default().to_string_lossy().into_owned();
    let result = collect(&name, &mut command)?;
    let passed = usize::from(result.success);
    Ok(Outcome { passed, failed: 1 - passed, output: result.output, ..Outcome::default() })
}

/// Tests of the whole workspace: always all of it, so that every stage builds third-party crates with the same
/// features and none is built twice.
fn tests(targets: &[&str], arguments: &[&str], on_context: Option<&str>) -> Result<Outcome> {
    let list = tempfile::NamedTempFile::new().context("a file for skipped tests")?;
    let mut command = cargo(&["test", "--workspace", "--no-fail-fast", "--locked"]);
    command.args(targets).arg("--").args(arguments).env(SKIPS, list.path());
    // What the environment says of clusters is not for tests.
    command.env_remove(ON_CONTEXT).envs(on_context.map(|name| (ON_CONTEXT, name)));
    let result = collect("tests", &mut command)?;
    let counts = counts(&result.output);
    let skipped = skips(&std::fs::read_to_string(list.path())?);
    // What failed without a test that says so: a build, or a test program that died.
    let failed = if result.success { counts.failed } else { counts.failed.max(1) };
    Ok(Outcome {
        passed: counts.passed.saturating_sub(skipped.len()),
        failed,
        ignored: counts.ignored,
        skipped,
        output: result.output,
    })
}

/// Licences, bans and sources; and the advisories on security, unless their database is missing.
fn deny() -> Result<Outcome> {
    let program = match tool("cargo-deny") {
        Ok(program) => program,
        Err(missing) => return Ok(Outcome { skipped: vec![missing.to_string()], ..Outcome::default() }),
    };
    let run = |checks: &[&str]| {
        let mut command = Command::new(&program);
        command.current_dir(repository()).args(["--workspace", "--locked", "check", "--hide-inclusion-graph"]);
        command.args(checks);
        command
    };
    let outcome = check(run(&["licenses", "bans", "sources"]))?;
    let advisories = collect("advisories", &mut run(&["advisories"]))?;
    Ok(outcome.and(judge_advisories(advisories.success, advisories.output)))
}

/// What came of the advisories. A database that cannot be reached is a skip, which `--strict` counts as failed: what was not
/// checked must not pass for good.
fn judge_advisories(success: bool, output: String) -> Outcome {
    if success {
        return Outcome { passed: 1, ..Outcome::default() };
    }
    // What was found names its advisory, and a link into the database.
    let is_away = output.contains("failed to fetch") || output.contains("failed to load advisory database");
    if is_away && !output.contains("RUSTSEC-") {
        let skip = "advisories: their database, https://github.com/rustsec/advisory-db, cannot be reached from here";
        return Outcome { skipped: vec![skip.to_owned()], ..Outcome::default() };
    }
    Outcome { failed: 1, output, ..Outcome::default() }
}

/// Where cargo puts what it builds.
fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), |folder| Path::new(&folder).to_owned())
}

/// Builds the binary, as the tests that run the programs are built: `cargo build` would build all of it again, without the
/// features that only tests need. `Err` is what the compiler says.
fn maesh() -> Result<Result<PathBuf, String>> {
    let build = collect("build", &mut cargo(&["test", "--workspace", "--test", "black_box", "--no-run", "--locked"]))?;
    Ok(if build.success { Ok(target().join("debug/maesh")) } else { Err(build.output) })
}

fn demo() -> Result<Outcome> {
    let maesh = match maesh()? {
        Ok(maesh) => maesh,
        Err(output) => return Ok(Outcome { failed: 1, output, ..Outcome::default() }),
    };
    let mut command = Command::new(maesh);
    let mut outcome = check({
        command.args(["demo", "--self-test"]);
        command
    })?;
    if outcome.output.trim().is_empty() {
        // A program that says nothing has shown nothing.
        outcome = Outcome { failed: 1, output: "maesh demo --self-test printed nothing".to_owned(), ..outcome };
        outcome.passed = 0;
    }
    Ok(outcome)
}

fn conformance() -> Result<Outcome> {
    let maesh = match maesh()? {
        Ok(maesh) => maesh,
        Err(output) => return Ok(Outcome { failed: 1, output, ..Outcome::default() }),
    };
    let mut outcome = Outcome::default();
    for (name, result) in crate::conformance::check(&maesh) {
        match result {
            Ok(()) => outcome.passed += 1,
            Err(error) if error.is::<ToolError>() => outcome.skipped.push(error.to_string()),
            Err(error) => {
                outcome.failed += 1;
                outcome.output.push_str(&format!("{name}: {error:#}\n"));
            }
        }
    }
    Ok(outcome)
}

fn counted_instructions() -> Result<Outcome> {
    match instructions::check() {
        Ok(compared) => Ok(Outcome {
            passed: compared.same,
            failed: compared.differences.len(),
            output: instructions::explained(&compared.differences),
            ..Outcome::default()
        }),
        Err(error) if error.is::<instructions::Unavailable>() => {
            Ok(Outcome { skipped: vec![error.to_string()], ..Outcome::default() })
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advisories_that_were_not_checked_do_not_pass() {
        let found = "error[vulnerability]: ... ID: RUSTSEC-2025-0001, https://github.com/rustsec/advisory-db";
        for (case, success, output, want) in [
            ("nothing was found", true, "advisories ok", (1, 0, 0)),
            ("something was found", false, found, (0, 1, 0)),
            (
                "no network",
                false,
                "failed to fetch advisory database https://github.com/rustsec/advisory-db",
                (0, 0, 1),
            ),
            ("a mistake in deny.toml", false, "error[unexpected-value]: expected '[\"deny\"]'", (0, 1, 0)),
        ] {
            let outcome = judge_advisories(success, output.to_owned());
            assert_eq!((outcome.passed, outcome.failed, outcome.skipped.len()), want, "{case}");
        }
    }
}
