//! When what a replica knows of the cluster is too old for others to begin with.
//!
//! A replica that is cut off from the API server goes on serving whoever it serves, and refuses new subscribers: another
//! replica may know more. Subscribers that every replica refuses come back after a while and take what there is.

use std::sync::Arc;

use tokio::time::{Duration, Instant, sleep};

use super::Watches;

/// How old what was seen may be.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    /// Where a watch fails: this long after the API server was last heard.
    pub failing: Duration,
    /// Where it is only silent. A good watch is begun anew every minute, and so heard that often.
    pub silent: Duration,
    /// How often it is looked at.
    pub look: Duration,
}

impl Default for Freshness {
    fn default() -> Self {
        Self { failing: Duration::from_secs(30), silent: Duration::from_secs(90), look: Duration::from_secs(1) }
    }
}

impl Watches {
    /// Why what was seen of the cluster is too old at `now`; `None` while it is not. Kinds that were never listed are
    /// not looked at: some may not be read at all.
    pub fn stale(&self, fresh: Freshness, now: Instant) -> Option<String> {
        let states = self.0.states.lock();
        let mut listed = states.iter().filter(|(_, state)| state.watch.synced);
        listed.find_map(|(kind, state)| {
            let limit = if state.watch.error.is_some() { fresh.failing } else { fresh.silent };
            let silence = now.saturating_duration_since(state.heard?);
            (silence > limit).then(|| {
                let why = state.watch.error.as_deref().unwrap_or("the watch is silent");
                format!("{kind}s were last heard of {} s ago: {why}", silence.as_secs())
            })
        })
    }
}

/// Says why what was seen is too old whenever that begins, and `None` whenever it ends, until it is dropped.
pub async fn follow_staleness(watches: Watches, fresh: Freshness, mut tell: impl FnMut(Option<Arc<str>>)) {
    let mut stale = false;
    loop {
        let why = watches.stale(fresh, Instant::now());
        if why.is_some() != stale {
            stale = why.is_some();
            match &why {
                Some(why) => {
                    tracing::warn!(why, "what is known of the cluster is old; new subscribers are sent elsewhere");
                }
                None => tracing::info!("what is known of the cluster is fresh again"),
            }
            tell(why.map(Arc::from));
        }
        sleep(fresh.look).await;
    }
}

#[cfg(test)]
mod tests {
    use maesh_compiler::kinds::ObjectKind;

    use super::*;

    #[test]
    fn what_is_too_old() {
        let fresh = Freshness::default();
        let seconds = Duration::from_secs;
        for (case, synced, error, silent_for, want) in [
            ("just heard", true, false, 0, false),
            ("silent between two watches", true, false, 70, false),
            ("silent for longer", true, false, 91, true),
            ("failing for a moment", true, true, 5, false),
            ("failing for long", true, true, 31, true),
            ("never listed: perhaps not allowed", false, true, 1000, false),
        ] {
            let (watches, heard) = (Watches::default(), Instant::now());
            watches.change(ObjectKind::Service, |state| {
                (state.watch.synced, state.heard) = (synced, Some(heard));
                state.watch.error = error.then(|| "no route to host".into());
            });
            let stale = watches.stale(fresh, heard + seconds(silent_for));
            assert_eq!(stale.is_some(), want, "{case}: {stale:?}");
        }
        let text = "Services were last heard of 31 s ago: no route to host";
        let watches = Watches::default();
        let heard = Instant::now();
        watches.change(ObjectKind::Service, |state| {
            (state.watch.synced, state.heard) = (true, Some(heard));
            state.watch.error = Some("no route to host".into());
        });
        assert_eq!(watches.stale(fresh, heard + seconds(31)).as_deref(), Some(text));
    }
}
