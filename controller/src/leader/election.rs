//! The election as a state machine: what was seen and when, and what to do about it. No clock, no network.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::LeaseTimes;

/// What a Lease says. An empty holder: it is free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) holder: String,
    pub(super) lease: Duration,
    pub(super) acquired: Option<Timestamp>,
    pub(super) renewed: Option<Timestamp>,
    pub(super) transitions: i32,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Nothing: another leads, or may still do.
    Wait,
    /// Write this into the Lease as it was read.
    Hold(Record),
}

/// What one candidate knows.
#[derive(Debug)]
pub(super) struct Election {
    me: String,
    terms: LeaseTimes,
    /// The last record, and when it was first seen so.
    seen: Option<(Record, Instant)>,
    /// The Lease was there at the last look.
    exists: bool,
    /// Until when this replica may write.
    right_until: Option<Instant>,
}

impl Election {
    pub(super) fn new(me: &str, terms: LeaseTimes) -> Self {
        Self { me: me.to_owned(), terms, seen: None, exists: false, right_until: None }
    }

    /// Until when this replica may write; in the past or `None` if it may not.
    pub(super) fn right_until(&self) -> Option<Instant> {
        self.right_until
    }

    /// The Lease was read, `now` being after the answer. A Lease that somebody deleted is held on to: its leader may
    /// not know yet. That leader writes no more: where the mesh is uninstalled the Lease goes first, and what is written
    /// after it would stay.
    pub(super) fn saw(&mut self, now: Instant, record: Option<&Record>) {
        self.exists = record.is_some();
        if record.is_none_or(|record| record.holder != self.me) {
            self.right_until = None;
        }
        if let Some(record) = record
            && self.seen.as_ref().is_none_or(|(seen, _)| seen != record)
        {
            self.seen = Some((record.clone(), now));
        }
    }

    /// What to do at `now`, which is `wall` for people to read.
    pub(super) fn act(&self, now: Instant, wall: Timestamp) -> Act {
        let fresh = Record {
            holder: self.me.clone(),
            lease: self.terms.lease,
            acquired: Some(wall),
            renewed: Some(wall),
            transitions: 0,
        };
        let Some((seen, at)) = &self.seen else { return Act::Hold(fresh) };
        if seen.holder == self.me && self.exists {
            return Act::Hold(Record { acquired: seen.acquired, transitions: seen.transitions, ..fresh });
        }
        // The length that the holder promised counts, and ours if that is longer: terms may differ between versions.
        let runs_out = *at + seen.lease.max(self.terms.lease);
        if !seen.holder.is_empty() && now < runs_out {
            return Act::Wait;
        }
        let transitions = if self.exists { seen.transitions.saturating_add(1) } else { 0 };
        Act::Hold(Record { transitions, ..fresh })
    }

    /// What [`Self::act`] said was written; the request was sent at `sent`.
    pub(super) fn holds(&mut self, sent: Instant, record: Record) {
        self.right_until = Some(sent + self.terms.right);
        self.seen = Some((record, sent));
    }

    /// Ends the right to write.
    pub(super) fn resign(&mut self) {
        self.right_until = None;
    }

