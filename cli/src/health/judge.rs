//! What needs attention, of what was seen.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    collect::{ControllerSeen, PodSeen, Said, Seen},
    report::{Controller, Diagnostics, Group, Problem, Report, Stanza, Watches},
};
use crate::get::SubscriberRow;

/// A change may be on its way for so long.
const ON_ITS_WAY: f64 = 5.0;
/// Names in one sentence.
const SHOWN: usize = 5;
/// What to do where nothing more is known.
const CHECK: &str = "run maesh check";

/// A dns or proxy that is connected.
struct Connected<'a> {
    row: &'a SubscriberRow,
    behind: bool,
}

/// Makes the report.
pub fn judge(seen: &Seen) -> Report {
    let said: Vec<&Said> = seen.controllers.iter().filter_map(|one| one.said.as_ref().ok()).collect();
    let connected = connected(&said);
    let of_role = |role: &str| -> BTreeMap<&str, &Connected<'_>> {
        connected.iter().filter(|(_, one)| one.row.role == role).map(|(id, one)| (*id, one)).collect()
    };
    // Any of them knows the objects; the one that leads says what others read of it too.
    let told = said.iter().find(|said| said.leads == Some(true)).or_else(|| said.first());
    let status = told.map(|said| said.status.clone()).unwrap_or_default();
    let stanza = said.iter().find(|said| said.leads == Some(true)).and_then(|said| said.stanza.clone());
    let mut report = Report {
        mesh: seen.asked.clone(),
        healthy: false,
        problems: Vec::new(),
        controllers: seen.controllers.iter().map(controller).collect(),
        dns: group(&of_role("dns"), &seen.dns, |_| true),
        proxies: group(&of_role("proxy"), &seen.proxies, |row| row.ready),
        services: status.services,
        diagnostics: Diagnostics { errors: status.errors, warnings: status.warnings },
        stanza: stanza.map(|stanza| Stanza { phase: stanza.phase, message: stanza.message }),
        access_control: status.access_control,
        bypass: status.bypass,
    };
    report.problems = problems(&report, seen.dev);
    report.healthy = report.problems.is_empty();
    report
}

/// Everybody who is connected, by name. How far one is knows only the controller that it has its configuration from.
fn connected<'a>(said: &[&'a Said]) -> BTreeMap<&'a str, Connected<'a>> {
    let mut all = BTreeMap::new();
    for said in said {
        let settled = said.status.seconds_since_change.is_some_and(|age| age > ON_ITS_WAY);
        for row in &said.subscribers {
            let behind = !row.elsewhere && settled && row.acknowledged < said.status.revision;
            if !row.elsewhere || !all.contains_key(row.id.as_str()) {
                all.insert(row.id.as_str(), Connected { row, behind });
            }
        }
    }
    all
}

fn controller(seen: &ControllerSeen) -> Controller {
    let base = Controller { name: seen.name.clone(), node: seen.node.clone(), ..Controller::default() };
    match &seen.said {
        Err(why) => Controller { error: Some(why.clone()), ..base },
        Ok(said) => Controller {
            ready: seen.ready,
            version: Some(said.status.version.clone()),
            leads: said.leads,
            synced: said.status.synced,
            revision: Some(said.status.revision),
            seconds_since_change: said.status.seconds_since_change,
            watches: said.watches.as_ref().map(|watches| Watches {
                synced: watches.iter().filter(|watch| watch.synced).count(),
                total: watches.len(),
                failing: watches.iter().filter_map(|it| Some((it.kind.clone(), it.error.clone()?))).collect(),
            }),
            ..base
        },
    }
}

/// Those of one role, where `works` says whether one that is connected takes work.
fn group(
    connected: &BTreeMap<&str, &Connected<'_>>,
    pods: &[PodSeen],
    works: impl Fn(&SubscriberRow) -> bool,
) -> Group {
    let of_pods: BTreeMap<&str, &PodSeen> = pods.iter().map(|pod| (pod.name.as_str(), pod)).collect();
    let names: BTreeSet<&str> = connected.keys().chain(of_pods.keys()).copied().collect();
    let mut group = Group { total: names.len(), ..Group::default() };
    for name in names {
        let Some(one) = connected.get(name) else {
            group.not_connected.push(name.to_owned());
            continue;
        };
        *group.versions.entry(one.row.version.clone()).or_default() += 1;
        let pod_is_ready = of_pods.get(name).is_none_or(|pod| pod.ready);
        if pod_is_ready && works(one.row) {
            group.ready += 1;
        } else {
            group.not_ready.push(name.to_owned());
        }
        for (holds, list) in [
            (one.behind, &mut group.behind),
            (!one.row.rejected.is_empty(), &mut group.rejecting),
            (!one.row.failed.is_empty(), &mut group.failed_ports),
        ] {
            if holds {
                list.push(name.to_owned());
            }
        }
    }
    group
}

