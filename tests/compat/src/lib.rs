//! Talks with a program over its standard input and output, line by line; the tests beside this use it.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Longest wait for a line.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program that takes commands. Killed when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    commands: ChildStdin,
    lines: Receiver<String>,
    /// Lines that came while another one was awaited.
    passed: VecDeque<String>,
}

impl Program {
    /// Starts `command`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting a program")?;
        let commands = child.stdin.take().context("its standard input")?;
        let output = child.stdout.take().context("its standard output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, commands, lines, passed: VecDeque::new() })
    }

    /// Gives one command and waits for its "done".
    ///
    /// # Errors
    /// When the program ends or does not answer within half a minute.
    pub fn tell(&mut self, command: &str) -> Result<()> {
        writeln!(self.commands, "{command}")?;
        self.wait(|line| (line == "done").then_some(())).with_context(|| command.to_owned())
    }

    /// The first line that was not looked at yet and means something to `read`; others stay for later.
    ///
    /// # Errors
    /// When none comes within half a minute, with the lines that came.
    pub fn wait<T>(&mut self, mut read: impl FnMut(&str) -> Option<T>) -> Result<T> {
        for at in 0..self.passed.len() {
            if let Some(found) = read(&self.passed[at]) {
                self.passed.remove(at);
                return Ok(found);
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if let Some(found) = read(&line) {
                return Ok(found);
            }
            self.passed.push_back(line);
        }
        bail!("the line did not come; these did: {:#?}", self.passed)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
