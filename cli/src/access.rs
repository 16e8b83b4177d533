//! `maesh access matrix`: who may call whom, and why.

use std::{fmt::Write as _, process::ExitCode};

use anyhow::Context as _;
use maesh_compiler::{
    compile::matrix::{AccessMatrix, AccessRow, GrantSeen},
    diagnostic::escaped,
};

use crate::{
    args::{AccessArgs, AccessCommand, MatrixArgs, Output},
    explain::views,
    inspect::{Mesh, Role},
    terminal,
};

/// Does what was asked for.
pub async fn run(args: AccessArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        AccessCommand::Matrix(args) => matrix(args).await,
    }
}

async fn matrix(args: MatrixArgs) -> anyhow::Result<ExitCode> {
    let mesh = Mesh::of(args.admin, &args.cluster).await?;
    let matrix = collect(&mesh, args.of.as_deref()).await?;
    match args.output {
        Output::Json => terminal::json(&matrix)?,
        Output::Text => terminal::out(format_args!("{}", text(&matrix, &mesh.describe()))),
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks a controller for one part after the other.
async fn collect(mesh: &Mesh, namespace: Option<&str>) -> anyhow::Result<AccessMatrix> {
    let member = mesh.members(Role::Controller).into_iter().next();
    let member = member.with_context(|| {
        format!("no controller runs in {}; see kubectl get pods -A -l app.kubernetes.io/name=maesh", mesh.describe())
    })?;
    let (mut rows, mut after): (_, Option<String>) = (Vec::new(), None);
    loop {
        let mut query: Vec<_> = namespace.map(|namespace| ("namespace", namespace)).into_iter().collect();
        query.extend(after.as_deref().map(|after| ("after", after)));
        let part: AccessMatrix = mesh.ask(Role::Controller, &member, views::ACCESS, &query).await?;
        rows.extend(part.rows);
        // A part that ends where it began would be asked for again and again.
        if part.next.is_none() || part.next == after {
            return Ok(AccessMatrix { access_control: part.access_control, rows, next: None });
        }
        after = part.next;
    }
}

/// The matrix for people.
fn text(matrix: &AccessMatrix, asked: &str) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = match &*matrix.access_control {
        "on" => writeln!(out, "access control is on in {asked}: what is not listed is denied\n"),
        "dry-run" => {
            writeln!(out, "access control is a dry run in {asked}: nothing is denied; with acl.enabled, this holds\n")
        }
        _ => writeln!(out, "access control is off in {asked}: everybody may call; with acl.enabled, this holds\n"),
    };
    let mut rows = vec![["SERVICE", "PORT", "RUNS AS", "WHO MAY CALL", "WHAT", "TRAFFICTARGET"].map(str::to_owned)];
    rows.extend(matrix.rows.iter().flat_map(of_row));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let _ = writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    if matrix.rows.is_empty() {
        out.push_str("no Service with endpoints is in the mesh there\n");
    }
    out
}

/// The lines of a row: one for each caller and TrafficTarget.
fn of_row(row: &AccessRow) -> Vec<[String; 6]> {
    let line = |who: &str, what: &str, by: &str| {
        let port = format!("{}/{}", row.port, row.protocol);
        let account = row.account.as_deref().unwrap_or("nobody");
        [row.service.as_str(), &port, account, who, what, by].map(|cell| escaped(cell).into_owned())
    };
    if row.account.is_none() {
        let what = match row.endpoints {
            1 => "no pod has this endpoint".to_owned(),
            count => format!("no pod has these {count} endpoints"),
        };
        return vec![line("nobody", &what, "-")];
    }
    if row.grants.is_empty() {
        return vec![line("nobody", "-", "-")];
    }
    let of_grant = |grant: &GrantSeen| {
        let what = if grant.rules.is_empty() { "everything".to_owned() } else { grant.rules.join(" || ") };
        grant.sources.iter().map(|source| line(source, &what, &grant.target)).collect::<Vec<_>>()
    };
    row.grants.iter().flat_map(of_grant).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_for_people() {
        let row = |account: Option<&str>, grants| AccessRow {
            service: "shop/prices".into(),
            port: 80,
            protocol: "http".into(),
            account: account.map(str::to_owned),
            endpoints: 2,
            grants,
        };
        let grant = GrantSeen {
            target: "shop/read".into(),
            sources: vec!["shop/web".into(), "pay/web".into()],
            rules: vec!["Method(`GET`)".into(), "Path(`/a`)".into()],
        };
        let all = GrantSeen { target: "shop/all".into(), sources: vec!["shop/ops".into()], rules: vec![] };
        let matrix = AccessMatrix {
            access_control: "on".into(),
            rows: vec![row(Some("shop/prices"), vec![grant, all]), row(Some("shop/old"), vec![]), row(None, vec![])],
            next: None,
        };
        let want = "\
access control is on in a test: what is not listed is denied

SERVICE      PORT     RUNS AS      WHO MAY CALL  WHAT                          TRAFFICTARGET
shop/prices  80/http  shop/prices  shop/web      Method(`GET`) || Path(`/a`)   shop/read
shop/prices  80/http  shop/prices  pay/web       Method(`GET`) || Path(`/a`)   shop/read
shop/prices  80/http  shop/prices  shop/ops      everything                    shop/all
shop/prices  80/http  shop/old     nobody        -                             -
shop/prices  80/http  nobody       nobody        no pod has these 2 endpoints  -
";
        assert_eq!(text(&matrix, "a test"), want);
        let lone = AccessMatrix { rows: vec![AccessRow { endpoints: 1, ..row(None, vec![]) }], ..matrix };
        assert!(text(&lone, "a test").contains("  no pod has this endpoint  "));
    }
}
