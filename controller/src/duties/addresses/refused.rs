//! Own addresses that the API server refuses one by one (a quota, a webhook, a name that is taken): the others go on,
//! and the Services on a refused one are told.

use std::collections::BTreeMap;

use maesh_compiler::{
    diagnostic::{Diagnostic, ObjectRef, Reason},
    own_address::{Ports, everybody},
};
use maesh_config::ServiceName;
use tokio::time::{Duration, Instant};

use super::super::events::Recorder;

/// Pause before a refused address is tried again. Each try is one of the few writes of a second.
const AGAIN: Duration = Duration::from_secs(30);

/// The refused addresses, by name.
pub(super) struct Refused {
    of: BTreeMap<String, RefusedWrite>,
    recorder: Option<Recorder>,
}

struct RefusedWrite {
    why: String,
    again: Instant,
    /// What the Services on it were told.
    told: Vec<Diagnostic>,
}

impl Refused {
    pub(super) fn new(recorder: Option<Recorder>) -> Self {
        Self { of: BTreeMap::new(), recorder }
    }

    /// Whether it is too early to try `name` again.
    pub(super) fn waits(&self, name: &str, now: Instant) -> bool {
        self.of.get(name).is_some_and(|refusal| now < refusal.again)
    }

    /// When the next one is to be tried again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.of.values().map(|refusal| refusal.again).min()
    }

    /// `name` with these ports was refused. Said once for each reason.
    pub(super) fn add(&mut self, name: &str, ports: Option<&Ports>, why: String, now: Instant) {
        // Most are refused for one reason.
        if self.of.values().all(|before| before.why != why) {
            tracing::warn!(address = name, why, "an own address was refused; the others go on, and it is tried again");
        }
        let told: Vec<_> = services(ports).into_iter().map(|service| refused(name, service, &why)).collect();
        let before = self.of.insert(name.to_owned(), RefusedWrite { why, again: now + AGAIN, told });
        let (Some(recorder), Some(refusal)) = (&self.recorder, self.of.get(name)) else { return };
        let before = before.map(|refusal| refusal.told).unwrap_or_default();
        before.iter().filter(|old| !refusal.told.contains(old)).for_each(|old| recorder.cleared(old));
        refusal.told.iter().filter(|new| !before.contains(new)).for_each(|new| recorder.found(new));
    }

    /// `name` is as it should be.
    pub(super) fn clear(&mut self, name: &str) {
        let Some(refusal) = self.of.remove(name) else { return };
        self.recorder.iter().for_each(|recorder| refusal.told.iter().for_each(|told| recorder.cleared(told)));
    }

    /// Forgets all but those that `there` knows.
    pub(super) fn retain(&mut self, there: impl Fn(&str) -> bool) {
        let gone: Vec<_> = self.of.keys().filter(|name| !there(name)).cloned().collect();
        gone.iter().for_each(|name| self.clear(name));
    }
}

impl Drop for Refused {
    /// Whoever leads next says what it meets.
    fn drop(&mut self) {
        self.retain(|_| false);
    }
}

/// The Services that stand on an address.
fn services(ports: Option<&Ports>) -> Vec<&ServiceName> {
    let all = ports.into_iter().flat_map(|ports| ports.values());
    let mut services: Vec<_> = all.filter(|entry| entry.leaving.is_none()).map(|entry| &entry.service).collect();
    services.sort_unstable();
    services.dedup();
    services.retain(|service| **service != everybody());
    services
}

fn refused(name: &str, service: &ServiceName, why: &str) -> Diagnostic {
    let text = format!(
        "it needs an own address, and the API server refuses Service {name}, which is to be that address: {why}. Its name \
         answers the ClusterIP until then; allow the controller to write it."
    );
    let object = ObjectRef::new("Service", &service.namespace, &service.name);
    Diagnostic::warning(Reason::OwnAddressRefused, object, text).using("its ClusterIP")
}
