//! Commands whose output matters only when they fail.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a long command says that it is still at work.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// What a command said and how it ended.
pub(crate) struct CommandOutput {
    /// Whether its exit code was 0.
    pub(crate) success: bool,
    /// Both outputs, in the order they were written.
    pub(crate) output: String,
}

/// Runs `command` without standard input, and collects what it prints. Every half minute the last line it printed is
/// shown after `name`.
pub(crate) fn collect(name: &str, command: &mut Command) -> Result<CommandOutput> {
    let mut file = tempfile::tempfile().context("a file for a command's output")?;
    let since = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file.try_clone()?)
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    // A thread that waits, so that this one can show signs of life.
    let (tell, told) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let status = child.wait();
        let _ = tell.send(());
        status
    });
    while told.recv_timeout(SIGN_OF_LIFE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        eprintln!("{name} ... {} s: {}", since.elapsed().as_secs(), last_line(&file));
    }
    let status = waiting.join().map_err(|_| anyhow::anyhow!("the thread that waits for {name} ended"))??;
    let mut output = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut output)?;
    let output = String::from_utf8_lossy(&output).into_owned();
    Ok(CommandOutput { success: status.success(), output })
}

/// Runs `command`; its output is a part of the error when it fails, and forgotten otherwise.
pub(crate) fn quietly(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let outcome = collect(&name, command)?;
    if !outcome.success {
        bail!("{command:?} failed:\n{}", outcome.output);
    }
    Ok(outcome.output)
}

/// The last line in `file` so far, read without moving the position that the command writes at.
fn last_line(file: &File) -> String {
    use std::os::unix::fs::FileExt;
    let length = file.metadata().map_or(0, |meta| meta.len());
    let mut tail = vec![0; 400];
    let read = file.read_at(&mut tail, length.saturating_sub(400)).unwrap_or(0);
    let text = String::from_utf8_lossy(tail.get(..read).unwrap_or_default()).into_owned();
    text.trim_end().rsplit('\n').next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_kept_in_order_and_failure_is_seen() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; echo out again; exit 3"]);
        let outcome = collect("sh", &mut command).unwrap();
        assert_eq!((outcome.success, outcome.output.as_str()), (false, "out\nerr\nout again\n"));
    }

    #[test]
    fn a_quiet_failure_shows_what_was_printed() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo because; exit 1"]);
        assert!(quietly(&mut command).unwrap_err().to_string().ends_with("because\n"));
        assert_eq!(quietly(Command::new("echo").arg("fine")).unwrap(), "fine\n");
    }
}
