//! What each policy costs a request, beside a Service without any, and all of them together.
//!
//! One process of ours serves all Services, so that they differ in their annotations alone. None of the policies acts: no
//! request fails, is limited or is slow. Policies that send more requests (mirrors) or make them fail (faults) are left out.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::rivals::{Setting, Template, WARM_UP, backends, free, need, number_before, start_maesh, version};
use crate::measure::{Contender, Metric, Rounds, Running, alternate, machine, table};

/// Columns of the table.
const METRICS: [Metric; 3] = [
    Metric { name: "CPU (µs/request)", digits: 2 },
    Metric { name: "user", digits: 2 },
    Metric { name: "system", digits: 2 },
];

const RETRIES: Annotations = &[("retry-attempts", "3"), ("retry-on", "connect-failure,reset,5xx")];
const TIMEOUTS: Annotations = &[("timeout-request", "10s"), ("timeout-try", "5s")];
const RATE: Annotations = &[("ratelimit-average", "1000000000"), ("ratelimit-by", "source")];
const BREAKER: Annotations = &[("circuit-breaker-expression", "ResponseCodeRatio(500, 600, 0, 600) > 0.25")];
const CONCURRENCY: Annotations = &[("concurrency", "10000,50")];
const HEDGE: Annotations = &[("hedge-after", "2s")];
const FALLBACK: Annotations = &[("fallback", "plain")];
const STICKY: Annotations = &[("balance", "sticky")];

/// Annotations without their prefix.
type Annotations = &'static [(&'static str, &'static str)];

/// The Services: a name, and the sets of annotations that it has.
const SERVICES: [(&str, &[Annotations]); 13] = [
    ("plain", &[]),
    ("retries", &[RETRIES]),
    ("timeouts", &[TIMEOUTS]),
    ("rate-limit", &[RATE]),
    ("breaker", &[BREAKER]),
    ("concurrency", &[CONCURRENCY]),
    ("hedge", &[HEDGE]),
    ("fallback", &[FALLBACK]),
    ("round-robin", &[&[("balance", "round-robin")]]),
    ("least-request", &[&[("balance", "least-request")]]),
    ("hash-source", &[&[("balance", "hash:source")]]),
    ("sticky", &[STICKY]),
    ("all", &[RETRIES, TIMEOUTS, RATE, BREAKER, CONCURRENCY, HEDGE, FALLBACK, STICKY]),
];

/// What can be chosen.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    pub(super) setting: Setting,
    /// Connections that make the load
    #[arg(long, default_value_t = 32)]
    connections: u32,
}

/// Runs the bench and prints its table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let setting = &options.setting;
    let wrk = need("wrk")?;
    let mut template = Template::new()?;
    let _backends = backends(setting, &mut template)?;
    let manifests = template.folder().join("policies.yaml");
    let port = free()?.port();
    fs::write(&manifests, text_of_manifests(&template, port))?;
    let (name, program) = setting.ours()?.into_iter().next().context("nothing of ours is to be measured")?;
    let (process, ready) = start_maesh(setting.proxy(&program), &name, 0, &manifests)?;
    let address = ready["services"].as_array().into_iter().flatten().find_map(|service| service["address"].as_str());
    let address = address.with_context(|| format!("no Service has an address: {ready}"))?;
    let load = Load { options, wrk, process, to: SocketAddr::new(address.parse()?, port) };
    let mut contenders: Vec<Contender<'_>> = SERVICES
        .iter()
        .map(|(service, _)| Contender { name: (*service).to_owned(), run: Box::new(|| load.measure(service)) })
        .collect();
    let series = alternate(options.rounds.rounds, &mut contenders)?;
    println!("{}", table(&METRICS, &series, SERVICES[0].0));
    println!(
        "{}, HTTP/1.1, {} connections, three endpoints, 128-byte answers; {} rounds of {} s; {}.",
        version(&load.wrk, "-v")?,
        options.connections,
        options.rounds.rounds,
        options.rounds.seconds,
        machine()
    );
    Ok(())
}

/// Every Service, with its annotations and three endpoints.
fn text_of_manifests(template: &Template, port: u16) -> String {
    let mut all = String::new();
    for (service, sets) in SERVICES {
        all += &format!("---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {service}\n  namespace: bench\n");
        all += "  annotations:\n    maesh.containo.us/traffic-type: http\n";
        for (name, value) in sets.iter().copied().flatten() {
            all += &format!("    maesh.containo.us/{name}: \"{value}\"\n");
        }
        all += &format!("spec:\n  clusterIP: 10.0.0.1\n  ports: [{{name: web, port: {port}}}]\n");
        for endpoint in ["A", "B", "C"] {
            let target = template.value(&format!("{endpoint}_PORT"));
            all += &format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {service}-{}\n  namespace: bench\n  \
                 labels: {{kubernetes.io/service-name: {service}}}\naddressType: IPv4\nports: [{{name: web, port: {target}}}]\n\
                 endpoints: [{{addresses: [127.0.0.1]}}]\n",
                endpoint.to_lowercase(),
            );
        }
    }
    all
}

/// What makes the requests.
struct Load<'a> {
    options: &'a Options,
    wrk: PathBuf,
    process: Running,
    to: SocketAddr,
}

impl Load<'_> {
    /// Loads `service`, first unmeasured, then for the time of one round.
    fn measure(&self, service: &str) -> Result<Vec<f64>> {
        self.requests(service, WARM_UP.as_secs())?;
        let before = self.process.usage()?;
        let requests = self.requests(service, self.options.rounds.seconds)?;
        let used = self.process.usage()? - before;
        let micros = |time: std::time::Duration| time.as_secs_f64() * 1e6 / requests;
        Ok(vec![micros(used.total()), micros(used.user), micros(used.system)])
    }

    /// Makes requests for `seconds`; returns how many were answered with 200. Any other answer is a failure of the bench.
    fn requests(&self, service: &str, seconds: u64) -> Result<f64> {
        let mut command = self.options.setting.load(&self.wrk);
        command.args(["-t1", &format!("-c{}", self.options.connections), &format!("-d{seconds}s")]);
        command.args(["-H", &format!("Host: {service}.bench.maesh"), &format!("http://{}/", self.to)]);
        let mut run = Running::start("load", command)?;
        let status = run.wait()?;
        let text = run.output();
        if !status.success() || text.contains("Non-2xx") || text.contains("Socket errors") {
            bail!("requests to {service} failed ({status}):\n{text}");
        }
        number_before(&text, " requests in").with_context(|| format!("reading the load's report:\n{text}"))
    }
}
