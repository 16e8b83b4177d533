//! `maesh status`: the state of a mesh on one screen.
//!
//! The controllers are asked what they know of themselves, of dns and of the proxies; in a cluster their pods are counted
//! beside that, since one that is not connected is known to no controller.

mod collect;
mod judge;
mod print;
mod report;

use std::{process::ExitCode, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    args::{ReportOutput, StatusArgs},
    inspect::{ClusterError, Mesh},
    terminal, yaml,
};

use self::report::Report;

/// Pause before a mesh that is not healthy is looked at again.
const AGAIN: Duration = Duration::from_secs(1);

/// Asks, and prints what was said. Exit code 0: the mesh is healthy.
pub async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let deadline = Instant::now() + args.wait;
    let report = loop {
        let seen = look(&args).await;
        let may_change = match &seen {
            Ok(report) => !report.healthy,
            Err(error) => may_come(error, &args),
        };
        if !may_change || Instant::now() + AGAIN >= deadline {
            break seen?;
        }
        sleep(AGAIN).await;
    };
    match args.output {
        ReportOutput::Text => terminal::out(format_args!("{}", print::text(&report))),
        ReportOutput::Json => terminal::json(&report)?,
        ReportOutput::Yaml => terminal::out(format_args!("{}", yaml::document(&serde_json::to_value(&report)?))),
    }
    Ok(if report.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn look(args: &StatusArgs) -> anyhow::Result<Report> {
    let mesh = Mesh::of(args.admin, &args.cluster).await?;
    Ok(judge::judge(&collect::collect(&mesh).await))
}

/// Whether a mesh that was not found may still come: its pods are being created, or its process is starting. A kubeconfig
/// that is of no use stays so.
fn may_come(error: &anyhow::Error, args: &StatusArgs) -> bool {
    let of_cluster = error.downcast_ref::<ClusterError>();
    args.admin.is_some() || matches!(of_cluster, Some(ClusterError::Away { .. } | ClusterError::Refused { .. }))
}
