//! How many frames a peer may send that do no work.
//!
//! A frame that neither opens a stream nor carries a byte of a body costs its sender nothing, and the protocol answers as
//! many of them as come. Honest peers send them beside work: WINDOW_UPDATE for what they were sent, PING to
//! measure the connection, SETTINGS and PRIORITY at its beginning. So a connection begins with a number of such frames,
//! and gets more for each request, for what is sent to the peer, and as time passes. A peer that has used up all of
//! them is ended.
//!
//! A caller that resets streams right after it opened them makes work and wants no answer (CVE-2023-44487): each of
//! them costs more than a request gives. Pure.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::frames::FrameCounts;

/// For each request: its own HEADERS, its trailers, a reset, and some more.
const REQUEST: u32 = 8;

/// For each piece that is sent: two WINDOW_UPDATEs, a PING, and one more.
const PIECE: u32 = 4;

/// For so many bytes of a body that the peer sends.
const RECEIVED: usize = 1024;

/// What a request costs that was reset at once, beside its frames.
const ABANDONED: u32 = 9;

/// Most that can be put by: enough for a peer that reads what it was sent only later.
const MOST: u32 = 100_000;

/// What one kind of peer gets.
#[derive(Debug)]
struct Allowance {
    /// At the beginning of a connection, and most for time that has passed.
    free: u32,
    /// For each second.
    per_second: u32,
    /// For so many bytes that are sent to the peer.
    sent: usize,
}

static CALLER: Allowance = Allowance { free: 1_000, per_second: 100, sent: 64 };

/// Endpoints are chosen by whoever runs the cluster, and other callers use the same connection.
static ENDPOINT: Allowance = Allowance { free: 10_000, per_second: 1_000, sent: 8 };

/// The frames without work that one peer may still send on a connection. Used by one thread at a time.
#[derive(Debug)]
pub(crate) struct FrameBudget {
    allowance: &'static Allowance,
    left: AtomicU32,
    /// The time, in milliseconds, up to which frames were given for its passing.
    given: AtomicU32,
    exhausted: AtomicBool,
}

impl FrameBudget {
    /// A connection of a caller that begins `now`, in milliseconds.
    pub(crate) fn of_caller(now: u32) -> Self {
        Self::new(&CALLER, now)
    }

    /// A connection to an endpoint that begins `now`, in milliseconds.
    pub(crate) fn of_endpoint(now: u32) -> Self {
        Self::new(&ENDPOINT, now)
    }

    fn new(allowance: &'static Allowance, now: u32) -> Self {
        Self {
            allowance,
            left: AtomicU32::new(allowance.free),
            given: AtomicU32::new(now),
            exhausted: AtomicBool::new(false),
        }
    }

    /// The peer sent more than it may.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Relaxed)
    }

    /// A request was taken from the peer, or sent to it.
    pub(crate) fn request(&self) {
        self.earn(REQUEST);
    }

    /// A piece of a body was sent to the peer.
    pub(crate) fn sent(&self, bytes: usize) {
        self.earn(PIECE.saturating_add(count(bytes / self.allowance.sent)));
    }

    /// The peer reset a stream right after it had opened it.
    pub(crate) fn abandoned(&self, now: u32) {
        self.spend(ABANDONED, now);
    }

    /// The peer sent these frames.
    pub(crate) fn received(&self, frames: FrameCounts, now: u32) {
        self.earn(count(frames.data / RECEIVED));
        self.spend(frames.without_work, now);
    }

    fn earn(&self, frames: u32) {
        if frames > 0 {
            let left = self.left.load(Ordering::Relaxed);
            self.left.store(left.saturating_add(frames).min(MOST), Ordering::Relaxed);
        }
    }

    fn spend(&self, frames: u32, now: u32) {
        if frames == 0 {
            return;
        }
        let mut left = self.left.load(Ordering::Relaxed);
        if left < frames {
            left += self.for_time(now);
        }
        self.left.store(left.saturating_sub(frames), Ordering::Relaxed);
        if left < frames {
            self.exhausted.store(true, Ordering::Relaxed);
        }
    }

    /// What the time that has passed gives. Only asked for once all else is used up.
    fn for_time(&self, now: u32) -> u32 {
        let passed = now.wrapping_sub(self.given.load(Ordering::Relaxed));
        let frames = u64::from(passed) * u64::from(self.allowance.per_second) / 1000;
        if frames > 0 {
            self.given.store(now, Ordering::Relaxed);
        }
        u32::try_from(frames).unwrap_or(u32::MAX).min(self.allowance.free)
    }
}

