//! `maesh check`: can a mesh be installed here, and does the one that is installed work?
//!
//! Each check is a small function in the module of its group that looks at one thing and says pass, warn, fail or skip,
//! with a line that mends it. They share what was read of the cluster, so each object is asked for once.

mod cluster;
mod config;
mod context;
mod control;
mod dns;
mod junit;
mod objects;
mod outcome;
mod paths;
mod placement;
mod print;
mod provider;
mod query;
mod rollout;
mod smi;
mod sources;
mod workloads;

use std::{process::ExitCode, time::Duration};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};

pub use self::context::{counted, items, name, text};
use self::{
    context::Context,
    outcome::{Checked, Counts, Outcome, Verdict},
    print::CheckPrinter,
};
use crate::{args::CheckArgs, inspect};

/// Pause before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// What only warnings exit with under `--strict`.
const WARNED: u8 = 3;

/// When a check is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CheckPhase {
    /// Before the mesh is installed, and after.
    Both,
    /// Before it is installed.
    Before,
    /// Once it is installed.
    After,
}

/// One check.
struct Check {
    /// Its name on the command line, and its anchor in the documentation.
    id: &'static str,
    group: &'static str,
    when: CheckPhase,
    run: for<'a> fn(&'a Context) -> BoxFuture<'a, Outcome>,
}

macro_rules! checks {
    ($($when:ident $group:ident $id:literal $run:path),* $(,)?) => {
        &[$(Check {
            id: $id,
            group: stringify!($group),
            when: CheckPhase::$when,
            run: |context| Box::pin($run(context)),
        }),*]
    };
}

/// Every check, in the order in which they are made.
const CHECKS: &[Check] = checks![
    Both cluster "api" cluster::api,
    Both cluster "version" cluster::version,
    Both cluster "clock" cluster::clock,
    Before cluster "rights" cluster::rights,
    Before cluster "cluster-ips" cluster::cluster_ips,
    Before workloads "platform" objects::platform,
    Before workloads "pod-security" workloads::pod_security,
    Before workloads "priority" workloads::priority,
    After workloads "roles" workloads::roles,
    After workloads "proxy-nodes" workloads::proxy_nodes,
    After workloads "rollouts" rollout::rollouts,
    After workloads "images" rollout::images,
    After workloads "versions" rollout::versions,
    After workloads "replicas" rollout::replicas,
    After controllers "leader" control::leader,
    After controllers "watches" control::watches,
    After controllers "permissions" control::permissions,
    Before dns "dns-provider" provider::provider,
    Both dns "corefile" provider::corefile,
    Before dns "node-local" provider::node_local,
    Before dns "zone" dns::zone_is_free,
    After dns "stanza" provider::stanza,
    After dns "node-local-stub" provider::node_local_stub,
    After dns "coredns-loaded" dns::coredns_loaded,
    After dns "coredns-query" dns::coredns_query,
    After dns "mesh-dns" dns::mesh_dns,
    After dns "negative" dns::negative,
    Both dns "corefile-owner" dns::corefile_owner,
    After config "bypass" config::bypass,
    Both config "smi" smi::smi,
    Both config "traefik-mesh" config::traefik_mesh,
    After config "network-policies" config::network_policies,
    After config "namespaces" config::namespaces,
    After config "config" config::in_force,
    After traffic "proxy-request" paths::proxy_request,
    After traffic "same-node" paths::same_node,
    After traffic "own-ports" rollout::own_ports,
    After traffic "endpoints" objects::endpoints,
    After traffic "objects" objects::objects,
    After traffic "access-sources" sources::access_sources,
];

