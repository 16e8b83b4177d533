//! The Kubernetes API as a source.
//!
//! One watch a kind, each on its own: a kind that may not be watched does not hold back the others. A watch that has
//! to begin anew (after the API server was away for long, or dropped its history) delivers everything as one
//! [`Event::Reset`], from which the index takes the difference, so nothing is forgotten in between. What cannot be
//! read is told and skipped; its last good form stays until the object is listed anew.

mod raw;
mod status;

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api, Client,
    api::{ApiResource, GroupVersionKind},
    runtime::{
        WatchStreamExt as _,
        utils::Backoff,
        watcher::{self, watcher},
    },
};
use raw::Raw;
pub use status::{WatchState, Watches};
use tokio::{sync::mpsc, task::JoinSet};

use super::{Batches, Event};
use crate::kinds::{Door, Object, ObjectKind};

/// The kinds that are watched.
pub const WATCHED: [ObjectKind; 5] =
    [ObjectKind::Namespace, ObjectKind::Node, ObjectKind::Pod, ObjectKind::Service, ObjectKind::EndpointSlice];

/// Batches that the compiler did not take yet.
const BATCHES: usize = 256;
/// Objects in one page, where lists are not streamed.
const PAGE: u32 = 500;
/// First pause before another try, and the longest: an API server that is back is noticed within that.
const BACKOFF: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(3)];
/// The first minor version of Kubernetes 1 whose API streams lists without anybody's asking for the feature.
const STREAMS_LISTS: u32 = 34;

/// Starts to watch. Must be called within a runtime; it ends when the receiver is dropped.
///
/// `door` is the compiler's. Objects of pods that have ended are not even asked for.
///
/// # Errors
/// Never by the state of the API server: it may be away, and is waited for.
pub fn start(client: Client, door: Door) -> (Batches, Watches) {
    let (sender, batches) = mpsc::channel(BATCHES);
    let watches = Watches::new(&WATCHED);
    tokio::spawn(run(client, door, sender, watches.clone()));
    (batches, watches)
}

async fn run(client: Client, door: Door, sender: mpsc::Sender<super::Batch>, watches: Watches) {
    let streams = streams_lists(&client).await;
    let mut kinds = JoinSet::new();
    for kind in WATCHED {
        let watch = Watch { kind, door: door.clone(), sender: sender.clone(), watches: watches.clone() };
        kinds.spawn(watch.run(client.clone(), streams));
    }
    // Nothing reads ServiceAccounts from here yet; that there are none to wait for is known at once.
    let _ = sender.send(vec![Event::Synced(ObjectKind::ServiceAccount)]).await;
    sender.closed().await;
    kinds.shutdown().await;
}

/// Whether this API server streams lists; an old or silent one is listed in pages.
async fn streams_lists(client: &Client) -> bool {
    let Ok(version) = client.apiserver_version().await else { return false };
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().unwrap_or(0);
    (number(&version.major), number(&version.minor)) >= (1, STREAMS_LISTS)
}

/// The watch of one kind.
struct Watch {
    kind: ObjectKind,
    door: Door,
    sender: mpsc::Sender<super::Batch>,
    watches: Watches,
}

impl Watch {
    async fn run(self, client: Client, streams: bool) {
        let resource = resource(self.kind);
        let api: Api<Raw> = Api::all_with(client, &resource);
        let config = selection(self.kind, watcher::Config::default());
        let config = if streams { config.streaming_lists() } else { config.page_size(PAGE) };
        let events = watcher(api, config).backoff(Pauses::default()).into_stream();
        let mut events = std::pin::pin!(events);
        let mut listed = Vec::new();
        while let Some(event) = events.next().await {
            let batch = match event {
                Ok(event) => self.read(event, &mut listed),
                Err(error) => self.failed(&error),
            };
            if !batch.is_empty() && self.sender.send(batch).await.is_err() {
                return;
            }
        }
    }

    fn read(&self, event: watcher::Event<Raw>, listed: &mut Vec<Object>) -> super::Batch {
        let mut batch = match event {
            watcher::Event::Init => {
                listed.clear();
                Vec::new()
            }
            watcher::Event::InitApply(raw) => {
                listed.extend(self.object(&raw));
                Vec::new()
            }
            watcher::Event::InitDone => {
                self.watches.synced(self.kind);
                vec![Event::Reset(self.kind, std::mem::take(listed)), Event::Synced(self.kind)]
            }
            watcher::Event::Apply(raw) => {
                self.watches.heard(self.kind);
                self.object(&raw).map(Event::Apply).into_iter().collect()
            }
            watcher::Event::Delete(raw) => {
                self.watches.heard(self.kind);
                let id = raw.id(self.kind);
                self.watches.good(&id);
                vec![Event::Delete(id)]
            }
        };
        batch.extend(self.watches.take_problems().map(Event::Problems));
        batch
    }

    fn object(&self, raw: &Raw) -> Option<Object> {
        let id = raw.id(self.kind);
        match Object::read(self.kind, &raw.value, &self.door) {
            Ok(object) => {
                self.watches.good(&id);
                Some(object)
            }
            Err(bad) => {
                self.watches.bad(id, &bad);
                None
            }
        }
    }

    fn failed(&self, error: &watcher::Error) -> super::Batch {
        tracing::warn!(kind = %self.kind, error = %chain(error), "watching the Kubernetes API; it is tried again");
        self.watches.failed(self.kind, error);
        self.watches.take_problems().map(Event::Problems).into_iter().collect()
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// What is asked of the API: group, version and plural.
fn resource(kind: ObjectKind) -> ApiResource {
    let plural = format!("{}s", kind.as_str().to_ascii_lowercase());
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(kind.group(), "v1", kind.as_str()), &plural)
}

/// Leaves out on the server's side what would be dropped here.
fn selection(kind: ObjectKind, config: watcher::Config) -> watcher::Config {
    match kind {
        ObjectKind::Pod => config.fields("status.phase!=Succeeded,status.phase!=Failed"),
        ObjectKind::EndpointSlice => config.labels("kubernetes.io/service-name"),
        _ => config,
    }
}

/// Pauses between tries: doubled from the first to the longest, each between half and all of that, so that replicas
/// do not come back all at once.
struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(BACKOFF[0])
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(BACKOFF[1]);
        // The clock's last digits are chance enough to part two replicas.
        let nanos =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
        Some(pause / 2 + pause / 2 * (nanos % 1024) / 1024)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        *self = Self::default();
    }
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
    Client::try_from(config).map_err(|error| ClientError::Client(Arc::new(error)))
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
