//! Drives a source through the compiler, and hands on what comes out.
//!
//! One thread owns the compiler: a large compilation delays no connection. What arrives together is compiled together;
//! nothing is published before everything was delivered once, so nobody ever sees half a configuration.

mod in_force;
mod list;
mod quota;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use maesh_compiler::{
    compile::{
        Compiler, ConnectedProxy, Output, TableEntry,
        explain::{self, Explanation, Question},
        matrix::AccessMatrix,
        routes::RouteList,
    },
    diagnostic::Diagnostic,
    event::Event,
    kinds::ObjectKind,
    own_address::AddressRequests,
};
use maesh_config::{Change, ServiceName, model::Protocol};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot, watch};

use self::{in_force::InForce, quota::Quota};
pub use self::{
    in_force::{PortCounts, Switches},
    list::{ListPart, Selection},
};
use crate::source::{Batch, Batches};

/// How long changes that keep coming are collected before they are compiled.
const COLLECT: Duration = Duration::from_millis(5);
/// Names among which the one that was meant is looked for.
const MOST_ALIKE: usize = 1000;
/// Services of one part of the answer to who may call whom: some milliseconds of the compiler's time.
const MOST_IN_MATRIX: usize = 100;
/// Services of one part of a list of routes, likewise.
const MOST_ROUTED: usize = 100;
/// Services of one part of the list of Services.
const MOST_LISTED: usize = 500;
/// Inputs that may wait for the compiler.
const QUEUE: usize = 64;

/// Takes in what was compiled.
pub trait Sink: Send + 'static {
    /// Puts a change in force. Returns the revision that has it.
    fn apply(&mut self, change: &Change) -> u64;

    /// With what was applied, everything that the cluster did up to this resource version is in force.
    fn reached(&mut self, _version: u64) {}

    /// Everything has been applied at least once, but for proxies that may be on their way back and names that wait
    /// for them.
    fn configured(&mut self);

    /// Everything has been applied at least once, and proxies had the time to come back.
    fn complete(&mut self);
}

/// What was just published, for those who tell people of it.
#[derive(Clone, Debug)]
pub struct Published {
    /// The sink's revision that has the change.
    pub revision: u64,
    /// What changed. Its `change` is empty: the sink has it.
    pub output: Output,
}

/// Everything a controller can be asked about.
#[derive(Debug)]
pub struct State {
    table: RwLock<BTreeMap<ServiceName, TableEntry>>,
    diagnostics: RwLock<BTreeSet<Diagnostic>>,
    in_force: RwLock<InForce>,
    counts: RwLock<Counts>,
    synced: watch::Sender<bool>,
}

/// Numbers for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Objects known, by kind.
    pub objects: BTreeMap<ObjectKind, usize>,
    /// Compilations so far.
    pub compilations: u64,
    /// Time they took in all.
    pub compiling: Duration,
    /// Time the last one took.
    pub last_compilation: Duration,
    /// How often something was published, or is just about to be: who has received as many knows what the table says.
    pub published: u64,
    /// Resources that changed so far.
    pub changed_resources: u64,
    /// The sink's revision that has the last change.
    pub revision: u64,
    /// When that was.
    pub changed_at: Option<Instant>,
    /// Proxies that are connected.
    pub connected_proxies: usize,
    /// Those of them that take new work.
    pub ready_proxies: usize,
}

impl State {
    /// Every Service in the mesh, by name.
    pub fn table(&self) -> Vec<TableEntry> {
        self.table.read().values().cloned().collect()
    }

    /// A part of the list of Services in the mesh.
    pub fn services(&self, selection: &Selection) -> ListPart<TableEntry> {
        let table = self.table.read();
        let ListPart { items, next } = selection.of(table.range(selection.bounds()).map(|(name, _)| name), MOST_LISTED);
        ListPart { items: items.iter().filter_map(|name| table.get(name).cloned()).collect(), next }
    }

