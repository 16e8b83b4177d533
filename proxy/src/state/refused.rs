//! Listeners that could not be opened, and when each is tried again.
//!
//! What stands in the way may pass without any change of the configuration: another process has the port, or there are
//! too many open files. The pause doubles with every try. A round tries a bounded number, those that have waited the
//! longest first, because the task that opens listeners also puts the configuration in force.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use maesh_config::model::Listener;

/// The pause before the first new try; it doubles with every one ...
const FIRST: Duration = Duration::from_secs(1);
/// ... up to this.
const LAST: Duration = Duration::from_secs(30);
/// Listeners that are tried in one round.
const ROUND: usize = 64;

/// The listeners that wait for another try, by identity.
#[derive(Default)]
pub(super) struct RefusedListeners(HashMap<Arc<str>, RefusedListener>);

struct RefusedListener {
    listener: Arc<Listener>,
    message: String,
    pause: Duration,
    due: Instant,
}

impl RefusedListeners {
    /// Notes that `listener` could not be opened at `now`. Whether that, or the reason, is news.
    pub(super) fn insert(&mut self, listener: Arc<Listener>, message: &str, now: Instant) -> bool {
        let before = self.0.remove(&listener.id.0);
        let pause = before.as_ref().map_or(FIRST, |before| (before.pause * 2).min(LAST));
        let is_news = before.is_none_or(|before| before.message != message);
        let id = listener.id.0.clone();
        self.0.insert(id, RefusedListener { listener, message: message.to_owned(), pause, due: now + pause });
        is_news
    }

    /// The listener was opened, or is not wanted any more. Whether it was waiting.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        self.0.remove(id).is_some()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Those that are due at `now`. They stay until they are removed.
    pub(super) fn due(&self, now: Instant) -> Vec<Arc<Listener>> {
        let mut due: Vec<_> = self.0.values().filter(|entry| entry.due <= now).collect();
        due.sort_unstable_by_key(|entry| entry.due);
        due.into_iter().take(ROUND).map(|entry| entry.listener.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use maesh_config::model::{Bind, ListenerId, Transport};

    use super::*;

    fn listener(port: u16) -> Arc<Listener> {
        let id = ListenerId::new(Bind::Shared, port, Transport::Tcp);
        let (hosts, sni) = (Vec::new(), Vec::new());
        let transport = Transport::Tcp;
        Arc::new(Listener { id, bind: Bind::Shared, port, transport, owner: None, http: true, tls: false, hosts, sni })
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let (mut refused, begin) = (RefusedListeners::default(), Instant::now());
        let mut now = begin;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            refused.insert(listener(80), "taken", now);
            assert!(refused.due(now).is_empty());
            let pause = (1..).map(Duration::from_secs).find(|pause| !refused.due(now + *pause).is_empty());
            pauses.push(pause.expect("a pause").as_secs());
            now += pause.expect("a pause");
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert!(refused.remove("shared/80/tcp") && !refused.remove("shared/80/tcp"));
        refused.insert(listener(80), "taken", now);
        assert_eq!(refused.due(now + FIRST).len(), 1, "it begins anew");
    }

    #[test]
    fn only_what_changes_is_news() {
        let (mut refused, now) = (RefusedListeners::default(), Instant::now());
        let news = ["taken", "taken", "no right", "no right"].map(|why| refused.insert(listener(80), why, now));
        assert_eq!(news, [true, false, true, false]);
    }

    #[test]
    fn a_round_is_bounded_and_all_get_their_turn() {
        let (mut refused, mut now) = (RefusedListeners::default(), Instant::now());
        for port in 1..=150 {
            refused.insert(listener(port), "taken", now);
        }
        now += FIRST;
        let mut tried = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let due = refused.due(now);
            assert!(due.len() <= ROUND);
            for listener in due {
                tried.insert(listener.port);
                refused.insert(listener, "taken", now);
            }
        }
        assert_eq!(tried.len(), 150);
    }
}
