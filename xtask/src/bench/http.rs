//! HTTP requests beside HAProxy, nginx and Envoy.
//!
//! Ours is the image's binary, as `maesh dev`: the whole mesh in one process, whose other parts have nothing to do.
//!
//! One processor for the proxy, another one for load and backends; `--proxy-cpu 0-1` gives every proxy both, and as many
//! threads. The second is the bottleneck, so requests a second
//! are no capacity: the figure that counts is processor time of the proxy per request.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::rivals::{Field, Rival, SERVICES, Setting, Template, WARM_UP, backends, free, need, number_before, version};
use crate::measure::{Contender, Metric, Rounds, Running, Series, alternate, machine, table};

/// The Service that is asked for, among [`SERVICES`].
const HOST: &str = "service-500.bench.maesh";

/// Columns of the table.
const METRICS: [Metric; 5] = [
    Metric { name: "CPU (µs/request)", digits: 1 },
    Metric { name: "user", digits: 1 },
    Metric { name: "system", digits: 1 },
    Metric { name: "requests/s", digits: 0 },
    Metric { name: "memory (MiB)", digits: 0 },
];

/// What can be chosen.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    pub(super) setting: Setting,
    /// HTTP/2 without TLS on both sides, instead of HTTP/1.1 (nginx cannot)
    #[arg(long)]
    h2: bool,
    /// Connections that make the load
    #[arg(long, default_value_t = 32)]
    connections: u32,
}

/// Runs the bench and prints its table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let load = Load::new(options)?;
    let setting = &options.setting;
    let mut template = Template::new()?;
    let _backends =
        if options.h2 { h2_backends(setting, &mut template)? } else { vec![backends(setting, &mut template)?] };
    template.set("PROTO", if options.h2 { "proto h2" } else { "" });
    template.set("UPSTREAM", if options.h2 { "http2_protocol_options" } else { "http_protocol_options" });
    let hosts: String = (0..SERVICES).map(|i| format!("service-{i}.bench.maesh service-{i}\n")).collect();
    fs::write(template.folder().join("hosts.map"), hosts)?;

    let scheme = if options.h2 { "kubernetes.io/h2c" } else { "http" };
    template.set("SCHEME", scheme);
    let field = Field { setting, templates: "http", count: SERVICES, names: [HOST; 2] };
    let names: &[&str] = if options.h2 { &["haproxy", "envoy"] } else { &["haproxy", "nginx", "envoy"] };
    let rivals = field.start(&mut template, names)?;
    let mut contenders: Vec<Contender<'_>> = rivals
        .iter()
        .map(|rival| Contender { name: rival.name.clone(), run: Box::new(|| load.measure(rival)) })
        .collect();
    let series = alternate(options.rounds.rounds, &mut contenders)?;
    let reference = rivals.iter().find(|rival| rival.name.starts_with("haproxy")).map_or("", |rival| &rival.name);
    println!("{}", table(&METRICS, &series, reference));
    if let Some((ours, others)) = series.split_first() {
        let ratio = |other: &Series| Some(format!("{:.2} of {}", ours.ratio(other, 0)?, other.name));
        let ratios: Vec<String> = others.iter().filter_map(ratio).collect();
        println!("CPU per request, {}: {}.\n", ours.name, ratios.join(", "));
    }
    println!(
        "{SERVICES} Services, three endpoints each, one Service asked for; 128-byte answers; {}; {} rounds of {} s; {}.",
        load.text(),
        options.rounds.rounds,
        options.rounds.seconds,
        machine()
    );
    Ok(())
}

/// What makes the requests.
struct Load<'a> {
    options: &'a Options,
    program: PathBuf,
    version: String,
}

impl<'a> Load<'a> {
    fn new(options: &'a Options) -> Result<Self> {
        let (name, flag) = if options.h2 { ("h2load", "--version") } else { ("wrk", "-v") };
        let program = need(name)?;
        Ok(Self { options, version: version(&program, flag)?, program })
    }

    fn text(&self) -> String {
        if self.options.h2 {
            format!("{}, HTTP/2 on both sides, 8 connections with 16 streams", self.version)
        } else {
            format!("{}, HTTP/1.1 on both sides, {} connections", self.version, self.options.connections)
        }
    }

    /// Loads `rival`, first unmeasured, then for the time of one round.
    fn measure(&self, rival: &Rival) -> Result<Vec<f64>> {
        self.requests(rival, WARM_UP.as_secs())?;
        let before = rival.process.usage()?;
        let (requests, seconds) = self.requests(rival, self.options.rounds.seconds)?;
        let used = rival.process.usage()? - before;
        let memory = rival.process.resident()?;
        let micros = |time: std::time::Duration| time.as_secs_f64() * 1e6 / requests;
        #[allow(clippy::cast_precision_loss, reason = "memory in MiB with no digits")]
        let memory = memory as f64 / f64::from(1 << 20);
        Ok(vec![micros(used.total()), micros(used.user), micros(used.system), requests / seconds, memory])
    }

    /// Makes requests for `seconds`; returns how many were answered with 200, and in which time. Any other answer, and
    /// any error of a socket, is a failure of the bench.
    fn requests(&self, rival: &Rival, seconds: u64) -> Result<(f64, f64)> {
        let mut command = self.options.setting.load(&self.program);
        if self.options.h2 {
            command.args(["-t1", "-c8", "-m16", "-D", &seconds.to_string()]);
            command.args(["-H", &format!(":authority: {HOST}"), &format!("http://{}/128", rival.port)]);
        } else {
            command.args(["-t1", &format!("-c{}", self.options.connections), &format!("-d{seconds}s")]);
            command.args(["-H", &format!("Host: {HOST}"), &format!("http://{}/", rival.port)]);
        }
        let mut run = Running::start("load", command)?;
        let status = run.wait()?;
        let text = run.output();
        if !status.success() {
            bail!("the load ended with {status}:\n{text}");
        }
        let seconds = f64::from(u32::try_from(seconds)?);
        if self.options.h2 {
            let ok = number_before(&text, " 2xx,").with_context(|| format!("reading the load's report:\n{text}"))?;
            let failed = number_before(&text, " failed,").unwrap_or(0.0);
            if failed > 0.0 {
                bail!("{failed} requests failed:\n{text}");
            }
            return Ok((ok, seconds));
        }
        if text.contains("Non-2xx") || text.contains("Socket errors") {
            bail!("requests failed:\n{text}");
        }
        let count =
            number_before(&text, " requests in").with_context(|| format!("reading the load's report:\n{text}"))?;
        Ok((count, seconds))
    }
}

/// Three nghttpd that serve a file of 128 bytes.
fn h2_backends(setting: &Setting, template: &mut Template) -> Result<Vec<Running>> {
    let program = need("nghttpd")?;
    let files = template.folder().join("files");
    fs::create_dir_all(&files)?;
    fs::write(files.join("128"), "x".repeat(128))?;
    let mut started = Vec::new();
    for name in ["A", "B", "C"] {
        let address = free()?;
        template.set_address(name, address);
        let mut command = setting.load(&program);
        command.args(["--no-tls", "--address", "127.0.0.1", "--htdocs"]).arg(&files).arg(address.port().to_string());
        let mut process = Running::start("backend nghttpd", command)?;
        process.wait_for_port(address)?;
        started.push(process);
    }
    Ok(started)
}