    /// How many Services are in the mesh.
    pub fn count_services(&self) -> usize {
        self.table.read().len()
    }

    /// How many endpoints a port of a Service has; `None` where nothing was said of it yet.
    pub fn endpoints(&self, service: &ServiceName, port: u16, protocol: Protocol) -> Option<PortCounts> {
        self.in_force.read().endpoints(service, port, protocol)
    }

    /// The switches of the whole mesh; `None` before the first configuration.
    pub fn switches(&self) -> Option<Switches> {
        self.in_force.read().switches
    }

    /// Says that there is no Service `name`, and which was probably meant. Takes long, and holds nobody up.
    fn unknown(&self, name: &ServiceName) -> String {
        let (here, elsewhere) = {
            let table = self.table.read();
            let from = ServiceName::new(name.namespace.clone(), "");
            let here = table.range(from..).map(|(name, _)| name).take_while(|other| other.namespace == name.namespace);
            let here: Vec<_> = here.map(|other| other.name.clone()).take(MOST_ALIKE).collect();
            (here, table.keys().find(|other| other.name == name.name).cloned())
        };
        explain::unknown(name, &here, elsewhere.as_ref())
    }

    /// Everything that is wrong now.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        self.diagnostics.read().iter().cloned().collect()
    }

    /// Numbers.
    pub fn counts(&self) -> Counts {
        self.counts.read().clone()
    }

    /// Whether a complete configuration has been published.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }
}

/// A running controller. It ends when it is dropped, or when its source does.
#[derive(Debug)]
pub struct Controller {
    state: Arc<State>,
    inputs: mpsc::Sender<Input>,
    wants: watch::Receiver<Option<AddressRequests>>,
    config_maps: watch::Receiver<BTreeSet<ServiceName>>,
    quota: Arc<Mutex<Quota>>,
}

#[derive(Debug)]
enum Input {
    Source(Batch),
    Proxies(Vec<ConnectedProxy>),
    Settled,
    Bypass(bool),
    Asked(Asked),
    /// Time alone changes something.
    Due,
    Stop,
}

/// A question and where the answer goes.
#[derive(Debug)]
enum Asked {
    Explain(Question, oneshot::Sender<Explanation>),
    Access(Vec<ServiceName>, oneshot::Sender<AccessMatrix>),
    Routes(Vec<ServiceName>, oneshot::Sender<RouteList>),
}

/// Asks a controller what it knows; clones ask the same one.
#[derive(Clone, Debug)]
pub struct Asker {
    inputs: mpsc::Sender<Input>,
    state: Arc<State>,
    quota: Arc<Mutex<Quota>>,
}

/// Why a question is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// Others wait for the compiler, too.
    #[error("too many questions were asked; ask again in a second")]
    TooMany,
    /// The controller has ended.
    #[error("the controller is ending")]
    Ended,
}

impl Asker {
    /// What is known of a Service and a caller. `by` is who asks: nobody may keep the compiler from compiling.
    ///
    /// # Errors
    /// If too much was asked, or the controller has ended.
    pub async fn explain(&self, question: Question, by: IpAddr) -> Result<Explanation, Unanswered> {
        if !self.quota.lock().take(by, Instant::now()) {
            return Err(Unanswered::TooMany);
        }
        let (answer, answered) = oneshot::channel();
        self.inputs.send(Input::Asked(Asked::Explain(question, answer))).await.map_err(|_| Unanswered::Ended)?;
        let mut explanation = answered.await.map_err(|_| Unanswered::Ended)?;
        if let Some(name) = explanation.unknown.clone() {
            let state = self.state.clone();
            let meant = tokio::task::spawn_blocking(move || state.unknown(&name)).await;
            explanation.not_meshed = meant.ok().or(explanation.not_meshed);
        }
        Ok(explanation)
    }

