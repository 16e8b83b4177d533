//! The one task that changes the state.

use std::{collections::HashSet, time::Instant};

use maesh_discovery::update::{Ack, Connected, Rejected, Update, Updates};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Interval, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::State;
use crate::{
    metrics::Metrics,
    probe::{self, Failures, Probe, Round},
};

/// Updates applied before they are published at most, so that an answer is not owed for long.
const AT_ONCE: usize = 64;

/// Everything the task needs.
pub(crate) struct UpdateTask {
    /// What it keeps.
    pub(crate) state: State,
    /// What is to be applied.
    pub(crate) updates: Updates,
    /// Whether the stream is up.
    pub(crate) connected: Connected,
    /// How proxies are probed while it is not.
    pub(crate) probe: Probe,
    /// Where the outcome of probes is told.
    pub(crate) metrics: Metrics,
    /// Whether everything is there and we are not leaving.
    pub(crate) ready: watch::Sender<bool>,
    /// Whether we are leaving.
    pub(crate) leaving: watch::Receiver<bool>,
}

impl UpdateTask {
    /// Runs until `stopping`; afterwards the last snapshot stays.
    pub(crate) async fn run(mut self, stopping: CancellationToken) {
        let mut ticks = ticks(self.probe);
        let mut failures = Failures::default();
        let mut probing: JoinSet<Round> = JoinSet::new();
        let mut relief: Option<tokio::time::Instant> = None;
        let mut caught_up: Option<tokio::time::Instant> = None;
        let (mut updates_open, mut connected_open, mut leaving_open) = (true, true, true);
        loop {
            // Only looked at: what marks a change as seen is `changed`, or one that came meanwhile would go unnoticed.
            let connected = *self.connected.borrow();
            tokio::select! {
                () = stopping.cancelled() => return,
                changed = self.leaving.changed(), if leaving_open => leaving_open = changed.is_ok(),
                changed = self.connected.changed(), if connected_open => {
                    connected_open = changed.is_ok();
                    // Time for kube-proxies goes on where the stream breaks once more.
                    relief = None;
                    if *self.connected.borrow() {
                        // From here on the controller knows better, proxy by proxy as it tells of them.
                        probing = JoinSet::new();
                        let now = tokio::time::Instant::now();
                        (relief, caught_up) = (Some(now + self.probe.relief), Some(now + self.probe.catch_up));
                    }
                }
                () = until(relief), if relief.is_some() => {
                    relief = None;
                    failures = Failures::default();
                    self.metrics.set_probed_dead(0);
                    if self.state.forget_dead() {
                        self.state.publish(Instant::now());
                    }
                }
                () = until(caught_up), if caught_up.is_some() => {
                    caught_up = None;
                    if self.state.forget_stranded() {
                        self.state.publish(Instant::now());
                    }
                }
                update = self.updates.recv(), if updates_open => match update {
                    Some(update) => self.apply(update),
                    None => updates_open = false,
                },
                Some(Ok(round)) = probing.join_next() => {
                    let dead = failures.record(round);
                    self.leave_out(dead, caught_up.is_some());
                }
                _ = ticks.tick(), if !connected && probing.is_empty() => {
                    let ready = self.state.proxies().filter(|proxy| proxy.ready);
                    let targets: Vec<_> = ready
                        .filter_map(|proxy| Some((proxy.id.clone(), probe::target(proxy, self.probe.how)?)))
                        .collect();
                    if !targets.is_empty() {
                        probing.spawn(probe::round(targets, self.probe));
                    }
                }
            }
            self.ready.send_if_modified(|ready| {
                let now = self.state.synced() && !*self.leaving.borrow();
                std::mem::replace(ready, now) != now
            });
        }
    }

    /// Applies `first` and what waits behind it, publishes, and answers.
    fn apply(&mut self, first: Update) {
        let mut owed: Vec<(Ack, Vec<Rejected>)> = Vec::new();
        let mut next = Some(first);
        while let Some(update) = next.take() {
            let rejected = self.state.apply(&update);
            for Rejected { name, message } in &rejected {
                tracing::warn!(%name, "not applied: {message}");
            }
            owed.push((update.ack, rejected));
            if owed.len() < AT_ONCE {
                next = self.updates.try_recv().ok();
            }
        }
        self.state.publish(Instant::now());
        for (ack, rejected) in owed {
            ack.answer(rejected);
        }
    }

    /// Leaves exactly `dead` out of answers; with `still`, what was stranded before stays so.
    fn leave_out(&mut self, dead: HashSet<std::sync::Arc<str>>, still: bool) {
        self.metrics.set_probed_dead(dead.len());
        if self.state.set_dead(dead, still) {
            self.state.publish(Instant::now());
        }
    }
}

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn ticks(probe: Probe) -> Interval {
    let mut ticks = interval(probe.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
