//! Input that is meant to do harm, or is no text at all.

use std::fs::File;

use super::*;

#[test]
fn a_file_that_cannot_be_read_is_a_failure_and_the_rest_is_analysed() {
    let folder = folder_with(BAD);
    File::create(folder.path().join("huge.yaml")).unwrap().set_len((64 << 20) + 1).unwrap();
    let (report, code) = report(folder.path(), &[".", "--fail-on", "never"]);
    assert_eq!(code, Some(1), "{report}");
    assert_eq!(report["counts"], json!({ "error": 2, "warning": 3, "info": 1 }), "{report}");
    let huge = report["findings"].as_array().unwrap().iter().find(|it| it["file"] == "./huge.yaml").unwrap();
    assert_eq!(huge["reason"], "UnreadableFile");
    assert!(huge["message"].as_str().unwrap().contains("is larger than 64 MiB"), "{huge}");
    let log = run(folder.path(), &[".", "-o", "sarif"]);
    let log: Value = serde_json::from_slice(&log.stdout).unwrap();
    assert_eq!(log["runs"][0]["invocations"][0]["executionSuccessful"], false);
}

#[test]
fn what_is_no_manifest_is_one_finding() {
    let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
    for (name, of) in ('b'..='j').zip('a'..) {
        bomb += &format!("{name}: &{name} [{}]\n", vec![format!("*{of}"); 9].join(","));
    }
    let named =
        |name: &str| format!("apiVersion: v1\nkind: Service\nmetadata: {{name: \"{name}\", namespace: shop}}\n");
    for (case, bytes, reason) in [
        ("binary", vec![0x7f, b'E', b'L', b'F', 0, 0xff, 0xfe, 0x80], "UnparsableFile"),
        ("nested lists", vec![b'['; 1 << 20], "UnparsableFile"),
        ("nested maps", "{a: ".repeat(1 << 18).into_bytes(), "UnparsableFile"),
        ("nested JSON", r#"{"a":"#.repeat(1 << 18).into_bytes(), "UnparsableFile"),
        ("aliases", bomb.into_bytes(), "UnparsableFile"),
        ("a bare word", b"hello\n".to_vec(), "UnparsableFile"),
        ("a name that commands the terminal", named("\\u001b[2J\\u202e").into_bytes(), "InvalidObject"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = run_on(folder.path(), &["-", "-o", "json"], &bytes);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{case}: {output:?}"));
        assert_eq!(output.status.code(), Some(79), "{case}: {report}");
        let findings = report["findings"].as_array().unwrap();
        assert_eq!(findings.len(), 1, "{case}: {report}");
        assert_eq!(findings[0]["reason"], reason, "{case}");
        for form in ["text", "json", "sarif"] {
            let output = run_on(folder.path(), &["-", "-o", form], &bytes);
            let harmful = |c: char| c != '\n' && c.is_control() || c == '\u{202e}';
            assert!(!said(&output).contains(harmful), "{case}, {form}: {:?}", said(&output));
        }
    }
}

#[test]
fn nothing_to_look_at_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    save(folder.path(), "web.yaml", &service("shop", "web", 8080, ""));
    for (case, arguments, input, want) in [
        ("nothing", &["-"][..], "", "there is no manifest in standard input"),
        ("comments", &["-"], "# nothing\n---\n", "there is no manifest in standard input"),
        ("nothing, and a file", &["-", "web.yaml"], "", "there is no manifest in standard input"),
        ("an empty folder", &["empty"], "", "no manifest was found in empty: "),
    ] {
        let output = run_on(folder.path(), arguments, input.as_bytes());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{case}: {output:?}");
        assert!(error.contains(want), "{case}: {error}");
    }
    let good = run_on(folder.path(), &["-"], service("shop", "web", 8080, "").as_bytes());
    assert_eq!(good.status.code(), Some(0), "{good:?}");
}

#[test]
fn a_mistyped_namespace_is_noted() {
    let folder = folder_with(&service("shop", "web", 8080, "maesh.containo.us/traffic-type: pigeon"));
    let (found, code) = report(folder.path(), &[".", "--watch-namespace", "shpo"]);
    let notes = found["notes"].as_array().unwrap();
    assert_eq!((code, notes.len()), (Some(0), 1), "{found}");
    assert!(notes[0].as_str().unwrap().contains("--watch-namespace \"shpo\": no given object"), "{found}");
    let (found, code) = report(folder.path(), &[".", "--watch-namespace", ""]);
    assert_eq!((code, &found["notes"]), (Some(79), &json!([])), "an unset variable of a template: {found}");
    let refused = run(folder.path(), &[".", "--watch-namespace", "A B"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let refused = run(folder.path(), &[".", "--log-level", "[[["]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

/// `maesh dev` stays when a file is deeper than anything that is meant.
#[test]
fn a_deep_file_takes_nothing_down() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "deep.yaml", &format!("a: {}{}\n", "[".repeat(200), "]".repeat(200)));
    save(folder.path(), "web.yaml", &service("shop", "web", 8080, ""));
    let dev = Dev::start(folder.path());
    let output = command(&["get", "diagnostics", "--admin", &dev.admin().to_string()]).output().unwrap();
    assert!(said(&output).contains("too deep inside each other"), "{output:?}");
}

#[test]
fn the_case_of_a_kind_matters_and_is_said() {
    for kind in ["service", "SERVICE", "Services"] {
        let folder = folder_with(&format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: a}}\n"));
        let (report, code) = report(folder.path(), &["."]);
        let finding = &report["findings"][0];
        assert_eq!((code, &finding["severity"]), (Some(79), &json!("warning")), "{kind}: {report}");
        assert!(finding["message"].as_str().unwrap().contains("Did you mean Service?"), "{kind}: {report}");
    }
}
