//! The programs that the benches compare: how each is configured, started and named.
//!
//! Their configurations are templates in `tests/bench/`, so that anybody can judge whether they are asked for the same
//! work. All of them run through the whole bench, idle while another one is measured, each pinned to the same
//! processor; what makes the load, and the backends, are pinned to another one.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use maesh_test_support::{TOOLS, program, repository, tool};
use serde_json::Value;

use super::binary::Binary;
pub(crate) use super::template::Template;
use crate::measure::{Running, free_tcp_port, free_udp_port, pinned};

/// Services that every HTTP proxy knows.
pub(crate) const SERVICES: usize = 1000;

/// The one of them that is asked for.
pub(crate) const HOST: &str = "service-500.bench.maesh";

/// Where programs run, and which of them.
#[derive(Args, Debug, Clone)]
pub(crate) struct Setting {
    /// Processor of the proxies
    #[arg(long, default_value = "0")]
    proxy_cpu: String,
    /// Processor of the load and the backends
    #[arg(long, default_value = "1")]
    load_cpu: String,
    /// Only these (maesh, haproxy, nginx, envoy; knotd, nsd, hickory, coredns)
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[command(flatten)]
    binary: Binary,
    /// Another binary of maesh to measure as well, such as one from before a change
    #[arg(long, value_name = "FILE")]
    pub(crate) compare: Option<PathBuf>,
    /// Install what is missing
    #[arg(long)]
    pub(crate) setup: bool,
}

impl Setting {
    /// A command that runs where the proxies run.
    pub(crate) fn proxy(&self, program: &Path) -> Command {
        pinned(&self.proxy_cpu, program)
    }

    /// A command that runs where load and backends run.
    pub(crate) fn load(&self, program: &Path) -> Command {
        pinned(&self.load_cpu, program)
    }

    /// How many processors the proxies have, which is how many threads each is given.
    pub(crate) fn threads(&self) -> usize {
        let count = |part: &str| match part.split_once('-') {
            Some((first, last)) => Some(last.trim().parse::<usize>().ok()? - first.trim().parse::<usize>().ok()? + 1),
            None => Some(1),
        };
        self.proxy_cpu.split(',').filter_map(count).sum::<usize>().max(1)
    }

    /// The binaries of maesh to measure, each with its name in the table: the image's, and the one to compare it with.
    pub(crate) fn ours(&self) -> Result<Vec<(String, PathBuf)>> {
        let mut ours = Vec::new();
        if self.wants("maesh") {
            ours.push(("maesh".to_owned(), self.binary.file()?));
        }
        ours.extend(self.compare.iter().map(|other| (format!("maesh ({})", other.display()), other.clone())));
        Ok(ours)
    }

    /// Whether the program `name` is to be measured.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

/// A proxy that runs and is waiting for load.
pub(crate) struct Rival {
    /// Name and version, as in the table.
    pub(crate) name: String,
    /// Its process.
    pub(crate) process: Running,
    /// Its main port.
    pub(crate) port: SocketAddr,
    /// The second port of the TCP bench.
    pub(crate) short: SocketAddr,
}

/// A program that is compared.
pub(crate) struct Program {
    /// Name and version, as in the table.
    pub(crate) name: String,
    file: PathBuf,
    kind: Kind,
}

/// How a program is configured and started.
#[derive(Clone, Copy)]
enum Kind {
    /// Ours; the number keeps the addresses of several apart.
    Maesh(usize),
    Other(&'static Other),
}

/// A proxy of another project.
struct Other {
    name: &'static str,
    /// File of the bench's folder in `tests/bench/`.
    template: &'static str,
    version_flag: &'static str,
    /// Before the name of the configuration file.
    arguments: &'static [&'static str],
}

const OTHERS: [Other; 3] = [
    Other { name: "haproxy", template: "haproxy.cfg", version_flag: "-v", arguments: &["-db", "-f"] },
    Other { name: "nginx", template: "nginx.conf", version_flag: "-v", arguments: &["-c"] },
    Other {
        name: "envoy",
        template: "envoy.yaml",
        version_flag: "--version",
        arguments: &["--log-level", "error", "-c"],
    },
];

/// What a bench needs of every proxy.
pub(crate) struct Field<'a> {
    /// Where, and which.
    pub(crate) setting: &'a Setting,
    /// Folder of `tests/bench/`.
    pub(crate) templates: &'a str,
    /// Times that the repeated parts are repeated.
    pub(crate) count: usize,
    /// Our names that the main and the second port belong to.
    pub(crate) names: [&'a str; 2],
}

impl Field<'_> {
    /// Starts every proxy of `names` that is wanted and there, ours first, and waits until each accepts connections.
    pub(crate) fn start(&self, template: &mut Template, names: &[&str]) -> Result<Vec<Rival>> {
        self.programs(names)?.iter().map(|program| self.launch(program, template)).collect()
    }

