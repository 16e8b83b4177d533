//! `cargo xtask`: the one entry for people and for CI.
//!
//! Checks, benches, long suites, and the programs from other projects that they are run against. It never touches the
//! machine unless it is told to (`test --setup`); what it builds lies in a cache outside the repository.

mod bench;
mod cluster;
mod command;
mod conformance;
mod docs;
mod fuzz;
mod image;
mod measure;
mod oci;
mod pictures;
mod setup;
mod soak;
mod test;
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
    /// Run every check; the last line is `N passed, N failed`
    Test(test::Options),
    /// Measure one part beside other programs that do the same
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Run a suite that says what a protocol asks for; list them when none is named
    Conformance(conformance::Options),
    /// Fuzz what reads bytes from outside; list the targets when none is named
    Fuzz(fuzz::Options),
    /// Run one of the long suites; list them when none is named
    Soak(soak::Options),
    /// Write the pages of docs/reference that are generated from the code
    Docs,
    /// Draw the dashboards, with what a mesh under load shows in them, into docs/pictures
    Pictures(pictures::Options),
    /// Build the container image as an OCI layout, and its list of parts, without a daemon
    Image(image::Options),
    /// A real Kubernetes of several nodes on this machine, in network namespaces without a way out; needs root
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Build programs of other projects into the cache and print where they are; list them when none is named
    Tool {
        /// Their names, such as etcd, kube-apiserver, kubectl, coredns, envoy
        names: Vec<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Bench(bench) => bench::run(&bench),
        Command::Cluster(cluster) => cluster::run(&cluster),
        Command::Conformance(options) => conformance::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Docs => docs::run(),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Image(options) => image::run(&options),
        Command::Pictures(options) => pictures::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Tool { names } => tool::run(&names),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Nothing may follow the counts.
        Err(error) if error.is::<Reported>() => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A failure of which everything has been said already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reported;

impl std::fmt::Display for Reported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("failed")
    }
}
