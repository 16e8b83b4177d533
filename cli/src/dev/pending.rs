//! What was compiled and is not yet in force everywhere.
//!
//! A change is announced once every role has acknowledged the revision that has it, and, for a Service that needs new
//! listeners, once these are open.

use std::collections::BTreeMap;

use maesh_compiler::compile::TableEntry;
use maesh_config::ServiceName;

/// Changes that wait to be announced.
#[derive(Debug, Default)]
pub struct Pending {
    revision: u64,
    changed: BTreeMap<ServiceName, (u64, TableEntry)>,
    removed: BTreeMap<ServiceName, u64>,
}

impl Pending {
    /// Takes in a change that has this revision; it replaces what waited of the same Services.
    pub fn add(&mut self, revision: u64, services: Vec<TableEntry>, removed: Vec<ServiceName>) {
        self.revision = revision;
        for entry in services {
            self.removed.remove(&entry.service);
            self.changed.insert(entry.service.clone(), (revision, entry));
        }
        for service in removed {
            self.changed.remove(&service);
            self.removed.insert(service, revision);
        }
    }

    /// The newest revision taken in.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Takes out what is in force everywhere, given a test of whether a revision is.
    pub fn take(&mut self, in_force: impl Fn(u64) -> bool) -> (Vec<TableEntry>, Vec<ServiceName>) {
        let changed = self.changed.extract_if(.., |_, (revision, entry)| entry.settled && in_force(*revision));
        let changed = changed.map(|(_, (_, entry))| entry).collect();
        let removed =
            self.removed.extract_if(.., |_, revision| in_force(*revision)).map(|(service, _)| service).collect();
        (changed, removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, settled: bool) -> TableEntry {
        TableEntry { service: ServiceName::new("shop", name), address: None, ports: vec![], bypass: false, settled }
    }

    #[test]
    fn what_is_announced_is_in_force_and_serves() {
        let mut pending = Pending::default();
        pending.add(5, vec![entry("web", true), entry("db", false)], vec![]);
        assert_eq!(pending.take(|revision| revision <= 4), (vec![], vec![]));
        assert_eq!(pending.take(|revision| revision <= 5), (vec![entry("web", true)], vec![]));
        pending.add(6, vec![entry("db", true)], vec![ServiceName::new("shop", "web")]);
        assert_eq!(pending.take(|revision| revision <= 5), (vec![], vec![]));
        assert_eq!(pending.take(|_| true), (vec![entry("db", true)], vec![ServiceName::new("shop", "web")]));
        assert_eq!(pending.take(|_| true), (vec![], vec![]));
    }

    #[test]
    fn a_newer_change_replaces_an_older_one() {
        let mut pending = Pending::default();
        pending.add(1, vec![entry("web", true)], vec![]);
        pending.add(2, vec![], vec![ServiceName::new("shop", "web")]);
        assert_eq!(pending.take(|_| true), (vec![], vec![ServiceName::new("shop", "web")]));
    }
}
