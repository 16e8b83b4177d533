//! Tells every replica of the controller how this subscriber is.
//!
//! A proxy gets its configuration from one replica, but each replica answers for all of the mesh: dns that is connected
//! to another one must hear of this proxy too, and of the ports it listens on. So a proxy opens a stream to every
//! replica that the mesh names, on which it says how it is and asks for nothing but the list of replicas itself. What it
//! says is what it acknowledged on its own stream, so that all replicas say the same of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    SubscriberConfig,
    backoff::Backoff,
    connect::{ConnectError, open_at},
};
use crate::{
    Verdict,
    node::{self, Witness},
    xds::DeltaDiscoveryRequest,
};
use maesh_config::Kind;

/// The streams to all replicas; they end when it is dropped.
#[derive(Debug)]
pub(super) struct Witnesses {
    replicas: watch::Sender<BTreeSet<SocketAddr>>,
    said: watch::Sender<ReportedState>,
    _streams: JoinSet<()>,
}

/// What this proxy reports about itself to the other replicas of the controller.
#[derive(Clone, Debug, Default, PartialEq)]
struct ReportedState {
    ready: bool,
    listeners: BTreeMap<Arc<str>, Verdict>,
}

impl Witnesses {
    /// Without any replica to tell. Must be called within a runtime.
    pub(super) fn start(config: &SubscriberConfig) -> Self {
        let (replicas, said) = (watch::Sender::default(), watch::Sender::default());
        let mut streams = JoinSet::new();
        let config = Arc::new(config.clone());
        streams.spawn(to_all(config, replicas.subscribe(), said.subscribe()));
        Self { replicas, said, _streams: streams }
    }

    /// These are the replicas now. A stream to one that is not among them any more lives on until it breaks: whoever is
    /// leaving still has subscribers of its own.
    pub(super) fn replicas(&self, now: BTreeSet<SocketAddr>) {
        self.replicas.send_if_modified(|known| std::mem::replace(known, now.clone()) != now);
    }

    /// Whether the role takes new work.
    pub(super) fn ready(&self, ready: bool) {
        self.said.send_if_modified(|said| std::mem::replace(&mut said.ready, ready) != ready);
    }

    /// What became of listeners: put in force, not put in force, removed.
    pub(super) fn listeners(&self, now: impl IntoIterator<Item = (Arc<str>, Verdict)>, removed: &[Arc<str>]) {
        self.said.send_if_modified(|said| {
            let before = said.listeners.clone();
            said.listeners.retain(|name, _| !removed.contains(name));
            said.listeners.extend(now);
            said.listeners != before
        });
    }
}

/// Keeps a stream to each of the replicas.
async fn to_all(
    config: Arc<SubscriberConfig>,
    mut replicas: watch::Receiver<BTreeSet<SocketAddr>>,
    said: watch::Receiver<ReportedState>,
) {
    let mut running = HashSet::new();
    let mut streams = JoinSet::new();
    loop {
        let named: Vec<SocketAddr> = replicas.borrow_and_update().iter().copied().collect();
        for replica in named {
            if running.insert(replica) {
                streams.spawn(to_one(config.clone(), replica, replicas.clone(), said.clone()));
            }
        }
        tokio::select! {
            changed = replicas.changed() => if changed.is_err() { return },
            Some(ended) = streams.join_next() => {
                if let Ok(replica) = ended {
                    running.remove(&replica);
                }
            }
        }
    }
}

/// One stream after another to one replica, while it is one.
async fn to_one(
    config: Arc<SubscriberConfig>,
    replica: SocketAddr,
    replicas: watch::Receiver<BTreeSet<SocketAddr>>,
    mut said: watch::Receiver<ReportedState>,
) -> SocketAddr {
    let mut backoff = Backoff::new(config.timing.backoff_first, config.timing.backoff_last);
    while replicas.borrow().contains(&replica) {
        let mut heard = false;
        if let Err(error) = stream(&config, replica, &mut said, &mut heard).await {
            tracing::debug!(%replica, %error, "a replica of the controller is not told how this is");
        }
        if heard {
            backoff.reset();
        }
        let pause = backoff.pause(&mut rand::rng());
        tokio::time::sleep(pause).await;
    }
    replica
}

/// One stream to its end.
async fn stream(
    config: &SubscriberConfig,
    replica: SocketAddr,
    said: &mut watch::Receiver<ReportedState>,
    heard: &mut bool,
) -> Result<(), ConnectError> {
    let (requests, outgoing) = mpsc::unbounded_channel();
    let say = |said: &ReportedState| DeltaDiscoveryRequest {
        node: Some(node::witness(&config.identity, said.ready, &Witness { listeners: said.listeners.clone() })),
        type_url: Kind::Mesh.type_url().to_owned(),
        ..Default::default()
    };
    // The receiver lives as long as the stream.
    let _ = requests.send(say(&said.borrow_and_update()));
    let mut open = open_at(config, replica, outgoing).await?;
    loop {
        tokio::select! {
            response = open.responses.message() => {
                let Ok(Some(response)) = response else { return Ok(()) };
                *heard = true;
                // Its own stream puts it in force; here it only must not look stalled.
                let _ = requests.send(DeltaDiscoveryRequest {
                    type_url: response.type_url,
                    response_nonce: response.nonce,
                    ..Default::default()
                });
            }
            changed = said.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let _ = requests.send(say(&said.borrow_and_update()));
            }
        }
    }
}