    /// Every proxy of `names` that is wanted and there, ours first.
    pub(crate) fn programs(&self, names: &[&str]) -> Result<Vec<Program>> {
        let ours = self.setting.ours()?.into_iter().enumerate();
        let mut programs: Vec<Program> =
            ours.map(|(index, (name, file))| Program { name, file, kind: Kind::Maesh(index) }).collect();
        for name in names.iter().filter(|name| self.setting.wants(name)) {
            let other = OTHERS.iter().find(|other| other.name == *name);
            let other = other.with_context(|| format!("no configuration for {name}"))?;
            match find(name, self.setting.setup)? {
                Some(file) => {
                    let name = version(&file, other.version_flag)?;
                    programs.push(Program { name, file, kind: Kind::Other(other) });
                }
                None => eprintln!("SKIPPED {name}: not installed (--setup installs it)"),
            }
        }
        Ok(programs)
    }

    /// Starts one of them on ports of its own and waits until it accepts connections. It has as many threads as processors.
    pub(crate) fn launch(&self, program: &Program, template: &mut Template) -> Result<Rival> {
        let ports = [free()?, free()?];
        template.set("THREADS", self.setting.threads().to_string());
        template.set("PORT", ports[0].port().to_string());
        template.set("SHORT_PORT", ports[1].port().to_string());
        let (mut process, [port, short]) = match program.kind {
            Kind::Maesh(index) => self.ours(program, index, template, ports)?,
            Kind::Other(other) => (self.other(program, other, template)?, ports),
        };
        process.wait_for_port(short_or(self.templates, port, short))?;
        Ok(Rival { name: program.name.clone(), process, port, short })
    }

    /// Starts maesh in one process, as `maesh dev` does; returns where its Services are.
    fn ours(
        &self,
        program: &Program,
        index: usize,
        template: &Template,
        ports: [SocketAddr; 2],
    ) -> Result<(Running, [SocketAddr; 2])> {
        let manifests =
            template.write(&format!("{}/maesh.yaml", self.templates), &format!("maesh-{index}.yaml"), self.count)?;
        let (process, ready) = start_maesh(self.setting.proxy(&program.file), &program.name, index, &manifests)?;
        let address = |name: &str, port: SocketAddr| -> Result<SocketAddr> {
            let services = ready["services"].as_array();
            let found = services.into_iter().flatten().find(|service| service["name"] == name);
            let address = found.and_then(|service| service["address"].as_str()?.parse().ok());
            Ok(SocketAddr::new(address.with_context(|| format!("{name} has no address: {ready}"))?, port.port()))
        };
        Ok((process, [address(self.names[0], ports[0])?, address(self.names[1], ports[1])?]))
    }

    fn other(&self, program: &Program, other: &Other, template: &mut Template) -> Result<Running> {
        template.set("ADMIN", free_tcp_port()?.to_string());
        let config = template.write(&format!("{}/{}", self.templates, other.template), other.template, self.count)?;
        let mut command = self.setting.proxy(&program.file);
        command.args(other.arguments).arg(config);
        if other.name == "envoy" {
            // Two Envoys of one machine share memory under this number.
            command.args(["--base-id", template.value("PORT")]);
            command.args(["--concurrency", template.value("THREADS")]);
        }
        Running::start(&program.name, command)
    }
}

