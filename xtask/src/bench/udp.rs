//! Datagrams beside nginx: queries of DNS through a relay, to a server that answers faster than either relays.
//!
//! The figure that counts is processor time of the relay per query, which is a datagram each way. Load and server share
//! one processor, the relay has another one.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::comparison::Comparison;
use super::rivals::{Field, Rival, SERVICES, Setting, Template, need, version};
use crate::measure::{Metric, Rounds, Running, free_udp_port};

/// Queries under way at a time: each relay alone, and one after the other.
const IN_FLIGHT: [u32; 2] = [100, 1];
/// Seconds before a measurement.
const WARM_UP: u64 = 1;

/// Columns of the table.
const METRICS: [Metric; 5] = [
    Metric { name: "100 under way: CPU (µs/query)", digits: 2 },
    Metric { name: "queries/s", digits: 0 },
    Metric { name: "1 under way: CPU (µs/query)", digits: 2 },
    Metric { name: "queries/s", digits: 0 },
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
    let module = PathBuf::from(super::NGINX_STREAM);
    if !module.is_file() {
        bail!("{} is missing: apt-get install libnginx-mod-stream, or run this with --setup", module.display());
    }
    let setting = &options.setting;
    let mut template = Template::new()?;
    template.set("STREAM_MODULE", module.display().to_string());
    let _server = server(setting, &mut template)?;
    let names_of_ours = ["dns.bench.maesh", "short.bench.maesh"];
    let rivals =
        Field { setting, templates: "udp", count: 0, names: names_of_ours }.start(&mut template, &["nginx"])?;
    let queries = template.folder().join("queries");
    fs::write(&queries, questions())?;
    let bench = UdpBench { options, dnsperf: need("dnsperf")?, queries };
    let comparison = Comparison { metrics: &METRICS, rounds: &options.rounds, reference: "nginx" };
    comparison.print(&rivals, |rival| &rival.name, |rival| bench.measure(rival))?;
    println!(
        "{}, from 8 sockets, to a knotd; 0 lost; {}.",
        version(&bench.dnsperf, "-h").unwrap_or_else(|_| "dnsperf".into()),
        comparison.conditions("twice ")
    );
    Ok(())
}

/// The DNS server behind every relay.
fn server(setting: &Setting, template: &mut Template) -> Result<Running> {
    let port = free_udp_port()?;
    template.write("dns/zone", "zone", SERVICES)?;
    template.set("PORT", port.to_string());
    template.set_address("SERVER", ([127, 0, 0, 1], port).into());
    let config = template.write("dns/knot.conf", "knot.conf", 0)?;
    let mut command = setting.load(&need("knotd")?);
    command.arg("-c").arg(config);
    let mut process = Running::start("knotd", command)?;
    process.wait_for_port(([127, 0, 0, 1], port).into())?;
    Ok(process)
}

struct UdpBench<'a> {
    options: &'a Options,
    dnsperf: PathBuf,
    queries: PathBuf,
}

impl UdpBench<'_> {
    fn measure(&self, rival: &Rival) -> Result<Vec<f64>> {
        let mut values = Vec::new();
        for in_flight in IN_FLIGHT {
            self.ask(rival, in_flight, WARM_UP)?;
            let before = rival.process.usage()?;
            let (queries, rate) = self.ask(rival, in_flight, self.options.rounds.seconds)?;
            let [all, ..] = (rival.process.usage()? - before).micros_per(queries);
            values.extend([all, rate]);
        }
        values.push(rival.process.memory()?);
        Ok(values)
    }

    /// Asks for `seconds`; how many queries, and how many a second. A lost query is a failure of the bench.
    fn ask(&self, rival: &Rival, in_flight: u32, seconds: u64) -> Result<(f64, f64)> {
        let mut command = self.options.setting.load(&self.dnsperf);
        command.args(["-s", &rival.port.ip().to_string(), "-p", &rival.port.port().to_string(), "-d"]);
        command.arg(&self.queries);
        command.args(["-c", "8", "-T", "1", "-q", &in_flight.to_string(), "-l", &seconds.to_string()]);
        let mut load = Running::start("dnsperf", command)?;
        let status = load.wait()?;
        let text = load.output();
        let value = |label: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(label));
            line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok())
                .with_context(|| format!("no {label:?} in what dnsperf said:\n{text}"))
        };
        if !status.success() || value("Queries lost:")? > 0.0 {
            let report: Vec<&str> = text.lines().filter(|line| !line.starts_with("[Timeout]")).collect();
            bail!("queries through {} were lost:\n{}", rival.name, report.join("\n"));
        }
        Ok((value("Queries completed:")?, value("Queries per second:")?))
    }
}

fn questions() -> String {
    let mut text = String::new();
    for service in 0..SERVICES {
        let _ = writeln!(text, "service-{service}.bench.maesh A");
    }
    text
}
