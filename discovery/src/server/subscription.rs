//! What one stream wants of one type, and how far it has got.
//!
//! At most one response is unanswered. Everything that changes meanwhile is found in the log afterwards, in its newest
//! form, so what a slow subscriber costs does not grow with the changes it misses.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use crate::{
    store::{EncodedResource, ResourceTable, Tables},
    xds::WILDCARD,
};
use maesh_config::wire::Version;

/// Names that one stream may ask for, of one type.
pub(super) const NAMES: usize = 500_000;

#[derive(Debug, Default)]
pub(super) struct Subscription {
    wildcard: bool,
    names: HashSet<Arc<str>>,
    /// What the subscriber has from an earlier stream, as far as it was not looked at yet.
    has: HashMap<Arc<str>, Option<Version>>,
    /// To be answered whether or not they changed.
    owed: BTreeSet<Arc<str>>,
    /// The log has been read up to here.
    cursor: u64,
    /// The log up to here is the initial set: what it says is gone was never sent on this stream.
    initial: u64,
    started: bool,
    /// A mark of completion is due once nothing is left to send.
    owes_mark: bool,
    pub(super) in_flight: Option<InFlight>,
}

/// A response that was not answered yet.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) nonce: String,
    pub(super) sent: Vec<Arc<str>>,
    pub(super) removed: Vec<Arc<str>>,
}

/// What is to be sent next.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) resources: Vec<(Arc<str>, EncodedResource)>,
    pub(super) removed: Vec<Arc<str>>,
    /// Names that the subscriber has in their present form already.
    pub(super) held: Vec<Arc<str>>,
    /// Everything subscribed is with this sent at least once.
    pub(super) complete: bool,
    pub(super) bytes: usize,
}

/// Removals that this subscriber needs were forgotten: it has to resume on a new stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooFarBehind;

impl Subscription {
    /// The first request for a type on a stream. Naming nothing at all is the protocol's old way to ask for everything.
    pub(super) fn first(subscribe: Vec<String>, has: HashMap<String, String>) -> Self {
        let mut this = Self { owes_mark: true, ..Self::default() };
        this.wildcard = subscribe.is_empty();
        for name in subscribe {
            if name == WILDCARD {
                this.wildcard = true;
            } else {
                this.names.insert(name.into());
            }
        }
        this.has = has.into_iter().map(|(name, version)| (name.into(), Version::parse(&version))).collect();
        this
    }

    /// A later request's changes of interest. A name asked for again is sent again, since the subscriber may have let
    /// go of it; a name let go of that the wildcard still covers is sent again for the same reason.
    pub(super) fn change(&mut self, subscribe: Vec<String>, unsubscribe: &[String], tables: &Tables, type_url: &str) {
        self.owes_mark |= !subscribe.is_empty();
        for name in unsubscribe {
            if name == WILDCARD {
                self.wildcard = false;
            } else if self.names.remove(&**name) {
                self.owed.remove(&**name);
                if self.wildcard {
                    self.owed.insert(name.as_str().into());
                }
            }
        }
        for name in subscribe {
            if name == WILDCARD {
                if !self.wildcard {
                    self.wildcard = true;
                    self.cursor = 0;
                    self.initial = tables.revision();
                }
            } else {
                let name = tables.table(type_url).and_then(|table| table.shared(&name)).unwrap_or_else(|| name.into());
                self.has.remove(&name);
                self.owed.insert(name.clone());
                self.names.insert(name);
            }
        }
    }

    pub(super) fn names(&self) -> usize {
        self.names.len() + self.has.len()
    }

