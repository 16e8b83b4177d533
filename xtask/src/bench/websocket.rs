//! WebSocket messages beside HAProxy, nginx and Envoy: connections stay open, and each sends a message and waits until
//! it comes back. So a message passes the proxy twice.
//!
//! Caller and endpoint are the program of `tests/bench/websocket`, which compares every message that comes back.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use super::backends;
use super::comparison::{Comparison, ratios};
use super::load::{finish, number_before};
use super::rivals::{Field, HOST, Rival, SERVICES, Setting, Template, WARM_UP, built};
use super::traffic::{CONNECTIONS, Traffic};
use crate::measure::{Metric, Rounds, Running};

/// Package and program that make and answer messages.
const PROGRAM: &str = "maesh-bench-websocket";

/// Lengths of messages. The first is the longest that has a head of two bytes.
const LENGTHS: [u64; 2] = [125, 16 * 1024];

/// Columns of the table.
const METRICS: [Metric; 5] = [
    Metric { name: "125 bytes: CPU (µs/message)", digits: 1 },
    Metric { name: "messages/s", digits: 0 },
    Metric { name: "16 KiB: CPU (µs/message)", digits: 1 },
    Metric { name: "messages/s", digits: 0 },
    Metric { name: "memory (MiB)", digits: 0 },
];

/// What can be chosen.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    pub(super) setting: Setting,
    /// Connections, each with one message under way
    #[arg(long, default_value_t = 32)]
    connections: u32,
}

/// Runs the bench and prints its table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let setting = &options.setting;
    let program = built("dist", PROGRAM, &["--bin", PROGRAM], PROGRAM)?;
    let mut template = Template::new()?;
    let _endpoints = endpoints(setting, &mut template, &program)?;
    Traffic::WebSocket.configure(&mut template, SERVICES, CONNECTIONS)?;
    let field = Field { setting, templates: "http", count: SERVICES, names: [HOST; 2] };
    let rivals = field.start(&mut template, Traffic::WebSocket.rivals())?;

    let bench = WebSocketBench { options, program };
    let comparison = Comparison { metrics: &METRICS, rounds: &options.rounds, reference: "haproxy" };
    let series = comparison.print(&rivals, |rival| &rival.name, |rival| bench.measure(rival))?;
    println!("{}", ratios("CPU per message of 125 bytes", &series, 0));
    println!("{}", ratios("CPU per message of 16 KiB", &series, 2));
    println!(
        "A message is there and back; {} connections, a message under way on each; three endpoints; {}.",
        options.connections,
        comparison.conditions("twice ")
    );
    Ok(())
}

/// One process that answers for all three endpoints.
fn endpoints(setting: &Setting, template: &mut Template, program: &Path) -> Result<Running> {
    let addresses = backends::addresses(template)?;
    let mut command = setting.load(program);
    command.arg("echo").args(addresses.iter().map(ToString::to_string));
    let mut process = Running::start("WebSocket endpoints", command)?;
    for address in addresses {
        process.wait_for_port(address)?;
    }
    Ok(process)
}

struct WebSocketBench<'a> {
    options: &'a Options,
    program: PathBuf,
}

impl WebSocketBench<'_> {
    fn measure(&self, rival: &Rival) -> Result<Vec<f64>> {
        let mut values = Vec::new();
        for length in LENGTHS {
            self.exchange(rival, length, WARM_UP.as_secs())?;
            let before = rival.process.usage()?;
            let messages = self.exchange(rival, length, self.options.rounds.seconds)?;
            let [all, ..] = (rival.process.usage()? - before).micros_per(messages);
            #[allow(clippy::cast_precision_loss, reason = "some seconds")]
            values.extend([all, messages / self.options.rounds.seconds as f64]);
        }
        values.push(rival.process.memory()?);
        Ok(values)
    }

    /// Sends messages of `length` bytes for `seconds`; returns how many came back.
    fn exchange(&self, rival: &Rival, length: u64, seconds: u64) -> Result<f64> {
        let mut command = self.options.setting.load(&self.program);
        command.args(["ask", &rival.port.to_string(), HOST]);
        command.args([self.options.connections.into(), length, seconds].map(|number| number.to_string()));
        let text = finish(command)?;
        number_before(&text, " messages").with_context(|| format!("reading what the caller said:\n{text}"))
    }
}
