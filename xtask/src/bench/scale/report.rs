//! What the bench prints: every figure beside what it must and should be.

use std::{fmt, time::Duration};

use super::{CHANGE, Changes, FirstUse, ROLES, cluster::Layout, endpoints, roles::Memory};
use crate::measure::{machine, mebibytes};

/// Durations in order of size.
pub(super) struct Times(Vec<Duration>);

impl Times {
    pub(super) fn new(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }

    /// The time that `percent` of all do not exceed, in ms; of none, not a number.
    fn percentile(&self, percent: usize) -> f64 {
        let nth = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(nth).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} | {:.1} | {:.1}", self.percentile(50), self.percentile(99), self.percentile(100))
    }
}

/// All that was seen.
pub(super) struct ScaleReport {
    pub(super) layout: Layout,
    pub(super) pods: bool,
    pub(super) used: usize,
    pub(super) wrote: Duration,
    /// Each role, from its start until it was ready.
    pub(super) synced: Vec<Duration>,
    /// A dns and a proxy that joined later.
    pub(super) joined: Vec<Duration>,
    /// After the sync, with Services in use, after the writes; each role's.
    pub(super) memory: [Vec<Memory>; 3],
    pub(super) first: FirstUse,
    pub(super) changes: Changes,
    /// Processor time of each role while the writes ran.
    pub(super) busy: Vec<Duration>,
    /// Requests that the backend answered.
    pub(super) backend: usize,
}

impl ScaleReport {
    /// Whether nothing that must be is missing: memory at its highest stage, the time of a change, no failed request.
    pub(super) fn all_musts_met(&self) -> bool {
        let memory = ROLES.iter().enumerate().all(|(role, (_, figure))| figure.is_met(self.highest(role)));
        let failed = self.first.failures.len() + self.changes.failures.len();
        memory && failed == 0 && CHANGE.is_met(self.changes.used.percentile(99))
    }

    /// The most that a role had resident at the end of a stage, in MiB.
    fn highest(&self, role: usize) -> f64 {
        let stages = self.memory.iter().filter_map(|stage| stage.get(role));
        stages.map(|memory| mebibytes(memory.resident)).fold(0.0, f64::max)
    }

    fn memory_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [sync, used, written] = &self.memory;
        writeln!(
            f,
            "| memory (MiB) | after sync | in use | after writes | peak | must (goal) |\n|---|---:|---:|---:|---:|---|"
        )?;
        let stages = sync.iter().zip(used).zip(written);
        for (role, (((sync, used), written), (name, figure))) in stages.zip(ROLES).enumerate() {
            let now = [sync, used, written].map(|memory| mebibytes(memory.resident));
            let (peak, verdict) = (mebibytes(written.peak.max(written.resident)), figure.judge(self.highest(role)));
            writeln!(f, "| {name} | {:.0} | {:.0} | {:.0} | {peak:.0} | {verdict} |", now[0], now[1], now[2])?;
        }
        Ok(())
    }

    fn failures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, changes) = (&self.first.failures, &self.changes.failures);
        let (asked, changing) = (self.used, self.changes.requests);
        writeln!(
            f,
            "failed requests: {} of {asked} first ones, {} of {changing} during the writes",
            first.len(),
            changes.len()
        )?;
        first.iter().chain(changes).take(10).try_for_each(|failure| writeln!(f, "  {failure}"))
    }
}

impl fmt::Display for ScaleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds =
            |times: &[Duration]| times.iter().map(|time| format!("{:.1} s", time.as_secs_f64())).collect::<Vec<_>>();
        writeln!(f, "\n| first full sync | |\n|---|---:|")?;
        for ((name, _), time) in ROLES.iter().zip(seconds(&self.synced)) {
            writeln!(f, "| {name}, all started at once | {time} |")?;
        }
        for (name, time) in ["dns", "proxy"].iter().zip(seconds(&self.joined)) {
            writeln!(f, "| {name} that joins later | {time} |")?;
        }
        writeln!(f)?;
        self.memory_table(f)?;
        writeln!(f, "\n| time (ms) | p50 | p99 | max | must (goal) |\n|---|---:|---:|---:|---|")?;
        writeln!(
            f,
            "| write sent until used | {} | {} |",
            self.changes.used,
            CHANGE.judge(self.changes.used.percentile(99))
        )?;
        writeln!(f, "| write answered until used | {} | |", self.changes.after_answer)?;
        writeln!(f, "| write sent until answered | {} | |", self.changes.answered)?;
        writeln!(f, "| first request to a Service | {} | |", self.first.times)?;
        writeln!(f)?;
        self.failures(f)?;
        let busy: Vec<String> =
            ROLES.iter().zip(seconds(&self.busy)).map(|((name, _), time)| format!("{name} {time}")).collect();
        writeln!(
            f,
            "processor time during the writes: {}; the backend answered {} requests",
            busy.join(", "),
            self.backend
        )?;
        let (services, pods) = (self.layout.services, if self.pods { "a Pod each" } else { "no Pods" });
        writeln!(
            f,
            "{services} Services, {} endpoints, {pods}, written in {:.0} s; {} Services in use; {} writes; {}.",
            endpoints(services),
            self.wrote.as_secs_f64(),
            self.used,
            self.changes.used.0.len(),
            machine()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_seen() {
        let times = |count: u64| Times::new((1..=count).rev().map(Duration::from_millis).collect());
        assert_eq!(times(1_000).to_string(), "500.0 | 990.0 | 1000.0");
        assert_eq!(times(1).to_string(), "1.0 | 1.0 | 1.0");
        assert!(Times::new(Vec::new()).percentile(99).is_nan());
    }
}
