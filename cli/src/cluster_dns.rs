//! `maesh dns status|install|uninstall|print`: the stanza in the cluster's DNS, by hand.
//!
//! The same functions as the controller's, so what they refuse is refused here too; progress goes to standard error.

mod print;

use std::{collections::BTreeMap, net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use maesh_controller::duties::stanza::{
    Change, Cluster, ClusterError, Look, Mesh, ReloadWatch, Report, Right, Stanza, Verdict, answers, looks, said,
    still_leading, take_out,
};
use tokio::time::{Instant, sleep};

use self::print::{Printed, Seen};
use crate::{
    args::{ClusterDnsArgs, ClusterDnsCommand, InstallArgs, PrintArgs, RemoveArgs},
    inspect, terminal,
};

/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How a person keeps the controllers from writing the stanza.
const MANUAL: &str = "helm upgrade RELEASE CHART -n NAMESPACE --reset-then-reuse-values --set coredns.mode=manual \
                      (docs/cluster-dns.md, emergency exit)";
/// How often a write is tried again when somebody else wrote at the same moment.
const TRIES: usize = 5;

/// Does what was asked for.
pub async fn run(command: ClusterDnsCommand) -> anyhow::Result<ExitCode> {
    match command {
        ClusterDnsCommand::Status(args) => status(args).await,
        ClusterDnsCommand::Install(args) => install(args).await,
        ClusterDnsCommand::Uninstall(args) => uninstall(args).await,
        ClusterDnsCommand::Print(args) => print(args).await,
    }
}

/// The cluster and the mesh that the flags mean.
async fn open(args: &ClusterDnsArgs) -> anyhow::Result<(Cluster, Mesh)> {
    let client = inspect::client(&args.cluster).await?;
    let mesh = Mesh {
        namespace: args.cluster.namespace.clone(),
        service: args.stanza.service.dns_service.clone(),
        zones: args.stanza.zones.clone(),
    };
    Ok((Cluster::new(client), mesh))
}

async fn status(args: ClusterDnsArgs) -> anyhow::Result<ExitCode> {
    let (cluster, mesh) = open(&args).await?;
    let there = cluster.read(cluster.place().await?).await?;
    let forward = cluster.forward(&mesh).await?;
    let report = there.report(&mesh.zones, forward)?;
    let ready = cluster.is_ready(&mesh).await?;
    let seen = looks(&there.place, &report.cluster_domain, &mesh.zones).await;
    let printed = print::Status::of(&there, &report, forward, ready, &seen);
    let good = printed.good;
    printed.print(args.output);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn install(args: InstallArgs) -> anyhow::Result<ExitCode> {
    let (cluster, mesh) = open(&args.common).await?;
    let forward = cluster.forward(&mesh).await?;
    if !cluster.is_ready(&mesh).await? {
        bail!(
            "no pod behind Service {}/{} is ready; nothing was written. Wait for it: kubectl -n {} get pods",
            mesh.namespace,
            mesh.service,
            mesh.namespace
        );
    }
    let (report, changes, before) = write(&cluster, &mesh, forward, args.unverified).await?;
    let files: Vec<String> = changes.iter().map(print::file).collect();
    if changes.is_empty() {
        Printed::new("unchanged", "the stanza is there already", files).print(args.common.output);
        return Ok(ExitCode::SUCCESS);
    }
    terminal::err(format_args!("{}, leading to {forward}\n", said(&changes)));
    let Some(watch) = ReloadWatch::start(Instant::now(), args.deadline, &before) else {
        let text = "written; the cluster's DNS cannot be asked from here, so what came of it was not seen. See it from a \
                    pod: maesh dns status";
        Printed::new("written", text, files).print(args.common.output);
        return Ok(ExitCode::SUCCESS);
    };
    let verdict = observe(&cluster, &report, &mesh, forward, watch).await?;
    let (state, text, code) = match verdict {
        Verdict::Live => ("live", "every server of the cluster's DNS leads to the mesh".to_owned(), ExitCode::SUCCESS),
        Verdict::Refused if !report.reloads => (
            "written",
            "the Corefile has no `reload`: CoreDNS takes the stanza up when it is restarted. Restart it when it suits \
             you"
            .to_owned(),
            ExitCode::SUCCESS,
        ),
        Verdict::Failing(_) | Verdict::Refused => {
            take_out(&cluster, &mesh, &Right::Person).await.context("the stanza does harm and could not be undone")?;
            let why = match verdict {
                Verdict::Failing(server) => format!("{server} no longer answered for names of the cluster"),
                _ => format!("no server took it up within {:?}; the log of CoreDNS says why", args.deadline),
            };
            ("reverted", format!("the stanza was taken out again: {why}"), ExitCode::FAILURE)
        }
        Verdict::Behind(servers) => (
            "partly",
            format!("{servers:?} did not take up the stanza, others did; look at the logs of those pods"),
            ExitCode::FAILURE,
        ),
        Verdict::Wait | Verdict::Unknown => {
            ("unknown", "nobody answers for the mesh's zone; look at the mesh's dns".to_owned(), ExitCode::FAILURE)
        }
    };
    Printed::new(state, &text, files).print(args.common.output);
    Ok(code)
}

/// Reads, looks, and writes; anew where somebody else wrote at the same moment.
async fn write(
    cluster: &Cluster,
    mesh: &Mesh,
    forward: std::net::IpAddr,
    unverified: bool,
) -> anyhow::Result<(Report, Vec<Change>, BTreeMap<SocketAddr, Look>)> {
    let mut tries = 0;
    loop {
        let there = cluster.read(cluster.place().await?).await?;
        let report = there.report(&mesh.zones, forward)?;
        let changes = there.additions(&mesh.zones, forward)?;
        if changes.is_empty() {
            return Ok((report, changes, BTreeMap::new()));
        }
        let before = looks(&there.place, &report.cluster_domain, &mesh.zones).await;
        if !unverified && before.values().all(|look| !look.plain) {
            bail!(
                "the cluster's DNS ({}) does not answer from here, so what comes of the stanza could not be seen; nothing \
                 was written. Run this in a pod, or add --unverified",
                there.place.service
            );
        }
        match cluster.write(&there, &changes, &Right::Person).await {
            Ok(()) => return Ok((report, changes, before)),
            Err(ClusterError::Conflict(_)) if tries < TRIES => tries += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Watches what comes of a write. The servers are found anew at each look: who left is not one that fails.
async fn observe(
    cluster: &Cluster,
    report: &Report,
    mesh: &Mesh,
    forward: std::net::IpAddr,
    mut watch: ReloadWatch,
) -> anyhow::Result<Verdict> {
    loop {
        match cluster.place().await {
            Ok(place) => {
                let seen = looks(&place, &report.cluster_domain, &mesh.zones).await;
                match watch.judge(Instant::now(), &seen, answers(forward, &mesh.zones).await) {
                    Verdict::Wait => {}
                    verdict => return Ok(verdict),
                }
            }
            Err(error) if watch.is_over(Instant::now()) => {
                return Err(error).context("the stanza is written; what came of it was not seen to the end");
            }
            Err(error) => terminal::err(format_args!("{error}; looking on\n")),
        }
        sleep(LOOK).await;
    }
}

async fn uninstall(args: RemoveArgs) -> anyhow::Result<ExitCode> {
    let (cluster, mesh) = open(&args.common).await?;
    let changes = take_out(&cluster, &mesh, &Right::Person).await?;
    let files: Vec<String> = changes.iter().map(print::file).collect();
    if !changes.is_empty() {
        terminal::err(format_args!("taken out: {}\n", files.join("; ")));
    }
    let maps = changes.iter().map(|change| change.file.map.clone()).collect();
    let writers = match cluster.writers(&mesh, &maps).await {
        Ok(writers) => writers,
        Err(error) => {
            terminal::err(format_args!("{error}; looking whether the stanza comes back\n"));
            Vec::new()
        }
    };
    // With writers, what the servers do says nothing: it is about to change.
    let longest = if writers.is_empty() { args.deadline } else { Duration::ZERO };
    let since = Instant::now();
    let still = loop {
        let still = still_leading(&cluster.servers().await?, &mesh.zones).await;
        if still.is_empty() || since.elapsed() >= longest {
            break still;
        }
        sleep(LOOK).await;
    };
    let (back, _) = cluster.read(cluster.place().await?).await?.removals(&mesh.zones, None);
    let (state, text, code) = match (&still[..], &back[..]) {
        (_, []) if !writers.is_empty() => (
            "kept",
            format!(
                "the stanza was taken out, but pod {} writes it again: it runs with coredns.mode=auto, and may write there. \
                 Stop that and run this again: {MANUAL}. Or take the mesh away as a whole: helm uninstall",
                writers.join(", ")
            ),
            ExitCode::FAILURE,
        ),
        (_, [first, ..]) => (
            "back",
            format!(
                "{} has the stanza again: a controller with coredns.mode=auto writes it. Stop that and run this again: \
                 {MANUAL}. Or take the mesh away as a whole: helm uninstall",
                print::file(first)
            ),
            ExitCode::FAILURE,
        ),
        ([], []) if changes.is_empty() => ("absent", "there was no stanza".to_owned(), ExitCode::SUCCESS),
        ([], []) => ("removed", "no server that answers here leads to the mesh any more".to_owned(), ExitCode::SUCCESS),
        (still, []) => (
            "removed",
            format!(
                "the stanza is out, and {still:?} lead to the mesh still: they read no change without a restart, or did \
                 not have the time"
            ),
            if args.deadline.is_zero() { ExitCode::SUCCESS } else { ExitCode::FAILURE },
        ),
    };
    Printed::new(state, &text, files).print(args.common.output);
    Ok(code)
}

async fn print(args: PrintArgs) -> anyhow::Result<ExitCode> {
    if let Some(forward) = args.forward {
        let stanza = Stanza { zones: args.common.stanza.zones.clone(), port: args.port, forward };
        print::Stanzas::new(Some(&stanza), &[], &stanza.zones, forward).print(args.common.output);
        return Ok(ExitCode::SUCCESS);
    }
    let (cluster, mesh) = open(&args.common).await?;
    let forward = cluster.forward(&mesh).await?;
    let found = async { anyhow::Ok(cluster.read(cluster.place().await?).await?.report(&mesh.zones, forward)?) };
    match found.await {
        Ok(report) => {
            let files: Vec<Seen> = report.standings.iter().map(Seen::of).collect();
            print::Stanzas::new(report.stanza.as_ref(), &files, &mesh.zones, forward).print(args.common.output);
        }
        Err(error) => {
            // It can still be written by hand, for whatever there is.
            terminal::err(format_args!("{error:#}\n"));
            let stanza = Stanza { zones: mesh.zones, port: args.port, forward };
            print::Stanzas::new(Some(&stanza), &[], &stanza.zones, forward).print(args.common.output);
        }
    }
    Ok(ExitCode::SUCCESS)
}
