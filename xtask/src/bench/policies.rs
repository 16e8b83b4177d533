//! What each policy costs a request, beside a Service without any, and all of them together.
//!
//! One process of ours serves all Services, so that they differ in their annotations alone. None of the policies acts: no
//! request fails, is limited or is slow. Policies that send more requests (mirrors) or make them fail (faults) are left out.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use clap::Args;

use super::backends::{self, ENDPOINTS};
use super::comparison::Comparison;
use super::load::Wrk;
use super::rivals::{Setting, Template, WARM_UP, free, start_maesh};
use crate::measure::{Metric, Rounds, Running};

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
    let wrk = Wrk::find()?;
    let mut template = Template::new()?;
    let _backends = backends::nginx(setting, &mut template)?;
    let manifests = template.folder().join("policies.yaml");
    let port = free()?.port();
    fs::write(&manifests, text_of_manifests(&template, port))?;
    let (name, program) = setting.ours()?.into_iter().next().context("nothing of ours is to be measured")?;
    let (process, ready) = start_maesh(setting.proxy(&program), &name, 0, &manifests)?;
    let address = ready["services"].as_array().into_iter().flatten().find_map(|service| service["address"].as_str());
    let address = address.with_context(|| format!("no Service has an address: {ready}"))?;
    let load = Load { options, wrk, process, to: SocketAddr::new(address.parse()?, port) };
    let comparison = Comparison { metrics: &METRICS, rounds: &options.rounds, reference: SERVICES[0].0 };
    comparison.print(&SERVICES, |(service, _)| service, |(service, _)| load.measure(service))?;
    println!(
        "{}, HTTP/1.1, {} connections, three endpoints, 128-byte answers; {}.",
        load.wrk.version,
        options.connections,
        comparison.conditions("")
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
        for endpoint in ENDPOINTS {
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
    wrk: Wrk,
    process: Running,
    to: SocketAddr,
}

impl Load<'_> {
    /// Loads `service`, first unmeasured, then for the time of one round.
    fn measure(&self, service: &str) -> Result<Vec<f64>> {
        self.requests(service, WARM_UP.as_secs())?;
        let before = self.process.usage()?;
        let requests = self.requests(service, self.options.rounds.seconds)?;
        Ok((self.process.usage()? - before).micros_per(requests).to_vec())
    }

    /// Makes requests for `seconds`; returns how many were answered with 200.
    fn requests(&self, service: &str, seconds: u64) -> Result<f64> {
        let (field, url) = (format!("Host: {service}.bench.maesh"), format!("http://{}/", self.to));
        let asked = self.wrk.ask(&self.options.setting, self.options.connections, seconds, &field, &url);
        asked.with_context(|| format!("requests to {service}"))
    }
}
