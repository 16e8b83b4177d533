//! The programs that the benches compare: how each is configured, started and named.
//!
//! Their configurations are templates in `tests/bench/`, so that anybody can judge whether they are asked for the same
//! work. All of them run through the whole bench, idle while another one is measured, each pinned to the same
//! processor; what makes the load, and the backends, are pinned to another one.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use maesh_test_support::{TOOLS, program, repository, tool};
use serde_json::Value;
use tempfile::TempDir;

use super::binary::Binary;
use crate::measure::{Running, free_tcp_port, free_udp_port, pinned};

/// Services that every HTTP proxy knows.
pub(crate) const SERVICES: usize = 1000;

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

/// Fills templates: `@NAME@` by its value, and lines from `# each` to `# end` once for each number below a count.
pub(crate) struct Template {
    values: Vec<(String, String)>,
    folder: TempDir,
}

impl Template {
    /// A template without values, and a folder for what programs write.
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("maesh-bench").tempdir()?;
        // nginx started by root writes its temporary files as another user.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(folder.path(), open)?;
        let mut template = Self { values: Vec::new(), folder };
        let path = template.folder.path().display().to_string();
        template.set("FOLDER", path);
        Ok(template)
    }

    /// The folder for what programs write.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Gives `@name@` a value; a later one replaces it.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        let key = format!("@{name}@");
        self.values.retain(|(have, _)| *have != key);
        self.values.push((key, value.into()));
    }

    /// The value of `@name@`, if it has one.
    pub(crate) fn value(&self, name: &str) -> &str {
        let key = format!("@{name}@");
        self.values.iter().find(|(have, _)| *have == key).map_or("", |(_, value)| value)
    }

    /// Gives `@name@` an address, and `@name_PORT@` its port.
    pub(crate) fn set_address(&mut self, name: &str, address: SocketAddr) {
        self.set(name, address.to_string());
        self.set(&format!("{name}_PORT"), address.port().to_string());
    }

    /// Fills `file` of `tests/bench/` and writes it into the folder under `name`.
    pub(crate) fn write(&self, file: &str, name: &str, count: usize) -> Result<PathBuf> {
        let source = repository().join("tests/bench").join(file);
        let text = fs::read_to_string(&source).with_context(|| format!("reading {}", source.display()))?;
        let target = self.folder().join(name);
        fs::write(&target, self.fill(&text, count)).with_context(|| format!("writing {}", target.display()))?;
        Ok(target)
    }

    fn fill(&self, text: &str, count: usize) -> String {
        let values = self.values.iter().fold(text.to_owned(), |text, (key, value)| text.replace(key, value));
        let mut filled = String::new();
        let mut lines = values.lines();
        while let Some(line) = lines.next() {
            if line.trim() != "# each" {
                filled.push_str(line);
                filled.push('\n');
                continue;
            }
            let block: String =
                lines.by_ref().take_while(|line| line.trim() != "# end").flat_map(|line| [line, "\n"]).collect();
            for index in 0..count {
                filled.push_str(&block.replace("@I@", &index.to_string()));
            }
        }
        filled
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
        let mut started = Vec::new();
        template.set("THREADS", self.setting.threads().to_string());
        for (index, (name, program)) in self.setting.ours()?.into_iter().enumerate() {
            started.push(self.ours(name, &program, index, template)?);
        }
        for name in names.iter().filter(|name| self.setting.wants(name)) {
            match find(name, self.setting.setup)? {
                Some(program) => started.push(self.rival(name, &program, template)?),
                None => eprintln!("SKIPPED {name}: not installed (--setup installs it)"),
            }
        }
        Ok(started)
    }

    /// Starts maesh in one process, as `maesh dev` does, with a range of addresses for each `index`. It has as many
    /// threads as processors.
    fn ours(&self, name: String, program: &Path, index: usize, template: &mut Template) -> Result<Rival> {
        let (port, short) = (free()?, free()?);
        template.set("PORT", port.port().to_string());
        template.set("SHORT_PORT", short.port().to_string());
        let manifests =
            template.write(&format!("{}/maesh.yaml", self.templates), &format!("maesh-{index}.yaml"), self.count)?;
        let (mut process, ready) = start_maesh(self.setting.proxy(program), &name, index, &manifests)?;
        let address = |name: &str, port: SocketAddr| -> Result<SocketAddr> {
            let services = ready["services"].as_array();
            let found = services.into_iter().flatten().find(|service| service["name"] == name);
            let address = found.and_then(|service| service["address"].as_str()?.parse().ok());
            Ok(SocketAddr::new(address.with_context(|| format!("{name} has no address: {ready}"))?, port.port()))
        };
        let (port, short) = (address(self.names[0], port)?, address(self.names[1], short)?);
        process.wait_for_port(short_or(self.templates, port, short))?;
        Ok(Rival { name, process, port, short })
    }

    fn rival(&self, name: &str, program: &Path, template: &mut Template) -> Result<Rival> {
        let (port, short) = (free()?, free()?);
        template.set("PORT", port.port().to_string());
        template.set("SHORT_PORT", short.port().to_string());
        template.set("ADMIN", free_tcp_port()?.to_string());
        let (file, version_flag, configured): (_, _, &[&str]) = match name {
            "haproxy" => ("haproxy.cfg", "-v", &["-db", "-f"]),
            "nginx" => ("nginx.conf", "-v", &["-c"]),
            "envoy" => ("envoy.yaml", "--version", &["--log-level", "error", "-c"]),
            other => bail!("no configuration for {other}"),
        };
        let config = template.write(&format!("{}/{file}", self.templates), file, self.count)?;
        let mut command = self.setting.proxy(program);
        command.args(configured).arg(config);
        if name == "envoy" {
            // Two Envoys of one machine share memory under this number.
            command.args(["--base-id", &port.port().to_string()]);
            command.args(["--concurrency", &self.setting.threads().to_string()]);
        }
        let name = version(program, version_flag)?;
        let process = Running::start(&name, command)?;
        self.wait(name, process, port, short)
    }

    fn wait(&self, name: String, mut process: Running, port: SocketAddr, short: SocketAddr) -> Result<Rival> {
        process.wait_for_port(short_or(self.templates, port, short))?;
        Ok(Rival { name, process, port, short })
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

/// The nginx that answers for every endpoint, on the addresses `A`, `B` and `C` of `template`.
pub(crate) fn backends(setting: &Setting, template: &mut Template) -> Result<Running> {
    let program = need("nginx")?;
    template.set("BODY", "x".repeat(128));
    let mut addresses = Vec::new();
    for name in ["A", "B", "C"] {
        let address = free()?;
        template.set_address(name, address);
        addresses.push(address);
    }
    let config = template.write("backend.conf", "backend.conf", 0)?;
    let mut command = setting.load(&program);
    command.arg("-c").arg(config);
    let mut process = Running::start("backend nginx", command)?;
    for address in addresses {
        process.wait_for_port(address)?;
    }
    Ok(process)
}

/// A program without which there is no bench.
pub(crate) fn need(name: &str) -> Result<PathBuf> {
    program(name).with_context(|| {
        format!("{name} is not installed; `apt-get install {}`, or run this with --setup", package(name))
    })
}

fn package(program: &str) -> &str {
    match program {
        "h2load" => "nghttp2-client",
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

/// The number after `label` in a program's report; thousands are not separated in any of those read here.
pub(crate) fn number_before(text: &str, label: &str) -> Option<f64> {
    let (before, _) = text.split_once(label)?;
    before.split_whitespace().next_back()?.trim_end_matches(',').parse().ok()
}

/// Time to let connections settle before a measurement.
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_and_repeated() {
        let mut template = Template::new().unwrap();
        template.set_address("A", "127.0.0.1:80".parse().unwrap());
        let text = "x @A@ @A_PORT@\n# each\ns@I@ @A_PORT@\n# end\ny\n";
        assert_eq!(template.fill(text, 2), "x 127.0.0.1:80 80\ns0 80\ns1 80\ny\n");
    }

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

    #[test]
    fn numbers_of_reports() {
        for (case, text, label, want) in [
            ("wrk", "  26712 requests in 1.10s, 5.17MB read\n", " requests in", Some(26712.0)),
            ("h2load", "requests: 9 total, 9 started, 8 done, 7 succeeded, 1 failed", " succeeded", Some(7.0)),
            ("absent", "nothing here", " requests in", None),
        ] {
            assert_eq!(number_before(text, label), want, "{case}");
        }
    }
}
