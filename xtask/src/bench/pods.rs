//! What a changed pod costs the controller of a large cluster with access control.

use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::Value;

use super::rivals::built;
use crate::command::quietly;

/// What can be chosen.
#[derive(Args)]
pub(crate) struct Options {
    /// Services, each with a slice and a pod
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// TrafficTargets, a hundred of which are for one ServiceAccount
    #[arg(long, default_value_t = 1_000)]
    targets: usize,
}

/// Runs the bench and prints its table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let program = built("dist", "maesh-compiler", &["--example", "pods"], "pods")?;
    let text = quietly(Command::new(program).args([options.services.to_string(), options.targets.to_string()]))?;
    let said: Value = serde_json::from_str(text.trim()).context("what the program says")?;
    println!("{} Services, {} TrafficTargets", options.services, options.targets);
    println!("| a pod | median (µs) | longest of 200 (µs) | resources |");
    println!("|---|---:|---:|---:|");
    for row in said.as_array().context("a list of cases")? {
        let number = |name: &str| row["cost"][name].as_f64().with_context(|| format!("{name} is missing in {row}"));
        let case = row["case"].as_str().unwrap_or_default();
        let (median, longest) = (number("medianMicros")?, number("longestMicros")?);
        println!("| {case} | {median:.0} | {longest:.0} | {} |", number("resources")?);
    }
    Ok(())
}
