//! `maesh migrate`: annotations of Traefik Mesh and TrafficSplits of SMI in the form of this mesh.
//!
//! Only reads. Nothing that is there is overwritten: what is printed are annotations to add, and what cannot be said by
//! adding is reported with what to do. The compiler of the mesh decides what the originals mean, and whether what is printed
//! can be used.

mod annotations;
mod input;
mod outcome;
mod patch;
mod splits;
mod targets;
mod translate;
mod values;

#[cfg(test)]
mod property;

use std::process::ExitCode;

use anyhow::ensure;

use self::{
    input::Input,
    outcome::{Migration, NOT_KEPT},
};
use crate::{
    args::{MigrateArgs, MigrateOutput},
    given, terminal,
};

/// Reads, translates and prints.
pub async fn run(args: MigrateArgs) -> anyhow::Result<ExitCode> {
    if let Some(file) = &args.values {
        return values::run(file, args.output);
    }
    let input = match args.paths.is_empty() {
        true => input::of_cluster(&args).await?,
        false => input::of_files(args.paths.clone())?,
    };
    if let Some(namespace) = args.namespace.as_deref().filter(|_| !args.paths.is_empty()) {
        ensure!(input.has_namespace(namespace), "{}", given::empty_namespace("--namespace", namespace));
    }
    let Input { objects, refused, unused, warnings } = input;
    let mut migration = translate::translate(&objects, &unused, args.default_mode.into());
    migration.findings.extend(refused);
    if let Some(namespace) = &args.namespace {
        migration.keep_only(namespace);
    }
    migration.findings.sort();
    for warning in warnings {
        terminal::err(format_args!("# warning: {warning}\n"));
    }
    print(&migration, &args)?;
    Ok(exit_code(&migration))
}

fn print(migration: &Migration, args: &MigrateArgs) -> anyhow::Result<()> {
    let report = outcome::report(&migration.findings);
    let printed = match args.output {
        MigrateOutput::Json => return Ok(terminal::json(migration)?),
        MigrateOutput::Report => {
            terminal::out(format_args!("{report}"));
            return Ok(());
        }
        MigrateOutput::Sh => patch::commands(&migration.objects, &args.kubectl()),
        MigrateOutput::Yaml => patch::yaml(&migration.objects),
    };
    terminal::out(format_args!("{printed}"));
    terminal::err(format_args!("{}", outcome::as_comments(&report)));
    Ok(())
}

fn exit_code(migration: &Migration) -> ExitCode {
    if migration.is_kept() { ExitCode::SUCCESS } else { ExitCode::from(NOT_KEPT) }
}