/// What needs attention, the most important first.
fn problems(report: &Report, dev: bool) -> Vec<Problem> {
    let mut all = Vec::new();
    let mut say = |message: String, next: &str| all.push(Problem { message, next: next.to_owned() });
    of_controllers(report, &mut say);
    for (role, group) in [("dns", &report.dns), ("proxy", &report.proxies)] {
        of_group(role, group, dev, &mut say);
    }
    match report.stanza.as_ref().map(|stanza| (&*stanza.phase, &stanza.message)) {
        Some(("blocked" | "reverted", why)) => {
            say(format!("the stanza in the cluster's DNS is not in force: {why}"), CHECK);
        }
        Some(("written", why)) => {
            say(
                format!("the stanza in the cluster's DNS is not in force everywhere yet: {why}"),
                "wait a minute, with --wait",
            );
        }
        Some(("leaving", _)) => {
            say("the mesh is being uninstalled".to_owned(), "wait for it, or see maesh uninstall --help to undo it");
        }
        Some(("idle", why)) if why.is_empty() => {
            say("the stanza in the cluster's DNS was not looked at yet".to_owned(), "wait a minute, with --wait");
        }
        _ => {}
    }
    if report.bypass == Some(true) {
        let next = "turn off bypass (chart) or --bypass (controller), or finish the uninstallation that turned it on";
        say("the mesh is bypassed: all names resolve to ClusterIPs, and no traffic passes it".to_owned(), next);
    }
    let see = "see maesh get diagnostics";
    match report.diagnostics.errors {
        None | Some(0) => {}
        Some(1) => say("1 object could not be used".to_owned(), see),
        Some(count) => say(format!("{count} objects could not be used"), see),
    }
    all
}

fn of_controllers(report: &Report, say: &mut impl FnMut(String, &str)) {
    if report.controllers.is_empty() {
        let next = "see kubectl get pods -A -l app.kubernetes.io/component=controller";
        return say("no controller runs: changes reach nobody".to_owned(), next);
    }
    for one in &report.controllers {
        let name = &one.name;
        let failing = one.watches.iter().flat_map(|watches| &watches.failing).next();
        match (&one.error, failing) {
            (Some(why), _) => say(format!("controller {name} does not answer: {why}"), CHECK),
            (None, Some((kind, why))) => {
                say(format!("controller {name} does not hear of changed objects of kind {kind}: {why}"), CHECK);
            }
            (None, None) if !one.synced => {
                say(
                    format!("controller {name} has not read everything yet"),
                    "wait, with --wait; see its log if it lasts",
                );
            }
            (None, None) if !one.ready => say(format!("the pod of controller {name} is not ready"), CHECK),
            (None, None) => {}
        }
    }
    let can_lead: Vec<bool> = report.controllers.iter().filter_map(|one| one.leads).collect();
    if !can_lead.is_empty() && !can_lead.contains(&true) {
        let next = "wait half a minute, with --wait; after that see the logs of the controllers";
        say("no controller leads: nothing is written to the cluster".to_owned(), next);
    }
}

fn of_group(role: &str, group: &Group, dev: bool, say: &mut impl FnMut(String, &str)) {
    let list = "see maesh get proxies -o wide";
    if group.total == 0 {
        let what = if dev { "connected" } else { "there" };
        return say(format!("no {role} is {what}"), CHECK);
    }
    for (names, what, next) in [
        (&group.not_connected, "connected to no controller", "see its log: why it has no stream"),
        (&group.not_ready, "not ready", CHECK),
        (&group.behind, "behind the controller for more than 5 s", "see its log: why it does not put changes in force"),
        (&group.failed_ports, "unable to open a port", list),
        (&group.rejecting, "unable to put a resource in force", if role == "proxy" { list } else { CHECK }),
    ] {
        if !names.is_empty() {
            say(format!("{role} {what}: {}", some_of(names)), next);
        }
    }
}

/// Names, the first few of them.
fn some_of(names: &[String]) -> String {
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
