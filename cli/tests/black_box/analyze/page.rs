//! The page about pull requests: its commands print what it shows, and its workflow fails the pull request that it shows.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, process::Command};

use super::*;
use crate::support::page::{lines, page, typed};

#[test]
fn the_page_about_pull_requests_holds() {
    let text = page("docs/tasks/pull-requests.md");
    let manifests = blocks(&text, "yaml");
    let [manifest, workflow] = manifests[..] else { panic!("a manifest and a workflow") };
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("deploy")).unwrap();
    save(&folder.path().join("deploy"), "web.yaml", manifest);
    let maesh = format!("#!/bin/sh\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_maesh"));
    std::fs::write(folder.path().join("maesh"), maesh).unwrap();
    std::fs::set_permissions(folder.path().join("maesh"), Permissions::from_mode(0o755)).unwrap();
    let type_in = |command: &str| {
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap_or_default());
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env("PATH", path).current_dir(folder.path()).output().unwrap()
    };
    let commands: Vec<_> = blocks(&text, "console").into_iter().flat_map(typed).collect();
    assert!(!commands.is_empty());
    for (command, shown) in commands {
        assert_eq!(lines(&said(&type_in(command))), shown, "{command}");
    }

    let workflow: Value = serde_saphyr::from_str(workflow).unwrap();
    let steps = workflow["jobs"]["analyze"]["steps"].as_array().unwrap();
    let runs: Vec<_> = steps.iter().filter_map(|step| step["run"].as_str()).collect();
    let codes: Vec<_> = runs.iter().map(|run| type_in(run).status.code()).collect();
    assert_eq!(codes, [Some(0), Some(79)], "{runs:?}");
    let uploads = steps.iter().find_map(|step| step["with"]["sarif_file"].as_str()).unwrap();
    let log = std::fs::read(folder.path().join(uploads)).unwrap();
    let log: Value = serde_json::from_slice(&log).unwrap();
    assert_eq!(log["runs"][0]["results"].as_array().unwrap().len(), 2, "{log}");
}
