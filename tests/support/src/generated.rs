//! Pages and manifests that are generated from code and checked in.
//!
//! The test that generates a file compares it with what is checked in, so a stale file fails `cargo xtask test`. With
//! [`WRITE`] set, the same test writes the file; `cargo xtask docs` sets it for all pages of the reference.

use std::fs;

use crate::repository;

/// When this variable is set, generated files are written.
pub const WRITE: &str = "MAESH_WRITE";

/// What stands at the top of a generated page.
pub const NOTE: &str = "<!-- Generated from the code by `cargo xtask docs`; do not edit. -->\n";

/// Compares `text` with a file of the repository, or writes it when [`WRITE`] is set. `command` is what writes it.
///
/// # Panics
/// When the file differs, or cannot be written.
#[track_caller]
pub fn is_current(file: &str, text: &str, command: &str) {
    let path = repository().join(file);
    if std::env::var_os(WRITE).is_some() {
        if let Err(error) = fs::write(&path, text) {
            panic!("writing {}: {error}", path.display());
        }
        return;
    }
    let before = fs::read_to_string(&path).unwrap_or_default();
    let differs = before.lines().zip(text.lines()).position(|(before, now)| before != now);
    let line = differs.unwrap_or_else(|| before.lines().count().min(text.lines().count())) + 1;
    assert!(
        before == text,
        "{file} is not what the code gives, from line {line} on. Check that this is meant, then: {command}"
    );
}
