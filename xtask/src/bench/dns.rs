//! DNS answers beside Knot, NSD, hickory-server and CoreDNS.
//!
//! Two tables. The servers by themselves, for the same zone; then the way a query goes in a cluster, through a CoreDNS
//! with the stanza and the responder behind it, where ours is exchanged for Knot. One processor for the servers,
//! another one for the queries. The second is the bottleneck, so queries a second are no capacity: the figure that
//! counts is processor time of the servers per query.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use maesh_test_support::{TOOLS, program, repository, tool};

use super::comparison::Comparison;
use super::rivals::{Setting, Template, built, free, need, start_maesh, version};
use crate::measure::{Metric, Rounds, Running, Usage, free_udp_port};

/// Services in the zone.
const SERVICES: usize = 1000;
/// Queries under way at a time: for a server alone, and through CoreDNS.
const IN_FLIGHT: [u32; 2] = [100, 50];
/// Seconds before a measurement, for caches and clocks to settle.
const WARM_UP: u64 = 1;

/// Columns of the tables.
const METRICS: [Metric; 5] = [
    Metric { name: "CPU (µs/query)", digits: 2 },
    Metric { name: "user", digits: 2 },
    Metric { name: "system", digits: 2 },
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
    /// Which table
    #[arg(long, value_enum, default_value_t = Part::Both)]
    part: Part,
}

/// The two tables.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Servers by themselves
    Servers,
    /// A CoreDNS with the stanza, and a responder behind it
    Path,
    /// Both
    Both,
}

/// Runs the bench and prints its tables.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut bench = DnsBench::new(options)?;
    let alone = bench.servers()?;
    if options.part != Part::Path {
        bench.measure(&alone, IN_FLIGHT[0])?;
    }
    if options.part != Part::Servers {
        let path = bench.path(alone)?;
        bench.measure(&path, IN_FLIGHT[1])?;
    }
    Ok(())
}

struct DnsBench<'a> {
    options: &'a Options,
    template: Template,
    dnsperf: PathBuf,
    coredns: Option<PathBuf>,
    queries: PathBuf,
}

/// One row of a table: the processes that work for a query.
struct Server {
    name: String,
    processes: Vec<Running>,
    port: SocketAddr,
}

impl<'a> DnsBench<'a> {
    fn new(options: &'a Options) -> Result<Self> {
        let template = Template::new()?;
        template.write("dns/zone", "zone", SERVICES)?;
        let queries = template.folder().join("queries");
        fs::write(&queries, questions())?;
        let coredns = coredns(&options.setting)?;
        Ok(Self { options, template, dnsperf: need("dnsperf")?, coredns, queries })
    }

    /// Starts every server by itself, ours first.
    fn servers(&mut self) -> Result<Vec<Server>> {
        let mut started = Vec::new();
        let wants = |name: &str| self.options.setting.wants(name);
        let mut wanted: Vec<(String, PathBuf, &[&str], &str)> = Vec::new();
        for (index, (name, program)) in self.options.setting.ours()?.into_iter().enumerate() {
            started.push(self.ours(name, &program, index)?);
        }
        if wants("hickory") {
            let example = "hickory_server";
            let program = built("dist", "maesh-dns-suite", &["--example", example], example)?;
            wanted.push((hickory_version()?, program, &[], ""));
        }
        let others: [(&str, &str, &str, &[&str]); 2] =
            [("knotd", "knot.conf", "--version", &["-c"]), ("nsd", "nsd.conf", "-v", &["-d", "-c"])];
        for (name, file, flag, arguments) in others {
            match program(name).filter(|_| wants(name)) {
                Some(program) => wanted.push((version(&program, flag)?, program, arguments, file)),
                None if wants(name) => eprintln!("SKIPPED {name}: not installed"),
                None => {}
            }
        }
        if let Some(coredns) = self.coredns.clone().filter(|_| wants("coredns")) {
            wanted.push((format!("{} file", coredns_version()), coredns, &["-conf"], "file.corefile"));
        }
        for (name, program, arguments, file) in wanted {
            started.push(self.start(name, &program, arguments, file)?);
        }
        Ok(started)
    }

    /// Starts maesh in one process, as `maesh dev` does.
    fn ours(&mut self, name: String, program: &Path, index: usize) -> Result<Server> {
        self.template.set("HTTP_PORT", free()?.port().to_string());
        let manifests = self.template.write("dns/maesh.yaml", &format!("maesh-{index}.yaml"), SERVICES)?;
        let (process, ready) = start_maesh(self.options.setting.proxy(program), &name, index, &manifests)?;
        let port = ready["dns"].as_str().and_then(|dns| dns.parse().ok());
        Ok(Server { name, processes: vec![process], port: port.with_context(|| format!("no port: {ready}"))? })
    }

    /// Starts one of the others; without a configuration file it takes its address and the number of Services.
    fn start(&mut self, name: String, program: &Path, arguments: &[&str], file: &str) -> Result<Server> {
        let port = SocketAddr::from((Ipv4Addr::LOCALHOST, free_udp_port()?));
        let mut command = self.options.setting.proxy(program);
        command.env("GOMAXPROCS", "1");
        if file.is_empty() {
            command.args([port.to_string(), SERVICES.to_string()]);
        } else {
            self.template.set("PORT", port.port().to_string());
            let config = self.template.write(&format!("dns/{file}"), &format!("{}-{file}", port.port()), SERVICES)?;
            command.args(arguments).arg(config);
        }
        let mut process = Running::start(&name, command)?;
        process.wait_for_port(port)?;
        Ok(Server { name, processes: vec![process], port })
    }

