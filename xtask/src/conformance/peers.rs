//! Programs around libraries of others, in `tests/peers/`, and programs of the system.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use maesh_test_support::{TOOLS, ToolError, program, repository, tool};

/// The programs in Go.
pub(super) const GO: &str = "peers";

/// A program of the system, or an error that says which of Debian's packages has it.
pub(super) fn installed(
    name: &'static str,
    package: &'static str,
    needed_for: &'static str,
) -> Result<PathBuf, ToolError> {
    program(name).ok_or(ToolError::NotInstalled { name, package, needed_for })
}

/// The one in Go, with the arguments for one of its parts.
pub(super) fn go(arguments: &[&str]) -> Result<Command, ToolError> {
    let mut command = Command::new(tool(GO)?);
    command.args(arguments);
    Ok(command)
}

/// A script for Node.js that needs a package.
pub(super) fn node(script: &str, package: &str) -> Result<Command, ToolError> {
    let folder = tool(package)?;
    let mut command = plain_node(script)?;
    command.env("NODE_PATH", folder.parent().unwrap_or(&folder));
    Ok(command)
}

/// The same for a package that needs Node.js 20.
pub(super) fn node_20(script: &str, package: &str) -> Result<Command, ToolError> {
    let needed_for = "libraries that Debian's own Node.js may be too old for";
    let program = installed("node", "nodejs", needed_for)?;
    let said = Command::new(program).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let major = said.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < 20) {
        return Err(ToolError::NotInstalled { name: "Node.js 20 or newer", package: "nodejs", needed_for });
    }
    node(script, package)
}

/// A script for Node.js that needs nothing else.
pub(super) fn plain_node(script: &str) -> Result<Command, ToolError> {
    let mut command = Command::new(installed("node", "nodejs", "servers and clients of another runtime")?);
    command.arg(in_peers("node").join(script)).env("NODE_NO_WARNINGS", "1");
    Ok(command)
}

/// A script for Python that needs a package.
pub(super) fn python(script: &str, package: &str) -> Result<Command, ToolError> {
    let packages = tool(package)?;
    let mut command = Command::new(installed("python3", "python3", "servers and clients of another runtime")?);
    command.arg(in_peers("python").join(script)).env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

pub(super) fn in_peers(path: impl AsRef<Path>) -> PathBuf {
    repository().join("tests/peers").join(path)
}

/// The version of a tool, for a page.
pub(super) fn version(name: &str) -> Result<&'static str> {
    let known = TOOLS.iter().find(|tool| tool.name == name).with_context(|| format!("{name} is no tool"))?;
    Ok(known.version)
}
