//! What connections cost beside HAProxy, nginx and Envoy: memory of a proxy that has none and of one that has thousands
//! of idle ones, and processor time for new ones.
//!
//! Every round starts each proxy anew, because memory that was in use once does not come back at once. Memory is what is
//! resident of the process; what the kernel keeps for sockets is about the same for all, and is not counted.

mod idle;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::idle::IdleConnections;
use super::backends::{self, BODY};
use super::comparison::{Comparison, ours, ratios};
use super::load::H2load;
use super::rivals::{Field, Program, Rival, Setting, Template, WARM_UP};
use super::traffic::Traffic;
use crate::Reported;
use crate::measure::{Figure, Metric, Rounds, Running, Series, mebibytes, until};

/// The one Service.
const HOST: &str = "service-0.bench.maesh";

/// Connections that must and goal are about.
const MANY: usize = 10_000;

/// Memory without a connection, and with [`MANY`].
const WITHOUT: Figure = Figure { must: 15.0, goal: 8.0, unit: "MiB" };
const WITH: Figure = Figure { must: 120.0, goal: 60.0, unit: "MiB" };

/// Room for connections besides the idle ones.
const SPARE: usize = 600;

/// A proxy's memory is read once it has not changed for this long, because it gives back some of it later; and after the
/// second time in any case.
const REST: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(20)];

/// Columns of the table.
const METRICS: [Metric; 7] = [
    Metric { name: "memory without connections (MiB)", digits: 1 },
    Metric { name: "with idle ones (MiB)", digits: 1 },
    Metric { name: "bytes/connection", digits: 0 },
    Metric { name: "CPU (µs/new connection)", digits: 1 },
    Metric { name: "user", digits: 1 },
    Metric { name: "system", digits: 1 },
    Metric { name: "memory then (MiB)", digits: 1 },
];

/// What can be chosen.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    pub(super) setting: Setting,
    /// Idle connections; fewer where the hard limit of open files has no room for them in every proxy
    #[arg(long, default_value_t = MANY)]
    connections: usize,
    /// New connections a second, rounded down to hundreds
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(100..))]
    rate: u64,
}

/// Runs the bench and prints its table; fails when memory misses a must.
pub(crate) fn run(options: &Options) -> Result<()> {
    let setting = &options.setting;
    let count = that_fit(options.connections)?;
    let h2load = H2load::find()?;
    let mut template = Template::new()?;
    let _backends = backends::nginx(setting, &mut template)?;
    Traffic::Http1.configure(&mut template, 1, count + SPARE)?;
    let field = Field { setting, templates: "http", count: 1, names: [HOST; 2] };
    let programs = field.programs(Traffic::Http1.rivals())?;

    let bench = Bench { options, field, h2load, count, template: RefCell::new(template) };
    let comparison = Comparison { metrics: &METRICS, rounds: &options.rounds, reference: "haproxy" };
    let series = comparison.print(&programs, |program| &program.name, |program| bench.measure(program))?;
    println!("{}", ratios("Memory for a connection", &series, 2));
    println!("{}", ratios("CPU per new connection", &series, 3));
    println!(
        "One Service, three endpoints, {BODY}-byte answers; {count} idle connections from {} addresses, a request on each \
         before; then {} new ones a second with a request each ({}); {}.\n",
        idle::SOURCES,
        options.rate,
        bench.h2load.version,
        comparison.conditions("")
    );
    judge(&series, count)
}

/// Says how our memory stands to what must be. Where fewer connections than [`MANY`] were open, it counts what the
/// others would have taken.
fn judge(series: &[Series], count: usize) -> Result<()> {
    let Some(ours) = ours(series) else { return Ok(()) };
    let median = |index: usize| ours.spread(index).map_or(f64::NAN, |(_, median, _)| median);
    let (without, with) = (median(0), for_many(median(0), median(1), count));
    println!("memory without connections: {without:.1} MiB; must (goal) {}", WITHOUT.judge(without));
    let counted = if count == MANY { String::new() } else { format!(" (computed from {count})") };
    println!("memory with {MANY} connections{counted}: {with:.1} MiB; must (goal) {}", WITH.judge(with));
    if WITHOUT.is_met(without) && WITH.is_met(with) { Ok(()) } else { Err(Error::msg(Reported)) }
}

/// Memory with [`MANY`] connections, from that with `count`.
#[allow(clippy::cast_precision_loss, reason = "some thousands")]
fn for_many(without: f64, with: f64, count: usize) -> f64 {
    without + (with - without) * MANY as f64 / count as f64
}

/// Raises the limit of open files, which the proxies inherit, to the hard one, and says how many of `wanted` connections
/// fit: three eighths of it, because ours keeps two for each connection and a reserve besides.
fn that_fit(wanted: usize) -> Result<usize> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let files = maximum.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    let fit = files.saturating_mul(3) / 8;
    if fit < wanted {
        eprintln!("{wanted} connections do not fit into {files} open files (hard limit); measuring with {fit}");
    }
    Ok(wanted.min(fit))
}

struct Bench<'a> {
    options: &'a Options,
    field: Field<'a>,
    h2load: H2load,
    /// Idle connections.
    count: usize,
    template: RefCell<Template>,
}

impl Bench<'_> {
    /// One life of a proxy.
    fn measure(&self, program: &Program) -> Result<Vec<f64>> {
        let rival = self.field.launch(program, &mut self.template.borrow_mut())?;
        let without = at_rest(&rival.process)?;
        let idle = IdleConnections::open(rival.port, HOST, self.count)?;
        let with = at_rest(&rival.process)?;
        idle.check()?;
        drop(idle);

        self.connect(&rival, WARM_UP.as_secs())?;
        let before = rival.process.usage()?;
        let connections = self.connect(&rival, self.options.rounds.seconds)?;
        let used = (rival.process.usage()? - before).micros_per(connections);
        #[allow(clippy::cast_precision_loss, reason = "some MiB over some thousands")]
        let each = with.saturating_sub(without) as f64 / self.count as f64;
        let [without, with] = [without, with].map(mebibytes);
        Ok([&[without, with, each][..], &used, &[rival.process.memory()?]].concat())
    }

    /// Opens connections at the rate for `seconds`; returns how many there were.
    fn connect(&self, rival: &Rival, seconds: u64) -> Result<f64> {
        let url = format!("http://{}/", rival.port);
        self.h2load.connections(&self.options.setting, self.options.rate, seconds, HOST, &url, BODY)
    }
}

/// Resident memory of `process`, in bytes, when it has come to rest.
fn at_rest(process: &Running) -> Result<u64> {
    let (mut memory, mut since) = (process.resident(), Instant::now());
    until(REST[1], || {
        let now = process.resident();
        if now.as_ref().ok() != memory.as_ref().ok() {
            (memory, since) = (now, Instant::now());
        }
        memory.is_err() || since.elapsed() >= REST[0]
    });
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_for_many_is_computed_from_fewer() {
        for (without, with, count, want) in
            [(10.0, 60.0, MANY, 60.0), (10.0, 35.0, MANY / 2, 60.0), (8.0, 8.0, 10, 8.0)]
        {
            assert!((for_many(without, with, count) - want).abs() < 1e-9, "{count} connections, {with} MiB");
        }
    }
}
