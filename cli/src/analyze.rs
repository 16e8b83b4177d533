//! `maesh analyze`: what is wrong with manifests, before they are applied.
//!
//! The manifests go through the reader of `maesh dev` and the compiler of a controller, with the settings of a cluster, so a
//! finding here is the Event that would be there. Nothing is listened for, and nothing is changed.

mod base;
mod print;
mod report;
mod sarif;

use std::{collections::BTreeMap, path::Path, process::ExitCode, time::Instant};

use anyhow::Context as _;
use maesh_compiler::{
    compile::{Addressing, Compiler},
    diagnostic::Diagnostic,
    event::Event,
    kinds::{Object, ObjectKind, ReadContext},
};
use maesh_controller::source::manifests::{self, Reading, STANDARD_INPUT};

use self::{base::Base, report::Report};
use crate::{
    args::{AnalyzeArgs, AnalyzeOutput},
    given, inspect, mesh,
};

/// What is exited with when something was found.
const FOUND: u8 = 79;

/// Reads, compiles, and says what was found.
pub async fn run(args: AnalyzeArgs) -> anyhow::Result<ExitCode> {
    for path in args.paths.iter().filter(|path| **path != Path::new(STANDARD_INPUT)) {
        std::fs::metadata(path).with_context(|| {
            format!("cannot read {}; give files or folders of manifests that exist", path.display())
        })?;
    }
    let mut config = mesh::compiler_config(&args.mesh, Addressing::Cluster)?;
    config.config_maps_on_demand = args.cluster;
    let compiler = Compiler::new(config);
    // What the API server would refuse is found, too, although a controller never sees it.
    let door = ReadContext { selects_pods: true, ..compiler.door() };
    let base = match args.cluster() {
        Some(cluster) => Some(base::read(inspect::open(&cluster).await?, compiler.door()).await?),
        None => None,
    };
    let reading = manifests::read_once(args.paths.clone(), door).context("cannot start to read the manifests")?;
    given::ensure_something(&args.paths, &reading)?;

    let (files, objects) =
        (reading.files + usize::from(given::reads_standard_input(&args.paths)), reading.objects.len());
    let is_alone = base.is_none();
    let (found, notes) = match base {
        Some(base) => over_cluster(compiler, reading, base).await,
        None => {
            let notes = empty_namespaces(&args.mesh.watch_namespace, &reading);
            (alone(compiler, reading), notes)
        }
    };
    let report = Report::new(found, files, objects, is_alone, notes);
    match args.output {
        AnalyzeOutput::Text => print::text(&report),
        AnalyzeOutput::Json => crate::terminal::json(&report)?,
        AnalyzeOutput::Sarif => crate::terminal::json(&sarif::log(&report, &std::env::current_dir()?))?,
    }
    Ok(match () {
        () if report.has_unreadable_file() => ExitCode::FAILURE,
        () if report.fails(args.fail_on) => ExitCode::from(FOUND),
        () => ExitCode::SUCCESS,
    })
}

/// Says of which namespaces to mesh there is no object: a mistyped one hides everything that is wrong.
fn empty_namespaces(watched: &[String], reading: &Reading) -> Vec<String> {
    let is_empty =
        |namespace: &&String| !namespace.is_empty() && !reading.objects.keys().any(|id| *id.namespace == ***namespace);
    watched.iter().filter(is_empty).map(|namespace| given::empty_namespace("--watch-namespace", namespace)).collect()
}

/// What is wrong with manifests that are everything there is.
fn alone(mut compiler: Compiler, reading: Reading) -> Vec<Diagnostic> {
    let mut by_kind: BTreeMap<ObjectKind, Vec<Object>> = BTreeMap::new();
    for object in reading.objects.values() {
        by_kind.entry(object.kind()).or_default().push((**object).clone());
    }
    for kind in ObjectKind::ALL {
        compiler.take(Event::Reset(kind, by_kind.remove(&kind).unwrap_or_default()));
    }
    compiler.take(Event::Problems(reading.problems));
    compiler.compile(Instant::now()).found
}

/// What the manifests would change about what is wrong in a cluster, and what has to be known about that.
async fn over_cluster(mut compiler: Compiler, reading: Reading, mut base: Base) -> (Vec<Diagnostic>, Vec<String>) {
    for (kind, objects) in base.take_objects() {
        compiler.take(Event::Reset(kind, objects));
    }
    base.give_config_maps(&mut compiler, &reading).await;
    compiler.compile(Instant::now());
    // A ConfigMap counts once a Service names it, so these come last.
    let others = reading.objects.values().filter(|object| object.kind() != ObjectKind::ConfigMap);
    for object in others {
        compiler.take(Event::Apply((**object).clone()));
    }
    base.give_config_maps(&mut compiler, &reading).await;
    compiler.take(Event::Problems(reading.problems));
    (compiler.compile(Instant::now()).found, base.into_notes())
}
