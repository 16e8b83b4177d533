//! `cargo xtask soak`: suites that take too long for a check before every change.
//!
//! Their results stand in `docs/soak.md`, with the day and the version they were taken at.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;
use maesh_test_support::repository;

/// Which suite.
#[derive(Args)]
pub(crate) struct Options {
    /// Its name; all are listed when none is given
    name: Option<String>,
    /// How long it changes things; of `churn` and `objects`
    #[arg(long)]
    seconds: Option<u64>,
    /// Which history; of `churn` and `objects`, which print it
    #[arg(long)]
    seed: Option<u64>,
}

/// One long suite: its name, what it shows, and the arguments of cargo and the environment that run it.
struct Suite {
    name: &'static str,
    shows: &'static str,
    cargo: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    /// Names of the variables for `--seconds` and `--seed`.
    options: Option<[&'static str; 2]>,
}

const SUITES: &[Suite] = &[
    Suite {
        name: "long-tests",
        shows: "every test marked as long, one at a time",
        cargo: &["test", "--workspace", "--tests", "--no-fail-fast", "--", "--ignored", "--test-threads=1"],
        environment: &[],
        options: None,
    },
    Suite {
        name: "churn",
        shows: "Services that come, change and go for half an hour, under load",
        cargo: &["test", "--package", "maesh", "--test", "black_box", "churn::", "--", "--ignored", "--nocapture"],
        environment: &[("MAESH_CHURN_SECONDS", "1800")],
        options: Some(["MAESH_CHURN_SECONDS", "MAESH_CHURN_SEED"]),
    },
    Suite {
        name: "objects",
        shows: "objects of every kind that come, change and go in a real API server for ten minutes, beside a compilation from nothing",
        cargo: &[
            "test",
            "--package",
            "maesh-controller",
            "--test",
            "black_box",
            "objects::",
            "--",
            "--ignored",
            "--nocapture",
        ],
        environment: &[("MAESH_OBJECTS_SECONDS", "600")],
        options: Some(["MAESH_OBJECTS_SECONDS", "MAESH_OBJECTS_SEED"]),
    },
    Suite {
        name: "outages",
        shows: "every process killed and restarted in turn, and the API server away, under load",
        cargo: &["test", "--package", "maesh", "--test", "black_box", "twin::", "--", "--ignored", "--nocapture"],
        environment: &[],
        options: None,
    },
    Suite {
        name: "fuzz",
        shows: "every fuzz target for an hour",
        cargo: &["xtask", "fuzz", "all", "--seconds", "3600"],
        environment: &[],
        options: None,
    },
    Suite {
        name: "scale",
        shows: "10,000 Services and 100,000 endpoints in a real API server",
        cargo: &["xtask", "bench", "scale"],
        environment: &[],
        options: None,
    },
];

/// Runs a suite, or lists them.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Some(name) = &options.name else {
        for suite in SUITES {
            println!("{:<12} {}", suite.name, suite.shows);
        }
        return Ok(());
    };
    let Some(suite) = SUITES.iter().find(|suite| suite.name == name) else {
        bail!("no suite is called {name}; cargo xtask soak lists them");
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository()).args(suite.cargo).envs(suite.environment.iter().copied());
    let chosen = [options.seconds, options.seed];
    match suite.options {
        Some(names) => {
            let set = names.into_iter().zip(chosen).filter_map(|(name, value)| Some((name, value?.to_string())));
            cargo.envs(set);
        }
        None if chosen.iter().any(Option::is_some) => bail!("{name} has no --seconds and no --seed"),
        None => {}
    }
    let status = cargo.status()?;
    if !status.success() {
        bail!("{name} failed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// cargo passes when a filter matches no test.
    #[test]
    fn suites_name_programs_and_modules_of_tests_that_exist() {
        for suite in SUITES {
            let Some(at) = suite.cargo.iter().position(|argument| *argument == "--test") else { continue };
            let package =
                suite.cargo.iter().position(|argument| *argument == "--package").map(|at| suite.cargo[at + 1]);
            let package = package.expect("a package").trim_start_matches("maesh-");
            let tests = repository().join(if package == "maesh" { "cli" } else { package }).join("tests");
            let folder = tests.join(suite.cargo[at + 1]);
            let module = suite.cargo[at + 2].trim_end_matches("::");
            let file = folder.join(module).with_extension("rs");
            let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert!(text.contains("#[ignore"), "{}: {module} has no long test", suite.name);
        }
    }
}
