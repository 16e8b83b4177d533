//! Where things are: the repository, and the cache outside of it.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of this repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

/// The folder for what is costly to build and belongs to no clone: `$MAESH_CACHE`, else `$XDG_CACHE_HOME/maesh`, else
/// `~/.cache/maesh`. It is created when it is missing.
pub(crate) fn cache() -> Result<PathBuf> {
    let named = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = named("MAESH_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|cache| cache.join("maesh")))
        .or_else(|| named("HOME").map(|home| home.join(".cache/maesh")))
        .context("no place for the cache: set MAESH_CACHE or HOME")?;
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

/// Finds a program on `PATH` and where Debian puts servers, which a plain user's `PATH` lacks.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file())
}
