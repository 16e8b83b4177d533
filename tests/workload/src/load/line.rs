//! The log: one line of JSON a request, written as soon as its outcome is known.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::call::Failure;
use crate::seen::Seen;

/// One request, or one long stream, and what came of it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Line {
    /// When it began, in milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) took_us: u64,
    /// The plan that it belongs to.
    pub(crate) plan: String,
    /// Whether it was a long stream.
    pub(crate) long: bool,
    /// Whether the plain name was asked instead, because the DNS does not serve the other.
    pub(crate) plain: bool,
    /// Where it went.
    pub(crate) address: Option<std::net::IpAddr>,
    /// DNS queries that were sent again because nobody answered the first.
    pub(crate) resent: u32,
    /// Who answered; its `source` is the proxy, or this pod where there was none.
    #[serde(flatten)]
    pub(crate) seen: Seen,
    /// Exchanges on a long stream.
    pub(crate) exchanges: u32,
    /// How a long stream ended in order.
    pub(crate) ended: Option<String>,
    /// Why it failed.
    pub(crate) failure: Option<String>,
}

/// Where lines go. While a clone lives, the log is open.
#[derive(Clone)]
pub(crate) struct Log {
    lines: mpsc::UnboundedSender<Line>,
    end: watch::Sender<bool>,
}

/// Measures one request.
pub(crate) struct Begun {
    line: Line,
    since: std::time::Instant,
}

impl Log {
    /// Opens the file anew, and writes what comes until the last clone is gone.
    pub(crate) fn start(path: &Path) -> Result<(Self, JoinHandle<()>)> {
        let mut file = BufWriter::new(File::create(path).with_context(|| path.display().to_string())?);
        let (lines, mut come) = mpsc::unbounded_channel();
        let writing = tokio::task::spawn_blocking(move || {
            while let Some(line) = come.blocking_recv() {
                let written = serde_json::to_writer(&mut file, &line).map_err(std::io::Error::from);
                let written = written.and_then(|()| file.write_all(b"\n")).and_then(|()| file.flush());
                if let Err(error) = written {
                    // Requests that nobody can count would pass for good ones.
                    eprintln!("error: the log cannot be written: {error}");
                    std::process::exit(1);
                }
            }
        });
        Ok((Self { lines, end: watch::Sender::new(false) }, writing))
    }

    /// Begins a request of `plan`.
    pub(crate) fn begin(plan: &str) -> Begun {
        let at = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_millis() as u64);
        Begun { line: Line { at, plan: plan.to_owned(), ..Line::default() }, since: std::time::Instant::now() }
    }

    /// Tells long streams to write what they did.
    pub(crate) fn end(&self) {
        self.end.send_replace(true);
    }

    /// Until [`Self::end`] was called.
    pub(crate) async fn ended(&self) {
        let _ = self.end.subscribe().wait_for(|ended| *ended).await;
    }

    /// Writes a request down.
    pub(crate) fn write(&self, begun: Begun, outcome: Result<Seen, Failure>) {
        let mut line = begun.line;
        line.took_us = begun.since.elapsed().max(Duration::from_micros(1)).as_micros() as u64;
        match outcome {
            Ok(seen) => line.seen = seen,
            Err(failure) => line.failure = Some(failure.to_string()),
        }
        // The writer outlives every sender.
        let _ = self.lines.send(line);
    }
}

/// Prints the lines of requests that began at `since` or later, in milliseconds since 1970.
pub(crate) fn read(path: &Path, since: u64) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Began {
        at: u64,
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    for line in BufReader::new(File::open(path).with_context(|| path.display().to_string())?).lines() {
        let line = line?;
        // The last line may not be whole yet.
        if serde_json::from_str::<Began>(&line).is_ok_and(|began| began.at >= since) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(out.flush()?)
}

impl std::ops::Deref for Begun {
    type Target = Line;

    fn deref(&self) -> &Line {
        &self.line
    }
}

impl std::ops::DerefMut for Begun {
    fn deref_mut(&mut self) -> &mut Line {
        &mut self.line
    }
}