fn count(frames: usize) -> u32 {
    u32::try_from(frames).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_work(frames: u32) -> FrameCounts {
        FrameCounts { without_work: frames, data: 0 }
    }

    /// What happens on a connection of a caller, again and again.
    struct Habit {
        case: &'static str,
        /// How often it happens each second.
        per_second: u32,
        once: fn(&FrameBudget, u32),
        is_ended: bool,
    }

    #[test]
    fn floods_are_ended_and_honest_callers_are_not() {
        for Habit { case, per_second, once, is_ended } in [
            Habit {
                case: "PING",
                per_second: 10_000,
                once: |budget, now| budget.received(without_work(1), now),
                is_ended: true,
            },
            Habit {
                case: "PING now and then",
                per_second: 90,
                once: |budget, now| budget.received(without_work(1), now),
                is_ended: false,
            },
            Habit {
                case: "streams that are reset at once",
                per_second: 1_000,
                once: |budget, now| {
                    budget.received(without_work(2), now);
                    budget.request();
                    budget.abandoned(now);
                },
                is_ended: true,
            },
            Habit {
                case: "streams that are reset later",
                per_second: 1_000,
                once: |budget, now| {
                    budget.received(without_work(2), now);
                    budget.request();
                },
                is_ended: false,
            },
            Habit {
                case: "HEADERS above the limit of streams",
                per_second: 1_000,
                once: |budget, now| budget.received(without_work(1), now),
                is_ended: true,
            },
            Habit {
                case: "unary gRPC: HEADERS, DATA, an empty DATA, two WINDOW_UPDATEs, PING",
                per_second: 10_000,
                once: |budget, now| {
                    budget.received(FrameCounts { without_work: 5, data: 20 }, now);
                    budget.request();
                    budget.sent(20);
                },
                is_ended: false,
            },
            Habit {
                case: "messages of a stream, each with two WINDOW_UPDATEs and a PING",
                per_second: 10_000,
                once: |budget, now| {
                    budget.sent(6);
                    budget.received(without_work(3), now);
                },
                is_ended: false,
            },
            Habit {
                case: "a large response, two WINDOW_UPDATEs for each 128 bytes",
                per_second: 1_000,
                once: |budget, now| {
                    budget.sent(16 * 1024);
                    budget.received(without_work(2 * 16 * 1024 / 128), now);
                },
                is_ended: false,
            },
            Habit {
                case: "an upload",
                per_second: 10_000,
                once: |budget, now| budget.received(FrameCounts { without_work: 0, data: 1 }, now),
                is_ended: false,
            },
        ] {
            let begin = u32::MAX - 5_000;
            let budget = FrameBudget::of_caller(begin);
            for at in 0..60 * per_second {
                once(&budget, begin.wrapping_add(at * (1_000_000 / per_second) / 1_000));
            }
            assert_eq!(budget.is_exhausted(), is_ended, "{case}");
        }
    }

    #[test]
    fn what_was_sent_at_once_may_be_acknowledged_later() {
        let budget = FrameBudget::of_caller(0);
        budget.sent(4 << 20);
        budget.received(without_work(2 * (4 << 20) / 1024), 0);
        assert!(!budget.is_exhausted());
    }

    #[test]
    fn an_endpoint_that_floods_is_ended_too() {
        let budget = FrameBudget::of_endpoint(0);
        budget.received(without_work(10_000), 0);
        assert!(!budget.is_exhausted());
        budget.received(without_work(1), 0);
        assert!(budget.is_exhausted());
    }
}
