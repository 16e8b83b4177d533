//! Where things are: the repository, and the cache outside of it.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The root of this repository.
///
/// Where it is now, if cargo runs this program: with a folder for builds that several clones share, cargo may take a program
/// that was built in another one, which may be gone.
pub fn repository() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let running = package.as_deref().and_then(root_of).map(Path::to_owned);
        running.unwrap_or_else(|| {
            let built = Path::new(env!("CARGO_MANIFEST_DIR"));
            root_of(built).unwrap_or(built).to_owned()
        })
    });
    &ROOT
}

/// The folder of the workspace that a package belongs to.
fn root_of(package: &Path) -> Option<&Path> {
    package.ancestors().find(|folder| folder.join("Cargo.lock").is_file())
}

/// The folder for what is costly to build and belongs to no clone: `$MAESH_CACHE`, else `$XDG_CACHE_HOME/maesh`, else
/// `~/.cache/maesh`, else (no home) `maesh-cache` in the folder for temporary files. It may not exist yet.
pub fn cache() -> PathBuf {
    let named = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("MAESH_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|cache| cache.join("maesh")))
        .or_else(|| named("HOME").map(|home| home.join(".cache/maesh")))
        .unwrap_or_else(|| env::temp_dir().join("maesh-cache"))
}

/// Finds a program on `PATH` and where Debian puts servers, which a plain user's `PATH` lacks.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file())
}
