//! What is to be said, what was said when, and what may be said now. No clock, no network.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use maesh_compiler::diagnostic::ObjectRef;

use super::Note;

/// An Event of something that stands is renewed this often: the API server forgets Events after an hour.
pub(super) const RENEW: Duration = Duration::from_secs(30 * 60);
/// What happened once, and happens again within this time, is not said again.
const AGAIN: Duration = Duration::from_secs(10 * 60);
/// Pause before what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Events of one object: so many at once, then one in each of these times.
const OBJECT: (u32, Duration) = (10, Duration::from_secs(60));
/// Events of all objects, likewise.
const ALL: (u32, Duration) = (50, Duration::from_millis(200));

/// Grants so many at once, then one in each period.
#[derive(Debug)]
struct EventBucket {
    burst: u32,
    period: Duration,
    left: u32,
    /// Since when the next one fills up.
    since: Instant,
}

impl EventBucket {
    fn new((burst, period): (u32, Duration), now: Instant) -> Self {
        Self { burst, period, left: burst, since: now }
    }

    fn is_open(&mut self, now: Instant) -> bool {
        while self.left < self.burst && now.saturating_duration_since(self.since) >= self.period {
            self.left += 1;
            self.since += self.period;
        }
        if self.left == self.burst {
            self.since = now;
        }
        self.left > 0
    }

    fn take(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

#[derive(Debug)]
struct Entry {
    /// It goes on until it is cleared.
    stands: bool,
    /// When it was taken in.
    since: Instant,
    /// When it is to be said, again if it was; `None`: never again.
    due: Option<Instant>,
}

/// Everything that stands, or just happened.
#[derive(Debug)]
pub(super) struct Ledger {
    entries: BTreeMap<Note, Entry>,
    objects: HashMap<ObjectRef, EventBucket>,
    all: EventBucket,
}

impl Ledger {
    pub(super) fn new(now: Instant) -> Self {
        Self { entries: BTreeMap::new(), objects: HashMap::new(), all: EventBucket::new(ALL, now) }
    }

    /// Something holds from now on. Said already, it is not said again.
    pub(super) fn stands(&mut self, note: Note, now: Instant) {
        self.entries.entry(note).or_insert(Entry { stands: true, since: now, due: Some(now) }).stands = true;
    }

    /// It holds no longer: nothing is said of that, and nothing more of it.
    pub(super) fn cleared(&mut self, note: &Note) {
        self.entries.remove(note);
    }

    /// Something happened.
    pub(super) fn happened(&mut self, note: Note, now: Instant) {
        self.forget(now);
        self.entries.entry(note).or_insert(Entry { stands: false, since: now, due: Some(now) });
    }

    /// What is to be written now, if anything is due and allowed. Counts as written in the limits.
    pub(super) fn next(&mut self, now: Instant) -> Option<Note> {
        self.forget(now);
        if !self.all.is_open(now) {
            return None;
        }
        for (note, entry) in &mut self.entries {
            if entry.due.is_none_or(|due| due > now) {
                continue;
            }
            let bucket = self.objects.entry(note.object.clone()).or_insert_with(|| EventBucket::new(OBJECT, now));
            if bucket.is_open(now) {
                bucket.take();
                self.all.take();
                return Some(note.clone());
            }
        }
        None
    }

    /// It is written, or never will be.
    pub(super) fn done(&mut self, note: &Note, now: Instant) {
        if let Some(entry) = self.entries.get_mut(note) {
            entry.due = entry.stands.then(|| now + RENEW);
        }
    }

    /// It could not be written.
    pub(super) fn failed(&mut self, note: &Note, now: Instant) {
        if let Some(entry) = self.entries.get_mut(note) {
            entry.due = Some(now + RETRY);
        }
    }

    fn forget(&mut self, now: Instant) {
        self.entries.retain(|_, entry| entry.stands || now.saturating_duration_since(entry.since) < AGAIN);
        self.objects.retain(|_, bucket| bucket.is_open(now) && bucket.left < bucket.burst || bucket.left == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duties::events::Tone;

    fn note(object: &str, text: &str) -> Note {
        Note {
            object: ObjectRef::new("Service", "shop", object),
            uid: None,
            tone: Tone::Warning,
            reason: "InvalidAnnotation".into(),
            text: text.into(),
        }
    }

    /// What is written from `from` to `to` seconds, looked at every second.
    fn said(ledger: &mut Ledger, start: Instant, from: u64, to: u64) -> Vec<String> {
        let mut said = Vec::new();
        for second in from..=to {
            let now = start + Duration::from_secs(second);
            while let Some(note) = ledger.next(now) {
                ledger.done(&note, now);
                said.push(format!("{second}: {}", note.text));
            }
        }
        said
    }

    #[test]
    fn what_stands_is_said_once_and_renewed() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        for second in 0..100 {
            ledger.stands(note("web", "bad"), start + Duration::from_secs(second));
        }
        assert_eq!(said(&mut ledger, start, 0, 4000), ["0: bad", "1800: bad", "3600: bad"]);
        ledger.cleared(&note("web", "bad"));
        assert!(said(&mut ledger, start, 4001, 8000).is_empty(), "cleared: nothing more");
    }

    #[test]
    fn what_happened_is_said_once_in_ten_minutes() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        let mut all = Vec::new();
        for second in 0..1300 {
            ledger.happened(note("coredns", "reverted"), start + Duration::from_secs(second));
            all.extend(said(&mut ledger, start, second, second));
        }
        assert_eq!(all, ["0: reverted", "600: reverted", "1200: reverted"]);
    }

    #[test]
    fn what_cannot_be_written_is_tried_again() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        ledger.stands(note("web", "bad"), start);
        let found = ledger.next(start).unwrap();
        ledger.failed(&found, start);
        assert_eq!(said(&mut ledger, start, 1, 10), ["5: bad"]);
    }

    #[test]
    fn one_object_and_all_together_have_a_limit() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        for number in 0..30 {
            ledger.stands(note("web", &format!("{number}")), start);
        }
        assert_eq!(said(&mut ledger, start, 0, 59).len(), 10, "at once");
        assert_eq!(said(&mut ledger, start, 60, 299).len(), 4, "then one a minute");

        let mut ledger = Ledger::new(start);
        for number in 0..200 {
            ledger.stands(note(&format!("web-{number}"), "bad"), start);
        }
        assert_eq!(said(&mut ledger, start, 0, 0).len(), 50, "at once");
        assert_eq!(said(&mut ledger, start, 1, 10).len(), 50, "then five a second");
        assert_eq!(said(&mut ledger, start, 11, 60).len(), 100, "and all in the end");
    }

    #[test]
    fn a_value_that_changes_all_the_time_is_held_back() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        let mut all = 0;
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            ledger.stands(note("web", &format!("{second}")), now);
            all += said(&mut ledger, start, second, second).len();
            ledger.cleared(&note("web", &format!("{second}")));
        }
        assert_eq!(all, 19, "ten at once, and one in each of the nine minutes that follow");
    }
}
