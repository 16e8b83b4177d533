//! `cargo xtask fuzz`: coverage-guided fuzzing, with the stable compiler.
//!
//! The programs live in a workspace of their own, `tests/fuzz`; what they do is in `tests/fuzz-targets`, whose test runs each
//! over its seeds. The compiler's coverage pass is switched on by flags that are meant for its developers; they work on stable,
//! and libFuzzer finds the counters by itself. What a run
//! learns (its corpus) is kept in the cache, an input that fails is kept in the target folder and named.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use maesh_test_support::{cache, repository};

/// What to fuzz, and for how long.
#[derive(Args)]
pub(crate) struct Options {
    /// A target, or `all`, one after the other; they are listed when none is given
    target: Option<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Run this input once instead, to see why it fails
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

/// Coverage counters for each block and comparison; the names of functions stay in place, for readable traces.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Cforce-frame-pointers=yes";

/// Runs the fuzzer; an error when it found something.
pub(crate) fn run(options: &Options) -> Result<()> {
    let targets = targets()?;
    let Some(wanted) = &options.target else {
        for target in targets {
            println!("{target}");
        }
        return Ok(());
    };
    let chosen: Vec<&String> = targets.iter().filter(|target| wanted == "all" || *target == wanted).collect();
    if chosen.is_empty() {
        bail!("no fuzz target is called {wanted}; there are: {}", targets.join(", "));
    }
    for target in chosen {
        fuzz(target, options)?;
    }
    Ok(())
}

/// The names of the files in `tests/fuzz/targets`.
fn targets() -> Result<Vec<String>> {
    let folder = repository().join("tests/fuzz/targets");
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}

/// The folder of the fuzz targets' workspace, with the versions that are shipped; cargo adds what only the fuzzer needs.
fn workspace() -> Result<PathBuf> {
    let workspace = repository().join("tests/fuzz");
    fs::copy(repository().join("Cargo.lock"), workspace.join("Cargo.lock")).context("copying Cargo.lock")?;
    Ok(workspace)
}

/// Compiles all targets in the folder `target`, by clippy and without coverage counters, so that they do not fall behind
/// what they call.
pub(crate) fn clippy(target: &Path) -> Result<Command> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()?).env("CARGO_TARGET_DIR", target);
    cargo.args(["clippy", "--bins", "--", "-D", "warnings"]);
    Ok(cargo)
}

fn fuzz(target: &str, options: &Options) -> Result<()> {
    let workspace = workspace()?;
    // Named, so that the flags go to the target and not to build scripts and procedural macros.
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let built = cache().join("fuzz-target");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&workspace).env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", &built).args([
        "build",
        "--release",
        "--quiet",
        "--bin",
        target,
        "--target",
        &triple,
    ]);
    if !cargo.status().context("starting cargo")?.success() {
        bail!("the target {target} does not build");
    }
    let mut fuzzer = Command::new(built.join(&triple).join("release").join(target));
    if let Some(input) = &options.input {
        fuzzer.arg(input);
    } else {
        let corpus = cache().join("fuzz").join(target);
        let findings = built.join("findings").join(target);
        for folder in [&corpus, &findings] {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        fuzzer.arg(format!("-artifact_prefix={}/", findings.display()));
        fuzzer.arg(format!("-max_total_time={}", options.seconds)).args(["-timeout=5", "-rss_limit_mb=2048"]);
        fuzzer.args(["-print_final_stats=1", "-verbosity=1"]);
        let dictionary = workspace.join("dictionaries").join(target);
        if dictionary.is_file() {
            fuzzer.arg(format!("-dict={}", dictionary.display()));
        }
        fuzzer.arg(corpus).args(existing(&workspace, target));
    }
    let status = fuzzer.status().with_context(|| format!("starting the fuzzer of {target}"))?;
    if !status.success() {
        bail!("{target}: the fuzzer found something; look at it with: cargo xtask fuzz {target} --input FILE");
    }
    println!("{target}: nothing found");
    Ok(())
}

/// The folder of good inputs, where there is one.
fn existing(workspace: &Path, target: &str) -> Option<PathBuf> {
    Some(workspace.join("seeds").join(target)).filter(|folder| folder.is_dir())
}
