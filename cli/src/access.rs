//! `maesh access matrix`: who may call whom, and why.

use std::{collections::BTreeSet, fmt::Write as _, process::ExitCode};

use anyhow::{Context as _, bail};
use maesh_compiler::{
    compile::matrix::{AccessMatrix, AccessRow, GrantSeen},
    diagnostic::{did_you_mean, escaped},
};

use crate::{
    args::{AccessArgs, AccessCommand, MatrixArgs, ReportOutput},
    explain::views,
    get,
    inspect::{Mesh, Role},
    terminal, yaml,
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
    let services = get::services(&mesh, args.of.as_deref()).await?;
    if let Some(of) = args.of.as_deref().filter(|_| services.is_empty()) {
        bail!("{}", nothing_in(of, &get::services(&mesh, None).await?));
    }
    match args.output {
        ReportOutput::Json => terminal::json(&matrix)?,
        ReportOutput::Yaml => terminal::out(format_args!("{}", yaml::document(&serde_json::to_value(&matrix)?))),
        ReportOutput::Text => {
            terminal::out(format_args!("{}{}", text(&matrix, &mesh.describe()), not_shown(&matrix, &services)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says that no Service is in what should be a namespace, and what was probably meant. `all` are the Services of the mesh.
fn nothing_in(of: &str, all: &[String]) -> String {
    let split =
        |service: &str| service.split_once('/').map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
    let known: Vec<_> = all.iter().filter_map(|service| split(service)).collect();
    let namespaces: BTreeSet<&str> = known.iter().map(|(namespace, _)| namespace.as_str()).collect();
    let list = |namespace: &str| format!("the argument is a namespace: maesh access matrix {namespace}");
    let next = match split(of) {
        Some((namespace, _)) if namespaces.contains(&*namespace) => list(&namespace),
        Some((namespace, _)) => list(&namespace) + "; but no Service there is in the mesh either",
        None => match known.iter().find(|(_, name)| name == of) {
            Some((namespace, name)) => format!("Service {name} is in {namespace}, and {}", list(namespace)),
            None => match did_you_mean(of, namespaces) {
                Some(meant) => format!("did you mean {meant}?"),
                None => "maesh get services lists those that are in the mesh".to_owned(),
            },
        },
    };
    escaped(&format!("no Service of namespace {of:?} is in the mesh; {next}")).into_owned()
}

/// Says which of these Services have no row.
fn not_shown(matrix: &AccessMatrix, services: &[String]) -> String {
    let shown: BTreeSet<&str> = matrix.rows.iter().map(|row| row.service.as_str()).collect();
    let rest: Vec<_> = services.iter().map(String::as_str).filter(|service| !shown.contains(service)).collect();
    if rest.is_empty() {
        String::new()
    } else {
        escaped(&format!("not shown, without endpoints: {}", rest.join(", "))).into_owned() + "\n"
    }
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
    fn what_is_no_namespace() {
        let all = ["shop/web", "shop/prices", "pay/web"].map(str::to_owned);
        for (of, says) in [
            ("shp", "no Service of namespace \"shp\" is in the mesh; did you mean shop?"),
            ("nosuchthing", "maesh get services lists those"),
            ("prices", "Service prices is in shop, and the argument is a namespace: maesh access matrix shop"),
            ("shop/prices", "mesh; the argument is a namespace: maesh access matrix shop"),
            ("away/prices", "maesh access matrix away; but no Service there"),
            ("a\u{1b}", "\\u{1b}"),
        ] {
            let said = nothing_in(of, &all);
            assert!(said.contains(says), "{of}: {said}");
        }
    }

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
        let services = ["shop/new", "shop/prices", "shop/spare"].map(str::to_owned);
        assert_eq!(not_shown(&matrix, &services), "not shown, without endpoints: shop/new, shop/spare\n");
        assert_eq!(not_shown(&matrix, &services[1..2]), "");
        let lone = AccessMatrix { rows: vec![AccessRow { endpoints: 1, ..row(None, vec![]) }], ..matrix };
        assert!(text(&lone, "a test").contains("  no pod has this endpoint  "));
    }
}
