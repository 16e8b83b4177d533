//! How the watches are, for readiness, the status API and diagnostics.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use kube::runtime::watcher;
use parking_lot::Mutex;

use super::chain;
use crate::{
    diagnostic::{Diagnostic, ObjectRef, Reason},
    kinds::{BadField, ObjectId, ObjectKind},
};

/// Bad objects that are told of at most; more of them say nothing new.
const BAD_OBJECTS: usize = 1000;

/// The state of all watches; clones share it.
#[derive(Clone, Debug)]
pub struct Watches(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    kinds: BTreeMap<ObjectKind, Kind>,
    bad: BTreeMap<ObjectId, Diagnostic>,
    /// The problems changed since they were taken.
    changed: bool,
}

#[derive(Clone, Debug, Default)]
struct Kind {
    synced: bool,
    heard: Option<Instant>,
    failure: Option<Diagnostic>,
}

/// The state of one watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchState {
    /// What is watched.
    pub kind: ObjectKind,
    /// Everything was delivered once.
    pub synced: bool,
    /// Time since the API server last said something of this kind.
    pub silent: Option<Duration>,
    /// Why it does not run, and what to do.
    pub failure: Option<Arc<str>>,
}

impl Watches {
    pub(super) fn new(kinds: &[ObjectKind]) -> Self {
        let kinds = kinds.iter().map(|kind| (*kind, Kind::default())).collect();
        Self(Arc::new(Mutex::new(Inner { kinds, bad: BTreeMap::new(), changed: false })))
    }

    /// All of them at `now`.
    pub fn states(&self, now: Instant) -> Vec<WatchState> {
        let state = |(kind, watch): (&ObjectKind, &Kind)| WatchState {
            kind: *kind,
            synced: watch.synced,
            silent: watch.heard.map(|heard| now.saturating_duration_since(heard)),
            failure: watch.failure.as_ref().map(|failure| failure.message.clone()),
        };
        self.0.lock().kinds.iter().map(state).collect()
    }

    /// Everything of `kind` was delivered.
    pub(super) fn synced(&self, kind: ObjectKind) {
        self.update(kind, |watch| watch.synced = true);
    }

    /// The API server said something of `kind`.
    pub(super) fn heard(&self, kind: ObjectKind) {
        self.update(kind, |_| {});
    }

    fn update(&self, kind: ObjectKind, change: impl FnOnce(&mut Kind)) {
        let mut inner = self.0.lock();
        let Inner { kinds, changed, .. } = &mut *inner;
        let Some(watch) = kinds.get_mut(&kind) else { return };
        change(watch);
        watch.heard = Some(Instant::now());
        *changed |= watch.failure.take().is_some();
    }

    /// The watch of `kind` failed. Only what does not pass by itself is a diagnostic: a server that is away is not.
    pub(super) fn failed(&self, kind: ObjectKind, error: &watcher::Error) {
        let plural = format!("{}s", kind.as_str().to_ascii_lowercase());
        let text = match code(error) {
            Some(401) => {
                "the API server does not know who this is; check the kubeconfig, or the ServiceAccount's token".into()
            }
            Some(403) => format!(
                "watching {plural} is forbidden; grant the controller's ServiceAccount get, list and watch on {plural}"
            ),
            Some(404) => format!("the API server does not have {plural}; the mesh needs them"),
            _ => format!("{}; it is tried again every few seconds, and what was known stays", chain(error)),
        };
        let failure = Diagnostic::error(Reason::WatchFailed, ObjectRef::new("Watch", "", &plural), text);
        let mut inner = self.0.lock();
        let Inner { kinds, changed, .. } = &mut *inner;
        let Some(watch) = kinds.get_mut(&kind) else { return };
        if watch.failure.as_ref() != Some(&failure) {
            watch.failure = Some(failure);
            *changed = true;
        }
    }

    /// This object could be read, or is gone.
    pub(super) fn good(&self, id: &ObjectId) {
        let mut inner = self.0.lock();
        if !inner.bad.is_empty() && inner.bad.remove(id).is_some() {
            inner.changed = true;
        }
    }

    /// This object could not be read.
    pub(super) fn bad(&self, id: ObjectId, bad: &BadField) {
        let mut inner = self.0.lock();
        if inner.bad.len() >= BAD_OBJECTS && !inner.bad.contains_key(&id) {
            return;
        }
        let object = ObjectRef::new(id.kind.as_str(), &id.namespace, &id.name);
        let text = format!("{bad}; the object is left out. Mend the field");
        let mut diagnostic = Diagnostic::error(Reason::InvalidObject, object, text).field(bad.path.as_str());
        if let Some(value) = &bad.value {
            diagnostic = diagnostic.value(value);
        }
        if inner.bad.insert(id, diagnostic.clone()).as_ref() != Some(&diagnostic) {
            inner.changed = true;
        }
    }

    /// All problems there are now, if they changed since the last call.
    pub(super) fn take_problems(&self) -> Option<Vec<Diagnostic>> {
        let mut inner = self.0.lock();
        std::mem::take(&mut inner.changed).then(|| {
            let failures = inner.kinds.values().filter_map(|watch| watch.failure.clone());
            failures.chain(inner.bad.values().cloned()).collect()
        })
    }
}

/// The HTTP status within an error of a watch.
fn code(error: &watcher::Error) -> Option<u16> {
    use watcher::Error;
    match error {
        Error::InitialListFailed(error) | Error::WatchStartFailed(error) | Error::WatchFailed(error) => match error {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        },
        Error::WatchError(status) => Some(status.code),
        Error::NoResourceVersion => None,
    }
}
