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
