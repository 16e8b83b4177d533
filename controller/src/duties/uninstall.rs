//! Taking the mesh away in an order in which no call fails.
//!
//! A ConfigMap of the mesh's namespace, the marker, says that it is wanted: Helm makes it before it deletes anything, so
//! it also works where the pod of Helm's hook cannot start. While it is there, every replica has its names answer plain
//! addresses. Once nobody remembers a mesh address, the leader takes the stanza out of the cluster's DNS, waits until
//! nobody asks the mesh any more, removes what it made, and says so in the marker. Helm waits for its Job; where the pod of
//! that cannot start, the leader ends it. Without any controller, `maesh uninstall` does the same by itself. Every step
//! may be done twice. Silence in the marker means that nobody is at it: who only waits says so again and again.
//! A marker that came with all of the chart's hooks, applied as ordinary objects, is refused ([`hooks`]).

pub mod hooks;

use std::{fmt, future::Future, pin::Pin, pin::pin, time::Duration};

use futures_util::StreamExt as _;
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{ConfigMap, Service},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    api::ApiError,
    leader::{Leadership, NotLeader},
};

/// The marker's annotation that says how far it is.
pub const PROGRESS: &str = "maesh.containo.us/uninstall";
/// What it says in the end.
pub const DONE: &str = "done";
/// Pause after a failure, and between two looks at the cluster's DNS.
const RETRY: Duration = Duration::from_secs(2);
/// How long the pod of the Job may take to see that all is done, and to end by itself.
const SEEN: Duration = Duration::from_secs(5);
/// How often who waits says that it goes on.
const BEAT: Duration = Duration::from_secs(10);
/// How long the API server may take for one answer.
const ANSWER: Duration = Duration::from_secs(30);

/// Where and how the mesh is taken away.
#[derive(Clone, Debug)]
pub struct Options {
    /// The mesh's namespace.
    pub namespace: String,
    /// Name of the marker, and of the Job that waits until it says that all is done.
    pub marker: String,
    /// How long a caller may remember an answer.
    pub horizon: Duration,
    /// How long the cluster's DNS may take until it no longer asks the mesh.
    pub dns_deadline: Duration,
    /// How long the marker has to be gone until that is believed: it goes together with the mesh, whose last replicas
    /// must not put the stanza back.
    pub regret: Duration,
}

/// What may go wrong on the way; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    /// The API server refused something.
    #[error("{0}; check the rights on the marker, its Job, and Services of the mesh's namespace")]
    Api(#[from] kube::Error),
    /// The API server is silent.
    #[error("the API server did not answer within {ANSWER:?}")]
    Silent(#[from] tokio::time::error::Elapsed),
    /// The stanza could not be removed.
    #[error("the cluster's DNS: {0}")]
    Dns(String),
    /// The cluster's DNS still asks the mesh, and the stanza could not be taken out.
    #[error("the cluster's DNS still asks the mesh, and the mesh cannot change that: {0}")]
    Kept(String),
    /// The cluster's DNS still asks the mesh.
    #[error(
        "the cluster's DNS still asks the mesh {0:?} after the stanza was taken out; look whether CoreDNS reloads its \
         Corefile (plugin `reload`), or restart it: kubectl -n kube-system rollout restart deployment/coredns"
    )]
    StillAsked(Duration),
    /// Another replica leads by now.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
}

/// What came of taking the stanza out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It is not there any more.
    Gone,
    /// The mesh cannot have written it there. The text says why, and what is left to do for who did.
    NeverWritten(String),
    /// It could not be looked for, and another try may do. The text says why.
    NotYet(String),
}

/// An answer of the cluster's DNS, when it comes.
pub type DnsFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// The mesh's part in the cluster's DNS.
pub trait ClusterDns: fmt::Debug + Send + Sync {
    /// Takes the stanza out, if it may: before each of its writes it asks who leads. Nothing where there is none.
    fn remove(&self) -> DnsFuture<'_, Removed>;

