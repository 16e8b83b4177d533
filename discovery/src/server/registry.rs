//! What the controller sees of the subscribers: who they are, whether they take work, what they put in force.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::update::Identity;
use maesh_config::{
    Key,
    model::{ListenerId, ListenerSet},
};

/// A subscriber that is connected now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// Who it is.
    pub identity: Identity,
    /// It gets its configuration from another replica, and only says here how it is.
    pub elsewhere: bool,
    /// It says that it takes new work.
    pub ready: bool,
    /// Listeners that it has in force.
    pub listening: ListenerSet,
    /// Those that it could not put in force, with the reason.
    pub failed: Arc<BTreeMap<ListenerId, Arc<str>>>,
    /// Resources of any kind whose newest version it did not put in force, with the reason.
    pub rejected: Arc<BTreeMap<Key, Arc<str>>>,
    pub(super) acknowledged: Acknowledged,
}

impl Subscriber {
    /// The store's revision up to which it has answered for everything that it wants. It goes on while the list of
    /// subscribers stays the same; [`super::Server::acknowledgements`] tells when.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.get()
    }
}

/// How far one stream has got, seen without taking a lock.
#[derive(Clone, Debug, Default)]
pub(super) struct Acknowledged(Arc<AtomicU64>);

impl Acknowledged {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Notes a revision; whether it is further than before.
    pub(super) fn reach(&self, revision: u64) -> bool {
        self.0.fetch_max(revision, Ordering::AcqRel) < revision
    }
}

impl PartialEq for Acknowledged {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Acknowledged {}

/// What one stream reports about its subscriber.
#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) identity: Option<Identity>,
    pub(super) elsewhere: bool,
    pub(super) ready: bool,
    pub(super) listening: ListenerSet,
    pub(super) failed: Arc<BTreeMap<ListenerId, Arc<str>>>,
    pub(super) rejected: Arc<BTreeMap<Key, Arc<str>>>,
    pub(super) acknowledged: Acknowledged,
}

/// All streams.
#[derive(Debug, Default)]
pub(super) struct Registry {
    streams: Mutex<Streams>,
    list: watch::Sender<Arc<Vec<Subscriber>>>,
    acknowledged: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Streams {
    next: u64,
    open: BTreeMap<u64, Option<Subscriber>>,
}

impl Registry {
    pub(super) fn watch(&self) -> watch::Receiver<Arc<Vec<Subscriber>>> {
        self.list.subscribe()
    }

    pub(super) fn watch_acknowledgements(&self) -> watch::Receiver<()> {
        self.acknowledged.subscribe()
    }

    /// Some stream has got further.
    pub(super) fn acknowledged(&self) {
        self.acknowledged.send_replace(());
    }

    pub(super) fn open(&self) -> u64 {
        let mut streams = self.streams.lock();
        streams.next += 1;
        let id = streams.next;
        streams.open.insert(id, None);
        id
    }

    /// What a stream says now. Returns its set of listeners, with the memory that equal sets of other streams have.
    pub(super) fn update(&self, id: u64, seen: StreamState) -> ListenerSet {
        let StreamState { identity, elsewhere, ready, mut listening, failed, rejected, acknowledged } = seen;
        let mut streams = self.streams.lock();
        // The newest first: they are on their way to the same.
        let others = streams.open.iter().rev().filter(|(other, _)| **other != id).filter_map(|(_, it)| it.as_ref());
        others.into_iter().any(|other| listening.share(&other.listening));
        let shared = listening.clone();
        let subscriber = identity.map(|identity| Subscriber {
            identity,
            elsewhere,
            ready,
            listening,
            failed,
            rejected,
            acknowledged,
        });
        streams.open.insert(id, subscriber);
        self.publish(&streams);
        shared
    }

    pub(super) fn close(&self, id: u64) {
        let mut streams = self.streams.lock();
        if streams.open.remove(&id).flatten().is_some() {
            self.publish(&streams);
        }
    }

    /// One entry a subscriber: while an old stream of it was not yet seen to be dead, the newer one counts, and one on
    /// which it is configured counts before one on which it only says how it is.
    fn publish(&self, streams: &Streams) {
        let all = || streams.open.values().flatten();
        let elsewhere = all().filter(|subscriber| subscriber.elsewhere);
        let here = all().filter(|subscriber| !subscriber.elsewhere);
        let newest: BTreeMap<&str, &Subscriber> =
            elsewhere.chain(here).map(|subscriber| (&*subscriber.identity.id, subscriber)).collect();
        self.list.send_replace(Arc::new(newest.into_values().cloned().collect()));
    }
}
