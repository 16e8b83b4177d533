//! A large cluster in a real API server: what each role holds, and how long a change takes to reach a request.
//!
//! etcd, kube-apiserver and the three roles run as processes of their own in one network namespace. Every endpoint is
//! an address of its own; one backend listens on all of them and answers the address it was reached at. So an answer
//! says by itself which state of an EndpointSlice it was sent by, and nothing that a role claims has to be believed.

pub(super) mod cluster;
pub(super) mod http;
mod report;
mod roles;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use maesh_test_support::tool;
use maesh_testkube::ApiServer;

use self::{
    cluster::{ENDPOINTS, Layout, PODS, slice, write_everything},
    http::{Backend, Client},
    report::{ScaleReport, Times},
    roles::{Mesh, PROXY},
};
use super::binary::Binary;
use crate::{
    Reported,
    measure::{Figure, Running},
};

/// Longest wait for one change to be used; past it the write counts as lost.
const LOST: Duration = Duration::from_secs(10);
/// Pause between two requests that look for a change: the resolution of the figure.
const PACE: Duration = Duration::from_micros(500);
/// Connections that put Services in use, and that write objects.
const PARALLEL: usize = 8;

/// What can be chosen.
#[derive(Args)]
pub(crate) struct Options {
    /// Services, each with ten endpoints in one EndpointSlice
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// Services put in use, by one request each; half of all if not given
    #[arg(long)]
    used: Option<usize>,
    /// EndpointSlice writes, one after another, to Services in use
    #[arg(long, default_value_t = 1_000)]
    writes: usize,
    /// Write a Pod for each endpoint too, as a cluster has them
    #[arg(long)]
    pods: bool,
    #[command(flatten)]
    binary: Binary,
}

/// Runs the bench and prints its table; fails when a must is missed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let used = options.used.unwrap_or(options.services / 2);
    let layout = Layout::new(options.services)?;
    if used == 0 || used > options.services {
        bail!("--used {used}: must be 1 to {} (--services)", options.services);
    }
    for name in ["etcd", "kube", "kubectl"] {
        tool(name).with_context(|| format!("{name} is needed: cargo xtask test --setup builds it"))?;
    }
    let maesh = options.binary.file()?;
    eprintln!("starting etcd and kube-apiserver");
    let server = ApiServer::start()?;
    server.namespace().make_local(PODS)?;
    let report = server.namespace().run(|| measure(&server, &maesh, layout, options, used))??;
    print!("{report}");
    if report.all_musts_met() { Ok(()) } else { Err(anyhow::Error::msg(Reported)) }
}

fn measure(
    server: &ApiServer,
    maesh: &std::path::Path,
    layout: Layout,
    options: &Options,
    used: usize,
) -> Result<ScaleReport> {
    let backend = Backend::start()?;
    let mut kubectl = server.kubectl();
    kubectl.args(["proxy", "--port", "8001", "--address", "127.0.0.1"]);
    let mut api = Running::start("kubectl proxy", kubectl)?;
    api.wait_for_port(cluster::API)?;

    let wrote = write_everything(layout, options.pods)?;
    let mut mesh = Mesh::start(server, maesh)?;
    let synced = mesh.await_ready()?;
    let after_sync = mesh.memory()?;
    let joined = mesh.join(server, maesh)?;

    let first = put_in_use(layout, used)?;
    let in_use = mesh.memory()?;

    let busy = mesh.processor_time()?;
    let changes = changes(layout, used, options.writes)?;
    let busy = mesh.processor_time()?.into_iter().zip(busy).map(|(after, before)| after - before).collect();
    let after_writes = mesh.memory()?;
    let report = ScaleReport {
        layout,
        pods: options.pods,
        used,
        wrote,
        synced,
        joined,
        memory: [after_sync, in_use, after_writes],
        first,
        changes,
        busy,
        backend: backend.answered(),
    };
    Ok(report)
}

/// What putting Services in use was like.
struct FirstUse {
    /// From request to answer, whichever.
    times: Times,
    /// Answers other than 200 by the right endpoint, with examples.
    failures: Vec<String>,
}

