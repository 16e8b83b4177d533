//! `tests/instructions`, built as the image is and run under callgrind.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use maesh_test_support::{program, repository};

use super::page::Count;
use crate::command::{collect, quietly};
use crate::image::TARGET;

/// Something that this machine does not have, and how to get it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unavailable(pub(super) String);

/// The program that does the parts, and callgrind.
pub(super) struct Program {
    parts: PathBuf,
    valgrind: PathBuf,
}

/// Name and version of the compiler.
pub(super) fn compiler() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = quietly(Command::new(rustc).current_dir(repository()).arg("--version"))?;
    Ok(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

impl Program {
    /// Builds it.
    pub(super) fn build() -> Result<Self> {
        if env::consts::ARCH != "x86_64" {
            bail!(Unavailable(format!("instruction counts: they are of x86_64, and this is {}", env::consts::ARCH)));
        }
        let valgrind = needed("valgrind")?;
        needed("musl-gcc")?;
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(repository())
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("CC_x86_64_unknown_linux_musl", "musl-gcc")
            .args(["build", "--profile", PROFILE, "--target", TARGET, "--package", NAME, "--locked"]);
        let built = collect("building what is counted", &mut cargo)?;
        if built.output.contains("can't find crate for `core`") {
            bail!(Unavailable(format!(
                "instruction counts: the compiler has no standard library for {TARGET}: cargo xtask test --setup"
            )));
        }
        if !built.success {
            bail!("{NAME} could not be built:\n{}", built.output);
        }
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
        Ok(Self { parts: target.join(TARGET).join(PROFILE).join(NAME), valgrind })
    }

    /// The names of all parts.
    pub(super) fn parts(&self) -> Result<Vec<String>> {
        Ok(quietly(&mut Command::new(&self.parts))?.lines().map(str::to_owned).collect())
    }

    /// Counts `parts`, in their order. Threads of whole ones take turns, which other programs could disturb: they are alone.
    pub(super) fn count(&self, parts: &[String]) -> Result<Vec<Count>> {
        let (whole, small): (Vec<&String>, Vec<&String>) = parts.iter().partition(|part| part.starts_with(WHOLE));
        let mut counts = self.count_small(&small)?;
        for part in whole {
            counts.push(self.count_whole(part).with_context(|| format!("counting {part:?}"))?);
        }
        Ok(counts)
    }

    /// As many at once as there are processors.
    fn count_small(&self, parts: &[&String]) -> Result<Vec<Count>> {
        let (next, counted) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
                scope.spawn(|| {
                    while let Some((place, part)) = parts.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed)) {
                        let count = self.count_one(part).with_context(|| format!("counting {part:?}"));
                        counted.lock().unwrap_or_else(PoisonError::into_inner).push((place, count));
                    }
                });
            }
        });
        let mut counted = counted.into_inner().unwrap_or_else(PoisonError::into_inner);
        counted.sort_by_key(|(place, _)| *place);
        counted.into_iter().map(|(_, count)| count).collect()
    }

    fn count_one(&self, part: &str) -> Result<Count> {
        let reports = Reports::new()?;
        let said = quietly(&mut self.callgrind(part, &reports))?;
        let (steps, allocations) = said.lines().find_map(steps).context("the program did not say what it did")?;
        let instructions = reports.total("")? / steps;
        Ok(Count { part: part.to_owned(), instructions, allocations: Some(allocations / steps) })
    }

    /// Counts what one more of `part` takes in the thread that carries it.
    fn count_whole(&self, part: &str) -> Result<Count> {
        let run = |times: u32| -> Result<f64> {
            let reports = Reports::new()?;
            quietly(self.callgrind(part, &reports).arg(times.to_string()))?;
            reports.total(WORKER)
        };
        let instructions = (run(FEWER + TIMES)? - run(FEWER)?) / f64::from(TIMES);
        Ok(Count { part: part.to_owned(), instructions, allocations: None })
    }

    /// The functions in which the instructions of a part are, the most expensive ones first.
    pub(super) fn functions(&self, part: &str) -> Result<String> {
        let reports = Reports::new()?;
        let mut callgrind = self.callgrind(part, &reports);
        let is_whole = part.starts_with(WHOLE);
        if is_whole {
            callgrind.arg(TIMES.to_string());
        }
        quietly(&mut callgrind)?;
        let report = reports.file(if is_whole { WORKER } else { "" });
        quietly(Command::new(needed("callgrind_annotate")?).arg("--auto=no").arg(report))
    }

    /// What runs a part and counts: of a [`WHOLE`] one each thread by itself, of another one what [`COUNTED`] does.
    fn callgrind(&self, part: &str, reports: &Reports) -> Command {
        let mut command = Command::new(&self.valgrind);
        command.args(["--tool=callgrind", "--fair-sched=yes"]);
        if part.starts_with(WHOLE) {
            command.arg("--separate-threads=yes");
        } else {
            command.arg(format!("--toggle-collect=*{COUNTED}*"));
        }
        command.arg(format!("--callgrind-out-file={}", reports.file("").display())).arg(&self.parts).arg(part);
        command
    }
}

/// What callgrind writes.
struct Reports(tempfile::TempDir);

impl Reports {
    fn new() -> Result<Self> {
        tempfile::tempdir().map(Self).context("a folder for callgrind")
    }

    fn file(&self, thread: &str) -> PathBuf {
        self.0.path().join(format!("report{thread}"))
    }

    /// All instructions of one of them.
    fn total(&self, thread: &str) -> Result<f64> {
        let report = self.file(thread);
        let text = std::fs::read_to_string(&report).with_context(|| format!("reading {}", report.display()))?;
        total(&text).context("callgrind did not say what it counted")
    }
}

/// The package, and its program.
const NAME: &str = "maesh-instructions";

/// The profile in `Cargo.toml`.
const PROFILE: &str = "instructions";

/// The function of the program within which callgrind counts.
const COUNTED: &str = "counted_part";

/// What the names of whole requests and connections begin with.
pub(super) const WHOLE: &str = "whole: ";

/// What callgrind adds to the report of the proxy's worker: it is the third thread, after the first one and the proxy's clock.
const WORKER: &str = "-03";

/// Whole ones in the first run, and how many more there are in the second one.
const FEWER: u32 = 500;
const TIMES: u32 = 1_000;

fn needed(name: &str) -> Result<PathBuf> {
    let missing = || Unavailable(format!("instruction counts: {name} is missing: cargo xtask test --setup"));
    program(name).ok_or_else(missing).map_err(Into::into)
}

/// Reads what the program says: how often it did the part, and how often that asked for memory.
fn steps(line: &str) -> Option<(f64, f64)> {
    let (steps, allocations) = line.strip_suffix(" allocations")?.split_once(" steps, ")?;
    Some((steps.parse().ok()?, allocations.parse().ok()?))
}

/// All instructions that a report of callgrind has.
fn total(report: &str) -> Option<f64> {
    report.lines().find_map(|line| line.strip_prefix("totals: "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read() {
        assert_eq!(steps("2000 steps, 3000 allocations"), Some((2_000.0, 3_000.0)));
        assert_eq!(steps("==1== Callgrind, a call-graph generating cache profiler"), None);
        assert_eq!(total("version: 1\nevents: Ir\nfn=(1) a\n16 20\n\ntotals: 4567\n"), Some(4_567.0));
        assert_eq!(total("version: 1\n"), None);
    }
}
