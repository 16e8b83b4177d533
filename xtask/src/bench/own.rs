//! What own addresses cost every node: a real kube-proxy's processor time and memory, and the API server's writes, with
//! every proxy listed and with a few of each zone.
//!
//! etcd, kube-apiserver, the endpoints controller of kube-controller-manager, one kube-proxy and `maesh controller` run
//! as processes of their own in one network namespace. Nodes and proxies are objects only: pods that say they are ready.
//! The same is done twice, in a new cluster each time: all addresses are given, then the proxies are rolled out.

mod objects;
mod programs;
mod report;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use maesh_test_support::tool;
use maesh_testkube::ApiServer;

use self::{
    objects::{Objects, TestObjects, Writes},
    programs::Programs,
    report::{OwnReport, PartCost, Run},
};
use super::{
    binary::Binary,
    scale::{cluster::API, http::Client},
};
use crate::measure::Running;

/// How long nothing may happen until all is taken to be done.
const QUIET: Duration = Duration::from_secs(10);
/// Processor time of a kube-proxy that does nothing, in a second.
const IDLE: Duration = Duration::from_millis(30);
/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Longest time until all is done.
const LONGEST: Duration = Duration::from_secs(3_600);

/// What can be chosen.
#[derive(Args)]
pub(crate) struct Options {
    /// TCP Services, all on one port: each needs an address of its own
    #[arg(long, default_value_t = 1_000)]
    services: usize,
    /// Nodes in three zones, with a proxy each
    #[arg(long, default_value_t = 500)]
    proxies: usize,
    /// Proxies that the rollout replaces; all if not given
    #[arg(long)]
    rollout: Option<usize>,
    /// Proxies that the rollout replaces at once
    #[arg(long, default_value_t = 10)]
    at_once: usize,
    /// `--own-budget` of the second run; the first one has none
    #[arg(long, default_value_t = 20_000)]
    budget: u32,
    #[command(flatten)]
    binary: Binary,
}

/// Runs the bench and prints its tables.
pub(crate) fn run(options: &Options) -> Result<()> {
    let rollout = options.rollout.unwrap_or(options.proxies);
    objects::check(options.services, options.proxies, rollout, options.at_once)?;
    for name in ["etcd", "kube", "kubectl"] {
        tool(name).with_context(|| format!("{name} is needed: cargo xtask test --setup builds it"))?;
    }
    let maesh = options.binary.file()?;
    let mut runs = Vec::new();
    for budget in [0, options.budget] {
        eprintln!("starting etcd and kube-apiserver, for --own-budget {budget}");
        let server = ApiServer::start()?;
        runs.push(server.namespace().run(|| measure(&server, &maesh, options, rollout, budget))??);
    }
    let (services, proxies, at_once) = (options.services, options.proxies, options.at_once);
    print!("{}", OwnReport { services, proxies, rollout, at_once, runs });
    Ok(())
}

fn measure(server: &ApiServer, maesh: &Path, options: &Options, rollout: usize, budget: u32) -> Result<Run> {
    let mut kubectl = server.kubectl();
    kubectl.args(["proxy", "--port", "8001", "--address", "127.0.0.1"]);
    let mut api = Running::start("kubectl proxy", kubectl)?;
    api.wait_for_port(API)?;
    let mut cluster = TestObjects::write(options.services, options.proxies)?;
    let mut programs = Programs::start(server)?;
    // What kube-proxy needs to start is no part of it.
    run_until(&mut programs, LONGEST, || Ok(true))?;
    let begun = Moment::now(&programs)?;
    programs.start_controller(server, maesh, budget)?;
    let few = budget > 0 && options.services * options.proxies > usize::try_from(budget)?;
    let written = run_until(&mut programs, LONGEST, || cluster.is_served(few))?;
    let objects = Objects::read()?;
    let given = PartCost::between(&begun, &written);
    let since = Moment::now(&programs)?;
    cluster.roll_out(rollout, options.at_once)?;
    let rolled = run_until(&mut programs, LONGEST, || cluster.is_served(few))?;
    Ok(Run { budget, few, objects, given, rolled: PartCost::between(&since, &rolled) })
}

/// What was used up to a moment.
struct Moment {
    at: Instant,
    writes: Writes,
    kube_proxy: Duration,
    controller: Duration,
    /// What kube-proxy has resident, in bytes.
    resident: u64,
}

impl Moment {
    fn now(programs: &Programs) -> Result<Self> {
        let (kube_proxy, controller) = programs.processor_time()?;
        let (writes, resident) = (Writes::read()?, programs.resident()?);
        Ok(Self { at: Instant::now(), writes, kube_proxy, controller, resident })
    }
}

/// Waits until nothing is written any more, kube-proxy rests, and `done` says so. Returns the last moment at which
/// something still happened.
fn run_until(programs: &mut Programs, limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<Moment> {
    let since = Instant::now();
    let mut last = Moment::now(programs)?;
    let mut before = last.kube_proxy;
    let mut said = Instant::now();
    while since.elapsed() < limit {
        std::thread::park_timeout(LOOK);
        programs.check()?;
        let now = Moment::now(programs)?;
        let rests = now.kube_proxy - before <= IDLE;
        before = now.kube_proxy;
        if said.elapsed() > Duration::from_secs(10) {
            said = Instant::now();
            eprintln!(
                "{:.0} s: {} writes of EndpointSlices, {} of Services; kube-proxy used {:.1} s",
                since.elapsed().as_secs_f64(),
                now.writes.slices,
                now.writes.services,
                now.kube_proxy.as_secs_f64()
            );
        }
        if now.writes != last.writes || !rests {
            last = now;
        } else if last.at.elapsed() >= QUIET {
            if done()? {
                return Ok(last);
            }
            last = now;
        }
    }
    bail!("not done within {limit:?}")
}

/// The body of an answer of the API server.
fn get(client: &mut Client, path: &str) -> Result<String> {
    let answer = client.get_path("localhost", path)?;
    if !answer.is_ok() {
        bail!("{path}: {answer}");
    }
    Ok(answer.body)
}