    /// The mesh goes, and the stanza stays: says so where it outlasts the mesh.
    fn kept<'a>(&'a self, why: &'a str) -> DnsFuture<'a, ()>;

    /// Whether any server of the cluster's DNS still asks the mesh.
    fn asks_the_mesh(&self) -> DnsFuture<'_, bool>;
}

/// A cluster's DNS that a person looks after, who takes the stanza out before the mesh is taken away.
#[derive(Clone, Copy, Debug)]
pub struct ByHand;

impl ClusterDns for ByHand {
    fn remove(&self) -> DnsFuture<'_, Removed> {
        Box::pin(std::future::ready(Ok(Removed::Gone)))
    }

    fn kept<'a>(&'a self, _: &'a str) -> DnsFuture<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn asks_the_mesh(&self) -> DnsFuture<'_, bool> {
        Box::pin(std::future::ready(Ok(false)))
    }
}

/// Says in `wanted` whether the marker asks for an uninstallation, for as long as somebody listens. While the API server is
/// away, the last answer stands.
pub async fn follow(client: Client, options: &Options, wanted: watch::Sender<bool>) {
    let markers = Api::<PartialObjectMeta<ConfigMap>>::namespaced(client.clone(), &options.namespace);
    let named = watcher::Config::default().fields(&format!("metadata.name={}", options.marker));
    let events = watcher(markers, named).default_backoff();
    let mut events = pin!(events);
    let (mut listed, mut gone) = (None, None);
    while !wanted.is_closed() {
        let marker = tokio::select! {
            event = events.next() => match event {
                None => return,
                Some(Ok(watcher::Event::Init)) => {
                    listed = None;
                    continue;
                }
                Some(Ok(watcher::Event::InitApply(marker))) => {
                    listed = Some(marker);
                    continue;
                }
                Some(Ok(watcher::Event::Apply(marker))) => Some(marker),
                Some(Ok(watcher::Event::InitDone)) => listed.take(),
                Some(Ok(watcher::Event::Delete(_))) => None,
                Some(Err(error)) => {
                    tracing::debug!(%error, "the marker of an uninstallation cannot be watched");
                    continue;
                }
            },
            () = sleep_until(gone.unwrap_or_else(Instant::now)), if gone.is_some() => {
                gone = None;
                say(&wanted, false);
                continue;
            }
        };
        let Some(marker) = marker else {
            if *wanted.borrow() && gone.is_none() {
                gone = Some(Instant::now() + options.regret);
            }
            continue;
        };
        let Some(asks) = hooks::asks(&client, &options.namespace, &marker.metadata, || wanted.is_closed()).await else {
            return;
        };
        gone = None;
        say(&wanted, asks);
    }
}

fn say(wanted: &watch::Sender<bool>, now: bool) {
    if wanted.send_if_modified(|before| std::mem::replace(before, now) != now) {
        let meaning = if now {
            "names answer ClusterIPs or endpoint addresses from now on"
        } else {
            "taken back, names lead to the mesh again"
        };
        tracing::info!("uninstallation: {meaning}");
    }
}

/// A step that may take long.
struct Waiting {
    since: Instant,
    /// How often it was said that it goes on.
    beats: u32,
}

impl Waiting {
    fn new() -> Self {
        Self { since: Instant::now(), beats: 0 }
    }
}

/// Takes the mesh away.
pub struct Uninstall {
    /// The API.
    pub client: Client,
    /// Where and how.
    pub options: Options,
    /// The mesh's part in the cluster's DNS.
    pub dns: Box<dyn ClusterDns>,
    /// What is asked before each write; `None` where no controller runs.
    pub leadership: Option<Leadership>,
    /// With whom the marker goes.
    pub owner: Option<OwnerReference>,
}

impl Uninstall {
    /// The leader's duty: does it whenever it is wanted and this replica leads. Ends when `wanted` is closed.
    pub async fn whenever(self, mut wanted: watch::Receiver<bool>) {
        let Some(leadership) = &self.leadership else { return };
        let mut leads = leadership.watch();
        while becomes(&mut wanted, true).await && becomes(&mut leads, true).await {
            let (mut still_wanted, mut still_leads) = (wanted.clone(), leads.clone());
            tokio::select! {
                () = self.until_done() => {}
                _ = becomes(&mut still_wanted, false) => {}
                _ = becomes(&mut still_leads, false) => {}
            }
        }
    }

