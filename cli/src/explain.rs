//! `maesh explain`: what a caller is answered for a mesh name, which way its requests go, and what is wrong.
//!
//! Nothing is worked out here a second time: every role is asked what it would do, and what they say is put together.

mod collect;
mod curl;
mod failures;
mod print;
mod report;
pub mod sent;
mod taken;
pub mod views;

use std::process::ExitCode;

use crate::{
    args::{ExplainArgs, Output, refuse_combination},
    inspect::Mesh,
    terminal,
};

/// Asks, and prints what was said. Exit code 0: the caller is served.
pub async fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let sent = args.sent().unwrap_or_else(|why| refuse_combination("explain", &why));
    let mesh = Mesh::of(args.admin, &args.cluster).await?;
    let collected = collect::collect(&mesh, &args, sent).await;
    let report = report::Report::of(collected);
    match args.output {
        Output::Json => terminal::json(&report)?,
        Output::Text => terminal::out(format_args!("{}", print::text(&report))),
    }
    Ok(if report.served { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
