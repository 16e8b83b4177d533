//! The state of a mesh for people.

use std::{collections::BTreeMap, fmt::Write as _};

use maesh_compiler::diagnostic::escaped;

use super::report::{Controller, Group, Report, Stanza};

/// Width of the first column.
const LABEL: usize = 16;

/// The screen.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    line(&mut out, "mesh", &report.mesh);
    let problems = report.problems.len();
    let health = match problems {
        0 => "healthy".to_owned(),
        1 => "1 problem, below".to_owned(),
        more => format!("{more} problems, below"),
    };
    line(&mut out, "health", &health);
    out.push('\n');
    let ready = report.controllers.iter().filter(|one| one.ready && one.synced).count();
    let mut versions = BTreeMap::<String, usize>::new();
    let said_by = report.controllers.iter().filter_map(|one| one.version.clone());
    said_by.for_each(|version| *versions.entry(version).or_default() += 1);
    line(&mut out, "controllers", &format!("{ready} of {} ready{}", report.controllers.len(), said(&versions)));
    for one in &report.controllers {
        line(&mut out, &format!("  {}", one.name), &controller(one));
    }
    line(&mut out, "dns", &group(&report.dns));
    line(&mut out, "proxies", &group(&report.proxies));
    line(&mut out, "services", &format!("{} in the mesh", known(report.services)));
    let (errors, warnings) = (report.diagnostics.errors, report.diagnostics.warnings);
    let some = errors.unwrap_or_default() + warnings.unwrap_or_default() > 0;
    let see = if some { "; see maesh get diagnostics" } else { "" };
    let (errors, warnings) = (counted(errors, "error"), counted(warnings, "warning"));
    line(&mut out, "diagnostics", &format!("{errors}, {warnings}{see}"));
    line(&mut out, "access control", report.access_control.as_deref().unwrap_or("unknown"));
    if let Some(text) = report.stanza.as_ref().map(stanza) {
        line(&mut out, "stanza", &text);
    }
    if report.bypass == Some(true) {
        line(&mut out, "bypass", "on: all names resolve to ClusterIPs");
    }
    for problem in &report.problems {
        let (message, next) = (escaped(&problem.message), escaped(&problem.next));
        // Writing to a String cannot fail.
        let _ = write!(out, "\nproblem: {message}\n  next: {next}\n");
    }
    out
}

fn known(count: Option<usize>) -> String {
    count.map_or_else(|| "unknown".to_owned(), |count| count.to_string())
}

/// How many there are of something.
fn counted(count: Option<usize>, what: &str) -> String {
    let end = if count == Some(1) { "" } else { "s" };
    format!("{} {what}{end}", known(count))
}

fn line(out: &mut String, label: &str, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{:LABEL$}  {}", escaped(label), escaped(text));
}

fn controller(one: &Controller) -> String {
    if one.error.is_some() {
        return "does not answer".to_owned();
    }
    let leads = match one.leads {
        Some(true) => "leads, ",
        Some(false) => "follows, ",
        None => "",
    };
    let revision = one.revision.unwrap_or_default();
    let age = one.seconds_since_change.map_or_else(String::new, |age| format!(", changed {} ago", self::age(age)));
    let watches = one
        .watches
        .as_ref()
        .map_or_else(String::new, |watches| format!(", {} of {} watches synced", watches.synced, watches.total));
    let reading = if one.synced { "" } else { ", not everything was read yet" };
    format!("{leads}revision {revision}{age}{watches}{reading}")
}

fn group(group: &Group) -> String {
    let of = |names: &[String], what: &str| match names.len() {
        0 => String::new(),
        count => format!(", {count} {what}"),
    };
    format!(
        "{} of {} ready{}{}{}{}{}",
        group.ready,
        group.total,
        said(&group.versions),
        of(&group.not_connected, "not connected"),
        of(&group.behind, "behind"),
        of(&group.failed_ports, "with ports that failed"),
        of(&group.rejecting, "that rejected something"),
    )
}

/// One version, or how many there are of each.
fn said(versions: &BTreeMap<String, usize>) -> String {
    let mut each = versions.iter();
    match (each.next(), each.next()) {
        (None, _) => String::new(),
        (Some((version, _)), None) => format!(", version {version}"),
        _ => {
            let counts: Vec<_> = versions.iter().map(|(version, count)| format!("{version} ({count})")).collect();
            format!(", versions {}", counts.join(", "))
        }
    }
}

fn stanza(stanza: &Stanza) -> String {
    match &*stanza.message {
        "" => stanza.phase.clone(),
        message => format!("{}: {message}", stanza.phase),
    }
}

/// A time span as kubectl has it: its largest unit alone.
fn age(seconds: f64) -> String {
    // A time that is no number, or too long, is shown as the longest.
    let seconds = seconds as u64;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::report::{Diagnostics, Problem, Watches},
        *,
    };

    #[test]
    fn ages() {
        for (seconds, want) in
            [(0.4, "0s"), (119.9, "119s"), (120.0, "2m"), (7199.0, "119m"), (7200.0, "2h"), (172_800.0, "2d")]
        {
            assert_eq!(age(seconds), want, "{seconds}");
        }
    }

    #[test]
    fn one_screen() {
        let versions = BTreeMap::from([("0.1.0".to_owned(), 2), ("0.2.0".to_owned(), 1)]);
        let report = Report {
            mesh: "a test".into(),
            healthy: false,
            problems: vec![Problem { message: "proxy not ready: c\u{1b}[2J".into(), next: "run maesh check".into() }],
            controllers: vec![
                Controller {
                    name: "controller-a".into(),
                    ready: true,
                    version: Some("0.1.0".into()),
                    leads: Some(true),
                    synced: true,
                    revision: Some(42),
                    seconds_since_change: Some(200.0),
                    watches: Some(Watches { synced: 12, total: 12, ..Watches::default() }),
                    ..Controller::default()
                },
                Controller { name: "controller-b".into(), error: Some("down".into()), ..Controller::default() },
            ],
            dns: Group { ready: 1, total: 1, versions: [("0.1.0".to_owned(), 1)].into(), ..Group::default() },
            proxies: Group {
                ready: 2,
                total: 3,
                versions,
                not_ready: vec!["c".into()],
                behind: vec!["a".into()],
                ..Group::default()
            },
            services: Some(12),
            diagnostics: Diagnostics { errors: Some(0), warnings: Some(2) },
            stanza: Some(Stanza { phase: "present".into(), message: "the stanza is there".into() }),
            access_control: Some("off".into()),
            bypass: Some(false),
        };
        let want = "\
mesh              a test
health            1 problem, below

controllers       1 of 2 ready, version 0.1.0
  controller-a    leads, revision 42, changed 3m ago, 12 of 12 watches synced
  controller-b    does not answer
dns               1 of 1 ready, version 0.1.0
proxies           2 of 3 ready, versions 0.1.0 (2), 0.2.0 (1), 1 behind
services          12 in the mesh
diagnostics       0 errors, 2 warnings; see maesh get diagnostics
access control    off
stanza            present: the stanza is there

problem: proxy not ready: c\\u{1b}[2J
  next: run maesh check
";
        assert_eq!(text(&report), want);
    }
}
