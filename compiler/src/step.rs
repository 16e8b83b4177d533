//! What a unit of compilation is given while it runs.

use std::{collections::BTreeSet, time::Instant};

use maesh_config::ServiceName;

use crate::{
    compile::Config,
    facts::{Fact, View},
    publication::Outbox,
};

/// One run of one unit.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    /// Everything is read through it.
    pub(crate) view: View<'a>,
    pub(crate) config: &'a Config,
    pub(crate) now: Instant,
    pub(crate) out: &'a mut Outbox,
    pub(crate) timers: &'a mut Timers,
    /// Facts that this run changed.
    pub(crate) changed: Vec<Fact>,
}

impl Step<'_> {
    /// Says that `fact` changed.
    pub(crate) fn changed(&mut self, fact: Fact) {
        self.changed.push(fact);
    }

    /// Whether the global switch is on: every name resolves to the plain addresses.
    pub(crate) fn bypass(&self) -> bool {
        self.view.note(Fact::Bypass);
        self.config.bypass
    }
}

/// When something changes for a Service although nothing happens.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Instant, ServiceName)>);

impl Timers {
    /// Looks at `service` again at `at`.
    pub(crate) fn set(&mut self, at: Instant, service: &ServiceName) {
        self.0.insert((at, service.clone()));
    }

    /// When the next one elapses.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes those that have elapsed by `now`.
    pub(crate) fn elapsed(&mut self, now: Instant) -> impl Iterator<Item = ServiceName> {
        std::iter::from_fn(move || {
            self.0.first().filter(|(at, _)| *at <= now)?;
            self.0.pop_first().map(|(_, service)| service)
        })
    }
}
