//! How often policies acted.
//!
//! Kept with the state of the port that they act on, and read when metrics are asked for: counting costs one addition, and
//! the counts of what is gone go with it.

use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

/// What policies of the port that is called did to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum CalledEvent {
    /// It was tried again because no connection was made.
    RetriedConnect,
    /// It was tried again because a connection ended before the response began.
    RetriedClosed,
    /// It was tried again because the annotation `retry-on` asks for it.
    RetriedPolicy,
    /// A second attempt was made because the first one was slow.
    Hedged,
    /// The second attempt was the one that answered.
    HedgeWon,
    /// A copy was sent.
    Mirrored,
    /// A copy was left out.
    MirrorLeftOut,
    /// It was delayed on purpose.
    Delayed,
    /// It was refused on purpose.
    Aborted,
}

/// What became of attempts on the endpoints of a backend port, and what its policies did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum BackendEvent {
    /// An endpoint was left out because it failed several times in a row.
    Ejected,
    /// A request was refused: its caller has its part of the places.
    CallerFull,
    /// A request was refused: no place was free, and there is no queue.
    Full,
    /// A request was refused: no place was free, and the queue was full.
    QueueFull,
    /// A request was refused: no place was free in time.
    WaitedTooLong,
    /// An endpoint answered an attempt with a status of this class.
    Answered1xx,
    Answered2xx,
    Answered3xx,
    Answered4xx,
    Answered5xx,
    /// An attempt ended without an answer.
    Failed,
}

impl BackendEvent {
    /// The class of a status, by its first digit.
    pub(crate) fn answered(status: StatusCode) -> Self {
        match status.as_u16() / 100 {
            1 => Self::Answered1xx,
            2 => Self::Answered2xx,
            3 => Self::Answered3xx,
            4 => Self::Answered4xx,
            _ => Self::Answered5xx,
        }
    }
}

/// Number of events of the longer list.
const MOST: usize = BackendEvent::Failed as usize + 1;

/// Counts by event.
#[derive(Debug, Default)]
pub(crate) struct Counts([AtomicU64; MOST]);

impl Counts {
    /// Counts one of an event.
    pub(crate) fn add(&self, event: impl Into<usize>) {
        if let Some(count) = self.0.get(event.into()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many there were.
    pub(crate) fn get(&self, event: impl Into<usize>) -> u64 {
        self.0.get(event.into()).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

impl From<CalledEvent> for usize {
    fn from(event: CalledEvent) -> Self {
        event as Self
    }
}

impl From<BackendEvent> for usize {
    fn from(event: BackendEvent) -> Self {
        event as Self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_is_counted() {
        let counts = Counts::default();
        for (last, other) in [
            (usize::from(CalledEvent::Aborted), usize::from(CalledEvent::Delayed)),
            (BackendEvent::Failed.into(), usize::from(BackendEvent::Full)),
        ] {
            counts.add(last);
            assert_eq!((counts.get(last), counts.get(other)), (1, 0));
        }
    }
}
