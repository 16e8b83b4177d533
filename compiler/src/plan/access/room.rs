//! How much the TrafficTargets of one Service may say.

use std::fmt;

use ahash::AHashSet;

use crate::kinds::{HttpRouteMatch, TargetRule, TrafficTarget};

/// Bytes of all that grants for one Service say, on all ports: each change of an endpoint sends them to proxies.
const MOST_BYTES: usize = 512 * 1024;

/// Different regular expressions in the grants for one Service. A proxy makes those ready that a caller's grants have, at its first
/// request.
const MOST_EXPRESSIONS: usize = 256;

/// Bytes that a grant or a rule takes besides its texts.
const OVERHEAD: usize = 16;

/// What the targets that were looked at so far take.
#[derive(Debug, Default)]
pub(super) struct Room {
    bytes: usize,
    expressions: usize,
    /// Matches whose expressions are counted, by where they are held.
    counted: AHashSet<*const HttpRouteMatch>,
}

/// There is no room for one more.
#[derive(Debug)]
pub(super) enum Full {
    Bytes,
    Expressions,
}

impl Room {
    /// For what a rule of a target names.
    pub(super) fn take_rule(&mut self, rule: &TargetRule) -> Result<(), Full> {
        let names = rule.matches.iter().flatten();
        self.take(OVERHEAD + names.map(|name| name.len() + 1).sum::<usize>())
    }

    /// For so many ports of a route.
    pub(super) fn take_ports(&mut self, count: usize) -> Result<(), Full> {
        self.take(2 * count)
    }

    /// For a grant on one port.
    pub(super) fn take_grant(&mut self, target: &TrafficTarget, matches: &[&HttpRouteMatch]) -> Result<(), Full> {
        for one in matches {
            if self.counted.insert(std::ptr::from_ref(*one)) {
                self.expressions += usize::from(one.expressions);
            }
        }
        if self.expressions > MOST_EXPRESSIONS {
            return Err(Full::Expressions);
        }
        let sources = target.sources.iter().map(|it| it.namespace.len() + it.name.len() + 3).sum::<usize>();
        let rules = matches.iter().map(|one| usize::from(one.size) + 3).sum::<usize>();
        self.take(OVERHEAD + target.meta.name.len() + sources + rules)
    }

    fn take(&mut self, bytes: usize) -> Result<(), Full> {
        self.bytes += bytes;
        if self.bytes > MOST_BYTES { Err(Full::Bytes) } else { Ok(()) }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes => write!(f, "take more than {} KiB", MOST_BYTES / 1024),
            Self::Expressions => write!(f, "have more than {MOST_EXPRESSIONS} different regular expressions"),
        }
    }
}
