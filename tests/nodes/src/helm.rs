//! The mesh on a cluster, as a person installs it: with Helm, from the chart in this repository.

use std::path::Path;

use anyhow::Result;
use maesh_test_support::{isolate_helm, repository};

use crate::command::checked;
use crate::kube::Kube;
use crate::place::{self, BEFORE_IMAGE, MESH_IMAGE};

/// Namespace and name of the release.
pub const MESH: &str = "maesh";

/// Runs Helm 4 with `arguments` on the release's namespace; returns what it prints. Helm reads and writes nothing of
/// the person's.
///
/// # Errors
/// What Helm says.
pub fn helm(kube: &Kube, arguments: &[&str]) -> Result<String> {
    let mut command = kube.client("helm4", "--kube-context")?;
    isolate_helm(&mut command, &place::state("helm"));
    command.args(arguments).arg(format!("--namespace={MESH}"));
    checked(&mut command)
}

/// Installs the mesh from the chart, or changes it: `verb` is `install` or `upgrade`, `values` are `name=value`.
///
/// # Errors
/// What Helm says.
pub fn chart(kube: &Kube, verb: &str, values: &[&str]) -> Result<String> {
    chart_of(kube, verb, repository(), MESH_IMAGE, values)
}

/// The same with chart and image of the commit before.
///
/// # Errors
/// What Helm says.
pub fn chart_before(kube: &Kube, verb: &str, values: &[&str]) -> Result<String> {
    chart_of(kube, verb, &place::before(), BEFORE_IMAGE, values)
}

fn chart_of(kube: &Kube, verb: &str, sources: &Path, image: &str, values: &[&str]) -> Result<String> {
    let chart = sources.join("charts/maesh").display().to_string();
    let (repository, tag) = image.rsplit_once(':').unwrap_or((image, ""));
    let image = format!("image.repository={repository},image.tag={tag},image.pullPolicy=Never");
    let mut arguments = vec![verb, MESH, &chart, "--set-string", &image];
    for value in values {
        arguments.extend(["--set", value]);
    }
    helm(kube, &arguments)
}
