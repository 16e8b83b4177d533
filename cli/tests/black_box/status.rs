//! `maesh status` from outside.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::process::{Command, Stdio};

use crate::support::{
    Dev,
    backend::Backend,
    command,
    manifest::{folder_with_web, save, service},
    wait,
};
use serde_json::Value;

fn status(dev: &Dev, arguments: &[&str]) -> Command {
    let mut command = command(&["status"]);
    command.args(arguments).args(["--admin", &dev.admin().to_string()]);
    command
}

/// Exit code and standard output.
fn run(dev: &Dev, arguments: &[&str]) -> (Option<i32>, String) {
    let output = status(dev, arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_dev_that_works_is_healthy() {
    let web = Backend::http("web");
    let folder = folder_with_web(&web);
    save(folder.path(), "bad.yaml", &service("shop", "bad", 8080, "maesh.containo.us/scheme: htp"));
    let dev = Dev::start(folder.path());
    let (code, text) = run(&dev, &[]);
    assert_eq!(code, Some(0), "{text}");
    let version = env!("CARGO_PKG_VERSION");
    for line in [
        format!("mesh              maesh dev at {}", dev.admin()),
        "health            healthy".to_owned(),
        format!("controllers       1 of 1 ready, version {version}"),
        format!("dns               1 of 1 ready, version {version}"),
        format!("proxies           1 of 1 ready, version {version}"),
        "services          2 in the mesh".to_owned(),
        "diagnostics       0 errors, 1 warning; see maesh get diagnostics".to_owned(),
        "access control    off".to_owned(),
    ] {
        assert!(text.lines().any(|said| said.starts_with(&line)), "nothing says {line:?} in\n{text}");
    }
    let (code, json) = run(&dev, &["-o", "json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &report["healthy"], &report["problems"]), (Some(0), &true.into(), &serde_json::json!([])));
    let controller = &report["controllers"][0];
    assert_eq!((&controller["synced"], &controller["leads"]), (&true.into(), &Value::Null), "{json}");
    let (_, yaml) = run(&dev, &["-o", "yaml"]);
    let mut read: Value = serde_saphyr::from_str(&yaml).unwrap();
    // Time goes on.
    read["controllers"][0]["secondsSinceChange"] = controller["secondsSinceChange"].clone();
    assert_eq!(read, report);
}

#[test]
fn what_needs_attention_is_said_and_can_be_waited_for() {
    let web = Backend::http("web");
    let folder = folder_with_web(&web);
    save(folder.path(), "broken.yaml", "kind: [");
    let dev = Dev::start_with(folder.path(), &["--bypass", "--acl-dry-run"]);
    let (code, text) = run(&dev, &[]);
    assert_eq!(code, Some(1), "{text}");
    for part in [
        "health            2 problems, below",
        "access control    dry-run",
        "problem: the mesh is bypassed",
        "problem: 1 object could not be used\n  next: see maesh get diagnostics",
    ] {
        assert!(text.contains(part), "nothing says {part:?} in\n{text}");
    }
    drop(dev);

    let dev = Dev::start(folder.path());
    assert_eq!(run(&dev, &["--wait", "10ms"]).0, Some(1), "as long as it lasts");
    let mut waiting = status(&dev, &["--wait", "20s"]).stdout(Stdio::null()).spawn().unwrap();
    assert!(waiting.try_wait().unwrap().is_none(), "it waits");
    save(folder.path(), "broken.yaml", &service("shop", "mended", 8080, ""));
    assert_eq!(wait(&mut waiting).code(), Some(0));
}

#[test]
fn nobody_there_is_an_error_with_the_next_step() {
    for (arguments, says) in [
        (&["--admin", "127.0.0.1:1"][..], "no `maesh dev` answers at 127.0.0.1:1"),
        (&["--admin", "127.0.0.1:1", "--wait", "1s"], "no `maesh dev` answers at 127.0.0.1:1"),
        (&["--kubeconfig", "/nowhere/config", "--wait", "1h"], "/nowhere/config"),
    ] {
        let output = command(&["status"]).args(arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && text.contains(says), "{arguments:?}: {text}");
    }
}