    /// What to send now, if anything is due and nothing is unanswered; at most about `limit` bytes.
    pub(super) fn next(
        &mut self,
        tables: &Tables,
        type_url: &str,
        limit: usize,
    ) -> Result<Option<Batch>, TooFarBehind> {
        if self.in_flight.is_some() || !tables.begun() {
            return Ok(None);
        }
        let nothing = ResourceTable::default();
        let table = tables.table(type_url).unwrap_or(&nothing);
        let mut batch = Batch::default();
        if !self.started {
            self.start(table, tables.revision(), &mut batch);
        }
        if table.forgot_since(self.cursor.max(self.initial)) {
            if self.wildcard {
                return Err(TooFarBehind);
            }
            self.owed.extend(self.names.iter().cloned());
            self.cursor = tables.revision();
        }
        let complete = tables.complete(type_url);
        let mut done = self.settle_owed(table, limit, complete, &mut batch)
            && self.read_log(table, tables.revision(), limit, &mut batch);
        if done && complete {
            self.owe_gone(table);
            done = self.settle_owed(table, limit, complete, &mut batch);
            batch.complete = done && std::mem::take(&mut self.owes_mark);
        }
        let due = batch.complete || !batch.resources.is_empty() || !batch.removed.is_empty();
        Ok((due || !batch.held.is_empty()).then_some(batch))
    }

    /// Compares what the subscriber says it has with what there is.
    fn start(&mut self, table: &ResourceTable, revision: u64, batch: &mut Batch) {
        self.started = true;
        self.initial = revision;
        self.cursor = if self.wildcard { 0 } else { revision };
        for name in &self.names {
            match table.get(name) {
                // The log tells of it.
                Some(_) if self.wildcard => {}
                Some(encoded) if self.has.get(name) == Some(&Some(encoded.version)) => batch.held.push(name.clone()),
                _ => {
                    self.owed.insert(name.clone());
                }
            }
        }
    }

    /// What the subscriber had and is wanted is to be taken back where it is no more. All that is there was sent.
    fn owe_gone(&mut self, table: &ResourceTable) {
        for name in std::mem::take(&mut self.has).into_keys() {
            if table.get(&name).is_none() && (self.wildcard || self.names.contains(&name)) {
                self.owed.insert(name);
            }
        }
    }

    /// Sends what is owed; what is not there only when the table is `complete`. Whether there was room for all of it.
    fn settle_owed(&mut self, table: &ResourceTable, limit: usize, complete: bool, batch: &mut Batch) -> bool {
        let due = |name: &&Arc<str>| complete || table.get(name).is_some();
        while let Some(name) = self.owed.iter().find(due).cloned() {
            let encoded = table.get(&name);
            if batch.bytes >= limit || !batch.fits(&name, encoded, limit) {
                return false;
            }
            self.owed.remove(&name);
            self.has.remove(&name);
            batch.add(&name, encoded);
        }
        true
    }

    fn read_log(&mut self, table: &ResourceTable, revision: u64, limit: usize, batch: &mut Batch) -> bool {
        for (at, name, encoded) in table.since(self.cursor) {
            let skip = match encoded {
                _ if !self.wildcard && !self.names.contains(name) => true,
                None => {
                    at <= self.initial || {
                        self.has.remove(name);
                        false
                    }
                }
                Some(encoded) => {
                    let held = self.has.remove(name) == Some(Some(encoded.version));
                    if held {
                        batch.held.push(name.clone());
                    }
                    held
                }
            };
            if !skip {
                if !batch.fits(name, encoded, limit) {
                    return false;
                }
                batch.add(name, encoded);
            }
            self.cursor = at;
        }
        self.cursor = revision;
        true
    }
}

impl Batch {
    /// Whether one more stays within the limit; a batch of one always does.
    fn fits(&self, name: &str, encoded: Option<&EncodedResource>, limit: usize) -> bool {
        self.bytes == 0 || self.bytes + Self::size(name, encoded) <= limit
    }

    fn add(&mut self, name: &Arc<str>, encoded: Option<&EncodedResource>) {
        self.bytes += Self::size(name, encoded);
        match encoded {
            Some(encoded) => self.resources.push((name.clone(), encoded.clone())),
            None => self.removed.push(name.clone()),
        }
    }

    /// Bytes on the wire: the name, and for a resource its version, type and lengths besides its own bytes.
    fn size(name: &str, encoded: Option<&EncodedResource>) -> usize {
        name.len() + encoded.map_or(4, |it| it.bytes.len() + 128)
    }
}
