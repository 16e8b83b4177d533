//! The stanza on a real kube-apiserver, with CoreDNS processes in the place of its pods.

use std::{path::Path, time::Duration};

use maesh_controller::{
    duties::{
        events,
        stanza::{
            Cluster, ClusterError, Guard, Leave, Memory, Mesh, Phase, Right, Stanza, Status, Times, add, guard,
            take_out,
        },
        uninstall::{self, ClusterDns as _, Removed, Uninstall},
    },
    leader::Candidate,
};
use maesh_test_support::{isolate_helm, need_tool, repository, until};
use tokio::{runtime::Runtime, sync::watch};

use crate::{
    lab::{COREFILE, Lab, RIGHTS, USER},
    support::{PATIENCE, TERMS, on},
};

const TIMES: Times = Times {
    tick: Duration::from_millis(300),
    pause: Duration::from_millis(600),
    deadline: Duration::from_secs(25),
    settle: Duration::from_secs(1),
};

fn mesh() -> Mesh {
    let zones = ["maesh", "traefik.mesh"].map(|zone| zone.parse().unwrap()).to_vec();
    Mesh { namespace: "maesh".into(), service: "maesh-dns".into(), zones }
}

/// A leader that keeps the stanza.
struct Keeper {
    status: watch::Receiver<Status>,
    leaving: watch::Sender<bool>,
    uninstall: tokio::task::JoinHandle<()>,
    _runtime: Runtime,
    _candidate: Candidate,
}

impl Keeper {
    fn start(lab: &Lab, times: Times) -> Self {
        Self::start_as("me", lab, times)
    }

    fn start_as(me: &str, lab: &Lab, times: Times) -> Self {
        let runtime = lab.runtime();
        let client = lab.client(&runtime, USER);
        let admin = lab.client(&runtime, "admin");
        let (told, status) = watch::channel(Status::default());
        let (leaving, left) = watch::channel(false);
        let (candidate, uninstall) = runtime.block_on(async {
            let candidate = Candidate::start(admin.clone(), "default", "maesh", me, TERMS);
            let leadership = candidate.leadership();
            let (recorder, notes) = events::recorder();
            let who = events::Options { namespace: "maesh".into(), replica: me.into() };
            tokio::spawn(events::keep(client.clone(), who, leadership.clone(), notes));
            let cluster = Cluster::new(client);
            let right = Right::Leader(leadership.clone());
            let dns = Leave { cluster: cluster.clone(), mesh: mesh(), right, recorder: Some(recorder.clone()) };
            let dns = Box::new(dns);
            let options = uninstall::Options {
                namespace: "default".into(),
                marker: "maesh-uninstall".into(),
                horizon: Duration::from_secs(1),
                dns_deadline: times.deadline,
                regret: Duration::from_secs(1),
            };
            let leads = Some(leadership.clone());
            let memory = Memory::new(admin.clone(), "default", "maesh");
            let uninstall = Uninstall { client: admin, options, dns, leadership: leads, owner: None };
            let uninstall = tokio::spawn(uninstall.whenever(left.clone()));
            let (mesh, leaving, status) = (mesh(), left, told);
            tokio::spawn(guard(Guard { cluster, mesh, leadership, leaving, times, status, recorder, memory }));
            (candidate, uninstall)
        });
        Self { status, leaving, uninstall, _runtime: runtime, _candidate: candidate }
    }

    #[track_caller]
    fn until(&self, phase: Phase) -> String {
        let found = until(PATIENCE, || self.status.borrow().phase == phase);
        let status = self.status.borrow().clone();
        assert!(found, "{phase:?} was awaited: {status:?}");
        status.message
    }
}

/// Waits until an Event says so at the ConfigMap of the cluster's DNS, for as many as there are of the same.
#[track_caller]
fn until_event(lab: &Lab, says: &str) {
    let uid = lab.coredns_map()["metadata"]["uid"].as_str().unwrap().to_owned();
    let said = || lab.events().lines().filter(|line| line.starts_with(says) && line.contains(&uid)).count();
    assert!(until(PATIENCE, || said() > 0), "{says}: {}", lab.events());
    assert_eq!(said(), 1, "{}", lab.events());
}

