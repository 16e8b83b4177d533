//! The leader's duty: the stanza stands in the cluster's DNS as long as the mesh is there.
//!
//! Whoever else writes there (an add-on's manager, an upgrade, a person) is answered with patience: at once the first
//! time, then ever more slowly. After a write the cluster's DNS is watched, and what harms it is undone and not tried
//! again until something changed.

mod backoff;

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

use self::backoff::Backoff;
use super::{
    Answered, Change, Cluster, ClusterError, Look, Mesh, Place, Report, Right, There, Verdict, Watch, look, take_out,
};
use crate::leader::Leadership;

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
}

impl Default for Times {
    fn default() -> Self {
        Self { tick: Duration::from_secs(5), pause: Duration::from_secs(10), deadline: Duration::from_secs(240) }
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
}

/// Keeps the stanza in place while this replica leads and the mesh stays. Returns once nobody wants to know any more.
pub async fn guard(mut guard: Guard) {
    let mut leads = guard.leadership.watch();
    let mut tick = interval(guard.times.tick);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut duty = Duty::new(guard.times);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            changed = leads.changed() => if changed.is_err() { return },
            changed = guard.leaving.changed() => if changed.is_err() { return },
        }
        if !guard.leadership.may_write() {
            duty = Duty::new(guard.times);
            guard.say(Phase::Idle, String::new());
            continue;
        }
        if *guard.leaving.borrow() {
            // Another duty takes the stanza out.
            duty = Duty::new(guard.times);
            guard.say(Phase::Leaving, "the mesh is about to go; the stanza is not kept".into());
            continue;
        }
        if let Err(error) = duty.stay(&guard).await {
            // It may be elsewhere by now.
            duty.place = None;
            guard.say(Phase::Blocked, format!("{error}"));
        }
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

/// What this leader remembers.
#[derive(Debug)]
struct Duty {
    place: Option<(Instant, Place)>,
    backoff: Backoff,
    looked: bool,
    watch: Option<Watch>,
    /// What did harm, and is not tried again.
    held: Option<Vec<Change>>,
}

impl Duty {
    fn new(times: Times) -> Self {
        Self { place: None, backoff: Backoff::new(times.pause), looked: false, watch: None, held: None }
    }

    async fn there(&mut self, cluster: &Cluster) -> Result<There, ClusterError> {
        let place = match self.place.take().filter(|(since, _)| since.elapsed() < PLACE) {
            Some(known) => known,
            None => (Instant::now(), cluster.place().await?),
        };
        self.place = Some(place.clone());
        cluster.read(place.1).await
    }

    /// One look at the stanza of a mesh that stays.
    async fn stay(&mut self, guard: &Guard) -> Result<(), ClusterError> {
        let there = self.there(&guard.cluster).await?;
        let forward = guard.cluster.forward(&guard.mesh).await?;
        let report = there.report(&guard.mesh.zones, forward)?;
        let changes = there.additions(&guard.mesh.zones, forward)?;
        if changes.is_empty() {
            return self.watch(guard, &there, &report, forward).await;
        }
        if self.held.as_ref() == Some(&changes) || !self.backoff.may(Instant::now()) {
            return Ok(());
        }
        if !guard.cluster.is_ready(&guard.mesh).await? {
            guard.say(Phase::Blocked, "no pod of the mesh's dns is ready; the stanza is written once one is".into());
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
            guard.say(Phase::Blocked, text);
            return Ok(());
        };
        self.backoff.wrote(Instant::now());
        guard.cluster.write(&there, &changes, &guard.right()).await?;
        self.watch = Some(watch);
        self.looked = true;
        guard.say(Phase::Written, format!("{}, leading to {forward}", said(&changes)));
        Ok(())
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
        let forward = guard.cluster.forward(&guard.mesh).await?;
        self.held = self.there(&guard.cluster).await?.additions(&guard.mesh.zones, forward).ok();
        let text = format!(
            "the stanza was taken out again: {harm}. It is not tried again until the Corefile or the address of the \
             mesh's dns changes"
        );
        guard.say(Phase::Reverted, text);
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

fn list(servers: &[SocketAddr]) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
