//! TCP streams beside HAProxy, nginx and Envoy.
//!
//! Two figures: processor time of the relay for a gigabyte of one bulk stream (either way), and for one short
//! connection that carries a request and an answer. Load and backends share one processor, the relay has another one.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::backends;
use super::comparison::Comparison;
use super::load::{Wrk, finish};
use super::rivals::{Field, Rival, Setting, Template, free, need, version};
use crate::measure::{Metric, Rounds, Running};

/// Columns of the table.
const METRICS: [Metric; 7] = [
    Metric { name: "bulk up: CPU (s/GB)", digits: 3 },
    Metric { name: "Gbit/s", digits: 1 },
    Metric { name: "bulk down: CPU (s/GB)", digits: 3 },
    Metric { name: "Gbit/s", digits: 1 },
    Metric { name: "CPU (µs/connection)", digits: 1 },
    Metric { name: "connections/s", digits: 0 },
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
    let (iperf, wrk) = (need("iperf3")?, Wrk::find()?);
    let mut template = Template::new()?;
    let _backends = backends::nginx(setting, &mut template)?;
    let _sink = sink(setting, &mut template, &iperf)?;
    let module = PathBuf::from(super::NGINX_STREAM);
    template.set("STREAM_MODULE", module.display().to_string());
    let mut names = vec!["haproxy", "nginx", "envoy"];
    if !module.is_file() {
        eprintln!("SKIPPED nginx: {} is missing (package libnginx-mod-stream)", module.display());
        names.retain(|name| *name != "nginx");
    }

    let names_of_ours = ["bulk.bench.maesh", "short.bench.maesh"];
    let rivals = Field { setting, templates: "tcp", count: 0, names: names_of_ours }.start(&mut template, &names)?;
    let bench = TcpBench { options, iperf, wrk };
    let comparison = Comparison { metrics: &METRICS, rounds: &options.rounds, reference: "haproxy" };
    comparison.print(&rivals, |rival| &rival.name, |rival| bench.measure(rival))?;
    println!(
        "{}, one stream; {}, 32 callers, a connection a request, three endpoints; {}.",
        version(&bench.iperf, "--version")?,
        bench.wrk.version,
        comparison.conditions("three times ")
    );
    Ok(())
}

/// The iperf3 server behind every relay.
fn sink(setting: &Setting, template: &mut Template, iperf: &std::path::Path) -> Result<Running> {
    let address = free()?;
    template.set_address("BULK", address);
    let mut command = setting.load(iperf);
    command.args(["--server", "--bind", "127.0.0.1", "--port", &address.port().to_string()]);
    let mut process = Running::start("iperf3 server", command)?;
    // A connection made to see whether it listens would be taken for a test.
    let listening = format!(":{:04X} 00000000:0000 0A", address.port());
    process.wait_until(Duration::from_secs(10), || {
        std::fs::read_to_string("/proc/net/tcp").is_ok_and(|table| table.contains(&listening))
    })?;
    Ok(process)
}

struct TcpBench<'a> {
    options: &'a Options,
    iperf: PathBuf,
    wrk: Wrk,
}

impl TcpBench<'_> {
    fn measure(&self, rival: &Rival) -> Result<Vec<f64>> {
        let mut values = self.bulk(rival, false)?;
        values.extend(self.bulk(rival, true)?);
        self.short(rival, 1)?;
        values.extend(self.short(rival, self.options.rounds.seconds)?);
        values.push(rival.process.memory()?);
        Ok(values)
    }

    /// One stream for the time of a round; `down`, the backend sends.
    fn bulk(&self, rival: &Rival, down: bool) -> Result<Vec<f64>> {
        let mut command = self.options.setting.load(&self.iperf);
        command.args(["--client", &rival.port.ip().to_string(), "--port", &rival.port.port().to_string(), "--json"]);
        command.args(["--time", &self.options.rounds.seconds.to_string()]);
        if down {
            command.arg("--reverse");
        }
        let before = rival.process.usage()?;
        let text = finish(command)?;
        let used = rival.process.usage()? - before;
        let report: serde_json::Value = serde_json::from_str(&text).context("reading iperf3's report")?;
        let received = &report["end"]["sum_received"];
        let bytes = received["bytes"].as_f64().filter(|bytes| *bytes > 0.0);
        let bytes = bytes.with_context(|| format!("iperf3 moved nothing: {text}"))?;
        let rate = received["bits_per_second"].as_f64().unwrap_or_default();
        Ok(vec![used.total().as_secs_f64() * 1e9 / bytes, rate / 1e9])
    }

    /// Connections that carry one request each, for `seconds`.
    fn short(&self, rival: &Rival, seconds: u64) -> Result<Vec<f64>> {
        let (setting, url) = (&self.options.setting, format!("http://{}/", rival.short));
        let before = rival.process.usage()?;
        let count = self.wrk.ask(setting, 32, seconds, "Connection: close", &url)?;
        let [all, ..] = (rival.process.usage()? - before).micros_per(count);
        let seconds = f64::from(u32::try_from(seconds)?);
        Ok(vec![all, count / seconds])
    }
}
