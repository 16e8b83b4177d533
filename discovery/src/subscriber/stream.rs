//! Runs a subscriber: restores what was kept, then one stream after another.
//!
//! A response is answered after the role answered the update made of it, so that an acknowledged listener is one that
//! listens. One update of a kind is with the role at a time; a server that sends another one meanwhile is not read from
//! until then.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    SubscriberConfig, SubscriberStatus,
    backoff::Backoff,
    connect::{AcceptedControllers, ConnectError, Connector, OpenStream},
    disk::{Disk, Saving},
    state::{Received, State},
    witness::Witnesses,
};
use crate::{
    Connect, Progress, node,
    update::{Ack, Demand, Rejected, Role, Update},
    xds::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};
use maesh_config::{Kind, Resource};

/// Demands taken up together.
const DEMANDS: usize = 4096;
/// Resources of one update made of the state file.
const RESTORED: usize = 4096;
/// The share of time that may go into writing the state file: one part in this many.
const SAVING: u32 = 20;

pub(super) struct Runner {
    config: SubscriberConfig,
    updates: mpsc::Sender<Update>,
    demands: mpsc::UnboundedReceiver<Demand>,
    ready: watch::Receiver<bool>,
    up: watch::Sender<bool>,
    status: Arc<SubscriberStatus>,
    state: State,
    saver: Option<Saver>,
    /// A proxy's streams to the other replicas.
    witnesses: Option<Witnesses>,
    /// The furthest that any controller was.
    reached: u64,
    behind_since: Option<Instant>,
    /// Since when controllers refuse because their view of the cluster is old.
    stale_since: Option<Instant>,
}

