//! The Kubernetes API as a source: one watch for each kind, and one for each ConfigMap that a Service names.
//!
//! While the API server is away, nothing changes; once it is back, a watch goes on where it was, or, when the server
//! has forgotten that place, everything is listed again and sent as a whole, so that only differences take effect.
//! How each watch fares can be asked at any time.

mod absent;
mod config_maps;
mod follow;
mod list;
mod object;
mod stale;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kube::Client;
use maesh_compiler::{
    diagnostic::{Diagnostic, ObjectRef, Reason},
    kinds::{ObjectKind, ReadContext, Registration},
};
use maesh_config::ServiceName;
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

pub use self::stale::{Freshness, follow_staleness};
use super::{Batches, Event};
use crate::api::{ApiError, Limits, said};

/// Batches that may wait for the compiler.
const QUEUE: usize = 64;
/// Bad objects of one kind that are named; more are only counted.
const MOST_NAMED: usize = 50;

/// What is watched.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kinds that are watched. One that need not be served may be absent, appear and vanish at any time; nothing
    /// waits for it.
    pub kinds: Vec<&'static Registration>,
    /// Kinds without which nothing is published. Of the others, one that may not be read counts as empty.
    pub required: Vec<ObjectKind>,
    /// The server ends a watch after this long, and it is begun again where it was; a connection that died silently
    /// is noticed a little later.
    pub watch_for: Duration,
    /// A list of a kind that need not be served is followed by another one after this long: the first one may lack what was
    /// written while the API server began to serve the kind.
    pub confirm_after: Duration,
    /// Objects in one answer, where lists are not streamed.
    pub page: u32,
    /// Ask for streamed lists, which are kinder to both sides; where the server has none, pages are used.
    pub stream_lists: bool,
    /// The ConfigMaps that are read, as namespace and name: see [`Controller::forward_config_maps`].
    ///
    /// [`Controller::forward_config_maps`]: crate::serve::Controller::forward_config_maps
    pub config_maps: watch::Receiver<BTreeSet<ServiceName>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kinds: WATCHED.map(ObjectKind::registration).into(),
            required: vec![ObjectKind::Namespace, ObjectKind::Service, ObjectKind::EndpointSlice],
            watch_for: Duration::from_secs(60),
            confirm_after: Duration::from_secs(10),
            page: 500,
            stream_lists: true,
            config_maps: watch::channel(BTreeSet::new()).1,
        }
    }
}

/// How a watch fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchStatus {
    /// Everything was delivered once.
    pub synced: bool,
    /// When the server was last heard.
    pub last_success: Option<Timestamp>,
    /// What is wrong now.
    pub error: Option<Arc<str>>,
    /// How far it is: the newest resource version seen. Comparable between replicas of one cluster.
    pub version: u64,
    /// How often everything was listed.
    pub lists: u64,
    /// Objects that could not be read.
    pub bad_objects: u64,
}

/// The kinds that are watched by default.
const WATCHED: [ObjectKind; 10] = [
    ObjectKind::Namespace,
    ObjectKind::Node,
    ObjectKind::Pod,
    ObjectKind::Service,
    ObjectKind::EndpointSlice,
    ObjectKind::HttpRouteGroup,
    ObjectKind::TrafficSplit,
    ObjectKind::TcpRoute,
    ObjectKind::UdpRoute,
    ObjectKind::TrafficTarget,
];

/// Starts to watch, until the receiver is dropped. Must be called within a runtime. The API server may be away; it is
/// waited for. `door` is the compiler's.
pub fn start(client: &Client, options: &Options, door: &ReadContext) -> (Batches, Watches) {
    let (batches, receiver) = mpsc::channel(QUEUE);
    let watches = Watches::default();
    let mut tasks = JoinSet::new();
    for kind in &options.kinds {
        watches.change(kind.kind, |_| {});
        let follow = follow::Follow::new(kind, client, options, door, watches.clone(), batches.clone());
        tasks.spawn(follow.run());
    }
    let source = config_maps::Source {
        client: client.clone(),
        options: options.clone(),
        door: door.clone(),
        watches: watches.clone(),
        batches: batches.clone(),
    };
    tasks.spawn(config_maps::follow(source, options.config_maps.clone()));
    tokio::spawn(async move {
        // Nothing is needed of them yet. If nobody listens, the next line ends at once.
        let _ = batches.send(vec![Event::Synced(ObjectKind::ServiceAccount)]).await;
        batches.closed().await;
        tasks.shutdown().await;
    });
    (receiver, watches)
}

/// How all watches fare; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Watches(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    states: Mutex<BTreeMap<ObjectKind, WatchState>>,
    /// Held while what is wrong is gathered and sent.
    telling: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct WatchState {
    watch: WatchStatus,
    /// When the server was last heard.
    heard: Option<Instant>,
    problem: Option<Diagnostic>,
    /// Of each object with which something is wrong, what.
    bad: BTreeMap<Arc<str>, BadObject>,
}

