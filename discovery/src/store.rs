//! What a discovery server has to tell: the compiled resources, encoded once, and the order in which they changed.
//!
//! Every change gets a number of its own, and a log leads from numbers to names. A subscriber is therefore no more
//! than a position in the log: whoever is behind gets the present form of everything that changed since, however often
//! it changed in between, so a slow reader costs no memory. Removals stay in the log as tombstones, a bounded number
//! of them; who is behind the oldest one forgotten has to begin anew.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::watch;

use super::Progress;
use maesh_config::{
    Change,
    wire::{self, Version},
};

/// Removals remembered per type.
const TOMBSTONES: usize = 65_536;

/// A resource of any type, by its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opaque {
    /// Its type's name.
    pub type_url: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// A message of that type.
    pub bytes: Bytes,
}

/// The state of a discovery server. One writer, any number of subscribers.
#[derive(Debug)]
pub struct Store {
    tables: RwLock<Tables>,
    changed: watch::Sender<()>,
}

/// What subscribers read, consistent as long as it is borrowed.
#[derive(Debug, Default)]
pub(super) struct Tables {
    revision: u64,
    complete: Complete,
    refusing: Option<Arc<str>>,
    progress: Progress,
    types: HashMap<Arc<str>, ResourceTable>,
}

/// Of which types the store holds everything.
#[derive(Debug, Default)]
enum Complete {
    /// Of none.
    #[default]
    Nothing,
    /// Of all but these: what is missing of them may only not be known yet.
    AllBut(Vec<Box<str>>),
    /// Of all.
    All,
}

/// All resources of one type.
#[derive(Debug, Default)]
pub(super) struct ResourceTable {
    entries: HashMap<Arc<str>, Entry>,
    log: BTreeMap<u64, Arc<str>>,
    tombstones: BTreeSet<u64>,
    /// The newest removal that was forgotten.
    forgotten: u64,
}

#[derive(Debug)]
struct Entry {
    revision: u64,
    /// `None` once it is removed.
    encoded: Option<EncodedResource>,
}

/// A resource as it is sent; cloning shares the bytes.
#[derive(Clone, Debug)]
pub(super) struct EncodedResource {
    pub(super) version: Version,
    pub(super) bytes: Bytes,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// A store that is empty and not complete.
    pub fn new() -> Self {
        Self { tables: RwLock::default(), changed: watch::Sender::new(()) }
    }

    /// Takes over a difference and returns the revision it makes. Resources whose bytes are as they were change nothing.
    pub fn apply(&self, change: &Change) -> u64 {
        let upserts = change.upserts.iter().map(|resource| {
            let key = resource.key();
            (key.kind.type_url(), key.name, wire::encode(resource))
        });
        self.change(upserts.collect(), change.removed.iter().map(|key| (key.kind.type_url(), &key.name)))
    }

    /// As [`Store::apply`], for resources of any type. `removed` has types and names.
    pub fn apply_opaque(&self, upserts: &[Opaque], removed: &[(Arc<str>, Arc<str>)]) -> u64 {
        let upserts = upserts.iter().map(|it| (&*it.type_url, it.name.clone(), it.bytes.clone()));
        self.change(upserts.collect(), removed.iter().map(|(type_url, name)| (&**type_url, name)))
    }

    fn change<'a>(
        &self,
        upserts: Vec<(&'a str, Arc<str>, Bytes)>,
        removed: impl Iterator<Item = (&'a str, &'a Arc<str>)>,
    ) -> u64 {
        // Hashed before anything is locked.
        let upserts: Vec<_> = upserts
            .into_iter()
            .map(|(type_url, name, bytes)| (type_url, name, EncodedResource { version: Version::of(&bytes), bytes }))
            .collect();
        let mut tables = self.tables.write();
        let before = tables.revision;
        for (type_url, name) in removed {
            tables.remove(type_url, name);
        }
        for (type_url, name, encoded) in upserts {
            tables.upsert(type_url, name, encoded);
        }
        let revision = tables.revision;
        drop(tables);
        if revision != before {
            self.changed.send_replace(());
        }
        revision
    }

    /// From now on the store holds everything: the sources were read through once. Before this nothing is sent at all,
    /// because whatever is still missing would look like a removal to those who resume.
    pub fn mark_complete(&self) {
        self.tables.write().complete = Complete::All;
        self.changed.send_replace(());
    }

