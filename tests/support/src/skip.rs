//! How a test says that it could not run.

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::thread;

use crate::{program, tool};

/// The variable that names the file in which skipped tests are listed, one a line: the test's name, a tab, the reason.
pub const SKIPS: &str = "MAESH_SKIPS";

/// Says that this test cannot run here, and why. The test should then return.
pub fn skip(reason: &str) {
    eprintln!("SKIPPED: {reason}");
    let Some(file) = env::var_os(SKIPS) else { return };
    // libtest names a test's thread after the test.
    let line = format!("{}\t{}\n", thread::current().name().unwrap_or("a test"), reason.replace('\n', " "));
    let written =
        OpenOptions::new().create(true).append(true).open(&file).and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        // A skip that nobody hears of would pass for a success.
        panic!("cannot note the skipped test in {}: {error}", file.display());
    }
}

/// The file of a program that `cargo xtask tool` builds; skips the test when it is not there.
pub fn need_tool(name: &str) -> Option<PathBuf> {
    tool(name).inspect_err(|missing| skip(&missing.to_string())).ok()
}

/// The file of a program of the system; skips the test when it is not there. `package` is Debian's that has it.
pub fn need_program(name: &str, package: &str) -> Option<PathBuf> {
    let found = program(name);
    if found.is_none() {
        skip(&format!("{name} is missing: apt-get install {package}"));
    }
    found
}

/// Whether this is root, who may make network namespaces; skips the test when it is not.
pub fn need_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("only root may make network namespaces");
    }
    root
}
