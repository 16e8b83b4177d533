//! Which files are still being written.
//!
//! Pure: what happened to which path, and when, goes in; which paths may be read comes out.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::SETTLE;

/// A file that is touched again and again is read at least this often.
const AT_LEAST: Duration = Duration::from_secs(1);
/// A file that was written to and not closed, without any further sign of its writer, is read after this long.
const ABANDONED: Duration = Duration::from_secs(30);

/// What is known of paths at which something happened.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// Being written, since the last sign of it.
    open: HashMap<PathBuf, Instant>,
    /// Closed, renamed or deleted: at first, and at last.
    touched: HashMap<PathBuf, (Instant, Instant)>,
}

impl Settling {
    /// Somebody writes to `path`.
    pub(super) fn written(&mut self, path: PathBuf, now: Instant) {
        self.open.insert(path, now);
    }

    /// `path` was closed after writing, renamed, deleted, linked.
    pub(super) fn done(&mut self, path: PathBuf, now: Instant) {
        self.open.remove(&path);
        self.touched.entry(path).or_insert((now, now)).1 = now;
    }

    /// Signs were lost: nothing is known of writers.
    pub(super) fn lost(&mut self) {
        self.open.clear();
    }

    /// Whether `path` must not be read yet.
    pub(super) fn holds(&self, path: &Path, now: Instant) -> bool {
        let being_written = self.open.get(path).is_some_and(|at| now.duration_since(*at) < ABANDONED);
        being_written || self.touched.get(path).is_some_and(|times| now < due(times))
    }

    /// When something that is held may be read next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.touched.values().map(due).chain(self.open.values().map(|at| *at + ABANDONED)).min()
    }

    /// Paths that may be read now and were not before.
    pub(super) fn take(&mut self, now: Instant) -> Vec<PathBuf> {
        let mut ready: Vec<PathBuf> = Vec::new();
        self.touched.retain(|path, times| {
            let held = now < due(times);
            if !held {
                ready.push(path.clone());
            }
            held
        });
        self.open.retain(|path, at| {
            let held = now.duration_since(*at) < ABANDONED;
            if !held {
                ready.push(path.clone());
            }
            held
        });
        ready
    }
}

fn due((first, last): &(Instant, Instant)) -> Instant {
    (*last + SETTLE).min(*first + AT_LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_once_it_was_closed_and_a_while_passed() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let path = PathBuf::from("web.yaml");
        let mut settling = Settling::default();
        settling.written(path.clone(), at(0));
        assert!(settling.holds(&path, at(10_000)), "not closed");
        settling.done(path.clone(), at(10_000));
        assert!(settling.holds(&path, at(10_049)), "closed, but too short ago");
        assert!(settling.take(at(10_049)).is_empty());
        assert_eq!(settling.next(), Some(at(10_050)));
        assert!(!settling.holds(&path, at(10_050)));
        assert_eq!(settling.take(at(10_050)), std::slice::from_ref(&path));
        assert_eq!(settling.next(), None);
    }

    #[test]
    fn a_file_that_never_rests_is_read_now_and_then() {
        let start = Instant::now();
        let path = PathBuf::from("web.yaml");
        let mut settling = Settling::default();
        let mut reads = 0;
        for step in 0..100 {
            let now = start + Duration::from_millis(step * 30);
            reads += settling.take(now).len();
            settling.done(path.clone(), now);
        }
        assert_eq!(reads, 2);
    }

    #[test]
    fn a_writer_that_vanished_is_not_waited_for_forever() {
        let start = Instant::now();
        let path = PathBuf::from("web.yaml");
        let mut settling = Settling::default();
        settling.written(path.clone(), start);
        assert_eq!(settling.next(), Some(start + ABANDONED));
        assert_eq!(settling.take(start + ABANDONED), [path]);
    }
}
