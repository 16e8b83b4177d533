//! The command lines that the Helm chart gives to this program.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{collections::BTreeSet, process::Command};

use maesh_test_support::{need_tool, repository};
use serde_json::Value;

/// The files of values that the chart is tested with; the first is the chart's own.
const VALUES: [&str; 4] = ["values.yaml", "ci/everything.yaml", "ci/single.yaml", "ci/kubectl.yaml"];

/// The objects that the chart gives with the file of values `values`.
fn rendered(helm: &std::path::Path, values: &str) -> Vec<Value> {
    let (chart, home) = (repository().join("charts/maesh"), tempfile::tempdir().unwrap());
    let mut command = Command::new(helm);
    for name in ["HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME"] {
        command.env(name, home.path());
    }
    command.env_remove("KUBECONFIG").args(["template", "maesh", "--namespace=maesh"]).arg(&chart);
    let output = command.arg("--values").arg(chart.join(values)).output().unwrap();
    assert!(output.status.success(), "{values}: {}", String::from_utf8_lossy(&output.stderr));
    serde_saphyr::from_multiple(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

/// Flags are read before anything is done, so `--help` at the end shows whether all before it are taken.
fn takes(arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maesh"));
    let output = command.env_clear().args(arguments).arg("--help").output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn chart_gives_command_lines_that_the_program_takes() {
    let Some(helm) = need_tool("helm4") else { return };
    let mut commands = BTreeSet::new();
    for values in VALUES {
        for object in rendered(&helm, values) {
            let pod = ["/spec/template/spec/containers", "/spec/containers"].iter().find_map(|at| object.pointer(at));
            for container in pod.and_then(Value::as_array).into_iter().flatten() {
                let arguments = container["args"].as_array().into_iter().flatten();
                let arguments: Vec<&str> = arguments.filter_map(Value::as_str).collect();
                takes(&arguments).unwrap_or_else(|said| panic!("{values}: maesh {}: {said}", arguments.join(" ")));
                commands.insert(arguments[0].to_owned());
            }
        }
    }
    let wanted = ["check", "controller", "dns", "keeper", "proxy", "uninstall"];
    assert_eq!(commands, wanted.map(str::to_owned).into(), "every command that the chart runs was looked at");
    for (case, wrong) in [
        ("a flag that does not exist", ["dns", "--no-such-flag"]),
        ("a value that is none", ["dns", "--lameduck=soon"]),
        ("a command that does not exist", ["responder", "--lameduck=5s"]),
    ] {
        assert!(takes(&wrong).is_err(), "{case} is not refused, so this test shows nothing");
    }
}
