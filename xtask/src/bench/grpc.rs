//! Unary gRPC calls beside Envoy, HAProxy and nginx: HTTP/2 without TLS on both sides, small messages.
//!
//! Load and endpoints are h2load and nghttpd, which are given all that makes a gRPC call: the message with its prefix, the
//! header fields and the status in the trailers. h2load checks the status and the length of every answer; a
//! proxy that answers by itself has no message, and would be seen by that. It does not look at trailers, so
//! that they arrive is checked by calls of nghttp before and after each measurement.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::backends;
use super::comparison::{Comparison, ratio_to, ratios};
use super::load::{H2load, finish};
use super::rivals::{Field, HOST, Rival, SERVICES, Setting, Template, WARM_UP, need};
use super::traffic::{CONNECTIONS, Traffic};
use crate::measure::{Figure, Metric, Rounds};

/// Our processor time for a call, of Envoy's.
const OF_ENVOY: Figure = Figure { must: 0.35, goal: 0.2, unit: "" };

/// The method that is called. nghttpd takes the type of an answer from what follows the last dot.
const METHOD: &str = "bench.Echo/Say.grpc";

/// Characters in the one field of each message, both ways.
const TEXT: u8 = 62;

/// Calls whose trailers are looked at, before each measurement and after it.
const CHECKED: usize = 100;

/// Columns of the table.
const METRICS: [Metric; 5] = [
    Metric { name: "CPU (µs/call)", digits: 1 },
    Metric { name: "user", digits: 1 },
    Metric { name: "system", digits: 1 },
    Metric { name: "calls/s", digits: 0 },
    Metric { name: "memory (MiB)", digits: 0 },
];

/// What can be chosen.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    pub(super) setting: Setting,
}

/// Runs the bench and prints its table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let setting = &options.setting;
    let (h2load, nghttp) = (H2load::find()?, need("nghttp")?);
    let mut template = Template::new()?;
    let message = write_answer(template.folder())?;
    let endpoint = [
        format!("--mime-types-file={}", template.folder().join("types").display()),
        "--trailer=grpc-status: 0".to_owned(),
        "--no-content-length".to_owned(),
    ];
    let _backends = backends::nghttpd(setting, &mut template, &endpoint)?;
    Traffic::Grpc.configure(&mut template, SERVICES, CONNECTIONS)?;
    let field = Field { setting, templates: "http", count: SERVICES, names: [HOST; 2] };
    let rivals = field.start(&mut template, Traffic::Grpc.rivals())?;

    let bench = GrpcBench { options, h2load, nghttp, message };
    let comparison = Comparison { metrics: &METRICS, rounds: &options.rounds, reference: "envoy" };
    let series = comparison.print(&rivals, |rival| &rival.name, |rival| bench.measure(rival))?;
    println!("{}", ratios("CPU per call", &series, 0));
    if let Some(ratio) = ratio_to("envoy", &series, 0) {
        println!("CPU per call, of Envoy's: {ratio:.2}; must (goal) {}.\n", OF_ENVOY.judge(ratio));
    }
    println!(
        "{SERVICES} Services, three endpoints each, one Service called; messages of {TEXT} characters both ways; {}; \
         {}.",
        bench.h2load.streams_text(),
        comparison.conditions("")
    );
    Ok(())
}

/// Writes the answer of [`METHOD`], and the types of files that nghttpd knows; returns where the answer is, which is the
/// question as well.
fn write_answer(folder: &Path) -> Result<PathBuf> {
    let answer = folder.join(METHOD);
    fs::create_dir_all(answer.parent().context("a method has a service")?)?;
    fs::write(&answer, message())?;
    fs::write(folder.join("types"), "application/grpc grpc\n")?;
    Ok(answer)
}

/// A message with one field of text, behind the prefix of gRPC: not compressed, and how long it is.
fn message() -> Vec<u8> {
    // Field 1, which has a length.
    let head = [0x0a, TEXT];
    let text = [b'x'; TEXT as usize];
    [&[0, 0, 0, 0, TEXT + 2][..], &head, &text].concat()
}

struct GrpcBench<'a> {
    options: &'a Options,
    h2load: H2load,
    nghttp: PathBuf,
    /// File with the message of every call.
    message: PathBuf,
}

