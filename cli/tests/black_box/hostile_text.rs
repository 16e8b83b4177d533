//! Text that somebody else wrote, and a person's terminal: it is shown, and commands nothing.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    process::Output,
};

use crate::support::command;

/// What clears the screen, sets the title, turns writing round, and pretends to be a line of ours.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{202e}\r\nerror: forged\nready";

/// Answers every request with this status and body, for as long as the test runs.
fn server(status: &'static str, kind: &'static str, body: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            if lines.any(|line| line.is_empty()) {
                let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n");
                let _ = write!(&stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
            }
        }
    });
    at
}

fn assert_harmless(what: &[&str], output: &Output) {
    for text in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(text).into_owned();
        let harmful = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(harmful), "{what:?}: {text:?}");
    }
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    assert!(said.contains("forged"), "{what:?}: it is shown: {said}");
}

#[test]
fn what_a_peer_answers_commands_no_terminal() {
    let dev = server("500 Internal Server Error", "text/plain", HOSTILE.to_owned()).to_string();
    for arguments in [
        &["explain", "web.shop.maesh", "--admin", &dev][..],
        &["explain", "web.shop.maesh", "--admin", &dev, "-o", "json"],
        &["status", "--admin", &dev],
        &["status", "--admin", &dev, "-o", "yaml"],
        &["get", "services", "--admin", &dev],
    ] {
        let output = command(arguments).output().unwrap();
        assert_harmless(arguments, &output);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!said.lines().any(|line| line == "error: forged"), "{arguments:?}: {said}");
        if arguments.contains(&"json") {
            let report: serde_json::Value = serde_json::from_str(&said).unwrap();
            assert!(report.to_string().contains("forged"), "{report}");
        }
    }
}

#[test]
fn what_an_api_server_answers_commands_no_terminal() {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Forbidden", "code": 403,
        "message": HOSTILE,
    });
    let at = server("403 Forbidden", "application/json", status.to_string());
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("config");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: 'http://{at}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let kubeconfig = kubeconfig.to_str().unwrap();
    for arguments in [
        &["explain", "web.shop.maesh"][..],
        &["status"],
        &["get", "services"],
        &["check"],
        &["check", "--pre", "-o", "json"],
        &["dns", "status"],
        &["dns", "uninstall"],
        &["uninstall"],
    ] {
        let output = command(arguments).args(["--kubeconfig", kubeconfig]).output().unwrap();
        assert_harmless(arguments, &output);
    }
}
