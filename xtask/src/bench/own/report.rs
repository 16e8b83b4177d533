//! What the bench prints.

use std::{fmt, time::Duration};

use super::{Moment, Objects};
use crate::measure::machine;

/// What one part of a run took.
pub(super) struct PartCost {
    took: Duration,
    slices: u64,
    services: u64,
    kube_proxy: Duration,
    controller: Duration,
    resident: u64,
}

impl PartCost {
    pub(super) fn between(begun: &Moment, done: &Moment) -> Self {
        Self {
            took: done.at.saturating_duration_since(begun.at),
            slices: done.writes.slices - begun.writes.slices,
            services: done.writes.services - begun.writes.services,
            kube_proxy: done.kube_proxy - begun.kube_proxy,
            controller: done.controller - begun.controller,
            resident: done.resident,
        }
    }
}

impl fmt::Display for PartCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} | {} | {} | {:.1} | {} | {:.1}",
            self.took.as_secs_f64(),
            self.slices,
            self.services,
            self.kube_proxy.as_secs_f64(),
            self.resident >> 20,
            self.controller.as_secs_f64()
        )
    }
}

/// With one budget.
pub(super) struct Run {
    pub(super) budget: u32,
    /// Whether addresses list a few proxies.
    pub(super) few: bool,
    pub(super) objects: Objects,
    pub(super) given: PartCost,
    pub(super) rolled: PartCost,
}

impl Run {
    fn name(&self) -> String {
        let what = if self.few { "a few proxies of each zone" } else { "every proxy" };
        format!("{what} (`--own-budget {}`)", self.budget)
    }
}

/// All that was seen.
pub(super) struct OwnReport {
    pub(super) services: usize,
    pub(super) proxies: usize,
    pub(super) rollout: usize,
    pub(super) at_once: usize,
    pub(super) runs: Vec<Run>,
}

impl fmt::Display for OwnReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n| objects | Services | EndpointSlices | endpoints in them |\n|---|---:|---:|---:|")?;
        for run in &self.runs {
            let Objects { services, slices, endpoints, .. } = run.objects;
            writeln!(f, "| {} | {services} | {slices} | {endpoints} |", run.name())?;
        }
        writeln!(
            f,
            "\n| | until done (s) | writes of EndpointSlices | of Services | kube-proxy CPU (s) | kube-proxy memory (MiB) \
             | controller CPU (s) |\n|---|---:|---:|---:|---:|---:|---:|"
        )?;
        for run in &self.runs {
            writeln!(f, "| all given, {} | {} |", run.name(), run.given)?;
        }
        for run in &self.runs {
            writeln!(f, "| rollout, {} | {} |", run.name(), run.rolled)?;
        }
        writeln!(
            f,
            "\n{} TCP Services on one port, {} proxies in 3 zones, of which {} were replaced, {} at once; {}.",
            self.services,
            self.proxies,
            self.rollout,
            self.at_once,
            machine()
        )
    }
}
