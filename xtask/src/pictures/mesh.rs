//! The mesh that the pictures show: a controller, a dns and a proxy as processes of their own on loopback, as pods would be;
//! and the Prometheus that scrapes them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use maesh_test_support::tool;
use tempfile::TempDir;

use super::endpoints;
use super::names::Dns;
use super::prometheus::Prometheus;
use super::stage::{Phase, Stage};
use crate::measure::{Running, free_tcp_port};

/// How long a process may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the endpoints of a Service change.
const CHURN: Duration = Duration::from_secs(10);
/// How long the certificate of DNS over TLS is valid.
const DAYS: i64 = 90;
/// The admin port of all roles.
const ADMIN: u16 = 5380;

/// All processes. Ended when dropped, and so is the run.
pub(super) struct Mesh {
    maesh: PathBuf,
    folder: TempDir,
    /// The second byte of all addresses.
    range: u8,
    stage: Arc<Stage>,
    controller: Option<Running>,
    others: Vec<Running>,
    prometheus: Prometheus,
    /// The endpoints of the Service that changes.
    changing: [SocketAddr; 2],
    /// Endpoints of TCP and of UDP.
    streams: SocketAddr,
    datagrams: SocketAddr,
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.stage.end();
    }
}

impl Mesh {
    /// Starts everything but the load.
    pub(super) fn start(maesh: &Path, stage: &Arc<Stage>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("maesh-pictures").tempdir()?;
        fs::create_dir(folder.path().join("manifests"))?;
        let range = u8::try_from(200 + std::process::id() % 50)?;
        let prometheus = Prometheus { address: SocketAddr::from((Ipv4Addr::LOCALHOST, free_tcp_port()?)) };
        let changing = [endpoints::http(stage, 10)?, endpoints::http(stage, 11)?];
        let mut mesh = Self {
            maesh: maesh.to_owned(),
            folder,
            range,
            stage: Arc::clone(stage),
            controller: None,
            others: Vec::new(),
            prometheus,
            changing,
            streams: endpoints::echo()?,
            datagrams: endpoints::datagrams()?,
        };
        mesh.write_manifests()?;
        mesh.start_controller()?;
        mesh.start_dns()?;
        mesh.start_proxy()?;
        mesh.start_prometheus()?;
        Ok(mesh)
    }

    /// Lets the run go on to its end; meanwhile endpoints change, and the controller is away for its phase.
    pub(super) fn play(&mut self, stage: &Stage) -> Result<()> {
        let mut changes = 0;
        while !stage.left().is_zero() {
            changes += 1;
            self.write_changing(changes)?;
            self.write_streams(stage.phase())?;
            stage.pause(CHURN.min(stage.scrapes_every() * 2).min(stage.left()));
            match (stage.phase(), &self.controller) {
                (Phase::NoController, Some(_)) => self.controller = None,
                (Phase::NoController, None) | (_, Some(_)) => {}
                (_, None) => self.start_controller()?,
            }
        }
        Ok(())
    }

    /// Where Prometheus answers.
    pub(super) fn prometheus(&self) -> &Prometheus {
        &self.prometheus
    }

    /// The mesh's dns.
    pub(super) fn dns(&self) -> Dns {
        Dns((self.place(200, 2), 5353).into())
    }

    /// The address of a pod on the proxy's node.
    pub(super) fn near(&self) -> Ipv4Addr {
        self.place(1, 1)
    }

    /// The address of a pod on another node.
    pub(super) fn far(&self) -> Ipv4Addr {
        self.place(2, 1)
    }

