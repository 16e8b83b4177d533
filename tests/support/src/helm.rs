//! Helm, which otherwise reads and writes what belongs to the person who runs a test.

use std::path::Path;
use std::process::Command;

/// Keeps what `command`, which runs Helm, reads and writes in the folder `home`. Its cluster is not decided here.
pub fn isolate_helm(command: &mut Command, home: &Path) {
    for name in ["HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME"] {
        command.env(name, home.join(name));
    }
    command.env_remove("HELM_NAMESPACE");
}
