//! The units of dashboards.

use anyhow::{Context, Result};

/// A unit, as Grafana calls it, and its scales: from which value on which.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit(&'static [(f64, Scale)]);

/// What values are divided by, and what stands after them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub(super) factor: f64,
    suffix: &'static str,
}

/// Each scale from the value on at which it has whole numbers, or from a later one.
const UNITS: [(&str, &[(f64, Scale)]); 8] = [
    ("short", &[(0.0, scale(1.0, "")), (1e4, scale(1e3, " k")), (1e6, scale(1e6, " M"))]),
    ("reqps", &[(0.0, scale(1.0, " req/s")), (1e4, scale(1e3, " k req/s"))]),
    ("ops", &[(0.0, scale(1.0, " ops/s")), (1e4, scale(1e3, " k ops/s"))]),
    ("cps", &[(0.0, scale(1.0, " c/s"))]),
    ("pps", &[(0.0, scale(1.0, " p/s"))]),
    ("percentunit", &[(0.0, scale(0.01, " %"))]),
    ("Bps", &[(0.0, scale(1.0, " B/s")), (1e3, scale(1e3, " kB/s")), (1e6, scale(1e6, " MB/s"))]),
    ("bytes", &[(0.0, scale(1.0, " B")), (1024.0, scale(1024.0, " KiB")), (1_048_576.0, scale(1_048_576.0, " MiB"))]),
];
const SECONDS: &[(f64, Scale)] = &[
    (0.0, scale(1.0, " s")),
    (f64::MIN_POSITIVE, scale(1e-3, " ms")),
    (1.0, scale(1.0, " s")),
    (120.0, scale(60.0, " min")),
    (7_200.0, scale(3_600.0, " h")),
    (172_800.0, scale(86_400.0, " days")),
];

const fn scale(factor: f64, suffix: &'static str) -> Scale {
    Scale { factor, suffix }
}

impl Unit {
    /// The one that Grafana calls so.
    pub(super) fn named(name: &str) -> Result<Self> {
        if name == "s" {
            return Ok(Self(SECONDS));
        }
        let found = UNITS.iter().find(|(unit, _)| *unit == name);
        found.map(|(_, scales)| Self(scales)).with_context(|| format!("the unit {name} is not known here"))
    }

    /// The scale for values up to `greatest`.
    pub(super) fn scale(self, greatest: f64) -> Scale {
        self.0.iter().rev().find(|(from, _)| greatest >= *from).map_or(self.0[0].1, |(_, scale)| *scale)
    }
}

impl Scale {
    /// A value with so many digits after the point at most.
    pub(super) fn text(self, value: f64, digits: usize) -> String {
        let number = format!("{:.digits$}", value / self.factor);
        let number = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
        format!("{number}{}", self.suffix)
    }
}
