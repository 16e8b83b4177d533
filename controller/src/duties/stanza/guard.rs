//! The leader's duty: the stanza stands in the cluster's DNS as long as the mesh is there.
//!
//! Whoever else writes there (an add-on's manager, an upgrade, a person) is answered with patience: at once the first
//! time, then ever more slowly. After a write the cluster's DNS is watched, and what harms it is undone and not tried
//! again until something changed. What was done, and what is wrong for as long as it is, is an Event where people look
//! who look after the cluster's DNS: at the ConfigMap that it reads.

mod backoff;
mod conclude;
mod memory;
mod problem_reporter;

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

pub use self::memory::Memory;
use self::{backoff::Backoff, conclude::Lacking, memory::HarmfulChange, problem_reporter::ProblemReporter};
use super::{
    Answered, Change, Cluster, ClusterError, FileState, Look, Mesh, Place, ReloadWatch, Report, Right, StanzaState,
    There, look,
};
use crate::{
    duties::events::{Recorder, Tone},
    leader::Leadership,
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
    /// Where what did harm is remembered.
    pub memory: Memory,
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
            duty.lapse(&guard);
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
        duty.memory.remember(duty.held.as_ref(), &guard.right()).await;
        duty.reporter.remind(Instant::now(), &guard.recorder);
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

    fn right(&self) -> Right {
        Right::Leader(self.leadership.clone())
    }
}

/// What this process remembers.
#[derive(Debug)]
struct Duty {
    place: Option<(Instant, Place)>,
    backoff: Backoff,
    looked: bool,
    watch: Option<ReloadWatch>,
    /// It is there, and that is not all: said until every server leads to the mesh.
    lacking: Option<Lacking>,
    /// What did harm and is not tried again.
    held: Option<HarmfulChange>,
    memory: Memory,
    /// What was said before something was in the way.
    before: Status,
    reporter: ProblemReporter,
}

impl Duty {
    fn new(guard: &Guard) -> Self {
        Self {
            place: None,
            backoff: Backoff::new(guard.times.pause),
            looked: false,
            watch: None,
            lacking: None,
            held: None,
            memory: guard.memory.clone(),
            before: Status::default(),
            reporter: ProblemReporter::new(&guard.mesh, guard.times.settle),
        }
    }

    /// Another leads, or may have since the last look: the cluster is looked at anew. What did harm, what is watched for
    /// it and how others write is not forgotten by that.
    fn lapse(&mut self, guard: &Guard) {
        self.memory.lapse(&mut self.held);
        if let Some(watch) = &mut self.watch {
            watch.anew(Instant::now(), &BTreeMap::new());
        }
        let (backoff, watch, held, memory) =
            (self.backoff.clone(), self.watch.take(), self.held.take(), self.memory.clone());
        *self = Self { backoff, watch, held, memory, ..Self::new(guard) };
    }

    /// Something is in the way.
    fn block(&mut self, guard: &Guard, why: String) {
        self.reporter.wrong(Instant::now(), "StanzaBlocked", &why);
        let status = guard.status.borrow().clone();
        if status.phase != Phase::Blocked {
            self.before = status;
        }
        guard.say(Phase::Blocked, why);
    }

    /// Nothing is in the way any more, and there was nothing to do meanwhile: as it was before.
    fn unblock(&self, guard: &Guard) {
        if guard.status.borrow().phase != Phase::Blocked {
            return;
        }
        match self.before.phase {
            Phase::Written | Phase::Present => guard.say(self.before.phase, self.before.message.clone()),
            _ => guard.say(Phase::Present, "the stanza is there".into()),
        }
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
        self.reporter.look_at(&there);
        Ok(there)
    }

    /// One look at the stanza of a mesh that stays.
    async fn stay(&mut self, guard: &Guard) -> Result<(), ClusterError> {
        self.memory.recall(&mut self.held).await?;
        let there = self.there(&guard.cluster).await?;
        let forward = guard.cluster.forward(&guard.mesh).await?;
        let report = there.report(&guard.mesh.zones, forward)?;
        let changes = there.additions(&guard.mesh.zones, forward)?;
        let whole = changes.is_empty();
        // Half a write can do harm as well; a text that is somebody else's again cannot.
        let begun = self.watch.is_some() && report.standings.iter().any(|it| it.state != Ok(StanzaState::Absent));
        if (whole || begun) && !self.watch(guard, &there, &report, forward, whole).await? {
            return Ok(());
        }
        if whole {
            self.stands(guard);
            return Ok(());
        }
        if let Some(held) = self.held.as_mut().and_then(|held| held.are(&changes).then_some(held)) {
            self.reporter.wrong(Instant::now(), "StanzaReverted", &held.why);
            guard.say(Phase::Reverted, held.why.clone());
            return Ok(());
        }
        self.write(guard, &there, &report, &changes, forward).await
    }

    /// Writes, if that may be now and what comes of it can be seen.
    async fn write(
        &mut self,
        guard: &Guard,
        there: &There,
        report: &Report,
        changes: &[Change],
        forward: IpAddr,
    ) -> Result<(), ClusterError> {
        if !self.backoff.may(Instant::now()) {
            return Ok(());
        }
        if !guard.cluster.is_ready(&guard.mesh).await? {
            self.block(guard, "no pod of the mesh's dns is ready; the stanza is written once one is".into());
            return Ok(());
        }
        let before = looks(&there.place, &report.cluster_domain, &guard.mesh.zones).await;
        let Some(watch) = ReloadWatch::start(Instant::now(), guard.times.deadline, &before) else {
            let text = format!(
                "no server of the cluster's DNS ({}) answered this pod for kubernetes.default.svc.{}; nothing is \
                 written, because what came of it could not be seen. Let the controller reach them, or add the stanza by \
                 hand",
                there.place.service, report.cluster_domain
            );
            self.block(guard, text);
            return Ok(());
        };
        // Watched from here, as a part of it may be written also where another part fails.
        match &mut self.watch {
            Some(watch) => watch.anew(Instant::now(), &before),
            None => self.watch = Some(watch),
        }
        self.lacking = None;
        let mends = std::mem::replace(&mut self.looked, true) || report.standings.iter().any(was_ours);
        self.backoff.wrote(Instant::now());
        guard.cluster.write(there, changes, &guard.right()).await?;
        self.wrote(guard, mends, format!("{}, leading to {forward}", said(changes)));
        Ok(())
    }

    /// It is there, and nothing is in the way; that need not be all.
    fn stands(&mut self, guard: &Guard) {
        let Some(lacking) = self.lacking.clone() else {
            self.reporter.right();
            self.unblock(guard);
            return;
        };
        self.reporter.wrong(Instant::now(), "StanzaNotInForce", &lacking.text);
        guard.say(lacking.phase, lacking.text);
    }

    /// Something was written, for the first time or against another writer.
    fn wrote(&mut self, guard: &Guard, mends: bool, what: String) {
        self.reporter.right();
        let (reason, text) = match mends {
            true => ("StanzaMended", format!("the stanza was gone or changed, and is again as it should be; {what}")),
            false => ("StanzaWritten", what.clone()),
        };
        self.reporter.done(&guard.recorder, Tone::Normal, reason, text);
        guard.say(Phase::Written, what);
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
fn was_ours(standing: &FileState) -> bool {
    matches!(standing.state, Ok(StanzaState::Outdated | StanzaState::Broken))
}
