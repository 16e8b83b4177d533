//! The programs that make the load, and what they report. Whatever fails under load is a failure of the bench.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::rivals::{Setting, need, version};
use crate::measure::Running;

/// Runs a load to its end and returns what it printed.
pub(crate) fn finish(command: Command) -> Result<String> {
    let mut run = Running::start("load", command)?;
    let status = run.wait()?;
    let text = run.output();
    if !status.success() {
        bail!("the load ended with {status}:\n{text}");
    }
    Ok(text)
}

/// wrk: HTTP/1.1, as many requests as connections under way.
pub(crate) struct Wrk {
    program: PathBuf,
    /// Name and version.
    pub(crate) version: String,
}

impl Wrk {
    pub(crate) fn find() -> Result<Self> {
        let program = need("wrk")?;
        Ok(Self { version: version(&program, "-v")?, program })
    }

    /// Asks `url` for `seconds` over `connections`, with one header `field`; returns how many requests were answered
    /// with 200.
    pub(crate) fn ask(&self, setting: &Setting, connections: u32, seconds: u64, field: &str, url: &str) -> Result<f64> {
        let mut command = setting.load(&self.program);
        command.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "-H", field, url]);
        let text = finish(command)?;
        if text.contains("Non-2xx") || text.contains("Socket errors") {
            bail!("requests failed:\n{text}");
        }
        number_before(&text, " requests in").with_context(|| format!("reading the load's report:\n{text}"))
    }
}

/// Connections of HTTP/2, and requests under way on each.
const CONNECTIONS: u32 = 8;
const STREAMS: u32 = 16;

/// h2load: HTTP/2, or HTTP/1.1 with connections at a fixed rate.
pub(crate) struct H2load {
    program: PathBuf,
    /// Name and version.
    pub(crate) version: String,
}

/// What h2load reports.
#[derive(Debug, PartialEq)]
pub(crate) struct Answered {
    /// Requests answered with 200 (any 2xx; nothing here answers another one).
    pub(crate) requests: f64,
    /// Bytes of their bodies.
    pub(crate) bytes: f64,
}

impl H2load {
    pub(crate) fn find() -> Result<Self> {
        let program = need("h2load")?;
        Ok(Self { version: version(&program, "--version")?, program })
    }

    /// What [`Self::streams`] does, for the line below a table.
    pub(crate) fn streams_text(&self) -> String {
        format!("{}, HTTP/2 on both sides, {CONNECTIONS} connections with {STREAMS} streams", self.version)
    }

    /// Asks `url` for `seconds` over HTTP/2; bodies that are not `length` bytes long are failures. `arguments` are
    /// further ones of h2load.
    pub(crate) fn streams(
        &self,
        setting: &Setting,
        seconds: u64,
        arguments: &[String],
        url: &str,
        length: usize,
    ) -> Result<f64> {
        let mut command = self.command(setting);
        command.args([format!("-c{CONNECTIONS}"), format!("-m{STREAMS}"), "-D".into(), seconds.to_string()]);
        command.args(arguments).arg(url);
        let answered = Answered::read(&finish(command)?)?;
        // Bodies that were on their way at the end count, their requests do not.
        answered.check(length, CONNECTIONS * STREAMS)?;
        Ok(answered.requests)
    }

    /// Opens `rate` connections a second for `seconds` over HTTP/1.1 (ten milliseconds' worth at a time), one request
    /// on each, whose answer must be `length` bytes long; returns how many there were.
    pub(crate) fn connections(
        &self,
        setting: &Setting,
        rate: u64,
        seconds: u64,
        host: &str,
        url: &str,
        length: usize,
    ) -> Result<f64> {
        let at_a_time = rate / 100;
        let count = at_a_time * 100 * seconds;
        let mut command = self.command(setting);
        command.args([format!("-c{count}"), format!("-n{count}"), format!("-r{at_a_time}")]);
        command.args(["--h1", "--rate-period", "10ms", "-H", &format!(":authority: {host}"), url]);
        let answered = Answered::read(&finish(command)?)?;
        answered.check(length, 0)?;
        Ok(answered.requests)
    }

    fn command(&self, setting: &Setting) -> Command {
        let mut command = setting.load(&self.program);
        command.arg("-t1");
        command
    }
}

impl Answered {
    fn read(text: &str) -> Result<Self> {
        let number = |label: &str| {
            number_before(text, label).with_context(|| format!("no{label} in the load's report:\n{text}"))
        };
        if number(" failed,")? > 0.0 {
            bail!("requests failed:\n{text}");
        }
        // `7.48MB (7839504) data`
        let data = text.split_once(") data").and_then(|(before, _)| before.rsplit('(').next()?.parse().ok());
        Ok(Self {
            requests: number(" 2xx,")?,
            bytes: data.with_context(|| format!("no bytes in the load's report:\n{text}"))?,
        })
    }

    /// Says whether all bodies were `length` bytes long. Up to `more` were under way at the end: counted with their heads and
    /// not here, or here and not counted.
    fn check(&self, length: usize, more: u32) -> Result<()> {
        #[allow(clippy::cast_precision_loss, reason = "a length of some bytes")]
        let length = length as f64;
        let open = f64::from(more);
        let (least, most) = ((self.requests - open) * length, (self.requests + open) * length);
        if !(least..=most).contains(&self.bytes) {
            bail!("{} answers of {length} bytes had {} bytes together", self.requests, self.bytes);
        }
        Ok(())
    }
}

/// The number after `label` in a program's report; thousands are not separated in any of those read here.
pub(crate) fn number_before(text: &str, label: &str) -> Option<f64> {
    let (before, _) = text.split_once(label)?;
    before.split_whitespace().next_back()?.trim_end_matches(',').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "requests: 9 total, 12 started, 9 done, 9 succeeded, 0 failed, 0 errored, 0 timeout\n\
        status codes: 9 2xx, 0 3xx, 0 4xx, 0 5xx\n\
        traffic: 1.2KB (1200) total, 77B (77) headers (space savings 96.19%), 621B (621) data\n";

    #[test]
    fn numbers_of_reports() {
        for (case, text, label, want) in [
            ("wrk", "  26712 requests in 1.10s, 5.17MB read\n", " requests in", Some(26712.0)),
            ("h2load", REPORT, " succeeded", Some(9.0)),
            ("absent", "nothing here", " requests in", None),
        ] {
            assert_eq!(number_before(text, label), want, "{case}");
        }
    }

    #[test]
    fn answers_are_counted_with_their_bytes() {
        assert_eq!(Answered::read(REPORT).unwrap(), Answered { requests: 9.0, bytes: 621.0 });
        assert!(Answered::read(&REPORT.replace("0 failed", "1 failed")).is_err());
        assert!(Answered::read("nothing").is_err());
    }

    #[test]
    fn bodies_of_another_length_are_seen() {
        let answered = Answered { requests: 9.0, bytes: 621.0 };
        for (length, more, fits) in
            [(69, 0, true), (70, 0, false), (70, 1, true), (700, 8, false), (68, 0, false), (68, 1, true)]
        {
            assert_eq!(answered.check(length, more).is_ok(), fits, "{length} bytes, {more} more");
        }
    }
}
