//! Which replica may write: the one that holds a Lease of `coordination.k8s.io/v1`.
//!
//! Every replica watches and serves; only the leader writes. No two may ever write at once, so the leader's right ends
//! before anybody else's can begin, without comparing clocks of two machines: the leader counts from the moment before
//! it sent its last renewal, [`LeaseTimes::right`] long; others count from the moment after they saw that renewal,
//! [`LeaseTimes::lease`] long. What lies between the two is the longest that a write may take.

mod election;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

use self::election::{Act, Election, Record};
use crate::api::ApiError;

/// The times of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// Silence of the leader after which another may take over. Whole seconds: the Lease has no finer unit.
    pub lease: Duration,
    /// How long the leader may write after its last renewal was sent; shorter than `lease`.
    pub right: Duration,
    /// How often the leader renews and the others look.
    pub retry: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), right: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

impl LeaseTimes {
    /// How long one look at the Lease and its renewal may take together. Half of the leader's right, so that a
    /// connection that died silently leaves time to renew over a new one.
    fn longest_round(&self) -> Duration {
        self.right / 2
    }

    /// The longest that one write may take to reach the API server: a later one could meet the next leader's.
    pub fn longest_write(&self) -> Duration {
        self.lease.saturating_sub(self.right)
    }
}

/// What can be asked of the election while it goes on.
#[derive(Clone, Debug)]
pub struct Leadership {
    leads: watch::Receiver<bool>,
    until: Arc<Mutex<Option<Instant>>>,
    longest_write: Duration,
}

/// The right to write ended before the write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the leader: nothing was written, or the write was abandoned; the leader does it")]
pub struct NotLeader;

impl Leadership {
    /// Whether this replica leads, and every change of that.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.leads.clone()
    }

    /// Whether a write may be sent now. Exact also in a process that was stopped and goes on, whose timers are late.
    pub fn may_write(&self) -> bool {
        self.until.lock().is_some_and(|until| Instant::now() < until)
    }

    /// Does one write if this replica leads, and abandons it where it takes longer than the next leader waits.
    ///
    /// # Errors
    /// If this replica does not lead, or the write took too long.
    pub async fn write<T>(&self, write: impl Future<Output = T>) -> Result<T, NotLeader> {
        if !self.may_write() {
            return Err(NotLeader);
        }
        timeout(self.longest_write, write).await.map_err(|_| NotLeader)
    }
}