    /// Does it, and again from the beginning after a failure. Never ends: what is done stays done, also for another
    /// marker and another Job, by which Helm begins anew before the first marker is believed to be gone.
    async fn until_done(&self) {
        while let Err(error) = self.run(true).await {
            tracing::warn!(%error, "uninstallation: trying again");
            // Who waits for it reads why, if that much can be written.
            let _ = self.note(&format!("trying again: {error}")).await;
            sleep(RETRY).await;
        }
        let (mut ended, mut failed) = (None, None);
        loop {
            sleep(SEEN).await;
            let now = self.stay_done(&mut ended).await.err().map(|error| error.to_string());
            if let Some(error) = now.as_ref().filter(|_| now != failed) {
                tracing::warn!(error, "uninstallation: the Job that waits for it cannot be ended; trying again");
            }
            failed = now;
        }
    }

    /// Says that all is done where the marker does not say it, and ends the Job that waits. `ended`: the uid of the one
    /// that was ended before.
    async fn stay_done(&self, ended: &mut Option<String>) -> Result<(), UninstallError> {
        let markers = Api::<ConfigMap>::namespaced(self.client.clone(), &self.options.namespace);
        let marker = timeout(ANSWER, markers.get_metadata_opt(&self.options.marker)).await??;
        let said = marker.and_then(|marker| marker.metadata.annotations?.remove(PROGRESS));
        if said.is_none_or(|said| said != DONE) {
            self.note(DONE).await?;
        }
        self.end_job(ended).await
    }

    /// Ends the Job that waits, whose pod may never have started: a Job that has to complete nothing is complete. It is
    /// an indexed one, whose number of completions may be changed. Nothing where it is gone, or was ended before.
    async fn end_job(&self, ended: &mut Option<String>) -> Result<(), UninstallError> {
        let jobs = Api::<Job>::namespaced(self.client.clone(), &self.options.namespace);
        let nothing = json!({ "spec": { "completions": 0, "parallelism": 0 } });
        let (parameters, nothing) = (PatchParams::default(), Patch::Merge(&nothing));
        match self.write(jobs.patch_metadata(&self.options.marker, &parameters, &nothing)).await? {
            Err(error) if ApiError::Missing.is(&error) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(job) => {
                if *ended != job.metadata.uid {
                    tracing::info!("uninstallation: the Job that waited for it is ended");
                    *ended = job.metadata.uid;
                }
                Ok(())
            }
        }
    }

    /// Does it once. `bypassed`: names answer plain addresses already, so callers forget the mesh's first; otherwise
    /// they do when the cluster's DNS no longer asks it.
    ///
    /// # Errors
    /// At the first step that fails; what was done before stands.
    pub async fn run(&self, bypassed: bool) -> Result<(), UninstallError> {
        if bypassed {
            self.forgotten().await?;
        }
        let kept = self.take_out().await?;
        self.unasked(kept).await?;
        if !bypassed {
            self.forgotten().await?;
        }
        self.note("removing own addresses").await?;
        self.remove_services().await?;
        self.note(DONE).await
    }

    /// Waits until nobody remembers an address of the mesh.
    async fn forgotten(&self) -> Result<(), UninstallError> {
        let horizon = self.options.horizon;
        self.note(&format!("waiting {horizon:?} until nobody remembers an address of the mesh")).await?;
        sleep(horizon).await;
        Ok(())
    }