    /// Who may reach the endpoints of Services, in order of their names, from the first one behind `after` on; of one
    /// namespace, if that is given. `by` is who asks.
    ///
    /// # Errors
    /// If too much was asked, or the controller has ended.
    pub async fn access(
        &self,
        namespace: Option<&str>,
        after: Option<&ServiceName>,
        by: IpAddr,
    ) -> Result<AccessMatrix, Unanswered> {
        if !self.quota.lock().take(by, Instant::now()) {
            return Err(Unanswered::TooMany);
        }
        let selection = Selection { namespace: namespace.map(str::to_owned), name: None, after: after.cloned() };
        let part = {
            let table = self.state.table.read();
            selection.of(table.range(selection.bounds()).map(|(name, _)| name), MOST_IN_MATRIX)
        };
        let (answer, answered) = oneshot::channel();
        self.inputs.send(Input::Asked(Asked::Access(part.items, answer))).await.map_err(|_| Unanswered::Ended)?;
        let matrix = answered.await.map_err(|_| Unanswered::Ended)?;
        Ok(AccessMatrix { next: part.next.as_ref().map(ToString::to_string), ..matrix })
    }

    /// A part of the list of routes. `by` is who asks.
    ///
    /// # Errors
    /// If too much was asked, or the controller has ended.
    pub async fn routes(&self, selection: &Selection, by: IpAddr) -> Result<RouteList, Unanswered> {
        if !self.quota.lock().take(by, Instant::now()) {
            return Err(Unanswered::TooMany);
        }
        let part = {
            let in_force = self.state.in_force.read();
            selection.of(in_force.routed.range(selection.bounds()), MOST_ROUTED)
        };
        let (answer, answered) = oneshot::channel();
        self.inputs.send(Input::Asked(Asked::Routes(part.items, answer))).await.map_err(|_| Unanswered::Ended)?;
        let list = answered.await.map_err(|_| Unanswered::Ended)?;
        // Where a part became too large, it ends earlier.
        let next = list.next.or_else(|| part.next.as_ref().map(ToString::to_string));
        Ok(RouteList { next, ..list })
    }
}