    /// What a Lease of this replica's says once it is free; `None` if it is another's.
    pub(super) fn freed(&self, record: &Record) -> Option<Record> {
        let free = Record { holder: String::new(), lease: Duration::from_secs(1), ..record.clone() };
        (record.holder == self.me).then_some(free)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn held(by: &str, renewed: i64) -> Record {
        let renewed = Timestamp::from_second(renewed).ok();
        Record { holder: by.into(), lease: 15 * SECOND, acquired: None, renewed, transitions: 3 }
    }

    /// Who holds the Lease, seen at these seconds with that renewal; then, at a second: does `a` take it?
    #[test]
    fn a_candidate_takes_only_what_nobody_can_hold() {
        let start = Instant::now();
        for (case, seen, at, want) in [
            ("no Lease", &[(0, None)][..], 0, true),
            ("it is free", &[(0, Some(("", 0)))], 0, true),
            ("another just renewed", &[(0, Some(("b", 0)))], 14, false),
            ("another is silent", &[(0, Some(("b", 0)))], 15, true),
            ("seen late, its age does not count", &[(100, Some(("b", 0)))], 101, false),
            ("it renews all the time", &[(0, Some(("b", 0))), (10, Some(("b", 10)))], 20, false),
            ("it renewed and fell silent", &[(0, Some(("b", 0))), (10, Some(("b", 10)))], 25, true),
            ("the same renewal seen twice", &[(0, Some(("b", 0))), (10, Some(("b", 0)))], 15, true),
            ("deleted under its leader", &[(0, Some(("b", 0))), (5, None)], 6, false),
            ("deleted, and its leader's time is over", &[(0, Some(("b", 0))), (5, None)], 15, true),
            ("it is ours: renew", &[(0, Some(("a", 0)))], 1, true),
            ("it was ours and is deleted: it may be meant", &[(0, Some(("a", 0))), (5, None)], 14, false),
            ("it was ours, and is missed", &[(0, Some(("a", 0))), (5, None)], 15, true),
        ] {
            let mut election = Election::new("a", LeaseTimes::default());
            for (second, record) in seen {
                let record = record.map(|(by, renewed)| held(by, renewed));
                election.saw(start + *second * SECOND, record.as_ref());
            }
            let act = election.act(start + at * SECOND, Timestamp::UNIX_EPOCH);
            assert_eq!(matches!(act, Act::Hold(_)), want, "{case}");
        }
    }

    #[test]
    fn the_right_ends_by_time_by_another_and_by_resigning() {
        let start = Instant::now();
        let mut election = Election::new("a", LeaseTimes::default());
        election.holds(start, held("a", 0));
        assert_eq!(election.right_until(), Some(start + 10 * SECOND));
        election.saw(start + SECOND, Some(&held("b", 1)));
        assert_eq!(election.right_until(), None, "another holds it");
        election.holds(start, held("a", 1));
        election.saw(start + SECOND, None);
        assert_eq!(election.right_until(), None, "it is deleted");
        election.holds(start, held("a", 2));
        assert_eq!(election.freed(&held("b", 3)), None, "what is another's is not given back");
        assert_eq!(election.freed(&held("a", 3)).map(|free| free.holder), Some(String::new()));
        election.resign();
        assert_eq!(election.right_until(), None);
    }

    proptest! {
        /// Three candidates, whose clocks differ, act in any order; requests take any time, fail, or succeed unheard,
        /// and the Lease is now and then freed by its holder. At no moment do two of them have the right to write.
        #[test]
        fn no_two_write_at_once(steps in prop::collection::vec((0..3_usize, 0..4_u64, 0..4_u64, 0..8_u8), 1..200)) {
            let start = Instant::now();
            let offsets = [0, 10_000, 77_777];
            let seconds = Duration::from_secs;
            let mut all: Vec<_> = ["a", "b", "c"].map(|me| Election::new(me, LeaseTimes::default())).into();
            let (mut clock, mut lease): (u64, Option<Record>) = (0, None);
            for (who, idle, takes, fate) in steps {
                clock += idle;
                let local = |clock: u64| start + seconds(clock + offsets[who]);
                all[who].saw(local(clock), lease.as_ref());
                let sent = clock;
                let wall = Timestamp::from_second(clock as i64).unwrap_or_default();
                if let Act::Hold(record) = all[who].act(local(sent), wall) {
                    clock += takes;
                    if fate != 0 {
                        lease = Some(record.clone());
                    }
                    if fate > 1 {
                        all[who].holds(local(sent), record);
                    }
                    if fate == 7 {
                        all[who].resign();
                        lease = lease.and_then(|now| all[who].freed(&now));
                    }
                }
                let has = |who: usize| all[who].right_until().is_some_and(|at| at > start + seconds(clock + offsets[who]));
                let writers: Vec<_> = (0..3).filter(|who| has(*who)).collect();
                prop_assert!(writers.len() <= 1, "{writers:?} at {clock} s");
            }
        }
    }
}
