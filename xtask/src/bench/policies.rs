//! What each policy costs a request, beside a Service without any, and all of them together.
//!
//! One process of ours serves all Services, so that they differ in their annotations alone; only access control, which holds for a
//! whole mesh, has processes of its own. None of the policies acts: no request fails, is limited, denied or slow. Policies that send
//! more requests (mirrors) or make them fail (faults) are left out.

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

/// The Services without access control: a name, and the sets of annotations that it has.
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

/// The Services under access control, each alone in its process: a name, and the rules by which its callers are admitted.
const ADMITTED: [(&str, &str); 2] = [
    ("access-all", "  rules: [{kind: TCPRoute, name: all}]\n"),
    ("access-paths", "  rules: [{kind: HTTPRouteGroup, name: pages, matches: [pages]}]\n"),
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
    let (name, program) = setting.ours()?.into_iter().next().context("nothing of ours is to be measured")?;
    let port = free()?.port();
    let start = |index: usize, access_control: bool, text: String| -> Result<Mesh> {
        let manifests = template.folder().join(format!("policies-{index}.yaml"));
        fs::write(&manifests, text)?;
        let mut command = setting.proxy(&program);
        if access_control {
            command.env("MAESH_ACL", "true");
        }
        let (process, ready) = start_maesh(command, &name, index, &manifests)?;
        let address =
            ready["services"].as_array().into_iter().flatten().find_map(|service| service["address"].as_str());
        let address = address.with_context(|| format!("no Service has an address: {ready}"))?;
        Ok(Mesh { process, to: SocketAddr::new(address.parse()?, port) })
    };
    let open: String = SERVICES.iter().map(|(name, sets)| service(&template, port, name, sets)).collect();
    let mut meshes = vec![start(0, false, open)?];
    for (index, (name, rules)) in ADMITTED.into_iter().enumerate() {
        meshes.push(start(1 + index, true, service(&template, port, name, &[]) + &admits_itself(rules))?);
    }
    let open = SERVICES.iter().map(|(name, _)| (*name, 0));
    let rows: Vec<(&str, usize)> =
        open.chain(ADMITTED.iter().zip(1..).map(|((name, _), mesh)| (*name, mesh))).collect();
    let load = Load { options, wrk, meshes };
    let comparison = Comparison { metrics: &METRICS, rounds: &options.rounds, reference: SERVICES[0].0 };
    comparison.print(&rows, |(service, _)| service, |(service, mesh)| load.measure(service, *mesh))?;
    println!(
        "{}, HTTP/1.1, {} connections, three endpoints, 128-byte answers; {}.",
        load.wrk.version,
        options.connections,
        comparison.conditions("")
    );
    Ok(())
}

/// A Service with these annotations and three endpoints.
fn service(template: &Template, port: u16, service: &str, sets: &[Annotations]) -> String {
    let mut text = format!("---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {service}\n  namespace: bench\n");
    text += "  annotations:\n    maesh.containo.us/traffic-type: http\n";
    for (name, value) in sets.iter().copied().flatten() {
        text += &format!("    maesh.containo.us/{name}: \"{value}\"\n");
    }
    text += &format!("spec:\n  clusterIP: 10.0.0.1\n  ports: [{{name: web, port: {port}}}]\n");
    for endpoint in ENDPOINTS {
        let target = template.value(&format!("{endpoint}_PORT"));
        text += &format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {service}-{}\n  namespace: bench\n  \
             labels: {{kubernetes.io/service-name: {service}}}\naddressType: IPv4\nports: [{{name: web, port: {target}}}]\n\
             endpoints: [{{addresses: [127.0.0.1]}}]\n",
            endpoint.to_lowercase(),
        );
    }
    text
}

/// The pod that both callers and endpoints are, for they have one address, and what admits it to itself by these rules.
fn admits_itself(rules: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: both, namespace: bench}}\nspec: {{serviceAccountName: both}}\n\
         status: {{podIP: 127.0.0.1}}\n\
         ---\napiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\nmetadata: {{name: pages, namespace: bench}}\n\
         spec: {{matches: [{{name: pages, methods: [GET, HEAD], pathRegex: /.*}}]}}\n\
         ---\napiVersion: specs.smi-spec.io/v1alpha4\nkind: TCPRoute\nmetadata: {{name: all, namespace: bench}}\nspec: {{}}\n\
         ---\napiVersion: access.smi-spec.io/v1alpha3\nkind: TrafficTarget\nmetadata: {{name: both, namespace: bench}}\n\
         spec:\n  destination: {{kind: ServiceAccount, name: both}}\n  sources: [{{kind: ServiceAccount, name: both}}]\n{rules}"
    )
}

/// A mesh whose proxy is measured.
struct Mesh {
    process: Running,
    to: SocketAddr,
}

/// What makes the requests.
struct Load<'a> {
    options: &'a Options,
    wrk: Wrk,
    meshes: Vec<Mesh>,
}

impl Load<'_> {
    /// Loads `service`, first unmeasured, then for the time of one round.
    fn measure(&self, service: &str, mesh: usize) -> Result<Vec<f64>> {
        let mesh = &self.meshes[mesh];
        self.requests(service, mesh, WARM_UP.as_secs())?;
        let before = mesh.process.usage()?;
        let requests = self.requests(service, mesh, self.options.rounds.seconds)?;
        Ok((mesh.process.usage()? - before).micros_per(requests).to_vec())
    }

    /// Makes requests for `seconds`; returns how many were answered with 200.
    fn requests(&self, service: &str, mesh: &Mesh, seconds: u64) -> Result<f64> {
        let (field, url) = (format!("Host: {service}.bench.maesh"), format!("http://{}/", mesh.to));
        let asked = self.wrk.ask(&self.options.setting, self.options.connections, seconds, &field, &url);
        asked.with_context(|| format!("requests to {service}"))
    }
}
