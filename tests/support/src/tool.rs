//! The programs of other projects that tests use and no package of the system has: where each comes from, and where
//! it lies once it is built.
//!
//! A program lies in a folder of the cache that is named after its version and after everything it is built from.
//! So two clones at different commits share a cache without disturbing each other, and a change of either makes a new
//! folder.

mod list;

use std::fs;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use self::list::GO_MOD;
pub use self::list::TOOLS;
use crate::{cache, repository};

/// A program that is built into the cache.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// What tests and people call it.
    pub name: &'static str,
    /// The version that is built; part of the folder's name.
    pub version: &'static str,
    /// What it is needed for, as the end of "needed for ...".
    pub needed_for: &'static str,
    /// How it is built.
    pub source: Source,
}

/// How a program is built.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    /// From Go modules whose sums are committed.
    Go {
        /// Folder of our module, from the repository's root.
        folder: &'static str,
        /// The package to build: `.` for our own main.
        package: &'static str,
        /// Names under which the program is found as well, because it behaves by its name.
        names: &'static [&'static str],
        /// Settings given to the linker as `-X NAME=VALUE`.
        variables: &'static [&'static str],
        /// Build tags.
        tags: &'static [&'static str],
        /// The file with the modules' versions, beside another version's: `go.mod` where there is one only. Their sums
        /// are in the file of the same name that ends in `.sum`.
        modules: &'static str,
    },
    /// From a crate that is not a part of the workspace.
    Crate,
    /// From Python packages whose sums are committed in `requirements.txt`.
    Python {
        /// Folder with `requirements.txt`, from the repository's root.
        folder: &'static str,
        /// The program inside the installed packages; empty when the folder itself is wanted, for `PYTHONPATH`.
        program: &'static str,
    },
    /// From npm packages whose sums are committed in `package-lock.json`.
    Npm {
        /// Folder with `package.json` and `package-lock.json`, from the repository's root.
        folder: &'static str,
        /// The installed package that is wanted. The folder above it is for `NODE_PATH`.
        package: &'static str,
    },
}

/// Why a program is not there.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It has not been built for this state of the repository.
    #[error("{name} {version} is not built, needed for {needed_for}: cargo xtask tool {name}")]
    Missing {
        /// The program.
        name: &'static str,
        /// Its version.
        version: &'static str,
        /// What for.
        needed_for: &'static str,
    },
    /// A program of the system is not installed.
    #[error("{name} is missing, needed for {needed_for}: apt-get install {package}")]
    NotInstalled {
        /// The program, with its version where that matters.
        name: &'static str,
        /// Debian's package that has it.
        package: &'static str,
        /// What for.
        needed_for: &'static str,
    },
    /// Nothing of this name is in [`TOOLS`].
    #[error("no tool is called {0}")]
    Unknown(String),
}

/// The file of the program that is called `name` (a tool's name, or one of the names it is found under as well).
///
/// # Errors
/// When no tool has this name, or it has not been built.
pub fn tool(name: &str) -> Result<PathBuf, ToolError> {
    let Some(tool) = TOOLS.iter().find(|tool| tool.answers_to(name)) else {
        return Err(ToolError::Unknown(name.to_owned()));
    };
    let file = tool.file(name);
    if file.exists() {
        return Ok(file);
    }
    Err(ToolError::Missing { name: tool.name, version: tool.version, needed_for: tool.needed_for })
}

impl Tool {
    /// Says whether the program is found under `name`.
    pub fn answers_to(&self, name: &str) -> bool {
        self.name == name || matches!(self.source, Source::Go { names, .. } if names.contains(&name))
    }

    /// The folder in the cache where this program lies, or will, for the present state of the repository.
    pub fn folder(&self) -> PathBuf {
        let mut hash = Xxh3::new();
        let stem = match self.source {
            Source::Go { folder, package, names, variables, tags, modules } => {
                let modules = if modules == GO_MOD { &[][..] } else { &[modules] };
                for part in [&[package][..], names, variables, tags, modules].concat() {
                    hash.update(part.as_bytes());
                    hash.update(&[0]);
                }
                hash_folder(&mut hash, &repository().join(folder));
                format!("{}-{}", self.name, self.version)
            }
            Source::Crate => format!("{}-{}", self.name, self.version),
            // Installed together, for all that need one of them.
            Source::Python { folder, .. } => {
                hash_folder(&mut hash, &repository().join(folder));
                "python".to_owned()
            }
            Source::Npm { folder, .. } => {
                hash_folder(&mut hash, &repository().join(folder));
                "npm".to_owned()
            }
        };
        cache().join("tools").join(format!("{stem}-{:016x}", hash.digest()))
    }

    /// The file of the program under the name `name`, see [`Tool::answers_to`].
    pub fn file(&self, name: &str) -> PathBuf {
        match self.source {
            Source::Go { .. } => self.folder().join(name),
            Source::Crate => self.folder().join("bin").join(name),
            Source::Python { program, .. } => self.folder().join(program),
            Source::Npm { package, .. } => self.folder().join("node_modules").join(package),
        }
    }
}

/// Adds the names and contents of the files in `folder`, in a fixed order. What cannot be read counts as empty: the
/// build itself then says what is wrong.
fn hash_folder(hash: &mut Xxh3, folder: &Path) {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    for file in files.iter().filter(|file| file.is_file()) {
        let content = fs::read(file).unwrap_or_default();
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(&[0]);
        hash.update(&content.len().to_le_bytes());
        hash.update(&content);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_follow_contents() {
        let folder = tempfile::tempdir().unwrap();
        let digest = || {
            let mut hash = Xxh3::new();
            hash_folder(&mut hash, folder.path());
            hash.digest()
        };
        let empty = digest();
        fs::write(folder.path().join("a"), "12").unwrap();
        let one = digest();
        assert_ne!(empty, one, "a file came");
        assert_eq!(one, digest(), "nothing changed");
        fs::write(folder.path().join("a"), "1").unwrap();
        fs::write(folder.path().join("b"), "2").unwrap();
        assert_ne!(one, digest(), "the same bytes in two files");
    }

    #[test]
    fn every_tool_has_its_sources_and_a_name_of_its_own() {
        for (index, tool) in TOOLS.iter().enumerate() {
            let file = match tool.source {
                Source::Go { folder, modules, .. } => {
                    Some(repository().join(folder).join(modules).with_extension("sum"))
                }
                Source::Python { folder, .. } => Some(repository().join(folder).join("requirements.txt")),
                Source::Npm { folder, .. } => Some(repository().join(folder).join("package-lock.json")),
                Source::Crate => None,
            };
            assert!(file.is_none_or(|file| file.exists()), "{}", tool.name);
            assert!(!TOOLS[..index].iter().any(|other| other.answers_to(tool.name)), "{} twice", tool.name);
        }
    }

    #[test]
    fn what_is_missing_says_how_to_get_it() {
        let Tool { name, version, needed_for, .. } = TOOLS[0];
        assert_eq!(
            ToolError::Missing { name, version, needed_for }.to_string(),
            "etcd 3.7.3 is not built, needed for a real Kubernetes API server: cargo xtask tool etcd"
        );
        assert!(matches!(tool("no-such-thing"), Err(ToolError::Unknown(_))));
    }
}
