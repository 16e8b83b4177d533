//! Manifests that were given: whether there are any.
//!
//! Nothing to look at is no good news: a folder may be misspelt, and the command in front of a pipe may have failed.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use maesh_compiler::diagnostic::escaped;
use maesh_controller::source::manifests::{Reading, STANDARD_INPUT};

/// Whether standard input is among the paths.
pub fn reads_standard_input(paths: &[PathBuf]) -> bool {
    paths.iter().any(|path| path == Path::new(STANDARD_INPUT))
}

/// Fails where nothing was found.
///
/// # Errors
/// When standard input held nothing, or the paths hold no file that is read, or nothing is in these.
pub fn ensure_something(paths: &[PathBuf], reading: &Reading) -> anyhow::Result<()> {
    ensure!(
        !reading.input_is_empty,
        "there is no manifest in standard input; see whether the command that writes it succeeded"
    );
    let found_nothing = reading.objects.is_empty() && reading.problems.is_empty() && !reads_standard_input(paths);
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    let paths = paths.join(", ");
    let paths = escaped(&paths);
    ensure!(
        !found_nothing || reading.files > 0,
        "no manifest was found in {paths}: files of a folder are read that end in .yaml, .yml or .json"
    );
    ensure!(!found_nothing, "there is no object in {paths}; see whether what writes it succeeded");
    Ok(())
}

/// Says that no object is in this namespace: a mistyped one hides everything that is wrong.
pub fn empty_namespace(flag: &str, namespace: &str) -> String {
    format!("{flag} {namespace:?}: no given object is in this namespace; correct the name, or give its manifests.")
}