/// A candidate: takes part until it is stopped or dropped.
#[derive(Debug)]
pub struct Candidate {
    leadership: Leadership,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Candidate {
    /// Takes part in the election for the Lease `namespace`/`lease` as `me`, which no other process may ever be called:
    /// a pod's name does not suffice, for its containers restart. Must be called within a runtime.
    pub fn start(client: Client, namespace: &str, lease: &str, me: &str, terms: LeaseTimes) -> Self {
        let until = Arc::new(Mutex::new(None));
        let (leads, receiver) = watch::channel(false);
        let (stop, stopped) = oneshot::channel();
        let shell = Shell {
            leases: Api::namespaced(client, namespace),
            name: lease.to_owned(),
            election: Election::new(me, terms),
            terms,
            until: until.clone(),
            leads,
            failed: None,
        };
        let leadership = Leadership { leads: receiver, until, longest_write: terms.longest_write() };
        Self { leadership, stop: Some(stop), task: tokio::spawn(shell.run(stopped)) }
    }

    /// What can be asked of it.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Gives the Lease back, so that another leads at once. Whoever writes must have ended before.
    pub async fn stop(mut self) {
        self.stop.take();
        // It ends by itself, at the latest when its last request does; what else it could say was logged.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        self.task.abort();
        *self.leadership.until.lock() = None;
    }
}

struct Shell {
    leases: Api<Lease>,
    name: String,
    election: Election,
    terms: LeaseTimes,
    until: Arc<Mutex<Option<Instant>>>,
    leads: watch::Sender<bool>,
    /// What went wrong in the last round: said once.
    failed: Option<String>,
}

impl Shell {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            let lapse = self.election.right_until();
            let round = async {
                let limit = self.terms.longest_round();
                let failed = match timeout(limit, self.round()).await {
                    Ok(round) => round.err().map(|error| error.to_string()),
                    Err(_) => Some(format!("the API server did not answer within {limit:?}")),
                };
                if let Some(error) = failed.as_ref().filter(|_| failed != self.failed) {
                    tracing::warn!(lease = self.name, %error, "the Lease could be neither read nor renewed; trying on");
                }
                self.failed = failed;
                self.publish();
                sleep(self.terms.retry).await;
            };
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                () = round => {}
                () = sleep_until(lapse.unwrap_or_else(Instant::now)), if lapse.is_some_and(|at| at > Instant::now()) => {}
            }
            self.publish();
        }
        self.release().await;
    }

    /// Reads the Lease, and takes or renews it where that is this replica's to do.
    async fn round(&mut self) -> Result<(), kube::Error> {
        let found = self.leases.get_opt(&self.name).await?;
        let found = found.map(|lease| (record(&lease), lease));
        self.election.saw(Instant::now(), found.as_ref().map(|(record, _)| record));
        // Before the request is sent: others may count from the moment it arrives.
        let sent = Instant::now();
        let Act::Hold(wanted) = self.election.act(sent, Timestamp::now()) else { return Ok(()) };
        let written = match found {
            Some((_, lease)) => self.leases.replace(&self.name, &PostParams::default(), &filled(lease, &wanted)).await,
            None => {
                let meta = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                let lease = filled(Lease { metadata: meta, spec: None }, &wanted);
                self.leases.create(&PostParams::default(), &lease).await
            }
        };
        match written {
            Ok(_) => self.election.holds(sent, wanted),
            // Another was faster; the next round sees who.
            Err(error) if ApiError::Conflict.is(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Tells whether this replica leads now.
    fn publish(&self) {
        let until = self.election.right_until().filter(|until| Instant::now() < *until);
        *self.until.lock() = until;
        let leads = until.is_some();
        if self.leads.send_if_modified(|now| std::mem::replace(now, leads) != leads) {
            tracing::info!(lease = self.name, leads, "leader election");
        }
    }

    /// Ends the right to write, then says so in the Lease if it is still this replica's.
    async fn release(mut self) {
        let held = self.election.right_until().is_some();
        self.election.resign();
        self.publish();
        if !held {
            return;
        }
        let release = async {
            let Some(lease) = self.leases.get_opt(&self.name).await? else { return Ok(()) };
            let Some(free) = self.election.freed(&record(&lease)) else { return Ok(()) };
            self.leases.replace(&self.name, &PostParams::default(), &filled(lease, &free)).await.map(drop)
        };
        match timeout(self.terms.longest_write(), release).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the Lease was not given back; another replica leads once it ran out");
            }
            Err(_) => tracing::warn!("the Lease was not given back in time; another replica leads once it ran out"),
        }
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        lease: Duration::from_secs(spec.lease_duration_seconds.and_then(|s| s.try_into().ok()).unwrap_or(0)),
        acquired: spec.acquire_time.map(|time| time.0),
        renewed: spec.renew_time.map(|time| time.0),
        transitions: spec.lease_transitions.unwrap_or(0),
    }
}

/// `lease` with `record` in it; what else it carries stays.
fn filled(mut lease: Lease, record: &Record) -> Lease {
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    spec.holder_identity = Some(record.holder.clone());
    spec.lease_duration_seconds = Some(i32::try_from(record.lease.as_secs()).unwrap_or(i32::MAX).max(1));
    spec.acquire_time = record.acquired.map(MicroTime);
    spec.renew_time = record.renewed.map(MicroTime);
    spec.lease_transitions = Some(record.transitions);
    lease
}
