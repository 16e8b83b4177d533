//! The ConfigMaps that Services name.
//!
//! A cluster has many of them, and few concern the mesh. From an API server only those are read that some Service names; they
//! are unknown until the source has said something of them.

use std::{collections::BTreeSet, sync::Arc};

use ahash::AHashMap;

use super::{Changed, Id};
use crate::{
    facts::Fact,
    kinds::{ConfigMap, OLD_PREFIX, PREFIX, Service},
    plan::annotations,
};

/// A ConfigMap, or why it cannot be read.
type Read = Result<Arc<ConfigMap>, Arc<str>>;

/// What is known of a ConfigMap.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FoundConfigMap<'a> {
    /// Nothing yet.
    Unknown,
    /// It does not exist.
    Absent,
    /// It cannot be read, for this reason.
    Unreadable(&'a Arc<str>),
    /// It is there.
    There(&'a Arc<ConfigMap>),
}

/// What is known of ConfigMaps.
#[derive(Debug, Default)]
pub(crate) struct ConfigMaps {
    /// They are delivered once they are wanted; else all there are.
    on_demand: bool,
    /// `None` for those that do not exist.
    known: AHashMap<Id, Option<Read>>,
    /// How many Services name one.
    named: AHashMap<Id, usize>,
    /// Others are named than the last time somebody asked.
    news: bool,
}

impl ConfigMaps {
    pub(super) fn new(on_demand: bool) -> Self {
        Self { on_demand, ..Self::default() }
    }

    pub(crate) fn get(&self, id: &Id) -> FoundConfigMap<'_> {
        match self.known.get(id) {
            None if self.on_demand => FoundConfigMap::Unknown,
            None | Some(None) => FoundConfigMap::Absent,
            Some(Some(Err(why))) => FoundConfigMap::Unreadable(why),
            Some(Some(Ok(map))) => FoundConfigMap::There(map),
        }
    }

    /// Those that Services name, if these are others than the last time.
    pub(crate) fn take_wanted(&mut self) -> Option<BTreeSet<Id>> {
        std::mem::take(&mut self.news).then(|| self.named.keys().cloned().collect())
    }

    /// Whether something is known of all that Services name.
    pub(crate) fn are_known(&self) -> bool {
        self.named.keys().all(|id| self.known.contains_key(id))
    }

    pub(super) fn count(&self) -> usize {
        self.known.values().filter(|read| matches!(read, Some(Ok(_)))).count()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &Id> {
        self.known.keys()
    }

    /// Notes what was read; `None` if it does not exist.
    pub(super) fn set(&mut self, id: Id, read: Option<Read>, changed: Changed<'_>) {
        // What nobody wants any more may still be on its way.
        if self.on_demand && !self.named.contains_key(&id) {
            return;
        }
        let (before, remembered) = (self.known.get(&id), read.is_some() || self.on_demand);
        if before == remembered.then_some(&read) {
            return;
        }
        match remembered {
            true => self.known.insert(id.clone(), read),
            false => self.known.remove(&id),
        };
        changed(Fact::ConfigMap(id));
    }

    /// A Service is new, differs, or is gone.
    pub(super) fn note_service(&mut self, old: Option<&Service>, new: Option<&Service>) {
        for id in new.map(named_by).unwrap_or_default() {
            let count = self.named.entry(id).or_default();
            self.news |= *count == 0;
            *count += 1;
        }
        for id in old.map(named_by).unwrap_or_default() {
            let Some(count) = self.named.get_mut(&id) else { continue };
            *count -= 1;
            if *count == 0 {
                self.named.remove(&id);
                self.news = true;
                if self.on_demand {
                    self.known.remove(&id);
                }
            }
        }
    }
}

/// The ConfigMaps that a Service names, by annotations for all ports or for one.
fn named_by(service: &Service) -> BTreeSet<Id> {
    let name = |key: &str| {
        let rest = key.strip_prefix(PREFIX).or_else(|| key.strip_prefix(OLD_PREFIX))?;
        let name = rest.rsplit_once('.').map_or(rest, |(_, name)| name);
        (name == annotations::tls::CA_NAME).then_some(())
    };
    let values = service.annotations.iter().filter(|(key, _)| name(key).is_some()).map(|(_, value)| value.trim());
    let good = values.filter(|value| annotations::tls::is_object_name(value));
    good.map(|value| Id::new(service.meta.namespace.clone(), value)).collect()
}
