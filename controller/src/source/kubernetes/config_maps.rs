//! ConfigMaps: only those that Services name, each by a watch of its own.
//!
//! A cluster keeps all kinds of things in ConfigMaps, and a watch of all of them would bring it here: more than the mesh may
//! need to know, and more than it could hold. While no Service names any, nothing is asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::Client;
use maesh_compiler::kinds::{ObjectId, ObjectKind, ReadContext};
use maesh_config::ServiceName;
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};

use super::{Options, Watches, follow::Follow};
use crate::source::{Batch, Event};

/// ConfigMaps that are watched at the same time.
const MOST: usize = 200;

/// What a watch of a ConfigMap is made with.
pub(super) struct Source {
    pub(super) client: Client,
    pub(super) options: Options,
    pub(super) door: ReadContext,
    pub(super) watches: Watches,
    pub(super) batches: mpsc::Sender<Batch>,
}

/// Follows the ConfigMaps in `wanted` for as long as that is open.
pub(super) async fn follow(source: Source, mut wanted: watch::Receiver<BTreeSet<ServiceName>>) {
    let mut tasks = JoinSet::new();
    let mut followed: BTreeMap<ServiceName, AbortHandle> = BTreeMap::new();
    let mut refused: BTreeSet<ServiceName> = BTreeSet::new();
    loop {
        let now = wanted.borrow_and_update().clone();
        followed.retain(|name, task| {
            let stays = now.contains(name);
            if !stays {
                task.abort();
            }
            stays
        });
        refused.retain(|name| now.contains(name));
        for name in &now {
            if followed.contains_key(name) {
                continue;
            }
            let id = ObjectId::new(ObjectKind::ConfigMap, name.namespace.clone(), name.name.clone());
            if followed.len() >= MOST {
                if refused.insert(name.clone()) && source.say(too_many(id)).await.is_err() {
                    return;
                }
                continue;
            }
            refused.remove(name);
            let follow =
                Follow::one(id, &source.client, &source.options, &source.door, &source.watches, &source.batches);
            followed.insert(name.clone(), tasks.spawn(follow.run()));
        }
        // Those that were given up.
        while tasks.try_join_next().is_some() {}
        if followed.is_empty() && source.watches.forget(ObjectKind::ConfigMap) {
            // Whoever listened is gone: so is whoever wants.
            let _ = source.batches.send(vec![source.watches.problems()]).await;
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

fn too_many(id: ObjectId) -> Event {
    let why = format!("Services name more than {MOST} ConfigMaps, of which so many are read; share some");
    Event::Unreadable(id, Arc::from(why))
}

impl Source {
    async fn say(&self, event: Event) -> Result<(), mpsc::error::SendError<Batch>> {
        self.batches.send(vec![event]).await
    }
}
