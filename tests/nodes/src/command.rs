//! Commands that must succeed, and daemons that outlive this process.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `command` and returns what it printed.
pub(crate) fn checked(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        let words = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        bail!("{command:?} failed: {}", words.join("\n"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a line of words, split at spaces, that must succeed.
pub(crate) fn line(words: &str) -> Result<String> {
    let mut words = words.split(' ');
    checked(Command::new(words.next().unwrap_or_default()).args(words))
}

/// Starts `command` in the cgroups `groups`, in a session of its own, with its output in the file `log`.
pub(crate) fn daemon(command: &Command, groups: &[std::path::PathBuf], log: &Path) -> Result<Child> {
    const JOIN: &str = r#"n=$1; shift
while [ "$n" -gt 0 ]; do echo $$ > "$1/cgroup.procs" || exit 1; shift; n=$((n - 1)); done
exec setsid "$@""#;
    let log = File::create(log).with_context(|| log.display().to_string())?;
    let mut joined = Command::new("sh");
    joined.args(["-c", JOIN, "join"]).arg(groups.len().to_string()).args(groups);
    joined.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            joined.env(name, value);
        }
    }
    joined.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    joined.spawn().with_context(|| format!("starting {command:?}"))
}