impl Controller {
    /// Compiles what `source` delivers and hands it to `sink`. That a proxy is not there is told only once `settle` has
    /// passed since the first complete configuration, so that those which were there before a restart had the time to
    /// come back. The receiver gets everything that is published, in order; whoever does not want it drops it.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(
        compiler: Compiler,
        mut source: Batches,
        mut proxies: watch::Receiver<Vec<ConnectedProxy>>,
        settle: Duration,
        sink: impl Sink,
    ) -> std::io::Result<(Self, mpsc::UnboundedReceiver<Published>)> {
        let (inputs, queue) = mpsc::channel(QUEUE);
        let (publish, published) = mpsc::unbounded_channel();
        let state = Arc::new(State {
            table: RwLock::default(),
            diagnostics: RwLock::default(),
            in_force: RwLock::default(),
            counts: RwLock::default(),
            synced: watch::Sender::new(false),
        });
        let (due, time) = watch::channel(None);
        let (want, wants) = watch::channel(None);
        let (want_config_maps, config_maps) = watch::channel(BTreeSet::new());
        let run = Run {
            compiler,
            sink,
            state: state.clone(),
            publish,
            due,
            wants: want,
            config_maps: want_config_maps,
            reached: BTreeMap::new(),
            complete: false,
            told: false,
            news: false,
            asked: Vec::new(),
        };
        std::thread::Builder::new().name("compiler".into()).spawn(move || run.run(queue))?;

        let forward = inputs.clone();
        tokio::spawn(async move {
            while let Some(batch) = source.recv().await {
                if forward.send(Input::Source(batch)).await.is_err() {
                    return;
                }
            }
            let _ = forward.send(Input::Stop).await;
        });
        let forward = inputs.clone();
        tokio::spawn(async move {
            loop {
                let now = proxies.borrow_and_update().clone();
                if forward.send(Input::Proxies(now)).await.is_err() || proxies.changed().await.is_err() {
                    return;
                }
            }
        });
        let forward = inputs.clone();
        let mut synced = state.synced();
        tokio::spawn(async move {
            if synced.wait_for(|synced| *synced).await.is_ok() {
                tokio::time::sleep(settle).await;
                let _ = forward.send(Input::Settled).await;
            }
        });
        tokio::spawn(wake(time, inputs.clone()));
        Ok((Self { state, inputs, wants, config_maps, quota: Arc::default() }, published))
    }

    /// What is needed of own addresses, where they are Services of a cluster; `None` until everything was read once.
    pub fn wants(&self) -> watch::Receiver<Option<AddressRequests>> {
        self.wants.clone()
    }

    /// Tells `to` which ConfigMaps Services name, as namespace and name, for as long as the controller runs.
    pub fn forward_config_maps(&self, to: watch::Sender<BTreeSet<ServiceName>>) {
        let mut from = self.config_maps.clone();
        tokio::spawn(async move {
            loop {
                to.send_replace(from.borrow_and_update().clone());
                if from.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// What it knows.
    pub fn state(&self) -> Arc<State> {
        self.state.clone()
    }

    /// Follows the global switch for as long as the controller runs and `bypass` is open: while it is on, or `always` is,
    /// every name answers the plain addresses.
    pub fn follow_bypass(&self, mut bypass: watch::Receiver<bool>, always: bool) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            loop {
                let now = always || *bypass.borrow_and_update();
                if inputs.send(Input::Bypass(now)).await.is_err() || bypass.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Asks it about single Services and callers.
    pub fn asker(&self) -> Asker {
        Asker { inputs: self.inputs.clone(), state: self.state.clone(), quota: self.quota.clone() }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // With a full queue it stops when the source does.
        let _ = self.inputs.try_send(Input::Stop);
    }
}

/// Says when it is time to compile although nothing happened.
async fn wake(mut due: watch::Receiver<Option<Instant>>, inputs: mpsc::Sender<Input>) {
    loop {
        let at = *due.borrow_and_update();
        let elapsed = async {
            match at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = due.changed() => if changed.is_err() { return },
            () = elapsed => {
                if inputs.send(Input::Due).await.is_err() || due.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The thread that owns the compiler.
struct Run<S> {
    compiler: Compiler,
    sink: S,
    state: Arc<State>,
    publish: mpsc::UnboundedSender<Published>,
    due: watch::Sender<Option<Instant>>,
    wants: watch::Sender<Option<AddressRequests>>,
    /// What Services name, for the source.
    config_maps: watch::Sender<BTreeSet<ServiceName>>,
    /// How far the source is with each kind.
    reached: BTreeMap<ObjectKind, u64>,
    complete: bool,
    told: bool,
    /// Something came that may have to be compiled.
    news: bool,
    /// Questions that wait for what came before them.
    asked: Vec<Asked>,
}

impl<S: Sink> Run<S> {
    fn run(mut self, mut queue: mpsc::Receiver<Input>) {
        while let Some(first) = queue.blocking_recv() {
            let started = Instant::now();
            if !self.take(first) {
                return;
            }
            while let Ok(next) = queue.try_recv() {
                if !self.take(next) {
                    return;
                }
                // Before the first configuration there is nothing to hurry for.
                if self.complete && started.elapsed() > COLLECT {
                    break;
                }
            }
            self.tell_config_maps();
            let ripe = self.complete || ObjectKind::ALL.iter().all(|kind| self.compiler.is_synced(*kind));
            if std::mem::take(&mut self.news) && ripe {
                self.publish();
            }
            for asked in self.asked.drain(..) {
                // Who asked may have gone.
                match asked {
                    Asked::Explain(question, answer) => drop(answer.send(self.compiler.explain(&question))),
                    Asked::Access(services, answer) => drop(answer.send(self.compiler.access(&services))),
                    Asked::Routes(services, answer) => drop(answer.send(self.compiler.routes(&services))),
                }
            }
        }
    }

    fn take(&mut self, input: Input) -> bool {
        self.news |= !matches!(input, Input::Asked(_));
        match input {
            Input::Asked(asked) => self.asked.push(asked),
            Input::Source(batch) => batch.into_iter().for_each(|event| self.take_event(event)),
            Input::Proxies(proxies) => self.compiler.proxies(proxies),
            Input::Settled => self.compiler.complete_proxies(),
            Input::Bypass(bypass) => self.compiler.bypass(bypass),
            Input::Due => {}
            Input::Stop => return false,
        }
        true
    }

    fn take_event(&mut self, event: Event) {
        match event {
            // Of each kind the last one counts, and not the greatest: a cluster may be put back to an older state.
            Event::Reached(kind, version) => {
                self.reached.insert(kind, version);
            }
            event => self.compiler.take(event),
        }
    }

    /// Says which ConfigMaps are to be read. Before anything is compiled: the first configuration waits for them.
    fn tell_config_maps(&mut self) {
        if let Some(wanted) = self.compiler.take_wanted_config_maps() {
            self.config_maps.send_replace(wanted);
        }
    }

    /// Says how far the source was when what is in force now was read.
    fn tell_reached(&mut self) {
        if let Some(reached) = self.reached.values().max().filter(|reached| **reached > 0) {
            self.sink.reached(*reached);
        }
    }

    /// Says once that everything is there, the proxies among it: told earlier, dns would take those that are still on
    /// their way back from a restart of this process for gone.
    fn tell_complete(&mut self) {
        if !self.told && self.compiler.has_complete_proxies() {
            self.told = true;
            self.sink.complete();
        }
    }

    fn publish(&mut self) {
        let started = Instant::now();
        let mut output = self.compiler.compile(started);
        self.due.send_if_modified(|due| std::mem::replace(due, self.compiler.due()) != self.compiler.due());
        if let Some(wants) = output.wants.take() {
            self.wants.send_replace(Some(wants));
        }
        let took = started.elapsed();
        if self.complete && output.is_empty() {
            self.keep(&output, &Change::default(), took);
            self.tell_reached();
            return self.tell_complete();
        }
        let change = std::mem::take(&mut output.change);
        let revision = self.sink.apply(&change);
        self.tell_reached();
        // Before the table has it, so that nobody reads there what is not counted yet.
        self.state.counts.write().published += 1;
        self.keep(&output, &change, took);
        {
            let mut counts = self.state.counts.write();
            (counts.revision, counts.changed_at) = (revision, Some(Instant::now()));
        }
        if !std::mem::replace(&mut self.complete, true) {
            self.sink.configured();
        }
        self.tell_complete();
        // Nobody may want to be told.
        let _ = self.publish.send(Published { revision, output });
        self.state.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
    }

    /// Keeps what can be asked for.
    fn keep(&mut self, output: &Output, change: &Change, took: Duration) {
        if !(output.services.is_empty() && output.removed.is_empty()) {
            let mut table = self.state.table.write();
            for gone in &output.removed {
                table.remove(gone);
            }
            table.extend(output.services.iter().map(|entry| (entry.service.clone(), entry.clone())));
        }
        if !(output.found.is_empty() && output.cleared.is_empty()) {
            let mut diagnostics = self.state.diagnostics.write();
            for cleared in &output.cleared {
                diagnostics.remove(cleared);
            }
            diagnostics.extend(output.found.iter().cloned());
        }
        if !change.is_empty() {
            self.state.in_force.write().apply(change);
        }
        let mut counts = self.state.counts.write();
        counts.objects = ObjectKind::ALL.into_iter().map(|kind| (kind, self.compiler.count(kind))).collect();
        counts.compilations += 1;
        counts.compiling += took;
        counts.last_compilation = took;
        (counts.connected_proxies, counts.ready_proxies) = self.compiler.count_proxies();
        counts.changed_resources += (change.upserts.len() + change.removed.len()) as u64;
    }
}
