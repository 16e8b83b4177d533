//! Follows one kind: list, watch, resume, begin again.
//!
//! A kind that the cluster need not serve is asked for every few seconds while it is absent. When it vanishes its objects
//! are gone, whatever was seen of them last.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{ListParams, WatchEvent, WatchParams},
};
use maesh_compiler::kinds::{ObjectId, ObjectKind, ReadContext, Registration};
use tokio::{sync::mpsc, time::Instant};

use super::{
    BadObject, Options, WatchState, Watches, absent,
    list::{List, key},
    object::Raw,
    problem,
};
use crate::{
    api::{ApiError, chain},
    source::{Batch, Event},
};

/// First pause after an error; doubled each time.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause after an error.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long an answer, or the next part of a list, may take.
const ANSWER: Duration = Duration::from_secs(30);
/// How long after its agreed end a silent watch is given up.
const GRACE: Duration = Duration::from_secs(10);
/// A list begins after as many failures to go on: whatever the server objects to, a list is always right.
const ENOUGH_FAILURES: u32 = 20;

/// One kind, and where we are with it.
pub(super) struct Follow {
    pub(super) registration: &'static Registration,
    pub(super) kind: ObjectKind,
    required: bool,
    pub(super) client: Client,
    /// The version in use, by its place in the registration.
    pub(super) version_at: usize,
    pub(super) api: Api<Raw>,
    pub(super) door: ReadContext,
    watch_for: Duration,
    confirm_after: Duration,
    /// When everything is listed once more.
    pub(super) confirm_at: Option<Instant>,
    page: u32,
    stream_lists: bool,
    /// The one object that is followed; `None` for all of the kind.
    only: Option<ObjectId>,
    fields: Option<String>,
    labels: Option<&'static str>,
    pub(super) watches: Watches,
    batches: mpsc::Sender<Batch>,
    /// Where to go on; `None` to begin with a list.
    pub(super) version: Option<String>,
    /// Everything was listed once. From then on a list must be as new as the cluster: one from the cache of an API
    /// server that lags behind would bring deleted objects back.
    listed: bool,
    pub(super) synced: bool,
    /// Versions that the cluster did not serve since the last list.
    pub(super) not_served: usize,
}

/// After as many failures to read one object, nobody waits for it any longer: about 10 s.
const LONG_UNKNOWN: u32 = 6;

/// Why a watch or list ended before its time.
#[derive(Debug)]
pub(super) enum Ended {
    /// The server has forgotten the place.
    Expired,
    /// The server does not stream lists.
    NoStreams,
    /// Something went wrong.
    Failed(kube::Error),
    /// The server is silent.
    Silent,
    /// Nobody listens to us.
    Unwanted,
}

impl From<kube::Error> for Ended {
    fn from(error: kube::Error) -> Self {
        if ApiError::Expired.is(&error) { Self::Expired } else { Self::Failed(error) }
    }
}

impl Follow {
    pub(super) fn new(
        registration: &'static Registration,
        client: &Client,
        options: &Options,
        door: &ReadContext,
        watches: Watches,
        batches: mpsc::Sender<Batch>,
    ) -> Self {
        let kind = registration.kind;
        Self {
            registration,
            kind,
            required: options.required.contains(&kind),
            client: client.clone(),
            version_at: 0,
            api: absent::api(client, registration, 0),
            door: door.clone(),
            watch_for: options.watch_for,
            confirm_after: options.confirm_after,
            confirm_at: None,
            page: options.page,
            stream_lists: options.stream_lists,
            // Left out by the server already. A pod that ended has no address any longer: its end is a
            // deletion from our view.
            only: None,
            fields: (kind == ObjectKind::Pod).then(|| "status.phase!=Succeeded,status.phase!=Failed".to_owned()),
            labels: (kind == ObjectKind::EndpointSlice).then_some("kubernetes.io/service-name"),
            watches,
            batches,
            version: None,
            listed: false,
            synced: false,
            not_served: 0,
        }
    }

