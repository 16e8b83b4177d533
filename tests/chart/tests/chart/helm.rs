//! Helm 3 and 4 as functions.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use maesh_test_support::{isolate_helm, need_tool, repository};
use serde_json::Value;

/// The chart's folder.
pub(crate) fn chart() -> PathBuf {
    repository().join("charts/maesh")
}

/// Both, or none where one is missing; that is noted as a skip.
pub(crate) fn both() -> Vec<PathBuf> {
    let both = ["helm3", "helm4"].map(need_tool);
    both.into_iter().collect::<Option<Vec<_>>>().unwrap_or_default()
}

/// Helm 4, unless it is missing.
pub(crate) fn newest() -> Option<PathBuf> {
    need_tool("helm4")
}

/// A command of Helm that knows nothing of this machine's settings.
pub(crate) fn command(helm: &Path, home: &Path) -> Command {
    let mut command = Command::new(helm);
    isolate(&mut command, home);
    command
}

/// Keeps what Helm reads and writes in the folder `home`, and away from any cluster.
pub(crate) fn isolate(command: &mut Command, home: &Path) {
    isolate_helm(command, home);
    command.env_remove("KUBECONFIG");
}

/// The options for the values called `values`, see [`crate::VALUES`].
pub(crate) fn values(values: &str) -> Vec<String> {
    if values.is_empty() {
        return Vec::new();
    }
    vec!["--values".to_owned(), chart().join(format!("ci/{values}.yaml")).display().to_string()]
}

/// Renders the chart; Helm's words where it refuses.
pub(crate) fn template(helm: &Path, options: &[String]) -> Result<String, String> {
    let home = tempfile::tempdir().expect("a folder");
    let mut command = command(helm, home.path());
    command.args(["template", "maesh"]).arg(chart()).args(["--namespace", "maesh", "--kube-version", "1.35.0"]);
    let output = command.args(options).output().expect("Helm starts");
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout).expect("manifests are UTF-8"));
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The objects in `text`.
pub(crate) fn objects(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).expect("manifests are YAML");
    all.into_iter().filter(|object| !object.is_null()).collect()
}

/// Panics with what was said when a command failed.
#[track_caller]
pub(crate) fn succeeded(what: &str, output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{what}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}
