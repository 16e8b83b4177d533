//! Keeps what a controller publishes, for tests to look at.

use std::{collections::BTreeMap, sync::Arc};

use maesh_config::{Change, Key, Resource};
use maesh_controller::serve::Sink;
use parking_lot::Mutex;

/// Everything in force.
#[derive(Debug, Default)]
pub(crate) struct Now {
    /// The resources.
    pub(crate) resources: BTreeMap<Key, Resource>,
    /// Whether it was complete once.
    pub(crate) complete: bool,
    /// Fewest resources that there were at any time after that.
    pub(crate) fewest: usize,
}

/// A sink that keeps everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept(pub(crate) Arc<Mutex<Now>>);

impl Sink for Kept {
    fn apply(&mut self, change: &Change) -> u64 {
        let mut now = self.0.lock();
        for key in &change.removed {
            now.resources.remove(key);
        }
        now.resources.extend(change.upserts.iter().map(|resource| (resource.key(), resource.clone())));
        if now.complete {
            now.fewest = now.fewest.min(now.resources.len());
        }
        1
    }

    fn configured(&mut self) {}

    fn complete(&mut self) {
        let mut now = self.0.lock();
        now.complete = true;
        now.fewest = now.resources.len();
    }
}