/// One request to each of the first `used` Services.
fn put_in_use(layout: Layout, used: usize) -> Result<FirstUse> {
    eprintln!("putting {used} Services in use");
    let one = |lane: usize| -> Result<(Vec<Duration>, Vec<String>)> {
        let mut client = Client::connect(PROXY)?;
        let (mut times, mut failures) = (Vec::new(), Vec::new());
        for service in (lane..used).step_by(PARALLEL) {
            let since = Instant::now();
            let answer = client.get(&layout.host(service))?;
            times.push(since.elapsed());
            if !answer.is_ok_from(&layout.addresses(service, 0)) {
                failures.push(format!("{}: {answer}", layout.host(service)));
            }
        }
        Ok((times, failures))
    };
    let lanes = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..PARALLEL).map(|lane| scope.spawn(move || one(lane))).collect();
        lanes.into_iter().map(cluster::joined).collect::<Result<Vec<_>>>()
    })?;
    let (times, failures): (Vec<_>, Vec<_>) = lanes.into_iter().unzip();
    Ok(FirstUse { times: Times::new(times.concat()), failures: failures.concat() })
}

/// What a row of writes showed.
struct Changes {
    /// From just before the write was sent to the answer of an endpoint that only the write named.
    used: Times,
    /// From the write's answer to the same; zero where the request came first.
    after_answer: Times,
    /// The API server's own share: from sending the write to its answer.
    answered: Times,
    /// Requests sent meanwhile.
    requests: usize,
    /// Requests not answered 200.
    failures: Vec<String>,
}

/// Replaces the endpoints of one Service after another and asks the proxy until a new one answers.
fn changes(layout: Layout, used: usize, writes: usize) -> Result<Changes> {
    let (mut api, mut client) = (Client::connect(cluster::API)?, Client::connect(PROXY)?);
    let (mut in_use, mut after, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    let (mut requests, mut failures) = (0, Vec::new());
    let mut progress = cluster::Progress::new("EndpointSlice writes", writes);
    for write in 0..writes {
        // Spread over the Services in use; each has new addresses every time.
        let service = write * 7_919 % used;
        let generation = 1 + write / used;
        let addresses = layout.addresses(service, generation);
        let (path, body) = (layout.slice_path(service), slice(layout, service, generation));
        let host = layout.host(service);
        // A request just before, so that a connection of the caller that went stale is no part of the figure.
        client.get(&host)?;
        let sent = Instant::now();
        let (answered, now_used) = std::thread::scope(|scope| -> Result<_> {
            let writing = scope.spawn(|| -> Result<Instant> {
                api.write("PUT", &path, &body)?;
                Ok(Instant::now())
            });
            let now_used = loop {
                let answer = client.get(&host)?;
                requests += 1;
                if !answer.is_ok() {
                    failures.push(format!("{host}: {answer}"));
                } else if answer.is_ok_from(&addresses) {
                    break Instant::now();
                }
                if sent.elapsed() > LOST {
                    bail!("write {write} to {host} was not used within {LOST:?}; last answer {answer}");
                }
                std::thread::park_timeout(PACE);
            };
            Ok((cluster::joined(writing)?, now_used))
        })?;
        in_use.push(now_used - sent);
        answers.push(answered - sent);
        after.push(now_used.saturating_duration_since(answered));
        progress.one_more();
    }
    Ok(Changes {
        used: Times::new(in_use),
        after_answer: Times::new(after),
        answered: Times::new(answers),
        requests,
        failures,
    })
}

/// What must be, and what should be.
const CHANGE: Figure = Figure { must: 200.0, goal: 50.0, unit: "ms" };
const CONTROLLER: Figure = Figure { must: 300.0, goal: 150.0, unit: "MiB" };
const DNS: Figure = Figure { must: 100.0, goal: 60.0, unit: "MiB" };
const PROXY_MEMORY: Figure = Figure { must: 80.0, goal: 40.0, unit: "MiB" };

/// Names of the roles and what their memory is held to, in the order in which figures come.
const ROLES: [(&str, Figure); 3] = [("controller", CONTROLLER), ("dns", DNS), ("proxy", PROXY_MEMORY)];

/// Endpoints in all, for `services`.
const fn endpoints(services: usize) -> usize {
    services * ENDPOINTS
}