#[test]
fn what_is_in_the_way_is_said_where_people_look_who_look_after_the_dns() {
    let Some(lab) = Lab::start_or_skip() else { return };
    lab.hold_files(true);
    lab.write_corefile(".:53 {\n    errors\n");
    let keeper = Keeper::start(&lab, TIMES);
    let said = keeper.until(Phase::Blocked);
    assert!(said.contains("is not closed"), "{said}");
    until_event(&lab, "StanzaBlocked: ConfigMap kube-system/coredns, key Corefile, line 1: the block that begins");
    // It is mended, and what comes of it is said as well.
    lab.write_corefile(COREFILE);
    keeper.until(Phase::Written);
    until_event(&lab, "StanzaWritten: written: ConfigMap kube-system/coredns, key Corefile, leading to 10.96.0.53");
}

#[test]
#[ignore = "long: CoreDNS looks at its Corefile every two seconds at best"]
fn the_stanza_stands_whatever_others_do_and_leaves_to_the_byte() {
    let Some(lab) = Lab::start_or_skip() else { return };
    let before = lab.coredns_map();
    let keeper = Keeper::start(&lab, TIMES);
    keeper.until(Phase::Present);
    until_event(&lab, "StanzaWritten");
    assert_eq!(lab.ask("10.96.0.10", "web.shop.maesh"), "10.1.2.3");
    let after = lab.coredns_map();
    let text = |map: &serde_json::Value| map["data"]["Corefile"].as_str().unwrap().to_owned();
    assert!(text(&after).starts_with("# maesh begin") && text(&after).ends_with(COREFILE), "{after}");
    let rest = |map: &serde_json::Value| {
        (map["metadata"]["annotations"].clone(), map["metadata"]["labels"].clone(), map["data"]["other"].clone())
    };
    assert_eq!(rest(&before), rest(&after), "nothing else changed");

    let stands = || lab.corefile().matches("# maesh begin").count() == 1 && lab.corefile().contains("10.96.0.53");
    // An add-on's manager writes its own.
    lab.write_corefile(COREFILE);
    assert!(until(PATIENCE, stands), "mended: {}", lab.corefile());
    until_event(&lab, "StanzaMended: the stanza was gone or changed, and is again as it should be");
    // A person breaks it.
    lab.write_corefile(&lab.corefile().replacen("}\n", "", 1));
    assert!(until(PATIENCE, || stands() && lab.corefile().ends_with(&format!("# maesh end\n{COREFILE}"))));
    // The ConfigMap is replaced.
    lab.kubectl(&["--namespace", "kube-system", "delete", "configmap", "coredns"]);
    lab.create_corefile(&COREFILE.replace("errors", "errors\n    log"));
    assert!(until(PATIENCE, || stands() && lab.corefile().contains("log")), "{}", lab.corefile());
    // Our Service has another address.
    lab.dns_service("10.96.0.54");
    assert!(until(PATIENCE, || lab.corefile().contains("10.96.0.54") && !stands()), "{}", lab.corefile());
    lab.dns_service("10.96.0.53");
    assert!(until(PATIENCE, stands), "{}", lab.corefile());

    lab.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: maesh-uninstall, namespace: default}\n");
    keeper.leaving.send_replace(true);
    let marker = ["get", "configmap", "maesh-uninstall", "--output", "jsonpath={.metadata.annotations}"];
    assert!(until(PATIENCE, || lab.output(&marker).contains(":\"done\"")), "{}", lab.output(&marker));
    assert_eq!(lab.corefile(), COREFILE.replace("errors", "errors\n    log"));
    assert_ne!(lab.ask("10.96.0.10", "web.shop.maesh"), "10.1.2.3");
    assert_eq!(keeper.status.borrow().phase, Phase::Leaving);
    assert!(!keeper.uninstall.is_finished());
    // The mesh stays after all.
    keeper.leaving.send_replace(false);
    keeper.until(Phase::Present);
}

#[test]
#[ignore = "long: CoreDNS looks at its Corefile every two seconds at best"]
fn a_stanza_that_does_harm_is_undone_and_not_tried_again() {
    let Some(lab) = Lab::start_or_skip() else { return };
    // The kubelet's copies never change: as if CoreDNS refused what it reads.
    lab.hold_files(true);
    let keeper = Keeper::start(&lab, Times { deadline: Duration::from_secs(5), ..TIMES });
    let said = keeper.until(Phase::Reverted);
    assert!(said.contains("CoreDNS did not take it up within") && said.ends_with("maesh dns install"), "{said}");
    assert_eq!(lab.corefile(), COREFILE);
    until_event(&lab, "StanzaReverted: the stanza was taken out again: CoreDNS did not take it up");
    assert!(!until(Duration::from_secs(4), || lab.corefile() != COREFILE), "held");
    // Nor by who leads next.
    drop(keeper);
    let keeper = Keeper::start_as("another", &lab, Times { deadline: Duration::from_secs(5), ..TIMES });
    assert!(!until(Duration::from_secs(9), || lab.corefile() != COREFILE), "held by another");
    assert_eq!(keeper.until(Phase::Reverted), said);
    // Something changed: another try; this time a server dies of it.
    lab.hold_files(false);
    lab.kill_on_stanza(true);
    let changed = format!("# changed\n{COREFILE}");
    lab.write_corefile(&changed);
    keeper.until(Phase::Written);
    let said = keeper.until(Phase::Reverted);
    assert!(said.contains("no longer answered for names of the cluster"), "{said}");
    assert_eq!(lab.corefile(), changed);
}