    /// Takes the stanza out. Where that cannot be done, it is not waited for beyond the deadline: what was never written
    /// would keep the mesh for ever. Says why then; whether anybody asks the mesh is looked at all the same.
    async fn take_out(&self) -> Result<Option<String>, UninstallError> {
        self.note("taking the stanza out of the cluster's DNS").await?;
        let (mut waiting, mut said) = (Waiting::new(), None);
        loop {
            let why = match self.dns.remove().await.map_err(UninstallError::Dns)? {
                Removed::Gone => return Ok(None),
                Removed::NotYet(why) if waiting.since.elapsed() < self.options.dns_deadline => {
                    let text = format!("the stanza cannot be taken out yet: {why}");
                    if said.as_ref() == Some(&why) {
                        self.beat(&mut waiting, &text).await;
                    } else {
                        self.note(&text).await?;
                        said = Some(why);
                    }
                    sleep(RETRY).await;
                    continue;
                }
                Removed::NotYet(why) => {
                    // The marker and the logs go with the mesh.
                    let _ = self.dns.kept(&why).await;
                    why
                }
                Removed::NeverWritten(why) => why,
            };
            self.note(&format!("going on without taking the stanza out: {why}")).await?;
            // Who waits for it reads why.
            sleep(RETRY).await;
            return Ok(Some(why));
        }
    }

    /// Waits until the cluster's DNS no longer asks the mesh. `kept`: why the stanza was not taken out.
    async fn unasked(&self, kept: Option<String>) -> Result<(), UninstallError> {
        let text = "waiting until the cluster's DNS no longer asks the mesh";
        self.note(text).await?;
        let mut waiting = Waiting::new();
        loop {
            let asked = self.dns.asks_the_mesh().await;
            match asked {
                Ok(false) => return Ok(()),
                _ if waiting.since.elapsed() < self.options.dns_deadline => {
                    self.beat(&mut waiting, text).await;
                    sleep(RETRY).await;
                }
                Ok(true) => {
                    let asked = UninstallError::StillAsked(self.options.dns_deadline);
                    return Err(kept.map_or(asked, UninstallError::Kept));
                }
                Err(why) => return Err(UninstallError::Dns(why)),
            }
        }
    }

    /// Says now and then that it waits still. What begins anew says the same again, and nothing new.
    async fn beat(&self, waiting: &mut Waiting, text: &str) {
        let beats = u32::try_from(waiting.since.elapsed().as_secs() / BEAT.as_secs()).unwrap_or(u32::MAX);
        if beats > waiting.beats {
            waiting.beats = beats;
            // The next one may be heard.
            let _ = self.note(&format!("{text} (for {:?} so far)", BEAT * beats)).await;
        }
    }

    async fn remove_services(&self) -> Result<(), UninstallError> {
        let services = Api::<Service>::namespaced(self.client.clone(), &self.options.namespace);
        let ours = ListParams::default().labels(maesh_compiler::kinds::OWN_ADDRESS);
        for service in timeout(ANSWER, services.list_metadata(&ours)).await??.items {
            let name = service.metadata.name.unwrap_or_default();
            match self.write(services.delete(&name, &DeleteParams::default())).await? {
                Err(error) if ApiError::Missing.is(&error) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Says how far it is, in the marker and in the log.
    async fn note(&self, progress: &str) -> Result<(), UninstallError> {
        tracing::info!(marker = self.options.marker, "uninstallation: {progress}");
        let markers = Api::<ConfigMap>::namespaced(self.client.clone(), &self.options.namespace);
        let owners = self.owner.as_slice();
        let patch = json!({ "metadata": { "annotations": { PROGRESS: progress }, "ownerReferences": owners } });
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(&patch));
        match self.write(markers.patch_metadata(&self.options.marker, &parameters, &patch)).await? {
            // It was taken back: whoever watches it learns that.
            Err(error) if ApiError::Missing.is(&error) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }

    async fn write<T>(&self, write: impl Future<Output = T>) -> Result<T, UninstallError> {
        match &self.leadership {
            Some(leadership) => Ok(leadership.write(write).await?),
            None => Ok(timeout(ANSWER, write).await?),
        }
    }
}

/// Waits until it is `value`; false when that can no longer be.
async fn becomes(receiver: &mut watch::Receiver<bool>, value: bool) -> bool {
    receiver.wait_for(|now| *now == value).await.is_ok()
}
