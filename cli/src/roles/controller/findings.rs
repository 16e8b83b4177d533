//! Says what is wrong with users' objects, and what is mended: as Events in a cluster, and in the log.
//!
//! A thousand bad annotations are a thousand Events, each on its object, but not a thousand lines in the log of every
//! controller: so many are logged one by one, the rest is summed up by reason.

use std::{collections::BTreeMap, time::Duration};

use maesh_compiler::diagnostic::{Diagnostic, Reason};
use maesh_controller::{duties::events::Recorder, serve::Published};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// Findings logged one by one: so many at once, then one in each of these times.
const BURST: u32 = 20;
const PERIOD: Duration = Duration::from_secs(10);
/// How often the rest is summed up.
const SUM: Duration = Duration::from_secs(10);

/// Logs and records all findings that are published, until the controller ends.
pub async fn report(mut published: mpsc::UnboundedReceiver<Published>, recorder: Option<Recorder>) {
    let mut log = Log::new(Instant::now());
    loop {
        let due = log.due;
        let sum = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            published = published.recv() => {
                let Some(Published { output, .. }) = published else { return };
                for found in &output.found {
                    recorder.iter().for_each(|recorder| recorder.found(found));
                    if log.takes(found, Said::Found, Instant::now()) {
                        tracing::warn!(object = %found.object, reason = %found.reason, "{}", found.message);
                    }
                }
                for cleared in &output.cleared {
                    recorder.iter().for_each(|recorder| recorder.cleared(cleared));
                    if log.takes(cleared, Said::Mended, Instant::now()) {
                        tracing::info!(object = %cleared.object, reason = %cleared.reason, "mended");
                    }
                }
            }
            () = sum => {
                for ((said, reason), count) in log.sum() {
                    match said {
                        Said::Found => tracing::warn!(%reason, count, "more of the same; /api/diagnostics lists all"),
                        Said::Mended => tracing::info!(%reason, count, "more of the same mended"),
                    }
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Found,
    Mended,
}

/// What the log takes. No clock.
struct Log {
    /// When all permits are there again.
    full_at: Instant,
    held: BTreeMap<(Said, Reason), usize>,
    /// When what is held is to be summed up.
    due: Option<Instant>,
}

impl Log {
    fn new(now: Instant) -> Self {
        Self { full_at: now, held: BTreeMap::new(), due: None }
    }

    /// Whether `what` is a line of its own; else it counts in the next sum.
    fn takes(&mut self, what: &Diagnostic, said: Said, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + PERIOD;
        if full_at <= now + PERIOD * BURST {
            self.full_at = full_at;
            return true;
        }
        *self.held.entry((said, what.reason)).or_default() += 1;
        self.due.get_or_insert(now + SUM);
        false
    }

    /// What was held back, by reason.
    fn sum(&mut self) -> BTreeMap<(Said, Reason), usize> {
        self.due = None;
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use maesh_compiler::diagnostic::ObjectRef;

    use super::*;

    #[test]
    fn a_thousand_findings_are_a_few_lines() {
        let now = Instant::now();
        let mut log = Log::new(now);
        let bad =
            |n: usize, reason| Diagnostic::warning(reason, ObjectRef::new("Service", "shop", &n.to_string()), "bad");
        let lines = (0..1000).filter(|n| log.takes(&bad(*n, Reason::InvalidAnnotation), Said::Found, now)).count();
        assert_eq!(lines, 20);
        assert_eq!(log.due, Some(now + SUM));
        assert!(!log.takes(&bad(0, Reason::InvalidPort), Said::Mended, now));
        let sum: Vec<_> = log.sum().into_iter().collect();
        let want = [((Said::Found, Reason::InvalidAnnotation), 980), ((Said::Mended, Reason::InvalidPort), 1)];
        assert_eq!(sum, want);
        assert!(log.due.is_none() && log.sum().is_empty());
        assert!(log.takes(&bad(0, Reason::InvalidPort), Said::Found, now + PERIOD), "a permit came back");
    }
}
