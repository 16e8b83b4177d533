//! `cargo xtask docs`: writes the pages of `docs/reference` that are generated from the code.
//!
//! Each page is written by the test that checks it, in the crate that knows its facts, so a page cannot be generated in one
//! way and checked in another.

#[cfg(test)]
mod links;

use anyhow::Result;
use maesh_test_support::{generated::WRITE, repository};

use crate::command::quietly;

/// The crates whose tests write pages.
const CRATES: [&str; 3] = ["maesh", "maesh-compiler", "maesh-proxy"];

/// The name of these tests.
const TEST: &str = "reference_page_is_current";

/// Writes all pages.
pub(crate) fn run() -> Result<()> {
    let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository()).env(WRITE, "1").arg("test");
    // Only targets that have such a test: the others would be built for nothing.
    cargo.args(["--lib", "--bins", "--test", "black_box"]);
    for name in CRATES {
        cargo.args(["--package", name]);
    }
    quietly(cargo.arg(TEST))?;
    println!("docs/reference is current; `git diff docs/reference` shows what changed");
    Ok(())
}
