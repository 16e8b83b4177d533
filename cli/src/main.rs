//! maesh: a service mesh for Kubernetes without sidecars.
//!
//! One binary: the three roles, the whole mesh in one process for developers, and what people need around them.
#![allow(unreachable_pub, reason = "a program has no outside")]

mod access;
mod admin;
#[cfg(feature = "jemalloc")]
mod allocator;
mod analyze;
mod args;
mod check;
mod cluster_dns;
mod demo;
mod dev;
mod explain;
mod fetch;
mod get;
mod given;
mod health;
mod inspect;
mod logs;
#[cfg(target_arch = "x86_64")]
mod memory;
mod mesh;
mod migrate;
mod network_policy;
mod open_files;
mod roles;
mod signals;
mod status;
mod terminal;
mod uninstall;
mod version;
mod yaml;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::args::{Cli, Command, PrintCommand};

// Two to eight per cent of a proxy's processor time, measured; DNS is indifferent.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let Cli { logs: log_args, command } = Cli::try_parse().unwrap_or_else(|error| args::refuse(&error));
    #[cfg(feature = "jemalloc")]
    if !matches!(command, Command::Keeper(_)) {
        allocator::give_back_regularly();
    }
    let result = logs::start(&log_args).inspect(|_| open_files::raise()).and_then(|log_level| match command {
        Command::Dev(args) => block_on(dev::run(args, log_level)),
        Command::Demo(args) => block_on(demo::run(args, log_level)),
        Command::Controller(args) => block_on(roles::controller::run(*args, log_level)),
        Command::Dns(args) => match (args.command, args.role) {
            (Some(command), _) => block_on(cluster_dns::run(command)),
            (None, Some(role)) => block_on(roles::dns::run(role, log_level)),
            (None, None) => Err(anyhow::anyhow!("maesh dns: --id is missing, or a command; see maesh dns --help")),
        },
        Command::Proxy(args) => block_on(roles::proxy::run(args, log_level)),
        Command::Keeper(args) => block_on(roles::keeper::run(args)),
        Command::Explain(args) => block_on(explain::run(args)),
        Command::Access(args) => block_on(access::run(args)),
        Command::Analyze(args) => block_on(analyze::run(args)),
        Command::Check(args) => block_on(check::run(args)),
        Command::Status(args) => block_on(health::run(args)),
        Command::Get(args) => block_on(get::run(args)),
        Command::Print(args) => match args.command {
            PrintCommand::NetworkPolicy(args) => block_on(network_policy::run(args)),
        },
        Command::Migrate(args) => block_on(migrate::run(args)),
        Command::Uninstall(args) => block_on(uninstall::run(args)),
        Command::Version(args) => {
            version::print(args.output);
            Ok(ExitCode::SUCCESS)
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "maesh", &mut script);
            terminal::out(format_args!("{}", String::from_utf8_lossy(&script)));
            Ok(ExitCode::SUCCESS)
        }
    });
    let written = |code| match terminal::failure() {
        Some(error) => Err(anyhow::anyhow!("cannot write to standard output: {error}")),
        None => Ok(code),
    };
    result.and_then(written).unwrap_or_else(|error| {
        terminal::err(format_args!("error: {error:#}\n"));
        ExitCode::FAILURE
    })
}

/// Runs a command to its end. What carries traffic has threads of its own; two are plenty for the rest.
fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(command);
    runtime.shutdown_background();
    result
}