/// Keeps the state file up with the state, in the background: nobody waits for a disk.
struct Saver {
    disk: Disk,
    /// Shortest pause between two writes.
    pause: Duration,
    /// When the state is to be saved; `None` when it is as it was saved.
    due: Option<Instant>,
    /// A write that is under way, and when it began.
    saving: Option<(Saving, Instant)>,
    /// The next write begins no sooner.
    not_before: Instant,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the role has ended")]
    Role,
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Status(#[from] Box<tonic::Status>),
    #[error("the controller ended the stream")]
    Closed,
    #[error("{replica} has seen the cluster up to {its} only, and {ours} was seen before; keeping what is there")]
    Behind { replica: Arc<str>, its: u64, ours: u64 },
}

type Answered = BoxFuture<'static, (Received, Vec<Rejected>)>;

/// What is going on on one stream.
struct ClientStream {
    open: OpenStream,
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    with_role: FuturesUnordered<Answered>,
    busy: HashSet<Kind>,
    /// A response of a kind of which one is still with the role.
    held_back: Option<Received>,
    heard: bool,
}

impl Runner {
    pub(super) fn new(
        config: SubscriberConfig,
        updates: mpsc::Sender<Update>,
        demands: mpsc::UnboundedReceiver<Demand>,
        ready: watch::Receiver<bool>,
        up: watch::Sender<bool>,
        status: Arc<SubscriberStatus>,
    ) -> Self {
        let state = State::new(&config.wildcard, &config.on_demand, config.state.is_some());
        let saver = config.state.clone().map(|path| Saver {
            disk: Disk::new(path),
            pause: config.timing.save,
            due: None,
            saving: None,
            not_before: Instant::now(),
        });
        let elsewhere = config.identity.role == Role::Proxy && matches!(config.connect, Connect::Tcp { .. });
        let witnesses = elsewhere.then(|| Witnesses::start(&config));
        Self {
            config,
            updates,
            demands,
            ready,
            up,
            status,
            state,
            saver,
            witnesses,
            reached: 0,
            behind_since: None,
            stale_since: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut connector = Connector::default();
        let timing = &self.config.timing;
        let mut backoff = Backoff::new(timing.backoff_first, timing.backoff_last);
        let mut ended = self.restore().await;
        while ended.is_ok() {
            let (error, heard) = self.stream(&mut connector).await;
            self.up.send_replace(false);
            if matches!(error, Ended::Role) {
                break;
            }
            self.status.failures.fetch_add(1, Ordering::Relaxed);
            *self.status.last_error.lock() = Some(error.to_string().into());
            match &error {
                Ended::Connect(error) if error.is_stale() => {
                    self.stale_since.get_or_insert_with(Instant::now);
                }
                _ if heard => self.stale_since = None,
                _ => {}
            }
            if heard && !matches!(error, Ended::Behind { .. }) {
                backoff.reset();
                connector.forget_failures();
            }
            let pause = backoff.pause(&mut rand::rng());
            tracing::info!(%error, ?pause, "no discovery stream; serving what is there and trying again");
            ended = self.idle(Instant::now() + pause).await;
        }
        if let Some(saver) = &mut self.saver {
            saver.finish(&mut self.state, self.reached, &self.status).await;
        }
    }

    /// Delivers what was kept on disk, and forgets what the role does not accept of it.
    async fn restore(&mut self) -> Result<(), Ended> {
        let Some(saver) = &self.saver else { return Ok(()) };
        let state = &mut self.state;
        self.reached = saver.disk.load(state).await;
        let mut answers = Vec::new();
        for held in &mut state.kinds {
            let kind = held.kind;
            let mut upserts = held.read_all();
            let mut removed: Vec<_> = held.absent.iter().cloned().collect();
            if upserts.is_empty() && removed.is_empty() && !held.complete {
                continue;
            }
            if let Some(witnesses) = &self.witnesses {
                tell_replicas(witnesses, &upserts);
            }
            loop {
                let rest = upserts.split_off(upserts.len().min(RESTORED));
                let complete = rest.is_empty() && held.complete;
                let (ack, answer) = Ack::new();
                let update = Update { kind, upserts, removed: std::mem::take(&mut removed), complete, ack };
                self.updates.send(update).await.map_err(|_| Ended::Role)?;
                answers.push((kind, answer));
                upserts = rest;
                if upserts.is_empty() {
                    break;
                }
            }
        }
        for (kind, answer) in answers {
            for rejected in answer.await.unwrap_or_default() {
                if let Some(held) = state.held(kind) {
                    held.forget(&rejected.name);
                }
            }
        }
        if let (Some(witnesses), Some(listeners)) = (&self.witnesses, state.held(Kind::Listener)) {
            witnesses.listeners(listeners.resources.keys().map(|id| (id.clone(), Ok(()))), &[]);
        }
        self.status.resources.store(state.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Waits, keeping up with what the role asks for and with the state file.
    async fn idle(&mut self, until: Instant) -> Result<(), Ended> {
        let mut demands = Vec::new();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Ok(()),
                () = self.updates.closed() => return Err(Ended::Role),
                count = self.demands.recv_many(&mut demands, DEMANDS), if !self.demands.is_closed() => {
                    if count > 0 {
                        self.state.demand(demands.drain(..), false);
                        self.changed();
                    }
                }
                () = keep(&mut self.saver, &mut self.state, self.reached, &self.status) => {}
            }
        }
    }

    /// One stream, from connecting to its end. Whether anything was heard on it.
    async fn stream(&mut self, connector: &mut Connector) -> (Ended, bool) {
        let (requests, outgoing) = mpsc::unbounded_channel();
        let mut opening = self.state.open();
        self.ready.mark_unchanged();
        if let Some(witnesses) = &self.witnesses {
            witnesses.ready(*self.ready.borrow());
        }
        if let Some(first) = opening.first_mut() {
            first.node = Some(node::node(&self.config.identity, *self.ready.borrow()));
        }
        for request in opening {
            // The receiver is in this function.
            let _ = requests.send(request);
        }
        let open = tokio::select! {
            open = connector.open(&self.config, outgoing, self.take()) => open,
            () = self.updates.closed() => return (Ended::Role, false),
        };
        let open = match open {
            Ok(open) => open,
            Err(error) => return (error.into(), false),
        };
        self.up.send_replace(true);
        self.status.connects.fetch_add(1, Ordering::Relaxed);
        let mut stream = ClientStream {
            open,
            requests,
            with_role: FuturesUnordered::new(),
            busy: HashSet::new(),
            held_back: None,
            heard: false,
        };
        let Err(ended) = self.follow(&mut stream).await;
        // What is with the role is put in force whether or not there is anybody left to tell.
        while let Some((received, rejected)) = stream.with_role.next().await {
            self.commit(received, rejected);
        }
        (ended, stream.heard)
    }

    async fn follow(&mut self, stream: &mut ClientStream) -> Result<std::convert::Infallible, Ended> {
        let mut demands = Vec::new();
        loop {
            tokio::select! {
                () = self.updates.closed() => return Err(Ended::Role),
                response = stream.open.responses.message(), if stream.held_back.is_none() => {
                    let response = response.map_err(Box::new)?.ok_or(Ended::Closed)?;
                    self.receive(stream, response).await?;
                }
                Some((received, rejected)) = stream.with_role.next() => {
                    self.answered(stream, received, rejected).await?;
                }
                count = self.demands.recv_many(&mut demands, DEMANDS), if !self.demands.is_closed() => {
                    if count > 0 {
                        let requests = self.state.demand(demands.drain(..), true);
                        self.changed();
                        for request in requests {
                            stream.say(request)?;
                        }
                    }
                }
                Ok(()) = self.ready.changed() => {
                    let ready = *self.ready.borrow_and_update();
                    // What the role put in force before it said so is told before.
                    while let Some(Some((received, rejected))) = stream.with_role.next().now_or_never() {
                        self.answered(stream, received, rejected).await?;
                    }
                    if let Some(witnesses) = &self.witnesses {
                        witnesses.ready(ready);
                    }
                    if let Some(type_url) = self.state.any_open() {
                        stream.say(DeltaDiscoveryRequest {
                            node: Some(node::node(&self.config.identity, ready)),
                            type_url: type_url.to_owned(),
                            ..Default::default()
                        })?;
                    }
                }
                () = keep(&mut self.saver, &mut self.state, self.reached, &self.status) => {}
            }
        }
    }

    async fn answered(
        &mut self,
        stream: &mut ClientStream,
        received: Received,
        rejected: Vec<Rejected>,
    ) -> Result<(), Ended> {
        stream.busy.remove(&received.kind);
        let answer = self.commit(received, rejected);
        stream.say(answer)?;
        match stream.held_back.take() {
            Some(received) => self.give(stream, received).await,
            None => Ok(()),
        }
    }

    async fn receive(&mut self, stream: &mut ClientStream, response: DeltaDiscoveryResponse) -> Result<(), Ended> {
        let progress = response.control_plane.as_ref().map(|it| Progress::read(&it.identifier)).unwrap_or_default();
        self.check_progress(progress, !stream.heard)?;
        stream.heard = true;
        self.status.updates.fetch_add(1, Ordering::Relaxed);
        let Some(received) = self.state.receive(response) else { return Ok(()) };
        if stream.busy.contains(&received.kind) {
            stream.held_back = Some(received);
            return Ok(());
        }
        self.give(stream, received).await
    }

    /// Which controllers to take now. Where one refuses because its view of the cluster is old, another may know more;
    /// where all do for long, what they have is better than nothing.
    fn take(&self) -> AcceptedControllers {
        let long = self.stale_since.is_some_and(|since| since.elapsed() >= self.config.timing.behind);
        if long { AcceptedControllers::Any } else { AcceptedControllers::Fresh }
    }

    /// Whether to go along with a controller that is so far.
    fn check_progress(&mut self, progress: Progress, first: bool) -> Result<(), Ended> {
        if progress.reached == 0 {
            return Ok(());
        }
        if progress.reached >= self.reached || !first {
            self.behind_since = None;
            self.reached = if first { progress.reached } else { self.reached.max(progress.reached) };
            return Ok(());
        }
        let since = *self.behind_since.get_or_insert_with(Instant::now);
        if since.elapsed() < self.config.timing.behind {
            return Err(Ended::Behind { replica: progress.replica, its: progress.reached, ours: self.reached });
        }
        self.behind_since = None;
        self.reached = progress.reached;
        Ok(())
    }

    async fn give(&mut self, stream: &mut ClientStream, mut received: Received) -> Result<(), Ended> {
        let (ack, answer) = Ack::new();
        if let Some(witnesses) = &self.witnesses {
            tell_replicas(witnesses, &received.upserts);
        }
        let update = Update {
            kind: received.kind,
            upserts: std::mem::take(&mut received.upserts),
            removed: received.removed.clone(),
            complete: received.complete,
            ack,
        };
        stream.busy.insert(update.kind);
        stream.with_role.push(async move { (received, answer.await.unwrap_or_default()) }.boxed());
        self.updates.send(update).await.map_err(|_| Ended::Role)
    }

    fn commit(&mut self, received: Received, rejected: Vec<Rejected>) -> DeltaDiscoveryRequest {
        if let Some(witnesses) = self.witnesses.as_ref().filter(|_| received.kind == Kind::Listener) {
            witnesses.listeners(received.verdicts(&rejected), &received.removed);
        }
        let (answer, rejected) = self.state.commit(received, rejected);
        self.status.rejected.fetch_add(rejected as u64, Ordering::Relaxed);
        self.status.resources.store(self.state.len() as u64, Ordering::Relaxed);
        self.changed();
        answer
    }

    fn changed(&mut self) {
        if let Some(saver) = &mut self.saver {
            saver.due.get_or_insert_with(|| Instant::now() + saver.pause);
        }
    }
}

impl Saver {
    /// Does what is due next: awaits the write that is under way, or the time for one. Nothing is lost when this is
    /// dropped halfway.
    async fn step(&mut self, state: &mut State, reached: u64, status: &SubscriberStatus) {
        if let Some((saving, began)) = &mut self.saving {
            let saved = self.disk.saved(saving).await;
            status.saves.fetch_add(u64::from(saved), Ordering::Relaxed);
            self.not_before = Instant::now() + began.elapsed() * SAVING;
            self.saving = None;
        } else if let Some(due) = self.due {
            tokio::time::sleep_until(due.max(self.not_before)).await;
            self.due = None;
            self.saving = Some((self.disk.save(state, reached), Instant::now()));
        } else {
            std::future::pending::<()>().await;
        }
    }

    /// Writes what is not written yet, at once.
    async fn finish(&mut self, state: &mut State, reached: u64, status: &SubscriberStatus) {
        if self.saving.is_some() {
            self.step(state, reached, status).await;
        }
        if self.due.is_some() {
            self.due = Some(Instant::now());
            self.not_before = Instant::now();
            self.step(state, reached, status).await;
            self.step(state, reached, status).await;
        }
    }
}

/// Hands on which replicas there are, where `upserts` says it.
fn tell_replicas(witnesses: &Witnesses, upserts: &[Arc<Resource>]) {
    for resource in upserts {
        if let Resource::Mesh(mesh) = &**resource {
            witnesses.replicas(mesh.controllers.iter().copied().collect());
        }
    }
}

/// [`Saver::step`], if there is one.
async fn keep(saver: &mut Option<Saver>, state: &mut State, reached: u64, status: &SubscriberStatus) {
    match saver {
        Some(saver) => saver.step(state, reached, status).await,
        None => std::future::pending().await,
    }
}

impl ClientStream {
    fn say(&self, request: DeltaDiscoveryRequest) -> Result<(), Ended> {
        self.requests.send(request).map_err(|_| Ended::Closed)
    }
}