/// What is wrong with an object.
#[derive(Debug, PartialEq)]
struct BadObject {
    /// It cannot be read at all.
    left_out: bool,
    found: Vec<Diagnostic>,
}

impl WatchState {
    fn count_bad(&mut self) {
        self.watch.bad_objects = self.bad.values().filter(|wrong| wrong.left_out).count() as u64;
    }

    /// What is wrong with the watch of `kind` and with objects that it brought.
    fn problems(&self, kind: ObjectKind) -> Vec<Diagnostic> {
        let named = self.problem.iter().chain(self.bad.values().take(MOST_NAMED).flat_map(|wrong| &wrong.found));
        let mut all: Vec<_> = named.cloned().collect();
        if let Some(more) = self.bad.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
            let have = if more == 1 { "has" } else { "have" };
            let text =
                format!("{more} more {have} bad values, which are left out. Correct those that are named first.");
            all.push(Diagnostic::error(Reason::InvalidObject, ObjectRef::new(kind.as_str(), "", "*"), text));
        }
        all
    }
}

impl Watches {
    /// How each of them fares now.
    pub fn states(&self) -> BTreeMap<ObjectKind, WatchStatus> {
        self.0.states.lock().iter().map(|(kind, state)| (*kind, state.watch.clone())).collect()
    }

    /// Waits until nobody else tells what is wrong.
    async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.telling.lock().await
    }

    fn change<T>(&self, kind: ObjectKind, change: impl FnOnce(&mut WatchState) -> T) -> T {
        change(self.0.states.lock().entry(kind).or_default())
    }

    /// Nothing of this kind is watched any more. Returns whether it was.
    fn forget(&self, kind: ObjectKind) -> bool {
        self.0.states.lock().remove(&kind).is_some()
    }

    /// Everything that is wrong, of all watches.
    fn problems(&self) -> Event {
        let states = self.0.states.lock();
        Event::Problems(states.iter().flat_map(|(kind, state)| state.problems(*kind)).collect())
    }
}

/// What is wrong with the watch of a kind, and what to do.
fn problem(kind: &Registration, required: bool, error: &kube::Error) -> Diagnostic {
    let plural = kind.plural;
    let then = if required { "nothing new takes effect until then" } else { "the mesh goes on without them" };
    let text = said(error);
    let text = match ApiError::of(error) {
        ApiError::Stranger => format!(
            "cannot be watched: the API server does not know us ({text}); {then}. Check the token or kubeconfig."
        ),
        ApiError::Forbidden => format!(
            "cannot be watched: {text}; {then}. Allow verbs list and watch on {plural}{} to the controller's \
             ServiceAccount.",
            match kind.group {
                "" => String::new(),
                group => format!(" of {group}"),
            }
        ),
        ApiError::Missing => {
            format!("cannot be watched: the API server has no {plural}; {then}. Use Kubernetes 1.33 or newer.")
        }
        _ => format!("cannot be watched: {text}; what was seen last stays in force until the API server answers."),
    };
    Diagnostic::warning(Reason::WatchFailed, ObjectRef::new(kind.name, "", "*"), text)
}

/// Connects to the cluster that a kubeconfig names, or to the one whose pod this is.
///
/// # Errors
/// When the file cannot be read or names nothing usable; never by the state of the API server.
pub async fn client(kubeconfig: Option<&std::path::Path>, context: Option<&str>) -> Result<Client, ClientError> {
    let config = match kubeconfig {
        Some(path) => {
            let read = kube::config::Kubeconfig::read_from(path);
            let file = read.map_err(|error| ClientError::Kubeconfig(path.display().to_string(), Arc::new(error)))?;
            let options = kube::config::KubeConfigOptions { context: context.map(str::to_owned), ..Default::default() };
            let config = kube::Config::from_custom_kubeconfig(file, &options).await;
            config.map_err(|error| ClientError::Kubeconfig(path.display().to_string(), Arc::new(error)))?
        }
        None => kube::Config::incluster().map_err(|error| ClientError::NotInCluster(Arc::new(error)))?,
    };
    crate::api::client(config, Limits::default()).map_err(|error| ClientError::Client(Arc::new(error)))
}

/// Why there is no way to the cluster.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig is of no use.
    #[error("kubeconfig {0}: {1}; give another with --kubeconfig, or a context in it with --context")]
    Kubeconfig(String, Arc<kube::config::KubeconfigError>),
    /// There is no ServiceAccount of a pod.
    #[error("this is no pod with a ServiceAccount ({0}); outside of a cluster, name one with --kubeconfig FILE")]
    NotInCluster(Arc<kube::config::InClusterError>),
    /// The client cannot be made: a bad certificate, for instance.
    #[error("client of the Kubernetes API: {0}")]
    Client(Arc<kube::Error>),
}
