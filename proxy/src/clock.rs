//! A coarse clock: what is measured in seconds need not ask the kernel per request.
//!
//! A thread of its own advances it ten times a second, whatever else the process is doing; readers pay one load. Latencies
//! are measured with the real clock.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

/// How often the coarse clock advances.
const TICK: Duration = Duration::from_millis(100);

/// Milliseconds since the proxy started, at the last tick. Wraps after 49 days; differences stay right.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    start: Instant,
    now: Arc<AtomicU32>,
}

/// Keeps a clock going. It stops when this is dropped.
#[derive(Debug)]
pub(crate) struct Ticking(#[expect(dead_code, reason = "the thread sees that it is dropped")] mpsc::Sender<()>);

impl Clock {
    /// A clock that stands at zero until [`Clock::start`].
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), now: Arc::new(AtomicU32::new(0)) }
    }

    /// Starts the thread that advances it.
    pub(crate) fn start(&self) -> io::Result<Ticking> {
        let clock = self.clone();
        let (ticking, stopped) = mpsc::channel();
        let run = move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                clock.advance();
            }
        };
        thread::Builder::new().name("maesh-clock".into()).spawn(run)?;
        Ok(Ticking(ticking))
    }

    /// Sets it to the present.
    pub(crate) fn advance(&self) {
        self.now.store(self.millis_of(Instant::now()), Ordering::Relaxed);
    }

    /// Milliseconds at the last tick.
    pub(crate) fn coarse(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }

    /// The same count for an exact instant.
    #[allow(clippy::cast_possible_truncation)]
    pub(crate) fn millis_of(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.start).as_millis() as u32
    }

    /// Seconds since the proxy started, exactly.
    pub(crate) fn seconds(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    /// Nanoseconds since the proxy started, exactly.
    #[allow(clippy::cast_possible_truncation)]
    pub(crate) fn nanos(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// How long ago `then` was, at the last tick.
    pub(crate) fn since(&self, then: u32) -> Duration {
        let elapsed = self.coarse().wrapping_sub(then);
        // `then` may be exact and thus a little later than the last tick.
        if elapsed > u32::MAX / 2 { Duration::ZERO } else { Duration::from_millis(u64::from(elapsed)) }
    }
}
