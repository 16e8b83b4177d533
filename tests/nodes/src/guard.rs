//! Cleans up after an owner that ends in whatever way: panic, Ctrl-C, SIGKILL.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// Waits for a line or the end of its input; without a line it runs its arguments.
const SCRIPT: &str = r#"trap '' INT TERM HUP QUIT; read -r line && exit 0; exec "$@""#;

/// While this lives, the end of this process takes the cluster down; so does dropping it.
#[derive(Debug)]
pub struct Guard {
    shell: Child,
}

impl Guard {
    /// Waits until no other owner is at work. `cleaner` is a program with arguments that calls [`crate::down()`].
    ///
    /// # Errors
    /// When the lock's file cannot be made, or no shell started.
    pub fn new(cleaner: &[OsString]) -> Result<Self> {
        let cache = maesh_test_support::cache();
        fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
        let lock = File::create(cache.join("cluster.lock")).context("the lock of the cluster")?;
        // Two owners would take each other's cluster down. The lock is the shell's from here on: it ends when all is
        // cleaned up, and not with this process.
        lock.lock().context("waiting for another owner of the cluster")?;
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "guard"])
            .args(cleaner)
            .stdin(Stdio::piped())
            .stdout(lock)
            .process_group(0)
            .spawn()
            .context("starting sh")?;
        Ok(Self { shell })
    }

    /// Leaves the cluster to whoever comes next.
    ///
    /// # Errors
    /// When the guard has gone.
    pub fn keep(mut self) -> Result<()> {
        if let Some(input) = &mut self.shell.stdin {
            input.write_all(b"keep\n").context("telling the guard")?;
        }
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
