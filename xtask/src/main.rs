//! `cargo xtask`: the one entry for people and for CI.
//!
//! Checks, benches, long suites, and the programs from other projects that they are run against. It never touches the
//! machine unless it is told to (`test --setup`); what it builds lies in a cache outside the repository.

mod bench;
mod command;
mod measure;
mod tool;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Checks, benches and test programs of maesh.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure one part beside other programs that do the same
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Build programs of other projects into the cache and print where they are; list them when none is named
    Tool {
        /// Their names, such as etcd, kube-apiserver, kubectl, coredns, envoy
        names: Vec<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Bench(bench) => bench::run(&bench),
        Command::Tool { names } => tool::run(&names),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