impl GrpcBench<'_> {
    fn measure(&self, rival: &Rival) -> Result<Vec<f64>> {
        self.check(rival)?;
        self.call(rival, WARM_UP.as_secs())?;
        let before = rival.process.usage()?;
        let calls = self.call(rival, self.options.rounds.seconds)?;
        let used = rival.process.usage()? - before;
        self.check(rival)?;
        #[allow(clippy::cast_precision_loss, reason = "some seconds")]
        let rate = calls / self.options.rounds.seconds as f64;
        Ok([&used.micros_per(calls)[..], &[rate, rival.process.memory()?]].concat())
    }

    /// Calls for `seconds`; returns how many calls were answered with the whole message.
    fn call(&self, rival: &Rival, seconds: u64) -> Result<f64> {
        let url = format!("http://{}/{METHOD}", rival.port);
        self.h2load.streams(&self.options.setting, seconds, &self.arguments(), &url, message().len())
    }

    /// Makes [`CHECKED`] calls at once and looks at everything that came back.
    fn check(&self, rival: &Rival) -> Result<()> {
        let mut command = self.options.setting.load(&self.nghttp);
        command.args(["--verbose", "--null-out", "--timeout=10", &format!("--multiply={CHECKED}")]);
        command.args(self.arguments()).arg(format!("http://{}/{METHOD}", rival.port));
        let answers = Answers::read(&finish(command)?);
        let want = Answers { ok: CHECKED, grpc: CHECKED, status_0: CHECKED, bytes: CHECKED * message().len() };
        if answers != want {
            bail!("{CHECKED} calls through {} were answered with {answers:?} instead of {want:?}", rival.name);
        }
        Ok(())
    }

    /// What makes a request of h2load and of nghttp a call.
    fn arguments(&self) -> Vec<String> {
        let fields = [&format!(":authority: {HOST}"), "content-type: application/grpc", "te: trailers"];
        let mut arguments: Vec<String> =
            fields.iter().flat_map(|field| ["-H".to_owned(), (*field).to_owned()]).collect();
        arguments.extend(["-d".to_owned(), self.message.display().to_string()]);
        arguments
    }
}

/// What nghttp saw come back, of all calls together.
#[derive(Debug, Default, PartialEq)]
struct Answers {
    /// Answers with the status 200.
    ok: usize,
    /// Answers that are gRPC by their type.
    grpc: usize,
    /// Calls that ended well.
    status_0: usize,
    /// Bytes of messages, prefixes included.
    bytes: usize,
}

impl Answers {
    /// Reads lines such as `[  0.024] recv (stream_id=13) grpc-status: 0` and `... recv DATA frame <length=69, ...>`.
    fn read(text: &str) -> Self {
        let mut seen = Self::default();
        for line in text.lines().filter_map(|line| Some(line.split_once("] recv ")?.1)) {
            let field = line.split_once(") ").map_or("", |(_, field)| field.trim());
            seen.ok += usize::from(field == ":status: 200");
            seen.grpc += usize::from(field == "content-type: application/grpc");
            seen.status_0 += usize::from(field == "grpc-status: 0");
            let length = line.strip_prefix("DATA frame <length=").and_then(|rest| rest.split(',').next());
            seen.bytes += length.and_then(|length| length.parse::<usize>().ok()).unwrap_or(0);
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_its_length() {
        let message = message();
        assert_eq!(message.len(), 69);
        assert_eq!(&message[..7], &[0, 0, 0, 0, 64, 0x0a, 62]);
    }

    #[test]
    fn answers_are_read_and_requests_are_not() {
        let text = "[  0.001] send HEADERS frame <length=84, flags=0x24, stream_id=13>\n\
            \x20         content-type: application/grpc\n\
            [  0.001] send DATA frame <length=69, flags=0x01, stream_id=13>\n\
            [  0.024] recv (stream_id=13) :status: 200\n\
            [  0.024] recv (stream_id=13) content-type: application/grpc\n\
            [  0.024] recv DATA frame <length=60, flags=0x00, stream_id=13>\n\
            [  0.024] recv DATA frame <length=9, flags=0x00, stream_id=13>\n\
            [  0.024] recv (stream_id=13) grpc-status: 0\n\
            [  0.024] recv (stream_id=15) :status: 200\n\
            [  0.024] recv (stream_id=15) grpc-status: 14\n";
        assert_eq!(Answers::read(text), Answers { ok: 2, grpc: 1, status_0: 1, bytes: 69 });
    }
}
