//! The leader's duty: the stanza stands in the cluster's DNS as long as the mesh is there.
//!
//! Whoever else writes there (an add-on's manager, an upgrade, a person) is answered with patience: at once the first
//! time, then ever more slowly. After a write the cluster's DNS is watched, and what harms it is undone and not tried
//! again until something changed. What was done, and what is wrong for as long as it is, is an Event where people look
//! who look after the cluster's DNS: at the ConfigMap that it reads.

mod backoff;
mod tell;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::future::join_all;
use maesh_config::Zone;
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use self::{backoff::Backoff, tell::Teller};
use super::{
    Answered, Change, Cluster, ClusterError, Look, Mesh, Place, Report, Right, Standing, State, There, Verdict, Watch,
    look, take_out,
};
use crate::{
    leader::Leadership,
    own::events::{Recorder, Tone},
};

/// How long it may have moved to other pods or ConfigMaps without being noticed.
const PLACE: Duration = Duration::from_secs(60);

/// The times of the duty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How often the cluster's DNS is looked at.
    pub tick: Duration,
    /// The pause after the first write against another writer; it doubles with each.
    pub pause: Duration,
    /// How long the cluster's DNS may take to read a change: the kubelet's delay and its own. What does not read its
    /// Corefile anew never does.
    pub deadline: Duration,
    /// How long something may be in the way before an Event says so: while a mesh starts, something always is.
    pub settle: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            tick: Duration::from_secs(5),
            pause: Duration::from_secs(10),
            deadline: Duration::from_secs(240),
            settle: Duration::from_secs(30),
        }
    }
}

/// How the stanza does, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Where it is in its life.
    pub phase: Phase,
    /// What there is to know, or to do.
    pub message: String,
}

/// Where the stanza is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Another replica leads, or nothing was looked at yet.
    #[default]
    Idle,
    /// Nothing can be written; the message says why.
    Blocked,
    /// Written, and not everywhere in force yet.
    Written,
    /// In force.
    Present,
    /// Undone, because it did harm.
    Reverted,
    /// The mesh is about to go.
    Leaving,
}

/// What the duty needs.
#[derive(Debug)]
pub struct Guard {
    /// The cluster.
    pub cluster: Cluster,
    /// What the stanza leads to.
    pub mesh: Mesh,
    /// Who leads.
    pub leadership: Leadership,
    /// The mesh is about to go.
    pub leaving: watch::Receiver<bool>,
    /// Its times.
    pub times: Times,
    /// How the stanza does.
    pub status: watch::Sender<Status>,
    /// Who writes Events.
    pub recorder: Recorder,
}

/// Keeps the stanza in place while this replica leads and the mesh stays. Returns once nobody wants to know any more.
pub async fn guard(mut guard: Guard) {
    let mut leads = guard.leadership.watch();
    let mut tick = interval(guard.times.tick);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut duty = Duty::new(&guard);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            changed = leads.changed() => if changed.is_err() { return },
            changed = guard.leaving.changed() => if changed.is_err() { return },
        }
        if !guard.leadership.may_write() {
            duty = Duty::new(&guard);
            guard.say(Phase::Idle, String::new());
            continue;
        }
        if *guard.leaving.borrow() {
            // Another duty takes the stanza out.
            duty = Duty::new(&guard);
            guard.say(Phase::Leaving, "the mesh is about to go; the stanza is not kept".into());
            continue;
        }
        if let Err(error) = duty.stay(&guard).await {
            // It may be elsewhere by now.
            duty.place = None;
            duty.block(&guard, error.to_string());
        }
        duty.teller.remind(Instant::now(), &guard.recorder);
    }
}

impl Guard {
    /// Tells and logs what is new.
    fn say(&self, phase: Phase, message: String) {
        self.status.send_if_modified(|status| {
            let new = *status != Status { phase, message: message.clone() };
            if new {
                match phase {
                    Phase::Blocked | Phase::Reverted => tracing::warn!(?phase, "cluster DNS: {message}"),
                    Phase::Idle => {}
                    _ => tracing::info!(?phase, "cluster DNS: {message}"),
                }
                *status = Status { phase, message };
            }
            new
        });
    }