    /// An address of this mesh's own.
    pub(super) fn place(&self, third: u8, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.range, third, last)
    }

    fn start_controller(&mut self) -> Result<()> {
        let manifests = self.folder.path().join("manifests").display().to_string();
        let (listen, range) = (self.discovery(), format!("127.{}.0.0/16", self.range));
        let arguments = ["controller", "--manifests", &manifests, "--listen", &listen, "--address-range", &range];
        self.controller = Some(self.start_role(1, &arguments)?);
        Ok(())
    }

    /// Where dns and the proxy connect to the controller.
    fn discovery(&self) -> String {
        SocketAddr::from((self.place(200, 1), 5390)).to_string()
    }

    fn start_dns(&mut self) -> Result<()> {
        let (controller, listen, certificate) = (self.discovery(), self.dns().0.to_string(), self.certificate()?);
        let over_tls = SocketAddr::from((self.place(200, 2), 5853)).to_string();
        let dns = ["dns", "--controller", &controller, "--id", "dns-1", "--lameduck", "0s", "--listen", &listen];
        let tls = ["--tls-listen", &over_tls, "--tls-certificate", &certificate, "--tls-certificate-key", &certificate];
        let process = self.start_role(2, &[&dns[..], &tls].concat())?;
        self.others.push(process);
        Ok(())
    }

    fn start_proxy(&mut self) -> Result<()> {
        let (controller, address) = (self.discovery(), self.place(200, 3).to_string());
        let log = self.folder.path().join("access.log").display().to_string();
        // Nobody is there: a receiver that is away.
        let receiver = format!("http://127.0.0.1:{}", free_tcp_port()?);
        let proxy = ["proxy", "--controller", &controller, "--id", "proxy-1", "--node", "n1", "--address", &address];
        let observed = ["--access-log", "json", "--access-log-file", &log, "--trace-endpoint", &receiver];
        let process = self.start_role(3, &[&proxy[..], &observed, &["--drain-horizon", "1s"]].concat())?;
        self.others.push(process);
        Ok(())
    }

    /// Starts a role at its address, and waits until it is ready.
    fn start_role(&self, last: u8, arguments: &[&str]) -> Result<Running> {
        let admin = SocketAddr::from((self.place(200, last), ADMIN));
        let mut command = Command::new(&self.maesh);
        command.args(arguments).args(["--admin", &admin.to_string(), "--log-level", "error"]);
        let mut process = Running::start(arguments[0], command)?;
        process.wait_until(PATIENCE, || super::prometheus::get(admin, "/readyz").is_ok())?;
        Ok(process)
    }

    fn start_prometheus(&mut self) -> Result<()> {
        let every = self.stage.scrapes_every().as_secs();
        let mut config = format!("global: {{scrape_interval: {every}s}}\nscrape_configs:\n");
        for (last, role) in [(1, "controller"), (2, "dns"), (3, "proxy")] {
            let target = SocketAddr::from((self.place(200, last), ADMIN));
            config += &format!(
                "  - {{job_name: {role}, honor_labels: true, static_configs: [{{targets: ['{target}'], labels: {{pod: {role}-1}}}}]}}\n"
            );
        }
        let (file, data) = (self.folder.path().join("prometheus.yaml"), self.folder.path().join("prometheus"));
        fs::write(&file, config)?;
        let mut command = Command::new(tool(super::PROMETHEUS)?);
        command.current_dir(self.folder.path());
        command.arg(format!("--config.file={}", file.display())).arg(format!("--storage.tsdb.path={}", data.display()));
        command.args([&format!("--web.listen-address={}", self.prometheus.address), "--log.level=warn"]);
        let mut process = Running::start(super::PROMETHEUS, command)?;
        process.wait_until(PATIENCE, || super::prometheus::get(self.prometheus.address, "/-/ready").is_ok())?;
        self.others.push(process);
        Ok(())
    }

    /// A certificate for DNS over TLS and its key, in one file.
    fn certificate(&self) -> Result<String> {
        let mut parameters = rcgen::CertificateParams::new(["maesh-dns.maesh.svc".to_owned()])?;
        let until = jiff::Zoned::now().date().saturating_add(jiff::Span::new().days(DAYS));
        let (month, day) = (until.month().unsigned_abs(), until.day().unsigned_abs());
        parameters.not_after = rcgen::date_time_ymd(until.year().into(), month, day);
        let key = rcgen::KeyPair::generate()?;
        let file = self.folder.path().join("dns.pem");
        fs::write(&file, parameters.self_signed(&key)?.pem() + &key.serialize_pem())?;
        Ok(file.display().to_string())
    }

    fn write_manifests(&self) -> Result<()> {
        let objects = include_str!("manifests.yaml");
        let objects = objects.replace("@NEAR@", &self.near().to_string()).replace("@FAR@", &self.far().to_string());
        let http = |number| endpoints::http(&self.stage, number);
        let (web, next) = ([http(0)?, http(1)?, http(2)?], [http(12)?]);
        let (streams, datagrams, legacy) = ([self.streams], [self.datagrams], [http(13)?]);
        let slices = [
            slices("web", "http", "TCP", &web),
            slices("web-next", "http", "TCP", &next),
            slices("legacy", "http", "TCP", &legacy),
            slices("mistaken", "http", "TCP", &next),
            slices("db", "sql", "TCP", &streams),
            slices("log", "syslog", "UDP", &datagrams),
        ];
        self.save("objects.yaml", &(objects + &slices.concat()))?;
        self.write_streams(Phase::Calm)?;
        self.write_changing(0)
    }

    /// Writes the endpoints of the Service that changes: one or two of them in turn.
    fn write_changing(&self, changes: usize) -> Result<()> {
        self.save("cart.yaml", &slices("cart", "http", "TCP", &self.changing[..1 + changes % 2]))
    }

    /// Writes the endpoints of the other ports of `web`: none while all of its endpoints fail.
    fn write_streams(&self, phase: Phase) -> Result<()> {
        let count = usize::from(phase != Phase::AllFail);
        let streams = slices("web", "feed", "TCP", &[self.streams][..count]);
        let datagrams = slices("web", "statsd", "UDP", &[self.datagrams][..count]);
        self.save("streams.yaml", &(streams + &datagrams))
    }

    /// Writes a file of manifests at once: the controller reads them as soon as they change.
    fn save(&self, name: &str, text: &str) -> Result<()> {
        let beside = self.folder.path().join(name);
        fs::write(&beside, text).with_context(|| format!("writing {}", beside.display()))?;
        Ok(fs::rename(&beside, self.folder.path().join("manifests").join(name))?)
    }
}

/// EndpointSlices of a port of a Service: one for each address, since each has a port of its own.
fn slices(service: &str, port: &str, protocol: &str, addresses: &[SocketAddr]) -> String {
    let one = |at: &SocketAddr| {
        let (ip, number): (IpAddr, u16) = (at.ip(), at.port());
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: {service}-{port}-{number}, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}\n\
             addressType: IPv4\nports: [{{name: {port}, port: {number}, protocol: {protocol}}}]\n\
             endpoints: [{{addresses: [{ip}], conditions: {{ready: true}}}}]\n"
        )
    };
    addresses.iter().map(one).collect()
}