#[test]
#[ignore = "long: a server that fails does so for eight seconds"]
fn a_server_that_is_replaced_while_the_stanza_is_taken_up_is_no_harm() {
    let Some(lab) = Lab::start_or_skip() else { return };
    lab.hold_files(true);
    let keeper = Keeper::start(&lab, Times { deadline: PATIENCE, ..TIMES });
    keeper.until(Phase::Written);
    lab.replace_pod();
    let reverted = until(Duration::from_secs(12), || keeper.status.borrow().phase != Phase::Written);
    assert!(!reverted, "{:?}", keeper.status.borrow());
    lab.hold_files(false);
    keeper.until(Phase::Present);
}

#[test]
fn a_person_without_rights_is_told_what_to_allow() {
    let Some(lab) = Lab::start_or_skip() else { return };
    let runtime = lab.runtime();
    lab.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra, namespace: kube-system}\n");
    lab.mount_extra();
    let client = lab.client(&runtime, USER);
    let out = async move { take_out(&Cluster::new(client), &mesh(), &Right::Person).await };
    let error = on(&runtime, out).unwrap_err();
    assert!(matches!(error, ClusterError::Forbidden { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains("reading ConfigMap kube-system/extra") && said.contains("coredns.configMaps"), "{said}");
    assert!(RIGHTS.contains("resourceNames: [coredns"), "the test's rights are the chart's");

    // Nor does that keep the mesh for ever, but for as long as the cluster's DNS asks it.
    let leave = || {
        let cluster = Cluster::new(lab.client(&runtime, USER));
        let leave = Leave { cluster, mesh: mesh(), right: Right::Person, recorder: None };
        on(&runtime, async move { (leave.remove().await, leave.asks_the_mesh().await) })
    };
    let (removed, asked) = leave();
    assert!(matches!(removed, Ok(Removed::NotYet(_))) && asked == Ok(false), "{removed:?}, {asked:?}");
    let stanza = Stanza { zones: mesh().zones, port: 53, forward: [10, 96, 0, 53].into() };
    lab.write_corefile(&add(COREFILE, &stanza).unwrap());
    assert!(until(PATIENCE, || lab.ask("10.96.0.10", "web.shop.maesh") == "10.1.2.3"));
    assert_eq!(leave().1, Ok(true));
}

#[test]
fn a_configmap_of_imports_is_made_where_there_is_none_and_goes_with_the_stanza() {
    let Some(lab) = Lab::start_or_skip() else { return };
    lab.write_corefile(&format!("{COREFILE}import custom/*.server\n"));
    lab.mount_custom();
    let runtime = lab.runtime();
    let cluster = Cluster::new(lab.client(&runtime, "admin"));
    let there = || lab.output(&["--namespace", "kube-system", "get", "configmaps", "--output", "name"]);
    let forward = [10, 96, 0, 53].into();
    let write = || {
        let cluster = cluster.clone();
        on(&runtime, async move {
            let there = cluster.read(cluster.place().await?).await?;
            let changes = there.additions(&mesh().zones, forward)?;
            cluster.write(&there, &changes, &Right::Person).await.map(|()| changes.len())
        })
    };
    // A controller may not make it, whatever the chart allows, and says who may.
    let limited = Cluster::new(lab.client(&runtime, USER));
    let refused = on(&runtime, async move {
        let there = limited.read(limited.place().await?).await?;
        let changes = there.additions(&mesh().zones, forward)?;
        limited.write(&there, &changes, &Right::Person).await
    });
    let said = refused.unwrap_err().to_string();
    let next = "`kubectl -n kube-system create configmap coredns-custom`, or do both by `maesh dns install`";
    assert!(said.starts_with("making ConfigMap kube-system/coredns-custom: ") && said.ends_with(next), "{said}");
    assert!(!said.contains("coredns.configMaps"), "that is allowed already: {said}");
    assert_eq!(write().unwrap(), 1);
    assert!(there().contains("configmap/coredns-custom"), "{}", there());
    assert_eq!(write().unwrap(), 0, "a second time changes nothing");
    let out_as = |user: &str| {
        let cluster = Cluster::new(lab.client(&runtime, user));
        on(&runtime, async move { take_out(&cluster, &mesh(), &Right::Person).await }).unwrap().len()
    };
    let out = || out_as("admin");
    let custom = || {
        let custom = ["--namespace", "kube-system", "get", "configmap", "coredns-custom", "--output", "json"];
        let custom: serde_json::Value = serde_json::from_str(&lab.output(&custom)).unwrap();
        custom["data"].as_object().map_or(0, serde_json::Map::len)
    };
    // Nor may it delete it: it empties it, and leaves it.
    assert_eq!((custom(), out_as(USER), custom(), out_as(USER)), (1, 1, 0, 0));
    assert_eq!(write().unwrap(), 1);
    assert_eq!(out(), 1);
    assert!(!there().contains("coredns-custom"), "{}", there());
    assert_eq!(out(), 0, "nothing is left to take out");
    // One that was there before stays, as it was: AKS has it without data.
    lab.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: coredns-custom, namespace: kube-system}\n");
    assert_eq!((write().unwrap(), out()), (1, 1));
    assert_eq!(custom(), 0);
}