/// Makes the checks, and says how they went.
pub async fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let chosen = choose(&args);
    let deadline = Instant::now() + args.wait;
    let mut context = Context::new(inspect::open(&args.cluster).await?);
    let mut printer = CheckPrinter::new(args.output, args.strict, chosen.len());
    let mut all = Vec::new();
    for check in chosen {
        printer.begin(check.id);
        let mut outcome = (check.run)(&context).await;
        while outcome.verdict == Verdict::Fail && Instant::now() + AGAIN < deadline {
            sleep(AGAIN).await;
            context.forget();
            outcome = (check.run)(&context).await;
        }
        let stop = check.id == "api" && outcome.verdict == Verdict::Fail;
        let checked = Checked { id: check.id, group: check.group, outcome };
        printer.end(&checked);
        all.push(checked);
        if stop {
            break;
        }
    }
    let counts = Counts::of(&all);
    printer.finish(&all, counts)?;
    Ok(exit_code(counts, args.strict))
}

fn exit_code(counts: Counts, strict: bool) -> ExitCode {
    match counts {
        Counts { fail: 1.., .. } => ExitCode::FAILURE,
        Counts { warn: 1.., .. } if strict => ExitCode::from(WARNED),
        _ => ExitCode::SUCCESS,
    }
}

/// The name of a check, on the command line.
///
/// # Errors
/// When there is none of that name.
pub fn check_name(text: &str) -> Result<String, String> {
    if CHECKS.iter().any(|check| check.id == text) {
        return Ok(text.to_owned());
    }
    let known: Vec<_> = CHECKS.iter().map(|check| check.id).collect();
    Err(format!("there is no such check; there are {}", known.join(", ")))
}

/// The checks that the flags ask for.
fn choose(args: &CheckArgs) -> Vec<&'static Check> {
    let made = if args.pre { CheckPhase::Before } else { CheckPhase::After };
    let named = |check: &Check| args.only.iter().any(|only| only == check.id);
    let wanted = |check: &&Check| match args.only.is_empty() {
        true => check.when == CheckPhase::Both || check.when == made,
        false => named(check),
    };
    CHECKS.iter().filter(wanted).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn chosen(flags: &[&str]) -> Result<Vec<&'static str>, clap::Error> {
        let cli = Cli::try_parse_from(["maesh", "check"].iter().chain(flags))?;
        let Command::Check(args) = cli.command else { panic!("not check") };
        Ok(choose(&args).iter().map(|check| check.id).collect())
    }

    #[test]
    fn every_check_has_a_name_of_its_own() {
        let names: BTreeSet<_> = CHECKS.iter().map(|check| check.id).collect();
        assert_eq!(names.len(), CHECKS.len());
    }

    #[test]
    fn every_check_has_a_row_on_the_page() {
        let page = maesh_test_support::repository().join("docs/operations.md");
        let page = std::fs::read_to_string(page).unwrap();
        for check in CHECKS {
            let when = match check.when {
                CheckPhase::Both => "both",
                CheckPhase::Before => "pre",
                CheckPhase::After => "installed",
            };
            let row = format!("| <a id=\"{0}\"></a>`{0}` | {when} | ", check.id);
            assert!(page.contains(&row), "docs/operations.md has no row {row:?}");
        }
    }

    #[test]
    fn checks_by_flags() {
        assert!(chosen(&["--pre"]).unwrap().contains(&"rights"));
        assert!(!chosen(&["--pre"]).unwrap().contains(&"config"));
        assert!(!chosen(&[]).unwrap().contains(&"rights"));
        assert_eq!(chosen(&["--only", "config,api"]).unwrap(), ["api", "config"]);
        assert!(chosen(&["--only", "nothing"]).unwrap_err().to_string().contains("there are api, "));
    }

    #[test]
    fn exit_codes() {
        let counts = |warn, fail| Counts { pass: 1, warn, fail, skip: 1 };
        for (counts, strict, want) in [
            (counts(0, 0), true, ExitCode::SUCCESS),
            (counts(1, 0), false, ExitCode::SUCCESS),
            (counts(1, 0), true, ExitCode::from(3)),
            (counts(1, 1), true, ExitCode::FAILURE),
            (counts(0, 1), false, ExitCode::FAILURE),
        ] {
            assert_eq!(format!("{:?}", exit_code(counts, strict)), format!("{want:?}"), "{counts:?} {strict}");
        }
    }
}
