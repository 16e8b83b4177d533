//! Builds the programs of other projects that tests use into the cache.
//!
//! Which ones there are, and where they lie, is written in `maesh-test-support`, because tests look there by
//! themselves. Each is built beside its place and moved there whole, under a lock, so a build that is interrupted or
//! runs twice leaves nothing half done.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use maesh_test_support::{Source, TOOLS, Tool, cache, program, repository, tool};

use crate::command::quietly;

/// Builds each of `names` that is not there yet and prints where it is, one line each; all that exist when none are
/// named.
pub(crate) fn run(names: &[String]) -> Result<()> {
    if names.is_empty() {
        for tool in TOOLS {
            let state = if tool.file(tool.name).exists() { "built" } else { "not built" };
            println!("{:<12} {:<8} {state:<9} needed for {}", tool.name, tool.version, tool.needed_for);
        }
        return Ok(());
    }
    for name in names {
        let Some(wanted) = TOOLS.iter().find(|tool| tool.answers_to(name)) else {
            bail!("no tool is called {name}; cargo xtask tool lists them");
        };
        ensure(wanted)?;
        println!("{}", tool(name)?.display());
    }
    Ok(())
}

/// Builds `tool` unless it is there; says how long that took when it was not.
pub(crate) fn ensure(tool: &Tool) -> Result<()> {
    if tool.file(tool.name).exists() {
        return Ok(());
    }
    let folder = tool.folder();
    let tools = cache().join("tools");
    fs::create_dir_all(&tools).with_context(|| format!("creating {}", tools.display()))?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let lock = File::create(tools.join(format!(".{name}.lock")))?;
    lock.lock().with_context(|| format!("waiting for another build of {}", tool.name))?;
    if tool.file(tool.name).exists() {
        return Ok(());
    }
    let since = Instant::now();
    eprintln!("{} {}: building", tool.name, tool.version);
    let unfinished = tempfile::Builder::new().prefix(&format!(".{name}.")).tempdir_in(&tools)?;
    build(tool, unfinished.path()).with_context(|| format!("building {} {}", tool.name, tool.version))?;
    let _ = fs::remove_dir_all(&folder);
    fs::rename(unfinished.keep(), &folder).with_context(|| format!("moving to {}", folder.display()))?;
    eprintln!("{} {}: built in {} s", tool.name, tool.version, since.elapsed().as_secs());
    Ok(())
}

fn build(tool: &Tool, into: &Path) -> Result<()> {
    match tool.source {
        Source::Go { folder, package, names, variables, tags, modules } => {
            let mut linker = String::from("-s -w");
            for variable in variables {
                linker.push_str(" -X ");
                linker.push_str(variable);
            }
            let mut go = Command::new(needed("go", "Go modules are built with it", "install Go 1.26 or newer")?);
            go.current_dir(repository().join(folder))
                .env("CGO_ENABLED", "0")
                .env("GOFLAGS", format!("-trimpath -mod=readonly -buildvcs=false -modfile={modules}"))
                .args(["build", "-ldflags", &linker, "-tags", &tags.join(","), "-o"])
                .arg(into.join(tool.name))
                .arg(package);
            quietly(&mut go)?;
            for name in names {
                symlink(tool.name, into.join(name))?;
            }
        }
        Source::Crate => {
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            // Its own crates would otherwise fill our target folder.
            cargo.env_remove("CARGO_TARGET_DIR").args(["install", "--quiet", "--locked", "--no-track", "--root"]);
            quietly(cargo.arg(into).args(["--version", tool.version, tool.name]))?;
        }
        Source::Python { folder, .. } => {
            let python = needed("python3", "Python packages are installed with it", "apt-get install python3-pip")?;
            let mut pip = Command::new(python);
            pip.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--root-user-action",
                "ignore",
            ])
            .args(["--only-binary", ":all:", "--require-hashes", "--no-deps", "--no-compile", "--target"])
            .arg(into)
            .arg("--requirement")
            .arg(repository().join(folder).join("requirements.txt"));
            quietly(&mut pip)?;
        }
        Source::Npm { folder, .. } => {
            let npm = needed("npm", "npm packages are installed with it", "apt-get install npm")?;
            for file in ["package.json", "package-lock.json"] {
                let source = repository().join(folder).join(file);
                fs::copy(&source, into.join(file)).with_context(|| format!("copying {}", source.display()))?;
            }
            let mut npm = Command::new(npm);
            npm.current_dir(into).args(["ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"]);
            quietly(npm.arg("--no-update-notifier"))?;
        }
    }
    Ok(())
}

/// The program `name`, or an error that says what it is for and how to get it.
fn needed(name: &str, reason: &str, get: &str) -> Result<PathBuf> {
    program(name).with_context(|| format!("{name} is missing ({reason}): {get}"))
}