/// The port to try: a connection to the bulk port of a relay would be one to iperf3, which takes it for a test, and one for
/// datagrams takes no connection.
fn short_or(templates: &str, port: SocketAddr, short: SocketAddr) -> SocketAddr {
    if matches!(templates, "tcp" | "udp") { short } else { port }
}

/// Starts `command`, a binary of maesh, as `maesh dev` with `manifests` and waits until it serves them; returns what it
/// says then. `index` keeps the addresses of several apart.
pub(crate) fn start_maesh(
    mut command: Command,
    name: &str,
    index: usize,
    manifests: &Path,
) -> Result<(Running, Value)> {
    command.args(["dev", "--output", "json", "--log-level", "error"]);
    command.args(["--address-range", &format!("127.{}.0.0/16", 77 + index)]);
    command.args(["--dns", &SocketAddr::from((Ipv4Addr::LOCALHOST, free_udp_port()?)).to_string()]);
    command.args(["--admin", &free()?.to_string()]).arg(manifests);
    let mut process = Running::start(name, command)?;
    let said = |text: &str| {
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.into_iter().find(|line| line["event"] == "ready")
    };
    let log = process.log()?;
    process.wait_until(Duration::from_secs(60), || said(&log.read()).is_some())?;
    let ready = said(&process.output()).context("it was ready a moment ago")?;
    Ok((process, ready))
}

/// A free address of 127.0.0.1.
pub(crate) fn free() -> Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_tcp_port()?)))
}

/// A program without which there is no bench.
pub(crate) fn need(name: &str) -> Result<PathBuf> {
    program(name).with_context(|| {
        format!("{name} is not installed; `apt-get install {}`, or run this with --setup", package(name))
    })
}

fn package(program: &str) -> &str {
    match program {
        "h2load" | "nghttp" => "nghttp2-client",
        "nghttpd" => "nghttp2-server",
        other => other,
    }
}

/// Where a proxy is; with `setup`, Envoy is built into the cache.
fn find(name: &str, setup: bool) -> Result<Option<PathBuf>> {
    if name != "envoy" {
        return Ok(program(name));
    }
    let envoy = tool(name);
    if envoy.is_err() && setup {
        let known = TOOLS.iter().find(|tool| tool.answers_to(name)).context("no tool is called envoy")?;
        crate::tool::ensure(known)?;
        return Ok(Some(tool(name)?));
    }
    Ok(envoy.ok())
}

/// Name and version of a program, as it states them itself.
pub(crate) fn version(program: &Path, flag: &str) -> Result<String> {
    let output = Command::new(program).arg(flag).output().with_context(|| format!("running {}", program.display()))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let number =
        text.replace(&*program.to_string_lossy(), "").split(|c: char| c.is_whitespace() || c == '/').find_map(number);
    Ok(format!("{name} {}", number.as_deref().unwrap_or("of unknown version")))
}

/// A version number at the start of `word`, without what a distribution adds.
fn number(word: &str) -> Option<String> {
    let number = word.split(['-', '+']).next()?;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    (number.contains('.') && number.split('.').all(digits)).then(|| number.to_owned())
}

/// Builds what `target` (cargo's flags) chooses in `package`, and says where the program `name` is. `profile` is `dist`
/// for that of the image.
pub(crate) fn built(profile: &str, package: &str, target: &[&str], name: &str) -> Result<PathBuf> {
    eprintln!("building {name} (profile {profile})");
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(repository())
        .args(["build", "--profile", profile, "--package", package])
        .args(target)
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .context("running cargo")?;
    if !output.status.success() {
        bail!("{name} does not build");
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo did not say where the program is")
}

/// Time to let connections settle before a measurement.
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_numbers() {
        for (word, want) in [
            ("2.6.12-1+deb12u4", Some("2.6.12")),
            ("1.40.0", Some("1.40.0")),
            ("9e5580933739775e8bce696a57a2e1bc99368f23", None),
            ("[epoll]", None),
            ("(cJSON", None),
        ] {
            assert_eq!(number(word).as_deref(), want, "{word}");
        }
    }
}
