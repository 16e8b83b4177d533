//! Log lines at most once in a while, above all those that say why connections cannot be accepted.
//!
//! A process without a free file fails to accept ten or twenty times a second for as long as callers wait, on every port.

use std::{
    collections::HashMap,
    hash::Hash,
    io,
    time::{Duration, Instant},
};

/// Shortest time between two messages.
const PAUSE: Duration = Duration::from_secs(30);

/// Whether to log what happens again and again: at most once in a while.
#[derive(Debug, Default)]
pub struct LogLimit {
    logged: Option<Instant>,
    left_out: u64,
}

impl LogLimit {
    /// It happened at `now`. If it is to be logged: how often it happened since the last message without one.
    pub fn note(&mut self, now: Instant) -> Option<u64> {
        if self.is_recent(now) {
            self.left_out += 1;
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }

    fn is_recent(&self, now: Instant) -> bool {
        self.logged.is_some_and(|logged| now.duration_since(logged) < PAUSE)
    }
}

/// The same for each of many things.
#[derive(Debug)]
pub struct LogLimits<K> {
    limits: HashMap<K, LogLimit>,
    most: usize,
    /// What there is no room for.
    further: LogLimit,
}

/// Whether to log something of one thing of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogNote {
    /// Yes, and so often it happened since the last message without one.
    Log(u64),
    /// There are too many things, so of some nothing is logged. This is to be said; so often it happened since that was said.
    Further(u64),
    /// No.
    Nothing,
}

impl<K: Eq + Hash> LogLimits<K> {
    /// Remembers as many as `most`. Of more than that nothing is logged until one has been silent for a while.
    pub fn of(most: usize) -> Self {
        Self { limits: HashMap::new(), most, further: LogLimit::default() }
    }

    /// As [`LogLimit::note`], for `key`.
    pub fn note(&mut self, key: K, now: Instant) -> LogNote {
        if self.limits.len() >= self.most && !self.limits.contains_key(&key) {
            self.limits.retain(|_, limit| limit.is_recent(now));
            if self.limits.len() >= self.most {
                return self.further.note(now).map_or(LogNote::Nothing, LogNote::Further);
            }
        }
        self.limits.entry(key).or_default().note(now).map_or(LogNote::Nothing, LogNote::Log)
    }

    /// Whether nothing of it was logged for a while.
    pub fn is_silent(&self, now: Instant) -> bool {
        !self.limits.values().any(|limit| limit.is_recent(now))
    }
}

/// What went wrong on the ports of one kind.
#[derive(Debug)]
pub struct AcceptFailures {
    /// Whose connections these are.
    of: &'static str,
    limit: LogLimit,
}

impl AcceptFailures {
    /// Nothing went wrong with the connections of these.
    pub const fn new(of: &'static str) -> Self {
        Self { of, limit: LogLimit { logged: None, left_out: 0 } }
    }

    /// Logs `error`, if there was no message for a while.
    pub fn log(&mut self, error: &io::Error) {
        if let Some(left_out) = self.limit.note(Instant::now()) {
            let (of, advice) = (self.of, advice(error));
            tracing::warn!(%error, left_out, "cannot accept connections of {of}; trying again.{advice}");
        }
    }
}

/// What to do about it.
fn advice(error: &io::Error) -> &'static str {
    // The numbers are those of Linux.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    match error.raw_os_error() {
        Some(EMFILE) => {
            " Raise the process's limit of open files (`ulimit -n`; `LimitNOFILE` of the container runtime)"
        }
        Some(ENFILE) => " Raise the machine's limit of open files (sysctl `fs.file-max`)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_many_things_has_its_own_limit() {
        const MOST: usize = 100;
        let (mut limits, start) = (LogLimits::of(MOST), Instant::now());
        assert!((0..MOST).all(|key| limits.note(key, start) == LogNote::Log(0)));
        assert_eq!(limits.note(7, start), LogNote::Nothing);
        assert_eq!(limits.note(MOST, start), LogNote::Further(0), "there is no room");
        let later = start + PAUSE;
        assert_eq!(limits.note(7, later), LogNote::Log(1));
        assert_eq!(limits.note(MOST, later), LogNote::Log(0), "the others have been silent");
    }

    #[test]
    fn messages_are_apart_and_say_how_many_are_between() {
        let (mut limit, begin) = (LogLimit::default(), Instant::now());
        let logged = (0..700).map(|tenth| limit.note(begin + Duration::from_millis(100) * tenth));
        assert_eq!(logged.flatten().collect::<Vec<_>>(), [0, 299, 299]);
    }

    #[test]
    fn what_to_raise() {
        for (number, want) in [(24, "ulimit -n"), (23, "fs.file-max")] {
            assert!(advice(&io::Error::from_raw_os_error(number)).contains(want), "{number}");
        }
        assert_eq!(advice(&io::ErrorKind::OutOfMemory.into()), "");
    }
}