    /// A CoreDNS with the stanza in front of ours and of Knot, each; CoreDNS alone as it was.
    fn path(&mut self, alone: Vec<Server>) -> Result<Vec<Server>> {
        let coredns = self.coredns.clone().context("coredns is not built: cargo xtask tool coredns")?;
        let mut path = Vec::new();
        for mut server in alone {
            if server.name.starts_with("coredns") {
                path.push(server);
                continue;
            }
            if server.name.starts_with("nsd") || server.name.starts_with("hickory") {
                continue;
            }
            self.template.set("RESPONDER", server.port.to_string());
            let name = format!("{} + {}", coredns_version(), server.name);
            let mut front = self.start(name, &coredns, &["-conf"], "stanza.corefile")?;
            front.processes.append(&mut server.processes);
            path.push(front);
        }
        Ok(path)
    }

    /// Measures `servers` in turn and prints their table.
    fn measure(&self, servers: &[Server], in_flight: u32) -> Result<()> {
        let comparison = Comparison { metrics: &METRICS, rounds: &self.options.rounds, reference: "knotd" };
        comparison.print(servers, |server| &server.name, |server| self.one(server, in_flight))?;
        println!(
            "{SERVICES} Services, 45 % A, 45 % AAAA without data, 10 % names that do not exist; {}, at most {in_flight} \
             queries under way from 8 sockets; 0 lost; {}.\n",
            version(&self.dnsperf, "-h").unwrap_or_else(|_| "dnsperf".into()),
            comparison.conditions("")
        );
        Ok(())
    }

    fn one(&self, server: &Server, in_flight: u32) -> Result<Vec<f64>> {
        self.ask(server, in_flight, WARM_UP)?;
        let before = usage(server)?;
        let (queries, rate) = self.ask(server, in_flight, self.options.rounds.seconds)?;
        let used = usage(server)? - before;
        let memory: f64 = server.processes.iter().map(Running::memory).sum::<Result<f64>>()?;
        Ok([&used.micros_per(queries)[..], &[rate, memory]].concat())
    }

    /// Asks `server` for `seconds`; how many queries, and how many a second. A lost query, or an answer of an
    /// unexpected kind, is a failure of the bench.
    fn ask(&self, server: &Server, in_flight: u32, seconds: u64) -> Result<(f64, f64)> {
        let mut command = self.options.setting.load(&self.dnsperf);
        command.args(["-s", "127.0.0.1", "-p", &server.port.port().to_string(), "-d"]).arg(&self.queries);
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
            bail!("queries of {} were lost:\n{}", server.name, report.join("\n"));
        }
        let codes = text.lines().find(|line| line.contains("Response codes:")).unwrap_or_default();
        if !codes.contains("NOERROR") || !codes.contains("NXDOMAIN") || codes.matches(',').count() != 1 {
            bail!("{} answered something else than NOERROR and NXDOMAIN: {codes}", server.name);
        }
        Ok((value("Queries completed:")?, value("Queries per second:")?))
    }
}

/// Processor time of all processes of a row.
fn usage(server: &Server) -> Result<Usage> {
    let mut sum = Usage::default();
    for process in &server.processes {
        let usage = process.usage()?;
        sum.user += usage.user;
        sum.system += usage.system;
    }
    Ok(sum)
}

/// Twenty queries for each fifty Services, in a fixed order that is not that of the zone.
fn questions() -> String {
    let mut text = String::new();
    for turn in 0..SERVICES * 20 {
        // 7919 is prime, so every Service comes up.
        let service = turn * 7919 % SERVICES;
        let _ = match turn % 20 {
            0..9 => writeln!(text, "service-{service}.bench.maesh A"),
            9..18 => writeln!(text, "service-{service}.bench.maesh AAAA"),
            _ => writeln!(text, "nothing-{service}.bench.maesh A"),
        };
    }
    text
}

/// Name and version of hickory-server, as `Cargo.lock` has it.
fn hickory_version() -> Result<String> {
    let lock = fs::read_to_string(repository().join("Cargo.lock"))?;
    let version =
        lock.split_once("name = \"hickory-server\"\nversion = \"").and_then(|(_, rest)| rest.split('"').next());
    Ok(format!("hickory-server {}", version.context("Cargo.lock has no hickory-server")?))
}

/// Name and version of the CoreDNS of the cache, which is the one that is measured.
fn coredns_version() -> String {
    let version = TOOLS.iter().find(|tool| tool.answers_to("coredns")).map_or("", |tool| tool.version);
    format!("coredns {version}")
}

/// The trimmed CoreDNS of the cache.
fn coredns(setting: &Setting) -> Result<Option<PathBuf>> {
    let built = tool("coredns");
    if built.is_err() && setting.setup {
        let known = TOOLS.iter().find(|tool| tool.answers_to("coredns")).context("no tool is called coredns")?;
        crate::tool::ensure(known)?;
        return Ok(Some(tool("coredns")?));
    }
    Ok(built.inspect_err(|error| eprintln!("SKIPPED coredns: {error}")).ok())
}
