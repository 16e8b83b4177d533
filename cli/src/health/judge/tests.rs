//! What needs attention, case by case.

use super::{
    super::collect::{Stanza as StanzaSaid, Status, Watch},
    *,
};
use crate::get::Rejected;

fn row(id: &str, role: &str) -> SubscriberRow {
    SubscriberRow {
        id: id.into(),
        role: role.into(),
        node: None,
        addresses: vec![],
        version: "0.1.0".into(),
        // dns does not say whether it takes work: it is connected, or it is not.
        ready: role == "proxy",
        elsewhere: false,
        acknowledged: 7,
        listening: 1,
        failed: BTreeMap::new(),
        rejected: vec![],
    }
}

fn said() -> Said {
    Said {
        status: Status {
            version: "0.1.0".into(),
            synced: true,
            revision: 7,
            seconds_since_change: Some(60.0),
            services: Some(1),
            access_control: Some("off".into()),
            bypass: Some(false),
            errors: Some(0),
            warnings: Some(3),
        },
        subscribers: vec![row("d", "dns"), row("p", "proxy")],
        watches: Some(vec![Watch { kind: "Service".into(), synced: true, error: None }]),
        leads: Some(true),
        stanza: Some(StanzaSaid { phase: "present".into(), message: "there".into() }),
    }
}

fn seen(said: Vec<Said>) -> Seen {
    let controller =
        |(number, said)| ControllerSeen { name: format!("c{number}"), node: None, ready: true, said: Ok(said) };
    Seen {
        asked: "a test".into(),
        controllers: said.into_iter().enumerate().map(controller).collect(),
        ..Seen::default()
    }
}

fn messages(seen: &Seen) -> Vec<String> {
    let report = judge(seen);
    assert_eq!(report.healthy, report.problems.is_empty());
    assert!(report.problems.iter().all(|problem| !problem.next.is_empty()));
    report.problems.into_iter().map(|problem| problem.message).collect()
}

#[test]
fn a_mesh_that_works_is_healthy() {
    let report = judge(&seen(vec![said()]));
    assert_eq!((report.healthy, report.problems), (true, vec![]));
    assert_eq!((report.proxies.ready, report.dns.ready, report.diagnostics.warnings), (1, 1, Some(3)));
}

#[test]
fn what_needs_attention_is_said() {
    let changed = |change: &dyn Fn(&mut Said)| {
        let mut said = said();
        change(&mut said);
        seen(vec![said])
    };
    let stanza = |phase: &'static str, message: &'static str| {
        changed(&|said| said.stanza = Some(StanzaSaid { phase: phase.into(), message: message.into() }))
    };
    for (case, seen, want) in [
        ("nobody", Seen::default(), &["no controller runs", "no dns is there", "no proxy is there"][..]),
        ("not synced", changed(&|said| said.status.synced = false), &["controller c0 has not read everything yet"]),
        ("a follower alone", changed(&|said| said.leads = Some(false)), &["no controller leads"]),
        ("one that never writes", changed(&|said| said.leads = None), &[]),
        (
            "a watch that fails",
            changed(&|said| said.watches.as_mut().unwrap()[0].error = Some("forbidden".into())),
            &["controller c0 does not hear of changed objects of kind Service: forbidden"],
        ),
        ("a proxy that is not ready", changed(&|said| said.subscribers[1].ready = false), &["proxy not ready: p"]),
        (
            "a proxy that is behind",
            changed(&|said| said.subscribers[1].acknowledged = 6),
            &["proxy behind the controller for more than 5 s: p"],
        ),
        (
            "a change on its way",
            changed(&|said| {
                said.subscribers[1].acknowledged = 6;
                said.status.seconds_since_change = Some(1.0);
            }),
            &[],
        ),
        (
            "a port that failed",
            changed(&|said| drop(said.subscribers[1].failed.insert("shared/80/tcp".into(), "taken".into()))),
            &["proxy unable to open a port: p"],
        ),
        (
            "a resource that was rejected",
            changed(&|said| {
                let rejected = Rejected { kind: "Service".into(), name: "shop/web".into(), why: "new".into() };
                said.subscribers[0].rejected.push(rejected);
            }),
            &["dns unable to put a resource in force: d"],
        ),
        ("bypassed", changed(&|said| said.status.bypass = Some(true)), &["the mesh is bypassed"]),
        ("an error", changed(&|said| said.status.errors = Some(2)), &["2 objects could not be used"]),
        ("a stanza that is blocked", stanza("blocked", "no right"), &["is not in force: no right"]),
        ("one that was written", stanza("written", "written"), &["is not in force everywhere yet"]),
        ("one that nobody looked at", stanza("idle", ""), &["was not looked at yet"]),
        ("one that is kept by hand", stanza("idle", "--coredns-mode is manual"), &[]),
        ("one that goes", stanza("leaving", "x"), &["is being uninstalled"]),
    ] {
        let found = messages(&seen);
        assert_eq!(found.len(), want.len(), "{case}: {found:?}");
        assert!(found.iter().zip(want).all(|(found, want)| found.contains(want)), "{case}: {found:?}");
    }
}

#[test]
fn several_controllers_make_one_picture() {
    let (mut first, mut second) = (said(), said());
    // The second counts revisions for itself, and knows of the proxy only that it is there.
    (second.status.revision, second.leads) = (99, Some(false));
    let elsewhere = SubscriberRow { elsewhere: true, acknowledged: 0, ..row("p", "proxy") };
    second.subscribers = vec![SubscriberRow { acknowledged: 99, ..row("e", "dns") }, elsewhere];
    first.subscribers.pop();
    first.subscribers.push(row("p", "proxy"));
    let both = seen(vec![first, second]);
    assert_eq!(messages(&both), [""; 0]);
    let report = judge(&both);
    assert_eq!((report.dns.total, report.proxies.total), (2, 1));

    let mut down = both;
    down.controllers[1].said = Err("refused".into());
    assert_eq!(messages(&down), ["controller c1 does not answer: refused"]);
}

#[test]
fn pods_that_no_controller_knows_are_counted() {
    let pod = |name: &str, ready: bool| PodSeen { name: name.into(), ready };
    let mut all = seen(vec![said()]);
    all.dns = vec![pod("d", true), pod("d2", true)];
    all.proxies = vec![pod("p", false)];
    assert_eq!(messages(&all), ["dns connected to no controller: d2", "proxy not ready: p"]);
    let report = judge(&all);
    assert_eq!((report.dns.ready, report.dns.total), (1, 2));
}
