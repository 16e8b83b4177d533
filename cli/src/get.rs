//! `maesh get`: what is in the mesh, as lists.
//!
//! Nothing is worked out here: the lists are a controller's. `-o json` prints its answer, the parts of a long one put together;
//! the table is made of the same answer.

mod collect;
mod columns;
mod table;
pub mod views;

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

use self::collect::Wanted;
#[cfg(test)]
pub use self::columns::Rejected;
pub use self::columns::SubscriberRow;
use crate::{
    args::{GetArgs, ListOutput, Listed, refuse_combination},
    inspect::Mesh,
    terminal, yaml,
};

/// Lists what was asked for.
pub async fn run(args: GetArgs) -> anyhow::Result<ExitCode> {
    let wanted = Wanted::of(&args).unwrap_or_else(|why| refuse_combination("get", &why));
    let mut mesh = Mesh::of(args.admin, &args.cluster()).await;
    if args.admin.is_none() {
        // Elsewhere -n is the namespace of the mesh, and what was found nowhere says so.
        mesh = mesh
            .with_context(|| format!("looking for the mesh in namespace {} (--mesh-namespace)", args.mesh_namespace));
    }
    let mesh = mesh?;
    let items = collect::collect(&mesh, args.what, &wanted).await?;
    if items.is_empty() && !collect::may_be_empty(&mesh, args.what, &wanted).await? {
        bail!("{}", wanted.not_found(args.what));
    }
    let is_for_people = matches!(args.output, ListOutput::Table | ListOutput::Wide | ListOutput::Name);
    if is_for_people && items.is_empty() {
        terminal::err(format_args!("{}\n", wanted.none_found(args.what)));
        return Ok(ExitCode::SUCCESS);
    }
    print(&args, items)?;
    Ok(ExitCode::SUCCESS)
}

/// The Services of the mesh, or of one namespace, as `namespace/name`.
///
/// # Errors
/// When no controller answers.
pub async fn services(mesh: &Mesh, namespace: Option<&str>) -> anyhow::Result<Vec<String>> {
    let items = collect::collect(mesh, Listed::Services, &Wanted::everything(namespace)).await?;
    Ok(items.iter().map(|item| columns::name(Listed::Services, item)).collect())
}

fn print(args: &GetArgs, items: Vec<Value>) -> anyhow::Result<()> {
    let document = |items| Value::Object(Map::from_iter([(collect::key(args.what).to_owned(), Value::Array(items))]));
    match args.output {
        ListOutput::Json => terminal::json(&document(items))?,
        ListOutput::Yaml => terminal::out(format_args!("{}", yaml::document(&document(items)))),
        ListOutput::Name => {
            let mut names: Vec<String> = items.iter().map(|item| columns::name(args.what, item)).collect();
            names.dedup();
            terminal::out(format_args!("{}\n", names.join("\n")));
        }
        ListOutput::Table | ListOutput::Wide => {
            let table = columns::table(args.what, &items, args.output == ListOutput::Wide);
            let table =
                table.context("the controller answered what this version does not understand; use the same version")?;
            terminal::out(format_args!("{}", table.text(!args.no_headers)));
        }
    }
    Ok(())
}

/// What a list has, as it stands within a sentence.
fn counted(what: Listed) -> &'static str {
    match what {
        Listed::Services => "Services",
        Listed::Routes => "routes",
        Listed::Proxies => "proxies",
        Listed::Diagnostics => "diagnostics",
    }
}