    /// Nothing is in the way any more, and there was nothing to do meanwhile.
    fn unblock(&self) {
        if self.status.borrow().phase == Phase::Blocked {
            self.say(Phase::Present, "the stanza is there".into());
        }
    }

    fn right(&self) -> Right {
        Right::Leader(self.leadership.clone())
    }
}

/// What this leader remembers.
#[derive(Debug)]
struct Duty {
    place: Option<(Instant, Place)>,
    backoff: Backoff,
    looked: bool,
    watch: Option<Watch>,
    /// What did harm and is not tried again, and what was said of it.
    held: Option<(Vec<Change>, String)>,
    teller: Teller,
}

impl Duty {
    fn new(guard: &Guard) -> Self {
        let (backoff, teller) = (Backoff::new(guard.times.pause), Teller::new(&guard.mesh, guard.times.settle));
        Self { place: None, backoff, looked: false, watch: None, held: None, teller }
    }

    /// Something is in the way.
    fn block(&mut self, guard: &Guard, why: String) {
        self.teller.wrong(Instant::now(), "StanzaBlocked", &why);
        guard.say(Phase::Blocked, why);
    }

    async fn there(&mut self, cluster: &Cluster) -> Result<There, ClusterError> {
        // While a write is watched the servers are found anew at each look: who left is not one that fails.
        let known = self.place.take().filter(|(since, _)| self.watch.is_none() && since.elapsed() < PLACE);
        let place = match known {
            Some(known) => known,
            None => (Instant::now(), cluster.place().await?),
        };
        self.place = Some(place.clone());
        let there = cluster.read(place.1).await?;
        self.teller.look_at(&there);
        Ok(there)
    }

    /// One look at the stanza of a mesh that stays.
    async fn stay(&mut self, guard: &Guard) -> Result<(), ClusterError> {
        let there = self.there(&guard.cluster).await?;
        let forward = guard.cluster.forward(&guard.mesh).await?;
        let report = there.report(&guard.mesh.zones, forward)?;
        let changes = there.additions(&guard.mesh.zones, forward)?;
        if changes.is_empty() {
            self.teller.right();
            return self.watch(guard, &there, &report, forward).await;
        }
        if let Some((_, why)) = self.held.as_ref().filter(|(held, _)| *held == changes) {
            self.teller.wrong(Instant::now(), "StanzaReverted", why);
            guard.say(Phase::Reverted, why.clone());
            return Ok(());
        }
        if !self.backoff.may(Instant::now()) {
            return Ok(());
        }
        if !guard.cluster.is_ready(&guard.mesh).await? {
            self.block(guard, "no pod of the mesh's dns is ready; the stanza is written once one is".into());
            return Ok(());
        }
        let before = looks(&there.place, &report.cluster_domain, &guard.mesh.zones).await;
        let Some(watch) = Watch::start(Instant::now(), guard.times.deadline, &before) else {
            let text = format!(
                "no server of the cluster's DNS ({}) answered this pod for kubernetes.default.svc.{}; nothing is \
                 written, because what came of it could not be seen. Let the controller reach them, or add the stanza by \
                 hand",
                there.place.service, report.cluster_domain
            );
            self.block(guard, text);
            return Ok(());
        };
        self.backoff.wrote(Instant::now());
        guard.cluster.write(&there, &changes, &guard.right()).await?;
        self.watch = Some(watch);
        let mends = std::mem::replace(&mut self.looked, true) || report.standings.iter().any(was_ours);
        self.wrote(guard, mends, format!("{}, leading to {forward}", said(&changes)));
        Ok(())
    }

    /// Something was written, for the first time or against another writer.
    fn wrote(&mut self, guard: &Guard, mends: bool, what: String) {
        self.teller.right();
        let (reason, text) = match mends {
            true => ("StanzaMended", format!("the stanza was gone or changed, and is again as it should be; {what}")),
            false => ("StanzaWritten", what.clone()),
        };
        self.teller.done(&guard.recorder, Tone::Normal, reason, text);
        guard.say(Phase::Written, what);
    }