    /// As [`Store::mark_complete`], except for the types `missing`: of these is sent what is there, and to nobody that anything
    /// is gone or that this is all.
    pub fn mark_complete_but(&self, missing: &[&str]) {
        self.tables.write().complete = Complete::AllBut(missing.iter().map(|it| (*it).into()).collect());
        self.changed.send_replace(());
    }

    /// Whether [`Store::mark_complete`] was called.
    pub fn is_complete(&self) -> bool {
        matches!(self.tables.read().complete, Complete::All)
    }

    /// Says which replica this is and how far its watches are; sent along with every response.
    pub fn set_progress(&self, progress: Progress) {
        self.tables.write().progress = progress;
    }

    /// Refuses new streams for this reason (watches that are stale, say), until `None`. Streams that are open stay:
    /// what they carried is still the newest that is known here.
    pub fn set_refusing(&self, reason: Option<Arc<str>>) {
        self.tables.write().refusing = reason;
    }

    /// Number of the last change.
    pub fn revision(&self) -> u64 {
        self.tables.read().revision
    }

    /// Number of resources, of all types.
    pub fn len(&self) -> usize {
        self.tables.read().types.values().map(|table| table.entries.len() - table.tombstones.len()).sum()
    }

    /// Whether there is no resource at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read()
    }

    /// Fires after every change.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

impl Tables {
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether anything may be sent.
    pub(super) fn begun(&self) -> bool {
        !matches!(self.complete, Complete::Nothing)
    }

    /// Whether what is not there of this type is not there at all.
    pub(super) fn complete(&self, type_url: &str) -> bool {
        match &self.complete {
            Complete::Nothing => false,
            Complete::AllBut(missing) => missing.iter().all(|it| **it != *type_url),
            Complete::All => true,
        }
    }

    pub(super) fn refusing(&self) -> Option<Arc<str>> {
        self.refusing.clone()
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(super) fn table(&self, type_url: &str) -> Option<&ResourceTable> {
        self.types.get(type_url)
    }

    fn upsert(&mut self, type_url: &str, name: Arc<str>, encoded: EncodedResource) {
        if !self.types.contains_key(type_url) {
            self.types.insert(type_url.into(), ResourceTable::default());
        }
        let Some(table) = self.types.get_mut(type_url) else { return };
        let revision = self.revision + 1;
        let name = match table.entries.get_mut(&name) {
            Some(entry) if entry.encoded.as_ref().is_some_and(|had| had.version == encoded.version) => return,
            Some(entry) => {
                let before = std::mem::replace(&mut entry.revision, revision);
                entry.encoded = Some(encoded);
                table.tombstones.remove(&before);
                table.log.remove(&before).unwrap_or(name)
            }
            None => {
                table.entries.insert(name.clone(), Entry { revision, encoded: Some(encoded) });
                name
            }
        };
        table.log.insert(revision, name);
        self.revision = revision;
    }

    fn remove(&mut self, type_url: &str, name: &str) {
        let Some(table) = self.types.get_mut(type_url) else { return };
        let Some(entry) = table.entries.get_mut(name).filter(|entry| entry.encoded.is_some()) else { return };
        self.revision += 1;
        let before = std::mem::replace(&mut entry.revision, self.revision);
        entry.encoded = None;
        if let Some(name) = table.log.remove(&before) {
            table.log.insert(self.revision, name);
        }
        table.tombstones.insert(self.revision);
        if table.tombstones.len() > TOMBSTONES {
            table.forget_oldest();
        }
    }
}

impl ResourceTable {
    fn forget_oldest(&mut self) {
        let Some(revision) = self.tombstones.pop_first() else { return };
        if let Some(name) = self.log.remove(&revision) {
            self.entries.remove(&name);
        }
        self.forgotten = revision;
    }

    /// The resource of this name, if there is one.
    pub(super) fn get(&self, name: &str) -> Option<&EncodedResource> {
        self.entries.get(name)?.encoded.as_ref()
    }

    /// What changed after `revision`, in order: when, what, and its present form (`None`: removed).
    pub(super) fn since(&self, revision: u64) -> impl Iterator<Item = (u64, &Arc<str>, Option<&EncodedResource>)> {
        self.log.range(revision + 1..).map(|(revision, name)| (*revision, name, self.get(name)))
    }

    /// Whether removals after `revision` were forgotten.
    pub(super) fn forgot_since(&self, revision: u64) -> bool {
        self.forgotten > revision
    }

    /// The name as it is held here, to share it.
    pub(super) fn shared(&self, name: &str) -> Option<Arc<str>> {
        self.entries.get_key_value(name).map(|(name, _)| name.clone())
    }
}

#[cfg(test)]
mod tests;
