//! Commands whose standard output is closed or full.

use std::{
    fs::OpenOptions,
    process::{Command, Output, Stdio},
};

const COMMANDS: [&[&str]; 3] = [&["version"], &["version", "--output", "json"], &["completion", "bash"]];

fn run(arguments: &[&str], stdout: Stdio) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maesh"));
    command.args(arguments).stdout(stdout).stderr(Stdio::piped());
    command.spawn().expect("started").wait_with_output().expect("ended")
}

/// `maesh completion bash | head -1`.
#[test]
fn a_reader_that_is_gone_is_no_failure() {
    for arguments in COMMANDS {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let gone = run(arguments, writer.into());
        let whole = run(arguments, Stdio::null());
        assert_eq!(gone.status.code(), whole.status.code(), "{arguments:?}: {}", String::from_utf8_lossy(&gone.stderr));
        assert!(gone.status.code().is_some(), "{arguments:?}: {}", gone.status);
    }
}

#[test]
fn a_full_disk_is_a_failure_with_a_message() {
    for arguments in COMMANDS {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let output = run(arguments, full.into());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("cannot write to standard output: No space left on device"), "{arguments:?}: {said}");
    }
}