#[test]
fn what_may_not_be_written_in_whole_is_not_begun() {
    let Some(lab) = Lab::start_or_skip() else { return };
    lab.hold_files(true);
    lab.node_local();
    let keeper = Keeper::start(&lab, TIMES);
    let said = keeper.until(Phase::Blocked);
    assert!(said.starts_with("making ConfigMap kube-system/kube-dns: "), "{said}");
    assert!(said.contains("`kubectl -n kube-system create configmap kube-dns`"), "{said}");
    assert_eq!(lab.corefile(), COREFILE);
    lab.kubectl(&["--namespace", "kube-system", "create", "configmap", "kube-dns"]);
    keeper.until(Phase::Written);
    assert!(lab.corefile().contains("# maesh begin"), "{}", lab.corefile());
}

#[test]
#[ignore = "long: a write is watched for five seconds"]
fn half_a_stanza_that_does_harm_is_undone_too() {
    let Some(lab) = Lab::start_or_skip() else { return };
    lab.hold_files(true);
    lab.node_local();
    lab.kubectl(&["--namespace", "kube-system", "create", "configmap", "kube-dns"]);
    lab.limit("kube-dns", "get");
    let keeper = Keeper::start(&lab, Times { deadline: Duration::from_secs(5), ..TIMES });
    let said = keeper.until(Phase::Blocked);
    assert!(said.starts_with("writing ConfigMap kube-system/kube-dns: ") && lab.corefile() != COREFILE, "{said}");
    keeper.until(Phase::Reverted);
    assert_eq!(lab.corefile(), COREFILE);
    assert!(!until(Duration::from_secs(4), || lab.corefile() != COREFILE), "held");
}

#[test]
#[ignore = "long: a write is watched for five seconds"]
fn what_cannot_be_undone_is_said_and_tried_again() {
    let Some(lab) = Lab::start_or_skip() else { return };
    lab.hold_files(true);
    let keeper = Keeper::start(&lab, Times { deadline: Duration::from_secs(5), ..TIMES });
    keeper.until(Phase::Written);
    lab.limit("coredns", "get");
    let said = keeper.until(Phase::Blocked);
    let want = "its log says why, and the stanza could not be taken out again: writing ConfigMap kube-system/coredns: ";
    assert!(said.contains(want), "{said}");
    let blocked = "StanzaBlocked: CoreDNS did not take it up";
    until_event(&lab, blocked);
    assert!(
        !until(Duration::from_secs(3), || lab.events().matches(blocked).count() > 1),
        "one, renewed: {}",
        lab.events()
    );
    lab.limit("coredns", "get, patch");
    keeper.until(Phase::Reverted);
    assert_eq!(lab.corefile(), COREFILE);
}