    /// Follows one object alone.
    pub(super) fn one(
        id: ObjectId,
        client: &Client,
        options: &Options,
        door: &ReadContext,
        watches: &Watches,
        batches: &mpsc::Sender<Batch>,
    ) -> Self {
        let registration = id.kind.registration();
        let all = Self::new(registration, client, options, door, watches.clone(), batches.clone());
        let api = absent::api_in(client, registration, &id.namespace);
        Self { api, fields: Some(format!("metadata.name={}", id.name)), only: Some(id), ..all }
    }

    pub(super) async fn run(mut self) {
        let mut failures: u32 = 0;
        loop {
            let begun = Instant::now();
            let Err(ended) = self.once().await else {
                // Ended in time; a server that ends watches at once is not asked again at once.
                if begun.elapsed() < FIRST_PAUSE {
                    tokio::time::sleep(FIRST_PAUSE).await;
                }
                failures = 0;
                continue;
            };
            if begun.elapsed() > LONGEST_PAUSE {
                failures = 0;
            }
            match ended {
                Ended::Unwanted => return,
                Ended::Expired => {
                    tracing::info!(kind = %self.kind, "the API server has forgotten where we were; listing again");
                    self.version = None;
                }
                Ended::NoStreams => self.stream_lists = false,
                Ended::Silent => {
                    let error = std::io::Error::new(std::io::ErrorKind::TimedOut, "the API server is silent");
                    self.failed(&kube::Error::Service(error.into())).await;
                }
                Ended::Failed(error) if self.is_not_served(&error) => {
                    let Ok(pause) = self.not_served().await else { return };
                    failures = 0;
                    tokio::time::sleep(pause).await;
                    continue;
                }
                Ended::Failed(error) => self.failed(&error).await,
            }
            failures = failures.saturating_add(1);
            if failures >= LONG_UNKNOWN
                && !self.synced
                && self.unreadable("the API server does not answer").await.is_err()
            {
                return;
            }
            if failures.is_multiple_of(ENOUGH_FAILURES) {
                self.version = None;
            }
            let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE);
            // Kinds and replicas do not come back in step.
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.75..=1.0))).await;
        }
    }

    /// Lists if need be, and watches until the server ends it.
    async fn once(&mut self) -> Result<(), Ended> {
        if self.confirm_at.is_some_and(|at| at <= Instant::now()) {
            self.version = None;
        }
        match self.version.clone() {
            Some(version) => {
                let events = within(self.api.watch(&self.parameters(false), &version)).await?;
                self.well().await?;
                self.watch(events.boxed()).await
            }
            None if self.stream_lists => {
                let at_least = if self.listed { "" } else { "0" };
                let events = within(self.api.watch(&self.parameters(true), at_least)).await;
                let events = events.map_err(no_streams)?.boxed();
                let events = self.stream_list(events).await?;
                self.watch(events).await
            }
            None => self.page_list().await,
        }
    }

    fn parameters(&self, send_initial_events: bool) -> WatchParams {
        WatchParams {
            field_selector: self.fields.clone(),
            label_selector: self.labels.map(str::to_owned),
            timeout: Some(u32::try_from(self.watch_for.as_secs().max(1)).unwrap_or(u32::MAX)),
            send_initial_events,
            ..WatchParams::default()
        }
    }

    /// Takes the whole state from the beginning of a watch.
    async fn stream_list<S>(&mut self, mut events: S) -> Result<S, Ended>
    where
        S: Stream<Item = kube::Result<WatchEvent<Raw>>> + Unpin,
    {
        let mut list = List::default();
        loop {
            let next = tokio::time::timeout(ANSWER, events.next()).await;
            match next.map_err(|_| Ended::Silent)?.ok_or(Ended::Silent)?? {
                WatchEvent::Added(raw) | WatchEvent::Modified(raw) => list.put(self, &raw),
                // What happens to the objects while they are sent is told before the end of the list is.
                WatchEvent::Deleted(raw) => list.remove(self, &raw),
                WatchEvent::Bookmark(mark) => {
                    if mark.metadata.annotations.contains_key("k8s.io/initial-events-end") {
                        self.listed(list, mark.metadata.resource_version).await?;
                        return Ok(events);
                    }
                }
                WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
            }
        }
    }

    /// Takes the whole state in pages.
    async fn page_list(&mut self) -> Result<(), Ended> {
        let mut list = List::default();
        let mut parameters = ListParams::default().limit(self.page);
        parameters.field_selector = self.fields.clone();
        parameters.label_selector = self.labels.map(str::to_owned);
        loop {
            let page = within(self.api.list(&parameters)).await?;
            page.items.iter().for_each(|raw| list.put(self, raw));
            let metadata = page.metadata;
            parameters.continue_token = metadata.continue_.filter(|token| !token.is_empty());
            if parameters.continue_token.is_none() {
                return self.listed(list, metadata.resource_version.unwrap_or_default()).await;
            }
        }
    }

    async fn listed(&mut self, list: List, version: String) -> Result<(), Ended> {
        (self.synced, self.listed, self.not_served) = (true, true, 0);
        self.confirm_at = self.confirmed_at(Instant::now());
        self.watches.change(self.kind, |state| {
            state.watch.lists += 1;
            state.watch.synced = true;
            state.bad = list.bad;
            state.count_bad();
        });
        let reached = Event::Reached(self.kind, number(&version));
        self.at(version);
        match &self.only {
            None => {
                let all = list.objects.into_values().collect();
                self.send(vec![Event::Reset(self.kind, all), Event::Synced(self.kind), reached]).await?;
            }
            Some(id) => {
                let there = list.objects.into_values().next();
                self.send(vec![there.map_or_else(|| Event::Delete(id.clone()), Event::Apply)]).await?;
            }
        }
        self.watches.change(self.kind, |state| state.problem = None);
        self.tell_problems().await
    }

    /// When everything that was just listed is listed once more.
    ///
    /// The API server makes the cache of a custom kind when it is first asked for it. etcd may tell that cache how far it is
    /// before it tells what happened up to there. A list that comes in between lacks an object that was just written, and the
    /// watch that follows leaves it out as known. Nothing but another list shows it.
    fn confirmed_at(&self, now: Instant) -> Option<Instant> {
        match self.confirm_at {
            Some(at) => Some(at).filter(|at| *at > now),
            None => (!self.registration.always_served).then(|| now + self.confirm_after),
        }
    }

    async fn watch<S>(&mut self, mut events: S) -> Result<(), Ended>
    where
        S: Stream<Item = kube::Result<WatchEvent<Raw>>> + Unpin,
    {
        let silent = Instant::now() + self.watch_for + GRACE;
        let end = self.confirm_at.map_or(silent, |at| at.min(silent));
        loop {
            let Ok(next) = tokio::time::timeout_at(end, events.next()).await else {
                return if end < silent { Ok(()) } else { Err(Ended::Silent) };
            };
            let Some(event) = next else { return Ok(()) };
            match event? {
                WatchEvent::Added(raw) | WatchEvent::Modified(raw) => {
                    match self.registration.read(&raw.value, &self.door) {
                        Ok((object, values)) => {
                            self.note(&raw, BadObject::inside(self.registration, &raw, &values)).await?;
                            self.takes_effect(Event::Apply(object), &raw).await?;
                        }
                        Err(error) => {
                            // Left out, as in a list: what a replica says must not depend on when it was started.
                            self.takes_effect(self.deletion(&raw), &raw).await?;
                            self.note(&raw, Some(BadObject::whole(self.registration, &raw, &error))).await?;
                        }
                    }
                }
                WatchEvent::Deleted(raw) => {
                    self.note(&raw, None).await?;
                    self.takes_effect(self.deletion(&raw), &raw).await?;
                }
                WatchEvent::Bookmark(mark) => self.at(mark.metadata.resource_version),
                WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
            }
        }
    }

    /// Sends what an event says, and notes how far we are with it.
    async fn takes_effect(&mut self, event: Event, raw: &Raw) -> Result<(), Ended> {
        let version = raw.version().unwrap_or_default().to_owned();
        self.send(vec![event, Event::Reached(self.kind, number(&version))]).await?;
        self.at(version);
        Ok(())
    }

    fn deletion(&self, raw: &Raw) -> Event {
        Event::Delete(self.id(raw))
    }

    pub(super) fn id(&self, raw: &Raw) -> ObjectId {
        let (namespace, name) = raw.name();
        ObjectId::new(self.kind, self.door.interner.get(namespace), name)
    }

    /// Notes what is wrong with an object, and says it where that is news.
    async fn note(&self, raw: &Raw, wrong: Option<BadObject>) -> Result<(), Ended> {
        let news = self.watches.change(self.kind, |state| {
            if wrong.is_none() && state.bad.is_empty() {
                return false;
            }
            let key = key(raw);
            let same = state.bad.get(key.as_str()) == wrong.as_ref();
            match wrong {
                Some(wrong) => state.bad.insert(key.into(), wrong),
                None => state.bad.remove(key.as_str()),
            };
            state.count_bad();
            !same
        });
        if news { self.tell_problems().await } else { Ok(()) }
    }

    /// Notes how far we are.
    fn at(&mut self, version: String) {
        if version.is_empty() {
            return;
        }
        self.watches.change(self.kind, |state| {
            state.watch.version = match number(&version) {
                0 => state.watch.version,
                known => known,
            };
            succeeded(state);
        });
        self.version = Some(version);
    }

    /// The server answers.
    async fn well(&self) -> Result<(), Ended> {
        let cleared = self.watches.change(self.kind, |state| {
            succeeded(state);
            state.problem.take().is_some()
        });
        if cleared { self.tell_problems().await } else { Ok(()) }
    }

    /// The server does not answer, or not as we need.
    async fn failed(&mut self, error: &kube::Error) {
        tracing::debug!(kind = %self.kind, %error, "watch failed");
        let now = problem(self.registration, self.required, error);
        let news = self.watches.change(self.kind, |state| {
            state.watch.error = Some(chain(error).into());
            state.problem.replace(now.clone()).as_ref() != Some(&now)
        });
        if news {
            tracing::warn!("{now}");
            // Whoever should be told is gone: the next send notices.
            let _ = self.tell_problems().await;
        }
        let refused = matches!(ApiError::of(error), ApiError::Forbidden | ApiError::Missing);
        if refused && !self.required && !self.synced {
            self.synced = true;
            let _ = match self.only {
                None => self.send(vec![Event::Synced(self.kind)]).await,
                Some(_) => self.unreadable("the API server does not let the controller").await,
            };
        }
    }

    /// Says that the one object that is followed cannot be read, so that nobody waits for it.
    async fn unreadable(&self, why: &str) -> Result<(), Ended> {
        match &self.only {
            Some(id) => self.send(vec![Event::Unreadable(id.clone(), why.into())]).await,
            None => Ok(()),
        }
    }

    /// Sends everything that is wrong. One at a time: what is sent last must be what holds.
    pub(super) async fn tell_problems(&self) -> Result<(), Ended> {
        let _turn = self.watches.turn().await;
        self.send(vec![self.watches.problems()]).await
    }

    pub(super) async fn send(&self, batch: Batch) -> Result<(), Ended> {
        self.batches.send(batch).await.map_err(|_| Ended::Unwanted)
    }
}

/// A resource version as a number, comparable within one cluster; 0 where it is none.
fn number(version: &str) -> u64 {
    version.parse().unwrap_or(0)
}

pub(super) fn succeeded(state: &mut WatchState) {
    state.watch.last_success = Some(Timestamp::now());
    state.heard = Some(Instant::now());
    state.watch.error = None;
}

/// Servers before streamed lists, or with them switched off, call the request invalid.
fn no_streams(ended: Ended) -> Ended {
    match ended {
        Ended::Failed(error) if ApiError::Invalid.is(&error) => Ended::NoStreams,
        other => other,
    }
}

async fn within<T>(answer: impl Future<Output = kube::Result<T>>) -> Result<T, Ended> {
    Ok(tokio::time::timeout(ANSWER, answer).await.map_err(|_| Ended::Silent)??)
}