    /// Looks what came of the last write, by this leader or by one before it.
    async fn watch(
        &mut self,
        guard: &Guard,
        there: &There,
        report: &Report,
        forward: IpAddr,
    ) -> Result<(), ClusterError> {
        if self.looked && self.watch.is_none() {
            guard.unblock();
            return Ok(());
        }
        let seen = looks(&there.place, &report.cluster_domain, &guard.mesh.zones).await;
        let mesh_answers = answers(forward, &guard.mesh.zones).await;
        let now = Instant::now();
        if !std::mem::replace(&mut self.looked, true) {
            self.watch = Watch::start(now, guard.times.deadline, &seen);
        }
        let Some(watch) = &mut self.watch else { return Ok(()) };
        let seconds = now.duration_since(watch.since()).as_secs();
        let harm = match watch.judge(now, &seen, mesh_answers) {
            Verdict::Wait => return Ok(()),
            Verdict::Live => {
                self.watch = None;
                guard.say(
                    Phase::Present,
                    format!("every server leads to the mesh, {seconds} s after the stanza was seen"),
                );
                return Ok(());
            }
            Verdict::Behind(servers) => {
                self.watch = None;
                let text = format!(
                    "after {seconds} s {} did not take up the stanza, others did; look at the logs of those pods",
                    list(&servers)
                );
                guard.say(Phase::Present, text);
                return Ok(());
            }
            Verdict::Unknown => {
                self.watch = None;
                guard.say(Phase::Present, format!("nobody answered for the mesh's zone within {seconds} s"));
                return Ok(());
            }
            Verdict::Refused if !report.reloads => {
                self.watch = None;
                let text = "the Corefile has no `reload`, so CoreDNS takes the stanza up when it is restarted; restart it \
                            when it suits you";
                guard.say(Phase::Written, text.into());
                return Ok(());
            }
            Verdict::Refused => format!("CoreDNS did not take it up within {seconds} s; its log says why"),
            Verdict::Failing(server) => format!("{server} no longer answered for names of the cluster"),
        };
        self.revert(guard, &harm).await
    }

    /// Takes out what did harm, and remembers not to write the same again.
    async fn revert(&mut self, guard: &Guard, harm: &str) -> Result<(), ClusterError> {
        take_out(&guard.cluster, &guard.mesh, &guard.right()).await?;
        self.watch = None;
        // A person may put it there again: that is looked at anew.
        self.looked = false;
        let text = format!(
            "the stanza was taken out again: {harm}. It is not tried again until the Corefile or the address of the \
             mesh's dns changes. To try it again as it is: maesh dns install"
        );
        self.teller.done(&guard.recorder, Tone::Warning, "StanzaReverted", text.clone());
        guard.say(Phase::Reverted, text.clone());
        let forward = guard.cluster.forward(&guard.mesh).await?;
        let again = self.there(&guard.cluster).await?.additions(&guard.mesh.zones, forward)?;
        self.held = Some((again, text));
        Ok(())
    }
}

/// Looks at every server, and at the Service that pods ask.
pub async fn looks(place: &Place, cluster_domain: &str, zones: &[Zone]) -> BTreeMap<SocketAddr, Look> {
    let zone = zones.first().map(Zone::as_str).unwrap_or_default();
    let servers = place.servers.iter().map(|(_, server)| *server).chain([place.service]);
    let seen = servers.map(|server| async move { (server, look(server, cluster_domain, zone).await) });
    join_all(seen).await.into_iter().collect()
}

/// Whether the mesh's dns itself answers.
pub async fn answers(forward: IpAddr, zones: &[Zone]) -> bool {
    let zone = zones.first().map(Zone::as_str).unwrap_or_default();
    look((forward, 53).into(), zone, zone).await.mesh == Answered::ByMesh
}

/// What was written, for people.
pub fn said(changes: &[Change]) -> String {
    let files: Vec<_> = changes.iter().map(|change| format!("{}, key {}", change.file.map, change.file.key)).collect();
    format!("written: {}", files.join("; "))
}

/// Something of the mesh's was there, though not as it should be.
fn was_ours(standing: &Standing) -> bool {
    matches!(standing.state, Ok(State::Outdated | State::Broken))
}

fn list(servers: &[SocketAddr]) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