/// Runs Helm on the release of the mesh, whose chart is that of the repository.
fn helm(lab: &Lab, program: &Path, verb: &str, values: &[&str]) {
    let mut command = lab.command(&program.display().to_string());
    isolate_helm(&mut command, lab.folder());
    command.args([verb, "maesh"]).arg(repository().join("charts/maesh")).arg("--namespace=maesh").args(values);
    let output = command.output().unwrap();
    assert!(output.status.success(), "helm {verb} {values:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The emergency exit of docs/cluster-dns.md in its two ways, and the way back.
#[test]
fn a_person_removes_the_stanza_once_the_controllers_have_no_right_to_it() {
    let (Some(program), Some(lab)) = (need_tool("helm4"), Lab::start_or_skip()) else { return };
    // The rights and the Service are the chart's.
    lab.kubectl(&["delete", "clusterroles,clusterrolebindings", "maesh"]);
    lab.kubectl(&["--namespace=kube-system", "delete", "roles,rolebindings", "maesh"]);
    lab.kubectl(&["--namespace=maesh", "delete", "service", "maesh-dns"]);
    helm(&lab, &program, "install", &["--set=dns.clusterIP=10.96.0.53"]);
    let set_mode = |mode: &str| {
        let mode = format!("--set=coredns.mode={mode}");
        helm(&lab, &program, "upgrade", &["--reset-then-reuse-values", &mode]);
    };
    let keeper = Keeper::start(&lab, TIMES);
    let written = || lab.corefile().starts_with("# maesh begin");
    let runtime = lab.runtime();
    let remove = || {
        let cluster = Cluster::new(lab.client(&runtime, "admin"));
        on(&runtime, async move { take_out(&cluster, &mesh(), &Right::Person).await }).expect("removed");
    };
    assert!(until(PATIENCE, written));
    remove();
    assert!(until(PATIENCE, written), "with their right, the controllers write it again");

    let leave = |way: &str| {
        keeper.until(Phase::Blocked);
        remove();
        assert_eq!(lab.corefile(), COREFILE, "{way}: to the byte");
        assert!(!until(10 * TIMES.tick, written), "{way}: nobody writes it again");
    };
    let of_release = "--selector=app.kubernetes.io/part-of=maesh,app.kubernetes.io/instance=maesh";
    lab.kubectl(&["--namespace=kube-system", "delete", "rolebinding", of_release]);
    leave("with kubectl");
    until_event(&lab, "StanzaBlocked: reading ConfigMap kube-system/coredns");
    set_mode("auto");
    assert!(until(PATIENCE, written), "with the right given back: {}", lab.corefile());

    set_mode("manual");
    leave("with Helm");
    set_mode("auto");
    assert!(until(PATIENCE, written), "with the right given back once more: {}", lab.corefile());
}

#[test]
#[ignore = "long: a write is watched for five seconds"]
fn a_stanza_that_is_there_and_not_in_force_is_said_for_as_long_as_that_stands() {
    let Some(lab) = Lab::start_or_skip() else { return };
    lab.hold_files(true);
    lab.write_corefile(&COREFILE.replace("    reload 2s\n", ""));
    let keeper = Keeper::start(&lab, Times { deadline: Duration::from_secs(5), ..TIMES });
    let says = "the Corefile has no `reload`";
    assert!(until(PATIENCE, || keeper.status.borrow().message.starts_with(says)), "{:?}", keeper.status.borrow());
    until_event(&lab, &format!("StanzaNotInForce: {says}"));
    // Something is in the way for a while, which does not change that.
    let text = lab.corefile();
    lab.write_corefile(".:53 {\n");
    keeper.until(Phase::Blocked);
    lab.write_corefile(&text);
    let said = keeper.until(Phase::Written);
    assert!(said.starts_with(says), "{said}");
    lab.restart();
    let by_now = keeper.until(Phase::Present);
    assert_eq!(by_now, "every server leads to the mesh by now");
}

#[test]
fn a_stanza_that_stays_behind_is_said_where_it_outlasts_the_mesh() {
    let Some(lab) = Lab::start_or_skip() else { return };
    lab.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra, namespace: kube-system}\n");
    lab.mount_extra();
    lab.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: maesh-uninstall, namespace: default}\n");
    let keeper = Keeper::start(&lab, Times { deadline: Duration::from_secs(2), ..TIMES });
    keeper.leaving.send_replace(true);
    let marker = ["get", "configmap", "maesh-uninstall", "--output", "jsonpath={.metadata.annotations}"];
    assert!(until(PATIENCE, || lab.output(&marker).contains(":\"done\"")), "{}", lab.output(&marker));
    // Its ConfigMap may not be read, so it is said at its Service.
    let said = lab.events_of("kube-dns");
    assert!(said.starts_with("StanzaKept: ") && said.contains("reading ConfigMap kube-system/extra: "), "{said:?}");
}
